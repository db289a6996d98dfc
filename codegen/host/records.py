"""The quick run's tables: the words of its groups and sweeps, and what is placed and called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...placement.plan.layout import Ints
from ..words import Judged, Section


class GroupWords(IntEnum):
    ITEMS = 0
    SWEEPS = 1  # count
    TABLE = 2
    SHARED = 3  # 1: every thread takes its share of the items; 0: the first thread takes all
    BARRIER = 4  # 1: all threads meet after this group
    SIZE = 5


class SweepWords(IntEnum):
    KERNEL = 0
    STRIDES = 1  # the kernel's op block
    CALLS = 2  # task blocks, one after the other
    BYTES = 3  # of a task block
    ITEMS = 4  # [items + 1]: number of each item's first call
    SIZE = 5


@dataclass(frozen=True)
class HostCopy:
    """A strided copy between an array of the host and the arena. Offsets and strides in bytes."""

    tensor: str
    dtype: str  # NumPy's name of the stored bits
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]
    host_offset: int
    host_strides: tuple[int, ...]


@dataclass(frozen=True)
class Margins:
    """Memory to fill once with a value, before anything is laid: a home with margins."""

    offset: int
    elements: int
    dtype: str
    fill: float


@dataclass(frozen=True)
class Resident:
    """What all entries of a program share: the bytes of the arena, and what lies there from the start."""

    arena: int
    constants: tuple[HostCopy, ...]
    margins: tuple[Margins, ...]


@dataclass(frozen=True)
class Calls:
    """An entry's groups as words, and where its inputs are laid and its outputs read.

    relocations: int64 [n, 3]: word, Base, value. bound: inputs and outputs that are used where the
    caller has them: addresses in their homes are moved there before a call. shared: whether a call is
    worth a second thread. fills: int64 [n, 4]: extents of calls that read a cache as far as it is filled: the
    word, the whole extent, the call's first position, and whether it is not that of the positions.
    judged: what each report is of.
    """

    words: Ints
    relocations: Ints
    fills: Ints
    groups: Section
    inputs: tuple[HostCopy, ...]
    outputs: tuple[HostCopy, ...]
    bound: frozenset[str]
    shared: bool
    judged: tuple[Judged, ...]


LINE = 64  # bytes that no two threads should write at the same time


ASLEEP, ENDED = -1, -2  # instead of a job's number


class ControlWords(IntEnum):
    """How the first thread of a call starts another one."""

    POST = 0  # the newest job's number; ASLEEP: none is looked for; ENDED: the thread shall end
    DONE = 8  # the newest finished job's number, in a cache line of its own
    LAST = 9  # the same, for the thread itself
    GROUPS = 16
    COUNT = 17
    THREAD = 18
    THREADS = 19
    COUNTERS = 20
    SIZE = 24
