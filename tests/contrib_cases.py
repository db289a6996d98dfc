"""How cases of onnxruntime's operators are drawn: norms, activations, products, convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from contrib import Dice, Drawn, draws


@draws("SimplifiedLayerNormalization", "")
def simplified(d: Dice) -> Drawn:
    shape = d.shape(2, 4)
    axis = d.pick(-1, len(shape) - 1, -2)
    inputs = {"X": d.normal(*shape, scale=d.pick(0.1, 3)), "scale": d.normal(*shape[axis:])}
    return Drawn(inputs, {**d.some({"epsilon": 1e-6}), "axis": axis}, d.pick((), ("scale",)))


@draws("LayerNormalization", "")
def layer_norm(d: Dice) -> Drawn:
    shape = d.shape(2, 4)
    axis = d.pick(-1, len(shape) - 1, -2)
    parts = {"X": d.normal(*shape), "Scale": d.normal(*shape[axis:]), "B": d.maybe(d.normal(*shape[axis:]))}
    return Drawn(parts, {**d.some({"epsilon": 1e-3}), "axis": axis})


def _skip(d: Dice, centred: bool) -> Drawn:
    batch, length, width = d.size(), d.size(), d.size(2, 40)
    flat = d.random.random() < 0.2
    x = d.normal(length, width) if flat else d.normal(batch, length, width)
    skips = [x.shape] if flat else [x.shape, x.shape, (1, length, width), (length, width)]
    inputs = {
        "input": x,
        "skip": d.normal(*d.pick(*skips)),
        "gamma": d.normal(width),
        "bias": d.maybe(d.normal(width)),
    }
    if centred:
        inputs["beta"] = d.maybe(d.normal(width))
    return Drawn(inputs, d.some({"epsilon": d.pick(1e-5, 1e-2)}), d.pick((), ("gamma", "beta", "bias")), 1)


@draws("SkipLayerNormalization")
def skip_layer_norm(d: Dice) -> Drawn:
    return _skip(d, True)


@draws("SkipSimplifiedLayerNormalization")
def skip_simplified(d: Dice) -> Drawn:
    return _skip(d, False)


@draws("EmbedLayerNormalization")
def embed(d: Dice) -> Drawn:
    batch, length, width, words = d.size(), d.size(), d.size(2, 24), d.size(4, 30)
    segments = d.random.random() < 0.6
    inputs = {
        "input_ids": d.whole(batch, length, low=0, high=words),
        "segment_ids": d.whole(batch, length, low=0, high=2) if segments else None,
        "word_embedding": d.normal(words, width),
        "position_embedding": d.normal(length + d.size(0, 3), width),
        "segment_embedding": d.normal(2, width) if segments else None,
        "gamma": d.normal(width),
        "beta": d.normal(width),
        "mask": d.maybe(d.whole(batch, length, low=0, high=2)),
        "position_ids": d.maybe(d.whole(d.pick(1, batch), length, low=0, high=length)),
    }
    kinds = (d.kind, np.int32, d.kind)
    return Drawn(inputs, d.some({"epsilon": 1e-5}), outputs=d.pick(2, 3), types=kinds)


@draws("BiasGelu")
def bias_gelu(d: Dice) -> Drawn:
    shape = d.shape()
    return Drawn({"A": d.normal(*shape, scale=2), "B": d.normal(shape[-1])})


@draws("FastGelu")
def fast_gelu(d: Dice) -> Drawn:
    shape = d.shape()
    return Drawn({"X": d.normal(*shape, scale=2), "bias": d.maybe(d.normal(shape[-1]))}, tolerance=3)


@draws("Gelu")
def gelu(d: Dice) -> Drawn:
    return Drawn({"X": d.normal(*d.shape(), scale=2)})


@draws("QuickGelu")
def quick_gelu(d: Dice) -> Drawn:
    return Drawn({"X": d.normal(*d.shape(), scale=2)}, d.some({"alpha": d.pick(1.0, 0.5, -1.2)}))


def _product(d: Dice, batches: bool) -> Drawn:
    batch = d.shape(1, 2) if d.random.random() < 0.6 else ()
    m, k, n = d.size(), d.size(1, 9), d.size()
    own: dict[str, Any] = {
        "transA": d.pick(0, 1),
        "transB": d.pick(0, 1),
        **d.some({"alpha": d.pick(0.5, -2.0, 0.125)}),
    }
    other = d.pick(batch, batch, ()) if batch else ()
    a = [*batch, *((k, m) if own["transA"] else (m, k))]
    b = [*other, *((n, k) if own["transB"] else (k, n))]
    if batches and batch and other:
        own |= {"transBatchA": d.pick(0, 1), "transBatchB": d.pick(0, 1)}
        for shape, flag in ((a, own["transBatchA"]), (b, own["transBatchB"])):
            if flag:  # the rows' dimension comes first, then the batch's
                shape[:] = [shape[-2], *shape[:-2], shape[-1]]
    return Drawn({"A": d.normal(*a), "B": d.normal(*b)}, own, d.pick((), ("B",)))


@draws("FusedMatMul")
def fused_matmul(d: Dice) -> Drawn:
    return _product(d, True)


@draws("TransposeMatMul")
def transpose_matmul(d: Dice) -> Drawn:
    return _product(d, False)


@draws("FusedGemm")
def fused_gemm(d: Dice) -> Drawn:
    m, k, n = d.size(), d.size(1, 9), d.size()
    own: dict[str, Any] = {
        "transA": d.pick(0, 1),
        "transB": d.pick(0, 1),
        **d.some({"alpha": 0.5, "beta": -2.0}),
    }
    kind = d.pick(
        "Relu",
        "Tanh",
        "Sigmoid",
        "LeakyRelu",
        "Elu",
        "Softplus",
        "Softsign",
        "HardSigmoid",
        "ThresholdedRelu",
    )
    own["activation"] = kind
    if kind in ("LeakyRelu", "Elu", "HardSigmoid", "ThresholdedRelu"):
        own["activation_alpha"] = 0.3
    if kind == "HardSigmoid":
        own["activation_beta"] = 0.4
    c = d.maybe(d.normal(*d.pick((n,), (m, n), (1, n), (m, 1))))
    a, b = (k, m) if own["transA"] else (m, k), (n, k) if own["transB"] else (k, n)
    return Drawn({"A": d.normal(*a), "B": d.normal(*b), "C": c}, own)


def window(d: Dice, rank: int) -> dict[str, Any]:
    """Attributes of a window over `rank` dimensions."""
    own: dict[str, Any] = {"strides": [d.size(1, 2) for _ in range(rank)]}
    if d.random.random() < 0.6:
        own["pads"] = [d.size(0, 1) for _ in range(2 * rank)]
    elif d.random.random() < 0.5:
        own["auto_pad"] = d.pick("SAME_UPPER", "SAME_LOWER", "VALID")
    return own


@draws("FusedConv", kinds=("float32",))
def fused_conv(d: Dice) -> Drawn:
    rank = d.pick(1, 2, 2)
    group, each, depth = d.pick(1, 1, 2), d.size(1, 3), d.size(1, 3)
    kernel = [d.size(1, 3) for _ in range(rank)]
    own = {**window(d, rank), "group": group, **d.some({"kernel_shape": kernel})}
    if "auto_pad" not in own:
        own["dilations"] = [d.size(1, 2) for _ in range(rank)]
    kind = d.pick("Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid")
    own["activation"] = kind
    given = {"LeakyRelu": [0.2], "Clip": [-0.5, 0.75], "HardSigmoid": [0.3, 0.4]}
    if kind in given:
        own["activation_params"] = given[kind]
    x = d.normal(d.size(1, 2), group * depth, *(d.size(5, 8) for _ in range(rank)))
    w = d.normal(group * each, depth, *kernel)
    return Drawn({"X": x, "W": w, "B": d.maybe(d.normal(group * each))}, own, d.pick((), ("W", "B")))


@draws("CDist")
def distances(d: Dice) -> Drawn:
    width = d.size(1, 12)
    inputs = {"A": d.normal(d.size(), width), "B": d.normal(d.size(), width)}
    return Drawn(inputs, d.some({"metric": d.pick("euclidean", "sqeuclidean")}), tolerance=5)
