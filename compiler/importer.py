"""ONNX in, `Graph` out.

    load -> what is not supported at all -> onnx's checker -> version converter if needed
         -> inputs with static shapes -> one registered rule per node -> outputs

Constants fold while nodes are added, so the shape arithmetic of exported models is gone
at the end, and an If whose condition became a constant is replaced by its branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import checker

from ..ir import ops
from ..ir.graph import Graph
from ..ir.op import Array
from ..runtime.script import Play
from .errors import (
    DoesNotFit,
    InputUnbound,
    InvalidInput,
    Refusal,
    UnsupportedModel,
    UnsupportedOperator,
    UsageError,
    shown,
)
from .frontend import cache_names
from .frontend.inputs import Binding, add_inputs
from .frontend.load import load_model, without_weights
from .frontend.opsets import (
    converted,
    domain_of,
    opsets_of,
)
from .frontend.standard import OLDEST_OPSET, raised, why_unknown, written_out
from .frontend.walk import Builder
from .host.operators import place
from .host.partition import Split, split_model
from .passes import caches

MOST_NODES = 1_000_000  # with functions expanded

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
    capacity: int | None = None,
    weights: bool = True,
    values: Mapping[str, Any] | None = None,
) -> Graph:
    """The model as a checked Graph: `import_entries` of one, without the host."""
    given = Binding(dims or {}, shapes or {}, values or {})
    imported = import_entries(model, {"": given}, states, capacity, weights, host=False)
    return imported.graphs[""]


def import_entries(
    model: str | Path | bytes | onnx.ModelProto,
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
    proto = loaded(model, weights)
    refused = unknown_operators(proto)
    if not refused:
        check_model(proto)
    name = proto.graph.name or "model"
    stored: dict[str, Array] = {}
    values: dict[str, Array] = {}

    def built(given: Binding) -> Builder:
        builder = build(proto, given, keep_going=bool(refused), stored=stored)
        if found := merged(refused, builder.refusals if builder else []):
            if all(r.unbound for r in found):
                raise InputUnbound(found)
            raise UnsupportedOperator(found)
        assert builder is not None
        values.update({n: builder.graph.constants[n] for n in given.values})
        return builder

    pairs = [*states, *(p for p in cache_names.named_pairs(proto.graph) if p not in states)]

    def imported(given: Binding) -> Graph:
        if capacity is None:
            return caches.in_place(built(given).finish(name, states))
        return _with_capacity(proto.graph, name, built, given, pairs, capacity)

    try:
        return Imported({entry: imported(given) for entry, given in entries.items()}, values)
    except UnsupportedModel as e:
        if not (host and weights):
            raise
        if len(entries) > 1 or states or capacity is not None:
            if isinstance(e, UnsupportedOperator):
                what = "unsupported with --state, --capacity or --entry, which leave nothing to the host"
                raise UnsupportedOperator(e.refusals, what) from None
            raise
    (given,) = entries.values()
    split = _split(proto, given)
    found = split.found
    return Imported(found.graphs, split.values, split.play, found.operators, merged(found.hosts))


def _split(proto: onnx.ModelProto, given: Binding) -> Split:
    """The model in stages on the wafer and on the host. Raises as `import_entries`."""
    split = split_model(converted(proto), given)
    if found := merged(split.found.refusals):
        if all(r.unbound for r in found):
            raise InputUnbound(found)
        raise UnsupportedOperator(found)
    return split


def _with_capacity(
    graph: onnx.GraphProto,
    name: str,
    built: Callable[[Binding], Builder],
    given: Binding,
    pairs: Sequence[tuple[str, str]],
    capacity: int,
) -> Graph:
    """The model with caches of `capacity` positions: built for a past of one position to see how many a
    call adds, then for one that fills the capacity with them."""
    if not pairs:
        raise UsageError("--capacity: the model has no caches; name them with --state PAST=PRESENT")
    dims = given.dims
    symbol = cache_names.growing(graph, pairs, dims)
    short, others = None, list[tuple[str, int]]()
    sizes = dict(dims)
    if symbol:
        total, others = cache_names.totals(graph, symbol, dims)
        rows = cache_names.new_rows(graph, dims) if total else 0
        one = {**dims, symbol: 1, **dict.fromkeys(total, 1 + rows)}
        short = built(replace(given, dims=one)).finish(name, pairs, grow=True)
        added = caches.positions_added(short, pairs)
        if capacity <= added:
            raise UsageError(
                f"--capacity {capacity}: a call adds {added} positions; it must hold {added + 1} at least"
            )
        sizes |= {symbol: capacity - added, **dict.fromkeys(total, capacity)}
    whole = built(replace(given, dims=sizes)).finish(name, pairs, grow=True)
    if short is not None:
        caches.judge_positions(short, whole)
    grown = [(a, b) for a, b in whole.states if whole.tensors[a].shape != whole.tensors[b].shape]
    whole = replace(whole, states=tuple(s for s in whole.states if s not in grown))
    return caches.in_place(caches.of_capacity(whole, grown, capacity, others) if grown else whole)


# -- the stages -------------------------------------------------------------------------


def loaded(model: str | Path | bytes | onnx.ModelProto, weights: bool = True) -> onnx.ModelProto:
    """The model, in an opset that we know. Raises UnsupportedModel, DoesNotFit."""
    proto = load_model(model, weights)
    version = opsets_of(proto).get("")
    newest = onnx.defs.onnx_opset_version()
    if version is not None and version < OLDEST_OPSET:
        proto = raised(proto) or proto
        version = opsets_of(proto)[""]
    if version is not None and not OLDEST_OPSET <= version <= newest:
        raise UnsupportedModel(f"opset {version}: waferc takes opsets {OLDEST_OPSET} to {newest}")
    if (nodes := written_out(proto)) > MOST_NODES:
        raise DoesNotFit(f"the model's functions stand for {_rounded(nodes)} nodes; at most {MOST_NODES:,}")
    return proto


def _rounded(n: int) -> str:
    return f"{n:,}" if n < 10**12 else "more than 10^12"


def check_model(proto: onnx.ModelProto) -> None:
    try:
        checker.check_model(without_weights(proto))  # pyright: ignore[reportUnknownMemberType]
    except (checker.ValidationError, ValueError) as e:
        first = next((line for line in str(e).splitlines() if line.strip()), "invalid")
        raise InvalidInput(f"onnx's checker refuses the model: {shown(first, 200)}") from None


def unknown_operators(proto: onnx.ModelProto) -> list[Refusal]:
    """Operators of the top level that have no rule, no body and no schema that could give one."""
    opsets = opsets_of(proto)
    local = {(domain_of(f.domain), f.name) for f in proto.functions}
    found: dict[tuple[str, str], list[str]] = {}
    for node in proto.graph.node:
        key = (domain_of(node.domain), node.op_type)
        if key in local or place(node.op_type, key[0], opsets.get(key[0], 1)) != "unsupported":
            continue
        found.setdefault(key, []).append(node.name or (node.output[0] if node.output else ""))
    return [
        Refusal(op_type, domain, len(nodes), why_unknown(op_type, domain, opsets.get(domain, 1)), nodes[0])
        for (domain, op_type), nodes in found.items()
    ]


def build(
    proto: onnx.ModelProto,
    given: Binding,
    keep_going: bool,
    stored: dict[str, Array] | None = None,
) -> Builder | None:
    """Runs every rule. With `keep_going`, None where the model is too broken to get to an end.

    stored: initializers that were read before; those read now are added.
    """
    try:
        ready = converted(proto)
        builder = Builder(opsets_of(ready), {(domain_of(f.domain), f.name): f for f in ready.functions})
        builder.add_initializers(ready.graph, stored)
        add_inputs(builder, ready.graph, given)
        builder.add_nodes(ready.graph.node)
        builder.set_outputs([o.name for o in ready.graph.output])
        return builder
    except UsageError:
        raise
    except (InvalidInput, UnsupportedModel):
        if not keep_going:
            raise
        return None


def merged(*lists: Sequence[Refusal]) -> list[Refusal]:
    """One refusal per operator and reason."""
    merged: dict[tuple[str, str, str], Refusal] = {}
    known: set[tuple[str, str]] = set()
    for i, refusals in enumerate(lists):
        for r in refusals:
            if i and (r.op_type, r.domain) in known:
                continue
            key = (r.op_type, r.domain, r.reason)
            seen = merged.get(key)
            both = tuple(dict.fromkeys((*(seen.unbound if seen else ()), *r.unbound)))
            count = r.count + (seen.count if seen else 0)
            merged[key] = Refusal(*key[:2], count, r.reason, (seen or r).node, both)
        known |= {(r.op_type, r.domain) for r in refusals}
    return list(merged.values())
