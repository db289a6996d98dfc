"""Chains of elementwise ops as one op: what lies between them is no tensor any more."""

from __future__ import annotations

from dataclasses import replace

from ...ir.affine import Access
from ...ir.graph import Graph, Node
from ...ir.op import Op, product
from ...ir.ops.fused import Fused, Operand, Result, as_steps, renumbered
from .compose import Match, full_box, leaves
from .rewriter import sources

MOST_OPERANDS = 12  # buffers of one kernel; past this the registers for their addresses run out
MOST_STEPS = 48


def fuse_elementwise(graph: Graph) -> Graph:
    """An elementwise op that only one other elementwise op reads becomes part of that one."""
    outputs, writers = set(graph.results), graph.writers
    readers = {t: {i for i, _ in at} for t, at in graph.readers.items()}
    nodes: list[Node | None] = list(graph.nodes)
    for at, reader in enumerate(graph.nodes):
        current = nodes[at]
        if current is None or not _fusible(reader.op):
            continue
        found = True
        while found:
            found = False
            for tensor in dict.fromkeys(current.inputs):
                makers = writers.get(tensor, ())
                if len(makers) != 1 or tensor in outputs or readers[tensor] != {at}:
                    continue
                maker = nodes[makers[0]]
                fused = _fused(graph, maker, current) if maker else None
                if fused is not None:
                    current, found = fused, True
                    nodes[at], nodes[makers[0]] = fused, None
                    for t in fused.inputs:
                        readers[t].discard(makers[0])
                        readers[t].add(at)
                    break
    return replace(graph, nodes=tuple(n for n in nodes if n is not None))


def _fusible(op: Op) -> bool:
    return op.elementwise and not op.is_copy  # which is composed into what reads it


def _fused(graph: Graph, maker: Node, reader: Node) -> Node | None:
    """Both as one node; None where the maker would have to compute more than now.

    An axis of the reader is cut in two where the maker has two for it.
    """
    inner, outer = maker.op, reader.op
    if not _fusible(inner):
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
        *renumbered(first, [Operand(i) for i in inner_at], 0),
        *renumbered(second, [made if i < 0 else Operand(i) for i in outer_at], len(first)),
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
    return Node(op, tuple(t for t, _ in operands), reader.output, sources(maker, reader))


def _place(operands: list[tuple[str, Access]], tensor: str, read: Access) -> int:
    """The number of this operand, which several steps may share."""
    if (tensor, read) not in operands:
        operands.append((tensor, read))
    return operands.index((tensor, read))


def _common_fill(graph: Graph, *nodes: Node) -> float | None:
    """The fill of those that read past an operand's end; None where they differ."""
    fills = {
        n.op.fill
        for n in nodes
        for t, r in zip(n.inputs, n.op.reads, strict=True)
        if leaves(r, full_box(n.op), graph.tensors[t].shape)
    }
    return None if len(fills) > 1 else next(iter(fills), 0.0)
