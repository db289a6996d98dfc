"""Mixtures of experts of onnxruntime: a router chooses some experts for each token, whose results are added.

Weights are looked up by expert, Gather of a constant at run-time indices, and multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtypes import BF16, F16, F32, U8
from ..graph import Unsupported
from ..rules import GraphBuilder, Spec
from ..stored_bits import bits_apart
from .activation import Gelu, Log, Relu, Sigmoid
from .contract import product_of, transposed
from .contrib import FLOATS, Maybe, Writer, contrib, need, operand, shaped
from .contrib_blocks import STORED, judge_block, numbers_of, remade, turned
from .conversion import Where, cast
from .elementwise import Add, Div, Max, Min, Mul
from .logic import Equal, Greater
from .rearrange import Cut, reshape, slice_axis, slice_box, transpose
from .reduce import ReduceSum, reduce_over

MIXTURE = {
    "k": 1, "activation_type": "relu", "activation_alpha": 1.0, "activation_beta": 0.0, "swiglu_fusion": 0,
    "swiglu_limit": Maybe(float), "swiglu_limit_after_activation": 0, "normalize_routing_weights": 0,
    "use_sparse_mixer": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One product of all experts. weights: [experts, inputs, outputs]; bias: [experts, outputs]."""

    weights: str
    bias: str = ""

    def of(self, w: Writer, x: str, chosen: str) -> str:
        """[tokens, chosen, 1, inputs] by the weights of `chosen`, [tokens, chosen]."""
        weights = w("Gather", self.weights, chosen, axis=0)
        need(w.g.shape(weights)[2] == w.g.shape(x)[3], f"experts of {w.g.shape(weights)[2]} inputs")
        out = product_of(w.g, (x, ["m", "k"]), (weights, ["k", "n"]), w.hint, w.g.dtype(x).wide)
        if self.bias:
            rows = w.wide(w("Gather", self.bias, chosen, axis=0))
            need(w.g.shape(rows)[2] == w.g.shape(out)[3], f"a bias {w.g.tensors[self.bias]}")
            out = w.apply(Add, out, reshape(w.g, rows, (*w.g.shape(rows)[:2], 1, w.g.shape(rows)[2]), w.hint))
        return out


def _chosen(w: Writer, spec: Spec, probabilities: str, mixing: str) -> tuple[str, str]:
    """The experts of each token, and by what their results are multiplied, [tokens, k] both."""
    g, own = w.g, spec.attributes
    experts = g.shape(probabilities)[1]
    need(0 < own["k"] <= experts, f"{spec.op_type} chooses {own['k']} of {experts} experts")
    count = w.constant(np.array([own["k"]], np.int64))
    shares = w.wide(probabilities) if mixing else w("Softmax", w.wide(probabilities), axis=1)
    values, indices = w.several("TopK", [shares, count], 2, axis=1)
    if mixing:
        values = w("GatherElements", w.wide(mixing), indices, axis=1)
    # onnxruntime's CPU kernel of QMoE takes the Softmax of those that it chose, whatever the attribute says
    if own["normalize_routing_weights"] or (spec.op_type == "QMoE" and not mixing):
        values = w.apply(Div, values, reduce_over(g, ReduceSum, values, [1], w.hint))
    return indices, values


def _activated(w: Writer, own: Mapping[str, Any], x: str, beside: str) -> str:
    """The activation between the products. beside: of the third layer, which multiplies it."""
    kind = own["activation_type"]
    if kind == "swiglu":
        return _gated(w, own, x, beside)
    if kind == "silu":
        x = w.apply(Mul, x, w.apply(Sigmoid, x))
    elif kind in ("relu", "gelu"):
        x = w.apply(Relu, x) if kind == "relu" else w.apply(Gelu, x, approximate="tanh")
    elif kind != "identity":
        raise Unsupported(f"activation_type {kind!r}")
    return w.apply(Mul, x, beside) if beside else x


def _gated(w: Writer, own: Mapping[str, Any], x: str, beside: str) -> str:
    """SwiGLU of a gate and a line: side by side (fusion 2), in turns (1), or of two layers (0)."""
    g, fusion = w.g, own["swiglu_fusion"]
    if fusion == 0:
        need(bool(beside), "swiglu_fusion 0 without a third layer")
    else:
        half, odd = divmod(g.shape(x)[3], 2)
        need(fusion in (1, 2) and not odd, f"swiglu_fusion {fusion} of {g.shape(x)[3]} elements")
        cuts = [Cut(0, 1, n) for n in g.shape(x)[:3]]
        if fusion == 1:
            x, beside = (slice_box(g, x, [*cuts, Cut(i, 2, half)], w.hint) for i in (0, 1))
        else:
            x, beside = (slice_axis(g, x, 3, i * half, half, w.hint) for i in (0, 1))
    if own["swiglu_limit"] is not None:
        high, low = w.number(own["swiglu_limit"], x), w.number(-own["swiglu_limit"], x)
        x, beside = w.apply(Min, x, high), w.apply(Max, w.apply(Min, beside, high), low)
    gate = w.apply(Mul, x, w.apply(Sigmoid, w.apply(Mul, x, w.number(own["activation_alpha"], x))))
    return w.apply(Mul, gate, w.apply(Add, beside, w.number(own["activation_beta"], x)))


def _mixture(
    w: Writer, spec: Spec, layers: tuple[Layer, Layer, Layer | None], mixing: str = ""
) -> Sequence[str]:
    """The experts' results for each token, added."""
    g, own = w.g, spec.attributes
    if own["use_sparse_mixer"] or own["swiglu_limit_after_activation"]:
        raise Unsupported("use_sparse_mixer and swiglu_limit_after_activation")
    x, probabilities = spec.inputs[:2]
    shape = g.shape(x)
    need(len(shape) in (2, 3), f"{spec.op_type} of {g.tensors[x]}: 2 or 3 dimensions")
    tokens = int(np.prod(shape[:-1]))
    shaped(g, probabilities, tokens, None, name="router_probs")
    if mixing:
        shaped(g, mixing, *g.shape(probabilities), name="router_weights")
    chosen, shares = _chosen(w, spec, probabilities, mixing)
    rows = reshape(g, x, (tokens, 1, 1, shape[-1]), w.hint)
    first, second, third = layers
    between = _activated(w, own, first.of(w, rows, chosen), third.of(w, rows, chosen) if third else "")
    out = second.of(w, between, chosen)
    count = own["k"]
    out = reshape(g, out, (tokens, count, g.shape(out)[3]), w.hint)
    out = w.apply(Mul, out, reshape(g, shares, (tokens, count, 1), w.hint))
    return [reshape(g, reduce_over(g, ReduceSum, out, [1], w.hint, keep=False), shape, w.hint)]


def _floats(w: Writer, spec: Spec, at: int) -> Layer | None:
    """The layer of floats in inputs `at` and the next; weights stand with outputs last."""
    name, bias = operand(spec, at), operand(spec, at + 1)
    if not name:
        return None
    shaped(w.g, name, None, None, None, name=f"input {at}")
    turned = transposed(w.g, name, (0, 2, 1)) or transpose(w.g, name, (0, 2, 1), w.hint)
    if bias:
        shaped(w.g, bias, w.g.shape(turned)[0], w.g.shape(turned)[2], name=f"input {at + 1}")
    return Layer(turned, bias)


@contrib("MoE",
         "input:T router_probs:T fc1_experts_weights:T fc1_experts_bias:T? fc2_experts_weights:T "
         "fc2_experts_bias:T? fc3_experts_weights:T? fc3_experts_bias:T? -> output:T", {"T": FLOATS}, MIXTURE,
         limits="no sparse mixer")  # fmt: skip
def _moe(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    first, second, third = (_floats(w, spec, i) for i in (2, 4, 6))
    assert first and second
    return _mixture(w, spec, (first, second, third))


QUANTISED = {
    **MIXTURE, "expert_weight_bits": 4, "fc1_expert_weight_bits": 0, "fc2_expert_weight_bits": 0,
    "fc3_expert_weight_bits": 0, "block_size": 0, "quant_type": "int", "accuracy_level": 0,
    "weights_prepacked": -1,
}  # fmt: skip


def _numbers(w: Writer, spec: Spec, layer: int) -> Layer | None:
    """Layer 1, 2 or 3 of packed numbers [experts, outputs, bytes], its scales, and its zero points."""
    g, own = w.g, spec.attributes
    at = 3 * layer - 1
    name, scales, bias, zeros = (operand(spec, i) for i in (at, at + 1, at + 2, 10 + layer))
    if not name:
        return None
    bits = own[f"fc{layer}_expert_weight_bits"] or own["expert_weight_bits"]
    if bits not in STORED or g.dtype(name) != U8:
        raise Unsupported(f"experts of {bits} bits in {g.dtype(name)}")
    experts, outputs, room = shaped(g, name, None, None, None, name=f"fc{layer}_experts_weights")
    stored, inputs = STORED[bits], room * 8 // bits
    block = own["block_size"] if own["block_size"] > 0 else inputs
    if own["block_size"] > 0:
        judge_block(spec.op_type, block)
    need(inputs > 0 and inputs % block == 0, f"{inputs} inputs in blocks of {block}")
    blocks = inputs // block
    need(bool(scales), f"fc{layer}_scales are missing")
    need(
        g.shape(scales) == (experts, outputs, blocks)
        or (g.shape(scales) == (experts, outputs) and blocks == 1),
        f"fc{layer}_scales are {g.tensors[scales]}, not [{experts}, {outputs}, {blocks}]",
    )
    numbers = numbers_of(w, name, (experts, outputs), inputs, stored, (0, 2, 1))
    steps = w.wide(turned(w, scales, (experts, outputs, blocks), (0, 2, 1)))
    each = (experts, blocks, outputs)
    if not zeros:
        points = w.constant(np.asarray(1 << (bits - 1)).astype(stored.numpy))
    elif own["block_size"] > 0:
        shaped(g, zeros, experts, outputs, -(-blocks * bits // 8), name=f"fc{layer}_zero_points")
        points = remade(
            w, zeros, each, stored, lambda z: bits_apart(z, bits)[..., :blocks].transpose(0, 2, 1)
        )
    else:
        shaped(g, zeros, experts, -(-outputs * bits // 8), name=f"fc{layer}_zero_points")
        points = remade(w, zeros, each, stored, lambda z: bits_apart(z, bits)[:, None, :outputs])
    if bias:
        shaped(g, bias, experts, outputs, name=f"fc{layer}_experts_bias")
    weights = w("DequantizeLinear", numbers, steps, points, axis=1, block_size=block)
    return Layer(weights, bias)


@contrib("QMoE",
         "input:T router_probs:T fc1_experts_weights:T1 fc1_scales:T2? fc1_experts_bias:T? "
         "fc2_experts_weights:T1 fc2_scales:T2? fc2_experts_bias:T? fc3_experts_weights:T1? fc3_scales:T2? "
         "fc3_experts_bias:T? fc1_zero_points:T1? fc2_zero_points:T1? fc3_zero_points:T1? router_weights:T? "
         "fc1_global_scale:T4? fc2_global_scale:T4? fc1_act_scale:T4? fc2_act_scale:T4? -> output:T",
         {"T": FLOATS, "T1": (U8,), "T2": FLOATS, "T4": (F32,)}, QUANTISED,
         limits="weights constant, integers, not prepacked; no sparse mixer")  # fmt: skip
def _q_moe(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    if own["quant_type"] != "int" or own["weights_prepacked"] == 1 or any(map(spec.has, range(15, 19))):
        raise Unsupported("weights that are no integers, or packed for one machine")
    first, second, third = (_numbers(w, spec, i) for i in (1, 2, 3))
    assert first and second
    return _mixture(w, spec, (first, second, third), operand(spec, 14))


@contrib("MoEGroupRouter",
         "logits:T expert_bias:F projection_weight:T? -> router_probs:T selection_scores:F router_weights:F",
         {"T": (F16, BF16, F32), "F": (F32,)},
         {"top_k": int, "n_group": 1, "topk_group": 1, "group_topk": 2, "router_sentinel": -10000.0},
         limits="no projection_weight")  # fmt: skip
def _group_router(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Of each token's best groups of experts the best: the logarithms of their shares, a number elsewhere."""
    w, own, outputs = Writer(g, spec.outputs[0] or spec.outputs[-1]), spec.attributes, spec.outputs
    if spec.has(2):
        raise Unsupported("projection_weight, which onnxruntime's CPU does not have either")
    (*lead, experts), groups = g.shape(spec.inputs[0]), own["n_group"]
    need(groups > 0 and experts % groups == 0, f"{experts} experts in {groups} groups")
    logits = cast(g, reshape(g, spec.inputs[0], (int(np.prod(lead)), experts), w.hint), F32)
    shares = w.apply(Sigmoid, logits)
    shaped(g, spec.inputs[1], experts, name="expert_bias")
    scores = w.apply(Add, shares, spec.inputs[1])
    if any(outputs[1:]):
        need(groups == own["topk_group"] == 1 and not outputs[0], "all scores are of one group, and alone")
        return ["", scores, shares]
    size = experts // groups
    need(0 < own["topk_group"] <= groups and own["group_topk"] > 0, f"topk_group {own['topk_group']}")
    need(0 < own["top_k"] <= own["topk_group"] * size, f"{own['top_k']} of {size} experts a group")
    if own["topk_group"] < groups:
        apart = reshape(g, scores, (g.shape(scores)[0], groups, size), w.hint)
        count = w.constant(np.array([min(own["group_topk"], size)], np.int64))
        best = reduce_over(g, ReduceSum, w.several("TopK", [apart, count], 2, axis=2)[0], [2], w.hint)
        taken = _among(w, reshape(g, best, g.shape(apart)[:2], w.hint), own["topk_group"])
        seen = reshape(g, taken, (*g.shape(taken), 1), w.hint)
        scores = w.apply(Where, seen, apart, w.number(float("-inf"), apart))
        scores = reshape(g, scores, g.shape(shares), w.hint)
    logarithms = w.apply(Log, w.apply(Max, shares, w.number(1e-20, shares)))
    rest = w.number(own["router_sentinel"], shares)
    return [w.apply(Where, _among(w, scores, own["top_k"]), logarithms, rest)]


def _among(w: Writer, scores: str, count: int) -> str:
    """Which of a row's scores, [rows, scores], are among its `count` largest."""
    g, (rows, width) = w.g, w.g.shape(scores)
    _, places = w.several("TopK", [scores, w.constant(np.array([count], np.int64))], 2, axis=1)
    line = w.constant(np.arange(width, dtype=np.int64))
    hits = cast(g, w.apply(Equal, reshape(g, places, (rows, count, 1), w.hint), line), F32)
    return w.apply(Greater, w("ReduceMax", hits, axes=[1], keepdims=0), w.single(0))
