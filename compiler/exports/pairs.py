"""An encoder and the decoder that streams behind it, as the two entries of one program.

Exporters write them as models apart. The entry `encode` is the encoder, and of the decoder what makes keys
and values of the encoder's result, which become states of the program: the host reads nothing of it. The
entry `decode` is the decoder with its caches, which begins with empty ones, and never changes those states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from ...ir.graph import Graph
from ...ir.op import Array
from ..errors import InvalidInput, UnsupportedModel, UsageError, quoted
from ..frontend import cache_names
from ..frontend.inputs import Binding
from ..importer import AcceptedModel, Imported, accept, import_entries
from ..passes.dead_nodes import eliminate_dead
from ..request import Request
from .folders import Apart

ENCODE, DECODE = "encode", "decode"
STATES_IN = "encoder_hidden_states"  # what the decoder calls the encoder's result
MASK_IN = "encoder_attention_mask"
STATES_OUT = "last_hidden_state"


@dataclass(frozen=True)
class AcceptedPair:
    """first: the decoder without caches, which says how keys and values are made of the encoder's states;
    None if the encoder makes them."""

    encoder: AcceptedModel
    first: AcceptedModel | None
    decoder: AcceptedModel


def accept_pair(apart: Apart, weights: bool) -> AcceptedPair:
    """Loads the models. Raises as `accept`."""
    decoder = accept(apart.decoder, weights)
    first = decoder
    if apart.first != apart.decoder:
        first = None if apart.first is None else accept(apart.first, weights)
    return AcceptedPair(accept(apart.encoder, weights), first, decoder)


def import_pair(pair: AcceptedPair, asked: Request) -> Imported:
    """The graphs of both entries; `asked` binds what is open of the models, and says the caches' capacity.

    Raises as `import_entries`; UsageError for what a pair cannot be asked for, UnsupportedModel for models
    that do not belong together.
    """
    if asked.entries or asked.states or asked.shapes:
        raise UsageError(
            "an encoder and its decoder have entries and states of their own; leave --entry, --state and "
            "--shape out"
        )
    _judge_dims(pair, asked.dims)
    plain = _importer(asked)
    encoder = plain(pair.encoder, {}, {}, None).graphs[""]
    states = STATES_OUT if STATES_OUT in encoder.outputs else encoder.outputs[0]
    hidden = encoder.tensors[states].shape
    shapes = {STATES_IN: hidden, MASK_IN: hidden[:2]}
    first = encoder
    if pair.first is not None:
        first = plain(pair.first, shapes, {cache_names.BRANCH: [False]}, None).graphs[""]
    cross = _cross(pair.decoder.proto.graph, first)
    shapes |= {past: first.tensors[present].shape for past, present in cross}
    imported = plain(pair.decoder, shapes, {cache_names.BRANCH: [True]}, asked.capacity)
    (decoder,) = imported.graphs.values()
    if _read(decoder, STATES_IN):
        cross = [*cross, (STATES_IN, states)]
    behind = None if first is encoder else first
    graphs = {DECODE: _decoding(decoder, cross), ENCODE: _encoding(encoder, behind, states, cross)}
    return Imported(graphs, imported.values)


Import = Callable[
    [AcceptedModel, Mapping[str, tuple[int, ...]], Mapping[str, list[bool]], int | None], Imported
]


def _importer(asked: Request) -> Import:
    """Imports a model of the pair: (model, shapes and values of inputs that it may have, capacity)."""

    def imported(
        model: AcceptedModel,
        shapes: Mapping[str, tuple[int, ...]],
        values: Mapping[str, list[bool]],
        capacity: int | None,
    ) -> Imported:
        graph = model.proto.graph
        inputs = {v.name for v in graph.input}
        own = {name: value for name, value in asked.values.items() if name in inputs}
        given = {name: shape for name, shape in shapes.items() if name in inputs}
        named = {name: value for name, value in values.items() if name in inputs}
        dims = {name: n for name, n in asked.dims.items() if name in _symbols(graph)}
        if capacity is None:
            dims |= dict.fromkeys(_opened(graph, {*given, *own}) - asked.dims.keys() if shapes else (), 1)
        binding = Binding(dims, given, {**named, **own})
        weights = not asked.no_weights
        return import_entries(model, {"": binding}, (), capacity, weights=weights, host=False)

    return imported


def _symbols(graph: onnx.GraphProto, without: Sequence[str] | set[str] = ()) -> set[str]:
    shapes = (v.type.tensor_type.shape.dim for v in graph.input if v.name not in without)
    return {d.dim_param for shape in shapes for d in shape if d.dim_param}


def _opened(graph: onnx.GraphProto, given: set[str]) -> set[str]:
    """Symbols that no given input binds."""
    bound = {
        d.dim_param
        for v in graph.input
        if v.name in given
        for d in v.type.tensor_type.shape.dim
        if d.dim_param
    }
    return _symbols(graph, given) - bound


def _judge_dims(pair: AcceptedPair, dims: Mapping[str, int]) -> None:
    known = {s for model in (pair.encoder, pair.decoder) for s in _symbols(model.proto.graph)}
    for name in dims:
        if name not in known:
            raise UsageError(
                f"--dim {quoted(name)}: no such dimension; the models' are "
                f"{', '.join(map(quoted, sorted(known))) or 'none'}"
            )


def _cross(decoder: onnx.GraphProto, first: Graph) -> list[tuple[str, str]]:
    """The decoder's inputs that are keys and values of the encoder's states, and what the other model calls
    them."""
    growing = {past for past, _ in cache_names.caches(decoder, ())}
    out: list[tuple[str, str]] = []
    for v in decoder.input:
        present = cache_names.present_of(v.name)
        if not present or v.name in growing:
            continue
        if present not in first.outputs:
            raise UnsupportedModel(
                f"the decoder reads {quoted(v.name)}, and the one without caches has no {quoted(present)}"
            )
        out.append((v.name, present))
    if not out:
        raise UnsupportedModel("the decoder has no keys and values of the encoder's states among its inputs")
    return out


def _decoding(decoder: Graph, cross: Sequence[tuple[str, str]]) -> Graph:
    """The decoder with the encoder's part as states that stay as they are."""
    presents = {present for _, present in cross}
    outputs = tuple(t for t in decoder.outputs if t not in presents)
    pasts = [past for past, _ in cross]
    inputs = tuple(
        t for t in decoder.inputs if t in pasts or _read(decoder, t) or t not in (STATES_IN, MASK_IN)
    )
    made = replace(decoder, outputs=outputs, inputs=inputs)
    made = replace(made, states=(*made.states, *((past, past) for past in pasts)))
    return eliminate_dead(made)


def _encoding(encoder: Graph, first: Graph | None, states: str, cross: Sequence[tuple[str, str]]) -> Graph:
    """The encoder, and behind it what of the decoder makes keys and values of its result. first: None where
    the encoder does."""
    if first is None:
        return _filling(encoder, cross)
    wanted = [present for _, present in cross if present != states]
    behind = eliminate_dead(replace(first, outputs=tuple(wanted)))
    read = [t for t in behind.inputs if t not in (STATES_IN, MASK_IN) and _read(behind, t)]
    if read:
        raise UnsupportedModel(f"keys and values of the encoder's states depend on {quoted(read[0])}, too")
    names = {STATES_IN: states, MASK_IN: "attention_mask"}
    taken = {*encoder.tensors, *wanted}
    for name in behind.tensors:
        if name not in names:
            fresh = name if name in wanted else _fresh(name, taken)
            names[name] = fresh
            taken.add(fresh)
    if clash := sorted({*wanted} & encoder.tensors.keys()):
        raise InvalidInput(f"encoder and decoder both have a value {quoted(clash[0])}")
    tensors = dict(encoder.tensors)
    constants: dict[str, Array] = dict(encoder.constants)
    tensors |= {
        names[t]: replace(v, name=names[t]) for t, v in behind.tensors.items() if names[t] not in tensors
    }
    constants |= {names[t]: value for t, value in behind.constants.items()}
    nodes = [
        replace(n, inputs=tuple(names[t] for t in n.inputs), output=names[n.output]) for n in behind.nodes
    ]
    joined = replace(encoder, tensors=tensors, nodes=(*encoder.nodes, *nodes), constants=constants)
    return _filling(joined, cross)


def _filling(graph: Graph, cross: Sequence[tuple[str, str]]) -> Graph:
    """The graph with what it makes of a source as states alone, which nobody reads of it."""
    pasts = {past: replace(graph.tensors[present], name=past) for past, present in cross}
    made = replace(
        graph,
        tensors={**graph.tensors, **pasts},
        inputs=(*graph.inputs, *pasts),
        outputs=(),
        states=tuple(cross),
    )
    made = eliminate_dead(made)
    made.check()
    return made


def _fresh(name: str, taken: set[str]) -> str:
    number, fresh = 1, name
    while fresh in taken:
        number += 1
        fresh = f"{name}.{number}"
    return fresh


def _read(graph: Graph, tensor: str) -> bool:
    return tensor in graph.readers or tensor in graph.results
