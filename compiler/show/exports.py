"""A plan's steps for the viewers of others: as ONNX for Netron, as a graph for Model Explorer."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

from ...ir.dtypes import DType
from ...placement.cost.critical_path import reads, writers
from ...placement.cost.timing import Timing
from ...placement.plan.plan import Plan, Step
from ..errors import shown
from .critical_parts import step_parts
from .rows import LONGEST_NAME, step_rows

DOMAIN = "waferc"
IR_VERSION = 10  # the first whose nodes have metadata
TOLD = ("step", "region", "wavefront", "start", "end", "cycles", "bytes", "grid", "split", "tiles", "rides")


def _facts(plan: Plan, timing: Timing) -> list[dict[str, str]]:
    """By step what is told of it, as text; cycles: from its first core's start to its last core's end."""
    out: list[dict[str, str]] = []
    for row in step_rows(plan, timing):
        row["cycles"] = row["end"] - row["start"]
        out.append({key: f"{row[key]}" for key in TOLD if row[key] != ""})
    return out


def annotated_onnx(plan: Plan, timing: Timing) -> bytes:
    """An ONNX model with a node of domain "waferc" for each step, to be looked at and not run.

    A node's metadata tell region, wavefront, cycles, bytes, split; constants are among them, by name.
    """
    before = writers(plan)
    nodes: list[onnx.NodeProto] = []
    for s, facts in zip(plan.steps, _facts(plan, timing), strict=True):
        if s.kind == "input":
            continue
        buffers, made = list(dict.fromkeys(b for b, _ in reads(s))), before[s.position]
        node = helper.make_node(
            _kind(s),
            [_result(plan.steps[made[b]]) for b in buffers if b in made],
            [_result(s)],
            shown(s.name, LONGEST_NAME),
            domain=DOMAIN,
        )
        constants = ", ".join(shown(plan.buffers[b].name, LONGEST_NAME) for b in buffers if b not in made)
        told = {**facts, **({"constants": constants} if constants else {})}
        for key, value in told.items():
            node.metadata_props.add(key=f"waferc.{key}", value=value)
        nodes.append(node)
    inputs = [_value(plan, s) for s in plan.steps if s.kind == "input"]
    outputs = [_value(plan, s) for s in plan.steps if s.tensor in plan.graph.outputs and s.kind != "input"]
    graph = helper.make_graph(nodes, shown(plan.graph.name, LONGEST_NAME), inputs, outputs)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(DOMAIN, 1)], ir_version=IR_VERSION, producer_name="waferc"
    )
    model.metadata_props.add(key="waferc.wafer", value=shown(plan.wafer.name))
    model.metadata_props.add(key="waferc.cycles", value=f"{timing.cycles:.0f}")
    return model.SerializeToString()


def _result(step: Step) -> str:
    """A name of its own for what each step leaves."""
    return f"{shown(step.tensor, LONGEST_NAME)} of step {step.position}"


def _kind(step: Step) -> str:
    return step.op.name if step.kind in ("task", "join") else step.kind


def _value(plan: Plan, step: Step) -> onnx.ValueInfoProto:
    tensor = plan.tensors[step.tensor]
    return helper.make_tensor_value_info(_result(step), _type(tensor.dtype), list(tensor.shape))


def _type(dtype: DType) -> int:
    try:
        return helper.np_dtype_to_tensor_dtype(dtype.numpy)
    except (KeyError, ValueError):
        return onnx.TensorProto.UNDEFINED


def model_explorer(plan: Plan, timing: Timing) -> dict[str, Any]:
    """A graph collection of Model Explorer: a node per step, in the namespace of its layer; what it receives
    is told at its edges."""
    made, part = writers(plan), step_parts(plan)
    nodes: list[dict[str, Any]] = []
    for s, facts in zip(plan.steps, _facts(plan, timing), strict=True):
        edges: list[dict[str, str]] = []
        told: list[dict[str, Any]] = []
        for i, (buffer, move) in enumerate(reads(s)):
            if (source := made[s.position].get(buffer)) is None:
                continue
            edges.append(
                {"sourceNodeId": f"{source}", "sourceNodeOutputId": "0", "targetNodeInputId": f"{i}"}
            )
            how = [{"key": "tensor", "value": shown(plan.buffers[buffer].name, LONGEST_NAME)}]
            how.append({"key": "route", "value": "in place" if move is None else move.route})
            if move is not None:
                how.append({"key": "bytes", "value": f"{plan.received(s, move)}"})
            told.append({"id": f"{i}", "attrs": how})
        attributes = [{"key": "name", "value": shown(s.name, LONGEST_NAME)}]
        attributes += [{"key": k, "value": v} for k, v in facts.items()]
        nodes.append(
            {
                "id": f"{s.position}",
                "label": _kind(s),
                "namespace": shown(part[s.position], LONGEST_NAME).replace(";", ","),
                "incomingEdges": edges,
                "inputsMetadata": told,
                "attrs": attributes,
            }
        )
    name = shown(plan.graph.name, LONGEST_NAME)
    return {"label": name, "graphs": [{"id": name, "nodes": nodes}]}


def node_data(plan: Plan, timing: Timing) -> dict[str, Any]:
    """Cycles by node for Model Explorer, which colours the nodes by them."""
    results = {f"{i}": {"value": int(f["cycles"])} for i, f in enumerate(_facts(plan, timing))}
    return {shown(plan.graph.name, LONGEST_NAME): {"results": results, "gradient": GRADIENT}}


GRADIENT = [{"stop": 0, "bgColor": "white"}, {"stop": 1, "bgColor": "orange"}]
