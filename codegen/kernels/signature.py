"""What a kernel is told of its buffers: when it is made, and in the blocks of words of each call."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.builder import StrideKind
from ...ir.dtypes import DType


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
    reports: whether operands hold indices that may be outside their axis (`Op.bounds`).
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
    reports: bool = False

    @property
    def types(self) -> tuple[DType, ...]:
        """Of the operands, then of the result."""
        return (*self.in_types, self.out_type)

    @property
    def layout(self) -> TaskLayout:
        return TaskLayout(len(self.types), self.axes, self.reports)
