"""The whole story: model -> graphs -> simplified graphs -> plans -> what can be run and saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..codegen.artifact import artifact
from ..ir.absent import ValuesNeeded
from ..ir.entries import agreed
from ..ir.graph import Graph
from .compiled import Compiled
from .errors import DoesNotFit, UnsupportedModel, UnsupportedOperator
from .exports.defaults import Choice, Ends, choices, pair_choices
from .exports.folders import Apart, ModelFiles, model_files
from .exports.pairs import AcceptedPair, accept_pair, import_pair
from .frontend.inputs import Binding
from .frontend.load import digest
from .importer import AcceptedModel, Imported, accept, import_entries
from .passes.fuse_elementwise import fuse_elementwise
from .passes.narrow_weights import narrow_weights
from .passes.packed_weights import PACKED, pack_floats
from .passes.simplify import simplify
from .planning import plans_for
from .remedies import Remedies
from .request import Request
from .stopwatch import Report, Stopwatch, silent


def compile_model(
    model: str | Path | bytes, request: Request | None = None, /, *, report: Report = silent, **options: Any
) -> Compiled:
    """Compiles an ONNX model for a wafer.

    model: a file, its bytes, or a folder as exporters write one. request: what is asked for; what it leaves
    open of a decoder with caches is taken from the model (`compiler.exports.defaults`), as
    `Compiled.chosen` says. options: fields of a `Request`, in its place or to change some of it. report: is
    told which phase is on, what is being done in it, and how much of it is done.

    Raises the errors of `compiler.errors`, and OSError.
    """
    asked = replace(request or Request(), **options)
    asked.check()
    asked = replace(asked, wafer=asked.machine())
    watch = Stopwatch(report)
    files = model_files(model)
    accepted = watch.timed("import", lambda: accepted_of(files, asked))
    *others, last = offered(accepted, asked, files)
    for choice in others:
        try:
            return _compiled(files, choice, _graphs(accepted, choice.request, watch), watch)
        except DoesNotFit:
            pass
        except UnsupportedModel:
            if not choice.guessed:
                raise
    made = _graphs(accepted, last.request, watch)
    del accepted  # the weights' second copy, while a plan is made
    return _compiled(files, last, made, watch)


Made = tuple[Imported, dict[str, Graph], dict[str, dict[str, str]]]
"""A model imported, the graphs to be planned, and by entry and phase the text of what came of it."""


def _compiled(files: ModelFiles, choice: Choice, made: Made, watch: Stopwatch) -> Compiled:
    """The graphs planned as asked for."""
    asked = choice.request
    imported, graphs, phases = made

    def others(other: Request) -> Mapping[str, Graph]:
        return _graphs(accepted_of(files, other), other, Stopwatch())[1]

    def tried(entry: str, text: str) -> None:
        phases[entry] |= {artifact.SEARCH: text} if text else {}

    try:
        plans = {} if asked.until == "graph" else plans_for(graphs, asked, watch, tried)
    except DoesNotFit as e:
        e.remedies = Remedies(asked, graphs, others)
        e.attempts = "\n".join(own[artifact.SEARCH] for own in phases.values() if artifact.SEARCH in own)
        raise
    for entry, plan in plans.items():
        phases[entry]["plan"] = str(plan)

    states = next((graph.states for graph in graphs.values()), ())
    manifest = {
        "waferc": version("waferc"),
        "model": model_digest(files, weights=not asked.no_weights),
        **replace(asked, values=imported.values, states=states).manifest(),
        "host": [[r.op_type, r.domain, r.count] for r in imported.hosts],
    }
    return Compiled(
        asked.machine(), imported, graphs, plans, manifest, phases, watch.seconds, files, choice.said
    )


Accepted = AcceptedModel | AcceptedPair


def accepted_of(files: ModelFiles, asked: Request) -> Accepted:
    """The model, or the models, as the importer takes them. Raises as `accept`."""
    weights = not asked.no_weights
    if isinstance(files.model, Apart):
        return accept_pair(files.model, weights)
    return accept(files.model, weights)


def _imported(accepted: Accepted, asked: Request) -> Imported:
    if isinstance(accepted, AcceptedPair):
        return import_pair(accepted, asked)
    weights = not asked.no_weights
    return import_entries(accepted, _bindings(asked), tuple(asked.states), asked.capacity, weights=weights)


def offered(accepted: Accepted, asked: Request, files: ModelFiles) -> Sequence[Choice]:
    """What may be compiled, best first."""
    if isinstance(accepted, AcceptedPair):
        source = files.model.source if isinstance(files.model, Apart) else ()
        ends = Ends(accepted.encoder.proto.graph, accepted.decoder.proto.graph, source)
        return pair_choices(ends, asked, files.context)
    return choices(accepted.proto.graph, asked, files.context)


def model_digest(files: ModelFiles, weights: bool = True) -> str:
    """SHA-256 of the model's files."""
    if isinstance(files.model, Apart):
        return files.model.digested(lambda path: digest(path, weights))
    return digest(files.model, weights)


def _graphs(accepted: Accepted, asked: Request, watch: Stopwatch) -> Made:
    imported = watch.timed("import", lambda: _imported(accepted, asked))
    staged = imported.play is not None
    if asked.no_host and staged:
        raise UnsupportedOperator(imported.hosts, "--no-host refuses what runs on the host")
    graphs = dict(imported.graphs)
    phases = {entry: {"import": str(graph)} for entry, graph in graphs.items()}
    for phase, change in _passes(asked):
        for entry, graph in graphs.items():
            graphs[entry] = watch.timed(phase, lambda change=change, graph=graph: change(graph))
            phases[entry][phase] = str(graphs[entry])
    return imported, agreed(_in_order(graphs, staged)), phases


def _bindings(asked: Request) -> dict[str, Binding]:
    """What each entry binds."""
    entries = asked.entries or {artifact.MAIN: {}}
    return {name: Binding({**asked.dims, **own}, asked.shapes, asked.values) for name, own in entries.items()}


def _passes(asked: Request) -> Sequence[tuple[str, Callable[[Graph], Graph]]]:
    """What is done with each graph, by name of the phase."""

    def narrowed(graph: Graph) -> Graph:
        if bits := PACKED.get(asked.weights):
            narrow = narrow_weights(pack_floats(graph, bits), "f16", asked.factors)
        else:
            narrow = narrow_weights(graph, asked.weights, asked.factors)
        return fuse_elementwise(narrow) if asked.simplify else narrow

    out: list[tuple[str, Callable[[Graph], Graph]]] = []
    if asked.simplify:
        out.append(("simplify", _simplified))
    if asked.weights != "f32":
        out.append(("weights", narrowed))
    return out


def _simplified(graph: Graph) -> Graph:
    try:
        return simplify(graph)
    except ValuesNeeded as e:
        raise UnsupportedModel(str(e)) from None


def _in_order(graphs: Mapping[str, Graph], staged: bool) -> dict[str, Graph]:
    """In the order in which they are planned: of entries the one with least to do first, for its latency; of
    stages the one with most, as the others must do with its region."""

    def iterations(item: tuple[str, Graph]) -> int:
        return sum(math.prod(n for _, n in node.op.axes) for node in item[1].nodes)

    return dict(sorted(graphs.items(), key=iterations, reverse=staged))
