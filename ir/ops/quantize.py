"""Linear quantisation: numbers as integers, or floats of a byte or less, times a scale.

A scale is one for the tensor, for each element of one dimension, or for each block of `block_size` of them;
zero points are shaped like scales. Sums of products are exact in i32. Where a product's operands have zero
points, they are subtracted before: a difference of two bytes takes two bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np

from ..absent import folded, lacking
from ..affine import Access, axis
from ..builder import Arithmetic, Value
from ..dtypes import F32, F64, I8, I16, I32, SUB_BYTE, U8, DType
from ..graph import InvalidModel
from ..minifloats import narrowed
from ..op import Array, Op
from ..rules import GraphBuilder, Spec, register
from .contract import matrix_product
from .conversion import cast, dtype_attribute
from .elementwise import Add, Div, Elementwise, Mul, apply
from .rearrange import normal_axis, reshape
from .window import convolution, per_channel

LEAST_FINER = 8  # elements of a block that longer ones may be cut in


class Quantize(Elementwise):
    """A quotient, rounded to the nearest integer, ties to even, plus a zero point: within the result's range.

    The sum is made in f32, or f64 for such quotients: exact wherever it is in range. NaN becomes 0.
    """

    exact = True
    arity = 2
    stored = True

    @property
    def _sum_type(self) -> DType:
        return F64 if self.in_types[0] == F64 else F32

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        wide = self._sum_type
        low, high = self.out_type.limits
        y = b.add(b.round(b.cast(x[0], wide)), b.cast(x[1], wide))
        y = b.max(b.min(y, b.const(high, wide)), b.const(low, wide))
        return narrowed(b, y, self.out_type) if self.out_type in SUB_BYTE else b.cast(y, self.out_type)

    def numpy(self, *x: Array) -> Array:
        wide = self._sum_type.numpy
        y = np.clip(np.rint(x[0].astype(wide)) + x[1].astype(wide), *self.out_type.limits)
        return np.nan_to_num(y).astype(np.int32).astype(self.out_type.numpy)


class Dequantize(Elementwise):
    """(x - zero point) * scale, the difference of integers exact, the product rounded to f32 and from there.

    Operands: x, scale and, where there is one, zero point.
    """

    exact = True
    arity = 3
    stored = True
    dequantises = True

    @property
    def folds(self) -> bool:
        """Matrices are left: a fourth of their bytes would become all of them. See `quantised`."""
        return sum(n > 1 for _, n in self.axes) < 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        between = F32 if self.in_types[0].is_float else I32
        stored, scale, *zeros = x
        number = b.cast(stored, between)
        for zero in zeros:
            number = b.sub(number, b.cast(zero, between))
        return b.cast(b.mul(b.cast(number, F32), b.cast(scale, F32)), self.out_type)

    def numpy(self, *x: Array) -> Array:
        between = (F32 if self.in_types[0].is_float else I32).numpy
        stored, scale, *zeros = x
        number: Array = stored.astype(between)
        for zero in zeros:
            number = number - zero.astype(between)
        return (number.astype(np.float32) * scale.astype(np.float32)).astype(self.out_type.numpy)


class Centred(Elementwise):
    """Quantised numbers less their zero point, in 16 bits."""

    exact = True
    arity = 2
    stored = True

    @classmethod
    def result_type(cls, *x: DType) -> DType:
        return I16

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.sub(b.cast(x[0], I16), b.cast(x[1], I16))

    def numpy(self, *x: Array) -> Array:
        return x[0].astype(np.int16) - x[1].astype(np.int16)


# -- scales -------------------------------------------------------------------------------
def _scaled(
    g: GraphBuilder, kind: type[Elementwise], x: str, scales: Sequence[str], spec: Spec, out_type: DType
) -> str:
    """`kind` of `x` and of what each of its elements has in `scales`."""
    shape, hint = g.shape(x), spec.outputs[0]
    scales = [_single(g, s, hint) for s in scales]
    if not any(map(g.shape, scales)):
        return apply(g, kind, [x, *scales], hint, out_type=out_type)
    block = int(spec.attribute("block_size", 0))
    at = normal_axis(int(spec.attribute("axis", 1)), len(shape))
    along = -(-shape[at] // block) if block > 0 else shape[at]
    wanted = (*shape[:at], along, *shape[at + 1 :]) if block else (along,)
    for s in scales:
        if block < 0 or g.shape(s) not in ((), wanted):
            raise InvalidModel(f"{spec.op_type}: {g.tensors[s]} for dimension {at} of {g.tensors[x]}")
    if block:
        return _in_blocks(g, kind, x, scales, (at, block), hint, out_type)
    inner = [1] * (len(shape) - 1 - at)
    wide = [reshape(g, s, (*g.shape(s), *inner), hint) if g.shape(s) else s for s in scales]
    return apply(g, kind, [x, *wide], hint, out_type=out_type)


def _single(g: GraphBuilder, t: str, hint: str) -> str:
    """A tensor of one element without dimensions, others as they are."""
    return reshape(g, t, (), hint) if int(np.prod(g.shape(t))) == 1 else t


def _in_blocks(
    g: GraphBuilder,
    kind: type[Elementwise],
    x: str,
    scales: Sequence[str],
    blocks: tuple[int, int],
    hint: str,
    out_type: DType,
) -> str:
    """As `_scaled`, for blocks: (dimension, size). The last block, if it is shorter, is an op of its own."""
    shape, (at, size) = g.shape(x), blocks
    if finer := _finer(g, scales, shape[at], blocks, hint):
        scales, size = finer
    whole, rest = divmod(shape[at], size)
    types = tuple(g.dtype(t) for t in (x, *scales))

    def part(first: int, count: int, length: int) -> Op:
        axes = [(f"d{i}", n) for i, n in enumerate(shape)]
        axes[at : at + 1] = [(f"d{at}", count), ("r", length)]

        def access(inner: bool) -> Access:
            along = axis(f"d{at}", size, first * size).plus(axis("r")) if inner else axis(f"d{at}", 1, first)
            return tuple(along if i == at else axis(f"d{i}") for i in range(len(shape)))

        return kind(
            axes=tuple(axes),
            reads=(access(True), *(access(False) if g.shape(s) else () for s in scales)),
            write=access(True),
            in_types=types,
            out_type=out_type,
        )

    parts = [part(0, whole, size)] if whole else []
    parts += [part(whole, 1, rest)] if rest else []
    if len(parts) == 1:
        return g.emit(parts[0], (x, *scales), shape, hint)
    return g.emit_parts([(op, (x, *scales)) for op in parts], shape, out_type, hint)


def _finer(
    g: GraphBuilder, scales: Sequence[str], length: int, blocks: tuple[int, int], hint: str
) -> tuple[list[str], int] | None:
    """Scales of smaller blocks that leave none shorter, and their size; None where there is no need or no
    way.

    Constants are repeated for that: all blocks are then one op.
    """
    at, size = blocks
    each = gcd(size, length)
    if length <= size or each == size or each < LEAST_FINER or any(g.value(s) is None for s in scales):
        return None
    out: list[str] = []
    for s in scales:
        value = g.constants[s]
        if g.shape(s):
            shape = tuple(length // each if d == at else n for d, n in enumerate(value.shape))
            if (lack := lacking([value])) is not None:
                value = folded(lack, f"{s} in blocks of {each}", shape, value.dtype)
            else:
                value = np.repeat(value, size // each, axis=at).take(range(shape[at]), axis=at)
            s = g.constant(value, hint)
        out.append(s)
    return out, each


def _wider(a: DType, b: DType) -> DType:
    """The type of a quotient: of integers f64, which holds them; else what NumPy promotes to."""
    if not (a.is_float and b.is_float):
        return F64
    return a if a == b else F32


# -- building -----------------------------------------------------------------------------
def _quantize(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, scale, hint = spec.inputs[0], spec.inputs[1], spec.outputs[0]
    out = U8
    if spec.attribute("output_dtype", 0):
        out = dtype_attribute(spec, "output_dtype")
    zero = spec.inputs[2] if spec.has(2) else ""
    out = g.dtype(zero) if zero else out
    inner = _wider(g.dtype(x), g.dtype(scale))
    if spec.attribute("precision", 0):
        inner = dtype_attribute(spec, "precision")
    quotient = _scaled(g, Div, cast(g, x, inner), [cast(g, scale, inner)], spec, inner)
    if not out.is_float:
        zero = zero or g.constant(np.zeros(g.shape(scale), out.numpy))
        return [_scaled(g, Quantize, quotient, [zero], spec, out)]
    if zero and _not_zero(g, zero):
        quotient = _scaled(g, Add, quotient, [cast(g, zero, inner)], spec, inner)
    return [cast(g, quotient, out, hint, saturate=int(spec.attribute("saturate", 1)))]


def _dequantize(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, scale = spec.inputs[0], spec.inputs[1]
    out = g.dtype(scale)
    if spec.attribute("output_dtype", 0):
        out = dtype_attribute(spec, "output_dtype")
    zeros = [spec.inputs[2]] if spec.has(2) and _not_zero(g, spec.inputs[2]) else []
    return [_scaled(g, Dequantize, x, [scale, *zeros], spec, out)]


def _not_zero(g: GraphBuilder, zero: str) -> bool:
    """Whether a zero point may differ from 0."""
    value = g.value(zero)
    return value is None or lacking([value]) is not None is not None or bool(value.astype(np.float32).any())


def _centred(g: GraphBuilder, x: str, zero: str, shape: Sequence[int] | None, hint: str) -> str:
    """`x` less its zero points, as they are or in another shape."""
    if not zero or not _not_zero(g, zero):
        return x
    out = apply(g, Centred, [x, reshape(g, zero, tuple(shape), hint) if shape is not None else zero], hint)
    value = g.value(out)
    return out if value is None or lacking([value]) is not None else g.constant(in_least_bytes(value), hint)


def in_least_bytes(centred: Array) -> Array:
    """Numbers less their zero points in one byte each, where one holds them all."""
    low, high = I8.limits
    short = centred.size and low <= centred.min() and centred.max() <= high
    return centred.astype(np.int8) if short else centred


def _rows(g: GraphBuilder, t: str, rank: int) -> tuple[int, ...] | None:
    """The shape of a first factor's scales or zero points: a vector is one for each row; None as it is."""
    shape = g.shape(t) if t else ()
    if int(np.prod(shape)) == 1:
        return ()
    return (*shape, 1) if len(shape) == 1 and rank > 1 else None


def _columns(g: GraphBuilder, t: str) -> tuple[int, ...] | None:
    return () if int(np.prod(g.shape(t) if t else ())) == 1 else None


def _sums(g: GraphBuilder, a: str, b: str, zeros: tuple[str, str], hint: str) -> str:
    """The matrix product of integers less their zero points, in i32."""
    a = _centred(g, a, zeros[0], _rows(g, zeros[0], len(g.shape(a))), hint)
    b = _centred(g, b, zeros[1], _columns(g, zeros[1]), hint)
    return matrix_product(g, a, b, hint, I32)


def _matmul_integer(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    zeros = tuple(spec.inputs[i] if spec.has(i) else "" for i in (2, 3))
    return [_sums(g, spec.inputs[0], spec.inputs[1], (zeros[0], zeros[1]), spec.outputs[0])]


def _qlinear_matmul(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = spec.inputs
    hint, rank = spec.outputs[0], len(g.shape(a))
    sums = _sums(g, a, b, (a_zero, b_zero), hint)
    rows, columns = _rows(g, a_scale, rank), _columns(g, b_scale)
    a_scale = a_scale if rows is None else reshape(g, a_scale, rows, hint)
    b_scale = b_scale if columns is None else reshape(g, b_scale, columns, hint)
    scale = apply(g, Mul, [cast(g, t, F32) for t in (a_scale, b_scale)], hint)
    return [_requantized(g, sums, scale, y_scale, y_zero, hint)]


def _requantized(g: GraphBuilder, sums: str, scale: str, y_scale: str, y_zero: str, hint: str) -> str:
    """i32 sums times scale / y_scale, quantised. Of scales in 16 bits, too, the factor is an f32."""
    factor = apply(g, Div, [scale, cast(g, _single(g, y_scale, hint), F32)], hint)
    numbers = apply(g, Mul, [cast(g, sums, F32), factor], hint)
    return apply(g, Quantize, [numbers, _single(g, y_zero, hint)], hint, out_type=g.dtype(y_zero))


def _convolved(g: GraphBuilder, spec: Spec, x: str, w: str, zeros: tuple[str, str]) -> str:
    """The convolution of integers less their zero points, in i32: padding is then 0."""
    hint = spec.outputs[0]
    x = _centred(g, x, zeros[0], (), hint)
    filters = tuple(g.shape(zeros[1])) if zeros[1] else ()
    each = (*filters, *[1] * (len(g.shape(w)) - 1)) if int(np.prod(filters)) > 1 else ()
    w = _centred(g, w, zeros[1], each, hint)
    return convolution(g, spec, x, w, I32)


def _conv_integer(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    zeros = tuple(spec.inputs[i] if spec.has(i) else "" for i in (2, 3))
    return [_convolved(g, spec, spec.inputs[0], spec.inputs[1], (zeros[0], zeros[1]))]


def _qlinear_conv(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = spec.inputs[:8]
    hint = spec.outputs[0]
    sums = _convolved(g, spec, x, w, (x_zero, w_zero))
    if spec.has(8):
        sums = per_channel(g, Add, sums, spec.inputs[8], hint)
    each = g.shape(w_scale) if int(np.prod(g.shape(w_scale))) > 1 else ()
    w_scale = reshape(g, w_scale, (*each, *[1] * (len(g.shape(w)) - 2)) if each else (), hint)
    scale = apply(g, Mul, [cast(g, t, F32) for t in (reshape(g, x_scale, (), hint), w_scale)], hint)
    return [_requantized(g, sums, scale, y_scale, y_zero, hint)]


register("QuantizeLinear", _quantize, 10)
register("DequantizeLinear", _dequantize, 10)
register("MatMulInteger", _matmul_integer, 10)
register("QLinearMatMul", _qlinear_matmul, 10)
register("ConvInteger", _conv_integer, 10)
register("QLinearConv", _qlinear_conv, 10)
