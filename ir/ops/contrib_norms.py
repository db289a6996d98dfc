"""Normalisations of onnxruntime: with a skip connection, of embeddings, gated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dtypes import F32, I32
from ..graph import Unsupported
from ..rules import GraphBuilder, Spec
from .contrib import FLOATS, Writer, contrib, need, operand, shaped
from .conversion import cast
from .elementwise import Add, Mul, Reciprocal, Sqrt
from .index import gather_along
from .logic import Equal
from .rearrange import normal_axis, slice_axis
from .reduce import ReduceSum, reduce_over

ROW = {"epsilon": 1e-12}
NORM = {"axis": -1, "epsilon": 1e-5, "stash_type": 1}
TYPES = {"T": FLOATS, "U": (F32,)}


def _inverse_deviation(w: Writer, x: str, first: int, epsilon: float) -> str:
    """1 / sqrt(mean of squares + epsilon) of each row."""
    g, over = w.g, range(first, len(w.g.shape(x)))
    share = 1 / max(1, int(np.prod([g.shape(x)[i] for i in over])))
    mean = reduce_over(g, ReduceSum, w.apply(Mul, x, x), over, w.hint, scale=share)
    return w.apply(Reciprocal, w.apply(Sqrt, w.apply(Add, mean, w.number(epsilon, mean))))


@contrib("SimplifiedLayerNormalization", "X:T scale:V -> Y:V inv_std_var:U",
         {"T": FLOATS, "V": FLOATS, "U": (F32,)}, NORM, domain="")  # fmt: skip
def _simplified(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """RMSNormalization under its older name, in the standard's domain."""
    w = Writer(g, spec.outputs[0])
    epsilon = spec.attributes["epsilon"]
    x, scale = (w.wide(t) for t in spec.inputs)
    first = normal_axis(spec.attributes["axis"], len(g.shape(x)))
    x, scale = (
        cast(g, t, g.dtype(scale)) if g.dtype(scale).bytes > g.dtype(x).bytes else t for t in (x, scale)
    )
    out = w("RMSNormalization", x, scale, axis=first, epsilon=epsilon)
    if len(spec.outputs) < 2 or not spec.outputs[1]:
        return [out]
    return [out, cast(g, _inverse_deviation(w, x, first, epsilon), F32)]


def _skip(g: GraphBuilder, spec: Spec, centred: bool) -> Sequence[str]:
    """The norm of input + skip + bias; the sum, which carries the residual, is result 3."""
    w = Writer(g, spec.outputs[0])
    x, skip, gamma, *rest = (w.wide(operand(spec, i)) for i in range(5))
    beta, bias = rest if centred else ("", rest[0])
    shape = g.shape(x)
    need(len(shape) in (2, 3), f"{spec.op_type} of {g.tensors[x]}: 2 or 3 dimensions")
    need(
        g.shape(skip) == shape or (len(shape) == 3 and g.shape(skip) in (shape[1:], (1, *shape[1:]))),
        f"{spec.op_type}: skip is {g.tensors[skip]} beside {g.tensors[x]}",
    )
    for name, t in (("gamma", gamma), ("beta", beta), ("bias", bias)):
        if t:
            shaped(g, t, shape[-1], name=name)
    total = w.apply(Add, x, skip)
    total = w.apply(Add, total, bias) if bias else total
    kind = "LayerNormalization" if centred else "RMSNormalization"
    affine = [gamma, beta] if beta else [gamma]
    out = w(kind, total, *affine, axis=-1, epsilon=spec.attributes["epsilon"])
    if any(spec.outputs[1:3]):
        raise Unsupported("the mean and the deviation, which onnxruntime does not write either")
    return [out, "", "", total]


@contrib("SkipLayerNormalization",
         "input:T skip:T gamma:T beta:T? bias:T? -> output:T mean:U inv_std_var:U input_skip_bias_sum:T",
         TYPES, ROW, limits="no mean, no deviation")  # fmt: skip
def _skip_layer(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return _skip(g, spec, True)


@contrib("SkipSimplifiedLayerNormalization",
         "input:T skip:T gamma:T bias:T? -> output:T mean:U inv_std_var:U input_skip_bias_sum:T",
         TYPES, ROW, limits="no mean, no deviation")  # fmt: skip
def _skip_simplified(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return _skip(g, spec, False)


def _rows(g: GraphBuilder, table: str, ids: str, hint: str) -> str:
    """The rows of a table that `ids` names."""
    return gather_along(g, table, ids, 0, hint)


@contrib("EmbedLayerNormalization",
         "input_ids:T1 segment_ids:T1? word_embedding:T position_embedding:T segment_embedding:T? "
         "gamma:T beta:T mask:T1? position_ids:T1? -> output:T mask_index:T1 embedding_sum:T",
         {"T1": (I32,), "T": FLOATS}, {"epsilon": 1e-12, "mask_index_type": None})  # fmt: skip
def _embed(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Words, positions and segments added, then normalised; how many elements of `mask` are 1."""
    w = Writer(g, spec.outputs[0])
    ids, segments, words, places, kinds, gamma, beta, mask, at = (operand(spec, i) for i in range(9))
    batch, length = shaped(g, ids, None, None, name="input_ids")
    width = shaped(g, words, None, None, name="word_embedding")[1]
    shaped(g, places, None, width, name="position_embedding")
    need(bool(segments) == bool(kinds), "segment_ids and segment_embedding: one without the other")
    if at:
        need(g.shape(at) in ((batch, length), (1, length)), f"position_ids are {g.tensors[at]}")
        position = _rows(g, places, at, w.hint)
    else:
        need(
            g.shape(places)[0] >= length, f"{length} positions, {g.tensors[places]} has {g.shape(places)[0]}"
        )
        position = slice_axis(g, places, 0, 0, length, w.hint)
    total = w.apply(Add, w.wide(_rows(g, words, ids, w.hint)), w.wide(position))
    if segments:
        shaped(g, segments, batch, length, name="segment_ids")
        shaped(g, kinds, None, width, name="segment_embedding")
        total = w.apply(Add, total, w.wide(_rows(g, kinds, segments, w.hint)))
    out = w(
        "LayerNormalization", total, w.wide(gamma), w.wide(beta), axis=-1, epsilon=spec.attributes["epsilon"]
    )
    return [out, _counted(w, mask, batch, length), total]


def _counted(w: Writer, mask: str, batch: int, length: int) -> str:
    """How many elements of each row of a mask are 1; without one 0, as onnxruntime has it."""
    if not mask:
        return w.constant(np.zeros(batch, np.int32))
    shaped(w.g, mask, batch, length, name="mask")
    ones = cast(w.g, w.apply(Equal, mask, w.number(1, mask)), I32)
    return reduce_over(w.g, ReduceSum, ones, [1], w.hint, keep=False)
