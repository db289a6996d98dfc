"""A compiled model: what the pipeline returns, runs and saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..codegen.artifact import artifact
from ..ir.graph import Graph
from ..ir.op import Array
from ..placement.build import placement_file as written
from ..placement.cost.links import link_bytes
from ..placement.cost.timing import Timing, simulate
from ..placement.machine.wafer import Wafer
from ..placement.plan.plan import Plan
from ..runtime.load import files, prepare
from ..runtime.ports import ports_of
from ..runtime.program import Program, Staged
from ..runtime.saved_script import encode_play
from .errors import ArtifactError, Refusal, UsageError, quoted
from .exports.folders import ModelFiles
from .importer import Imported
from .language.embedding import encoder_entries
from .language.entries import language_entries
from .request import Until
from .show.figures import Figures, figures
from .show.sheet import Asked, Sheet, sheet_of
from .stopwatch import Report, Stopwatch, silent, tell

if TYPE_CHECKING:
    from .show.plot import Figure

NOTEBOOK = 900  # pixels


@dataclass(frozen=True, eq=False, repr=False)
class Compiled:
    """A compiled model: graphs, plans and predicted timing by entry, and the program, made when first needed.

    What is asked of one entry, and does not say of which, is asked of the first. manifest: what the artifact
    says of itself. phases: by entry and phase, the text of what came of it. seconds: by phase. files: of the
    model. chosen: what was not asked for and is taken from the model, in words, "" for nothing.
    """

    wafer: Wafer
    imported: Imported
    graphs: Mapping[str, Graph]
    plans: Mapping[str, Plan]
    manifest: Mapping[str, Any]
    phases: Mapping[str, Mapping[str, str]]
    seconds: dict[str, float]
    files: ModelFiles
    chosen: str = ""
    _figures: dict[str, Figures] = field(default_factory=dict[str, Figures], init=False)

    def __repr__(self) -> str:
        model = f"{quoted(self.graph.name)}, " if self.graphs else ""
        upto = "planned" if self.plans else "graphs only"
        what = upto if self.graphs else "no graph"
        return (
            f"Compiled({model}{what}, entries {list(self.graphs)}, {self.wafer.name}, runs on {self.runs_on})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the totals, and how full the cores are."""
        from .show.drawing import svg
        from .show.heatmap import Style, compose
        from .show.rows import summary

        if not self.plans:
            return f"<pre>{escape(repr(self))}</pre>"
        left = "style='text-align:left'"
        rows = "".join(
            f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(text)}</td></tr>"
            for name, text in summary(self.plan, self.figures)
        )
        return f"<table>{rows}</table>{svg(compose(self.sheet(), Style(NOTEBOOK)))}"

    def sheet(self, *metrics: str, entry: str | None = None, **asked: Any) -> Sheet:
        """The numbers that `waferc heatmap` draws, of the metrics called so, by default "sram".

        asked: fields of `show.sheet.Asked`: nodes, step, tensor, layers, at, film, crop. Raises UsageError.
        """
        plan = self.plan if entry is None else self.plans[entry]
        timing = self.timing if entry is None else simulate(plan)
        return sheet_of(plan, timing, Asked(metrics or ("sram",), **asked))

    def plot(self, *metrics: str, entry: str | None = None, **asked: Any) -> Figure:
        """The same as a figure of matplotlib, which `pip install 'waferc[plot]'` brings."""
        from .show.plot import plot_sheet

        return plot_sheet(self.sheet(*metrics, entry=entry, **asked))

    @property
    def values(self) -> Mapping[str, Array]:
        """Of inputs that are constants."""
        return self.imported.values

    @property
    def hosts(self) -> Sequence[Refusal]:
        """The operators that run on the host, and why."""
        return self.imported.hosts

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

    def dims_of(self, entry: str) -> dict[str, int]:
        """What symbolic dimensions are bound to, in an entry."""
        return {**self.manifest.get("dims", {}), **self.manifest.get("entry_dims", {}).get(entry, {})}

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
        play, staged = self.imported.play, None
        if play is not None:
            from .host.operators import operator  # late: it imports onnx's reference

            staged = Staged(play, [operator(content) for content in self.imported.operators])
        return prepare(self.plans, threads, guard, self.values, staged)

    @property
    def runs_on(self) -> Literal["wafer", "host", "mixed"]:
        """Where a run takes place."""
        if self.imported.play is None:
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

    @cached_property
    def words(self) -> dict[str, bytes]:
        """The tokenizer and so on that lay in a language model's folder, as entries of an artifact; and in an
        encoder's."""
        ports = {name: ports_of(plan.graph) for name, plan in self.plans.items()}
        for judge in (language_entries, encoder_entries):
            with suppress(ArtifactError):
                judge(ports)
                return self.files.entries
        return {}

    def placement(self, entry: str | None = None) -> dict[str, Any]:
        """What an entry's placement.json holds."""
        return written.write(self.plan if entry is None else self.plans[entry])

    def save(
        self,
        path: str | Path,
        until: Until = "program",
        beside: Mapping[str, bytes] | None = None,
        report: Report = silent,
    ) -> None:
        """Writes the artifact: a program, or with `until="plan"` a plan without weights and kernels.

        beside: more entries, which a run does not need; by default the `words`. report: see `compile_model`.
        """
        watch = Stopwatch(report)
        watch.timed("codegen", lambda: self._write(path, until, beside))
        self.seconds.update(watch.seconds)

    def _write(self, path: str | Path, until: Until, beside: Mapping[str, bytes] | None) -> None:
        tell("the plan", 0.0)
        described = artifact.describe(self.plans, self.phases, self.wafer)
        if beside is None:
            beside = self.words if until == "program" else {}
        parts: dict[str, bytes | Array] = {**beside, **described}
        if (play := self.imported.play) is not None:
            parts |= encode_play(play)
            parts |= {f"host/{i}.onnx": content for i, content in enumerate(self.imported.operators)}
        if until == "program":
            tell("weights", 0.1)
            parts |= artifact.weights(self.plans) | artifact.bound(self.values)
            tell("kernels", 0.2)
            parts |= files(self.plans)
        tell("totals", 0.7)
        totals = {name: asdict(self.figures_of(name)) for name in self.plans}
        tell("writing", 0.8)
        artifact.write(path, {**self.manifest, "entries": list(self.plans), "figures": totals}, parts)
