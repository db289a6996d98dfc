"""Detours: which paths of a move meet a dead link, and ways around."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ..machine.wafer import LINKS, STEP, Wafer
from ..plan.move import Detour, Move, records
from ..plan.plan import Plan, Step


class Unroutable(ValueError):
    """Dead links cut a source off from its consumer."""


class DeadLinks:
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

    def detours(self, plan: Plan, step: Step, producer: Step, move: Move) -> tuple[Detour, ...]:
        """For each record whose path along the row, then the column, meets a dead link, another."""
        w = self.wafer.width
        target = plan.regions[step.region].on(step.grid).ravel().astype(np.int64)
        source = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)
        met: set[tuple[int, int]] = set()
        for r in records(move, step.grid, 1 << 22):
            a, b = source[r.source], target[r.target]
            sx, sy, dx, dy = a % w, a // w, b % w, b // w
            bad = (self.along_row(sy, sx, dx) + self.along_column(dx, sy, dy)) > 0
            met |= set(zip(a[bad].tolist(), b[bad].tolist(), strict=True))
        out: list[Detour] = []
        for a, b in sorted(met):
            s, t = (a % w, a // w), (b % w, b // w)
            corners: tuple[tuple[int, int], ...] | None = (s, (s[0], t[1]), t)
            if int(self.along_column(s[0], s[1], t[1])) + int(self.along_row(t[1], s[0], t[0])):
                corners = self._around(s, t)
            if corners is None:
                raise Unroutable(f"dead links cut core {t} off from core {s} on wafer {self.wafer.name}")
            out.append(Detour(a, b, corners))
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
