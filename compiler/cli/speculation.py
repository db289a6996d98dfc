"""`waferc generate --speculate`: the option, and what drafts were worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..errors import shown
from .named_files import Reads

if TYPE_CHECKING:
    from ..language.decoding import Speculated
    from ..show.figures import Figures
    from .saved import Saved

LOOKUP = "lookup"
CLOSE = 1e-4  # of the largest logit: how far entries' logits may be apart, by the rule of `waferc verify`


class Drafting(Reads):
    """`lookup`, or a program that is read."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value if value == LOOKUP else super().convert(value, param, ctx)


@dataclass(frozen=True)
class Speculation:
    """What drafts were worth. decoded: tokens after the first. cycles, microseconds: of all passes for them,
    those of a smaller model among them.
    """

    decoded: int
    found: Speculated
    cycles: float
    microseconds: float

    @property
    def passes(self) -> int:
        return sum(self.found.passes.values())

    @property
    def tokens_per_pass(self) -> float | None:
        return self.decoded / self.passes if self.passes else None

    @property
    def tokens_per_second(self) -> float | None:
        """Predicted."""
        return 1e6 * self.decoded / self.microseconds if self.microseconds and self.decoded else None

    def lines(self, without: float | None, wafer: str) -> list[str]:
        """What is said at the end. without: tokens per second without drafts."""
        tokens, rate = self.tokens_per_pass, self.tokens_per_second
        if tokens is None:
            return []
        line = (
            f"{self.found.accepted:,} of {self.found.drafted:,} drafted tokens accepted: "
            f"{tokens:.2f} tokens a pass of {self.cycles / self.passes:,.0f} cycles"
        )
        if rate is not None and without is not None:
            line += f"; {rate:,.0f} per second on {shown(wafer)}, {without:,.0f} without"
        close = self.found.closest
        if close is None or close >= CLOSE:
            return [line]
        return [line, f"a token was {close:.0e} of the largest logit ahead: rounding may have chosen it"]

    def data(self) -> dict[str, Any]:
        """For --json."""
        return {
            "drafted": self.found.drafted,
            "accepted": self.found.accepted,
            "passes": dict(self.found.passes),
            "drafting_passes": dict(self.found.drafting),
            "tokens_per_pass": self.tokens_per_pass,
            "cycles_per_pass": self.cycles / self.passes if self.passes else None,
            "wafer_tokens_per_second": self.tokens_per_second,
            "closest": self.found.closest,
        }


def speculation(
    decoded: int, found: Speculated, of: Callable[[str], Figures], drafting: Saved | None
) -> Speculation:
    """of: an entry's figures. drafting: the program of the smaller model, which runs on a wafer of its own
    description; the two take turns."""
    calls = [(of(entry), count) for entry, count in found.passes.items()]
    if drafting is not None:
        calls += [(drafting.figures_of(entry), count) for entry, count in found.drafting.items()]
    cycles, microseconds = (
        sum(value * count for value, count in each)
        for each in (
            [(figures.cycles, count) for figures, count in calls],
            [(figures.microseconds, count) for figures, count in calls],
        )
    )
    return Speculation(decoded, found, cycles, microseconds)
