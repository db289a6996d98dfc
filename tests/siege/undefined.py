"""Results in which no two runtimes need agree: what is drawn, inverses, and powers of integers.

The standard does not say what an integer is that is to be past its type's range; ours, onnxruntime's and
NumPy's powers differ there (docs/numerics.md). Of a type that is not told a power may be one of integers.
A changed matrix may be singular, whose inverse is whatever roundings make of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

DRAWING = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
)
SINGULAR = ("Inverse",)
FLOATS = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.BFLOAT16,
)
STEPS = 20  # from a power back to where its type is told


def is_undefined(content: bytes) -> bool:
    """Whether a model holds such a node, or cannot be read."""
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        return True
    graphs = [(model.graph, dict[str, int]())]
    for nodes in (model.graph.node, *(f.node for f in model.functions)):
        if any(n.op_type in (*DRAWING, *SINGULAR) for n in _all(nodes)):
            return True
    if any(n.op_type == "Pow" for f in model.functions for n in _all(f.node)):
        return True
    while graphs:
        graph, outer = graphs.pop()
        kinds = outer | _told(graph)
        makers = {name: n for n in graph.node for name in n.output if name}
        for n in graph.node:
            if n.op_type == "Pow" and (not n.input or _kind(n.input[0], kinds, makers) not in FLOATS):
                return True
            graphs += [(g, kinds) for a in n.attribute for g in (a.g, *a.graphs) if g.node]
    return False


def _all(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for n in nodes:
        yield n
        for a in n.attribute:
            for g in (a.g, *a.graphs):
                yield from _all(g.node)


def _told(graph: onnx.GraphProto) -> dict[str, int]:
    ends = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output, *graph.input)}
    return ends | {t.name: t.data_type for t in graph.initializer}


def _kind(name: str, kinds: dict[str, int], makers: dict[str, onnx.NodeProto]) -> int:
    """A tensor's element type, or of what it is made of where its operator keeps the type; 0: not told."""
    for _ in range(STEPS):
        if kind := kinds.get(name, 0):
            return kind
        node = makers.get(name)
        if node is None:
            return 0
        if node.op_type == "Cast":
            return next((a.i for a in node.attribute if a.name == "to"), 0)
        if not onnx.defs.has(node.op_type, node.domain) or not node.input:
            return 0
        schema = onnx.defs.get_schema(node.op_type, domain=node.domain)
        if schema.outputs[0].type_str != schema.inputs[0].type_str or name != node.output[0]:
            return 0
        name = node.input[0]
    return 0
