"""Resize and Upsample: each dimension on its own, by weights that are known when compiling.

Formulas are those of the standard's text and its reference implementation (`op_resize.py` of onnx).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from ..affine import axis, constant
from ..dtypes import F16, F32, F64
from ..graph import InvalidModel
from ..op import Array, identity
from ..rules import GraphBuilder, Spec, register
from .contract import Contract
from .conversion import Where, cast
from .elementwise import apply
from .index import gather_along, take
from .rearrange import expand, mirror, normal_axis, reshape, slice_axis

MOST_PHASES = 16  # results after which a scale's weights repeat; more are gathered one by one
SHORTEST = 1 << 10  # denominators of scales that f32 tells apart, and more
MOST_TAPS = 3  # taps read for each tap that counts

Coefficients = Callable[[Array, float], Array]  # of ratios in (0, 1] and a scale: one row per ratio


@dataclass(frozen=True)
class Places:
    """Where in the input each result lies: `numerators` / `denominator`, exact."""

    numerators: Array
    denominator: int

    def floor(self, up: Fraction = Fraction(0)) -> Array:
        """The greatest whole numbers not past the places, moved by `up`, a multiple of a half."""
        return (2 * self.numerators + int(2 * up) * self.denominator) // (2 * self.denominator)

    def ceil(self, up: Fraction = Fraction(0)) -> Array:
        """The least whole numbers not before the places, moved by `up`."""
        return -Places(-self.numerators, self.denominator).floor(-up)

    def beyond(self, whole: Array) -> Array:
        """How far past whole numbers the places lie, in f64."""
        return np.asarray((self.numerators - whole * self.denominator) / self.denominator, np.float64)


@dataclass(frozen=True)
class Line:
    """One dimension: `size` elements become `count`; `scale` times as many, not always a whole number.

    ends: the part of the input that is seen, in lengths of it (tf_crop_and_resize).
    """

    size: int
    count: int
    scale: Fraction
    ends: tuple[Fraction, Fraction] = (Fraction(0), Fraction(1))

    def places(self, mode: str) -> Places:
        """A place is affine in the result's number; no mode rounds anything."""
        step, start = self._course(mode)
        denominator = lcm(step.denominator, start.denominator)
        by, first = int(step * denominator), int(start * denominator)
        short = 2 * (abs(by) * self.count + abs(first) + self.size * denominator) < 1 << 62
        numbers = np.arange(self.count).astype(np.int64 if short else object)
        return Places(numbers * by + first, denominator)

    def _course(self, mode: str) -> tuple[Fraction, Fraction]:
        """(step, start): where the results lie is start, start + step, ..."""
        half, whole = Fraction(1, 2), self.scale * self.size
        step = 1 / self.scale
        centred = step, half * step - half
        match mode:
            case "align_corners":
                return (Fraction(0) if whole == 1 else (self.size - 1) / (whole - 1)), Fraction(0)
            case "asymmetric":
                return step, Fraction(0)
            case "tf_crop_and_resize":
                first, last = (end * (self.size - 1) for end in self.ends)
                return (
                    (Fraction(0), half * (first + last))
                    if whole == 1
                    else ((last - first) / (whole - 1), first)
                )
            case "tf_half_pixel_for_nn":
                return step, half * step
            case "pytorch_half_pixel":
                return (Fraction(0), Fraction(0)) if whole == 1 else centred
            case "half_pixel":
                return centred
            case "half_pixel_symmetric":
                return step, centred[1] + half * self.size * (1 - self.count / whole)
            case _:
                raise InvalidModel(f"Resize with coordinate_transformation_mode {mode!r}")


# -- weights ------------------------------------------------------------------------------------
def _linear(ratio: Array, scale: float) -> Array:
    return np.stack([1 - ratio, ratio], axis=1)


def _linear_antialias(ratio: Array, scale: float) -> Array:
    scale = min(scale, 1.0)
    start = int(np.floor(-1 / scale) + 1)
    distance = (np.arange(start, 2 - start) - ratio[:, None]) * scale
    weights = np.clip(1 - np.abs(distance), 0, 1)
    return weights / weights.sum(axis=1, keepdims=True)


def _keys(distance: Array, a: float) -> Array:
    """Keys' cubic convolution: 1 at 0, 0 from 2 on."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _cubic(a: float, antialias: bool) -> Coefficients:
    def plain(ratio: Array, scale: float) -> Array:
        return _keys(np.arange(-1, 3) - ratio[:, None], a)

    def smooth(ratio: Array, scale: float) -> Array:
        scale = min(scale, 1.0)
        start = int(np.floor(-2 / scale) + 1)
        weights = _keys((np.arange(start, 2 - start) - ratio[:, None]) * scale, a)
        return weights / weights.sum(axis=1, keepdims=True)

    return smooth if antialias else plain


NEAREST: dict[str, Callable[[Places], Array]] = {
    "round_prefer_floor": lambda x: x.ceil(Fraction(-1, 2)),
    "round_prefer_ceil": lambda x: x.floor(Fraction(1, 2)),
    "floor": Places.floor,
    "ceil": Places.ceil,
}


def _taps(line: Line, places: Places, of: Coefficients, exclude: bool) -> tuple[Array, Array]:
    """Which elements each result is made of, [count, taps], and their weights; some may lie outside."""
    right = places.ceil()  # an element at its own place is the right one of two
    weights = of(places.beyond(right - 1), float(line.scale))
    n = int(weights.shape[1])
    at: Array = np.add.outer(np.asarray(right, np.int64), np.arange(n) - n // 2)
    if exclude:
        weights = np.where((at < 0) | (at >= line.size), 0.0, weights)
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    return at, weights


# -- one dimension --------------------------------------------------------------------------------
def _nearest(g: GraphBuilder, x: str, dim: int, at: Array, hint: str) -> str:
    """Elements repeated equally often, or any chosen ones."""
    shape = g.shape(x)
    times = len(at) // shape[dim]
    if times > 1 and np.array_equal(at, np.repeat(np.arange(shape[dim]), times)):
        wide = reshape(g, x, [*shape[: dim + 1], 1, *shape[dim + 1 :]], hint)
        wide = expand(g, wide, [*shape[: dim + 1], times, *shape[dim + 1 :]], hint)
        return reshape(g, wide, [*shape[:dim], shape[dim] * times, *shape[dim + 1 :]], hint)
    return take(g, x, at, dim, hint)


def _period(at: Array, weights: Array) -> tuple[int, int] | None:
    """After how many results the weights repeat and how far the input went on; None where too late."""
    for phases in range(1, min(MOST_PHASES, len(at) // 2) + 1):
        step = int(at[phases, 0] - at[0, 0])
        same = np.array_equal(at[phases:], at[:-phases] + step)
        if same and np.allclose(weights[phases:], weights[:-phases], rtol=0, atol=1e-9):
            return phases, step
    return None


def _weighted(g: GraphBuilder, x: str, dim: int, at: Array, weights: Array, hint: str) -> str:
    """Sums of weighted elements: a contraction over a window where the weights repeat, else gathered."""
    shape = g.shape(x)
    count, n = at.shape
    found = _period(at, weights)
    if found:
        phases, step = found
        first = int(at[:phases].min())
        reach = int(at[:phases].max()) - first + 1
        if reach <= MOST_TAPS * n:
            return _in_phases(
                g, x, dim, (count, phases, step), at[:phases] - first, weights[:phases], first, hint
            )
    taken = gather_along(g, x, g.constant(np.clip(at, 0, shape[dim] - 1)), dim, hint)
    kept = [(f"d{i}", count if i == dim else m) for i, m in enumerate(shape)]
    names = [a for a, _ in kept]
    op = Contract(
        axes=(*kept, ("t", n)),
        reads=(identity([*names[: dim + 1], "t", *names[dim + 1 :]]), identity([names[dim], "t"])),
        write=identity(names),
        in_types=(g.dtype(x),) * 2,
        out_type=g.dtype(x),
    )
    factor = g.constant(weights.astype(g.dtype(x).numpy))
    return g.emit(op, [taken, factor], [m for _, m in kept], hint)


def _in_phases(
    g: GraphBuilder,
    x: str,
    dim: int,
    places: tuple[int, int, int],
    at: Array,
    weights: Array,
    first: int,
    hint: str,
) -> str:
    """Result `q * phases + p` is the sum of x[q * step + first + t] * w[p, t]; x goes on past its ends.

    places: results, phases, step. at: for each phase its taps, from 0 on.
    """
    count, phases, step = places
    shape, reach = g.shape(x), int(at.max()) + 1
    rounds = -(-count // phases)
    end = (rounds - 1) * step + first + reach
    before, after = max(0, -first), max(0, end - shape[dim])
    if before or after:
        x = mirror(g, x, "edge", dim, (before, after), hint)
    table = np.zeros((phases, reach))
    np.add.at(table, (np.arange(phases)[:, None], at), weights)
    outer = [(f"d{i}", m) for i, m in enumerate(shape) if i != dim]
    read = [axis(f"d{i}") for i in range(len(shape))]
    write = list(read)
    read[dim] = axis("q", step, first + before).plus(axis("t"))
    phase = axis("p") if phases > 1 else constant(0)
    write[dim] = axis("q", phases).plus(phase)
    op = Contract(
        axes=(*outer, ("q", rounds), *((a, phases) for a in phase.axes), ("t", reach)),
        reads=(tuple(read), (phase, axis("t"))),
        write=tuple(write),
        in_types=(g.dtype(x),) * 2,
        out_type=g.dtype(x),
    )
    whole = [rounds * phases if i == dim else m for i, m in enumerate(shape)]
    out = g.emit(op, [x, g.constant(table.astype(g.dtype(x).numpy))], whole, hint)
    return slice_axis(g, out, dim, 0, count, hint)


# -- the operators ----------------------------------------------------------------------------------
def _lines(g: GraphBuilder, spec: Spec, dims: Sequence[int], shape: Sequence[int]) -> list[Line]:
    """Sizes and scales of the dimensions `dims`."""
    scales: Any = spec.attribute("scales")
    at = 1 if spec.opset < 11 else 2
    if scales is None and spec.has(at):
        scales = g.known(spec.inputs[at], f"{spec.op_type}'s scales").tolist()
    if scales:
        if not all(0 < s < float("inf") for s in scales):
            raise InvalidModel(f"{spec.op_type} with scales {list(scales)}, which must be above 0 and finite")
        # Counts are those of the scale as it is given, in f32.
        counts = [int(np.floor(shape[d] * s)) for d, s in zip(dims, scales, strict=True)]
        sizes_of = [(shape[d], n) for d, n in zip(dims, counts, strict=True)]
        return [Line(m, n, _meant(s, n, max(1, m))) for (m, n), s in zip(sizes_of, scales, strict=True)]
    if not spec.has(3):
        raise InvalidModel(f"{spec.op_type} with neither scales nor sizes")
    sizes = [int(n) for n in g.known(spec.inputs[3], "Resize's sizes")]
    if any(n and not shape[d] for d, n in zip(dims, sizes, strict=True)):
        given = g.tensors[spec.inputs[0]]
        raise InvalidModel(f"{spec.op_type} of {given}, which has no elements, to {sizes}")
    if 0 in shape:
        return [Line(shape[d], n, Fraction(1)) for d, n in zip(dims, sizes, strict=True)]
    each = [Fraction(n, shape[d]) for d, n in zip(dims, sizes, strict=True)]
    policy = spec.attribute("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return [Line(shape[d], n, s) for d, n, s in zip(dims, sizes, each, strict=True)]
    one = min(each) if policy == "not_larger" else max(each)
    return [Line(shape[d], int(one * shape[d] + Fraction(1, 2)), one) for d in dims]


def _meant(scale: float, count: int, size: int) -> Fraction:
    """The number that was rounded to f32 when the scale was written: as a rule that of two sizes.

    Else the one with the least denominator, such as 3/5 for 0.6: 3 / 0.6 is then 5.
    """
    given = np.float32(scale)
    for meant in (Fraction(count, size), Fraction(scale).limit_denominator(SHORTEST)):
        if meant > 0 and np.float32(float(meant)) == given:
            return meant
    return Fraction(scale)


def _cropped(g: GraphBuilder, spec: Spec, lines: Sequence[Line]) -> list[Line]:
    """The lines with the region that tf_crop_and_resize sees."""
    if not spec.has(1):
        raise InvalidModel("Resize with tf_crop_and_resize and no region")
    roi = [Fraction(float(v)) for v in g.known(spec.inputs[1], "Resize's region")]
    ends = zip(roi[: len(lines)], roi[len(lines) :], strict=True)
    return [Line(i.size, i.count, i.scale, e) for i, e in zip(lines, ends, strict=True)]


def _resize(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Before opset 11, and Upsample: asymmetric, nearest is the one below."""
    x, hint = spec.inputs[0], spec.outputs[0]
    shape, given = g.shape(x), g.dtype(x)
    named = spec.attribute("axes")
    dims = list(range(len(shape))) if named is None else [normal_axis(int(a), len(shape)) for a in named]
    old = spec.opset < 11 or spec.op_type == "Upsample"
    mode = "asymmetric" if old else spec.attribute("coordinate_transformation_mode", "half_pixel")
    kind = spec.attribute("mode", "nearest")
    lines = _lines(g, spec, dims, shape)
    if mode == "tf_crop_and_resize":
        lines = _cropped(g, spec, lines)
    if 0 in shape:
        made = {d: line.count for d, line in zip(dims, lines, strict=True)}
        return [g.constant(np.zeros([made.get(d, n) for d, n in enumerate(shape)], given.numpy), hint)]
    for line in lines:
        g.folding.need(64 * max(0, line.count), f"{spec.op_type} to {line.count:,} places")
    antialias = bool(spec.attribute("antialias", 0))
    exclude = bool(spec.attribute("exclude_outside", 0))
    cubic = _cubic(float(spec.attribute("cubic_coeff_a", -0.75)), antialias)
    of = {"linear": _linear_antialias if antialias else _linear, "cubic": cubic}.get(kind)
    rounded = NEAREST.get("floor" if old else spec.attribute("nearest_mode", "round_prefer_floor"))
    if (of is None and kind != "nearest") or rounded is None or 0 in (line.count for line in lines):
        raise InvalidModel(f"{spec.op_type} of {g.tensors[x]} in mode {kind!r}")
    if of:
        x = cast(g, x, F64 if given.bytes > F16.bytes and given != F32 else F32, hint)
    outside: list[tuple[int, Array]] = []
    for d, line in zip(dims, lines, strict=True):
        if line.scale == 1 and line.ends == (0, 1):
            continue
        places = line.places(mode)
        if mode == "tf_crop_and_resize":
            last = (line.size - 1) * places.denominator
            outside.append((d, np.asarray((places.numerators < 0) | (places.numerators > last), np.bool_)))
        if of:
            x = _weighted(g, x, d, *_taps(line, places, of, exclude), hint)
        else:
            at = np.clip(rounded(places), 0, line.size - 1).astype(np.int64)
            x = _nearest(g, x, d, at, hint)
    x = cast(g, x, given, hint)
    value = g.constant(np.asarray(spec.attribute("extrapolation_value", 0.0), given.numpy))
    for d, away in outside:
        if away.any():
            mask = g.constant(away.reshape([-1] + [1] * (len(shape) - 1 - d)))
            x = apply(g, Where, [mask, value, x], hint)
    return [x]


register("Resize", _resize, 10, limits="scales, sizes and region known")
register("Upsample", _resize, 7, limits="scales known")
