"""Two halves of a tensor that are written apart, as one op: how rotary embeddings swap a vector's halves."""

from __future__ import annotations

import numpy as np

from ...ir.affine import Access, Affine, axis
from ...ir.graph import Graph, Node
from ...ir.ops.elementwise import Mul
from .compose import full_box, leaves
from .rewriter import Rewriter, sources

HALF = "half"


def merge_halves(graph: Graph) -> Graph:
    """Concat(-x[h:], x[:h]) as sign[half] * x[h - h*half + i]: one op, which its reader can take in."""
    r = Rewriter(graph)
    nodes: list[Node | None] = list(graph.nodes)
    for tensor, at in graph.writers.items():
        if len(at) != 2:
            continue
        parts = sorted((graph.nodes[i] for i in at), key=lambda n: [e.const for e in n.op.write])
        found = _halves(graph, *parts)
        if found is None:
            continue
        read, write, axes = found
        kind = parts[0].op.out_type
        signs = np.array([n.op.sign for n in parts], kind.numpy)
        sign = r.constant(signs, f"{tensor}.sign")
        reads = (read, (axis(HALF),))
        op = Mul(axes=axes, reads=reads, write=write, in_types=(kind, kind), out_type=kind)
        nodes[at[0]], nodes[at[1]] = None, Node(op, (*parts[0].inputs, sign), tensor, sources(*parts))
    r.nodes += [n for n in nodes if n is not None]
    return r.finish()


def _halves(graph: Graph, a: Node, b: Node) -> tuple[Access, Access, tuple[tuple[str, int], ...]] | None:
    """(read, write, axes) of one op for two that copy, or negate, the halves of one tensor into another."""
    if {a.op.sign, b.op.sign} not in ({1, -1}, {-1}) or a.inputs != b.inputs:
        return None
    if a.op.axes != b.op.axes or a.op.out_type != b.op.out_type or not a.op.out_type.is_float:
        return None
    write, read = _with_half(a.op.write, b.op.write), _with_half(a.op.reads[0], b.op.reads[0])
    beyond = any(leaves(n.op.reads[0], full_box(n.op), graph.tensors[n.inputs[0]].shape) for n in (a, b))
    if write is None or read is None or HALF in a.op.size or beyond:
        return None
    steps = [e.coefficient(HALF) for e in write]
    if steps.count(0) != len(steps) - 1 or sum(steps) <= 0:
        return None
    (cut,) = (d for d, step in enumerate(steps) if step)
    # The halves meet: the tensor's other dimensions are whole, this one is two stretches of `step`.
    if graph.tensors[a.output].shape[cut] != 2 * steps[cut] or len(a.op.write[cut].terms) != 1:
        return None
    inner = a.op.write[cut].terms[0][0]
    axes: list[tuple[str, int]] = []
    for name, n in a.op.axes:
        axes += [(HALF, 2), (name, n)] if name == inner else [(name, n)]
    return read, write, tuple(axes)


def _with_half(first: Access, second: Access) -> Access | None:
    """The access that is `first` for half 0 and `second` for half 1."""
    if any(e.terms != f.terms for e, f in zip(first, second, strict=True)):
        return None
    return tuple(
        e.plus(Affine(((HALF, f.const - e.const),))) if f.const != e.const else e
        for e, f in zip(first, second, strict=True)
    )
