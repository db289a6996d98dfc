"""Level b: an ONNX model of a published experiment, compiled for as many cores as it ran on.

What it measures is our mapping and the model together; beside level a (the published mapping, priced alike)
what is left is our mapping. Weights are shapes only, caches and vectors are inputs or states.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx
from generate import Decoder, Model, linear, norm, rotated, shared
from measurements import Row
from waferc import compile_model
from waferc.compiler.errors import WafercError
from waferc.placement.machine.wafer import Wafer

MOST_SECONDS = 120  # of processor time, of one compilation
MOST_BYTES = 6 << 30  # of its address space

# Why a class has no level b.
NONE: Mapping[str, str] = {
    "vector": "no model is one vector operation: it says what is computed, not in how many",
    "vector_loop": "no model says how a core loops",
    "point_to_point": "no model says where its values lie",
    "relay": "no model says how its values travel",
    "multicast": "no model says where its values lie",
    "host": "a report's line for the host has the formula of level a",
}

CACHED = frozenset({"decode_layer", "decode_block", "decode_token", "decode_batch", "pipeline_interval"})


@dataclass(frozen=True)
class Experiment:
    """A model, the wafer that it is compiled for, and options of `compile_model`.

    interval: the cycles between calls are what counts, not those of a call.
    """

    model: Callable[[], onnx.ModelProto]
    wafer: Wafer
    options: Mapping[str, Any]
    interval: bool = False


def experiment(row: Row) -> Experiment | str:
    """The experiment of a row, or why there is none."""
    if (why := NONE.get(row.group)) is not None:
        return why
    wafer = _wafer(row)
    if isinstance(wafer, str):
        return wafer
    options: dict[str, Any] = {"weights": row.texts.get("weights", "f32" if row.group == "gemm" else "f16")}
    if row.group in CACHED and row.texts.get("block") != "ffn":
        options["capacity"] = row.whole("context")
    interval = row.group == "pipeline_interval"
    if interval:
        options["optimize"] = "throughput"
    return Experiment(lambda: MODELS[row.group](row).proto(), wafer, options, interval)


def compiled(row: Row) -> float | str:
    """The cycles of a row's experiment, or why there are none. In a process of its own, within limits."""
    made = experiment(row)
    if isinstance(made, str):
        return made
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(made, theirs))
    child.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        answer = f"not planned within {MOST_SECONDS} s of processor time and {MOST_BYTES >> 30} GiB"
    child.join()
    return answer


def _child(made: Experiment, answer: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    try:
        answer.send(cycles(made))
    except WafercError as e:
        answer.send(" ".join(str(e).split())[:200])
    except MemoryError:
        answer.send(f"not planned within {MOST_BYTES >> 30} GiB")


def cycles(made: Experiment) -> float:
    """Cycles of a call, or between calls. Raises WafercError."""
    model = made.model().SerializeToString()
    found = compile_model(model, wafer=made.wafer, no_weights=True, until="plan", **made.options)
    return float(found.timing.interval(made.wafer) if made.interval else found.figures.cycles)


def _wafer(row: Row) -> Wafer | str:
    """The machine with no more cores than the experiment had: its blocks side by side, in rows of blocks."""
    full = row.wafer
    at = row.blocks
    if at is None:
        return f"the grid {row.grid!r} names no cores"
    columns = max(1, min(at.count, full.width // at.width))
    width, height = at.width * columns, at.height * math.ceil(at.count / columns)
    return replace(full, name=f"{full.name} {width}x{height}", width=width, height=height)


# -- products and sums -----------------------------------------------------------------------------------
def _product(row: Row) -> Model:
    m, k, n = row.whole("m"), row.whole("k"), row.whole("n")
    model = Model(row.group, shapes_only=True)
    x = model.input("x", [m, k])
    model.output("y", linear(model, x, k, n), [m, n])
    return model


def _collective(row: Row) -> Model:
    cores, wavelets, kind = row.whole("cores"), row.whole("wavelets"), row.texts["kind"]
    model = Model("collective", shapes_only=True)
    if kind == "broadcast":
        x = model.input("x", [1, wavelets])
        model.output("y", model.Mul(x, model.weight(cores, wavelets, scale=1)), [cores, wavelets])
        return model
    x = model.input("x", [cores, wavelets])
    total = model.ReduceSum(x, [0], keepdims=1)
    if kind.startswith("allreduce"):
        model.output("y", model.Sub(x, total), [cores, wavelets])
    else:
        model.output("y", total, [1, wavelets])
    return model


# -- decoders --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Layer:
    """A decoder's sizes, rows of its state, and whether Q and K are normalised by the head."""

    d: Decoder
    batch: int
    normed: bool

    @staticmethod
    def of(row: Row) -> _Layer:
        heads = row.whole("heads")
        head = row.whole("head_dim", math.ceil(row.whole("dim") / heads))
        sizes = (row.whole("dim"), row.whole("ffn", 0), heads, row.whole("kv_heads"), 0)
        normed = row.group not in ("decode_layer", "prefill_layer")
        return _Layer(Decoder(row.group, 1, *sizes, head=head), row.whole("batch"), normed)

    def rotary(self, m: Model) -> tuple[str, str]:
        """Cosines and sines of the token's position, inputs."""
        shape = [self.batch, 1, 1, self.d.head]
        return m.input("cosines", shape), m.input("sines", shape)

    def state(self, m: Model, name: str, width: int) -> str:
        return m.input(name, [self.batch, 1, width])

    def projected(self, m: Model, x: str) -> list[str]:
        """Q, K and V, [batch, heads, 1, head] each."""
        return [self.by_head(m, linear(m, x, self.d.width, n * self.d.head), n) for n in self.counts]

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.d.heads, self.d.kv_heads, self.d.kv_heads

    def by_head(self, m: Model, x: str, heads: int) -> str:
        return m.Transpose(m.Reshape(x, [self.batch, 1, heads, self.d.head]), perm=[0, 2, 1, 3])

    def turned(self, m: Model, x: str, rotary: tuple[str, str]) -> str:
        """Q or K, normalised if they are, at their position."""
        if self.normed:
            mean = m.ReduceMean(m.Pow(x, 2.0), axes=[-1])
            x = m.Mul(
                m.Mul(x, m.Reciprocal(m.Sqrt(m.Add(mean, self.d.epsilon)))), m.weight(self.d.head, scale=1)
            )
        return rotated(m, self.d, x, rotary)

    def grouped(self, m: Model, q: str) -> str:
        """Q by the key head that it meets: [batch, kv_heads, heads / kv_heads, 1, head]."""
        d = self.d
        return m.Reshape(q, [self.batch, d.kv_heads, d.heads // d.kv_heads, 1, d.head])

    def attention(self, m: Model, x: str, rotary: tuple[str, str], at: int = 0) -> str:
        """x plus its attention over a cache, whose rows become outputs."""
        d = self.d
        q, k, v = self.projected(m, norm(m, d, x))
        q, k = self.turned(m, q, rotary), self.turned(m, k, rotary)
        kept: list[str] = []
        for kind, new in (("key", k), ("value", v)):
            past = m.input(f"past.{at}.{kind}", [self.batch, d.kv_heads, "P", d.head])
            kept.append(m.Concat(past, new, axis=2))
            m.output(f"present.{at}.{kind}", kept[-1], [self.batch, d.kv_heads, "P + 1", d.head])
        keys = m.Transpose(m.Unsqueeze(kept[0], [2]), perm=[0, 1, 2, 4, 3])
        scores = m.Mul(m.MatMul(self.grouped(m, q), keys), d.head**-0.5)
        mixed = m.MatMul(m.Softmax(scores, axis=-1), m.Unsqueeze(kept[1], [2]))
        return m.Add(x, self.output(m, mixed))

    def output(self, m: Model, mixed: str) -> str:
        """The product behind attention's values, [batch, 1, width]."""
        d = self.d
        joined = m.Reshape(mixed, [self.batch, 1, d.heads * d.head])
        return linear(m, joined, d.heads * d.head, d.width)

    def feed_forward(self, m: Model, x: str) -> str:
        d = self.d
        n = norm(m, d, x)
        gate, up = linear(m, n, d.width, d.hidden), linear(m, n, d.width, d.hidden)
        return m.Add(x, linear(m, m.Mul(m.Mul(gate, m.Sigmoid(gate)), up), d.hidden, d.width))


def _layers(row: Row, count: int) -> Model:
    own, m = _Layer.of(row), Model(row.group, shapes_only=True)
    x, rotary = own.state(m, "x", own.d.width), own.rotary(m)
    for i in range(count):
        x = own.feed_forward(m, own.attention(m, x, rotary, i))
    m.output("y", x, [own.batch, 1, own.d.width])
    return m


def _block(row: Row) -> Model:
    own, m = _Layer.of(row), Model("decode-block", shapes_only=True)
    x = own.state(m, "x", own.d.width)
    attends = row.texts["block"] == "attention"
    y = own.attention(m, x, own.rotary(m)) if attends else own.feed_forward(m, x)
    m.output("y", y, [own.batch, 1, own.d.width])
    return m


def _stage_layers(row: Row) -> int:
    return row.whole("layers", row.whole("layers_per_stage") * row.square.count)


def _phase(row: Row) -> Model:
    """One phase alone: what it reads is an input, a cache is a constant."""
    own, m, phase = _Layer.of(row), Model(f"phase-{row.texts['phase']}", shapes_only=True), row.texts["phase"]
    d, b, length = own.d, own.batch, row.whole("context")
    heads, grouped = [b, d.heads, 1], [b, d.kv_heads, d.heads // d.kv_heads, 1]
    made: list[tuple[str, list[int]]]  # results and their shapes
    if phase == "qkv":
        each = own.projected(m, own.state(m, "x", d.width))
        made = [(y, [b, n, 1, d.head]) for y, n in zip(each, own.counts, strict=True)]
    elif phase == "qk_norm_rope":
        rotary, made = own.rotary(m), []
        for name, n in (("q", d.heads), ("k", d.kv_heads)):
            x = own.by_head(m, own.state(m, name, n * d.head), n)
            made.append((own.turned(m, x, rotary), [b, n, 1, d.head]))
    elif phase == "scores":
        q = own.grouped(m, own.by_head(m, own.state(m, "q", d.heads * d.head), d.heads))
        keys = m.weight(b, d.kv_heads, 1, d.head, length, scale=1)
        made = [(m.Mul(m.MatMul(q, keys), d.head**-0.5), [*grouped, length])]
    elif phase == "softmax":
        made = [(m.Softmax(m.input("scores", [*heads, length]), axis=-1), [*heads, length])]
    elif phase == "weighted_values":
        values = m.weight(b, d.kv_heads, 1, length, d.head, scale=1)
        made = [(m.MatMul(m.input("shares", [*grouped, length]), values), [*grouped, d.head])]
    elif phase == "output":
        made = [(own.output(m, own.state(m, "mixed", d.heads * d.head)), [b, 1, d.width])]
    else:
        made = [(m.Add(own.state(m, "x", d.width), own.state(m, "y", d.width)), [b, 1, d.width])]
    for i, (value, shape) in enumerate(made):
        m.output(f"out{i}", value, shape)
    return m


def _prefill(row: Row) -> Model:
    """All tokens at once; each attends to all of them, as the published kernels compute."""
    own, m, tokens = _Layer.of(row), Model("prefill", shapes_only=True), row.whole("tokens")
    d = own.d
    x = m.input("x", [1, tokens, d.width])
    rotary = m.input("cosines", [1, 1, tokens, d.head]), m.input("sines", [1, 1, tokens, d.head])
    n = norm(m, d, x)

    def heads(count: int) -> str:
        y = m.Reshape(linear(m, n, d.width, count * d.head), [1, tokens, count, d.head])
        return m.Transpose(y, perm=[0, 2, 1, 3])

    q, k, v = (heads(c) for c in own.counts)
    q, k = own.turned(m, q, rotary), own.turned(m, k, rotary)
    keys = m.Transpose(shared(m, d, k, tokens), perm=[0, 1, 3, 2])
    scores = m.Softmax(m.Mul(m.MatMul(q, keys), d.head**-0.5), axis=-1)
    mixed = m.Transpose(m.MatMul(scores, shared(m, d, v, tokens)), perm=[0, 2, 1, 3])
    joined = m.Reshape(mixed, [1, tokens, d.heads * d.head])
    x = own.feed_forward(m, m.Add(x, linear(m, joined, d.heads * d.head, d.width)))
    m.output("y", x, [1, tokens, d.width])
    return m


MODELS: Mapping[str, Callable[[Row], Model]] = {
    "collective": _collective,
    "gemv": _product,
    "gemm": _product,
    "decode_layer": lambda row: _layers(row, 1),
    "prefill_layer": _prefill,
    "decode_phase": _phase,
    "decode_block": _block,
    "decode_token": lambda row: _layers(row, row.whole("layers")),
    "decode_batch": lambda row: _layers(row, row.whole("layers")),
    "pipeline_interval": lambda row: _layers(row, _stage_layers(row)),
}
