"""Scales after sums: a product reads what is not scaled yet, and its result is scaled instead.

The sum over k of (x[k] * s) * w[k] is s times the sum of x[k] * w[k]. Where s is itself a sum over x (the
root mean square of a normalisation, the total of a softmax), the product need not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...ir.affine import Access, access_axes
from ...ir.dtypes import F32
from ...ir.graph import Graph, Node
from ...ir.op import Op, identity, product
from .compose import Match, full_box, leaves
from .rewriter import Rewriter

MOST_ROWS = 64  # of a product: one of many computes so long that its operand's scale is there in time
MOST_ANCESTORS = 16  # nodes looked at between a scale and what it is a sum over


@dataclass(frozen=True)
class _Scaled:
    """A tensor that is another one times, or over, a scale; both read in the axes of some op.

    op: what scales it: of two operands, linear in the first.
    """

    op: Op
    tensor: str
    read: Access
    scale: str
    scale_read: Access

    def last(self, axes: tuple[tuple[str, int], ...], write: Access, read: Access) -> Op:
        """The op that scales, of what is read through `read`, with f32 operands and result."""
        reads, types = (read, self.scale_read), (F32, F32)
        return replace(self.op, axes=axes, reads=reads, write=write, in_types=types, out_type=F32, fill=0.0)


def scale_results(graph: Graph) -> Graph:
    """Products of a scaled operand as scaled products, where the scale is a sum over the operand."""
    graph = _gains_first(graph)
    r = Rewriter(graph)
    for node in graph.nodes:
        found = _scaled_operand(graph, node)
        if found is None:
            r.nodes.append(node)
            continue
        operand, s = found
        op = node.op
        kept = access_axes(op.write)
        # One dimension for each axis: what the result is reshaped to binds the product's cuts no more.
        write = identity(kept)
        plain = r.tensor(f"{node.output}.unscaled", [op.size[a] for a in kept], F32)
        inputs = (*node.inputs[:operand], s.tensor, *node.inputs[operand + 1 :])
        reads = (*op.reads[:operand], s.read, *op.reads[operand + 1 :])
        r.add(replace(op, reads=reads, write=write), inputs, plain, node.source)
        last = s.last(tuple(a for a in op.axes if a[0] in kept), op.write, write)
        r.add(last, (plain, s.scale), node.output, node.source)
    return r.finish()


def _gains_first(graph: Graph) -> Graph:
    """(x * s) * gain as (x * gain) * s, where s is a sum over x and the gain is a constant."""
    r = Rewriter(graph)
    for node in graph.nodes:
        op = node.op
        gains = [j for j, t in enumerate(node.inputs) if t in graph.constants]
        s = None
        if _multiplies(op) and len(gains) == 1 and len(graph.readers[node.inputs[1 - gains[0]]]) == 1:
            s = _scaled(graph, node, 1 - gains[0])
        if s is None or not _varies(op, op.reads[gains[0]], s.scale_read):
            r.nodes.append(node)
            continue
        of = graph.tensors[node.output]
        gained = r.tensor(f"{node.output}.unscaled", of.shape, of.dtype)
        first = replace(op, reads=(s.read, op.reads[gains[0]]))
        r.add(first, (s.tensor, node.inputs[gains[0]]), gained, node.source)
        r.add(s.last(op.axes, op.write, op.write), (gained, s.scale), node.output, node.source)
    return r.finish()


def _multiplies(op: Op) -> bool:
    """Whether each element of the result is the product of one of each of two operands."""
    return op.elementwise and len(op.reads) == 2 and op.linear_in(0) and op.linear_in(1)


def _scaled_operand(graph: Graph, node: Node) -> tuple[int, _Scaled] | None:
    """The operand of a product that it could read unscaled; None where there is none."""
    op = node.op
    if not op.product or len(graph.writers[node.output]) > 1 or _outside(graph, node.output, op.write, op):
        return None
    reduced = {a for a in op.reduced if op.size[a] > 1}
    for j in range(len(node.inputs)):
        if product([op.size[a] for a in access_axes(op.reads[j]) if a not in op.reduced]) > MOST_ROWS:
            continue
        s = _scaled(graph, node, j)
        if s is not None and not reduced & set(access_axes(s.scale_read)):
            return j, s
    return None


def _scaled(graph: Graph, node: Node, operand: int) -> _Scaled | None:
    """Operand number `operand` of a node as a tensor and a scale that is a sum over it; None: it is not."""
    reader, whole = node.op, node.inputs[operand]
    found = graph.writers.get(whole, ())
    if len(found) != 1 or {*reader.in_types, reader.out_type} != {F32}:
        return None
    maker = graph.nodes[found[0]]
    op = maker.op
    scales = op.elementwise and len(op.reads) == 2 and op.linear_in(0)
    if not scales or {*op.in_types, op.out_type} != {F32}:
        return None
    match = Match(allow_splits=False)
    accesses = zip(op.write, reader.reads[operand], strict=True)
    if _outside(graph, whole, reader.reads[operand], reader) or not all(
        match.dimension(mine, op, theirs, reader) for mine, theirs in accesses
    ):
        return None
    reads = [match.through(r, op.size) for r in op.reads]
    for j, scale in enumerate(maker.inputs):
        read, scale_read = reads[1 - j], reads[j]
        if match.outside or read is None or scale_read is None or not op.linear_in(1 - j):
            continue
        if _varies(reader, read, scale_read) and _sums_over(graph, scale, maker.inputs[1 - j]):
            return _Scaled(op, maker.inputs[1 - j], read, scale, scale_read)
    return None


def _varies(op: Op, read: Access, other: Access) -> bool:
    """Whether `read` depends on an axis of `op` that `other` does not depend on."""
    axes = {a for a in access_axes(read) if op.size[a] > 1}
    return bool(axes - set(access_axes(other)))


def _outside(graph: Graph, tensor: str, access: Access, op: Op) -> bool:
    return bool(leaves(access, full_box(op), graph.tensors[tensor].shape))


def _sums_over(graph: Graph, tensor: str, over: str) -> bool:
    """Whether a sum is among what makes `tensor` from `over`, or from what that is a multiple of."""

    def makers(name: str) -> Iterator[Node]:
        return (graph.nodes[i] for i in graph.writers.get(name, ()))

    sources = {over, *(t for maker in makers(over) if _multiplies(maker.op) for t in maker.inputs)}
    todo = [(tensor, False)]
    for _ in range(MOST_ANCESTORS):
        if not todo:
            return False
        name, summed = todo.pop(0)
        if summed and name in sources:
            return True
        for maker in makers(name):
            if maker.op.reduced or maker.op.elementwise:
                todo += [(t, summed or bool(maker.op.reduced)) for t in maker.inputs]
    return False
