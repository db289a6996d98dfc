"""Models without their large tensors: a message has less than 2 GiB, and what is made of one is a copy."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx
from onnx import TensorProto, helper

LARGE = 4096  # bytes of a tensor that is left out


def without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with empty tensors in place of its large ones, for onnx's checker.

    The checker is given a serialised copy: of a model with its weights that takes seconds and as much
    memory again, and more than 2 GiB cannot be serialised at all. Inputs and outputs have a shape there,
    which it asks for and we do not, and outputs a type.
    """
    out = _bare(proto)
    for v in (*out.graph.input, *out.graph.output):
        if v.type.HasField("tensor_type"):
            v.type.tensor_type.shape.SetInParent()
    for v in out.graph.output:
        if v.type.WhichOneof("value") is None or (
            v.type.HasField("tensor_type") and not v.type.tensor_type.elem_type
        ):
            v.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, ()))
    for node in out.graph.node:
        _undeprecated(node)
    for tensor in proto.graph.initializer:
        if is_large(tensor):
            out.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=[0])
        else:
            out.graph.initializer.append(tensor)
    return out


def _undeprecated(node: onnx.NodeProto) -> None:
    """GroupNormalization of opsets 18 to 20 under another name: the checker takes none that a later opset
    replaces. The nodes of bodies, too."""
    for a in node.attribute:
        for inner in a.g.node if a.HasField("g") else ():
            _undeprecated(inner)
    if node.op_type == "GroupNormalization" and not node.domain:
        node.op_type = "InstanceNormalization"  # of the same inputs and outputs
        kept = [a for a in node.attribute if a.name == "epsilon"]
        del node.attribute[:]
        node.attribute.extend(kept)


def large_apart(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inputs in place of its large initializers, for what only asks for their types.

    As `without_weights`: no message may have 2 GiB.
    """
    out, listed = _bare(proto), {v.name for v in proto.graph.input}
    for tensor in proto.graph.initializer:
        if not is_large(tensor):
            out.graph.initializer.append(tensor)
        elif tensor.name not in listed:
            kind = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            out.graph.input.append(helper.make_value_info(tensor.name, kind))
    return out


def is_large(tensor: TensorProto) -> bool:
    """Whether a tensor is left out where its values do not matter."""
    if tensor.data_location == TensorProto.EXTERNAL or prod(tensor.dims) > LARGE:
        return True
    return tensor.ByteSize() > LARGE  # of one of 2 GiB it would fail


def _bare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its initializers."""
    out = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _set(out, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _set(out.graph, field.name, value)
    return out


def _set(message: Any, name: str, value: Any) -> None:
    """Copies a field from another message of the same kind."""
    mine = getattr(message, name)
    if hasattr(mine, "MergeFrom"):
        mine.MergeFrom(value)
    else:
        setattr(message, name, value)
