"""Every type that docs/operators.md promises of an operator, as a model: one of ONNX's own with the type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from suite import all_cases, data_of, model_of
from waferc.compiler.catalogue import Operator, operators
from waferc.ir.dtypes import BOOL, F32, DType, stored_as
from waferc.ir.op import Array

NAMED_BY = ("dtype", "to", "output_dtype", "output_datatype")  # attributes that are a type
TRIED = 12  # models of ONNX's that are tried for a type


@dataclass(frozen=True)
class Promised:
    """One operator, and what one of its type parameters may be."""

    operator: Operator
    parameter: str
    dtype: DType

    def __str__(self) -> str:
        return f"{self.operator.full_name}-{self.parameter}-{self.dtype}"


def promises() -> Iterator[Promised]:
    """All of operators on the wafer but for control flow, whose values are whatever its bodies compute."""
    for o in operators():
        if o.place == "wafer" and o.name not in ("If", "Loop", "Scan") and onnx.defs.has(o.name, o.domain):
            yield from (Promised(o, parameter, t) for parameter, types in o.types for t in types)


@cache
def examples() -> Mapping[tuple[str, str], Sequence[tuple[onnx.ModelProto, Sequence[Any]]]]:
    """ONNX's models of one node with their inputs, by operator, those with the fewest elements first."""
    found: dict[tuple[str, str], list[tuple[int, str, onnx.ModelProto, Sequence[Any]]]] = defaultdict(list)
    for case in all_cases():
        model = model_of(case)
        if len(model.graph.node) == 1 and (data := data_of(case, model)):
            node, inputs = model.graph.node[0], data[0][0]
            if all(isinstance(x, np.ndarray | np.generic) and x.dtype.kind not in "OUS" for x in inputs):
                inputs = [np.asarray(x) for x in inputs]
                size = sum(int(x.size) for x in inputs)
                domain = "" if node.domain == "ai.onnx" else node.domain
                found[domain, node.op_type].append((size, case.name, model, inputs))
    return {key: [(m, x) for *_, m, x in sorted(rows, key=lambda r: r[:2])] for key, rows in found.items()}


def as_type(x: Array, dtype: DType) -> Array:
    """Numbers of about the same size in another type."""
    with np.errstate(over="ignore"):
        wide = np.nan_to_num(x.astype(np.float32), posinf=9, neginf=-9)
    if dtype == BOOL:
        return wide != 0
    if dtype.is_float:
        return stored_as(wide, dtype) if dtype.bytes < F32.bytes else wide.astype(dtype.numpy)
    whole = np.rint(wide) if np.abs(wide).max(initial=0) >= 2 else np.rint(wide * 4)
    low, high = dtype.limits
    return np.clip(np.abs(whole) if low == 0 else whole, max(low, -64), min(high, 64)).astype(dtype.numpy)


def model_with(
    one: Promised, model: onnx.ModelProto, inputs: Sequence[Array], known: bool
) -> tuple[onnx.ModelProto, dict[str, Array]] | None:
    """The model with the type in it, and its inputs; None where onnx refuses it, or the type has no place.

    known: inputs of integers and bools as constants, all of an operator with limits.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    out.ClearField("metadata_props")
    graph, node = out.graph, out.graph.node[0]
    kind = helper.np_dtype_to_tensor_dtype(one.dtype.numpy)
    version = next(o.version for o in out.opset_import if o.domain in (one.operator.domain, "ai.onnx"))
    schema: Any = onnx.defs.get_schema(one.operator.name, version, one.operator.domain)
    names = _names(node.input, schema.inputs, one.parameter)
    if len(graph.input) != len(inputs):
        return None
    fed = {v.name: np.asarray(x) for v, x in zip(graph.input, inputs, strict=True)}
    placed = False
    for value in graph.input:
        if value.name in names:
            value.type.tensor_type.elem_type, placed = kind, True
            fed[value.name] = as_type(fed[value.name], one.dtype)
    for held in graph.initializer:
        if held.name in names:
            held.CopyFrom(numpy_helper.from_array(as_type(numpy_helper.to_array(held), one.dtype), held.name))
            placed = True
    for value in list(graph.input) if known else ():
        if one.operator.limits or fed[value.name].dtype.kind in "iub":
            graph.initializer.append(numpy_helper.from_array(fed.pop(value.name), value.name))
            graph.input.remove(value)
    if not placed:
        placed = _by_attribute(node, schema, kind, one.dtype)
    shapes = [value.type.tensor_type.shape for value in model.graph.output]
    for value in graph.output:
        value.type.tensor_type.ClearField("elem_type")
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(out, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError):
        return None
    kinds = [v.type.tensor_type.elem_type for v in inferred.graph.output]
    made = kind in (k for k, name in zip(kinds, node.output, strict=False)) and not names
    if not all(kinds) or not (placed or made):
        return None
    for value, found, shape in zip(graph.output, inferred.graph.output, shapes, strict=True):
        value.CopyFrom(found)
        value.type.tensor_type.shape.CopyFrom(shape)
    return out, fed


def _names(given: Sequence[str], formal: Sequence[Any], parameter: str) -> set[str]:
    """The values that have a type parameter; the last formal one may stand for several."""
    last = len(formal) - 1
    return {t for i, t in enumerate(given) if t and formal[min(i, last)].type_str == parameter}


def _by_attribute(node: onnx.NodeProto, schema: Any, kind: int, dtype: DType) -> bool:
    """Puts the type into an attribute that decides it."""
    for name in NAMED_BY:
        if name in schema.attributes:
            kept = [a for a in node.attribute if a.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, kind)])
            return True
    for a in node.attribute:
        if a.type == onnx.AttributeProto.TENSOR:
            a.t.CopyFrom(numpy_helper.from_array(as_type(numpy_helper.to_array(a.t), dtype), a.t.name))
            return True
    return False


def models_of(one: Promised) -> Iterator[tuple[onnx.ModelProto, dict[str, Array]]]:
    """Models with the promised type, and their inputs: first with all of them, then with numbers that may
    have to be known as constants. None where onnx has no example that takes the type."""
    for model, inputs in examples().get((one.operator.domain, one.operator.name), ())[:TRIED]:
        for known in (False, True):
            found = model_with(one, model, inputs, known)
            if found is not None:
                yield found
