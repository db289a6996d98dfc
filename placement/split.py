"""Choosing splits: how each op's axes are cut over its region.

For every op the useful cuts are enumerated as arrays (divisors, and ragged cuts where a size has
few), their cycles and bytes evaluated all at once, and the least latency that fits is taken. An
op may also follow its producer: run where an operand already lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.affine import Access
from ..ir.op import Op
from .layout import Cut, Grid, Split
from .wafer import Wafer

MOST_AXES = 4  # axes considered for cutting, by size
MOST_WAYS = 10  # cuts considered per axis and side
TIME_WAYS = (2, 4, 8, 16)


@dataclass(frozen=True)
class Source:
    """Where a run-time operand lies: the producer's grid, split, write access and axes."""

    grid: Grid
    split: Split
    write: Access
    axes: tuple[tuple[str, int], ...]
    region: int
    distance: float  # hops between the regions' centres
    shape: tuple[int, ...] = ()  # of the tensor


@dataclass(frozen=True)
class Limits:
    """Bytes that one op may take on a core."""

    resident: float
    working: float


@dataclass(frozen=True)
class Choice:
    """A split with its grid and its estimate: cycles, bytes that stay, bytes while it runs.

    fixed: the grid's place matters (it follows a producer, or a placement says so).
    """

    split: Split
    grid: Grid
    part: str
    cycles: float
    resident: float
    working: float
    fixed: bool = False

    def excess(self, limits: Limits) -> float:
        """How many times over its limits; 1 when within."""
        return max(self.resident / limits.resident, 1.0) * max(self.working / limits.working, 1.0)


def cuttable(op: Op) -> list[str]:
    whole = set(op.whole)
    return [a for a, n in op.axes if n > 1 and a not in whole]


def runs_backwards(op: Op, axis: str) -> bool:
    """Whether a read goes down as `axis` goes up: such an axis is cut along one side only."""
    return any(e.coefficient(axis) < 0 for access in op.reads for e in access)


def useful_ways(size: int, limit: int) -> list[int]:
    """Numbers of cuts worth trying: divisors first; only the smallest count for each tile size."""
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
    if len(out) <= MOST_WAYS:
        return out
    at = np.unique(np.geomspace(1, len(out), MOST_WAYS).round().astype(np.int64)) - 1
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


def tile_elements(access: Access, extents: Mapping[str, Any]) -> Any:
    """Elements of the hull that a tile touches through `access`."""
    n: Any = 1
    for e in access:
        length: Any = 1
        for a, c in e.terms:
            length = length + abs(c) * (extents[a] - 1)
        n = n * length
    return n


@dataclass(frozen=True)
class _Candidates:
    axes: list[str]
    ways: Any  # int64 [axes, candidates, 2]: along x, along y


def enumerate_cuts(op: Op, columns: int, rows: int) -> _Candidates:
    """All combinations of useful cuts of the op's largest axes that fit a columns x rows region."""
    size = op.size
    axes = sorted(cuttable(op), key=lambda a: -size[a])[:MOST_AXES]
    reduced = set(op.reduced)
    both = len(axes) <= 2
    wx = np.ones((0, 1), np.int64)
    wy = np.ones((0, 1), np.int64)
    parts = np.zeros(1, np.int64)
    for a in axes:
        options = [(1, 1)]
        options += [(w, 1) for w in useful_ways(size[a], columns)]
        options += [(1, w) for w in useful_ways(size[a], rows)]
        if both and a not in reduced and not runs_backwards(op, a):
            for i in useful_ways(size[a], columns):
                options += [(i, j) for j in useful_ways(-(-size[a] // i), rows)]
        ox = np.array([o[0] for o in options], np.int64)
        oy = np.array([o[1] for o in options], np.int64)
        n, m = wx.shape[1], len(options)
        wx = np.concatenate([np.repeat(wx, m, 1), np.tile(ox, n)[None]])
        wy = np.concatenate([np.repeat(wy, m, 1), np.tile(oy, n)[None]])
        parts = np.repeat(parts, m) + ((np.tile(ox * oy, n) > 1) if a in reduced else 0)
        keep = (wx.prod(0) <= columns) & (wy.prod(0) <= rows) & (parts <= 1)
        wx, wy, parts = wx[:, keep], wy[:, keep], parts[keep]
    return _Candidates(axes, np.stack([wx, wy], -1) if axes else np.ones((0, 1, 2), np.int64))


def to_split(op: Op, axes: Sequence[str], ways: Any) -> Split:
    """The split with `ways` [axes, 2]: results' axes first, the reduced one innermost on its side."""
    reduced = set(op.reduced)
    cuts: list[Cut] = []
    order = sorted(range(len(axes)), key=lambda i: (axes[i] in reduced, i))
    position = {a: i for i, (a, _) in enumerate(op.axes)}
    order.sort(key=lambda i: (axes[i] in reduced, position[axes[i]]))
    for i in order:
        for side, w in zip(("x", "y"), ways[i], strict=True):
            if w > 1:
                cuts.append(Cut(axes[i], "x" if side == "x" else "y", int(w)))
    return Split(tuple(cuts))


def part_axis(op: Op, split: Split) -> str:
    """The reduced axis that `split` cuts in space; "" for none."""
    reduced = set(op.reduced)
    for c in split.cuts:
        if c.axis in reduced and c.side != "t":
            return c.axis
    return ""


def estimate(
    op: Op,
    tiles: Mapping[str, Any],
    held: Mapping[str, Any],
    steps: int,
    span: Any,
    parts: Any,
    sources: Sequence[Source | None],
    aligned: Sequence[bool],
    wafer: Wafer,
) -> tuple[Any, Any, Any]:
    """(cycles, resident bytes, working bytes) of a core's share, all as arrays of candidates.

    tiles: extents of one time step; held: of all `steps` of them. span: hops across the op's grid.
    parts: ways of the reduced axis cut in space. A source of None is a constant. `aligned`
    operands are read in place.
    """
    cycles, scratch = wafer.task(op, tiles)
    cycles = cycles * steps
    resident: Any = 0
    working: Any = scratch
    arrival: Any = 0.0
    for access, dtype, source, local in zip(op.reads, op.in_types, sources, aligned, strict=True):
        if source is None:
            resident = resident + tile_elements(access, held) * dtype.bytes
        elif not local:
            nbytes = tile_elements(access, tiles) * dtype.bytes
            hops = span / 2 + source.distance
            cost = wafer.route(hops, 1) + steps * wafer.serial(wafer.wavelets(nbytes))
            arrival = np.maximum(arrival, cost)
            working = working + nbytes
    out = tile_elements(op.write, held) * op.out_type.bytes
    working = working + out
    joined = wafer.join(parts, wafer.wavelets(out))
    return cycles + arrival + np.where(np.asarray(parts) > 1, joined, 0.0), resident, working


def search(
    op: Op, sources: Sequence[Source | None], columns: int, rows: int, limits: Limits, wafer: Wafer
) -> Choice:
    """The enumerated split of least estimated latency within `limits` (or of least excess)."""
    return shortlist(op, sources, columns, rows, limits, wafer, 1)[0]


def shortlist(
    op: Op,
    sources: Sequence[Source | None],
    columns: int,
    rows: int,
    limits: Limits,
    wafer: Wafer,
    most: int,
) -> list[Choice]:
    """At most `most` enumerated splits, best estimate first; at least one.

    Cuts along time are tried only where no cut in space keeps to the limits.
    """
    c = enumerate_cuts(op, columns, rows)
    found = _best(op, c, {}, sources, limits, wafer, most)
    best = found[0]
    if best.resident <= limits.resident and best.working > limits.working:
        steps = [{a: w} for a in c.axes for w in TIME_WAYS if w <= op.size[a]]
        found += [f for t in steps for f in _best(op, c, t, sources, limits, wafer, 1)]
        found.sort(key=lambda f: (f.excess(limits), f.cycles))
    return found[:most]


def _best(
    op: Op,
    c: _Candidates,
    time: Mapping[str, int],
    sources: Sequence[Source | None],
    limits: Limits,
    wafer: Wafer,
    most: int,
) -> list[Choice]:
    """The best candidates when the axes of `time` are cut along time besides."""
    n = c.ways.shape[1]
    size = op.size
    cut: dict[str, Any] = {a: np.ones(n, np.int64) for a in size}
    for i, a in enumerate(c.axes):
        cut[a] = c.ways[i].prod(-1)
    tiles = {a: -(-size[a] // (cut[a] * time.get(a, 1))) for a in size}
    held = {a: tiles[a] * time.get(a, 1) for a in size}
    used_x, used_y = c.ways[..., 0].prod(0), c.ways[..., 1].prod(0)
    parts: Any = np.ones(n, np.int64)
    for a in c.axes:
        if a in op.reduced:
            parts = parts * cut[a]
    cycles, resident, working = estimate(
        op,
        tiles,
        held,
        int(np.prod(list(time.values()))),
        used_x + used_y,
        parts,
        sources,
        [False] * len(sources),
        wafer,
    )
    cycles = np.broadcast_to(np.asarray(cycles, float), (n,))
    resident = np.broadcast_to(np.asarray(resident, float), (n,))
    working = np.broadcast_to(np.asarray(working, float), (n,))
    in_time = {a: cut[a] * time.get(a, 1) for a in size}
    legal = np.broadcast_to(np.asarray(dense(op.write, tiles, in_time)), (n,))
    legal = legal & np.all([in_time[a] <= size[a] for a in time] or [np.ones(n, np.bool_)], axis=0)
    excess = np.maximum(resident / max(limits.resident, 1.0), 1.0) * np.maximum(
        working / max(limits.working, 1.0), 1.0
    )
    out: list[Choice] = []
    for i in np.lexsort((used_x * used_y, cycles, excess, ~legal))[:most]:
        if not legal[i]:
            break
        split = to_split(op, c.axes, c.ways[:, i])
        split = Split((*split.cuts, *(Cut(a, "t", w) for a, w in time.items())))
        gw, gh, _ = split.grid
        figures = float(cycles[i]), float(resident[i]), float(working[i])
        out.append(Choice(split, Grid(gw, gh), part_axis(op, split), *figures))
    return out or [Choice(Split(), Grid(1, 1), "", np.inf, np.inf, np.inf)]
