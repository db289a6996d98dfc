"""Every type that docs/operators.md promises of an operator, in a model: one of ONNX's own, or ours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from nodes import Case, case
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


def _normal(*shape: int) -> Array:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def _layer(op_type: str, gates: int) -> Case:
    """A recurrent layer, forward, of 3 steps, batch 2, from 4 features to 5, with lengths."""
    weights = _normal(1, gates * 5, 4), _normal(1, gates * 5, 5)
    lengths = np.array([3, 2], np.int32)
    more = {"outputs": 3 if op_type == "LSTM" else 2, "constants": [1, 2], "hidden_size": 5}
    return case(op_type, _normal(3, 2, 4), *weights, None, lengths, **more)


def own_examples() -> Iterator[Case]:
    """Of operators that onnx has no test of, or none into which each type goes."""
    x, one = _normal(2, 3, 4), np.float32(1)
    yield case("GlobalLpPool", _normal(1, 2, 4, 4), p=2, opset=22)
    yield case("MeanVarianceNormalization", _normal(2, 3, 4, 4), axes=[0, 2, 3])
    yield case("LayerNormalization", x, _normal(4), outputs=2)
    yield case("LayerNormalization", x, _normal(4), outputs=2, stash_type=onnx.TensorProto.BFLOAT16)
    for kind in (np.float16, ml_dtypes.bfloat16, np.float64):
        yield case("RMSNormalization", x.astype(kind), _normal(4).astype(kind), opset=23)
    yield case("Multinomial", _normal(2, 5), sample_size=4, seed=1.0, opset=22)
    yield case("Multinomial", _normal(2, 5), sample_size=4, seed=1.0, opset=22, dtype=onnx.TensorProto.INT64)
    for name in ("RandomNormal", "RandomUniform"):
        yield case(name, shape=[2, 3], seed=1.0, opset=22, dtype=onnx.TensorProto.FLOAT)
        yield case(f"{name}Like", x, seed=1.0, opset=22)
        yield case(f"{name}Like", x, seed=1.0, opset=22, dtype=onnx.TensorProto.FLOAT)
    eighths, powers = _normal(4, 3).astype(ml_dtypes.float8_e4m3fn), np.ones(3, ml_dtypes.float8_e8m0fnu)
    yield case("DequantizeLinear", eighths, powers, opset=24, output_dtype=onnx.TensorProto.FLOAT)
    yield case("MelWeightMatrix", *(np.int64(n) for n in (8, 16, 8192)), one, 4 * one, constants=range(5))
    yield from (_layer(name, gates) for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)))
    yield case("DFT", _normal(1, 8, 2), np.int64(8), np.int64(1), constants=[1, 2], opset=20)
    yield case("Resize", _normal(1, 1, 4, 4), None, 2 * np.ones(4, np.float32), constants=[2])
    crop = np.array([0, 0, 0.25, 0.25, 1, 1, 0.75, 0.75], np.float32)
    more = {"constants": [1, 2], "coordinate_transformation_mode": "tf_crop_and_resize"}
    yield case("Resize", _normal(1, 1, 4, 4), crop, np.ones(4, np.float32), **more)
    image, filters = np.arange(32).reshape(1, 2, 4, 4), np.arange(16).reshape(2, 2, 2, 2)
    scales = [np.float32(0.5), np.uint8(0)]
    bias = np.array([1, -2], np.int32)
    yield case(
        "QLinearConv", image.astype(np.uint8), *scales, filters.astype(np.uint8), *scales, *scales, bias
    )
    for kind in (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2, ml_dtypes.float4_e2m1fn):
        to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        yield case("BitCast", np.ones((2, 4), kind), opset=26, to=to)
    for kind in (np.int8, np.uint8, np.int16, np.float16):
        to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        yield case("BitCast", np.ones((2, 4), kind), opset=26, to=to)


@cache
def examples() -> Mapping[tuple[str, str], Sequence[tuple[onnx.ModelProto, Sequence[Any]]]]:
    """ONNX's models of one node with their inputs, by operator, those with the fewest elements first."""
    found: dict[tuple[str, str], list[tuple[int, str, onnx.ModelProto, Sequence[Any]]]] = defaultdict(list)
    for theirs in all_cases():
        model = model_of(theirs)
        if len(model.graph.node) == 1 and (data := data_of(theirs, model)):
            node, inputs = model.graph.node[0], data[0][0]
            if all(isinstance(x, np.ndarray | np.generic) and x.dtype.kind not in "OUS" for x in inputs):
                inputs = [np.asarray(x) for x in inputs]
                size = sum(int(x.size) for x in inputs)
                domain = "" if node.domain == "ai.onnx" else node.domain
                found[domain, node.op_type].append((size, theirs.name, model, inputs))
    for one in own_examples():  # before onnx's, which are too many for some
        found["", one.op_type].append((0, "", one.proto(), list(one.fed().values())))
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
        # MeanVarianceNormalization's body has constants of f32 beside what it takes
        strict = one.operator.name != "MeanVarianceNormalization"
        inferred = shape_inference.infer_shapes(out, strict, strict, data_prop=True)
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
    have to be known as constants. None where no example takes the type."""
    for model, inputs in examples().get((one.operator.domain, one.operator.name), ())[:TRIED]:
        for known in (False, True):
            found = model_with(one, model, inputs, known)
            if found is not None:
                yield found
