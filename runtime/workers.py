"""Host threads that are kept between calls, each on a processor of its own."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..codegen.host.records import ENDED, LINE, ControlWords
from .engine import Code

MOST_THREADS = 64


class Workers:
    """Runs an entry's calls on one thread or on several; the caller is the first of them.

    The others spin for a while after a call, then sleep. Two threads on one processor take turns at every
    barrier, so a worker pins itself away from the processor that the caller is on. The caller's own
    affinity is never touched.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        self._call = code.function("call", 5)
        self._counters: Any = np.zeros(0, np.int64)
        self._workers: list[_Worker] = []
        self._close = weakref.finalize(self, _stop, self._workers)

    def run(self, groups: int, count: int, threads: int) -> None:
        """Makes all calls of `count` groups at an address, on `threads` threads."""
        if threads == 1:
            self._call(groups, count, 0, 1, 0)
            return
        while len(self._workers) < threads - 1:
            self._workers.append(_Worker(self._code, len(self._workers) + 1))
        lines = 1 + count * threads
        if len(self._counters) < lines * (LINE // 8):
            self._counters = np.zeros(lines * (LINE // 8), np.int64)
        self._counters[: lines * (LINE // 8)] = 0
        words = groups, count
        counters = self._counters.ctypes.data
        chosen = self._workers[: threads - 1]
        for k, worker in enumerate(chosen):
            worker.start((*words, k + 1, threads, counters))
        try:
            self._call(*words, 0, threads, counters)
        finally:  # whatever interrupts the caller, nobody may still be at work when the next call starts
            for worker in chosen:
                worker.wait()


class _Worker:
    def __init__(self, code: Code, number: int) -> None:
        self._code = code  # keeps the functions alive as long as the thread
        self._serve = code.function("serve", 1, returns=True)
        self._post = code.function("post", 2, returns=True)
        self._finish = code.function("finish", 2)
        self._control: Any = np.zeros(ControlWords.SIZE, np.int64)
        self._address = self._control.ctypes.data
        self._number, self._job = number, 0
        self._words: tuple[int, ...] = ()
        self._woken = threading.Semaphore(0)
        self._processor = -1  # where the thread is pinned
        self._thread = threading.Thread(target=self._live, name=f"waferc-{number}", daemon=True)
        self._thread.start()

    def start(self, words: tuple[int, int, int, int, int]) -> None:
        """Starts the next job: `call` with those words."""
        if words != self._words:
            self._control[ControlWords.GROUPS : ControlWords.COUNTERS + 1] = self._words = words
        self._make_way()
        self._job += 1
        self._give(self._job)

    def wait(self) -> None:
        self._finish(self._address, self._job)

    def stop(self) -> None:
        self._give(ENDED)

    def _give(self, job: int) -> None:
        if self._post(self._address, job):
            self._woken.release()

    def _make_way(self) -> None:
        """Pins the thread to another processor than the caller's, where the system allows."""
        if _WHERE is None or not hasattr(os, "sched_setaffinity"):
            return
        here = _WHERE()
        if self._processor not in (-1, here):
            return
        free = [p for p in _processors() if p != here]
        if free and self._thread.native_id is not None:
            self._processor = free[(self._number - 1) % len(free)]
            os.sched_setaffinity(self._thread.native_id, {self._processor})

    def _live(self) -> None:
        while not self._serve(self._address):
            self._woken.acquire()


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


_WHERE: Callable[[], int] | None = (
    getattr(ctypes.CDLL(None), "sched_getcpu", None) if os.name == "posix" else None
)
