"""Resize and Upsample: each dimension on its own, by weights that are known when compiling.

Formulas are those of the standard's text and its reference implementation (`op_resize.py` of onnx).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
MOST_TAPS = 3  # taps read for each tap that counts

Coefficients = Callable[[Array, float], Array]  # of ratios in (0, 1] and a scale: one row per ratio


@dataclass(frozen=True)
class Line:
    """One dimension: `size` elements become `count`; `scale` times as many, not always a whole number.

    ends: the part of the input that is seen, in lengths of it (tf_crop_and_resize).
    """

    size: int
    count: int
    scale: float
    ends: tuple[float, float] = (0.0, 1.0)

    def places(self, mode: str, dtype: type[np.floating[Any]]) -> Array:
        """Where in the input each result lies, computed in `dtype`."""
        o, scale, wide = np.arange(self.count, dtype=dtype), dtype(self.scale), self.scale * self.size
        half = (o + dtype(0.5)) / scale - dtype(0.5)
        match mode:
            case "align_corners":
                return o * 0 if wide == 1 else o * (self.size - 1) / (wide - 1)
            case "asymmetric":
                return o / scale
            case "tf_crop_and_resize":
                first, last = self.ends
                steps = o * 0 + 0.5 if wide == 1 else o / (wide - 1)
                return (first + steps * (last - first)) * (self.size - 1)
            case "tf_half_pixel_for_nn":
                return (o + dtype(0.5)) / scale
            case "pytorch_half_pixel":
                return o * 0 - 0.5 if wide == 1 else half
            case "half_pixel":
                return half
            case "half_pixel_symmetric":
                return half + self.size / 2 * (1 - self.count / wide)
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


NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _taps(line: Line, places: Array, of: Coefficients, exclude: bool) -> tuple[Array, Array]:
    """Which elements each result is made of, [count, taps], and their weights; some may lie outside."""
    right: Array = np.ceil(places)  # an element at its own place is the right one of two
    weights = of(places - (right - 1), line.scale)
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
        return [
            Line(shape[d], int(np.floor(shape[d] * s)), float(s)) for d, s in zip(dims, scales, strict=True)
        ]
    if not spec.has(3):
        raise InvalidModel(f"{spec.op_type} with neither scales nor sizes")
    sizes = [int(n) for n in g.known(spec.inputs[3], "Resize's sizes")]
    each = [n / shape[d] for d, n in zip(dims, sizes, strict=True)]
    policy = spec.attribute("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return [Line(shape[d], n, s) for d, n, s in zip(dims, sizes, each, strict=True)]
    one = min(each) if policy == "not_larger" else max(each)
    return [Line(shape[d], int(one * shape[d] + 0.5), one) for d in dims]


def _cropped(g: GraphBuilder, spec: Spec, lines: Sequence[Line]) -> list[Line]:
    """The lines with the region that tf_crop_and_resize sees."""
    if not spec.has(1):
        raise InvalidModel("Resize with tf_crop_and_resize and no region")
    roi = [float(v) for v in g.known(spec.inputs[1], "Resize's region")]
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
        if line.count == line.size and np.isclose(line.scale, 1.0) and line.ends == (0.0, 1.0):
            continue
        # Others round to an element in f32, where 3 / 0.6 is 5; for weights every bit counts.
        places = line.places(mode, np.float64 if of else np.float32)
        if mode == "tf_crop_and_resize":
            outside.append((d, (places < 0) | (places > line.size - 1)))
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
