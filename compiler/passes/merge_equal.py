"""What is the same, once."""

from __future__ import annotations

from dataclasses import replace

from ...ir.absent import lacking
from ...ir.entries import equal
from ...ir.graph import Graph, Node
from ...ir.op import Array, Op
from ...ir.stored_bits import give_back, stored_bits


def merge_equal(graph: Graph) -> Graph:
    """One constant for equal constants and one node for nodes that compute the same."""
    kept = set(graph.results)
    table: dict[str, str] = {}
    alike: dict[object, list[str]] = {}
    for name, value in graph.constants.items():
        others = alike.setdefault(_sample(value), [])
        first = next((n for n in others if equal(graph.constants[n], value)), None)
        if first is None:
            others.append(name)
        elif name not in kept:
            table[name] = first
    writers = graph.writers
    seen: dict[tuple[Op, tuple[str, ...]], Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if not table.keys().isdisjoint(node.inputs):
            node = replace(node, inputs=tuple(table.get(t, t) for t in node.inputs))
        key = (node.op, node.inputs)
        if len(writers[node.output]) == 1 and node.output not in kept and key in seen:
            table[node.output] = seen[key].output
            continue
        if len(writers[node.output]) == 1:
            seen.setdefault(key, node)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _sample(value: Array) -> tuple[object, ...]:
    """What equal constants have in common; a model's weights are too many to look at each byte."""
    if (lack := lacking([value])) is not None:
        return (lack,)
    bits = stored_bits(value)
    seen = value if bits is None else bits.source
    some = seen.reshape(-1)[:: max(1, seen.size // 256)].tobytes()
    give_back(seen)  # of a file each of them has shown pages
    return value.dtype, value.shape, some
