"""How wrong the cycles of a step are likely to be: the cost model's errors for what was measured of its kind.

The classes and their errors are those of docs/accuracy.md, level a: the cost model on published mappings of
wse3. What a plan pays for a sum was fitted on phases of layers, a product and its sum each. `make accuracy`
writes expected_error.json with the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from ...placement.plan.plan import Plan, Step

MEASURED = Path(__file__).parent / "expected_error.json"
SHORT = 16  # elements of a dispatch up to which loops of them were measured
ROUTES = {"relay": "relay", "tree": "multicast, min", "join": "decode_phase"}


@dataclass(frozen=True)
class Expected:
    """The errors of a class: prediction / measurement - 1. of: "compute" or a route.

    count: of rows; median: of sizes; signed: the median with its sign; fitted: all rows are calibration's.
    """

    of: str
    label: str
    count: int
    median: float
    signed: float
    fitted: bool

    def __str__(self) -> str:
        way = " too many" if self.signed > 0.005 else " too few" if self.signed < -0.005 else ""
        rows = f"the median of {self.count} rows" if self.count > 1 else "one row"
        rows += " of calibration" if self.fitted else ""
        return f"{self.of} {self.median:.0%}{way} ({self.label}: {rows})"


def expected_line(errors: Sequence[Expected]) -> str:
    """In words; "" for none."""
    return "; ".join(map(str, errors))


def expected_errors(plan: Plan, step: Step) -> list[Expected]:
    """Of what the step computes, and of each kind of route that it receives by; none of what is only laid."""
    classes = {"compute": _computed(step)} if step.kind == "task" else {}
    routes = dict.fromkeys(m.route for m in step.received if m.route in ROUTES)
    classes |= {route: ROUTES[route] for route in routes}
    known = measured()
    return [Expected(of, label, **known[label]) for of, label in classes.items() if label in known]


@cache
def measured() -> Mapping[str, dict[str, Any]]:
    """By class: count, median and signed median of its rows' errors."""
    return json.loads(MEASURED.read_text("utf-8"))["classes"]


def _computed(step: Step) -> str:
    """Products whose larger operand is used once are of a matrix and a vector. Of vectors, loops of short
    ones are a class of their own."""
    op = step.op
    if op.product:
        larger = max(prod(shape) for shape in _read_shapes(step))
        return "gemv" if prod(op.size.values()) <= larger else "gemm"
    work = op.work(step.split.extents(op.axes))
    dispatches, elements = (sum(float(getattr(w, k)) for w in work) for k in ("dispatches", "elements"))
    return "vector_loop" if elements <= SHORT * dispatches else "vector"


def _read_shapes(step: Step) -> list[tuple[int, ...]]:
    op = step.op
    return [
        tuple(1 + sum(abs(c) * (op.size[a] - 1) for a, c in e.terms) for e in access) for access in op.reads
    ]
