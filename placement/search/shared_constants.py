"""Constants with several readers: one split for all of them, so that they are kept once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.graph import Graph
from ...ir.op import Op
from ..plan.layout import Grid, Split
from ..splits.candidates import Candidates, part_axis, to_split
from ..splits.choice import Choice, Limits, Question, Site, Source, tile_elements
from ..splits.estimate import SIDES, Share, estimate
from ..splits.follow import follow
from ..splits.join import join_split
from ..splits.shortlist import shortlist


@dataclass(frozen=True)
class Partner:
    """Another reader of a constant: its op reads it as operand `operand`, the first reader as `first`.

    constant: by operand of `op`, whether it is kept.
    """

    op: Op
    operand: int
    first: int
    constant: tuple[bool, ...]


def partners(graph: Graph, site: Site) -> dict[int, tuple[Partner, ...]]:
    """By the first reader of large constants with several readers: the others."""
    out: dict[int, tuple[Partner, ...]] = {}
    for _, places in _large(graph, site):
        (first, j), *others = sorted(places)
        for i, k in others:
            kept = tuple(t in graph.resident for t in graph.nodes[i].inputs)
            out[first] = (*out.get(first, ()), Partner(graph.nodes[i].op, k, j, kept))
    return out


def followed(op: Op, c: Candidates, which: Any, others: Sequence[Partner], site: Site) -> Any:
    """[candidates]: bytes that the partners use when they run, split as `op` is; infinite where one cannot.

    which: bools, the candidates that are looked at; the rest count as those that cannot.
    """
    out = np.full(c.ways.shape[1], np.inf)
    for i in np.flatnonzero(which):
        for cuts in dict.fromkeys(to_split(op, c.axes, c.ways[:, i], outer).cuts for outer in SIDES):
            split = Split(cuts)
            working = [_working(op, split, p, site) for p in others]
            out[i] = min(out[i], max(working))
    return out


def _working(op: Op, split: Split, p: Partner, site: Site) -> float:
    columns, rows, _ = split.grid
    grid = Grid(columns, rows)
    own = _followed_by(p.op, p.operand, op, p.first, split, grid)
    if own is None:
        return float("inf")
    received = {j: 0.0 for j, kept in enumerate(p.constant) if not kept}
    share = Share.of(p.op, own)
    _, _, least = estimate(p.op, share, p.constant, received, lambda wavelets: 0.0, site.wafer)
    working = float(least)
    if part := part_axis(p.op, own):
        joined, _ = join_split(
            p.op, own, part, grid, site.policy
        )  # partial results and the joined one at once
        working += tile_elements(p.op.write, joined.extents(p.op.axes)) * p.op.out_type.bytes
    return working


def _followed_by(other: Op, j: int, op: Op, operand: int, split: Split, grid: Grid) -> Split | None:
    """The split with which `other` reads as operand `j`, on the same cores, what `op` reads as `operand`."""
    found = follow(other, j, Source(grid, split, op.reads[operand], op.axes, 0, 0.0))
    return found[0] if found is not None and found[1] == grid else None


def shared_splits(graph: Graph, site: Site, limits: Mapping[int, Limits]) -> dict[int, Choice]:
    """By node that reads a large constant with several readers: its split, if all of them find one.

    All nodes lie on one region. limits: the first reader's say what a core may keep.
    """
    out: dict[int, Choice] = {}
    for nodes, places in _large(graph, site):
        if not nodes & out.keys():
            out |= _one_split(graph, places, limits, site)
    return out


def _large(graph: Graph, site: Site) -> Iterator[tuple[set[int], Sequence[tuple[int, int]]]]:
    """The readers of each large constant with several: (nodes, their (node, operand))."""
    readers, least = graph.readers, site.policy.small_bytes * site.cores
    for tensor in graph.constants:
        places = readers.get(tensor, [])
        nodes = {i for i, _ in places}
        if 2 <= len(nodes) == len(places) and graph.tensors[tensor].bytes >= least:
            yield nodes, places


def _one_split(
    graph: Graph, places: Sequence[tuple[int, int]], given: Mapping[int, Limits], site: Site
) -> dict[int, Choice]:
    """The best split, within the limits, of the reader with the most work that all others can follow."""
    main, operand = max(places, key=lambda p: _iterations(graph.nodes[p[0]].op))
    op = graph.nodes[main].op
    limits = given[min(i for i, _ in places)]  # the first reader keeps it
    sources = tuple(None if t in graph.resident else Source.anywhere(0.0) for t in graph.nodes[main].inputs)
    q = Question(op, sources, site, limits)
    weighed = shortlist(q, site.policy.shared_weighed)
    if limits.tight:
        weighed.sort(key=lambda c: c.resident + c.working)  # bytes on every core, against one op's cycles
    for c in weighed:
        if q.excess(c) > 1:
            continue
        found = {
            i: _followed_by(graph.nodes[i].op, j, op, operand, c.split, c.grid)
            for i, j in places
            if i != main
        }
        others = {i: _fixed(graph.nodes[i].op, s, c.grid) for i, s in found.items() if s is not None}
        if len(others) < len(found):
            continue
        if all(_has_room(graph.nodes[i].op, o.split, given[i], limits) for i, o in others.items()):
            return {main: _fixed(op, c.split, c.grid), **others}
    return {}


def _has_room(op: Op, split: Split, own: Limits, limits: Limits) -> bool:
    """Whether what the op of another entry that is split alike takes is within the limits."""
    return float(own.in_use(op, split.extents(op.axes), 0)) <= limits.working


def _fixed(op: Op, split: Split, grid: Grid) -> Choice:
    return Choice.given(split, grid, part_axis(op, split))


def _iterations(op: Op) -> int:
    return int(np.prod([n for _, n in op.axes], dtype=np.int64))
