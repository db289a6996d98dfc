"""How long the phases of a compile take, and who is told which is on, and what is being done in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

Report = Callable[[str, float], None]
"""(phase, with what is being done after ": " if that is known; share of the phase that is done)"""


def silent(phase: str, share: float) -> None:
    """Reports nothing."""


_PHASE: ContextVar[tuple[str, Report]] = ContextVar("phase", default=("", silent))


def tell(what: str, share: float) -> None:
    """Says what is being done in the phase that is on, and how much of it is done: from wherever in it."""
    phase, report = _PHASE.get()
    report(f"{phase}: {what}", share)


class Stopwatch:
    """seconds: by phase, in the order of their first starts."""

    def __init__(self, report: Report = silent) -> None:
        self.report = report
        self.seconds: dict[str, float] = {}

    def timed(self, phase: str, work: Callable[[], T]) -> T:
        """What `work` gives; its time is added to the phase's. Meanwhile `tell` tells of this phase."""
        self.report(phase, 0.0)
        start = time.perf_counter()
        before = _PHASE.set((phase, self.report))
        try:
            return work()
        finally:
            _PHASE.reset(before)
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
