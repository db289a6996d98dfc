"""What no output depends on."""

from __future__ import annotations

from dataclasses import replace

from ...ir.graph import Graph, Node


def eliminate_dead(graph: Graph) -> Graph:
    """Without the nodes, tensors and constants that no output depends on. Inputs stay."""
    needed = set(graph.results)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    needed.update(graph.inputs)
    return replace(
        graph,
        nodes=tuple(reversed(kept)),
        tensors={name: t for name, t in graph.tensors.items() if name in needed},
        constants={name: value for name, value in graph.constants.items() if name in needed},
    )
