"""A predicted call as a Chrome trace: one track per core, or per row of cores, for Perfetto to show."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...placement.cost.timing import Timing, held
from ...placement.plan.plan import Plan
from ..errors import shown

MOST_EVENTS = 100_000  # beyond, a step has one event per row of cores instead of one per core


def chrome_trace(plan: Plan, timing: Timing) -> dict[str, Any]:
    """Trace events in microseconds of the wafer's clock; `args` tell cycles.

    A process is a region, a thread a core or a row of cores (`otherData.tracks` says which). An event
    of a row lasts from its first core's start to its last core's end.
    """
    wafer = plan.wafer
    shares = [held(s) for s in plan.steps]
    by_core = sum(int(a.sum()) for a in shares) <= MOST_EVENTS
    microsecond = wafer.clock_hz / 1e6
    events: list[dict[str, Any]] = []
    named: dict[tuple[int, int], str] = {}
    for s, active in zip(plan.steps, shares, strict=True):
        start, end = timing.start[s.position], timing.end[s.position]
        cores = plan.regions[s.region].on(s.grid)
        kind = s.op.name if s.kind in ("task", "join") else s.kind
        for row in np.flatnonzero(active.any(axis=1)).tolist():
            here = np.flatnonzero(active[row])
            groups = [here[i : i + 1] for i in range(len(here))] if by_core else [here]
            for columns in groups:
                core = int(cores[row, columns[0]])
                x, y = core % wafer.width, core // wafer.width
                track = core if by_core else y
                named[s.region, track] = f"core ({x}, {y})" if by_core else f"cores of row {y}"
                first, last = float(start[row, columns].min()), float(end[row, columns].max())
                events.append(
                    {
                        "name": shown(s.name),
                        "cat": kind,
                        "ph": "X",
                        "pid": s.region,
                        "tid": track,
                        "ts": first / microsecond,
                        "dur": (last - first) / microsecond,
                        "args": {
                            "op": kind,
                            "step": s.position,
                            "start": first,
                            "end": last,
                            "cores": len(columns),
                        },
                    }
                )
    names: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": i, "args": {"name": f"region {i}: {shown(r.name)}"}}
        for i, r in enumerate(plan.regions)
    ]
    names += [
        {"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
        for (pid, tid), name in sorted(named.items())
    ]
    other = {
        "wafer": wafer.name,
        "clock_hz": wafer.clock_hz,
        "tracks": "cores" if by_core else "rows of cores",
        "cycles": timing.cycles,
    }
    return {"traceEvents": names + events, "displayTimeUnit": "ns", "otherData": other}
