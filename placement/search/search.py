"""The plans built so far for one graph, and building one more: regions given, splits chosen, addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...ir.graph import Graph
from ..build.assemble import assemble
from ..build.regions import PLACERS, Size, make_region
from ..build.routes import routed
from ..cost.timing import Timing, simulate
from ..machine.wafer import Wafer
from ..plan.layout import Region
from ..plan.plan import Plan
from ..splits.choice import Choice, Limits, Source
from ..splits.next_product import ahead_of
from .beam import Beam, along_layers
from .choices import Estimator
from .groups import Group
from .layers import Layers
from .region_sizes import GAIN
from .shared_constants import shared_splits

KEPT = 0.8  # of SRAM: where what lasts must end, if other entries want room for what comes and goes


@dataclass(frozen=True)
class Assignment:
    """For each node its region's number; for each region its name and logical size."""

    region_of: tuple[int, ...]
    sizes: tuple[Size, ...]


class Search:
    """The plans built so far: the best that fits, or the nearest to fitting."""

    def __init__(
        self,
        graph: Graph,
        wafer: Wafer,
        groups: Sequence[Group],
        objective: str,
        placer: str,
        others: Sequence[Graph],
    ) -> None:
        self.graph, self.wafer, self.groups, self.others = graph, wafer, groups, others
        self.objective, self.placer = objective, placer
        readers = graph.readers()
        self.ahead = [ahead_of(graph, i, readers) for i in range(len(graph.nodes))]
        self.best: Plan | None = None
        self.timing: Timing | None = None  # of the best
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
        regions = _regions(wafer, a, self.placer)
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

        built = assemble(graph, wafer, regions, region_of, choose_split, self.objective, self.others)
        self.excess = int(built.sram().max(initial=0)) - wafer.sram_bytes
        if self.others:
            kept = max((b.address + b.bytes for b in built.buffers if b.stays), default=0)
            self.excess = max(self.excess, kept - round(KEPT * wafer.sram_bytes))
        if self.excess > 0:
            if self.nearest is None or self.excess < self._least_excess:
                self.nearest, self._least_excess = built, self.excess
            return float("inf")
        built = routed(built)
        timing = simulate(built, links=self.objective != "latency")
        cycles = timing.cycles if self.objective == "latency" else timing.interval(wafer)
        cores = sum(columns * rows for _, columns, rows in a.sizes)
        worth = GAIN if cores > self._cores else 1 / GAIN if cores < self._cores else 1.0
        if cycles < worth * self.cycles:
            self._cores = cores
            self.best, self.timing, self.cycles = built, timing, cycles
        return cycles


def _regions(wafer: Wafer, a: Assignment, placer: str) -> tuple[Region, ...] | None:
    if len(a.sizes) == 1:
        name, columns, rows = a.sizes[0]
        region = make_region(wafer, name, 0, 0, columns, rows)
        return None if region is None else (region,)
    return PLACERS[placer](wafer, a.sizes)
