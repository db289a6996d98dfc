"""Scales after sums: a product reads what is not scaled yet, and its result is scaled instead.

The sum over k of (x[k] * s) * w[k] is s times the sum of x[k] * w[k]. Where s is itself a sum over x (the
root mean square of a normalisation, the total of a softmax), the product need not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...ir.affine import Access, access_axes
from ...ir.dtypes import F32
from ...ir.graph import Graph, Node, Tensor
from ...ir.op import Op, identity, product
from ...ir.ops.contract import Contract
from ...ir.ops.elementwise import Div, Elementwise, Mul
from .compose import Match, full_box, leaves

MOST_ROWS = 64  # of a product: one of many computes so long that its operand's scale is there in time
MOST_ANCESTORS = 16  # nodes looked at between a scale and what it is a sum over

Makers = Mapping[str, Sequence[Node]]


@dataclass(frozen=True)
class _Scaled:
    """A tensor that is another one times, or over, a scale; both read in the axes of some op.

    kind: Mul or Div.
    """

    kind: type[Elementwise]
    tensor: str
    read: Access
    scale: str
    scale_read: Access


def scale_results(graph: Graph) -> Graph:
    """Products of a scaled operand as scaled products, where the scale is a sum over the operand."""
    graph = _gains_first(graph)
    makers = _makers(graph)
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        found = _scaled_operand(graph, node, makers)
        if found is None:
            nodes.append(node)
            continue
        operand, s = found
        op = node.op
        kept = access_axes(op.write)
        # One dimension for each axis: what the result is reshaped to binds the product's cuts no more.
        write = identity(kept)
        plain = fresh(f"{node.output}.unscaled", tensors)
        tensors[plain] = Tensor(plain, tuple(op.size[a] for a in kept), F32)
        inputs = (*node.inputs[:operand], s.tensor, *node.inputs[operand + 1 :])
        reads = (*op.reads[:operand], s.read, *op.reads[operand + 1 :])
        nodes.append(Node(replace(op, reads=reads, write=write), inputs, plain, node.source))
        last = s.kind(
            axes=tuple(a for a in op.axes if a[0] in kept),
            reads=(write, s.scale_read),
            write=op.write,
            in_types=(F32, F32),
            out_type=F32,
        )
        nodes.append(Node(last, (plain, s.scale), node.output, node.source))
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _gains_first(graph: Graph) -> Graph:
    """(x * s) * gain as (x * gain) * s, where s is a sum over x and the gain is a constant."""
    makers, readers = _makers(graph), graph.readers
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        op = node.op
        gains = [j for j, t in enumerate(node.inputs) if t in graph.constants]
        s = None
        if type(op) is Mul and len(gains) == 1 and len(readers[node.inputs[1 - gains[0]]]) == 1:
            s = _scaled(graph, node, 1 - gains[0], makers)
        if s is None or not _varies(op, op.reads[gains[0]], s.scale_read):
            nodes.append(node)
            continue
        gain = node.inputs[gains[0]], op.reads[gains[0]]
        of = graph.tensors[node.output]
        gained = fresh(f"{node.output}.unscaled", tensors)
        tensors[gained] = Tensor(gained, of.shape, of.dtype)
        first = replace(op, reads=(s.read, gain[1]))
        last = s.kind(
            axes=op.axes,
            reads=(op.write, s.scale_read),
            write=op.write,
            in_types=op.in_types,
            out_type=F32,
        )
        nodes.append(Node(first, (s.tensor, gain[0]), gained, node.source))
        nodes.append(Node(last, (gained, s.scale), node.output, node.source))
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _makers(graph: Graph) -> Makers:
    return {t: [graph.nodes[i] for i in at] for t, at in graph.writers.items()}


def _scaled_operand(graph: Graph, node: Node, makers: Makers) -> tuple[int, _Scaled] | None:
    """The operand of a product that it could read unscaled; None where there is none."""
    op = node.op
    if type(op) is not Contract or len(makers[node.output]) > 1 or _outside(graph, node.output, op.write, op):
        return None
    reduced = {a for a in op.reduced if op.size[a] > 1}
    for j in range(len(node.inputs)):
        if product([op.size[a] for a in access_axes(op.reads[j]) if a not in op.reduced]) > MOST_ROWS:
            continue
        s = _scaled(graph, node, j, makers)
        if s is not None and not reduced & set(access_axes(s.scale_read)):
            return j, s
    return None


def _scaled(graph: Graph, node: Node, operand: int, makers: Makers) -> _Scaled | None:
    """Operand number `operand` of a node as a tensor and a scale that is a sum over it; None: it is not."""
    reader, whole = node.op, node.inputs[operand]
    found = makers.get(whole, ())
    if len(found) != 1 or {*reader.in_types, reader.out_type} != {F32}:
        return None
    maker = found[0]
    op = maker.op
    if type(op) not in (Mul, Div) or {*op.in_types, op.out_type} != {F32}:
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
        if match.outside or read is None or scale_read is None or (type(op) is Div and j == 0):
            continue
        if _varies(reader, read, scale_read) and _sums_over(scale, maker.inputs[1 - j], makers):
            kind = Div if type(op) is Div else Mul
            return _Scaled(kind, maker.inputs[1 - j], read, scale, scale_read)
    return None


def _varies(op: Op, read: Access, other: Access) -> bool:
    """Whether `read` depends on an axis of `op` that `other` does not depend on."""
    axes = {a for a in access_axes(read) if op.size[a] > 1}
    return bool(axes - set(access_axes(other)))


def _outside(graph: Graph, tensor: str, access: Access, op: Op) -> bool:
    return bool(leaves(access, full_box(op), graph.tensors[tensor].shape))


def _sums_over(tensor: str, over: str, makers: Makers) -> bool:
    """Whether a sum is among what makes `tensor` from `over`, or from what that is a multiple of."""
    sources = {over, *(t for maker in makers.get(over, ()) if type(maker.op) is Mul for t in maker.inputs)}
    todo = [(tensor, False)]
    for _ in range(MOST_ANCESTORS):
        if not todo:
            return False
        name, summed = todo.pop(0)
        if summed and name in sources:
            return True
        for maker in makers.get(name, ()):
            if maker.op.reduced or isinstance(maker.op, Elementwise):
                todo += [(t, summed or bool(maker.op.reduced)) for t in maker.inputs]
    return False


def fresh(name: str, tensors: Mapping[str, Tensor]) -> str:
    while name in tensors:
        name += "'"
    return name
