"""Bodies of If, Loop and Scan: the outer values that they read."""

from __future__ import annotations

import onnx

CONTROL = {"If", "Loop", "Scan"}


def free_in_bodies(node: onnx.NodeProto) -> list[str]:
    return [name for a in node.attribute if a.HasField("g") for name in free_names(a.g)]


def free_names(graph: onnx.GraphProto) -> list[str]:
    """The outer values that a body reads, in order."""
    own = {*(v.name for v in graph.input), *(t.name for t in graph.initializer)}
    own |= {t.values.name for t in graph.sparse_initializer}
    found: dict[str, None] = {}
    for node in graph.node:
        found |= dict.fromkeys(t for t in (*node.input, *free_in_bodies(node)) if t and t not in own)
        own |= {*node.output}
    return [*found, *(o.name for o in graph.output if o.name not in own and o.name not in found)]
