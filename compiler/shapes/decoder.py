"""A shape's graph: the next token behind others, whose keys and values are cached, or several at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from . import experts
from .model import Array, Model
from .shape import Grouped, Latent, Shape

POSITIONS = 4096  # for which a decoder with caches of any length has cosines and sines, at least
LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Step:
    """What a call is given. tokens: new ones. cached: positions before them, 0 where that is open.

    caches: whether there are any; without them the tokens are all. context: positions that caches of any
    length may come to hold.
    """

    tokens: int = 1
    cached: int = 0
    caches: bool = True
    context: int = POSITIONS

    @property
    def open(self) -> bool:
        return self.caches and not self.cached

    @property
    def length(self) -> int:
        """Positions after the call; of an open one what a call adds."""
        return (self.cached if self.caches else 0) + self.tokens

    @property
    def past(self) -> int | str:
        return self.cached or "P"

    @property
    def present(self) -> int | str:
        return self.length if self.cached else "P + 1" if self.tokens == 1 else f"P + {self.tokens}"

    def rolls(self, window: int) -> bool:
        """Whether a cache of `window` positions gets full: a new position takes the oldest one's place."""
        return self.open and 0 < window < self.context


def angles(theta: float, turned: int, positions: Array) -> tuple[Array, Array]:
    """Cosines and sines of the positions, [1, 1, positions, turned]."""
    of = positions[:, None] * theta ** (-np.arange(0, turned, 2) / turned)
    both = np.concatenate([of, of], -1)[None, None]
    return np.cos(both), np.sin(both)


def norm(m: Model, x: str, width: int, epsilon: float) -> str:
    """RMSNorm as exporters write it."""
    mean = m.ReduceMean(m.Pow(x, 2.0), axes=[-1])
    return m.Mul(m.near(1, width), m.Mul(x, m.Reciprocal(m.Sqrt(m.Add(mean, epsilon)))))


def linear(m: Model, x: str, depth: int, width: int) -> str:
    return m.MatMul(x, m.weight(depth, width, scale=depth**-0.5))


def rotated(m: Model, x: str, rotary: tuple[str, str], turned: int, head: int) -> str:
    """x with each pair (i, i + turned / 2) turned by its angle; elements past `turned` stay."""
    rest = m.Slice(x, [turned], [head], [-1]) if turned < head else ""
    own = m.Slice(x, [0], [turned], [-1]) if rest else x
    low = m.Slice(own, [0], [turned // 2], [-1])
    high = m.Slice(own, [turned // 2], [turned], [-1])
    about = m.Concat(m.Neg(high), low, axis=-1)
    out = m.Add(m.Mul(own, rotary[0]), m.Mul(about, rotary[1]))
    return m.Concat(out, rest, axis=-1) if rest else out


def shared(m: Model, a: Grouped, x: str, length: int) -> str:
    """Each key or value head for the query heads that share it: [1, heads, length, head]."""
    if a.heads == a.kv_heads:
        return x
    wide = m.Expand(m.Unsqueeze(x, [2]), [1, a.kv_heads, a.heads // a.kv_heads, length, a.head])
    return m.Reshape(wide, [1, a.heads, length, a.head])


class Layers:
    """The layers of a shape, entered one after the other in a model in the making."""

    def __init__(self, m: Model, shape: Shape, step: Step) -> None:
        self.m, self.shape, self.step = m, shape, step
        a = shape.attention
        self.turned = a.turned if isinstance(a, Grouped) else a.rotary
        self.at = ""
        if step.open:
            self.at = m.input("position_ids", [1, step.tokens], TensorProto.INT64)
            tables = angles(shape.theta, self.turned, np.arange(max(POSITIONS, step.context)))
            cosines, sines = (m.values(t[0, 0]) for t in tables)
            self.rotary = (
                m.Unsqueeze(m.Gather(cosines, self.at), [1]),
                m.Unsqueeze(m.Gather(sines, self.at), [1]),
            )
        else:
            before = step.cached if step.caches else 0
            cosines, sines = angles(shape.theta, self.turned, np.arange(before, step.length))
            self.rotary = m.constant(cosines), m.constant(sines)

    # -- caches ------------------------------------------------------------------------------------------
    def pasts(self, i: int, sizes: Sequence[Sequence[int | str]]) -> tuple[str, ...]:
        """The inputs that hold a layer's keys and values."""
        kinds = ("key", "value")
        return tuple(
            self.m.input(f"past.{i}.{kind}", shape) for kind, shape in zip(kinds, sizes, strict=True)
        )

    def presents(self, i: int, values: Sequence[str], sizes: Sequence[Sequence[int | str]]) -> None:
        for kind, value, shape in zip(("key", "value"), values, sizes, strict=True):
            self.m.output(f"present.{i}.{kind}", value, shape)

    # -- attention ---------------------------------------------------------------------------------------
    def _heads(self, x: str, heads: int, normed: bool) -> str:
        """x by `heads` matrices: [1, heads, tokens, head]."""
        m, a, d = self.m, self.shape.attention, self.shape
        assert isinstance(a, Grouped)
        y = linear(m, x, d.width, heads * a.head)
        if a.biased:
            y = m.Add(y, m.weight(heads * a.head, scale=0.1))
        if normed and a.norm == "all":
            y = norm(m, y, heads * a.head, d.epsilon)
        y = m.Reshape(y, [1, self.step.tokens, heads, a.head])
        if normed and a.norm == "head":
            y = norm(m, y, a.head, d.epsilon)
        return m.Transpose(y, perm=[0, 2, 1, 3])

    def grouped(self, n: str, i: int) -> str:
        """What grouped heads make of the normed state, [1, tokens, heads * head]."""
        m, a, step = self.m, self.shape.attention, self.step
        assert isinstance(a, Grouped)
        window = self.shape.window_of(i)
        past: tuple[str, ...] = ()
        if step.caches:
            held = window if step.rolls(window) else step.past
            past = self.pasts(i, [[1, a.kv_heads, held, a.head]] * 2)
        turn = self.shape.turns(i)
        q, k = self._heads(n, a.heads, True), ""
        q = rotated(m, q, self.rotary, a.turned, a.head) if turn else q
        k = self._heads(n, a.kv_heads, True)
        k = rotated(m, k, self.rotary, a.turned, a.head) if turn else k
        v = self._heads(n, a.kv_heads, False)
        allowed = ""
        if step.rolls(window):
            k, v, allowed = self._rolled(past, (k, v), window)
        elif past:
            k, v = m.Concat(past[0], k, axis=2), m.Concat(past[1], v, axis=2)
        mixed = self._weighted(q, k, v, allowed, window)
        if step.caches:
            held = window if step.rolls(window) else step.present
            self.presents(i, (k, v), [[1, a.kv_heads, held, a.head]] * 2)
        mixed = m.Reshape(mixed, [1, a.heads, step.tokens, a.head])
        return m.Reshape(m.Transpose(mixed, perm=[0, 2, 1, 3]), [1, step.tokens, a.heads * a.head])

    def _weighted(self, q: str, k: str, v: str, allowed: str, window: int) -> str:
        """Values weighed by softmax of queries' products with keys."""
        m, a, step = self.m, self.shape.attention, self.step
        assert isinstance(a, Grouped)
        if step.open:
            # Queries by the key head that they share: keys are repeated nowhere, however many there are.
            q = m.Reshape(q, [1, a.kv_heads, a.heads // a.kv_heads, step.tokens, a.head])
            turned = m.Transpose(m.Unsqueeze(k, [2]), perm=[0, 1, 2, 4, 3])
            values = m.Unsqueeze(v, [2])
        else:
            turned = m.Transpose(shared(m, a, k, step.length), perm=[0, 1, 3, 2])
            values = shared(m, a, v, step.length)
        scores = m.Mul(m.MatMul(q, turned), a.head**-0.5)
        if allowed:
            scores = m.Where(allowed, scores, LOWEST)
        elif step.tokens > 1 or (0 < window < step.length and not step.open):
            scores = m.Add(scores, m.constant(self._hidden(window)))
        sinks = ""
        if a.sinks:
            of = (a.kv_heads, a.heads // a.kv_heads) if step.open else (a.heads,)
            sinks = m.weight(1, *of, 1, 1, scale=1.0)
        return m.MatMul(self._softmax(scores, sinks), values)

    def _softmax(self, scores: str, sinks: str) -> str:
        """Softmax along the last axis; sinks: one more term of its sum, which nothing is made of."""
        m = self.m
        if not sinks:
            return m.Softmax(scores, axis=-1)
        most = m.Max(m.ReduceMax(scores, axes=[-1]), sinks)
        each = m.Exp(m.Sub(scores, most))
        total = m.Add(m.ReduceSum(each, [-1]), m.Exp(m.Sub(sinks, most)))
        return m.Div(each, total)

    def _hidden(self, window: int) -> Array:
        """What is added to scores, [1, 1, tokens, length]: nothing, or far too little."""
        step = self.step
        before = step.length - step.tokens
        far = np.arange(before, step.length)[:, None] - np.arange(step.length)
        hides = (far < 0) | ((far >= window) if window else False)
        return np.where(hides, LOWEST, 0)[None, None]

    def _rolled(self, past: Sequence[str], new: Sequence[str], window: int) -> tuple[str, str, str]:
        """Caches of `window` positions, the new one in the oldest one's place, and which are filled."""
        m = self.m
        places = np.arange(window)
        place = m.Mod(self.at, m.constant([window], np.int64))
        here = m.Equal(m.constant(places[None, None, :, None], np.int64), place)
        k, v = (m.Where(here, own, old) for own, old in zip(new, past, strict=True))
        allowed = m.LessOrEqual(m.constant(places[None, None, None, None], np.int64), self.at)
        return k, v, allowed

    def latent(self, n: str, i: int) -> str:
        """What heads that share one latent vector make of the normed state, [1, tokens, heads * value].

        The matrices that would make keys and values of the latent vector are applied to queries and results.
        """
        m, a, d, step = self.m, self.shape.attention, self.shape, self.step
        assert isinstance(a, Latent)
        both = a.plain + a.rotary
        q = norm(m, linear(m, n, d.width, a.query), a.query, d.epsilon)
        q = m.Reshape(linear(m, q, a.query, a.heads * both), [1, step.tokens, a.heads, both])
        q = m.Transpose(q, perm=[0, 2, 1, 3])
        turned = rotated(m, m.Slice(q, [a.plain], [both], [-1]), self.rotary, a.rotary, a.rotary)
        kv = linear(m, n, d.width, a.latent + a.rotary)
        c = norm(m, m.Slice(kv, [0], [a.latent], [-1]), a.latent, d.epsilon)
        r = m.Slice(kv, [a.latent], [a.latent + a.rotary], [-1])
        r = rotated(m, m.Unsqueeze(r, [1]), self.rotary, a.rotary, a.rotary)
        r = m.Reshape(r, [1, step.tokens, a.rotary])
        if step.caches:
            past = self.pasts(i, [[1, step.past, a.latent], [1, step.past, a.rotary]])
            c, r = m.Concat(past[0], c, axis=1), m.Concat(past[1], r, axis=1)
        absorbed = m.weight(a.heads, a.plain, a.latent, scale=a.plain**-0.5)
        q = m.MatMul(m.Slice(q, [0], [a.plain], [-1]), absorbed)
        scores = m.MatMul(q, m.Transpose(m.Unsqueeze(c, [1]), perm=[0, 1, 3, 2]))
        scores = m.Add(scores, m.MatMul(turned, m.Transpose(m.Unsqueeze(r, [1]), perm=[0, 1, 3, 2])))
        scores = m.Mul(scores, both**-0.5)
        if step.tokens > 1:
            scores = m.Add(scores, m.constant(self._hidden(0)))
        mixed = m.MatMul(m.Softmax(scores, axis=-1), m.Unsqueeze(c, [1]))
        mixed = m.MatMul(mixed, m.weight(a.heads, a.latent, a.value, scale=a.latent**-0.5))
        if step.caches:
            self.presents(i, (c, r), [[1, step.present, a.latent], [1, step.present, a.rotary]])
        return m.Reshape(m.Transpose(mixed, perm=[0, 2, 1, 3]), [1, step.tokens, a.heads * a.value])

    # -- a layer -----------------------------------------------------------------------------------------
    def layer(self, x: str, i: int) -> str:
        """Layer `i` on x, [1, tokens, width]."""
        m, d, a = self.m, self.shape, self.shape.attention
        m.part = "layers"
        n = norm(m, x, d.width, d.epsilon)
        latent = isinstance(a, Latent)
        joined = self.latent(n, i) if latent else self.grouped(n, i)
        y = linear(m, joined, a.heads * (a.value if latent else a.head), d.width)
        if isinstance(a, Grouped) and a.output_biased:
            y = m.Add(y, m.weight(d.width, scale=0.1))
        x = m.Add(x, y)
        n = norm(m, x, d.width, d.epsilon)
        if d.has_experts(i):
            assert d.experts is not None
            return m.Add(x, experts.mixture(m, d.experts, n, self.step.tokens, d.width))
        return m.Add(x, experts.gated(m, n, d.width, d.hidden))


def block(shape: Shape, layers: Sequence[int] = (0,), step: Step | None = None) -> onnx.ModelProto:
    """Some layers, one after the other, on the state, [1, tokens, width]; without weights."""
    step = step or Step()
    m = Model("layer", shapes_only=True)
    y = m.input("x", [1, step.tokens, shape.width])
    entering = Layers(m, shape, step)
    for i in layers:
        y = entering.layer(y, i)
    m.output("y", y, [1, step.tokens, shape.width])
    return m.proto()


def ends(shape: Shape, shapes_only: bool = True) -> onnx.ModelProto:
    """What is before and behind the layers: the table of embeddings, the last norm and product."""
    return _decoder(shape, Step(), shapes_only, ())


def decoder(
    shape: Shape, step: Step | None = None, shapes_only: bool = True, layers: int | None = None
) -> onnx.ModelProto:
    """The logits behind the last token: all layers, or the first ones."""
    return _decoder(shape, step or Step(), shapes_only, range(shape.layers if layers is None else layers))


def _decoder(shape: Shape, step: Step, shapes_only: bool, layers: Sequence[int]) -> onnx.ModelProto:
    return entered(shape, step, shapes_only, layers).proto()


def entered(shape: Shape, step: Step, shapes_only: bool, layers: Sequence[int]) -> Model:
    """The decoder in the making, whose weights are counted."""
    m = Model("decode", shapes_only)
    token = m.input("input_ids", [1, step.tokens], TensorProto.INT64)
    m.part = "table"
    table = m.weight(shape.vocabulary, shape.width, scale=shape.width**-0.5)
    x = m.Gather(table, token)
    if layers:
        entering = Layers(m, shape, step)
        for i in layers:
            x = entering.layer(x, i)
    m.part = "last"
    n = norm(m, x, shape.width, shape.epsilon)
    if step.tokens > 1:
        n = m.Slice(n, [step.tokens - 1], [step.tokens], [1])
    row = m.Reshape(n, [1, shape.width])
    last = table if shape.tied else m.weight(shape.vocabulary, shape.width, scale=shape.width**-0.5)
    m.output("logits", m.Gemm(row, last, transB=1), [1, shape.vocabulary])
    return m
