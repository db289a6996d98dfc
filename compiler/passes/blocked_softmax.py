"""Softmax over a cache's positions in blocks, so that nothing waits for the largest of all of them.

The weights of a block are taken of what its positions are below the block's own maximum. Each block's part
of the product with the values is scaled by its own factor, exp(its maximum - the largest), before the blocks
are summed: these factors travel while the weights are computed and multiplied. It is exactly softmax; the
rescaling is that of Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

import numpy as np

from ...ir.affine import Access, Affine, access_axes
from ...ir.dtypes import F32
from ...ir.graph import Graph, Node
from ...ir.op import Op, product
from ...ir.ops.activation import SoftmaxWeight
from ...ir.ops.contract import Contract
from ...ir.ops.elementwise import Div, Max, Sub
from ...ir.ops.reduce import ReduceMax, ReduceSum
from .compose import Match
from .late_scales import MOST_ROWS
from .parts import Parts
from .rewriter import Read, Rewriter

BLOCK = 8  # positions that share a maximum: about what a core holds of a long cache
SHORT = 2048  # positions of the shortest cache that gains: fewer cores know their maximum soon
LAYERS = 2  # that read such caches: those of a stack are weighed together, which so many small ops need


def softmax_in_blocks(graph: Graph) -> Graph:
    """Every product of a Softmax over positions with a cache, its sum in blocks.

    Where the Softmax has many rows, as in a prompt's, only the product's axis is cut in two, so that it can
    be split as that of another entry.
    """
    caches = graph.in_place.keys()
    if not caches:
        return graph
    weighed = [_weighed(graph, node) for node in graph.nodes]
    if sum(w is not None for w in weighed) < LAYERS:
        return graph
    r = Rewriter(graph)
    for node, found in zip(graph.nodes, weighed, strict=True):
        if found is None:
            r.nodes.append(node)
            continue
        operand, weights, scores = found
        (over,) = node.op.reduced
        names = _names(over)
        scores = _cut(scores, over, names)
        node = replace(node, op=_in_blocks(node.op, over, names))
        rows = product([node.op.size[a] for a in access_axes(scores) if a not in names])
        if rows > MOST_ROWS or len(graph.readers[weights.output]) > 1 or weights.output in graph.results:
            r.nodes.append(node)
            continue
        _product(Parts(r, node), operand, (weights.inputs[0], scores), names)
    return r.finish()


def _weighed(graph: Graph, node: Node) -> tuple[int, Node, Access] | None:
    """(operand, the Softmax that makes it, what that reads in the product's axes) of a product."""
    op = node.op
    caches = graph.in_place.keys()
    if not op.product or {*op.in_types, op.out_type} != {F32} or len(op.reduced) != 1:
        return None
    (over,) = op.reduced
    if op.size[over] < SHORT or op.size[over] % BLOCK or len(graph.writers[node.output]) > 1:
        return None
    for j, t in enumerate(node.inputs):
        made = graph.writers.get(t, ())
        soft = graph.nodes[made[0]] if len(made) == 1 else None
        if soft is None or node.inputs[1 - j] not in caches or len(soft.op.softmax_over) != 1:
            continue
        if {*soft.op.in_types, soft.op.out_type} != {F32}:
            continue
        match = Match(allow_splits=False)
        accesses = zip(soft.op.write, op.reads[j], strict=True)
        if not all(match.dimension(mine, soft.op, theirs, op) for mine, theirs in accesses) or match.outside:
            continue
        scores = match.through(soft.op.reads[0], soft.op.size)
        if scores is not None and match.values[soft.op.softmax_over[0]] == Affine(((over, 1),)):
            return j, soft, scores
    return None


def _names(over: str) -> tuple[str, str]:
    """Of the axes that `over` is cut into: the blocks, and the positions in a block."""
    return f"{over}.block", f"{over}.in"


def _cut(access: Access, over: str, names: tuple[str, str]) -> Access:
    block, inside = names
    return tuple(e.substitute(over, Affine(((block, BLOCK), (inside, 1)))) for e in access)


def _in_blocks(op: Op, over: str, names: tuple[str, str]) -> Op:
    """The product with the axis `over` as blocks of positions."""
    axes: list[tuple[str, int]] = []
    for a, n in op.axes:
        axes += [(names[0], n // BLOCK), (names[1], BLOCK)] if a == over else [(a, n)]
    return replace(op, axes=tuple(axes), reads=tuple(_cut(r, over, names) for r in op.reads))


def _product(p: Parts, operand: int, scores: Read, names: tuple[str, str]) -> None:
    """The nodes of softmax(scores) times the values."""
    block, inside = names
    op = p.node.op
    largest = p.op(ReduceMax, [scores], [inside])
    # A block that nothing is visible in is far below any other, but not infinitely far below itself.
    own = p.op(Max, [largest, p.number(float(np.finfo(np.float32).min))])
    # No sum of all positions may pass the largest value: see `ranges`.
    share = 2.0 ** -ceil(log2(op.size[block] * op.size[inside]))
    powers = p.op(SoftmaxWeight, [p.op(Sub, [scores, own])], share=share)
    values = (p.node.inputs[1 - operand], op.reads[1 - operand])
    parts = p.op(Contract, [powers, values] if operand == 0 else [values, powers], [inside])
    factor = p.op(SoftmaxWeight, [p.op(Sub, [own, p.op(ReduceMax, [own], [block])])])
    total = p.op(Contract, [p.op(ReduceSum, [powers], [inside]), factor], [block])
    p.last(Div, [p.op(Contract, [parts, factor], [block]), total])
