"""How long the phases of a compile take, and who is told which is on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

Report = Callable[[str, float], None]
"""(phase, share of it that is done)"""


def silent(phase: str, share: float) -> None:
    """Reports nothing."""


class Stopwatch:
    """seconds: by phase, in the order of their first starts."""

    def __init__(self, report: Report = silent) -> None:
        self.report = report
        self.seconds: dict[str, float] = {}

    def timed(self, phase: str, work: Callable[[], T]) -> T:
        """What `work` gives; its time is added to the phase's."""
        self.report(phase, 0.0)
        start = time.perf_counter()
        out = work()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
        return out
