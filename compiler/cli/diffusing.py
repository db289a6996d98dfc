"""`waferc generate --diffusion`: the options, and what passes over masks came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError, shown

if TYPE_CHECKING:
    from ..language.diffusion import Denoised, Diffusion
    from ..show.figures import Figures
    from .options import Function

OPTIONS = (
    click.option(
        "--diffusion",
        is_flag=True,
        help="Find masked tokens, several in a pass, by a model that sees both sides.",
    ),
    click.option(
        "--block", type=int, metavar="N", help="Find N tokens together; see the docs for the default."
    ),
    click.option("--steps", type=int, metavar="N", help="Complete a block in N passes of alike shares."),
    click.option(
        "--threshold", type=float, metavar="P", help="Take every token of at least this probability."
    ),
    click.option(
        "--remask", type=float, metavar="SHARE", help="Mask this share of a block's tokens again, each once."
    ),
    click.option(
        "--mask-token",
        metavar="N|TEXT",
        help="The token that stands for one to be found; by default the tokenizer's.",
    ),
)


def diffusing(function: Function) -> Function:
    """Adds the options of `Diffusing`."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True)
class Diffusing:
    """Diffusion, as the command line asks for it."""

    diffusion: bool
    block: int | None
    steps: int | None
    threshold: float | None
    remask: float | None
    mask_token: str | None

    def asked(self) -> Diffusion | None:
        """None where it is not asked for. Raises UsageError."""
        from ..language.diffusion import Diffusion

        given = ("block", "steps", "threshold", "remask", "mask_token")
        if not self.diffusion:
            for name in given:
                if getattr(self, name) is not None:
                    raise UsageError(f"--{name.replace('_', '-')} is for --diffusion")
            return None
        mask = self.mask_token
        return Diffusion(
            self.block,
            self.steps,
            self.threshold,
            self.remask or 0.0,
            int(mask) if mask is not None and mask.isdecimal() and mask.isascii() else mask,
        )


@dataclass(frozen=True)
class Passes:
    """What passes over masks came to. tokens: that the text got. cycles, microseconds: of all passes."""

    tokens: int
    found: Denoised
    cycles: float
    microseconds: float

    @property
    def count(self) -> int:
        return sum(self.found.passes.values())

    @property
    def tokens_per_second(self) -> float | None:
        """Predicted."""
        return 1e6 * self.tokens / self.microseconds if self.microseconds and self.tokens else None

    def line(self, wafer: str) -> str:
        """What is said at the end."""
        kept = f", {self.found.kept:,} of them to keep blocks" if self.found.kept else ""
        rate = self.tokens_per_second
        said = f"; {rate:,.0f} per second on {shown(wafer)}" if rate is not None else ""
        each = self.cycles / max(1, self.count)
        return (
            f"{self.count:,} passes{kept}: {self.tokens / max(1, self.count):.2f} tokens a pass of "
            f"{each:,.0f} cycles{said}"
        )

    def data(self) -> dict[str, Any]:
        """For --json."""
        return {
            "passes": dict(self.found.passes),
            "keeping_passes": self.found.kept,
            "taken": list(self.found.taken),
            "masked_again": self.found.again,
            "tokens_per_pass": self.tokens / self.count if self.count else None,
            "cycles_per_pass": self.cycles / self.count if self.count else None,
            "wafer_tokens_per_second": self.tokens_per_second,
        }


def passes(tokens: int, found: Denoised, of: Callable[[str], Figures]) -> Passes:
    """of: an entry's figures."""
    calls = [(of(entry), count) for entry, count in found.passes.items()]
    cycles = sum(f.cycles * count for f, count in calls)
    return Passes(tokens, found, cycles, sum(f.microseconds * count for f, count in calls))
