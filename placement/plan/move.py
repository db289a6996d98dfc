"""Moves: which bytes go from which core to which, derived from two layouts.

A move is the product of one small table per tensor dimension: for each piece that a consumer
needs, the producer's pieces that overlap it. Multiplied out it can have millions of records;
it is never stored so, but `records` yields them in chunks for the judge and the timing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ...ir.builder import Combine
from .layout import Grid, Ints, Layout, Pieces

HOST = -1  # source or target number of the host's memory


@dataclass(frozen=True, eq=False)
class DimensionMoves:
    """One dimension: the overlaps of the consumer's pieces with the producer's. Equal only to itself.

    x, y, t: contributions to the consumer's piece number. start: [pieces + 1], where each
    piece's entries begin. Per entry: core = what it adds to the producer's core number
    (row * columns + column), source and target = element offset in either tile, length.
    """

    x: Ints
    y: Ints
    t: Ints
    start: Ints
    core: Ints
    source: Ints
    target: Ints
    length: Ints


RouteKind = Literal["host", "local", "tree", "relay", "join"]


@dataclass(frozen=True)
class Detour:
    """The path of one record that does not go along the row, then along the column.

    source, target: physical core numbers. corners: (x, y) of every turn, both ends included.
    """

    source: int
    target: int
    corners: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Move:
    """Bytes for one operand (or, with `combine`, for the result) from one producer.

    source: the producer's buffer, or HOST. The first dimension of a combining move runs over
    the partial results; their order is the order of the reduction. route: how the fabric does
    it: "host" (laid or read by the host), "local" (no link), "tree" (a multicast tree from each
    source core: along its row, then along the columns), "relay" (on the shared lanes) or
    "join" (a fabric reduction on the lanes). A tree from producer column i and row j has colour
    colour_x[i] + colour_y[j].
    """

    source: int
    target: int
    dims: tuple[DimensionMoves, ...]
    combine: Combine | None = None
    route: RouteKind = "relay"
    colour_x: Ints | None = None
    colour_y: Ints | None = None
    detours: tuple[Detour, ...] = ()


MOST_KEPT = 8192  # tables that are remembered: layers of a model that are alike have the same ones


@lru_cache(maxsize=MOST_KEPT)
def overlaps(need: Pieces, hold: Pieces, size: int, columns: int) -> DimensionMoves:
    """The entries of one dimension of `size` elements; `columns` is the producer grid's width.

    A need is clipped to the tensor (what lies outside is fill). Assumes that the pieces held
    are disjoint; the judge checks that.
    """
    held = np.flatnonzero(hold.hi > hold.lo)
    held = held[np.argsort(hold.lo[held], kind="stable")]
    hold_lo, hold_hi = hold.lo[held], hold.hi[held]
    lo, hi = np.maximum(need.lo, 0), np.minimum(need.hi, size)
    first = np.searchsorted(hold_hi, lo, side="right")
    last = np.searchsorted(hold_lo, hi, side="left")
    count = np.where(hi > lo, np.maximum(last - first, 0), 0)
    start = np.zeros(len(lo) + 1, np.int64)
    np.cumsum(count, out=start[1:])
    piece = np.repeat(np.arange(len(lo), dtype=np.int64), count)
    at = np.repeat(first - start[:-1], count) + np.arange(len(piece), dtype=np.int64)
    source = held[at]
    a = np.maximum(lo[piece], hold.lo[source])
    b = np.minimum(hi[piece], hold.hi[source])
    core = hold.row[source] * columns + hold.column[source]
    return DimensionMoves(need.x, need.y, need.t, start, core, a - hold.lo[source], a - need.lo[piece], b - a)


def derive(
    need: Layout, hold: Layout, shape: tuple[int, ...], producer: Grid, source: int, target: int
) -> Move:
    """The move that fills `need` from `hold`, both layouts of one tensor of `shape`."""
    dims = tuple(overlaps(n, h, size, producer.columns) for n, h, size in zip(need, hold, shape, strict=True))
    return Move(source, target, dims)


def combining(move: Move, parts: Pieces, producer: Grid, combine: Combine) -> Move:
    """A move of one of several results in every place, as one that combines them all.

    parts: the leading dimension of what is held, over the partial results.
    """
    count = len(parts.lo)
    sides = (move.dims[0].x, move.dims[0].y, move.dims[0].t) if move.dims else ((0,),) * 3
    every = Pieces(
        *(np.zeros(len(side), np.int64) for side in sides),
        lo=np.zeros(1, np.int64),
        hi=np.array([count], np.int64),
        column=np.zeros(1, np.int64),
        row=np.zeros(1, np.int64),
    )
    lead = overlaps(every, parts, count, producer.columns)
    return replace(move, dims=(lead, *move.dims), combine=combine)


@dataclass(frozen=True)
class Records:
    """A chunk of a move, multiplied out. Arrays of one length.

    target: consumer core number (row * columns + column) ; step: its time step; source:
    producer core number; elements: how many go; box: the same for the same elements of a source, where asked
    for.
    """

    target: Ints
    step: Ints
    source: Ints
    elements: Ints
    box: Ints | None = None


def records(move: Move, consumer: Grid, chunk: int = 1 << 20, boxes: bool = False) -> Iterator[Records]:
    """The records of a move in bounded chunks, consumer by consumer. boxes: with their boxes' numbers."""
    if not move.dims:
        # A single element, from the one core that has it to every core.
        zero = np.zeros(consumer.cores, np.int64)
        yield Records(np.arange(consumer.cores), zero, zero, zero + 1, zero if boxes else None)
        return
    steps = len(move.dims[0].t)
    total = steps * consumer.cores
    fan = 1
    for d in move.dims:
        fan *= int(np.diff(d.start).max(initial=0))
    if fan == 0:
        return
    per = max(1, chunk // fan)
    for begin in range(0, total, per):
        at = np.arange(begin, min(begin + per, total), dtype=np.int64)
        t, core = at // consumer.cores, at % consumer.cores
        y, x = core // consumer.columns, core % consumer.columns
        source = np.zeros(len(at), np.int64)
        elements = np.ones(len(at), np.int64)
        box = np.zeros(len(at), np.int64) if boxes else None
        for d in move.dims:
            piece = d.x[x] + d.y[y] + d.t[t]
            first, count = d.start[piece], d.start[piece + 1] - d.start[piece]
            keep = np.repeat(np.arange(len(piece)), count)
            offset = np.arange(len(keep)) - np.repeat(np.cumsum(count) - count, count)
            entry = first[keep] + offset
            x, y, t, core = x[keep], y[keep], t[keep], core[keep]
            source = source[keep] + d.core[entry]
            elements = elements[keep] * d.length[entry]
            box = None if box is None else box[keep] * len(d.length) + entry
        if len(core):
            yield Records(core, t, source, elements, box)


def identical(
    need: Layout, hold: Layout, consumer: Grid, producer: Grid, steps: int = 1
) -> tuple[Ints, Ints, Ints] | None:
    """Whether each consumer core itself holds all that it needs, on grids of one region.

    Returns per dimension the offset (need - hold, in elements) at every column, row and step:
    three arrays [dims, columns], [dims, rows], [dims, steps] that add up; None when some core
    lacks something or the offsets do not add up. steps: in time, of a tensor without dimensions.
    """
    cols = consumer.x + consumer.dx * np.arange(consumer.columns) - producer.x
    rows = consumer.y + consumer.dy * np.arange(consumer.rows) - producer.y
    if (cols % producer.dx).any() or (rows % producer.dy).any():
        return None
    cols, rows = cols // producer.dx, rows // producer.dy
    if cols.min() < 0 or rows.min() < 0 or cols.max() >= producer.columns or rows.max() >= producer.rows:
        return None
    steps = len(need[0].t) if need else steps
    ox = np.zeros((len(need), consumer.columns), np.int64)
    oy = np.zeros((len(need), consumer.rows), np.int64)
    ot = np.zeros((len(need), steps), np.int64)
    some_empty = any((n.hi <= n.lo).any() for n in need)
    empty: Any = False
    offsets: list[Any] = []
    insides: list[Any] = []
    for n, h in zip(need, hold, strict=True):
        moved = Pieces(h.x[cols], h.y[rows], h.t, h.lo, h.hi, h.column, h.row)
        ni, hi = n.number(), moved.number()[:1]
        nlo, nhi, hlo, hhi = n.lo[ni], n.hi[ni], h.lo[hi], h.hi[hi]
        inside = (nlo >= hlo) & (nhi <= hhi)
        if some_empty:
            empty = empty | (nhi <= nlo)
        elif not inside.all():
            return None
        offsets.append(nlo - hlo)
        insides.append(inside)
    for d, (offset, inside) in enumerate(zip(offsets, insides, strict=True)):
        if not (inside | empty).all():
            return None
        full = np.broadcast_to(
            np.where(empty, 0, offset) if np.any(empty) else offset,
            np.broadcast_shapes(offset.shape, np.shape(empty)),
        )
        base = int(full[0, 0, 0])
        x, y, t = full[0, 0, :], full[0, :, 0] - base, full[:, 0, 0] - base
        total = t[:, None, None] + y[None, :, None] + x[None, None, :]
        if not ((total == full) | empty).all():
            return None
        ox[d], oy[d], ot[d] = x, y, t
    return ox, oy, ot
