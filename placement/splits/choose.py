"""Choosing a split: the shortlist and all ways to follow a producer, costed by their real moves."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ir.op import Op
from ..cost.fabric import joining
from ..machine.wafer import Wafer
from ..plan.layout import Grid, Split
from .candidates import part_axis
from .choice import Choice, Limits, Source
from .delivery_time import delivery
from .estimate import arrival as estimated_arrival
from .estimate import demand, estimate
from .follow import follow
from .shortlist import shortlist

SHORTLIST = 10  # enumerated splits that are looked at more closely
COSTED = 12  # choices whose moves are derived


def choose(
    op: Op,
    sources: Sequence[Source | None],
    region: int,
    columns: int,
    rows: int,
    limits: Limits,
    wafer: Wafer,
    exact: bool = True,
    later: Callable[[Choice], float] = lambda choice: 0.0,
    least_later: float = 0.0,
) -> Choice:
    """The best split of `op` on a region of columns x rows logical cores.

    exact: derive the moves of each candidate instead of estimating them. later: cycles that a choice
    leaves to the ops after it, `least_later` or more.
    """
    found = _found(op, sources, region, columns, rows, limits, wafer, SHORTLIST if exact else 1)
    if not exact:
        return min(found, key=lambda c: (limits.excess(c.resident, c.working), c.cycles, c.grid.cores))
    best, least = None, (np.inf, np.inf, 0)
    for excess, _, cores, _, more, c in _likely(
        found, sources, region, columns, rows, limits, later, least_later
    ):
        alone = without_arrival(op, c, sources, wafer)
        # No arrival can make up for what is behind already.
        if best is None or (excess, alone + more) <= least[:2]:
            slack = least[1] - alone - more if best is not None and excess == least[0] else np.inf
            latest = _latest(op, c, sources, region, wafer, slack) if np.isfinite(alone) else 0.0
            total = excess, alone + more + latest, cores
            if best is None or total < least:
                best, least = replace(c, cycles=alone + latest), total
    assert best is not None
    return best


@dataclass(frozen=True)
class Option:
    """A choice as it looks before anything is known of when operands are ready.

    alone: cycles with every operand in place. arrivals: by run-time operand, from when it is ready.
    later: that it leaves to the op after it. excess: times over the limits.
    """

    choice: Choice
    excess: float
    alone: float
    arrivals: tuple[tuple[int, float], ...]
    later: float


def options(
    op: Op,
    sources: Sequence[Source | None],
    columns: int,
    rows: int,
    limits: Limits,
    wafer: Wafer,
    later: Callable[[Choice], float],
) -> list[Option]:
    """What `choose` weighs on region 0."""
    found = _found(op, sources, 0, columns, rows, limits, wafer, SHORTLIST)
    likely = _likely(found, sources, 0, columns, rows, limits, later, 0.0)
    out = [option(op, c, sources, limits, wafer, more) for _, _, _, _, more, c in likely]
    # What runs where an operand lies looks bad only beside operands that may have been there for long.
    more = [c for c in found if c.fixed and all(c != o.choice for o in out)]
    return out + [option(op, c, sources, limits, wafer, later(c)) for c in more]


def option(
    op: Op, c: Choice, sources: Sequence[Source | None], limits: Limits, wafer: Wafer, later: float
) -> Option:
    """A choice on region 0 as it looks with all its real moves.

    On the shared lanes: with layer upon layer on one region the colours for trees are soon gone.
    """
    alone = without_arrival(op, c, sources, wafer)
    arrivals = tuple(
        (j, delivery(op, j, c.split, c.grid, s, s.region == 0, wafer, trees=0))
        for j, s in enumerate(sources)
        if s is not None and np.isfinite(alone)
    )
    return Option(c, float(limits.excess(c.resident, c.working)), alone, arrivals, later)


def _found(
    op: Op,
    sources: Sequence[Source | None],
    region: int,
    columns: int,
    rows: int,
    limits: Limits,
    wafer: Wafer,
    most: int,
) -> list[Choice]:
    """The shortlist, and the ways to run where an operand lies."""
    found = shortlist(op, sources, columns, rows, limits, wafer, most)
    for j, source in enumerate(sources):
        if source is not None and source.region == region and source.write:
            followed = _followed(op, j, sources, wafer)
            if followed is not None and not any(
                c.axis in limits.uncut and c.side != "t" for c in followed.split.cuts
            ):
                held = followed.split.extents(op.axes)  # none is cut along time
                found.append(replace(followed, working=float(limits.in_use(op, held, followed.working))))
    return found


def _likely(
    found: Sequence[Choice],
    sources: Sequence[Source | None],
    region: int,
    columns: int,
    rows: int,
    limits: Limits,
    later: Callable[[Choice], float],
    least_later: float,
) -> list[tuple[float, float, int, int, float, Choice]]:
    """(excess, estimate, cores, number, cycles later, choice) of the best by their estimates, best first."""
    placed = [replace(c, grid=g) for c in found for g in spots(c, sources, region, columns, rows)]
    kept: list[tuple[float, float, int, int, float, Choice]] = []
    first = [
        (float(limits.excess(c.resident, c.working)), c.cycles, c.grid.cores, i, c)
        for i, c in enumerate(placed)
    ]
    for excess, _, _, i, c in sorted(first, key=lambda f: f[:4]):
        if len(kept) == COSTED and (excess, c.cycles + least_later) > kept[-1][:2]:
            break  # nor can any of the others be among the best
        more = later(c)
        insort(kept, (excess, c.cycles + more, c.grid.cores, i, more, c))
        del kept[COSTED:]
    return kept


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
    axes = list(dict.fromkeys(c.axis for c in split.cuts))
    ways = np.ones((len(axes), 1, 2), np.int64)
    for c in split.cuts:
        ways[axes.index(c.axis), 0, 0 if c.side == "x" else 1] *= c.ways
    arrivals = {
        i: estimated_arrival(demand(op, i, axes, ways, 1, wafer), s, wafer)[0]
        for i, (s, local) in enumerate(zip(sources, aligned, strict=True))
        if s is not None and not local
    }
    figures = estimate(
        op,
        extents,
        extents,
        1,
        [s is None for s in sources],
        arrivals,
        _joined(split, part, grid, wafer),
        wafer,
    )
    return Choice(split, grid, part, *(float(f) for f in figures), fixed=True)


def _joined(split: Split, part: str, grid: Grid, wafer: Wafer) -> Callable[[Any], Any]:
    """The cycles that it takes to join partial results over `part` on `grid`, by their wavelets."""
    return lambda wavelets: joining(wafer, split, part, grid, wavelets) if part else 0.0


def spots(c: Choice, sources: Sequence[Source | None], region: int, columns: int, rows: int) -> list[Grid]:
    """Where a free grid may lie: close together or as far apart as the largest operand of its region.

    Close together is centred on that operand. As far apart, equal outermost digits lie at equal places.
    """
    local = [s for s in sources if s is not None and s.region == region and s.write]
    if c.fixed or not local:
        return [c.grid]
    near = max(local, key=lambda s: (int(np.prod(s.shape)), s.grid.cores)).grid
    x0, y0, x1, y1 = near.box
    x = min(max((x0 + x1 - c.grid.columns) // 2, 0), columns - c.grid.columns)
    y = min(max((y0 + y1 - c.grid.rows) // 2, 0), rows - c.grid.rows)
    out = [replace(c.grid, x=x, y=y)]
    x, dx = _spread(near.x, near.columns, near.dx, c.grid.columns, x, columns)
    y, dy = _spread(near.y, near.rows, near.dy, c.grid.rows, y, rows)
    if dx > 1 or dy > 1:
        out.append(replace(c.grid, x=x, y=y, dx=dx, dy=dy))
    return out


def _spread(start: int, count: int, pitch: int, own: int, together: int, limit: int) -> tuple[int, int]:
    """(start, pitch) of `own` columns over the extent of `count` columns, each in the middle of its share."""
    apart = count * pitch // own
    if apart <= 1:
        return together, 1
    x = start - pitch // 2 + (count * pitch - apart * own) // 2 + apart // 2
    return min(max(x, 0), limit - (own - 1) * apart - 1), apart


def without_arrival(op: Op, c: Choice, sources: Sequence[Source | None], wafer: Wafer) -> float:
    """The choice's cycles as if every operand were already in place."""
    if not np.isfinite(c.cycles):
        return c.cycles
    extents = c.split.extents(op.axes)
    held = {a: n * c.split.time_ways(a) for a, n in extents.items()}
    constant = [s is None for s in sources]
    joined = _joined(c.split, c.part, c.grid, wafer)
    cycles, _, _ = estimate(op, extents, held, c.split.grid[2], constant, {}, joined, wafer)
    return float(cycles)


def _latest(
    op: Op, c: Choice, sources: Sequence[Source | None], region: int, wafer: Wafer, enough: float
) -> float:
    """Cycles until the choice's last operand is there; any number past `enough` where it is later."""
    latest = 0.0
    for j, s in enumerate(sources):
        if s is not None and latest <= enough:
            latest = max(latest, delivery(op, j, c.split, c.grid, s, s.region == region, wafer))
    return latest
