"""A plan replayed wavelet by wavelet: what its closed form, `placement.cost`, is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..codegen.fabric.simulator import ORDER, make_simulator
from ..codegen.fabric.tables import Tables, tables
from ..codegen.fabric.words import FINISHED, FROM, KINDS, RAMP, RAMP_OUT, STUCK, TICKS, TWO_WAYS, Found
from ..placement.cost.timing import simulate
from ..placement.machine.wafer import LINKS
from ..placement.plan.layout import Ints
from ..placement.plan.plan import Plan
from .engine import Code, bitcode

QUEUE = 4  # wavelets that wait at a router besides those on their way


class FabricError(RuntimeError):
    """A plan that the fabric cannot carry out: wavelets or tasks wait for one another, or a colour has two
    meanings at a router. The message names the cycle, the router and the steps."""


@dataclass(frozen=True)
class Replay:
    """A call, wavelet by wavelet, beside the closed form. All in cycles.

    [steps]: when the last of a step's tasks ends, by each; what a step takes from the end of the last step
    that it hears. hops: wavelets times links.
    """

    cycles: float
    closed: float
    ends: np.ndarray[Any, np.dtype[np.float64]]
    closed_ends: np.ndarray[Any, np.dtype[np.float64]]
    spans: np.ndarray[Any, np.dtype[np.float64]]
    closed_spans: np.ndarray[Any, np.dtype[np.float64]]
    hops: int

    @property
    def error(self) -> float:
        """The closed form over the simulation, less 1."""
        return self.closed / self.cycles - 1 if self.cycles else 0.0


def replay(plan: Plan) -> Replay:
    """Simulates a call. Raises FabricError, and NotSimulated for a wafer that is too large or has faults."""
    t = tables(plan)
    end, served = run(plan, t)
    model = simulate(plan, links=False)
    of = np.repeat(np.arange(len(plan.steps)), np.diff(t.start))
    ends = np.zeros(len(plan.steps))
    np.maximum.at(ends, of, end / TICKS)
    closed = np.array([e.max(initial=0.0) for e in model.end])
    hears = _heard(plan)
    spans, closed_spans = (e - np.array([e[h].max(initial=0.0) for h in hears]) for e in (ends, closed))
    links = t.nodes.resource < RAMP_OUT * plan.wafer.cores
    return Replay(
        float(ends.max(initial=0.0)),
        float(model.cycles),
        ends,
        closed,
        spans,
        closed_spans,
        int(served[links].sum()),
    )


def run(plan: Plan, t: Tables) -> tuple[Ints, Ints]:
    """(when each task ends, in ticks; wavelets that each node served). Raises FabricError."""
    n, wafer = t.nodes, plan.wafer
    slack = -(-n.latency // max(1, int(n.service.min(initial=TICKS))))
    room = QUEUE + slack
    ring = 1 << int(room.max(initial=1)).bit_length()
    before_at, before = _lists(n.after, n.before, n.size)
    after_at, after = _lists(n.before, n.after, n.size)
    trigger = zeros(n.size)
    trigger[t.starts[1]] = -1
    found = zeros(Found.SIZE)
    places = wafer.cores * wafer.colours
    own: dict[str, Ints] = {
        "core": t.core, "cycles": t.cycles, "waits": t.waits.copy(), "ready": zeros(t.tasks),
        "begin": zeros(t.tasks), "end": zeros(t.tasks), "queue": t.queue, "queues": t.queues,
        "head": t.queues[:-1].copy(), "core_free": zeros(wafer.cores), "resource": n.resource,
        "starts_at": t.starts[0], "starts": t.starts[1], "follows_at": t.follows[0], "follows": t.follows[1],
        "arrives_at": t.arrives[0], "arrives": t.arrives[1], "service": n.service, "latency": n.latency,
        "count": n.count, "place": n.place, "meaning": n.meaning, "room": room, "trigger": trigger,
        "served": zeros(n.size) - 1, "times": zeros(n.size * ring), "active": zeros(n.size + 1),
        "free": zeros(KINDS * wafer.cores), "meant": zeros(places) - 1, "meant_at": zeros(places),
        "before_at": before_at, "before": before, "after_at": after_at, "after": after,
        "stack": zeros(t.tasks + 1), "found": found,
    }  # fmt: skip
    numbers = {"tasks": t.tasks, "node_count": n.size, "ring": ring}
    own = {name: np.ascontiguousarray(a if len(a) else zeros(1), np.int64) for name, a in own.items()}
    found = own["found"]
    words = np.array([numbers[o] if o in numbers else own[o].ctypes.data for o in ORDER], np.int64)
    _code().function("simulate", 1)(words.ctypes.data)
    if found[Found.CODE] != FINISHED:
        raise FabricError(_told(plan, t, own))
    return own["end"][: t.tasks], np.maximum(own["served"][: n.size], 0)


def zeros(count: int) -> Ints:
    return np.zeros(count, np.int64)


@cache
def _code() -> Code:
    return Code(bitcode(make_simulator()))


def _lists(key: Ints, value: Ints, count: int) -> tuple[Ints, Ints]:
    order = np.argsort(key, kind="stable")
    return np.searchsorted(key[order], np.arange(count + 1)).astype(np.int64), value[order]


def _heard(plan: Plan) -> list[list[int]]:
    """By step: the positions of the steps that have made what it hears."""
    made: dict[int, int] = {}
    out: list[list[int]] = []
    for s in plan.steps:
        buffers = [*(m.source for m in s.received), *(o.buffer for o in s.operands if not o.received)]
        out.append([made[b] for b in buffers if b in made])
        if s.kind != "update":
            made[s.result] = s.position
    return out


# -- what went wrong -------------------------------------------------------------------------------------
def _told(plan: Plan, t: Tables, own: dict[str, Ints]) -> str:
    found, n = own["found"], t.nodes
    cycle = f"cycle {int(found[Found.TIME]) // TICKS:,}"
    node = int(found[Found.NODE])
    if found[Found.CODE] == TWO_WAYS:
        other = int(found[Found.OTHER])
        router, colour = divmod(int(n.place[node]), plan.wafer.colours)
        since = int(found[Found.OTHER_TIME]) // TICKS
        return (
            f"{cycle}, router {_place(plan, router)}: colour {colour} is "
            f"{_meaning(int(n.meaning[other]))} since cycle {since:,} for {_step(plan, int(n.step[other]))}, "
            f"and {_meaning(int(n.meaning[node]))} for {_step(plan, int(n.step[node]))}"
        )
    waiting = np.flatnonzero(_undone(t, own))
    # Where a stream has begun whose own core's task has not ended, tasks wait for one another.
    begun = (own["served"][: n.size] >= 0) & (own["trigger"][: n.size] < 0)
    if found[Found.CODE] == STUCK and not (len(waiting) and begun.any()):
        core, step = int(n.resource[node]) % plan.wafer.cores, int(n.step[node])
        served, count = max(0, int(own["served"][node])), int(n.count[node])
        return (
            f"{cycle}, router {_place(plan, core)}: deadlock, {_step(plan, step)} has {served} of {count} "
            "wavelets through and none can move"
        )
    task = int(waiting[0])
    step = int(np.searchsorted(t.start, task, side="right")) - 1
    core = plan.regions[plan.steps[step].region].on(plan.steps[step].grid).ravel()[task - int(t.start[step])]
    return (
        f"{cycle}, router {_place(plan, int(core))}: deadlock, {_step(plan, step)} waits for "
        f"{int(own['waits'][task])} arrivals that never come"
    )


def _undone(t: Tables, own: dict[str, Ints]) -> Any:
    """bool [tasks]: which are next on their cores and wait for something that has not arrived."""
    first = np.zeros(t.tasks, np.bool_)
    first[t.queue[own["head"][own["head"] < t.queues[1:]]]] = True
    return (own["waits"][: t.tasks] > 0) & first


def _place(plan: Plan, core: int) -> str:
    return f"({core % plan.wafer.width}, {core // plan.wafer.width})"


def _step(plan: Plan, position: int) -> str:
    s = plan.steps[position]
    return f"step {position} ({s.kind} of {s.name[:40]!r})"


def _meaning(word: int) -> str:
    """A router's configuration as text: `west -> east, ramp`."""
    by = (word >> FROM) - 1
    opposite = ("west", "east", "north", "south")
    source = opposite[by] if by < RAMP_OUT else "ramp"
    outputs = [name for i, name in enumerate(LINKS) if word >> i & 1] + ["ramp"] * bool(word & RAMP)
    return f"{source} -> {', '.join(outputs) or 'nothing'}"
