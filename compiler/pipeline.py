"""The whole story: model -> graph -> simplified graph -> plan -> program."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ..codegen import artifact
from ..ir.absent import ValuesNeeded
from ..ir.graph import Graph
from ..ir.op import Array
from ..placement import planner, route, written
from ..placement.check import IllegalPlan
from ..placement.plan import Plan
from ..placement.timing import Timing, link_bytes, simulate
from ..placement.wafer import Wafer, WaferError
from ..placement.wafer import load as load_wafer
from ..runtime.load import entries, prepare
from ..runtime.program import Program
from . import plan_cache
from .errors import DoesNotFit, InvalidInput, UnsupportedModel, UsageError, quoted
from .figures import Figures
from .fuse import fuse_elementwise
from .importer import import_model
from .load import digest
from .passes import simplify
from .show import figures
from .weights import narrow_weights, rounded_activations

Until = Literal["graph", "plan", "program"]
Report = Callable[[str, float], None]
Timed = Callable[[str, Callable[[], Any]], Any]  # (phase, its work) -> what the work gives


class Compiled:
    """A compiled model: its graph, plan, predicted timing, and the program, made when first needed."""

    def __init__(
        self,
        graph: Graph,
        plan: Plan | None,
        manifest: Mapping[str, Any],
        phases: Mapping[str, str],
        seconds: dict[str, float],
    ) -> None:
        self.graph, self._plan, self.manifest = graph, plan, manifest
        self.phases, self.seconds = phases, seconds

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            raise UsageError("compiled to a graph only; there is no plan")
        return self._plan

    @cached_property
    def timing(self) -> Timing:
        return simulate(self.plan)

    @cached_property
    def figures(self) -> Figures:
        """The totals of one call: cores, tasks, cycles, bytes."""
        return figures(self.plan, link_bytes(self.plan))

    @cached_property
    def program(self) -> Program:
        return prepare(self.plan)

    def run(self, inputs: Mapping[str, Any], threads: int | None = None) -> dict[str, Array]:
        """Outputs by name for inputs by name; see `runtime.program.Program.run`."""
        return self.program.run(inputs, threads)

    def reset(self) -> None:
        """Sets all states to zero."""
        self.program.reset()

    def placement(self) -> dict[str, Any]:
        """What placement.json holds."""
        return written.write(self.plan)

    def save(
        self, path: str | Path, until: Until = "program", beside: Mapping[str, bytes] | None = None
    ) -> None:
        """Writes the artifact: a program, or with `until="plan"` a plan without weights and kernels.

        beside: more entries, which a run does not need.
        """
        start = time.perf_counter()
        parts: dict[str, bytes | Array] = {**(beside or {}), **artifact.describe(self.plan, self.phases)}
        if until == "program":
            parts |= artifact.weights(self.plan) | entries(self.plan)
        artifact.write(path, {**self.manifest, "figures": asdict(self.figures)}, parts)
        self.seconds["codegen"] = time.perf_counter() - start


def compile_model(
    model: str | Path | bytes,
    *,
    wafer: str | Wafer = "wse3",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    optimize: str = "latency",
    seed: int = 0,
    states: Sequence[tuple[str, str]] = (),
    capacity: int | None = None,
    constraints: str | Path | None = None,
    level: int = 2,
    weights: Literal["f32", "f16", "bf16"] = "f32",
    activations: Literal["f32", "bf16"] | None = None,
    no_weights: bool = False,
    until: Until = "program",
    report: Report | None = None,
) -> Compiled:
    """Compiles an ONNX model for a wafer.

    dims binds symbolic dimensions, shapes whole inputs; states are (input, output) pairs that stay on
    the wafer. level 0 skips the graph's simplification. weights: what the constants of products and
    look-up tables are stored as; sums are f32 all the same. activations: what is multiplied with bf16 weights
    is rounded to bf16 unless this is "f32". no_weights: external data is not looked at, the plan can be shown
    but not run. Raises the errors of `compiler.errors`.
    """
    if no_weights and until == "program":
        raise UsageError("--no-weights makes a plan (--compile-to plan), no program")
    say = report or _silent
    seconds: dict[str, float] = {}
    phases: dict[str, str] = {}

    def timed(phase: str, work: Callable[[], Any]) -> Any:
        say(phase, 0.0)
        start = time.perf_counter()
        out = work()
        seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start
        return out

    machine, factors = _wafer(wafer), rounded_activations(weights, activations)
    graph: Graph = timed(
        "import",
        lambda: import_model(
            model, dims or {}, shapes or {}, tuple(states), capacity=capacity, weights=not no_weights
        ),
    )
    phases["import"] = str(graph)
    if level > 0:
        graph = timed("simplify", lambda: _simplified(graph))
        phases["simplify"] = str(graph)
    if weights != "f32":
        graph = timed("weights", lambda: narrow_weights(graph, weights, factors))
        if level > 0:
            graph = fuse_elementwise(graph)
        phases["weights"] = str(graph)
    plan: Plan | None = None
    if until != "graph":
        if constraints is None:
            plan = _best_plan(graph, machine, optimize, seed, timed, say)
        else:
            plan = _constrained_plan(graph, machine, constraints, timed)
        phases["plan"] = str(plan)
    manifest = {
        "waferc": version("waferc"),
        "model": digest(model, weights=not no_weights),
        "dims": dict(sorted((dims or {}).items())),
        "shapes": {k: list(v) for k, v in sorted((shapes or {}).items())},
        "states": [list(s) for s in graph.states],
        "capacity": capacity,
        "wafer": machine.name,
        "optimize": optimize,
        "seed": seed,
        "level": level,
        "weights": weights,
        "no_weights": no_weights,
        "activations": factors,
    }
    return Compiled(graph, plan, manifest, phases, seconds)


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


def _best_plan(graph: Graph, wafer: Wafer, optimize: str, seed: int, timed: Timed, say: Report) -> Plan:
    """The plan that the search finds, or found when the same was compiled before; judged."""
    name = timed("plan", lambda: plan_cache.name_of(graph, wafer, optimize, seed))
    kept: Plan | None = timed("plan", lambda: plan_cache.kept_plan(name, graph, wafer))
    if kept is not None:
        try:
            timed("check", kept.check)
            return kept
        except IllegalPlan:
            pass  # as good as none
    try:
        made: Plan = timed("plan", lambda: planner.plan(graph, wafer, optimize, seed, report=say))
    except (planner.DoesNotFit, route.Unroutable) as e:
        raise _refusal(e) from None
    timed("check", made.check)
    plan_cache.keep_plan(name, made)
    return made


def _constrained_plan(graph: Graph, wafer: Wafer, constraints: str | Path, timed: Timed) -> Plan:
    """The plan that a placement file describes; judged."""
    where = quoted(str(constraints))
    try:
        data = json.loads(Path(constraints).read_text("utf-8"))
    except ValueError as e:
        raise InvalidInput(f"{where} is not JSON: {e}") from None

    def build() -> Plan:
        made = route.routed(written.read(data, graph, wafer, planner.chooser(graph, wafer)))
        if int(made.sram().max(initial=0)) > wafer.sram_bytes:
            raise planner.DoesNotFit(planner.explain(made), made)
        return made

    try:
        made: Plan = timed("plan", build)
        timed("check", made.check)
        return made
    except (planner.DoesNotFit, route.Unroutable) as e:
        raise _refusal(e) from None
    except (written.PlacementError, IllegalPlan) as e:
        raise InvalidInput(f"{where}: {e}") from None


def _refusal(e: planner.DoesNotFit | route.Unroutable) -> DoesNotFit:
    """The error of a model that has no plan, with the nearest attempt."""
    if isinstance(e, route.Unroutable):
        return DoesNotFit(f"{e}; try another --wafer")
    error = DoesNotFit(str(e))
    error.plan = e.plan
    return error
