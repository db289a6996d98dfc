"""Following: running an op where an operand already lies, and where partial results are joined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...ir.op import Op
from ..plan.layout import Cut, Grid, Side, Split
from .candidates import dense, runs_backwards
from .choice import Source


def follow(op: Op, operand: int, source: Source) -> tuple[Split, Grid] | None:
    """The split and grid on which `operand` is read where `source` holds it; None if there is none.

    A reduced axis that the producer has cut makes partial results, if its digits are innermost on
    their sides.

    Producer cuts that the op cannot take (its axis must stay whole, or is absent) are dropped when
    they are the outermost or innermost digits of their side: the op then runs on a part of the grid.
    """
    taken = digits_taken(op, operand, source)
    if taken is None:
        return None
    x, dx, columns = _part_of_side([t for t in taken if t.side == "x"], source.grid.x, source.grid.dx)
    y, dy, rows = _part_of_side([t for t in taken if t.side == "y"], source.grid.y, source.grid.dy)
    if columns == 0 or rows == 0:
        return None
    split = Split(tuple(Cut(t.axis, t.side, t.ways) for t in taken if t.axis))
    tiles = {t.axis: t.tile for t in taken if t.axis}
    return (split, Grid(columns, rows, x, y, dx, dy)) if feasible(op, split, tiles) else None


class Taken(NamedTuple):
    """A producer's digit as a cut of our `axis` into tiles of `tile`; axis "": dropped."""

    side: Side
    ways: int
    axis: str
    tile: int


def digits_taken(op: Op, operand: int, source: Source) -> list[Taken] | None:
    """The producer's digits in space as cuts of our axes; None where one is of no dimension of the tensor."""
    held, size, whole = dict(source.axes), op.size, set(op.whole)
    dim_of = {a: d for d, e in enumerate(source.write) for a in e.axes}
    taken: list[Taken] = []
    for at, c in enumerate(source.split.cuts):
        if c.side == "t":
            continue
        d = dim_of.get(c.axis)
        if d is None:
            return None
        coefficient = source.write[d].coefficient(c.axis)
        in_time = source.split.time_ways(c.axis)
        tile = source.split.tile(c.axis, held[c.axis]) * in_time * abs(coefficient)
        terms = sorted(
            ((a, k) for a, k in op.reads[operand][d].terms if size[a] > 1), key=lambda t: -abs(t[1])
        )
        inner = math.prod(o.ways for o in source.split.cuts[at + 1 :] if o.axis == c.axis and o.side != "t")
        digits = _digits(terms, size, tile * inner, c.ways) if whole.isdisjoint(a for a, _ in terms) else None
        if digits is not None:
            taken += [Taken(c.side, ways, a, own) for a, ways, own in digits]
        else:
            one = (
                (a, tile // k)
                for a, k in terms
                if a not in whole and k > 0 and tile % k == 0 and tile // k <= size[a]
            )
            taken.append(Taken(c.side, c.ways, *next(one, ("", 0))))
    return taken


def feasible(op: Op, split: Split, tiles: Mapping[str, int]) -> bool:
    """Whether the op can be split so. tiles: what its cut axes' tiles must be."""
    size, reduced, cuts = op.size, set(op.reduced), split.cuts
    if any(runs_backwards(op, a) and sum(c.axis == a for c in cuts) > 1 for a in size):
        return False
    parts = [i for i, c in enumerate(cuts) if c.axis in reduced]
    if len({cuts[i].axis for i in parts}) > 1 or len({cuts[i].side for i in parts}) < len(parts):
        return False
    if any(c.side == cuts[i].side for i in parts for c in cuts[i + 1 :]):
        return False
    # Where a tile does not end at an outer axis' boundary, no cut of the inner one stands for it.
    if any(split.axis_ways(a) > n or split.tile(a, n) != tiles.get(a, n) for a, n in op.axes):
        return False
    cut = {a: split.axis_ways(a) for a in size}
    return bool(dense(op.write, split.extents(op.axes), cut))


def _digits(
    terms: Sequence[tuple[str, int]], size: Mapping[str, int], tile: int, ways: int
) -> list[tuple[str, int, int]] | None:
    """(axis, ways, tile) of each axis that is cut where a dimension is, into `ways` tiles of `tile` elements.

    None where the dimension is one axis', or no cuts do that. terms: the dimension in the axes' digits,
    largest coefficient first.
    """
    out: list[tuple[str, int, int]] = []
    whole = tile * ways
    for a, k in terms:
        if k < 1 or (k < whole and whole % k) or (k < tile and tile % k):
            return None
        before, after = min(size[a], max(1, whole // k)), min(size[a], max(1, tile // k))
        if before % after:
            return None
        if before > after:
            out.append((a, before // after, after))
    done = int(np.prod([n for _, n, _ in out], dtype=np.int64)) == ways
    return out if done and len(terms) > 1 else None


def _part_of_side(cuts: Sequence[Taken], start: int, pitch: int) -> tuple[int, int, int]:
    """(start, pitch, length) of the kept digits; length 0 where a dropped one lies between kept ones."""
    kept = [bool(c.axis) for c in cuts]
    ways = [c.ways for c in cuts]
    while kept and not kept[0]:
        kept, ways = kept[1:], ways[1:]
    while kept and not kept[-1]:
        pitch *= ways[-1]
        kept, ways = kept[:-1], ways[:-1]
    if not all(kept):
        return start, pitch, 0
    return start, pitch, int(np.prod(ways, dtype=np.int64))
