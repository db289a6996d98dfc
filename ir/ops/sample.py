"""Sampling an image between its elements at run-time places: GridSample and DeformConv.

A place along one dimension becomes the elements around it, its taps, and their weights. The taps are
gathered and then contracted with the weights, one dimension after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..affine import Access, Affine, axis
from ..builder import Arithmetic, Value
from ..dtypes import F32, F64, I64, DType
from ..graph import InvalidModel
from ..op import Array, identity, product
from ..rules import GraphBuilder, Spec, register
from .contract import Contract, product_of
from .conversion import cast
from .elementwise import Add, Elementwise, Mul, apply, scalar_constant
from .index import emit_gather
from .rearrange import pick, reshape
from .window import judge_kernel, per_channel, slides

Padding = Literal["zeros", "border", "reflection"]
CUBIC = -0.75  # Keys' parameter


# -- places and taps --------------------------------------------------------------------------
@dataclass(frozen=True)
class Border:
    """A dimension of `elements` and what is outside it.

    aligned: it ends in the middles of its outermost elements, not at their outer edges.
    """

    elements: int
    aligned: bool = True
    padding: Padding = "zeros"

    @property
    def ends(self) -> tuple[float, float]:
        return (0.0, self.elements - 1.0) if self.aligned else (-0.5, self.elements - 0.5)

    @property
    def folds(self) -> bool:
        """Whether places outside are reflected; at the ends of a single place they cannot be."""
        return self.padding == "reflection" and self.ends[0] < self.ends[1]

    def scalar(self, b: Arithmetic, at: Value) -> Value:
        """`at` moved into the dimension; zeros: left where it is."""
        if self.padding == "zeros":
            return at
        if not self.folds:
            return b.max(b.min(at, b.const(self.elements - 1, at.dtype)), b.const(0, at.dtype))
        low, high = self.ends
        twice, start = b.const(2 * (high - low), at.dtype), b.const(low, at.dtype)
        away = b.rem(b.abs(b.sub(at, start)), twice)
        return b.add(start, b.min(away, b.sub(twice, away)))

    def numpy(self, at: Array) -> Array:
        if self.padding == "zeros":
            return at
        if not self.folds:
            return np.clip(at, 0, self.elements - 1)
        low, high = self.ends
        away = np.fmod(np.abs(at - low), 2 * (high - low))
        return low + np.minimum(away, 2 * (high - low) - away)


@dataclass(frozen=True, kw_only=True)
class Placed(Elementwise):
    """Where along a dimension that goes from -1 to 1 a coordinate lies, counted in elements."""

    border: Border
    nearest: bool

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        one, half = b.const(1, self.out_type), b.const(0.5, self.out_type)
        aligned = self.border.aligned
        at = b.mul(b.add(x[0], one), b.const(self.border.elements - aligned, self.out_type))
        at = b.mul(at if aligned else b.sub(at, one), half)
        return self.border.scalar(b, b.round(at) if self.nearest else at)

    def numpy(self, *x: Array) -> Array:
        aligned = self.border.aligned
        at = (x[0] + 1) * (self.border.elements - aligned)
        at = (at if aligned else at - 1) / 2
        return self.border.numpy(np.rint(at) if self.nearest else at)


@dataclass(frozen=True, kw_only=True)
class TapIndex(Elementwise):
    """The element `tap` steps from the one below a place; operands place and tap."""

    arity = 2
    border: Border

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.cast(self.border.scalar(b, b.add(b.floor(x[0]), x[1])), I64)

    def numpy(self, *x: Array) -> Array:
        at = self.border.numpy(np.floor(x[0]) + x[1])
        return np.nan_to_num(at, nan=0.0, posinf=2.0**62, neginf=-(2.0**62)).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class TapWeight(Elementwise):
    """What the element `tap` steps from the one below a place counts; operands place and tap."""

    arity = 2
    cubic: bool = False

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        one = b.const(1, self.out_type)
        distance = b.abs(b.sub(b.sub(x[0], b.floor(x[0])), x[1]))
        if not self.cubic:
            return b.sub(one, distance)

        def line(slope: float, offset: float, value: Value) -> Value:
            return b.fma(value, b.const(slope, self.out_type), b.const(offset, self.out_type))

        a, d = CUBIC, distance
        near = b.fma(b.mul(line(a + 2, -(a + 3), d), d), d, one)
        far = b.fma(
            b.fma(line(a, -5 * a, d), d, b.const(8 * a, self.out_type)), d, b.const(-4 * a, self.out_type)
        )
        return b.select(b.compare("le", d, one), near, far)

    def numpy(self, *x: Array) -> Array:
        d = np.abs(x[0] - np.floor(x[0]) - x[1])
        if not self.cubic:
            return 1 - d
        a = CUBIC
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        return np.where(d <= 1, near, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)


def computed_in(dtype: DType) -> DType:
    return F64 if dtype == F64 else F32


@dataclass(frozen=True)
class Taps:
    """The elements around places along one dimension.

    index and weight have the result's `axes` and then `inner` ones, which count the taps and are summed
    away. weight "" where there is one tap of weight 1.
    """

    index: str
    weight: str
    axes: tuple[str, ...]
    inner: tuple[str, ...] = ()

    @property
    def read(self) -> Access:
        return identity([*self.axes, *self.inner])

    def sizes(self, g: GraphBuilder) -> list[tuple[str, int]]:
        return list(zip(self.inner, g.shape(self.index)[len(self.axes) :], strict=True))


def taps_of(
    g: GraphBuilder,
    at: tuple[str, Sequence[str]],
    inner: Sequence[str],
    border: Border,
    hint: str,
    cubic: bool = False,
) -> Taps:
    """The taps of interpolation at places.

    at: the places, and their axes. inner: further axes of theirs, and one for the taps.
    """
    place, axes = at
    wide = reshape(g, place, [*g.shape(place), 1], hint)
    steps = np.arange(-1, 3) if cubic else np.arange(2)
    tap = g.constant(steps.astype(g.dtype(place).numpy), hint)
    index = apply(g, TapIndex, [wide, tap], hint, border=border, out_type=I64)
    return Taps(index, apply(g, TapWeight, [wide, tap], hint, cubic=cubic), tuple(axes), tuple(inner))


def sampled(
    g: GraphBuilder,
    of: tuple[str, Sequence[str]],
    first: Sequence[tuple[str, Access]],
    along: Sequence[Taps],
    kept: Sequence[tuple[str, int]],
    hint: str,
) -> str:
    """A tensor at the places, with the axes `kept`: weighted, and summed over the taps.

    of: as `emit_gather` has it. first: coordinates before those of the taps.
    """
    inner = [t.sizes(g) for t in along]
    axes = [*kept, *(a for sizes in inner for a in sizes)]
    at = [*first, *((t.index, t.read) for t in along)]
    out = emit_gather(g, of, at, axes, hint, ours=True)
    for t in reversed(along):
        if t.weight:
            out = _summed(g, out, axes, t, hint)
            axes = [a for a in axes if a[0] not in t.inner]
    return out


def _summed(g: GraphBuilder, x: str, axes: Sequence[tuple[str, int]], taps: Taps, hint: str) -> str:
    """x, which has `axes`, times the taps' weights, summed over the taps."""
    kept = [(a, n) for a, n in axes if a not in taps.inner]
    op = Contract(
        axes=(*kept, *taps.sizes(g)),
        reads=(identity([a for a, _ in axes]), taps.read),
        write=identity([a for a, _ in kept]),
        in_types=(g.dtype(x), g.dtype(taps.weight)),
        out_type=g.dtype(x),
    )
    return g.emit(op, [x, taps.weight], [n for _, n in kept], hint)


# -- GridSample --------------------------------------------------------------------------------
def _grid_sample(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The last dimension of the grid holds a place for each spatial dimension, the last one's first."""
    x, grid, hint = spec.inputs[0], spec.inputs[1], spec.outputs[0]
    (n, channels, *sizes), (count, *spots, rank) = g.shape(x), g.shape(grid)
    if rank != len(sizes) or len(spots) != rank or count != n:
        raise InvalidModel(f"GridSample of {g.tensors[x]} at {g.tensors[grid]}")
    named = spec.attribute("mode", "linear")
    kind = {"bilinear": "linear", "bicubic": "cubic"}.get(named, named)
    padding, given = spec.attribute("padding_mode", "zeros"), g.dtype(x)
    if kind not in ("linear", "nearest", "cubic") or padding not in ("zeros", "border", "reflection"):
        raise InvalidModel(f"GridSample in mode {kind!r} with padding {padding!r}")
    aligned, nearest = bool(spec.attribute("align_corners", 0)), kind == "nearest"
    grid = cast(g, grid, computed_in(g.dtype(grid)))
    x = x if nearest else cast(g, x, computed_in(given))
    axes = ["n", *(f"y{i}" for i in range(rank))]
    along: list[Taps] = []
    for i, size in enumerate(sizes):
        border = Border(size, aligned, padding)
        spot = pick(g, grid, rank + 1, rank - 1 - i, hint)
        # Cubic taps are padded each, as PyTorch and onnxruntime do; onnx's reference moves the place too.
        own = replace(border, padding="zeros") if kind == "cubic" else border
        place = apply(g, Placed, [spot], hint, border=own, nearest=nearest)
        if nearest:
            zero = scalar_constant(g, 0, g.dtype(place))
            index = apply(g, TapIndex, [place, zero], hint, border=border, out_type=I64)
            along.append(Taps(index, "", tuple(axes)))
        else:
            place = cast(g, place, g.dtype(x))
            along.append(taps_of(g, (place, axes), [f"t{i}"], border, hint, kind == "cubic"))
    kept = [("n", n), ("c", channels), *zip(axes[1:], spots, strict=True)]
    dims = ["n", "c", *(f"v{i}" for i in range(rank))]
    return [cast(g, sampled(g, (x, dims), [], along, kept, hint), given, hint)]


# -- DeformConv ---------------------------------------------------------------------------------
def _deform_conv(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """A convolution whose taps each have an offset of their own at every place, and maybe a factor."""
    x, w, offset, hint = *spec.inputs[:3], spec.outputs[0]
    (n, channels, *sizes), (filters, depth, *kernel) = g.shape(x), g.shape(w)
    group, parts = (int(spec.attribute(name, 1)) for name in ("group", "offset_group"))
    judge_kernel(spec, kernel)
    along = slides(spec, sizes, kernel)
    rank, spots = len(along), [s.count for s in along]
    offsets = (n, parts * product(kernel) * rank, *spots)
    if channels != depth * group or filters % group or channels % parts or g.shape(offset) != offsets:
        raise InvalidModel(f"DeformConv of {g.tensors[x]} with {g.tensors[w]} at {g.tensors[offset]}")
    wide, given = computed_in(g.dtype(x)), g.dtype(x)
    x, w, offset = (cast(g, t, wide) for t in (x, w, offset))
    offset = reshape(g, offset, [n, parts, *kernel, rank, *spots], hint)
    taps = [f"k{i}" for i in range(rank)]
    places = [f"y{i}" for i in range(rank)]
    around: list[Taps] = []
    for i, s in enumerate(along):
        step = np.add.outer(np.arange(s.kernel) * s.dilation, np.arange(s.count) * s.stride - s.before)
        shape = [m if j == i else 1 for m_of in (kernel, spots) for j, m in enumerate(m_of)]
        start = g.constant(step.reshape(shape).astype(wide.numpy), hint)
        place = apply(g, Add, [pick(g, offset, 2 + rank, i, hint), start], hint)
        around.append(taps_of(g, (place, ["n", "o", *taps, *places]), [f"t{i}"], Border(s.size), hint))
    image = reshape(g, x, [n, parts, channels // parts, *sizes], hint)
    dims = ["n", "o", "c", *(f"v{i}" for i in range(rank))]
    window = [*zip(taps, kernel, strict=True), *zip(places, spots, strict=True)]
    kept = [("n", n), ("o", parts), ("c", channels // parts), *window]
    seen = sampled(g, (image, dims), [], around, kept, hint)
    if spec.has(4):
        factor = reshape(g, cast(g, spec.inputs[4], wide), [n, parts, 1, *kernel, *spots], hint)
        seen = apply(g, Mul, [seen, factor], hint)
    seen = reshape(g, seen, [n, group, depth, *kernel, *spots], hint)
    each = filters // group
    f = axis("f") if group == 1 or each > 1 else Affine()
    filter_read = axis("g", each).plus(f)
    op = Contract(
        axes=(
            ("n", n),
            ("g", group),
            *((a, each) for a in f.axes),
            *window[rank:],
            ("c", depth),
            *window[:rank],
        ),
        reads=(identity(["n", "g", "c", *taps, *places]), (filter_read, *identity(["c", *taps]))),
        write=(axis("n"), filter_read, *identity(places)),
        in_types=(wide, wide),
        out_type=wide,
    )
    out = g.emit(op, [seen, w], [n, filters, *spots], hint)
    out = per_channel(g, Add, out, cast(g, spec.inputs[3], wide), hint) if spec.has(3) else out
    return [cast(g, out, given, hint)]


# -- a grid -----------------------------------------------------------------------------------
def _affine_grid(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """theta times every place of an image as (x, y, 1) or (x, y, z, 1), from -1 to 1 along each dimension.

    The standard's body for it fails for one image in two dimensions.
    """
    theta, hint = spec.inputs[0], spec.outputs[0]
    size = [int(n) for n in g.known(spec.inputs[1], "AffineGrid's size").reshape(-1)]
    (images, _, *sizes), shape = (size if len(size) > 1 else (0, 0)), g.shape(theta)
    if len(size) not in (4, 5) or shape != (images, len(sizes), len(sizes) + 1):
        raise InvalidModel(f"AffineGrid of {g.tensors[theta]} for an image of {size}")
    aligned = bool(spec.attribute("align_corners", 0))
    along = [np.linspace(-1, 1, n) if aligned else (2 * np.arange(n) + 1) / n - 1 for n in sizes]
    # the last dimension comes first in a place, as x does
    places = np.stack([*reversed(np.meshgrid(*along, indexing="ij")), np.ones(sizes)], -1)
    base = g.constant(places.reshape(-1, len(sizes) + 1).astype(g.dtype(theta).numpy), hint)
    grid = product_of(g, (base, ["m", "k"]), (theta, ["n", "k"]), hint)
    return [reshape(g, grid, (images, *sizes, len(sizes)), hint)]


register("GridSample", _grid_sample, 16)
register("DeformConv", _deform_conv, 19)
register("AffineGrid", _affine_grid, 20, limits="size known")
