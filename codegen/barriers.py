"""In which order a step takes its cores, and after which steps the threads must meet.

A thread runs the same share of the cores of every step on one grid in one order, so what a step does on
its own cores alone is in order without a barrier. It takes one where a step touches SRAM that another
thread may be writing: it pulls from other cores, or shares its cores out otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..placement.layout import Grid
from ..placement.plan import Buffer, Plan, Step

Share = tuple[Grid, bool]  # and whether column by column


@dataclass(frozen=True)
class Touch:
    """A buffer that a step reads or writes; own: on the core that runs the task only."""

    buffer: Buffer
    writes: bool
    own: bool
    share: Share


def orders(steps: Sequence[Step]) -> list[bool]:
    """For each of `steps` whether it takes its cores column by column.

    Neighbours that pull from the same cores run one after the other: what they read is then still in
    the host's cache. A step that pulls nothing takes the order of the one before, so that no barrier
    comes between them.
    """
    out: list[bool] = []
    for s in steps:
        along_x, along_y = _changes(s, "x"), _changes(s, "y")
        pulls = bool(s.moves) or any(o.moves for o in s.operands)
        out.append(out[-1] if out and not pulls else along_x and not along_y)
    return out


def _changes(step: Step, side: str) -> bool:
    """Whether the next core along a side pulls from other cores."""
    moves = [*step.moves, *(m for o in step.operands for m in o.moves)]
    return any(getattr(d, side).any() and (d.core != d.core[:1]).any() for m in moves for d in m.dims)


def barriers(plan: Plan, steps: Sequence[Step], by_columns: Sequence[bool]) -> list[bool]:
    """For each of `steps`, which run one after the other, whether all threads meet after it."""
    out: list[bool] = []
    open_: list[Touch] = []
    for step, order in zip(steps, by_columns, strict=True):
        now = _touches(plan, step, order)
        if any(_conflict(a, b) for a in open_ for b in now):
            out[-1] = True
            open_ = []
        open_ += now
        out.append(False)
    if out:
        out[-1] = True
    return out


def _touches(plan: Plan, step: Step, by_columns: bool) -> list[Touch]:
    share = step.grid, by_columns
    out = [Touch(plan.buffers[step.result], True, True, share)]
    if step.scratch >= 0:
        out.append(Touch(plan.buffers[step.scratch], True, True, share))
    for o in step.operands:
        out.append(Touch(plan.buffers[o.buffer], o.received, True, share))
    moves = [*step.moves, *(m for o in step.operands for m in o.moves)]
    return out + [Touch(plan.buffers[m.source], False, False, share) for m in moves]


def _conflict(a: Touch, b: Touch) -> bool:
    """Whether threads that run the two at the same time may meet at an address, one of them writing."""
    if not (a.writes or b.writes) or a.buffer.region != b.buffer.region:
        return False
    if a.own and b.own and a.share == b.share:
        return False
    apart = (
        a.buffer.address + a.buffer.bytes <= b.buffer.address
        or b.buffer.address + b.buffer.bytes <= a.buffer.address
    )
    return not apart and a.buffer.grid.overlaps(b.buffer.grid)
