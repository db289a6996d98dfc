"""A call of a program as a short film: which parts of the wafer compute when."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.op import Array
from ...placement.cost.timing import simulate
from ...placement.plan.plan import Plan
from ..show.colours import VIRIDIS

CELLS = 48  # along the longer side
FRAMES = 32


@dataclass(frozen=True)
class Film:
    """frames: uint8 [time, rows, columns], how busy the cores of each cell are, 255 the busiest. box: of the
    wafer's cores that the cells cover: x, y, width, height.
    """

    frames: Array
    box: tuple[int, int, int, int]

    @property
    def data(self) -> dict[str, Any]:
        """As the page takes it."""
        frames, rows, columns = self.frames.shape
        return {
            "frames": frames,
            "rows": rows,
            "columns": columns,
            "cells": base64.b64encode(self.frames.tobytes()).decode(),
            "box": self.box,
            "colours": VIRIDIS,
        }


def film_of(plan: Plan) -> Film:
    """All tasks of a predicted call, each in the frames of its cycles."""
    timing, wide = simulate(plan, links=False), plan.wafer.width
    left, top = min(r.x for r in plan.regions), min(r.y for r in plan.regions)
    width = max(r.x + r.width for r in plan.regions) - left
    height = max(r.y + r.height for r in plan.regions) - top
    side = max(1, -(-max(width, height) // CELLS))
    columns, rows = -(-width // side), -(-height // side)
    cells = columns * rows
    # Where tasks begin and end, by frame and cell; what is under way is the sum so far.
    changes = np.zeros((FRAMES + 1) * cells, np.int64)
    for step, start, end in zip(plan.steps, timing.start, timing.end, strict=True):
        if step.kind == "input":
            continue
        core = plan.regions[step.region].on(step.grid).reshape(-1)
        cell = (core // wide - top) // side * columns + (core % wide - left) // side
        first, last = (_frames(times, core.shape, timing.cycles) for times in (start, end))
        changes += np.bincount(first * cells + cell, minlength=changes.size)
        changes -= np.bincount((last + 1) * cells + cell, minlength=changes.size)
    busy = changes.reshape(FRAMES + 1, rows, columns).cumsum(0)[:FRAMES].astype(np.float64)
    scaled: Array = (busy * (255 / max(1.0, float(busy.max())))).astype(np.uint8)
    return Film(scaled, (left, top, width, height))


def _frames(times: Array, shape: tuple[int, ...], cycles: float) -> Array:
    """The frames of times that stand for cores of a step, all alike or one each."""
    frame: Array = np.clip(times * (FRAMES / max(cycles, 1.0)), 0, FRAMES - 1).astype(np.int64)
    return np.broadcast_to(frame.reshape(-1), shape)
