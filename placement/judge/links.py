"""Judging paths: all records of a move over live links."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..machine.wafer import LINKS, STEP, Wafer
from ..plan.move import Detour, Move
from ..plan.plan import Plan
from .pairs import Pairs
from .verdict import IllegalPlan, core_name

OUTPUT = {"east": 2, "west": 4, "south": 8, "north": 16}  # bits of a router's outputs to its links


class Links:
    """Dead links, summed along rows and columns: before[d][y, x] counts those left of x (or above y)."""

    def __init__(self, wafer: Wafer) -> None:
        self.any = bool(wafer.dead_links)
        self.dead = set(wafer.dead_links)
        self.outputs = np.zeros(wafer.cores, np.uint8)  # dead outputs by core
        if not self.any:
            return
        grid = {d: np.zeros((wafer.height + 1, wafer.width + 1), np.int64) for d in LINKS}
        for x, y, d in self.dead:
            grid[d][y + (d in ("south", "north")), x + (d in ("east", "west"))] = 1
            self.outputs[y * wafer.width + x] |= OUTPUT[d]
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


def judge_paths(plan: Plan, where: str, move: Move, pairs: Pairs, links: Links) -> None:
    """All records along the row, then the column, or along their detours, over live links."""
    usual = np.ones(len(pairs.source), np.bool_)
    for detour in move.detours:
        usual &= (pairs.source != detour.source) | (pairs.target != detour.target)
        _judge_detour(plan, where, detour, links)
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


def _judge_detour(plan: Plan, where: str, detour: Detour, links: Links) -> None:
    """A detour leads from its source to its target, straight from corner to corner, over live links."""
    w, h, c = plan.wafer.width, plan.wafer.height, detour.corners
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
