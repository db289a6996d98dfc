"""What guard finds: violations named by op and core, and operands said to be in place that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.kernels.guard import READ_OUTSIDE, STALE_READ, WRITE_OUTSIDE
from ..codegen.literal.records import READ_FOREIGN, WatchWords
from ..placement.plan.layout import Layout, layout
from ..placement.plan.plan import Plan, Step
from .sram import Memory

WHAT = {
    READ_OUTSIDE: "read outside its buffer",
    WRITE_OUTSIDE: "wrote outside its buffer",
    STALE_READ: "read a value that nobody wrote, or of a buffer that is dead",
    READ_FOREIGN: "read SRAM that its buffer does not hold",
}


class GuardViolation(RuntimeError):
    """A kernel or a move broke the rules of a core's SRAM; the message names op and core."""


def violation(memory: Memory, steps: Steps, w: Any) -> GuardViolation:
    """What is in a watch record (int64 [WatchWords.SIZE]) that found one."""
    number, operand = int(w[WatchWords.STEP]) - 1, int(w[WatchWords.OPERAND])
    who, where = "the host", ""
    if 0 <= number < len(steps.names):
        name = steps.names[number]
        tensors = name.operands
        what = (
            f"operand {operand} {tensors[operand]!r} of" if 0 <= operand < len(tensors) else "the result of"
        )
        who = f"{what} {name.node!r} ({name.op})"
        core = int(steps.regions[name.region].ravel()[int(w[WatchWords.CORE])])
        where = f" on core ({core % memory.width}, {core // memory.width})"
        if w[WatchWords.TIME]:
            where += f", time step {int(w[WatchWords.TIME])}"
    problem = WHAT[int(w[WatchWords.CODE])]
    return GuardViolation(f"{who} {problem}{where}, address {_address(memory, w)}")


def _address(memory: Memory, w: Any) -> str:
    """The address as a byte of some core's SRAM."""
    pitch = memory.pitch
    offset = int(w[WatchWords.ADDRESS] - w[WatchWords.ARENA])
    if not 0 <= offset < int(w[WatchWords.BYTES]):
        return f"{offset:+} bytes from the wafer's SRAM"
    core = offset // pitch
    return f"{offset % pitch} of core ({core % memory.width}, {core // memory.width})"


def judge_in_place(plan: Plan) -> None:
    """GuardViolation for an operand said to be in place on a core that does not hold what it needs.

    The one thing that poison and tags cannot show: other elements of the same tensor.
    """
    writers = {s.result: s for s in plan.steps if s.kind != "update"}
    for s in plan.steps:
        for j, o in enumerate(s.operands):
            if o.received or o.tensor in plan.graph.constants:
                continue
            w = writers[o.buffer]
            need = layout(s.op.reads[j], s.op.axes, s.split)
            wrong = _misplaced(s, (o.x, o.y, o.t), need, w)
            if wrong is not None:
                x, y = wrong
                core = int(plan.regions[s.region].on(s.grid)[y, x])
                width = plan.wafer.width
                raise GuardViolation(
                    f"operand {j} {o.tensor!r} of {s.name!r} ({s.op.name}) is said to be in place, but core "
                    f"({core % width}, {core // width}) does not hold what it needs there"
                )


def _misplaced(s: Step, offsets: Any, need: Layout, w: Step) -> tuple[int, int] | None:
    """(column, row) of the first core of `s` whose share of `w`'s result lacks the need; or None."""
    if s.region != w.region:
        return 0, 0
    columns = s.grid.x + s.grid.dx * np.arange(s.grid.columns) - w.grid.x
    rows = s.grid.y + s.grid.dy * np.arange(s.grid.rows) - w.grid.y
    on_x = (columns % w.grid.dx == 0) & (columns // w.grid.dx < w.grid.columns) & (columns >= 0)
    on_y = (rows % w.grid.dy == 0) & (rows // w.grid.dy < w.grid.rows) & (rows >= 0)
    at_x = np.where(on_x, columns // w.grid.dx, 0)
    at_y = np.where(on_y, rows // w.grid.dy, 0)
    empty: Any = np.zeros((1, 1, 1), np.bool_)
    for n in need:
        number = n.number()
        empty = empty | (n.hi[number] <= n.lo[number])
    bad: Any = ~(on_y[:, None] & on_x[None, :])[None, :, :]
    for d, (n, h) in enumerate(zip(need, w.hold, strict=True)):
        number = n.number()
        held = h.x[at_x][None, None, :] + h.y[at_y][None, :, None]
        x, y, t = (o[d] for o in offsets)
        offset = t[:, None, None] + y[None, :, None] + x[None, None, :]
        low = n.lo[number] - h.lo[held]
        bad = bad | (low < 0) | (n.hi[number] > h.hi[held]) | (low != offset)
    wrong = np.argwhere(bad & ~empty)
    return (int(wrong[0][2]), int(wrong[0][1])) if len(wrong) else None


@dataclass(frozen=True)
class StepName:
    """What a message calls a step: its ONNX node, its op, its region, the tensors of its operands."""

    node: str
    op: str
    region: int
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Steps:
    """What messages say of a plan's steps. names: by step number. regions: for each region the physical
    core numbers, int32 [rows, columns]."""

    regions: tuple[Any, ...]
    names: tuple[StepName, ...]


def steps_of(plan: Plan) -> Steps:
    names = tuple(
        StepName(s.name, s.op.name, s.region, tuple(o.tensor for o in s.operands)) for s in plan.steps
    )
    return Steps(tuple(r.core for r in plan.regions), names)
