"""Choosing a split: the shortlist and all ways to follow a producer, costed by their real moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..ir.affine import Access
from ..ir.op import Op
from .fabric import Ends, ends, load, need_elements
from .follow import follow
from .layout import Grid, Layout, Split, layout
from .move import HOST, derive, identical
from .split import Choice, Limits, Source, estimate, part_axis, shortlist
from .wafer import Wafer

SHORTLIST = 10  # enumerated splits whose moves are derived
TREE_COLOURS = 2  # a move that needs no more is taken to get trees of its own, others the shared lanes


@lru_cache(maxsize=4096)
def _layout(access: Access, axes: tuple[tuple[str, int], ...], split: Split, merge_time: bool) -> Layout:
    return layout(access, axes, split, merge_time=merge_time)


def choose(
    op: Op,
    sources: Sequence[Source | None],
    region: int,
    columns: int,
    rows: int,
    limits: Limits,
    wafer: Wafer,
    exact: bool = True,
) -> Choice:
    """The best split of `op` on a region of columns x rows logical cores.

    exact: derive the moves of each candidate instead of estimating them.
    """
    found = shortlist(op, sources, columns, rows, limits, wafer, SHORTLIST if exact else 1)
    for j, source in enumerate(sources):
        if source is not None and source.region == region and source.write:
            followed = _followed(op, j, sources, wafer)
            if followed is not None:
                found.append(followed)
    if not exact:
        return min(found, key=lambda c: (c.excess(limits), c.cycles, c.grid.cores))
    bare = [(c.excess(limits), _without_arrival(op, c, sources, wafer), c.grid.cores, c) for c in found]
    best, least = None, (np.inf, np.inf, 0)
    for excess, cycles, cores, c in sorted(bare, key=lambda b: b[:3]):
        # No arrival can make up for what is behind already.
        if best is None or (excess, cycles) <= least[:2]:
            placed = _costed(op, c, cycles, sources, region, columns, rows, wafer)
            if best is None or (excess, placed.cycles, cores) < least:
                best, least = placed, (excess, placed.cycles, cores)
    assert best is not None
    return best


def _followed(op: Op, operand: int, sources: Sequence[Source | None], wafer: Wafer) -> Choice | None:
    source = sources[operand]
    assert source is not None
    found = follow(op, operand, source)
    if found is None:
        return None
    split, grid = found
    extents = split.extents(op.axes)
    aligned = [
        i == operand or (s is not None and s.grid == source.grid and follow(op, i, s) == found)
        for i, s in enumerate(sources)
    ]
    part = part_axis(op, split)
    span = grid.columns * grid.dx + grid.rows * grid.dy
    parts = split.space_ways(part) if part else 1
    figures = estimate(op, extents, extents, 1, span, parts, sources, aligned, wafer)
    return Choice(split, grid, part, *(float(f) for f in figures), fixed=True)


def spot(c: Choice, sources: Sequence[Source | None], region: int, columns: int, rows: int) -> Grid:
    """Where a free grid lies best: centred on the largest operand of its region."""
    local = [s for s in sources if s is not None and s.region == region and s.write]
    if c.fixed or not local:
        return c.grid
    near = max(local, key=lambda s: (int(np.prod(s.shape)), s.grid.cores)).grid
    x0, y0, x1, y1 = near.box
    x = min(max((x0 + x1 - c.grid.columns) // 2, 0), columns - c.grid.columns)
    y = min(max((y0 + y1 - c.grid.rows) // 2, 0), rows - c.grid.rows)
    return replace(c.grid, x=x, y=y)


def _without_arrival(op: Op, c: Choice, sources: Sequence[Source | None], wafer: Wafer) -> float:
    """The choice's cycles as if every operand were already in place."""
    if not np.isfinite(c.cycles):
        return c.cycles
    extents = c.split.extents(op.axes)
    held = {a: n * c.split.time_ways(a) for a, n in extents.items()}
    parts = c.split.space_ways(c.part) if c.part else 1
    at_hand = [True] * len(sources)
    cycles, _, _ = estimate(op, extents, held, c.split.grid[2], 0, parts, sources, at_hand, wafer)
    return float(cycles)


def _costed(
    op: Op,
    c: Choice,
    cycles: float,
    sources: Sequence[Source | None],
    region: int,
    columns: int,
    rows: int,
    wafer: Wafer,
) -> Choice:
    """The choice with its grid in place and its `cycles` plus the latest real arrival."""
    if not np.isfinite(cycles):
        return c
    grid = spot(c, sources, region, columns, rows)
    latest = 0.0
    for j, s in enumerate(sources):
        if s is not None:
            latest = max(latest, _arrival(op, j, c.split, grid, s, s.region == region, wafer))
    return replace(c, grid=grid, cycles=cycles + latest)


def _arrival(op: Op, operand: int, split: Split, grid: Grid, s: Source, near: bool, wafer: Wafer) -> float:
    """Cycles until the operand's last element is there, from when its producer is done."""
    need = _layout(op.reads[operand], op.axes, split, False)
    nbytes = op.in_types[operand].bytes
    if not s.write:
        elements = float(np.prod([p.extent for p in need]))
        hops = s.distance + grid.columns * grid.dx + grid.rows * grid.dy
        way = wafer.route(hops, 1) + wafer.relayed(np.asarray(hops))
        return float(way + wafer.serial(wafer.wavelets(elements * nbytes)))
    hold = _layout(s.write, s.axes, s.split, True)
    if near and identical(need, hold, grid, s.grid) is not None:
        return 0.0
    move = derive(need, hold, s.shape, s.grid, HOST, HOST)
    sides: list[Ends] = []
    for side in ("x", "y"):
        to, at = (_coordinates(g, side) for g in (grid, s.grid))
        sides.append(ends(move, grid, s.grid, to, at, side))
    x, y = sides
    if near and x.still and y.still:
        return float(wafer.copy(np.max(need_elements(move)), op.in_types[operand]))
    t = load(wafer, move, x, y, int(np.prod([p.extent for p in hold])), nbytes)
    hops = float(x.distance.max(initial=0) + y.distance.max(initial=0)) + (0.0 if near else s.distance)
    way: Any = wafer.route(hops, 0 if x.still or y.still else 1)
    if not near or t.deep[0] * t.deep[1] > TREE_COLOURS:
        way = way + wafer.relayed(np.asarray(hops))
    fullest = max(float(np.max(t.inbound, initial=0)), t.sent, t.row, t.column)
    return float(way + wafer.serial(fullest))


def _coordinates(grid: Grid, side: str) -> Any:
    if side == "x":
        return grid.x + grid.dx * np.arange(grid.columns)
    return grid.y + grid.dy * np.arange(grid.rows)
