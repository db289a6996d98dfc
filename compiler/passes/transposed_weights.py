"""A large matrix and its transpose, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...ir.absent import lacking
from ...ir.graph import Graph, Node
from ...ir.op import Array

LARGE = 1 << 20  # bytes of a constant that is not kept twice


def read_transposed(graph: Graph) -> Graph:
    """Products read a large matrix that is another one transposed where that one lies.

    A language model's table of embeddings is also its last product's weights: kept once.
    """
    table: dict[str, str] = {}
    alike: dict[object, list[str]] = {}
    for name, value in graph.constants.items():
        if value.ndim != 2 or value.nbytes < LARGE:
            continue
        others = alike.get(_first_row(value.T), ())
        first = next((n for n in others if _same_matrix(graph.constants[n], value.T)), None)
        if first is not None:
            table[name] = first
        else:
            alike.setdefault(_first_row(value), []).append(name)
    return replace(graph, nodes=tuple(_transposed(node, table) for node in graph.nodes)) if table else graph


def _first_row(value: Array) -> tuple[object, ...]:
    """What equal matrices have in common, and hardly any others."""
    if (lack := lacking([value])) is not None:
        return (lack,)
    return value.dtype, value.shape, value[0].tobytes()


def _same_matrix(a: Array, b: Array) -> bool:
    """Whether all elements are equal."""
    if lacking([a, b]) is not None:
        return lacking([a]) == lacking([b])
    return (a.dtype, a.shape) == (b.dtype, b.shape) and np.array_equal(a, b)


def _transposed(node: Node, table: Mapping[str, str]) -> Node:
    """The node with its operands in `table` replaced by their transposes, if it is a product."""
    if not node.op.product or not table.keys() & set(node.inputs):
        return node
    reads = tuple(
        tuple(reversed(access)) if t in table else access
        for t, access in zip(node.inputs, node.op.reads, strict=True)
    )
    op = replace(node.op, reads=reads)
    return replace(node, op=op, inputs=tuple(table.get(t, t) for t in node.inputs))
