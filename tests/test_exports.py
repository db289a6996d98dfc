"""What is written for Netron and Model Explorer says what the plan says."""

from __future__ import annotations

import json

import onnx
import pytest
from plans import planned, riding
from waferc.compiler.show.exports import annotated_onnx, model_explorer, node_data
from waferc.compiler.show.rows import step_rows
from waferc.placement.cost.critical_path import writers
from waferc.placement.cost.timing import simulate
from waferc.placement.plan.plan import Plan

PLANS = ["attention", "state", "parts", "riding"]


def made(name: str) -> Plan:
    return riding() if name == "riding" else planned(name, "8x8")


@pytest.mark.parametrize("name", PLANS)
def test_an_onnx_model_has_a_node_for_each_step(name: str) -> None:
    plan = made(name)
    timing = simulate(plan)
    model = onnx.load_from_string(annotated_onnx(plan, timing))
    onnx.checker.check_model(model)
    rows = {f"{r['step']}": r for r in step_rows(plan, timing)}
    told = [{p.key.removeprefix("waferc."): p.value for p in n.metadata_props} for n in model.graph.node]
    assert [t["step"] for t in told] == [f"{s.position}" for s in plan.steps if s.kind != "input"]
    for node, facts in zip(model.graph.node, told, strict=True):
        row = rows[facts["step"]]
        assert (
            int(facts["cycles"]) == row["end"] - row["start"] and facts["wavefront"] == f"{row['wavefront']}"
        )
        assert (
            facts["region"] == f"{row['region']}" and node.name == row["node"] and node.op_type == row["op"]
        )
    results = {o for n in model.graph.node for o in n.output} | {i.name for i in model.graph.input}
    assert {i for n in model.graph.node for i in n.input} <= results
    constants = {c for t in told for c in t.get("constants", "").split(", ") if c}
    assert constants == {b.name for b in plan.buffers if b.role == "constant"}


@pytest.mark.parametrize("name", PLANS)
def test_a_graph_for_model_explorer_has_the_plan_s_hand_overs(name: str) -> None:
    plan = made(name)
    timing = simulate(plan)
    (graph,) = json.loads(json.dumps(model_explorer(plan, timing)))["graphs"]
    assert [n["id"] for n in graph["nodes"]] == [f"{s.position}" for s in plan.steps]
    edges = {(e["sourceNodeId"], n["id"]) for n in graph["nodes"] for e in n["incomingEdges"]}
    assert edges == {(f"{p}", f"{i}") for i, m in enumerate(writers(plan)) for p in m.values()}
    for n in graph["nodes"]:
        assert [e["targetNodeInputId"] for e in n["incomingEdges"]] == [m["id"] for m in n["inputsMetadata"]]
    results = node_data(plan, timing)[graph["id"]]["results"]
    rows = step_rows(plan, timing)
    assert {k: v["value"] for k, v in results.items()} == {
        f"{r['step']}": r["end"] - r["start"] for r in rows
    }
