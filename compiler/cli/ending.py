"""How a command ends before its time: by a signal, or with streams that are closed, full or not read."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from ...ir.disk import remove_temporaries

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 2.0  # seconds until a command that is in native code, and hears nothing, is ended all the same


class Ended(BaseException):
    """By a signal. As KeyboardInterrupt it is no Exception: nobody takes it for an error of what ran."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number

    def __str__(self) -> str:
        if self.code == 128 + signal.SIGINT:
            return "interrupted"
        return f"ended by {signal.Signals(self.code - 128).name}"


class Unread(Exception):
    """Whoever read stdout has seen enough."""


@dataclass
class Signals:
    """The first signal raises `Ended` in the main thread. A second one, or GRACE without an answer, ends the
    process; temporaries are taken away first. number: of the first.
    """

    number: int | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def handle(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            raise Ended(number)

    def watch(self, pipe: int) -> None:
        """Reads the numbers of signals, as they come, and 0 at the end."""
        while (number := os.read(pipe, 1)[0]) not in ENDING:
            if not number:
                return
        self._over.wait(GRACE)
        if not self._over.is_set():
            with suppress(OSError):
                os.write(2, f"waferc: error: {Ended(number)}\n".encode())
            remove_temporaries()
            os._exit(128 + number)

    def end(self) -> None:
        self._over.set()


@contextmanager
def signals() -> Generator[Signals]:
    """While the block runs, signals end it in order. In a thread other than the main one: as they are."""
    heard = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    out, into = os.pipe()
    os.set_blocking(into, False)
    watcher = threading.Thread(target=heard.watch, args=(out,), daemon=True)
    watcher.start()
    before: dict[signal.Signals, Any] = {}
    others = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    try:
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup says
                before[number] = signal.signal(number, heard.handle)
        yield heard
    finally:
        heard.end()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(others)
        with suppress(OSError):
            os.write(into, b"\0")
        watcher.join()
        os.close(out)
        os.close(into)


def ready_streams() -> None:
    """Gives closed streams something to lead to: a file must not become stdout by being opened.

    What is read is empty, and errors are lost, but results must not be: writing to stdout fails as if it
    were still closed.
    """
    for number, name, mode in (
        (0, "stdin", os.O_RDONLY),
        (1, "stdout", os.O_RDONLY),
        (2, "stderr", os.O_WRONLY),
    ):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, mode)
            os.dup2(handle, number)
            if handle != number:
                os.close(handle)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def let_go(stream: IO[Any]) -> None:
    """Leads a stream that cannot be written into nothing, so that what is left in it is no error at exit."""
    with suppress(OSError, ValueError):  # no file of the system's
        number = stream.fileno()
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, number)
        os.close(handle)
