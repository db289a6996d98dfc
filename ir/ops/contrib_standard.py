"""Operators that onnxruntime had before the standard, or has with other types, as the standard's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..affine import axis
from ..dtypes import ALL, F16, F32, F64, I4, I8, I16, I32, I64, U4, U8, U16
from ..graph import Unsupported
from ..rules import GraphBuilder, Spec
from .contrib import Writer, contrib, need, operand
from .rearrange import emit_copy, normal_axis, reshape

T = {"T": ALL}


def _known_scalar(g: GraphBuilder, t: str, what: str) -> int:
    value = g.known(t, what)
    need(value.size == 1, f"{what} is {g.tensors[t]}, one number is wanted")
    return int(value.reshape(-1)[0])


@contrib("Trilu", "X:T k:K? -> Y:T", {**T, "K": (I64,)}, {"upper": 1}, limits="k known")
def _trilu(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    return [w("Trilu", *(t for t in spec.inputs if t), upper=spec.attributes["upper"])]


@contrib("ExpandDims", "X:T axis:I -> Y:T", {**T, "I": (I32,)}, limits="axis known")
def _expand_dims(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    shape = g.shape(spec.inputs[0])
    at = normal_axis(_known_scalar(g, spec.inputs[1], "axis"), len(shape) + 1)
    return [reshape(g, spec.inputs[0], (*shape[:at], 1, *shape[at:]), spec.outputs[0])]


@contrib("Range", "start:T limit:T delta:T? -> Y:T", {"T": (F32, F64, I16, I32, I64)}, limits="bounds known")
def _range(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    bounds = list(spec.inputs) if spec.has(2) else [*spec.inputs[:2], w.number(1, spec.inputs[0])]
    for t in bounds:
        need(int(np.prod(g.shape(t))) == 1, f"Range of {g.tensors[t]}, one number is wanted")
    return [w("Range", *(reshape(g, t, (), w.hint) for t in bounds))]


@contrib("Pad", "data:T pads:I value:T? -> output:T", {"T": (F16, F32, F64), "I": (I64,)},
         {"mode": "constant"}, limits="widths and value known")  # fmt: skip
def _pad(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    data, widths, fill = (operand(spec, i) for i in range(3))
    count = 2 * len(g.shape(data))
    need(g.shape(widths) in ((count,), (1, count)), f"pads are {g.tensors[widths]}, not [{count}]")
    inputs = [data, reshape(g, widths, (count,), w.hint)]
    if fill:
        need(int(np.prod(g.shape(fill))) == 1, f"value is {g.tensors[fill]}, one number is wanted")
        inputs.append(reshape(g, fill, (), w.hint))
    return [w("Pad", *inputs, mode=spec.attributes["mode"])]


@contrib("GatherND", "data:T indices:I -> output:T", {**T, "I": (I32, I64)})
def _gather_nd(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return [Writer(g, spec.outputs[0])("GatherND", *spec.inputs)]


@contrib("GridSample", "X:T Grid:T -> Y:T", {"T": (F32,)},
         {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0})  # fmt: skip
def _grid_sample(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    modes = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}
    own = dict(spec.attributes)
    if own["mode"] not in modes:
        raise Unsupported(f"mode {own['mode']!r}")
    return [Writer(g, spec.outputs[0])("GridSample", *spec.inputs, **{**own, "mode": modes[own["mode"]]})]


NUMBERS = (I8, U8, I16, U16, I4, U4)


@contrib("QuantizeLinear", "x:T1 y_scale:T1 y_zero_point:T2? -> y:T2", {"T1": (F16, F32), "T2": NUMBERS},
         {"axis": 1})  # fmt: skip
def _quantize(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return [_by_axis(g, spec)]


@contrib("DequantizeLinear", "x:T1 x_scale:T2 x_zero_point:T1? -> y:T2",
         {"T1": (*NUMBERS, I32), "T2": (F16, F32)}, {"axis": 1})  # fmt: skip
def _dequantize(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return [_by_axis(g, spec)]


def _by_axis(g: GraphBuilder, spec: Spec) -> str:
    """The standard's; the axis does not matter where there is one scale."""
    w, own = Writer(g, spec.outputs[0]), {}
    if int(np.prod(g.shape(spec.inputs[1]))) != 1:
        own = {"axis": normal_axis(spec.attributes["axis"], len(g.shape(spec.inputs[0])))}
    return w(spec.op_type, *(t for t in spec.inputs if t), **own)


@contrib("UnfoldTensor", "input:T -> output:T", T, {"dim": -1, "size": int, "step": 1})
def _unfold(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """All slices of a size along a dimension, `step` apart; their elements are a last dimension."""
    x, own, shape = spec.inputs[0], spec.attributes, g.shape(spec.inputs[0])
    at = normal_axis(own["dim"], len(shape))
    need(
        len(shape) > 0 and own["step"] > 0 and 0 < own["size"] <= shape[at],
        f"slices of {own['size']}, {own['step']} apart, of {g.tensors[x]}",
    )
    sizes = [*shape, own["size"]]
    sizes[at] = (shape[at] - own["size"]) // own["step"] + 1
    axes = tuple((f"d{i}", n) for i, n in enumerate(sizes))
    read = tuple(
        axis(f"d{i}", own["step"]).plus(axis(f"d{len(shape)}")) if i == at else axis(f"d{i}")
        for i in range(len(shape))
    )
    return [emit_copy(g, x, axes, read, tuple(axis(a) for a, _ in axes), sizes, spec.outputs[0])]
