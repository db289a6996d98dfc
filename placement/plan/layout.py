"""Splits and layouts: which box of the iteration space, and of each tensor, lies on which core.

Everything here is separable: a core's share follows from its column x, its row y and the time
step t one tensor dimension at a time, so tables grow with the sides of a grid, not with its area.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

from ...ir.affine import Access, Affine

Ints = np.ndarray[Any, np.dtype[np.int64]]
Side = Literal["x", "y", "t"]


@dataclass(frozen=True)
class Cut:
    """One cut of an iteration axis into `ways` along a side of the grid, or along time."""

    axis: str
    side: Side
    ways: int


@dataclass(frozen=True)
class Split:
    """How an op's iteration space is cut.

    Cuts of one side are the digits of its coordinate, most significant first; cuts of one axis
    nest, outermost first. An axis cut `p` ways in all has tiles of ceil(size / p); the last
    ones may be shorter or empty.
    """

    cuts: tuple[Cut, ...] = ()

    def ways(self, side: Side) -> int:
        return math.prod([c.ways for c in self.cuts if c.side == side])

    @cached_property
    def grid(self) -> tuple[int, int, int]:
        """(columns, rows, time steps)."""
        return self.ways("x"), self.ways("y"), self.ways("t")

    def axis_ways(self, axis: str) -> int:
        return math.prod([c.ways for c in self.cuts if c.axis == axis])

    def space_ways(self, axis: str) -> int:
        """Cuts of `axis` over cores, not counting time."""
        return math.prod([c.ways for c in self.cuts if c.axis == axis and c.side != "t"])

    def time_ways(self, axis: str) -> int:
        """Cuts of `axis` along time."""
        return math.prod([c.ways for c in self.cuts if c.axis == axis and c.side == "t"])

    def tile(self, axis: str, size: int) -> int:
        """The extent of a full tile along `axis`."""
        return -(-size // self.axis_ways(axis)) if size else 0

    def extents(self, axes: Sequence[tuple[str, int]]) -> dict[str, int]:
        return {a: self.tile(a, n) for a, n in axes}

    def __str__(self) -> str:
        if not self.cuts:
            return "whole"
        sides: list[str] = []
        for side in ("x", "y", "t"):
            if own := [f"{c.axis}/{c.ways}" for c in self.cuts if c.side == side]:
                sides.append(f"{side}: {' '.join(own)}")
        return ", ".join(sides)


def digits(split: Split, side: Side) -> dict[int, Ints]:
    """For each cut of `side` (by its number) the digit at every coordinate."""
    n = split.ways(side)
    at = np.arange(n, dtype=np.int64)
    out: dict[int, Ints] = {}
    stride = n
    for i, c in enumerate(split.cuts):
        if c.side == side:
            stride //= c.ways
            out[i] = (at // stride) % c.ways
    return out


@dataclass(frozen=True)
class AxisIndex:
    """Which tile of one axis a coordinate has: number = x[column] + y[row] + t[step]."""

    size: int
    tile: int
    ways: int
    x: Ints
    y: Ints
    t: Ints

    @property
    def origins(self) -> Ints:
        """[ways]: where each tile starts, at most `size`."""
        return np.minimum(np.arange(self.ways, dtype=np.int64) * self.tile, self.size)

    @property
    def ends(self) -> Ints:
        return np.minimum((np.arange(self.ways, dtype=np.int64) + 1) * self.tile, self.size)


def axis_indices(split: Split, axes: Sequence[tuple[str, int]]) -> dict[str, AxisIndex]:
    """The tile numbers of all axes over the split's grid."""
    gw, gh, steps = split.grid
    by_side = {s: digits(split, s) for s in ("x", "y", "t")}
    out: dict[str, AxisIndex] = {}
    for name, size in axes:
        own = [(i, c) for i, c in enumerate(split.cuts) if c.axis == name]
        at = {"x": np.zeros(gw, np.int64), "y": np.zeros(gh, np.int64), "t": np.zeros(steps, np.int64)}
        weight = 1
        for i, c in reversed(own):
            at[c.side] = at[c.side] + by_side[c.side][i] * weight
            weight *= c.ways
        out[name] = AxisIndex(size, split.tile(name, size), weight, at["x"], at["y"], at["t"])
    return out


@dataclass(frozen=True, eq=False)
class Pieces:
    """One tensor dimension over a grid: piece number = x[column] + y[row] + t[step]. Equal only to itself.

    lo, hi: [pieces], the interval of each piece; lo == hi for an empty one. May pass the
    tensor's ends (padding). column, row: the part of a core's coordinate that the piece
    number fixes (only meaningful for a layout that holds).
    """

    x: Ints
    y: Ints
    t: Ints
    lo: Ints
    hi: Ints
    column: Ints
    row: Ints

    @cached_property
    def extent(self) -> int:
        """The longest piece."""
        return int((self.hi - self.lo).max(initial=0))

    def number(self) -> Ints:
        """[steps, rows, columns]: piece numbers, with a length of 1 where a side does not matter."""
        x = self.x if self.x.any() else self.x[:1]
        y = self.y if self.y.any() else self.y[:1]
        t = self.t if self.t.any() else self.t[:1]
        return t[:, None, None] + y[None, :, None] + x[None, None, :]


Layout = tuple[Pieces, ...]


def pieces_of(expression: Affine, indices: Mapping[str, AxisIndex], split: Split, merge_time: bool) -> Pieces:
    """The intervals that `expression` takes over each tile.

    With `merge_time`, all time steps of a core count as one (what it holds in the end).
    """
    gw, gh, steps = split.grid
    x, y, t = np.zeros(gw, np.int64), np.zeros(gh, np.int64), np.zeros(steps, np.int64)
    lo = np.array([expression.const], np.int64)
    hi = np.array([expression.const], np.int64)
    empty = np.zeros(1, np.bool_)
    column, row = np.zeros(1, np.int64), np.zeros(1, np.int64)
    gx, gy = _weights(split, "x"), _weights(split, "y")
    for name, c in expression.terms:
        a = indices[name]
        ways, origins, ends, at_t = a.ways, a.origins, a.ends, a.t
        own = [(i, cut) for i, cut in enumerate(split.cuts) if cut.axis == name]
        at_x, at_y = a.x, a.y
        if merge_time and (in_time := math.prod([cut.ways for _, cut in own if cut.side == "t"])) > 1:
            own = [o for o in own if o[1].side != "t"]
            ways //= in_time
            at_x, at_y, at_t = at_x // in_time, at_y // in_time, np.zeros(steps, np.int64)
            origins = np.minimum(np.arange(ways, dtype=np.int64) * a.tile * in_time, a.size)
            ends = np.minimum((np.arange(ways, dtype=np.int64) + 1) * a.tile * in_time, a.size)
        if merge_time:
            at_t = np.zeros(steps, np.int64)
        x, y, t = x * ways + at_x, y * ways + at_y, t * ways + at_t
        first, last = (origins, ends - 1) if c > 0 else (ends - 1, origins)
        lo = (lo[:, None] + c * first[None, :]).ravel()
        hi = (hi[:, None] + c * last[None, :]).ravel()
        empty = (empty[:, None] | (origins >= ends)[None, :]).ravel()
        col, rw = np.zeros(ways, np.int64), np.zeros(ways, np.int64)
        weight = 1
        for i, cut in reversed(own):
            digit = (np.arange(ways) // weight) % cut.ways
            weight *= cut.ways
            if cut.side == "x":
                col += digit * gx[i]
            elif cut.side == "y":
                rw += digit * gy[i]
        column = (column[:, None] + col[None, :]).ravel()
        row = (row[:, None] + rw[None, :]).ravel()
    hi = np.where(empty, lo, hi + 1)
    return Pieces(x, y, t, lo, hi, column, row)


def _weights(split: Split, side: Side) -> dict[int, int]:
    out: dict[int, int] = {}
    stride = split.ways(side)
    for i, c in enumerate(split.cuts):
        if c.side == side:
            stride //= c.ways
            out[i] = stride
    return out


MOST_KEPT = 4096  # layouts that are remembered: equal ops of a model have equal ones


def layout(
    access: Access, axes: Sequence[tuple[str, int]], split: Split, part: str = "", merge_time: bool = False
) -> Layout:
    """The layout of a tensor seen through `access`; `part` adds a leading dimension of partial results."""
    return _layout(access, tuple(axes), split, part, merge_time)


@lru_cache(maxsize=MOST_KEPT)
def _layout(
    access: Access, axes: tuple[tuple[str, int], ...], split: Split, part: str, merge_time: bool
) -> Layout:
    indices = axis_indices(split, axes)
    out = [pieces_of(e, indices, split, merge_time) for e in access]
    if part:
        p = pieces_of(Affine(((part, 1),)), indices, split, merge_time)
        number = np.arange(len(p.lo), dtype=np.int64)
        used = p.hi > p.lo
        lead = Pieces(p.x, p.y, p.t, number, np.where(used, number + 1, number), p.column, p.row)
        out.insert(0, lead)
    return tuple(out)


def at_once(held: Layout) -> Layout:
    """A layout whose time steps are merged as one of a single step: what is laid, is laid once."""
    return tuple(replace(p, t=p.t[:1]) for p in held)


def whole(shape: Sequence[int]) -> Layout:
    """The layout of a tensor that lies whole on one core (or on the host)."""
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    return layout(tuple(Affine(((a, 1),)) for a, _ in axes), axes, Split())


@dataclass(frozen=True)
class Grid:
    """Where a step's cores lie in its region: column i at x + i * dx, row j at y + j * dy."""

    columns: int
    rows: int
    x: int = 0
    y: int = 0
    dx: int = 1
    dy: int = 1

    @property
    def cores(self) -> int:
        return self.columns * self.rows

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, end x, end y) in the region."""
        return (
            self.x,
            self.y,
            self.x + (self.columns - 1) * self.dx + 1,
            self.y + (self.rows - 1) * self.dy + 1,
        )

    def within(self, other: Grid) -> tuple[Ints, Ints]:
        """The numbers of this grid's rows and columns in `other`, on whose cores all of its cores are."""
        rows = (self.y + self.dy * np.arange(self.rows) - other.y) // other.dy
        return rows, (self.x + self.dx * np.arange(self.columns) - other.x) // other.dx

    def overlaps(self, other: Grid) -> bool:
        """Whether the bounding boxes share a core (a safe answer for strided grids)."""
        a, b = self.box, other.box
        return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

    def __str__(self) -> str:
        pitch = f" every {self.dx},{self.dy}" if (self.dx, self.dy) != (1, 1) else ""
        return f"{self.columns}x{self.rows} at {self.x},{self.y}{pitch}"


@dataclass(frozen=True)
class Region:
    """A rectangle of the wafer, with the physical core of each logical one.

    core: int32 [rows, columns], y * wafer.width + x of the physical core; columns and rows
    are logical (spare columns left out).
    """

    name: str
    x: int
    y: int
    width: int
    height: int
    core: np.ndarray[Any, np.dtype[np.int32]]

    @property
    def columns(self) -> int:
        return int(self.core.shape[1])

    @property
    def rows(self) -> int:
        return int(self.core.shape[0])

    def on(self, grid: Grid) -> np.ndarray[Any, np.dtype[np.int32]]:
        """int32 [rows, columns]: the physical cores of a grid in this region."""
        b = grid.box
        return self.core[grid.y : b[3] : grid.dy, grid.x : b[2] : grid.dx]


def along_side(access: Access, lane: str) -> int | None:
    """The dimension that vectors along `lane` run through; None where there is none."""
    return next((d for d, e in enumerate(access) if abs(e.coefficient(lane)) == 1), None)


def row_order(rank: int, innermost: int | None) -> tuple[int, ...]:
    """Dimensions from outermost to innermost in memory."""
    rest = [d for d in range(rank) if d != innermost]
    return tuple(rest if innermost is None else [*rest, innermost])
