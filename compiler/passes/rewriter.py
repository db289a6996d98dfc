"""One graph on its way to another: what every pass that adds tensors works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...ir.affine import Access
from ...ir.folding import Folding
from ...ir.graph import Graph, Node
from ...ir.op import Op
from ...ir.rules import GraphBuilder

Read = tuple[str, Access]  # a tensor, and how it is read


class Rewriter(GraphBuilder):
    """A graph's tensors and constants, and the nodes of the graph that is to be.

    The pass goes through `graph.nodes` and adds what it keeps and what it makes; names of new tensors are
    those that `fresh` gives, as when a graph is built.
    """

    def __init__(self, graph: Graph) -> None:
        own = sum(value.nbytes for value in graph.constants.values())
        super().__init__(dict(graph.tensors), dict(graph.constants), folding=Folding(own))
        self.graph = graph

    def add(self, op: Op, inputs: Sequence[str], output: str, source: tuple[str, ...]) -> None:
        """A node whose result there is a tensor for."""
        self.nodes.append(Node(op, tuple(inputs), output, source))

    def finish(self, **changes: Any) -> Graph:
        """The checked graph. changes: of its other fields."""
        nodes = tuple(self.nodes)
        if nodes == self.graph.nodes and not changes:
            return self.graph
        out = replace(self.graph, tensors=self.tensors, constants=self.constants, nodes=nodes, **changes)
        out.check()
        return out


def sources(*nodes: Node) -> tuple[str, ...]:
    """The ONNX nodes that several nodes stand for, each once."""
    return tuple(dict.fromkeys(s for n in nodes for s in n.source))
