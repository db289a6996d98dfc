"""Where an operator can run: on the wafer, on the host, or not at all."""

from __future__ import annotations

from typing import Literal

from onnx import helper

from ...ir.rules import REGISTRY
from ..errors import Refusal
from ..frontend.free_names import CONTROL
from ..frontend.opsets import KnownModel, domain_of
from ..frontend.standard import has_body, why_unknown

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


def known(op_type: str, domain: str, opset: int) -> bool:
    """Whether onnx has a reference implementation of an operator."""
    # Late: they take as long to import as onnx, and few models need them.
    from onnx.reference import ReferenceEvaluator

    from .ours import OURS

    imports = [helper.make_opsetid(domain, opset)]
    graph = helper.make_graph([helper.make_node(op_type, [], ["y"], domain=domain)], "known", [], [])
    try:
        ReferenceEvaluator(helper.make_model(graph, opset_imports=imports), new_ops=list(OURS))
    except NotImplementedError:
        return False
    except Exception:  # an attribute is missing, say
        return True
    return True
