"""Domains, opsets and functions of a model, and its conversion from opsets before those that rules know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import onnx
from onnx import helper, version_converter

from ...ir.rules import REGISTRY
from ..errors import DoesNotFit, UnsupportedModel, shown
from .large import is_large, large_apart
from .standard import DEPTH_LIMIT, OLDEST_OPSET, schema_of

MOST_NODES = 1_000_000  # with functions expanded
OLDEST_DIRECT_OPSET = 7  # opset 6 differs in how operands broadcast: onnx's converter rewrites it


def domain_of(name: str) -> str:
    """A domain as rules, schemas and opsets are found by: the standard's has two names."""
    return "" if name == "ai.onnx" else name


@dataclass(frozen=True)
class Vocabulary:
    """What operators mean where a node stands: opsets by domain, and the model's own functions."""

    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], onnx.FunctionProto]

    def opset(self, domain: str) -> int:
        return self.opsets.get(domain, 1)

    def inside(self, function: onnx.FunctionProto) -> Vocabulary:
        """Of the nodes of a function's body."""
        # The standard's preview functions do not say which opset of its main domain they use.
        return replace(self, opsets={**self.opsets, **_opsets(function)})


@dataclass(frozen=True)
class KnownModel:
    """A model in an opset that we know, and what its operators mean."""

    proto: onnx.ModelProto
    vocabulary: Vocabulary


def _known(proto: onnx.ModelProto) -> KnownModel:
    functions = {(domain_of(f.domain), f.name): f for f in proto.functions}
    return KnownModel(proto, Vocabulary(_opsets(proto), functions))


def _opsets(proto: onnx.ModelProto | onnx.FunctionProto) -> dict[str, int]:
    return {domain_of(o.domain): o.version for o in proto.opset_import}


def in_known_opset(proto: onnx.ModelProto) -> KnownModel:
    """The model in an opset that we know. Raises UnsupportedModel, DoesNotFit for one of too many nodes."""
    version = _opsets(proto).get("")
    newest = onnx.defs.onnx_opset_version()
    if version is not None and version < OLDEST_OPSET:
        proto = _raised(proto) or proto
        version = _opsets(proto)[""]
    if version is not None and not OLDEST_OPSET <= version <= newest:
        raise UnsupportedModel(f"opset {version}: waferc takes opsets {OLDEST_OPSET} to {newest}")
    known = _known(proto)
    if (nodes := _written_out(known)) > MOST_NODES:
        count = f"{nodes:,}" if nodes < 10**12 else "more than 10^12"
        raise DoesNotFit(f"the model's functions stand for {count} nodes; at most {MOST_NODES:,}")
    return known


def _raised(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """A model of an opset before the oldest one that we take, in that one; None if an operator differs."""
    have = _opsets(proto)[""]
    for node in _nodes(proto.graph):
        if not domain_of(node.domain):
            old, new = (schema_of(node.op_type, "", opset) for opset in (have, OLDEST_OPSET))
            if old is None or new is None or old.since_version != new.since_version:
                return None
    out = onnx.ModelProto()
    out.CopyFrom(proto)
    for o in out.opset_import:
        if not domain_of(o.domain):
            o.version = OLDEST_OPSET
    return out


def _written_out(known: KnownModel) -> int:
    """How many nodes a model has once its own functions are expanded, found without expanding them."""
    proto, functions = known.proto, known.vocabulary.functions

    @cache
    def of_function(key: tuple[str, str], depth: int) -> int:
        return 1 if depth > DEPTH_LIMIT else total(list(functions[key].node), depth)

    def total(nodes: Sequence[onnx.NodeProto], depth: int) -> int:
        out = 0
        for node in nodes:
            key = domain_of(node.domain), node.op_type
            out += of_function(key, depth + 1) if key in functions else 1
            out += sum(total(list(a.g.node), depth) for a in node.attribute if a.HasField("g"))
        return out

    return total(list(proto.graph.node), 0) if functions else len(proto.graph.node)


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """A graph's nodes, and those of its bodies."""
    inner = (n for node in graph.node for a in node.attribute if a.HasField("g") for n in _nodes(a.g))
    return [*graph.node, *inner]


def count_operators(proto: onnx.ModelProto) -> dict[tuple[str, str], int]:
    """(operator, domain) -> how many nodes, subgraphs included."""
    found: dict[tuple[str, str], int] = {}

    def walk(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            key = (node.op_type, domain_of(node.domain))
            found[key] = found.get(key, 0) + 1
            for a in node.attribute:
                for sub in [a.g] if a.HasField("g") else a.graphs:
                    walk(sub)

    walk(proto.graph)
    return found


def converted(known: KnownModel) -> KnownModel:
    """The model in an opset that every one of its operators has a rule for. Raises UnsupportedModel."""
    proto, have = known.proto, known.vocabulary.opsets.get("", OLDEST_DIRECT_OPSET)
    used = [kind for kind, domain in count_operators(proto) if not domain]
    # an operator that is older than its rule: one that is newer than `have` is the checker's affair
    needed = [REGISTRY["", kind].since for kind in used if ("", kind) in REGISTRY]
    target = max([OLDEST_DIRECT_OPSET, *needed])
    if have >= target:
        return known
    try:
        ready = _with_slopes_of_channels(proto) if have < OLDEST_DIRECT_OPSET and "PRelu" in used else proto
        return _known(
            _with_initializers(version_converter.convert_version(large_apart(ready), target), ready)
        )
    except (RuntimeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        first = str(e).strip().splitlines()
        reason = shown(first[0] if first else "no reason given", 160)
        raise UnsupportedModel(f"opset {have} cannot be converted to {target}: {reason}") from None


def _with_initializers(converted: onnx.ModelProto, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the initializers that `large_apart` made inputs of."""
    own = {v.name for v in proto.graph.input}
    apart = {t.name: t for t in proto.graph.initializer if is_large(t)}
    kept = [v for v in converted.graph.input if v.name in own or v.name not in apart]
    del converted.graph.input[:]
    converted.graph.input.extend(kept)
    converted.graph.initializer.extend(apart.values())
    return converted


def _with_slopes_of_channels(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with PRelu's slopes as opset 7 wants them.

    Before it a slope of one dimension was that of the channels, the second dimension; onnx's converter
    leaves it as it is.
    """
    out = onnx.ModelProto()
    out.CopyFrom(proto)
    known = onnx.shape_inference.infer_shapes(proto).graph
    ranks = {t.name: len(t.dims) for t in known.initializer}
    for v in (*known.input, *known.value_info):
        if v.type.tensor_type.HasField("shape"):
            ranks.setdefault(v.name, len(v.type.tensor_type.shape.dim))
    del out.graph.node[:]
    for node in proto.graph.node:
        aligned = onnx.NodeProto()
        aligned.CopyFrom(node)
        rank = ranks.get(node.input[0], 0) if node.op_type == "PRelu" else 0
        if rank > 2 and ranks.get(node.input[1]) == 1:
            aligned.input[1] = f"{node.output[0]}.slope"
            names = [node.input[1]], [aligned.input[1]]
            out.graph.node.append(helper.make_node("Unsqueeze", *names, axes=range(1, rank - 1)))
        out.graph.node.append(aligned)
    return out
