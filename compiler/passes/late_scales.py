"""Scales after sums: a product reads what is not scaled yet, and its result is scaled instead.

The sum over k of (x[k] * s) * w[k] is s times the sum of x[k] * w[k]. Where s is itself a sum over x (the
root mean square of a normalisation, the total of a softmax), the product need not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.affine import Access, access_axes
from ...ir.dtypes import F32
from ...ir.graph import Graph, Node
from ...ir.op import Op, identity, product
from .compose import Match, full_box, leaves
from .ranges import Numerators, bounded, magnitude
from .rewriter import Rewriter

MOST_ROWS = 64  # of a product: one of many computes so long that its operand's scale is there in time


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
    """Products of a scaled operand as scaled products, where the scale is a sum over the operand and what is
    not scaled yet stays in f32's range: see `ranges`."""
    numerators = _gains_first(bounded(graph, _uses(graph)))
    graph = numerators.graph
    r = Rewriter(graph)
    for node in graph.nodes:
        found = _scaled_operand(graph, node)
        if found is None or not _in_range(numerators, node, *found):
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


def _uses(graph: Graph) -> dict[str, int]:
    """What is scaled and goes into products, maybe through a gain, and the most terms of one of them."""
    uses: dict[str, int] = {}
    gained: dict[str, str] = {}
    for node in graph.nodes:
        found = _gain(graph, node)
        if found is not None:
            gained[node.output] = node.inputs[1 - found[0]]
    for node in graph.nodes:
        terms = _terms(node.op)
        for j, t in enumerate(node.inputs) if node.op.product else ():
            if t in gained or _scaled(graph, node, j) is not None:
                source = gained.get(t, t)
                uses[source] = max(uses.get(source, 1), terms)
    return uses


def _terms(op: Op) -> int:
    return product([op.size[a] for a in op.reduced])


def _in_range(numerators: Numerators, node: Node, operand: int, s: _Scaled) -> bool:
    scaled = node.inputs[operand], s.scale
    other, factor = node.op.multiplied_by(operand)
    return numerators.may_wait(scaled, _terms(node.op), node.inputs[other], factor)


def _gain(graph: Graph, node: Node) -> tuple[int, _Scaled] | None:
    """The operand that is a constant gain of the other one, which only this node reads, and that one."""
    op = node.op
    gains = [j for j, t in enumerate(node.inputs) if t in graph.constants]
    if not _multiplies(op) or len(gains) != 1 or len(graph.readers[node.inputs[1 - gains[0]]]) != 1:
        return None
    s = _scaled(graph, node, 1 - gains[0])
    return None if s is None or not _varies(op, op.reads[gains[0]], s.scale_read) else (gains[0], s)


def _gains_first(numerators: Numerators) -> Numerators:
    """(x * s) * gain as (x * gain) * s, where s is a sum over x and the gain is a constant."""
    graph, most = numerators.graph, dict(numerators.most)
    r = Rewriter(graph)
    for node in graph.nodes:
        op, found = node.op, _gain(graph, node)
        if found is None:
            r.nodes.append(node)
            continue
        j, s = found
        gain, scaled = node.inputs[j], (node.inputs[1 - j], s.scale)
        if not numerators.may_wait(scaled, 1, gain):
            r.nodes.append(node)
            continue
        of = graph.tensors[node.output]
        gained = r.tensor(f"{node.output}.unscaled", of.shape, of.dtype)
        first = replace(op, reads=(s.read, op.reads[j]))
        r.add(first, (s.tensor, gain), gained, node.source)
        r.add(s.last(op.axes, op.write, op.write), (gained, s.scale), node.output, node.source)
        most[node.output, s.scale] = most[scaled] * (magnitude(graph, gain) or 1.0)
    return Numerators(r.finish(), most)


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
    """Operand number `operand` of a node as a tensor and a scale; None: it is not."""
    reader, whole = node.op, node.inputs[operand]
    found = graph.writers.get(whole, ())
    types = (reader.in_types[operand],) if reader.product else reader.in_types
    if len(found) != 1 or {*types, reader.out_type} != {F32}:
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
        if _varies(reader, read, scale_read):
            return _Scaled(op, maker.inputs[1 - j], read, scale, scale_read)
    return None


def _varies(op: Op, read: Access, other: Access) -> bool:
    """Whether `read` depends on an axis of `op` that `other` does not depend on."""
    axes = {a for a in access_axes(read) if op.size[a] > 1}
    return bool(axes - set(access_axes(other)))


def _outside(graph: Graph, tensor: str, access: Access, op: Op) -> bool:
    return bool(leaves(access, full_box(op), graph.tensors[tensor].shape))
