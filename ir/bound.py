"""What indices that data give are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Bound:
    """What the elements of an operand must lie in, low <= element < high: a run that meets another one fails.

    operand: its number. what: an element's name in messages. axis, size: what it counts along, as the model
    has it.
    """

    operand: int
    low: int
    high: int
    what: str
    axis: int
    size: int

    def outside(self, values: Array) -> int | None:
        """The element that a message names: the largest past the end, else the least; None for none."""
        if not values.size:
            return None
        least, largest = int(values.min()), int(values.max())
        return largest if largest >= self.high else least if least < self.low else None

    def problem(self, value: int) -> str:
        """What is wrong with an element."""
        allowed = f"{self.low} to {self.high - 1}" if self.low < self.high else "none"
        return f"{self.what} {value} is outside axis {self.axis} of {self.size} elements (allowed: {allowed})"
