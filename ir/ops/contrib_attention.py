"""Attention of onnxruntime, each head with keys of its own: MultiHeadAttention, Attention, QAttention.

Heads stand before positions, [batch, heads, positions, size]. What is masked has `mask_filter_value` added;
what comes after a query, where none sees further, takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np

from ..dtypes import F16, F32, I8, I32, I64, U8
from ..graph import Unsupported
from ..rules import GraphBuilder, Spec
from .activation import Exp, Tanh
from .contract import matrix_product, product_of, scaled
from .contrib import FLOATS, Maybe, Writer, contrib, need, operand, shaped
from .conversion import Where, cast
from .elementwise import Add, Div, Mul, Sub
from .logic import And, Greater, GreaterOrEqual, Less, LessOrEqual
from .rearrange import concat, pick, reshape, slice_axis, transpose
from .tensor_scatter import emit_scatter


@dataclass(frozen=True)
class Scores:
    """What happens between the products of an attention.

    bias: added, broadcast. seen: bools, where False a key takes no part. softcap: 0 is none. sink: of each
    head, a score that belongs to no key; a row must have a key that is seen.
    """

    scale: float
    bias: Sequence[str] = ()
    seen: str = ""
    softcap: float = 0.0
    sink: str = ""


def heads(w: Writer, x: str, count: int, name: str = "") -> str:
    """[batch, positions, heads * size] with heads before positions."""
    batch, length, width = shaped(w.g, x, None, None, None, name=name)
    need(count > 0 and width % count == 0, f"{name or 'an operand'}: {width} elements in {count} heads")
    return transpose(
        w.g, reshape(w.g, x, (batch, length, count, width // count), w.hint), (0, 2, 1, 3), w.hint
    )


def joined(w: Writer, x: str) -> str:
    """Heads side by side again."""
    batch, count, length, size = w.g.shape(x)
    return reshape(w.g, transpose(w.g, x, (0, 2, 1, 3), w.hint), (batch, length, count * size), w.hint)


def attend(w: Writer, q: str, k: str, v: str, between: Scores) -> str:
    """Softmax(q k' * scale ...) v. Several heads of q in a row may share one of k and v."""
    g, hint = w.g, w.hint
    (batch, count, length, size), (own, keys) = g.shape(q), g.shape(k)[1:3]
    need(own > 0 and count % own == 0, f"{count} heads of queries share {own} of keys")
    need(
        g.shape(k) == (batch, own, keys, size) and g.shape(v)[:3] == (batch, own, keys),
        f"attention of {g.tensors[q]} to {g.tensors[k]} and {g.tensors[v]}",
    )
    shared = count // own
    if shared > 1:
        q = reshape(g, q, (batch, own, shared, length, size), hint)
        k, v = (reshape(g, t, (batch, own, 1, keys, g.shape(t)[-1]), hint) for t in (k, v))
    x = product_of(g, (q, ["m", "k"]), (k, ["n", "k"]), hint)
    x = scaled(g, reshape(g, x, (batch, count, length, keys), hint), between.scale)
    if between.softcap:
        cap = w.number(between.softcap, x)
        x = w.apply(Mul, w.apply(Tanh, w.apply(Div, x, cap)), cap)
    for bias in between.bias:
        x = w.apply(Add, x, w.wide(bias))
        need(g.shape(x) == (batch, count, length, keys), f"a bias of {g.tensors[bias]} to {keys} keys")
    if between.seen:
        x = w.apply(Where, between.seen, x, w.number(float("-inf"), x))
    shares = w("Softmax", x, axis=-1)
    divisor = _with_sink(w, x, shares, between.sink) if between.sink else ""
    if shared > 1:
        shares = reshape(g, shares, (batch, own, shared, length, keys), hint)
    out = product_of(g, (shares, ["m", "k"]), (v, ["k", "n"]), hint)
    out = reshape(g, out, (batch, count, length, g.shape(v)[-1]), hint)
    return w.apply(Div, out, divisor) if divisor else out


def _with_sink(w: Writer, scores: str, shares: str, sink: str) -> str:
    """What a head's sink divides a row's result by: the sum of e^score with the sink's over that without.

    1 + e^sink / sum, and the sum is e^max / max share: nothing is put beside the keys, of which there are as
    many as a cache has room for.
    """
    count = w.g.shape(scores)[1]
    sink = reshape(w.g, w.wide(sink), (1, count, 1, 1), w.hint)
    best, largest = (w("ReduceMax", t, axes=[3]) for t in (scores, shares))
    over = w.apply(Mul, w.apply(Exp, w.apply(Sub, sink, best)), largest)
    return w.apply(Add, over, w.number(1, over))


def after(w: Writer, past: str, new: str) -> str:
    """Keys or values with those of before in front."""
    if not past:
        return new
    batch, count, _, size = w.g.shape(new)
    shaped(w.g, past, batch, count, None, size, name="the past")
    return concat(w.g, [past, new], 2, w.hint)


def _filtered(w: Writer, seen: str, value: float) -> str:
    """0 where `seen`, else the value that masks."""
    return w.apply(Where, seen, w.single(0), w.single(value))


def _mask(w: Writer, mask: str, sizes: tuple[int, int, int], value: float) -> str:
    """What a mask adds to scores of (batch, queries, keys): by key, by query and key, by the keys' number,
    or by where they end and where they begin."""
    g, (batch, length, keys) = w.g, sizes
    shape = g.shape(mask)
    if len(shape) == 1 and shape[0] in (batch, 2 * batch):
        slots = w.constant(np.arange(keys, dtype=np.int32))
        ends = reshape(g, slice_axis(g, mask, 0, 0, batch, w.hint), (batch, 1, 1, 1), w.hint)
        seen = w.apply(Less, slots, ends)
        if shape[0] == 2 * batch:
            starts = reshape(g, slice_axis(g, mask, 0, batch, batch, w.hint), (batch, 1, 1, 1), w.hint)
            seen = w.apply(And, seen, w.apply(GreaterOrEqual, slots, starts))
        return _filtered(w, seen, value)
    if shape not in ((batch, keys), (batch, length, keys)):
        raise Unsupported(f"a mask {g.tensors[mask]} of {batch} batches, {length} queries, {keys} keys")
    rows = 1 if len(shape) == 2 else length
    seen = w.apply(Greater, mask, w.number(0, mask))
    return _filtered(w, reshape(g, seen, (batch, 1, rows, keys), w.hint), value)


def causal(w: Writer, length: int, keys: int) -> str:
    """Which keys, those of the past and those of a call, each of the call's `length` positions sees."""
    total = w.g.measured(np.asarray(keys, np.int64), w.hint)
    rows = w.apply(Add, total, w.constant(np.arange(length, dtype=np.int64)[:, None] - length))
    return w.apply(LessOrEqual, w.constant(np.arange(keys, dtype=np.int64)), rows)


def _between(
    w: Writer, own: Mapping[str, Any], sizes: tuple[int, int, int], size: int, terms: tuple[str, str]
) -> Scores:
    """How scores of (batch, queries, keys) and heads of `size` are made. terms: mask and bias."""
    mask, bias = terms
    given = own.get("scale")
    scale = given if given else 1 / sqrt(max(size, 1))
    value = own.get("mask_filter_value")
    biases = [_mask(w, mask, sizes, -10000.0 if value is None else value)] if mask else []
    if bias:
        need(len(w.g.shape(bias)) == 4, f"attention_bias is {w.g.tensors[bias]}")
        biases.append(bias)
    seen = causal(w, *sizes[1:]) if own["unidirectional"] and sizes[1] > 1 else ""
    return Scores(scale, biases, seen)


ATTENTION = {
    "num_heads": int, "unidirectional": 0, "scale": Maybe(float), "mask_filter_value": Maybe(float),
    "do_rotary": 0, "past_present_share_buffer": 0,
}  # fmt: skip


def _self_attention(w: Writer, spec: Spec, projected: str, widths: Sequence[int]) -> Sequence[str]:
    """Attention whose queries, keys and values stand side by side. The mask, the past and a bias are inputs
    3, 4 and 5 of `spec`."""
    g, own = w.g, spec.attributes
    if own["do_rotary"] or own["past_present_share_buffer"]:
        raise Unsupported("do_rotary and past_present_share_buffer")
    need(len(widths) == 3 and sum(widths) == g.shape(projected)[-1], f"qkv_hidden_sizes {list(widths)}")
    starts = (0, widths[0], widths[0] + widths[1])
    q, k, v = (
        heads(w, slice_axis(g, projected, 2, start, width, w.hint), own["num_heads"], f"part {i}")
        for i, (start, width) in enumerate(zip(starts, widths, strict=True))
    )
    past, present = operand(spec, 4), ""
    if past or (len(spec.outputs) > 1 and spec.outputs[1]):
        present = concat(g, [reshape(g, t, (1, *g.shape(t)), w.hint) for t in (k, v)], 0, w.hint)
    if past:
        batch, count, _, size = g.shape(k)
        shaped(g, past, 2, batch, count, None, size, name="past")
        present = concat(g, [past, cast(g, present, g.dtype(past), w.hint)], 3, w.hint)
        k, v = (pick(g, present, 0, i, w.hint) for i in range(2))
    k, v = w.wide(k), w.wide(v)
    sizes = g.shape(q)[0], g.shape(q)[2], g.shape(k)[2]
    between = _between(w, own, sizes, g.shape(q)[3], (operand(spec, 3), operand(spec, 5)))
    return [joined(w, attend(w, q, k, v, between)), present]


@contrib("Attention",
         "input:T weights:T bias:T? mask_index:M? past:T? attention_bias:T? past_sequence_length:M? "
         "-> output:T present:T", {"T": FLOATS, "M": (I32,)},
         {**ATTENTION, "qkv_hidden_sizes": Maybe(list, int), "rotary_embedding_dim": 0},
         limits="no rotary, no shared buffers")  # fmt: skip
def _attention(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    x, weights = spec.inputs[:2]
    width = shaped(g, x, None, None, None, name="input")[2]
    total = shaped(g, weights, width, None, name="weights")[1]
    out = matrix_product(g, x, weights, w.hint, g.dtype(x).wide)
    if bias := operand(spec, 2):
        shaped(g, bias, total, name="bias")
        out = w.apply(Add, out, w.wide(bias))
    return _self_attention(w, spec, out, spec.attributes["qkv_hidden_sizes"] or [total // 3] * 3)


@contrib("QAttention",
         "input:T1 weight:T2 bias:T3 input_scale:T3 weight_scale:T3 mask_index:T4? input_zero_point:T1? "
         "weight_zero_point:T2? past:T3? -> output:T3 present:T3",
         {"T1": (I8, U8), "T2": (I8, U8), "T3": (F32, F16), "T4": (I32,)}, ATTENTION,
         limits="no rotary, no shared buffers")  # fmt: skip
def _q_attention(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Attention with an exact projection of integers."""
    w = Writer(g, spec.outputs[0])
    x, weight, bias, x_scale, scale, mask, x_zero, zero, past = (operand(spec, i) for i in range(9))
    width = shaped(g, x, None, None, None, name="input")[2]
    total = shaped(g, weight, width, None, name="weight")[1]
    shaped(g, bias, total, name="bias")
    sums = w("MatMulInteger", x, weight, x_zero, zero)
    x_scale = reshape(g, x_scale, (), w.hint)
    scale = reshape(g, scale, (), w.hint) if int(np.prod(g.shape(scale))) == 1 else scale
    factor = w.apply(Mul, w.wide(x_scale), w.wide(scale))
    out = w.apply(Add, w.apply(Mul, cast(g, sums, F32), factor), w.wide(bias))
    inner = Spec(spec.op_type, spec.name, ("", "", "", mask, past), spec.outputs, spec.attributes, 1)
    return _self_attention(w, inner, out, [total // 3] * 3)


@contrib("MultiHeadAttention",
         "query:T key:T? value:T? bias:T? key_padding_mask:M? attention_bias:T? past_key:T? past_value:T? "
         "past_sequence_length:M? cache_indirection:M? -> output:T present_key:T present_value:T qk:T",
         {"T": FLOATS, "M": (I32,)},
         {"num_heads": int, "unidirectional": 0, "scale": Maybe(float), "mask_filter_value": Maybe(float)},
         limits="no shared buffers, no beams, no qk")  # fmt: skip
def _multi_head(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    if spec.has(8) or spec.has(9) or any(spec.outputs[3:]):
        raise Unsupported("past_sequence_length, cache_indirection and the result qk")
    q, k, v = _projected(w, spec, own["num_heads"])
    past_key, past_value = operand(spec, 6), operand(spec, 7)
    given = g.dtype(spec.inputs[0])
    k, v = (after(w, past, cast(g, t, given)) for past, t in ((past_key, k), (past_value, v)))
    sizes = g.shape(q)[0], g.shape(q)[2], g.shape(k)[2]
    between = _between(w, own, sizes, g.shape(q)[3], (operand(spec, 4), operand(spec, 5)))
    return [joined(w, attend(w, w.wide(q), w.wide(k), w.wide(v), between)), k, v]


@contrib("DecoderMaskedMultiHeadAttention",
         "query:T key:T? value:T? mask_index:M? attention_bias:T? past_key:T? past_value:T? "
         "past_sequence_length:M? beam_width:M? cache_indirection:M? bias:T? "
         "-> output:T present_key:T present_value:T qk:T", {"T": (F32, F16), "M": (I32,)},
         {"num_heads": int, "scale": Maybe(float), "mask_filter_value": Maybe(float), "output_qk": 0,
          "past_present_share_buffer": 0},
         limits="no packed queries, no beams, no qk")  # fmt: skip
def _decoder_multi_head(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """MultiHeadAttention of one token. A fourth dimension of keys is a past that stays as it is; a shared
    buffer takes the new row at a run-time position, and nothing past that is seen."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    if spec.has(8) or spec.has(9) or any(spec.outputs[3:]):
        raise Unsupported("beam_width, cache_indirection and the result qk")
    shaped(g, spec.inputs[0], None, 1, None, name="query")
    query, key, value, mask, bias, past_key, past_value, at = (operand(spec, i) for i in range(8))
    need(bool(key and value), "keys and values beside the query's: DecoderMaskedMultiHeadAttention without")
    inner = replace(spec, inputs=(query, key, value, operand(spec, 10)))
    q, k, v = _projected(w, inner, own["num_heads"])
    pasts, seen = (past_key, past_value), ""
    k, v = (cast(g, t, g.dtype(query), w.hint) for t in (k, v))
    if own["past_present_share_buffer"] and past_key:
        need(bool(at and past_value), "past_present_share_buffer without past_sequence_length")
        at = reshape(g, cast(g, at, I64, w.hint), (), w.hint)
        k, v = (emit_scatter(g, past, (t, at), 2, w.hint) for past, t in zip(pasts, (k, v), strict=True))
        room = g.shape(k)[2]
        seen = w.apply(LessOrEqual, w.constant(np.arange(room, dtype=np.int64)), at)
        mask, bias = (_to_room(w, t, room) for t in (mask, bias))
    else:
        k, v = (after(w, past, t) for past, t in zip(pasts, (k, v), strict=True))
    sizes = g.shape(q)[0], 1, g.shape(k)[2]
    between = _between(w, {**own, "unidirectional": 0}, sizes, g.shape(q)[3], (mask, bias))
    out = attend(w, w.wide(q), w.wide(k), w.wide(v), replace(between, seen=seen))
    return [joined(w, out), k, v]


def _to_room(w: Writer, x: str, room: int) -> str:
    """What is said of as many keys as there are, of all that a buffer has room for: 0 of the rest."""
    if not x or not w.g.shape(x) or w.g.shape(x)[-1] >= room:
        return x
    shape = w.g.shape(x)
    zeros = w.constant(np.zeros((*shape[:-1], room - shape[-1]), w.g.dtype(x).numpy))
    return concat(w.g, [x, zeros], len(shape) - 1, w.hint)


def _projected(w: Writer, spec: Spec, count: int) -> tuple[str, str, str]:
    """Queries, keys and values with their heads before positions, and the bias added."""
    g, (query, key, value, bias) = w.g, (operand(spec, i) for i in range(4))
    if not key:  # all three of each head side by side
        need(len(g.shape(query)) == 5 and not value, f"MultiHeadAttention of {g.tensors[query]} without keys")
        _, _, _, _, size = shaped(g, query, None, None, count, 3, None, name="query")
        parts = [pick(g, w.wide(query), 3, i, w.hint) for i in range(3)]
    elif not value:
        size = shaped(g, key, None, None, count, 2, None, name="key")[4]
        parts = [pick(g, w.wide(key), 3, i, w.hint) for i in range(2)]
        batch, length, _ = shaped(g, query, None, None, count * size, name="query")
        parts.insert(0, reshape(g, w.wide(query), (batch, length, count, size), w.hint))
    else:
        ranks = len(g.shape(key)), len(g.shape(value))
        need(ranks in ((3, 3), (4, 4)), f"key {g.tensors[key]} and value {g.tensors[value]}")
        parts = [_by_head(w, t, count) for t in (query, key, value)]
    widths = [count * g.shape(t)[3] for t in parts]
    if bias:
        need(len(g.shape(key)) != 4 if key else True, "a bias beside keys that have their heads already")
        shaped(g, bias, sum(widths), name="bias")
        starts = (0, widths[0], widths[0] + widths[1])
        for i, (start, width) in enumerate(zip(starts, widths, strict=True)):
            own = slice_axis(g, w.wide(bias), 0, start, width, w.hint)
            parts[i] = w.apply(Add, parts[i], reshape(g, own, (count, width // count), w.hint))
    q, k, v = (transpose(g, t, (0, 2, 1, 3), w.hint) for t in parts)
    return q, k, v


def _by_head(w: Writer, x: str, count: int) -> str:
    """[batch, positions, heads, size] of three dimensions, or of four with heads before positions."""
    if len(w.g.shape(x)) == 4:
        shaped(w.g, x, None, count, None, None, name="keys or values")
        return transpose(w.g, w.wide(x), (0, 2, 1, 3), w.hint)
    batch, length, width = shaped(w.g, x, None, None, None)
    need(count > 0 and width % count == 0, f"{width} elements in {count} heads")
    return reshape(w.g, w.wide(x), (batch, length, count, width // count), w.hint)
