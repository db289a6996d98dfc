"""What the ONNX standard says of operators: opsets, and bodies of those that are defined by others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

import onnx

from ...ir.graph import InvalidModel
from ...ir.rules import REGISTRY
from ..errors import quoted

OLDEST_OPSET = 6
# What onnxruntime's optimizer writes at its highest level, in blocks as wide as a machine's vectors.
MACHINES = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
DEPTH_LIMIT = 64  # functions within functions: a body that calls itself would never end


def why_unknown(op_type: str, domain: str, opset: int) -> str:
    """Why there is neither a rule for an operator nor a body."""
    if domain in MACHINES:
        return "its constants are laid out for one machine; save the model with ORT_ENABLE_EXTENDED at most"
    if domain and domain not in _domains():
        ruled = [name for of, name in REGISTRY if of == domain]
        known = f"of domain {quoted(domain)} {len(ruled)} operators are known, not this one"
        return known if ruled else f"domain {quoted(domain)} is not known"
    if not onnx.defs.has(op_type, domain):
        where = domain or "ONNX"
        newest = f" up to opset {onnx.defs.onnx_opset_version()}" if not domain else ""
        return f"no such operator in {where}{newest}"
    return "no rule for the wafer" if domain else f"no rule for the wafer in opset {opset}"


@cache
def _domains() -> frozenset[str]:
    schemas: Any = onnx.defs.get_all_schemas()
    return frozenset(str(s.domain) for s in schemas)


def schema_of(op_type: str, domain: str, opset: int) -> Any:
    """The operator's schema, whose members onnx's stubs do not list; None without one."""
    try:
        return cast(Any, onnx.defs.get_schema(op_type, opset, domain))
    except onnx.defs.SchemaError:
        return None


def result_types(op_type: str, domain: str, opset: int) -> Sequence[Sequence[int]]:
    """For each result the operands that have its type parameter."""
    schema = schema_of(op_type, domain, opset)
    formal = [] if schema is None else [i.type_str for i in schema.inputs]
    results = [] if schema is None else [o.type_str for o in schema.outputs]
    return [[i for i, kind in enumerate(formal) if kind == of] for of in results]


def states_types(op_type: str, domain: str, opset: int) -> bool:
    """Whether the standard says which types an operator's body computes in, as it does of Attention's."""
    schema = schema_of(op_type, domain, opset)
    return schema is not None and "softmax_precision" in schema.attributes


def has_body(op_type: str, domain: str, opset: int) -> bool:
    schema = schema_of(op_type, domain, opset)
    return schema is not None and bool(schema.has_function or schema.has_context_dependent_function)


def body_of(
    node: onnx.NodeProto, domain: str, opset: int, types: Sequence[bytes]
) -> onnx.FunctionProto | None:
    """The standard's body for `node`, whose inputs have `types` (serialised); None without one.

    It has the operator's default attributes, to which it may refer like to given ones.
    """
    schema = schema_of(node.op_type, domain, opset)
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
    if not body.node:
        raise InvalidModel("the standard's definition of the operator has no place for such a node")
    defaults = [cast(onnx.AttributeProto, a.default_value) for a in schema.attributes.values()]
    body.attribute_proto.extend(d for d in defaults if d.type != onnx.AttributeProto.UNDEFINED)
    return body


def with_attributes(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    """A function body's node with references to the function's attributes replaced."""
    if not any(a.ref_attr_name for a in node.attribute):
        return node
    out = onnx.NodeProto()
    out.CopyFrom(node)
    del out.attribute[:]
    for a in node.attribute:
        if not a.ref_attr_name:
            out.attribute.append(a)
        elif a.ref_attr_name in given:
            value = onnx.AttributeProto()
            value.CopyFrom(given[a.ref_attr_name])
            value.name = a.name
            out.attribute.append(value)
    return out
