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
    has it; axis -1 for what counts nothing.
    """

    operand: int
    low: int
    high: int
    what: str
    axis: int = -1
    size: int = 0

    def outside(self, values: Array) -> int | None:
        """The element that a message names: the largest past the end, else the least; None for none."""
        if not values.size:
            return None
        least, largest = int(values.min()), int(values.max())
        return largest if largest >= self.high else least if least < self.low else None

    def problem(self, value: int) -> str:
        """What is wrong with an element."""
        last = self.high - 1
        allowed = f"{self.low} to {last}" if self.low < last else f"{last}" if self.low == last else "none"
        if self.axis < 0:
            return f"{self.what} is {value} (allowed: {allowed})"
        return f"{self.what} {value} is outside axis {self.axis} of {self.size} elements (allowed: {allowed})"
