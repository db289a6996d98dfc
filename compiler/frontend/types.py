"""Types of ONNX values, and what is known of their shapes before a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, shape_inference

from ...ir.dtypes import by_onnx
from .large import large_apart
from .load import type_name
from .opsets import domain_of
from .standard import schema_of

CLASSIC = "ai.onnx.ml"
ELEMENT_BY_ELEMENT = ("Scaler", "Normalizer", "Imputer", "Binarizer")


def types_of(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """The types of a model's outputs, as far as its inputs' types tell them."""
    try:
        found = shape_inference.infer_shapes(large_apart(model), data_prop=True).graph.output
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    known = {v.name: v.type for v in found if v.type.WhichOneof("value")}
    return {**_stated(model), **known}


def _stated(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """The element types of outputs that the schemas of their nodes leave no choice; of many classic operators
    onnx infers nothing. A result that has one for each element of its first operand has its shape."""
    versions = {domain_of(o.domain): o.version for o in model.opset_import}
    inputs = {v.name: v.type for v in model.graph.input}
    out: dict[str, onnx.TypeProto] = {}
    for node in model.graph.node:
        schema = schema_of(node.op_type, node.domain, versions.get(domain_of(node.domain), 1))
        if schema is None or node.domain != CLASSIC:
            continue
        for name, formal in zip(node.output, schema.outputs, strict=False):
            first = inputs.get(node.input[0]) if node.input else None
            same = first is not None and formal.type_str == schema.inputs[0].type_str
            if formal.type_str != "tensor(float)" and not same:
                continue
            kind = onnx.TypeProto()
            if first is not None and (same or node.op_type in ELEMENT_BY_ELEMENT):
                kind.CopyFrom(first)
            if not same:
                kind.tensor_type.elem_type = onnx.TensorProto.FLOAT
            out[name] = kind
    return out


def static(kind: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """The shape of a tensor that a core can hold; None for another type, or a shape that is not known."""
    if kind is None or not kind.HasField("tensor_type"):
        return None
    tensor = kind.tensor_type
    if by_onnx(tensor.elem_type) is None or not tensor.HasField("shape"):
        return None
    if not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return tuple(d.dim_value for d in tensor.shape.dim)


def known_sizes(kind: onnx.TypeProto) -> list[int | None] | None:
    """A tensor's sizes, None for one that is not known or below 0; None where their number is not."""
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim]


def _tensor(kind: onnx.TypeProto, sizes: Sequence[int | None] | None) -> onnx.TypeProto:
    """The type of a tensor with elements as in another and these sizes, as in `known_sizes`."""
    return helper.make_tensor_type_proto(kind.tensor_type.elem_type, sizes)


def scalar(elem_type: int) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(elem_type, ())


def either(a: onnx.TypeProto, b: onnx.TypeProto) -> onnx.TypeProto:
    """The type of a value that has one of two types; nothing is known where they have nothing in common."""
    if a == b:
        return a
    if a.HasField("tensor_type") and b.HasField("tensor_type"):
        if a.tensor_type.elem_type == b.tensor_type.elem_type:
            one, other = known_sizes(a), known_sizes(b)
            if one is None or other is None or len(one) != len(other):
                return _tensor(a, None)
            return _tensor(a, [n if n == m else None for n, m in zip(one, other, strict=True)])
    elif a.WhichOneof("value") == b.WhichOneof("value"):
        return a
    return onnx.TypeProto()


def slice_of(kind: onnx.TypeProto, axis: int) -> onnx.TypeProto:
    """The type of a tensor's slices along an axis."""
    sizes = known_sizes(kind)
    if sizes is None:
        return _tensor(kind, None)
    del sizes[axis]
    return _tensor(kind, sizes)


def stacked_of(kind: onnx.TypeProto, axis: int, count: int | None) -> onnx.TypeProto:
    """The type of `count` tensors (None: some) stacked along a new axis."""
    sizes = known_sizes(kind)
    if sizes is None:
        return _tensor(kind, None)
    sizes.insert(axis if axis >= 0 else len(sizes) + 1 + axis, count)
    return _tensor(kind, sizes)


def empty_of(kind: onnx.TypeProto, declared: onnx.TypeProto) -> tuple[str, tuple[int, ...]]:
    """NumPy's name of a tensor's type, and its shape where no run has made one: sizes that are not known are
    as the model declares them, else 0."""
    elem_type = kind.tensor_type.elem_type or onnx.TensorProto.FLOAT
    name = np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).name
    sizes, said = known_sizes(kind), known_sizes(declared)
    if sizes is None:
        sizes = said or []
    elif said is not None and len(said) == len(sizes):
        sizes = [m if n is None else n for n, m in zip(sizes, said, strict=True)]
    return name, tuple(n or 0 for n in sizes)


def why_held(kind: onnx.TypeProto) -> str:
    """Why a value is none that a core holds."""
    what = kind.WhichOneof("value") or "nothing"
    if what != "tensor_type":
        return f"is a {what.removesuffix('_type')}" if what != "nothing" else "has a type that is not known"
    if by_onnx(kind.tensor_type.elem_type) is None:
        return f"has element type {type_name(kind.tensor_type.elem_type)}"
    return "has a shape that depends on data"
