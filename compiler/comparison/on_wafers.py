"""What a token takes on wafers: a plan of the whole model, or an estimate from plans of its distinct layers.

The estimate, of a model of any size:

    layers          a plan of two of each kind, half of it: what goes in and comes out is in it once
    hand-overs      from one region to the next, as many as there are regions, less one
    crossings       from one wafer to the next: edge, network, bytes over the link, edge

A region holds as many layers as a share `fill` of its memory takes; as many requests are in flight as there
are regions, each behind the other, and the region with the most layers says how often a token comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...ir.graph import Graph
from ...placement.cost.timing import simulate
from ...placement.machine.wafer import Wafer
from ..errors import DoesNotFit
from ..islands.island import System
from ..pipeline import compile_model
from ..request import Request, Weights
from ..shapes.shape import Shape
from ..shapes.sizes import BITS, held, wafers_needed
from ..show.critical_parts import path_rows
from .graphs import Piece, pieces

KINDS = ("fabric", "waiting", "compute")
ALIKE = 2  # layers of a kind that are planned together where they fit
BITS_OF = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "int8": BITS[8], "int4": BITS[4]}
STATE_BYTES = 4  # of an element of the state that goes from wafer to wafer


@dataclass(frozen=True)
class Planned:
    """A stretch of a call: its cycles once, by what they go to on the critical path; it comes `times` over.

    cores: of its region. bytes: that stay on them for it, once. slow: its cycles where products of 16-bit
    weights take as long as those of f32.
    """

    name: str
    times: int
    cycles: float
    slow: float
    shares: tuple[float, float, float]
    cores: int
    bytes: float


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
        own = sum(p.cycles * p.times for p in self.stretches)
        return own + (self.regions - 1) * self.system.hand_over if self.estimate else own

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
            k: sum(p.shares[i] * p.cycles * p.times for p in self.stretches) / hz for i, k in enumerate(KINDS)
        }
        out["hand-overs"] = (self.cycles - sum(p.cycles * p.times for p in self.stretches)) / hz
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
    made = compile_model(model, request, until="plan")
    entry = [*made.plans][-1]
    plan, f = made.plans[entry], made.figures_of(entry)
    total = path_rows(plan, simulate(plan))[-1]
    cores, held_bytes = f.cores_used, float(plan.sram().sum())
    planned = Planned(entry, 1, f.cycles, f.cycles_at_f32, _shares(total), cores, held_bytes)
    need = [wafers_needed(held_bytes, made.wafer, fill) for fill in (system.fill, 0.9)]
    on = OnWafers(made.wafer, system, (planned,), 1, need[1], 1, f.cycles, 0.0, False, f.assumed)
    return made.graphs[entry], on


def estimate(shape: Shape, wafer: Wafer, system: System, weights: Weights, context: int) -> OnWafers:
    """A shape on as many wafers as it needs. Raises DoesNotFit where a layer alone needs more than one."""
    bits = BITS_OF[weights]
    planned: list[Planned] = []
    assumed: tuple[str, ...] = ()
    for piece in pieces(shape, context, ALIKE):
        made, names = _planned(piece, shape, wafer, weights, context)
        planned.append(made)
        assumed = assumed or names
    need = held(shape, bits, None, context)
    count, dense = (wafers_needed(need, wafer, fill) for fill in (system.fill, 0.9))
    layers = [p for p in planned if p.name != planned[0].name]
    regions, interval = 1, max(p.cycles for p in planned)
    for p in layers:
        fit = max(1, int(system.fill * p.cores * wafer.sram_bytes // max(1.0, p.bytes)))
        used = math.ceil(p.times / fit)
        regions += used
        interval = max(interval, math.ceil(p.times / used) * p.cycles)
    return OnWafers(
        wafer,
        system,
        tuple(planned),
        count,
        dense,
        regions,
        interval,
        STATE_BYTES * shape.width,
        True,
        assumed,
    )


def _planned(
    piece: Piece, shape: Shape, wafer: Wafer, weights: Weights, context: int
) -> tuple[Planned, tuple[str, ...]]:
    """A stretch as its part of a plan of several of its kind, if they fit; and what the plan assumes."""
    request = Request(wafer=wafer, weights=weights, no_weights=True, until="plan")
    request = replace(request, capacity=context if piece.layer else None)
    try:
        made = compile_model(piece.model, request)
    except DoesNotFit:
        if piece.inside == 1:
            raise
        alone = next(p for p in pieces(shape, context) if p.name == piece.name)
        return _planned(alone, shape, wafer, weights, context)
    plan, f = made.plan, made.figures
    rows = path_rows(plan, made.timing)
    row = rows[-1]
    cycles = float(row["cycles"]) / piece.inside
    graph = made.graph
    resident = sum(graph.tensors[t].bytes for t in graph.resident) / piece.inside
    cores = sum(r.columns * r.rows for r in plan.regions)
    slow = cycles * f.cycles_at_f32 / f.cycles
    return Planned(piece.name, piece.times, cycles, slow, _shares(row), cores, resident), f.assumed


def _shares(row: dict[str, float]) -> tuple[float, float, float]:
    parts = [float(row[k]) for k in KINDS]
    total = sum(parts) or 1.0
    return parts[0] / total, parts[1] / total, parts[2] / total
