"""Pooling, and norms over windows and rows: a reduction of what a window sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..affine import axis
from ..dtypes import DType
from ..folding import judge_made
from ..graph import InvalidModel
from ..op import Array, identity, product
from ..rules import GraphBuilder, Spec, register
from .contract import Contract
from .conversion import Pow, Where, cast, emit_rounded, rounded_once
from .elementwise import Abs, Add, Div, Mod, Mul, Sqrt, apply, scalar_constant
from .logic import Equal
from .loops import neutral
from .order import FirstMatch, emit_match
from .rearrange import normal_axis
from .reduce import ReduceMax, ReduceSum, reduce_over
from .window import Slide, place_axes, slides, tap_axes, window_read


class MaxPool(ReduceMax):
    """The greatest element that a window sees."""


class AveragePool(ReduceSum):
    """The sum of what a window sees, times `scale`."""


def _pool(
    g: GraphBuilder,
    x: str,
    kind: type[MaxPool] | type[AveragePool],
    along: Sequence[Slide],
    scale: float,
    hint: str,
) -> str:
    """A sum, scaled, is not rounded yet: see `DType.wide`."""
    n, channels, *_ = g.shape(x)
    extra = {"scale": scale} if kind is AveragePool else {}
    op = kind(
        axes=(("n", n), ("c", channels), *place_axes(along), *tap_axes(along)),
        reads=((axis("n"), axis("c"), *window_read(along)),),
        write=(axis("n"), axis("c"), *(axis(a) for a, _ in place_axes(along))),
        in_types=(g.dtype(x),),
        out_type=g.dtype(x).wide if kind is AveragePool else g.dtype(x),
        fill=_outside(g.dtype(x)) if kind is MaxPool else 0.0,
        **extra,
    )
    return emit_rounded(g, op, (x,), (n, channels, *(s.count for s in along)), hint)


def _outside(dtype: DType) -> float:
    """What a maximum sees outside the image."""
    return float(neutral("max", dtype))


def _max_pool(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x = spec.inputs[0]
    along = slides(spec, g.shape(x)[2:], spec.attribute("kernel_shape"))
    best = _pool(g, x, MaxPool, along, 1.0, spec.outputs[0])
    if len(spec.outputs) < 2 or not spec.outputs[1]:
        return [best]
    return [best, _places_of(g, spec, x, best, along)]


def _places_of(g: GraphBuilder, spec: Spec, x: str, best: str, along: Sequence[Slide]) -> str:
    """Where in the whole tensor each maximum lies; storage_order 1 counts a plane by columns."""
    hint = spec.outputs[1]
    n, channels, *sizes = g.shape(x)
    numbers = g.folding.line(product(sizes)).astype(np.int32).reshape(sizes)
    reach = [(s.count - 1) * s.stride + (s.kernel - 1) * s.dilation + 1 for s in along]
    around = [(s.before, max(0, r - s.before - s.size)) for s, r in zip(along, reach, strict=True)]
    table = np.pad(numbers, around, constant_values=np.iinfo(np.int32).max)
    kept = ["n", "c", *(a for a, _ in place_axes(along))]
    at = emit_match(
        g,
        FirstMatch,
        (("n", n), ("c", channels), *place_axes(along), *tap_axes(along)),
        [
            (x, (axis("n"), axis("c"), *window_read(along))),
            (best, identity(kept)),
            (g.constant(table, hint), window_read([replace(s, before=0) for s in along])),
        ],
        identity(kept),
        g.shape(best),
        hint,
        fill=_outside(g.dtype(x)),
    )
    if spec.attribute("storage_order", 0):
        at = _by_columns(g, at, sizes, hint)
    before = product(sizes) * g.folding.line(n * channels).reshape([n, channels] + [1] * len(sizes))
    return apply(g, Add, [at, g.constant(before, hint)], hint)


def _by_columns(g: GraphBuilder, at: str, sizes: Sequence[int], hint: str) -> str:
    """Row-major positions in an array of `sizes` as those in which the first dimension runs fastest."""
    total = g.constant(np.zeros((), np.int64))
    for d in reversed(range(len(sizes))):
        size, step = (scalar_constant(g, v, g.dtype(at)) for v in (sizes[d], product(sizes[:d])))
        place = apply(g, Mod, [at, size], hint)
        at = apply(g, Div, [at, size], hint)
        total = apply(g, Add, [total, apply(g, Mul, [place, step], hint)], hint)
    return total


def _average_pool(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, hint = spec.inputs[0], spec.outputs[0]
    along = slides(spec, g.shape(x)[2:], spec.attribute("kernel_shape"))
    counted = bool(spec.attribute("count_include_pad", 0))
    area: Array = np.ones((), np.float64)
    judge_made(8 * product([s.count for s in along]), "how many elements each window holds")
    for s in along:
        judge_made(8 * s.count * s.kernel, "the places of windows")
        area = area[..., None] * s.taps(counted)
    scale = 1 / float(area.flat[0])
    if (area == area.flat[0]).all():
        return [cast(g, _pool(g, x, AveragePool, along, scale, hint), g.dtype(x), hint)]
    # Windows at the border average over fewer elements.
    total = _pool(g, x, AveragePool, along, 1 / float(area.max()), hint)
    rest = g.constant((area.max() / area)[None, None].astype(g.dtype(total).numpy), hint)
    return [cast(g, apply(g, Mul, [total, rest], hint), g.dtype(x), hint)]


# -- norms ----------------------------------------------------------------------------------------
def _power(g: GraphBuilder, x: str, p: float, hint: str) -> str:
    """|x| ** p."""
    if p == 2:
        return apply(g, Mul, [x, x], hint)
    size = apply(g, Abs, [x], hint)
    return size if p == 1 else apply(g, Pow, [size, scalar_constant(g, p, g.dtype(x))], hint)


def _root(g: GraphBuilder, x: str, p: float, hint: str) -> str:
    """x ** (1 / p) of what is not negative."""
    if p == 2:
        return apply(g, Sqrt, [x], hint)
    return x if p == 1 else apply(g, Pow, [x, scalar_constant(g, 1 / p, g.dtype(x))], hint)


def _norm(g: GraphBuilder, x: str, over: Sequence[int], p: float, hint: str) -> str:
    """The p-norm over some dimensions, which stay with size 1."""
    if p == 2:
        total = reduce_over(g, Contract, x, over, hint)
    else:
        total = reduce_over(g, ReduceSum, _power(g, x, p, hint), over, hint)
    return _root(g, total, p, hint)


def _lp_pool(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, hint, p = spec.inputs[0], spec.outputs[0], float(spec.attribute("p", 2))
    along = slides(spec, g.shape(x)[2:], spec.attribute("kernel_shape"))
    return [_root(g, _pool(g, _power(g, x, p, hint), AveragePool, along, 1.0, hint), p, hint)]


def _global_lp_pool(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, p = spec.inputs[0], float(spec.attribute("p", 2))
    return [_norm(g, x, range(2, len(g.shape(x))), p, spec.outputs[0])]


def _lp_normalization(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """A row over its norm; a row of zeros stays."""
    x, hint, p = spec.inputs[0], spec.outputs[0], float(spec.attribute("p", 2))
    norm = _norm(g, x, [normal_axis(spec.attribute("axis", -1), len(g.shape(x)))], p, hint)
    zero = scalar_constant(g, 0, g.dtype(x))
    none = apply(g, Equal, [norm, zero], hint)
    return [apply(g, Where, [none, zero, apply(g, Div, [x, norm], hint)], hint)]


def _local_response(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """LRN: x / (bias + alpha / size * the squares of `size` channels around) ** beta."""
    x, hint, size = spec.inputs[0], spec.outputs[0], int(spec.attribute("size"))
    shape, dtype = g.shape(x), g.dtype(x)
    if len(shape) < 2 or size < 1:
        raise InvalidModel(f"LRN of {g.tensors[x]} over {size} channels")
    names = [f"d{i}" for i in range(len(shape))]
    near = (*identity(names[:1]), axis("d1", 1, -((size - 1) // 2)).plus(axis("r")), *identity(names[2:]))
    op = ReduceSum(
        axes=(*zip(names, shape, strict=True), ("r", size)),
        reads=(near,),
        write=identity(names),
        in_types=(dtype,),
        out_type=dtype,
        scale=float(spec.attribute("alpha", 1e-4)) / size,
    )
    total = emit_rounded(g, op, [apply(g, Mul, [x, x], hint)], shape, hint)
    total = apply(g, Add, [total, scalar_constant(g, spec.attribute("bias", 1.0), dtype)], hint)
    beta = scalar_constant(g, spec.attribute("beta", 0.75), dtype)
    return [apply(g, Div, [x, apply(g, Pow, [total, beta], hint)], hint)]


register("MaxPool", _max_pool)
register("AveragePool", _average_pool)
register("LpPool", rounded_once(_lp_pool), 2)
register("GlobalLpPool", rounded_once(_global_lp_pool), 2)
register("LpNormalization", rounded_once(_lp_normalization), 1)
register("LRN", rounded_once(_local_response), 1)
