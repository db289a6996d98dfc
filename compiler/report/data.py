"""What the page knows of one plan: steps, buffers, moves, times and links, as JSON and integer tables.

Nothing in the JSON is of a single core. What differs from core to core stands in tables (`tables.Tables`),
which layers that are alike share; where cores lie follows from regions and grids. Cycles are whole: rounded
as `waferc inspect` rounds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...placement.cost.critical_path import Leg, critical_path, last_legs, writers
from ...placement.cost.fabric import traffic_of
from ...placement.cost.links import merged_bytes
from ...placement.cost.reach import Ends, coordinates
from ...placement.cost.timing import Timing, held
from ...placement.machine.wafer import Wafer, mixed_products
from ...placement.plan.colours import HOST, LANE, LANES, REDUCTION
from ...placement.plan.layout import Grid, Layout
from ...placement.plan.move import Detour, DimensionMoves, Move
from ...placement.plan.plan import Buffer, Plan, Step
from ..errors import shown
from ..show.considered import MOST_ASKED, Weighing, considered_rows
from ..show.critical_parts import LAST_PART, rows_of_path, step_parts
from ..show.expected_error import expected_errors, expected_line
from ..show.figures import Figures, running_cores
from ..show.guidance import Guidance
from ..show.rows import step_rows, summary
from ..show.trace_counters import under_way
from .tables import Tables

LONGEST_NAME = 1000  # characters of a name that a page shows
Json = dict[str, Any]


@dataclass(frozen=True)
class _Making:
    """What the parts of one plan's data are made from."""

    plan: Plan
    timing: Timing
    tables: Tables
    made: list[dict[int, int]]  # by step: who has written each buffer that it reads
    by_result: Mapping[int, Step]
    masks: dict[Any, Any]  # by op and split: which cores have a tile
    weighing: Weighing
    considered: dict[tuple[Any, ...], int]  # tables of splits, each once, and their numbers
    reaches: dict[int, tuple[Any, int]]  # by the id of pairs: the pairs, and their matrix's number


def plan_data(plan: Plan, timing: Timing, f: Figures, tables: Tables) -> Json:
    """The page's data of a plan. Integer arrays go to `tables`, and stand in the data by their numbers."""
    m = _Making(
        plan,
        timing,
        tables,
        writers(plan),
        {s.result: s for s in reversed(plan.steps) if s.kind != "update"},
        {},
        Weighing(plan),
        {},
        {},
    )
    path = critical_path(plan, timing)
    planes = _planes(plan, timing, tables)
    steps: list[Json] = []
    rows = step_rows(plan, timing)
    legs = last_legs(plan, timing)
    part_of = step_parts(plan)
    parts = sorted(dict.fromkeys(part_of), key=lambda part: part == LAST_PART)
    for s, row, leg, part in zip(plan.steps, rows, legs, part_of, strict=True):
        steps.append({**_step(m, s, row), "part": parts.index(part), "leg": _leg(leg)})
    return {
        "name": name(plan.graph.name),
        "cycles": round(timing.cycles),
        "wavefronts": plan.wavefronts,
        "objective": plan.objective,
        "summary": [[k, name(v)] for k, v in summary(plan, f)],
        "fullest": {"core": f.fullest_core, "bytes": f.fullest_core_bytes},
        "fullest_link": {"at": f.fullest_link, "bytes": f.fullest_link_bytes},
        "kept": {"lanes": LANES, "lane": LANE // 2, "reduction": REDUCTION, "host": HOST},
        "limits": limits(plan, timing, f),
        "path": [_leg(leg) for leg in path],
        "path_parts": rows_of_path(plan, path),
        "parts": [name(p) for p in parts],
        "regions": [_region(m, i) for i in range(len(plan.regions))],
        "steps": steps,
        "considered": list(m.considered),
        "buffers": _buffers(m),
        "way": _under_way(plan, timing, tables),
        **planes,
    }


def name(text: str) -> str:
    """A name of the model's, as the page shows it: printable, on one line."""
    return shown(text, LONGEST_NAME)


def wafer_data(wafer: Wafer, tables: Tables) -> Json:
    """The machine: its grid, what is dead, and its constants, each with where it is from."""
    origin = {n: f"fitted on {rows}" for n, rows in wafer.fitted.items()}
    origin |= dict.fromkeys(wafer.assumed, "assumed")
    constants = [
        (k, f"{v:g}")
        for k in (
            *("sram_bytes", "clock_hz", "hop", "turn", "send", "done", "wavelet_bytes", "wavelet", "colours"),
            *("loop", "add", "stage", "multicast", "relay", "express", "temporary"),
            *("code_bytes_base", "code_bytes_per_kernel", "host_bytes_per_cycle", "host_call", "error"),
        )
        for v in (getattr(wafer, k),)
    ]
    constants += [
        (f"vector.{k}", f"{setup:g} + n / {rate:g}") for k, (setup, rate) in sorted(wafer.vector.items())
    ]
    dead = sorted({y * wafer.width + x for x, y in wafer.dead_cores})
    return {
        "name": name(wafer.name),
        "width": wafer.width,
        "height": wafer.height,
        "sram": wafer.sram_bytes,
        "clock": wafer.clock_hz,
        "wavelet_bytes": wafer.wavelet_bytes,
        "wavelet": wafer.wavelet,
        "colours": wafer.colours,
        "express": wafer.express,
        "dead": tables.add(dead, early=True),
        "dead_links": [[x, y, d] for x, y, d in wafer.dead_links],
        "constants": [[k, v, origin.get(k, "")] for k, v in constants],
    }


def _planes(plan: Plan, timing: Timing, tables: Tables) -> Json:
    """Tables over the box [x, y, width, height] around all cores in use and all links that carry something.

    sram: bytes; busy: cycles; runs: whether a core runs a step; links: bytes, in the order of wafer.LINKS.
    """
    sram = plan.sram()
    links = np.rint(timing.links)
    some = (sram > 0) | links.any(axis=0)
    columns, rows = np.flatnonzero(some.any(0)), np.flatnonzero(some.any(1))
    x0, x1 = (int(columns[0]), int(columns[-1]) + 1) if columns.size else (0, plan.wafer.width)
    y0, y1 = (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, plan.wafer.height)
    part = (slice(y0, y1), slice(x0, x1))
    return {
        "box": [x0, y0, x1 - x0, y1 - y0],
        "sram": tables.add(sram[part], early=True),
        "runs": tables.add(running_cores(plan).reshape(sram.shape)[part], early=True),
        "busy": tables.add(np.rint(timing.busy)[part]),
        "links": [tables.add(plane[part]) for plane in links],
    }


def _under_way(plan: Plan, timing: Timing, tables: Tables) -> list[int]:
    """Bytes under way on links: tables of the cycles from which, and of the bytes."""
    counter = under_way(plan, timing)
    return [tables.add(np.rint(counter.times)), tables.add(counter.bytes)]


def advice_data(advice: Guidance | None) -> Json | None:
    """What bounds the plan, and what to ask for instead."""
    if advice is None:
        return None
    bounds = [{**vars(b), "part": name(b.part), "node": name(b.node)} for b in advice.bounds]
    remedies = [{**vars(r), "ask": name(r.ask), "why": name(r.why)} for r in advice.remedies]
    return {"bounds": bounds, "remedies": remedies}


# -- steps and moves ------------------------------------------------------------------------


def _step(m: _Making, s: Step, row: Json) -> Json:
    """A step. base and start: cycles, a number for all cores and a table of what is more; long: a table of
    the cycles that it takes; mask: which cores have a tile, -1 for all. first, last, done: when the first
    task starts, the last one ends, and the first one ends."""
    key = (s.op, s.split)
    if key not in m.masks:
        m.masks[key] = held(s)
    mask = m.masks[key]
    every = bool(mask.all())
    start = np.rint(m.timing.start[s.position]).astype(np.int64)
    end = np.where(mask, np.rint(m.timing.end[s.position]).astype(np.int64), start)
    base = int(start.min()) if start.size else 0
    macs = int(multiply_adds(s)) if s.op.product and s.kind == "task" else 0
    return {
        "name": name(s.name),
        "kind": s.kind,
        "op": row["op"],
        "nodes": [name(n) for n in s.source],
        "tensor": name(s.tensor),
        "region": s.region,
        "grid": [s.grid.columns, s.grid.rows, s.grid.x, s.grid.y, s.grid.dx, s.grid.dy],
        "split": row["split"],
        "axes": [[a, n, s.split.tile(a, n)] for a, n in s.op.axes],
        "wavefront": s.wavefront,
        "rides": s.rides,
        "tiles": s.tiles,
        "bytes": row["bytes"],
        "first": row["start"],
        "last": row["end"],
        "done": int(end[mask].min()) if mask.any() else 0,
        "cores": int(mask.sum()),
        "base": base,
        "start": m.tables.add(start - base),
        "long": m.tables.add(end - start),
        "mask": -1 if every else m.tables.add(mask),
        "result": s.result,
        "scratch": s.scratch,
        "macs": macs,
        "rate": product_rate(m.plan.wafer, s) if macs else 0,
        "considered": _considered(m, s),
        "expected": expected_line(expected_errors(m.plan, s)),
        "operands": [
            {
                "tensor": name(o.tensor),
                "buffer": o.buffer,
                "writer": m.made[s.position].get(o.buffer, -1),
                "moves": [_move(m, s, move) for move in o.moves],
            }
            for o in s.operands
        ],
        "moves": [_move(m, s, move) for move in s.moves],
    }


def _considered(m: _Making, s: Step) -> int:
    """The number of the table of splits that were weighed; -1 for none."""
    rows = tuple(map(tuple, considered_rows(m.weighing.of(s, MOST_ASKED))))
    return m.considered.setdefault(rows, len(m.considered)) if rows else -1


def _move(m: _Making, s: Step, move: Move) -> Json:
    """A move. by: the step whose cores send; writer: the one that they wait for. sent: bytes that leave one
    of them; through: the most that the consumers of one column need; merged: what a link of a reduction
    carries for one root. reach_x, reach_y: tables [consumer
    columns or rows, producer's] of who hears whom. dims: the tables of `DimensionMoves`."""
    producer = m.by_result[move.source]
    t = traffic_of(m.plan, s, producer, move)
    nbytes = m.plan.wafer.wavelet_bytes
    return {
        "route": move.route,
        "source": move.source,
        "target": move.target,
        "by": producer.position,
        "writer": m.made[s.position].get(move.source, -1),
        "received": m.plan.received(s, move),
        "sent": int(t.sent * nbytes),
        "through": int(t.through * nbytes),
        "merged": merged_bytes(m.plan, move, t) if move.route == "join" else 0,
        "combine": str(move.combine) if move.combine is not None else "",
        "dims": [_dimension(m.tables, d) for d in move.dims],
        "reach_x": _reach(m, t.x),
        "reach_y": _reach(m, t.y),
        "colour_x": -1 if move.colour_x is None else m.tables.add(move.colour_x),
        "colour_y": -1 if move.colour_y is None else m.tables.add(move.colour_y),
        "detours": [_detour(d) for d in move.detours],
    }


def _dimension(tables: Tables, d: DimensionMoves) -> list[int]:
    return [tables.add(a) for a in (d.x, d.y, d.t, d.start, d.core, d.length)]


def _detour(d: Detour) -> list[list[int]]:
    return [[x, y] for x, y in d.corners]


def _reach(m: _Making, e: Ends) -> int:
    known = m.reaches.get(id(e.target))
    if known is None or known[0] is not e.target:
        matrix = np.zeros((len(e.to), len(e.at)), np.int64)
        matrix[e.target, e.source] = 1
        known = m.reaches[id(e.target)] = (e.target, m.tables.add(matrix))
    return known[1]


def _leg(leg: Leg) -> Json:
    """What the task that ended last took, or a leg of the critical path, in whole cycles."""
    return {
        "step": leg.step,
        "after": leg.after,
        "core": list(leg.core),
        "end": round(leg.end),
        "fabric": round(leg.fabric),
        "waiting": round(leg.waiting),
        "compute": round(leg.compute),
    }


# -- regions and memory -----------------------------------------------------------------------


def _region(m: _Making, number: int) -> Json:
    """A region. cores, along_x: of one that is not regular, its physical cores and what counts as the place
    of each of its columns; -1 where they follow from x and y."""
    r, wafer = m.plan.regions[number], m.plan.wafer
    rows, columns = np.mgrid[: r.rows, : r.columns]
    regular = bool((r.core == (r.y + rows) * wafer.width + r.x + columns).all())
    whole = _columns(m.plan, number) if not regular else None
    return {
        "name": name(r.name),
        "box": [r.x, r.y, r.width, r.height],
        "columns": r.columns,
        "rows": r.rows,
        "code": m.plan.code_bytes[number],
        "cores": -1 if regular else m.tables.add(r.core),
        "along_x": -1 if whole is None else m.tables.add(whole),
    }


def _columns(plan: Plan, number: int) -> Any:
    """What the cost model takes to be the wafer's columns of a region's columns."""
    r = plan.regions[number]
    if not any(s.region == number for s in plan.steps):
        return np.arange(r.columns) + r.x
    return coordinates(r, Grid(r.columns, r.rows), "x", plan.wafer)


def _buffers(m: _Making) -> list[Json]:
    layouts = dict(_layouts(m))
    return [_buffer(m.plan, b, layouts.get(b.number)) for b in m.plan.buffers]


def _buffer(plan: Plan, b: Buffer, layout: list[list[int]] | None) -> Json:
    last = len(plan.steps) - 1
    return {
        "name": name(b.name),
        "role": b.role,
        "region": b.region,
        "grid": [b.grid.columns, b.grid.rows, b.grid.x, b.grid.y, b.grid.dx, b.grid.dy],
        "type": str(b.dtype),
        "shape": list(b.shape),
        "bytes": b.bytes,
        "address": b.address,
        "live": [max(0, b.live[0]), min(last, b.live[1])],
        "always": b.live[0] < 0 and b.live[1] > last,
        "over": b.over,
        "layout": layout,
    }


def _layouts(m: _Making) -> Iterator[tuple[int, list[list[int]]]]:
    """By buffer: for each dimension of the tensor the tables (x, y, lo, hi). A core in column i and row j of
    the buffer's grid holds elements lo[p] to hi[p] of it, p = x[i] + y[j]."""
    for s in m.plan.steps:
        for o in s.operands:
            if o.received:
                yield o.buffer, _pieces(m.tables, o.need)
    for _, move in m.plan.lays:
        yield move.target, [_laid(m.tables, d) for d in move.dims]
    for s in m.plan.steps:
        if s.kind != "update":
            yield s.result, _pieces(m.tables, s.hold)


def _pieces(tables: Tables, layout: Layout) -> list[list[int]]:
    return [[tables.add(a) for a in (p.x, p.y, p.lo, p.hi)] for p in layout]


def _laid(tables: Tables, d: DimensionMoves) -> list[int]:
    """The intervals that the host lays on each core."""
    some = d.start[1:] > d.start[:-1]
    first = d.start[:-1][some]
    last = d.start[1:][some] - 1
    lo, hi = np.zeros(len(some), np.int64), np.zeros(len(some), np.int64)
    lo[some] = d.source[first]
    hi[some] = d.source[last] + d.length[last]
    return [tables.add(a) for a in (d.x, d.y, lo, hi)]


# -- against the machine's limits ---------------------------------------------------------------


def multiply_adds(s: Step) -> float:
    """Of a product: the size of its whole iteration space."""
    return float(np.prod([float(n) for n in s.op.size.values()]))


def product_rate(wafer: Wafer, s: Step) -> float:
    """Multiply-adds per cycle that a core's datapath reaches on the step's types."""
    wide = max(t.bytes for t in (*s.op.in_types, s.op.out_type))
    kind = "fma_mixed" if mixed_products(s.op) else "fma_f16" if wide <= 2 else "fma_f32"
    return wafer.vector[kind][1]


def limits(plan: Plan, timing: Timing, f: Figures) -> list[Json]:
    """How near a call comes to what the machine can do at most: name, share of it, the numbers in words."""
    wafer = plan.wafer
    cycles = max(timing.cycles, 1.0)
    products = [s for s in plan.steps if s.op.product and s.kind == "task"]
    work = [(multiply_adds(s), product_rate(wafer, s)) for s in products]
    macs = sum(n for n, _ in work)
    needed = sum(n / rate for n, rate in work)  # core-cycles at the peak rate
    serial = float(wafer.serial(wafer.wavelets(f.fullest_link_bytes)))
    sram = plan.sram()
    used = sram > 0
    cores = max(1, f.cores_used)
    rows = [
        (
            "multiply-adds",
            needed / (cores * cycles),
            f"{macs:,.0f} a call, {macs / cycles:,.1f} a cycle; at their peak rate the {f.cores_used:,} "
            f"cores that run would take {needed / cores:,.1f} cycles",
        ),
        (
            "cores computing",
            float(timing.busy.sum()) / (cores * cycles),
            f"a core that runs computes {timing.busy.sum() / cores:,.0f} of {cycles:,.0f} cycles on average",
        ),
        (
            "fullest link",
            serial / cycles,
            f"{f.fullest_link_bytes:,} bytes take {serial:,.0f} of {cycles:,.0f} cycles",
        ),
        (
            "SRAM, fullest core",
            f.fullest_core_bytes / wafer.sram_bytes,
            f"{f.fullest_core_bytes:,} of {wafer.sram_bytes:,} bytes; "
            f"{sram[used].mean() if used.any() else 0:,.0f} on average",
        ),
    ]
    return [{"name": n, "share": share, "text": text} for n, share, text in rows]
