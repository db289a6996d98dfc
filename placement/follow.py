"""Following: running an op where an operand already lies, and where partial results are joined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..ir.affine import access_axes
from ..ir.op import Op
from .layout import Cut, Grid, Split
from .split import Source, dense, runs_backwards

FEW = 16  # elements that one root of a long line keeps
LONG = 192  # cores of a line that is long


def follow(op: Op, operand: int, source: Source) -> tuple[Split, Grid] | None:
    """The split and grid on which `operand` is read where `source` holds it; None if there is none.

    A reduced axis that the producer has cut makes partial results, if its digits are innermost on
    their sides.

    Producer cuts that the op cannot take (its axis must stay whole, or is absent) are dropped when
    they are the outermost or innermost digits of their side: the op then runs on a part of the grid.
    """
    held = dict(source.axes)
    size = op.size
    whole = set(op.whole)
    reduced = set(op.reduced)
    taken: list[tuple[Cut, str]] = []  # producer's cut, our axis ("" = dropped)
    tiles: dict[str, int] = {}
    dim_of = {a: d for d, e in enumerate(source.write) for a in e.axes}
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
            tiles |= {a: tile_ for a, _, tile_ in digits}
            taken += [(Cut(c.axis, c.side, ways), a) for a, ways, _ in digits]
            continue
        name = ""
        for a, k in terms:
            if a not in whole and k > 0 and tile % k == 0 and tile // k <= size[a]:
                name = a
                tiles[a] = tile // k
                break
        taken.append((c, name))
    x, dx, columns = _part_of_side([t for t in taken if t[0].side == "x"], source.grid.x, source.grid.dx)
    y, dy, rows = _part_of_side([t for t in taken if t[0].side == "y"], source.grid.y, source.grid.dy)
    if columns == 0 or rows == 0:
        return None
    cuts = tuple(Cut(a, c.side, c.ways) for c, a in taken if a)
    split = Split(cuts)
    if any(runs_backwards(op, a) and sum(c.axis == a for c in cuts) > 1 for a in size):
        return None
    parts = [i for i, c in enumerate(cuts) if c.axis in reduced]
    if len({cuts[i].axis for i in parts}) > 1 or len({cuts[i].side for i in parts}) < len(parts):
        return None
    if any(c.side == cuts[i].side for i in parts for c in cuts[i + 1 :]):
        return None
    # Where a tile does not end at an outer axis' boundary, no cut of the inner one stands for it.
    if any(split.axis_ways(a) > n or split.tile(a, n) != tiles.get(a, n) for a, n in op.axes):
        return None
    extents = split.extents(op.axes)
    cut = {a: split.axis_ways(a) for a in size}
    if not bool(dense(op.write, extents, cut)):
        return None
    return split, Grid(columns, rows, x, y, dx, dy)


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


def _part_of_side(cuts: Sequence[tuple[Cut, str]], start: int, pitch: int) -> tuple[int, int, int]:
    """(start, pitch, length) of the kept digits; length 0 where a dropped one lies between kept ones."""
    kept = [bool(a) for _, a in cuts]
    ways = [c.ways for c, _ in cuts]
    while kept and not kept[0]:
        kept, ways = kept[1:], ways[1:]
    while kept and not kept[-1]:
        pitch *= ways[-1]
        kept, ways = kept[:-1], ways[:-1]
    if not all(kept):
        return start, pitch, 0
    return start, pitch, int(np.prod(ways, dtype=np.int64))


def join_split(op: Op, split: Split, part: str, grid: Grid) -> tuple[Split, Grid]:
    """Where the partial results of `part` are joined: spread over the cores that made them.

    Each of the part's digits, innermost on its side, is given to the result axis with the longest tile; as
    many of its cores become roots as divide that tile exactly. One root, in the centre, where none does,
    or where a long line joins a few elements: what hears them then hears one core, not one for each.
    """
    chosen = Split(tuple(c for c in split.cuts if c.axis != part and c.side != "t"))
    left: list[Cut] = []
    for cut in (c for c in split.cuts if c.axis == part and c.side != "t"):
        more = _roots(op, chosen, cut)
        chosen = Split((*chosen.cuts, *more))
        left.append(Cut(part, cut.side, cut.ways // more[0].ways if more else cut.ways))
    return chosen, _centre(chosen, left, grid)


def _roots(op: Op, split: Split, cut: Cut) -> tuple[Cut, ...]:
    """What becomes of a digit of the part: a cut of a result axis along the same side, or nothing."""
    extents = split.extents(op.axes)
    best: tuple[Cut, ...] = ()
    for a in access_axes(op.write):
        tile = extents[a]
        most = 1 if tile <= FEW and cut.ways >= LONG else min(cut.ways, tile)
        for w in range(most, best[0].ways if best else 1, -1):
            if tile % w == 0 and cut.ways % w == 0:
                trial = Split((*split.cuts, Cut(a, cut.side, w)))
                if bool(dense(op.write, trial.extents(op.axes), {b: trial.axis_ways(b) for b in op.size})):
                    best = (Cut(a, cut.side, w),)
                    break
    return best


def _centre(split: Split, dropped: Sequence[Cut], grid: Grid) -> Grid:
    """The grid of `split`, its cores in the middle of the `dropped` innermost digits."""
    columns, rows, _ = split.grid
    x, y, dx, dy = grid.x, grid.y, grid.dx, grid.dy
    for c in dropped:
        if c.side == "x":
            x, dx = x + dx * (c.ways // 2), dx * c.ways
        else:
            y, dy = y + dy * (c.ways // 2), dy * c.ways
    return Grid(columns, rows, x, y, dx, dy)
