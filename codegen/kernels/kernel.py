"""Kernels: which function an op needs on a tile, and modules of them.

Sizes are no part of a kernel: ops that differ only in extents, strides or the model that
they come from share one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llvmlite import ir

from ...ir.builder import StrideKind
from ...ir.dtypes import BF16
from ...ir.op import Op
from ..processor import Processor
from .builder import LLVMBuilder
from .signature import Signature


@dataclass(frozen=True)
class Kernel:
    """The identity of a kernel. `op` is any op that has it: its body makes the code."""

    family: str  # module and name of the op's class
    key: tuple[object, ...]  # `Op.key()`
    fill: float
    signature: Signature
    op: Op = field(compare=False, repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the identity, in hexadecimal; the same in every process."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    @property
    def symbol(self) -> str:
        """Its name in native code, which also says what it touches."""
        return f"kernel_{self.digest[:32]}_{self.signature.touch}"

    def emit(self, module: ir.Module) -> None:
        """Defines the function `symbol` in `module`."""
        builder = LLVMBuilder(module, self.symbol, self.signature)
        self.op.body(builder)
        builder.finish()

    def __str__(self) -> str:
        s = self.signature
        types = ", ".join(map(str, s.in_types))
        kinds = " ".join("".join(k[0] for k in row) for row in s.strides)
        along = f" along {s.lane_axis}" if s.lane_axis else ""
        return f"{self.symbol}: {self.op.name}({types}) -> {s.out_type}{along}, strides {kinds}" + (
            (f", chunks of {s.part}" if s.part else "") + (", guarded" if s.guard else "")
        )


def stride_kinds(
    op: Op, strides: Sequence[Mapping[str, int]], lane_axis: str, pairs: Sequence[bool] = ()
) -> tuple[tuple[StrideKind, ...], ...]:
    """What a kernel of `op` is told of its strides.

    strides: elements per step of each axis, for each operand and then the result; an axis left
    out does not move it. Unit strides are told along `lane_axis` and where `op.asks_unit`; an axis
    of one iteration has stride 0, whatever the buffer says. pairs: which operands are in pairs
    (`homes.View`), by default none.
    """

    def kind(step: int, axis: str, size: int, paired: bool) -> StrideKind:
        if paired and axis == lane_axis:
            return "pairs"
        if step == 0 or (size == 1 and axis != lane_axis):
            return "zero"
        return "unit" if step == 1 and (axis == lane_axis or op.asks_unit(axis)) else "any"

    given = zip(strides, (*pairs, *[False] * len(strides)), strict=False)
    return tuple(tuple(kind(s.get(a, 0), a, n, paired) for a, n in op.axes) for s, paired in given)


def kernel_for(
    op: Op,
    lane_axis: str,
    strides: tuple[tuple[StrideKind, ...], ...],
    processor: Processor,
    guard: bool = False,
    part: str = "",
) -> Kernel:
    """The kernel that computes a tile of `op`. strides: see `stride_kinds`.

    part: a reduced axis whose iterations are summed in chunks of the task's own length, or "".
    """
    if part and part not in op.reduced:
        raise ValueError(f"{op.name}: {part!r} is not reduced, its sum has no chunks")
    if len(strides) != len(op.reads) + 1 or any(len(row) != len(op.axes) for row in strides):
        raise ValueError(
            f"{op.name}: stride kinds for {len(op.reads) + 1} tensors, {len(op.axes)} axes needed"
        )
    axes = tuple(a for a, _ in op.axes)
    native = processor.dot2 and bool(op.paired) and {*op.in_types} == {BF16}
    ahead = processor.ahead and op.prefetches
    signature = Signature(
        axes,
        op.in_types,
        op.out_type,
        lane_axis,
        strides,
        processor.lanes,
        guard,
        part,
        native,
        ahead,
        len(op.bounds),
    )
    family = f"{type(op).__module__}.{type(op).__qualname__}"
    return Kernel(family, op.key(), float(op.fill), signature, op)


def make_module(kernels: Iterable[Kernel], name: str = "kernels") -> str:
    """LLVM IR of a module that defines each of `kernels` once, in the order of their symbols."""
    module = ir.Module(name)
    for _, kernel in sorted({k.symbol: k for k in kernels}.items()):
        kernel.emit(module)
    return str(module)
