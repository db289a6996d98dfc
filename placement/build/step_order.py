"""The order of a plan's steps: which of its tasks of a wavefront a core runs first."""

from __future__ import annotations

from ...ir.op import Op
from ..cost.fabric import joining
from ..plan.layout import Split
from .assembly import Assembly


def order(a: Assembly) -> list[int]:
    """The numbers of the steps, wavefront by wavefront, riders right behind their leaders.

    Of one wavefront's steps a core runs first what most waits for.
    """
    ahead = _ahead(a)
    steps = [d.step for d in a.steps]

    def place(i: int) -> tuple[float, ...]:
        s = steps[i]
        return s.wavefront, -ahead[s.leader], s.leader, s.rides >= 0, -ahead[i], i

    return sorted(range(len(steps)), key=place)


def _ahead(a: Assembly) -> list[float]:
    """For each step the cycles of the longest chain of steps from its end to the call's, ways left aside."""
    own: dict[tuple[Op, Split], float] = {}
    out = [0.0] * len(a.steps)
    for i in reversed(range(len(a.steps))):
        for j in a.users[a.steps[i].step.result]:
            if j > i:
                out[i] = max(out[i], out[j] + _alone(a, i, j, own))
    return out


def _alone(a: Assembly, source: int, number: int, known: dict[tuple[Op, Split], float]) -> float:
    """Estimated cycles of step `number` once its operands are there, `source` among their writers."""
    s = a.steps[number].step
    if (s.op, s.split) not in known:
        if s.kind == "join":
            made = a.steps[source].step
            wavelets = a.wafer.wavelets(a.buffers[s.result].bytes)
            cycles = joining(a.wafer, made.split, made.part, made.grid, wavelets)
        else:
            cycles = a.wafer.task(s.op, s.split.extents(s.op.axes))[0] * s.split.grid[2]
        known[s.op, s.split] = float(cycles)
    return known[s.op, s.split]
