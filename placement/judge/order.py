"""The judge: every task after its inputs, and riders of one task."""

from __future__ import annotations

from ..plan.plan import Plan, Step
from .verdict import IllegalPlan, Index, step_name


def judge_order(plan: Plan, index: Index) -> None:
    """Every step comes after those whose results it reads; a state's update after its readers."""
    before = -1
    for s in plan.steps:
        if s.wavefront < before:
            raise IllegalPlan(f"{step_name(s)}: wavefront {s.wavefront} comes after wavefront {before}")
        before = s.wavefront
        if s.rides >= 0:
            _judge_ride(plan, index, s)
        for buffer in _read(s):
            if buffer in index.owner:
                _judge_read(index, s, buffer)
    for name in plan.graph.outputs:
        if name in index.updates:
            raise IllegalPlan(f"{step_name(index.updates[name])}: output {name!r} is read after its update")


def _judge_read(index: Index, s: Step, buffer: int) -> None:
    """A step comes after the one that leaves what it reads, and before what changes that."""
    producer = index.owner[buffer]
    if producer.position >= s.position:
        raise IllegalPlan(
            f"{step_name(s)}: at position {s.position}, but it reads {step_name(producer)} "
            f"at {producer.position}"
        )
    if producer.wavefront >= s.wavefront and not _one_task(producer, s, buffer):
        raise IllegalPlan(
            f"{step_name(s)}: in wavefront {s.wavefront}, but it reads {step_name(producer)} "
            f"of {producer.wavefront}"
        )
    update = index.updates.get(producer.tensor)
    if update is None or update is s:
        return
    if update.position <= s.position or update.wavefront <= s.wavefront:
        raise IllegalPlan(
            f"{step_name(update)}: in wavefront {update.wavefront}, but {step_name(s)} reads "
            f"the old value in wavefront {s.wavefront}"
        )


def _judge_ride(plan: Plan, index: Index, s: Step) -> None:
    """A rider is the end of its leader's task: right behind it, on its cores, with all it reads in place."""
    where = f"{step_name(s)}: rides on step {s.rides}"
    if s.kind != "task" or not 0 <= s.rides < s.position:
        raise IllegalPlan(f"{where}, must be a task and ride on a step before it")
    leader, before = plan.steps[s.rides], plan.steps[s.position - 1]
    if leader.kind not in ("task", "join") or leader.rides >= 0:
        raise IllegalPlan(f"{where}, which leads no task: {step_name(leader)}")
    if before.leader != leader.number:
        raise IllegalPlan(f"{where}, but {step_name(before)} comes between")
    if s.wavefront != leader.wavefront:
        raise IllegalPlan(f"{where} of wavefront {leader.wavefront}, in wavefront {s.wavefront}")
    if (s.region, s.grid) != (leader.region, leader.grid):
        raise IllegalPlan(f"{where} on [{leader.grid}] of region {leader.region}, is on [{s.grid}]")
    for j, o in enumerate(s.operands):
        if o.received:
            raise IllegalPlan(f"{where}, but operand {j} {o.tensor!r} is received")
    made = [index.owner[o.buffer] for o in s.operands if o.buffer in index.owner]
    if all(m.leader != leader.number for m in made):
        raise IllegalPlan(f"{where}, but reads nothing that its task leaves")


def _one_task(producer: Step, s: Step, buffer: int) -> bool:
    """Whether a step reads in place what was left by the task that it is part of."""
    return producer.leader == s.leader and buffer not in s.fetched


def _read(step: Step) -> list[int]:
    """The buffers that a step reads, here or elsewhere."""
    return [*step.fetched, *(o.buffer for o in step.operands if not o.received)]
