"""When a move's bytes are there, from its tables alone: one side of the grid at a time.

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
from ..plan.layout import Grid, Split
from ..plan.move import Move
from ..plan.needs import different_rows, need_elements
from ..plan.plan import Plan, Step
from .reach import Ends, depth, ends_of

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


def traffic_of(plan: Plan, step: Step, producer: Step, move: Move) -> Traffic:
    """The traffic of a move from the producer to the step."""
    x, y = (ends_of(plan, step, producer, move, side) for side in ("x", "y"))
    buffer = plan.buffers[move.source]
    return traffic_between(plan.wafer, move, x, y, buffer.elements, buffer.dtype.bytes)


def traffic_between(wafer: Wafer, move: Move, x: Ends, y: Ends, held: int, nbytes: int) -> Traffic:
    """The traffic of `move`. held: elements of a producer's tile; nbytes: of an element."""
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
    return out + wafer.route(0, turn) + (0.0 if relayed else wafer.multicast) + wafer.serial(serial)


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
