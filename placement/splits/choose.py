"""Choosing a split: the shortlist and all ways to follow a producer, costed by their real moves."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..cost.fabric import joining
from ..machine.wafer import Wafer
from ..plan.layout import Grid, Split
from .candidates import part_axis
from .choice import Choice, Question, Source
from .delivery_time import delivery
from .estimate import Share, demand, estimate
from .estimate import arrival as estimated_arrival
from .follow import follow
from .next_product import NOTHING, Later
from .shortlist import shortlist


def estimated(q: Question) -> Choice:
    """The split that looks best, by estimates alone."""
    found = _found(q, 1)
    return min(found, key=lambda c: (q.excess(c), c.cycles, c.grid.cores))


def choose(q: Question, later: Later = NOTHING) -> Choice:
    """The best split, by the moves that the likely ones need and by what they leave to the op ahead."""
    found = _found(q, q.site.policy.shortlist)
    best, least = None, (np.inf, np.inf, 0)
    for excess, _, cores, _, more, c in _likely(q, found, later.cycles, later.least):
        alone = without_arrival(q, c)
        # No arrival can make up for what is behind already.
        if best is None or (excess, alone + more) <= least[:2]:
            slack = least[1] - alone - more if best is not None and excess == least[0] else np.inf
            late = latest(q, c, slack, q.site.policy.tree_colours) if np.isfinite(alone) else 0.0
            total = excess, alone + more + late, cores
            if best is None or total < least:
                best, least = replace(c, cycles=alone + late), total
    assert best is not None
    return best


def considered(q: Question) -> list[Choice]:
    """What `choose` weighs where nothing comes after the op, with cycles until the result is there."""
    found = _found(q, q.site.policy.shortlist)
    return [priced(q, c.split, c.grid, c) for *_, c in _likely(q, found, lambda c: 0.0, 0.0)]


def priced(q: Question, split: Split, grid: Grid, known: Choice | None = None) -> Choice:
    """A split on a grid with its price: cycles by the moves of all its operands. known: its estimate."""
    c = known or weighed(q, split, grid)
    alone = without_arrival(q, c)
    late = latest(q, c, np.inf, q.site.policy.tree_colours) if np.isfinite(alone) else 0.0
    return replace(c, cycles=alone + late)


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


def options(q: Question, later: Later) -> list[Option]:
    """What `choose` weighs."""
    found = _found(q, q.site.policy.shortlist)
    likely = _likely(q, found, later.cycles, 0.0)
    out = [option(q, c, more) for _, _, _, _, more, c in likely]
    # What runs where an operand lies looks bad only beside operands that may have been there for long.
    more = [c for c in found if c.fixed and all(c != o.choice for o in out)]
    return out + [option(q, c, later.cycles(c)) for c in more]


def option(q: Question, c: Choice, later: float) -> Option:
    """A choice as it looks with all its real moves.

    On the shared lanes: with layer upon layer on one region the colours for trees are soon gone.
    """
    alone = without_arrival(q, c)
    arrivals = tuple(
        (j, delivery(q, j, c.split, c.grid, trees=0))
        for j, s in enumerate(q.sources)
        if s is not None and np.isfinite(alone)
    )
    return Option(c, q.excess(c), alone, arrivals, later)


def _found(q: Question, most: int) -> list[Choice]:
    """The shortlist, and the ways to run where an operand lies."""
    found = shortlist(q, most)
    for j, source in enumerate(q.sources):
        if source is not None and q.near(source) and source.known:
            own = followed(q, j, source)
            if own is not None and not any(
                c.axis in q.limits.uncut and c.side != "t" for c in own.split.cuts
            ):
                held = own.split.extents(q.op.axes)  # none is cut along time
                found.append(replace(own, working=float(q.limits.in_use(q.op, held, own.working))))
    return found


def _likely(
    q: Question, found: Sequence[Choice], later: Callable[[Choice], float], least_later: float
) -> list[tuple[float, float, int, int, float, Choice]]:
    """(excess, estimate, cores, number, cycles later, choice) of the best by their estimates, best first."""
    placed = [replace(c, grid=g) for c in found for g in spots(q, c)]
    costed = q.site.policy.costed
    kept: list[tuple[float, float, int, int, float, Choice]] = []
    first = [(q.excess(c), c.cycles, c.grid.cores, i, c) for i, c in enumerate(placed)]
    for excess, _, _, i, c in sorted(first, key=lambda f: f[:4]):
        if len(kept) == costed and (excess, c.cycles + least_later) > kept[-1][:2]:
            break  # nor can any of the others be among the best
        more = later(c)
        insort(kept, (excess, c.cycles + more, c.grid.cores, i, more, c))
        del kept[costed:]
    return kept


def followed(q: Question, operand: int, source: Source) -> Choice | None:
    """The way to run where `operand` lies."""
    op, wafer = q.op, q.site.wafer
    found = follow(op, operand, source)
    if found is None:
        return None
    split, grid = found
    aligned = [
        i == operand or (s is not None and s.grid == source.grid and follow(op, i, s) == found)
        for i, s in enumerate(q.sources)
    ]
    part = part_axis(op, split)
    axes = list(dict.fromkeys(c.axis for c in split.cuts))
    ways = np.ones((len(axes), 1, 2), np.int64)
    for c in split.cuts:
        ways[axes.index(c.axis), 0, 0 if c.side == "x" else 1] *= c.ways
    arrivals = {
        i: estimated_arrival(demand(op, i, axes, ways, 1, wafer), s, wafer)[0]
        for i, (s, local) in enumerate(zip(q.sources, aligned, strict=True))
        if s is not None and not local
    }
    joined = _joined(split, part, grid, wafer)
    figures = estimate(op, Share.of(op, split), q.kept, arrivals, joined, wafer)
    return Choice(split, grid, part, *(float(f) for f in figures), fixed=True)


def _joined(split: Split, part: str, grid: Grid, wafer: Wafer) -> Callable[[Any], Any]:
    """The cycles that it takes to join partial results over `part` on `grid`, by their wavelets."""
    return lambda wavelets: joining(wafer, split, part, grid, wavelets) if part else 0.0


def spots(q: Question, c: Choice) -> list[Grid]:
    """Where a free grid may lie: close together or as far apart as the largest operand of its region.

    Close together is centred on that operand. As far apart, equal outermost digits lie at equal places.
    """
    columns, rows = q.site.columns, q.site.rows
    local = [s for s in q.sources if s is not None and q.near(s) and s.known]
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


def without_arrival(q: Question, c: Choice) -> float:
    """The choice's cycles as if every operand were already in place."""
    if not np.isfinite(c.cycles):
        return c.cycles
    joined = _joined(c.split, c.part, c.grid, q.site.wafer)
    cycles, _, _ = estimate(q.op, Share.of(q.op, c.split), q.kept, {}, joined, q.site.wafer)
    return float(cycles)


def latest(q: Question, c: Choice, enough: float, trees: int) -> float:
    """Cycles until the choice's last operand is there; any number past `enough` where it is later."""
    late = 0.0
    for j, s in enumerate(q.sources):
        if s is not None and late <= enough:
            late = max(late, delivery(q, j, c.split, c.grid, trees))
    return late


def weighed(q: Question, split: Split, grid: Grid) -> Choice:
    """A split on a grid that is its place, its cycles those with every operand in place."""
    part, op, wafer = part_axis(q.op, split), q.op, q.site.wafer
    received = {j: 0.0 for j, s in enumerate(q.sources) if s is not None}
    joined = _joined(split, part, grid, wafer)
    figures = estimate(op, Share.of(op, split), q.kept, received, joined, wafer)
    return Choice(split, grid, part, *(float(f) for f in figures), fixed=True)
