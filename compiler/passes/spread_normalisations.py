"""Normalisations as sums and elementwise ops, so that one row can lie on many cores.

A Softmax or LayerNorm kept whole runs each row on one core: 16 rows would use 16 cores of a wafer. As
reductions (whose partial results the fabric joins) and elementwise ops every axis can be cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...ir.affine import Access
from ...ir.dtypes import F32, of_numpy
from ...ir.graph import Graph, Node, Tensor
from ...ir.op import Array, Op, identity
from ...ir.ops.activation import SoftmaxWeight
from ...ir.ops.contract import Contract
from ...ir.ops.elementwise import Add, Div, Elementwise, Mul, Reciprocal, Sqrt, Sub
from ...ir.ops.normalize import LayerNorm, Softmax
from ...ir.ops.reduce import ReduceMax, ReduceSum


@dataclass
class Writer:
    """Nodes that stand for one node, and the tensors between them."""

    node: Node
    tensors: dict[str, Tensor]
    constants: dict[str, Array]
    nodes: list[Node] = field(default_factory=lambda: [])

    def number(self, value: float) -> tuple[str, Access]:
        name = self._fresh("number")
        array = np.asarray(value, F32.numpy)
        self.tensors[name] = Tensor(name, (), of_numpy(array.dtype))
        self.constants[name] = array
        return name, ()

    def op(
        self, kind: type[Op], operands: Sequence[tuple[str, Access]], over: Sequence[str], **fields: Any
    ) -> tuple[str, Access]:
        """`kind` on `operands`; the result has one dimension per axis not in `over`."""
        used = {a for _, access in operands for e in access for a in e.axes}
        axes = tuple((a, n) for a, n in self.node.op.axes if a in used)
        kept = [a for a, _ in axes if a not in over]
        size = dict(axes)
        name = self._fresh(kind.__name__)
        self.tensors[name] = Tensor(name, tuple(size[a] for a in kept), F32)
        write = identity(kept)
        self._add(kind, operands, axes, write, name, fields)
        return name, write

    def last(self, kind: type[Elementwise], operands: Sequence[tuple[str, Access]]) -> None:
        """The op that writes the node's own result."""
        op = self.node.op
        # An axis of size 1 may be missing from the write alone.
        axes = tuple((a, n) for a, n in op.axes if n == 1 or a not in op.reduced)
        self._add(kind, operands, axes, op.write, self.node.output, {})

    def _add(
        self,
        kind: type[Op],
        operands: Sequence[tuple[str, Access]],
        axes: tuple[tuple[str, int], ...],
        write: Access,
        name: str,
        fields: dict[str, Any],
    ) -> None:
        op = kind(
            axes=axes,
            reads=tuple(a for _, a in operands),
            write=write,
            in_types=(F32,) * len(operands),
            out_type=F32,
            **fields,
        )
        self.nodes.append(Node(op, tuple(t for t, _ in operands), name, self.node.source))

    def _fresh(self, hint: str) -> str:
        base = f"{self.node.output}.{hint}"
        name, n = base, 1
        while name in self.tensors:
            n += 1
            name = f"{base}.{n}"
        return name


def spread_normalisations(graph: Graph) -> Graph:
    """Every f32 Softmax and LayerNorm as reductions and elementwise ops."""
    tensors, constants = dict(graph.tensors), dict(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        op = node.op
        plain = {*op.in_types, op.out_type} == {F32}
        if plain and isinstance(op, Softmax) and not op.logarithm:
            w = Writer(node, tensors, constants)
            _softmax(w, op)
            nodes += w.nodes
        elif plain and isinstance(op, LayerNorm):
            w = Writer(node, tensors, constants)
            _layer_norm(w, op)
            nodes += w.nodes
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), tensors=tensors, constants=constants)


def _softmax(w: Writer, op: Softmax) -> None:
    x = (w.node.inputs[0], op.reads[0])
    largest = w.op(ReduceMax, [x], op.over)
    powers = w.op(SoftmaxWeight, [w.op(Sub, [x, largest], ())], ())
    total = w.op(ReduceSum, [powers], op.over)
    w.last(Div, [powers, total])


def _layer_norm(w: Writer, op: LayerNorm) -> None:
    operands = list(zip(w.node.inputs, op.reads, strict=True))
    x = operands[0]
    share = 1.0 / float(np.prod([op.size[a] for a in op.over]))
    if op.centred:
        x = w.op(Sub, [x, w.op(ReduceSum, [x], op.over, scale=share)], ())
    squares = w.op(Contract, [x, x], op.over)
    variance = w.op(Mul, [squares, w.number(share)], ())
    deviation = w.op(Sqrt, [w.op(Add, [variance, w.number(op.epsilon)], ())], ())
    scaled = w.op(Mul, [x, w.op(Reciprocal, [deviation], ())], ())
    if len(operands) > 2:
        w.last(Add, [w.op(Mul, [scaled, operands[1]], ()), operands[2]])
    else:
        w.last(Mul, [scaled, operands[1]])
