"""How long the real moves of an operand take, for a choice whose split and grid are known.

Who needs what of whom follows from the two splits; only distances depend on where the grids lie.
The former is remembered: a search asks for the same splits at several places.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...ir.affine import Access
from ..cost.reach import NOWHERE, depth, reach
from ..plan.layout import Grid, Ints, Split, layout
from ..plan.move import HOST, derive, identical
from ..plan.needs import different_rows, most_elements
from .choice import Question

MOST_KEPT = 4096  # patterns that are remembered


@dataclass(frozen=True)
class _Side:
    """For each producer column (or row) the first and the last consumer column it sends to.

    used: whether it sends anything. fan: the most producers that one consumer hears.
    """

    first: Ints
    last: Ints
    used: Any
    fan: int

    def spans(self, at: Ints, to: Ints) -> tuple[Ints, Ints, int]:
        """(lowest, highest coordinate each producer's bytes pass, longest way), as `Ends.spans`."""
        a, b = to[self.first], to[self.last]
        lo = np.where(self.used, np.minimum(a, at), NOWHERE)
        hi = np.where(self.used, np.maximum(b, at), NOWHERE)
        far = np.where(self.used, np.maximum(np.abs(a - at), np.abs(b - at)), 0)
        return lo, hi, int(far.max(initial=0))


@dataclass(frozen=True)
class _Pattern:
    """A move wherever its grids lie. received: elements of the fullest consumer; held: of a producer's tile.

    rows: how many of the consumer's rows need something else than all the others.
    """

    x: _Side
    y: _Side
    received: int
    held: int
    rows: int


class _Cut(NamedTuple):
    """A tensor's access from axes, and how these are cut."""

    access: Access
    axes: tuple[tuple[str, int], ...]
    split: Split


@lru_cache(maxsize=MOST_KEPT)
def _pattern(consumer: _Cut, producer: _Cut, shape: tuple[int, ...]) -> _Pattern:
    need, hold = layout(*consumer), layout(*producer, merge_time=True)
    split = consumer.split
    columns, rows, _ = producer.split.grid
    move = derive(need, hold, shape, Grid(columns, rows), HOST, HOST)
    sides: list[_Side] = []
    for side, count, sources in (("x", split.grid[0], columns), ("y", split.grid[1], rows)):
        met = reach(move.dims, columns, count, sources, side)
        last = count - 1 - np.argmax(met[::-1], axis=0)
        sides.append(_Side(np.argmax(met, axis=0), last, met.any(0), int(met.sum(1).max(initial=0))))
    received = most_elements(move.dims)
    held = int(np.prod([p.extent for p in hold]))
    return _Pattern(sides[0], sides[1], received, held, different_rows(move.dims, split.grid[1]))


def delivery(q: Question, operand: int, split: Split, grid: Grid, trees: int) -> float:
    """Cycles until a run-time operand's last element is there, from when its producer is done.

    trees: a move that needs no more colours is taken to get trees of its own, others the shared lanes.
    """
    op, s, wafer = q.op, q.sources[operand], q.site.wafer
    assert s is not None, "what stays on the cores is not delivered"
    near, dtype = q.near(s), op.in_types[operand]
    if not s.known:
        need = layout(op.reads[operand], op.axes, split)
        elements = float(np.prod([p.extent for p in need]))
        hops = s.distance + grid.columns * grid.dx + grid.rows * grid.dy
        way = wafer.route(hops, 1) + wafer.relayed(np.asarray(hops))
        return float(way + wafer.serial(wafer.wavelets(elements * dtype.bytes)))
    if near:
        need = layout(op.reads[operand], op.axes, split)
        hold = layout(s.write, s.axes, s.split, merge_time=True)
        if identical(need, hold, grid, s.grid) is not None:
            return 0.0
    p = _pattern(_Cut(op.reads[operand], op.axes, split), _Cut(s.write, s.axes, s.split), s.shape)
    x0, x1, far_x = p.x.spans(_coordinates(s.grid, "x"), _coordinates(grid, "x"))
    y0, y1, far_y = p.y.spans(_coordinates(s.grid, "y"), _coordinates(grid, "y"))
    if near and far_x + far_y == 0:
        return float(wafer.copy(p.received, dtype))
    deep_x, deep_y = depth(x0, x1), depth(y0, y1)
    hops = far_x + far_y + (0.0 if near else s.distance)
    way: Any = wafer.route(hops, 1 if far_x and far_y else 0)
    if not near or deep_x * deep_y > trees:
        way = way + wafer.relayed(np.asarray(hops))
    else:
        way = way + wafer.multicast
    sent = float(wafer.wavelets(p.held * dtype.bytes))
    inbound = float(wafer.wavelets(p.received * dtype.bytes))
    row = deep_x * sent if far_x else 0.0
    column = min(deep_y * p.x.fan * sent, inbound * p.rows) if far_y else 0.0
    return float(way + wafer.serial(max(inbound, sent, row, column)))


def _coordinates(grid: Grid, side: str) -> Ints:
    if side == "x":
        return grid.x + grid.dx * np.arange(grid.columns)
    return grid.y + grid.dy * np.arange(grid.rows)
