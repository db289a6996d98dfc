"""Nodes that stand in no order in which every input comes before its use: which, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import onnx

from ..errors import InvalidInput, quoted
from .node import ModelNode, nodes_of

if TYPE_CHECKING:
    import networkx as nx

MOST_NAMED = 8  # nodes of a cycle


def not_made(node: ModelNode, value: str, among: Sequence[onnx.NodeProto]) -> InvalidInput:
    """The error of a node that reads a value which nothing before it makes. among: its graph's nodes."""
    return InvalidInput(f"{node.where}: input {quoted(value)} {_why(node, value, among)}")


def judge_order(graph: onnx.GraphProto) -> None:
    """Raises InvalidInput for the first node with an input that nothing before it makes."""
    known = {v.name for v in (*graph.input, *graph.initializer)} | {""}
    known |= {t.values.name for t in graph.sparse_initializer}
    for node in nodes_of(graph.node):
        for value in node.reads:
            if value not in known:
                raise not_made(node, value, graph.node)
        known |= {*node.proto.output}


def _why(node: ModelNode, value: str, among: Sequence[onnx.NodeProto]) -> str:
    for a in node.proto.attribute:  # what a body makes, but too late, seems to come from outside
        if a.HasField("g") and any(value in n.output for n in a.g.node):
            return _why(next(n for n in nodes_of(a.g.node) if value in n.reads), value, a.g.node)
    nodes = list(nodes_of(among))
    maker = next((n for n in nodes if value in n.proto.output), None)
    if maker is None:
        return "is made by no node"
    if maker.position < node.position:
        return f"is an output that {quoted(maker.name)} leaves out"
    if cycle := _cycle(nodes, maker.position):
        row = [quoted(n.name) for n in cycle]
        if len(row) > MOST_NAMED:
            row[MOST_NAMED:] = [f"{len(row) - MOST_NAMED} more"]
        return f"waits for a cycle of nodes: {' -> '.join([*row, quoted(cycle[0].name)])}"
    return f"is made by a later node, {quoted(maker.name)}: nodes must be in order"


def _cycle(nodes: Sequence[ModelNode], maker: int) -> list[ModelNode]:
    """The nodes of a cycle behind a node, in the order in which values flow; empty where there is none."""
    import networkx as nx

    flow: nx.DiGraph[int] = nx.DiGraph()
    flow.add_nodes_from(range(len(nodes)))
    makers = {t: n.position for n in nodes for t in n.proto.output if t}
    flow.add_edges_from((makers[t], n.position) for n in nodes for t in n.reads if t in makers)
    before = nx.ancestors(flow, maker)  # pyright: ignore[reportUnknownMemberType]
    behind = flow.subgraph({maker, *before})
    try:
        edges = cast(list[tuple[int, int]], nx.find_cycle(behind))  # pyright: ignore[reportUnknownMemberType]
    except nx.NetworkXNoCycle:
        return []
    found = [a for a, _ in edges]
    first = found.index(min(found))
    return [nodes[i] for i in (*found[first:], *found[:first])]
