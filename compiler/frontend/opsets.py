"""Opsets and domains of a model, and its conversion from opsets before those that rules know."""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

from ...ir.graph import REGISTRY
from ..errors import UnsupportedModel, shown

OLDEST_DIRECT_OPSET = 7  # opset 6 differs in how operands broadcast: onnx's converter rewrites it


def domain_of(name: str) -> str:
    """A domain as rules, schemas and opsets are found by: the standard's has two names."""
    return "" if name == "ai.onnx" else name


def opsets_of(proto: onnx.ModelProto | onnx.FunctionProto) -> dict[str, int]:
    return {domain_of(o.domain): o.version for o in proto.opset_import}


def functions_of(proto: onnx.ModelProto) -> dict[tuple[str, str], onnx.FunctionProto]:
    """A model's own functions, by domain and name."""
    return {(domain_of(f.domain), f.name): f for f in proto.functions}


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


def converted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in an opset that every one of its operators has a rule for."""
    have = opsets_of(proto).get("", OLDEST_DIRECT_OPSET)
    used = [kind for kind, domain in count_operators(proto) if not domain]
    # an operator that is older than its rule: one that is newer than `have` is the checker's affair
    needed = [REGISTRY["", kind].since for kind in used if ("", kind) in REGISTRY]
    target = max([OLDEST_DIRECT_OPSET, *needed])
    if have >= target:
        return proto
    try:
        ready = _with_slopes_of_channels(proto) if have < OLDEST_DIRECT_OPSET and "PRelu" in used else proto
        return version_converter.convert_version(ready, target)
    except (RuntimeError, ValueError) as e:
        first = str(e).strip().splitlines()
        reason = shown(first[0] if first else "no reason given", 160)
        raise UnsupportedModel(f"opset {have} cannot be converted to {target}: {reason}") from None


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
