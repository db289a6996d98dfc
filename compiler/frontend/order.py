"""Nodes that stand in no order in which every input comes before its use: put in one, or why not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, cast

import onnx

from ..errors import InvalidInput, ModelWarning, quoted
from .node import ModelNode, nodes_of

if TYPE_CHECKING:
    import networkx as nx

MOST_NAMED = 8  # nodes of a cycle


def disordered(proto: onnx.ModelProto) -> list[onnx.GraphProto | onnx.FunctionProto]:
    """Of a model's graphs, bodies and functions those whose nodes could stand in order, and do not."""
    return [g for g in _graphs(proto) if not _stands(g.node) and _order(g.node) is not None]


def put_in_order(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Moves the nodes of a graph in disorder, and warns: those that need not wait keep their places."""
    order = _order(graph.node)
    assert order is not None
    nodes = list(nodes_of(graph.node))
    first = next(i for at, i in enumerate(order) if at != i)
    warnings.warn(
        f"graph {quoted(graph.name)}: nodes stand before what they read; they were put in order, "
        f"{nodes[first].where} earlier",
        ModelWarning,
        stacklevel=2,
    )
    moved = onnx.GraphProto()
    moved.node.extend(nodes[i].proto for i in order)
    del graph.node[:]
    graph.node.extend(moved.node)


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Inner ones first: what a body captures tells where its node belongs."""
    left: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    found: list[onnx.GraphProto | onnx.FunctionProto] = []
    while left:
        found.append(graph := left.pop())
        left += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return reversed(found)


def _stands(protos: Sequence[onnx.NodeProto]) -> bool:
    """Whether no node reads what a later one makes."""
    at = {t: i for i, node in enumerate(protos) for t in node.output if t}
    return all(at.get(t, -1) < i for i, node in enumerate(protos) for t in _reads(node))


def _reads(node: onnx.NodeProto) -> Sequence[str]:
    inside = any(a.HasField("g") for a in node.attribute)
    return ModelNode(node, 0, "").reads if inside else node.input


def _order(protos: Sequence[onnx.NodeProto]) -> list[int] | None:
    """The nodes' positions in an order in which they can run; None where there is none."""
    makers: dict[str, int] = {}
    for i, node in enumerate(protos):
        for t in node.output:
            if t and makers.setdefault(t, i) != i:
                return None  # two nodes make one value: the checker's affair
    waits = [{makers[t] for t in _reads(node) if t in makers} for node in protos]
    readers: list[list[int]] = [[] for _ in protos]
    for i, before in enumerate(waits):
        for j in before:
            readers[j].append(i)
    left = [len(before) for before in waits]
    free = [i for i, n in enumerate(left) if not n]
    heapify(free)
    out: list[int] = []
    while free:
        out.append(i := heappop(free))
        for j in readers[i]:
            left[j] -= 1
            if not left[j]:
                heappush(free, j)
    return out if len(out) == len(protos) else None


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
            reader = next((n for n in nodes_of(a.g.node) if value in n.reads), None)
            if reader is not None:
                return _why(reader, value, a.g.node)
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
    return f"is made by a later node, {quoted(maker.name)}"


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
