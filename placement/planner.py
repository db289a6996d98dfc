"""Planning: graph -> groups -> splits -> regions -> steps with moves -> SRAM -> Plan.

The search tries a region for each group apart and one region for all together, builds the most
promising and keeps the one of least predicted cycles that fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ..ir.graph import Graph
from ..ir.op import Op
from .ahead import Ahead, Prospects, ahead_of, cycles_ahead, prospects
from .assemble import Chooser, assemble, code_bytes
from .beam import Beam, along_layers
from .beside import Alike, Unlike, alike
from .budget import budget
from .choose import choose
from .critical import critical_path
from .follow import join_split
from .group import Group, layers
from .layout import Grid, Region, Split
from .place import PLACERS, Size, logical_width, make_region
from .plan import Plan
from .repeats import Layers, repeated
from .route import LANES, routed
from .shared import shared_splits
from .sizes import FEW, GAIN, climb, likely_side, shapes
from .split import Choice, Limits, Source, uncut
from .stack import stacked
from .timing import simulate
from .wafer import Wafer

Report = Callable[[str, float], None]  # (phase, share done)

RESIDENT, WORKING = 0.62, 0.30  # of SRAM: what all constants may take, and one op's working set
BESIDE = 0.8  # of that set, where another entry's op is split alike: two of its results may be alive
ROOMY = 0.5  # of all SRAM: where constants take more, plans are made within budgets from the start
STACKS, WEIGHED = (
    2,
    2,
)  # times that sizes of regions are tried until layers that are alike fit; sizes each time
ONE_LAYER = 80  # nodes of a decoder whose splits are all weighed together
ATTEMPTS = 4  # plans made where memory is tight
MORE = 1.25  # of what a plan is over budget, taken from the next one's: choices come in steps
RESIDENT_ROLES = ("constant", "state")
KEPT = 0.8  # of SRAM: where what lasts must end, if other entries want room for what comes and goes
SMALL = 256  # bytes that any op may keep resident: a few numbers of a bias are no reason to move it


class DoesNotFit(ValueError):
    """The model does not fit the wafer; `plan` is the nearest attempt, None where there is not even that."""

    def __init__(self, message: str, plan: Plan | None = None) -> None:
        super().__init__(message)
        self.plan = plan


@dataclass(frozen=True)
class Assignment:
    """For each node its region's number; for each region its name and logical size."""

    region_of: tuple[int, ...]
    sizes: tuple[Size, ...]


class Estimator:
    """Splits and latencies of groups on regions of a given size, remembered by op and sources."""

    def __init__(self, graph: Graph, wafer: Wafer, others: Sequence[Graph] = ()) -> None:
        self.graph, self.wafer = graph, wafer
        self._alike = alike(graph, others)
        self._choices: dict[Any, Choice] = {}
        self._prospects: dict[Any, Prospects] = {}

    def choice(
        self,
        op: Op,
        sources: Sequence[Source | None],
        region: int,
        columns: int,
        rows: int,
        limits: Limits,
        exact: bool = True,
        ahead: Ahead | None = None,
        limits_ahead: Limits | None = None,
    ) -> Choice:
        """The split of `op` on region number `region` of columns x rows.

        ahead: where its result goes next, and within which limits.
        """
        local = tuple(
            None
            if s is None
            else replace(s, region=0 if s.region == region else 1, distance=round(s.distance, -1))
            for s in sources
        )
        # Equal ops whose sources lie alike are split alike, wherever that is in the region.
        near = [s.grid for s in local if s is not None and s.region == 0 and s.write]
        x, y = min((g.x for g in near), default=0), min((g.y for g in near), default=0)
        alike = tuple(s if s is None else replace(s, grid=_moved(s.grid, -x, -y)) for s in local)
        key = (op, alike, columns, rows, limits, exact, ahead, limits_ahead)
        if (known := self._choices.get(key)) is not None:
            grid = _moved(known.grid, x, y)
            box = grid.box
            if min(box[:2]) >= 0 and box[2] <= columns and box[3] <= rows:
                return replace(known, grid=grid)
            key = (*key, x, y)
        if key not in self._choices:
            rest: tuple[Any, ...] = ()
            if ahead is not None and limits_ahead is not None:
                there = self._ahead(ahead, columns, rows, limits_ahead)
                rest = self._later(ahead, op, there), there.least
            c = choose(op, local, 0, columns, rows, limits, self.wafer, exact, *rest)
            self._choices[key] = replace(c, grid=_moved(c.grid, -x, -y))
        c = self._choices[key]
        return replace(c, grid=_moved(c.grid, x, y))

    def _later(self, ahead: Ahead, op: Op, there: Prospects) -> Callable[[Choice], float]:
        def later(c: Choice) -> float:
            return cycles_ahead(ahead, op, c, there, self.wafer) if math.isfinite(c.cycles) else 0.0

        return later

    def _ahead(self, ahead: Ahead, columns: int, rows: int, limits: Limits) -> Prospects:
        key = (ahead, columns, rows, limits)
        if key not in self._prospects:
            self._prospects[key] = prospects(ahead, columns, rows, limits, self.wafer)
        return self._prospects[key]

    def limits(self, nodes: Sequence[int]) -> dict[int, Limits]:
        """What each node may keep resident, in proportion to its constants, and use while it runs."""
        graph = self.graph
        constants = {
            i: sum(graph.tensors[t].bytes for t in graph.nodes[i].inputs if t in graph.resident)
            for i in nodes
        }
        total = max(1, sum(constants.values()))
        resident, working = RESIDENT * self.wafer.sram_bytes, WORKING * self.wafer.sram_bytes
        return {
            i: Limits(
                round(resident * c / total) + SMALL,
                working * (BESIDE if i in self._alike else 1.0),
                False,
                uncut(graph, i),
                self._alike.get(i),
            )
            for i, c in constants.items()
        }

    def latency(self, groups: Sequence[Group], columns: int, rows: int) -> tuple[float, bool]:
        """(estimated cycles, whether each op keeps to its limits) of groups on one region."""
        sources: dict[str, Source] = {}
        limits = self.limits([i for g in groups for i in g.nodes])
        total, fits = 0.0, True
        for i in (i for g in groups for i in g.nodes):
            n = self.graph.nodes[i]
            if n.output in self.graph.resident:
                continue  # a cache is filled where it is read
            held = [self._source(t, sources) for t in n.inputs]
            c = self.choice(n.op, held, 0, columns, rows, limits[i], exact=False)
            total += c.cycles
            fits = (
                fits and c.resident <= limits[i].resident * 1.001 and c.working <= limits[i].working * 1.001
            )
            split, grid = c.split, c.grid
            if c.part:
                split, grid = join_split(n.op, split, c.part, grid)
            shape = self.graph.tensors[n.output].shape
            sources[n.output] = Source(grid, split, n.op.write, n.op.axes, 0, 0.0, shape)
        return total, fits

    def _source(self, tensor: str, sources: Mapping[str, Source]) -> Source | None:
        if tensor in self.graph.resident:
            return None
        return sources.get(tensor, Source(Grid(1, 1), Split(), (), (), 1, 20.0))


def _moved(grid: Grid, x: int, y: int) -> Grid:
    return replace(grid, x=grid.x + x, y=grid.y + y)


def plan(
    graph: Graph,
    wafer: Wafer,
    objective: str = "latency",
    seed: int = 0,
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
    search = _Search(graph, wafer, groups, objective, seed, placer, others)
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
    if search.best is not None:
        return _hurried(search.best)
    if search.nearest is None:
        raise DoesNotFit(
            f"no arrangement of {len(groups)} regions avoids the dead cores of wafer {wafer.name}; "
            "try a larger --wafer"
        )
    raise DoesNotFit(explain(search.nearest), search.nearest)


def _hurried(plan: Plan) -> Plan:
    """The plan with trees first for the moves that a call waits for, if it is quicker then."""
    producer = {s.number: s for s in plan.steps}
    urgent = {
        (s.node, j)
        for leg in critical_path(plan, simulate(plan, links=False))
        for s in (producer[leg.step],)
        if leg.after >= 0
        for j, o in enumerate(s.operands)
        if any(m.source == producer[leg.after].result for m in o.moves)
    }
    made = routed(replace(plan, urgent=frozenset(urgent)))
    return made if made.cycles < plan.cycles else plan


def _stack(search: _Search, estimator: Estimator, side: float, report: Report) -> None:
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


def _tighten(search: _Search, estimator: Estimator, report: Report) -> None:
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


ROOM = 0.25  # of a region's SRAM: regions that constants fill more are tried only if there is no larger one


class _Search:
    """The plans built so far: the best that fits, or the nearest to fitting."""

    def __init__(
        self,
        graph: Graph,
        wafer: Wafer,
        groups: Sequence[Group],
        objective: str,
        seed: int,
        placer: str,
        others: Sequence[Graph],
    ) -> None:
        self.graph, self.wafer, self.groups, self.others = graph, wafer, groups, others
        self.objective, self.seed, self.placer = objective, seed, placer
        readers = graph.readers()
        self.ahead = [ahead_of(graph, i, readers) for i in range(len(graph.nodes))]
        self.best: Plan | None = None
        self.nearest: Plan | None = None
        self.cycles = float("inf")
        self.excess = 0  # bytes by which the last plan built is over budget
        self._least_excess = 0
        self._cores = 0

    def together(self, estimator: Estimator, a: Assignment) -> dict[int, Choice]:
        """Choices for all nodes of one region, weighed together."""
        nodes = range(len(self.graph.nodes))
        _, columns, rows = a.sizes[0]
        beam = Beam(self.graph, self.wafer, columns, rows, estimator.limits(nodes), self.ahead)
        ways = beam.run(nodes)
        return ways[0].choices() if ways else {}

    def along(self, estimator: Estimator, a: Assignment, alike: Layers) -> dict[int, Choice]:
        """Choices for all nodes of layers that are alike, weighed together."""
        inside = range(alike.start, alike.end)
        one = a.region_of[alike.start + alike.period]
        limits = estimator.limits([i for i in inside if a.region_of[i] == one])
        by_place = {(i - alike.start) % alike.period: v for i, v in limits.items()}
        whole = {i: by_place[(i - alike.start) % alike.period] for i in inside}
        _, columns, rows = a.sizes[one]
        beam = Beam(self.graph, self.wafer, columns, rows, whole, self.ahead)
        chosen = along_layers(beam, alike)
        return {i: c for i, c in chosen.items() if a.sizes[a.region_of[i]][1:] == (columns, rows)}

    def build(
        self,
        estimator: Estimator,
        a: Assignment,
        looks_ahead: bool = True,
        limits: Mapping[int, Limits] | None = None,
        pinned: Mapping[int, Choice] | None = None,
    ) -> float:
        """Builds the plan of an assignment; its cycles per call, infinite when it does not fit.

        looks_ahead: splits are chosen with a view to where results go next. limits: of every node where
        memory is tight, else the estimator's. pinned: choices made beforehand.
        Optimized for throughput, these are the cycles between calls that follow one another.
        """
        graph, wafer = self.graph, self.wafer
        regions = _regions(wafer, a, self.placer, self.seed)
        if regions is None:
            return float("inf")
        region_of = dict(enumerate(a.region_of))
        given = dict(limits or {})
        fixed = dict(pinned or {})
        if limits is not None:
            fixed |= shared_splits(graph, regions[0].columns, regions[0].rows, limits, wafer)
        for r in range(len(regions) if limits is None else 0):
            given |= estimator.limits([i for i, k in region_of.items() if k == r])

        def choose_split(
            i: int, sources: Sequence[Source | None], region: int, columns: int, rows: int
        ) -> Choice:
            if i in fixed:
                return fixed[i]
            ahead = self.ahead[i] if looks_ahead else None
            next_limits = None if ahead is None else given.get(ahead.node, given[i])
            op = graph.nodes[i].op
            return estimator.choice(op, sources, region, columns, rows, given[i], True, ahead, next_limits)

        built = assemble(
            graph, wafer, regions, region_of, choose_split, self.objective, self.seed, self.others
        )
        self.excess = int(built.sram().max(initial=0)) - wafer.sram_bytes
        if self.others:
            kept = max((b.address + b.bytes for b in built.buffers if b.role in RESIDENT_ROLES), default=0)
            self.excess = max(self.excess, kept - round(KEPT * wafer.sram_bytes))
        if self.excess > 0:
            if self.nearest is None or self.excess < self._least_excess:
                self.nearest, self._least_excess = built, self.excess
            return float("inf")
        built = routed(built)
        cycles = built.cycles if self.objective == "latency" else simulate(built).interval(wafer)
        cores = sum(columns * rows for _, columns, rows in a.sizes)
        worth = GAIN if cores > self._cores else 1 / GAIN if cores < self._cores else 1.0
        if cycles < worth * self.cycles:
            self._cores = cores
            self.best, self.cycles = built, cycles
        return cycles


def plan_beside(graph: Graph, first: Plan) -> Plan:
    """The plan of another entry of the program whose first entry's plan is `first`.

    What both keep on the cores lies where the first one has it. Raises DoesNotFit where too little room is
    left, or where the entries are too unlike.
    """
    wafer = first.wafer
    as_first, estimator = Alike(graph, first), Estimator(graph, wafer)
    limits = {
        i: replace(one, resident=SMALL, working=WORKING * as_first.room, uncut=())
        for i, one in estimator.limits(range(len(graph.nodes))).items()
    }

    def choose_split(
        i: int, sources: Sequence[Source | None], region: int, columns: int, rows: int
    ) -> Choice:
        known = as_first.choice(i)
        if known is not None:
            return known
        return estimator.choice(graph.nodes[i].op, sources, region, columns, rows, limits[i])

    try:
        region_of = as_first.regions()
        built = assemble(
            graph, wafer, first.regions, region_of, choose_split, first.objective, first.seed, beside=first
        )
    except Unlike as e:
        raise DoesNotFit(f"entries cannot share weights: {e}; compile them apart") from None
    if int(built.sram().max(initial=0)) > wafer.sram_bytes:
        raise DoesNotFit(explain(built), built)
    return routed(built)


def chooser(graph: Graph, wafer: Wafer) -> Chooser:
    """Chooses splits for nodes of a placement that leaves them open."""
    estimator = Estimator(graph, wafer)
    limits = estimator.limits(range(len(graph.nodes)))
    return lambda i, sources, region, columns, rows: estimator.choice(
        graph.nodes[i].op, sources, region, columns, rows, limits[i]
    )


def explain(plan: Plan) -> str:
    """Who uses what on the fullest core of a plan that is over budget."""
    used = plan.sram()
    core = int(used.argmax())
    x, y = core % plan.wafer.width, core // plan.wafer.width
    here = [b for b in plan.buffers if (plan.regions[b.region].on(b.grid) == core).any()]
    here.sort(key=lambda b: (-b.bytes, b.number))
    steps = {o.buffer: s for s in plan.steps for o in s.operands} | {s.result: s for s in plan.steps}
    largest = "; ".join(
        f"{steps[b.number].name if b.number in steps else b.name} ({b.role} {b.bytes:,})" for b in here[:3]
    )
    return (
        f"core ({x}, {y}) needs {int(used.max()):,} bytes, budget {plan.wafer.sram_bytes:,}; "
        f"largest: {largest}; try a larger --wafer"
    )


def _regions(wafer: Wafer, a: Assignment, placer: str, seed: int) -> tuple[Region, ...] | None:
    if len(a.sizes) == 1:
        name, columns, rows = a.sizes[0]
        region = make_region(wafer, name, 0, 0, columns, rows)
        return None if region is None else (region,)
    return PLACERS[placer](wafer, a.sizes, seed)


AREA_PRICE = 1e-4  # cycles per core: among equals, the smaller region


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
    while PLACERS["strips"](wafer, sizes, 0) is None:
        i = max(range(len(sizes)), key=lambda j: sizes[j][1] * sizes[j][2])
        name, columns, rows = sizes[i]
        if columns * rows <= 16:
            return None
        sizes[i] = (
            (name, max(1, columns // 2), rows) if columns >= rows else (name, columns, max(1, rows // 2))
        )
    return Assignment(tuple(r for r, g in enumerate(groups) for _ in g.nodes), tuple(sizes))
