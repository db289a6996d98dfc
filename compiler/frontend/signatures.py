"""What operators take and make: types, attributes and how many, as onnx's schemas have them.

Of an operator that onnx has no schema of, what its rule says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from onnx import TensorProto, TypeProto, helper

from ...ir.dtypes import by_onnx
from ...ir.rules import REGISTRY
from .standard import schema_of

MANY = 2**31 - 1  # inputs or outputs, where the standard sets no bound


@dataclass(frozen=True)
class Parameter:
    """A formal input or output.

    kind: a type parameter, or a type. single: it must be given. variadic: the last one, which stands for
    all that follow. alike: those have one type.
    """

    name: str
    kind: str
    single: bool
    variadic: bool
    alike: bool


@dataclass(frozen=True)
class Attribute:
    """An attribute: one of `AttributeProto`'s types, by number."""

    kind: int
    required: bool


@dataclass(frozen=True)
class Signature:
    """What one version of an operator takes and makes.

    fewest and most: numbers of (inputs, outputs). allowed: types by type parameter. attributes: None where
    nobody lists them. schema: onnx's, if there is one. says: the types of one without it.
    """

    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    fewest: tuple[int, int]
    most: tuple[int, int]
    allowed: Mapping[str, frozenset[str]]
    attributes: Mapping[str, Attribute] | None
    schema: Any
    says: str = ""

    def input(self, i: int) -> Parameter:
        return self.inputs[min(i, len(self.inputs) - 1)]

    def output(self, i: int) -> Parameter:
        return self.outputs[min(i, len(self.outputs) - 1)]

    def types(self, parameter: Parameter) -> frozenset[str]:
        """The types that a parameter may have."""
        return self.allowed.get(parameter.kind) or frozenset((parameter.kind,))


@cache
def signature_of(op_type: str, domain: str, opset: int) -> Signature | None:
    """The operator's signature in an opset of its domain; None for one that nobody describes."""
    schema = schema_of(op_type, domain, opset)
    if schema is not None:
        return _of_schema(schema)
    rule = REGISTRY.get((domain, op_type))
    if rule is None or not rule.types:
        return None
    numbers = [[helper.np_dtype_to_tensor_dtype(t.numpy) for t in types] for _, types in rule.types]
    allowed = frozenset(tensor_type(n) for of in numbers for n in of)
    # which parameter stands where is not said: of several, each may be any
    alike = len(rule.types) == 1
    first = Parameter("the first", "T", single=True, variadic=False, alike=alike)
    # Which of the others may be left out its rule knows.
    each = Parameter("it", "T", single=False, variadic=True, alike=alike)
    says = ", ".join(dict.fromkeys(t.name for _, types in rule.types for t in types))
    return Signature((first, each), (each,), (0, 0), (MANY, MANY), {"T": allowed}, None, None, says)


def _of_schema(schema: Any) -> Signature:
    return Signature(
        tuple(map(_parameter, schema.inputs)),
        tuple(map(_parameter, schema.outputs)),
        (schema.min_input, schema.min_output),
        (schema.max_input, schema.max_output),
        {
            c.type_param_str: _widened(frozenset(t.replace(" ", "") for t in c.allowed_type_strs))
            for c in schema.type_constraints
        },
        {a.name: Attribute(int(a.type.value), bool(a.required)) for a in schema.attributes.values()},
        schema,
    )


def _widened(allowed: frozenset[str]) -> frozenset[str]:
    """A parameter's types with those that we take besides: bf16 wherever f32 goes, and any elements that a
    core stores where the operator moves all that its opset knew, text and complex numbers among it."""
    more: set[str] = {"tensor(bfloat16)"} if "tensor(float)" in allowed else set()
    if {"tensor(string)", "tensor(complex64)"} <= allowed:
        more |= {tensor_type(n) for n in TensorProto.DataType.values() if by_onnx(n) is not None}
    return allowed | more


def _parameter(formal: Any) -> Parameter:
    option = formal.option.name
    kind = formal.type_str.replace(" ", "")
    return Parameter(formal.name, kind, option == "Single", option == "Variadic", bool(formal.is_homogeneous))


# -- types as schemas spell them --------------------------------------------------------
@cache
def tensor_type(number: int) -> str:
    """The tensors with an element type, "" for none that the standard has."""
    if number not in TensorProto.DataType.values() or number == TensorProto.UNDEFINED:
        return ""
    return f"tensor({TensorProto.DataType.Name(number).lower()})"


def spelled(kind: TypeProto) -> str:
    """A type as schemas spell it, shapes apart; "" for one that is not known."""
    match kind.WhichOneof("value"):
        case "tensor_type":
            return tensor_type(kind.tensor_type.elem_type)
        case "sparse_tensor_type":
            inner = tensor_type(kind.sparse_tensor_type.elem_type)
            return f"sparse_{inner}" if inner else ""
        case "sequence_type":
            inner = spelled(kind.sequence_type.elem_type)
            return f"seq({inner})" if inner else ""
        case "optional_type":
            inner = spelled(kind.optional_type.elem_type)
            return f"optional({inner})" if inner else ""
        case "map_type":
            key, value = tensor_type(kind.map_type.key_type), spelled(kind.map_type.value_type)
            return f"map({_elements(key)},{_elements(value)})" if key and value else ""
        case _:
            return ""


@cache
def type_of(spelling: str) -> TypeProto | None:
    """The type that is spelled so, of any shape; None for one that is not known, and for maps."""
    outer, _, inner = spelling.removesuffix(")").partition("(")
    if outer == "tensor":
        return helper.make_tensor_type_proto(TensorProto.DataType.Value(inner.upper()), None)
    if outer == "sparse_tensor":
        return helper.make_sparse_tensor_type_proto(TensorProto.DataType.Value(inner.upper()), None)
    content = type_of(inner) if outer in ("seq", "optional") else None
    if content is None:
        return None
    make = helper.make_sequence_type_proto if outer == "seq" else helper.make_optional_type_proto
    return make(content)


def _elements(spelling: str) -> str:
    return spelling.removeprefix("tensor(").removesuffix(")")


def shown_type(spelling: str) -> str:
    """A type in a message: a tensor by its elements."""
    return _elements(spelling) if spelling.startswith("tensor(") else spelling


def short_type(spelling: str) -> str:
    """A tensor's type by our own name of its elements."""
    found = next((by_onnx(n) for n in TensorProto.DataType.values() if tensor_type(n) == spelling), None)
    return found.name if found else spelling
