"""Who hears whom: the columns and rows of a move's producers and consumers, and how far apart they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..machine.wafer import Wafer
from ..plan.layout import Grid, Ints, Region
from ..plan.move import DimensionMoves, Move
from ..plan.plan import Plan, Step

NOWHERE = 1 << 40  # a coordinate far outside any wafer


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


def ends_of(plan: Plan, step: Step, producer: Step, move: Move, side: str) -> Ends:
    """The pairs of a move of a plan, from the producer to the step."""
    to, at = (coordinates(plan.regions[s.region], s.grid, side, plan.wafer) for s in (step, producer))
    return ends(move, producer.grid, to, at, side)


MOST_PAIRS = 256  # of these tables, the largest of all, that are remembered
SHORT = 1 << 15  # columns or rows whose numbers take two bytes: all tables of a decoder are 600 MB else


@lru_cache(maxsize=MOST_PAIRS)
def pairs(
    dims: tuple[DimensionMoves, ...], columns: int, count: int, sources: int, side: str
) -> tuple[Ints, Ints]:
    """(consumer, producer) numbers of a move along one side, wherever the grids lie; consumers in order."""
    kind: Any = np.int16 if max(count, sources) <= SHORT else np.int64
    target, source = (a.astype(kind) for a in np.nonzero(reach(dims, columns, count, sources, side)))
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


def depth(lo: Ints, hi: Ints) -> int:
    """How many of the intervals [lo, hi] overlap at most."""
    used = hi < NOWHERE
    starts, stops = np.sort(lo[used]), np.sort(hi[used])
    # Where one starts, those overlap that have started and not stopped before.
    open_ = np.arange(1, len(starts) + 1) - np.searchsorted(stops, starts)
    return int(open_.max(initial=0))
