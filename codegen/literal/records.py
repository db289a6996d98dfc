"""The guarded run's tables: the words of its records, by section."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ...placement.plan.layout import Ints
    from ..kernels.kernel import Kernel
from ..words import Judged, Section


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


HostKind = Literal["constant", "input", "output"]


HostBuffer = tuple[HostKind, str]  # and the tensor's name


@dataclass(frozen=True)
class Tables:
    """The words and how to relocate them.

    laying: constants, once; poisoning: before a call's inputs; inputs: one record per
    graph input, each call; steps; reading: the outputs; kept: one record per state, which reads it between
    calls. relocations: int64 [n, 3]: word, Base, value. host: the host's buffers, numbered.
    """

    words: Ints
    relocations: Ints
    laying: Section
    poisoning: Section
    inputs: Section
    steps: Section
    reading: Section
    kept: Section
    host: tuple[HostBuffer, ...]
    laid: tuple[str, ...]  # the graph input of each record of `inputs`
    states: tuple[str, ...]  # and the state of each of `kept`
    judged: tuple[Judged, ...]  # what each report is of


@dataclass(frozen=True)
class Lowered:
    """A plan's tables and the code that they call."""

    tables: Tables
    kernels: tuple[Kernel, ...]
    pulls: tuple[Pull, ...]
