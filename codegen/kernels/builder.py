"""`ir.builder.KernelBuilder` in LLVM IR.

A kernel is `void kernel(i64 *task, i64 *op)`. All words are 64 bits:

    task: address of each operand, address of the result, extent of each axis, origin of each
          axis, mode (FRESH, RESUME or JOIN), chunk; guarded kernels also: lowest valid byte address
          and end of each operand and of the result, address of an i64[4] error record; guarded ones
          and those that report indices: address of the step's reports
    op:   for each operand, then the result: stride of each axis, in elements

An operand's address is that of the element at the tile's first iteration. What lies outside
a tensor was filled by the caller: loads need no bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from llvmlite import ir

from ...ir.builder import Carried, Combine, StrideKind, Value
from ...ir.dtypes import I64
from ..words import REPORT
from .addresses import Addresses, add_index
from .arithmetic import I32_TYPE, LLVMArithmetic, LLVMValue
from .bf16_pairs import dot2, halves
from .emit import reporter
from .guard import Guard
from .loops import Body, Chunk, Lanes, Loops, constant_word
from .memory import Memory
from .signature import Signature


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
        self._at = Addresses(self.builder, function.args[0], function.args[1], signature)
        guard = Guard(module, self.builder, self._at, self._layout) if signature.guard else None
        self._lanes = Lanes(signature.lanes)
        self._loops = Loops(self, self._at, self._lanes)
        self._memory = Memory(self, self._at, signature, self._lanes, guard)

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
        body: Body,
        carried: Carried = (),
        step: int = 1,
        some: bool = False,
    ) -> Carried:
        return self._loops.counted(count, body, carried, step, some)

    def lane_loop(self, body: Body, carried: Carried = (), vectors: Sequence[int] = (1,)) -> Carried:
        count = cast(LLVMValue, self.extent(self.lane_axis)).ir if self.lane_axis else constant_word(1)
        return self._loops.in_lanes(count, body, carried, vectors)

    def chunks(self, body: Chunk, carried: Carried) -> Carried:
        count = self._at.task_word(self._layout.extent(self.part)).ir
        given = self._at.task_word(self._layout.chunk).ir
        return self._loops.in_chunks(count, given, body, carried)

    def where(self, condition: Value, then: Callable[[], None]) -> None:
        self._loops.where(condition, then)

    def either(
        self, condition: Value, then: Callable[[], Carried], otherwise: Callable[[], Carried]
    ) -> Carried:
        return self._loops.either(condition, then, otherwise)

    def report(self, bound: int, value: Value) -> None:
        reports = self._at.task_word(self._layout.report(self.signature.guard)).ir
        record = self.builder.add(reports, constant_word(8 * REPORT * bound))
        self.builder.call(reporter(self.module), [record, cast(LLVMValue, value).ir])

    # -- lanes ---------------------------------------------------------------------
    def group(self) -> int:
        return self._lanes.group

    def lane_offset(self, vector: int) -> Value:
        return self.const(vector * self.lanes, I64)

    def lane_numbers(self, start: Value) -> Value:
        return self.add(start, LLVMValue(I64, self._lanes.numbers, self.entry, self.lanes))

    def add_index(self, a: Value, b: Value | int) -> Value:
        return add_index(self, self._at, a, b)

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
        return self._memory.load(self._operand(operand), index)

    def load_lanes(self, operand: int, index: Mapping[str, Value], other: float | int = 0) -> Value:
        return self._memory.load_lanes(self._operand(operand), index, other)

    def prefetch(self, operand: int, places: Sequence[Mapping[str, Value]]) -> None:
        self._memory.prefetch(self._operand(operand), places)

    def load_square(self, operand: int, index: Mapping[str, Value], axis: str) -> Sequence[Value]:
        return self._memory.load_square(self._operand(operand), index, axis)

    def load_pair(
        self, operand: int, index: Mapping[str, Value], axis: str, lanes: bool, alone: float | None = None
    ) -> Value:
        return self._memory.load_pair(self._operand(operand), index, axis, lanes, alone)

    def halves(self, pair: Value) -> tuple[Value, Value]:
        return halves(self, pair)

    def dot2(self, a: Value, b: Value, c: Value) -> Value:
        return dot2(self, a, b, c, self.signature.dot2)

    def store(self, value: Value, index: Mapping[str, Value]) -> None:
        self._memory.store(value, index)

    def store_lanes(self, value: Value, index: Mapping[str, Value]) -> None:
        self._memory.store_lanes(value, index)
