"""How cases of onnxruntime's quantised operators are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from contrib import Dice, Drawn, draws
from contrib_cases import window
from waferc.ir.op import Array

KINDS = ("uint8", "int8")


def _bytes(d: Dice, kind: str, *shape: int) -> Array:
    low, high = (0, 256) if kind == "uint8" else (-128, 128)
    return d.whole(*shape, low=low, high=high, kind=kind)


def _scale(d: Dice, low: float = 0.005, high: float = 0.05) -> Array:
    return np.asarray(d.random.uniform(low, high), np.float32)


def _zero(d: Dice, kind: str) -> Array:
    return np.asarray(d.pick(0, 10, 128) if kind == "uint8" else d.pick(0, -3, 20), kind)


# -- blocks of bits ---------------------------------------------------------------------------
@draws("MatMulNBits", kinds=("float32", "float32", "float16"))
def product_of_bits(d: Dice) -> Drawn:
    bits, size = d.pick(4, 4, 8, 2), d.pick(16, 32, 64)
    depth, columns = d.size(1, 100), d.size(1, 20)
    blocks = -(-depth // size)
    count = columns * -(-blocks * bits // 8)
    packed = d.whole(columns, blocks, size * bits // 8, low=0, high=256, kind="uint8")
    scales = (np.abs(d.single(columns, blocks)) * 0.05 + 0.01).astype(d.kind)
    zeros = d.pick(
        None,
        None,
        d.whole(columns, count // columns, low=0, high=256, kind="uint8"),
        d.normal(columns, blocks) + 3,
    )
    if zeros is not None and d.random.random() < 0.3:
        zeros = zeros.reshape(-1)
        scales = scales.reshape(-1)
    own: dict[str, Any] = {
        "K": depth,
        "N": columns,
        "bits": bits,
        "block_size": size,
        **d.some({"accuracy_level": 1}),
    }
    inputs = {
        "A": d.normal(*d.shape(0, 2), d.size(), depth),
        "B": packed,
        "scales": scales,
        "zero_points": zeros
        if zeros is None
        else zeros.astype(d.kind if zeros.dtype != np.uint8 else np.uint8),
        "bias": d.maybe(d.normal(columns), 0.3),
    }
    return Drawn(inputs, own, ("B", "scales", "zero_points", "bias"), tolerance=2)


@draws("GatherBlockQuantized", kinds=("float32", "float16"))
def gather_blocks(d: Dice) -> Drawn:
    bits, size = d.pick(4, 4, 8), d.pick(16, 32)
    rows, width = d.size(2, 12), 2 * d.size(4, 40)
    blocks = -(-width // size)
    indices = d.whole(*d.shape(1, 2), low=-rows, high=rows, kind=d.pick("int32", "int64"))
    inputs = {
        "data": d.whole(rows, width * bits // 8, low=0, high=256, kind="uint8"),
        "indices": indices,
        "scales": (np.abs(d.single(rows, blocks)) * 0.05 + 0.01).astype(d.kind),
        "zero_points": d.maybe(d.whole(rows, -(-blocks * bits // 8), low=0, high=256, kind="uint8")),
    }
    own = {"bits": bits, "block_size": size, **d.some({"quantize_axis": d.pick(1, -1), "gather_axis": 0})}
    return Drawn(inputs, own, ("data", "scales", "zero_points"), types=(d.kind,))


@draws("MatMulBnb4", kinds=("float32",))
def product_of_codes(d: Dice) -> Drawn:
    size = d.pick(16, 32, 64)
    depth, columns = d.size(1, 60), d.size(1, 12)
    count = depth * columns
    inputs = {
        "A": d.normal(d.size(), depth),
        "B": d.whole(-(-count // 2), low=0, high=256, kind="uint8"),
        "absmax": np.abs(d.normal(-(-count // size))) + np.float32(0.1),
    }
    own = {"K": depth, "N": columns, "block_size": size, "quant_type": d.pick(0, 1)}
    return Drawn(inputs, own, ("B", "absmax"))


# -- elementwise ------------------------------------------------------------------------------
def _two(d: Dice, high: float) -> Drawn:
    kind = d.pick(*KINDS)
    shape = d.shape()
    other = d.pick(shape, shape, shape[-1:], tuple(1 for _ in shape))
    inputs = {
        "A": _bytes(d, kind, *shape), "A_scale": _scale(d), "A_zero_point": _zero(d, kind),
        "B": _bytes(d, kind, *other), "B_scale": _scale(d), "B_zero_point": _zero(d, kind),
        "C_scale": _scale(d, high / 4, high), "C_zero_point": _zero(d, kind),
    }  # fmt: skip
    return Drawn(
        inputs,
        {},
        d.pick((), ("A_scale", "A_zero_point", "B_scale", "B_zero_point", "C_scale", "C_zero_point")),
    )


@draws("QLinearAdd")
def add(d: Dice) -> Drawn:
    return _two(d, 0.1)


@draws("QLinearMul")
def mul(d: Dice) -> Drawn:
    return _two(d, 0.2)


def _one(d: Dice, low: float, high: float, **own: Any) -> Drawn:
    kind = d.pick(*KINDS)
    inputs = {
        "X": _bytes(d, kind, *d.shape()), "X_scale": _scale(d), "X_zero_point": d.maybe(_zero(d, kind), 0.8),
        "Y_scale": _scale(d, low, high), "Y_zero_point": d.maybe(_zero(d, kind), 0.8),
    }  # fmt: skip
    return Drawn(inputs, own, d.pick((), ("X_scale", "X_zero_point", "Y_scale", "Y_zero_point")))


@draws("QLinearSigmoid")
def sigmoid(d: Dice) -> Drawn:
    return _one(d, 1 / 300, 1 / 200)


@draws("QLinearLeakyRelu")
def leaky(d: Dice) -> Drawn:
    return _one(d, 0.01, 0.05, **d.some({"alpha": 0.3}))


@draws("QLinearSoftmax")
def softmax(d: Dice) -> Drawn:
    kind, shape = d.pick(*KINDS), d.shape()
    inputs = {
        "X": _bytes(d, kind, *shape), "X_scale": _scale(d), "x_zero_point": _zero(d, kind),
        "y_scale": np.asarray(1 / 256, np.float32),
        "y_zero_point": np.asarray(0 if kind == "uint8" else -128, kind),
    }  # fmt: skip
    own = {"opset": d.pick(11, 13), "axis": d.pick(-1, 0, len(shape) - 1)}
    return Drawn(inputs, own, ("X_scale", "x_zero_point", "y_scale", "y_zero_point"))


@draws("QLinearWhere")
def where(d: Dice) -> Drawn:
    kind, shape = d.pick(*KINDS), d.shape()
    inputs = {
        "condition": d.whole(*d.pick(shape, shape[-1:]), low=0, high=2, kind="bool"),
        "X": _bytes(d, kind, *shape), "x_scale": _scale(d), "x_zero_point": _zero(d, kind),
        "Y": _bytes(d, kind, *d.pick(shape, shape[-1:])), "y_scale": _scale(d),
        "y_zero_point": _zero(d, kind),
        "z_scale": _scale(d), "z_zero_point": _zero(d, kind),
    }  # fmt: skip
    fixed = ("x_scale", "x_zero_point", "y_scale", "y_zero_point", "z_scale", "z_zero_point")
    return Drawn(inputs, {}, fixed, types=(kind,))


@draws("QLinearConcat")
def concat(d: Dice) -> Drawn:
    kind, shape = d.pick(*KINDS), list(d.shape())
    axis = d.pick(*range(-len(shape), len(shape)))
    parts: list[Array] = []
    for _ in range(d.size(1, 3)):
        shape[axis] = d.size()
        parts += [_bytes(d, kind, *shape), _scale(d), _zero(d, kind)]
    inputs = {"Y_scale": _scale(d), "Y_zero_point": _zero(d, kind), "inputs": parts}
    return Drawn(inputs, {"axis": axis}, d.pick((), ("Y_scale", "Y_zero_point")), types=(kind,))


# -- windows ----------------------------------------------------------------------------------
@draws("QLinearAveragePool")
def average_pool(d: Dice) -> Drawn:
    kind, last = d.pick(*KINDS), d.pick(0, 0, 1)
    places = [d.size(4, 8), d.size(4, 8)]
    channels = d.size(1, 5)
    shape = [d.size(1, 2), *([*places, channels] if last else [channels, *places])]
    own = {**window(d, 2), "kernel_shape": [d.size(2, 3), d.size(2, 3)], "channels_last": last}
    own |= d.some({"count_include_pad": 1})
    inputs = {
        "X": _bytes(d, kind, *shape), "x_scale": _scale(d), "x_zero_point": _zero(d, kind),
        "y_scale": _scale(d), "y_zero_point": _zero(d, kind),
    }  # fmt: skip
    return Drawn(inputs, own, ("x_scale", "x_zero_point", "y_scale", "y_zero_point"))


@draws("QLinearGlobalAveragePool")
def global_average(d: Dice) -> Drawn:
    kind = d.pick(*KINDS)
    inputs = {
        "X": _bytes(d, kind, d.size(1, 2), d.size(), d.size(), d.size()),
        "x_scale": _scale(d), "x_zero_point": _zero(d, kind),
        "y_scale": _scale(d), "y_zero_point": _zero(d, kind),
    }  # fmt: skip
    own = {"channels_last": d.pick(0, 1)}
    return Drawn(inputs, own, ("x_scale", "x_zero_point", "y_scale", "y_zero_point"))


@draws("NhwcMaxPool")
def max_pool(d: Dice) -> Drawn:
    x = _bytes(d, d.pick(*KINDS), d.size(1, 2), d.size(4, 8), d.size(4, 8), d.size(1, 5))
    return Drawn({"x": x}, {**window(d, 2), "kernel_shape": [d.size(2, 3), d.size(2, 3)]})


@draws("QLinearConv")
def convolution(d: Dice) -> Drawn:
    kind, last = d.pick(*KINDS), d.pick(0, 1)
    group, each, depth = d.pick(1, 1, 2), d.size(1, 3), d.size(1, 3)
    places, filters = [d.size(4, 7), d.size(4, 7)], group * each
    shape = [d.size(1, 2), *([*places, group * depth] if last else [group * depth, *places])]
    scales = d.random.uniform(0.005, 0.02, d.pick((), (filters,))).astype(np.float32)
    own = {**window(d, 2), "group": group, "channels_last": last}
    inputs = {
        "x": _bytes(d, kind, *shape), "x_scale": _scale(d), "x_zero_point": _zero(d, kind),
        # in 7 bits: without an instruction for it, onnxruntime's sums of pairs saturate in 16 bits
        "w": d.whole(filters, depth, d.size(1, 3), d.size(1, 3), low=-64, high=64, kind="int8"),
        "w_scale": scales, "w_zero_point": np.zeros(scales.shape, np.int8),
        "y_scale": _scale(d, 0.05, 0.3), "y_zero_point": _zero(d, kind),
        "B": d.maybe(d.whole(filters, low=-3000, high=3000)),
    }  # fmt: skip
    return Drawn(inputs, own, [n for n in inputs if n != "x"])


# -- products ---------------------------------------------------------------------------------
def _weights(d: Dice, depth: int, columns: int) -> dict[str, Array]:
    """Numbers of 7 bits, see above, a scale and a zero point for all or for each column."""
    kind = d.pick(*KINDS)
    each = d.pick((), (columns,))
    low, high = (0, 128) if kind == "uint8" else (-64, 64)
    return {
        "w": d.whole(depth, columns, low=low, high=high, kind=kind),
        "scale": d.random.uniform(0.005, 0.02, each).astype(np.float32),
        "zero": d.whole(*each, low=0, high=20, kind=kind),
    }


@draws("DynamicQuantizeMatMul")
def dynamic(d: Dice) -> Drawn:
    depth, columns = d.size(1, 20), d.size(1, 12)
    b = _weights(d, depth, columns)
    inputs = {
        "A": d.single(*d.shape(1, 2), depth, scale=2), "B": b["w"], "b_scale": b["scale"],
        "b_zero_point": d.maybe(b["zero"]), "bias": d.maybe(d.single(columns)),
    }  # fmt: skip
    return Drawn(inputs, {}, ("B", "b_scale", "b_zero_point", "bias"))


@draws("MatMulIntegerToFloat", kinds=("float32",))
def to_float(d: Dice) -> Drawn:
    depth, columns = d.size(1, 20), d.size(1, 12)
    b = _weights(d, depth, columns)
    inputs = {
        "A": _bytes(d, "uint8", *d.shape(1, 2), depth), "B": b["w"],
        "a_scale": _scale(d), "b_scale": b["scale"],
        "a_zero_point": d.maybe(_zero(d, "uint8")), "b_zero_point": d.maybe(b["zero"]),
        "bias": d.maybe(d.single(columns)),
    }  # fmt: skip
    return Drawn(inputs, {}, ("B", "b_scale", "b_zero_point", "bias"), types=("float32",))


@draws("MatMulInteger16")
def short(d: Dice) -> Drawn:
    depth = d.size(1, 12)
    shapes = (*d.shape(0, 1), d.size(), depth), (depth, d.size())
    a, b = (d.whole(*s, low=-2000, high=2000, kind="int16") for s in shapes)
    return Drawn({"A": a, "B": b}, types=("int32",))


@draws("QGemm")
def gemm(d: Dice) -> Drawn:
    m, depth, columns = d.size(), d.size(1, 20), d.size(1, 12)
    b = _weights(d, depth, columns)
    own: dict[str, Any] = {"transA": d.pick(0, 1), "transB": d.pick(0, 1), **d.some({"alpha": 0.5})}
    rounded = d.random.random() < 0.6
    # onnxruntime wants signs alike but for unsigned with signed
    a = _bytes(d, "uint8", *((depth, m) if own["transA"] else (m, depth)))
    inputs = {
        "A": a, "a_scale": _scale(d), "a_zero_point": _zero(d, "uint8"),
        "B": b["w"].T.copy() if own["transB"] else b["w"], "b_scale": b["scale"], "b_zero_point": b["zero"],
        "C": d.maybe(d.whole(*d.pick((columns,), (m, columns), (1, columns)), low=-3000, high=3000)),
        "y_scale": _scale(d, 0.02, 0.2) if rounded else None,
        "y_zero_point": _zero(d, "uint8") if rounded else None,
    }  # fmt: skip
    return Drawn(inputs, own, [n for n in inputs if n != "A"], types=("uint8" if rounded else "float32",))


@draws("QEmbedLayerNormalization")
def embed(d: Dice) -> Drawn:
    batch, length, width, words = d.size(), d.size(), d.size(2, 24), d.size(4, 30)
    segments = d.random.random() < 0.6
    inputs: dict[str, Array | None] = {
        "input_ids": d.whole(batch, length, low=0, high=words),
        "segment_ids": d.whole(batch, length, low=0, high=2) if segments else None,
        "mask": d.maybe(d.whole(batch, length, low=0, high=2)),
    }
    tables = {"word_embedding": (words, width), "position_embedding": (length + 1, width)}
    for name, shape in {**tables, "gamma": (width,), "beta": (width,)}.items():
        inputs[f"{name}_quant"] = _bytes(d, "uint8", *shape)
        inputs[f"{name}_scale"] = _scale(d)
        inputs[f"{name}_zero_point"] = _zero(d, "uint8")
    inputs["segment_embedding"] = _bytes(d, "uint8", 2, width) if segments else None
    inputs["segment_embedding_scale"] = _scale(d) if segments else None
    inputs["segment_embedding_zero_point"] = _zero(d, "uint8") if segments else None
    fixed = [n for n in inputs if n.endswith(("scale", "point", "quant", "embedding"))]
    return Drawn(inputs, d.some({"epsilon": 1e-5}), fixed, 2, types=("float32", "int32"))
