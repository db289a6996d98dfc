"""The plans built so far for one graph, and building one more: regions given, splits chosen, addresses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ...ir.graph import Graph
from ..build.assemble import assemble
from ..build.companions import ALONE, Companions
from ..build.regions import Ground, make_region
from ..build.routes import routed
from ..cost.timing import Timing, simulate
from ..machine.wafer import Wafer
from ..plan.layout import Region
from ..plan.plan import Plan
from ..splits.choice import Choice, Limits, Question, Site, Source
from ..splits.next_product import NOTHING, Outlook
from ..splits.policy import POLICY, Policy
from .beam import Beam, along_layers
from .choices import Estimator
from .explain import DoesNotFit, explain
from .groups import Group, layers
from .layers import Layers
from .placers import Size, arrangements
from .region_sizes import likely_side, shapes
from .shared_constants import shared_splits
from .urgent import hurried

CHOOSING, TIMING = 0.6, 0.8  # shares of a plan after which splits are chosen, and routes found

Report = Callable[[str, float], None]
"""(what is being tried, share of the search that is done)"""


@dataclass(frozen=True)
class Assignment:
    """For each node its region's number; for each region its name and logical size."""

    region_of: tuple[int, ...]
    sizes: tuple[Size, ...]

    @property
    def cores(self) -> int:
        return sum(columns * rows for _, columns, rows in self.sizes)

    def __str__(self) -> str:
        shown = dict.fromkeys(f"{columns}x{rows}" for _, columns, rows in self.sizes)
        return (f"{len(self.sizes)} regions, " if len(self.sizes) > 1 else "") + ", ".join(shown)


@dataclass(frozen=True)
class Attempt:
    """A plan that was built: in which way, on what, and its cycles, or by how many bytes it is over budget.

    cycles: infinite where it does not fit, and where there is no place for the regions (`over` is 0 then).
    """

    way: str
    what: str
    cycles: float
    over: int
    best: bool  # of those so far

    def __str__(self) -> str:
        if math.isfinite(self.cycles):
            came = f"{self.cycles:,.0f} cycles" + (", the best so far" if self.best else "")
        else:
            came = f"{self.over:,} bytes over" if self.over else "no place"
        return f"{self.way}: {self.what}: {came}"


@dataclass(eq=False)
class Search:
    """The plans built so far: the best that fits, or the nearest to fitting."""

    graph: Graph
    wafer: Wafer
    objective: str = "latency"
    companions: Companions = ALONE
    policy: Policy = POLICY
    report: Report = lambda what, share: None
    way: str = ""  # in which plans are being made
    lined: bool = False  # plans along lines are much better than others
    tight: bool = False  # memory is what binds: plans are made within budgets
    attempts: list[Attempt] = field(default_factory=lambda: [])
    best: Plan | None = None
    timing: Timing | None = None  # of the best
    nearest: Plan | None = None
    cycles: float = math.inf  # of the best
    excess: int = 0  # bytes by which the last plan built is over budget
    _least_excess: int = 0
    _done: float = 0.0  # share of the search before this way
    _left: float = 0.0  # share of it that this way's plans to come have
    _cores: int = 0

    def __post_init__(self) -> None:
        self.groups: tuple[Group, ...] = layers(self.graph)
        self.estimator = Estimator(self.graph, self.wafer, self.policy, self.companions)
        self.outlook = Outlook(self.graph, self.policy)

    def __str__(self) -> str:
        """What was attempted, one plan a line."""
        return "\n".join(map(str, self.attempts))

    @cached_property
    def need(self) -> int:
        """Bytes that stay on the cores: constants and caches, each once."""
        return sum(self.graph.tensors[t].bytes for t in self.graph.resident)

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Logical (columns, rows) of regions worth trying, smallest first."""
        every = shapes(self.wafer, self.policy)
        room = self.policy.room * self.wafer.sram_bytes
        return [s for s in every if self.need <= room * s[0] * s[1]] or every[-1:]

    @cached_property
    def side(self) -> float:
        """The likely side; in a pipeline the smallest, to try all from there on: it gains by more cores."""
        latency = self.objective == "latency"
        return likely_side(self.graph, self.wafer) if latency else float(max(self.sizes[0]))

    @property
    def few(self) -> bool:
        return len(self.graph.nodes) <= self.policy.few_nodes

    def begin(self, way: str, done: float, share: float) -> None:
        """Plans are made in this way from now on. done: share of the search before; share: the way's."""
        self.way, self._done, self._left = way, done, share
        self.tell("", 0.0)

    def tell(self, what: str, done: float) -> None:
        """Says what is being tried. How many plans a way makes nobody knows: each has half of what is left of
        its share. done: share of the plan that is being made."""
        self.report(f"{self.way}, {what}" if what else self.way, self._done + self._left / 2 * done)

    def tried(self) -> None:
        """A plan was made."""
        self._done, self._left = self._done + self._left / 2, self._left / 2

    def forget(self) -> None:
        """The best so far counts no more: what is built next is compared with nothing."""
        self.best, self.timing, self.cycles, self._cores = None, None, math.inf, 0

    def on_one(self, columns: int, rows: int) -> Assignment:
        """All nodes together."""
        return Assignment((0,) * len(self.graph.nodes), ((self.groups[0].name, columns, rows),))

    def site(self, columns: int, rows: int) -> Site:
        return Site(0, columns, rows, self.wafer, self.policy)

    def together(self, a: Assignment) -> dict[int, Choice]:
        """Choices for all nodes of one region, weighed together."""
        nodes = range(len(self.graph.nodes))
        _, columns, rows = a.sizes[0]
        beam = Beam(self.graph, self.site(columns, rows), self.estimator.limits(nodes), self.outlook)
        ways = beam.run(nodes)
        return ways[0].choices() if ways else {}

    def along(self, a: Assignment, alike: Layers) -> dict[int, Choice]:
        """Choices for all nodes of layers that are alike, weighed together."""
        inside = range(alike.start, alike.end)
        one = a.region_of[alike.start + alike.period]
        limits = self.estimator.limits([i for i in inside if a.region_of[i] == one])
        by_place = {(i - alike.start) % alike.period: v for i, v in limits.items()}
        whole = {i: by_place[(i - alike.start) % alike.period] for i in inside}
        _, columns, rows = a.sizes[one]
        chosen = along_layers(Beam(self.graph, self.site(columns, rows), whole, self.outlook), alike)
        return {i: c for i, c in chosen.items() if a.sizes[a.region_of[i]][1:] == (columns, rows)}

    def build(
        self,
        a: Assignment,
        looks_ahead: bool = True,
        limits: Mapping[int, Limits] | None = None,
        pinned: Mapping[int, Choice] | None = None,
    ) -> float:
        """Builds the plans of an assignment; the least cycles per call, infinite where none fits.

        Several regions are laid as each placer would. looks_ahead: splits are chosen with a view to where
        results go next. limits: of every node where memory is tight, else the estimator's. pinned: choices
        made beforehand. Optimized for throughput, these are the cycles between calls that follow one another.
        """
        given = dict(limits or {})
        fixed = dict(pinned or {})
        if limits is not None:
            _, columns, rows = a.sizes[0]
            fixed |= shared_splits(self.graph, self.site(columns, rows), limits)
        for r in range(len(a.sizes) if limits is None else 0):
            given |= self.estimator.limits([i for i, k in enumerate(a.region_of) if k == r])

        count, name = len(self.graph.nodes), f"{a}"

        def choose_split(i: int, sources: tuple[Source | None, ...], site: Site) -> Choice:
            self.tell(name, CHOOSING * i / count)
            if i in fixed:
                return fixed[i]
            near = self.site(site.columns, site.rows)  # where in the wafer it lies makes no difference
            later = self.outlook.later(i, near, given) if looks_ahead else NOTHING
            return self.estimator.choice(Question(self.graph.nodes[i].op, sources, site, given[i]), later)

        least, region_of = math.inf, dict(enumerate(a.region_of))
        for how, regions in self._arranged(a).items():
            ground = Ground(self.wafer, regions, region_of, self.policy)
            name = f"{a}{how}"
            built = assemble(self.graph, ground, choose_split, self.objective, self.companions)
            least = min(least, self.finished(built, name, a.cores))
            self.tried()
        return least

    def _arranged(self, a: Assignment) -> dict[str, tuple[Region, ...]]:
        """The regions of an assignment, by what to call how they lie."""
        if len(a.sizes) != 1:
            found = {f" in {how}": regions for how, regions in arrangements(self.wafer, a.sizes).items()}
        else:
            name, columns, rows = a.sizes[0]
            region = make_region(self.wafer, name, 0, 0, columns, rows)
            found = {} if region is None else {"": (region,)}
        if not found:
            self.attempts.append(Attempt(self.way, str(a), math.inf, 0, False))
        return found

    def finished(self, built: Plan, what: str, cores: int, hurry: bool = False) -> float:
        """The cycles of a plan that has no routes yet, infinite where it does not fit.

        hurry: routes are tried a second time, trees first for what the call waits for.
        """
        if self.over(built) > 0:
            return self._judged(built, None, what, cores)
        self.tell(f"{what}: routes", CHOOSING)
        built = routed(built)
        self.tell(f"{what}: timing", TIMING)
        timing = self._timed(built)
        if hurry and (quicker := self._timed(other := hurried(built, timing))).cycles < timing.cycles:
            built, timing = other, quicker
        return self._judged(built, timing, what, cores)

    def _timed(self, made: Plan) -> Timing:
        return simulate(made, links=self.objective != "latency")

    def _judged(self, built: Plan, timing: Timing | None, what: str, cores: int) -> float:
        """The cycles of a timed plan, infinite where it does not fit; kept if it is the best so far."""
        self.excess = self.over(built)
        if self.excess > 0 or timing is None:
            if self.nearest is None or self.excess < self._least_excess:
                self.nearest, self._least_excess = built, self.excess
            self.attempts.append(Attempt(self.way, what, math.inf, self.excess, False))
            return math.inf
        cycles = timing.cycles if self.objective == "latency" else timing.interval(self.wafer)
        gain = self.policy.gain
        worth = gain if cores > self._cores else 1 / gain if cores < self._cores else 1.0
        better = cycles < worth * self.cycles
        if better:
            self._cores = cores
            self.best, self.timing, self.cycles = built, timing, cycles
        self.attempts.append(Attempt(self.way, what, cycles, 0, better))
        return cycles

    def reroute(self, made: Plan) -> None:
        """Keeps the best plan with other routes, if a call is quicker with them."""
        assert self.timing is not None
        timing = self._timed(made)
        better = timing.cycles < self.timing.cycles
        self.attempts.append(Attempt(self.way, "other routes, a call", timing.cycles, 0, better))
        if better:
            self.best, self.timing = made, timing

    def over(self, built: Plan) -> int:
        """Bytes by which a plan is over budget, or leaves too few for entries that come later."""
        over = int(built.sram().max(initial=0)) - self.wafer.sram_bytes
        if (room := self._room) is not None:
            kept = max((b.address + b.bytes for b in built.buffers if b.stays), default=0)
            over = max(over, kept - room)
        return over

    @property
    def _room(self) -> int | None:
        """Bytes of a core that may stay in use between calls, where entries that come later need the rest."""
        wanted = self.companions.want_room
        return round(self.policy.kept_share * self.wafer.sram_bytes) if wanted else None

    def result(self) -> Plan:
        """The best plan. Raises DoesNotFit where none fits."""
        if self.best is not None:
            return self.best
        if self.nearest is None:
            raise DoesNotFit(
                f"no arrangement of {len(self.groups)} regions avoids the dead cores of wafer "
                f"{self.wafer.name}"
            )
        raise DoesNotFit(explain(self.nearest, self._room), self.nearest)
