"""Host threads that are kept between calls, each on a processor of its own."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable

MOST_THREADS = 64
Work = Callable[[int], None]  # of one thread, by its number


class Workers:
    """Threads 1 to n - 1 of a call; the caller is thread 0.

    Two threads on one processor take turns at every barrier, so a worker pins itself away from the
    processor that the caller is on. The caller's own affinity is never touched.
    """

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._close = weakref.finalize(self, _stop, self._workers)

    def run(self, work: Work, threads: int) -> None:
        """`work(k)` for every k below `threads`, at the same time. Raises what the caller's share raises."""
        while len(self._workers) < threads - 1:
            self._workers.append(_Worker(len(self._workers) + 1))
        free = _others() if threads > 1 else []
        chosen = self._workers[: threads - 1]
        for k, worker in enumerate(chosen):
            worker.start(work, free[k] if len(free) >= len(chosen) else None)
        try:
            work(0)
        finally:
            for worker in chosen:
                worker.wait()


class _Worker:
    def __init__(self, number: int) -> None:
        self._number = number
        self._given, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._work: Work | None = None
        self._processor: int | None = None
        threading.Thread(target=self._serve, name=f"waferc-{number}", daemon=True).start()

    def start(self, work: Work, processor: int | None) -> None:
        self._work, self._wanted = work, processor
        self._given.release()

    def wait(self) -> None:
        self._done.acquire()

    def stop(self) -> None:
        self._work = None
        self._given.release()

    def _serve(self) -> None:
        while True:
            self._given.acquire()
            work = self._work
            if work is None:
                return
            try:
                if self._wanted is not None and self._wanted != self._processor:
                    os.sched_setaffinity(0, {self._wanted})
                    self._processor = self._wanted
                work(self._number)
            finally:
                self._work = None
                del work
                self._done.release()


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.stop()


def usable() -> int:
    """Processors that this process may run on."""
    return len(_processors())


def _processors() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _others() -> list[int]:
    """Processors besides the one that the caller is on; none where the system does not tell."""
    if _WHERE is None or not hasattr(os, "sched_setaffinity"):
        return []
    here = _WHERE()
    return [p for p in _processors() if p != here]


_WHERE: Callable[[], int] | None = (
    getattr(ctypes.CDLL(None), "sched_getcpu", None) if os.name == "posix" else None
)
