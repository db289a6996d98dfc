"""Addresses of operands' elements, computed where their parts become known.

`base + sum(index * stride)`: every part is emitted in the block that defines its
index, so that a loop holds what depends on it and no more. What follows a loop's
own index is a pointer that the loop advances; constant steps come last, as
`odd multiple of the stride << shift`, which an addressing mode takes for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from llvmlite import ir

from ...ir.builder import StrideKind, Value
from ...ir.dtypes import I64
from .arithmetic import I8_TYPE, I64_TYPE, POINTER, LLVMValue

FIXED: Mapping[StrideKind, int] = {"zero": 0, "unit": 1, "pairs": 2}  # strides that are known


@dataclass(frozen=True, eq=False)
class Loop:
    """An open loop: its index and the pointers that advance with it."""

    before: ir.Block
    head: ir.Block
    start: ir.Value
    step: int
    advancing: list[tuple[ir.PhiInstr, ir.Value]] = field(default_factory=list[tuple[ir.PhiInstr, ir.Value]])


@dataclass(frozen=True)
class Sum:
    """An index as the sum of values defined in several blocks and a constant."""

    parts: tuple[LLVMValue, ...]
    constant: int = 0


@dataclass(frozen=True)
class TaskLayout:
    """Word numbers in the blocks that a kernel is called with; see `codegen.builder`."""

    operands: int  # with the result, which is the last
    axes: tuple[str, ...]

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

    def words(self, guard: bool) -> int:
        """The length of a task block."""
        return self.error + 1 if guard else self.chunk + 1

    def stride(self, operand: int, axis: str) -> int:
        """In the op block."""
        return operand * len(self.axes) + self.axes.index(axis)


class Addresses:
    """The pointers of one kernel, each made once."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        task: ir.Value,
        op: ir.Value,
        layout: TaskLayout,
        kinds: tuple[tuple[StrideKind, ...], ...],
        sizes: tuple[int, ...],
    ) -> None:
        self.builder = builder
        self.entry = builder.block
        self.layout = layout
        self.loops: dict[ir.Value, Loop] = {}
        self.sums: dict[ir.Value, Sum] = {}
        self.order: dict[ir.Block, int] = {self.entry: 0}  # along any path of dominance it grows
        self._task, self._op, self._kinds, self._sizes = task, op, kinds, sizes
        self._words: dict[tuple[str, int], LLVMValue] = {}
        self._made: dict[tuple[object, ...], LLVMValue] = {}

    def enter(self, block: ir.Block) -> None:
        """Continues at the end of `block`."""
        self.order.setdefault(block, len(self.order))
        self.builder.position_at_end(block)

    def task_word(self, number: int) -> LLVMValue:
        return self._word("task", number, I64_TYPE)

    def kind(self, operand: int, axis: str) -> StrideKind:
        return self._kinds[operand][self.layout.axes.index(axis)]

    def _word(self, block: str, number: int, type: ir.Type) -> LLVMValue:
        found = self._words.get((block, number))
        if found is None:
            with self.builder.goto_block(self.entry):
                base = self._task if block == "task" else self._op
                at = self.builder.gep(base, [ir.Constant(I64_TYPE, number)], source_etype=I64_TYPE)
                value = self.builder.load(at, typ=type, align=8)
            found = self._words[block, number] = LLVMValue(I64, value, self.entry)
        return found

    def stride(self, operand: int, axis: str, multiple: int = 1) -> ir.Value:
        """`multiple` strides in bytes, from the entry block."""
        size = self._sizes[operand]
        kind = self.kind(operand, axis)
        if kind != "any":
            return ir.Constant(I64_TYPE, multiple * size * FIXED[kind])
        key = ("stride", operand, axis, multiple)
        if key not in self._made:
            word = self._word("op", self.layout.stride(operand, axis), I64_TYPE)
            with self.builder.goto_block(self.entry):
                value = self.builder.mul(word.ir, ir.Constant(I64_TYPE, multiple * size))
            self._made[key] = LLVMValue(word.dtype, value, self.entry)
        return self._made[key].ir

    def pointer(self, operand: int, index: Mapping[str, Value]) -> ir.Value:
        """Where the operand's element at `index` lies."""
        parts: list[tuple[str, LLVMValue]] = []
        constants: list[tuple[str, int]] = []
        for axis, value in index.items():
            if self.kind(operand, axis) == "zero":
                continue
            v = cast(LLVMValue, value)
            total = self.sums.get(v.ir) or (
                Sum((), cast(int, v.ir.constant)) if isinstance(v.ir, ir.Constant) else Sum((v,))
            )
            parts += [(axis, p) for p in total.parts]
            if total.constant:
                constants.append((axis, total.constant))
        parts.sort(key=lambda p: self.order[p[1].block])
        at = self._word("task", operand, POINTER)
        key: tuple[object, ...] = ("pointer", operand)
        for axis, part in parts:
            key = (*key, axis, part.ir)
            if key not in self._made:
                self._made[key] = self._step(operand, axis, at, part)
            at = self._made[key]
        if not constants:
            return at.ir
        key = (*key, *constants)
        if key not in self._made:
            self._made[key] = self._shifted(operand, at, constants)
        return self._made[key].ir

    def _shifted(self, operand: int, at: LLVMValue, constants: Sequence[tuple[str, int]]) -> LLVMValue:
        """The pointer `at` moved by a constant number of strides along some axes, in its own block."""
        displacement = 0
        moves: list[tuple[ir.Value, int]] = []
        for axis, count in constants:
            if fixed := FIXED.get(self.kind(operand, axis)):
                displacement += count * self._sizes[operand] * fixed
            else:
                shift = (count & -count).bit_length() - 1
                moves.append((self.stride(operand, axis, count >> shift), shift))
        out = at.ir
        with self.builder.goto_block(at.block):
            for odd, shift in moves:
                out = self._gep(out, self.builder.shl(odd, ir.Constant(I64_TYPE, shift)) if shift else odd)
            if displacement:
                out = self._gep(out, ir.Constant(I64_TYPE, displacement))
        return LLVMValue(at.dtype, out, at.block)

    def _gep(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        return self.builder.gep(pointer, [offset], source_etype=I8_TYPE)

    def _step(self, operand: int, axis: str, at: LLVMValue, part: LLVMValue) -> LLVMValue:
        """The pointer `at` moved by `part` strides, in the block that defines `part`."""
        loop = self.loops.get(part.ir)
        pitch = self.stride(operand, axis)  # not inside `goto_block`, which does not nest
        if self.kind(operand, axis) in FIXED or loop is None or at.block is loop.head:
            with self.builder.goto_block(part.block):
                offset = self.builder.mul(part.ir, pitch)
                return LLVMValue(at.dtype, self._gep(at.ir, offset), part.block)
        with self.builder.goto_block(loop.before):
            start = at.ir
            if not isinstance(loop.start, ir.Constant) or loop.start.constant:
                start = self._gep(start, self.builder.mul(loop.start, pitch))
        here = self.builder.block
        self.builder.position_at_start(loop.head)
        phi = self.builder.phi(POINTER)
        self.builder.position_at_end(here)
        phi.add_incoming(start, loop.before)
        loop.advancing.append((phi, self.stride(operand, axis, loop.step)))
        return LLVMValue(at.dtype, phi, loop.head)

    def close(self, index: ir.Value) -> None:
        """Advances the loop's pointers; the current block is the loop's last."""
        loop = self.loops.pop(index)
        for phi, pitch in loop.advancing:
            phi.add_incoming(self._gep(phi, pitch), self.builder.block)
