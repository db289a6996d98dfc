"""What splits cost, estimated for many at once, before any move is derived.

Of an arrival what counts is how many of a split's outermost digits are the producer's own: a consumer
block then needs only the producer's block in the same place, and the distance shrinks with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...ir.affine import Access
from ...ir.op import Op
from ..machine.wafer import Wafer
from ..plan.layout import Side, Split
from .candidates import Candidates, digit_order
from .choice import Source, tile_elements


@dataclass(frozen=True, eq=False)
class Share:
    """A core's share of an op. tile: extents of one time step; held: of all `steps` of them."""

    tile: Mapping[str, Any]
    held: Mapping[str, Any]
    steps: int

    @classmethod
    def of(cls, op: Op, split: Split) -> Share:
        tile = split.extents(op.axes)
        return cls(tile, {a: n * split.time_ways(a) for a, n in tile.items()}, split.grid[2])


def estimate(
    op: Op,
    share: Share,
    kept: Sequence[bool],
    arrivals: Mapping[int, Any],
    joined: Callable[[Any], Any],
    wafer: Wafer,
) -> tuple[Any, Any, Any]:
    """(cycles, resident bytes, working bytes) of a core's share, all as arrays of candidates.

    kept: by operand, whether it stays on the core. arrivals: by received operand; the others are read in
    place. joined: cycles of joining partial results by wavelets.
    """
    cycles, scratch = wafer.task(op, share.tile)
    cycles = cycles * share.steps
    resident: Any = 0
    working: Any = scratch
    latest: Any = 0.0
    for j, (access, dtype) in enumerate(zip(op.reads, op.in_types, strict=True)):
        if kept[j]:
            resident = resident + tile_elements(access, share.held) * dtype.bytes
        elif j in arrivals:
            latest = np.maximum(latest, arrivals[j])
            working = working + tile_elements(access, share.tile) * dtype.bytes
    out = tile_elements(op.write, share.held) * op.out_type.bytes
    working = working + out
    return cycles + latest + joined(wafer.wavelets(out)), resident, working


SIDES: tuple[Side, Side] = ("x", "y")


def cut_extents(op: Op, c: Candidates, time: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(cuts, extents of a tile) of each axis, all as arrays of candidates, `time` cut along time besides."""
    n = c.ways.shape[1]
    cut: dict[str, Any] = {a: np.full(n, time.get(a, 1), np.int64) for a, _ in op.axes}
    for a, ways in zip(c.axes, c.ways, strict=True):
        cut[a] = cut[a] * (ways[..., 0] * ways[..., 1])
    return cut, {a: _share(size, cut[a]) for a, size in op.axes}


def joining_parts(op: Op, space: Mapping[str, Any], wafer: Wafer) -> Callable[[Any], Any]:
    """The cycles of joining neighbours' partial results, by their wavelets. space: cuts in space."""
    parts: Any = 1
    for a in op.reduced:
        parts = parts * space[a]
    return lambda wavelets: np.where(parts > 1, wafer.join(parts, wavelets), 0.0)


@dataclass(frozen=True, eq=False)
class Demand:
    """What candidates need of one operand, wherever it comes from. All tables by candidate.

    ways: int64 [axes, candidates, 2], cuts along x and along y; cuts along time are in `steps`. order: of
    the axes' digits. needed: wavelets into a core; down: into all cores of a column together.
    """

    access: Access
    size: Mapping[str, int]
    nbytes: int  # of an element
    axes: tuple[str, ...]
    order: tuple[int, ...]
    ways: Any
    steps: int
    needed: Any
    down: Any

    @cached_property
    def own(self) -> tuple[Any, Any]:
        """Columns and rows."""
        return self.ways[..., 0].prod(0), self.ways[..., 1].prod(0)

    @cached_property
    def before(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """By side and axis: the ways of the digits outside of the axis' own."""
        out: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for s, sides in enumerate(out):
            total: Any = np.ones(self.ways.shape[1], np.int64)
            for i in self.order:
                sides[self.axes[i]] = total
                total = total * self.ways[i, :, s]
        return out

    @cached_property
    def both(self) -> Any:
        """Whether an axis that the operand has is cut along both sides."""
        has = {a for e in self.access for a in e.axes}
        read = [i for i, a in enumerate(self.axes) if a in has]
        return ((self.ways[read, :, 0] > 1) & (self.ways[read, :, 1] > 1)).any(0)

    @cached_property
    def across(self) -> Demand:
        """Of those candidates alone."""
        n, some = len(self.both), self.both
        needed, down = (np.broadcast_to(v, n)[some] for v in (self.needed, self.down))
        return replace(self, ways=self.ways[:, some], needed=needed, down=down)


def demand(op: Op, operand: int, axes: Sequence[str], ways: Any, steps: int, wafer: Wafer) -> Demand:
    """The demand of candidates `ways` of `op` for one operand."""
    access, nbytes, size = op.reads[operand], op.in_types[operand].bytes, op.size
    cut = dict(zip(axes, ways[..., 0] * ways[..., 1], strict=True))
    tile = {a: _share(n, cut[a]) if a in cut else n for a, n in size.items()}
    along_x = dict(zip(axes, ways[..., 0], strict=True))
    line = {a: _share(n, along_x[a]) if a in along_x else n for a, n in size.items()}
    needed, down = (wafer.wavelets(tile_elements(access, t) * nbytes) for t in (tile, line))
    order = tuple(digit_order(op, axes))
    return Demand(access, size, nbytes, tuple(axes), order, ways, steps, needed, down)


def _share(size: int, ways: Any) -> Any:
    """The extent of a tile of `size` cut in `ways`, an array. Exact: no size comes near 2^53."""
    return np.ceil(size / ways).astype(np.int64)


def arrival(d: Demand, source: Source, wafer: Wafer) -> Any:
    """[candidates]: estimated cycles from the producer's end to the operand's last element."""
    if not source.known:
        hops = source.distance + (d.own[0] + d.own[1])
        return wafer.route(hops, 1) + wafer.relayed(hops) + wafer.serial(d.needed)
    first, second = SIDES
    shares = source.split.extents(source.axes)
    held = wafer.wavelets(tile_elements(source.write, shares) * source.split.grid[2] * d.nbytes)
    out = _way(d, source, held, first, wafer)
    if d.both.any():
        other = _way(d.across, source, held, second, wafer)
        out = np.array(np.broadcast_to(out, d.both.shape), float)
        out[d.both] = np.minimum(out[d.both], other)
    return out


def _way(d: Demand, source: Source, held: Any, outer: Side, wafer: Wafer) -> Any:
    """The arrival where of an axis cut along both sides the outer cut is along `outer`.

    held: wavelets of a producer's tile.
    """
    grid = source.grid
    hops: Any = float(source.distance)
    fullest: Any = d.needed
    turns: Any = 0
    sides: tuple[tuple[Side, int, int], ...] = (("x", grid.columns, grid.dx), ("y", grid.rows, grid.dy))
    for own, (side, count, pitch) in zip(d.own, sides, strict=True):
        same = _aligned(d, source, side, outer)
        apart = np.abs(count * pitch - own) / 2 * (1 - 1 / same)
        within = (np.maximum(count / same - 1, 0) * pitch + np.maximum(own / same - 1, 0)) / 2
        far = np.ceil(apart + within)
        hops = hops + far
        turns = turns + (far > 0)
        # A row carries what its own producers hold, a column all that its consumers need, block by block.
        load = (held * count if side == "x" else d.down) / same
        fullest = np.maximum(fullest, np.where(far > 0, load, 0))
    load = fullest + (d.steps - 1) * d.needed
    cycles = wafer.route(hops, turns > 1) + wafer.relayed(hops) + wafer.serial(load)
    return np.where((hops > 0) | (d.steps > 1), cycles, 0.0)


def _aligned(d: Demand, source: Source, side: Side, outer: Side) -> Any:
    """[candidates]: blocks along `side` in which producer and consumer have the same share."""
    s = 0 if side == "x" else 1
    ways, before = d.ways, d.before[s]
    index = {a: i for i, a in enumerate(d.axes)}
    dim_of = {a: i for i, e in enumerate(source.write) for a in e.axes}
    same: Any = np.ones(ways.shape[1], np.int64)
    matched: Any = np.ones(ways.shape[1], np.bool_)
    where: Any = np.where
    for axis, own, above in _digits(source, side):
        dim = dim_of.get(axis)
        terms = sorted(d.access[dim].terms, key=lambda t: -abs(t[1])) if dim is not None else []
        name = next((a for a, _ in terms if d.size[a] > 1 and a in index), "")
        if not name:
            break
        mine = ways[index[name], :, s]
        smaller: Any = np.minimum(mine, own)
        outside: Any = 1 if side == outer else ways[index[name], :, 1 - s]
        matched = matched & (before[name] == same) & (outside == above)
        quotient: Any = np.maximum(mine, own) / smaller
        matched = matched & (quotient == np.floor(quotient))
        same = where(matched, same * smaller, same)
        matched = matched & (mine == own)
        if not matched.any():
            break
    return same


def _digits(source: Source, side: Side) -> list[tuple[str, int, int]]:
    """(axis, ways, ways of the same axis outside of it on the other side) of the producer's digits."""
    out: list[tuple[str, int, int]] = []
    for i, c in enumerate(source.split.cuts):
        if c.side == side:
            outer = math.prod(
                b.ways for b in source.split.cuts[:i] if b.axis == c.axis and b.side not in (side, "t")
            )
            if out and (out[-1][0], out[-1][2]) == (c.axis, outer):
                out[-1] = (c.axis, out[-1][1] * c.ways, outer)
            else:
                out.append((c.axis, c.ways, outer))
    return out
