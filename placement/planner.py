"""Planning: graph -> groups -> splits -> regions -> steps with moves -> SRAM -> Plan.

The search tries a region for each group apart and one region for all together, builds the most
promising and keeps the one of least predicted cycles that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from ..ir.graph import Graph
from .build.assemble import Chooser, code_bytes
from .build.regions import PLACERS, Size, logical_width
from .build.residents import alike
from .build.routes import LANES, routed
from .cost.critical_path import critical_path
from .cost.timing import Timing, cycles_of
from .machine.wafer import Wafer
from .plan.plan import Plan
from .search.budget import budget
from .search.choices import RESIDENT, Estimator
from .search.explain import DoesNotFit, explain
from .search.groups import Group, layers
from .search.layer_stacks import stacked
from .search.layers import repeated
from .search.region_sizes import FEW, climb, likely_side, shapes
from .search.search import Assignment, Search
from .splits.choice import Limits

Report = Callable[[str, float], None]  # (phase, share done)

ROOMY = 0.5  # of all SRAM: where constants take more, plans are made within budgets from the start
ROOM = 0.25  # of a region's SRAM: regions that constants fill more are tried only if there is no larger one
STACKS = 2  # times that sizes of regions are tried until layers that are alike fit
ONE_LAYER = 80  # nodes of a decoder whose splits are all weighed together
ATTEMPTS = 4  # plans made where memory is tight
MORE = 1.25  # of what a plan is over budget, taken from the next one's: choices come in steps
AREA_PRICE = 1e-4  # cycles per core: among equals, the smaller region


def plan(
    graph: Graph,
    wafer: Wafer,
    objective: str = "latency",
    placer: str = "strips",
    others: Sequence[Graph] = (),
    report: Report = lambda phase, share: None,
) -> Plan:
    """The best plan found for `graph` on `wafer`: of least latency, or of most calls per second.

    others: graphs of the program's other entries, for `plan_beside`: their kernels take room.
    Raises DoesNotFit, naming the op, the bytes on the fullest core, the budget and what to try.
    """
    wafer.check()
    if wafer.colours < LANES:
        raise DoesNotFit(
            f"wafer {wafer.name} has {wafer.colours} colours, the shared lanes alone take {LANES}"
        )
    groups = layers(graph)
    need = sum(graph.tensors[t].bytes for t in graph.resident)
    what = "constants and caches" if graph.length else "constants"
    cores = wafer.cores - len(set(wafer.dead_cores))
    if need > cores * wafer.sram_bytes:
        raise DoesNotFit(
            f"{what} need {need:,} bytes; wafer {wafer.name} has {cores * wafer.sram_bytes:,} "
            f"({cores:,} cores x {wafer.sram_bytes:,}); try a larger --wafer"
        )
    name = groups[0].name
    search = Search(graph, wafer, groups, objective, placer, others)
    estimator = Estimator(graph, wafer, others)
    sizes = shapes(wafer)
    sizes = [s for s in sizes if need <= ROOM * s[0] * s[1] * wafer.sram_bytes] or sizes[-1:]
    few = len(graph.nodes) <= FEW
    # Calls in a pipeline: the more cores the better, so all sizes from the smallest on.
    side = likely_side(graph, wafer) if objective == "latency" else float(max(sizes[0]))

    def together(size: tuple[int, int]) -> float:
        return search.build(estimator, Assignment((0,) * len(graph.nodes), ((name, *size),)))

    report("plan", 0.0)
    columns, rows = sizes[-1]
    if need <= ROOMY * cores * wafer.sram_bytes and need <= columns * rows * wafer.sram_bytes:
        climb(sizes, side, few or objective != "latency", together)
    largest = wafer.cores
    if search.best is None:
        _stack(search, estimator, side, report)
    if search.best is None:
        _tighten(search, estimator, report)
    elif len(search.best.regions) == 1:
        (region,) = search.best.regions
        largest = region.columns * region.rows
        a = Assignment((0,) * len(graph.nodes), ((name, region.columns, region.rows),))
        if few:
            # Each op by itself: where its result goes next is an estimate, and may mislead.
            search.build(estimator, a, looks_ahead=False)
        if graph.length is not None and len(graph.nodes) <= ONE_LAYER:
            # A token at a time: a long path through small ops.
            search.build(estimator, a, pinned=search.together(estimator, a))
    # Regions apart pay in a pipeline, or where together nothing fits; none larger than all together.
    smaller = [s for s in sizes if s[0] * s[1] <= largest]
    useful = len(groups) > 1 and (search.best is None or objective == "throughput")
    if useful and (apart := _apart(groups, estimator, wafer, smaller)) is not None:
        search.build(estimator, apart)
    if search.best is not None and search.timing is not None:
        return _hurried(search.best, search.timing)
    if search.nearest is None:
        raise DoesNotFit(
            f"no arrangement of {len(groups)} regions avoids the dead cores of wafer {wafer.name}; "
            "try a larger --wafer"
        )
    raise DoesNotFit(explain(search.nearest), search.nearest)


def _hurried(plan: Plan, timing: Timing) -> Plan:
    """The plan with trees first for the moves that a call waits for, if it is quicker then."""
    producer = {s.number: s for s in plan.steps}
    urgent = {
        (s.node, j)
        for leg in critical_path(plan, timing)
        for s in (producer[leg.step],)
        if leg.after >= 0
        for j, o in enumerate(s.operands)
        if any(m.source == producer[leg.after].result for m in o.moves)
    }
    made = routed(replace(plan, urgent=frozenset(urgent)))
    return made if cycles_of(made) < timing.cycles else plan


def _stack(search: Search, estimator: Estimator, side: float, report: Report) -> None:
    """Plans with several layers that are alike on each of several regions."""
    found = repeated(search.graph)
    if found is None:
        return
    stacks = stacked(search.graph, found, search.wafer, side, RESIDENT)
    for attempt, (region_of, sizes) in enumerate(islice(stacks, STACKS)):
        report("plan", attempt / STACKS)
        a = Assignment(region_of, sizes)
        search.build(estimator, a, pinned=search.along(estimator, a, found))
        if search.best is not None:
            return


def _tighten(search: Search, estimator: Estimator, report: Report) -> None:
    """Plans on the whole wafer within budgets that account for every op, until one fits.

    What a plan is over budget is taken from the next one's.
    """
    graph, wafer = search.graph, search.wafer
    columns, rows = logical_width(wafer, wafer.width), wafer.height
    name = search.groups[0].name
    together = Assignment((0,) * len(graph.nodes), ((name, columns, rows),))
    shared = budget(graph, range(len(graph.nodes)), columns, rows, wafer, alike(graph, search.others))
    room = wafer.sram_bytes - code_bytes((n.op for g in (graph, *search.others) for n in g.nodes), wafer)
    limits: dict[int, Limits] = {}
    least = wafer.sram_bytes
    for attempt in range(ATTEMPTS):
        report("plan", attempt / ATTEMPTS)
        limits, before = shared.limits(room), limits
        if limits == before or search.build(estimator, together, limits=limits) < float("inf"):
            return
        if search.excess > least:
            return
        least = search.excess
        room -= MORE * least


def chooser(graph: Graph, wafer: Wafer) -> Chooser:
    """Chooses splits for nodes of a placement that leaves them open."""
    estimator = Estimator(graph, wafer)
    limits = estimator.limits(range(len(graph.nodes)))
    return lambda i, sources, region, columns, rows: estimator.choice(
        graph.nodes[i].op, sources, region, columns, rows, limits[i]
    )


def _apart(
    groups: Sequence[Group], estimator: Estimator, wafer: Wafer, all_shapes: Sequence[tuple[int, int]]
) -> Assignment | None:
    """Each group on its best region, the largest ones halved until all have room; None if they never do."""
    sizes: list[Size] = []
    for g in groups:
        options = [(*estimator.latency([g], c, r), c, r) for c, r in all_shapes]
        fitting = [o for o in options if o[1]]
        if not fitting:
            return None
        _, _, columns, rows = min(fitting, key=lambda o: (o[0] + AREA_PRICE * o[2] * o[3], o[2] * o[3]))
        sizes.append((g.name, columns, rows))
    while PLACERS["strips"](wafer, sizes) is None:
        i = max(range(len(sizes)), key=lambda j: sizes[j][1] * sizes[j][2])
        name, columns, rows = sizes[i]
        if columns * rows <= 16:
            return None
        sizes[i] = (
            (name, max(1, columns // 2), rows) if columns >= rows else (name, columns, max(1, rows // 2))
        )
    return Assignment(tuple(r for r, g in enumerate(groups) for _ in g.nodes), tuple(sizes))
