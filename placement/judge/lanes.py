"""Judging shared lanes and reductions: no tree has one of their colours at a router that they pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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


def lane_colours(direction: int, far: bool) -> range:
    first = direction * LANE_COLOURS // len(LINKS) + 2 * far
    return range(first, first + 2)


def join_colours(side: str, colours: int) -> range:
    first = colours - HOST_COLOURS - JOIN_COLOURS * (2 if side == "y" else 1)
    return range(first, first + JOIN_COLOURS)


def judge_kept(plan: Plan, where: str, pair: tuple[Step, Step], move: Move, trees: Meanings) -> None:
    """Raises where a relayed or joined move passes a router in which a tree has one of its colours.

    pair: the step and its producer. trees: of the whole plan.
    """
    last = join_colours("y", plan.wafer.colours).start
    own = (c for c in trees if (c < LANE_COLOURS if move.route == "relay" else c >= last))
    near = _near(plan, pair)
    if not move.detours and not any((_square(plan, trees[c][0])[near] > 0).any() for c in own):
        return  # no tree has one of them anywhere near
    for kind, colours, taken in passed(plan, *pair, move):
        for colour in colours:
            if colour not in trees:
                continue
            both = np.flatnonzero(taken.ravel() & (trees[colour][0] > 0))
            if len(both):
                other = plan.steps[int(trees[colour][1][both[0]])]
                raise IllegalPlan(
                    f"{where}: {kind} has colour {colour} at {core_name(plan, int(both[0]))}, where a tree "
                    f"for {step_name(other)} has it"
                )


def _near(plan: Plan, pair: tuple[Step, Step]) -> tuple[slice, slice]:
    """The rows and columns of the wafer between the cores of two steps: no way leaves them."""
    cores = [plan.regions[s.region].on(s.grid).ravel() for s in pair]
    y, x = np.divmod(np.concatenate(cores), plan.wafer.width)
    return slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)


def _square(plan: Plan, by_core: Any) -> Any:
    return by_core.reshape(plan.wafer.height, plan.wafer.width)


def passed(
    plan: Plan, step: Step, producer: Step, move: Move
) -> Iterator[tuple[str, range, np.ndarray[Any, np.dtype[np.bool_]]]]:
    """(what, its colours, bool [height, width] of the routers that it passes) of a move.

    Relayed along the sources' rows, then down or up the targets' columns; joined in the columns, then along
    the roots' rows.
    """
    w, h = plan.wafer.width, plan.wafer.height
    if move.detours:  # it may pass anywhere
        every = np.ones((h, w), np.bool_)
        if move.route == "relay":
            yield "a lane", range(LANE_COLOURS), every
        else:
            yield from (("a reduction", join_colours(s, plan.wafer.colours), every) for s in ("x", "y"))
        return
    ways = _Ways(w, h)
    source = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)
    target = plan.regions[step.region].on(step.grid).ravel().astype(np.int64)
    for r in records(move, step.grid):
        (sy, sx), (dy, dx) = (np.divmod(a, w) for a in (source[r.source], target[r.target]))
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
