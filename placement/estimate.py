"""What splits cost, estimated for many at once, before any move is derived.

Of an arrival what counts is how many of a split's outermost digits are the producer's own: a consumer
block then needs only the producer's block in the same place, and the distance shrinks with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.affine import Access
from ..ir.op import Op
from .layout import Side
from .split import Candidates, Source, digit_order, tile_elements
from .wafer import Wafer


def estimate(
    op: Op,
    tiles: Mapping[str, Any],
    held: Mapping[str, Any],
    steps: int,
    constant: Sequence[bool],
    arrivals: Mapping[int, Any],
    joined: Callable[[Any], Any],
    wafer: Wafer,
) -> tuple[Any, Any, Any]:
    """(cycles, resident bytes, working bytes) of a core's share, all as arrays of candidates.

    tiles: extents of one time step; held: of all `steps` of them. constant: by operand. arrivals: by
    received operand; the others are read in place. joined: cycles of joining partial results by wavelets.
    """
    cycles, scratch = wafer.task(op, tiles)
    cycles = cycles * steps
    resident: Any = 0
    working: Any = scratch
    latest: Any = 0.0
    for j, (access, dtype) in enumerate(zip(op.reads, op.in_types, strict=True)):
        if constant[j]:
            resident = resident + tile_elements(access, held) * dtype.bytes
        elif j in arrivals:
            latest = np.maximum(latest, arrivals[j])
            working = working + tile_elements(access, tiles) * dtype.bytes
    out = tile_elements(op.write, held) * op.out_type.bytes
    working = working + out
    return cycles + latest + joined(wafer.wavelets(out)), resident, working


SIDES: tuple[Side, Side] = ("x", "y")


def cut_extents(op: Op, c: Candidates, time: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(cuts, extents of a tile) of each axis, all as arrays of candidates, `time` cut along time besides."""
    n = c.ways.shape[1]
    cut: dict[str, Any] = {a: np.full(n, time.get(a, 1), np.int64) for a, _ in op.axes}
    for a, ways in zip(c.axes, c.ways, strict=True):
        cut[a] = cut[a] * (ways[..., 0] * ways[..., 1])
    return cut, {a: -(-size // cut[a]) for a, size in op.axes}


def joining_parts(op: Op, space: Mapping[str, Any], wafer: Wafer) -> Callable[[Any], Any]:
    """The cycles of joining neighbours' partial results, by their wavelets. space: cuts in space."""
    parts: Any = 1
    for a in op.reduced:
        parts = parts * space[a]
    return lambda wavelets: np.where(parts > 1, wafer.join(parts, wavelets), 0.0)


def arrival(
    op: Op, operand: int, source: Source, axes: Sequence[str], ways: Any, steps: int, wafer: Wafer
) -> Any:
    """[candidates]: estimated cycles from the producer's end to the operand's last element.

    ways: int64 [axes, candidates, 2], cuts along x and along y; cuts along time are in `steps`.
    """
    access, dtype, size = op.reads[operand], op.in_types[operand], op.size
    cut = dict(zip(axes, ways[..., 0] * ways[..., 1], strict=True))
    tile = {a: -(-n // cut.get(a, 1)) for a, n in size.items()}
    needed = wafer.wavelets(tile_elements(access, tile) * dtype.bytes)
    if not source.write:
        hops = source.distance + ways.prod(0).sum(-1)
        return wafer.route(hops, 1) + wafer.relayed(hops) + wafer.serial(needed)
    first, second = SIDES
    out = _way(op, operand, source, axes, ways, steps, first, wafer)
    axes_read = {a for e in access for a in e.axes}
    read = [i for i, a in enumerate(axes) if a in axes_read]
    both = ((ways[read, :, 0] > 1) & (ways[read, :, 1] > 1)).any(0)
    if both.any():
        other = _way(op, operand, source, axes, ways[:, both], steps, second, wafer)
        out = np.array(np.broadcast_to(out, both.shape), float)
        out[both] = np.minimum(out[both], other)
    return out


def _way(
    op: Op,
    operand: int,
    source: Source,
    axes: Sequence[str],
    ways: Any,
    steps: int,
    outer: Side,
    wafer: Wafer,
) -> Any:
    """The arrival where of an axis cut along both sides the outer cut is along `outer`."""
    access, dtype, size = op.reads[operand], op.in_types[operand], op.size
    grid = source.grid
    cut = dict(zip(axes, ways[..., 0] * ways[..., 1], strict=True))
    tile = {a: -(-n // cut.get(a, 1)) for a, n in size.items()}
    needed = wafer.wavelets(tile_elements(access, tile) * dtype.bytes)
    order = digit_order(op, axes)
    shares = source.split.extents(source.axes)
    held = wafer.wavelets(tile_elements(source.write, shares) * source.split.grid[2] * dtype.bytes)
    hops: Any = float(source.distance)
    loads: list[Any] = [needed]
    turns: Any = 0
    sides: tuple[tuple[Side, int, int], ...] = (("x", grid.columns, grid.dx), ("y", grid.rows, grid.dy))
    for s, (side, count, pitch) in enumerate(sides):
        own = ways[..., s].prod(0)
        same = _aligned(op, access, source, side, axes, order, ways, outer)
        apart = np.abs(count * pitch - own) / 2 * (1 - 1 / same)
        within = (np.maximum(count / same - 1, 0) * pitch + np.maximum(own / same - 1, 0)) / 2
        far = np.ceil(apart + within)
        hops = hops + far
        turns = turns + (far > 0)
        # A row carries what its own producers hold, a column all that its consumers need, block by block.
        if side == "x":
            load = held * count / same
        else:
            cut_x = dict(zip(axes, ways[..., 0], strict=True))
            down = {a: -(-n // cut_x.get(a, 1)) for a, n in size.items()}
            load = wafer.wavelets(tile_elements(access, down) * dtype.bytes) / same
        loads.append(np.where(far > 0, load, 0))
    load = np.max(np.broadcast_arrays(*loads), axis=0) + (steps - 1) * needed
    cycles = wafer.route(hops, turns > 1) + wafer.relayed(hops) + wafer.serial(load)
    return np.where((hops > 0) | (steps > 1), cycles, 0.0)


def _aligned(
    op: Op,
    access: Access,
    source: Source,
    side: Side,
    axes: Sequence[str],
    order: Sequence[int],
    ways: Any,
    outer: Side,
) -> Any:
    """[candidates]: blocks along `side` in which producer and consumer have the same share.

    ways: [axes, candidates, 2].
    """
    size, s = op.size, 0 if side == "x" else 1
    before: dict[str, Any] = {}
    total: Any = np.ones(ways.shape[1], np.int64)
    for i in order:
        before[axes[i]] = total
        total = total * ways[i, :, s]
    index = {a: i for i, a in enumerate(axes)}
    dim_of = {a: d for d, e in enumerate(source.write) for a in e.axes}
    same: Any = np.ones(ways.shape[1], np.int64)
    matched: Any = np.ones(ways.shape[1], np.bool_)
    where: Any = np.where
    for axis, own, above in _digits(source, side):
        d = dim_of.get(axis)
        terms = sorted(access[d].terms, key=lambda t: -abs(t[1])) if d is not None else []
        name = next((a for a, _ in terms if size[a] > 1 and a in index), "")
        if not name:
            break
        mine = ways[index[name], :, s]
        smaller: Any = np.minimum(mine, own)
        outside: Any = 1 if side == outer else ways[index[name], :, 1 - s]
        matched = matched & (before[name] == same) & (outside == above)
        matched = matched & (np.maximum(mine, own) % smaller == 0)
        same = where(matched, same * smaller, same)
        matched = matched & (mine == own)
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
