"""Judging multicast trees: what each colour means at each router that they pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plan.layout import Ints
from ..plan.move import Move
from ..plan.plan import Plan, Step
from .lanes import HOST_COLOURS, Meanings
from .links import OUTPUT, Links
from .pairs import Pairs
from .verdict import IllegalPlan, core_name, step_name

RAMP = 1  # the output of a router to its own core
EAST, WEST, SOUTH, NORTH = (OUTPUT[d] for d in ("east", "west", "south", "north"))
FROM = {"ramp": 1 << 5, "west": 2 << 5, "east": 3 << 5, "north": 4 << 5, "south": 5 << 5}  # its one input


@dataclass(frozen=True)
class Visits:
    """Every router that a move's trees pass: core, colour, and its configuration there."""

    where: str
    core: Ints
    colour: Ints
    configuration: Any  # uint8


def _spread(length: Ints) -> tuple[Ints, Ints]:
    """For runs of these lengths: the run's number and the place in it, of every element."""
    run = np.repeat(np.arange(len(length), dtype=np.int64), length)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(length) - length, length)


def visits(plan: Plan, where: str, producer: Step, move: Move, pairs: Pairs) -> Visits:
    """The trees of a move, painted: along each source's row, then along its targets' columns."""
    w, grid = plan.wafer.width, producer.grid
    if move.colour_x is None or move.colour_y is None or move.detours:
        raise IllegalPlan(f"{where}: a tree needs colours and takes no detour ({len(move.detours)} given)")
    if (len(move.colour_x), len(move.colour_y)) != (grid.columns, grid.rows):
        raise IllegalPlan(
            f"{where}: colours for {len(move.colour_x)}x{len(move.colour_y)} cores, the producer has "
            f"{grid.columns}x{grid.rows}"
        )
    t = _trees(pairs, w)
    total = int((t.east - t.west + 1).sum() + (t.south - t.north).sum())
    if total > plan.wafer.colours * plan.wafer.cores:
        raise IllegalPlan(
            f"{where}: {total} passages of routers, {plan.wafer.cores} routers have "
            f"{plan.wafer.colours} colours"
        )
    colour_x, colour_y = np.asarray(move.colour_x), np.asarray(move.colour_y)
    colour = colour_x[t.number % grid.columns] + colour_y[t.number // grid.columns]
    # Along the rows.
    run, place = _spread(t.east - t.west + 1)
    tx = t.west[run] + place
    start = np.cumsum(t.east - t.west + 1) - (t.east - t.west + 1)
    trunk = np.where(tx == t.x[run], FROM["ramp"], np.where(tx > t.x[run], FROM["west"], FROM["east"]))
    trunk |= np.where((tx >= t.x[run]) & (tx < t.east[run]), EAST, 0)
    trunk |= np.where((tx <= t.x[run]) & (tx > t.west[run]), WEST, 0)
    on_trunk = start[t.of_branch] + t.bx - t.west[t.of_branch]
    turns = np.where(t.south > t.by, SOUTH, 0) | np.where(t.north < t.by, NORTH, 0)
    np.bitwise_or.at(trunk, on_trunk, turns)
    # Down and up the columns.
    down, step, below = _column(t.south - t.by, FROM["north"], SOUTH)
    up, rise, above = _column(t.by - t.north, FROM["south"], NORTH)
    # Off the ramps of the targets.
    down_start = np.cumsum(t.south - t.by) - (t.south - t.by)
    up_start = np.cumsum(t.by - t.north) - (t.by - t.north)
    level, lower, higher = t.fall == 0, t.fall > 0, t.fall < 0
    trunk[on_trunk[t.branch[level]]] |= RAMP
    below[down_start[t.branch[lower]] + t.fall[lower] - 1] |= RAMP
    above[up_start[t.branch[higher]] - t.fall[higher] - 1] |= RAMP
    cores = np.concatenate(
        [t.y[run] * w + tx, (t.by[down] + 1 + step) * w + t.bx[down], (t.by[up] - 1 - rise) * w + t.bx[up]]
    )
    colours = np.concatenate([colour[run], colour[t.of_branch[down]], colour[t.of_branch[up]]])
    return Visits(where, cores, colours, np.concatenate([trunk, below, above]).astype(np.uint8))


@dataclass(frozen=True)
class _Trees:
    """The trees of a move. [trees]: number of the source in its grid, its place x and y, and how far west and
    east its trunk goes. [branches]: tree, column bx and row by where one leaves the trunk, and how far north
    and south it goes. [targets] elsewhere than their source: branch, and rows below the trunk.
    """

    number: Ints
    x: Ints
    y: Ints
    west: Ints
    east: Ints
    of_branch: Ints
    bx: Ints
    by: Ints
    north: Ints
    south: Ints
    branch: Ints
    fall: Ints


def _trees(pairs: Pairs, width: int) -> _Trees:
    """One tree for each source that sends to another core: a trunk, and a branch in each target's column."""
    away = pairs.source != pairs.target
    number, sx, sy, dx, dy = (a[away] for a in (pairs.number, pairs.sx, pairs.sy, pairs.dx, pairs.dy))
    tree, first, of = np.unique(number, return_index=True, return_inverse=True)
    x, y = sx[first], sy[first]
    west, east = x.copy(), x.copy()
    np.minimum.at(west, of, dx)
    np.maximum.at(east, of, dx)
    branch, at = np.unique(of * width + dx, return_inverse=True)
    of_branch, bx = np.divmod(branch, width)
    by = y[of_branch]
    north, south = by.copy(), by.copy()
    np.minimum.at(north, at, dy)
    np.maximum.at(south, at, dy)
    return _Trees(tree, x, y, west, east, of_branch, bx, by, north, south, at, dy - sy)


def _column(length: Ints, source: int, onward: int) -> tuple[Ints, Ints, Any]:
    """For branches of these lengths: the branch and the place in it of every router, and what it does there.

    source: where its bytes come from; onward: the output towards the end.
    """
    branch, place = _spread(length)
    return branch, place, source | np.where(place + 1 < length[branch], onward, 0)


def _describe(configuration: int) -> str:
    """A router's configuration as text: `west -> east, ramp`."""
    source = next(name for name, code in FROM.items() if code == configuration & (7 << 5))
    names = {RAMP: "ramp", EAST: "east", WEST: "west", SOUTH: "south", NORTH: "north"}
    return f"{source} -> {', '.join(n for b, n in names.items() if configuration & b)}"


class Colours:
    """What each colour means at each router, over all trees of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.meaning: Meanings = {}

    def take(self, step: Step, trees: Sequence[Visits], links: Links) -> None:
        """Adds a step's trees; raises where a colour has two meanings or two trees at once."""
        limit = self.plan.wafer.colours - HOST_COLOURS
        taken: dict[int, Any] = {}
        for v in trees:
            if not len(v.core):
                continue
            if int(v.colour.min()) < 0 or int(v.colour.max()) >= limit:
                worst = int(v.colour.max() if v.colour.min() >= 0 else v.colour.min())
                raise IllegalPlan(
                    f"{v.where}: colour {worst}, a router has {self.plan.wafer.colours}, the last "
                    f"{HOST_COLOURS} for the host"
                )
            broken = np.flatnonzero(links.outputs[v.core] & v.configuration)
            if links.any and len(broken):
                core = core_name(self.plan, int(v.core[broken[0]]))
                raise IllegalPlan(f"{v.where}: its tree uses a dead link of {core}")
            for colour in np.unique(v.colour):
                chosen = v.colour == colour
                self._paint(step, v, int(colour), v.core[chosen], v.configuration[chosen], taken)

    def _paint(
        self, step: Step, v: Visits, colour: int, core: Ints, configuration: Any, taken: dict[int, Any]
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
