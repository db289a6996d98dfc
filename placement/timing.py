"""The timing model: when each task of a plan starts and ends, and what each link carries.

A task starts at max(arrival of its inputs, core free) and takes its kernel's cycles. A move's
bytes arrive when the source is done, plus the route (hops, a turn, relays), plus
serialisation: the most that its consumer's ramp, its source's ramp, or a link of its row or column
must carry for this move. All formulas with constants are `Wafer`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .layout import axis_indices
from .move import Move, records
from .plan import Plan, Step
from .wafer import Wafer

Floats = np.ndarray[Any, np.dtype[np.float64]]


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
    critical: list[dict[str, Any]] = field(default_factory=lambda: [])


def predicted_cycles(plan: Plan) -> float:
    """Cycles from inputs laid to outputs complete."""
    return simulate(plan).cycles


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


def simulate(plan: Plan) -> Timing:
    """Replays the plan's steps in order, all cores of a step at once."""
    wafer = plan.wafer
    free = np.zeros(wafer.cores)
    busy = np.zeros(wafer.cores)
    ops = np.zeros(wafer.cores)
    links = np.zeros((4, wafer.height, wafer.width))
    starts: list[Floats] = []
    ends: list[Floats] = []
    cores: list[Any] = []
    of_buffer: dict[int, int] = {}
    for step in plan.steps:
        core = plan.regions[step.region].on(step.grid).astype(np.int64)
        cores.append(core)
        active = held(step)
        arrival = np.zeros(core.size)
        extra = np.zeros(core.size)
        moves = [m for o in step.operands for m in o.moves] + list(step.moves)
        for m in moves:
            producer = of_buffer[m.source]
            nbytes = plan.buffers[m.source].dtype.bytes
            if m.route == "join":
                _join(plan, step, m, cores[producer], ends[producer], arrival, links, nbytes)
            else:
                _receive(plan, step, m, cores[producer], ends[producer], arrival, extra, links, nbytes)
        begin = np.maximum(arrival, free[core.ravel()])
        if step.kind == "input":
            cycles = np.zeros(core.size)
        elif step.kind == "join":
            cycles = np.zeros(core.size)
        elif step.kind == "update" and not step.operands:
            cycles = np.zeros(core.size)
        else:
            cycles = task_cycles(wafer, step).ravel()
        work = (cycles + extra) * active.ravel()
        finish = np.where(active.ravel(), begin + work, 0.0)
        if step.kind != "input":
            free[core.ravel()] = np.maximum(free[core.ravel()], finish)
            busy[core.ravel()] += work
            ops[core.ravel()] += active.ravel()
        starts.append(begin.reshape(core.shape))
        ends.append(finish.reshape(core.shape))
        of_buffer[step.result] = len(ends) - 1
    total = max((float(e.max(initial=0)) for e in ends), default=0.0)
    shape = (wafer.height, wafer.width)
    return Timing(total, starts, ends, busy.reshape(shape), links, ops.reshape(shape))


def _receive(
    plan: Plan,
    step: Step,
    move: Move,
    source_core: Any,
    source_end: Floats,
    arrival: Floats,
    extra: Floats,
    links: Floats,
    nbytes: int,
) -> None:
    wafer = plan.wafer
    target_core = plan.regions[step.region].on(step.grid).astype(np.int64).ravel()
    s_core, s_end = source_core.ravel(), source_end.ravel()
    for r in records(move, step.grid, 1 << 22):
        src, dst = s_core[r.source], target_core[r.target]
        local = src == dst
        if local.any():
            own = np.bincount(r.target[local], r.elements[local], len(arrival))
            extra += np.where(own > 0, wafer.copy(own, plan.buffers[move.source].dtype), 0.0)
            np.maximum.at(arrival, r.target[local], s_end[r.source[local]])
        if local.all():
            continue
        far = ~local
        src, dst = src[far], dst[far]
        elements, target, source = r.elements[far], r.target[far], r.source[far]
        sx, sy, dx, dy = src % wafer.width, src // wafer.width, dst % wafer.width, dst // wafer.width
        waves = wafer.wavelets(elements * nbytes)
        inbound = np.bincount(target, waves, len(arrival))
        row, column = _load(wafer, src, sx, sy, dx, dy, waves, links)
        hops = np.abs(sx - dx) + np.abs(sy - dy)
        turns = ((sx != dx) & (sy != dy)).astype(np.int64)
        _detour(wafer, move, src, dst, hops, turns)
        serial = np.maximum(inbound[target], np.maximum(row[sy], column[dx]))
        time = s_end[source] + wafer.route(hops, turns) + wafer.serial(serial)
        if move.route == "relay":
            time = time + wafer.relayed(hops)
        np.maximum.at(arrival, target, time)


def _detour(wafer: Wafer, move: Move, src: Any, dst: Any, hops: Any, turns: Any) -> None:
    """Puts the hops and turns of detours in place."""
    for d in move.detours:
        chosen = (src == d.source) & (dst == d.target)
        legs = zip(d.corners, d.corners[1:], strict=False)
        hops[chosen] = sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in legs)
        turns[chosen] = max(0, len(d.corners) - 2)


def _load(
    wafer: Wafer, src: Any, sx: Any, sy: Any, dx: Any, dy: Any, waves: Any, links: Floats
) -> tuple[Floats, Floats]:
    """Adds a move's wavelets to the links it takes; returns the fullest link of each row and column.

    Routes go along the row first. What one source sends to many is sent once per link: the row's
    part serves all its columns, a column's part all its cores.
    """
    h, w = wafer.height, wafer.width
    horizontal = np.zeros((2, h, w + 1))
    vertical = np.zeros((2, h + 1, w))
    # Along rows: one interval per source and direction.
    for k, ahead in enumerate((dx > sx, dx < sx)):
        if not ahead.any():
            continue
        s, order = src[ahead], None
        order = np.argsort(s, kind="stable")
        s = s[order]
        first = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])
        d = dx[ahead][order]
        end = np.maximum.reduceat(d, first) if k == 0 else np.minimum.reduceat(d, first)
        load = np.maximum.reduceat(waves[ahead][order], first)
        x, y = s[first] % w, s[first] // w
        lo, hi = (x, end) if k == 0 else (end + 1, x + 1)
        np.add.at(horizontal[k], (y, lo), load)
        np.subtract.at(horizontal[k], (y, hi), load)
    # Along columns: one interval per source, target column and direction.
    for k, ahead in enumerate((dy > sy, dy < sy)):
        if not ahead.any():
            continue
        key = src[ahead] * w + dx[ahead]
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
        d = dy[ahead][order]
        end = np.maximum.reduceat(d, first) if k == 0 else np.minimum.reduceat(d, first)
        load = np.maximum.reduceat(waves[ahead][order], first)
        x, y = key[first] % w, key[first] // w // w
        lo, hi = (y, end) if k == 0 else (end + 1, y + 1)
        np.add.at(vertical[k], (lo, x), load)
        np.subtract.at(vertical[k], (hi, x), load)
    horizontal = np.cumsum(horizontal, axis=2)[:, :, :w]
    vertical = np.cumsum(vertical, axis=1)[:, :h, :]
    links[0:2] += horizontal * wafer.wavelet_bytes
    links[2:4] += vertical * wafer.wavelet_bytes
    return horizontal.max(axis=(0, 2)), vertical.max(axis=(0, 1))


def _join(
    plan: Plan, step: Step, move: Move, source_core: Any, source_end: Floats, arrival: Floats, links: Floats, nbytes: int
) -> None:
    """A fabric reduction: all partial results in, one formula per root."""
    wafer = plan.wafer
    target_core = plan.regions[step.region].on(step.grid).astype(np.int64).ravel()
    s_core, s_end = source_core.ravel(), source_end.ravel()
    ready = np.zeros(len(arrival))
    waves = np.zeros(len(arrival))
    parts = np.zeros(len(arrival))
    reach = np.zeros(len(arrival))
    lead = move.dims[0]
    count = max(1, int(lead.start[-1]))
    for r in records(move, step.grid, 1 << 22):
        src, dst = s_core[r.source], target_core[r.target]
        np.maximum.at(ready, r.target, s_end[r.source])
        waves += np.bincount(r.target, wafer.wavelets(r.elements * nbytes), len(arrival))
        parts += np.bincount(r.target, minlength=len(arrival))
        sx, sy, dx, dy = src % wafer.width, src // wafer.width, dst % wafer.width, dst // wafer.width
        np.maximum.at(reach, r.target, np.abs(sx - dx) + np.abs(sy - dy))
        # Partial sums travel along the line: each link between the ends carries one result.
        far = src != dst
        if far.any():
            _load(wafer, dst[far], dx[far], dy[far], sx[far], sy[far], wafer.wavelets(r.elements * nbytes)[far], links)
    roots = max(1, step.grid.cores * count // max(1, source_core.size))
    along = np.maximum(1.0, np.round(2 * reach / max(1, count)))
    # The roots of one line share its links: they carry the results of all of them.
    arrival[:] = np.maximum(arrival, ready + wafer.join(np.full(len(arrival), count), waves / count * roots, along))

