"""After which steps the threads must meet.

A thread runs the same share of the cores of every step on one grid, so what a step does on its own
cores alone is in order without a barrier. It takes one where a step touches SRAM that another
thread may be writing: it pulls from other cores, or runs on another grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..placement.layout import Grid
from ..placement.plan import Buffer, Plan, Step


@dataclass(frozen=True)
class Touch:
    """A buffer that a step reads or writes; own: on the cores of its own grid `share` only."""

    buffer: Buffer
    writes: bool
    own: bool
    share: Grid


def barriers(plan: Plan, steps: Sequence[Step]) -> list[bool]:
    """For each of `steps`, which run one after the other, whether all threads meet after it."""
    out: list[bool] = []
    open_: list[Touch] = []
    for n, step in enumerate(steps):
        now = _touches(plan, step)
        if n and any(_conflict(a, b) for a in open_ for b in now):
            out[-1] = True
            open_ = []
        open_ += now
        out.append(False)
    if out:
        out[-1] = True
    return out


def _touches(plan: Plan, step: Step) -> list[Touch]:
    out = [Touch(plan.buffers[step.result], True, True, step.grid)]
    if step.scratch >= 0:
        out.append(Touch(plan.buffers[step.scratch], True, True, step.grid))
    for o in step.operands:
        out.append(Touch(plan.buffers[o.buffer], o.received, True, step.grid))
    moves = [*step.moves, *(m for o in step.operands for m in o.moves)]
    return out + [Touch(plan.buffers[m.source], False, False, step.grid) for m in moves]


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
