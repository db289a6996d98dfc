"""A few layers planned as the part that they are of a larger model, which need not fit one wafer.

They get the regions, and the shares of memory, that the plan of `count` of them on one wafer would give them,
and are split alike as there: a layer takes then what it takes among many, for the price of a few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ...ir.graph import Graph
from ..build.companions import ALONE
from ..machine.wafer import Wafer
from ..plan.plan import Plan
from ..splits.policy import POLICY, Policy
from .explain import DoesNotFit
from .layer_stacks import Stacks, ends_of, stacks_of
from .layers import Layers, repeated
from .placers import Size
from .region_sizes import likely_side
from .search import Assignment, Report, Search
from .urgent import hurried


@dataclass(frozen=True)
class Row:
    """inside: layers in the graph; count: layers on a wafer that are like them; ends: bytes that lie before
    and behind those there."""

    inside: int
    count: int
    ends: tuple[int, int] = (0, 0)


def in_row(
    graph: Graph, row: Row, wafer: Wafer, policy: Policy = POLICY, report: Report = lambda what, share: None
) -> Search:
    """Plans the layers of `graph` as `row` says. Raises DoesNotFit.

    Where they take more than one region the wafer is as high as that needs: behind a wafer stands another.
    """
    search = None
    for s in islice(_stacks(graph, row, wafer, policy), policy.stacks):
        search = _stacked(graph, wafer, s, row, policy, report)
        if search.best is not None:
            break
    if search is None:
        raise DoesNotFit(
            f"{row.count} layers of {_bytes(graph) // row.inside:,} bytes each do not fit wafer {wafer.name}"
        )
    made = search.result()
    if search.timing is not None and not made.urgent:
        search.reroute(hurried(made, search.timing))
    return search


def _bytes(graph: Graph) -> int:
    return sum(graph.tensors[t].bytes for t in graph.resident)


def _stacks(graph: Graph, row: Row, wafer: Wafer, policy: Policy) -> list[Stacks]:
    """The regions that the layers may have there, best first."""
    ends, side = ends_of(row.ends, wafer, policy), likely_side(graph, wafer)
    return stacks_of(row.count, -(-_bytes(graph) // row.inside), ends, wafer, side, policy)


def layers_on(plan: Plan, row: Row, wafer: Wafer, policy: Policy = POLICY) -> int:
    """How many of the wafer's layers lie on a region of the size that the plan's have."""
    size = plan.regions[0].columns, plan.regions[0].rows
    stacks = _stacks(plan.graph, row, wafer, policy)
    return next((s.each for s in stacks if (s.columns, s.rows) == size), 1)


def layers_of(graph: Graph, inside: int) -> Layers | None:
    """The layers, if that many are found: where they are cut, all but one are whole."""
    found = repeated(graph)
    return None if found is None or found.count < max(2, inside - 1) or inside < found.count else found


def _stacked(graph: Graph, wafer: Wafer, s: Stacks, row: Row, policy: Policy, report: Report) -> Search:
    """On as many regions of one size as they take, one below the other."""
    count = -(-row.inside // s.each)
    high = replace(wafer, height=max(wafer.height, count * s.rows))
    found = layers_of(graph, row.inside)
    share = policy.resident_share * min(row.inside, s.each) / s.each
    # Of layers with more ops fewer ways are gone on with: experts would take a minute.
    larger = max(1.0, found.period / policy.few_nodes) if found is not None else 1.0
    own = replace(policy, resident_share=share, ways_kept=round(policy.ways_kept / larger**2))
    search = Search(graph, high, "latency", ALONE, own, report)
    search.begin("layers in stacks", 0.0, 1.0)
    sizes: list[Size] = [(f"layers {i * s.each} on", s.columns, s.rows) for i in range(count)]
    a = Assignment(tuple(_regions(graph, found, row.inside, s.each)), tuple(sizes))
    # What fits in no way by itself is not worth weighing together, which takes ten times as long.
    alone = search.build(a)
    if found is not None and math.isfinite(alone):
        search.forget()
        search.build(a, pinned=search.along(a, found))
    return search


def _regions(graph: Graph, found: Layers | None, inside: int, each: int) -> Iterator[int]:
    """By node the number of its layer's region."""
    for i in range(len(graph.nodes)):
        layer = i * inside // len(graph.nodes) if found is None else max(0, found.of(i))
        yield min(layer, inside - 1) // each
