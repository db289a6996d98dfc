"""A kernel's loads and stores: one element, lanes along the vectors' axis, squares and pairs of them.

With guard, every access is checked for the bytes that it spans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from llvmlite import ir

from ...ir.builder import StrideKind, Value
from ...ir.dtypes import BF16, BOOL, I32, DType
from . import guard
from .addresses import Addresses, add_index
from .arithmetic import I8_TYPE, I32_TYPE, I64_TYPE, LLVMArithmetic, LLVMValue, suffix, type_of
from .bf16_pairs import neighbours, only_first, packed
from .guard import Guard
from .loops import Lanes, constant_word
from .signature import Signature
from .squares import turned

# Bytes ahead of a stream's reads that a processor is asked for, and into which of its caches (LLVM's
# locality: 3 is the first level, 2 the second). Its own prefetching leaves some of the bandwidth idle.
AHEAD = ((1024, 3), (3072, 2))
CACHE_LINE = 64


class Memory:
    """The accesses of one kernel. Operands are by number, the result last; see `ir.builder.KernelBuilder`."""

    def __init__(
        self,
        b: LLVMArithmetic,
        at: Addresses,
        signature: Signature,
        lanes: Lanes,
        guard: Guard | None,
    ) -> None:
        self._b, self._at, self._guard = b, at, guard
        self._builder, self._width = b.builder, signature.lanes
        self._signature, self._lanes, self._lane_axis = signature, lanes, signature.lane_axis
        self._result = len(signature.in_types)

    def load(self, operand: int, index: Mapping[str, Value]) -> Value:
        dtype, pointer = self._signature.types[operand], self._at.pointer(operand, index)

        def access() -> ir.Value:
            return self._builder.load(pointer, typ=_stored(dtype, 0), align=dtype.bytes)

        return self._loaded(dtype, self._read(operand, pointer, 0, access), 0)

    def load_lanes(self, operand: int, index: Mapping[str, Value], other: float | int = 0) -> Value:
        dtype, kind = self._signature.types[operand], self._lane_kind(operand)
        past = cast(LLVMValue, self._b.splat(self._b.const(other, dtype)))
        if kind == "zero":
            first = {a: i for a, i in index.items() if a != self._lane_axis}
            one = self._b.splat(self.load(operand, first))
            if self._lanes.mask is None:
                return one
            return self._b.select(self._b.make(BOOL, self._lanes.mask, self._width), one, past)
        pointer = self._at.pointer(operand, index)
        type = _stored(dtype, self._width)
        if dtype == BOOL:
            fill: ir.Value = ir.Constant(type, [int(bool(other))] * self._width)
        else:
            fill = past.ir

        def access() -> ir.Value:
            align = ir.Constant(I32_TYPE, dtype.bytes)
            if kind == "unit":
                return self._in_lanes(pointer, type, dtype.bytes, fill)
            name = f"llvm.masked.gather.{suffix(type)}.v{self._width}p0"
            return self._b.intrinsic(
                name, type, [self._scattered(operand, pointer), align, self._lanes.chosen(), fill]
            )

        return self._loaded(dtype, self._read(operand, pointer, self._width, access), self._width)

    def prefetch(self, operand: int, places: Sequence[Mapping[str, Value]]) -> None:
        dense = self._lane_kind(operand) in ("unit", "pairs")
        if not self._signature.ahead or self._lanes.mask is not None or not dense:
            return
        both = self._lane_kind(operand) == "pairs"
        size = self._width * self._signature.types[operand].bytes * (1 + both)
        read, data = ir.Constant(I32_TYPE, 0), ir.Constant(I32_TYPE, 1)
        for ahead, level in AHEAD:
            for index in places[:: max(1, CACHE_LINE // size)]:
                here, further = self._at.pointer(operand, index), constant_word(ahead)
                at = self._builder.gep(here, [further], source_etype=I8_TYPE)
                given = [at, read, ir.Constant(I32_TYPE, level), data]
                self._b.intrinsic("llvm.prefetch.p0", ir.VoidType(), given)

    def load_square(self, operand: int, index: Mapping[str, Value], axis: str) -> Sequence[Value]:
        dtype, e = self._signature.types[operand], self._builder
        at = [{**index, axis: self._further(index[axis], j)} for j in range(self._width)]
        whole = self._lanes.mask is None and self._guard is None and 2 <= dtype.bytes <= 4
        if not whole or self._width not in (4, 8, 16) or self._at.kind(operand, axis) != "unit":
            return [self.load_lanes(operand, i) for i in at]
        lane, type = self._lane_axis, _stored(dtype, self._width)
        rows = [
            e.load(self._at.pointer(operand, {**index, lane: start}), typ=type, align=dtype.bytes)
            for start in (self._further(index[lane], j) for j in range(self._width))
        ]
        return [self._b.make(dtype, v, self._width) for v in turned(e, rows)]

    def load_pair(
        self, operand: int, index: Mapping[str, Value], axis: str, lanes: bool, alone: float | None = None
    ) -> Value:
        if lanes and self._lane_kind(operand) == "pairs":
            both = self._in_lanes(self._at.pointer(operand, index), type_of(I32, self._width), BF16.bytes)
            if alone is not None:
                return only_first(self._b, both, alone)
            return self._b.make(I32, both, self._width)
        load = self.load_lanes if lanes else self.load
        if alone is not None:
            return packed(self._b, load(operand, index), self._b.const(alone, BF16))
        if not lanes and self._guard is None and self._at.kind(operand, axis) == "unit":
            word = self._builder.load(self._at.pointer(operand, index), typ=I32_TYPE, align=BF16.bytes)
            return neighbours(self._b, word, self._signature.dot2)
        following = {**index, axis: self._further(index[axis], 1)}
        return packed(self._b, load(operand, index), load(operand, following))

    def store(self, value: Value, index: Mapping[str, Value]) -> None:
        result, dtype = self._result, self._signature.out_type
        pointer, raw = self._at.pointer(result, index), self._to_store(value, 0)
        self._write(result, pointer, 0, lambda: self._builder.store(raw, pointer, align=dtype.bytes))

    def store_lanes(self, value: Value, index: Mapping[str, Value]) -> None:
        result, dtype = self._result, self._signature.out_type
        kind = self._lane_kind(result)
        if kind == "zero":
            raise ValueError(f"the lanes of {self._lane_axis!r} would all be stored to one element")
        pointer, raw = self._at.pointer(result, index), self._to_store(value, self._width)

        def access() -> ir.Value:
            align = ir.Constant(I32_TYPE, dtype.bytes)
            if kind == "unit" and self._lanes.mask is None:
                return self._builder.store(raw, pointer, align=dtype.bytes)
            if kind == "unit":
                name = f"llvm.masked.store.{suffix(raw.type)}.p0"
                return self._b.intrinsic(name, ir.VoidType(), [raw, pointer, align, self._lanes.chosen()])
            name = f"llvm.masked.scatter.{suffix(raw.type)}.v{self._width}p0"
            where = self._scattered(result, pointer)
            return self._b.intrinsic(name, ir.VoidType(), [raw, where, align, self._lanes.chosen()])

        self._write(result, pointer, self._width, access)

    def _further(self, index: Value, steps: int) -> Value:
        return add_index(self._b, self._at, index, steps)

    def _in_lanes(
        self, pointer: ir.Value, type: ir.Type, align: int, fill: ir.Value | None = None
    ) -> ir.Value:
        """A vector from its first element on; `fill` (0) in the lanes past the tile."""
        if self._lanes.mask is None:
            return self._builder.load(pointer, typ=type, align=align)
        others = ir.Constant(type, None) if fill is None else fill
        given = [pointer, ir.Constant(I32_TYPE, align), self._lanes.mask, others]
        return self._b.intrinsic(f"llvm.masked.load.{suffix(type)}.p0", type, given)

    def _lane_kind(self, operand: int) -> StrideKind:
        return self._at.kind(operand, self._lane_axis) if self._lane_axis else "unit"

    def _scattered(self, operand: int, pointer: ir.Value) -> ir.Value:
        """The lanes' own addresses."""
        e, block = self._builder, self._builder.block
        lane = self._lanes.numbers
        pitch = self._b.vector_of(self._at.stride(operand, self._lane_axis), self._b.entry)
        base = self._b.vector_of(e.ptrtoint(pointer, I64_TYPE), block)
        return e.inttoptr(e.add(base, e.mul(pitch, lane)), ir.VectorType(ir.PointerType(), self._width))

    def _span(self, operand: int, lanes: int) -> tuple[ir.Value, ir.Value]:
        """The bytes that the active lanes cover, counted from the first one's address."""
        e, zero, size = self._builder, constant_word(0), constant_word(self._signature.types[operand].bytes)
        if not lanes:
            return zero, size
        if self._lane_kind(operand) == "unit":
            return zero, e.mul(self._lanes.active, size)
        pitch = self._at.stride(operand, self._lane_axis)
        reach = e.mul(e.sub(self._lanes.active, constant_word(1)), pitch)
        back = e.icmp_signed("<", reach, zero)
        return e.select(back, reach, zero), e.add(e.select(back, zero, reach), size)

    def _read(self, operand: int, pointer: ir.Value, lanes: int, access: Callable[[], ir.Value]) -> ir.Value:
        if self._guard is None:
            return access()
        raw = self._guard.access(operand, pointer, self._span(operand, lanes), guard.READ_OUTSIDE, access)
        strided = lanes and self._lane_axis
        pitch = self._at.stride(operand, self._lane_axis) if strided else constant_word(0)
        mask = self._lanes.chosen() if lanes else None
        self._guard.loaded(operand, self._signature.types[operand], raw, pointer, mask, pitch)
        return raw

    def _write(self, operand: int, pointer: ir.Value, lanes: int, access: Callable[[], ir.Value]) -> None:
        if self._guard is None:
            access()
        else:
            self._guard.access(operand, pointer, self._span(operand, lanes), guard.WRITE_OUTSIDE, access)

    def _loaded(self, dtype: DType, raw: ir.Value, lanes: int) -> Value:
        if dtype != BOOL:
            return self._b.make(dtype, raw, lanes)
        none = ir.Constant(raw.type, [0] * lanes if lanes else 0)
        return self._b.make(BOOL, self._builder.icmp_unsigned("!=", raw, none), lanes)

    def _to_store(self, value: Value, lanes: int) -> ir.Value:
        v = cast(LLVMValue, self._b.splat(value) if lanes else value)
        if v.dtype != self._signature.out_type or v.lanes != lanes:
            raise TypeError(f"a {v.dtype} of {v.lanes} lanes stored as {self._signature.out_type}")
        return self._builder.zext(v.ir, _stored(BOOL, lanes)) if v.dtype == BOOL else v.ir


def _stored(dtype: DType, lanes: int) -> ir.Type:
    """The LLVM type of elements in memory: a bool is a byte."""
    if dtype == BOOL:
        return ir.VectorType(I8_TYPE, lanes) if lanes else I8_TYPE
    return type_of(dtype, lanes)
