"""A plan as what the simulator runs: tasks by core, and the streams between them.

A task is a step's tile on a core. It starts when its core has done all that the plan has before it and all
that it hears has arrived; a reduction's root keeps no core busy, nor does an input that the host laid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.dtypes import F32
from ...placement.cost.timing import held, task_cycles
from ...placement.plan.layout import Ints
from ...placement.plan.needs import need_elements
from ...placement.plan.plan import Plan, Step
from .multicast import multicast
from .reduction import reduction
from .words import FROM, RAMP, RAMP_OUT, Drafts, Nodes, ticks

MOST_CORES = 64 * 64  # of a wafer whose wavelets are looked at one by one


class NotSimulated(ValueError):
    """The wafer is too large or has faults that streams do not go round; the message says which."""


@dataclass(frozen=True)
class Tables:
    """What the simulator runs.

    start: [steps + 1], where each step's tasks begin; task number start[step] + core's number in its grid.
    [tasks]: core (-1: none is kept busy), cycles in ticks, waits for so many arrivals. queue: [all tasks on
    cores] by core, in the plan's order; queues: [cores + 1], where each core's begin. Of what follows a
    task's end and a stream's, as lists of numbers with where each begins: starts (nodes), follows (tasks),
    arrives (tasks, by node).
    """

    start: Ints
    core: Ints
    cycles: Ints
    waits: Ints
    queue: Ints
    queues: Ints
    starts: tuple[Ints, Ints]
    follows: tuple[Ints, Ints]
    arrives: tuple[Ints, Ints]
    nodes: Nodes

    @property
    def tasks(self) -> int:
        return len(self.core)


def tables(plan: Plan) -> Tables:
    """The tables of a plan. Raises NotSimulated."""
    w = plan.wafer
    if w.cores > MOST_CORES:
        raise NotSimulated(
            f"wafer {w.name} has {w.cores:,} cores; wavelets are simulated on at most {MOST_CORES:,}"
        )
    if w.dead_cores or w.dead_links:
        raise NotSimulated(f"wafer {w.name} has dead cores or links; wavelets are simulated on whole wafers")
    out = _Making(plan)
    for step in plan.steps:
        out.step(step)
    return out.done()


class _Making:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.drafts = plan, Drafts()
        sizes = [s.grid.cores for s in plan.steps]
        self.start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.core = np.full(int(self.start[-1]), -1, np.int64)
        self.cycles = np.zeros(int(self.start[-1]), np.int64)
        self.waits = np.zeros(int(self.start[-1]), np.int64)
        self.made: dict[int, int] = {}  # buffer -> position of the step that has written it
        self.starts: list[tuple[Ints, Ints]] = []  # task, node
        self.follows: list[tuple[Ints, Ints]] = []  # task, task
        self.arrives: list[tuple[Ints, Ints]] = []  # node, task

    def step(self, step: Step) -> None:
        plan, w, p = self.plan, self.plan.wafer, step.position
        first, cores = int(self.start[p]), plan.regions[step.region].on(step.grid).ravel().astype(np.int64)
        active = held(step).ravel()
        own = np.zeros(step.grid.cores)
        if step.kind == "task" or (step.kind == "update" and step.operands):
            own += task_cycles(w, step).ravel()
        for m in step.received:
            source = self.made[m.source]
            producer = plan.steps[source]
            if m.route == "local":
                nbytes = need_elements(m.dims) * plan.buffers[m.source].dtype.bytes
                copied: Any = w.copy(w.wavelets(nbytes) * w.wavelet_bytes / 4, F32)
                own += np.broadcast_to(copied, (step.grid.rows, step.grid.columns)).ravel()
                self._same_place(step, producer, source)
                continue
            if m.route == "join":
                ends = reduction(self.drafts, plan, step, producer, m)
                hears_itself = np.zeros(0, np.int64)
            else:
                ends, hears_itself = multicast(self.drafts, plan, step, producer, m)
            self.starts.append((self.start[source] + ends.producer, ends.first))
            self.arrives.append((ends.last, first + ends.consumer))
            at = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)
            if len(hears_itself):
                same = np.searchsorted(at, cores[hears_itself])
                self.follows.append((self.start[source] + same, first + hears_itself))
        for o in step.operands:
            if not o.received and o.buffer in self.made:
                source = self.made[o.buffer]
                self._same_place(step, plan.steps[source], source)
        here = slice(first, int(self.start[p + 1]))
        self.cycles[here] = ticks(np.where(active, own, 0.0))
        if step.kind not in ("input", "join"):
            self.core[here] = cores
        if step.kind != "update":
            self.made[step.result] = p

    def _same_place(self, step: Step, producer: Step, source: int) -> None:
        """Each core of the step waits for the producer's task on it."""
        rows, columns = step.grid.within(producer.grid)
        before = self.start[source] + np.add.outer(rows * producer.grid.columns, columns).ravel()
        self.follows.append((before, int(self.start[step.position]) + np.arange(step.grid.cores)))

    def done(self) -> Tables:
        for pairs in (self.follows, self.arrives):
            for _, after in pairs:
                np.add.at(self.waits, after, 1)
        nodes = _meant(self.plan, self.drafts.done())
        order = np.argsort(self.core, kind="stable")
        order = order[self.core[order] >= 0]
        queues = np.searchsorted(self.core[order], np.arange(self.plan.wafer.cores + 1))
        tasks = len(self.core)
        return Tables(
            self.start,
            self.core,
            self.cycles,
            self.waits,
            order,
            queues.astype(np.int64),
            listed(self.starts, tasks),
            listed(self.follows, tasks),
            listed(self.arrives, nodes.size),
            nodes,
        )


def listed(pairs: list[tuple[Ints, Ints]], count: int) -> tuple[Ints, Ints]:
    """(where each number's list begins, [count + 1]; the lists, one after the other)."""
    none = np.zeros(0, np.int64)
    key, value = (np.concatenate([none, *(p[i] for p in pairs)]) for i in range(2))
    order = np.argsort(key, kind="stable")
    return np.searchsorted(key[order], np.arange(count + 1)).astype(np.int64), value[order]


def _meant(plan: Plan, nodes: Nodes) -> Nodes:
    """The nodes with what each router's colour means where it enters: from where, and to which outputs."""
    cores = plan.wafer.cores
    kind = nodes.resource // cores
    output = np.where(kind < RAMP_OUT, 1 << np.minimum(kind, RAMP_OUT), RAMP)
    np.bitwise_or.at(nodes.meaning, nodes.before, output[nodes.after])
    nodes.meaning[:] |= (kind + 1) << FROM
    return nodes
