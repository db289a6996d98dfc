"""Judging routes: live links, whole paths, and colours that mean one thing at each router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..machine.wafer import LINKS, STEP, Wafer
from ..plan.layout import Ints
from ..plan.move import Move, records
from ..plan.plan import Plan, Step
from .verdict import IllegalPlan, Index, core_name, step_name

LANE_COLOURS = 16  # of every router, once a move relays or joins
RAMP, EAST, WEST, SOUTH, NORTH = 1, 2, 4, 8, 16  # outputs of a router
FROM = {"ramp": 1 << 5, "west": 2 << 5, "east": 3 << 5, "north": 4 << 5, "south": 5 << 5}  # its one input


@dataclass(frozen=True)
class _Pairs:
    """The distinct (producer core, consumer core) pairs of a move.

    number: the producer's grid number. source, target: physical cores. sx, sy, dx, dy: where they lie.
    """

    number: Ints
    source: Ints
    target: Ints
    sx: Ints
    sy: Ints
    dx: Ints
    dy: Ints


def judge_routes(plan: Plan, index: Index) -> None:
    """Raises IllegalPlan unless every record has a whole path over live links, and colours agree."""
    links = _Links(plan.wafer)
    colours = _Colours(plan)
    for s in plan.steps:
        trees: list[_Visits] = []
        for m in [m for o in s.operands for m in o.moves] + list(s.moves):
            producer = index.owner[m.source]
            where = f"{step_name(s)}: {m.route} from {step_name(producer)}"
            if m.route not in ("local", "tree", "relay", "join"):
                raise IllegalPlan(f"{where}: no route between cores")
            if m.route == "join" and m.combine is None:
                raise IllegalPlan(f"{where}: joins nothing")
            if m.route in ("relay", "join"):
                colours.reserve_lanes(where)
            if m.route in ("relay", "join") and not (links.any or m.detours):
                continue
            pairs = _pairs_of(plan, s, producer, m)
            if m.route == "local":
                _judge_local(plan, where, pairs)
            elif m.route == "tree":
                trees.append(_visits(plan, where, producer, m, pairs))
            else:
                _judge_paths(plan, where, m, pairs, links)
        if trees:
            colours.take(s, trees, links)
    colours.judge_lanes()


def _pairs_of(plan: Plan, step: Step, producer: Step, move: Move) -> _Pairs:
    target = plan.regions[step.region].on(step.grid).ravel().astype(np.int64)
    source = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)
    found = [_distinct(r.source * len(target) + r.target) for r in records(move, step.grid)]
    every = _distinct(np.concatenate(found)) if found else np.zeros(0, np.int64)
    number, consumer = np.divmod(every, max(1, len(target)))
    s, d, w = source[number], target[consumer], plan.wafer.width
    return _Pairs(number, s, d, s % w, s // w, d % w, d // w)


def _distinct(values: Ints) -> Ints:
    """Sorted, each once (by sorting: NumPy's own way hashes, which takes ten times as long here)."""
    ordered = np.sort(values)
    return ordered[np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]]


def _judge_local(plan: Plan, where: str, pairs: _Pairs) -> None:
    away = np.flatnonzero(pairs.source != pairs.target)
    if len(away):
        i = int(away[0])
        source, target = core_name(plan, int(pairs.source[i])), core_name(plan, int(pairs.target[i]))
        raise IllegalPlan(f"{where}: leaves {source} for {target}")


# -- links ----------------------------------------------------------------------------------------


class _Links:
    """Dead links, summed along rows and columns: before[d][y, x] counts those left of x (or above y)."""

    def __init__(self, wafer: Wafer) -> None:
        self.any = bool(wafer.dead_links)
        self.dead = set(wafer.dead_links)
        self.outputs = np.zeros(wafer.cores, np.uint8)  # dead outputs by core
        if not self.any:
            return
        grid = {d: np.zeros((wafer.height + 1, wafer.width + 1), np.int64) for d in LINKS}
        bit = {"east": EAST, "west": WEST, "south": SOUTH, "north": NORTH}
        for x, y, d in self.dead:
            grid[d][y + (d in ("south", "north")), x + (d in ("east", "west"))] = 1
            self.outputs[y * wafer.width + x] |= bit[d]
        self.before = {d: np.cumsum(g, 0 if d in ("south", "north") else 1) for d, g in grid.items()}

    def crossed(self, sx: Any, sy: Any, dx: Any, dy: Any) -> Any:
        """Dead links on the way along row sy from sx to dx, then along column dx from sy to dy."""
        east, west, south, north = (self.before[d] for d in LINKS)
        row = np.where(dx > sx, east[sy, dx] - east[sy, sx], west[sy, sx + 1] - west[sy, dx + 1])
        column = np.where(dy > sy, south[dy, dx] - south[sy, dx], north[sy + 1, dx] - north[dy + 1, dx])
        return row + column

    def first(self, corners: Sequence[tuple[int, int]]) -> str:
        """The first dead link on a path, as text."""
        for (x, y), end in pairwise(corners):
            d = _direction((x, y), end)
            while d and (x, y) != end:
                if (x, y, d) in self.dead:
                    return f"dead link {d} of core ({x}, {y})"
                x, y = x + STEP[d][0], y + STEP[d][1]
        return "no dead link"


def _direction(a: tuple[int, int], b: tuple[int, int]) -> str:
    """The direction from a to b along one axis; "" where there is none."""
    sign = ((b[0] > a[0]) - (b[0] < a[0]), (b[1] > a[1]) - (b[1] < a[1]))
    return next((d for d in LINKS if STEP[d] == sign), "")


def _judge_paths(plan: Plan, where: str, move: Move, pairs: _Pairs, links: _Links) -> None:
    """All records along the row, then the column, or along their detours, over live links."""
    usual = np.ones(len(pairs.source), np.bool_)
    w, h = plan.wafer.width, plan.wafer.height
    for detour in move.detours:
        usual &= (pairs.source != detour.source) | (pairs.target != detour.target)
        c = detour.corners
        ends = f"detour from {core_name(plan, detour.source)} to {core_name(plan, detour.target)}"
        numbers = [y * w + x for x, y in c]
        if len(c) < 2 or (numbers[0], numbers[-1]) != (detour.source, detour.target):
            raise IllegalPlan(f"{where}: {ends} goes from {c[:1]} to {c[-1:]}")
        for a, b in pairwise(c):
            if not (0 <= b[0] < w and 0 <= b[1] < h):
                raise IllegalPlan(f"{where}: {ends} leaves the wafer's {w}x{h} at core {b}")
            if not _direction(a, b):
                raise IllegalPlan(f"{where}: {ends} is cut between cores {a} and {b}")
        if links.any and (found := links.first(c)) != "no dead link":
            raise IllegalPlan(f"{where}: {ends} uses {found}")
    if not links.any:
        return
    crossed = links.crossed(pairs.sx, pairs.sy, pairs.dx, pairs.dy)
    bad = np.flatnonzero(usual & (crossed > 0))
    if len(bad):
        i = int(bad[0])
        s, d = (int(pairs.sx[i]), int(pairs.sy[i])), (int(pairs.dx[i]), int(pairs.dy[i]))
        raise IllegalPlan(
            f"{where}: the path from core {s} to core {d} uses {links.first((s, (d[0], s[1]), d))}"
        )


# -- trees and colours ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Visits:
    """Every router that a move's trees pass: core, colour, and its configuration there."""

    where: str
    core: Ints
    colour: Ints
    configuration: Any  # uint8


def _spread(length: Ints) -> tuple[Ints, Ints]:
    """For runs of these lengths: the run's number and the place in it, of every element."""
    run = np.repeat(np.arange(len(length), dtype=np.int64), length)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(length) - length, length)


def _visits(plan: Plan, where: str, producer: Step, move: Move, pairs: _Pairs) -> _Visits:
    """The trees of a move, painted: along each source's row, then along its targets' columns."""
    w, grid = plan.wafer.width, producer.grid
    if move.colour_x is None or move.colour_y is None or move.detours:
        raise IllegalPlan(f"{where}: a tree needs colours and takes no detour ({len(move.detours)} given)")
    if (len(move.colour_x), len(move.colour_y)) != (grid.columns, grid.rows):
        raise IllegalPlan(
            f"{where}: colours for {len(move.colour_x)}x{len(move.colour_y)} cores, the producer has "
            f"{grid.columns}x{grid.rows}"
        )
    away = pairs.source != pairs.target
    number, sx, sy, dx, dy = (a[away] for a in (pairs.number, pairs.sx, pairs.sy, pairs.dx, pairs.dy))
    tree, first, of = np.unique(number, return_index=True, return_inverse=True)
    x, y = sx[first], sy[first]
    colour = np.asarray(move.colour_x)[tree % grid.columns] + np.asarray(move.colour_y)[tree // grid.columns]
    west, east = x.copy(), x.copy()
    np.minimum.at(west, of, dx)
    np.maximum.at(east, of, dx)
    branch, first, at = np.unique(of * w + dx, return_index=True, return_inverse=True)
    of_branch, bx = np.divmod(branch, w)
    north, south = y[of_branch], y[of_branch]
    np.minimum.at(north, at, dy)
    np.maximum.at(south, at, dy)
    by = y[of_branch]
    total = int((east - west + 1).sum() + (south - north).sum())
    if total > plan.wafer.colours * plan.wafer.cores:
        raise IllegalPlan(
            f"{where}: {total} passages of routers, {plan.wafer.cores} routers have "
            f"{plan.wafer.colours} colours"
        )
    # Along the rows.
    run, place = _spread(east - west + 1)
    tx = west[run] + place
    start = np.cumsum(east - west + 1) - (east - west + 1)
    trunk = np.where(tx == x[run], FROM["ramp"], np.where(tx > x[run], FROM["west"], FROM["east"]))
    trunk |= np.where((tx >= x[run]) & (tx < east[run]), EAST, 0)
    trunk |= np.where((tx <= x[run]) & (tx > west[run]), WEST, 0)
    on_trunk = start[of_branch] + bx - west[of_branch]
    np.bitwise_or.at(trunk, on_trunk, np.where(south > by, SOUTH, 0) | np.where(north < by, NORTH, 0))
    # Down and up the columns.
    down, step = _spread(south - by)
    down_start = np.cumsum(south - by) - (south - by)
    below = FROM["north"] | np.where(step + 1 < (south - by)[down], SOUTH, 0)
    up, rise = _spread(by - north)
    up_start = np.cumsum(by - north) - (by - north)
    above = FROM["south"] | np.where(rise + 1 < (by - north)[up], NORTH, 0)
    # Off the ramps of the targets.
    level, lower, higher = dy == sy, dy > sy, dy < sy
    trunk[on_trunk[at[level]]] |= RAMP
    below[down_start[at[lower]] + (dy - sy)[lower] - 1] |= RAMP
    above[up_start[at[higher]] + (sy - dy)[higher] - 1] |= RAMP
    cores = np.concatenate(
        [y[run] * w + tx, (by[down] + 1 + step) * w + bx[down], (by[up] - 1 - rise) * w + bx[up]]
    )
    colours = np.concatenate([colour[run], colour[of_branch[down]], colour[of_branch[up]]])
    return _Visits(where, cores, colours, np.concatenate([trunk, below, above]).astype(np.uint8))


def _describe(configuration: int) -> str:
    """A router's configuration as text: `west -> east, ramp`."""
    source = next(name for name, code in FROM.items() if code == configuration & (7 << 5))
    names = {RAMP: "ramp", EAST: "east", WEST: "west", SOUTH: "south", NORTH: "north"}
    return f"{source} -> {', '.join(n for b, n in names.items() if configuration & b)}"


class _Colours:
    """What each colour means at each router, over all trees of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lanes = ""  # the first move that takes the shared lanes
        self.least: tuple[int, str] | None = None  # the least colour of a tree
        self.meaning: dict[int, tuple[Any, Any]] = {}  # colour -> configuration and step by core

    def reserve_lanes(self, where: str) -> None:
        self.lanes = self.lanes or where

    def judge_lanes(self) -> None:
        """Trees keep off the colours of the shared lanes."""
        colours = self.plan.wafer.colours
        if not self.lanes:
            return
        if colours < LANE_COLOURS:
            raise IllegalPlan(f"{self.lanes}: lanes take {LANE_COLOURS} colours, a router has {colours}")
        if self.least is not None and self.least[0] < LANE_COLOURS:
            raise IllegalPlan(
                f"{self.least[1]}: colour {self.least[0]}, the lanes have those below {LANE_COLOURS}"
            )

    def take(self, step: Step, trees: Sequence[_Visits], links: _Links) -> None:
        """Adds a step's trees; raises where a colour has two meanings or two trees at once."""
        limit = self.plan.wafer.colours
        taken: dict[int, Any] = {}
        for v in trees:
            if not len(v.core):
                continue
            if int(v.colour.min()) < 0 or int(v.colour.max()) >= limit:
                worst = int(v.colour.max() if v.colour.min() >= 0 else v.colour.min())
                raise IllegalPlan(f"{v.where}: colour {worst}, a router has {limit}")
            if self.least is None or int(v.colour.min()) < self.least[0]:
                self.least = int(v.colour.min()), v.where
            broken = np.flatnonzero(links.outputs[v.core] & v.configuration)
            if links.any and len(broken):
                core = core_name(self.plan, int(v.core[broken[0]]))
                raise IllegalPlan(f"{v.where}: its tree uses a dead link of {core}")
            for colour in np.unique(v.colour):
                chosen = v.colour == colour
                self._paint(step, v, int(colour), v.core[chosen], v.configuration[chosen], taken)

    def _paint(
        self, step: Step, v: _Visits, colour: int, core: Ints, configuration: Any, taken: dict[int, Any]
    ) -> None:
        cores = self.plan.wafer.cores
        busy = taken.setdefault(colour, np.zeros(cores, np.bool_))
        ordered = np.sort(core)
        twice = core[busy[core]] if busy[core].any() else ordered[1:][ordered[1:] == ordered[:-1]]
        if len(twice):
            at = core_name(self.plan, int(twice[0]))
            raise IllegalPlan(f"{v.where}: two trees of the step have colour {colour} at {at} at once")
        busy[core] = True
        if colour not in self.meaning:
            self.meaning[colour] = np.zeros(cores, np.uint8), np.zeros(cores, np.int32)
        known, by = self.meaning[colour]
        before = known[core]
        bad = np.flatnonzero((before != 0) & (before != configuration))
        if len(bad):
            i = int(bad[0])
            other = self.plan.steps[int(by[core[i]])]
            raise IllegalPlan(
                f"{v.where}: colour {colour} at {core_name(self.plan, int(core[i]))} is "
                f"{_describe(int(configuration[i]))}, but {_describe(int(before[i]))} for {step_name(other)}"
            )
        known[core] = configuration
        by[core] = step.number
