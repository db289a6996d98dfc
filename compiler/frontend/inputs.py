"""A model's inputs: each with a static shape, or with a value that is known when compiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ...ir.dtypes import by_onnx
from ...ir.graph import TooLarge
from ...ir.op import Array
from ..errors import DoesNotFit, OpenDimensions, UnsupportedModel, UsageError, quoted, shown
from .load import type_name
from .scope import Scope
from .types import why_held


@dataclass(frozen=True)
class Binding:
    """What a model leaves open and its user decides.

    dims: values of symbolic dimensions. shapes: whole shapes of inputs, which win over them. values: of
    inputs that become constants, as arrays of the input's type or as Python numbers and lists of them.
    """

    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


def add_inputs(
    scope: Scope, graph: onnx.GraphProto, given: Binding, held: bool = False
) -> list[onnx.ValueInfoProto]:
    """Declares the graph's inputs, those with a value as constants; gives the others.

    held: whether the host may hold inputs that no core can; else UnsupportedModel is raised for them.

    Raises UsageError where `given` does not suit the model, OpenDimensions, with all that are left open.
    """
    inputs = [v for v in graph.input if v.name not in scope.names]
    _judge_flags(inputs, given)
    values: dict[str, Array] = {}
    bound = dict(given.dims)
    for v in inputs:
        if v.name in given.shapes:
            _bind_shape(v, tuple(given.shapes[v.name]), bound)
    for v in inputs:
        if not held and by_onnx(v.type.tensor_type.elem_type) is None:
            raise UnsupportedModel(f"input {quoted(v.name)} {why_held(v.type)}")
        if v.name in given.values:
            values[v.name] = value = value_of(v, given.values[v.name])
            _bind(v, value.shape, bound, f"--value {shown(v.name)}: its shape is {list(value.shape)}")
    for name, value in values.items():
        scope.add_constant(name, value)
    rest = [v for v in inputs if v.name not in values]
    left: list[tuple[str, str]] = []
    for v in rest:
        try:
            _declare(scope, v, given, bound)
        except OpenDimensions as e:
            left += e.each
    if left:
        raise OpenDimensions(left)
    return rest


def _judge_flags(inputs: Sequence[onnx.ValueInfoProto], given: Binding) -> None:
    """Raises UsageError where a flag names no input, or no dimension, of the model."""
    names = {v.name for v in inputs}
    for flag, named in (("--shape", given.shapes), ("--value", given.values)):
        for name in named:
            if name not in names:
                listed = ", ".join(quoted(v.name) for v in inputs) or "none"
                raise UsageError(f"{flag} {quoted(name)}: no such input; the inputs are {listed}")
    symbols = sorted({s for v in inputs for d in v.type.tensor_type.shape.dim if (s := _symbol(d))})
    for name, size in given.dims.items():
        if name not in symbols:
            known = ", ".join(map(quoted, symbols)) or "none"
            raise UsageError(f"--dim {quoted(name)}: no such dimension; the model's are {known}")
        if size < 0:
            raise UsageError(f"--dim {shown(name)}={size}: a dimension is at least 0")


def _bind_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...], bound: dict[str, int]) -> None:
    flag = f"--shape {shown(value.name)}={','.join(map(str, shape))}"
    if any(n < 0 for n in shape):
        raise UsageError(f"{flag}: a dimension is at least 0")
    _bind(value, shape, bound, flag)


def _declare(scope: Scope, value: onnx.ValueInfoProto, given: Binding, bound: Mapping[str, int]) -> None:
    dtype = by_onnx(value.type.tensor_type.elem_type)
    if dtype is None:
        scope.enter(value.name, value.type)
        return
    try:
        shape = given.shapes[value.name] if value.name in given.shapes else _static_shape(value, bound)
        scope.add_input(value.name, shape, dtype)
    except TooLarge as e:
        raise DoesNotFit(f"input {quoted(value.name)}: {e}; try smaller sizes") from None


def value_of(value: onnx.ValueInfoProto, given: Any) -> Array:
    """A --value as an array of the input's type. Raises UsageError unless it is one, to the last digit."""
    flag, kind = f"--value {shown(value.name)}", value.type.tensor_type.elem_type
    if by_onnx(kind) is None:
        raise UsageError(f"{flag}: an input with element type {type_name(kind)} cannot be bound")
    wanted = helper.tensor_dtype_to_np_dtype(kind)
    array: Array
    if hasattr(given, "dtype"):
        array = np.asarray(given)
        if array.dtype != wanted:
            raise UsageError(f"{flag}: type {array.dtype}, the input has {wanted}")
        return array
    try:
        array = np.asarray(given)
        if array.size == 0:
            return np.zeros(array.shape, wanted)
        with np.errstate(over="ignore"):
            cast = array.astype(wanted)
        numbers = array.dtype.kind in "iuf" and wanted.kind != "b"
        same = np.asarray(cast == array).all() or (wanted.kind == "f" and np.isfinite(cast).all())
        if not (same and (numbers or array.dtype.kind == wanted.kind)):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"{flag}: {shown(str(given))} is no tensor of {wanted}") from None
    return cast


def _bind(value: onnx.ValueInfoProto, shape: tuple[int, ...], bound: dict[str, int], flag: str) -> None:
    """Checks a shape against the declared one and learns the dimensions that it names."""
    declared = value.type.tensor_type.shape.dim
    if value.type.tensor_type.HasField("shape") and len(declared) != len(shape):
        raise UsageError(f"{flag}: the input has {len(declared)} dimensions")
    for i, (d, n) in enumerate(zip(declared, shape, strict=False)):
        old = i == 0 and d.dim_value == 0  # of some exporters' batches a first 0 says that they are open
        if _fixed(d) and d.dim_value != n and not old:
            raise UsageError(f"{flag}: the model says {d.dim_value}, not {n}")
        if (symbol := _symbol(d)) and bound.setdefault(symbol, n) != n:
            raise UsageError(f"{flag}: {quoted(symbol)} is {bound[symbol]} elsewhere, not {n}")


def _fixed(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether the model gives a size; some exporters write -1 for an open one."""
    return dim.HasField("dim_value") and dim.dim_value >= 0


def _symbol(dim: onnx.TensorShapeProto.Dimension) -> str:
    """The name that ties dimensions of one size; "?" is what some exporters write for want of one."""
    return "" if dim.dim_param == "?" else dim.dim_param


def _static_shape(value: onnx.ValueInfoProto, bound: Mapping[str, int]) -> tuple[int, ...]:
    name = shown(value.name)
    if not value.type.tensor_type.HasField("shape"):
        raise OpenDimensions([(f"input '{name}' has no shape", f"--shape {name}=1,2,3")])
    shape: list[int] = []
    left: list[tuple[str, str]] = []
    for i, d in enumerate(value.type.tensor_type.shape.dim):
        if _fixed(d):
            shape.append(d.dim_value)
        elif (symbol := _symbol(d)) in bound:
            shape.append(bound[symbol])
        elif symbol:
            symbol = shown(symbol)
            left.append((f"input '{name}': dimension '{symbol}' is not bound", f"--dim {symbol}=N"))
        else:
            left.append((f"input '{name}': dimension {i} has no size", f"--shape {name}=..."))
    if left:
        raise OpenDimensions(left)
    return tuple(shape)
