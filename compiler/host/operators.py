"""Operators that run on the host, in onnx's reference implementation, which is slow to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper
from onnx.reference import ReferenceEvaluator

from ...codegen.artifact.artifact import InvalidArtifact
from ...ir.dtypes import WEIGHTS
from ...runtime.play import Operator
from ..errors import InvalidInput, UnsupportedModel, quoted, shown
from ..frontend.free_names import CONTROL
from ..frontend.standard import schema_of
from ..frontend.texts import judge_texts
from ..frontend.types import types_of
from . import classic
from .ours import OURS

NARROW = tuple(t.numpy for t in WEIGHTS)


def operator(content: bytes) -> Operator:
    """What a one-node model computes. Raises UnsupportedModel where onnx has no implementation of it."""
    try:
        model = onnx.ModelProto.FromString(content)
        node = model.graph.node[0]
        judge_texts(model)
    except (DecodeError, IndexError, InvalidInput):
        raise InvalidArtifact("an operator of the host is damaged") from None
    try:
        evaluator: Any = ReferenceEvaluator(model, new_ops=list(OURS))
    except Exception as e:  # whatever it raises for what it does not know
        lines = str(e).splitlines() or [type(e).__name__]
        raise UnsupportedModel(f"operator {quoted(node.op_type)}: {shown(lines[0], 160)}") from None
    given = {v.name: v.type for v in model.graph.input}
    kinds = {name: helper.tensor_dtype_to_np_dtype(n) for name, n in _declared(model).items()}
    kept = [name for name in node.output if name]
    wider = _wider(node, model, kinds)

    def run(values: Sequence[Any]) -> list[Any]:
        feed = {n: _typed(v, t) for (n, t), v in zip(given.items(), values, strict=True)}
        with np.errstate(all="ignore"):
            results = evaluator.run(None, {n: wider(v) for n, v in feed.items()})
        found = {n: _plain(r, kinds.get(n)) for n, r in zip(kept, results, strict=True)}
        return [found.get(name) for name in node.output]

    return run


def _wider(
    node: onnx.NodeProto, model: onnx.ModelProto, kinds: Mapping[str, np.dtype[Any]]
) -> Callable[[Any], Any]:
    """A value in the type that it is computed in, so that results are rounded once: as `classic` has it, and
    floats of 16 bits in f32 where the results are known to have 16 bits, too."""
    if node.domain == classic.DOMAIN:
        opset = next((o.version for o in model.opset_import if o.domain == node.domain), 1)
        schema = schema_of(node.op_type, node.domain, opset)
        return lambda x: np.asarray(x, classic.computed_in(schema, x.dtype)) if hasattr(x, "dtype") else x
    narrow = [k for k in kinds.values() if k.kind != "O"]
    if node.domain or node.op_type in CONTROL or not narrow or not all(k in NARROW for k in narrow):
        return lambda x: x
    return lambda x: np.asarray(x, np.float32) if getattr(x, "dtype", None) in NARROW else x


def _declared(model: onnx.ModelProto) -> dict[str, int]:
    """The element types of the outputs that are known to be tensors."""
    known = {name: kind.tensor_type.elem_type for name, kind in types_of(model).items()}
    return {name: n for name, n in known.items() if n}


def _typed(value: Any, kind: onnx.TypeProto) -> Any:
    """A value for an input of this type: in maps keys and values get the types that it says."""
    if isinstance(value, list) and kind.HasField("sequence_type"):
        return [_typed(item, kind.sequence_type.elem_type) for item in cast(list[Any], value)]
    if isinstance(value, dict) and kind.HasField("map_type"):
        of = helper.tensor_dtype_to_np_dtype(kind.map_type.value_type.tensor_type.elem_type)
        key = str if kind.map_type.key_type == onnx.TensorProto.STRING else int
        held = cast(dict[Any, Any], value)
        return {key(k): str(v) if of.kind == "O" else of.type(v) for k, v in held.items()}
    return cast(Any, value)


def _plain(result: Any, kind: np.dtype[Any] | None) -> Any:
    """A result as a script knows it: an array, of objects where they are str; a list; a dict; None."""
    if result is None or isinstance(result, dict):
        return cast(Any, result)
    if isinstance(result, list):
        return [_plain(item, None) for item in cast(list[Any], result)]
    array = np.asarray(result)
    if array.dtype.kind in "UST":
        return array.astype(object)
    # the reference's NumPy may compute in a wider type than the operator's
    return array.astype(kind) if kind is not None and kind.kind != "O" and array.dtype != kind else array
