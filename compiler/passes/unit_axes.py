"""Axes of size 1 are no loops."""

from __future__ import annotations

from dataclasses import replace

from ...ir.affine import Access, Affine
from ...ir.graph import Graph
from ...ir.op import Op


def drop_unit_axes(graph: Graph) -> Graph:
    """Without iteration axes of size 1, of which an op keeps one if it has no other."""
    return replace(graph, nodes=tuple(replace(n, op=_without_units(n.op)) for n in graph.nodes))


def _without_units(op: Op) -> Op:
    if any(op.names_axis(a) for a, _ in op.axes):
        return op
    unit = [a for a, n in op.axes if n == 1]
    if len(unit) == len(op.axes):
        unit = unit[:-1]
    if not unit:
        return op

    def without(access: Access) -> Access:
        return tuple(Affine(tuple(t for t in e.terms if t[0] not in unit), e.const) for e in access)

    axes = tuple(x for x in op.axes if x[0] not in unit)
    return replace(op, axes=axes, reads=tuple(map(without, op.reads)), write=without(op.write))
