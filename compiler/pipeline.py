"""The whole story: model -> graph -> simplified graph -> plan -> program."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ..codegen.artifact import artifact
from ..ir.absent import ValuesNeeded
from ..ir.entries import agreed
from ..ir.graph import Graph
from ..placement.machine.presets import load as load_wafer
from ..placement.machine.wafer import Wafer, WaferError
from ..placement.plan.plan import Plan
from .compiled import Compiled
from .errors import UnsupportedModel, UnsupportedOperator, UsageError
from .frontend.inputs import Binding
from .frontend.load import digest
from .importer import Imported, import_entries
from .passes.fuse import fuse_elementwise
from .passes.narrow_weights import narrow_weights, rounded_activations
from .passes.simplify import simplify
from .planning import best_plans, constrained_plan
from .request import Report, Until


def compile_model(
    model: str | Path | bytes,
    *,
    wafer: str | Wafer = "wse3",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, Any] | None = None,
    optimize: str = "latency",
    states: Sequence[tuple[str, str]] = (),
    capacity: int | None = None,
    entries: Mapping[str, Mapping[str, int]] | None = None,
    constraints: str | Path | None = None,
    level: int = 2,
    weights: Literal["f32", "f16", "bf16"] = "f32",
    activations: Literal["f32", "bf16"] | None = None,
    no_weights: bool = False,
    no_host: bool = False,
    until: Until = "program",
    report: Report | None = None,
) -> Compiled:
    """Compiles an ONNX model for a wafer.

    dims binds symbolic dimensions, shapes whole inputs. values makes inputs constants, which a run may give
    only as they are: arrays of the input's type, or Python numbers and lists of them. states are (input,
    output) pairs that stay on the wafer, capacity is that of the caches among them, which grow in the model.
    entries: by name, what they bind besides `dims`; they share weights and states. level 0 skips the graph's
    simplification. weights: what the constants of products and look-up tables are stored as; sums are f32
    all the same. activations: what is multiplied with bf16 weights is rounded to bf16 unless this is "f32".
    no_weights: external data is not looked at, the plan can be shown but not run. no_host: refuses a model
    with operators that run on the host. Raises the errors of `compiler.errors`.
    """
    if no_weights and until == "program":
        raise UsageError("--no-weights makes a plan (--compile-to plan), no program")
    say = report or _silent
    seconds: dict[str, float] = {}

    def timed(phase: str, work: Callable[[], Any]) -> Any:
        say(phase, 0.0)
        start = time.perf_counter()
        out = work()
        seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start
        return out

    machine, factors = _wafer(wafer), rounded_activations(weights, activations)
    wanted = {
        name: Binding({**(dims or {}), **own}, shapes or {}, values or {})
        for name, own in (entries or {artifact.MAIN: {}}).items()
    }
    imported: Imported = timed(
        "import",
        lambda: import_entries(model, wanted, tuple(states), capacity, weights=not no_weights),
    )
    if no_host and imported.play is not None:
        raise UnsupportedOperator(imported.hosts, "--no-host refuses what runs on the host")
    graphs = dict(imported.graphs)
    phases: dict[str, dict[str, str]] = {name: {} for name in graphs}

    def each(phase: str, change: Callable[[Graph], Graph]) -> None:
        for name, graph in graphs.items():
            graphs[name] = timed(phase, lambda graph=graph: change(graph))
            phases[name][phase] = str(graphs[name])

    def narrowed(graph: Graph) -> Graph:
        narrow = narrow_weights(graph, weights, factors)
        return fuse_elementwise(narrow) if level > 0 else narrow

    each("import", lambda graph: graph)
    if level > 0:
        each("simplify", _simplified)
    if weights != "f32":
        each("weights", narrowed)
    # Of stages the one with most to do: the others must do with its region.
    staged = imported.play is not None
    graphs = agreed(dict(sorted(graphs.items(), key=lambda item: _iterations(item[1]), reverse=staged)))
    plans: dict[str, Plan] = {}
    if until != "graph" and graphs:
        if constraints is None:
            plans = best_plans(graphs, machine, optimize, timed, say)
        elif len(graphs) > 1:
            raise UsageError("--constraints is for a program with one entry")
        else:
            plans = {name: constrained_plan(g, machine, constraints, timed) for name, g in graphs.items()}
        for name, plan in plans.items():
            phases[name]["plan"] = str(plan)
    manifest = {
        "waferc": version("waferc"),
        "model": digest(model, weights=not no_weights),
        "dims": dict(sorted((dims or {}).items())),
        "shapes": {k: list(v) for k, v in sorted((shapes or {}).items())},
        "values": {k: v.tolist() for k, v in sorted(imported.values.items())},
        "states": [list(s) for s in next((g.states for g in graphs.values()), ())],
        "capacity": capacity,
        "entry_dims": {name: dict(sorted(own.items())) for name, own in (entries or {}).items()},
        "wafer": machine.name,
        "optimize": optimize,
        "level": level,
        "weights": weights,
        "no_weights": no_weights,
        "activations": factors,
        "host": [[r.op_type, r.domain, r.count] for r in imported.hosts],
    }
    return Compiled(graphs, plans, manifest, phases, seconds, imported, machine)


def _iterations(graph: Graph) -> int:
    """How much there is to do: the entry with the least is planned first, for its latency."""
    return sum(math.prod(n for _, n in node.op.axes) for node in graph.nodes)


def _simplified(graph: Graph) -> Graph:
    try:
        return simplify(graph)
    except ValuesNeeded as e:
        raise UnsupportedModel(str(e)) from None


def _silent(phase: str, share: float) -> None:
    """Reports nothing."""


def _wafer(wafer: str | Wafer) -> Wafer:
    try:
        return load_wafer(wafer) if isinstance(wafer, str) else wafer
    except WaferError as e:
        raise UsageError(str(e)) from None
