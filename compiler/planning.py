"""Plans for a program's entries: searched for, or kept from an earlier compile, or written in a file; judged.

A kept plan is a placement: it says all that a search decides, so the plan built of it is the one that the
search found, to the byte. A search that found none keeps what it said, and its nearest attempt. An entry of
the cache is found by all that the search depends on: the graph without its weights' values, the wafer, the
objective, and the planner itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import ir, placement
from ..codegen.artifact.encode import encode, encode_graph
from ..ir.disk import read_regular
from ..ir.graph import Graph
from ..placement import planner
from ..placement.build import placement_file as written
from ..placement.build import routes as route
from ..placement.build.companions import Companions
from ..placement.build.detours import Unroutable
from ..placement.judge.entries import judge_entries
from ..placement.judge.judge import IllegalPlan, judge
from ..placement.machine.wafer import Wafer
from ..placement.plan.plan import Plan
from ..placement.search.explain import explain
from ..placement.search.layers_in_row import Row, in_row
from ..placement.search.search import Search
from ..placement.search.second_entry import plan_beside
from ..runtime.cache import read_entry, sources_in, write_entry
from .errors import DoesNotFit, InvalidInput, UsageError, quoted, shown
from .request import Request
from .stopwatch import Stopwatch, tell

MOST_BYTES = 1 << 30  # of a placement file


def name_of(graph: Graph, wafer: Wafer, objective: str, others: Sequence[Graph] = (), first: str = "") -> str:
    """The entry of the plan that a search for these would find.

    others: graphs of the program's other entries. first: the name of the first one's plan, for another's.
    """
    graphs = [encode_graph(g) for g in (graph, *others)]
    asked = json.dumps([graphs, encode(wafer), objective, first, np.__version__])
    planner = sources_in(*ir.__path__, *placement.__path__)
    return hashlib.sha256((asked + planner).encode()).hexdigest() + ".placement"


Build = Callable[[Any], Plan]
"""The plan that a placement describes, without routes. Raises ValueError for what describes none."""

REFUSED, NEAREST = "refused", "nearest"  # of an entry that holds no placement


def kept_plan(name: str, build: Build) -> Plan | None:
    """The plan of an entry, not yet judged; None where there is none that can be built.

    Raises DoesNotFit if the entry says that the search found none.
    """
    held = read_entry(name)
    if held is None:
        return None
    try:
        data = json.loads(held)
        if REFUSED not in data:
            return route.routed(build(data))
        error = DoesNotFit(data[REFUSED])
        error.plan = None if data[NEAREST] is None else build(data[NEAREST])
    except (ValueError, TypeError, KeyError):  # no JSON, or nothing that anything can be built of
        return None
    raise error


def keep_plan(name: str, plan: Plan) -> None:
    """Writes an entry. A cache that cannot be written is no error."""
    _keep(name, written.write(plan))


def keep_tried(name: str, text: str) -> None:
    """Writes what the search for an entry's plan attempted."""
    write_entry(_tried(name), text.encode())


def kept_tried(name: str) -> str:
    """What it attempted, one plan a line; "" where nobody knows any more."""
    return (read_entry(_tried(name)) or b"").decode(errors="replace")


def _tried(name: str) -> str:
    return name.removesuffix(".placement") + ".search"


def _keep(name: str, held: object) -> None:
    write_entry(name, json.dumps(held, separators=(",", ":")).encode())


Tried = Callable[[str, str], None]
"""(entry, what a search for its plan attempted, one plan a line)"""


def plans_for(
    graphs: Mapping[str, Graph], request: Request, watch: Stopwatch, tried: Tried = lambda entry, text: None
) -> dict[str, Plan]:
    """A legal plan for each graph: as the request's constraints say, or as a search finds them.

    Raises DoesNotFit; UsageError and InvalidInput for constraints of something else.
    """
    wafer = request.machine()
    if not graphs:
        return {}
    if request.constraints is None:
        return best_plans(graphs, wafer, request.optimize, watch, tried)
    if len(graphs) > 1:
        raise UsageError("--constraints is for a program with one entry")
    return {name: constrained_plan(g, wafer, request.constraints, watch) for name, g in graphs.items()}


def best_plans(
    graphs: Mapping[str, Graph],
    wafer: Wafer,
    optimize: str,
    watch: Stopwatch,
    tried: Tried = lambda entry, text: None,
) -> dict[str, Plan]:
    """The plan that the search finds for the first entry, and those of the others beside it; judged."""
    (first, graph), *rest = graphs.items()
    companions = Companions(tuple(other for _, other in rest))
    name = watch.timed("plan", lambda: name_of(graph, wafer, optimize, companions.graphs))

    def search() -> Plan:
        made = Search(graph, wafer, optimize, companions, report=tell)
        planner.run(made)
        keep_tried(name, str(made))
        return made.result()

    try:
        plan = _kept_or(name, lambda data: written.read(data, graph, wafer, companions), search, watch)
    finally:
        tried(first, kept_tried(name))
    plans = {first: plan}
    for entry, other in rest:
        between, later = tuple(plans.values())[1:], len(graphs) - len(plans) - 1
        after = Companions(first=plan, between=between)
        # the plans between follow from the names so far
        name = watch.timed("plan", lambda g=other, so_far=name: name_of(g, wafer, optimize, first=so_far))
        plans[entry] = _kept_or(
            name,
            lambda data, g=other, after=after: written.read(data, g, wafer, after),
            lambda g=other, between=between, later=later: plan_beside(g, plan, between, later),
            watch,
        )
    watch.timed("check", lambda: judge_entries(plans))
    return plans


def plan_in_row(graph: Graph, row: Row, wafer: Wafer, watch: Stopwatch) -> Plan:
    """The plan of a few of a larger model's layers, as `placement.search.layers_in_row` makes it; judged.

    Raises DoesNotFit.
    """
    # A kept plan is read back on the wafer that it was made for, which is as high as its layers need.
    name = watch.timed("plan", lambda: name_of(graph, wafer, "latency", first=repr(row)))

    def build(data: Any) -> Plan:
        high = max(r["y"] + r["rows"] for r in data["regions"])
        return written.read(data, graph, replace(wafer, height=max(wafer.height, high)))

    return _kept_or(name, build, lambda: in_row(graph, row, wafer, report=tell).result(), watch)


def _kept_or(name: str, build: Build, search: Callable[[], Plan], watch: Stopwatch) -> Plan:
    """The plan kept under a name, or what a search finds; judged. Raises DoesNotFit, kept or found."""
    known = watch.timed("plan", lambda: kept_plan(name, build))
    if known is not None:
        try:
            watch.timed("check", lambda: judge(known, tell))
            return known
        except IllegalPlan:
            pass  # as good as none
    try:
        made = watch.timed("plan", search)
    except (planner.DoesNotFit, Unroutable) as e:
        error = _refusal(e)
        _keep(name, {REFUSED: str(error), NEAREST: error.plan and written.write(error.plan)})
        raise error from None
    watch.timed("check", lambda: judge(made, tell))
    keep_plan(name, made)
    return made


def constrained_plan(graph: Graph, wafer: Wafer, constraints: str | Path, watch: Stopwatch) -> Plan:
    """The plan that a placement file describes; judged."""
    where = quoted(str(constraints))
    try:
        data = json.loads(read_regular(constraints, MOST_BYTES).decode())
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f"{where} is not JSON: {e}") from None

    def build() -> Plan:
        made = route.routed(written.read(data, graph, wafer, choose=planner.chooser(graph, wafer)))
        if int(made.sram().max(initial=0)) > wafer.sram_bytes:
            raise planner.DoesNotFit(explain(made), made)
        return made

    try:
        made = watch.timed("plan", build)
        watch.timed("check", lambda: judge(made))
        return made
    except (planner.DoesNotFit, Unroutable) as e:
        raise _refusal(e) from None
    except (written.PlacementError, IllegalPlan) as e:
        raise InvalidInput(f"{where}: {shown(str(e), 500)}") from None


def _refusal(e: planner.DoesNotFit | Unroutable) -> DoesNotFit:
    """The error of a model that has no plan, with the nearest attempt."""
    if isinstance(e, Unroutable):
        return DoesNotFit(f"{e}; try another --wafer")
    error = DoesNotFit(str(e))
    error.plan = e.plan
    return error
