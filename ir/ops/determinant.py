"""Det, by elimination: a column at a time, all matrices of a batch together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dtypes import I64
from ..graph import InvalidModel, Unsupported
from ..op import identity, product
from ..rules import GraphBuilder, Spec, register
from .conversion import Where, cast, rounded_once
from .elementwise import Abs, Add, Div, Mod, Mul, Neg, Sub, apply, scalar_constant
from .index import emit_gather
from .logic import Equal, GreaterOrEqual
from .order import place_of
from .rearrange import pick, reshape, slice_axis
from .reduce import ReduceMax

MOST_ROWS = 64


def _without_largest(g: GraphBuilder, x: str, hint: str) -> tuple[str, str]:
    """[batch, n, n] as a factor [batch] of the determinant and [batch, n - 1, n - 1] with the rest of it.

    The row with the largest first element comes to the front, past all before it: each changes the sign.
    """
    batch, n, _ = g.shape(x)
    first = pick(g, x, 2, 0, hint)
    at = place_of(g, ReduceMax, apply(g, Abs, [first], hint), 1, hint)
    later = cast(g, apply(g, GreaterOrEqual, [g.constant(g.folding.line(n - 1)), at], hint), I64)
    rest = apply(g, Add, [g.constant(g.folding.line(n - 1)), later], hint)

    def rows(places: str) -> str:
        kept = [("b", batch), ("i", g.shape(places)[1]), ("k", n)]
        return emit_gather(g, (x, ["b", "v0", "k"]), [(places, identity(["b", "i"]))], kept, hint, ours=True)

    row, others = rows(at), rows(rest)
    pivot = slice_axis(g, row, 2, 0, 1, hint)
    zero, one = (scalar_constant(g, v, g.dtype(x)) for v in (0, 1))
    divisor = apply(g, Where, [apply(g, Equal, [pivot, zero], hint), one, pivot], hint)
    share = apply(g, Div, [slice_axis(g, others, 2, 0, 1, hint), divisor], hint)
    taken = apply(g, Mul, [share, slice_axis(g, row, 2, 1, n - 1, hint)], hint)
    left = apply(g, Sub, [slice_axis(g, others, 2, 1, n - 1, hint), taken], hint)
    odd = apply(g, Equal, [apply(g, Mod, [at, g.constant(np.array(2))], hint), g.constant(np.array(1))], hint)
    factor, odd = (reshape(g, t, [batch], hint) for t in (pivot, odd))
    return apply(g, Where, [odd, apply(g, Neg, [factor], hint), factor], hint), left


def _det(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    (x,), hint = spec.inputs, spec.outputs[0]
    (*outer, n, m) = g.shape(x)
    if n != m or n < 1:
        raise InvalidModel(f"Det of {g.tensors[x]}")
    if n > MOST_ROWS:
        raise Unsupported(f"Det of a matrix of {n:,} rows, past {MOST_ROWS}: each is an op of its own")
    x = reshape(g, x, [product(outer), n, n], hint)
    factors: list[str] = []
    while g.shape(x)[1] > 2:
        factor, x = _without_largest(g, x, hint)
        factors.append(factor)
    size = g.shape(x)[1]
    a, b, c, d = (pick(g, pick(g, x, 2, j, hint), 1, i, hint) for i in (0, size - 1) for j in (0, size - 1))
    total = a
    if size == 2:
        total = apply(g, Sub, [apply(g, Mul, [a, d], hint), apply(g, Mul, [b, c], hint)], hint)
    for factor in factors:
        total = apply(g, Mul, [total, factor], hint)
    return [reshape(g, total, outer, hint)]


register("Det", rounded_once(_det), 11, limits="64 rows at most")
