"""The reports of programs, of fresh compilations and of those that failed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...codegen.artifact.artifact import SEARCH
from ..errors import DoesNotFit, shown
from ..report.page import Entry, Fact, Page, made_now
from ..stopwatch import tell

if TYPE_CHECKING:
    from ...placement.cost.timing import Timing
    from ...placement.plan.plan import Plan
    from ..compiled import Compiled
    from ..request import Request
    from ..show.figures import Figures
    from .saved import Saved


def page_of_saved(saved: Saved, ends: list[Fact]) -> Page:
    """All entries of a program or plan, the chosen one first. ends: what is told where there is none."""
    entries: list[Entry] = []
    for name in sorted(saved.entries, key=lambda name: name != saved.entry):
        own, done = saved.of(name), len(entries) / len(saved.entries)
        tell(f"{name}, the plan", done)
        plan = own.plan
        tell(f"{name}, a call", done + 0.4 / len(saved.entries))
        timing = own.timing
        tell(f"{name}, what would help", done + 0.6 / len(saved.entries))
        entry = _entry(name, plan, timing, own.figures, own.dims)
        entries.append(replace(entry, attempts=own.attempts))
    notes = [("on the host", saved.host_line)] if saved.hosts else []
    title = entries[0].plan.graph.name if entries else Path(saved.path).name
    return _page(title, saved, entries, notes if entries else [*ends, *notes], saved.manifest)


def page_of_compiled(compiled: Compiled, model: str) -> Page:
    from ...placement.cost.timing import simulate

    entries = [
        replace(
            _entry(name, plan, simulate(plan), compiled.figures_of(name), compiled.dims_of(name)),
            attempts=compiled.phases[name].get(SEARCH, ""),
        )
        for name, plan in compiled.plans.items()
    ]
    hosts = "; ".join(shown(str(r), 200) for r in compiled.hosts)
    notes = [("on the host", hosts)] if hosts else []
    title = entries[0].plan.graph.name if entries else Path(model).name
    return _page(title, compiled, entries, notes, compiled.manifest)


def _entry(name: str, plan: Plan, timing: Timing, figures: Figures, dims: Mapping[str, int]) -> Entry:
    from ..show.guidance import guidance

    return Entry(name, plan, timing, figures, guidance(plan, timing, dims))


def page_of_failure(request: Request, model: str, e: DoesNotFit) -> Page:
    """The nearest plan, or the empty wafer where there is none."""
    from ...placement.cost.timing import simulate
    from ..show.figures import figures

    entries: list[Entry] = []
    title, machine = Path(model).name, request.machine()
    if e.plan is not None:
        timing = simulate(e.plan)
        entries.append(Entry("main", e.plan, timing, figures(e.plan, timing.links), attempts=e.attempts))
        title, machine = e.plan.graph.name, e.plan.wafer
    provenance = [("model", shown(model, 200)), *made_now(_command())]
    return Page(f"{title} on {machine.name}", machine, entries, [("does not fit", str(e))], provenance)


def _page(
    title: str, of: Saved | Compiled, entries: list[Entry], notes: list[Fact], manifest: Mapping[str, Any]
) -> Page:
    provenance: list[Fact] = [
        ("waferc", str(manifest.get("waferc", "unknown"))),
        ("model's SHA-256", str(manifest.get("model", "unknown"))),
        ("compiled with", _options(manifest)),
        *made_now(_command()),
    ]
    return Page(f"{title} on {of.wafer.name}", of.wafer, entries, notes, provenance)


KEPT = ("wafer", "optimize", "weights", "activations", "seed", "capacity", "dims", "shapes", "entry_dims")


def _options(manifest: Mapping[str, Any]) -> str:
    """What the manifest says of the compilation, as `name value`."""
    told = [(k, manifest[k]) for k in KEPT if manifest.get(k)]
    return ", ".join(f"{k} {_words(v)}" for k, v in told)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{k}={_words(v)}" for k, v in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)


def _command() -> str:
    """The command line that writes the page."""
    return shown(shlex.join(["waferc", *sys.argv[1:]]), 1000)
