"""Normalisations: every element by statistics of its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import math
from ..affine import Access, Affine, axis
from ..builder import RESULT, KernelBuilder, Value
from ..count import instructions
from ..dtypes import F32, by_onnx
from ..graph import InvalidModel
from ..op import Array, Normalisation, assemble, broadcast_access, identity, product
from ..rules import GraphBuilder, Spec, register
from .contract import Contract
from .conversion import cast
from .elementwise import Add, Div, Mul, Reciprocal, Sqrt, Sub, apply, broadcast, scalar_constant
from .loops import Index, accumulator, view
from .rearrange import normal_axis
from .reduce import ReduceSum, reduce_over
from .row_passes import Normalize


@dataclass(frozen=True, kw_only=True)
class Softmax(Normalize):
    """exp(x - max) / sum(exp(x - max)), or its logarithm.

    In 16 bits difference, powers and their sum are rounded as in the standard's function body, which other
    runtimes' values come from, but for a sum that has no place there; a logarithm, and the sum's own terms,
    are not.
    """

    logarithm: bool = False

    def neutral_in(self, operand: int) -> float | None:
        return float("-inf")

    @property
    def softmax_over(self) -> tuple[str, ...]:
        return () if self.logarithm else self.over

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.logarithm)

    @property
    def name(self) -> str:
        return "LogSoftmax" if self.logarithm else "Softmax"

    def reference(self, *operands: Array) -> Array:
        seen = view(self, 0, operands[0])
        over = tuple(i for i, (a, _) in enumerate(self.axes) if a in self.over)
        if not seen.size:
            return seen
        wide, own = seen.dtype, seen.dtype if self.logarithm else operands[0].dtype
        seen = seen.astype(own)
        with np.errstate(all="ignore"):
            shifted = seen - seen.max(axis=over, keepdims=True)
            powers = np.exp(shifted).astype(wide)
            total: Array = powers.sum(axis=over, keepdims=True)
            narrow: Array = np.asarray(total, own)
            total = np.where(np.isinf(narrow), total, np.asarray(narrow, wide))
            out = shifted - np.log(total) if self.logarithm else powers / total
        return assemble(out, self.write, self.axes)

    def passes(self) -> int:
        exp = instructions(math.weight, (accumulator(self.in_types[0]),))
        return 1 + (2 + exp) + (2 if self.logarithm else 1)

    def rows(self, k: KernelBuilder, at: Sequence[Index]) -> None:
        low = float("-inf")
        tops = self.totals(k, at, "max", lambda _, i: self.load(k, 0, i, low))
        # The result holds the powers between the passes where it is precise enough.
        kept = not self.logarithm and self.out_type == accumulator(self.out_type)

        def rounded(x: Value) -> Value:
            return x if self.logarithm else k.cast(k.cast(x, self.out_type), x.dtype)

        def power(row: int, i: Index) -> Value:
            p = rounded(math.weight(k, rounded(k.sub(self.load(k, 0, i, low), tops[row]))))
            if kept:
                k.store_lanes(p, i)
            return p

        def shift_of(total: Value) -> Value:
            if self.logarithm:
                return math.log(k, total)
            if self.out_type != total.dtype:
                past = k.compare("gt", total, k.const(self.out_type.limits[1], total.dtype))
                total = k.select(past, total, rounded(total))
            return k.div(k.const(1, total.dtype), total)

        shifts = [shift_of(total) for total in self.totals(k, at, "add", power)]

        def finish(row: int, i: Index) -> None:
            if kept:
                k.store_lanes(k.mul(k.load_lanes(RESULT, i), shifts[row]), i)
                return
            x = rounded(k.sub(self.load(k, 0, i, low), tops[row]))
            out = k.sub(x, shifts[row]) if self.logarithm else k.mul(rounded(math.weight(k, x)), shifts[row])
            k.store_lanes(k.cast(out, self.out_type), i)

        self.sweep(k, at, finish)


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Normalize):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over a row.

    Operands: x, scale and, optionally, bias. centred: False leaves the mean out (RMS norm).
    """

    epsilon: float
    centred: bool = True

    @property
    def normalisation(self) -> Normalisation | None:
        return Normalisation(self.over, self.epsilon, self.centred)

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.epsilon, self.centred)

    @property
    def name(self) -> str:
        return "LayerNorm" if self.centred else "RMSNorm"

    def reference(self, *operands: Array) -> Array:
        x, *affine = (view(self, i, a) for i, a in enumerate(operands))
        over = tuple(i for i, (a, _) in enumerate(self.axes) if a in self.over)
        with np.errstate(all="ignore"):
            if self.centred:
                x = x - x.mean(axis=over, keepdims=True)
            out = x / np.sqrt((x * x).mean(axis=over, keepdims=True) + x.dtype.type(self.epsilon)) * affine[0]
            out = out + affine[1] if len(affine) > 1 else out
        return assemble(out, self.write, self.axes)

    def passes(self) -> int:
        return (1 + 2 if self.centred else 0) + 1 + 1 + (len(self.reads) - 1)

    def rows(self, k: KernelBuilder, at: Sequence[Index]) -> None:
        wide = accumulator(self.in_types[0])
        share = k.const(1, wide)
        for a in self.over:
            share = k.div(share, k.cast(k.extent(a), wide))
        means: list[Value] = []
        if self.centred:
            means = [k.mul(t, share) for t in self.totals(k, at, "add", lambda _, i: self.load(k, 0, i))]

        def offset(row: int, i: Index) -> Value:
            x = self.load(k, 0, i)
            return k.sub(x, means[row]) if means else x

        def square(row: int, i: Index) -> Value:
            d = offset(row, i)
            d = self.in_row(k, i, d) if self.centred else d
            return k.mul(d, d)

        def factor_of(squares: Value) -> Value:
            variance = k.mul(squares, share)
            return k.div(k.const(1, wide), k.sqrt(k.add(variance, k.const(self.epsilon, wide))))

        factors = [factor_of(total) for total in self.totals(k, at, "add", square)]

        def finish(row: int, i: Index) -> None:
            out = k.mul(k.mul(offset(row, i), factors[row]), self.load(k, 1, i))
            if len(self.reads) > 2:
                out = k.add(out, self.load(k, 2, i))
            k.store_lanes(k.cast(out, self.out_type), i)

        self.sweep(k, at, finish)


# -- building -----------------------------------------------------------------------
def _softmax(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x = spec.inputs[0]
    shape = g.shape(x)
    first = normal_axis(int(spec.attribute("axis", -1 if spec.opset >= 13 else 1)), len(shape))
    # Before opset 13 the tensor is a matrix, cut in two at `axis`.
    over = range(first, first + 1 if spec.opset >= 13 else len(shape))
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    whole = identity([a for a, _ in axes])
    op = Softmax(
        axes=axes,
        reads=(whole,),
        write=whole,
        in_types=(g.dtype(x),),
        out_type=g.dtype(x),
        over=tuple(f"d{i}" for i in over),
        logarithm=spec.op_type == "LogSoftmax",
    )
    return [g.emit(op, (x,), shape, spec.outputs[0])]


def _layer_norm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, *affine = (t for t in spec.inputs if t)
    shape = g.shape(x)
    first = normal_axis(int(spec.attribute("axis", -1)), len(shape))
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    if odd := [g.tensors[t] for t in affine if broadcast(g.shape(t), shape) != shape]:
        raise InvalidModel(f"{spec.op_type} of {g.tensors[x]} with {odd[0]}")
    factors = ((t, broadcast_access(g.shape(t), axes)) for t in affine)
    out = _emit_norm(
        g,
        [(x, identity([a for a, _ in axes])), *factors],
        axes,
        [a for a, _ in axes[first:]],
        spec,
        centred=spec.op_type == "LayerNormalization",
    )
    return [out, *_statistics(g, spec, x, range(first, len(shape)))]


def _statistics(g: GraphBuilder, spec: Spec, x: str, over: Sequence[int]) -> list[str]:
    """The mean and the inverse deviation of each row, as LayerNormalization's further outputs."""
    if not any(spec.outputs[1:]):
        return []
    hint = spec.outputs[1]
    share = 1 / product([g.shape(x)[i] for i in over])
    wide = cast(g, x, accumulator(g.dtype(x)))
    mean = reduce_over(g, ReduceSum, wide, over, hint, scale=share)
    squares = reduce_over(g, Contract, apply(g, Sub, [wide, mean], hint), over, hint)
    variance = apply(g, Mul, [squares, scalar_constant(g, share, g.dtype(squares))], hint)
    epsilon = scalar_constant(g, spec.attribute("epsilon", 1e-5), g.dtype(squares))
    deviation = apply(g, Sqrt, [apply(g, Add, [variance, epsilon], hint)], hint)
    stash = by_onnx(int(spec.attribute("stash_type", 1))) or F32
    return [cast(g, t, stash, hint) for t in (mean, apply(g, Reciprocal, [deviation], hint))]


def _mean_variance(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """(x - mean) / (deviation + 1e-9) over `axes`; the variance is a mean of squares, thus never negative."""
    x, hint = spec.inputs[0], spec.outputs[0]
    rank, given = len(g.shape(x)), g.dtype(x)
    over = sorted({normal_axis(int(a), rank) for a in spec.attribute("axes") or (0, 2, 3)})
    share = 1 / max(1, product([g.shape(x)[i] for i in over]))
    wide = cast(g, x, given.wide, hint)
    mean = reduce_over(g, ReduceSum, wide, over, hint, scale=share)
    offset = apply(g, Sub, [wide, mean], hint)
    squares = reduce_over(g, Contract, offset, over, hint)
    variance = apply(g, Mul, [squares, scalar_constant(g, share, g.dtype(squares))], hint)
    deviation = apply(g, Sqrt, [variance], hint)
    divisor = apply(g, Add, [deviation, scalar_constant(g, 1e-9, g.dtype(deviation))], hint)
    return [cast(g, apply(g, Div, [offset, divisor], hint), given, hint)]


def _emit_norm(
    g: GraphBuilder,
    operands: Sequence[tuple[str, Access]],
    axes: tuple[tuple[str, int], ...],
    over: Sequence[str],
    spec: Spec,
    centred: bool = True,
) -> str:
    """The first operand, normalised over axes `over`; the others are its factor and its bias."""
    x, read = operands[0]
    op = LayerNorm(
        axes=axes,
        reads=tuple(access for _, access in operands),
        write=read,
        in_types=tuple(g.dtype(t) for t, _ in operands),
        out_type=g.dtype(x),
        over=tuple(over),
        epsilon=float(spec.attribute("epsilon", 1e-5)),
        centred=centred,
    )
    return g.emit(op, [t for t, _ in operands], g.shape(x), spec.outputs[0])


def _group_norm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """InstanceNormalization, and GroupNormalization: rows of the channels of one group."""
    x, scale, bias = spec.inputs
    n, channels, *sizes = g.shape(x)
    groups = channels if spec.op_type == "InstanceNormalization" else int(spec.attribute("num_groups"))
    if groups < 1 or channels % groups:
        raise InvalidModel(f"{channels} channels in {groups} groups")
    each_group = channels // groups
    row = [("c", each_group)] if each_group > 1 else []
    row += [(f"s{i}", size) for i, size in enumerate(sizes)]
    channel = axis("g", each_group).plus(axis("c") if each_group > 1 else Affine())
    # Before opset 21 a group, not a channel, has a scale.
    by_group = g.shape(scale) == (groups,) and spec.op_type == "GroupNormalization" and spec.opset < 21
    factor = (axis("g") if by_group else channel,)
    read = (axis("n"), channel, *(axis(f"s{i}") for i in range(len(sizes))))
    axes = (("n", n), ("g", groups), *row)
    operands = [(x, read), (scale, factor), (bias, factor)]
    return [_emit_norm(g, operands, axes, [a for a, _ in row], spec)]


register("Softmax", _softmax)
register("LogSoftmax", _softmax)
register("LayerNormalization", _layer_norm, since=1)  # before opset 17 it was onnxruntime's
register("MeanVarianceNormalization", _mean_variance, since=9)
register("RMSNormalization", _layer_norm, since=23)
register("InstanceNormalization", _group_norm)
register("GroupNormalization", _group_norm, since=18)
