"""Gates, mixtures of streams and norms of parts of rows, as onnxruntime has them for newer decoders."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from ..dtypes import F32
from ..graph import Unsupported
from ..rules import GraphBuilder, Spec
from .activation import Sigmoid, Softplus
from .contract import product_of, scaled
from .contrib import FLOATS, Writer, contrib, need, operand, shaped
from .conversion import cast
from .elementwise import Abs, Add, Max, Mul, Sign, Sqrt
from .rearrange import reshape
from .reduce import ReduceSum, reduce_over

T = {"T": FLOATS}
TM = {"T": FLOATS, "M": FLOATS}


@contrib("ScaledSiLU", "X:T scale:M? -> Y:T", TM, {"alpha": 1.0})
def _scaled_silu(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """x * sigmoid(x) of scale * x, which is rounded to x's type, as is its sigmoid."""
    w = Writer(g, spec.outputs[0])
    x, given = w.wide(spec.inputs[0]), g.dtype(spec.inputs[0])
    if scale := operand(spec, 1):
        need(int(np.prod(g.shape(scale))) == 1, f"scale is {g.tensors[scale]}, no scalar")
        by = cast(g, reshape(g, scale, (), w.hint), g.dtype(x))
    else:
        by = w.number(spec.attributes["alpha"], x)
    z = w.wide(cast(g, w.apply(Mul, x, by), given))
    return [w.apply(Mul, z, w.wide(cast(g, w.apply(Sigmoid, z), given)))]


@contrib("GatedRMSNorm", "X:T scale:T gate:T -> Y:T", T, {"activation": "silu", "epsilon": 1e-5})
def _gated_norm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The norm of each part of a row that is as long as `scale`, times an activation of the gate."""
    w, kind = Writer(g, spec.outputs[0]), spec.attributes["activation"]
    x, scale, gate = (w.wide(t) for t in spec.inputs)
    shape, size = g.shape(x), shaped(g, scale, None, name="scale")[0]
    whole = size > 0 and sum(shape[-1:]) % size == 0
    need(bool(shape) and whole, f"rows of {g.tensors[x]} in parts of {size}")
    need(g.shape(gate) == shape, f"a gate {g.tensors[gate]} of {g.tensors[x]}")
    if kind not in ("silu", "swish", "sigmoid"):
        raise Unsupported(f"activation {kind!r}")
    parts = reshape(g, x, (*shape[:-1], shape[-1] // size, size), w.hint)
    out = w("RMSNormalization", parts, scale, axis=-1, epsilon=spec.attributes["epsilon"])
    opened = w.apply(Sigmoid, gate)
    opened = opened if kind == "sigmoid" else w.apply(Mul, gate, opened)
    return [w.apply(Mul, reshape(g, out, shape, w.hint), opened)]


def _branches(w: Writer, x: str, count: int) -> tuple[int, ...]:
    """[..., branches, size] of a tensor that is so, or has them side by side."""
    shape = w.g.shape(x)
    if not count:
        need(len(shape) > 1, f"{w.g.tensors[x]} has no branches")
        return shape
    whole = count > 0 and sum(shape[-1:]) % count == 0
    need(bool(shape) and whole, f"{w.g.tensors[x]} in {count} branches")
    return (*shape[:-1], count, shape[-1] // count)


@contrib("BranchwiseRMSNorm", "X:T scale:M? -> Y:T", TM, {"num_branches": 0, "epsilon": 1e-5})
def _branch_norm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    x = w.wide(spec.inputs[0])
    apart = _branches(w, x, spec.attributes["num_branches"])
    ones = w.constant(np.ones(apart[-1], g.dtype(x).numpy))
    out = w(
        "RMSNormalization", reshape(g, x, apart, w.hint), ones, axis=-1, epsilon=spec.attributes["epsilon"]
    )
    if scale := operand(spec, 1):
        shape = g.shape(scale)
        need(
            shape in (apart[-1:], apart[-2:], (apart[-2] * apart[-1],)),
            f"scale {g.tensors[scale]} of {apart[-2:]}",
        )
        by = scale if shape == apart[-1:] else reshape(g, scale, apart[-2:], w.hint)
        out = w.apply(Mul, out, cast(g, by, g.dtype(x)))
    return [reshape(g, out, g.shape(x), w.hint)]


@contrib(
    "GatedAdd", "X:T Y:T gate:T gate_weight:T? -> output:T", T, limits="gates as they are, not projected"
)
def _gated_add(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """X + Y * gate, the product rounded to their type."""
    w = Writer(g, spec.outputs[0])
    x, y, gate = spec.inputs[:3]
    if spec.has(3):
        raise Unsupported("gate_weight, which onnxruntime's CPU does not have either")
    shape = g.shape(x)
    need(g.shape(y) == shape and g.shape(gate) == (*shape[:-1], 1), f"{g.tensors[y]} by {g.tensors[gate]}")
    return [w.apply(Add, x, w.apply(Mul, y, gate))]


@contrib(
    "LinearAttentionGate", "a:T dt_bias:F decay_scale:F b:T? -> decay:T beta:T", {"T": FLOATS, "F": (F32,)}
)
def _attention_gate(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    a, bias, scale, b = (operand(spec, i) for i in range(4))
    heads = shaped(g, a, None, None, None, name="a")[2]
    for t, name in ((bias, "dt_bias"), (scale, "decay_scale")):
        shaped(g, t, heads, name=name)
    decay = w.apply(Mul, scale, w.apply(Softplus, w.apply(Add, cast(g, w.wide(a), F32), bias)))
    need(bool(b) or not any(spec.outputs[1:]), "beta without b")
    return [decay, w.apply(Sigmoid, w.wide(b)) if b else ""]


def _mix(w: Writer, mix: str, apart: Sequence[int]) -> str:
    """A mixture's factors as [..., branches, 1 or size]."""
    shape, lead = w.g.shape(mix), tuple(apart[:-2])
    count, size = apart[-2:]
    if shape == (*lead, count):
        return reshape(w.g, mix, (*lead, count, 1), w.hint)
    if shape == (*lead, count * size):
        return reshape(w.g, mix, (*lead, count, size), w.hint)
    need(shape in ((*lead, count, 1), tuple(apart)), f"factors {w.g.tensors[mix]} of {list(apart)}")
    return mix


@contrib("HyperConnectionPreMix", "streams:T pre_mix:M -> output:T", TM,
         {"num_branches": 0, "reduction_scale": 1.0})  # fmt: skip
def _pre_mix(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The sum of all streams times their factors."""
    w = Writer(g, spec.outputs[0])
    x = w.wide(spec.inputs[0])
    apart = _branches(w, x, spec.attributes["num_branches"])
    by = cast(g, _mix(w, spec.inputs[1], apart), g.dtype(x))
    product = w.apply(Mul, reshape(g, x, apart, w.hint), by)
    total = reduce_over(g, ReduceSum, product, [len(apart) - 2], w.hint, keep=False)
    return [scaled(g, total, spec.attributes["reduction_scale"])]


@contrib("HyperConnectionPostMix", "streams:T block_output:T post_mix:M stream_mix:M? -> output:T", TM,
         {"num_branches": 0})  # fmt: skip
def _post_mix(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Streams mixed with one another, and a block's result times their factors."""
    w = Writer(g, spec.outputs[0])
    x = w.wide(spec.inputs[0])
    apart = _branches(w, x, spec.attributes["num_branches"])
    *lead, count, size = apart
    block, wide = w.wide(spec.inputs[1]), g.dtype(x)
    shaped(g, block, *lead, size, name="block_output")
    by = cast(g, _mix(w, spec.inputs[2], apart), wide)
    out = w.apply(Mul, reshape(g, block, (*lead, 1, size), w.hint), by)
    streams = reshape(g, x, apart, w.hint)
    if mix := operand(spec, 3):
        shaped(g, mix, *lead, count, count, name="stream_mix")
        streams = product_of(g, (cast(g, mix, wide), ["k", "m"]), (streams, ["k", "n"]), w.hint)
    return [reshape(g, w.apply(Add, streams, out), g.shape(x), w.hint)]


@contrib("EngramGate",
         "key:T query:T value:T key_norm_scale:T query_norm_scale:T conv_norm_scale:T? "
         "-> output:T gated_value_normed:T", T, {"epsilon": 1e-5})  # fmt: skip
def _engram(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """A value times the sigmoid of the signed root of how far a key and a query, both normalised, agree."""
    w, epsilon = Writer(g, spec.outputs[0]), spec.attributes["epsilon"]
    key, query, value, by_key, by_query, after = (w.wide(operand(spec, i)) for i in range(6))
    batch, length, count, size = shaped(g, key, None, None, None, None, name="key")
    shaped(g, query, batch, length, count, size, name="query")
    shaped(g, value, batch, length, size, name="value")

    def normed(x: str, scale: str, name: str) -> str:
        shaped(g, scale, count, size, name=name)
        ones = w.constant(np.ones(size, g.dtype(x).numpy))
        return w.apply(Mul, w("RMSNormalization", x, ones, axis=-1, epsilon=epsilon), scale)

    both = w.apply(Mul, normed(key, by_key, "key_norm_scale"), normed(query, by_query, "query_norm_scale"))
    dot = scaled(g, reduce_over(g, ReduceSum, both, [3], w.hint), 1 / sqrt(max(size, 1)))
    root = w.apply(Sqrt, w.apply(Max, w.apply(Abs, dot), w.number(1e-6, dot)))
    gate = w.apply(Sigmoid, w.apply(Mul, w.apply(Sign, dot), root))
    out = w.apply(Mul, gate, reshape(g, value, (batch, length, 1, size), w.hint))
    if not any(spec.outputs[1:]):
        return [out]
    need(bool(after), "gated_value_normed without conv_norm_scale")
    return [out, normed(out, after, "conv_norm_scale")]
