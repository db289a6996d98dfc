"""Elementwise choice and conversion, and ONNX operators that are several elementwise ops or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..builder import Arithmetic, Value
from ..dtypes import BF16, F64, DType, by_onnx, stored_as
from ..graph import GraphBuilder, Rule, Spec, Unsupported, register
from ..op import Array
from .elementwise import Add, Clip, Elementwise, Max, Min, Mul, Pow, Reciprocal, Sqrt, apply, scalar_constant

POW_ERROR = 2.0**-41  # relative, of `math.pow` in f64 (2^-42) and a little more


class Where(Elementwise):
    onnx = "Where"
    exact = True
    arity = 3
    since = 9

    @classmethod
    def result_type(cls, *x: DType) -> DType:
        return x[1]

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.select(x[0], x[1], x[2])

    def numpy(self, *x: Array) -> Array:
        return np.where(x[0], x[1], x[2])


class Cast(Elementwise):
    """Conversion between types (not from bf16); `out_type` says to which. See `Arithmetic.cast`."""

    exact = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.cast(x[0], self.out_type)

    def numpy(self, *x: Array) -> Array:
        if self.out_type == BF16:
            return stored_as(x[0].astype(np.float32), BF16)
        to = self.out_type.numpy
        if self.out_type.kind not in "iu" or not np.issubdtype(x[0].dtype, np.floating):
            return x[0].astype(to)
        limits = np.iinfo(to.name)
        low, high = float(limits.min), float(limits.max)  # `high` may round up, hence >=
        whole = np.nan_to_num(np.trunc(x[0].astype(np.float64)), nan=0.0)
        inside = np.clip(whole, low, np.nextafter(high, 0.0)).astype(to)
        return np.where(whole >= high, np.asarray(limits.max, to), inside)


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


def cast(g: GraphBuilder, tensor: str, dtype: DType, hint: str = "cast") -> str:
    """`tensor` as `dtype`; itself where it has that type."""
    return tensor if g.dtype(tensor) == dtype else apply(g, Cast, [tensor], hint, out_type=dtype)


def _build_cast(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    dtype = by_onnx(spec.attribute("to"))
    if dtype is None:
        raise Unsupported(f"Cast to ONNX element type {spec.attribute('to')}")
    return [cast(g, spec.inputs[0], dtype, spec.outputs[0])]


def _build_cast_like(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return [cast(g, spec.inputs[0], g.dtype(spec.inputs[1]), spec.outputs[0])]


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
            return [apply(g, Mul, [x, apply(g, Mul, [x, x], hint)], hint)]
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


def _build_mean(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    (total,) = _variadic(Add)(g, spec)
    if len(spec.inputs) == 1:
        return [total]
    share = scalar_constant(g, 1 / len(spec.inputs), g.dtype(total))
    return [apply(g, Mul, [total, share], spec.outputs[0])]


def _build_clip(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Bounds are attributes up to opset 10, optional inputs from 11 on."""
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
            x = apply(g, kind, [x, spec.inputs[i]], hint)
        else:
            bounds[side] = value.reshape(()).item()
    return [apply(g, Clip, [x], hint, **bounds)] if bounds else [x]


def _build_identity(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return [spec.inputs[0]]


def _build_dropout(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Inference: the input itself. The mask, if asked for, is all true (false before opset 10)."""
    if spec.has(2) and bool(g.known(spec.inputs[2], "Dropout's training_mode")):
        raise Unsupported("Dropout in training mode")
    if len(spec.outputs) < 2 or not spec.outputs[1]:
        return [spec.inputs[0]]
    return [spec.inputs[0], g.constant(np.ones(g.shape(spec.inputs[0]), np.bool_), spec.outputs[1])]


register("Cast", _build_cast)
register("CastLike", _build_cast_like, 15)
register("Pow", _build_pow, 7)
register("Min", _variadic(Min), 6)
register("Max", _variadic(Max), 6)
register("Sum", _variadic(Add), 6)
register("Mean", _build_mean, 6)
register("Clip", _build_clip, 6)
register("Identity", _build_identity, 1)
register("Dropout", _build_dropout, 7)
