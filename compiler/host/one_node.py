"""One node of a model as a model of its own, which is how an operator of the host is kept."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper, numpy_helper

from ...ir.op import Array

DRAWING = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)


def alone(
    node: onnx.NodeProto,
    proto: onnx.ModelProto,
    inputs: Mapping[str, onnx.TypeProto],
    constants: Mapping[str, Array | onnx.TensorProto],
) -> onnx.ModelProto:
    """A model of one node of `proto`. inputs: what a run gives, by type. constants: what the model holds."""
    values = [onnx.ValueInfoProto(name=name, type=kind) for name, kind in inputs.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    held = [_tensor(name, value) for name, value in constants.items()]
    graph = helper.make_graph([_repeatable(node)], "host", values, outputs, held)
    return helper.make_model(
        graph, opset_imports=proto.opset_import, functions=proto.functions, ir_version=proto.ir_version
    )


def _tensor(name: str, value: Array | onnx.TensorProto) -> onnx.TensorProto:
    if isinstance(value, onnx.TensorProto):
        out = onnx.TensorProto()
        out.CopyFrom(value)
        out.name = name
        return out
    return numpy_helper.from_array(value, name)


def _repeatable(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node, with a seed if it draws without one: a run gives the same every time."""
    if node.op_type not in DRAWING or any(a.name == "seed" for a in node.attribute):
        return node
    out = onnx.NodeProto()
    out.CopyFrom(node)
    out.attribute.append(helper.make_attribute("seed", 0.0))
    return out
