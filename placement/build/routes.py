"""Routes: how each move crosses the fabric, and on which colours.

Every core pair can talk over the shared lanes: static routes of one hop and of `express` hops in
each of four directions, in two colours each so that neighbours alternate; a task relays at every
stop (lanes pass straight through a dead core's router). They take colours 0 to 15 of every router
once and for all, reductions and the host the last ones (`plan/colours.py`). The other colours go to multicast
trees that need no relay, where few colours serve all sources of a move; the moves that gain most choose
first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..cost.reach import NOWHERE, Ends, depth, ends_of
from ..plan.colours import for_trees
from ..plan.layout import Ints
from ..plan.move import HOST, Move
from ..plan.plan import Plan, Step
from .detours import DeadLinks

Key = tuple[int, int, int]  # of a move: step position, operand (-1: the step's own), number


@dataclass(frozen=True)
class _Way:
    """A move on its way from its producer to its step."""

    key: Key
    step: Step
    producer: Step
    move: Move


@dataclass(frozen=True)
class _Tree:
    """A move that could be trees: its colours, box, shape and what it would gain.

    urgent: cycles that it would gain on the critical path.
    """

    key: Key
    colour_x: Ints
    colour_y: Ints
    colours: int
    box: tuple[int, int, int, int]
    shape: str
    gain: float
    urgent: float


def routed(plan: Plan) -> Plan:
    """The plan with a route for each move. Raises Unroutable where dead links cut cores off."""
    by_result = {s.result: s for s in plan.steps if s.kind != "update"}
    dead = DeadLinks(plan.wafer) if plan.wafer.dead_links else None
    irregular = bool(plan.wafer.dead_cores)
    free = for_trees(plan.wafer, plan.steps)
    trees: list[_Tree] = []
    new: dict[Key, Move] = {}
    for s in plan.steps:
        for key, m in _moves(s):
            producer = by_result[m.source]
            if m.route != "join":
                m = replace(m, route="relay", colour_x=None, colour_y=None)
            if dead is not None:
                m = replace(m, detours=dead.detours(plan, s, producer, m))
            if not irregular:
                x, y = (ends_of(plan, s, producer, m, side) for side in ("x", "y"))
                if m.route != "join" and x.still and y.still:
                    m = replace(m, route="local")
                elif m.route != "join" and not m.detours:
                    trees += _tree(plan, _Way(key, s, producer, m), x, y, len(free))
            new[key] = m
    for key, (x, y) in _assign(free, trees).items():
        new[key] = replace(new[key], route="tree", colour_x=x, colour_y=y)
    return replace(plan, steps=tuple(_with(s, new) for s in plan.steps))


def _moves(step: Step) -> list[tuple[Key, Move]]:
    out = [((step.position, j, k), m) for j, o in enumerate(step.operands) for k, m in enumerate(o.moves)]
    out += [((step.position, -1, k), m) for k, m in enumerate(step.moves)]
    return [(key, m) for key, m in out if m.source != HOST]


def _with(step: Step, new: dict[Key, Move]) -> Step:
    p = step.position
    operands = tuple(
        replace(o, moves=tuple(new.get((p, j, k), m) for k, m in enumerate(o.moves)))
        for j, o in enumerate(step.operands)
    )
    return replace(
        step, operands=operands, moves=tuple(new.get((p, -1, k), m) for k, m in enumerate(step.moves))
    )


def _tree(plan: Plan, way: _Way, ex: Ends, ey: Ends, most: int) -> list[_Tree]:
    """The move as trees, if it needs no more colours than there are for trees."""
    if depth(*ex.spans()) * depth(*ey.spans()) > most:
        return []
    x, y = (colour_intervals(*e.spans()) for e in (ex, ey))
    ways_y = int(y.max(initial=0)) + 1
    colours = (int(x.max(initial=0)) + 1) * ways_y
    (x0, x1), (y0, y1) = (
        (int(min(e.at.min(), e.to.min())), int(max(e.at.max(), e.to.max()))) for e in (ex, ey)
    )
    step = way.step
    shape = _configuration(way, ex, ey)
    hops = float(ex.distance.max(initial=0) + ey.distance.max(initial=0))
    relays = float(plan.wafer.relayed(hops))
    urgent = relays if (step.node, way.key[1]) in plan.urgent else 0.0
    gain = relays * step.grid.cores
    return [_Tree(way.key, x * ways_y, y, colours, (x0, y0, x1, y1), shape, gain, urgent)]


def _configuration(way: _Way, ex: Ends, ey: Ends) -> str:
    """The same for two moves only if their trees, coloured alike, configure every router alike.

    Where each side of the grid decides by itself who hears whom along it, the wafer coordinates of those
    pairs say all; else equal ends and equal tables do.
    """
    if _apart(way.move, way.producer.grid.columns):
        tables = [np.unique(np.stack([e.at[e.source], e.to[e.target]]), axis=1) for e in (ex, ey)]
        where = repr([a.shape for a in tables])
    else:
        tables = [a for d in way.move.dims for a in (d.x, d.y, d.t, d.start, d.core)]
        step, producer = way.step, way.producer
        where = repr((step.region, step.grid, producer.region, producer.grid, [len(a) for a in tables]))
    return hashlib.sha256(where.encode() + b"".join(a.tobytes() for a in tables)).hexdigest()


def _apart(move: Move, columns: int) -> bool:
    """Whether columns alone decide which columns hear one another, and rows which rows do."""
    for d in move.dims:
        if d.x.any() and d.y.any() and not np.diff(d.start).all():
            return False  # a core past the end hears nothing, others of its column and its row do
        if d.x.any() and (d.core // columns).any():
            return False
        if d.y.any() and (d.core % columns).any():
            return False
    return True


def _assign(free: range, trees: Sequence[_Tree]) -> dict[Key, tuple[Ints, Ints]]:
    """Colours for as many moves as they last, those first that gain most: for the call, then for all cores.

    Two moves share a colour if their boxes are apart, or if they are the same trees (the same
    configuration of every router) in different steps.
    """
    out: dict[Key, tuple[Ints, Ints]] = {}
    taken: list[tuple[_Tree, int]] = []
    urgent: dict[str, float] = {}
    for t in trees:
        urgent[t.shape] = urgent.get(t.shape, 0.0) + t.urgent
    for t in sorted(trees, key=lambda t: (-urgent[t.shape] / t.colours, -t.gain, t.colours, t.key)):
        if t.gain <= 0 and t.colours > 1:
            continue
        for first in range(free.start, free.stop - t.colours + 1):
            if all(_compatible(t, first, other, at) for other, at in taken):
                taken.append((t, first))
                out[t.key] = (t.colour_x + first, t.colour_y)
                break
    return out


def _compatible(t: _Tree, first: int, other: _Tree, at: int) -> bool:
    if first + t.colours <= at or at + other.colours <= first:
        return True
    a, b = t.box, other.box
    if a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]:
        return True
    return t.shape == other.shape and first == at and t.key[0] != other.key[0]


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
