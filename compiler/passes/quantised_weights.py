"""Weights that the graph dequantises: they stay on the cores as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...ir.absent import folded, lacking
from ...ir.affine import Access, Affine, access_axes
from ...ir.dtypes import F32, I16
from ...ir.graph import Graph, Node
from ...ir.op import Array, product
from ...ir.ops.elementwise import Mul
from ...ir.ops.quantize import Centred, in_least_bytes
from .ranges import LARGEST, magnitude
from .rewriter import Rewriter, sources


def keep_quantised(graph: Graph) -> Graph:
    """Products read the numbers of constants that only they read dequantised; what comes out is scaled.

    That is so where a scale is the same along all that is summed, and the sum stays in f32's range without
    it: then the factor can wait until the sum is made.
    Zero points are subtracted when compiling. Other dequantised constants are folded.
    """
    r = Rewriter(graph)
    kept: dict[str, Node] = {}  # dequantised weight -> the node that makes it
    for node in graph.nodes:
        if not is_weight(graph, node):
            continue
        uses = [(graph.nodes[i], operand) for i, operand in graph.readers.get(node.output, ())]
        if all(can_wait(graph, node, reader, operand) for reader, operand in uses):
            kept[node.output] = node
        else:
            r.constants[node.output] = _value(node, [r.constants[t] for t in node.inputs])
    for node in graph.nodes:
        if node.output in kept or node.output in r.constants:
            continue
        operand = next((j for j, t in enumerate(node.inputs) if t in kept), None)
        if operand is None:
            r.nodes.append(node)
        else:
            _scale(r, node, operand, kept[node.inputs[operand]])
    return r.finish()


def is_weight(graph: Graph, node: Node) -> bool:
    """Whether the node dequantises a constant, and nothing else makes its result."""
    if not node.op.dequantises or not all(t in graph.constants for t in node.inputs):
        return False
    return len(graph.writers[node.output]) == 1 and node.output not in graph.results


def _value(node: Node, operands: list[Array]) -> Array:
    if (lack := lacking(operands)) is not None:
        box = node.op.hold({a: (0, n) for a, n in node.op.axes})
        return folded(lack, node.output, [end for _, end in box], node.op.out_type.numpy)
    return np.asarray(node.op.reference(*operands))


def can_wait(graph: Graph, weight: Node, reader: Node, operand: int) -> bool:
    """Whether a product can be scaled in place of its operand."""
    op = reader.op
    if not op.product or (op.out_type, weight.op.out_type) != (F32, F32):
        return False
    if reader.inputs[0] == reader.inputs[1] or len(graph.writers[reader.output]) > 1:
        return False
    if len(weight.inputs) > 2 and lacking([graph.constants[t] for t in weight.inputs]) is not None:
        return False
    places = _places(weight, op.reads[operand])
    if places is None or set(access_axes(_seen(weight.op.reads[1], places))) & set(op.reduced):
        return False
    return _in_range(graph, weight, reader, operand)


def _in_range(graph: Graph, weight: Node, reader: Node, operand: int) -> bool:
    """Whether what is scaled when summed stays in f32's range wherever what is scaled before does.

    What is stored is bounded by its types. An integer makes no term smaller, a float of few bits makes none
    smaller than the weight would that a scale of at most 1 makes of it.
    """
    beside, factor = reader.op.multiplied_by(operand)
    other = magnitude(graph, reader.inputs[beside])
    scale = magnitude(graph, weight.inputs[1])
    if other is None or scale is None or (weight.op.in_types[0].is_float and scale > 1):
        return False
    stored = sum(max(map(abs, t.limits)) for t in (weight.op.in_types[0], *weight.op.in_types[2:]))
    terms = product([reader.op.size[a] for a in reader.op.reduced])
    return terms * max(other * factor, 1.0) * stored * max(scale, 1.0) < LARGEST / 2


def _places(weight: Node, read: Access) -> Mapping[str, Affine] | None:
    """For each axis of the weight's op the place along it that a read of the weight asks for.

    None where an axis is no dimension of its own.
    """
    write = weight.op.write
    axes = [a for e in write for a in e.axes]
    plain = all(e.const == 0 and e.terms == ((e.axes[0], 1),) for e in write if e.terms)
    if not plain or len(axes) < len(write) or set(axes) != set(weight.op.size):
        return None
    return dict(zip(axes, read, strict=True))


def _seen(access: Access, places: Mapping[str, Affine]) -> Access:
    """What an access of the weight's op is, in the axes of what reads the weight."""
    out: list[Affine] = []
    for e in access:
        place = Affine((), e.const)
        for a, c in e.terms:
            place = place.plus(places[a].times(c))
        out.append(place)
    return tuple(out)


def _scale(r: Rewriter, node: Node, operand: int, weight: Node) -> None:
    """The product of stored numbers, and the scaling of what comes out."""
    op, places = node.op, _places(weight, node.op.reads[operand])
    assert places is not None
    stored, scale, *zero = weight.inputs
    stored = _centred(r, weight) if zero else stored
    sums = r.tensor(f"{node.output}_sums", r.shape(node.output), F32)
    inputs, reads, types = list(node.inputs), list(op.reads), list(op.in_types)
    inputs[operand], types[operand] = stored, r.dtype(stored)
    reads[operand] = _seen(weight.op.reads[0], places)
    unscaled = replace(op, reads=tuple(reads), in_types=tuple(types))
    scaling = Mul(
        axes=tuple((a, n) for a, n in op.axes if a not in op.reduced),
        reads=(op.write, _seen(weight.op.reads[1], places)),
        write=op.write,
        in_types=(F32, r.dtype(scale)),
        out_type=F32,
    )
    r.add(unscaled, inputs, sums, node.source)
    r.add(scaling, (sums, scale), node.output, sources(node, weight))


def _centred(r: Rewriter, weight: Node) -> str:
    """The weight's numbers less their zero points: one constant for all that read it."""
    stored, _, zero = weight.inputs
    name = f"{weight.output}_centred"
    if name not in r.constants:
        read, _, at = weight.op.reads
        kind, _, zero_kind = weight.op.in_types
        less = Centred(
            axes=weight.op.axes, reads=(read, at), write=read, in_types=(kind, zero_kind), out_type=I16
        )
        value = in_least_bytes(np.asarray(less.reference(r.constants[stored], r.constants[zero])))
        name = r.constant(value, name)
    return name
