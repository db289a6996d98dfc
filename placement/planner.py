"""Planning: graph -> groups -> splits -> regions -> steps with moves -> SRAM -> Plan.

A search goes through a table of ways to plan, in order. Each builds the plans that it finds promising if its
time has come; the one of least predicted cycles that fits is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from ..ir.graph import Graph
from .build.assemble import Chooser
from .build.companions import ALONE, Companions
from .build.regions import logical_width
from .machine.wafer import Wafer
from .plan.colours import HOST, LANES, LEAST
from .plan.plan import Plan
from .search.budget import budget
from .search.choices import Estimator
from .search.explain import DoesNotFit, too_much
from .search.layer_stacks import stacked
from .search.layers import repeated
from .search.least import least
from .search.lines import line_plans, vectors
from .search.placers import Size, arrangements
from .search.region_sizes import climb, holds
from .search.search import Assignment, Report, Search
from .search.urgent import hurried
from .splits.choice import Choice, Limits, Question, Site, Source
from .splits.policy import POLICY, Policy


def plan(
    graph: Graph,
    wafer: Wafer,
    objective: str = "latency",
    companions: Companions = ALONE,
    policy: Policy = POLICY,
    report: Report = lambda what, share: None,
) -> Plan:
    """The best plan found for `graph` on `wafer`: of least latency, or of most calls per second.

    companions: the program's other entries, for `plan_beside`: their kernels take room. Raises DoesNotFit,
    naming the op, the bytes on the fullest core, the budget.
    """
    search = Search(graph, wafer, objective, companions, policy, report)
    run(search)
    return search.result()


def run(search: Search) -> None:
    """All ways to plan whose time comes; then `str(search)` is what was attempted, one plan a line.

    Raises DoesNotFit where none can help.
    """
    graph, wafer = search.graph, search.wafer
    wafer.check()
    if wafer.colours < LEAST:
        raise DoesNotFit(
            f"wafer {wafer.name} has {wafer.colours} colours; the shared lanes take {LANES}, reductions "
            f"{LEAST - LANES - HOST} and the host {HOST}"
        )
    if (found := least(graph)).bytes > wafer.memory:
        raise too_much(found, wafer, wafer.cores_alive)
    for number, way in enumerate(WAYS):
        if way.when(search):
            search.begin(way.name, number / len(WAYS), 1 / len(WAYS))
            way.run(search)


ENOUGH = 0.9  # of a plan's cycles: one along lines that takes less ends the search on one region


@dataclass(frozen=True)
class Way:
    """A way to plan. when: whether its time has come, after those before it."""

    name: str
    when: Callable[[Search], bool]
    run: Callable[[Search], None]


# -- all together on one region ------------------------------------------------------------------------


def _roomy(search: Search) -> bool:
    """Whether constants leave enough of all SRAM, and fit the largest region."""
    return holds(search.need, search.sizes[-1], search.wafer, search.policy)


def _climb(search: Search) -> None:
    any_size = search.few or search.objective != "latency"
    before = search.cycles

    def cycles(size: tuple[int, int]) -> float:
        if search.lined:
            return math.inf
        took = search.build(search.on_one(*size))
        search.lined = before < ENOUGH * took < math.inf
        return took

    climb(search.sizes, search.side, any_size, cycles, search.policy)


def _settled(search: Search) -> Assignment | None:
    """All nodes on the one region that the best plan has, if neither memory nor lines made it so."""
    if search.best is None or len(search.best.regions) != 1 or search.tight or search.lined:
        return None
    region = search.best.regions[0]
    return search.on_one(region.columns, region.rows)


def _each_by_itself(search: Search) -> None:
    """Where an op's result goes next is an estimate, and may mislead."""
    if (a := _settled(search)) is not None:
        search.build(a, looks_ahead=False)


def _weighed(search: Search) -> None:
    """A token at a time: a long path through small ops."""
    if (a := _settled(search)) is not None:
        search.build(a, pinned=search.together(a))


def _is_one_layer(search: Search) -> bool:
    return search.graph.length is not None and len(search.graph.nodes) <= search.policy.one_layer


def _in_lines(search: Search) -> bool:
    """A vector at a time through few ops. Another entry would be split alike, and not for the better."""
    few = len(search.graph.nodes) <= search.policy.one_layer and not search.companions.graphs
    return few and search.objective == "latency" and _roomy(search) and vectors(search.graph)


# -- where memory binds ----------------------------------------------------------------------------------


def _stack(search: Search) -> None:
    """Several layers that are alike on each of several regions."""
    found = repeated(search.graph)
    if found is None:
        return
    most = search.policy.stacks
    stacks = stacked(search.graph, found, search.wafer, search.side, search.policy)
    for region_of, sizes in islice(stacks, most):
        a = Assignment(region_of, sizes)
        search.build(a, pinned=search.along(a, found))
        if search.best is not None:
            return


def _tighten(search: Search) -> None:
    """Plans on the whole wafer within budgets that account for every op, until one fits.

    What a plan is over budget is taken from the next one's, more of it each time that nothing came of it.
    """
    graph, wafer, policy = search.graph, search.wafer, search.policy
    search.tight = True
    columns, rows = logical_width(wafer, wafer.width), wafer.height
    every, together = range(len(graph.nodes)), search.on_one(columns, rows)
    shared = budget(graph, every, search.site(columns, rows), search.companions)
    (code,) = search.companions.code_bytes({0: [n.op for n in graph.nodes]}, wafer)
    room, least, more = float(wafer.sram_bytes - code), wafer.sram_bytes, policy.more
    limits: dict[int, Limits] = {}
    for _ in range(policy.attempts):
        limits, before = shared.limits(room), limits
        if limits == before or search.build(together, limits=limits) < float("inf"):
            return
        if search.excess > least > wafer.sram_bytes / 8:
            return  # far from fitting, and no nearer
        more = 2 * more if search.excess >= least else policy.more
        least = min(least, search.excess)
        room -= more * least


# -- each group on a region of its own -----------------------------------------------------------------------


def _apart(search: Search) -> None:
    """Each group on its best region, the largest ones halved until all have a place; none if they never do.

    No region is larger than the one that all would share.
    """
    settled, policy = _settled(search), search.policy
    most = search.wafer.cores if settled is None else settled.cores
    shapes = [s for s in search.sizes if s[0] * s[1] <= most]
    sizes: list[Size] = []
    for g in search.groups:
        options = [(*search.estimator.latency([g], c, r), c, r) for c, r in shapes]
        fitting = [o for o in options if o[1]]
        if not fitting:
            return
        _, _, columns, rows = min(
            fitting, key=lambda o: (o[0] + policy.area_price * o[2] * o[3], o[2] * o[3])
        )
        sizes.append((g.name, columns, rows))
    while not arrangements(search.wafer, sizes):
        i = max(range(len(sizes)), key=lambda j: sizes[j][1] * sizes[j][2])
        name, columns, rows = sizes[i]
        if columns * rows <= policy.least_cores:
            return
        sizes[i] = (
            (name, max(1, columns // 2), rows) if columns >= rows else (name, columns, max(1, rows // 2))
        )
    search.build(Assignment(tuple(r for r, g in enumerate(search.groups) for _ in g.nodes), tuple(sizes)))


# -- the best plan once more ------------------------------------------------------------------------------


def _hurry(search: Search) -> None:
    """Trees first for the moves that a call waits for."""
    assert search.best is not None and search.timing is not None
    if not search.best.urgent:
        search.reroute(hurried(search.best, search.timing))


WAYS = (
    Way("along lines", _in_lines, line_plans),
    Way("all on one region", _roomy, _climb),
    Way("layers in stacks", lambda s: s.best is None, _stack),
    Way("within budgets", lambda s: s.best is None, _tighten),
    Way("each op by itself", lambda s: _settled(s) is not None and s.few, _each_by_itself),
    Way("a layer weighed as a whole", lambda s: _settled(s) is not None and _is_one_layer(s), _weighed),
    Way(
        "each group on its region",
        lambda s: len(s.groups) > 1 and (s.best is None or s.objective == "throughput"),
        _apart,
    ),
    Way("trees where a call waits", lambda s: s.best is not None, _hurry),
)


def chooser(graph: Graph, wafer: Wafer) -> Chooser:
    """Chooses splits for nodes of a placement that leaves them open."""
    estimator = Estimator(graph, wafer, POLICY)
    limits = estimator.limits(range(len(graph.nodes)))

    def choose(node: int, sources: tuple[Source | None, ...], site: Site) -> Choice:
        return estimator.choice(Question(graph.nodes[node].op, sources, site, limits[node]))

    return choose
