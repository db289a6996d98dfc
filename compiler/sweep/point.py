"""One point of a study: what it is found by, and its row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from ...ir.graph import Graph
from ...placement.machine.wafer import Wafer
from ...runtime.cache import sources_in
from .. import comparison
from ..comparison.graphs import pieces, verifying
from ..comparison.on_wafers import OnWafers, estimate, planned_whole
from ..errors import DoesNotFit
from ..islands.island import builtin
from ..pipeline import compile_model
from ..planning import name_of
from ..request import Request, Weights
from ..shapes.shape import Shape, shape
from .study import OPTIONS, Study, Value, wafer_of

Row = dict[str, Any]
FIGURES = (
    *("tokens_s", "many_tokens_s", "cycles", "wafers", "fabric", "waiting", "compute", "fill", "sram_gb"),
    *("joules", "dollars", "estimate", "reason"),
)
HOUR = 3600.0


@dataclass(frozen=True)
class Point:
    """name: of its entry in the store. of: a shape, or the graph of a model. values: its parameters."""

    name: str
    model: str
    values: Mapping[str, Value]
    wafer: Wafer
    of: Shape | Graph

    def option(self, name: str) -> Any:
        return self.values.get(name, OPTIONS[name])


def points_of(study: Study) -> list[Point]:
    """All points, in the study's order. Raises the errors of a model that is none."""
    return [_point(study, model, values) for model, values in study.combinations()]


def _point(study: Study, model: str, values: Mapping[str, Value]) -> Point:
    options = {k: values.get(k, v) for k, v in OPTIONS.items()}
    wafer = wafer_of(study.base, values)
    path = str(study.folder / model) if model.endswith((".onnx", ".toml")) else model
    of, graphs = _graphs(path, options["weights"], options["context"], options["tokens"])
    system = builtin().system(wafer)
    told = json.dumps([model, dict(sorted(options.items())), repr(system), sources_in(*comparison.__path__)])
    name = name_of(graphs[0], wafer, "latency", graphs[1:], told).removesuffix(".placement")
    return Point(f"{name}.point", model, values, wafer, of)


@cache
def _graphs(model: str, weights: Any, context: Any, tokens: Any) -> tuple[Shape | Graph, tuple[Graph, ...]]:
    """What is planned of a model: itself, or a shape's distinct layers, by which a point is found."""
    request = Request(weights=cast(Weights, weights), no_weights=True, until="graph")
    if model.endswith(".onnx"):
        made = compile_model(Path(model), replace(request, capacity=context))
        graph = made.graphs[[*made.graphs][-1]]
        return graph, (graph,)
    of = shape(model)
    if tokens > 1:
        graph = compile_model(verifying(of, context, tokens), request).graph
        return graph, (graph,)
    found = pieces(of, context, 1)
    return of, tuple(
        compile_model(p.model, replace(request, capacity=context if p.layer else None)).graph for p in found
    )


def evaluate(point: Point) -> Row:
    """The point's row: its figures, or the reason why there are none."""
    try:
        of = _priced(point)
    except DoesNotFit as e:
        return {"model": point.model, **point.values, **dict.fromkeys(FIGURES), "reason": str(e)}
    a = point.option("acceptance")
    accepted = sum(a**i for i in range(point.option("tokens")))
    one, many = accepted / of.seconds(), accepted * of.throughput
    held = sum(p.bytes * p.times for p in of.stretches)
    cores = point.wafer.memory * of.wafers
    shares = of.shares
    figures: Row = {
        "tokens_s": round(one, 3),
        "many_tokens_s": round(max(one, many), 3),
        "cycles": round(of.cycles),
        "wafers": of.wafers,
        **{k: round(shares[k], 4) for k in ("fabric", "waiting", "compute")},
        "fill": round(held / cores, 4),
        "sram_gb": round(cores / 1e9, 3),
        "joules": round(of.wafers * of.system.watts / one, 4),
        "dollars": round(of.wafers * of.system.dollars / HOUR / one * 1e6, 4),
        "estimate": of.estimate,
        "reason": "",
    }
    return {"model": point.model, **point.values, **figures}


def _priced(point: Point) -> OnWafers:
    system = builtin().system(point.wafer)
    if isinstance(point.of, Graph):
        return planned_whole(point.of, point.wafer, system)
    return estimate(point.of, point.wafer, system, point.option("weights"), point.option("context"))


def failed(point: Point, why: str) -> Row:
    """The row of a point that has no figures for another reason than its plan."""
    return {"model": point.model, **point.values, **dict.fromkeys(FIGURES), "reason": why}
