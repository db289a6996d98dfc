"""`ir.builder.Arithmetic` in LLVM IR: one element or one vector of lanes at a time.

Bools are i1 inside. Nothing here depends on the host: vectors have the builder's
number of lanes whatever the element type, and LLVM splits them into registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, cast

import numpy as np
from llvmlite import ir

from ...ir.builder import Compare, Value
from ...ir.dtypes import BOOL, F16, F32, F64, SIGNED, DType, stored_as
from ...ir.minifloats import KINDS, narrowed, odd_f32, widened

I1_TYPE, I8_TYPE, I32_TYPE, I64_TYPE = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
_FLOATS = {2: ir.HalfType(), 4: ir.FloatType(), 8: ir.DoubleType()}
_SYMBOL = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@dataclass(frozen=True, eq=False)
class LLVMValue:
    """A value, the block that defines it (the entry for constants), and its lanes (0: one element)."""

    dtype: DType
    ir: ir.Value
    block: ir.Block
    lanes: int = 0


def element_type(dtype: DType) -> ir.Type:
    """The LLVM type of one element in a register. Types that are only stored are bits."""
    if dtype.is_float and dtype not in KINDS:
        return _FLOATS[dtype.bytes]
    return I1_TYPE if dtype == BOOL else ir.IntType(8 * dtype.bytes)


def type_of(dtype: DType, lanes: int) -> ir.Type:
    """`element_type`, or a vector of `lanes` of them when `lanes` is not 0."""
    e = element_type(dtype)
    return ir.VectorType(e, lanes) if lanes else e


def suffix(type: ir.Type) -> str:
    """How LLVM names `type` in an overloaded intrinsic: `v16f32`, `i64`, `p0`."""
    if isinstance(type, ir.VectorType):
        return f"v{type.count}{suffix(type.element)}"
    if isinstance(type, ir.IntType):
        return f"i{type.width}"
    for size, t in _FLOATS.items():
        if type == t:
            return f"f{8 * size}"
    return "p0"


def _no_float(value: Value) -> Value:
    if value.dtype.is_float:
        raise TypeError(f"an operation on the bits of {value.dtype}; see `bits`")
    return value


def _in_computed(method: Callable[..., Value]) -> Callable[..., Value]:
    """An operation on types that are only stored: on what they are computed in, the result rounded."""

    @wraps(method)
    def wrapped(self: LLVMArithmetic, *given: Any) -> Value:
        dtype: DType = given[-1].dtype
        if dtype.computed == dtype:
            return method(self, *given)
        wide = [x if isinstance(x, str) else self.cast(x, dtype.computed) for x in given]
        out = method(self, *wide)
        return self.cast(out, dtype) if out.dtype == dtype.computed else out

    return wrapped


class LLVMArithmetic:
    """Emits into `builder`, which always stands at the end of its block."""

    def __init__(self, module: ir.Module, builder: ir.IRBuilder, lanes: int) -> None:
        if lanes < 2 or lanes & (lanes - 1):
            raise ValueError(f"{lanes} lanes: a power of two from 2 is needed")
        self.module = module
        self.builder = builder
        self.lanes = lanes
        self.entry = builder.block
        self._splats: dict[ir.Value, ir.Value] = {}

    # -- plumbing ----------------------------------------------------------------
    def intrinsic(self, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
        """A call of the intrinsic with this full name."""
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(result, [a.type for a in args]), name)
        return self.builder.call(function, args)

    def make(self, dtype: DType, value: ir.Value, lanes: int) -> LLVMValue:
        return LLVMValue(dtype, value, self.builder.block, lanes)

    def vector_of(self, value: ir.Value, block: ir.Block) -> ir.Value:
        """The splat of a single element, made once, where the element is defined."""
        found = self._splats.get(value)
        if found is None:
            type = ir.VectorType(value.type, self.lanes)
            if isinstance(value, ir.Constant):
                found = ir.Constant(type, [value.constant] * self.lanes)
            else:
                with self.builder.goto_block(block):
                    undefined = ir.Constant(type, ir.Undefined)
                    one = self.builder.insert_element(undefined, value, ir.Constant(I32_TYPE, 0))
                    zeros = ir.Constant(ir.VectorType(I32_TYPE, self.lanes), None)
                    found = self.builder.shuffle_vector(one, undefined, zeros)
            self._splats[value] = found
        return found

    def _same(self, *values: Value) -> tuple[tuple[LLVMValue, ...], int]:
        """The values with single elements broadcast if any is a vector, and the lanes."""
        given = tuple(cast(LLVMValue, v) for v in values)
        lanes = max(v.lanes for v in given)
        if lanes:
            given = tuple(cast(LLVMValue, v if v.lanes else self.splat(v)) for v in given)
        return given, lanes

    def _binary(
        self, a: Value, b: Value, emit: Callable[[ir.Value, ir.Value], ir.Value], to: DType | None = None
    ) -> LLVMValue:
        (x, y), lanes = self._same(a, b)
        if x.dtype != y.dtype:
            raise TypeError(f"operands of different types: {x.dtype}, {y.dtype}")
        return self.make(to or x.dtype, emit(x.ir, y.ir), lanes)

    def _float_intrinsic(self, name: str, *values: Value) -> LLVMValue:
        given, lanes = self._same(*values)
        if any(v.dtype != given[0].dtype or not v.dtype.is_float for v in given):
            raise TypeError(f"{name} of {', '.join(str(v.dtype) for v in given)}")  # LLVM would abort
        t = given[0].ir.type
        out = self.intrinsic(f"llvm.{name}.{suffix(t)}", t, [v.ir for v in given])
        return self.make(given[0].dtype, out, lanes)

    def _constant(self, value: float | int | bool, like: LLVMValue) -> ir.Value:
        c = cast(LLVMValue, self.const(value, like.dtype))
        return self.vector_of(c.ir, self.entry) if like.lanes else c.ir

    # -- values ------------------------------------------------------------------
    def const(self, value: float | int | bool, dtype: DType) -> Value:
        if dtype in KINDS:
            number = np.asarray(value)
            kept = stored_as(number, dtype) if dtype.is_float else number.astype(np.int8).astype(dtype.numpy)
            bits = int(kept.view(f"u{dtype.bytes}"))
            return LLVMValue(dtype, ir.Constant(element_type(dtype), bits), self.entry)
        with np.errstate(over="ignore"):
            stored: object = dtype.numpy.type(value).item() if dtype.is_float or dtype == BOOL else int(value)
        if dtype.kind in "iu":
            bits = 8 * dtype.bytes
            wrapped = int(value) & ((1 << bits) - 1)
            stored = wrapped - (1 << bits) if dtype.kind == "i" and wrapped >> (bits - 1) else wrapped
        return LLVMValue(dtype, ir.Constant(element_type(dtype), stored), self.entry)

    def splat(self, value: Value) -> Value:
        v = cast(LLVMValue, value)
        if v.lanes:
            return v
        return LLVMValue(v.dtype, self.vector_of(v.ir, v.block), v.block, self.lanes)

    # -- arithmetic --------------------------------------------------------------
    @_in_computed
    def add(self, a: Value, b: Value) -> Value:
        e = self.builder
        return self._binary(a, b, e.fadd if a.dtype.is_float else e.or_ if a.dtype == BOOL else e.add)

    @_in_computed
    def sub(self, a: Value, b: Value) -> Value:
        e = self.builder
        return self._binary(a, b, e.fsub if a.dtype.is_float else e.sub)

    @_in_computed
    def mul(self, a: Value, b: Value) -> Value:
        e = self.builder
        return self._binary(a, b, e.fmul if a.dtype.is_float else e.and_ if a.dtype == BOOL else e.mul)

    @_in_computed
    def div(self, a: Value, b: Value) -> Value:
        if a.dtype.is_float:
            return self._binary(a, b, self.builder.fdiv)
        (x, y), lanes = self._same(a, b)
        safe, zero = self._divisor(x, y)
        e = self.builder
        out = (e.sdiv if x.dtype.kind == "i" else e.udiv)(x.ir, safe)
        return self.make(x.dtype, e.select(zero, self._constant(0, x), out), lanes)

    @_in_computed
    def rem(self, a: Value, b: Value) -> Value:
        if a.dtype == F16:
            return self.cast(self.rem(self.cast(a, F32), self.cast(b, F32)), F16)
        if a.dtype.is_float:
            return self._binary(a, b, self.builder.frem)  # calls libm's fmod
        (x, y), lanes = self._same(a, b)
        safe, _ = self._divisor(x, y)
        out = (self.builder.srem if x.dtype.kind == "i" else self.builder.urem)(x.ir, safe)
        return self.make(x.dtype, out, lanes)

    def _divisor(self, x: LLVMValue, y: LLVMValue) -> tuple[ir.Value, ir.Value]:
        """`y` with 1 where dividing `x` would trap, and where it is zero.

        x / 1 is what INT_MIN / -1 shall be, and x % 1 what x % 0 shall be.
        """
        e = self.builder
        zero = e.icmp_unsigned("==", y.ir, self._constant(0, y))
        bad: ir.Value = zero
        if x.dtype.kind == "i":
            lowest = e.icmp_unsigned("==", x.ir, self._constant(-(1 << (8 * x.dtype.bytes - 1)), x))
            minus = e.icmp_unsigned("==", y.ir, self._constant(-1, y))
            bad = e.or_(zero, e.and_(lowest, minus))
        return e.select(bad, self._constant(1, y), y.ir), zero

    @_in_computed
    def fma(self, a: Value, b: Value, c: Value) -> Value:
        if a.dtype == F16:  # the exact product fits f64, and x86 has no f16 form
            return self.cast(self.fma(*(self.cast(v, F64) for v in (a, b, c))), F16)
        return self._float_intrinsic("fma", a, b, c)

    @_in_computed
    def neg(self, a: Value) -> Value:
        v = cast(LLVMValue, a)
        if v.dtype.is_float:
            return self.make(v.dtype, self.builder.fneg(v.ir), v.lanes)
        return self.make(v.dtype, self.builder.sub(self._constant(0, v), v.ir), v.lanes)

    @_in_computed
    def abs(self, a: Value) -> Value:
        if a.dtype.is_float:
            return self._float_intrinsic("fabs", a)
        if a.dtype.kind != "i":
            return a
        return self.select(self.compare("lt", a, self.const(0, a.dtype)), self.neg(a), a)

    def min(self, a: Value, b: Value) -> Value:
        return self._extreme("lt", a, b)

    def max(self, a: Value, b: Value) -> Value:
        return self._extreme("gt", a, b)

    @_in_computed
    def _extreme(self, kind: Compare, a: Value, b: Value) -> Value:
        """`a kind b ? a : b` is one x86 instruction and returns `b` when either is NaN."""
        if isinstance(cast(LLVMValue, b).ir, ir.Constant):
            a, b = b, a
        picked = self.select(self.compare(kind, a, b), a, b)
        first = cast(LLVMValue, a)
        if isinstance(first.ir, ir.Constant) and not first.lanes and first.ir.constant == first.ir.constant:
            return picked
        if not a.dtype.is_float:
            return picked
        return self.select(self.compare("ne", a, a), a, picked)

    @_in_computed
    def sqrt(self, a: Value) -> Value:
        return self._float_intrinsic("sqrt", a)

    @_in_computed
    def floor(self, a: Value) -> Value:
        return self._float_intrinsic("floor", a) if a.dtype.is_float else a

    @_in_computed
    def ceil(self, a: Value) -> Value:
        return self._float_intrinsic("ceil", a) if a.dtype.is_float else a

    @_in_computed
    def round(self, a: Value) -> Value:
        return self._float_intrinsic("roundeven", a) if a.dtype.is_float else a

    # -- comparison, bits ----------------------------------------------------------
    @_in_computed
    def compare(self, kind: Compare, a: Value, b: Value) -> Value:
        e, symbol = self.builder, _SYMBOL[kind]

        def emit(x: ir.Value, y: ir.Value) -> ir.Value:
            if a.dtype.is_float:
                return (e.fcmp_unordered if kind == "ne" else e.fcmp_ordered)(symbol, x, y)
            return (e.icmp_signed if a.dtype.kind == "i" else e.icmp_unsigned)(symbol, x, y)

        return self._binary(a, b, emit, BOOL)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        (x, y), lanes = self._same(a, b)
        c = cast(LLVMValue, condition)
        if c.lanes and not lanes:
            x, y = cast(LLVMValue, self.splat(x)), cast(LLVMValue, self.splat(y))
        return self.make(x.dtype, self.builder.select(c.ir, x.ir, y.ir), lanes or c.lanes)

    def bit_and(self, a: Value, b: Value) -> Value:
        return self._binary(_no_float(a), b, self.builder.and_)

    def bit_or(self, a: Value, b: Value) -> Value:
        return self._binary(_no_float(a), b, self.builder.or_)

    def bit_xor(self, a: Value, b: Value) -> Value:
        return self._binary(_no_float(a), b, self.builder.xor)

    def bit_not(self, a: Value) -> Value:
        v = cast(LLVMValue, _no_float(a))
        return self.make(
            v.dtype, self.builder.xor(v.ir, self._constant(1 if v.dtype == BOOL else -1, v)), v.lanes
        )

    def shift_left(self, a: Value, b: Value) -> Value:
        (x, y), lanes = self._same(_no_float(a), b)
        inside, amount = self._shift(y)
        out = self.builder.select(inside, self.builder.shl(x.ir, amount), self._constant(0, x))
        return self.make(x.dtype, out, lanes)

    def shift_right(self, a: Value, b: Value) -> Value:
        (x, y), lanes = self._same(_no_float(a), b)
        inside, amount = self._shift(y)
        e = self.builder
        if x.dtype.kind == "i":
            return self.make(x.dtype, e.ashr(x.ir, amount), lanes)
        return self.make(x.dtype, e.select(inside, e.lshr(x.ir, amount), self._constant(0, x)), lanes)

    def _shift(self, y: LLVMValue) -> tuple[ir.Value, ir.Value]:
        """Whether the amount is less than the bits (a negative one is not), and it clamped."""
        bits = 8 * y.dtype.bytes
        inside = self.builder.icmp_unsigned("<", y.ir, self._constant(bits, y))
        return inside, self.builder.select(inside, y.ir, self._constant(bits - 1, y))

    # -- conversion ----------------------------------------------------------------
    def bits(self, a: Value) -> Value:
        v, to = cast(LLVMValue, a), SIGNED[a.dtype.bytes]
        return self.make(to, self.builder.bitcast(v.ir, type_of(to, v.lanes)), v.lanes)

    def from_bits(self, a: Value, dtype: DType) -> Value:
        v = cast(LLVMValue, a)
        return self.make(dtype, self.builder.bitcast(v.ir, type_of(dtype, v.lanes)), v.lanes)

    def cast(self, a: Value, dtype: DType) -> Value:
        source = a.dtype
        if source == dtype:
            return a
        if source in KINDS:
            return self.cast(widened(self, a), dtype)
        if dtype in KINDS:
            return narrowed(self, a, dtype)
        if dtype == BOOL:
            return self.compare("ne", a, self.const(0, source))
        if source == F16 and dtype != F32:  # LLVM would call compiler-rt, which a process may lack
            return self.cast(self.cast(a, F32), dtype)
        if dtype == F16 and source == F64:
            return self.cast(odd_f32(self, a), F16)
        if dtype == F16 and source != F32:  # what f32 rounds is past f16's range in any case
            return self.cast(self.cast(a, F32), F16)
        v = cast(LLVMValue, a)
        return self.make(dtype, self._convert(v, dtype), v.lanes)

    def _convert(self, v: LLVMValue, dtype: DType) -> ir.Value:
        e, to, source = self.builder, type_of(dtype, v.lanes), v.dtype
        if source.is_float and dtype.is_float:
            return (e.fptrunc if source.bytes > dtype.bytes else e.fpext)(v.ir, to)
        if source.is_float:
            name = "fptosi" if dtype.kind == "i" else "fptoui"
            return self.intrinsic(f"llvm.{name}.sat.{suffix(to)}.{suffix(v.ir.type)}", to, [v.ir])
        if dtype.is_float:
            return (e.sitofp if source.kind == "i" else e.uitofp)(v.ir, to)
        if source != BOOL and source.bytes >= dtype.bytes:
            return v.ir if source.bytes == dtype.bytes else e.trunc(v.ir, to)
        return (e.sext if source.kind == "i" else e.zext)(v.ir, to)
