"""Products by matrices that an index chooses, experts: the index is an address, and no matrix moves."""

from __future__ import annotations

from dataclasses import replace

from ...ir.affine import access_axes, axis
from ...ir.graph import Graph, Node
from ...ir.ops.indexed import Indexed, indexed
from .compose import Match, full_box, leaves
from .quantised_weights import is_weight
from .rewriter import Rewriter, sources


def index_products(graph: Graph) -> Graph:
    """Products of what was looked up in a constant look it up themselves, where that is a matrix or more.

    A row that is looked up for a sum (of an embedding) is little, and the product is the same for all rows.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        for operand in range(len(node.inputs)):
            found = graph.writers.get(node.inputs[operand], ())
            lookup = graph.nodes[found[0]] if len(found) == 1 else None
            op = _looking_up(graph, node, operand, lookup) if lookup else None
            if op and lookup:
                inputs = (node.inputs[1 - operand], *lookup.inputs)
                node = replace(node, op=op, inputs=inputs, source=sources(lookup, node))
                break
        r.nodes.append(node)
    return r.finish()


def _looking_up(graph: Graph, node: Node, operand: int, lookup: Node) -> Indexed | None:
    """The node's op with one operand taken from where the look-up takes it; None where it cannot be."""
    op, source = node.op, lookup.op
    place = source.looked_up
    if not op.product or not place or not _is_constant(graph, lookup.inputs[0]) or place in op.size:
        return None
    # renamed or not, an axis of the look-up means what the product's axes say of it
    match = Match(allow_splits=False)
    for mine, theirs in zip(source.write, op.reads[operand], strict=True):
        if not match.dimension(mine, source, theirs, op):
            return None
    match.values[place] = axis(place)
    through, by = (match.through(read, source.size) for read in source.reads)
    if match.outside or through is None or by is None or _past_the_ends(graph, node):
        return None
    matrix = {a for a in access_axes(through) if op.size.get(a, 1) > 1} - {*access_axes(by), place}
    alone = matrix - {*op.reduced, *access_axes(op.reads[1 - operand])}
    if not alone or not matrix & set(op.reduced):
        return None
    return indexed(op, operand, source, through, by)


def _is_constant(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is one, or what a constant's numbers stand for."""
    found = graph.writers.get(tensor, ())
    return tensor in graph.constants or any(is_weight(graph, graph.nodes[i]) for i in found)


def _past_the_ends(graph: Graph, node: Node) -> bool:
    """Whether the node reads fills."""
    box = full_box(node.op)
    reads = zip(node.inputs, node.op.reads, strict=True)
    return any(leaves(read, box, graph.tensors[t].shape) for t, read in reads)
