"""What the standard asks of every node, before anything is made of it.

The operator's inputs and outputs are as many as it has, each of a type that it takes and of one type where it
asks for that; attributes are `attributes`' affair. Bodies and the model's own functions are judged as their
graphs are. Types flow from the inputs; what the model declares must agree with them.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import onnx
from onnx import shape_inference

from ..errors import InvalidInput, quoted, shown
from .attributes import wrong_attribute
from .node import ModelNode, nodes_of
from .opsets import KnownModel, Vocabulary
from .signatures import (
    Parameter,
    Signature,
    short_type,
    shown_type,
    signature_of,
    spelled,
    tensor_type,
    type_of,
)
from .standard import DEPTH_LIMIT, with_attributes

Types = MutableMapping[str, str]
"""Values of a graph and of those around it, with their types as schemas spell them; "" where not known."""

MOST_LISTED = 8  # types in an error


def judge_nodes(known: KnownModel) -> list[str]:
    """Raises InvalidInput for the first node that the standard does not allow.

    Gives what is wrong with declared types: of a model with operators that nothing runs these are said first.
    """
    graph = known.proto.graph
    types: Types = ChainMap()
    _judge_initializers(graph)
    judge = _Judge(known.vocabulary)
    judge.graph(graph, types)
    return judge.contradictions


def _judge_initializers(graph: onnx.GraphProto) -> None:
    """Old models list initializers among the inputs: their declarations must agree."""
    declared = {v.name: v.type for v in graph.input}
    for t in graph.initializer:
        kind = declared.get(t.name)
        if kind is None or not kind.HasField("tensor_type"):
            continue
        found, said = tensor_type(t.data_type), spelled(kind)
        if said and found != said:
            raise InvalidInput(
                f"initializer {quoted(t.name)} has type {shown_type(found)}, "
                f"the input of its name {shown_type(said)}"
            )
        if kind.tensor_type.HasField("shape") and contradicts(kind, list(t.dims)):
            raise InvalidInput(
                f"initializer {quoted(t.name)} has shape {list(t.dims)}, "
                f"the input of its name {shape_text(kind)}"
            )


@dataclass(frozen=True)
class _Judge:
    """Judges the nodes of one vocabulary.

    contradictions: declarations that are wrong. called: functions with types and attributes that they were
    called with, and the types of what they make.
    depth: of functions around.
    """

    vocabulary: Vocabulary
    contradictions: list[str] = field(default_factory=list[str])
    called: dict[tuple[object, ...], list[str]] = field(default_factory=dict[tuple[object, ...], list[str]])
    depth: int = 0
    within: str = ""  # the call that an error in a function names

    # -- graphs -------------------------------------------------------------------------
    def graph(self, graph: onnx.GraphProto, types: Types) -> list[str]:
        """The types of a graph's outputs. types: what is known around it, and of its inputs; filled."""
        for v in graph.input:
            types[v.name] = spelled(v.type) or types.get(v.name, "")
        for t in graph.initializer:
            types[t.name] = tensor_type(t.data_type)
        for s in graph.sparse_initializer:
            types[s.values.name] = tensor_type(s.values.data_type)
        declared = {
            v.name: said for v in (*graph.value_info, *graph.output) if v.name and (said := spelled(v.type))
        }
        for name, said in declared.items():
            if _differ(types.get(name, ""), said):
                self._contradiction(f"value {quoted(name)}", types[name], said)
        self.nodes(list(nodes_of(graph.node)), types, declared)
        return [types.get(o.name, "") or declared.get(o.name, "") for o in graph.output]

    def nodes(self, nodes: Sequence[ModelNode], types: Types, declared: Mapping[str, str]) -> None:
        for node in nodes:
            if self.within:
                node = replace(node, name=self.within)
            made = self.node(node, types)
            for name, kind in zip(node.proto.output, made, strict=False):
                if name:
                    said = declared.get(name, "")
                    if _differ(kind, said):
                        self._contradiction(f"{node.where}: output {quoted(name)}", kind, said)
                    types[name] = kind or said

    def _contradiction(self, what: str, kind: str, said: str) -> None:
        self.contradictions.append(
            f"{what} has type {shown_type(kind)}, the model declares it as {shown_type(said)}"
        )

    # -- one node -----------------------------------------------------------------------
    def node(self, node: ModelNode, types: Types) -> list[str]:
        """The types of what a node makes, as far as known."""
        unknown = [""] * len(node.proto.output)
        if node.key in self.vocabulary.functions:
            return self._call(node, self.vocabulary.functions[node.key], types) or unknown
        signature = signature_of(node.op_type, node.domain, self.vocabulary.opset(node.domain))
        if signature is None:
            for a in node.proto.attribute:
                if a.HasField("g"):
                    self.graph(a.g, _inside(types))
            return unknown
        given = {a.name: a for a in node.proto.attribute}
        _judge_count(node, signature)
        if wrong := wrong_attribute(node.op_type, given, signature):
            raise InvalidInput(f"{node.where}: {wrong}")
        bound = self._judge_inputs(node, signature, types)
        bodies = self._bodies(node, given, types)
        return self._made(node, signature, bound, types) if bodies is None else bodies

    def _judge_inputs(self, node: ModelNode, signature: Signature, types: Types) -> dict[str, str]:
        """The types that type parameters stand for. Raises InvalidInput for an input of another one."""
        bound: dict[str, str] = {}
        first: dict[str, str] = {}
        for i, name in enumerate(node.proto.input):
            if not name:
                continue
            parameter, kind = signature.input(i), types.get(name, "")
            if not kind:
                continue
            if kind not in (allowed := signature.types(parameter)):
                if signature.schema is None:
                    it = shown(f"{name}: {short_type(kind)}")
                    raise InvalidInput(f"{node.where}: {node.op_type} takes {signature.says}, not {it}")
                raise InvalidInput(f"{node.where}: {_input(parameter, name)} {_not_taken(kind, allowed)}")
            if not parameter.alike or parameter.kind not in signature.allowed:
                continue
            before = bound.setdefault(parameter.kind, kind)
            if before != kind:
                raise InvalidInput(
                    f"{node.where}: inputs {quoted(first[parameter.kind])} and {quoted(name)} have types "
                    f"{shown_type(before)} and {shown_type(kind)}, the operator wants one; add a Cast"
                )
            first.setdefault(parameter.kind, name)
        return bound

    def _made(
        self, node: ModelNode, signature: Signature, bound: Mapping[str, str], types: Types
    ) -> list[str]:
        """The types of outputs: what the signature says, else what onnx's inference finds."""
        out: list[str] = []
        found: Mapping[str, str] | None = None
        sequences = any(types.get(t, "").startswith("seq(") for t in node.proto.input)
        if sequences and signature.schema is not None:  # no parameter says what their elements must be
            found = _inferred(node, signature, types, self.vocabulary)
        for i, name in enumerate(node.proto.output):
            if not name:
                out.append("")
                continue
            parameter = signature.output(i)
            kind = bound.get(parameter.kind, "") if parameter.alike else ""
            if not kind and parameter.kind not in signature.allowed:
                kind = parameter.kind
            if not kind and signature.schema is not None:
                found = _inferred(node, signature, types, self.vocabulary) if found is None else found
                kind = found.get(name, "")
                allowed = signature.types(parameter)
                if kind and kind not in allowed:
                    raise InvalidInput(f"{node.where}: output {quoted(name)} {_not_made(kind, allowed)}")
            out.append(kind)
        return out

    # -- bodies and functions -----------------------------------------------------------
    def _bodies(
        self, node: ModelNode, given: Mapping[str, onnx.AttributeProto], types: Types
    ) -> list[str] | None:
        """The types of what If, Loop and Scan make, by their bodies; None for other operators."""
        if node.domain or node.op_type not in ("If", "Loop", "Scan"):
            for a in given.values():
                if a.HasField("g"):
                    self.graph(a.g, _inside(types))
            return None
        if node.op_type == "If":
            return self._branches(node, given, types)
        body, inputs = given["body"].g, [types.get(t, "") for t in node.proto.input]
        carried = len(node.proto.input) - 2
        if node.op_type == "Loop":
            inputs = ["tensor(int64)", "tensor(bool)", *inputs[2:]]
        else:
            if self.vocabulary.opset("") < 9:
                inputs = inputs[1:]
            carried = len(inputs) - given["num_scan_inputs"].i
            if carried < 0:
                raise InvalidInput(
                    f"{node.where}: {given['num_scan_inputs'].i} scan inputs of {len(inputs)} inputs"
                )
        condition = int(node.op_type == "Loop")
        if len(body.input) != len(inputs):
            raise InvalidInput(f"{node.where}: its body has {len(body.input)} inputs, not {len(inputs)}")
        if len(body.output) - condition != len(node.proto.output) and (
            len(body.output) - condition < max(carried, len(node.proto.output))
        ):
            raise InvalidInput(
                f"{node.where}: its body has {len(body.output)} outputs, "
                f"not {condition + max(carried, len(node.proto.output))}"
            )
        inner = _inside(types)
        for v, kind in zip(body.input, inputs, strict=True):
            if _differ(kind, said := spelled(v.type)):
                self._contradiction(f"{node.where}: input {quoted(v.name)} of its body", kind, said)
            inner[v.name] = kind
        made = self.graph(body, inner)[condition:]
        first = 2 * condition
        for v, before, after in zip(
            body.output[condition:], inputs[first : first + carried], made[:carried], strict=False
        ):
            if _tensors_differ(before, after):  # what is empty at first may be a sequence later
                what = f"{node.where}: output {quoted(v.name)} of its body, which goes on as an input,"
                raise InvalidInput(f"{what} has type {shown_type(after)}, not {shown_type(before)}")
        return made

    def _branches(self, node: ModelNode, given: Mapping[str, onnx.AttributeProto], types: Types) -> list[str]:
        branches = [given[name].g for name in ("then_branch", "else_branch")]
        for g in branches:
            own = {t.name for t in g.initializer}
            if taken := next((v.name for v in g.input if v.name not in own), None):
                raise InvalidInput(
                    f"{node.where}: branch {quoted(g.name)} has an input {quoted(taken)}, which nobody gives"
                )
        made = [self.graph(g, _inside(types)) for g in branches]
        for g, of in zip(branches, made, strict=True):
            if len(of) != len(node.proto.output):
                raise InvalidInput(
                    f"{node.where}: branch {quoted(g.name)} makes {len(of)} values, "
                    f"not {len(node.proto.output)}"
                )
        for name, a, b in zip(node.proto.output, *made, strict=True):
            if _tensors_differ(a, b):
                raise InvalidInput(
                    f"{node.where}: output {quoted(name)} has type {shown_type(a)} in one branch, "
                    f"{shown_type(b)} in the other"
                )
        return [a or b for a, b in zip(*made, strict=True)]

    def _call(self, node: ModelNode, function: onnx.FunctionProto, types: Types) -> list[str]:
        """The types of what a function of the model makes; each kind of call is judged once."""
        if self.depth >= DEPTH_LIMIT:
            return []  # the walk refuses it
        arguments = [types.get(t, "") for t in node.proto.input]
        if len(arguments) > len(function.input):
            raise InvalidInput(
                f"{node.where}: {len(arguments)} inputs, the function has {len(function.input)}"
            )
        arguments += [""] * (len(function.input) - len(arguments))
        given = {a.name: a for a in (*function.attribute_proto, *node.proto.attribute)}
        own = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.proto.attribute))
        key = (node.key, tuple(arguments), own)
        if key not in self.called:
            self.called[key] = []
            inner: Types = ChainMap(dict(zip(function.input, arguments, strict=True)))
            judge = replace(
                self,
                vocabulary=self.vocabulary.inside(function),
                depth=self.depth + 1,
                within=self.within or node.name,
            )
            protos = [with_attributes(proto, given) for proto in function.node]
            judge.nodes(list(nodes_of(protos)), inner, {})
            self.called[key] = [inner.get(o, "") for o in function.output]
        return self.called[key]


def _inside(types: Types) -> Types:
    """The values that a body knows, its own to come."""
    return cast("ChainMap[str, str]", types).new_child()


def _judge_count(node: ModelNode, signature: Signature) -> None:
    """Raises InvalidInput unless inputs and outputs are as many as the operator has."""
    ends = (
        ("input", node.proto.input, signature.inputs),
        ("output", node.proto.output, signature.outputs),
    )
    for (what, names, formal), fewest, most in zip(ends, signature.fewest, signature.most, strict=True):
        if fewest <= len(names) <= most and all(names):
            continue
        count = max((i + 1 for i, name in enumerate(names) if name), default=0)
        if count > most or (count > len(formal) and not (formal and formal[-1].variadic)):
            raise InvalidInput(f"{node.where}: {count} {what}s, the operator has at most {most}")
        if len(names) < fewest:
            raise InvalidInput(f"{node.where}: {len(names)} {what}s, the operator has {fewest} at least")
        for i, name in enumerate(names):
            parameter = formal[min(i, len(formal) - 1)] if formal else None
            if name or parameter is None:
                continue
            listed = parameter.variadic and what == "input" and signature.schema is not None
            if parameter.single or listed:
                raise InvalidInput(f"{node.where}: {what} {i} ({parameter.name}) is left out")


def _differ(kind: str, said: str) -> bool:
    """Whether two types, both known, are not the same."""
    return kind != said and bool(kind) and bool(said)


def _tensors_differ(a: str, b: str) -> bool:
    return a != b and a.startswith("tensor(") and b.startswith("tensor(")


def _input(parameter: Parameter, name: str) -> str:
    return f"input {quoted(name)} ({parameter.name})"


def _not_taken(kind: str, allowed: frozenset[str]) -> str:
    return f"has type {shown_type(kind)}, the operator takes {_listed(allowed)}"


def _not_made(kind: str, allowed: frozenset[str]) -> str:
    return f"has type {shown_type(kind)}, the operator makes {_listed(allowed)}"


def _listed(allowed: frozenset[str]) -> str:
    names = sorted(map(shown_type, allowed))
    more = [f"{len(names) - MOST_LISTED} more"] if len(names) > MOST_LISTED else []
    return ", ".join([*names[:MOST_LISTED], *more])


def _inferred(
    node: ModelNode, signature: Signature, types: Types, vocabulary: Vocabulary
) -> Mapping[str, str]:
    """The types of a node's outputs by onnx's inference, as far as it finds them."""
    inputs = {t: kind for t in node.proto.input if t and (kind := type_of(types.get(t, "")))}
    if any(t and t not in inputs for t in node.proto.input):
        return {}
    try:
        found = shape_inference.infer_node_outputs(
            signature.schema,
            node.proto,
            inputs,
            opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in vocabulary.opsets.items()],
        )
    except shape_inference.InferenceError as e:
        lines = [line for line in str(e).splitlines() if line.strip()] or ["invalid"]
        raise InvalidInput(f"{node.where}: {shown(lines[0], 200)}") from None
    except onnx.checker.ValidationError as e:
        # of types that inputs have `_judge_inputs` knows more; complex ones are unsupported, not wrong
        for parameter in signature.outputs:
            kind = str(e).removeprefix(f"{parameter.name} has unsupported type ").strip()
            if kind != str(e).strip() and kind not in (allowed := signature.types(parameter)):
                what = f"output ({parameter.name})"
                raise InvalidInput(f"{node.where}: {what} {_not_made(kind, allowed)}") from None
        if "complex" in str(e) or not any(t and str(e).startswith(f"{t} has ") for t in node.proto.output):
            return {}
        raise InvalidInput(f"{node.where}: output {shown(str(e), 200)}") from None
    except (RuntimeError, ValueError):
        return {}  # it has no inference
    return {name: spelled(kind) for name, kind in cast(Mapping[str, Any], found).items()}


# -- declared shapes --------------------------------------------------------------------
def leaves_open(kind: onnx.TypeProto) -> bool:
    """Whether a declared type leaves a size open, or does not have a shape."""
    tensor = kind.tensor_type
    return not tensor.HasField("shape") or any(
        not d.HasField("dim_value") or d.dim_value < (i == 0) for i, d in enumerate(tensor.shape.dim)
    )


def contradicts(kind: onnx.TypeProto, shape: Sequence[int], sizes: bool = True) -> bool:
    """Whether a declared type is none of a tensor of `shape`; sizes: whether these count, too.

    Names say nothing here, nor does a size below 0, nor a first one of 0: exporters write these for an open
    dimension.
    """
    declared = kind.tensor_type.shape.dim
    if not declared:
        return False  # writers leave it empty for want of a shape, too
    if len(declared) != len(shape):
        return True
    return sizes and any(
        d.HasField("dim_value") and d.dim_value != n and d.dim_value >= (i == 0)
        for i, (d, n) in enumerate(zip(declared, shape, strict=True))
    )


def shape_text(kind: onnx.TypeProto) -> str:
    """A declared shape in a message."""
    sizes = [
        str(d.dim_value) if d.HasField("dim_value") else shown(d.dim_param or "?")
        for d in kind.tensor_type.shape.dim
    ]
    return f"[{', '.join(sizes)}]"
