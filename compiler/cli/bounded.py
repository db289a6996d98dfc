"""`--max-memory`: a command in a process of its own that the system gives no more."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from ..errors import quoted

LEAST = 256 << 20  # bytes: Python, NumPy, onnx and LLVM with a small model take 190 million
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = re.compile(r"(\d{1,18})([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
BUG = 70
OVER = 5


class Size(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]  # generic from click 8.4 on
    """A count of bytes, such as 2G."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = SIZE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            self.fail(f"{quoted(str(value))} is no size such as 2G or 512M", param, ctx)
        size = int(found[1]) * UNITS[found[2].upper()]
        if size < LEAST:
            self.fail(f"{size:,} bytes are less than the {LEAST:,} of the smallest model", param, ctx)
        if not sys.platform.startswith("linux"):
            self.fail("it needs Linux, whose kernel keeps it", param, ctx)
        return min(size, (1 << 63) - 1)


def bounded(bytes_: int, work: Callable[[], Any], say: Callable[[str], None]) -> Any:
    """What `work` returns, done in a forked process that may take `bytes_` of memory (RLIMIT_DATA: all that
    is its own and can be written to; memory that is only set aside, as --guard does, counts, too).

    In that process this raises MemoryError where they do not suffice. In this one it returns the other's exit
    code: OVER where native code ended it for want of memory, which has no other way to say so; `say` then
    tells. Signals that end a process are handed on.
    """
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)  # it is the parent's
        _die_with_parent()
        os.setpgid(0, 0)  # a terminal's interrupt comes from the parent, once
        resource.setrlimit(resource.RLIMIT_DATA, (bytes_, bytes_))
        try:
            return work()
        except Exception as e:
            if not _wants_memory(e):
                raise
            raise MemoryError(_over(str(e) if isinstance(e, MemoryError) else "", bytes_)) from e

    def hand_on(number: int, _: Any) -> None:
        os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    how, peak = signal.Signals(-code), used.ru_maxrss << 10
    if how == signal.SIGABRT or peak > bytes_ // 2:
        say(_over(f"native code ended with {how.name}, {peak:,} bytes in use", bytes_))
        return OVER
    if how in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        return 128 + how
    say(f"a bug of ours, please report it: the process ended with {how.name}")
    return BUG


def _wants_memory(e: Exception) -> bool:
    """Whether memory was lacking; protobuf calls that an EncodeError."""
    known = isinstance(e, MemoryError) or (isinstance(e, OSError) and e.errno == errno.ENOMEM)
    return known or type(e).__name__ == "EncodeError"


def _over(what: str, bytes_: int) -> str:
    what = what[:1].lower() + what[1:] if what else "no more memory"
    return f"{what}; --max-memory allows {bytes_:,} bytes in all; try a larger one, or a smaller --wafer"


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
