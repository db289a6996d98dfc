"""How much is done when compiling: bounds on each constant that is made, and on all bytes and work together.

A few bytes of a model can ask for any amount of either. What passes a bound is left to the run where an
operator can do it there, and refused else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph import TooLarge
from .op import Array

MOST_MADE = 1 << 26  # bytes of one constant that is larger than what it is made of
MOST_BYTES = 1 << 28  # of all constants that are made, or OWN_BYTES times what the model brings
MOST_WORK = 1 << 27  # elements that pass through operations, or OWN_WORK for each byte the model brings
MOST_SEEN = 1 << 24  # elements of an operand as an op sees it, in windows say, which NumPy may hold all
OWN_BYTES, OWN_WORK = 3, 4
LITTLE = 1 << 12  # elements made and computed that are no matter: shape arithmetic never stops


@dataclass
class Folding:
    """What has been done so far. own: bytes of the constants that the model brings. made: of all others.
    worked: elements that passed through operations. written: nodes of loops in
    loops that were written out. inside: loops around what is written out now."""

    own: int = 0
    made: int = 0
    worked: int = 0
    written: int = 0
    inside: int = 0

    @property
    def most_bytes(self) -> int:
        return max(MOST_BYTES, OWN_BYTES * self.own)

    def take(self, made: int, given: int, work: int) -> bool:
        """Whether a constant of `made` bytes is made of `given` ones with so much work; it counts then."""
        little = made <= 8 * LITTLE and work <= LITTLE
        fits = made <= max(MOST_MADE, given) and self.made + made <= self.most_bytes
        quick = self.worked + work <= max(MOST_WORK, OWN_WORK * self.own)
        if not little and not (fits and quick):
            return False
        self.made += made
        self.worked += work
        return True

    def line(self, count: int) -> Array:
        """0, 1, ..., as int64. Raises TooLarge."""
        self.need(8 * count, f"a constant of {count:,} places")
        return np.arange(count)

    def need(self, made: int, what: str) -> None:
        """Counts a constant that only compiling can make; TooLarge, before it is there, where it may not."""
        if made <= 8 * LITTLE:
            return
        judge_made(made, what)
        if self.made + made > self.most_bytes:
            raise TooLarge(
                f"{what} takes {made:,} bytes, others made when compiling {self.made:,}; "
                f"together they have at most {self.most_bytes:,}"
            )
        self.made += made


def judge_made(made: int, what: str) -> None:
    """Raises TooLarge for a constant of more than MOST_MADE bytes."""
    if made > MOST_MADE:
        raise TooLarge(
            f"{what} takes {made:,} bytes; a constant made when compiling has at most {MOST_MADE:,}"
        )
