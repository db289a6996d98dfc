"""`ir.builder.KernelBuilder` in LLVM IR.

A kernel is `void kernel(i64 *task, i64 *op)`. All words are 64 bits:

    task: address of each operand, address of the result, extent of each axis, origin of each
          axis, mode (FRESH, RESUME or JOIN), chunk; guarded kernels also: lowest valid byte address
          and end of each operand and of the result, address of an i64[4] error record
    op:   for each operand, then the result: stride of each axis, in elements

An operand's address is that of the element at the tile's first iteration. What lies outside
a tensor was filled by the caller: loads need no bounds. Loops carry their values in phis, so
the code is as fast without LLVM's optimisation passes as with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from llvmlite import ir

from ...ir.builder import Carried, Combine, StrideKind, Value
from ...ir.dtypes import BF16, BOOL, I32, I64, DType
from . import guard
from .addresses import Addresses, Loop, Sum, TaskLayout
from .arithmetic import I8_TYPE, I32_TYPE, I64_TYPE, LLVMArithmetic, LLVMValue, suffix, type_of
from .bf16_pairs import dot2, neighbours, only_first, packed
from .guard import Guard
from .squares import turned

# Bytes ahead of a stream's reads that a processor is asked for, and into which of its caches (LLVM's
# locality: 3 is the first level, 2 the second). Its own prefetching leaves some of the bandwidth idle.
AHEAD = ((1024, 3), (3072, 2))
CACHE_LINE = 64


@dataclass(frozen=True)
class Signature:
    """What a kernel knows of its buffers when it is made.

    strides: for each operand, then the result, what is known along each axis.
    lanes: elements of a vector, whatever their type; a power of two. part: a reduced axis
    whose iterations are summed in chunks (see `KernelBuilder.chunks`), or "". dot2: whether pairs of bf16
    are multiplied by the host's instruction for them. ahead: whether what is read once is prefetched.
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

    @property
    def types(self) -> tuple[DType, ...]:
        """Of the operands, then of the result."""
        return (*self.in_types, self.out_type)

    @property
    def layout(self) -> TaskLayout:
        return TaskLayout(len(self.types), self.axes)


class LLVMBuilder(LLVMArithmetic):
    """The body of one kernel; `finish` ends it."""

    def __init__(self, module: ir.Module, name: str, signature: Signature) -> None:
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), ir.PointerType()])
        function = ir.Function(module, kind, name)
        function.attributes.add("nounwind")
        super().__init__(module, ir.IRBuilder(function.append_basic_block("entry")), signature.lanes)
        self.signature = signature
        self.lane_axis, self.part = signature.lane_axis, signature.part
        self.small = signature.guard  # every access is checked: far more code
        self._layout = signature.layout
        self._at = Addresses(
            self.builder,
            function.args[0],
            function.args[1],
            self._layout,
            signature.strides,
            tuple(t.bytes for t in signature.types),
        )
        self._guard = Guard(module, self.builder, self._at, self._layout) if signature.guard else None
        self._group = 1
        self._mask: ir.Value | None = None  # of the lanes that lie in the tile; None: all
        self._active: ir.Value = _word(signature.lanes)  # how many they are

    def finish(self) -> None:
        self.builder.ret_void()

    # -- the tile ------------------------------------------------------------------
    def extent(self, axis: str) -> Value:
        return self._at.task_word(self._layout.extent(axis))

    def origin(self, axis: str) -> Value:
        return self._at.task_word(self._layout.origin(axis))

    def in_mode(self, mode: int) -> Value:
        return self.compare("eq", self._at.task_word(self._layout.mode), self.const(mode, I64))

    def stride_kind(self, operand: int, axis: str) -> StrideKind:
        return self._at.kind(self._operand(operand), axis)

    def _operand(self, operand: int) -> int:
        return operand if operand >= 0 else len(self.signature.in_types)

    # -- loops ---------------------------------------------------------------------
    def loop(
        self,
        count: Value | int,
        body: Callable[[Value, Carried], Carried],
        carried: Carried = (),
        step: int = 1,
        some: bool = False,
    ) -> Carried:
        limit = _word(count) if isinstance(count, int) else cast(LLVMValue, count).ir
        return self._loop(_word(0), limit, step, step, body, carried, some)[1]

    def _loop(
        self,
        start: ir.Value,
        limit: ir.Value,
        step: int | ir.Value,
        need: int,
        body: Callable[[Value, Carried], Carried],
        carried: Carried,
        some: bool = False,
    ) -> tuple[ir.Value, Carried]:
        """`body(i, carried)` for i = start, start + step, ... while i + need <= limit.

        The first i not reached, and the last carried. some: it runs at least once.
        """
        e = self.builder
        initial = [cast(LLVMValue, c) for c in carried]
        last = e.sub(limit, _word(need))
        before, head, after = e.block, e.append_basic_block("loop"), e.append_basic_block("after")
        if some:
            e.branch(head)
        else:
            e.cbranch(e.icmp_signed("<=", start, last), head, after)
        self._at.enter(head)
        index = e.phi(I64_TYPE)
        index.add_incoming(start, before)
        if isinstance(step, int):
            self._at.loops[index] = Loop(before, head, start, step)
        phis = [e.phi(c.ir.type) for c in initial]
        for phi, c in zip(phis, initial, strict=True):
            phi.add_incoming(c.ir, before)
        inside = [self.make(c.dtype, p, c.lanes) for p, c in zip(phis, initial, strict=True)]
        out = [
            cast(LLVMValue, self.splat(o) if c.lanes else o)
            for o, c in zip(body(self.make(I64, index, 0), inside), initial, strict=True)
        ]
        following = e.add(index, _word(step) if isinstance(step, int) else step)
        if isinstance(step, int):
            self._at.close(index)
        end = e.block
        index.add_incoming(following, end)
        for phi, o in zip(phis, out, strict=True):
            phi.add_incoming(o.ir, end)
        e.cbranch(e.icmp_signed("<=", following, last), head, after)
        self._at.enter(after)
        if some:
            return following, [self.make(o.dtype, o.ir, o.lanes) for o in out]

        def join(first: ir.Value, then: ir.Value) -> ir.Value:
            phi = e.phi(first.type)
            phi.add_incoming(first, before)
            phi.add_incoming(then, end)
            return phi

        reached = join(start, following)
        return reached, [
            self.make(c.dtype, join(c.ir, o.ir), c.lanes) for c, o in zip(initial, out, strict=True)
        ]

    def lane_loop(
        self,
        body: Callable[[Value, Carried], Carried],
        carried: Carried = (),
        vectors: Sequence[int] = (1,),
    ) -> Carried:
        count = cast(LLVMValue, self.extent(self.lane_axis)).ir if self.lane_axis else _word(1)

        def masked(i: Value, inner: Carried) -> Carried:
            left = self.builder.sub(count, cast(LLVMValue, i).ir)
            full = _word(self.lanes)
            self._active = self.builder.select(self.builder.icmp_signed("<", left, full), left, full)
            number = self.vector_of(self.builder.trunc(self._active, I32_TYPE), self.builder.block)
            lane = ir.Constant(ir.VectorType(I32_TYPE, self.lanes), list(range(self.lanes)))
            self._mask = self.builder.icmp_unsigned("<", lane, number)
            return body(i, inner)

        start: ir.Value = _word(0)
        for self._group in vectors:
            whole = self._group * self.lanes
            start, carried = self._loop(start, count, whole, whole, body, carried)
        self._group = 1
        _, carried = self._loop(start, count, self.lanes, 1, masked, carried)
        self._mask, self._active = None, _word(self.lanes)
        return carried

    def chunks(self, body: Callable[[Value, Value, Carried], Carried], carried: Carried) -> Carried:
        count = self._at.task_word(self._layout.extent(self.part)).ir
        given = self._at.task_word(self._layout.chunk).ir
        with self.builder.goto_block(self.entry):
            step = self.builder.select(self.builder.icmp_signed("==", given, _word(0)), count, given)

        def inside(i: Value, inner: Carried) -> Carried:
            left = self.builder.sub(count, cast(LLVMValue, i).ir)
            length = self.builder.select(self.builder.icmp_signed("<", left, step), left, step)
            return body(i, self.make(I64, length, 0), inner)

        return self._loop(_word(0), count, step, 1, inside, carried, True)[1]

    def group(self) -> int:
        return self._group

    def lane_offset(self, vector: int) -> Value:
        return self.const(vector * self.lanes, I64)

    def lane_numbers(self, start: Value) -> Value:
        lane = ir.Constant(ir.VectorType(I64_TYPE, self.lanes), list(range(self.lanes)))
        return self.add(start, LLVMValue(I64, lane, self.entry, self.lanes))

    def add_index(self, a: Value, b: Value | int) -> Value:
        second = self.const(b, I64) if isinstance(b, int) else b
        x, y = self._sum(a), self._sum(second)
        total = Sum((*x.parts, *y.parts), x.constant + y.constant)
        if not total.parts:
            return self.const(total.constant, I64)
        if len(total.parts) == 1 and not total.constant:
            return total.parts[0]
        out = cast(LLVMValue, self.add(a, second))
        self._at.sums[out.ir] = total
        return out

    def _sum(self, value: Value) -> Sum:
        v = cast(LLVMValue, value)
        if isinstance(v.ir, ir.Constant):
            return Sum((), cast(int, v.ir.constant))
        return self._at.sums.get(v.ir) or Sum((v,))

    def where(self, condition: Value, then: Callable[[], None]) -> None:
        e = self.builder
        inside, after = e.append_basic_block("then"), e.append_basic_block("after")
        e.cbranch(cast(LLVMValue, condition).ir, inside, after)
        self._at.enter(inside)
        then()
        e.branch(after)
        self._at.enter(after)

    def either(
        self, condition: Value, then: Callable[[], Carried], otherwise: Callable[[], Carried]
    ) -> Carried:
        e = self.builder
        inside, outside, after = (e.append_basic_block(n) for n in ("then", "otherwise", "after"))
        e.cbranch(cast(LLVMValue, condition).ir, inside, outside)
        ways: list[tuple[ir.Block, list[LLVMValue]]] = []
        for block, way in ((inside, then), (outside, otherwise)):
            self._at.enter(block)
            values = [cast(LLVMValue, v) for v in way()]
            ways.append((e.block, values))
            e.branch(after)
        self._at.enter(after)
        (one, first), (two, second) = ways
        out: list[Value] = []
        for a, b in zip(first, second, strict=True):
            phi = e.phi(a.ir.type)
            phi.add_incoming(a.ir, one)
            phi.add_incoming(b.ir, two)
            out.append(self.make(a.dtype, phi, a.lanes))
        return out

    def reduce_lanes(self, kind: Combine, value: Value) -> Value:
        v = cast(LLVMValue, value)
        join = {"add": self.add, "mul": self.mul, "min": self.min, "max": self.max}[kind]
        lanes = v.lanes
        while lanes > 1:
            lanes //= 2
            none = ir.Constant(v.ir.type, ir.Undefined)
            low, high = (
                ir.Constant(ir.VectorType(I32_TYPE, lanes), list(range(at, at + lanes))) for at in (0, lanes)
            )
            a, b = (
                self.make(v.dtype, self.builder.shuffle_vector(v.ir, none, m), lanes) for m in (low, high)
            )
            v = cast(LLVMValue, join(a, b))
        return self.make(v.dtype, self.builder.extract_element(v.ir, ir.Constant(I32_TYPE, 0)), 0)

    # -- memory --------------------------------------------------------------------
    def load(self, operand: int, index: Mapping[str, Value]) -> Value:
        number = self._operand(operand)
        dtype, pointer = self.signature.types[number], self._at.pointer(number, index)

        def access() -> ir.Value:
            return self.builder.load(pointer, typ=_stored(dtype, 0), align=dtype.bytes)

        return self._loaded(dtype, self._read(number, pointer, 0, access), 0)

    def load_lanes(self, operand: int, index: Mapping[str, Value], other: float | int = 0) -> Value:
        number = self._operand(operand)
        dtype, kind = self.signature.types[number], self._lane_kind(number)
        past = cast(LLVMValue, self.splat(self.const(other, dtype)))
        if kind == "zero":
            one = self.splat(self.load(operand, {a: i for a, i in index.items() if a != self.lane_axis}))
            if self._mask is None:
                return one
            return self.select(self.make(BOOL, self._mask, self.lanes), one, past)
        pointer = self._at.pointer(number, index)
        type = _stored(dtype, self.lanes)
        if dtype == BOOL:
            fill: ir.Value = ir.Constant(type, [int(bool(other))] * self.lanes)
        else:
            fill = past.ir

        def access() -> ir.Value:
            align = ir.Constant(I32_TYPE, dtype.bytes)
            if kind == "unit":
                return self._in_lanes(pointer, type, dtype.bytes, fill)
            name = f"llvm.masked.gather.{suffix(type)}.v{self.lanes}p0"
            return self.intrinsic(
                name, type, [self._scattered(number, pointer), align, self._lanes_in(), fill]
            )

        return self._loaded(dtype, self._read(number, pointer, self.lanes, access), self.lanes)

    def prefetch(self, operand: int, places: Sequence[Mapping[str, Value]]) -> None:
        number = self._operand(operand)
        dense = self._lane_kind(number) in ("unit", "pairs")
        if not self.signature.ahead or self._mask is not None or not dense:
            return
        size = self.lanes * self.signature.types[number].bytes * (1 + (self._lane_kind(number) == "pairs"))
        read, data = ir.Constant(I32_TYPE, 0), ir.Constant(I32_TYPE, 1)
        for ahead, level in AHEAD:
            for index in places[:: max(1, CACHE_LINE // size)]:
                at = self.builder.gep(self._at.pointer(number, index), [_word(ahead)], source_etype=I8_TYPE)
                given = [at, read, ir.Constant(I32_TYPE, level), data]
                self.intrinsic("llvm.prefetch.p0", ir.VoidType(), given)

    def load_square(self, operand: int, index: Mapping[str, Value], axis: str) -> Sequence[Value]:
        number = self._operand(operand)
        dtype, e = self.signature.types[number], self.builder
        at = [{**index, axis: self.add_index(index[axis], j)} for j in range(self.lanes)]
        whole = self._mask is None and self._guard is None and 2 <= dtype.bytes <= 4
        if not whole or self.lanes not in (4, 8, 16) or self.stride_kind(operand, axis) != "unit":
            return [self.load_lanes(operand, i) for i in at]
        lane, type = self.lane_axis, _stored(dtype, self.lanes)
        rows = [
            e.load(self._at.pointer(number, {**index, lane: start}), typ=type, align=dtype.bytes)
            for start in (self.add_index(index[lane], j) for j in range(self.lanes))
        ]
        return [self.make(dtype, v, self.lanes) for v in turned(e, rows)]

    def load_pair(
        self, operand: int, index: Mapping[str, Value], axis: str, lanes: bool, alone: float | None = None
    ) -> Value:
        number = self._operand(operand)
        if lanes and self._lane_kind(number) == "pairs":
            both = self._in_lanes(self._at.pointer(number, index), type_of(I32, self.lanes), BF16.bytes)
            return self.make(I32, both, self.lanes) if alone is None else only_first(self, both, alone)
        load = self.load_lanes if lanes else self.load
        if alone is not None:
            return packed(self, load(operand, index), self.const(alone, BF16))
        if not lanes and self._guard is None and self.stride_kind(operand, axis) == "unit":
            word = self.builder.load(self._at.pointer(number, index), typ=I32_TYPE, align=BF16.bytes)
            return neighbours(self, word, self.signature.dot2)
        following = {**index, axis: self.add_index(index[axis], 1)}
        return packed(self, load(operand, index), load(operand, following))

    def dot2(self, a: Value, b: Value, c: Value) -> Value:
        return dot2(self, a, b, c, self.signature.dot2)

    def store(self, value: Value, index: Mapping[str, Value]) -> None:
        number, dtype = self._operand(-1), self.signature.out_type
        pointer, raw = self._at.pointer(number, index), self._to_store(value, 0)
        self._write(number, pointer, 0, lambda: self.builder.store(raw, pointer, align=dtype.bytes))

    def store_lanes(self, value: Value, index: Mapping[str, Value]) -> None:
        number, dtype = self._operand(-1), self.signature.out_type
        kind = self._lane_kind(number)
        if kind == "zero":
            raise ValueError(f"the lanes of {self.lane_axis!r} would all be stored to one element")
        pointer, raw = self._at.pointer(number, index), self._to_store(value, self.lanes)

        def access() -> ir.Value:
            align = ir.Constant(I32_TYPE, dtype.bytes)
            if kind == "unit" and self._mask is None:
                return self.builder.store(raw, pointer, align=dtype.bytes)
            if kind == "unit":
                name = f"llvm.masked.store.{suffix(raw.type)}.p0"
                return self.intrinsic(name, ir.VoidType(), [raw, pointer, align, self._lanes_in()])
            name = f"llvm.masked.scatter.{suffix(raw.type)}.v{self.lanes}p0"
            where = self._scattered(number, pointer)
            return self.intrinsic(name, ir.VoidType(), [raw, where, align, self._lanes_in()])

        self._write(number, pointer, self.lanes, access)

    def _in_lanes(
        self, pointer: ir.Value, type: ir.Type, align: int, fill: ir.Value | None = None
    ) -> ir.Value:
        """A vector from its first element on; `fill` (0) in the lanes past the tile."""
        if self._mask is None:
            return self.builder.load(pointer, typ=type, align=align)
        others = ir.Constant(type, None) if fill is None else fill
        given = [pointer, ir.Constant(I32_TYPE, align), self._mask, others]
        return self.intrinsic(f"llvm.masked.load.{suffix(type)}.p0", type, given)

    def _lane_kind(self, number: int) -> StrideKind:
        return self._at.kind(number, self.lane_axis) if self.lane_axis else "unit"

    def _lanes_in(self) -> ir.Value:
        if self._mask is not None:
            return self._mask
        return ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), [1] * self.lanes)

    def _scattered(self, number: int, pointer: ir.Value) -> ir.Value:
        """The lanes' own addresses."""
        e, block = self.builder, self.builder.block
        lane = ir.Constant(ir.VectorType(I64_TYPE, self.lanes), list(range(self.lanes)))
        pitch = self.vector_of(self._at.stride(number, self.lane_axis), self.entry)
        base = self.vector_of(e.ptrtoint(pointer, I64_TYPE), block)
        return e.inttoptr(e.add(base, e.mul(pitch, lane)), ir.VectorType(ir.PointerType(), self.lanes))

    def _span(self, number: int, lanes: int) -> tuple[ir.Value, ir.Value]:
        """The bytes that the active lanes cover, counted from the first one's address."""
        e, zero, size = self.builder, _word(0), _word(self.signature.types[number].bytes)
        if not lanes:
            return zero, size
        if self._lane_kind(number) == "unit":
            return zero, e.mul(self._active, size)
        pitch = self._at.stride(number, self.lane_axis)
        reach = e.mul(e.sub(self._active, _word(1)), pitch)
        back = e.icmp_signed("<", reach, zero)
        return e.select(back, reach, zero), e.add(e.select(back, zero, reach), size)

    def _read(self, number: int, pointer: ir.Value, lanes: int, access: Callable[[], ir.Value]) -> ir.Value:
        if self._guard is None:
            return access()
        raw = self._guard.access(number, pointer, self._span(number, lanes), guard.READ_OUTSIDE, access)
        pitch = self._at.stride(number, self.lane_axis) if lanes and self.lane_axis else _word(0)
        mask = self._lanes_in() if lanes else None
        self._guard.loaded(number, self.signature.types[number], raw, pointer, mask, pitch)
        return raw

    def _write(self, number: int, pointer: ir.Value, lanes: int, access: Callable[[], ir.Value]) -> None:
        if self._guard is None:
            access()
        else:
            self._guard.access(number, pointer, self._span(number, lanes), guard.WRITE_OUTSIDE, access)

    def _loaded(self, dtype: DType, raw: ir.Value, lanes: int) -> Value:
        if dtype != BOOL:
            return self.make(dtype, raw, lanes)
        none = ir.Constant(raw.type, [0] * lanes if lanes else 0)
        return self.make(BOOL, self.builder.icmp_unsigned("!=", raw, none), lanes)

    def _to_store(self, value: Value, lanes: int) -> ir.Value:
        v = cast(LLVMValue, self.splat(value) if lanes else value)
        if v.dtype != self.signature.out_type or v.lanes != lanes:
            raise TypeError(f"a {v.dtype} of {v.lanes} lanes stored as {self.signature.out_type}")
        return self.builder.zext(v.ir, _stored(BOOL, lanes)) if v.dtype == BOOL else v.ir


def _word(value: int) -> ir.Constant:
    return ir.Constant(I64_TYPE, value)


def _stored(dtype: DType, lanes: int) -> ir.Type:
    """The LLVM type of elements in memory: a bool is a byte."""
    if dtype == BOOL:
        return ir.VectorType(I8_TYPE, lanes) if lanes else I8_TYPE
    return type_of(dtype, lanes)
