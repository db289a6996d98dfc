"""The critical path of a plan by its parts: layers that are alike, or else groups of ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.graph import Graph
from ...placement.cost.critical_path import Leg, critical_path, writers
from ...placement.cost.timing import Timing
from ...placement.plan.plan import Plan
from ...placement.search.groups import layers
from ...placement.search.layers import repeated

FIRST_PART, LAST_PART = "inputs", "after the layers"
KINDS = ("fabric", "waiting", "compute")


def path_rows(plan: Plan, timing: Timing) -> list[dict[str, Any]]:
    """By part in the order of the path: its cycles, and how many of each kind; the last row is the total.

    fabric: until the last operand is there. waiting: the core is busy with something else.
    """
    return rows_of_path(plan, critical_path(plan, timing))


def rows_of_path(plan: Plan, legs: Sequence[Leg]) -> list[dict[str, Any]]:
    """The same of legs that are known."""
    part = step_parts(plan)
    rows: dict[str, list[Leg]] = {}
    for leg in legs:
        rows.setdefault(part[leg.step], []).append(leg)
    return [_row(name, of) for name, of in rows.items()] + [_row("total", legs)]


def leg_rows(plan: Plan, timing: Timing) -> list[dict[str, Any]]:
    """The path step by step, with the core on which each ran."""
    return [
        {
            "step": leg.step,
            "node": plan.steps[leg.step].name,
            "core": list(leg.core),
            "end": round(leg.end),
            **{k: round(getattr(leg, k)) for k in KINDS},
        }
        for leg in critical_path(plan, timing)
    ]


def _row(name: str, legs: Sequence[Leg]) -> dict[str, Any]:
    sums = {k: sum(getattr(leg, k) for leg in legs) for k in KINDS}
    return {
        "part": name,
        "steps": len(legs),
        "cycles": round(sum(sums.values())),
        **{k: round(v) for k, v in sums.items()},
    }


def _parts_of(graph: Graph) -> list[str]:
    """By node: the layer that it belongs to, or where no layers are alike the group."""
    found = repeated(graph)
    if found is None:
        names = {i: g.name for g in layers(graph) for i in g.nodes}
        return [names[i] for i in range(len(graph.nodes))]
    numbers = [found.of(i) for i in range(len(graph.nodes))]
    return [
        "before the layers" if n < 0 else LAST_PART if n == found.count else f"layer {n}" for n in numbers
    ]


def step_parts(plan: Plan) -> list[str]:
    """By step: the part that it belongs to. Inputs are laid before all of them; the update of a state belongs
    to the part that computes the new value."""
    part_of, out = _parts_of(plan.graph), list[str]()
    for s, made in zip(plan.steps, writers(plan), strict=True):
        before = max(made.values(), default=None)
        out.append(part_of[s.node] if s.node >= 0 else FIRST_PART if before is None else out[before])
    return out
