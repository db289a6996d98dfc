"""Reductions: one result element from many elements of one operand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..affine import access_axes, axis, constant
from ..builder import FRESH, RESULT, Carried, Combine, KernelBuilder, Value
from ..dtypes import F64, I64, DType
from ..op import Array, Extents, Op, Work, assemble, product
from ..rules import GraphBuilder, Rule, Spec, register
from .activation import Exp, Log
from .contract import Contract
from .conversion import cast, emit_rounded
from .elementwise import Abs, Add, Clip, Div, Elementwise, Sqrt, Sub, apply, scalar_constant
from .loops import (
    LONG,
    WIDE,
    Index,
    accumulator,
    at_lane,
    channels_last,
    cheapest_lane_axis,
    combine,
    deposit,
    each,
    fold,
    lane_starts,
    longest,
    neutral,
    untouched,
    view,
)
from .rearrange import normal_axis

VECTORS = 4  # accumulators side by side, to hide the latency of one


@dataclass(frozen=True, kw_only=True)
class Reduce(Op):
    """The family's base. Axes absent from the result are reduced; `combine` says how.

    The operand may be read through any access: a pooling window is a reduction too.
    """

    collapsible = True
    ufunc: ClassVar[np.ufunc]

    def names_axis(self, axis: str) -> bool:
        return False

    def neutral_in(self, operand: int) -> float | None:
        return neutral(self.kind, self.in_types[operand])

    @property
    def kind(self) -> Combine:
        """`combine`, which every member of the family has."""
        assert self.combine is not None
        return self.combine

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.reduced)

    def finish(self, k: KernelBuilder, value: Value) -> Value:
        """What becomes of an accumulator before it is stored; must distribute over `combine`."""
        return value

    def reference(self, *operands: Array) -> Array:
        seen = view(self, 0, operands[0])
        over = tuple(i for i, (a, _) in enumerate(self.axes) if a in self.reduced)
        start = neutral(self.kind, accumulator(self.in_types[0]))
        with np.errstate(all="ignore"):
            out = np.asarray(self.ufunc.reduce(seen, axis=over, dtype=seen.dtype, initial=start))
        return assemble(out, self.write, [(a, n) for a, n in self.axes if a not in self.reduced])

    def body(self, k: KernelBuilder) -> None:
        kept = [a for a in access_axes(self.write) if a != k.lane_axis]
        if k.lane_axis in self.reduced:
            if k.part:
                raise ValueError(f"{self.name} across lanes of {k.lane_axis!r} in chunks of {k.part!r}")
            each(k, kept, {}, lambda at: self._across(k, at))
            return

        def columns(at: Index) -> None:
            def lanes(i: Value, carried: Carried) -> Carried:
                places = [at_lane(k, at, start) for start in lane_starts(k, i)]
                if k.part:
                    totals = self._in_chunks(k, places)
                    for value, place in zip(totals, places, strict=True):
                        k.store_lanes(value, place)
                else:
                    done = list(zip(self._in_order(k, places, {}), places, strict=True))
                    deposit(k, self.kind, self.out_type, done, lanes=True)
                return carried

            k.lane_loop(lanes, vectors=() if k.small else (VECTORS,))

        each(k, kept, {}, columns)

    def _in_order(
        self, k: KernelBuilder, places: Sequence[Index], within: Mapping[str, tuple[Value, Value]]
    ) -> Carried:
        """One vector of results at each of `places`."""

        def step(inner: Index, sums: Carried) -> Carried:
            return [self._join(k, s, {**p, **inner}, 0) for s, p in zip(sums, places, strict=True)]

        sums = fold(k, self.reduced, {}, [self._start(k)] * len(places), step, within)
        return [k.cast(self.finish(k, s), self.out_type) for s in sums]

    def _in_chunks(self, k: KernelBuilder, places: Sequence[Index]) -> Carried:
        """Each chunk of the axis `part` reduced on its own and then joined."""

        def chunk(first: Value, length: Value, totals: Carried) -> Carried:
            new = self._in_order(k, places, {k.part: (first, length)})
            return [combine(k, self.kind, t, v) for t, v in zip(totals, new, strict=True)]

        start = k.splat(k.const(untouched(self.kind, self.out_type), self.out_type))
        totals = k.either(
            k.in_mode(FRESH),
            lambda: [start] * len(places),
            lambda: [k.load_lanes(RESULT, at) for at in places],
        )
        return k.chunks(chunk, totals)

    def _across(self, k: KernelBuilder, at: Index) -> None:
        """One result element, vectors running along a reduced axis."""
        rest = [a for a in self.reduced if a != k.lane_axis]
        other = neutral(self.kind, self.in_types[0])

        def row(index: Index, carried: Carried) -> Carried:
            def lanes(i: Value, sums: Carried) -> Carried:
                here = [at_lane(k, index, start) for start in lane_starts(k, i)]
                joined = [self._join(k, s, p, other) for s, p in zip(sums, here)]
                return [*joined, *sums[len(here) :]]

            return k.lane_loop(lanes, carried, (VECTORS,))

        total, *others = fold(k, rest, at, [self._start(k)] * VECTORS, row)
        for s in others:
            total = combine(k, self.kind, total, s)
        value = self.finish(k, k.reduce_lanes(self.kind, total))
        deposit(k, self.kind, self.out_type, [(value, at)], lanes=False)

    def _start(self, k: KernelBuilder) -> Value:
        wide = accumulator(self.in_types[0])
        return k.splat(k.const(neutral(self.kind, wide), wide))

    def _join(self, k: KernelBuilder, total: Value, at: Index, other: float | int) -> Value:
        x = k.load_lanes(0, at, other=other)
        return combine(k, self.kind, total, k.cast(x, accumulator(self.in_types[0])))

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """Vector ops run along the longest axis, kept or reduced."""
        n = product([extents[a] for a, _ in self.axes])
        return (Work("fma", n // longest([extents[a] for a, _ in self.axes]), n),)

    @property
    def _inner(self) -> tuple[str, ...]:
        """The axes of the operand's innermost dimension with more than one element."""
        wide = [e.axes for e in self.reads[0] if any(self.size[a] > 1 for a in e.axes)]
        return wide[-1] if wide else ()

    @property
    def across(self) -> str:
        """The operand's innermost dimension, where all of it is reduced and it is long enough."""
        inner = self._inner
        if not inner or not set(inner) <= set(self.reduced) or channels_last(self, self.reduced):
            return ""
        best = max(inner, key=lambda a: self.size[a])
        most = max((self.size[a] for a in access_axes(self.write)), default=1)
        return best if self.size[best] >= LONG or most < WIDE else ""

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return self.across or cheapest_lane_axis(self, extents)


@dataclass(frozen=True, kw_only=True)
class ReduceSum(Reduce):
    """The sum, times `scale` (1/n for a mean: partial sums still join by adding).

    Where the operand's innermost dimension is kept, floats are added one after the other in the order
    of the index, as NumPy and onnxruntime do: models subtract such sums (a variance as
    E[x^2] - E[x]^2), and what is left then is the rounding, which another order would change.
    """

    combine = "add"
    ufunc = np.add
    neutral_in = Reduce.neutral_in
    scale: float = 1.0

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        return self.scale == 1

    @property
    def whole(self) -> tuple[str, ...]:
        in_order = self.in_types[0].is_float and self._inner and not set(self._inner) & set(self.reduced)
        return self.reduced if in_order else ()

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.scale)

    def reference(self, *operands: Array) -> Array:
        out = super().reference(*operands)
        return out if self.scale == 1 else out * out.dtype.type(self.scale)

    def finish(self, k: KernelBuilder, value: Value) -> Value:
        return value if self.scale == 1 else k.mul(value, k.const(self.scale, value.dtype))

    def work(self, extents: Extents) -> tuple[Work, ...]:
        if self.scale == 1:
            return super().work(extents)
        kept = [extents[a] for a in access_axes(self.write)]
        n = product(kept)
        return (*super().work(extents), Work("fma", n // longest(kept), n))


class ReduceProd(Reduce):
    combine = "mul"
    ufunc = np.multiply

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        return int(np.count_nonzero(first[0] != last[0])) <= 1


class _Extreme(Reduce):
    """The greatest or the least. A zero is +0: which of two zeros is met first must not show."""

    exact = True

    def finish(self, k: KernelBuilder, value: Value) -> Value:
        return k.add(value, k.const(0, value.dtype)) if value.dtype.is_float else value


class ReduceMax(_Extreme):
    combine = "max"
    ufunc = np.maximum


class ReduceMin(_Extreme):
    combine = "min"
    ufunc = np.minimum


REDUCTIONS: dict[Combine, type[Reduce]] = {
    "add": ReduceSum,
    "mul": ReduceProd,
    "max": ReduceMax,
    "min": ReduceMin,
}
"""The reduction that joins partial results of an op with this `combine`."""


# -- building ---------------------------------------------------------------------
def reduce_over(
    g: GraphBuilder,
    kind: type[Op],
    x: str,
    over: Sequence[int],
    hint: str,
    keep: bool = True,
    out_type: DType | None = None,
    **fields: Any,
) -> str:
    """Adds a reduction of `x` over the dimensions `over`; they stay with size 1 if `keep`.

    A `Contract` multiplies x with itself: a sum of squares. out_type: by default that of x, or a wider one.
    """
    shape = g.shape(x)
    axes = [(f"d{i}", n) for i, n in enumerate(shape)]
    kept = [i for i in range(len(shape)) if i not in over]
    read = tuple(axis(a) for a, _ in axes)
    reads = 2 if kind is Contract else 1
    op = kind(
        axes=tuple(axes[i] for i in [*kept, *over]),
        reads=(read,) * reads,
        write=tuple(constant(0) if i in over else read[i] for i in range(len(shape)) if keep or i in kept),
        in_types=(g.dtype(x),) * reads,
        out_type=out_type or g.dtype(x),
        **fields,
    )
    sizes = [1 if i in over else n for i, n in enumerate(shape) if keep or i in kept]
    return emit_rounded(g, op, (x,) * reads, sizes, hint)


def dimensions(g: GraphBuilder, spec: Spec) -> list[int]:
    """The dimensions that an ONNX Reduce* names, by attribute or by input, rising."""
    rank = len(g.shape(spec.inputs[0]))
    named = spec.attribute("axes")
    if named is None and spec.has(1):
        named = g.known(spec.inputs[1], "axes").ravel().tolist()
    if named is None or len(named) == 0:
        return [] if spec.attribute("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({normal_axis(int(a), rank) for a in named})


def _mean(g: GraphBuilder, x: str, over: Sequence[int], hint: str, keep: bool) -> str:
    n = int(np.prod([g.shape(x)[i] for i in over], dtype=np.int64))
    if g.dtype(x).is_float:
        return reduce_over(g, ReduceSum, x, over, hint, keep, scale=1 / n if n else float("inf"))
    given = g.dtype(x)
    wide = I64 if given.bytes < I64.bytes else given  # a sum that the type cannot hold has a mean that it can
    total = reduce_over(g, ReduceSum, cast(g, x, wide, hint), over, hint, keep)
    return cast(g, apply(g, Div, [total, scalar_constant(g, n, wide)], hint), given, hint)


def _log_sum_exp(g: GraphBuilder, x: str, over: Sequence[int], hint: str, keep: bool) -> str:
    """max + log(sum(exp(x - max))), with max kept finite so that no inf - inf arises."""
    limit = g.dtype(x).limits[1]
    top = apply(g, Clip, [reduce_over(g, ReduceMax, x, over, hint)], hint, low=-limit, high=limit)
    powers = apply(g, Exp, [apply(g, Sub, [x, top], hint)], hint)
    total = apply(g, Log, [reduce_over(g, ReduceSum, powers, over, hint, keep)], hint)
    if not keep:
        top = reduce_over(g, ReduceMax, top, over, hint, keep=False)
    return apply(g, Add, [total, top], hint)


def _rule(
    kind: type[Op], before: type[Elementwise] | None = None, after: type[Elementwise] | None = None
) -> Rule:
    def build(g: GraphBuilder, spec: Spec) -> Sequence[str]:
        hint, x = spec.outputs[0], spec.inputs[0]
        if before:
            x = apply(g, before, [x], hint)
        keep = bool(spec.attribute("keepdims", 1))
        if after is None:
            return [reduce_over(g, kind, x, dimensions(g, spec), hint, keep)]
        given, x = g.dtype(x), _real(g, x, hint)
        out = reduce_over(g, kind, x, dimensions(g, spec), hint, keep, out_type=g.dtype(x).wide)
        return [cast(g, apply(g, after, [out], hint), given, hint)]

    return build


def _real(g: GraphBuilder, x: str, hint: str) -> str:
    """Integers as f64: of their norms and logarithms the standard wants what is before the point."""
    return x if g.dtype(x).is_float else cast(g, x, F64, hint)


def _mean_rule(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    keep = bool(spec.attribute("keepdims", 1))
    return [_mean(g, spec.inputs[0], dimensions(g, spec), spec.outputs[0], keep)]


def _log_sum_exp_rule(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, hint, keep = spec.inputs[0], spec.outputs[0], bool(spec.attribute("keepdims", 1))
    real = _real(g, x, hint)
    out = _log_sum_exp(g, cast(g, real, g.dtype(real).wide, hint), dimensions(g, spec), hint, keep)
    return [cast(g, out, g.dtype(x), hint)]


def _global_max(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    (x,) = spec.inputs
    return [reduce_over(g, ReduceMax, x, range(2, len(g.shape(x))), spec.outputs[0])]


def _global_average(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    (x,) = spec.inputs
    return [_mean(g, x, range(2, len(g.shape(x))), spec.outputs[0], True)]


register("ReduceSum", _rule(ReduceSum), limits="axes known")
register("ReduceProd", _rule(ReduceProd), limits="axes known")
register("ReduceMax", _rule(ReduceMax), limits="axes known")
register("ReduceMin", _rule(ReduceMin), limits="axes known")
register("ReduceL1", _rule(ReduceSum, before=Abs), limits="axes known")
register("ReduceL2", _rule(Contract, after=Sqrt), limits="axes known")
register("ReduceSumSquare", _rule(Contract), limits="axes known")
register("ReduceLogSum", _rule(ReduceSum, after=Log), limits="axes known")
register("ReduceMean", _mean_rule, limits="axes known")
register("ReduceLogSumExp", _log_sum_exp_rule, limits="axes known")
register("GlobalMaxPool", _global_max)
register("GlobalAveragePool", _global_average)
