"""Fewer and simpler ops: elementwise chains as one op, numbers in the code, no axes of size 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ...ir.affine import Access, Affine
from ...ir.graph import Graph, Node
from ...ir.op import Op, product
from ...ir.ops.contract import Contract
from ...ir.ops.elementwise import Elementwise
from ...ir.ops.fused import Constant, Fused, Operand, Result, Source, Step, as_steps
from ...ir.ops.rearrange import Copy
from ...ir.ops.reduce import Reduce
from .compose import Match, full_box, leaves

MOST_OPERANDS = 12  # buffers of one kernel; past this the registers for their addresses run out
MOST_STEPS = 48


def fuse_elementwise(graph: Graph) -> Graph:
    """An elementwise op that only one other elementwise op reads becomes part of that one."""
    outputs, readers, writers = set(graph.results), dict(graph.readers), graph.writers
    nodes: list[Node | None] = list(graph.nodes)
    for at, reader in enumerate(graph.nodes):
        current = nodes[at]
        if current is None or not _fusible(reader.op):
            continue
        found = True
        while found:
            found = False
            for tensor in dict.fromkeys(current.inputs):
                makers = writers.get(tensor, [])
                if len(makers) != 1 or tensor in outputs or {i for i, _ in readers[tensor]} != {at}:
                    continue
                maker = nodes[makers[0]]
                fused = _fused(graph, maker, current) if maker else None
                if fused is not None:
                    current, found = fused, True
                    nodes[at], nodes[makers[0]] = fused, None
                    for t in fused.inputs:
                        readers[t] = [*((i, j) for i, j in readers[t] if i != makers[0]), (at, 0)]
                    break
    return replace(graph, nodes=tuple(n for n in nodes if n is not None))


def _fusible(op: Op) -> bool:
    return isinstance(op, Elementwise) and not isinstance(op, Copy)


def _fused(graph: Graph, maker: Node, reader: Node) -> Node | None:
    """Both as one node; None where the maker would have to compute more than now.

    An axis of the reader is cut in two where the maker has two for it.
    """
    inner, outer = maker.op, reader.op
    if not (isinstance(inner, Elementwise) and isinstance(outer, Elementwise)) or not _fusible(inner):
        return None
    of_maker = [j for j, t in enumerate(reader.inputs) if t == maker.output]
    read = outer.reads[of_maker[0]]
    if any(outer.reads[j] != read for j in of_maker):
        return None
    if product([n for _, n in outer.axes]) > product([n for _, n in inner.axes]):
        return None
    match = Match(allow_splits=any(len(e.terms) > 1 for e in inner.write))
    for mine, theirs in zip(inner.write, read, strict=True):
        if not match.dimension(mine, inner, theirs, outer):
            return None
    outer = match.split(outer)
    assert isinstance(outer, Elementwise)
    composed = [match.through(r, inner.size) for r in inner.reads]
    if match.outside or any(r is None for r in composed):
        return None
    fill = _common_fill(graph, maker, reader)
    if fill is None:
        return None
    operands: list[tuple[str, Access]] = []
    inner_at = [_place(operands, t, r) for t, r in zip(maker.inputs, composed, strict=True) if r is not None]
    outer_at = [
        -1 if j in of_maker else _place(operands, t, r)
        for j, (t, r) in enumerate(zip(reader.inputs, outer.reads, strict=True))
    ]
    first, second = as_steps(inner), as_steps(outer)
    if len(operands) > MOST_OPERANDS or len(first) + len(second) > MOST_STEPS:
        return None
    made = Result(len(first) - 1)
    steps = (
        *_moved(first, [Operand(i) for i in inner_at], 0),
        *_moved(second, [made if i < 0 else Operand(i) for i in outer_at], len(first)),
    )
    op = Fused(
        axes=outer.axes,
        reads=tuple(r for _, r in operands),
        write=outer.write,
        in_types=tuple(graph.tensors[t].dtype for t, _ in operands),
        out_type=outer.out_type,
        fill=fill,
        steps=steps,
    )
    source = tuple(dict.fromkeys((*maker.source, *reader.source)))
    return Node(op, tuple(t for t, _ in operands), reader.output, source)


def _place(operands: list[tuple[str, Access]], tensor: str, read: Access) -> int:
    """The number of this operand, which several steps may share."""
    if (tensor, read) not in operands:
        operands.append((tensor, read))
    return operands.index((tensor, read))


def _moved(steps: Sequence[Step], operands: Sequence[Source], offset: int) -> tuple[Step, ...]:
    """Steps with other operands, standing after `offset` further steps."""

    def source(s: Source) -> Source:
        if isinstance(s, Operand):
            return operands[s.number]
        return Result(s.number + offset) if isinstance(s, Result) else s

    return tuple(Step(s.op, tuple(map(source, s.sources))) for s in steps)


def _common_fill(graph: Graph, *nodes: Node) -> float | None:
    """The fill of those that read past an operand's end; None where they differ."""
    fills = {
        n.op.fill
        for n in nodes
        for t, r in zip(n.inputs, n.op.reads, strict=True)
        if leaves(r, full_box(n.op), graph.tensors[t].shape)
    }
    return None if len(fills) > 1 else next(iter(fills), 0.0)


def embed_scalars(graph: Graph) -> Graph:
    """Constants of one element become numbers in the code of the elementwise ops that read them."""
    nodes: list[Node] = []
    for node in graph.nodes:
        op = node.op
        values = [_scalar(graph, t) for t in node.inputs]
        if not isinstance(op, Elementwise) or isinstance(op, Copy) or all(v is None for v in values):
            nodes.append(node)
            continue
        kept = [j for j, v in enumerate(values) if v is None]
        sources: list[Source] = [v or Operand(kept.index(j)) for j, v in enumerate(values)]
        fused = Fused(
            axes=op.axes,
            reads=tuple(op.reads[j] for j in kept),
            write=op.write,
            in_types=tuple(op.in_types[j] for j in kept),
            out_type=op.out_type,
            fill=op.fill,
            steps=_moved(as_steps(op), sources, 0),
        )
        nodes.append(replace(node, op=fused, inputs=tuple(node.inputs[j] for j in kept)))
    return replace(graph, nodes=tuple(nodes))


def _scalar(graph: Graph, tensor: str) -> Constant | None:
    value = graph.constants.get(tensor)
    if value is None or value.size != 1:
        return None
    number = value.reshape(()).item()
    if isinstance(number, float) and math.isnan(number):
        return None  # one NaN is not like another
    return Constant(number, repr(number), graph.tensors[tensor].dtype)


def drop_unit_axes(graph: Graph) -> Graph:
    """Without iteration axes of size 1, of which an op keeps one if it has no other."""
    return replace(graph, nodes=tuple(replace(n, op=_without_units(n.op)) for n in graph.nodes))


def _without_units(op: Op) -> Op:
    if not isinstance(op, (Elementwise, Contract, Reduce)):
        return op  # families that name their axes
    unit = [a for a, n in op.axes if n == 1]
    if len(unit) == len(op.axes):
        unit = unit[:-1]
    if not unit:
        return op

    def without(access: Access) -> Access:
        return tuple(Affine(tuple(t for t in e.terms if t[0] not in unit), e.const) for e in access)

    axes = tuple(x for x in op.axes if x[0] not in unit)
    return replace(op, axes=axes, reads=tuple(map(without, op.reads)), write=without(op.write))
