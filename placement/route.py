"""Routes: how each move crosses the fabric, and on which colours.

Every core pair can talk over the shared lanes: static routes of one hop and of `express` hops in
each of four directions, in two colours each so that neighbours alternate; a task relays at every
stop (lanes pass straight through a dead core's router). They take colours 0 to 15 of every router
once and for all. The other colours go to multicast trees that need no relay, where few colours serve
all sources of a move; the moves that gain most choose first.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .layout import Ints
from .move import HOST, Detour, Move, records
from .plan import Plan, Step
from .wafer import LINKS, STEP, Wafer

LANES = 16  # colours of the shared lanes: 4 directions x 2 lengths x 2 alternating


class Unroutable(ValueError):
    """Dead links cut a source off from its consumer."""


@dataclass(frozen=True)
class _Ends:
    """Physical coordinates of all records of a move, and the producer columns and rows."""

    sx: Ints
    sy: Ints
    dx: Ints
    dy: Ints
    column: Ints
    row: Ints

    @property
    def local(self) -> bool:
        return bool(((self.sx == self.dx) & (self.sy == self.dy)).all())


def _ends(plan: Plan, step: Step, producer: Step, move: Move) -> _Ends:
    w = plan.wafer.width
    target = plan.regions[step.region].on(step.grid).ravel().astype(np.int64)
    source = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)
    pairs: list[Ints] = []
    for r in records(move, step.grid, 1 << 22):
        pairs.append(np.unique(r.source * len(target) + r.target))
    every = np.unique(np.concatenate(pairs)) if pairs else np.zeros(0, np.int64)
    number, consumer = every // max(1, len(target)), every % max(1, len(target))
    s, d = source[number], target[consumer]
    return _Ends(
        s % w, s // w, d % w, d // w, number % producer.grid.columns, number // producer.grid.columns
    )


def colour_intervals(lo: Ints, hi: Ints) -> Ints:
    """Colours of intervals [lo, hi] such that overlapping ones differ: as few as overlap at a point."""
    out = np.zeros(len(lo), np.int64)
    ends: list[int] = []  # by colour: where its last interval ends
    for i in np.argsort(lo, kind="stable"):
        free = next((c for c, end in enumerate(ends) if end < lo[i]), None)
        if free is None:
            free = len(ends)
            ends.append(0)
        ends[free] = int(hi[i])
        out[i] = free
    return out


def _reach(at: Ints, number: Ints, target: Ints, count: int) -> tuple[Ints, Ints]:
    """For each of `count` producer columns (or rows) the span of its position and its targets."""
    lo = np.full(count, np.iinfo(np.int64).max)
    hi = np.full(count, -1)
    np.minimum.at(lo, number, np.minimum(at, target))
    np.maximum.at(hi, number, np.maximum(at, target))
    idle = hi < 0
    # A column without records needs no colour: an empty span far away from the others.
    lo[idle], hi[idle] = 1 << 40, 1 << 40
    return lo, hi


@dataclass(frozen=True)
class _Tree:
    """A move that could be trees: its colours, box, shape and what it would gain."""

    key: tuple[int, int, int]  # step position, operand (-1: the step's own), move
    colour_x: Ints
    colour_y: Ints
    colours: int
    box: tuple[int, int, int, int]
    shape: str
    gain: float


def routed(plan: Plan) -> Plan:
    """The plan with a route for each move. Raises Unroutable where dead links cut cores off."""
    by_result = {s.result: s for s in plan.steps if s.kind != "update"}
    dead = _DeadLinks(plan.wafer) if plan.wafer.dead_links else None
    irregular = bool(plan.wafer.dead_cores)
    trees: list[_Tree] = []
    new: dict[tuple[int, int, int], Move] = {}
    for s in plan.steps:
        for key, m in _moves(s):
            producer = by_result[m.source]
            e = _ends(plan, s, producer, m)
            detours = dead.detours(e) if dead else ()
            m = replace(m, detours=detours)
            if e.local:
                m = replace(m, route="local")
            elif m.route != "join" and not irregular and not detours:
                trees.append(_tree(plan, key, producer, e))
            new[key] = m
    for key, (x, y) in _assign(plan.wafer, trees).items():
        new[key] = replace(new[key], route="tree", colour_x=x, colour_y=y)
    return replace(plan, steps=tuple(_with(s, new) for s in plan.steps))


def _moves(step: Step) -> list[tuple[tuple[int, int, int], Move]]:
    out = [((step.position, j, k), m) for j, o in enumerate(step.operands) for k, m in enumerate(o.moves)]
    out += [((step.position, -1, k), m) for k, m in enumerate(step.moves)]
    return [(key, m) for key, m in out if m.source != HOST]


def _with(step: Step, new: dict[tuple[int, int, int], Move]) -> Step:
    p = step.position
    operands = tuple(
        replace(o, moves=tuple(new.get((p, j, k), m) for k, m in enumerate(o.moves)))
        for j, o in enumerate(step.operands)
    )
    return replace(step, operands=operands, moves=tuple(new.get((p, -1, k), m) for k, m in enumerate(step.moves)))


def _tree(plan: Plan, key: tuple[int, int, int], producer: Step, e: _Ends) -> _Tree:
    g = producer.grid
    x = colour_intervals(*_reach(e.sx, e.column, e.dx, g.columns))
    y = colour_intervals(*_reach(e.sy, e.row, e.dy, g.rows))
    ways_y = int(y.max(initial=0)) + 1
    colours = (int(x.max(initial=0)) + 1) * ways_y
    box = (
        int(min(e.sx.min(), e.dx.min())),
        int(min(e.sy.min(), e.dy.min())),
        int(max(e.sx.max(), e.dx.max())),
        int(max(e.sy.max(), e.dy.max())),
    )
    shape = hashlib.sha256(np.stack([e.sx, e.sy, e.dx, e.dy]).tobytes()).hexdigest()
    hops = float((np.abs(e.sx - e.dx) + np.abs(e.sy - e.dy)).max())
    return _Tree(key, x * ways_y, y, colours, box, shape, float(plan.wafer.relayed(hops)))


def _assign(wafer: Wafer, trees: Sequence[_Tree]) -> dict[tuple[int, int, int], tuple[Ints, Ints]]:
    """Colours for as many moves as they last, those that gain most first.

    Two moves share a colour if their boxes are apart, or if they are the same trees (the same
    configuration of every router) in different steps.
    """
    out: dict[tuple[int, int, int], tuple[Ints, Ints]] = {}
    taken: list[tuple[_Tree, int]] = []
    for t in sorted(trees, key=lambda t: (-t.gain, t.colours, t.key)):
        if t.gain <= 0 and t.colours > 1:
            continue
        for first in range(LANES, wafer.colours - t.colours + 1):
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


class _DeadLinks:
    """Which paths meet a dead link, and ways around."""

    def __init__(self, wafer: Wafer) -> None:
        self.wafer = wafer
        self.dead = {(x, y, d) for x, y, d in wafer.dead_links}
        count = {d: np.zeros((wafer.height + 1, wafer.width + 1), np.int64) for d in LINKS}
        for x, y, d in self.dead:
            count[d][y, x] = 1
        # before[d][y, x]: dead links of direction d left of x in row y (or above y in column x).
        self.row = {d: np.cumsum(np.pad(count[d], ((0, 0), (1, 0))), 1) for d in ("east", "west")}
        self.column = {d: np.cumsum(np.pad(count[d], ((1, 0), (0, 0))), 0) for d in ("south", "north")}

    def along_row(self, y: Any, x0: Any, x1: Any) -> Any:
        """Dead links on the way from (x0, y) to (x1, y)."""
        east = self.row["east"][y, np.maximum(x0, x1)] - self.row["east"][y, x0]
        west = self.row["west"][y, x0 + 1] - self.row["west"][y, np.minimum(x0, x1) + 1]
        return np.where(x1 >= x0, east, west)

    def along_column(self, x: Any, y0: Any, y1: Any) -> Any:
        south = self.column["south"][np.maximum(y0, y1), x] - self.column["south"][y0, x]
        north = self.column["north"][y0 + 1, x] - self.column["north"][np.minimum(y0, y1) + 1, x]
        return np.where(y1 >= y0, south, north)

    def detours(self, e: _Ends) -> tuple[Detour, ...]:
        """For each record whose path along the row, then the column, meets a dead link, another."""
        bad = (self.along_row(e.sy, e.sx, e.dx) + self.along_column(e.dx, e.sy, e.dy)) > 0
        out: list[Detour] = []
        w = self.wafer.width
        for i in np.flatnonzero(bad):
            s, t = (int(e.sx[i]), int(e.sy[i])), (int(e.dx[i]), int(e.dy[i]))
            corners: tuple[tuple[int, int], ...] | None = (s, (s[0], t[1]), t)
            if int(self.along_column(s[0], s[1], t[1])) + int(self.along_row(t[1], s[0], t[0])):
                corners = self._around(s, t)
            if corners is None:
                raise Unroutable(f"dead links cut core {t} off from core {s} on wafer {self.wafer.name}")
            out.append(Detour(s[1] * w + s[0], t[1] * w + t[0], corners))
        return tuple(out)

    def _around(self, s: tuple[int, int], t: tuple[int, int]) -> tuple[tuple[int, int], ...] | None:
        """A shortest path over live links, as its corners."""
        back: dict[tuple[int, int], tuple[int, int]] = {s: s}
        queue = deque([s])
        while queue and t not in back:
            x, y = queue.popleft()
            for d in LINKS:
                n = (x + STEP[d][0], y + STEP[d][1])
                inside = 0 <= n[0] < self.wafer.width and 0 <= n[1] < self.wafer.height
                if inside and n not in back and (x, y, d) not in self.dead:
                    back[n] = (x, y)
                    queue.append(n)
        if t not in back:
            return None
        path = [t]
        while path[-1] != s:
            path.append(back[path[-1]])
        path.reverse()
        corners = [s]
        for a, b, c in zip(path, path[1:], path[2:], strict=False):
            if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1]):
                corners.append(b)
        return (*corners, t)
