"""A plan for people: its figures, its table of steps, one core's memory, and the picture of it all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...placement.cost.timing import Timing, held
from ...placement.machine.wafer import Wafer
from ...placement.plan.plan import Buffer, Plan, Step
from ..errors import shown
from .figures import Figures, cycles_line, fitted, host_line, running_cores
from .text import plural

LONGEST_NAME = 400  # characters: tables cut names where they differ


def summary(plan: Plan, f: Figures) -> list[tuple[str, str]]:
    """The figures as (name, text), one fact each."""
    wafer = plan.wafer
    x, y = f.fullest_core
    link = f.fullest_link
    return [
        ("model", shown(plan.graph.name)),
        ("wafer", f"{shown(wafer.name)}: {wafer.width} x {wafer.height} cores{_dead(wafer)}"),
        ("plan", _found(plan, f)),
        ("cores used", _used(plan, f)),
        ("tasks per call", f"{f.tasks:,} in {plural(f.wavefronts, 'wavefront')}"),
        ("cycles per call", cycles_line(f, wafer).replace(" cycles", "", 1)),
        *_slower(f),
        ("fullest core", f"({x}, {y}): {share(f.fullest_core_bytes, wafer.sram_bytes)} bytes"),
        (
            "fullest link",
            f"({link[0]}, {link[1]}) {link[2]}: {f.fullest_link_bytes:,} bytes per call"
            if link
            else "none is used",
        ),
        ("host", host_line(f, wafer)),
        ("assumed", "; ".join(f.assumed) if f.assumed else "nothing"),
        ("fitted", "; ".join(fitted(plan)) or "nothing"),
    ]


def _found(plan: Plan, f: Figures) -> str:
    fits = f.fullest_core_bytes <= plan.wafer.sram_bytes
    return f"best {plan.objective} found" if fits else "the nearest to fitting; it does not fit"


def _slower(f: Figures) -> list[tuple[str, str]]:
    """A line where the cycles rest on the assumed rate of products of 16-bit weights."""
    if f.cycles_at_f32 == f.cycles:
        return []
    return [("at f32's rate", f"{f.cycles_at_f32:,.0f} cycles, if 16-bit weights multiplied no faster")]


def _used(plan: Plan, f: Figures) -> str:
    """The cores that run a step; apart from them those that hold something only."""
    text = f"{f.cores_used:,} of {plan.wafer.cores:,} in {plural(f.regions, 'region')}"
    sram, idle = plan.sram().reshape(-1), ~running_cores(plan)
    code = np.zeros(plan.wafer.cores, np.int64)
    for region, nbytes in zip(plan.regions, plan.code_bytes, strict=True):
        code[region.core] = np.maximum(code[region.core], nbytes)
    alone, data = int((idle & (sram > 0) & (sram == code)).sum()), int((idle & (sram > code)).sum())
    text += f"; {alone:,} more hold code only" if alone else ""
    return text + (f"; {data:,} more hold data and run nothing" if data else "")


def share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / max(1, whole):.0%})"


def _dead(wafer: Wafer) -> str:
    n = len(set(wafer.dead_cores))
    return f", {n:,} dead" if n else ""


# -- steps ------------------------------------------------------------------------------


def span(timing: Timing, step: Step) -> tuple[float, float]:
    """(first start, last end) over the cores that have work in `step`."""
    active = held(step)
    start, end = timing.start[step.position][active], timing.end[step.position][active]
    return float(start.min(initial=np.inf)) if start.size else 0.0, float(end.max(initial=0))


def buffers_of(plan: Plan, step: Step) -> list[Buffer]:
    """What the step reads, holds while it runs, and writes on each core; memory that it reads and
    writes once."""
    numbers = {o.buffer for o in step.operands} | {step.result}
    numbers.discard(plan.buffers[step.result].over)
    if step.scratch >= 0:
        numbers.add(step.scratch)
    return [plan.buffers[n] for n in sorted(numbers)]


def step_rows(plan: Plan, timing: Timing) -> list[dict[str, Any]]:
    """One row per step in schedule order, all with the same keys. rides: the step whose task a rider
    is part of, "" for others."""
    out: list[dict[str, Any]] = []
    for s in plan.steps:
        start, end = span(timing, s)
        out.append(
            {
                "step": s.position,
                "rides": s.rides if s.rides >= 0 else "",
                "op": s.op.name if s.kind in ("task", "join") else s.kind,
                "node": shown(s.name, LONGEST_NAME),
                "region": s.region,
                "split": str(s.split) + (f", partial sums over {s.part}" if s.part else ""),
                "grid": f"{s.grid.columns}x{s.grid.rows}",
                "tiles": s.tiles,
                "wavefront": s.wavefront,
                "start": round(start),
                "end": round(end),
                "bytes": sum(b.bytes for b in buffers_of(plan, s)),
            }
        )
    return out


def region_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row per region: its place and the ONNX nodes on it."""
    nodes: list[list[str]] = [[] for _ in plan.regions]
    for s in plan.steps:
        if s.kind == "task":
            nodes[s.region] += [n for n in (s.source or (s.name,)) if n not in nodes[s.region]]
    return [
        {
            "region": i,
            "name": shown(r.name),
            "place": f"{r.columns}x{r.rows} at {r.x},{r.y}",
            "cores": r.columns * r.rows,
            "nodes": nodes[i],
            "code": code,
        }
        for i, (r, code) in enumerate(zip(plan.regions, plan.code_bytes, strict=True))
    ]


# -- one core ---------------------------------------------------------------------------


def at_core(plan: Plan, x: int, y: int) -> tuple[list[Buffer], list[tuple[Step, int, int]]]:
    """The buffers on core (x, y) by address, and the steps with work there: (step, grid row, column)."""
    core = y * plan.wafer.width + x
    on: dict[tuple[int, Any], Any] = {}

    def place(region: int, grid: Any) -> Any:
        if (region, grid) not in on:
            on[region, grid] = np.argwhere(plan.regions[region].on(grid) == core)
        return on[region, grid]

    buffers = [b for b in plan.buffers if len(place(b.region, b.grid))]
    steps: list[tuple[Step, int, int]] = []
    for s in plan.steps:
        found = place(s.region, s.grid)
        if len(found) and held(s)[tuple(found[0])]:
            steps.append((s, int(found[0][0]), int(found[0][1])))
    return sorted(buffers, key=lambda b: (b.address, b.number)), steps


def buffer_rows(plan: Plan, buffers: Sequence[Buffer]) -> list[dict[str, Any]]:
    """One row per buffer. live: first to last step, or "always"."""
    last = len(plan.steps)
    out: list[dict[str, Any]] = []
    for b in buffers:
        always = b.live[0] < 0 and b.live[1] >= last
        first, end = max(0, b.live[0]), min(last - 1, b.live[1])
        out.append(
            {
                "address": b.address,
                "bytes": b.bytes,
                "role": b.role,
                "type": str(b.dtype),
                "shape": "x".join(map(str, b.shape)) or "1",
                "live": "always" if always else f"{first}-{end}",
                "name": shown(b.name, LONGEST_NAME),
            }
        )
    return out


def consumers(plan: Plan, most: int = 8) -> list[dict[str, Any]]:
    """The largest uses of the fullest core's SRAM, by what computes or reads them."""
    core = int(plan.sram().argmax())
    buffers, _ = at_core(plan, core % plan.wafer.width, core // plan.wafer.width)
    users = {o.buffer: s.name for s in reversed(plan.steps) for o in s.operands}
    users |= {s.result: s.name for s in plan.steps}
    rows = [
        {
            "node": shown(users.get(b.number, b.name)),
            "role": b.role,
            "bytes": b.bytes,
            "tensor": shown(b.name),
        }
        for b in buffers
        if b.over < 0
    ]
    rows.append({"node": "all kernels there", "role": "code", "bytes": code_at(plan, core), "tensor": ""})
    return sorted(rows, key=lambda r: -int(r["bytes"]))[:most]


def code_at(plan: Plan, core: int) -> int:
    """Bytes of code on a core, by its physical number."""
    pairs = zip(plan.regions, plan.code_bytes, strict=True)
    return max((code for region, code in pairs if (region.core == core).any()), default=0)


# -- the picture ------------------------------------------------------------------------
