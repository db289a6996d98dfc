"""What goes from step to step in onnxruntime: LSTM of bytes, convolutions and attentions with a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import sqrt

import numpy as np

from ..dtypes import F32, I8, I32, U8, DType
from ..graph import Unsupported
from ..rules import GraphBuilder, Spec
from .activation import Exp, Sigmoid
from .cells import Direction, Function, lstm_step
from .contract import product_of, scaled
from .contrib import FLOATS, Maybe, Writer, contrib, need, operand, shaped
from .contrib_quantised import bytes_of
from .conversion import cast
from .elementwise import Add, Mul, Sub
from .rearrange import concat, expand, pick, reshape, slice_axis, transpose
from .recur import direction_of, layer

Weights = tuple[str, str, str]  # numbers [inputs, outputs], their scale and their zero point


@dataclass(frozen=True)
class ByteDirection(Direction):
    """A direction whose weights are bytes; what they multiply becomes bytes at run time, by a scale of a
    call of `project` or of a step."""

    scales: tuple[str, str] = ("", "")
    zeros: tuple[str, str] = ("", "")

    def project(self, g: GraphBuilder, x: str, wide: DType) -> str:
        return self._product(g, x, self.weights, 0)

    def recur(self, g: GraphBuilder, h: str, weights: str | None = None) -> str:
        return self._product(g, h, weights or self.recurrence, 1)

    def _product(self, g: GraphBuilder, x: str, weights: str, which: int) -> str:
        w = Writer(g, self.hint)
        whole, scale, zero = bytes_of(w, x)
        sums = cast(g, w("MatMulInteger", whole, weights, zero, self.zeros[which]), F32)
        return w.apply(Mul, sums, w.apply(Mul, scale, self.scales[which]))


@contrib("DynamicQuantizeLSTM",
         "X:T W:T2 R:T2 B:T? sequence_lens:T1? initial_h:T? initial_c:T? P:T? W_scale:T W_zero_point:T2 "
         "R_scale:T R_zero_point:T2 -> Y:T Y_h:T Y_c:T", {"T": (F32,), "T1": (I32,), "T2": (I8, U8)},
         {"direction": "forward", "hidden_size": int, "activations": Maybe(list, str),
          "activation_alpha": Maybe(list, float), "activation_beta": Maybe(list, float),
          "clip": Maybe(float), "input_forget": 0})  # fmt: skip
def _lstm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """LSTM with W and R in bytes, [directions, inputs, gates], by tensor or by column."""
    hint = next(o for o in spec.outputs if o)
    x, hidden = spec.inputs[0], spec.attributes["hidden_size"]
    inputs = shaped(g, x, None, None, None, name="X")[2]
    directions = 2 if spec.attributes["direction"] == "bidirectional" else 1
    shaped(g, spec.inputs[1], directions, inputs, 4 * hidden, name="W")
    shaped(g, spec.inputs[2], directions, hidden, 4 * hidden, name="R")
    for i, size in ((3, 8 * hidden), (7, 3 * hidden)):
        if spec.has(i):
            shaped(g, spec.inputs[i], directions, size, name="B" if i == 3 else "P")
    for i in range(8, 12):
        allowed = ((directions,), (directions, 1), (directions, 4 * hidden))
        need(g.shape(spec.inputs[i]) in allowed, f"scales or zero points {g.tensors[spec.inputs[i]]}")

    def of(g: GraphBuilder, plain: Spec, d: int, functions: tuple[Function, ...], hint: str) -> Direction:
        made = direction_of(g, plain, d, functions, hint)
        own = {f.name: getattr(made, f.name) for f in fields(made)}
        scale, zero, r_scale, r_zero = (pick(g, spec.inputs[i], 0, d, hint) for i in range(8, 12))
        return ByteDirection(**own, scales=(scale, r_scale), zeros=(zero, r_zero))

    # weights stand in the standard's order there, [gates, inputs]
    turned = tuple(transpose(g, t, (0, 2, 1), hint) for t in spec.inputs[1:3])
    plain = replace(spec, op_type="LSTM", inputs=(x, *turned, *spec.inputs[3:8]))
    return layer(g, plain, lstm_step, of)


@contrib("CausalConvWithState", "input:T weight:T bias:T? past_state:T? -> output:T present_state:T",
         {"T": FLOATS},
         {"activation": "none", "ndim": 1, "dilation": 1, "channels_last": 0, "state_window": 0,
          "state_length": 0, "state_channels_last": -1, "state_update_capacity": 0, "input_channels": 0,
          "input_channel_offset": 0},
         limits="one dimension, channels first, no window of states")  # fmt: skip
def _causal_convolution(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Each channel convolved with its own kernel, over the past and the input; their end is the state."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    special = ("channels_last", "state_window", "state_length", "state_update_capacity", "input_channels")
    if own["ndim"] != 1 or any(own[name] for name in special):
        raise Unsupported("more than one dimension, channels last, and windows of states")
    x, weight, bias, past = (operand(spec, i) for i in range(4))
    batch, channels, length = shaped(g, x, None, None, None, name="input")
    taps = shaped(g, weight, channels, 1, None, name="weight")[2]
    before = (taps - 1) * own["dilation"]
    need(own["dilation"] > 0 and taps > 0, f"a dilation of {own['dilation']}, a kernel of {taps}")
    if past:
        shaped(g, past, batch, channels, before, name="past_state")
    else:
        past = w.constant(np.zeros((batch, channels, before), g.dtype(x).numpy))
    whole = concat(g, [past, x], 2, w.hint) if before else x
    out = w("Conv", whole, weight, *([bias] if bias else []), group=channels, dilations=[own["dilation"]])
    if own["activation"] in ("silu", "swish"):
        out = w.wide(out)
        out = w.apply(Mul, out, w.apply(Sigmoid, out))
    elif own["activation"] != "none":
        raise Unsupported(f"activation {own['activation']!r}")
    return [out, slice_axis(g, whole, 2, length, before, w.hint)]


@contrib("LinearAttention",
         "query:T key:T value:T past_state:S? decay:T? beta:T? -> output:T present_state:S",
         {"T": FLOATS, "S": FLOATS},
         {"q_num_heads": int, "kv_num_heads": int, "scale": 0.0, "update_rule": "gated_delta",
          "chunk_size": 64, "state_window": 0}, limits="no window of states")  # fmt: skip
def _linear_attention(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """A state of each head, [keys, values], that takes up a token at a time, written out; each is asked for
    its token's query."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    rule, asked, shared = own["update_rule"], own["q_num_heads"], own["kv_num_heads"]
    if rule not in ("linear", "gated", "delta", "gated_delta") or own["state_window"]:
        raise Unsupported(f"update_rule {rule!r}, state_window {own['state_window']}")
    need(
        asked > 0 and shared > 0 and max(asked, shared) % min(asked, shared) == 0,
        f"{asked} and {shared} heads",
    )
    query, key, value, past, decay, beta = (w.wide(operand(spec, i)) for i in range(6))
    length = shaped(g, query, None, None, None, name="query")[1]
    q, k, v = (_steps(w, t, n) for t, n in ((query, asked), (key, shared), (value, shared)))
    batch, keys, values = g.shape(k)[1], g.shape(k)[3], g.shape(v)[3]
    need(g.shape(q)[3] == keys, f"queries of {g.shape(q)[3]} by keys of {keys}")
    gates = _steps(w, decay, shared) if "gated" in rule else ""
    rates = _steps(w, beta, shared) if "delta" in rule else ""
    state = past or w.constant(np.zeros((batch, shared, keys, values), g.dtype(q).numpy))
    shaped(g, state, batch, shared, keys, values, name="past_state")
    heads = max(asked, shared)
    scale = own["scale"] or 1 / sqrt(keys)
    results: list[str] = []
    for t in range(length):
        state = _taken_up(w, state, *(pick(g, x, 0, t, w.hint) if x else "" for x in (k, v, gates, rates)))
        row = reshape(g, pick(g, q, 0, t, w.hint), (batch, asked, 1, keys), w.hint)
        row, by = (_repeated(w, x, heads) for x in (row, state))
        out = scaled(g, product_of(g, (row, ["m", "k"]), (by, ["k", "n"]), w.hint), scale)
        results.append(reshape(g, out, (batch, 1, heads * values), w.hint))
    return [concat(g, results, 1, w.hint), state]


def _steps(w: Writer, x: str, heads: int) -> str:
    """[batch, length, heads * size] as [length, batch, heads, size]; one for all heads stays one."""
    need(bool(x), "a rule without what it needs: decay or beta")
    batch, length, width = shaped(w.g, x, None, None, None)
    count = 1 if width == 1 else heads
    need(width % count == 0, f"{width} elements in {heads} heads")
    apart = reshape(w.g, x, (batch, length, count, width // count), w.hint)
    return transpose(w.g, apart, (1, 0, 2, 3), w.hint)


def _taken_up(w: Writer, state: str, key: str, value: str, gate: str, rate: str) -> str:
    """The state after one token: key [batch, heads, keys], value [batch, heads, values]."""
    g = w.g
    if gate:
        state = w.apply(Mul, state, reshape(g, w.apply(Exp, gate), (*g.shape(gate), 1), w.hint))
    column = reshape(g, key, (*g.shape(key), 1), w.hint)
    row = reshape(g, value, (*g.shape(value)[:2], 1, g.shape(value)[2]), w.hint)
    if rate:
        across = reshape(g, key, (*g.shape(key)[:2], 1, g.shape(key)[2]), w.hint)
        row = w.apply(Sub, row, product_of(g, (across, ["m", "k"]), (state, ["k", "n"]), w.hint))
        row = w.apply(Mul, row, reshape(g, rate, (*g.shape(rate), 1), w.hint))
    return w.apply(Add, state, w.apply(Mul, column, row))


def _repeated(w: Writer, x: str, heads: int) -> str:
    """[batch, heads, ...] with each head as often as makes `heads`."""
    batch, count, rows, columns = w.g.shape(x)
    apart = reshape(w.g, x, (batch, count, 1, rows, columns), w.hint)
    wide = expand(w.g, apart, (batch, count, heads // count, rows, columns), w.hint)
    return reshape(w.g, wide, (batch, heads, rows, columns), w.hint)
