"""Decoders' attention as onnxruntime has it: rotary embeddings, and groups of queries that share keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from ..bound import Bound
from ..dtypes import F8E4M3FN, F32, I8, I32, I64, U8
from ..graph import Unsupported
from ..rules import GraphBuilder, Spec
from .bounds import within
from .contrib import FLOATS, Maybe, Writer, contrib, need, operand, shaped
from .contrib_attention import Scores, attend, heads, joined
from .conversion import Where, cast
from .elementwise import Add, Mul, Sub
from .logic import And, Greater, LessOrEqual
from .rearrange import Cut, concat, pick, reshape, slice_axis, slice_box


def rotated(w: Writer, x: str, tables: tuple[str, str], positions: str, interleaved: bool) -> str:
    """[batch, heads, positions, size] rotated, its first elements, twice as many as the tables' rows have, in
    pairs: of neighbours, or of a first and a second half. positions: [positions], or for each of a batch."""
    cos, sin = _rows(w, x, tables, positions)
    return _turned(w, x, cos, sin, interleaved)


def _rows(w: Writer, x: str, tables: tuple[str, str], positions: str) -> tuple[str, str]:
    """The tables' rows at positions, broadcast to heads."""
    g, hint = w.g, w.hint
    size, half = g.shape(x)[3], shaped(g, tables[0], None, None, name="cos_cache")[1]
    shaped(g, tables[1], *g.shape(tables[0]), name="sin_cache")
    need(0 < 2 * half <= size, f"a rotation of {2 * half} elements of a head of {size}")
    cos, sin = (w.wide(w("Gather", t, positions, axis=0)) for t in tables)
    if len(g.shape(positions)) == 2:
        batch, length = g.shape(positions)
        cos, sin = (reshape(g, t, (batch, 1, length, half), hint) for t in (cos, sin))
    return cos, sin


def _turned(w: Writer, x: str, cos: str, sin: str, interleaved: bool) -> str:
    """x with the pairs turned by angles whose cosines and sines are given, [..., positions, pairs]."""
    g, hint, size = w.g, w.hint, w.g.shape(x)[3]
    half = g.shape(cos)[-1]

    def part(start: int) -> str:
        cuts = [Cut(0, 1, n) for n in g.shape(x)]
        cuts[3] = Cut(start, 2, half) if interleaved else Cut(start * half, 1, half)
        return slice_box(g, x, cuts, hint)

    first, second = part(0), part(1)
    one = w.apply(Sub, w.apply(Mul, first, cos), w.apply(Mul, second, sin))
    two = w.apply(Add, w.apply(Mul, second, cos), w.apply(Mul, first, sin))
    if interleaved:
        pairs = concat(g, [reshape(g, t, (*g.shape(t), 1), hint) for t in (one, two)], 4, hint)
        turned = [reshape(g, pairs, (*g.shape(one)[:3], 2 * half), hint)]
    else:
        turned = [one, two]
    if 2 * half < size:
        turned.append(slice_axis(g, x, 3, 2 * half, size - 2 * half, hint))
    return concat(g, turned, 3, hint)


ROTARY = {"interleaved": 0, "num_heads": 0, "rotary_embedding_dim": 0, "is_packed_batching": 0, "scale": 1.0}


def _by_heads(w: Writer, spec: Spec, cos: str) -> str:
    """The input of a rotary embedding as [batch, heads, positions, size]."""
    g, own, x = w.g, spec.attributes, w.wide(spec.inputs[0])
    rank, turned = len(g.shape(x)), own["rotary_embedding_dim"]
    if own["scale"] != 1:
        raise Unsupported("a scale, which onnxruntime's kernels do not apply either")
    need(rank in (3, 4), f"{spec.op_type} of {g.tensors[x]}: 3 or 4 dimensions")
    half = shaped(g, cos, None, None, name="cos_cache")[1]
    if turned:
        need(turned == 2 * half and own["num_heads"] > 0, f"rotary_embedding_dim {turned}, {g.tensors[cos]}")
    need(half > 0, f"a rotation by {g.tensors[cos]}")
    if rank == 4:
        return x
    return heads(w, x, own["num_heads"] if turned else g.shape(x)[2] // (2 * half), "input")


@contrib("RotaryEmbedding", "input:T position_ids:M cos_cache:T sin_cache:T -> output:T",
         {"T": FLOATS, "M": (I64,)}, ROTARY, limits="no scale")  # fmt: skip
def _rotary(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    x, at, cos, sin = spec.inputs
    wide = _by_heads(w, spec, cos)
    batch, length = g.shape(wide)[0], g.shape(wide)[2]
    if len(g.shape(at)) == 1:
        shaped(g, at, 1, name="position_ids")
        at = w.apply(Add, at, w.constant(np.arange(length, dtype=np.int64)))
    else:
        shaped(g, at, batch, length, name="position_ids")
    out = rotated(w, wide, (cos, sin), at, bool(spec.attributes["interleaved"]))
    return [joined(w, out) if len(g.shape(x)) == 3 else out]


@contrib("MRotaryEmbedding", "input:T position_ids:M cos_cache:T sin_cache:T -> output:T",
         {"T": FLOATS, "M": (I64,)}, {**ROTARY, "mrope_section": list, "mrope_layout": 0},
         limits="no scale")  # fmt: skip
def _many_rotary(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Three positions for each token: of time, height and width, each of which some of the pairs go by."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    x, at, cos, sin = spec.inputs
    wide = _by_heads(w, spec, cos)
    half, sections = g.shape(cos)[1], own["mrope_section"]
    need(len(sections) == 3 and min(sections) >= 0 and sum(sections) == half, f"mrope_section {sections}")
    shaped(g, at, 3, g.shape(wide)[0], g.shape(wide)[2], name="position_ids")
    pair = np.arange(half)
    if own["mrope_layout"]:
        by = [(pair % 3 == i) & (pair < 3 * sections[i]) for i in (1, 2)]
    else:
        ends = np.cumsum(sections)
        by = [(pair >= ends[i - 1]) & (pair < ends[i]) for i in (1, 2)]
    rows = [_rows(w, wide, (cos, sin), pick(g, at, 0, i, w.hint)) for i in range(3)]
    (cos, sin) = rows[0]
    for mask, (other_cos, other_sin) in zip(by, rows[1:], strict=True):
        chosen = w.constant(mask)
        cos, sin = w.apply(Where, chosen, other_cos, cos), w.apply(Where, chosen, other_sin, sin)
    out = _turned(w, wide, cos, sin, bool(own["interleaved"]))
    return [joined(w, out) if len(g.shape(x)) == 3 else out]


GROUPED = {
    "num_heads": int, "kv_num_heads": int, "scale": 0.0, "softcap": 0.0, "local_window_size": -1,
    "do_rotary": 0, "rotary_interleaved": 0, "smooth_softmax": -1, "causal": 1, "qk_output": 0,
    "qk_norm_epsilon": 1e-6, "q_norm_epsilon": Maybe(float), "k_norm_epsilon": Maybe(float),
    "kv_cache_bit_width": 0, "sliding_window_cache": 0, "k_quant_type": "NONE", "v_quant_type": "NONE",
}  # fmt: skip


@contrib("GroupQueryAttention",
         "query:T key:T? value:T? past_key:C? past_value:C? seqlens_k:M total_sequence_length:M cos_cache:T? "
         "sin_cache:T? position_ids:I? attention_bias:T? head_sink:T? k_scale:S? v_scale:S? q_norm_weight:T? "
         "k_norm_weight:T? query_seqlens:M? -> output:T present_key:T present_value:T output_qk:T",
         {"T": FLOATS, "C": (*FLOATS, I8, U8, F8E4M3FN), "S": (F32,), "M": (I32,), "I": (I64,)}, GROUPED,
         limits="total_sequence_length known, one length for a batch, no quantised caches")  # fmt: skip
def _grouped(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Attention of the last positions to all: those of the past stand in caches, new ones go behind them."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    _refuse(g, spec)
    q, k, v = _heads_of(w, spec)
    length, given = g.shape(q)[2], g.dtype(spec.inputs[0])
    total = reshape(g, spec.inputs[6], (), w.hint)
    at = _positions(w, total, length)
    if own["do_rotary"]:
        need(spec.has(7) and spec.has(8), "do_rotary without cos_cache and sin_cache")
        turned = operand(spec, 9) or at
        tables = (spec.inputs[7], spec.inputs[8])
        q, k = (rotated(w, t, tables, turned, bool(own["rotary_interleaved"])) for t in (q, k))
    whole = int(g.known(spec.inputs[6], "total_sequence_length").reshape(-1)[0])
    k, v = (_cached(w, operand(spec, i), cast(g, t, given, w.hint), whole) for i, t in ((3, k), (4, v)))
    q = _of_one_length(w, spec, q, total, whole)
    between = Scores(
        scale=own["scale"] or 1 / sqrt(g.shape(q)[3]),
        bias=_biases(w, spec, g.shape(k)[2]),
        seen=_seen(w, at, g.shape(k)[2], own),
        softcap=own["softcap"],
        sink=_sink(w, spec),
    )
    return [joined(w, attend(w, q, w.wide(k), w.wide(v), between)), k, v]


def _refuse(g: GraphBuilder, spec: Spec) -> None:
    own = spec.attributes
    quantised = own["k_quant_type"] != "NONE" or own["v_quant_type"] != "NONE"
    caches = [g.dtype(spec.inputs[i]) for i in (3, 4) if spec.has(i)]
    if quantised or any(t != g.dtype(spec.inputs[0]) for t in caches):
        raise Unsupported("caches of another type than the queries'")
    if own["sliding_window_cache"] or spec.has(16):
        raise Unsupported("sliding_window_cache and query_seqlens")
    if any(spec.outputs[3:]):
        raise Unsupported("the result output_qk")


def _heads_of(w: Writer, spec: Spec) -> tuple[str, str, str]:
    """Queries, keys and values, each head's queries and keys normalised where weights for that are given."""
    g, own = w.g, spec.attributes
    count, shared = own["num_heads"], own["kv_num_heads"]
    need(count > 0 and shared > 0, f"{count} heads of queries, {shared} of keys")
    x = w.wide(spec.inputs[0])
    if spec.has(1):
        need(spec.has(2), "a key without a value")
        q, k, v = x, w.wide(spec.inputs[1]), w.wide(spec.inputs[2])
    else:
        width = shaped(g, x, None, None, None, name="query")[2]
        need(width % (count + 2 * shared) == 0, f"{width} elements of {count} and twice {shared} heads")
        size = width // (count + 2 * shared)
        starts = (0, count * size, (count + shared) * size)
        q, k, v = (
            slice_axis(g, x, 2, start, n * size, w.hint)
            for start, n in zip(starts, (count, shared, shared), strict=True)
        )
    q, k, v = heads(w, q, count, "query"), heads(w, k, shared, "key"), heads(w, v, shared, "value")
    sizes = g.shape(q)[2:]
    need(g.shape(k)[2:] == sizes, f"queries {g.tensors[q]} and keys {g.tensors[k]}")
    for i, name in ((14, "q"), (15, "k")):
        if spec.has(i):
            epsilon = own[f"{name}_norm_epsilon"]
            epsilon = own["qk_norm_epsilon"] if epsilon is None else epsilon
            normed = w("RMSNormalization", q if name == "q" else k, w.wide(spec.inputs[i]), epsilon=epsilon)
            q, k = (normed, k) if name == "q" else (q, normed)
    return q, k, v


def _positions(w: Writer, total: str, length: int) -> str:
    """Where the last `length` of all positions stand."""
    first = w.apply(Sub, cast(w.g, total, I64, w.hint), w.constant(np.asarray(length, np.int64)))
    return w.apply(Add, first, w.constant(np.arange(length, dtype=np.int64)))


def _cached(w: Writer, past: str, new: str, total: int) -> str:
    """The cache with the new positions: behind the past's, or within it where it has room for all."""
    g = w.g
    batch, count, length, size = g.shape(new)
    if not past:
        need(total == length, f"total_sequence_length {total} of {length} positions without a past")
        return new
    room = shaped(g, past, batch, count, None, size, name="the past")[2]
    if room + length == total:
        return concat(g, [past, new], 2, w.hint)
    need(
        length <= total <= room, f"total_sequence_length {total}: {room} positions in the past, {length} new"
    )
    before = slice_axis(g, past, 2, 0, total - length, w.hint)
    rest = slice_axis(g, past, 2, total, room - total, w.hint)
    return concat(g, [before, new, rest], 2, w.hint)


def _of_one_length(w: Writer, spec: Spec, q: str, total: str, whole: int) -> str:
    """The queries, of sequences that are as long as the longest one after their first call. What pads a first
    call stands behind it, where nothing sees it.

    Raises Unsupported for others. A run fails where seqlens_k comes with it and says less, as it does for a
    mask of padding: each query would be another position's. One check is enough for all layers.
    """
    g, lengths = w.g, spec.inputs[5]
    batch, _, length, _ = g.shape(q)
    need(int(np.prod(g.shape(lengths))) == batch, f"seqlens_k is {g.tensors[lengths]}, not [{batch}]")
    if whole == length or lengths in g.judged:
        return q
    value = g.value(lengths) if batch == 1 else g.known(lengths, "seqlens_k of a batch")
    if value is None:
        g.judged.add(lengths)
        last = w.apply(Sub, cast(g, total, I64, w.hint), w.constant(np.asarray(1, np.int64)))
        apart = w.apply(Sub, cast(g, reshape(g, lengths, (), w.hint), I64, w.hint), last)
        bound = Bound(0, 0, 1, "seqlens_k less the last position (padding, which is not carried out)")
        return w.apply(Add, q, cast(g, within(g, apart, bound, w.hint), g.dtype(q), w.hint))
    if any(int(n) != whole - 1 for n in value.reshape(-1)):
        raise Unsupported(f"seqlens_k {value.reshape(-1).tolist()} with a total_sequence_length of {whole}")
    return q


def _biases(w: Writer, spec: Spec, keys: int) -> list[str]:
    """The bias, of as many keys as there are; room in a cache has 0."""
    bias = operand(spec, 10)
    if not bias:
        return []
    width = shaped(w.g, bias, None, None, None, None, name="attention_bias")[3]
    if width < keys:
        zeros = np.zeros((*w.g.shape(bias)[:3], keys - width), w.g.dtype(bias).numpy)
        bias = concat(w.g, [bias, w.constant(zeros)], 3, w.hint)
    return [bias]


def _seen(w: Writer, at: str, keys: int, own: Mapping[str, Any]) -> str:
    """Which keys each position sees: "" where all see all."""
    g, length = w.g, w.g.shape(at)[0]
    slots = w.constant(np.arange(keys, dtype=np.int64))
    last = at if own["causal"] else slice_axis(g, at, 0, length - 1, 1, w.hint)
    rows = reshape(g, last, (*g.shape(last), 1), w.hint)
    seen = w.apply(LessOrEqual, slots, rows)
    window = own["local_window_size"]
    if window > 0:
        first = w.apply(Sub, rows, w.constant(np.asarray(window, np.int64)))
        seen = w.apply(And, seen, w.apply(Greater, slots, first))
    value = g.value(seen)
    return "" if value is not None and bool(value.all()) else seen


def _sink(w: Writer, spec: Spec) -> str:
    """Each head's score of no key."""
    count = spec.attributes["num_heads"]
    if spec.has(11):
        shaped(w.g, spec.inputs[11], count, name="head_sink")
        return spec.inputs[11]
    smooth = spec.attributes["smooth_softmax"] == 1
    return w.constant(np.zeros(count, w.g.dtype(spec.inputs[0]).numpy)) if smooth else ""
