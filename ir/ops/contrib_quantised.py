"""Onnxruntime's operators of quantised tensors: what numbers stand for, the standard's, numbers again.

Products are exact sums of integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..dtypes import BOOL, F16, F32, I8, I16, I32, U8, U16
from ..graph import Unsupported
from ..rules import REGISTRY, GraphBuilder, Spec
from .contrib import OPSET, Maybe, Writer, contrib, need, operand, shaped
from .contrib_fused import WINDOW
from .conversion import Where, cast
from .elementwise import Add, Div, Elementwise, Max, Min, Mul, Neg, Sub
from .logic import Equal
from .quantize import Quantize
from .rearrange import concat, normal_axis, reshape, transpose
from .reduce import ReduceMax, ReduceMin, ReduceSum, reduce_over

BYTES = {"T": (I8, U8), "S": (F32,)}


def real(w: Writer, spec: Spec, first: int) -> str:
    """What input `first` stands for; its scale and its zero point are the next two."""
    x, scale, zero = (operand(spec, first + i) for i in range(3))
    return w("DequantizeLinear", x, single(w, scale), *([single(w, zero)] if zero else []))


def numbers(w: Writer, y: str, spec: Spec, first: int) -> str:
    """A result as numbers, of the integer operands' type. Its scale and zero point are inputs `first` on."""
    zero = operand(spec, first + 1)
    if not zero:
        given = next(w.g.dtype(t) for t in spec.inputs if t and w.g.dtype(t) in (I8, U8))
        zero = w.constant(np.zeros((), given.numpy))
    return w("QuantizeLinear", y, single(w, spec.inputs[first]), single(w, zero))


def single(w: Writer, t: str) -> str:
    """A scalar of a tensor of one element."""
    need(int(np.prod(w.g.shape(t))) == 1, f"{w.g.tensors[t]} is no scale or zero point of a whole tensor")
    return reshape(w.g, t, (), w.hint)


# -- elementwise ----------------------------------------------------------------------------
_TWO = "A:T A_scale:S A_zero_point:T? B:T B_scale:S B_zero_point:T? C_scale:S C_zero_point:T? -> C:T"
_ONE = "X:T X_scale:S X_zero_point:T? Y_scale:S Y_zero_point:T? -> Y:T"


def _two(kind: type[Elementwise]) -> None:
    """Registers an operator of two quantised operands."""

    @contrib(f"QLinear{kind.onnx}", _TWO, BYTES)
    def rule(g: GraphBuilder, spec: Spec) -> Sequence[str]:
        w = Writer(g, spec.outputs[0])
        return [numbers(w, w.apply(kind, real(w, spec, 0), real(w, spec, 3)), spec, 6)]

    assert rule


_two(Add)
_two(Mul)


@contrib("QLinearSigmoid", _ONE, BYTES)
def _sigmoid(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    return [numbers(w, w("Sigmoid", real(w, spec, 0)), spec, 3)]


@contrib("QLinearLeakyRelu", _ONE, BYTES, {"alpha": 0.01})
def _leaky(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    return [numbers(w, w("LeakyRelu", real(w, spec, 0), alpha=spec.attributes["alpha"]), spec, 3)]


@contrib("QLinearSoftmax", "X:T X_scale:S x_zero_point:T? y_scale:S y_zero_point:T -> Y:T", BYTES,
         {"axis": -1, "opset": int})  # fmt: skip
def _softmax(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    x = real(w, spec, 0)
    axis = normal_axis(own["axis"], len(g.shape(x)))
    if own["opset"] >= 13:
        return [numbers(w, w("Softmax", x, axis=axis), spec, 3)]
    shape = g.shape(x)
    rows = reshape(g, x, (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))), w.hint)
    return [numbers(w, reshape(g, w("Softmax", rows, axis=1), shape, w.hint), spec, 3)]


@contrib("QLinearWhere",
         "condition:B X:T x_scale:S x_zero_point:T Y:T y_scale:S y_zero_point:T z_scale:S z_zero_point:T "
    "-> Z:T",
         {**BYTES, "B": (BOOL,)})  # fmt: skip
def _where(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    return [numbers(w, w.apply(Where, spec.inputs[0], real(w, spec, 1), real(w, spec, 4)), spec, 7)]


@contrib("QLinearConcat", "Y_scale:S Y_zero_point:T8 inputs:V* -> Y:T8",
         {"S": (F32,), "T8": (I8, U8), "V": (I8, U8, F32)}, {"axis": int})  # fmt: skip
def _concat(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Each operand comes with its scale and its zero point; all take those of the result."""
    w = Writer(g, spec.outputs[0])
    count = len(spec.inputs) - 2
    need(count > 0 and count % 3 == 0, f"QLinearConcat of {count} inputs: three for each tensor")
    need(all(map(spec.has, range(len(spec.inputs)))), "QLinearConcat without one of its inputs")
    need(all(g.shape(t) for t in spec.inputs[2::3]), "QLinearConcat of scalars")
    parts = [numbers(w, real(w, spec, i), spec, 0) for i in range(2, len(spec.inputs), 3)]
    return [concat(g, parts, normal_axis(spec.attributes["axis"], len(g.shape(parts[0]))), w.hint)]


# -- windows --------------------------------------------------------------------------------
def channels_first(w: Writer, x: str) -> str:
    """[batch, ..., channels] with channels second."""
    rank = len(w.g.shape(x))
    need(rank > 2, f"{w.g.tensors[x]} has no channels and places")
    return transpose(w.g, x, (0, rank - 1, *range(1, rank - 1)), w.hint)


def channels_last(w: Writer, x: str) -> str:
    """[batch, channels, ...] with channels last."""
    return transpose(w.g, x, (0, *range(2, len(w.g.shape(x))), 1), w.hint)


POOL = {
    "auto_pad": "NOTSET", "ceil_mode": 0, "kernel_shape": list, "pads": Maybe(list, int),
    "strides": Maybe(list, int),
}  # fmt: skip


@contrib("QLinearAveragePool", "X:T x_scale:S x_zero_point:T? y_scale:S y_zero_point:T? -> Y:T", BYTES,
         {**POOL, "channels_last": 0, "count_include_pad": 0})  # fmt: skip
def _average_pool(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w, own = Writer(g, spec.outputs[0]), dict(spec.attributes)
    last = own.pop("channels_last")
    x = real(w, spec, 0)
    out = w("AveragePool", channels_first(w, x) if last else x, **own)
    return [numbers(w, channels_last(w, out) if last else out, spec, 3)]


@contrib("QLinearGlobalAveragePool", "X:T x_scale:S x_zero_point:T y_scale:S y_zero_point:T -> Y:T", BYTES,
         {"channels_last": 0})  # fmt: skip
def _global_average(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w, last = Writer(g, spec.outputs[0]), spec.attributes["channels_last"]
    x = real(w, spec, 0)
    out = w("GlobalAveragePool", channels_first(w, x) if last else x)
    return [numbers(w, channels_last(w, out) if last else out, spec, 3)]


@contrib("QLinearReduceMean",
         "data:T data_scale:S data_zero_point:T? reduced_scale:S reduced_zero_point:T? -> reduced:T", BYTES,
         {"axes": list, "keepdims": 1})  # fmt: skip
def _reduce_mean(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    x = real(w, spec, 0)
    over = sorted({normal_axis(int(a), len(g.shape(x))) for a in own["axes"]})
    share = 1 / max(1, int(np.prod([g.shape(x)[i] for i in over])))
    return [
        numbers(w, reduce_over(g, ReduceSum, x, over, w.hint, bool(own["keepdims"]), scale=share), spec, 3)
    ]


@contrib("NhwcMaxPool", "x:T -> y:T", {"T": (I8, U8)}, {**POOL, "dilations": Maybe(list, int)})
def _max_pool(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    return [channels_last(w, w("MaxPool", channels_first(w, spec.inputs[0]), **spec.attributes))]


@contrib("QLinearConv",
         "x:T1 x_scale:S x_zero_point:T1 w:T2 w_scale:S w_zero_point:T2 y_scale:S y_zero_point:T3 B:T4? "
    "-> y:T3",
         {"T1": (I8, U8), "T2": (I8, U8), "T3": (I8, U8), "T4": (I32,), "S": (F32,)},
         {**WINDOW, "channels_last": 0})  # fmt: skip
def _convolution(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The standard's, of images with channels last, too; filters stand as always."""
    w, own = Writer(g, spec.outputs[0]), dict(spec.attributes)
    last = own.pop("channels_last")
    x = channels_first(w, spec.inputs[0]) if last else spec.inputs[0]
    inner = replace(spec, inputs=(x, *spec.inputs[1:]), attributes=own, opset=OPSET)
    out = REGISTRY["", "QLinearConv"].rule(g, inner)[0]
    return [channels_last(w, out) if last else out]


# -- products -------------------------------------------------------------------------------
def _sums(w: Writer, a: str, b: str, zeros: tuple[str, str]) -> str:
    """The product of integers less their zero points, in f32."""
    rank = len(w.g.shape(a))
    need(rank > 0 and len(w.g.shape(b)) > 0, f"a product of {w.g.tensors[a]} and {w.g.tensors[b]}")
    return cast(w.g, w("MatMulInteger", a, b, *zeros), F32)


def _factor(w: Writer, scale: str) -> str:
    """A scale of one element, or of one for each column, by which a product is multiplied."""
    return reshape(w.g, scale, (), w.hint) if int(np.prod(w.g.shape(scale))) == 1 else scale


@contrib("MatMulIntegerToFloat",
         "A:T1 B:T2 a_scale:T3 b_scale:T3 a_zero_point:T1? b_zero_point:T2? bias:T3? -> Y:T3",
         {"T1": (I8, U8), "T2": (I8, U8), "T3": (F32, F16)})  # fmt: skip
def _to_float(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    a, b, a_scale, b_scale, a_zero, b_zero, bias = (operand(spec, i) for i in range(7))
    scale = w.apply(Mul, w.wide(_factor(w, a_scale)), w.wide(_factor(w, b_scale)))
    out = w.apply(Mul, _sums(w, a, b, (a_zero, b_zero)), scale)
    return [w.apply(Add, out, w.wide(bias)) if bias else out]


def bytes_of(w: Writer, x: str) -> tuple[str, str, str]:
    """Floats as bytes, with a scale and a zero point such that 0 is one of them: DynamicQuantizeLinear."""
    g, over, zero = w.g, range(len(w.g.shape(x))), w.single(0)
    high = w.apply(Max, reduce_over(g, ReduceMax, x, over, w.hint, keep=False), zero)
    low = w.apply(Min, reduce_over(g, ReduceMin, x, over, w.hint, keep=False), zero)
    scale = w.apply(Div, w.apply(Sub, high, low), w.single(255))
    scale = w.apply(Where, w.apply(Equal, high, low), w.single(1), scale)
    none = w.constant(np.zeros((), np.uint8))
    middle = w.apply(Quantize, w.apply(Div, w.apply(Neg, low), scale), none, out_type=U8)
    return w("QuantizeLinear", x, scale, middle), scale, middle


@contrib("DynamicQuantizeMatMul", "A:T1 B:T2 b_scale:T1 b_zero_point:T2? bias:T1? -> Y:T1",
         {"T1": (F32,), "T2": (I8, U8)})  # fmt: skip
def _dynamic(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    a, b, b_scale, b_zero, bias = (operand(spec, i) for i in range(5))
    need(len(g.shape(a)) > 0 and 0 not in g.shape(a), f"DynamicQuantizeMatMul of {g.tensors[a]}")
    whole, scale, zero = bytes_of(w, a)
    out = w.apply(Mul, _sums(w, whole, b, (zero, b_zero)), w.apply(Mul, scale, _factor(w, b_scale)))
    return [w.apply(Add, out, bias) if bias else out]


@contrib("MatMulInteger16", "A:T1 B:T2 -> Y:T3", {"T1": (I16, U16), "T2": (I16, U16), "T3": (I32,)})
def _short(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    a, b = (cast(g, t, I32) for t in spec.inputs)
    return [w("MatMul", a, b)]


@contrib("QGemm",
         "A:TA a_scale:S a_zero_point:TA B:TB b_scale:S b_zero_point:TB C:TC? y_scale:S? y_zero_point:TY? "
    "-> Y:TY",
         {"TA": (I8, U8), "TB": (I8, U8), "TC": (I32,), "TY": (I8, U8), "S": (F32,)},
         {"alpha": 1.0, "transA": 0, "transB": 0})  # fmt: skip
def _gemm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """alpha * scales * (A' B' + C), quantised where a scale for that is given."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = (operand(spec, i) for i in range(9))
    for t, name in ((a, "A"), (b, "B")):
        shaped(g, t, None, None, name=name)
    a = transpose(g, a, (1, 0), w.hint) if own["transA"] else a
    b = transpose(g, b, (1, 0), w.hint) if own["transB"] else b
    sums = w("MatMulInteger", a, b, single(w, a_zero), b_zero)
    if c:
        sums = w.apply(Add, sums, c)
    scale = w.apply(Mul, single(w, a_scale), _factor(w, b_scale))
    scale = w.apply(Mul, scale, w.single(own["alpha"]))
    out = w.apply(Mul, cast(g, sums, F32), scale)
    if not y_scale:
        return [out]
    if not y_zero:
        raise Unsupported("y_scale without y_zero_point")
    return [w("QuantizeLinear", out, single(w, y_scale), single(w, y_zero))]
