"""Elementwise choice and conversion, and ONNX operators that are several elementwise ops or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..affine import Access
from ..builder import Arithmetic, Value
from ..dtypes import BOOL, F8E8M0, F32, F64, I8, MINIFLOATS, SUB_BYTE, DType, by_onnx, stored_as
from ..graph import InvalidModel, Unsupported
from ..minifloats import narrowed
from ..op import Array, Op
from ..rules import GraphBuilder, Rule, Spec, register
from .elementwise import Add, Clip, Elementwise, Max, Min, Mul, Pow, Reciprocal, Sqrt, apply, scalar_constant

POW_ERROR = 2.0**-41  # relative, of `math.pow` in f64 (2^-42) and a little more


class Where(Elementwise):
    onnx = "Where"
    exact = True
    stored = True
    arity = 3
    since = 9

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        return np.array_equal(first[0], last[0])

    @classmethod
    def result_type(cls, *x: DType) -> DType:
        return x[1]

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.select(x[0], x[1], x[2])

    def numpy(self, *x: Array) -> Array:
        return np.where(x[0], x[1], x[2])


@dataclass(frozen=True, kw_only=True)
class Cast(Elementwise):
    """Conversion between types; `out_type` says to which. See `Arithmetic.cast`, `minifloats.narrowed`.

    A float that an integer type does not hold, of which the standard says nothing, becomes the nearest that
    it does hold, NaN 0; types of fewer than eight bits have the lowest ones of what an i32 holds.
    """

    exact = True
    stored = True
    saturate: int = 1
    round_mode: str = "up"

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        """Between integers that both types hold; to a bool, where it is not 0 all the way."""
        (a,), (b,) = first, last
        if self.out_type == BOOL:
            return bool(((a > 0) & (b > 0) | (a < 0) & (b < 0) | (a == 0) & (b == 0)).all())
        ends = [(v, v.astype(self.out_type.numpy)) for v in (a, b)]
        return self.out_type.kind in "iu" and all(np.array_equal(v, w.astype(v.dtype)) for v, w in ends)

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        if self.out_type not in MINIFLOATS or self.in_types[0] == self.out_type:
            return b.cast(x[0], self.out_type)
        value = b.cast(x[0], self.in_types[0].computed)
        return narrowed(b, value, self.out_type, bool(self.saturate), self.round_mode)

    def numpy(self, *x: Array) -> Array:
        values = x[0].astype(self.in_types[0].computed.numpy, copy=False)
        if self.out_type in SUB_BYTE:
            return _whole(values, np.dtype(np.int32)).astype(np.int8).astype(self.out_type.numpy)
        if self.out_type == F8E8M0:
            return _powers(stored_as(values, F32), bool(self.saturate), self.round_mode)
        if self.out_type.computed == self.out_type:
            return _whole(values, self.out_type.numpy)
        if self.saturate and self.out_type in MINIFLOATS:
            low, high = self.out_type.limits
            return np.clip(stored_as(values, F32), low, high).astype(self.out_type.numpy)
        return stored_as(values, self.out_type)


def _whole(values: Array, to: np.dtype[np.generic]) -> Array:
    """Values as another type: floats as the nearest integer towards 0, inside its range; NaN is 0."""
    if to.kind not in "iu" or values.dtype.kind != "f":
        return values.astype(to)
    limits = np.iinfo(to.name)
    low, high = float(limits.min), float(limits.max)  # `high` may round up, hence >=
    whole = np.nan_to_num(np.trunc(values.astype(np.float64)), nan=0.0)
    inside = np.clip(whole, low, np.nextafter(high, 0.0)).astype(to)
    return np.where(whole >= high, np.asarray(limits.max, to), inside)


def _powers(values: Array, saturate: bool, round_mode: str) -> Array:
    """The powers of two nearest to f32 values, or next above or below them."""
    mantissa, exponent = np.frexp(np.abs(np.where(np.isfinite(values), values, 1)).astype(np.float64))
    more = mantissa > 0.5 if round_mode == "up" else (mantissa >= 0.75) & (round_mode == "nearest")
    code = np.where(mantissa == 0, -1, exponent - 1 + more + 127)
    code = np.where(np.isinf(values), 255, code)
    below = (np.abs(values) < 2.0**-127) & (not saturate)
    code = np.where(np.isnan(values) | below, 255, np.clip(code, 0, 254 if saturate else 255))
    return code.astype(np.uint8).view(np.dtype(F8E8M0.numpy))


class BitCast(Elementwise):
    """The same bits as another type of as many."""

    exact = True
    stored = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        bits = b.cast(x[0], I8) if self.in_types[0] == BOOL else b.bits(x[0])
        return b.cast(bits, BOOL) if self.out_type == BOOL else b.from_bits(bits, self.out_type)

    def numpy(self, *x: Array) -> Array:
        bits = np.asarray(x[0], order="C").view(f"u{self.out_type.bytes}")
        return bits != 0 if self.out_type == BOOL else bits.view(self.out_type.numpy)


class NearWhole(Elementwise):
    """The whole number that x misses by no more than `math.pow` may err, or x."""

    exact = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        nearest = b.round(x[0])
        error = b.mul(b.abs(nearest), b.const(POW_ERROR, self.out_type))
        return b.select(b.compare("le", b.abs(b.sub(x[0], nearest)), error), nearest, x[0])

    def numpy(self, *x: Array) -> Array:
        nearest = np.rint(x[0])
        return np.where(np.abs(x[0] - nearest) <= np.abs(nearest) * POW_ERROR, nearest, x[0])


# -- rules that are more than one op ----------------------------------------------------


def plain_cast(axes: tuple[tuple[str, int], ...], access: Access, given: DType, made: DType) -> Cast:
    """A conversion of an element for each iteration, written where it is read."""
    return Cast(axes=axes, reads=(access,), write=access, in_types=(given,), out_type=made)


def cast(g: GraphBuilder, tensor: str, dtype: DType, hint: str = "cast", **own: Any) -> str:
    """`tensor` as `dtype`; itself where it has that type. own: fields of `Cast`."""
    return tensor if g.dtype(tensor) == dtype else apply(g, Cast, [tensor], hint, out_type=dtype, **own)


def emit_rounded(g: GraphBuilder, op: Op, inputs: Sequence[str], shape: Sequence[int], hint: str) -> str:
    """Adds a reduction or product whose result is rounded once: parts that are combined later, however the
    op is cut, stay in the type that they are computed in."""
    wide = op.out_type.computed if op.combine in ("min", "max") else op.out_type.wide
    if wide == op.out_type:
        return g.emit(op, inputs, shape, hint)
    return cast(g, g.emit(replace(op, out_type=wide), inputs, shape, hint), op.out_type, hint)


def rounded_once(rule: Rule) -> Rule:
    """A rule of several ops, all in types whose range holds what is between them (`DType.wide`): its float
    results become what its first operand is."""

    def build(g: GraphBuilder, spec: Spec) -> Sequence[str]:
        given = g.dtype(spec.inputs[0])
        inputs = tuple(cast(g, t, g.dtype(t).wide) if t else t for t in spec.inputs)
        results = rule(g, replace(spec, inputs=inputs))
        return [
            cast(g, t, given, t) if t and g.dtype(t) == given.wide and given.is_float else t for t in results
        ]

    return build


def dtype_attribute(spec: Spec, name: str) -> DType:
    """The element type that an attribute names."""
    number = spec.attribute(name)
    dtype = by_onnx(number)
    if dtype is None:
        raise Unsupported(f"{spec.op_type} to ONNX element type {number}")
    return dtype


def _build_cast(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    to = dtype_attribute(spec, "to") if spec.op_type == "Cast" else g.dtype(spec.inputs[1])
    own = {name: spec.attributes[name] for name in ("saturate", "round_mode") if name in spec.attributes}
    return [cast(g, spec.inputs[0], to, spec.outputs[0], **own)]


def _build_bit_cast(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, to = spec.inputs[0], dtype_attribute(spec, "to")
    if g.dtype(x).bits != to.bits:
        raise InvalidModel(f"BitCast of {g.dtype(x)} to {to}, which has not as many bits")
    return [apply(g, BitCast, [x], spec.outputs[0], out_type=to)]


def _build_pow(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """x ** y has x's type. Exponents that one or two instructions compute become those."""
    x, y = spec.inputs
    hint, dtype = spec.outputs[0], g.dtype(x)
    exponent = g.value(y)
    if exponent is not None and exponent.size == 1 and len(exponent.shape) <= len(g.shape(x)):
        constant = float(exponent.item())
        if constant == 1:
            return [x]
        if constant == 2:
            return [apply(g, Mul, [x, x], hint)]
        if constant == 3:
            wide = cast(g, x, dtype.wide, hint)
            return [cast(g, apply(g, Mul, [wide, apply(g, Mul, [wide, wide], hint)], hint), dtype, hint)]
        if constant == 0.5 and dtype.is_float:
            return [apply(g, Sqrt, [x], hint)]
        if constant == -1 and dtype.is_float:
            return [apply(g, Reciprocal, [x], hint)]
    if dtype.is_float or not g.dtype(y).is_float:
        return [apply(g, Pow, [x, cast(g, y, dtype)], hint)]
    # Truncated as all floats: what should be whole must be.
    power = apply(g, Pow, [cast(g, x, F64), cast(g, y, F64)], hint)
    return [cast(g, apply(g, NearWhole, [power], hint), dtype, hint)]


def _variadic(kind: type[Elementwise]) -> Rule:
    def build(g: GraphBuilder, spec: Spec) -> Sequence[str]:
        total = spec.inputs[0]
        for t in spec.inputs[1:]:
            total = apply(g, kind, [total, t], spec.outputs[0])
        return [total]

    return build


def _build_sum(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    rule = _variadic(Add)
    return (rounded_once(rule) if len(spec.inputs) > 2 else rule)(g, spec)


def _build_mean(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    (total,) = _variadic(Add)(g, spec)
    if len(spec.inputs) == 1:
        return [total]
    share = scalar_constant(g, 1 / len(spec.inputs), g.dtype(total))
    return [apply(g, Mul, [total, share], spec.outputs[0])]


def _build_clip(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Bounds are attributes up to opset 10, then optional inputs. Where they cross, the upper one holds."""
    x, hint = spec.inputs[0], spec.outputs[0]
    if spec.opset < 11:
        low, high = spec.attribute("min"), spec.attribute("max")
        return [apply(g, Clip, [x], hint, low=low, high=high)]
    bounds: dict[str, float | int] = {}
    for i, side, kind in ((1, "low", Max), (2, "high", Min)):
        if not spec.has(i):
            continue
        value = g.value(spec.inputs[i])
        if value is None:
            x = apply(g, Clip, [x], hint, **bounds) if bounds else x
            x, bounds = apply(g, kind, [x, spec.inputs[i]], hint), {}
        else:
            bounds[side] = value.reshape(()).item()
    return [apply(g, Clip, [x], hint, **bounds)] if bounds else [x]


def _build_identity(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return [spec.inputs[0]]


register("Cast", _build_cast)
register("CastLike", _build_cast, 15)
register("BitCast", _build_bit_cast, 26)
register("Pow", _build_pow, 7)
register("Min", _variadic(Min), 6)
register("Max", _variadic(Max), 6)
register("Sum", _build_sum, 6)
register("Mean", rounded_once(_build_mean), 6)
register("Clip", _build_clip, 6)
register("Identity", _build_identity, 1)
