"""The whole story: model -> graph -> simplified graph -> plan -> program."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ..codegen import artifact
from ..ir.absent import ValuesNeeded
from ..ir.entries import agreed
from ..ir.graph import Graph
from ..ir.op import Array
from ..placement import planner, route, written
from ..placement.check import IllegalPlan
from ..placement.check_entries import judge_entries
from ..placement.plan import Plan
from ..placement.timing import Timing, link_bytes, simulate
from ..placement.wafer import Wafer, WaferError
from ..placement.wafer import load as load_wafer
from ..runtime.load import files, prepare
from ..runtime.program import Program, Staged
from ..runtime.saved_script import encode_play
from . import host, plan_cache
from .errors import DoesNotFit, InvalidInput, UnsupportedModel, UnsupportedOperator, UsageError, quoted
from .figures import Figures
from .fuse import fuse_elementwise
from .importer import Imported, import_entries
from .inputs import Binding
from .load import digest
from .passes import simplify
from .show import figures
from .weights import narrow_weights, rounded_activations

Until = Literal["graph", "plan", "program"]
Report = Callable[[str, float], None]
Timed = Callable[[str, Callable[[], Any]], Any]  # (phase, its work) -> what the work gives


class Compiled:
    """A compiled model: graphs, plans and predicted timing by entry, and the program, made when first needed.

    What is asked of one entry, and does not say of which, is asked of the first. values: of inputs that
    are constants. hosts: the operators that run on the host, and why.
    """

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        plans: Mapping[str, Plan],
        manifest: Mapping[str, Any],
        phases: Mapping[str, Mapping[str, str]],
        seconds: dict[str, float],
        imported: Imported,
        wafer: Wafer,
    ) -> None:
        self.graphs, self.plans, self.manifest, self.wafer = graphs, plans, manifest, wafer
        self.values, self.hosts, self._imported = imported.values, imported.hosts, imported
        self.phases, self.seconds = phases, seconds
        self._figures: dict[str, Figures] = {}

    @property
    def graph(self) -> Graph:
        return next(iter(self.graphs.values()))

    @property
    def plan(self) -> Plan:
        if not self.graphs:
            raise UsageError("nothing of the model runs on the wafer; there is no plan")
        if not self.plans:
            raise UsageError("compiled to a graph only; there is no plan")
        return next(iter(self.plans.values()))

    def figures_of(self, entry: str) -> Figures:
        """The totals of one call: cores, tasks, cycles, bytes."""
        if entry not in self._figures:
            self._figures[entry] = figures(self.plans[entry], link_bytes(self.plans[entry]))
        return self._figures[entry]

    @cached_property
    def timing(self) -> Timing:
        return simulate(self.plan)

    @property
    def figures(self) -> Figures:
        return self.figures_of(next(iter(self.plans)))

    @cached_property
    def program(self) -> Program:
        return self.prepared()

    def prepared(self, threads: int | None = None, guard: bool = False) -> Program:
        """The program anew; see `runtime.load.prepare`."""
        play, staged = self._imported.play, None
        if play is not None:
            staged = Staged(play, [host.operator(content) for content in self._imported.operators])
        return prepare(self.plans, threads, guard, self.values, staged)

    @property
    def runs_on(self) -> Literal["wafer", "host", "mixed"]:
        """Where a run takes place."""
        if self._imported.play is None:
            return "wafer"
        return "mixed" if self.graphs else "host"

    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]:
        """Outputs by name for inputs by name; see `runtime.program.Program.run`."""
        return self.program.run(inputs, threads, entry)

    def reset(self) -> None:
        """Sets all states to zero."""
        self.program.reset()

    def placement(self, entry: str | None = None) -> dict[str, Any]:
        """What an entry's placement.json holds."""
        return written.write(self.plan if entry is None else self.plans[entry])

    def save(
        self, path: str | Path, until: Until = "program", beside: Mapping[str, bytes] | None = None
    ) -> None:
        """Writes the artifact: a program, or with `until="plan"` a plan without weights and kernels.

        beside: more entries, which a run does not need.
        """
        start = time.perf_counter()
        described = artifact.describe(self.plans, self.phases, self.wafer)
        parts: dict[str, bytes | Array] = {**(beside or {}), **described}
        if (play := self._imported.play) is not None:
            parts |= encode_play(play)
            parts |= {f"host/{i}.onnx": content for i, content in enumerate(self._imported.operators)}
        if until == "program":
            parts |= artifact.weights(self.plans) | artifact.bound(self.values) | files(self.plans)
        totals = {name: asdict(self.figures_of(name)) for name in self.plans}
        artifact.write(path, {**self.manifest, "entries": list(self.plans), "figures": totals}, parts)
        self.seconds["codegen"] = time.perf_counter() - start


def compile_model(
    model: str | Path | bytes,
    *,
    wafer: str | Wafer = "wse3",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, Any] | None = None,
    optimize: str = "latency",
    seed: int = 0,
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
            plans = _best_plans(graphs, machine, optimize, seed, timed, say)
        elif len(graphs) > 1:
            raise UsageError("--constraints is for a program with one entry")
        else:
            plans = {name: _constrained_plan(g, machine, constraints, timed) for name, g in graphs.items()}
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
        "seed": seed,
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


def _best_plans(
    graphs: Mapping[str, Graph], wafer: Wafer, optimize: str, seed: int, timed: Timed, say: Report
) -> dict[str, Plan]:
    """The plan that the search finds for the first entry, and those of the others beside it; judged."""
    (first, graph), *rest = graphs.items()
    others = [other for _, other in rest]
    name = timed("plan", lambda: plan_cache.name_of(graph, wafer, optimize, seed, others))

    def search() -> Plan:
        return planner.plan(graph, wafer, optimize, seed, others=others, report=say)

    plan = _kept_or(name, lambda: plan_cache.kept_plan(name, graph, wafer, others), search, timed)
    plans = {first: plan}
    for entry, other in rest:
        own = timed("plan", lambda g=other: plan_cache.name_of(g, wafer, optimize, seed, beside=name))
        plans[entry] = _kept_or(
            own,
            lambda own=own, g=other: plan_cache.kept_plan(own, g, wafer, beside=plan),
            lambda g=other: planner.plan_beside(g, plan),
            timed,
        )
    timed("check", lambda: judge_entries(plans))
    return plans


def _kept_or(name: str, kept: Callable[[], Plan | None], search: Callable[[], Plan], timed: Timed) -> Plan:
    """The plan kept under a name, or what a search finds; judged."""
    known: Plan | None = timed("plan", kept)
    if known is not None:
        try:
            timed("check", known.check)
            return known
        except IllegalPlan:
            pass  # as good as none
    try:
        made: Plan = timed("plan", search)
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
