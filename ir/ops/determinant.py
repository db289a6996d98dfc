"""Det, and onnxruntime's Inverse, by elimination: a column at a time, all matrices of a batch together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dtypes import F16, F32, F64, I64
from ..graph import InvalidModel, Unsupported
from ..op import identity, product
from ..rules import GraphBuilder, Spec, register
from .contrib import Writer, contrib, need
from .conversion import Where, cast, rounded_once
from .elementwise import Abs, Add, Div, Mod, Mul, Neg, Sub, apply, scalar_constant
from .index import emit_gather
from .logic import Equal, GreaterOrEqual
from .order import place_of
from .rearrange import concat, pick, reshape, slice_axis
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


def _eliminated(g: GraphBuilder, x: str, column: int, hint: str) -> str:
    """[batch, n, m] with row `column` 1 in that column, and all other rows 0.

    Of the rows from there on that with the largest element in the column is exchanged for the first.
    """
    batch, n, m = g.shape(x)
    rest = slice_axis(g, pick(g, x, 2, column, hint), 1, column, n - column, hint)
    here, line = g.constant(np.array(column)), g.constant(g.folding.line(n))
    at = apply(g, Add, [place_of(g, ReduceMax, apply(g, Abs, [rest], hint), 1, hint), here], hint)
    others = apply(g, Where, [apply(g, Equal, [line, at], hint), here, line], hint)
    order = apply(g, Where, [apply(g, Equal, [line, here], hint), at, others], hint)
    kept = [("b", batch), ("i", n), ("k", m)]
    x = emit_gather(g, (x, ["b", "v0", "k"]), [(order, identity(["b", "i"]))], kept, hint, ours=True)
    row = slice_axis(g, x, 1, column, 1, hint)
    row = apply(g, Div, [row, slice_axis(g, row, 2, column, 1, hint)], hint)
    taken = apply(g, Mul, [slice_axis(g, x, 2, column, 1, hint), row], hint)
    own = g.constant(np.arange(n)[:, None] == column)
    return apply(g, Where, [own, row, apply(g, Sub, [x, taken], hint)], hint)


@contrib("Inverse", "X:T -> Y:T", {"T": (F16, F32, F64)}, limits="64 rows at most")
def _inverse(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """What stands beside a matrix made one, where the identity stood."""
    w, (x,) = Writer(g, spec.outputs[0]), spec.inputs
    shape = g.shape(x)
    n = int(shape[-1]) if shape else 0
    need(n > 0 and shape[-2:] == (n, n), f"Inverse of {g.tensors[x]}")
    if n > MOST_ROWS:
        raise Unsupported(f"Inverse of a matrix of {n:,} rows, past {MOST_ROWS}: each is an op of its own")
    wide = w.wide(reshape(g, x, [product(shape[:-2]), n, n], w.hint))
    one = w.constant(np.broadcast_to(np.eye(n, dtype=g.dtype(wide).numpy), g.shape(wide)))
    both = concat(g, [wide, one], 2, w.hint)
    for column in range(n):
        both = _eliminated(g, both, column, w.hint)
    return [reshape(g, slice_axis(g, both, 2, n, n, w.hint), shape, w.hint)]


register("Det", rounded_once(_det), 11, limits="64 rows at most")
