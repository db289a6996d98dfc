"""RoiAlign: an image seen through the bins of regions that are known at run time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..affine import Access
from ..builder import Arithmetic, Value
from ..dtypes import I64
from ..graph import Unsupported
from ..op import Array, Bound, identity
from ..rules import GraphBuilder, Spec, judge_size, register
from .bounds import within
from .contract import Contract
from .conversion import Where, cast, rounded_once
from .elementwise import Add, Ceil, Clip, Div, Elementwise, Floor, Max, Mul, Sub, apply, scalar_constant
from .logic import Equal, Less
from .rearrange import pick, reshape
from .reduce import ReduceMax, reduce_over
from .sample import Border, Taps, computed_in, sampled, taps_of
from .scatter import emit_updates


@dataclass(frozen=True, kw_only=True)
class InReach(Elementwise):
    """The weight `x[0]` of a sample at place `x[1]`, 0 further than one element outside."""

    arity = 2
    border: Border

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        low, high = b.const(-1, self.out_type), b.const(self.border.elements, self.out_type)
        inside = b.bit_and(b.compare("ge", x[1], low), b.compare("le", x[1], high))
        return b.select(inside, x[0], b.const(0, self.out_type))

    def numpy(self, *x: Array) -> Array:
        return np.where((x[1] >= -1) & (x[1] <= self.border.elements), x[0], np.zeros((), x[0].dtype))


def _roi_align(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Samples in each bin of each region; their mean, or the greatest weighted element around them."""
    x, rois, batch = spec.inputs
    hint, given, mode = spec.outputs[0], g.dtype(x), spec.attribute("mode", "avg")
    wide = computed_in(given)
    x, rois = cast(g, x, wide), cast(g, rois, wide)
    images = g.shape(x)[0]
    batch = within(g, batch, Bound(0, 0, images, "batch index", 0, images), hint)
    bins = [int(spec.attribute(f"output_{name}", 1)) for name in ("height", "width")]
    samples = int(spec.attribute("sampling_ratio", 0))
    judge_size([g.shape(rois)[0], g.shape(x)[1], *(n * max(1, samples) for n in bins)], wide)
    if samples < 1:
        if mode != "avg":
            raise Unsupported("RoiAlign in mode max with sampling_ratio 0: as many samples as data say")
        return [cast(g, _by_matrices(g, spec, x, rois, batch, bins), given, hint)]
    along = [_bins(g, spec, rois, i, (count, samples), g.shape(x)[2 + i]) for i, count in enumerate(bins)]
    kept = [("r", g.shape(rois)[0]), ("c", g.shape(x)[1]), ("y0", bins[0]), ("y1", bins[1])]
    dims, first = ["v0", "c", "v1", "v2"], [(batch, identity(["r"]))]
    if mode == "avg":
        return [cast(g, sampled(g, (x, dims), first, along, kept, hint), given, hint)]
    # [r, c, y0, y1, s0, t0, s1, t1], each element with its weight
    unweighted = [Taps(t.index, "", t.axes, t.inner) for t in along]
    out = sampled(g, (x, dims), first, unweighted, kept, hint)
    for i, t in enumerate(along):
        r, y, s, n = g.shape(t.weight)
        shape = [r, 1, *((y, 1), (1, y))[i], *((s, n, 1, 1), (1, 1, s, n))[i]]
        out = apply(g, Mul, [out, reshape(g, t.weight, shape, hint)], hint)
    return [cast(g, reduce_over(g, ReduceMax, out, range(4, 8), hint, keep=False), given, hint)]


def _extent(g: GraphBuilder, spec: Spec, rois: str, dim: int) -> tuple[str, str]:
    """Where each region starts along height (dim 0) or width, and how long it is, in elements."""
    hint, dtype = spec.outputs[0], g.dtype(rois)
    half = spec.opset >= 16 and spec.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    scale = scalar_constant(g, spec.attribute("spatial_scale", 1.0), dtype)
    offset = scalar_constant(g, 0.5 if half else 0.0, dtype)
    ends = [pick(g, rois, 1, 1 - dim + side, hint) for side in (0, 2)]
    first, last = (apply(g, Sub, [apply(g, Mul, [e, scale], hint), offset], hint) for e in ends)
    length = apply(g, Sub, [last, first], hint)
    if not half:
        length = apply(g, Max, [length, scalar_constant(g, 1, dtype)], hint)
    return first, length


def _around(
    g: GraphBuilder, place: str, axes: Sequence[str], inner: Sequence[str], size: int, hint: str
) -> Taps:
    """The taps of samples at the places; none of one further than an element outside."""
    border = Border(size, padding="border")
    inside = apply(g, Clip, [place], hint, low=0.0, high=size - 1.0)
    taps = taps_of(g, (inside, axes), inner, border, hint)
    place = reshape(g, place, [*g.shape(place), 1], hint)
    return replace(taps, weight=apply(g, InReach, [taps.weight, place], hint, border=border))


def _bins(g: GraphBuilder, spec: Spec, rois: str, dim: int, counts: tuple[int, int], size: int) -> Taps:
    """The taps of the samples in the bins along height (dim 0) or width, for each region.

    counts: of bins, and of samples in each. Weights of a mean have the share of a sample in them.
    """
    hint, dtype, (count, samples) = spec.outputs[0], g.dtype(rois), counts
    steps = g.folding.line(count)[:, None] + (g.folding.line(samples) + 0.5) / samples
    part = g.constant((steps / count).astype(dtype.numpy), hint)
    first, length = (reshape(g, t, [g.shape(rois)[0], 1, 1], hint) for t in _extent(g, spec, rois, dim))
    place = apply(g, Add, [first, apply(g, Mul, [length, part], hint)], hint)
    taps = _around(g, place, ["r", f"y{dim}"], [f"s{dim}", f"t{dim}"], size, hint)
    if spec.attribute("mode", "avg") != "avg":
        return taps
    share = scalar_constant(g, 1 / samples, dtype)
    return replace(taps, weight=apply(g, Mul, [taps.weight, share], hint))


# -- as many samples as a bin is long ------------------------------------------------------------
def _by_matrices(g: GraphBuilder, spec: Spec, x: str, rois: str, batch: str, bins: Sequence[int]) -> str:
    """Means of samples that are counted at run time: products with what each element counts in a bin."""
    hint, (images, channels, *sizes) = spec.outputs[0], g.shape(x)
    regions = g.shape(rois)[0]
    rows, columns = (
        _counted(g, spec, rois, i, n, size) for i, (n, size) in enumerate(zip(bins, sizes, strict=True))
    )
    own = reshape(g, cast(g, batch, I64), [regions, 1, 1, 1], hint)
    own = apply(g, Equal, [own, g.constant(g.folding.line(images).reshape(-1, 1))], hint)
    rows = reshape(g, rows, [regions, bins[0], 1, sizes[0]], hint)
    rows = apply(g, Where, [own, rows, scalar_constant(g, 0, g.dtype(x))], hint)

    def product(
        a: str, b: str, reads: tuple[Access, Access], kept: dict[str, int], over: dict[str, int]
    ) -> str:
        op = Contract(
            axes=(*kept.items(), *over.items()),
            reads=reads,
            write=identity(list(kept)),
            in_types=(g.dtype(a), g.dtype(b)),
            out_type=g.dtype(a),
        )
        return g.emit(op, [a, b], list(kept.values()), hint)

    kept = {"r": regions, "c": channels, "y0": bins[0]}
    reads = identity(["r", "y0", "n", "h"]), identity(["n", "c", "h", "w"])
    seen = product(rows, x, reads, {**kept, "w": sizes[1]}, {"n": images, "h": sizes[0]})
    reads = identity(["r", "c", "y0", "w"]), identity(["r", "y1", "w"])
    return product(seen, columns, reads, {**kept, "y1": bins[1]}, {"w": sizes[1]})


def _counted(g: GraphBuilder, spec: Spec, rois: str, dim: int, count: int, size: int) -> str:
    """[regions, bins, size], what each element counts in the mean of each bin's samples.

    A bin of length b has ceil(b) samples, at least half an element apart if there are two: no more
    than 2 * size + 3 of them reach the image, and these with one more at either end are added up.
    """
    hint, dtype, regions = spec.outputs[0], g.dtype(rois), g.shape(rois)[0]

    def number(value: float) -> str:
        return scalar_constant(g, value, dtype)

    def row(values: Array) -> str:
        return g.constant(values.astype(dtype.numpy), hint)

    first, length = (reshape(g, t, [regions, 1, 1], hint) for t in _extent(g, spec, rois, dim))
    bin_size = apply(g, Mul, [length, number(1 / count)], hint)
    samples = apply(g, Ceil, [bin_size], hint)
    divisor = apply(g, Max, [samples, number(1)], hint)
    apart = apply(g, Div, [bin_size, divisor], hint)
    start = apply(g, Add, [first, apply(g, Mul, [bin_size, row(g.folding.line(count)[:, None])], hint)], hint)
    before = apply(g, Div, [apply(g, Sub, [number(-1.5), start], hint), apart], hint)
    skipped = apply(g, Max, [apply(g, Floor, [before], hint), number(0)], hint)
    at = apply(g, Add, [skipped, row(g.folding.line(2 * size + 5))], hint)
    place = apply(g, Mul, [apply(g, Add, [at, number(0.5)], hint), apart], hint)
    place = apply(g, Add, [start, place], hint)
    taps = _around(g, place, ["r", "p"], ["s", "t"], size, hint)
    flat = [regions, count, (2 * size + 5) * 2]
    there = reshape(g, apply(g, Less, [at, samples], hint), [*g.shape(at), 1], hint)
    weight = apply(g, Where, [there, taps.weight, number(0)], hint)
    weight = apply(g, Div, [reshape(g, weight, flat, hint), divisor], hint)
    index = reshape(g, taps.index, flat, hint)
    read = identity(["r", "p", "u"])
    kept = [("r", regions), ("p", count), ("e", size)]
    return emit_updates(
        g, (number(0), ()), (weight, read), [(index, read)], kept, ["e"], [("u", flat[2])], hint, "add"
    )


register("RoiAlign", rounded_once(_roi_align), 10, limits="mode max with sampling_ratio above 0")
