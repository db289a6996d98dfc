"""Judging shared lanes and reductions: no tree has one of their colours at a router that they pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from ..machine.wafer import LINKS
from ..plan.layout import Ints
from ..plan.move import Move, records
from ..plan.plan import Plan, Step
from .verdict import IllegalPlan, core_name, step_name

LANE_COLOURS = 16  # the first ones: four in each direction of LINKS, two of one hop and two of `express` hops
HOST_COLOURS = 2  # the last ones: what comes in, and what goes out
JOIN_COLOURS = 2  # before those, for each side along which partial results are joined: "y", then "x"

Meanings = dict[int, tuple[Any, Any]]  # colour -> configuration and step, by core
Box = tuple[slice, slice]  # rows and columns of the wafer


def lane_colours(direction: int, far: bool) -> range:
    first = direction * LANE_COLOURS // len(LINKS) + 2 * far
    return range(first, first + 2)


def join_colours(side: str, colours: int) -> range:
    first = colours - HOST_COLOURS - JOIN_COLOURS * (2 if side == "y" else 1)
    return range(first, first + JOIN_COLOURS)


@dataclass(frozen=True)
class Kept:
    """A move on lanes or in a reduction, from `producer` to `step`."""

    where: str
    step: Step
    producer: Step
    move: Move


def place(plan: Plan, k: Kept) -> tuple[object, ...]:
    """Moves between the same grids of regions that lie so to one another pass routers that lie so, too."""
    regions = k.step.region, k.producer.region
    if plan.wafer.dead_cores:
        return regions
    (y, x), (top, left) = (divmod(int(plan.regions[r].core[0, 0]), plan.wafer.width) for r in regions)
    return y - top, x - left


def judge_kept(plan: Plan, alike: Sequence[Kept], trees: Meanings) -> None:
    """Raises where relayed or joined moves pass a router in which a tree has one of their colours.

    alike: moves that pass the same routers of their regions. trees: of the whole plan.
    """
    first = alike[0]
    last = join_colours("y", plan.wafer.colours).start
    own = [c for c in trees if (c < LANE_COLOURS if first.move.route == "relay" else c >= last)]
    boxes = [near(plan, k) for k in alike]
    if not first.move.detours:
        met = [_met(plan, trees, own, b) for b in boxes]
        alike, boxes = list(compress(alike, met)), list(compress(boxes, met))
    if not alike:
        return  # no tree has one of them anywhere near
    for kind, colours, taken in passed(plan, first, near(plan, first)):
        for colour in (c for c in colours if c in trees):
            for k, box in zip(alike, boxes, strict=True):
                both = np.argwhere(taken & (_square(plan, trees[colour][0])[box] > 0))
                if len(both):
                    y, x = both[0] + (box[0].start, box[1].start)
                    core = int(y * plan.wafer.width + x)
                    other = plan.steps[int(trees[colour][1][core])]
                    raise IllegalPlan(
                        f"{k.where}: {kind} has colour {colour} at {core_name(plan, core)}, where a tree for "
                        f"{step_name(other)} has it"
                    )


def _met(plan: Plan, trees: Meanings, colours: Sequence[int], box: Box) -> bool:
    return any((_square(plan, trees[c][0])[box] > 0).any() for c in colours)


def near(plan: Plan, k: Kept) -> Box:
    """The rows and columns of the wafer between the cores of two steps: no way leaves them, but detours."""
    if k.move.detours:
        return slice(0, plan.wafer.height), slice(0, plan.wafer.width)
    cores = [plan.regions[s.region].on(s.grid).ravel() for s in (k.step, k.producer)]
    y, x = np.divmod(np.concatenate(cores), plan.wafer.width)
    return slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)


def _square(plan: Plan, by_core: Any) -> Any:
    return by_core.reshape(plan.wafer.height, plan.wafer.width)


def passed(plan: Plan, k: Kept, box: Box) -> Iterator[tuple[str, range, np.ndarray[Any, np.dtype[np.bool_]]]]:
    """(what, its colours, bool [rows, columns] of the routers of `box` that it passes) of a move in it.

    Relayed along the sources' rows, then down or up the targets' columns; joined in the columns, then along
    the roots' rows.
    """
    move, w = k.move, plan.wafer.width
    top, left = box[0].start, box[1].start
    h, width = box[0].stop - top, box[1].stop - left
    if move.detours:  # it may pass anywhere
        every = np.ones((h, width), np.bool_)
        if move.route == "relay":
            yield "a lane", range(LANE_COLOURS), every
        else:
            yield from (("a reduction", join_colours(s, plan.wafer.colours), every) for s in ("x", "y"))
        return
    ways = _Ways(width, h)
    source = plan.regions[k.producer.region].on(k.producer.grid).ravel().astype(np.int64)
    target = plan.regions[k.step.region].on(k.step.grid).ravel().astype(np.int64)
    for r in records(move, k.step.grid):
        (sy, sx), (dy, dx) = (np.divmod(a, w) for a in (source[r.source], target[r.target]))
        (sy, dy), (sx, dx) = (sy - top, dy - top), (sx - left, dx - left)
        if move.route == "relay":
            ways.along(sy, sx, dx)
            ways.down(dx, sy, dy)
        else:
            ways.down(sx, sy, dy)
            ways.along(dy, sx, dx)
    if move.route == "relay":
        for i, d in enumerate(LINKS):
            for far in (False, True):
                passed = ways.painted(i, plan.wafer.express if far else 1)
                yield f"the lane {d}", lane_colours(i, far), passed
        return
    for side, directions in (("x", (0, 1)), ("y", (2, 3))):
        passed = np.logical_or(*(ways.painted(i, 1) for i in directions))
        yield f"the reduction along {side}", join_colours(side, plan.wafer.colours), passed


@dataclass
class _Ways:
    """How far bytes go from each core along its row or its column: greatest coordinates to the east and the
    south, least ones to the west and the north."""

    width: int
    height: int

    def __post_init__(self) -> None:
        y, x = np.divmod(np.arange(self.width * self.height, dtype=np.int64), self.width)
        self.ends = [x, x.copy(), y, y.copy()]

    def along(self, row: Ints, at: Ints, to: Ints) -> None:
        core = row * self.width + at
        np.maximum.at(self.ends[0], core, to)
        np.minimum.at(self.ends[1], core, to)

    def down(self, column: Ints, at: Ints, to: Ints) -> None:
        core = at * self.width + column
        np.maximum.at(self.ends[2], core, to)
        np.minimum.at(self.ends[3], core, to)

    def painted(self, direction: int, least: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """bool [height, width]: the routers on ways of at least so many hops, their ends included."""
        across = direction > 1
        size = self.height if across else self.width
        y, x = np.divmod(np.arange(self.width * self.height, dtype=np.int64), self.width)
        at, end = y if across else x, self.ends[direction]
        own = np.abs(end - at) >= least
        line = (x if across else y)[own]
        lo, hi = np.minimum(at, end)[own], np.maximum(at, end)[own]
        edges = np.zeros((self.width if across else self.height, size + 1), np.int32)
        np.add.at(edges, (line, lo), 1)
        np.subtract.at(edges, (line, hi + 1), 1)
        out = np.cumsum(edges, axis=1)[:, :size] > 0
        return out.T if across else out
