"""What a trace counts along a predicted call: bytes held and bytes on their way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...placement.cost.critical_path import writers
from ...placement.cost.timing import Timing
from ...placement.plan.layout import Ints
from ...placement.plan.plan import Plan
from .metrics import under_way as on_its_way
from .rows import at_core, code_at


@dataclass(frozen=True)
class Counter:
    """Bytes from each time on until the next; times in cycles, rising."""

    name: str
    times: np.ndarray[Any, np.dtype[np.float64]]
    bytes: Ints


def sram_in_use(plan: Plan, timing: Timing) -> Counter:
    """Bytes of code and of live buffers on the fullest core, from the start of each step that it runs."""
    core = int(plan.sram().argmax())
    y, x = divmod(core, plan.wafer.width)
    buffers, running = at_core(plan, x, y)
    last = len(plan.steps)
    change = np.zeros(last + 2, np.int64)
    for b in buffers:
        lives = [(b.live, b.bytes)]
        if b.over >= 0:  # while both live they share one address
            base = plan.buffers[b.over]
            lives.append(
                ((max(b.live[0], base.live[0]), min(b.live[1], base.live[1])), -min(b.bytes, base.bytes))
            )
        for (first, end), nbytes in lives:
            if first <= end:
                change[max(0, first)] += nbytes
                change[min(last, end) + 1] -= nbytes
    used = np.cumsum(change) + code_at(plan, core)
    starts = np.array([timing.start[s.position][row, column] for s, row, column in running], np.float64)
    order = np.argsort(starts, kind="stable")
    positions = np.array([s.position for s, _, _ in running], np.int64)
    return Counter(f"SRAM in use on core ({x}, {y})", starts[order], used[positions[order]])


def under_way(plan: Plan, timing: Timing) -> Counter:
    """Bytes that cores receive over links: of each move from its first producer's end to its last consumer's
    start, which may be after they arrived."""
    times, changes = [0.0], [0]
    for s, made in zip(plan.steps, writers(plan), strict=True):
        for move in s.received:
            if move.route == "local" or move.source not in made:
                continue
            when = on_its_way(plan, timing, s, made[move.source])
            if when is None:
                continue
            nbytes = plan.received(s, move)
            times += when
            changes += [nbytes, -nbytes]
    order = np.argsort(np.array(times), kind="stable")
    ordered = np.array(times)[order]
    keep = np.append(ordered[1:] > ordered[:-1], True)  # of one moment, what all its changes come to
    return Counter(
        "bytes under way on links", ordered[keep], np.cumsum(np.array(changes, np.int64)[order])[keep]
    )
