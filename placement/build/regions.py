"""Regions: rectangles of the wafer, and the ground that they and a plan's nodes make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..machine.wafer import Wafer
from ..plan.layout import Region
from ..splits.choice import Site
from ..splits.policy import Policy

SPARE_EVERY = 16  # with dead cores, one column in 16 is kept to stand in for them


@dataclass(frozen=True, eq=False)
class Ground:
    """What a plan is built on: regions of a wafer, by node the number of its own, and the search's policy."""

    wafer: Wafer
    regions: tuple[Region, ...]
    region_of: Mapping[int, int]
    policy: Policy

    def site(self, region: int) -> Site:
        r = self.regions[region]
        return Site(region, r.columns, r.rows, self.wafer, self.policy)


def physical_width(wafer: Wafer, columns: int) -> int:
    """Physical columns that `columns` logical ones take, spares included."""
    if not wafer.dead_cores:
        return columns
    return columns + -(-columns // (SPARE_EVERY - 1))


def logical_width(wafer: Wafer, width: int) -> int:
    """Logical columns that fit into `width` physical ones."""
    columns = width
    while columns > 1 and physical_width(wafer, columns) > width:
        columns -= 1
    return columns


def make_region(wafer: Wafer, name: str, x: int, y: int, columns: int, rows: int) -> Region | None:
    """The region at (x, y) with its map from logical to physical cores.

    Spare columns take the tiles of dead cores, the nearest first; None when there are too few.
    """
    width = physical_width(wafer, columns)
    spare = [c for c in range(width) if c % SPARE_EVERY == SPARE_EVERY - 1 or c == width - 1]
    spare = spare[: width - columns] if width > columns else []
    if len(spare) < width - columns:
        spare = list(range(columns, width))
    usable = [c for c in range(width) if c not in set(spare)]
    ys, xs = np.mgrid[y : y + rows, x : x + width]
    physical = (ys * wafer.width + xs).astype(np.int32)
    core = physical[:, usable].copy()
    if wafer.dead_cores:
        dead = wafer.dead()[y : y + rows, x : x + width]
        free = [(r, c) for r in range(rows) for c in spare if not dead[r, c]]
        at = np.array(free, np.int64).reshape(-1, 2)
        open_: Any = np.ones(len(at), np.bool_)
        for r, i in np.argwhere(dead[:, usable]).tolist():
            if not open_.any():
                return None
            far = np.abs(at[:, 0] - r) + np.abs(at[:, 1] - usable[i]) + np.where(open_, 0, 1 << 30)
            best = int(far.argmin())
            open_[best] = False
            core[r, i] = physical[at[best, 0], at[best, 1]]
    return Region(name, x, y, width, rows, core)
