"""The timing model: when each task of a plan starts and ends, and what each link carries.

A task starts at max(its inputs are there, core free) and takes its kernel's cycles. A move's
bytes arrive when the source is done, plus the route (hops, a turn, relays), plus serialisation: see
`fabric.arrival`. All formulas with constants are `Wafer`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ir.dtypes import F32
from ...ir.op import Op
from ..machine.wafer import Wafer
from ..plan.layout import Ints, Split, axis_indices
from ..plan.move import Move
from ..plan.plan import Plan, Step
from .fabric import Floats, Traffic, arrival, joining, traffic_of
from .links import link_bytes
from .reach import Ends


@dataclass
class Timing:
    """What a call of the program takes on the wafer.

    start, end: per step [rows, columns] in cycles. busy: [height, width] cycles each core
    computes. links: [4, height, width] bytes on each core's outgoing links, in the order
    of wafer.LINKS. ops: [height, width] number of steps with a tile on the core.
    """

    cycles: float
    start: list[Floats]
    end: list[Floats]
    busy: Floats
    links: Floats
    ops: Floats

    def interval(self, wafer: Wafer) -> float:
        """Cycles between calls in a pipeline: the busiest core's or the fullest link's."""
        fullest = wafer.serial(wafer.wavelets(self.links.max(initial=0.0)))
        return max(float(self.busy.max(initial=0.0)), float(fullest))


def task_cycles(wafer: Wafer, step: Step) -> Floats:
    """[rows, columns]: the kernel cycles of each core's tiles, summed over time steps."""
    g = step.grid
    out = np.zeros((g.rows, g.columns))
    indices = axis_indices(step.split, step.op.axes)
    for t in range(step.split.grid[2]):
        extents: dict[str, Any] = {}
        empty: Any = np.zeros((1, 1), np.bool_)
        for a, index in indices.items():
            x = index.x if index.x.any() else index.x[:1]
            y = index.y if index.y.any() else index.y[:1]
            number = y[:, None] + x[None, :] + index.t[t]
            lengths = index.ends[number] - index.origins[number]
            extents[a] = lengths
            empty = empty | (lengths <= 0)
        cycles, _ = wafer.task(step.op, extents)
        out += np.where(empty, 0.0, cycles)
    return out


def held(step: Step) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[rows, columns]: the cores with a non-empty tile."""
    ok: Any = np.ones((step.grid.rows, step.grid.columns), np.bool_)
    for index in axis_indices(step.split, step.op.axes).values():
        x = index.x if index.x.any() else index.x[:1]
        y = index.y if index.y.any() else index.y[:1]
        number = y[:, None] + x[None, :]
        ok = ok & (index.ends[number] > index.origins[number])
    return ok


def simulate(plan: Plan, links: bool = True) -> Timing:
    """Replays the plan: each step's times on each core, and what each link carries. links: else nothing."""
    starts: list[Floats] = []
    ends: list[Floats] = []
    busy, ops = np.zeros(plan.wafer.cores), np.zeros(plan.wafer.cores)
    total = 0.0
    for r in _replay(plan):
        starts.append(r.begin)
        ends.append(r.finish)
        total = max(total, float(r.finish.max(initial=0)))
        if plan.steps[len(ends) - 1].kind != "input":
            busy[r.core] += r.work
            ops[r.core] += r.active
    shape = (plan.wafer.height, plan.wafer.width)
    carried = link_bytes(plan) if links else np.zeros((4, *shape))
    return Timing(total, starts, ends, busy.reshape(shape), carried, ops.reshape(shape))


def cycles_of(plan: Plan) -> float:
    """The cycles of one call, from inputs laid to outputs complete."""
    return max((float(r.finish.max(initial=0)) for r in _replay(plan)), default=0.0)


@dataclass(frozen=True)
class _Run:
    """One step's run on its cores, [rows, columns]. work: cycles; active: which have a tile."""

    core: Ints
    begin: Floats
    finish: Floats
    work: Floats
    active: Any


def _replay(plan: Plan) -> Iterator[_Run]:
    """The plan's steps in order, all cores of a step at once."""
    wafer = plan.wafer
    free = np.zeros(wafer.cores)
    ends: dict[int, Floats] = {}  # by result buffer: of steps that later ones still hear
    last = {b: s.number for s in plan.steps for b in _heard(s)}
    by_result: dict[int, Step] = {}
    known: dict[tuple[Op, Split], tuple[Any, Any]] = {}  # layers that are alike take the same
    for step in plan.steps:
        core = plan.regions[step.region].on(step.grid).astype(np.int64)
        if (step.op, step.split) not in known:
            known[step.op, step.split] = held(step), task_cycles(wafer, step)
        active, own = known[step.op, step.split]
        arrived = np.zeros(core.shape)
        extra = np.zeros(core.shape)
        for m in step.received:
            producer = by_result[m.source]
            t = traffic_of(plan, step, producer, m)
            arrived = np.maximum(arrived, _came(wafer, m, producer, t, ends[m.source]))
            if m.route == "local":
                extra = extra + wafer.copy(t.inbound * wafer.wavelet_bytes / 4, F32)
        for o in step.operands:
            if not o.received and o.buffer in by_result:
                rows, columns = step.grid.within(by_result[o.buffer].grid)
                arrived = np.maximum(arrived, ends[o.buffer][np.ix_(rows, columns)])
        # A reduction is the fabric's business: meanwhile its roots compute, and it does not wait for them.
        begin = arrived if step.kind == "join" else np.maximum(arrived, free[core])
        computes = step.kind == "task" or (step.kind == "update" and bool(step.operands))
        work = np.where(active, (own if computes else 0.0) + extra, 0.0)
        finish = np.where(active, begin + work, 0.0)
        if step.kind not in ("input", "join"):
            free[core] = np.maximum(free[core], finish)
        if step.kind != "update":
            by_result[step.result] = step
            if step.result in last:
                ends[step.result] = finish
        for b in _heard(step):
            if last[b] == step.number:
                ends.pop(b, None)
        yield _Run(core, begin, finish, work, active)


def _heard(step: Step) -> list[int]:
    """The buffers whose writers the step waits for, and constants."""
    return [*(m.source for m in step.received), *(o.buffer for o in step.operands if not o.received)]


def came(plan: Plan, step: Step, producer: Step, move: Move, ready: Floats) -> Floats:
    """[rows, columns] of the step: when all that the move brings is there. ready: of the producer."""
    return _came(plan.wafer, move, producer, traffic_of(plan, step, producer, move), ready)


def _came(wafer: Wafer, move: Move, producer: Step, t: Traffic, ready: Floats) -> Floats:
    if move.route == "join":
        return _joined(wafer, move, producer, t, ready)
    return arrival(wafer, t, ready, move.route == "relay") + _detour(wafer, move)


def _detour(wafer: Wafer, move: Move) -> float:
    """Cycles of the longest way round dead links, over the direct one; charged to all consumers."""
    longest = 0.0
    for d in move.detours:
        legs = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in zip(d.corners, d.corners[1:], strict=False)]
        direct = abs(d.corners[0][0] - d.corners[-1][0]) + abs(d.corners[0][1] - d.corners[-1][1])
        more = wafer.hop * (sum(legs) - direct) + wafer.turn * max(0, len(legs) - 1)
        longest = max(longest, more)
    return longest


def _joined(wafer: Wafer, move: Move, producer: Step, t: Traffic, ready: Floats) -> Floats:
    """[rows, columns] of the roots: when the fabric reduction is complete.

    The roots of one line share its links: they carry the results of all of them.
    """
    count = max(1, int(move.dims[0].start[-1]))
    latest = arrival(wafer, replace(t, x=_still(t.x), y=_still(t.y)), ready, relayed=False)
    roots = max(1, len(t.x.to) * len(t.y.to) * count // max(1, len(t.x.at) * len(t.y.at)))
    return latest + joining(wafer, producer.split, producer.part, producer.grid, t.inbound / count * roots)


def _still(e: Ends) -> Ends:
    """The same pairs, taken to lie in one place: the reduction's own formula counts the way."""
    return replace(e, at=np.zeros_like(e.at), to=np.zeros_like(e.to))
