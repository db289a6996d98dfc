"""ONNX in, `Graph` out.

    load -> what is not supported at all -> onnx's checker -> what the standard asks of nodes
         -> version converter if needed
         -> inputs with static shapes -> one registered rule per node -> outputs

Constants fold while nodes are added, so the shape arithmetic of exported models is gone
at the end, and an If whose condition became a constant is replaced by its branch.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from ..ir import ops
from ..ir.graph import Graph, Unsupported
from ..ir.op import Array
from ..ir.rules import GraphBuilder
from ..runtime.script import Play
from .errors import (
    InvalidInput,
    OpenDimensions,
    Refusal,
    UnsupportedModel,
    UnsupportedOperator,
    UsageError,
    WafercError,
)
from .frontend import cache_names
from .frontend.graph_ends import graph_of
from .frontend.inputs import Binding
from .frontend.judge_nodes import judge_nodes
from .frontend.lengths import LengthBuilder, slopes
from .frontend.load import check_model, load_model
from .frontend.node import nodes_of
from .frontend.opsets import KnownModel, converted, in_known_opset
from .frontend.refusals import judge_refusals, merged
from .frontend.walk import WalkedModel, judge_declared, walk_model
from .host.partition import OnHost, staged_model
from .host.so_far import StagesSoFar
from .host.where_it_runs import unknown_operators
from .passes import caches
from .rows.close import close_rows
from .stopwatch import tell

assert ops.__all__  # importing the package is what registers the rules


@dataclass(frozen=True)
class Imported:
    """A model's graphs by entry, and the values of inputs that became constants.

    play: what calls the entries, with the host's operators between them; None where the wafer does it all.
    operators: the latter, as models of one node; hosts: why they are not the wafer's.
    """

    graphs: Mapping[str, Graph]
    values: Mapping[str, Array]
    play: Play | None = None
    operators: Sequence[bytes] = ()
    hosts: Sequence[Refusal] = ()


def import_model(
    model: str | Path | bytes | onnx.ModelProto,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    states: Sequence[tuple[str, str]] = (),
    weights: bool = True,
) -> Graph:
    """The model as a checked Graph: `import_entries` of one, without the host."""
    given = Binding(dims or {}, shapes or {})
    imported = import_entries(model, {"": given}, states, weights=weights, host=False)
    return imported.graphs[""]


def import_entries(
    model: str | Path | bytes | onnx.ModelProto | AcceptedModel,
    entries: Mapping[str, Binding],
    states: Sequence[tuple[str, str]] = (),
    capacity: int | None = None,
    weights: bool = True,
    host: bool = True,
) -> Imported:
    """The model as a checked Graph for each of `entries`, with its initializers read once.

    states: pairs (input, output) whose value stays on the wafer between calls. capacity: positions of
    states that grow in the model (caches; those with the usual names need not be listed). weights: False
    takes constants in external files as shapes, `Absent`. host: whether what the wafer cannot do may run on
    the host; then there is one entry for each stage on the wafer.

    Raises InputOutput, InvalidInput, InputUnbound where only the values of inputs are missing, UsageError,
    UnsupportedOperator (which lists every refused operator) or UnsupportedModel.
    """
    accepted = model if isinstance(model, AcceptedModel) else accept(model, weights)
    may_host = host and weights
    if may_host and len(entries) == 1 and not states and capacity is None:
        ((entry, given),) = entries.items()
        return _with_host(accepted, entry, given)
    what = "unsupported"
    if may_host:
        what += " with --state, --capacity or --entry, which leave nothing to the host"
    on_wafer = OnWafer(accepted, what, {}, {})
    graphs: dict[str, Graph] = {}
    for entry, given in entries.items():
        if capacity is None:
            graphs[entry] = caches.in_place(on_wafer(given, states))
        else:
            graphs[entry] = _with_capacity(on_wafer, accepted.proto.graph, given, states, capacity)
    return Imported(graphs, on_wafer.values)


# -- the way to a model that can be walked ----------------------------------------------


@dataclass(frozen=True)
class AcceptedModel:
    """A model as given, and in an opset that we have rules for.

    unknown: operators that nothing runs. contradictions: between types that the model declares and those that
    its values have.
    """

    proto: onnx.ModelProto
    ready: KnownModel
    unknown: Sequence[Refusal]
    contradictions: Sequence[str] = ()

    def judge_declarations(self, walked: WalkedModel) -> None:
        """Raises InvalidInput where the model declares a value as another one than it is."""
        if self.contradictions:
            raise InvalidInput(self.contradictions[0])
        judge_declared(walked.scope, self.ready.proto.graph)

    @property
    def name(self) -> str:
        return self.proto.graph.name or "model"


def accept(model: str | Path | bytes | onnx.ModelProto, weights: bool = True) -> AcceptedModel:
    """Loads a model, checks it, and converts it if need be. weights: see `load_model`.

    Raises InputOutput, InvalidInput, UnsupportedModel, DoesNotFit.
    """
    tell("reading", 0.0)
    known = in_known_opset(load_model(model, weights, mapped=True))
    unknown = unknown_operators(known)
    try:
        if not unknown:
            tell("checking", 0.1)
            check_model(known.proto)
        tell("judging nodes", 0.2)
        contradictions = judge_nodes(known)
        return AcceptedModel(known.proto, converted(known), unknown, contradictions)
    except (InvalidInput, UnsupportedModel):
        judge_refusals(unknown, "unsupported")
        raise


# -- from there to graphs ---------------------------------------------------------------


def walked_on_host(
    accepted: AcceptedModel, given: Binding, stages: StagesSoFar, rows: bool = False
) -> WalkedModel:
    """The nodes entered, with those on the host that no wafer runs. rows: see `GraphBuilder.opens_rows`.

    Where dimensions are open, no node is entered: what nothing runs by its name alone is told with them.
    """
    try:
        return walk_model(accepted.ready, given, OnHost(stages), builder=GraphBuilder(opens_rows=rows))
    except OpenDimensions as e:
        raise _with_unknown(accepted.unknown, "unsupported", e) from None


def _with_unknown(unknown: Sequence[Refusal], what: str, e: OpenDimensions) -> WafercError:
    """Open dimensions, and before them the operators that nothing runs."""
    return UnsupportedOperator(unknown, what, str(e)) if unknown else e


def _with_host(accepted: AcceptedModel, entry: str, given: Binding) -> Imported:
    """One graph where the wafer does it all, else those of its stages."""
    if (taking_rows := with_rows(accepted, given)) is not None:
        walked, graph = taking_rows
        accepted.judge_declarations(walked)
        return Imported({entry: graph}, walked.values)
    stages = StagesSoFar(accepted.ready.proto)
    walked = walked_on_host(accepted, given, stages)
    judge_refusals(merged(walked.refusals), "unsupported")
    accepted.judge_declarations(walked)
    if walked.on_wafer:
        graph = graph_of(walked.scope, walked.outputs, accepted.name)
        return Imported({entry: graph}, walked.values)
    staged = staged_model(walked, stages)
    return Imported(staged.graphs, walked.values, staged.play, staged.operators, merged(staged.hosts))


def with_rows(accepted: AcceptedModel, given: Binding) -> tuple[WalkedModel, Graph] | None:
    """The model walked, and in one graph, with rows that NonZero takes; None where the host must do more."""
    if not any(n.op_type == "NonZero" for n in accepted.ready.proto.graph.node):
        return None
    stages = StagesSoFar(accepted.ready.proto)
    walked = walked_on_host(accepted, given, stages, rows=True)
    if walked.refusals or not walked.on_wafer or not walked.rows.sizes:
        return None
    try:
        _close_rows(walked)
    except Unsupported:
        return None
    return walked, graph_of(walked.scope, walked.outputs, accepted.name)


def _close_rows(walked: WalkedModel) -> None:
    """Makes the graph so far one without NonZero. Raises Unsupported, with what becomes of its rows."""
    scope, g = walked.scope, walked.scope.graph
    results = tuple(dict.fromkeys(scope.names[o] for o in walked.outputs))
    inputs = (*scope.inputs, *([g.length_input] if g.length_input else []))
    graph = close_rows(Graph("", g.tensors, tuple(g.nodes), g.constants, inputs, results), walked.rows)
    g.tensors, g.constants, g.nodes = dict(graph.tensors), dict(graph.constants), list(graph.nodes)


@dataclass(frozen=True)
class OnWafer:
    """Makes graphs of a model that must run on the wafer entirely.

    what: the refusal of one that cannot. stored: initializers, read once for all graphs. values: of inputs
    that became constants. remade: see `GraphBuilder`.
    """

    accepted: AcceptedModel
    what: str
    stored: dict[str, Array]
    values: dict[str, Array]
    remade: dict[Hashable, tuple[Array, Array]] = field(default_factory=lambda: {})

    def __call__(
        self,
        given: Binding,
        states: Sequence[tuple[str, str]],
        grow: bool = False,
        builder: GraphBuilder | None = None,
    ) -> Graph:
        """The graph for a binding. grow: see `graph_of`. builder: see `walk_model`."""
        unknown, builder = self.accepted.unknown, builder or GraphBuilder()
        builder.opens_rows, builder.remade = True, self.remade
        try:
            walked = walk_model(self.accepted.ready, given, stored=self.stored, builder=builder)
        except OpenDimensions as e:
            raise _with_unknown(unknown, self.what, e) from None
        except (InvalidInput, UnsupportedModel):
            judge_refusals(unknown, self.what)  # too broken to get to an end
            raise
        judge_refusals(merged(unknown, walked.refusals), self.what)
        self.accepted.judge_declarations(walked)
        self.values.update(walked.values)
        if walked.rows.sizes:
            self._close_rows(walked)
        return graph_of(walked.scope, walked.outputs, self.accepted.name, states, grow)

    def _close_rows(self, walked: WalkedModel) -> None:
        try:
            _close_rows(walked)
        except Unsupported as e:
            taking = [n for n in nodes_of(self.accepted.ready.proto.graph.node) if n.key == ("", "NonZero")]
            reason = f"how many rows it finds depends on data, and {e}"
            judge_refusals(merged([n.refusal(reason) for n in taking]), self.what)
            raise UnsupportedModel(f"NonZero in a function: {reason}") from None


def with_short_caches(
    graph: onnx.GraphProto, given: Binding, states: Sequence[tuple[str, str]], past: int = 1
) -> Binding:
    """The binding for caches that hold `past` positions before a call."""
    symbol = cache_names.growing(graph, cache_names.caches(graph, states), given.dims)
    if not symbol:
        return given
    total, _ = cache_names.totals(graph, symbol, given.dims)
    rows = cache_names.new_rows(graph, given.dims) if total else 0
    return replace(given, dims={**given.dims, symbol: past, **dict.fromkeys(total, past + rows)})


def _with_capacity(
    on_wafer: OnWafer,
    graph: onnx.GraphProto,
    given: Binding,
    states: Sequence[tuple[str, str]],
    capacity: int,
) -> Graph:
    """The model with caches of `capacity` positions."""
    pairs = cache_names.caches(graph, states)
    if not pairs:
        raise UsageError("--capacity: the model has no caches; name them with --state PAST=PRESENT")
    symbol = cache_names.growing(graph, pairs, given.dims)
    if symbol:
        return _at_capacity(on_wafer, graph, given, pairs, capacity)
    whole = on_wafer(given, pairs, grow=True)
    return _in_place(whole, capacity)


PAST = 2  # positions in the shortest caches that are built: none is taken for a dimension of size 1


def _at_capacity(
    on_wafer: OnWafer,
    graph: onnx.GraphProto,
    given: Binding,
    pairs: Sequence[tuple[str, str]],
    capacity: int,
) -> Graph:
    """The model whose caches grow, full after a call.

    Two plain builds with few positions say how many a call adds, and what of shapes grows with them. Two more
    use that (`frontend.lengths`): one is the result, the other, of another length, shows what was missed.
    """

    def plain(past: int) -> tuple[int, list[Array]]:
        builder = GraphBuilder()
        short = on_wafer(with_short_caches(graph, given, pairs, past), pairs, True, builder)
        return caches.positions_added(short, pairs), builder.measures

    added, measures = plain(PAST)
    if capacity <= added:
        raise UsageError(
            f"--capacity {capacity}: a call adds {added} positions; it must hold {added + 1} at least"
        )
    measured = slopes(measures, plain(PAST + 1)[1], PAST)
    if measured is None:
        raise UnsupportedModel("the model computes differently for another length of its caches")
    symbol = cache_names.growing(graph, pairs, given.dims)
    total, others = cache_names.totals(graph, symbol, given.dims)
    taken = frozenset(o.name for o in graph.output)

    def built(past: int) -> tuple[Graph, str]:
        builder = LengthBuilder(
            past=past, capacity=past + added, most=capacity - added, known_slopes=measured, taken=taken
        )
        sizes = {symbol: past, **dict.fromkeys(total, past + added)}
        bound = replace(given, dims={**given.dims, **sizes})
        return on_wafer(bound, pairs, True, builder), builder.length_input

    past = capacity - added
    whole, length = built(past)
    beside = past - 1 if past > 1 else past + 1
    other, _ = built(beside)
    grown = caches.judge_positions(other, whole, others, (beside + added, capacity))
    return _in_place(whole, capacity, others, caches.Computed(length, grown))


def _in_place(
    whole: Graph,
    capacity: int,
    others: Sequence[tuple[str, int]] = (),
    computed: caches.Computed = caches.NOTHING_COMPUTED,
) -> Graph:
    """The graph, full after a call, with caches that lie still. See `caches.of_capacity`."""
    grown = [(a, b) for a, b in whole.states if whole.tensors[a].shape != whole.tensors[b].shape]
    whole = replace(whole, states=tuple(s for s in whole.states if s not in grown))
    return caches.in_place(caches.of_capacity(whole, grown, capacity, others, computed) if grown else whole)
