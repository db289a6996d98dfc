"""What a kernel is told of its buffers: when it is made, and in the blocks of words of each call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.builder import StrideKind
from ...ir.dtypes import DType

FIXED: Mapping[StrideKind, int] = {"zero": 0, "unit": 1, "pairs": 2}  # strides that are known
LETTERS: dict[str, StrideKind] = {"z": "zero", "u": "unit", "p": "pairs", "a": "any"}


@dataclass(frozen=True)
class TaskLayout:
    """Word numbers in the blocks that a kernel is called with; see `builder`."""

    operands: int  # with the result, which is the last
    axes: tuple[str, ...]
    reports: bool = False  # whether the kernel notes indices outside their axis

    def extent(self, axis: str) -> int:
        return self.operands + self.axes.index(axis)

    def origin(self, axis: str) -> int:
        return self.operands + len(self.axes) + self.axes.index(axis)

    @property
    def mode(self) -> int:
        """Of FRESH, RESUME or JOIN (`ir.builder`)."""
        return self.operands + 2 * len(self.axes)

    @property
    def chunk(self) -> int:
        """Of the iterations of `Signature.part` that are summed on their own; 0: all of them."""
        return self.mode + 1

    def bound(self, operand: int) -> int:
        """Of the operand's lowest valid address; its end is the next word. Guarded kernels only."""
        return self.chunk + 1 + 2 * operand

    @property
    def error(self) -> int:
        """Of the error record's address. Guarded kernels only."""
        return self.bound(self.operands)

    def report(self, guard: bool) -> int:
        """Of the address of the step's reports (`words.REPORT`). Of kernels that report; guarded ones have it
        in any case."""
        return self.error + 1 if guard else self.chunk + 1

    def words(self, guard: bool) -> int:
        """The length of a task block."""
        return self.report(guard) + (guard or self.reports)

    def stride(self, operand: int, axis: str) -> int:
        """In the op block."""
        return operand * len(self.axes) + self.axes.index(axis)


@dataclass(frozen=True)
class Signature:
    """What a kernel knows of its buffers when it is made.

    strides: for each operand, then the result, what is known along each axis.
    lanes: elements of a vector, whatever their type; a power of two. part: a reduced axis
    whose iterations are summed in chunks (see `KernelBuilder.chunks`), or "". dot2: whether pairs of bf16
    are multiplied by the host's instruction for them. ahead: whether what is read once is prefetched.
    reports: how many bounds its operands' indices are held to (`Op.bounds`).
    """

    axes: tuple[str, ...]
    in_types: tuple[DType, ...]
    out_type: DType
    lane_axis: str
    strides: tuple[tuple[StrideKind, ...], ...]
    lanes: int
    guard: bool = False
    part: str = ""
    dot2: bool = False
    ahead: bool = False
    reports: int = 0

    @property
    def types(self) -> tuple[DType, ...]:
        """Of the operands, then of the result."""
        return (*self.in_types, self.out_type)

    @property
    def layout(self) -> TaskLayout:
        return TaskLayout(len(self.types), self.axes, self.reports > 0)

    @property
    def touch(self) -> Touch:
        return Touch(tuple(t.bytes for t in self.types), self.strides, self.reports)


@dataclass(frozen=True)
class Touch:
    """What decides which bytes a kernel touches in a call, besides the call's own words.

    A kernel's name says it: so who calls the kernel can be judged without a look into its code.
    sizes: bytes of an element, of each operand and the result. strides, reports: as in `Signature`.
    """

    sizes: tuple[int, ...]
    strides: tuple[tuple[StrideKind, ...], ...]
    reports: int = 0

    @property
    def axes(self) -> int:
        return len(self.strides[0])

    def __str__(self) -> str:
        letters = {kind: letter for letter, kind in LETTERS.items()}
        rows = zip(self.sizes, self.strides, strict=True)
        tensors = "".join(f"{size}{''.join(letters[k] for k in row)}" for size, row in rows)
        return tensors + (f"r{self.reports}" if self.reports else "")

    @staticmethod
    def read(text: str) -> Touch | None:
        """That of `str`; None for another text."""
        found = re.fullmatch(r"((?:[1248][zupa]*)+)(?:r([1-9]\d{0,2}))?", text, re.ASCII)
        if found is None:
            return None
        rows: list[tuple[str, str]] = re.findall(r"([1248])([zupa]*)", found[1])
        strides: list[tuple[StrideKind, ...]] = []
        for _, letters in rows:
            kinds: list[StrideKind] = [LETTERS[c] for c in letters]
            strides.append(tuple(kinds))
        sizes = tuple(int(size) for size, _ in rows)
        return Touch(sizes, tuple(strides), int(found[2] or 0)) if len({*map(len, strides)}) == 1 else None
