"""How operators of onnxruntime are written: what no schema of onnx says, and the standard's in their place.

onnx's checker knows nothing of them, so a rule states its inputs, types and attributes, and a node is held to
that before the rule sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..dtypes import BF16, F16, F32, F64, DType
from ..graph import InvalidModel, Unsupported
from ..op import Array
from ..rules import REGISTRY, GraphBuilder, Rule, Spec, register
from .conversion import cast
from .elementwise import Elementwise, apply

MICROSOFT = "com.microsoft"
IN_STANDARD = ("SimplifiedLayerNormalization",)  # in the standard's domain, where onnx has not
FLOATS = (F16, BF16, F32, F64)
OPSET = 21  # of the standard's operators that others are written as


@dataclass(frozen=True)
class Maybe:
    """An attribute without a default, which may be missing. of: the type of a list's elements."""

    kind: type
    of: type | None = None


@dataclass(frozen=True)
class Formal:
    """An operand or a result. parameter: of its type. variadic: it stands for any number of them."""

    name: str
    parameter: str
    optional: bool = False
    variadic: bool = False


def _formals(text: str) -> tuple[Formal, ...]:
    """ "A:T bias:T? rest:T*" """
    out: list[Formal] = []
    for word in text.split():
        name, _, parameter = word.partition(":")
        out.append(Formal(name, parameter.rstrip("?*"), parameter[-1:] in "?*", parameter.endswith("*")))
    return tuple(out)


def contrib(
    op_type: str,
    signature: str,
    types: Mapping[str, Sequence[DType]],
    attributes: Mapping[str, Any] | None = None,
    limits: str = "",
) -> Callable[[Rule], Rule]:
    """Registers a rule of an operator that onnx has no schema of.

    signature: "A:T bias:T? -> Y:T", operands and results with their type parameters; "?" may be missing, "*"
    is any number. attributes: by name the default; a type for one that must be there (a list is of integers),
    or `Maybe`. Results are rounded to the type that their parameter has among the operands. The rule sees all
    attributes, and the operands as they are.
    """
    given, _, made = signature.partition("->")
    operands, results, known = _formals(given), _formals(made), dict(attributes or {})

    def decorate(rule: Rule) -> Rule:
        def build(g: GraphBuilder, spec: Spec) -> Sequence[str]:
            bound = _bound(g, spec, operands, types)
            out = rule(g, replace(spec, attributes=_attributes(spec, known)))
            kinds = [bound.get(f.parameter) for f in results]
            return [
                cast(g, t, kind, t) if t and kind else t
                for t, kind in zip(out, [*kinds, *[None] * len(out)], strict=False)
            ]

        stated = tuple((name, tuple(allowed)) for name, allowed in types.items())
        register(op_type, build, 1, "" if op_type in IN_STANDARD else MICROSOFT, limits, stated)
        return rule

    return decorate


def _bound(
    g: GraphBuilder, spec: Spec, operands: Sequence[Formal], types: Mapping[str, Sequence[DType]]
) -> dict[str, DType]:
    """The type parameters as a node's operands bind them; InvalidModel for operands that do not fit."""
    rest = operands[-1] if operands and operands[-1].variadic else None
    if len(spec.inputs) > len(operands) and rest is None:
        raise InvalidModel(f"{spec.op_type} takes at most {len(operands)} inputs, not {len(spec.inputs)}")
    bound: dict[str, DType] = {}
    for i in range(max(len(operands), len(spec.inputs))):
        formal = operands[i] if i < len(operands) else operands[-1]
        if not spec.has(i):
            if not formal.optional:
                raise InvalidModel(f"{spec.op_type} without its input {i}, {formal.name}")
            continue
        tensor = g.tensors[spec.inputs[i]]
        allowed = types[formal.parameter]
        if tensor.dtype not in allowed:
            names = ", ".join(t.name for t in allowed)
            raise InvalidModel(f"{spec.op_type} takes {names} as {formal.name}, not {tensor}")
        if bound.setdefault(formal.parameter, tensor.dtype) != tensor.dtype and not formal.variadic:
            raise InvalidModel(f"{spec.op_type}: {tensor} is not {bound[formal.parameter]} as others are")
    return bound


def _attributes(spec: Spec, known: Mapping[str, Any]) -> dict[str, Any]:
    """A node's attributes with the defaults of those that it does not state."""
    for name, value in spec.attributes.items():
        if name not in known:
            raise Unsupported(f"{spec.op_type} has no attribute {name!r} that is known")
        stated = known[name]
        wanted = stated.kind if isinstance(stated, Maybe) else type(stated)
        wanted = stated if isinstance(stated, type) else wanted
        of = stated.of if isinstance(stated, Maybe) else int if wanted is list else None
        if not isinstance(value, wanted) or (of and not all(isinstance(v, of) for v in value)):
            raise InvalidModel(f"{spec.op_type}: attribute {name} is no {wanted.__name__} as it must be")
    missing = [n for n, default in known.items() if isinstance(default, type) and n not in spec.attributes]
    if missing:
        raise InvalidModel(f"{spec.op_type} without its attribute {missing[0]}")
    return {**{name: _default(v) for name, v in known.items()}, **spec.attributes}


def _default(stated: Any) -> Any:
    """A default as an attribute would hold it: floats are f32."""
    if isinstance(stated, Maybe):
        return None
    return float(np.float32(stated)) if isinstance(stated, float) else stated


@dataclass(frozen=True)
class Writer:
    """Writes operators of the standard into a graph. hint: what their results are called after."""

    g: GraphBuilder
    hint: str

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """One operator's first result."""
        return self.several(op_type, inputs, 1, **attributes)[0]

    def several(self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any) -> Sequence[str]:
        """One operator's first `count` results."""
        outputs = tuple(self.hint for _ in range(count))
        spec = Spec(op_type, self.hint, tuple(inputs), outputs, attributes, OPSET)
        return REGISTRY["", op_type].rule(self.g, spec)

    def apply(self, kind: type[Elementwise], *inputs: str, **own: Any) -> str:
        return apply(self.g, kind, inputs, self.hint, **own)

    def wide(self, tensor: str) -> str:
        """The tensor in the type that holds what is between several operators."""
        return cast(self.g, tensor, self.g.dtype(tensor).wide, self.hint) if tensor else ""

    def number(self, value: float, like: str) -> str:
        """A scalar of another tensor's type."""
        return self.g.constant(np.asarray(value, self.g.dtype(like).numpy))

    def single(self, value: float) -> str:
        """A scalar in f32."""
        return self.g.constant(np.asarray(value, np.float32), self.hint)

    def constant(self, value: Array) -> str:
        return self.g.constant(value, self.hint)


def operand(spec: Spec, i: int) -> str:
    """Input number `i`, "" where it is missing."""
    return spec.inputs[i] if spec.has(i) else ""


def need(holds: bool, what: str) -> None:
    """Raises InvalidModel, which says `what`, unless it holds."""
    if not holds:
        raise InvalidModel(what)


def shaped(g: GraphBuilder, tensor: str, *wanted: int | None, name: str = "") -> tuple[int, ...]:
    """The tensor's shape, which must be `wanted`; None is any size. InvalidModel where it is another."""
    shape = g.shape(tensor)
    if len(shape) != len(wanted) or any(w is not None and w != n for n, w in zip(shape, wanted, strict=True)):
        sizes = ", ".join("?" if w is None else str(w) for w in wanted)
        raise InvalidModel(f"{name or 'an operand'} is {g.tensors[tensor]}, not [{sizes}]")
    return shape
