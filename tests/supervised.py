"""Work in processes that may die or hang: what they leave undone is done by others."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Children start with what this process has read already: onnx's suite alone takes seconds.
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Died:
    """What became of an item whose process gave no result."""

    how: str
    seconds: float


@dataclass
class Worker(Generic[Item, Result]):
    """A process and the item that it has, if any. It is forked when it gets its first item."""

    work: Callable[[Item], Result]
    process: Any = None
    pipe: Connection | None = None
    item: Item | None = None
    since: float = field(default_factory=time.monotonic)

    def give(self, item: Item) -> None:
        if self.process is None:
            self.pipe, theirs = FORK.Pipe()
            self.process = FORK.Process(target=_serve, args=(self.work, theirs), daemon=True)
            self.process.start()
            theirs.close()
        assert self.pipe is not None
        self.item, self.since = item, time.monotonic()
        self.pipe.send(item)

    def taken(self, timeout: float) -> Result | Died | None:
        """The result or the end of the process; None while it is at work."""
        assert self.pipe is not None
        seconds = time.monotonic() - self.since
        if self.pipe.poll():
            try:
                result = self.pipe.recv()
            except EOFError:
                self.process.join()
                result = Died(_ending(self.process.exitcode), seconds)
                self.stop()
        elif seconds > timeout:
            result = Died(f"no end after {timeout:g} s", seconds)
            self.stop()
        else:
            return None
        self.item = None
        return result

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            assert self.pipe is not None
            self.pipe.close()
        self.process = self.pipe = None


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"the process ended with code {code}"


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, which then kills this process
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(work(item))


def each(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, timeout: float
) -> Iterator[tuple[Item, Result | Died]]:
    """`work` of every item, as they get ready. timeout: seconds that one item may take.

    An exception that `work` lets out ends its process, and is so a `Died` too.
    """

    def numbered(item: int) -> Result:
        return work(items[item])

    crew = [Worker(numbered) for _ in range(min(workers, len(items)))]
    todo = iter(range(len(items)))
    try:
        while True:
            for worker in crew:
                if worker.item is None and (item := next(todo, None)) is not None:
                    worker.give(item)
            busy = [w for w in crew if w.item is not None]
            if not busy:
                return
            wait([w.pipe for w in busy if w.pipe is not None], timeout=1.0)
            for worker in busy:
                item = worker.item
                assert item is not None
                if (result := worker.taken(timeout)) is not None:
                    yield items[item], result
    finally:
        for worker in crew:
            worker.stop()
