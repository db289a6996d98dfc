"""Operators that run on the host: one node as a model of its own, in onnx's reference implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from ...codegen.artifact.artifact import InvalidArtifact
from ...ir.op import Array
from ...ir.rules import REGISTRY
from ...runtime.play import Operator
from ..errors import Refusal, UnsupportedModel, quoted, shown
from ..frontend.free_names import CONTROL
from ..frontend.opsets import KnownModel, domain_of
from ..frontend.standard import has_body, why_unknown
from ..frontend.types import types_of
from . import indexed

DRAWING = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)


def alone(
    node: onnx.NodeProto,
    proto: onnx.ModelProto,
    inputs: Mapping[str, onnx.TypeProto],
    constants: Mapping[str, Array | onnx.TensorProto],
) -> onnx.ModelProto:
    """A model of one node of `proto`. inputs: what a run gives, by type. constants: what the model holds."""
    values = [onnx.ValueInfoProto(name=name, type=kind) for name, kind in inputs.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    held = [_tensor(name, value) for name, value in constants.items()]
    graph = helper.make_graph([_repeatable(node)], "host", values, outputs, held)
    return helper.make_model(
        graph, opset_imports=proto.opset_import, functions=proto.functions, ir_version=proto.ir_version
    )


def _tensor(name: str, value: Array | onnx.TensorProto) -> onnx.TensorProto:
    if isinstance(value, onnx.TensorProto):
        out = onnx.TensorProto()
        out.CopyFrom(value)
        out.name = name
        return out
    return numpy_helper.from_array(value, name)


def _repeatable(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node, with a seed if it draws without one: a run gives the same every time."""
    if node.op_type not in DRAWING or any(a.name == "seed" for a in node.attribute):
        return node
    out = onnx.NodeProto()
    out.CopyFrom(node)
    out.attribute.append(helper.make_attribute("seed", 0.0))
    return out


def operator(content: bytes) -> Operator:
    """What a one-node model computes. Raises UnsupportedModel where onnx has no implementation of it."""
    try:
        model = onnx.ModelProto.FromString(content)
        node = model.graph.node[0]
    except (DecodeError, IndexError):
        raise InvalidArtifact("an operator of the host is damaged") from None
    try:
        evaluator: Any = ReferenceEvaluator(model, new_ops=[Optional, *indexed.OPERATORS])
    except Exception as e:  # whatever it raises for what it does not know
        lines = str(e).splitlines() or [type(e).__name__]
        raise UnsupportedModel(f"operator {quoted(node.op_type)}: {shown(lines[0], 160)}") from None
    names = [v.name for v in model.graph.input]
    kinds = {name: helper.tensor_dtype_to_np_dtype(n) for name, n in _declared(model).items()}
    kept = [name for name in node.output if name]

    def run(values: Sequence[Any]) -> list[Any]:
        with np.errstate(all="ignore"):
            results = evaluator.run(None, dict(zip(names, values, strict=True)))
        found = {n: _plain(r, kinds.get(n)) for n, r in zip(kept, results, strict=True)}
        return [found.get(name) for name in node.output]

    return run


def known(op_type: str, domain: str, opset: int) -> bool:
    """Whether onnx has a reference implementation of an operator."""
    imports = [helper.make_opsetid(domain, opset)]
    graph = helper.make_graph([helper.make_node(op_type, [], ["y"], domain=domain)], "known", [], [])
    try:
        ReferenceEvaluator(helper.make_model(graph, opset_imports=imports))
    except NotImplementedError:
        return False
    except Exception:  # an attribute is missing, say
        return True
    return True


class Optional(OpRun):
    """The reference's own wraps the content in a list, which other operators on optionals do not expect."""

    def _run(self, x: Any = None, type: Any = None) -> tuple[Any]:  # the attribute's name in the standard
        return (x,)


def _declared(model: onnx.ModelProto) -> dict[str, int]:
    """The element types of the outputs that are known to be tensors."""
    known = {name: kind.tensor_type.elem_type for name, kind in types_of(model).items()}
    return {name: n for name, n in known.items() if n}


def _plain(result: Any, kind: np.dtype[Any] | None) -> Any:
    """A result as a script knows it: an array, of objects where they are str; a list; None."""
    if result is None:
        return None
    if isinstance(result, list):
        return [_plain(item, None) for item in cast(list[Any], result)]
    array = np.asarray(result)
    if array.dtype.kind in "UST":
        return array.astype(object)
    # the reference's NumPy may compute in a wider type than the operator's
    return array.astype(kind) if kind is not None and kind.kind != "O" and array.dtype != kind else array


WhereItRuns = Literal["wafer", "host", "unsupported"]


def where_it_runs(op_type: str, domain: str, opset: int) -> WhereItRuns:
    """Where an operator of the standard can run at best.

    On the wafer by a rule of its own or by the standard's body for it, else on the host by onnx's reference.
    """
    ruled = (domain, op_type) in REGISTRY or (not domain and op_type in CONTROL)
    if ruled or has_body(op_type, domain, opset):
        return "wafer"
    return "host" if known(op_type, domain, opset) else "unsupported"


def unknown_operators(known: KnownModel) -> list[Refusal]:
    """Operators of a model's top level that have no rule, no body and no schema that could give one."""
    words = known.vocabulary
    found: dict[tuple[str, str], list[str]] = {}
    for node in known.proto.graph.node:
        domain = domain_of(node.domain)
        own = (domain, node.op_type) in words.functions
        if not own and where_it_runs(node.op_type, domain, words.opset(domain)) == "unsupported":
            names = found.setdefault((node.op_type, domain), [])
            names.append(node.name or (node.output[0] if node.output else ""))
    return [
        Refusal(*kind, len(names), why_unknown(*kind, words.opset(kind[1])), names[0])
        for kind, names in found.items()
    ]
