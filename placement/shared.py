"""Constants with several readers: one split for all of them, so that they are kept once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..ir.graph import Graph
from ..ir.op import Op
from .follow import follow
from .layout import Grid, Split
from .shortlist import shortlist
from .split import Choice, Limits, Source, part_axis
from .wafer import Wafer

LEAST = 256  # bytes on each core: constants that take less may be kept twice
WEIGHED = 512  # splits of the reader with the most work that the others may follow


def shared_splits(
    graph: Graph, columns: int, rows: int, limits: Mapping[int, Limits], wafer: Wafer
) -> dict[int, Choice]:
    """By node that reads a large constant with several readers: its split, if all of them find one.

    All nodes lie on one region of columns x rows. limits: the first reader's say what a core may keep.
    """
    out: dict[int, Choice] = {}
    readers = graph.readers()
    for tensor in graph.constants:
        places = readers.get(tensor, [])
        nodes = {i for i, _ in places}
        if len(nodes) < 2 or nodes & out.keys() or len(nodes) < len(places):
            continue
        if graph.tensors[tensor].bytes >= LEAST * columns * rows:
            out |= _one_split(graph, places, columns, rows, limits, wafer)
    return out


def _one_split(
    graph: Graph,
    places: Sequence[tuple[int, int]],
    columns: int,
    rows: int,
    given: Mapping[int, Limits],
    wafer: Wafer,
) -> dict[int, Choice]:
    """The best split, within the limits, of the reader with the most work that all others can follow."""
    main, operand = max(places, key=lambda p: _iterations(graph.nodes[p[0]].op))
    op = graph.nodes[main].op
    limits = given[min(i for i, _ in places)]  # the first reader keeps it
    anywhere = Source(Grid(1, 1), Split(), (), (), -1, 0.0)
    sources = [None if t in graph.resident else anywhere for t in graph.nodes[main].inputs]
    weighed = shortlist(op, sources, columns, rows, limits, wafer, WEIGHED)
    if limits.tight:
        weighed.sort(key=lambda c: c.resident + c.working)  # bytes on every core, against one op's cycles
    for c in weighed:
        if limits.excess(c.resident, c.working) > 1:
            continue
        held = Source(c.grid, c.split, op.reads[operand], op.axes, 0, 0.0)
        found = {i: follow(graph.nodes[i].op, j, held) for i, j in places if i != main}
        others = {i: _fixed(graph.nodes[i].op, *f) for i, f in found.items() if f is not None}
        if len(others) < len(found) or any(o.grid != c.grid for o in others.values()):
            continue
        if all(_has_room(graph.nodes[i].op, o.split, given[i], limits) for i, o in others.items()):
            return {main: _fixed(op, c.split, c.grid), **others}
    return {}


def _has_room(op: Op, split: Split, own: Limits, limits: Limits) -> bool:
    """Whether what the op of another entry that is split alike takes is within the limits."""
    return float(own.in_use(op, split.extents(op.axes), 0)) <= limits.working


def _fixed(op: Op, split: Split, grid: Grid) -> Choice:
    return Choice(split, grid, part_axis(op, split), 0.0, 0.0, 0.0, fixed=True)


def _iterations(op: Op) -> int:
    return int(np.prod([n for _, n in op.axes], dtype=np.int64))
