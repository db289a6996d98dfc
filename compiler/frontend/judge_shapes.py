"""A node's attributes and parameters beside shapes: the standard's own inference judges."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference

from ...ir.absent import lacking
from ...ir.dtypes import by_name
from ...ir.graph import InvalidModel
from .node import ModelNode
from .scope import Scope
from .standard import schema_of

MOST_SEEN = 64  # elements of a constant that inference looks at
STRICTER = frozenset(("Range",))  # than the standard's own bodies, which give it lists of one number
KEPT = 4096  # verdicts: the layers of a model are alike

SIZES_OVERFLOW = "Integer overflow"  # an error, and an exit code, of its own

Operand = tuple[str, tuple[int, ...], bytes | None] | None
"""The type, the shape and, of a small constant, the elements of an input; None for one that is left out."""


def judge_shapes(scope: Scope, node: ModelNode, opset: int) -> None:
    """Raises InvalidModel where onnx's inference refuses the node, whose inputs are tensors of the graph.

    It is asked about nodes that have more than data: attributes, or constants among their inputs.
    """
    if node.op_type in STRICTER or any(a.HasField("g") for a in node.proto.attribute):
        return
    graph, operands, more = scope.graph, list[Operand](), bool(node.proto.attribute)
    for name in node.proto.input:
        if not (t := scope.names[name]):
            operands.append(None)
            continue
        of, value = graph.tensors[t], graph.value(t)
        seen = value is not None and value.size <= MOST_SEEN and lacking([value]) is None
        more = more or seen
        operands.append((of.dtype.name, of.shape, value.tobytes() if value is not None and seen else None))
    if more:
        attributes = tuple(a.SerializeToString() for a in node.proto.attribute)
        outputs = tuple(map(bool, node.proto.output))
        if wrong := _verdict((node.op_type, node.domain, opset), attributes, tuple(operands), outputs):
            raise InvalidModel(wrong)


@lru_cache(KEPT)
def _verdict(
    operator: tuple[str, str, int],
    attributes: tuple[bytes, ...],
    operands: tuple[Operand, ...],
    outputs: tuple[bool, ...],
) -> str:
    """What onnx's inference says against such a node, "" for nothing."""
    op_type, domain, opset = operator
    schema = schema_of(op_type, domain, opset)
    if schema is None or not schema.has_type_and_shape_inference_function:
        return ""
    names = [f"x{i}" if operand is not None else "" for i, operand in enumerate(operands)]
    results = [f"y{i}" if given else "" for i, given in enumerate(outputs)]
    node = NodeProto(op_type=op_type, domain=domain, input=names, output=results)
    node.attribute.extend(map(onnx.AttributeProto.FromString, attributes))
    kinds: dict[str, TypeProto] = {}
    data: dict[str, TensorProto] = {}
    for name, operand in zip(names, operands, strict=True):
        if operand is None:
            continue
        dtype, shape, elements = operand
        numpy = by_name(dtype).numpy
        kinds[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(numpy), shape)
        if elements is not None:
            data[name] = numpy_helper.from_array(np.frombuffer(elements, numpy).reshape(shape))
    imports = [helper.make_opsetid(domain, opset)]
    try:
        shape_inference.infer_node_outputs(schema, node, kinds, data, opset_imports=imports)
    except shape_inference.InferenceError as e:
        if SIZES_OVERFLOW in str(e):
            return ""
        lines = [line for line in str(e).splitlines() if line.strip()] or ["invalid"]
        return lines[0].removeprefix("[ShapeInferenceError] ").removeprefix("[TypeInferenceError] ")
    except (RuntimeError, ValueError, onnx.checker.ValidationError):
        return ""  # it has none that is of use here, or is about types: `judge_nodes` saw to these
    return ""
