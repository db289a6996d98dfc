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
from .arithmetic import I8_TYPE, I64_TYPE, POINTER, LLVMArithmetic, LLVMValue
from .signature import FIXED, Signature


@dataclass(frozen=True, eq=False)
class OpenLoop:
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


class Addresses:
    """The pointers of one kernel, each made once."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        task: ir.Value,
        op: ir.Value,
        signature: Signature,
    ) -> None:
        self.builder = builder
        self.entry = builder.block
        self.layout = signature.layout
        self.loops: dict[ir.Value, OpenLoop] = {}
        self.sums: dict[ir.Value, Sum] = {}
        self.order: dict[ir.Block, int] = {self.entry: 0}  # along any path of dominance it grows
        self._task, self._op, self._kinds = task, op, signature.strides
        self._sizes = tuple(t.bytes for t in signature.types)
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
            total = _sum(self, value)
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


def add_index(arithmetic: LLVMArithmetic, at: Addresses, a: Value, b: Value | int) -> Value:
    """The sum of two indices (i64), whose parts pointers then follow."""
    second = arithmetic.const(b, I64) if isinstance(b, int) else b
    x, y = _sum(at, a), _sum(at, second)
    total = Sum((*x.parts, *y.parts), x.constant + y.constant)
    if not total.parts:
        return arithmetic.const(total.constant, I64)
    if len(total.parts) == 1 and not total.constant:
        return total.parts[0]
    out = cast(LLVMValue, arithmetic.add(a, second))
    at.sums[out.ir] = total
    return out


def _sum(at: Addresses, value: Value) -> Sum:
    v = cast(LLVMValue, value)
    if isinstance(v.ir, ir.Constant):
        return Sum((), cast(int, v.ir.constant))
    return at.sums.get(v.ir) or Sum((v,))
