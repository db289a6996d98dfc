"""What a move costs on the fabric, from its tables alone: one side of the grid at a time.

A consumer at column x and row y is taken to need every producer column that some consumer of column x
needs, and every row that some consumer of row y needs. Where the two are tied to each other that
is more than it does need, so that arrival times are upper bounds, at a cost that grows with the sides of the
grids and not with their areas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .layout import Grid, Ints, Region, Split
from .move import MOST_KEPT, DimensionMoves, Move
from .wafer import Wafer

Floats = np.ndarray[Any, np.dtype[np.float64]]
NOWHERE = 1 << 40  # a coordinate far outside any wafer
BLOCK = 1 << 17  # of its terms that are computed at once: they stay in the host's cache
MOST_TERMS = 1 << 22  # of one max-plus product; past it rows of sources are taken at their latest


@dataclass(frozen=True)
class Ends:
    """Which producer columns (or rows) each consumer column (or row) needs: pairs, by target.

    target, source: numbers in their grids. at, to: wafer coordinates of all producer and all
    consumer columns (or rows).
    """

    target: Ints
    source: Ints
    at: Ints
    to: Ints

    @property
    def distance(self) -> Ints:
        """Hops of each pair."""
        return np.abs(self.at[self.source] - self.to[self.target])

    @property
    def still(self) -> bool:
        """No pair leaves its place."""
        return not self.distance.any()

    def spans(self) -> tuple[Ints, Ints]:
        """For each producer column the lowest and highest coordinate it sends to, its own included.

        Where it sends nothing, the two lie far outside the wafer.
        """
        first, last = np.zeros(len(self.at), np.int64), np.zeros(len(self.at), np.int64)
        sends = np.zeros(len(self.at), np.bool_)
        sends[self.source] = True
        # Of an index that is repeated the last value stays; targets come in order, and so do coordinates.
        first[self.source[::-1]], last[self.source] = self.target[::-1], self.target
        lo = np.where(sends, np.minimum(self.at, self.to[first]), NOWHERE)
        return lo, np.where(sends, np.maximum(self.at, self.to[last]), NOWHERE)


def coordinates(region: Region, grid: Grid, side: str, wafer: Wafer) -> Ints:
    """Wafer coordinates of a grid's columns ("x") or rows ("y"); stand-ins for dead cores left aside."""
    if side == "x":
        numbers = grid.x + grid.dx * np.arange(grid.columns)
        row = region.core[0] % wafer.width
        # A spare core may stand at the start of a column: the column's usual place is what counts.
        usual = (
            np.maximum.accumulate(np.median(region.core % wafer.width, axis=0)) if wafer.dead_cores else row
        )
        return usual.astype(np.int64)[numbers]
    return region.y + grid.y + grid.dy * np.arange(grid.rows)


def ends(move: Move, producer: Grid, to: Ints, at: Ints, side: str) -> Ends:
    """The pairs of a move along one side."""
    target, source = pairs(move.dims, producer.columns, len(to), len(at), side)
    return Ends(target, source, at, to)


MOST_PAIRS = 256  # of these tables, the largest of all, that are remembered


@lru_cache(maxsize=MOST_PAIRS)
def pairs(
    dims: tuple[DimensionMoves, ...], columns: int, count: int, sources: int, side: str
) -> tuple[Ints, Ints]:
    """(consumer, producer) numbers of a move along one side, wherever the grids lie; consumers in order."""
    target, source = np.nonzero(reach(dims, columns, count, sources, side))
    return target, source


def reach(dims: Sequence[DimensionMoves], columns: int, count: int, sources: int, side: str) -> Any:
    """bool [count, sources]: which consumer columns (or rows) need which producer columns (or rows).

    columns: of the producer's grid.
    """
    out: Any = None
    for d in dims:
        part = d.core % columns if side == "x" else d.core // columns
        own, other = (d.x, d.y) if side == "x" else (d.y, d.x)
        if not part.any() and (d.start[1:] > d.start[:-1]).all():
            continue
        # A piece's number is a sum in a mixed radix: it says which share of this side it belongs to.
        values, of = np.unique(own, return_inverse=True)
        offsets = np.add.outer(np.unique(other), np.unique(d.t)).ravel()
        share = np.full(len(d.start) - 1, len(values))
        share[np.add.outer(values, offsets)] = np.arange(len(values))[:, None]
        met = np.zeros((len(values) + 1, sources), np.bool_)
        met[np.repeat(share, np.diff(d.start)), part] = True
        if out is None:
            out = met[of]
            continue
        # So is a producer's: what earlier dimensions reach, moved by what this one adds.
        before, adds = np.flatnonzero(out.any(0)), np.flatnonzero(met.any(0))
        both = out[:, before, None] & met[:, adds][of][:, None, :]
        out = np.zeros((count, sources), np.bool_)
        out[:, np.add.outer(before, adds).ravel()] = both.reshape(count, -1)
    if out is None:
        out = np.zeros((count, sources), np.bool_)
        out[:, 0] = True
    return out


def colour_intervals(lo: Ints, hi: Ints) -> Ints:
    """Colours of intervals [lo, hi] such that overlapping ones differ: as few as overlap at a point."""
    out = np.zeros(len(lo), np.int64)
    free_at: list[int] = []  # by colour: where its last interval ends
    for i in np.argsort(lo, kind="stable"):
        if lo[i] >= NOWHERE:
            continue  # sends nothing: any colour will do
        free = next((c for c, end in enumerate(free_at) if end < lo[i]), None)
        if free is None:
            free = len(free_at)
            free_at.append(0)
        free_at[free] = int(hi[i])
        out[i] = free
    return out


def depth(lo: Ints, hi: Ints) -> int:
    """How many of the intervals [lo, hi] overlap at most."""
    used = hi < NOWHERE
    starts, stops = np.sort(lo[used]), np.sort(hi[used])
    # Where one starts, those overlap that have started and not stopped before.
    open_ = np.arange(1, len(starts) + 1) - np.searchsorted(stops, starts)
    return int(open_.max(initial=0))


MOST_NEEDS = 64  # of these tables, a number for each core, that are remembered: a layer's


@lru_cache(maxsize=MOST_NEEDS)
def need_elements(dims: tuple[DimensionMoves, ...]) -> Any:
    """[rows, columns] (each 1 where it does not matter): elements that each consumer receives."""
    total: Any = 0
    lengths = [_lengths(d) for d in dims]
    for t in range(len(dims[0].t) if dims else 1):
        n: Any = np.ones((1, 1))
        for d, own in zip(dims, lengths, strict=True):
            x = d.x if d.x.any() else d.x[:1]
            y = d.y if d.y.any() else d.y[:1]
            n = n * own[y[:, None] + x[None, :] + d.t[t]]
        total = total + n
    return total


def most_elements(dims: tuple[DimensionMoves, ...]) -> int:
    """The most that one consumer receives."""
    if not dims or len(dims[0].t) > 1 or any(d.x.any() and d.y.any() for d in dims):
        return int(np.max(need_elements(dims), initial=0))
    along_x: Any = 1
    along_y: Any = 1
    for d in dims:  # each dimension varies along one side: the most is where both sides have most
        own = _lengths(d)
        if d.y.any():
            along_y = along_y * own[d.y + d.t[0]]
        else:
            along_x = along_x * own[d.x + d.t[0]]
    return int(np.max(along_x, initial=0)) * int(np.max(along_y, initial=0))


def _lengths(d: DimensionMoves) -> Ints:
    """[pieces]: how many elements of the dimension each receives."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(d.length)])
    return before[d.start[1:]] - before[d.start[:-1]]


@dataclass(frozen=True)
class Traffic:
    """A move on the fabric: its pairs along both sides and its load.

    sent: wavelets that leave a producer (each element once: the routers copy). inbound: wavelets
    into each consumer, [rows, columns] or broadcastable. through: wavelets that the consumers of one
    column need in all (rows that need the same share them). row, column: the most that a link carries.
    deep: how many producers' spans overlap along x and y at most.
    """

    x: Ends
    y: Ends
    sent: float
    inbound: Any
    through: float
    row: float
    column: float
    deep: tuple[int, int]

    @property
    def still(self) -> bool:
        return self.x.still and self.y.still


def traffic(
    wafer: Wafer,
    move: Move,
    consumer: Grid,
    producer: Grid,
    here: Region,
    there: Region,
    held: int,
    nbytes: int,
) -> Traffic:
    """The traffic of `move`. held: elements of a producer's tile; nbytes: of an element."""
    x, y = (
        ends(
            move,
            producer,
            coordinates(here, consumer, s, wafer),
            coordinates(there, producer, s, wafer),
            s,
        )
        for s in ("x", "y")
    )
    return load(wafer, move, x, y, held, nbytes)


def load(wafer: Wafer, move: Move, x: Ends, y: Ends, held: int, nbytes: int) -> Traffic:
    """The traffic of `move` between known ends."""
    sent = float(wafer.wavelets(held * nbytes))
    inbound = wafer.wavelets(need_elements(move.dims) * nbytes)
    deep = depth(*x.spans()), depth(*y.spans())
    fan = int(np.bincount(x.target).max(initial=0))
    row = deep[0] * sent if not x.still else 0.0
    through = float(np.max(inbound, initial=0)) * different_rows(move.dims, len(y.to))
    column = min(deep[1] * fan * sent, through) if not y.still else 0.0
    return Traffic(x, y, sent, inbound, through, row, column, deep)


@lru_cache(maxsize=MOST_KEPT)
def different_rows(dims: tuple[DimensionMoves, ...], rows: int) -> int:
    """How many of a consumer's `rows` need something else than all the others."""
    number = np.zeros(rows, np.int64)
    for d in dims:
        if d.y.any():
            number = np.unique(number * (int(d.y.max()) + 1) + d.y, return_inverse=True)[1]
    return int(number.max(initial=0)) + 1


def arrival(wafer: Wafer, move: Traffic, ready: Floats, relayed: bool) -> Floats:
    """[rows, columns]: when each consumer has all it needs. ready: [rows, columns] of the producers.

    The latest producer plus the way along both sides, plus serialisation on the fullest of
    the consumer's ramp, a producer's ramp and the links.
    """
    by_row = _max_plus(wafer, move.y, ready, relayed)
    out = _max_plus(wafer, move.x, by_row.T, relayed).T
    if move.still:
        return out
    turn = 0 if move.x.still or move.y.still else 1
    serial = np.maximum(move.inbound, max(move.sent, move.row, move.column))
    return out + wafer.route(0, turn) + wafer.serial(serial)


def joining(wafer: Wafer, split: Split, part: str, grid: Grid, wavelets: Any) -> Any:
    """Cycles of the fabric reduction of `wavelets` from partial results over `part`, cut on `grid`."""
    x, y = (next((c.ways for c in split.cuts if c.axis == part and c.side == s), 1) for s in ("x", "y"))
    if x > 1 and y > 1:
        return wafer.join(y, wavelets, grid.dy, x, grid.dx)
    return wafer.join(x, wavelets, grid.dx) if x > 1 else wafer.join(y, wavelets, grid.dy)


def _max_plus(wafer: Wafer, e: Ends, ready: Floats, relayed: bool) -> Floats:
    """For each target the latest of its sources (rows of `ready`) plus the way to it."""
    hops = e.distance
    paired = len(e.source) == len(ready) == len(e.to) and (e.source == e.target).all()
    if paired and not hops.any():
        return ready  # each consumer hears the one producer in its place
    way = wafer.hop * hops + (wafer.relayed(hops) if relayed else 0.0)
    width = ready.shape[1]
    if len(e.source) * width > MOST_TERMS:
        ready = ready.max(axis=1, keepdims=True)
    out = np.zeros((len(e.to), ready.shape[1]))
    if len(e.target):
        first = np.flatnonzero(np.diff(e.target, prepend=-1))
        for c in range(0, out.shape[1], block := max(1, BLOCK // len(way))):
            terms = ready[:, c : c + block][e.source]
            terms += way[:, None]
            if len(first) < len(terms):
                terms = np.maximum.reduceat(terms, first, axis=0)
            out[e.target[first], c : c + block] = terms
    return np.broadcast_to(out, (len(e.to), width))


def add_links(wafer: Wafer, links: Floats, move: Traffic) -> None:
    """Adds a move's bytes to [4, height, width]: along producers' rows, then down targets' columns."""
    nbytes = move.sent * wafer.wavelet_bytes
    sending = np.flatnonzero(np.bincount(move.y.at[move.y.source]))
    for number, covered in enumerate(_coverage(move.x, wafer.width)):
        if covered.any():
            lo, hi = np.flatnonzero(covered)[[0, -1]]
            links[number, :, lo : hi + 1][_evenly(sending)] += nbytes * covered[lo : hi + 1]
    count = np.bincount(move.x.to[move.x.target])
    columns = np.flatnonzero(count)
    through = move.through * wafer.wavelet_bytes
    for number, covered in enumerate(_coverage(move.y, wafer.height), 2):
        if covered.any():
            lo, hi = np.flatnonzero(covered)[[0, -1]]
            into = covered[lo : hi + 1, None] * count[columns] * nbytes
            links[number, lo : hi + 1][:, _evenly(columns)] += np.minimum(into, through)


def _evenly(numbers: Ints) -> Any:
    """Rising numbers as a slice where they are evenly spaced: what it selects is no copy."""
    pitch = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
    even = len(numbers) > 0 and (np.diff(numbers) == pitch).all()
    return slice(int(numbers[0]), int(numbers[-1]) + 1, pitch) if even else numbers


def _coverage(e: Ends, size: int) -> tuple[Floats, Floats]:
    """How many producers' spans cover each outgoing link, upward and downward in the coordinate."""
    lo, hi = e.spans()
    used = hi < NOWHERE
    at, lo, hi = e.at[used], lo[used], hi[used]
    up, down = np.zeros(size + 1), np.zeros(size + 1)
    np.add.at(up, at, 1.0)
    np.subtract.at(up, hi, 1.0)
    np.add.at(down, lo + 1, 1.0)
    np.subtract.at(down, at + 1, 1.0)
    return np.cumsum(up)[:size], np.cumsum(down)[:size]
