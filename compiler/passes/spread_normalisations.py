"""Normalisations as sums and elementwise ops, so that one row can lie on many cores.

A Softmax or LayerNorm kept whole runs each row on one core: 16 rows would use 16 cores of a wafer. As
reductions (whose partial results the fabric joins) and elementwise ops every axis can be cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.dtypes import F32
from ...ir.graph import Graph
from ...ir.op import Normalisation
from ...ir.ops.activation import SoftmaxWeight
from ...ir.ops.contract import Contract
from ...ir.ops.elementwise import Add, Div, Mul, Reciprocal, Sqrt, Sub
from ...ir.ops.reduce import ReduceMax, ReduceSum
from .parts import Parts
from .rewriter import Rewriter


def spread_normalisations(graph: Graph) -> Graph:
    """Every f32 Softmax and LayerNorm as reductions and elementwise ops."""
    r = Rewriter(graph)
    for node in graph.nodes:
        op = node.op
        plain = {*op.in_types, op.out_type} == {F32}
        if plain and op.softmax_over:
            _softmax(Parts(r, node), op.softmax_over)
        elif plain and op.normalisation:
            _normalisation(Parts(r, node), op.normalisation)
        else:
            r.nodes.append(node)
    return r.finish()


def _softmax(p: Parts, over: Sequence[str]) -> None:
    x = (p.node.inputs[0], p.node.op.reads[0])
    largest = p.op(ReduceMax, [x], over)
    powers = p.op(SoftmaxWeight, [p.op(Sub, [x, largest])])
    total = p.op(ReduceSum, [powers], over)
    p.last(Div, [powers, total])


def _normalisation(p: Parts, what: Normalisation) -> None:
    op, over = p.node.op, what.over
    x, *affine = zip(p.node.inputs, op.reads, strict=True)
    share = 1.0 / float(np.prod([op.size[a] for a in over]))
    if what.centred:
        x = p.op(Sub, [x, p.op(ReduceSum, [x], over, scale=share)])
    squares = p.op(Contract, [x, x], over)
    variance = p.op(Mul, [squares, p.number(share)])
    deviation = p.op(Sqrt, [p.op(Add, [variance, p.number(what.epsilon)])])
    scaled = p.op(Mul, [x, p.op(Reciprocal, [deviation])])
    if len(affine) > 1:
        p.last(Add, [p.op(Mul, [scaled, affine[0]]), affine[1]])
    else:
        p.last(Mul, [scaled, affine[0]])
