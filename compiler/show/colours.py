"""From a metric's values to colours: the map, the scale and its ticks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .drawing import Colour
from .picture import Metric

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
UNUSED: Colour = (222, 222, 222)
DEAD: Colour = (0, 0, 0)
OVER: Colour = (214, 39, 40)  # over the budget
HUGE_RANGE = 1000  # largest over smallest positive value from which the scale is logarithmic


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on a linear or logarithmic scale of colours.

    bounded: whether `high` is a budget, past which values are OVER instead of brightest.
    """

    low: float
    high: float
    logarithmic: bool = False
    bounded: bool = False

    def position(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 to 1; what lies outside is put at the end, NaN stays."""
        low, high, at = self.low, self.high, values
        if self.logarithmic:
            low, high, at = np.log10(low), np.log10(high), np.log10(np.maximum(values, low))
        return np.clip((at - low) / (high - low), 0, 1)

    def colours(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        """[...] -> [..., 3]; UNUSED for NaN, OVER past a budget."""
        used = np.isfinite(values)
        at = np.where(used, self.position(values), 0)
        stops = np.linspace(0, 1, len(VIRIDIS))
        table = np.array(VIRIDIS, np.float64)
        channels = [np.interp(at, stops, table[:, i]) for i in range(3)]
        out = np.rint(np.stack(channels, -1)).astype(np.uint8)
        out[~used] = UNUSED
        if self.bounded:
            out[used & (values > self.high)] = OVER
        return out

    def ticks(self) -> list[float]:
        """Round values from low to high: powers of ten, or steps of 1, 2 or 5 times one."""
        if self.logarithmic:
            powers = range(int(np.ceil(np.log10(self.low))), int(np.floor(np.log10(self.high))) + 1)
            return [10.0**p for p in powers]
        rough = (self.high - self.low) / 6
        power = 10.0 ** np.floor(np.log10(rough))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
        count = int(np.floor((self.high - self.low) / step + 1e-9))
        return [self.low + i * step for i in range(count + 1)]


def scale_of(metric: Metric) -> Scale:
    """Linear from 0 to the budget, else to the most; logarithmic where values span more than HUGE_RANGE."""
    if metric.budget is not None:
        return Scale(0, metric.budget, bounded=True)
    values = metric.values[np.isfinite(metric.values)]
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
