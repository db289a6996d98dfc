"""One step, the steps of one ONNX node, or one tensor of a plan: where it lies, which bytes, which cycles."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import numpy as np

from ...placement.cost.critical_path import writers
from ...placement.cost.links import over_link
from ...placement.cost.timing import Timing, held
from ...placement.machine.wafer import LINKS
from ...placement.plan.move import Move
from ...placement.plan.plan import Buffer, Plan, Step
from ..errors import UsageError, quoted, shown
from .considered import Weighing
from .expected_error import expected_errors
from .metrics import held_bytes, moves_under_way, under_way
from .rows import LONGEST_NAME, buffer_rows, step_rows

COMPARED = 200  # characters of names that are compared to find the one that was meant


def of_node(plan: Plan, timing: Timing, name: str) -> list[dict[str, Any]]:
    """The rows of the steps that an ONNX node became, or that have the name. Raises UsageError for none."""
    return _placed(plan, timing, steps_of(plan, name))


def of_link(plan: Plan, timing: Timing, x: int, y: int, direction: str) -> dict[str, Any]:
    """What a link carries: bytes of a call, cycles that it is full for, and the moves, each with its bytes
    there and when it is under way."""
    number = LINKS.index(direction)
    made, rows = writers(plan), list[dict[str, Any]]()
    for s, m, nbytes in over_link(plan, x, y, number):
        rows.append({**_move_row(plan, timing, s, m, made[s.position].get(m.source)), "bytes": round(nbytes)})
    total = float(timing.links[number, y, x])
    full = plan.wafer.serial(plan.wafer.wavelets(total))
    return {"bytes": round(total), "full": round(float(full)), "moves": rows}


def at_cycle(plan: Plan, timing: Timing, at: float) -> dict[str, Any]:
    """What happens at a cycle: the steps that compute, on how many cores; the moves under way; memory in use.

    Raises UsageError for one that the call has not.
    """
    if not 0 <= at <= timing.cycles:
        raise UsageError(f"--at {at:.15g}: a call takes cycles 0 to {timing.cycles:,.0f}")
    running: list[tuple[Step, int]] = []
    for s in plan.steps:
        start, end = timing.start[s.position], timing.end[s.position]
        if s.kind != "input" and (now := int((held(s) & (start <= at) & (at < end)).sum())):
            running.append((s, now))
    steps = _placed(plan, timing, [s for s, _ in running])
    made = writers(plan)
    moves = [
        _move_row(plan, timing, s, m, made[s.position].get(m.source))
        for s, m in moves_under_way(plan, timing, at)
    ]
    used = held_bytes(plan, timing, at)
    y, x = np.unravel_index(int(used.argmax()), used.shape)
    return {
        "at": at,
        "steps": [{**row, "now": now} for row, (_, now) in zip(steps, running, strict=True)],
        "moves": moves,
        "fullest_core": [int(x), int(y)],
        "fullest_core_bytes": int(used.max(initial=0)),
    }


def _move_row(plan: Plan, timing: Timing, step: Step, move: Move, producer: int | None) -> dict[str, Any]:
    """from, to: steps. begin, end: cycles between which the move is under way."""
    begin, end = (0.0, 0.0) if producer is None else under_way(plan, timing, step, producer) or (0.0, 0.0)
    return {
        "from": plan.buffers[move.source].role if producer is None else producer,
        "to": step.position,
        "route": move.route,
        "received": plan.received(step, move),
        "begin": round(begin),
        "end": round(end),
        "tensor": shown(plan.buffers[move.source].name, LONGEST_NAME),
    }


def steps_of(plan: Plan, node: str) -> list[Step]:
    """The steps that an ONNX node became, or that have the name. Raises UsageError for none."""
    steps = [s for s in plan.steps if node == s.name or node in s.source]
    if not steps:
        names = {n for s in plan.steps for n in (s.name, *s.source)}
        raise UsageError(f"--node {quoted(node)}: no step is of a node called that{_meant(node, names)}")
    return steps


def of_step(plan: Plan, timing: Timing, position: int) -> dict[str, Any]:
    """The row of a step, where its operands come from, and who reads its result.

    Raises UsageError for a step that there is not.
    """
    if position >= len(plan.steps):
        raise UsageError(f"--step {position}: there are steps 0 to {len(plan.steps) - 1}")
    made = writers(plan)
    (row,) = _placed(plan, timing, [plan.steps[position]])
    step = plan.steps[position]
    brought = [(o.tensor, m) for o in step.operands for m in o.moves] + [(step.tensor, m) for m in step.moves]
    operands = [(o.tensor, o.buffer, "in place", 0) for o in step.operands if not o.received]
    operands += [(t, m.source, m.route, plan.received(step, m)) for t, m in brought]
    row["operands"] = [
        {
            "tensor": shown(tensor, LONGEST_NAME),
            "from": made[position].get(buffer, plan.buffers[buffer].role),
            "route": route,
            "received": received,
            "bytes": plan.buffers[buffer].bytes,
            "address": plan.buffers[buffer].address,
        }
        for tensor, buffer, route, received in operands
    ]
    row["expected_error"] = [asdict(e) for e in expected_errors(plan, step)]
    row["considered"] = [asdict(c) for c in Weighing(plan).of(step)]
    row["result"] = buffer_rows(plan, [plan.buffers[step.result]])[0]
    row["readers"] = [i for i, sources in enumerate(made) if position in sources.values()]
    return row


def of_tensor(plan: Plan, timing: Timing, name: str) -> dict[str, Any]:
    """The buffers that hold a tensor or a part of it, and the steps that write and read it.

    Raises UsageError for a tensor that there is not.
    """
    tensor_called(plan, name)
    buffers = [b for b in plan.buffers if b.name == name]
    numbers = {b.number for b in buffers}
    written = [s for s in plan.steps if name == s.tensor or s.result in numbers]
    read = [s for s in plan.steps if any(o.tensor == name for o in s.operands)]
    rows = buffer_rows(plan, buffers)
    for row, b in zip(rows, buffers, strict=True):
        row |= {"cores": b.grid.cores, "place": _place(plan, b)}
    return {
        "buffers": rows,
        "written": _placed(plan, timing, written),
        "read": _placed(plan, timing, read),
    }


def tensor_called(plan: Plan, name: str) -> str:
    """The name, of a tensor that some core holds or some step reads. Raises UsageError for another."""
    names = {b.name for b in plan.buffers}
    names |= {t for s in plan.steps for t in (s.tensor, *(o.tensor for o in s.operands))}
    if name not in names:
        raise UsageError(f"--tensor {quoted(name)}: the plan has none called that{_meant(name, names)}")
    return name


def _placed(plan: Plan, timing: Timing, steps: list[Step]) -> list[dict[str, Any]]:
    """Rows of steps with the number of their cores and where those lie."""
    rows = step_rows(plan, timing)
    return [{**rows[s.position], "cores": int(held(s).sum()), "place": _place(plan, s)} for s in steps]


def _place(plan: Plan, on: Step | Buffer) -> str:
    """The box around the cores of a grid, as "x 0-7, y 2"."""
    y, x = np.divmod(plan.regions[on.region].on(on.grid), plan.wafer.width)
    return ", ".join(
        f"{side} {v.min()}" + (f"-{v.max()}" if v.max() > v.min() else "") for side, v in (("x", x), ("y", y))
    )


def _meant(name: str, names: Collection[str]) -> str:
    """A question after the name that is most like it; of a path the last part may be enough."""
    ends = [n for n in names if n.endswith(f"/{name}")]
    short = {n[-COMPARED:]: n for n in sorted(names)}
    close = sorted(ends)[:1] or [short[n] for n in difflib.get_close_matches(name[-COMPARED:], short, 1)]
    return f"; did you mean {quoted(close[0], COMPARED)}?" if close else ""
