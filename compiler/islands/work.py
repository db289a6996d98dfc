"""What a graph asks of a machine that reads its weights from memory: bytes, operations, launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ...ir.graph import Graph, Node
from ...ir.ops.indexed import Indexed
from ...placement.search.layers import repeated

MATRIX = 2  # dimensions of what is a weight, at least


@dataclass(frozen=True)
class Matrix:
    """A weight: its elements, and of how many matrices (experts) a token takes how many."""

    elements: int
    chosen: int = 1
    of: int = 1


@dataclass(frozen=True)
class Part:
    """A stretch of a graph, `times` over; all numbers are for one token (one call).

    cached: elements of the caches that products read, by how many heads they may be cut for several GPUs.
    operations: of products, two for a multiply-add; of them those with caches. launches: kernels of an
    engine that fuses what it can: a product with each tensor, whatever is multiplied with it at once; what
    comes between two of them; each product with caches. sums: over all GPUs, where products are cut. width:
    elements of one.
    """

    name: str
    times: int
    weights: tuple[Matrix, ...]
    cached: tuple[tuple[int, int], ...]
    operations: float
    on_caches: float
    launches: int
    sums: int
    width: int


def work(graph: Graph, name: str = "layer", times: int = 1) -> list[Part]:
    """The parts of a graph: layers that are alike once, and what is before and behind them.

    name, times: of a graph that is one layer.
    """
    found = repeated(graph) if times == 1 else None
    if found is None or not any(_caches(graph, n) for n in graph.nodes[found.start : found.end]):
        return [_part(graph, graph.nodes, name, times)]
    layer = slice(found.start, found.start + found.period)
    stretches = [
        ("before the layers", 1, graph.nodes[: found.start]),
        ("layer", found.count, graph.nodes[layer]),
        ("behind the layers", 1, graph.nodes[found.end :]),
    ]
    return [_part(graph, nodes, n, count) for n, count, nodes in stretches if nodes]


def _caches(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies two tensors that are computed."""
    return node.op.product and not any(t in graph.constants for t in node.inputs)


def _part(graph: Graph, nodes: Sequence[Node], name: str, times: int) -> Part:
    weights: list[Matrix] = []
    groups: set[tuple[str, bool]] = set()
    cached: dict[str, tuple[int, int]] = {}
    operations = on_caches = 0.0
    beside = width = 0
    for node in nodes:
        op = node.op
        if isinstance(op, Indexed):
            of = op.size[op.chosen]
            choices = prod(op.size[a] for a in op.chosen_by)
            weights.append(Matrix(_elements(graph, node.inputs[1]), choices, of))
            groups.add((node.inputs[0], True))
            operations += 2.0 * prod(n for a, n in op.axes if a != op.chosen)
        elif op.product and (constants := [t for t in node.inputs if t in graph.constants]):
            if len(graph.tensors[constants[0]].shape) >= MATRIX:
                weights.append(Matrix(_elements(graph, constants[0])))
            groups.add((next((t for t in node.inputs if t not in graph.constants), ""), False))
            operations += 2.0 * prod(n for _, n in op.axes)
        elif op.product:
            beside += 1
            on_caches += 2.0 * prod(n for _, n in op.axes)
            large = max(node.inputs, key=_count(graph))
            shape = graph.tensors[large].shape
            cached[large] = (_elements(graph, large), shape[1] if len(shape) == 4 else 1)
        else:
            continue
        width = max(width, min(_elements(graph, node.output), _elements(graph, node.inputs[0])))
    sums = 2 if beside else (len(groups) + 1) // 2
    launches = 2 * len(groups) + beside
    own = operations + on_caches
    return Part(name, times, tuple(weights), tuple(cached.values()), own, on_caches, launches, sums, width)


def _elements(graph: Graph, name: str) -> int:
    return prod(graph.tensors[name].shape)


def _count(graph: Graph) -> Callable[[str], int]:
    return lambda name: _elements(graph, name)
