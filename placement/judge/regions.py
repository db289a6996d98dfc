"""The judge: regions inside the wafer and apart, places alive."""

from __future__ import annotations

import numpy as np

from ..plan.layout import Ints, Region
from ..plan.plan import Plan, Step
from .verdict import IllegalPlan, core_name, step_name


def judge_regions(plan: Plan) -> None:
    """Regions lie in the wafer, apart from one another, and map to their own cores, each once."""
    wafer = plan.wafer
    if len(plan.code_bytes) != len(plan.regions):
        raise IllegalPlan(f"{len(plan.code_bytes)} code sizes for {len(plan.regions)} regions")
    owner = np.full((wafer.height, wafer.width), -1, np.int32)
    for i, r in enumerate(plan.regions):
        x1, y1 = r.x + r.width, r.y + r.height
        if r.x < 0 or r.y < 0 or r.width < 1 or r.height < 1 or x1 > wafer.width or y1 > wafer.height:
            raise IllegalPlan(
                f"region {r.name!r}: {r.width}x{r.height} at core ({r.x}, {r.y}) passes the wafer's "
                f"{wafer.width}x{wafer.height}"
            )
        box = owner[r.y : y1, r.x : x1]
        if (box >= 0).any():
            y, x = np.argwhere(box >= 0)[0]
            other = plan.regions[int(box[y, x])]
            raise IllegalPlan(f"regions {other.name!r} and {r.name!r} both have core ({r.x + x}, {r.y + y})")
        box[:] = i
        _judge_map(plan, r)


def _judge_map(plan: Plan, r: Region) -> None:
    """Each logical core of a region stands for a physical one of its rectangle, another each."""
    width = plan.wafer.width
    core: Ints = r.core.astype(np.int64).ravel()
    cx, cy = core % width, core // width
    outside = (core < 0) | (cx < r.x) | (cx >= r.x + r.width) | (cy < r.y) | (cy >= r.y + r.height)
    if outside.any():
        raise IllegalPlan(
            f"region {r.name!r}: {core_name(plan, int(core[outside][0]))} is not in its rectangle "
            f"{r.width}x{r.height} at ({r.x}, {r.y})"
        )
    values, count = np.unique(core, return_counts=True)
    if (count > 1).any():
        raise IllegalPlan(
            f"region {r.name!r}: {core_name(plan, int(values[count > 1][0]))} stands for "
            f"{int(count.max())} of its logical cores"
        )


def judge_place(plan: Plan, step: Step, position: int) -> None:
    """A step is numbered by its position and its grid lies in its region and matches its split."""
    if step.position != position or step.number != position:
        raise IllegalPlan(f"{step_name(step)}: position {step.position}, but it is the one at {position}")
    if not 0 <= step.region < len(plan.regions):
        raise IllegalPlan(f"{step_name(step)}: region {step.region} of {len(plan.regions)}")
    g, r = step.grid, plan.regions[step.region]
    x0, y0, x1, y1 = g.box
    if min(g.columns, g.rows, g.dx, g.dy) < 1 or x0 < 0 or y0 < 0 or x1 > r.columns or y1 > r.rows:
        raise IllegalPlan(
            f"{step_name(step)}: grid {g} ends at ({x1}, {y1}), region {r.name!r} has {r.columns}x{r.rows}"
        )
    if step.split.grid[:2] != (g.columns, g.rows):
        raise IllegalPlan(
            f"{step_name(step)}: split {step.split} makes {step.split.grid[0]}x{step.split.grid[1]} tiles "
            f"for a grid of {g.columns}x{g.rows}"
        )


def judge_dead_cores(plan: Plan) -> None:
    """No grid of a step uses a core without memory."""
    if not plan.wafer.dead_cores:
        return
    dead = plan.wafer.dead().ravel()
    hurt = {i for i, r in enumerate(plan.regions) if dead[r.core].any()}
    for step in plan.steps:
        if step.region not in hurt:
            continue
        cores = plan.regions[step.region].on(step.grid).ravel()
        if dead[cores].any():
            at = core_name(plan, int(cores[dead[cores]][0]))
            raise IllegalPlan(
                f"{step_name(step)}: a tile on dead {at}, {dead[cores].sum()} of {len(cores)} are dead"
            )
