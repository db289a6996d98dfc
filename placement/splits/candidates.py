"""Choosing splits: how each op's axes are cut over its region.

For every op the useful cuts are enumerated as arrays: divisors, and ragged cuts where a size has few.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...ir.affine import Access, access_axes
from ...ir.graph import Graph
from ...ir.op import Op
from ..plan.layout import Cut, Side, Split
from .policy import Policy


def uncut(graph: Graph, node: int) -> tuple[str, ...]:
    """The axes of a node that must not be cut in space: a cache that it reads is kept once.

    Of positions in blocks only the blocks are cut: another entry may sum over both, and cuts only one.
    """
    n, caches = graph.nodes[node], graph.resident - graph.constants.keys()
    read = [access for t, access in zip(n.inputs, n.op.reads, strict=True) if t in caches]
    inner = {a for access in read for e in access for a, k in e.terms if k < max(c for _, c in e.terms)}
    return tuple(a for a, _ in n.op.axes if a in inner or any(a not in access_axes(r) for r in read))


def cuttable(op: Op, uncut: Collection[str] = ()) -> list[str]:
    whole = {*op.whole, *uncut}
    return [a for a, n in op.axes if n > 1 and a not in whole]


def runs_backwards(op: Op, axis: str) -> bool:
    """Whether a read goes down as `axis` goes up: such an axis is cut along one side only."""
    return any(e.coefficient(axis) < 0 for access in op.reads for e in access)


def useful_ways(size: int, limit: int, most: int) -> list[int]:
    """At most `most` numbers of cuts worth trying: divisors first, the smallest count for each tile size."""
    limit = min(size, limit)
    ways = {d for d in range(2, limit + 1) if size % d == 0}
    if len(ways) < 4:
        for tile in {
            max(1, size // w) for w in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
        }:
            w = -(-size // tile)
            if 2 <= w <= limit:
                ways.add(w)
    best = -(-size // -(-size // limit))
    if best >= 2:
        ways.add(best)
    out = sorted(ways)
    if len(out) <= most:
        return out
    at = np.unique(np.geomspace(1, len(out), most).round().astype(np.int64)) - 1
    return [out[int(i)] for i in at]


def dense(access: Access, extents: Mapping[str, Any], cut: Mapping[str, Any]) -> Any:
    """Whether a written tile is a full box: an inner axis is cut only where its outer ones are single."""
    ok: Any = True
    for e in access:
        terms = sorted(e.terms, key=lambda t: -abs(t[1]))
        for i, (inner, _) in enumerate(terms):
            for outer, _ in terms[:i]:
                ok = ok & ((cut[inner] <= 1) | (extents[outer] <= 1))
    return ok


@dataclass(frozen=True)
class Candidates:
    axes: list[str]
    ways: Any  # int64 [axes, candidates, 2]: along x, along y


@lru_cache(maxsize=16)  # an op's cuts are wanted when it is split and when the one before it looks ahead
def enumerate_cuts(
    op: Op, columns: int, rows: int, policy: Policy, fine: bool = False, uncut: tuple[str, ...] = ()
) -> Candidates:
    """All combinations of useful cuts of the op's largest axes that fit a columns x rows region.

    fine: of an op with two axes all cuts that divide them, and a reduced axis along both sides.
    """
    size = op.size
    axes = sorted(cuttable(op, uncut), key=lambda a: -size[a])[: policy.most_axes]
    reduced = set(op.reduced)
    finest = fine and len(axes) <= 2
    single = policy.fine_ways if finest else policy.most_ways
    most = single if len(axes) <= 2 else policy.most_ways_paired
    besides = policy.fine_cuts if finest else ()
    wx = np.ones((0, 1), np.int64)
    wy = np.ones((0, 1), np.int64)
    parts = np.zeros(1, np.int64)
    pairs = np.zeros(1, np.int64)
    for a in axes:
        options = [(1, 1)]
        options += [(w, 1) for w in useful_ways(size[a], columns, single)]
        options += [(1, w) for w in useful_ways(size[a], rows, single)]
        if (a not in reduced or fine) and not runs_backwards(op, a):
            more = [w for w in besides if w < min(size[a], columns)]
            for i in dict.fromkeys((*useful_ways(size[a], columns, most), *more)):
                options += [(i, j) for j in useful_ways(-(-size[a] // i), rows, most)]
        ox = np.array([o[0] for o in options], np.int64)
        oy = np.array([o[1] for o in options], np.int64)
        n, m = wx.shape[1], len(options)
        wx = np.concatenate([np.repeat(wx, m, 1), np.tile(ox, n)[None]])
        wy = np.concatenate([np.repeat(wy, m, 1), np.tile(oy, n)[None]])
        parts = np.repeat(parts, m) + ((np.tile(ox * oy, n) > 1) if a in reduced else 0)
        pairs = np.repeat(pairs, m) + np.tile((ox > 1) & (oy > 1), n)
        keep = (wx.prod(0) <= columns) & (wy.prod(0) <= rows) & (parts <= 1)
        keep &= (pairs <= 1) | (len(axes) <= 2)
        wx, wy, parts, pairs = wx[:, keep], wy[:, keep], parts[keep], pairs[keep]
    return Candidates(axes, np.stack([wx, wy], -1) if axes else np.ones((0, 1, 2), np.int64))


def digit_order(op: Op, axes: Sequence[str]) -> list[int]:
    """Numbers of `axes` in the order of a split's digits: results' axes first, the reduced one innermost."""
    reduced = set(op.reduced)
    position = {a: i for i, (a, _) in enumerate(op.axes)}
    return sorted(range(len(axes)), key=lambda i: (axes[i] in reduced, position[axes[i]]))


def to_split(op: Op, axes: Sequence[str], ways: Any, outer: Side) -> Split:
    """The split with `ways` [axes, 2]: results' axes first, the reduced one innermost on its side.

    outer: of an axis that is cut along both sides, the side of the outer cut.
    """
    cuts: list[Cut] = []
    for i in digit_order(op, axes):
        own = [Cut(axes[i], "x", int(ways[i][0])), Cut(axes[i], "y", int(ways[i][1]))]
        cuts += [c for c in (own if outer == "x" else own[::-1]) if c.ways > 1]
    return Split(tuple(cuts))


def part_axis(op: Op, split: Split) -> str:
    """The reduced axis that `split` cuts in space; "" for none."""
    reduced = set(op.reduced)
    for c in split.cuts:
        if c.axis in reduced and c.side != "t":
            return c.axis
    return ""
