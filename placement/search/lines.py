"""Plans along lines: every sum along the other side of the region than the one before it.

An input lies along one side. A product takes it across (`splits/across.py`) and joins its partial results on
a line of the other side, where elementwise ops run; the next product takes it across from there. Which split
of each op that means is chosen op by op.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...ir.affine import access_axes
from ...ir.graph import Graph
from ...ir.op import Op
from ..build.assemble import assemble
from ..build.assembly import Lies
from ..build.inputs import tensor_axes
from ..build.regions import Ground, logical_width, make_region
from ..machine.wafer import Wafer
from ..plan.layout import Cut, Grid, Split
from ..plan.plan import Plan
from ..splits.across import best_on_lines
from ..splits.candidates import useful_ways
from ..splits.choice import Choice, Limits, Question, Site, Source
from ..splits.next_product import NOTHING, Ahead, nearest_product
from ..splits.policy import Policy
from .region_sizes import climb
from .search import Search


def line_plans(search: Search) -> None:
    """Plans of all nodes on one region along lines, of a few sizes."""
    nodes = range(len(search.graph.nodes))
    limits = search.estimator.limits(nodes)
    ahead = tuple(nearest_product(search.graph, i, search.policy) for i in nodes)

    tried = set[tuple[int, int]]()

    def cycles(size: tuple[int, int]) -> float:
        """Of a plan on a region of this size; infinite where it does not fit."""
        tried.add(size)
        name = "x".join(map(str, size))
        search.tell(name, 0.0)
        built = _built(search, size, limits, ahead)
        if built is None:
            return math.inf
        took = search.finished(built, name, size[0] * size[1], hurry=True)
        search.tried()
        return took

    climb(line_shapes(search.wafer, search.side, search.policy), search.side, False, cycles, search.policy)
    for even in even_shapes(search.wafer, search.side, search.policy):
        if even not in tried:
            cycles(even)


def _built(
    search: Search, size: tuple[int, int], limits: Mapping[int, Limits], ahead: tuple[Ahead | None, ...]
) -> Plan | None:
    """The plan along lines of a region of this size, without routes; None where there is no such region."""
    graph, (columns, rows) = search.graph, size
    region = make_region(search.wafer, search.groups[0].name, 0, 0, columns, rows)
    if region is None:
        return None
    known: dict[tuple[Question, Ahead | None], Choice] = {}

    def choose(i: int, sources: tuple[Source | None, ...], site: Site) -> Choice:
        key = q, after = Question(graph.nodes[i].op, sources, site, limits[i]), ahead[i]
        if key not in known:
            stored = after is not None and graph.nodes[after.node].output in graph.in_place
            known[key] = best_on_lines(q, after, stored) or search.estimator.choice(q, NOTHING)
        return known[key]

    ground = Ground(search.wafer, (region,), dict.fromkeys(range(len(graph.nodes)), 0), search.policy)
    lies = along(graph, ground.site(0))
    return assemble(graph, ground, choose, search.objective, search.companions, lies)


def along(graph: Graph, site: Site) -> dict[str, Lies]:
    """Where inputs lie: each in its longest dimension along x in the middle row, small ones in its middle."""
    states = {past for past, _ in graph.states}
    x, y = site.columns // 2, site.rows // 2
    out: dict[str, Lies] = {}
    for t in graph.inputs:
        if t in states:
            continue
        split, grid = Split(), Grid(1, 1, x, y)
        a, n = max(tensor_axes(graph.tensors[t].shape), key=lambda e: e[1], default=("", 1))
        if n >= LONG:
            for w in useful_ways(n, site.columns, site.policy.most_ways)[-1:]:
                split, grid = Split((Cut(a, "x", w),)), Grid(w, 1, (site.columns - w) // 2, y)
        out[t] = Lies(site.region, split, grid)
    return out


LONG = 32  # elements of an input that lies along a side
NEAR = 1.35  # sizes of regions are tried that are as near as this to the likely one


def vectors(graph: Graph) -> bool:
    """Whether all products with constants are of one vector each: what they make has an element for each of a
    constant's columns."""
    for n in graph.nodes:
        if n.op.product:
            of = [r for t, r in zip(n.inputs, n.op.reads, strict=True) if t in graph.constants]
            if any(set(access_axes(n.op.write)) - set(access_axes(r)) - _single(n.op) for r in of):
                return False
    return any(n.op.product for n in graph.nodes)


def _single(op: Op) -> set[str]:
    return {a for a, n in op.axes if n == 1}


def even_shapes(wafer: Wafer, side: float, policy: Policy) -> list[tuple[int, int]]:
    """The largest power of two up to the likely side, if one may be a side: most axes divide there."""
    power = 1 << max(0, int(math.log2(max(side, 1.0))))
    most = logical_width(wafer, wafer.width), wafer.height
    return [(min(power, most[0]), min(power, most[1]))] if power in policy.line_sides else []


def line_shapes(wafer: Wafer, side: float, policy: Policy) -> list[tuple[int, int]]:
    """Logical (columns, rows) of regions worth trying along lines, smallest first."""
    most = logical_width(wafer, wafer.width), wafer.height
    sides = [s for s in policy.line_sides if 1 / NEAR <= s / side <= NEAR]
    sides = sides or [min(policy.line_sides, key=lambda s: abs(math.log(s / side)))]
    return sorted({(min(s, most[0]), min(s, most[1])) for s in sides}, key=lambda s: s[0] * s[1])
