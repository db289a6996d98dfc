"""How the judge speaks: the refusal of a plan, and the names of what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..plan.layout import Grid, Pieces
from ..plan.plan import Buffer, Plan, Step


class IllegalPlan(ValueError):
    """A plan that no wafer could run; the message names the step, buffer or move and the core."""


def step_name(step: Step) -> str:
    """The step by kind, ONNX node name and number."""
    return f"{step.kind} {step.name!r} (step {step.number})"


def buffer_name(buffer: Buffer) -> str:
    return f"{buffer.role} buffer {buffer.name!r} (number {buffer.number})"


def core_name(plan: Plan, core: int) -> str:
    """A physical core number as `core (x, y)`."""
    return f"core ({core % plan.wafer.width}, {core // plan.wafer.width})"


def grid_core(plan: Plan, region: int, grid: Grid, column: int, row: int) -> str:
    """The physical core of a grid's column and row, as `core (x, y)`."""
    return core_name(plan, int(plan.regions[region].on(grid)[row, column]))


def core_of_piece(plan: Plan, region: int, grid: Grid, pieces: Pieces, piece: int) -> str:
    """A core that has this piece, as `core (x, y)`; `no core` where there is none."""
    at = np.argwhere(pieces.number() == piece)
    if not len(at):
        return "no core"
    return grid_core(plan, region, grid, int(at[0, 2]), int(at[0, 1]))


@dataclass(frozen=True)
class Index:
    """Who writes what in a plan. writers: by tensor; owner: by result buffer; updates: by past tensor."""

    writers: Mapping[str, tuple[Step, ...]]
    owner: Mapping[int, Step]
    updates: Mapping[str, Step]


def index_of(plan: Plan) -> Index:
    """The index; raises IllegalPlan where two steps write one buffer."""
    writers: dict[str, tuple[Step, ...]] = {}
    owner: dict[int, Step] = {}
    updates: dict[str, Step] = {}
    for s in plan.steps:
        if s.kind == "update":
            if s.tensor in updates:
                raise IllegalPlan(f"{step_name(s)}: state {s.tensor!r} is updated twice")
            updates[s.tensor] = s
            continue
        if s.result in owner:
            raise IllegalPlan(
                f"{step_name(s)}: its result buffer {s.result} is also that of {step_name(owner[s.result])}"
            )
        writers[s.tensor] = (*writers.get(s.tensor, ()), s)
        owner[s.result] = s
    return Index(writers, owner, updates)
