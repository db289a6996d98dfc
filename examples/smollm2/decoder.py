"""A decoder of the Llama kind as an ONNX model, for weights that someone else has.

S new tokens follow P cached ones. Inputs: input_ids and position_ids, int64 [1, S], and for each layer
past_key_values.I.key and .value, [1, kv_heads, P, head]. Outputs: logits, [1, S, vocabulary], and
present.I.key and .value, the caches with the new tokens at their end.

A query sees the keys in slots 0 to its own position; in a graph that is not causal, those up to the last of
the S new tokens. So the same graph works on caches of a fixed capacity in which a token's slot is its
position: what lies in the slots after those changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
Weight = Callable[[str, tuple[int, ...]], TensorProto]
"""(name, shape) -> the f32 tensor of that name. Products' weights are [in, out]."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder; those of SmolLM2-135M if not given. positions: rows of the rotary tables.

    causal: whether a token sees none of those that are given with it and come after it.
    """

    layers: int = 30
    width: int = 576
    hidden: int = 1536
    heads: int = 9
    kv_heads: int = 3
    head: int = 64
    vocabulary: int = 49_152
    theta: float = 100_000.0
    epsilon: float = 1e-5
    positions: int = 1024
    causal: bool = True


TINY = Shape(layers=2, width=32, hidden=64, heads=4, kv_heads=2, head=8, vocabulary=128, positions=64)


def random_weights(seed: int = 0) -> Weight:
    """Normal values, scaled by 1 / sqrt(a product's depth); gains near 1."""
    random = np.random.default_rng(seed)

    def weight(name: str, shape: tuple[int, ...]) -> TensorProto:
        values = random.standard_normal(shape, np.float32)
        values = 1 + 0.1 * values if len(shape) == 1 else values * shape[-2] ** -0.5
        return numpy_helper.from_array(values.astype(np.float32), name)

    return weight


def decoder(shape: Shape, weight: Weight, name: str = "decoder") -> onnx.ModelProto:
    """The model. Its nodes are called after what they compute, `layers.3.scores`."""
    g = _Graph(weight)
    table = g.weight("embedding", shape.vocabulary, shape.width)
    x = g.add("embed", "Gather", table, "input_ids")
    rotary = _rotary(g, shape)
    bias = ""
    for i in range(shape.layers):
        key, value = _cached(g, shape, i, x, rotary)
        if not bias:  # every layer's keys are as many
            bias = _bias(g, shape, key)
        x = _attended(g, shape, i, x, rotary, key, value, bias)
        x = _fed_forward(g, shape, i, x)
    # The table is there once: looked up above, multiplied with here.
    rows = g.add("rows", "Reshape", _norm(g, shape, "norm", x), g.integers(-1, shape.width))
    head = g.add("head", "Gemm", rows, table, transB=1)
    g.add("logits", "Reshape", head, g.integers(1, -1, shape.vocabulary))
    return g.model(shape, name)


class _Graph:
    """An ONNX graph in the making. A node and its result have the same name."""

    def __init__(self, weight: Weight) -> None:
        self._weight = weight
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def weight(self, name: str, *shape: int) -> str:
        self._initializers[name] = self._weight(name, shape)
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self._initializers[name] = numpy_helper.from_array(value, name)
        return name

    def integers(self, *values: int) -> str:
        return self.constant("_".join(["ints", *map(str, values)]), np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"number_{value:g}", np.array(value, np.float32))

    def add(self, name: str, operator: str, *operands: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, operands, [name], name, **attributes))
        return name

    def model(self, shape: Shape, name: str) -> onnx.ModelProto:
        def values(kind: int, dims: Sequence[int | str], *names: str) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(n, kind, dims) for n in names]

        def caches(which: str, length: str) -> list[onnx.ValueInfoProto]:
            names = [f"{which}.{i}.{kind}" for i in range(shape.layers) for kind in ("key", "value")]
            return values(TensorProto.FLOAT, [1, shape.kv_heads, length, shape.head], *names)

        inputs = values(TensorProto.INT64, [1, "S"], "input_ids", "position_ids")
        outputs = values(TensorProto.FLOAT, [1, "S", shape.vocabulary], "logits")
        graph = helper.make_graph(
            self._nodes,
            name,
            [*inputs, *caches("past_key_values", "P")],
            [*outputs, *caches("present", "P + S")],
            list(self._initializers.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _norm(g: _Graph, shape: Shape, name: str, x: str) -> str:
    """RMSNorm: x / sqrt(mean(x^2) + epsilon) times a gain."""
    squares = g.add(f"{name}.squares", "Pow", x, g.number(2))
    mean = g.add(f"{name}.mean", "ReduceMean", squares, axes=[-1])
    root = g.add(f"{name}.root", "Sqrt", g.add(f"{name}.raised", "Add", mean, g.number(shape.epsilon)))
    scaled = g.add(f"{name}.scaled", "Mul", x, g.add(f"{name}.scale", "Reciprocal", root))
    return g.add(name, "Mul", g.weight(f"{name}.gain", shape.width), scaled)


def _linear(g: _Graph, name: str, x: str, depth: int, width: int) -> str:
    return g.add(name, "MatMul", x, g.weight(f"{name}.weight", depth, width))


def _rotary(g: _Graph, shape: Shape) -> tuple[str, str]:
    """Cosines and sines for the positions asked for, [1, S, head]."""
    rates = shape.theta ** (-np.arange(0, shape.head, 2) / shape.head)
    angles = np.tile(np.arange(shape.positions)[:, None] * rates, 2)
    cosines = g.constant("cosines", np.cos(angles).astype(np.float32))
    sines = g.constant("sines", np.sin(angles).astype(np.float32))
    return g.add("cosine", "Gather", cosines, "position_ids"), g.add("sine", "Gather", sines, "position_ids")


def _rotated(g: _Graph, shape: Shape, name: str, x: str, rotary: tuple[str, str]) -> str:
    """x, [..., S, head], with each pair (i, i + head / 2) turned by its angle."""
    half, end, last = g.integers(shape.head // 2), g.integers(shape.head), g.integers(-1)
    low = g.add(f"{name}.low", "Slice", x, g.integers(0), half, last)
    high = g.add(f"{name}.high", "Slice", x, half, end, last)
    turned = g.add(f"{name}.turned", "Concat", g.add(f"{name}.negated", "Neg", high), low, axis=-1)
    along = g.add(f"{name}.along", "Mul", x, rotary[0])
    across = g.add(f"{name}.across", "Mul", turned, rotary[1])
    return g.add(name, "Add", along, across)


def _cached(g: _Graph, shape: Shape, i: int, x: str, rotary: tuple[str, str]) -> tuple[str, str]:
    """Keys and values of layer i, [1, kv_heads, P + S, head]: the cached ones, then those of x."""
    n, width = _norm(g, shape, f"layers.{i}.norm", x), shape.kv_heads * shape.head
    heads = g.integers(1, -1, shape.kv_heads, shape.head)
    out: list[str] = []
    for kind in ("key", "value"):
        name = f"layers.{i}.{kind}"
        split = g.add(f"{name}.split", "Reshape", _linear(g, name, n, shape.width, width), heads)
        new = g.add(f"{name}.heads", "Transpose", split, perm=[0, 2, 1, 3])
        if kind == "key":
            new = _rotated(g, shape, f"{name}.rotated", new, rotary)
        out.append(g.add(f"present.{i}.{kind}", "Concat", f"past_key_values.{i}.{kind}", new, axis=2))
    return out[0], out[1]


def _bias(g: _Graph, shape: Shape, key: str) -> str:
    """What is added to scores, [1, S, P + S]: 0 where a query sees a key, else the least float."""
    length = g.add("length", "Gather", g.add("key_shape", "Shape", key), g.constant("axis", np.array(2)))
    slots = g.add("slots", "Range", g.constant("zero", np.array(0)), length, g.constant("one", np.array(1)))
    query = g.add("query_positions", "Unsqueeze", "position_ids", g.integers(-1))
    last = query if shape.causal else g.add("last_position", "ReduceMax", query, axes=[1])
    visible = g.add("visible", "LessOrEqual", slots, last)
    least = g.constant("least", np.array(np.finfo(np.float32).min))
    return g.add("bias", "Where", visible, g.number(0), least)


def _attended(
    g: _Graph, shape: Shape, i: int, x: str, rotary: tuple[str, str], key: str, value: str, bias: str
) -> str:
    """x plus what its queries find. heads / kv_heads queries share a key, along an axis of their own."""
    name, width = f"layers.{i}", shape.heads * shape.head
    shared = shape.heads // shape.kv_heads
    query = _linear(g, f"{name}.query", f"{name}.norm", shape.width, width)
    heads = g.integers(1, -1, shape.kv_heads, shared, shape.head)
    split = g.add(f"{name}.query.split", "Reshape", query, heads)
    query = g.add(f"{name}.query.heads", "Transpose", split, perm=[0, 2, 3, 1, 4])
    query = _rotated(g, shape, f"{name}.query.rotated", query, rotary)
    query = g.add(f"{name}.query.scaled", "Mul", query, g.number(shape.head**-0.5))
    keys = g.add(f"{name}.keys", "Unsqueeze", key, g.integers(2))
    turned = g.add(f"{name}.keys.turned", "Transpose", keys, perm=[0, 1, 2, 4, 3])
    scores = g.add(f"{name}.masked", "Add", g.add(f"{name}.scores", "MatMul", query, turned), bias)
    shares = g.add(f"{name}.shares", "Softmax", scores, axis=-1)
    values = g.add(f"{name}.values", "Unsqueeze", value, g.integers(2))
    mixed = g.add(f"{name}.mixed", "MatMul", shares, values)
    tokens = g.add(f"{name}.mixed.tokens", "Transpose", mixed, perm=[0, 3, 1, 2, 4])
    joined = g.add(f"{name}.joined", "Reshape", tokens, g.integers(1, -1, width))
    return g.add(f"{name}.attended", "Add", x, _linear(g, f"{name}.output", joined, width, shape.width))


def _fed_forward(g: _Graph, shape: Shape, i: int, x: str) -> str:
    name = f"layers.{i}.feed"
    n = _norm(g, shape, f"{name}.norm", x)
    gate = _linear(g, f"{name}.gate", n, shape.width, shape.hidden)
    up = _linear(g, f"{name}.up", n, shape.width, shape.hidden)
    silu = g.add(f"{name}.silu", "Mul", gate, g.add(f"{name}.sigmoid", "Sigmoid", gate))
    hidden = g.add(f"{name}.hidden", "Mul", silu, up)
    return g.add(f"layers.{i}", "Add", x, _linear(g, f"{name}.down", hidden, shape.hidden, shape.width))
