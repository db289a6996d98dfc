"""What a move costs on the fabric, from its tables alone: one side of the grid at a time.

A consumer at column x and row y is taken to need every producer column that some consumer of column x
needs, and every row that some consumer of row y needs. Where the two are tied to each other that
is more than it does need, so that arrival times are upper bounds, at a cost that grows with the sides of the
grids and not with their areas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..machine.wafer import Wafer
from ..plan.layout import Grid, Ints, Region, Split
from ..plan.move import Move, need_elements
from .reach import (
    NOWHERE,
    Ends,
    coordinates,
    depth,
    different_rows,
    ends,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]
BLOCK = 1 << 17  # of its terms that are computed at once: they stay in the host's cache
MOST_TERMS = 1 << 22  # of one max-plus product; past it rows of sources are taken at their latest


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
