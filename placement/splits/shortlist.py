"""The shortlist: the enumerated splits of an op that look best, their cycles and bytes estimated at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..plan.layout import Cut, Grid, Split
from .candidates import Candidates, dense, enumerate_cuts, part_axis, to_split
from .choice import Choice, Question, tile_elements
from .estimate import SIDES, Share, arrival, cut_extents, demand, estimate, joining_parts


def shortlist(q: Question, most: int) -> list[Choice]:
    """At most `most` enumerated splits, best estimate first; at least one.

    Cuts along time are tried only where no cut in space keeps to the limits, of two axes only where
    memory is tight.
    """
    limits, policy = q.limits, q.site.policy
    c = enumerate_cuts(q.op, q.site.columns, q.site.rows, policy, limits.tight, limits.uncut)
    found = _best(q, c, {}, most)
    best = found[0]
    if best.resident <= limits.resident and best.working > limits.working and not limits.tight:
        found += _in_time(q, c, [{a: w} for a in c.axes for w in policy.time_ways])
    elif limits.tight and q.excess(best) > 1:
        c = _sparing(q, c)
        one = [{a: w} for a in c.axes for w in policy.tight_time_ways]
        two = [{**a, **b} for i, a in enumerate(one) for b in one[:i] if a.keys() != b.keys()]
        for ways in (one, two):
            if min(map(q.excess, found)) > 1:
                found += _in_time(q, c, ways)
    found.sort(key=lambda f: (q.excess(f), f.cycles))
    return found[:most]


def _in_time(q: Question, c: Candidates, steps: Sequence[Mapping[str, int]]) -> list[Choice]:
    """The best candidates for each of `steps`, which are cuts along time."""
    possible = [t for t in steps if all(w <= q.op.size[a] for a, w in t.items())]
    return [f for t in possible for f in _best(q, c, t, 2)]


def _sparing(q: Question, c: Candidates) -> Candidates:
    """The candidates whose constants and results keep closest to the limits: no cut in time shrinks them."""
    op = q.op
    _, tiles = cut_extents(op, c, {})
    resident: Any = sum(
        tile_elements(access, tiles) * dtype.bytes
        for access, dtype, kept in zip(op.reads, op.in_types, q.kept, strict=True)
        if kept
    )
    over = q.limits.excess(resident, tile_elements(op.write, tiles) * op.out_type.bytes)
    keep = np.broadcast_to(over <= np.min(over), c.ways.shape[1])
    return Candidates(c.axes, c.ways[:, keep])


def _first(of: Any, most: int, excess: Any, cycles: Any, cores: Any) -> Any:
    """The first `most` of the candidates `of` in order of excess, cycles and cores, ties by number."""
    for key in (excess, cycles):
        if len(of) <= most:
            break
        of = of[key[of] <= np.partition(key[of], most - 1)[most - 1]]  # none of the others is among them
        if key[of].min() < key[of].max():
            break  # what they differ in comes first
    return of[np.lexsort((cores[of], cycles[of], excess[of]))][:most]


def _best(q: Question, c: Candidates, time: Mapping[str, int], most: int) -> list[Choice]:
    """The best candidates when the axes of `time` are cut along time besides."""
    op, limits, wafer, n = q.op, q.limits, q.site.wafer, c.ways.shape[1]
    cut, tiles = cut_extents(op, c, time)
    held = {a: extent * time.get(a, 1) for a, extent in tiles.items()}
    space = {a: ways // time.get(a, 1) for a, ways in cut.items()}
    steps = int(np.prod(list(time.values())))
    arrivals = {
        j: arrival(demand(op, j, c.axes, c.ways, steps, wafer), s, wafer)
        for j, s in enumerate(q.sources)
        if s is not None
    }
    joined = joining_parts(op, space, wafer)
    cycles, resident, working = estimate(op, Share(tiles, held, steps), q.kept, arrivals, joined, wafer)
    working = limits.in_use(op, held, working)
    cycles = np.broadcast_to(np.asarray(cycles, float), (n,))
    resident = np.broadcast_to(np.asarray(resident, float), (n,))
    working = np.broadcast_to(np.asarray(working, float), (n,))
    legal = np.broadcast_to(np.asarray(dense(op.write, tiles, cut)), (n,))
    legal = legal & np.all([cut[a] <= op.size[a] for a in time] or [np.ones(n, np.bool_)], axis=0)
    excess = limits.excess(resident, working)
    cores = c.ways.prod((0, 2))
    out: list[Choice] = []
    for i in _first(np.flatnonzero(legal), most, excess, cycles, cores):
        figures = float(cycles[i]), float(resident[i]), float(working[i])
        cuts = dict.fromkeys(to_split(op, c.axes, c.ways[:, i], outer).cuts for outer in SIDES)
        for own in cuts:
            split = Split((*own, *(Cut(a, "t", w) for a, w in time.items())))
            gw, gh, _ = split.grid
            out.append(Choice(split, Grid(gw, gh), part_axis(op, split), *figures))
    return out or [Choice(Split(), Grid(1, 1), "", np.inf, np.inf, np.inf)]
