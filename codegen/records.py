"""The executor's tables as data: words of each record, and relocatable tables of them.

Free of LLVM, so that a saved program is loaded without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..placement.layout import Ints
    from .kernels import Kernel


class Record(IntEnum):
    """Words of a step record."""

    KERNEL = 0  # function, 0: none
    STRIDES = 1  # the kernel's op block
    COLUMNS = 2
    ROWS = 3
    STEPS = 4
    AXES = 5  # count
    OPERANDS = 6  # count, with the result
    BASES = 7  # i64 per core of the region: address of its SRAM
    START = 8  # number of the grid's first core
    COLUMN_PITCH = 9
    ROW_PITCH = 10
    AXIS_TABLE = 11
    OPERAND_TABLE = 12
    MOVES = 13  # count
    MOVE_TABLE = 14
    FIRST = 15  # i64 per time step
    FILLS = 16  # count
    FILL_TABLE = 17
    BOUNDS = 18  # [operands, 2] byte offsets in SRAM
    WATCH = 19  # address of the watch record
    NUMBER = 20  # the step's position, -1 for what the host lays and reads
    CLAIMS = 21  # count
    CLAIM_TABLE = 22
    OWNED = 23  # count
    OWNED_TABLE = 24
    SIZE = 25


class AxisWords(IntEnum):
    X = 0
    Y = 1
    T = 2
    EXTENT = 3
    ORIGIN = 4
    SIZE = 5


class OperandWords(IntEnum):
    OFFSET = 0  # bytes in the core's SRAM
    X = 1  # bytes per column, row, step
    Y = 2
    T = 3
    BACKWARD = 4  # count of axes that run backwards through the operand
    BACKWARD_TABLE = 5
    SIZE = 6


class BackwardWords(IntEnum):
    """From a box's first element to that of iteration 0: (extent of the axis - 1) * bytes."""

    AXIS = 0
    BYTES = 1
    SIZE = 2


class MoveWords(IntEnum):
    FUNCTION = 0
    BASES = 1
    SOURCE = 2  # byte offset in the source core's SRAM
    TARGET = 3  # byte offset in the consumer's
    START = 4
    DIMENSIONS = 5
    OPERAND = 6  # of the step, -1 where the move fills the result
    SOURCE_TAG = 7  # of the buffer read and the one written; HOST_TAG: the host's memory
    TARGET_TAG = 8
    SIZE = 9


class DimensionWords(IntEnum):
    X = 0
    Y = 1
    T = 2
    START = 3
    CORE = 4
    SOURCE = 5
    TARGET = 6
    LENGTH = 7
    SOURCE_PITCH = 8
    TARGET_PITCH = 9
    SIZE = 10


class FillWords(IntEnum):
    OFFSET = 0
    ELEMENTS = 1
    VALUE = 2
    BYTES = 3  # of an element
    SIZE = 4


class ClaimWords(IntEnum):
    """a range of SRAM that a record takes over: tagged as its buffer's, and poisoned unless kept."""

    OFFSET = 0
    BYTES = 1
    TAG = 2
    ONCE = 3  # 1: when the record comes to a core; 0: before each of its time steps
    KEPT = 4  # 1: what lies there is the buffer's own
    SIZE = 5


class OwnedWords(IntEnum):
    """a range that must still be its buffer's when the kernel starts."""

    OFFSET = 0
    BYTES = 1
    TAG = 2
    OPERAND = 3
    SIZE = 4


class WatchWords(IntEnum):
    """What was found first. CODE to ADDRESS are filled by who finds a violation, once."""

    CODE = 0
    OPERAND = 1
    ADDRESS = 2
    STEP = 3  # position + 1; 0 for what the host lays or reads
    CORE = 4  # number in the region's table
    TIME = 5
    ARENA = 6  # address of the literal SRAM, and its bytes
    BYTES = 7
    TAGS = 8  # address of an int32 for every GRANULE bytes of the arena
    PREVIOUS = 9  # whether the last 2-byte element moved was poison
    HARMLESS = 10  # where an access goes that must not happen
    PLACED = 11  # 1: STEP, CORE and TIME are filled
    SIZE = 16


READ_FOREIGN = 4  # a violation besides those of `guard`: SRAM that is not, or no longer, its buffer's
GRANULE = 4  # bytes of SRAM under one tag; buffers start at its multiples
FREE, HOST_TAG = 0, -1  # tags: nobody's SRAM, the host's memory; buffers' are above (see `tags`)


class Base(IntEnum):
    """What is added to a relocated word."""

    WORDS = 0  # the address of the table itself
    KERNEL = 1  # `value` is the kernel's number; the word becomes its address
    PULL = 2
    REGION = 3  # the address of a region's table of core addresses
    HOST = 4  # the address of the cell that holds a host buffer's address
    WATCH = 5  # the address of the watch record
    ARENA = 6  # the address of the arena that holds the homes


@dataclass(frozen=True, order=True)
class Pull:
    """Which pull function a move needs. combine "" copies.

    rank: dimensions; the entries of the last `box` of them are rows of elements, of others single ones.
    """

    rank: int
    box: int
    dtype: str
    combine: str = ""

    @property
    def symbol(self) -> str:
        kind = f"{self.combine or 'copy'}_{self.dtype}"
        return f"pull{self.rank}_{self.box}_{kind}"


Section = tuple[int, int]  # word offset of the first record, how many
HostKind = Literal["constant", "input", "output"]
HostBuffer = tuple[HostKind, str]  # and the tensor's name


@dataclass(frozen=True)
class Tables:
    """The words and how to relocate them.

    laying: constants, once; poisoning: before a call's inputs; inputs: one record per
    graph input, each call; steps; reading: the outputs. relocations: int64 [n, 3]: word, Base,
    value. host: the host's buffers, numbered.
    """

    words: Ints
    relocations: Ints
    laying: Section
    poisoning: Section
    inputs: Section
    steps: Section
    reading: Section
    host: tuple[HostBuffer, ...]
    laid: tuple[str, ...]  # the graph input of each record of `inputs`


@dataclass(frozen=True)
class Lowered:
    """A plan's tables and the code that they call."""

    tables: Tables
    kernels: tuple[Kernel, ...]
    pulls: tuple[Pull, ...]


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
class Placed:
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
    constants: tuple[Placed, ...]
    margins: tuple[Margins, ...]


@dataclass(frozen=True)
class Calls:
    """An entry's groups as words, and where its inputs are laid and its outputs read.

    relocations: int64 [n, 3]: word, Base, value. bound: inputs and outputs that are used where the
    caller has them: addresses in their homes are moved there before a call. shared: whether a call is
    worth a second thread. fills: int64 [n, 4]: extents of calls that read a cache as far as it is filled: the
    word, the whole extent, the call's first position, and whether it is not that of the positions.
    """

    words: Ints
    relocations: Ints
    fills: Ints
    groups: Section
    inputs: tuple[Placed, ...]
    outputs: tuple[Placed, ...]
    bound: frozenset[str]
    shared: bool


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
