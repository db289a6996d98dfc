"""The models that `make bench` measures and that no download gives: written once, with seeded random weights.

Weights are scaled so that values stay near 1: a product's by 1 / sqrt(its depth), a convolution's by
sqrt(2 / its depth) where a Relu follows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from waferc.compiler.shapes.model import Array, Model


# -- products ---------------------------------------------------------------------------
def mlp(batch: int) -> onnx.ModelProto:
    """784-512-512-10 with Relu."""
    m = Model(f"mlp-{batch}")
    x = m.input("x", [batch, 784])
    sizes = (784, 512, 512, 10)
    for i, (depth, width) in enumerate(pairwise(sizes)):
        scale = (2 / depth) ** 0.5 if width > 10 else depth**-0.5
        x = m.Gemm(x, m.weight(depth, width, scale=scale), m.weight(width, scale=0.1))
        x = m.Relu(x) if i < 2 else x
    m.output("y", x, [batch, 10])
    return m.proto()


def gemm(size: int) -> onnx.ModelProto:
    """X @ W, both size x size, W constant."""
    m = Model(f"gemm-{size}")
    x = m.input("x", [size, size])
    m.output("y", m.MatMul(x, m.weight(size, size, scale=size**-0.5)), [size, size])
    return m.proto()


def matvec_chain(size: int = 4096, count: int = 8) -> onnx.ModelProto:
    """A vector through `count` square matrices."""
    m = Model("matvec-chain")
    x = m.input("x", [1, size])
    for _ in range(count):
        x = m.MatMul(x, m.weight(size, size, scale=size**-0.5))
    m.output("y", x, [1, size])
    return m.proto()


# -- decoders ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Decoder:
    """A decoder's sizes: RMSNorm, rotary positions, grouped queries, gated SiLU.

    head: of one head. tied: the table of embeddings is also the last product's. biased: Q, K and V are.
    """

    name: str
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    vocabulary: int
    head: int = 128
    theta: float = 10_000.0
    epsilon: float = 1e-5
    tied: bool = False
    biased: bool = False


POSITIONS = 4096  # for which a decoder with caches of any length has cosines and sines
SMOLLM2_135M = Decoder("SmolLM2-135M", 30, 576, 1536, 9, 3, 49_152, head=64, theta=1e5, tied=True)
LLAMA_3_1_8B = Decoder("Llama-3.1-8B", 32, 4096, 14_336, 32, 8, 128_256, theta=5e5)
LLAMA_2_13B = Decoder("LLaMA-2-13B", 40, 5120, 13_824, 40, 40, 32_000)
QWEN2_72B = Decoder("Qwen2-72B", 80, 8192, 29_568, 64, 8, 152_064, theta=1e6, epsilon=1e-6, biased=True)


def norm(m: Model, d: Decoder, x: str) -> str:
    """RMSNorm as exporters write it."""
    mean = m.ReduceMean(m.Pow(x, 2.0), axes=[-1])
    return m.Mul(
        m.values(1 + 0.1 * np.sin(np.arange(d.width))), m.Mul(x, m.Reciprocal(m.Sqrt(m.Add(mean, d.epsilon))))
    )


def linear(m: Model, x: str, depth: int, width: int) -> str:
    return m.MatMul(x, m.weight(depth, width, scale=depth**-0.5))


def _angles(d: Decoder, positions: Array) -> tuple[Array, Array]:
    """Cosines and sines of the positions, [1, 1, positions, head]."""
    angles = positions[:, None] * d.theta ** (-np.arange(0, d.head, 2) / d.head)
    both = np.concatenate([angles, angles], -1)[None, None]
    return np.cos(both), np.sin(both)


def _rotary(m: Model, d: Decoder, positions: Array) -> tuple[str, str]:
    """The positions' cosines and sines as constants."""
    cosines, sines = _angles(d, positions)
    return m.constant(cosines), m.constant(sines)


def rotated(m: Model, d: Decoder, x: str, rotary: tuple[str, str]) -> str:
    """x with each pair (i, i + head / 2) turned by its angle."""
    low = m.Slice(x, [0], [d.head // 2], [-1])
    high = m.Slice(x, [d.head // 2], [d.head], [-1])
    turned = m.Concat(m.Neg(high), low, axis=-1)
    return m.Add(m.Mul(x, rotary[0]), m.Mul(turned, rotary[1]))


def _heads(m: Model, d: Decoder, x: str, tokens: int, heads: int) -> str:
    """x by `heads` matrices: [1, heads, tokens, head]."""
    y = linear(m, x, d.width, heads * d.head)
    if d.biased:
        y = m.Add(y, m.weight(heads * d.head, scale=0.1))
    return m.Transpose(m.Reshape(y, [1, tokens, heads, d.head]), perm=[0, 2, 1, 3])


def shared(m: Model, d: Decoder, x: str, length: int) -> str:
    """Each key or value head for the query heads that share it: [1, heads, length, head]."""
    if d.heads == d.kv_heads:
        return x
    wide = m.Expand(m.Unsqueeze(x, [2]), [1, d.kv_heads, d.heads // d.kv_heads, length, d.head])
    return m.Reshape(wide, [1, d.heads, length, d.head])


def layer(
    m: Model,
    d: Decoder,
    x: str,
    tokens: int,
    rotary: tuple[str, str],
    past: tuple[str, str] | None,
    cached: int = 0,
) -> tuple[str, str, str]:
    """One layer on x, [1, tokens, width]; its result, keys and values (with the past's in front).

    cached: how long the past is, 0 where that is open (for one token only).
    """
    n = norm(m, d, x)
    q = rotated(m, d, _heads(m, d, n, tokens, d.heads), rotary)
    k = rotated(m, d, _heads(m, d, n, tokens, d.kv_heads), rotary)
    v = _heads(m, d, n, tokens, d.kv_heads)
    if past is not None:
        k, v = m.Concat(past[0], k, axis=2), m.Concat(past[1], v, axis=2)
    length = cached + tokens
    if past is not None and not cached:
        # Queries by the key head that they share: keys are repeated nowhere, however many there are.
        q = m.Reshape(q, [1, d.kv_heads, d.heads // d.kv_heads, tokens, d.head])
        turned = m.Transpose(m.Unsqueeze(k, [2]), perm=[0, 1, 2, 4, 3])
        values = m.Unsqueeze(v, [2])
    else:
        turned = m.Transpose(shared(m, d, k, length), perm=[0, 1, 3, 2])
        values = shared(m, d, v, length)
    scores = m.Mul(m.MatMul(q, turned), d.head**-0.5)
    if tokens > 1:
        later = np.triu(np.ones((tokens, length), bool), 1 + cached)
        scores = m.Add(scores, m.constant(np.where(later, np.finfo(np.float32).min, 0)[None, None]))
    mixed = m.MatMul(m.Softmax(scores, axis=-1), values)
    mixed = m.Reshape(mixed, [1, d.heads, tokens, d.head])
    joined = m.Reshape(m.Transpose(mixed, perm=[0, 2, 1, 3]), [1, tokens, d.heads * d.head])
    x = m.Add(x, linear(m, joined, d.heads * d.head, d.width))
    n = norm(m, d, x)
    gate, up = linear(m, n, d.width, d.hidden), linear(m, n, d.width, d.hidden)
    x = m.Add(x, linear(m, m.Mul(m.Mul(gate, m.Sigmoid(gate)), up), d.hidden, d.width))
    return x, k, v


def decoder_block(tokens: int = 128, d: Decoder = SMOLLM2_135M) -> onnx.ModelProto:
    """One layer on `tokens` tokens, each of which sees those before it."""
    m = Model("decoder-block")
    x = m.input("x", [1, tokens, d.width])
    y, _, _ = layer(m, d, x, tokens, _rotary(m, d, np.arange(tokens)), None)
    m.output("y", y, [1, tokens, d.width])
    return m.proto()


def _cached_layers(m: Model, d: Decoder, x: str, layers: int, cached: int) -> str:
    """`layers` layers on one token after `cached` others: caches are inputs, one longer they are outputs.

    cached: 0 for as many as the caches hold, which are then symbols, P and P + 1; positions are given.
    """
    if cached:
        rotary = _rotary(m, d, np.arange(cached, cached + 1))
    else:
        at = m.input("position_ids", [1, 1], TensorProto.INT64)
        cosines, sines = (m.values(t[0, 0]) for t in _angles(d, np.arange(POSITIONS)))
        rotary = m.Unsqueeze(m.Gather(cosines, at), [1]), m.Unsqueeze(m.Gather(sines, at), [1])
    for i in range(layers):
        kinds = ("key", "value")
        past = [m.input(f"past.{i}.{kind}", [1, d.kv_heads, cached or "P", d.head]) for kind in kinds]
        x, *present = layer(m, d, x, 1, rotary, (past[0], past[1]), cached)
        for kind, value in zip(kinds, present, strict=True):
            m.output(f"present.{i}.{kind}", value, [1, d.kv_heads, cached + 1 if cached else "P + 1", d.head])
    return x


def decode(
    d: Decoder = SMOLLM2_135M, cached: int = 256, layers: int = 0, shapes_only: bool = False
) -> onnx.ModelProto:
    """The next token after `cached` others (0: any number), with all layers or as many as given."""
    m = Model("decode", shapes_only)
    token = m.input("input_ids", [1, 1], TensorProto.INT64)
    table = m.weight(d.vocabulary, d.width, scale=d.width**-0.5)
    x = _cached_layers(m, d, m.Gather(table, token), layers or d.layers, cached)
    row = m.Reshape(norm(m, d, x), [1, d.width])
    last = table if d.tied else m.weight(d.vocabulary, d.width, scale=d.width**-0.5)
    m.output("logits", m.Gemm(row, last, transB=1), [1, d.vocabulary])
    return m.proto()


def decode_layer(d: Decoder, cached: int = 0, shapes_only: bool = True) -> onnx.ModelProto:
    """One layer on one token after `cached` others."""
    m = Model("decode-layer", shapes_only)
    x = _cached_layers(m, d, m.input("x", [1, 1, d.width]), 1, cached)
    m.output("y", x, [1, 1, d.width])
    return m.proto()


# -- image classifiers ------------------------------------------------------------------
def light(name: str) -> onnx.ModelProto:
    """A model of ONNX's own test suite, whose constants are given as shapes, with weights."""
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    proto = onnx.load(path)
    shapes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    random = np.random.default_rng(0)
    roles: dict[str, tuple[str, int]] = {}
    for node in proto.graph.node:
        roles |= {t: (node.op_type, i) for i, t in enumerate(node.input)}
    weights: dict[str, Array] = {}
    for tensor, (operator, operand) in roles.items():
        if operator != "ConstantOfShape" and tensor in shapes:
            weights[tensor] = _classifier_weight(random, shapes[tensor], operator, operand)
    for node in proto.graph.node:
        if node.op_type == "ConstantOfShape":
            empty = np.empty([int(n) for n in shapes[node.input[0]]], np.float32)
            weights[node.output[0]] = _classifier_weight(random, empty, *roles[node.output[0]])
    nodes = [n for n in proto.graph.node if n.op_type != "ConstantOfShape"]
    inputs = [v for v in proto.graph.input if v.name not in shapes]
    outputs = list(proto.graph.output)
    graph = helper.make_graph(
        nodes, name, inputs, outputs, [numpy_helper.from_array(v, t) for t, v in weights.items()]
    )
    return helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=8)


def _classifier_weight(random: np.random.Generator, value: Array, operator: str, operand: int) -> Array:
    """New values for operand number `operand` of an operator, which was `value`; integers stay."""
    if value.dtype != np.float32:
        return value
    shape, normal = value.shape, random.standard_normal(value.shape, np.float32)
    if operator == "BatchNormalization":
        # Gain, shift, mean, variance. Gains below 1 keep sums of residuals from growing.
        base, spread = ((0.7, 0.05), (0.0, 0.1), (0.0, 0.1), (1.0, 0.05))[operand - 1]
        return (base + spread * normal).astype(np.float32)
    if operator == "Conv" and operand == 1:
        return normal * np.float32((2 / np.prod(shape[1:])) ** 0.5)
    if operator == "Gemm" and operand == 1:
        return normal * np.float32(max(shape) ** -0.5)
    return normal * np.float32(0.1)


MODELS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "mlp-1": lambda: mlp(1),
    "mlp-64": lambda: mlp(64),
    "gemm-1024": lambda: gemm(1024),
    "gemm-2048": lambda: gemm(2048),
    "matvec-chain": matvec_chain,
    "decoder-block": decoder_block,
    "decode": decode,
    "resnet50": lambda: light("resnet50"),
    "squeezenet": lambda: light("squeezenet"),
}


def written(name: str, folder: Path) -> Path:
    """The file of model `name` in `folder`, made if this version of this module has not made it yet."""
    path = folder / f"{name}.onnx"
    if path.exists() and path.stat().st_mtime >= Path(__file__).stat().st_mtime:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(MODELS[name]().SerializeToString())
    part.replace(path)
    return path


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for wanted in sys.argv[2:] or MODELS:
        print(written(wanted, target))
