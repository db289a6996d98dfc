"""A predicted call as a Chrome trace for Perfetto to show: bars, arrows between them, and counters.

Perfetto drops a bar that begins inside another one of its track and ends after it. A track here is a *lane*:
of a core, or of a row of cores, it has bars that follow one another.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...placement.cost.critical_path import origin, reads, writers
from ...placement.cost.timing import Timing, held
from ...placement.plan.layout import Ints
from ...placement.plan.plan import Plan
from ..errors import shown
from .text import brief_name
from .trace_counters import Counter, sram_in_use, under_way

MOST_EVENTS = 100_000  # beyond, a step has one bar per row of cores instead of one per core
WHOLE_NAME = 1000  # characters

Event = dict[str, Any]


@dataclass(frozen=True)
class Bars:
    """What the steps do on their tracks: arrays with one element per bar, step by step.

    by_core: whether a track is a core, by its physical number, or a row of cores. first, last: cycles.
    active: per step [rows, columns], the cores with work. offsets: of each step's first bar.
    """

    by_core: bool
    step: Ints
    region: Ints
    track: Ints
    cores: Ints
    first: np.ndarray[Any, np.dtype[np.float64]]
    last: np.ndarray[Any, np.dtype[np.float64]]
    active: list[Any]
    offsets: Ints

    def of(self, step: int, row: int, column: int) -> int:
        """The bar of a step that shows the core at (row, column) of its grid; -1 where nothing runs."""
        active = self.active[step]
        if not active[row, column]:
            return -1
        before = (
            active[:row].sum() + active[row, :column].sum() if self.by_core else active[:row].any(1).sum()
        )
        return int(self.offsets[step] + before)


def chrome_trace(plan: Plan, timing: Timing) -> dict[str, Any]:
    """Trace events in microseconds of the wafer's clock; `args` tell cycles.

    A process is a region, a thread a lane of a core or of a row of cores (`otherData.tracks` says which). The
    bar of a row lasts from its first core's start to its last core's end. An arrow leads from the core that
    the first core of a step to begin has heard last, one for each operand.
    """
    bars = _bars(plan, timing)
    begin, end = (np.rint(t / plan.wafer.clock_hz * 1e9).astype(np.int64) for t in (bars.first, bars.last))
    order = np.lexsort((bars.step, begin))
    thread, names = _lanes(plan, bars, begin, end, order)
    arrows = _arrows(plan, timing, bars)
    events: list[Event] = []
    for i in order.tolist():
        at = {"pid": int(bars.region[i]) + 1, "tid": int(thread[i]), "ts": _microseconds(begin[i])}
        events.append({**_bar(plan, bars, i), **at, "dur": _microseconds(end[i] - begin[i])})
        events += ({**arrow, **at} for arrow in arrows.get(i, ()))
    for counter in (sram_in_use(plan, timing), under_way(plan, timing)):
        events += _counted(plan, counter)
    other = {
        "wafer": plan.wafer.name,
        "clock_hz": plan.wafer.clock_hz,
        "tracks": "cores" if bars.by_core else "rows of cores",
        "cycles": timing.cycles,
    }
    return {"traceEvents": names + events, "displayTimeUnit": "ns", "otherData": other}


def _microseconds(nanoseconds: Any) -> float:
    """A quarter more, so that readers who round and those who cut get the same whole nanoseconds."""
    return (int(nanoseconds) + 0.25) / 1000


def _bars(plan: Plan, timing: Timing) -> Bars:
    """One bar per core with work, or per row of cores where those would be too many."""
    active = [held(s) for s in plan.steps]
    by_core = sum(int(a.sum()) for a in active) <= MOST_EVENTS
    parts: list[tuple[Any, ...]] = []
    for s, on in zip(plan.steps, active, strict=True):
        start, end = timing.start[s.position], timing.end[s.position]
        cores = plan.regions[s.region].on(s.grid)
        if by_core:
            parts.append((cores[on], np.ones(int(on.sum())), start[on], end[on]))
            continue
        rows = np.flatnonzero(on.any(axis=1))
        on, cores = on[rows], cores[rows, on[rows].argmax(axis=1)] // plan.wafer.width
        first = np.where(on, start[rows], np.inf).min(axis=1, initial=np.inf)
        parts.append((cores, on.sum(axis=1), first, np.where(on, end[rows], 0).max(axis=1, initial=0)))
    counts = np.array([len(p[0]) for p in parts], np.int64)
    none: Any = np.zeros(0)
    track, cores, first, last = (np.concatenate([none, *(p[k] for p in parts)]) for k in range(4))
    step = np.repeat(np.arange(len(parts)), counts)
    region = np.repeat(np.array([s.region for s in plan.steps], np.int64), counts)
    offsets = np.cumsum(counts) - counts
    return Bars(
        by_core, step, region, track.astype(np.int64), cores.astype(np.int64), first, last, active, offsets
    )


def _lanes(plan: Plan, bars: Bars, begin: Ints, end: Ints, order: Ints) -> tuple[Ints, list[Event]]:
    """The thread of each bar, such that those of one thread follow one another; also all names.

    A bar takes the lane of its track that has been free longest, or a new one.
    """
    free: dict[tuple[int, int], list[tuple[int, int]]] = {}  # by region and track: (free from, lane)
    lane = np.zeros(len(order), np.int64)
    for i in order.tolist():
        lanes = free.setdefault((int(bars.region[i]), int(bars.track[i])), [])
        taken = heapq.heappop(lanes)[1] if lanes and lanes[0][0] <= begin[i] else len(lanes)
        heapq.heappush(lanes, (int(end[i]), taken))
        lane[i] = taken
    numbers: dict[tuple[int, int, int], int] = {}
    names = [
        _named("process_name", i + 1, 0, f"region {i}: {shown(r.name)}") for i, r in enumerate(plan.regions)
    ]
    names.append(_named("process_name", len(plan.regions) + 1, 0, "wafer"))
    for region, track in sorted(free):
        y, x = divmod(track, plan.wafer.width)
        name = f"core ({x}, {y})" if bars.by_core else f"cores of row {track}"
        for k in range(len(free[region, track])):
            number = numbers[region, track, k] = len(numbers) + 1
            names.append(_named("thread_name", region + 1, number, name + (f", lane {k + 1}" if k else "")))
            names.append(
                {**_named("thread_sort_index", region + 1, number, ""), "args": {"sort_index": number}}
            )
    keys = zip(bars.region.tolist(), bars.track.tolist(), lane.tolist(), strict=True)
    return np.array([numbers[key] for key in keys], np.int64), names


def _named(what: str, process: int, thread: int, name: str) -> Event:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _bar(plan: Plan, bars: Bars, i: int) -> Event:
    s = plan.steps[int(bars.step[i])]
    kind = s.op.name if s.kind in ("task", "join") else s.kind
    return {
        "name": brief_name(shown(s.name, WHOLE_NAME)),
        "cat": kind,
        "ph": "X",
        "args": {
            "name": shown(s.name, WHOLE_NAME),
            "op": kind,
            "step": s.position,
            "start": float(bars.first[i]),
            "end": float(bars.last[i]),
            "cores": int(bars.cores[i]),
        },
    }


def _arrows(plan: Plan, timing: Timing, bars: Bars) -> dict[int, list[Event]]:
    """By bar: where arrows begin and end there. Both ends have the number of the arrow."""
    out: dict[int, list[Event]] = {}
    for number, (producer, consumer, arrow) in enumerate(_operands(plan, timing, bars), 1):
        out.setdefault(producer, []).append({**arrow, "ph": "s", "id": number})
        out.setdefault(consumer, []).append({**arrow, "ph": "f", "bp": "e", "id": number})
    return out


def _operands(plan: Plan, timing: Timing, bars: Bars) -> Iterator[tuple[int, int, Event]]:
    """(bar of the producer, bar of the consumer, what comes) of the run-time operands of steps."""
    for s, made in zip(plan.steps, writers(plan), strict=True):
        active = bars.active[s.position]
        if not active.any():
            continue
        start = np.where(active, timing.start[s.position], np.inf)
        at = divmod(int(start.argmin()), start.shape[1])
        for buffer, move in reads(s):
            if buffer not in made:
                continue
            source = plan.steps[made[buffer]]
            place = origin(plan, s, source, move, timing.end[source.position], at)
            producer = -1 if place is None else bars.of(source.position, *place)
            if producer >= 0:
                args = {"tensor": shown(plan.buffers[buffer].name, WHOLE_NAME)}
                name = "in place" if move is None else move.route
                yield producer, bars.of(s.position, *at), {"name": name, "cat": "operand", "args": args}


def _counted(plan: Plan, counter: Counter) -> list[Event]:
    times = np.rint(counter.times / plan.wafer.clock_hz * 1e9)
    return [
        {
            "name": counter.name,
            "ph": "C",
            "pid": len(plan.regions) + 1,
            "ts": _microseconds(t),
            "args": {"bytes": value},
        }
        for t, value in zip(times.tolist(), counter.bytes.tolist(), strict=True)
    ]
