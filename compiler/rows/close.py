"""The graph of a model that took rows by NonZero, with all rows, each put where its place says or nowhere.

A row that a run has not is computed like the others, of elements that are there, and then left out: its place
is made one outside. Where each row is an expert's, no row is computed in vain: see `experts`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...ir.affine import Affine
from ...ir.dtypes import I64
from ...ir.graph import Graph, Node
from ...ir.ops.conversion import Where
from ...ir.ops.elementwise import apply
from ...ir.ops.logic import And
from ...ir.ops.rearrange import Copy, reshape
from ...ir.ops.scatter import OUTSIDE, Scatter
from ...ir.rules import GraphBuilder
from ..frontend.open_rows import OpenRows
from ..passes.dead_nodes import eliminate_dead
from ..passes.rewriter import Rewriter
from .experts import OnePass, loops
from .follow import Followed, by_row, follow, in_digits, in_row_order


def close_rows(graph: Graph, rows: OpenRows) -> Graph:
    """The graph without NonZero. Raises Unsupported, with what of its rows is more than rows."""
    graph = eliminate_dead(graph)  # what only asked for shapes
    followed = follow(graph, rows)
    found = list(loops(graph, followed))
    gone = {i for loop in found for i in loop.others}
    instead = {t: other for loop in found for t, other in loop.instead.items()}
    r = Rewriter(graph)
    passes: dict[int, OnePass] = {}
    for loop in found:
        passes |= dict.fromkeys(loop.first, OnePass(r, graph, followed, loop))
    for i, node in enumerate(graph.nodes):
        r.source = node.source
        if node.output in followed.known:
            r.constants[node.output] = followed.known[node.output]
        elif i not in gone:
            node = replace(node, inputs=tuple(_last(instead, t) for t in node.inputs))
            if i in followed.axes:
                node = _closed(r, followed, i, node, passes.get(i))
            r.nodes.append(node)
    return r.finish()


def _last(instead: dict[str, str], tensor: str) -> str:
    while tensor in instead:
        tensor = instead[tensor]
    return tensor


def _closed(g: GraphBuilder, followed: Followed, i: int, node: Node, one: OnePass | None) -> Node:
    """A node of rows, as it computes all of them."""
    if i in followed.ends:
        return one.put_in_place(node) if one else put_in_place(g, followed, i, node)
    node = taken_rows(followed, i, node) or node
    return one.node(i, node) if one else node


def taken_rows(followed: Followed, i: int, node: Node) -> Node | None:
    """A look-up at known places as a copy, where these follow the mask's dimensions; None: it is none."""
    row, op = followed.axes[i], node.op
    if not op.looked_up or node.inputs[1] not in followed.known or node.inputs[0] in followed.marks:
        return None
    places = by_row(node, 1, row, followed.known[node.inputs[1]])
    sizes = followed.taken[followed.owners[i]].digits
    found = None if places is None else in_digits(places, sizes)
    if found is None:
        return None
    first, factors = found
    names = [f"{row}_{d}" for d in range(len(sizes))]
    whole = in_row_order(names, sizes)
    place = Affine(tuple((a, f) for a, f in zip(names, factors, strict=True) if f), first)
    digits = [(a, n) for a, n in zip(names, sizes, strict=True) if n > 1]
    axes = [x for a, n in op.axes for x in (digits if a == row else [(a, n)]) if a not in op.reduced]
    copy = Copy(
        axes=tuple(axes),
        reads=(tuple(e.substitute(op.looked_up, place).substitute(row, whole) for e in op.reads[0]),),
        write=tuple(e.substitute(row, whole) for e in op.write),
        in_types=op.in_types[:1],
        out_type=op.out_type,
    )
    return replace(node, op=copy, inputs=node.inputs[:1])


def put_in_place(g: GraphBuilder, followed: Followed, i: int, node: Node) -> Node:
    """A node that puts rows in place, those that the run has."""
    op, taken = node.op, followed.taken[followed.owners[i]]
    assert isinstance(op, Scatter)
    places: list[str] = []
    for t in node.inputs[2:]:
        value = followed.known[t].astype(np.int64)
        dim = followed.marks[t].dim
        count = 1 if taken.alone else taken.rows
        held = reshape(g, taken.mask, [count if d == dim else 1 for d in range(value.ndim)], t)
        if taken.alone:
            first = np.arange(2).reshape([2 if d == dim else 1 for d in range(value.ndim)]) == 0
            held = apply(g, And, [held, g.constant(first)], t)
        outside = g.constant(np.array(OUTSIDE))
        places.append(apply(g, Where, [held, g.constant(value, t), outside], t))
    types = (*op.in_types[:2], *(I64 for _ in places))
    return replace(node, op=replace(op, of=(), in_types=types), inputs=(*node.inputs[:2], *places))
