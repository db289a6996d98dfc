"""From a metric's values to colours: the map, the scale and its ticks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .drawing import Colour
from .metrics import Metric

# Viridis (van der Walt and Smith, 2015, CC0), without its darkest eighth, which could be taken for DEAD. Its
# lightness rises evenly, so it reads the same with any colour blindness and in grey.
VIRIDIS: tuple[Colour, ...] = (
    (71, 42, 122),
    (68, 59, 132),
    (62, 76, 138),
    (55, 91, 141),
    (48, 106, 142),
    (42, 119, 142),
    (37, 132, 142),
    (32, 146, 140),
    (31, 159, 136),
    (37, 172, 130),
    (55, 184, 120),
    (80, 196, 106),
    (110, 206, 88),
    (144, 215, 67),
    (181, 222, 43),
    (218, 227, 25),
    (253, 231, 37),
)
# Blue for less, red for more, whatever the colour blindness: ColorBrewer's RdBu (Cynthia Brewer, Apache-2.0).
CHANGES: tuple[Colour, ...] = (
    (5, 48, 97),
    (33, 102, 172),
    (67, 147, 195),
    (146, 197, 222),
    (209, 229, 240),
    (250, 250, 250),
    (253, 219, 199),
    (244, 165, 130),
    (214, 96, 77),
    (178, 24, 43),
    (103, 0, 31),
)
# Categories: Paul Tol's "muted", made for colour blindness too; the last is for all others.
CATEGORIES: tuple[Colour, ...] = (
    (136, 204, 238),
    (204, 102, 119),
    (17, 119, 51),
    (221, 204, 119),
    (51, 34, 136),
    (170, 68, 153),
    (68, 170, 153),
    (153, 153, 51),
    (136, 34, 85),
    (150, 150, 150),
)
UNUSED: Colour = (222, 222, 222)
DEAD: Colour = (0, 0, 0)
OVER: Colour = (214, 39, 40)  # over the budget
LARGEST = 1e18  # of a limit
HUGE_RANGE = 1000  # largest over smallest positive value from which the scale is logarithmic


Kind = Literal["amount", "change", "category"]


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on a linear or logarithmic scale of colours.

    bounded: whether `high` is a budget, past which values are OVER instead of brightest. kind: amounts,
    changes to both sides of zero, or numbers of categories.
    """

    low: float
    high: float
    logarithmic: bool = False
    bounded: bool = False
    kind: Kind = "amount"

    def position(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 to 1; what lies outside is put at the end, NaN stays."""
        low, high, at = self.low, self.high, values
        if self.logarithmic:
            low, high, at = np.log10(low), np.log10(high), np.log10(np.maximum(values, low))
        return np.clip((at - low) / (high - low), 0, 1)

    def colours(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        """[...] -> [..., 3]; UNUSED for NaN, OVER past a budget."""
        used = np.isfinite(values)
        if self.kind == "category":
            number = np.where(used, values, 0).astype(np.int64) % len(CATEGORIES)
            out = np.array(CATEGORIES, np.uint8)[number]
        else:
            table = np.array(CHANGES if self.kind == "change" else VIRIDIS, np.float64)
            at = np.where(used, self.position(values), 0)
            stops = np.linspace(0, 1, len(table))
            channels = [np.interp(at, stops, table[:, i]) for i in range(3)]
            out = np.rint(np.stack(channels, -1)).astype(np.uint8)
        out[~used] = UNUSED
        if self.bounded:
            out[used & (values > self.high)] = OVER
        return out

    def asked_for(self, how: str) -> Scale:
        """The same with other limits: "auto", "linear", "log", or "LOW:HIGH".

        A logarithmic scale begins above 0. Raises ValueError for something else, and for limits that are no
        rising numbers.
        """
        if how == "auto":
            return self
        if how == "linear":
            return Scale(0, self.high, bounded=self.bounded)
        if how == "log":
            low = self.low if self.low > 0 else self.high / HUGE_RANGE
            return Scale(low, self.high, logarithmic=True, bounded=self.bounded)
        low, high = map(float, how.split(":"))
        if not -LARGEST < low < high < LARGEST:
            raise ValueError(f"{how}: limits rise")
        return Scale(low, high, bounded=self.bounded and high == self.high)

    def ticks(self) -> list[float]:
        """Round values from low to high: powers of ten, or steps of 1, 2 or 5 times one."""
        if self.logarithmic:
            powers = range(int(np.ceil(np.log10(self.low))), int(np.floor(np.log10(self.high))) + 1)
            return [10.0**p for p in powers]
        rough = (self.high - self.low) / 6
        power = 10.0 ** np.floor(np.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        first, last = np.ceil(self.low / step - 1e-9), np.floor(self.high / step + 1e-9)
        return [i * step for i in range(int(first), int(last) + 1)]


def scale_of(*metrics: Metric) -> Scale:
    """The scale that metrics of one kind share: linear from 0 to the budget, else to the most.

    Logarithmic where values span more than HUGE_RANGE; of changes, as far to both sides.
    """
    first = metrics[0]
    if first.categories:
        return Scale(0, max(1, len(first.categories) - 1), kind="category")
    if first.budget is not None:
        return Scale(0, first.budget, bounded=True)
    values = np.concatenate([m.values[np.isfinite(m.values)] for m in metrics])
    if first.difference:
        most = float(np.abs(values).max(initial=0)) or 1.0
        return Scale(-most, most, kind="change")
    positive = values[values > 0]
    if not len(positive):
        return Scale(0, 1)
    low, high = float(positive.min()), float(positive.max())
    if high > low * HUGE_RANGE:
        return Scale(low, high, logarithmic=True)
    return Scale(0, high)


def number(value: float) -> str:
    """As read on a legend: 44,976 or 2.5e+09 or 0.25."""
    if abs(value) >= 1e8:
        return f"{value:.3g}"
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def brief(value: float) -> str:
    """In at most five characters, for a cell: 950, 45.0k, 1.2M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scaled = value / min(limit, 1e3 if unit == "k" else limit)
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.2g}"
