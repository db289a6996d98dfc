"""Normalisations of onnxruntime: with a skip connection, of embeddings, gated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dtypes import F32, I8, I32, U8
from ..graph import Unsupported
from ..rules import GraphBuilder, Spec
from .contrib import FLOATS, Writer, contrib, need, operand, shaped
from .conversion import cast
from .elementwise import Add, Mul, Reciprocal, Sqrt
from .index import gather_along
from .logic import Equal
from .rearrange import normal_axis, reshape, slice_axis
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
         {"T": FLOATS, "V": FLOATS, "U": (F32,)}, NORM)  # fmt: skip
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


@contrib("EmbedLayerNormalization",
         "input_ids:T1 segment_ids:T1? word_embedding:T position_embedding:T segment_embedding:T? "
         "gamma:T beta:T mask:T1? position_ids:T1? -> output:T mask_index:T1 embedding_sum:T",
         {"T1": (I32,), "T": FLOATS}, {"epsilon": 1e-12, "mask_index_type": 0})  # fmt: skip
def _embed(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Words, positions and segments added, then normalised; how many elements of `mask` are 1."""
    w = Writer(g, spec.outputs[0])
    ids, segments, words, places, kinds, gamma, beta, mask, at = (operand(spec, i) for i in range(9))
    tables = Table((words,)), Table((places,)), Table((kinds,)) if kinds else None
    total = _embedding(w, (ids, segments, at), tables)
    affine = (w.wide(gamma), w.wide(beta))
    out = w("LayerNormalization", total, *affine, axis=-1, epsilon=spec.attributes["epsilon"])
    return [out, _counted(w, mask, *g.shape(ids)), total]


@contrib("QEmbedLayerNormalization",
         "input_ids:T1 segment_ids:T1? word_embedding_quant:T2 position_embedding_quant:T2 "
         "segment_embedding:T2? gamma_quant:T2 beta_quant:T2 mask:T1? word_embedding_scale:T "
         "position_embedding_scale:T segment_embedding_scale:T? gamma_scale:T beta_scale:T "
         "word_embedding_zero_point:T2 position_embedding_zero_point:T2 "
         "segment_embedding_zero_point:T2? gamma_zero_point:T2 beta_zero_point:T2 "
         "-> layernorm_out:T mask_index_out:T1",
         {"T1": (I32,), "T2": (I8, U8), "T": (F32,)}, {"epsilon": 1e-12})  # fmt: skip
def _q_embed(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """EmbedLayerNormalization of tables, factors and biases in bytes."""
    w = Writer(g, spec.outputs[0])

    def table(at: int, scale: int) -> Table | None:
        parts = tuple(operand(spec, i) for i in (at, scale, scale + 5))
        need(all(parts) or not any(parts[:1]), f"input {at} without its scale or zero point")
        return Table((parts[0], *(reshape(g, t, (), w.hint) for t in parts[1:]))) if parts[0] else None

    words, places, kinds, gamma, beta = (table(i, s) for i, s in ((2, 8), (3, 9), (4, 10), (5, 11), (6, 12)))
    total = _embedding(w, (spec.inputs[0], operand(spec, 1), ""), (words, places, kinds))
    affine = [w("DequantizeLinear", *t.parts) for t in (gamma, beta) if t]
    out = w("LayerNormalization", total, *affine, axis=-1, epsilon=spec.attributes["epsilon"])
    return [out, _counted(w, operand(spec, 7), *g.shape(spec.inputs[0]))]


@dataclass(frozen=True)
class Table:
    """Rows of floats, or of numbers with a scale and a zero point of them all."""

    parts: tuple[str, ...]

    def real(self, w: Writer, rows: str) -> str:
        """What rows taken from it stand for."""
        return w("DequantizeLinear", rows, *self.parts[1:]) if self.parts[1:] else w.wide(rows)


def _embedding(
    w: Writer, places: tuple[str, str, str], tables: tuple[Table | None, Table | None, Table | None]
) -> str:
    """Words', positions' and segments' rows added. places: ids, segments and positions, "" for none."""
    g, (ids, segments, at), (words, positions, kinds) = w.g, places, tables
    assert words and positions
    batch, length = shaped(g, ids, None, None, name="input_ids")
    width = shaped(g, words.parts[0], None, None, name="the words' table")[1]
    rows = shaped(g, positions.parts[0], None, width, name="the positions' table")[0]
    need(bool(segments) == bool(kinds), "segment_ids and segment_embedding: one without the other")
    if at:
        need(g.shape(at) in ((batch, length), (1, length)), f"position_ids are {g.tensors[at]}")
        position = gather_along(g, positions.parts[0], at, 0, w.hint)
    else:
        need(rows >= length, f"{length} positions, the table has {rows}")
        position = slice_axis(g, positions.parts[0], 0, 0, length, w.hint)
    word = words.real(w, gather_along(g, words.parts[0], ids, 0, w.hint))
    total = w.apply(Add, word, positions.real(w, position))
    if kinds:
        shaped(g, segments, batch, length, name="segment_ids")
        shaped(g, kinds.parts[0], None, width, name="the segments' table")
        total = w.apply(Add, total, kinds.real(w, gather_along(g, kinds.parts[0], segments, 0, w.hint)))
    return total


def _counted(w: Writer, mask: str, batch: int, length: int) -> str:
    """How many elements of each row of a mask are 1; without one 0, as onnxruntime has it."""
    if not mask:
        return w.constant(np.zeros(batch, np.int32))
    shaped(w.g, mask, batch, length, name="mask")
    ones = cast(w.g, w.apply(Equal, mask, w.number(1, mask)), I32)
    return reduce_over(w.g, ReduceSum, ones, [1], w.hint, keep=False)
