"""Whisper's kind: an encoder over frames of sound, and a decoder that looks at what came of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from .decoder import LOWEST, Step
from .model import Model
from .shape import Grouped, Shape

EPSILON = 1e-5


def heads_of(shape: Shape) -> Grouped:
    a = shape.attention
    assert isinstance(a, Grouped)
    return a


def _norm(m: Model, x: str, width: int) -> str:
    return m.LayerNormalization(x, m.near(1, width), m.near(0, width), axis=-1, epsilon=EPSILON)


def _linear(m: Model, x: str, depth: int, width: int, biased: bool = True) -> str:
    y = m.MatMul(x, m.weight(depth, width, scale=depth**-0.5))
    return m.Add(y, m.weight(width, scale=0.1)) if biased else y


def _gelu(m: Model, x: str) -> str:
    return m.Mul(m.Mul(x, 0.5), m.Add(m.Erf(m.Mul(x, 0.5**0.5)), 1.0))


def _split(m: Model, d: Shape, x: str, length: int) -> str:
    """[1, length, width] by head: [1, heads, length, head]."""
    a = heads_of(d)
    return m.Transpose(m.Reshape(x, [1, length, a.heads, a.head]), perm=[0, 2, 1, 3])


def _attention(m: Model, d: Shape, q: str, k: str, v: str, step: Step | None = None) -> str:
    """What queries make of keys and values, all by head, behind the last projection."""
    a = heads_of(d)
    tokens = step.tokens if step else d.frames
    scores = m.Mul(m.MatMul(q, m.Transpose(k, perm=[0, 1, 3, 2])), a.head**-0.5)
    if step and tokens > 1:
        later = np.triu(np.ones((tokens, step.length), bool), 1 + step.length - tokens)
        scores = m.Add(scores, m.constant(np.where(later, LOWEST, 0)[None, None]))
    mixed = m.MatMul(m.Softmax(scores, axis=-1), v)
    joined = m.Reshape(m.Transpose(mixed, perm=[0, 2, 1, 3]), [1, tokens, d.width])
    return _linear(m, joined, d.width, d.width)


def _feed(m: Model, d: Shape, x: str) -> str:
    n = _norm(m, x, d.width)
    return m.Add(x, _linear(m, _gelu(m, _linear(m, n, d.width, d.hidden)), d.hidden, d.width))


def encoding(d: Shape, step: Step, shapes_only: bool, layers: Sequence[int]) -> Model:
    """The encoder in the making: features [1, channels, 2 frames] to each decoder layer's keys and values."""
    del step  # of the decoder, which has the same way to be made
    m = Model("encoder", shapes_only)
    x = m.input("input_features", [1, d.channels, 2 * d.frames])
    for depth, stride in ((d.channels, 1), (d.width, 2)):
        kernel = m.weight(d.width, depth, 3, scale=(3 * depth) ** -0.5)
        x = _gelu(m, m.Conv(x, kernel, m.weight(d.width, scale=0.1), strides=[stride], pads=[1, 1]))
    x = m.Add(m.Transpose(x, perm=[0, 2, 1]), m.weight(d.frames, d.width, scale=0.1))
    for _ in layers:
        n = _norm(m, x, d.width)
        q, k, v = (_split(m, d, _linear(m, n, d.width, d.width, i != 1), d.frames) for i in range(3))
        x = _feed(m, d, m.Add(x, _attention(m, d, q, k, v)))
    m.output("last_hidden_state", _norm(m, x, d.width), [1, d.frames, d.width])
    return m


def decoding(d: Shape, step: Step, shapes_only: bool, layers: Sequence[int]) -> Model:
    """The decoder in the making, behind keys and values of frames, which are a call's inputs."""
    m, a = Model("decoder", shapes_only), heads_of(d)
    token = m.input("input_ids", [1, step.tokens], TensorProto.INT64)
    table = m.weight(d.vocabulary, d.width, scale=d.width**-0.5)
    places = m.weight(d.context, d.width, scale=0.1)
    if step.open:
        at = m.input("position_ids", [1, step.tokens], TensorProto.INT64)
    else:
        before = step.cached if step.caches else 0
        at = m.constant(np.arange(before, step.length)[None], np.int64)
    x = m.Add(m.Gather(table, token), m.Gather(places, at))
    for i in layers:
        n = _norm(m, x, d.width)
        q, k, v = (_split(m, d, _linear(m, n, d.width, d.width, j != 1), step.tokens) for j in range(3))
        if step.caches:
            past = [
                m.input(f"past.{i}.decoder.{kind}", [1, a.heads, step.past, a.head])
                for kind in ("key", "value")
            ]
            k, v = m.Concat(past[0], k, axis=2), m.Concat(past[1], v, axis=2)
        x = m.Add(x, _attention(m, d, q, k, v, step))
        n = _norm(m, x, d.width)
        q = _split(m, d, _linear(m, n, d.width, d.width), step.tokens)
        heard = m.input("encoder_hidden_states", [1, d.frames, d.width]) if not step.caches and not i else ""
        if step.caches:
            k2, v2 = (
                m.input(f"past.{i}.encoder.{kind}", [1, a.heads, d.frames, a.head])
                for kind in ("key", "value")
            )
        else:
            heard = heard or "encoder_hidden_states"
            k2 = _split(m, d, _linear(m, heard, d.width, d.width, False), d.frames)
            v2 = _split(m, d, _linear(m, heard, d.width, d.width), d.frames)
        y = _attention_beside(m, d, q, (k2, v2), step)
        x = _feed(m, d, m.Add(x, y))
        for kind, value, own in (("key", k, k2), ("value", v, v2)):
            m.output(f"present.{i}.decoder.{kind}", value, [1, a.heads, step.present, a.head])
            m.output(f"present.{i}.encoder.{kind}", own, [1, a.heads, d.frames, a.head])
    n = _norm(m, x, d.width)
    if step.tokens > 1:
        n = m.Slice(n, [step.tokens - 1], [step.tokens], [1])
    m.output("logits", m.Gemm(m.Reshape(n, [1, d.width]), table, transB=1), [1, d.vocabulary])
    return m


def _attention_beside(m: Model, d: Shape, q: str, kv: tuple[str, str], step: Step) -> str:
    """Attention to the frames: no position of them is hidden."""
    a = heads_of(d)
    scores = m.Mul(m.MatMul(q, m.Transpose(kv[0], perm=[0, 1, 3, 2])), a.head**-0.5)
    mixed = m.MatMul(m.Softmax(scores, axis=-1), kv[1])
    joined = m.Reshape(m.Transpose(mixed, perm=[0, 2, 1, 3]), [1, step.tokens, d.width])
    return _linear(m, joined, d.width, d.width)


def encoder(d: Shape, shapes_only: bool = True) -> onnx.ModelProto:
    return encoding(d, Step(), shapes_only, range(d.encoder)).proto()


def decoder(d: Shape, step: Step, shapes_only: bool = True) -> onnx.ModelProto:
    return decoding(d, step, shapes_only, range(d.layers)).proto()
