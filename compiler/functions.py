"""Operators that the ONNX standard itself defines by other operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import onnx


def _schema(op_type: str, domain: str, opset: int) -> Any:
    """The operator's schema, whose members onnx's stubs do not list; None without one."""
    try:
        return cast(Any, onnx.defs.get_schema(op_type, opset, domain))
    except onnx.defs.SchemaError:
        return None


def has_body(op_type: str, domain: str, opset: int) -> bool:
    schema = _schema(op_type, domain, opset)
    return schema is not None and bool(schema.has_function or schema.has_context_dependent_function)


def body_of(
    node: onnx.NodeProto, domain: str, opset: int, types: Sequence[bytes]
) -> onnx.FunctionProto | None:
    """The standard's body for `node`, whose inputs have `types` (serialised); None without one.

    It has the operator's default attributes, to which it may refer like to given ones.
    """
    schema = _schema(node.op_type, domain, opset)
    if schema is None:
        return None
    content: Any = None
    if schema.has_function:
        versions = [int(v) for v in schema.function_opset_versions if v <= opset]
        if versions:
            content = schema.get_function_with_opset_version(max(versions))
    elif schema.has_context_dependent_function:
        versions = [int(v) for v in schema.context_dependent_function_opset_versions if v <= opset]
        if versions:
            content = schema.get_context_dependent_function_with_opset_version(
                max(versions), node.SerializeToString(), types
            )
    if content is None:
        return None
    body = onnx.FunctionProto()
    body.MergeFromString(content if isinstance(content, bytes) else content.SerializeToString())
    defaults = [cast(onnx.AttributeProto, a.default_value) for a in schema.attributes.values()]
    body.attribute_proto.extend(d for d in defaults if d.type != onnx.AttributeProto.UNDEFINED)
    return body
