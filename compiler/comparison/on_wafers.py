"""What a token takes on wafers: a plan of the whole model, or an estimate from plans of its distinct layers.

The estimate, of a model of any size:

    layers          a plan of four of each kind, laid as in the plan of as many as a wafer holds: one of them
                    with others around it, as often as there are layers, and once what is around all
    hand-overs      from one region to the next, as many as there are regions, less one
    crossings       from one wafer to the next: edge, network, bytes over the link, edge

What one region holds is planned whole instead. As many requests are in flight as there
are regions, each behind the other, and the region with the most layers says how often a token comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...codegen.artifact.artifact import MAIN
from ...ir.graph import Graph
from ...placement.cost.links import link_bytes
from ...placement.cost.timing import simulate
from ...placement.machine.wafer import Wafer
from ...placement.plan.plan import Plan
from ...placement.search.layers_in_row import Row, layers_of, layers_on
from ...placement.search.region_sizes import holds
from ...placement.search.region_sizes import shapes as region_sizes
from ...placement.splits.policy import POLICY
from ..errors import DoesNotFit
from ..islands.island import System
from ..pipeline import compile_model
from ..planning import best_plans, plan_in_row
from ..request import Request, Weights
from ..shapes.shape import Shape
from ..shapes.sizes import BITS, held, wafers_needed
from ..show.critical_parts import path_rows
from ..show.figures import figures
from ..stopwatch import Stopwatch
from .graphs import Piece, all_layers, pieces

KINDS = ("fabric", "waiting", "compute")
ALIKE = 4  # layers of a kind that are planned together
FEW = 3  # of those that have a wafer each
BITS_OF = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "int8": BITS[8], "int4": BITS[4]}
DENSE = 0.9  # a share of memory that a packing by hand may reach
STATE_BYTES = 4  # of an element of the state that goes from wafer to wafer


@dataclass(frozen=True)
class Planned:
    """A stretch of a call: its cycles once, by what they go to on the critical path; it comes `times` over.

    cores: of its region. bytes: that stay on them for it, once. slow: its cycles where products of 16-bit
    weights take as long as those of f32. once: cycles that come once in all, on the way to the first of them
    and from the last. assumed: constants that are. each: how many lie on a
    region, 0 of what is no layer.
    """

    name: str
    times: int
    cycles: float
    slow: float
    shares: tuple[float, float, float]
    cores: int
    bytes: float
    once: float = 0.0
    assumed: tuple[str, ...] = ()
    each: int = 0


@dataclass(frozen=True)
class OnWafers:
    """A token on `wafers` wafers behind one another. estimate: whether it is one, and no whole plan.

    regions: that a token goes through; interval: cycles between two tokens, with as many requests in flight.
    state: bytes that go from one to the next. assumed: constants that are.
    """

    wafer: Wafer
    system: System
    stretches: tuple[Planned, ...]
    wafers: int
    dense: int
    regions: int
    interval: float
    state: float
    estimate: bool
    assumed: tuple[str, ...] = ()

    @property
    def cycles(self) -> float:
        """Of one token, without crossings."""
        own = self._stretches
        return own + self.hand_overs * self.system.hand_over

    @property
    def hand_overs(self) -> int:
        """From region to region, but those that are counted with the layers before them."""
        counted = sum(p.times for p in self.stretches if p.each == 1)
        return max(0, self.regions - 1 - counted) if self.estimate else 0

    @property
    def _stretches(self) -> float:
        return sum(p.cycles * p.times + p.once for p in self.stretches)

    @property
    def slow(self) -> float:
        return self.cycles + sum((p.slow - p.cycles) * p.times for p in self.stretches)

    def crossing(self, network: float | None = None) -> float:
        """Seconds from one wafer to the next. The state goes half its height to an edge, and from it."""
        edges = 2 * self.wafer.hop * self.wafer.height / 2 / self.wafer.clock_hz
        return edges + (self.system.crossing if network is None else network) + self.state / self.system.link

    def seconds(self, network: float | None = None) -> float:
        return self.cycles / self.wafer.clock_hz + (self.wafers - 1) * self.crossing(network)

    @property
    def in_flight(self) -> int:
        return self.regions if self.estimate else 1

    @property
    def throughput(self) -> float:
        """Tokens a second of all requests in flight."""
        if self.in_flight == 1:
            return 1 / self.seconds()
        return min(self.in_flight / self.seconds(), self.wafer.clock_hz / self.interval)

    @property
    def shares(self) -> dict[str, float]:
        """Of a token's time, by what it goes to."""
        hz = self.wafer.clock_hz
        out = {
            k: sum(p.shares[i] * (p.cycles * p.times + p.once) for p in self.stretches) / hz
            for i, k in enumerate(KINDS)
        }
        out["hand-overs"] = (self.cycles - self._stretches) / hz
        out["crossings"] = (self.wafers - 1) * self.crossing()
        return {k: v / self.seconds() for k, v in out.items()}

    @property
    def bound(self) -> str:
        return max(self.shares, key=lambda k: self.shares[k])

    def at(self, clock_hz: float) -> OnWafers:
        """The same cycles at another clock."""
        return replace(self, wafer=replace(self.wafer, clock_hz=clock_hz))


def whole(request: Request, model: str | bytes, system: System) -> tuple[Graph, OnWafers]:
    """A model on one wafer, from its plan, and the graph that is planned. Raises as `compile_model`."""
    made = compile_model(model, request, until="graph")
    graph = made.graphs[[*made.graphs][-1]]
    return graph, planned_whole(graph, made.wafer, system)


def planned_whole(graph: Graph, wafer: Wafer, system: System) -> OnWafers:
    """A graph on one wafer, from its plan. Raises DoesNotFit."""
    plan = best_plans({MAIN: graph}, wafer, "latency", Stopwatch())[MAIN]
    f, bytes_held = figures(plan, link_bytes(plan)), float(plan.sram().sum())
    total = path_rows(plan, simulate(plan))[-1]
    planned = Planned(
        "the whole", 1, f.cycles, f.cycles_at_f32, _shares(total), f.cores_used, bytes_held, 0.0, f.assumed
    )
    dense = wafers_needed(bytes_held, wafer, DENSE)
    return OnWafers(wafer, system, (planned,), 1, dense, 1, f.cycles, 0.0, False, f.assumed)


def estimate(shape: Shape, wafer: Wafer, system: System, weights: Weights, context: int) -> OnWafers:
    """A shape on as many wafers as it needs; from one plan where one region holds all of it.

    Raises DoesNotFit where a layer alone needs more than one wafer.
    """
    request = Request(wafer=wafer, weights=weights, no_weights=True, until="graph")
    need = held(shape, BITS_OF[weights], None, context)
    count, dense = (wafers_needed(need, wafer, fill) for fill in (system.fill, DENSE))
    if count == 1 and holds(math.ceil(need), region_sizes(wafer, POLICY)[-1], wafer, POLICY):
        return whole(replace(request, capacity=context), all_layers(shape, context), system)[1]
    around, *layers = pieces(shape, context, ALIKE)
    made = compile_model(around.model, request, until="plan")
    planned, strips = [_stretch(around, made.plan, 0)], 0
    for piece in layers:
        kept = _held_by_layer(piece, request, context)
        on_one = shape.layers if count == 1 else max(1, int(system.fill * wafer.memory // kept))
        before, after = (n if n > kept else 0 for n in _ends(made.graph))  # as the planner lays them
        strips = bool(before) + bool(after) if count == 1 else 2
        ends = (before, after) if count == 1 else (0, 0)
        planned.append(_in_row(piece, shape, replace(request, capacity=context), (on_one, ends)))
    regions = strips + math.ceil(sum(p.times / max(1, p.each) for p in planned[1:]))
    interval = max(max(1, min(p.each, p.times)) * p.cycles for p in planned)
    assumed = tuple(dict.fromkeys(a for p in planned for a in p.assumed))
    state = STATE_BYTES * shape.width
    return OnWafers(wafer, system, tuple(planned), count, dense, regions, interval, state, True, assumed)


def _held_by_layer(piece: Piece, request: Request, context: int) -> float:
    graph = compile_model(piece.model, replace(request, capacity=context)).graph
    return _resident(graph) / piece.inside


def _in_row(piece: Piece, shape: Shape, request: Request, among: tuple[int, tuple[int, int]]) -> Planned:
    """A layer as it is among so many on a wafer; where that has no plan, among fewer, at last by itself.

    among: layers on the wafer, and what lies before and behind them.
    """
    wafer, (count, ends) = request.machine(), among
    # Two that nearly fill a wafer have had no plan so far, and to look for one takes half a minute.
    for on_one in sorted({count if count > 2 else 1, max(1, count // 2)}, reverse=True):
        own = piece if on_one > 1 else _fewer(piece, shape, request.capacity or 1, FEW)
        row = Row(own.inside, on_one, ends)
        try:
            plan = plan_in_row(compile_model(own.model, request).graph, row, wafer, Stopwatch())
        except DoesNotFit:
            continue
        return _stretch(own, plan, layers_on(plan, row, wafer))
    alone = _fewer(piece, shape, request.capacity or 1, 1)
    return _stretch(alone, compile_model(alone.model, request, until="plan").plan, 1)


def _fewer(piece: Piece, shape: Shape, context: int, most: int) -> Piece:
    """The piece with fewer layers in it."""
    return next(p for p in pieces(shape, context, most) if p.name == piece.name)


def _stretch(piece: Piece, plan: Plan, each: int) -> Planned:
    """A layer among others of its kind as they are planned, what leads to the first of them and from the last
    one once; or all of a plan that is of one. each: layers on a region; of a layer alone on one the hand-over
    is part.
    """
    *rows, total = path_rows(plan, simulate(plan))
    whole = [r for r in rows if r["part"].startswith("layer ")]
    found = layers_of(plan.graph, piece.inside)
    row, cycles = total, float(total["cycles"]) / piece.inside
    if found is not None and len(whole) == found.count:
        row = min(whole[1:], key=lambda r: r["cycles"])
        cycles = float(row["cycles"])
    once = max(0.0, float(total["cycles"]) - piece.inside * cycles)
    if piece.times == 1:
        once, cycles = 0.0, float(total["cycles"])
    f = figures(plan, link_bytes(plan))
    return Planned(
        piece.name,
        piece.times,
        cycles,
        cycles * f.cycles_at_f32 / f.cycles,
        _shares(row),
        max(r.columns * r.rows for r in plan.regions),
        _resident(plan.graph) / piece.inside,
        once,
        f.assumed,
        each,
    )


def _resident(graph: Graph) -> int:
    return sum(graph.tensors[t].bytes for t in graph.resident)


def _ends(graph: Graph) -> tuple[int, int]:
    """Bytes of the table and of the last product: what the first node that has any keeps, and the rest."""
    first = next((n for n in graph.nodes if graph.resident & {*n.inputs}), None)
    kept = graph.resident & {*first.inputs} if first is not None else ()
    before = sum(graph.tensors[t].bytes for t in kept)
    return before, _resident(graph) - before


def _shares(row: dict[str, float]) -> tuple[float, float, float]:
    parts = [float(row[k]) for k in KINDS]
    total = sum(parts) or 1.0
    return parts[0] / total, parts[1] / total, parts[2] / total
