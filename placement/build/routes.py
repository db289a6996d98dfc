"""Routes: how each move crosses the fabric, and on which colours.

Every core pair can talk over the shared lanes: static routes of one hop and of `express` hops in
each of four directions, in two colours each so that neighbours alternate; a task relays at every
stop (lanes pass straight through a dead core's router). Where moves relay or sum, routers keep these
colours (`plan/colours.py`); wherever they do not, and in all others but the host's, lie multicast
trees that need no relay, where few colours serve all sources of a move; the moves that gain most choose
first. Two moves share a colour where no router would have to do two things (`routers.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..cost.reach import NOWHERE, Ends, depth, ends_of
from ..plan.colours import HOST as HOST_COLOURS
from ..plan.layout import Ints
from ..plan.move import HOST, Move
from ..plan.plan import Plan, Step
from .detours import DeadLinks
from .routers import Colours, Lanes, Passage, apart, lane_passages, sum_passages, tree_passages

ROUNDS = 8  # of choosing colours, before all lanes are kept everywhere
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
    """A move that could be trees: its colours and what they pass, and what it would gain.

    passages: by colour. urgent: cycles that it would gain on the critical path. lanes: what it passes else.
    """

    key: Key
    colour_x: Ints
    colour_y: Ints
    passages: tuple[Passage, ...]
    gain: float
    urgent: float
    lanes: Lanes


def routed(plan: Plan) -> Plan:
    """The plan with a route for each move. Raises Unroutable where dead links cut cores off."""
    by_result = {s.result: s for s in plan.steps if s.kind != "update"}
    dead = DeadLinks(plan.wafer) if plan.wafer.dead_links else None
    colours = Colours(plan.wafer)
    trees: list[_Tree] = []
    new: dict[Key, Move] = {}
    for s in plan.steps:
        for key, m in _moves(s):
            producer = by_result[m.source]
            if m.route != "join":
                m = replace(m, route="relay", colour_x=None, colour_y=None)
            if dead is not None:
                m = replace(m, detours=dead.detours(plan, s, producer, m))
            if not plan.wafer.dead_cores:
                x, y = (ends_of(plan, s, producer, m, side) for side in ("x", "y"))
                if m.route == "join" and m.detours:
                    colours.sum_everywhere()
                elif m.route == "join":
                    colours.sum(sum_passages(x, y))
                elif x.still and y.still:
                    m = replace(m, route="local")
                elif m.detours:
                    colours.relay_everywhere()
                elif (tree := _tree(plan, _Way(key, s, producer, m), x, y)) is not None:
                    trees.append(tree)
                else:
                    colours.relay(lane_passages(x, y, plan.wafer.express))
            new[key] = m
    for key, (x, y) in _assign(colours, trees).items():
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


def _tree(plan: Plan, way: _Way, ex: Ends, ey: Ends) -> _Tree | None:
    """The move as trees, if it needs no more colours than a router has."""
    if depth(*ex.spans()) * depth(*ey.spans()) > plan.wafer.colours - HOST_COLOURS:
        return None
    x, y = (colour_intervals(*e.spans()) for e in (ex, ey))
    together = "" if apart(way.move.dims, ex, ey) else _tables(way)
    step = way.step
    relays = float(plan.wafer.relayed(float(ex.distance.max(initial=0) + ey.distance.max(initial=0))))
    urgent = relays if (step.node, way.key[1]) in plan.urgent else 0.0
    return _Tree(
        way.key,
        x * (int(y.max(initial=0)) + 1),
        y,
        tree_passages(ex, ey, x, y, together),
        relays * step.grid.cores,
        urgent,
        lane_passages(ex, ey, plan.wafer.express),
    )


def _tables(way: _Way) -> str:
    """The same for two moves whose tables and grids are the same: then their trees are."""
    tables = [a for d in way.move.dims for a in (d.x, d.y, d.t, d.start, d.core)]
    step, producer = way.step, way.producer
    where = repr((step.region, step.grid, producer.region, producer.grid, [len(a) for a in tables]))
    return hashlib.sha256(where.encode() + b"".join(a.tobytes() for a in tables)).hexdigest()


def _assign(colours: Colours, trees: Sequence[_Tree]) -> dict[Key, tuple[Ints, Ints]]:
    """Colours for as many moves as they last, those first that gain most: for the call, then for all cores.

    Moves whose trees are the same choose together. What finds none relays; if others have its lanes' colours
    somewhere all choose once more, that move the first of all, or not at all if it needs many.
    """
    left = _alike(trees)
    first: list[list[_Tree]] = []
    for _ in range(ROUNDS):
        chosen, stuck = _chosen(colours.copy(), first + left)
        if not stuck:
            return chosen
        few = [same for same in stuck if same in left and len(same[0].passages) == 1]
        for same in stuck:
            if same not in few:
                colours.relay(same[0].lanes)
        first, left = ([same for same in some if same not in stuck] for some in (first, left))
        first = few + first
    colours.relay_everywhere()
    return _chosen(colours, first + left)[0]


def _alike(trees: Sequence[_Tree]) -> list[list[_Tree]]:
    """The moves whose trees are the same in different steps, those that gain most before others."""
    alike: dict[tuple[tuple[Passage, ...], int], list[_Tree]] = {}
    for t in trees:
        n = 0  # two of one step are at once
        while (t.passages, n) in alike and alike[t.passages, n][-1].key[0] == t.key[0]:
            n += 1
        alike.setdefault((t.passages, n), []).append(t)

    def merit(same: list[_Tree]) -> tuple[float, float, int, Key]:
        colours = len(same[0].passages)
        return -sum(t.urgent for t in same) / colours, -same[0].gain, colours, same[0].key

    return sorted(alike.values(), key=merit)


def _chosen(
    colours: Colours, every: Sequence[list[_Tree]]
) -> tuple[dict[Key, tuple[Ints, Ints]], list[list[_Tree]]]:
    """(colours of the moves that find some, what neither does nor can relay), each of `every` after those
    before it."""
    out: dict[Key, tuple[Ints, Ints]] = {}
    stuck: list[list[_Tree]] = []
    for same in every:
        t, steps = same[0], frozenset(t.key[0] for t in same)
        useful = t.gain > 0 or len(t.passages) == 1
        if useful and (first := colours.take(t.passages, steps)) is not None:
            out |= {t.key: (t.colour_x + first, t.colour_y) for t in same}
        elif not colours.relays(t.lanes):
            stuck.append(same)
    return out, stuck


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
