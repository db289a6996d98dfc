"""One step, the steps of one ONNX node, or one tensor of a plan: where it lies, which bytes, which cycles."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

import numpy as np

from ...placement.cost.critical_path import writers
from ...placement.cost.timing import Timing, held
from ...placement.plan.plan import Buffer, Plan, Step
from ..errors import UsageError, quoted, shown
from .rows import LONGEST_NAME, buffer_rows, step_rows

COMPARED = 200  # characters of names that are compared to find the one that was meant


def of_node(plan: Plan, timing: Timing, name: str) -> list[dict[str, Any]]:
    """The rows of the steps that an ONNX node became, or that have the name. Raises UsageError for none."""
    return _placed(plan, timing, steps_of(plan, name))


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
