"""Nodes that stand in no order in which every input comes before its use: which, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx

from ..errors import InvalidInput, quoted
from .node import ModelNode, name_of

if TYPE_CHECKING:
    import networkx as nx

MOST_NAMED = 8  # nodes of a cycle


def not_made(node: ModelNode, value: str, among: Sequence[onnx.NodeProto]) -> InvalidInput:
    """The error of a node that reads a value which nothing before it makes.

    among: the nodes of its graph. Whether one of them makes the value later, and whether it waits for the
    node itself, or is in another cycle.
    """
    return InvalidInput(f"{node.where}: input {quoted(value)} {_why(node.proto, value, among)}")


def judge_order(graph: onnx.GraphProto) -> None:
    """Raises InvalidInput for the first node with an input that nothing before it makes."""
    known = {v.name for v in (*graph.input, *graph.initializer)} | {""}
    known |= {t.values.name for t in graph.sparse_initializer}
    for i, proto in enumerate(graph.node):
        node = ModelNode(proto, name_of(proto, i))
        for value in node.reads:
            if value not in known:
                raise not_made(node, value, graph.node)
        known |= {*proto.output}


def _why(node: onnx.NodeProto, value: str, among: Sequence[onnx.NodeProto]) -> str:
    bodies = [a.g.node for a in node.attribute if a.HasField("g")]
    # what a body makes, but too late, seems to come from outside
    nodes = next((body for body in bodies if any(value in n.output for n in body)), among)
    maker = next((i for i, n in enumerate(nodes) if value in n.output), None)
    if maker is None:
        return "is made by no node"
    names = [quoted(name_of(n, i)) for i, n in enumerate(nodes)]
    if cycle := _cycle(nodes, maker):
        row = [names[i] for i in cycle]
        if len(row) > MOST_NAMED:
            row[MOST_NAMED:] = [f"{len(row) - MOST_NAMED} more"]
        return f"waits for a cycle of nodes: {' -> '.join([*row, names[cycle[0]]])}"
    return f"is made by a later node, {names[maker]}: nodes must be in order"


def _cycle(nodes: Sequence[onnx.NodeProto], maker: int) -> list[int]:
    """The positions of the nodes of a cycle behind a node, in the order in which values flow."""
    import networkx as nx

    flow: nx.DiGraph[int] = nx.DiGraph()
    flow.add_nodes_from(range(len(nodes)))
    makers = {t: i for i, n in enumerate(nodes) for t in n.output if t}
    reads = ((i, t) for i, n in enumerate(nodes) for t in ModelNode(n, "").reads)
    flow.add_edges_from((makers[t], i) for i, t in reads if t in makers)
    behind = flow.subgraph({maker, *nx.ancestors(flow, maker)})
    try:
        found = [a for a, _ in nx.find_cycle(behind)]
    except nx.NetworkXNoCycle:
        return []
    first = found.index(min(found))
    return [*found[first:], *found[:first]]
