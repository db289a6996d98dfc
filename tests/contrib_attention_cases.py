"""How cases of onnxruntime's attentions are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from contrib import Dice, Drawn, draws
from waferc.ir.op import Array


def _tables(d: Dice, rows: int, half: int) -> tuple[Array, Array]:
    angles = np.arange(rows)[:, None] / 10.0 ** (np.arange(half) / max(half, 1))
    return np.cos(angles).astype(d.kind), np.sin(angles).astype(d.kind)


@draws("RotaryEmbedding")
def rotary(d: Dice) -> Drawn:
    batch, length, heads, half = d.size(1, 3), d.size(), d.size(1, 4), d.size(1, 4)
    rest = d.pick(0, 0, 2 * d.size(1, 2))
    size = 2 * half + rest
    own: dict[str, Any] = d.some({"interleaved": d.pick(0, 1)})
    if rest:
        own |= {"rotary_embedding_dim": 2 * half, "num_heads": heads}
    x = (
        d.normal(batch, heads, length, size)
        if d.random.random() < 0.4
        else d.normal(batch, length, heads * size)
    )
    rows = length + d.size(1, 6)
    cos, sin = _tables(d, rows, half)
    at = d.whole(batch, length, low=0, high=rows, kind="int64")
    if d.random.random() < 0.4:
        at = d.whole(1, low=0, high=rows - length + 1, kind="int64")
    return Drawn({"input": x, "position_ids": at, "cos_cache": cos, "sin_cache": sin}, own)


@draws("MRotaryEmbedding")
def many_rotary(d: Dice) -> Drawn:
    batch, length, heads, half = d.size(1, 3), d.size(), d.size(1, 4), d.size(3, 9)
    layout = d.pick(0, 1)
    some = d.size(0, half // 3)
    sections = [half - 2 * some, some, some]
    own = {
        "mrope_section": sections,
        "mrope_layout": layout,
        "num_heads": heads,
        **d.some({"interleaved": d.pick(0, 1)}),
    }
    cos, sin = _tables(d, length + 4, half)
    x = d.normal(*d.pick((batch, heads, length, 2 * half), (batch, length, heads * 2 * half)))
    at = d.whole(3, batch, length, low=0, high=length + 4, kind="int64")
    return Drawn({"input": x, "position_ids": at, "cos_cache": cos, "sin_cache": sin}, own)


@draws("GroupQueryAttention", kinds=("float32", "float32", "float16"))
def grouped(d: Dice) -> Drawn:
    batch, shared, group, size = d.size(1, 2), d.size(1, 3), d.size(1, 3), 8 * d.size(1, 2)
    heads, length = shared * group, d.size()
    past = d.pick(0, d.size(1, 7))
    length = 1 if past and batch > 1 else length
    total = past + length
    room = past
    if past and d.random.random() < 0.3:
        room = total + d.size(0, 4)  # a cache that has room for the new positions
    packed = d.random.random() < 0.4
    own: dict[str, Any] = {"num_heads": heads, "kv_num_heads": shared}
    own |= d.some({"scale": 0.3, "softcap": 2.0, "local_window_size": d.size(1, 8)}, 0.4)
    rotary = d.random.random() < 0.6
    cos, sin = _tables(d, total + 3, size // 2)
    places = np.tile(np.arange(past, total, dtype=np.int64), (batch, 1))
    if rotary:
        own |= {"do_rotary": 1, "rotary_interleaved": d.pick(0, 0, 1)}
    sinks = d.pick("", "", "", "smooth", "heads")
    if sinks == "smooth":
        own["smooth_softmax"] = 1
    wide = (heads + 2 * shared) * size if packed else heads * size
    cache = (batch, shared, room, size)
    inputs = {
        "query": d.normal(batch, length, wide),
        "key": None if packed else d.normal(batch, length, shared * size),
        "value": None if packed else d.normal(batch, length, shared * size),
        "past_key": d.normal(*cache) if past else None,
        "past_value": d.normal(*cache) if past else None,
        "seqlens_k": np.full(batch, total - 1, np.int32),
        "total_sequence_length": np.asarray(total, np.int32),
        "cos_cache": cos if rotary else None,
        "sin_cache": sin if rotary else None,
        "position_ids": d.maybe(places, 0.3) if rotary else None,
        "attention_bias": d.maybe(d.normal(d.pick(1, batch), d.pick(1, heads), length, total), 0.25),
        "head_sink": d.normal(heads) if sinks == "heads" else None,
    }
    return Drawn(
        inputs, own, ("seqlens_k", "total_sequence_length", "cos_cache", "sin_cache"), 3, 2, used=total
    )


def _masks(d: Dice, batch: int, length: int, keys: int, forms: str) -> Array | None:
    form = d.pick(*forms)
    if form == "k":
        return d.whole(batch, keys, low=0, high=2)
    if form == "q":
        return d.whole(batch, length, keys, low=0, high=2)
    if form == "e":
        return d.whole(batch, low=1, high=keys + 1)
    if form == "s":
        ends = d.whole(batch, low=1, high=keys + 1)
        return np.concatenate([ends, d.random.integers(0, ends)]).astype(np.int32)
    return None


@draws("MultiHeadAttention", kinds=("float32",))
def multi_head(d: Dice) -> Drawn:
    batch, heads, size, length = d.size(1, 2), d.size(1, 4), d.size(1, 8), d.size()
    form = d.pick("plain", "plain", "qkv", "kv", "cross", "past")
    keys = length if form in ("qkv", "past") else d.size()
    out = size if form in ("qkv", "kv", "past") else d.pick(size, d.size(1, 8))
    past = d.size() if form == "past" else 0
    own: dict[str, Any] = {"num_heads": heads, **d.some({"scale": 0.4, "mask_filter_value": -100.0}, 0.3)}
    if form in ("qkv", "past") or keys == length:
        own |= d.some({"unidirectional": 1}, 0.4)
    total = keys + past
    inputs: dict[str, Array | None] = {
        "query": d.normal(batch, length, heads * size),
        "key": d.normal(batch, keys, heads * size),
        "value": d.normal(batch, keys, heads * out),
        "bias": d.maybe(d.normal(heads * (2 * size + out)), 0.4),
        "key_padding_mask": _masks(d, batch, length, total, "---kkqe")
        if not past
        else _masks(d, batch, length, total, "---k"),
        "attention_bias": d.maybe(d.normal(d.pick(1, batch), d.pick(1, heads), length, total), 0.3),
    }
    if form == "qkv":
        inputs |= {"query": d.normal(batch, length, heads, 3, size), "key": None, "value": None}
    elif form == "kv":
        inputs |= {"key": d.normal(batch, keys, heads, 2, size), "value": None, "bias": None}
    elif form == "cross":
        inputs |= {
            "key": d.normal(batch, heads, keys, size),
            "value": d.normal(batch, heads, keys, size),
            "bias": None,
        }
    elif form == "past":
        inputs |= {
            "past_key": d.normal(batch, heads, past, size),
            "past_value": d.normal(batch, heads, past, size),
        }
    return Drawn(inputs, own, (), 3 if past else d.pick(1, 1, 3), 2)


@draws("DecoderMaskedMultiHeadAttention", kinds=("float32",))
def decoder_multi_head(d: Dice) -> Drawn:
    batch, heads, size, past = d.size(1, 2), d.size(1, 4), d.size(1, 8), d.size()
    across = d.random.random() < 0.3
    total, room = past + 1, past + 1 + d.size(0, 4)
    keys = d.normal(batch, heads, past if across else room, size)
    own = {"num_heads": heads, **d.some({"scale": 0.4, "mask_filter_value": -100.0}, 0.3)}
    query, key, value = (d.normal(batch, 1, heads * size) for _ in range(3))
    inputs: dict[str, Array | None] = {"query": query, "key": key, "value": value}
    if across:
        inputs |= {
            "key": keys,
            "value": d.normal(*keys.shape),
            "mask_index": _masks(d, batch, 1, past, "--k"),
        }
        return Drawn(inputs, own, (), 1, 2)
    inputs |= {
        "mask_index": _masks(d, batch, 1, total, "--k"),
        "attention_bias": d.maybe(d.normal(1, heads, 1, total), 0.3),
        "past_key": keys,
        "past_value": d.normal(*keys.shape),
        "past_sequence_length": np.array([past], np.int32),
        "bias": d.maybe(d.normal(3 * heads * size), 0.4),
    }
    fixed = d.pick((), ("past_sequence_length",))
    return Drawn(inputs, {**own, "past_present_share_buffer": 1}, fixed, 3, 2, used=total)


@draws("Attention", kinds=("float32",))
def attention(d: Dice) -> Drawn:
    batch, heads, size, length, width = d.size(1, 2), d.size(1, 4), d.size(1, 8), d.size(), d.size(1, 12)
    past = d.size() if d.random.random() < 0.3 else 0
    out = size if past else d.pick(size, size, d.size(1, 8))
    own: dict[str, Any] = {"num_heads": heads, "unidirectional": d.pick(0, 1)}
    own |= d.some({"scale": 0.4, "mask_filter_value": -100.0}, 0.3)
    if out != size:
        own["qkv_hidden_sizes"] = [heads * size, heads * size, heads * out]
    total, columns = length + past, heads * (2 * size + out)
    inputs = {
        "input": d.normal(batch, length, width),
        "weights": d.normal(width, columns, scale=0.3),
        "bias": d.maybe(d.normal(columns), 0.8),
        "mask_index": _masks(d, batch, length, total, "---kkqes"),
        "past": d.normal(2, batch, heads, past, size) if past else None,
        "attention_bias": d.maybe(d.normal(d.pick(1, batch), d.pick(1, heads), length, total), 0.2),
    }
    return Drawn(inputs, own, d.pick((), ("weights", "bias")), 2 if past else 1, 2)


@draws("QAttention", kinds=("float32",))
def quantised_attention(d: Dice) -> Drawn:
    batch, heads, size, length, width = d.size(1, 2), d.size(1, 4), d.size(1, 8), d.size(), d.size(1, 12)
    past = d.size() if d.random.random() < 0.3 else 0
    columns = 3 * heads * size
    own: dict[str, Any] = {"num_heads": heads, "unidirectional": d.pick(0, 1)}
    kind = d.pick("uint8", "int8")
    each = columns if d.random.random() < 0.3 else 0
    low, high = (0, 256) if kind == "uint8" else (-64, 64)
    scale = d.random.uniform(0.001, 0.02, (each,) if each else ()).astype(np.float32)
    inputs = {
        "input": d.whole(batch, length, width, low=0, high=256, kind="uint8"),
        "weight": d.whole(width, columns, low=low, high=high, kind=kind),
        "bias": d.single(columns),
        "input_scale": np.asarray(0.02, np.float32),
        "weight_scale": scale,
        "mask_index": _masks(d, batch, length, length + past, "---e"),
        "input_zero_point": np.asarray(d.pick(0, 128, 3), np.uint8),
        "weight_zero_point": np.full((each,) if each else (), 128 if kind == "uint8" else d.pick(0, 1), kind),
        "past": d.single(2, batch, heads, past, size) if past else None,
    }
    return Drawn(
        inputs,
        own,
        ("weight", "bias", "weight_scale", "weight_zero_point"),
        2 if past else 1,
        2,
        ("float32",),
    )
