"""How cases of onnxruntime's recurrent operators, gates and names of the standard's are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from contrib import Dice, Drawn, draws
from waferc.ir.op import Array


# -- steps ------------------------------------------------------------------------------------
@draws("DynamicQuantizeLSTM", kinds=("float32",))
def lstm(d: Dice) -> Drawn:
    length, batch, width, hidden = d.size(1, 4), d.size(1, 3), d.size(1, 6), d.size(2, 5)
    direction = d.pick("forward", "reverse", "bidirectional")
    count = 2 if direction == "bidirectional" else 1
    kind = d.pick("int8", "uint8")
    each = d.pick((count,), (count, 4 * hidden))
    low, high = (0, 128) if kind == "uint8" else (-64, 64)
    inputs: dict[str, Array | None] = {
        "X": d.single(length, batch, width),
        "W": d.whole(count, width, 4 * hidden, low=low, high=high, kind=kind),
        "R": d.whole(count, hidden, 4 * hidden, low=low, high=high, kind=kind),
        "B": d.maybe(d.single(count, 8 * hidden)),
        "sequence_lens": d.maybe(d.whole(batch, low=1, high=length + 1), 0.3),
        "initial_h": d.maybe(d.single(count, batch, hidden)),
        "initial_c": d.maybe(d.single(count, batch, hidden)),
        "P": d.maybe(d.single(count, 3 * hidden), 0.2),
    }
    for name in ("W", "R"):
        inputs[f"{name}_scale"] = d.random.uniform(0.005, 0.02, each).astype(np.float32)
        inputs[f"{name}_zero_point"] = np.full(each, 64 if kind == "uint8" else 0, kind)
    own: dict[str, Any] = {"direction": direction, "hidden_size": hidden, **d.some({"clip": 1.5}, 0.2)}
    fixed = ["W", "R", "W_scale", "W_zero_point", "R_scale", "R_zero_point"]
    # a step's bytes may round the other way by a last bit of what was before
    return Drawn(inputs, own, fixed, d.size(1, 3), tolerance=300)


@draws("CausalConvWithState")
def causal_convolution(d: Dice) -> Drawn:
    batch, channels, length, taps, apart = d.size(1, 2), d.size(1, 5), d.size(), d.size(2, 4), d.size(1, 2)
    own = d.some({"activation": d.pick("silu", "swish", "none")})
    own |= {"dilation": apart} if apart > 1 else {}
    inputs = {
        "input": d.normal(batch, channels, length),
        "weight": d.normal(channels, 1, taps),
        "bias": d.maybe(d.normal(channels)),
        "past_state": d.maybe(d.normal(batch, channels, (taps - 1) * apart), 0.6),
    }
    return Drawn(inputs, own, d.pick((), ("weight", "bias")), 2)


@draws("LinearAttention")
def linear_attention(d: Dice) -> Drawn:
    batch, length, keys, values = d.size(1, 2), d.size(1, 4), d.size(1, 6), d.size(1, 6)
    asked, shared = d.pick((1, 1), (2, 2), (4, 2), (2, 4))
    rule = d.pick("linear", "gated", "delta", "gated_delta")
    decay = -np.abs(d.normal(batch, length, shared * d.pick(1, keys)))
    beta = np.abs(d.normal(batch, length, d.pick(1, shared))) * 0.3
    inputs = {
        "query": d.normal(batch, length, asked * keys),
        "key": d.normal(batch, length, shared * keys, scale=0.3),
        "value": d.normal(batch, length, shared * values),
        "past_state": d.maybe(d.normal(batch, shared, keys, values)),
        "decay": decay.astype(d.kind) if "gated" in rule else None,
        "beta": beta.astype(d.kind) if "delta" in rule else None,
    }
    own = {"q_num_heads": asked, "kv_num_heads": shared, "update_rule": rule, **d.some({"scale": 0.7}, 0.3)}
    return Drawn(inputs, own, (), 2, 2)


# -- gates ------------------------------------------------------------------------------------
@draws("ScaledSiLU")
def scaled_silu(d: Dice) -> Drawn:
    scale = d.maybe(np.asarray(0.7, d.kind))
    return Drawn({"X": d.normal(*d.shape()), "scale": scale}, d.some({"alpha": 1.5}))


@draws("GatedRMSNorm")
def gated_norm(d: Dice) -> Drawn:
    size = d.size(1, 12)
    shape = (*d.shape(1, 2), size * d.size(1, 3))
    inputs = {"X": d.normal(*shape), "scale": d.normal(size), "gate": d.normal(*shape)}
    return Drawn(inputs, d.some({"activation": d.pick("silu", "swish", "sigmoid"), "epsilon": 1e-3}))


def _streams(d: Dice) -> tuple[tuple[int, ...], int, int, dict[str, int]]:
    """Leading dimensions, branches, their size, and attributes of streams side by side or apart."""
    branches, size = d.size(1, 4), d.size(1, 8)
    return d.shape(1, 2), branches, size, d.pick({}, {"num_branches": branches})


def _laid(lead: tuple[int, ...], branches: int, size: int, flat: bool) -> tuple[int, ...]:
    return (*lead, branches * size) if flat else (*lead, branches, size)


@draws("BranchwiseRMSNorm")
def branch_norm(d: Dice) -> Drawn:
    lead, branches, size, own = _streams(d)
    scale = d.maybe(d.normal(*d.pick((branches * size,), (branches, size), (size,))))
    x = d.normal(*_laid(lead, branches, size, bool(own)))
    return Drawn({"X": x, "scale": scale}, {**own, **d.some({"epsilon": 1e-3})})


@draws("GatedAdd")
def gated_add(d: Dice) -> Drawn:
    shape = d.shape(2, 3)
    return Drawn({"X": d.normal(*shape), "Y": d.normal(*shape), "gate": d.normal(*shape[:-1], 1)})


@draws("LinearAttentionGate")
def attention_gate(d: Dice) -> Drawn:
    batch, length, heads = d.size(1, 2), d.size(), d.size()
    both = d.random.random() < 0.5
    inputs = {
        "a": d.normal(batch, length, heads),
        "dt_bias": d.single(heads), "decay_scale": -np.abs(d.single(heads)),
        "b": d.normal(batch, length, heads) if both else None,
    }  # fmt: skip
    return Drawn(inputs, outputs=2 if both else 1)


@draws("HyperConnectionPreMix")
def pre_mix(d: Dice) -> Drawn:
    lead, branches, size, own = _streams(d)
    forms = [(*lead, branches), (*lead, branches, 1), (*lead, branches, size)]
    x = d.normal(*_laid(lead, branches, size, bool(own)))
    return Drawn(
        {"streams": x, "pre_mix": d.normal(*d.pick(*forms))}, {**own, **d.some({"reduction_scale": 0.5})}
    )


@draws("HyperConnectionPostMix")
def post_mix(d: Dice) -> Drawn:
    lead, branches, size, own = _streams(d)
    forms = [(*lead, branches), (*lead, branches, 1), (*lead, branches, size)]
    inputs = {
        "streams": d.normal(*_laid(lead, branches, size, bool(own))),
        "block_output": d.normal(*lead, size),
        "post_mix": d.normal(*d.pick(*forms)),
        "stream_mix": d.maybe(d.normal(*lead, branches, branches)),
    }
    return Drawn(inputs, own, tolerance=2)


@draws("EngramGate")
def engram(d: Dice) -> Drawn:
    batch, length, count, size = d.size(1, 2), d.size(), d.size(1, 3), d.size(1, 9)
    both = d.random.random() < 0.5
    inputs = {
        "key": d.normal(batch, length, count, size), "query": d.normal(batch, length, count, size),
        "value": d.normal(batch, length, size), "key_norm_scale": d.normal(count, size),
        "query_norm_scale": d.normal(count, size), "conv_norm_scale": d.normal(count, size) if both else None,
    }  # fmt: skip
    return Drawn(inputs, d.some({"epsilon": 1e-3}), outputs=2 if both else 1, tolerance=3)


# -- names of the standard's --------------------------------------------------------------------
KINDS = ("float32", "int32", "int64", "float64")


@draws("Trilu")
def trilu(d: Dice) -> Drawn:
    x = d.whole(*d.shape(2, 4), low=-9, high=9, kind=d.pick(*KINDS))
    k = d.maybe(np.asarray(d.pick(-2, -1, 0, 1, 3), np.int64))
    return Drawn({"X": x, "k": k}, d.some({"upper": d.pick(0, 1)}), ("k",))


@draws("Inverse")
def inverse(d: Dice) -> Drawn:
    n = d.size(1, 6)
    lead = d.pick((), (d.size(),), (2, d.size(1, 3)))
    x = np.eye(n)[d.random.permutation(n)] * 3 + d.random.standard_normal((*lead, n, n)) * 0.4
    return Drawn({"X": x.astype(d.kind)}, tolerance=10)


@draws("ExpandDims")
def expand_dims(d: Dice) -> Drawn:
    shape = d.shape(1, 3)
    x = d.whole(*shape, low=-9, high=9, kind=d.pick(*KINDS))
    axis = np.asarray(d.pick(*range(-len(shape) - 1, len(shape) + 1)), np.int32)
    return Drawn({"X": x, "axis": axis}, {}, ("axis",))


@draws("Range")
def line(d: Dice) -> Drawn:
    kind = d.pick("float32", "float64", "int16", "int32", "int64")
    step = d.pick(1, 2, -1, 3)
    start = d.pick(0, 3, -4)
    limit = start + step * d.size() + d.pick(0, 1 if step > 0 else -1)
    values = [np.asarray(v, kind) for v in (start, limit, step)]
    delta = values[2] if step != 1 else d.maybe(values[2])
    return Drawn({"start": values[0], "limit": values[1], "delta": delta}, {}, ("start", "limit", "delta"))


@draws("Pad")
def pad(d: Dice) -> Drawn:
    shape = tuple(d.size(3, 6) for _ in range(d.size(1, 3)))
    mode = d.pick("constant", "constant", "reflect", "edge")
    least = -1 if mode == "constant" else 0
    widths = d.whole(2 * len(shape), low=least, high=3, kind="int64")
    value = d.maybe(np.asarray(0.5, d.kind)) if mode == "constant" else None
    return Drawn(
        {"data": d.normal(*shape), "pads": widths, "value": value}, {"mode": mode}, ("pads", "value")
    )


@draws("GatherND")
def gather_nd(d: Dice) -> Drawn:
    shape = d.shape(1, 4)
    deep = d.size(1, len(shape))
    lead = d.shape(1, 2)
    at = np.stack([d.random.integers(0, n, lead) for n in shape[:deep]], -1).astype(d.pick("int32", "int64"))
    return Drawn({"data": d.whole(*shape, low=-99, high=99, kind=d.pick(*KINDS)), "indices": at})


@draws("GridSample", kinds=("float32",))
def grid_sample(d: Dice) -> Drawn:
    batch = d.size(1, 2)
    inputs = {
        "X": d.normal(batch, d.size(1, 3), d.size(2, 6), d.size(2, 6)),
        "Grid": d.random.uniform(-1.3, 1.3, (batch, d.size(), d.size(), 2)).astype(np.float32),
    }
    own = {
        "mode": d.pick("bilinear", "nearest", "bicubic"),
        "padding_mode": d.pick("zeros", "border", "reflection"),
    }
    return Drawn(inputs, {**own, **d.some({"align_corners": 1})}, tolerance=5)


def levels(d: Dice) -> tuple[str, tuple[int, ...], Any, Any, dict[str, int]]:
    """(type, shape, scale, zero point, attributes): one for all, or one for each along an axis."""
    kind, shape = d.pick("uint8", "int8", "uint16", "int16"), d.shape()
    at = d.size(0, len(shape) - 1)
    each = d.pick((), (shape[at],))
    scale = d.random.uniform(0.01, 0.1, each).astype(np.float32)
    zero = d.whole(*each, low=0, high=20, kind=kind)
    own = {"axis": at} if each else {}
    return kind, shape, scale, zero, own


@draws("QuantizeLinear", kinds=("float32",))
def quantise(d: Dice) -> Drawn:
    kind, shape, scale, zero, own = levels(d)
    return Drawn({"x": d.single(*shape, scale=3), "y_scale": scale, "y_zero_point": zero}, own, types=(kind,))


@draws("DequantizeLinear", kinds=("float32",))
def dequantise(d: Dice) -> Drawn:
    kind, shape, scale, zero, own = levels(d)
    inputs = {"x": d.whole(*shape, low=0, high=100, kind=kind), "x_scale": scale, "x_zero_point": zero}
    return Drawn(inputs, own, types=("float32",))


@draws("UnfoldTensor")
def unfold(d: Dice) -> Drawn:
    shape = tuple(d.size(2, 7) for _ in range(d.size(1, 3)))
    at = d.pick(*range(-len(shape), len(shape)))
    own = {"dim": at, "size": d.size(1, shape[at]), **d.some({"step": d.size(1, 3)})}
    return Drawn({"input": d.whole(*shape, low=-99, high=99, kind=d.pick(*KINDS))}, own)
