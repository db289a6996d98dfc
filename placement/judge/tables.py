"""Judging the tables of a move: every element wanted comes exactly once, from a core that has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from ..plan.layout import Grid, Ints, Layout, Pieces
from ..plan.move import DimensionMoves, Move
from ..plan.plan import Plan, Step
from .verdict import IllegalPlan, core_of_piece

Judged = set[tuple[object, ...]]
"""Tables found right: the very same ones, which equal only themselves, are so again. Layers that are
alike share theirs."""


@dataclass(frozen=True)
class Wish:
    """What a step's cores need of a tensor of `shape`. where: how a refusal begins."""

    plan: Plan
    where: str
    step: Step
    need: Layout
    shape: Sequence[int]


@dataclass(frozen=True)
class Held:
    """What the cores of a grid hold."""

    layout: Layout
    grid: Grid


def judge_tables(wish: Wish, held: Held, move: Move, judged: Judged) -> None:
    """One move's tables: each wanted element once, from a core that holds it, to its place."""
    grid = held.grid
    what = move.dims, wish.need, held.layout, tuple(wish.shape), grid.columns, grid.rows, move.combine
    if what in judged:
        return
    _judge_new(wish, held, move)
    judged.add(what)


def _judge_new(wish: Wish, held: Held, move: Move) -> None:
    where = wish.where
    if len(move.dims) != len(wish.need):
        raise IllegalPlan(f"{where}: {len(move.dims)} tables for {len(wish.need)} dimensions")
    elements: list[tuple[Ints, Ints]] = []
    for d, (m, hold) in enumerate(zip(move.dims, held.layout, strict=True)):
        elements.append(_judge_pieces(wish, d, m, hold))
    if move.combine is not None:
        parts = elements[0][0]
        if (np.diff(parts) <= 0).any():
            i = int(np.flatnonzero(np.diff(parts) <= 0)[0])
            raise IllegalPlan(f"{where}: partial result {parts[i]} is added before {parts[i + 1]}")
    if not move.dims or any(not len(m.core) for m in move.dims):
        return  # one element, from a grid of one core; or nothing at all
    _judge_sources(wish, held, move, elements)


def _judge_pieces(wish: Wish, d: int, m: DimensionMoves, hold: Pieces) -> tuple[Ints, Ints]:
    """The elements (first, end) that the entries of dimension `d` bring; raises unless they tile what is
    wanted."""
    where, need = f"{wish.where}: dimension {d}", wish.need[d]
    for name in ("x", "y", "t"):
        if not np.array_equal(getattr(m, name), getattr(need, name)):
            raise IllegalPlan(
                f"{where}: piece numbers {name} are {first_difference(getattr(m, name), getattr(need, name))}"
            )
    count = np.diff(m.start)
    entries = len(m.core)
    lengths = {len(m.source), len(m.target), len(m.length), entries, int(m.start[-1])}
    if len(count) != len(need.lo) or (count < 0).any() or m.start[0] != 0 or len(lengths) > 1:
        raise IllegalPlan(f"{where}: {len(count)} pieces with {entries} entries, needs {len(need.lo)} pieces")
    piece = np.repeat(np.arange(len(count)), count)
    first = need.lo[piece] + m.target
    end = first + m.length
    lo, hi, any_wanted = wanted(need, hold, wish.shape[d])

    def wrong(p: int, what: str) -> IllegalPlan:
        core = _core(wish, d, p)
        wants = f"[{lo[p]}, {hi[p]})" if any_wanted[p] else "nothing"
        return IllegalPlan(f"{where}: {core} needs {wants}, {what}")

    order = np.lexsort((first, piece))
    a, b, p = first[order], end[order], piece[order]
    if (bad := np.flatnonzero(m.length < 1)).size:
        raise wrong(int(piece[bad[0]]), f"an entry brings {m.length[bad[0]]} elements")
    if (bad := np.flatnonzero(any_wanted != (count > 0))).size:
        raise wrong(int(bad[0]), f"{count[bad[0]]} entries bring any")
    same = p[1:] == p[:-1]
    if (bad := np.flatnonzero(same & (a[1:] != b[:-1]))).size:
        i = int(bad[0])
        how = "twice" if a[i + 1] < b[i] else "never"
        raise wrong(int(p[i]), f"gets [{min(a[i + 1], b[i])}, {max(a[i + 1], b[i])}) {how}")
    opens = np.flatnonzero(np.r_[True, ~same][: len(p)])
    closes = np.flatnonzero(np.r_[~same, True][-len(p) :]) if len(p) else opens
    if (bad := np.flatnonzero((a[opens] != lo[p[opens]]) | (b[closes] != hi[p[closes]]))).size:
        i = int(bad[0])
        raise wrong(int(p[opens[i]]), f"gets [{a[opens[i]]}, {b[closes[i]]})")
    return first, end


def _core(wish: Wish, d: int, piece: int) -> str:
    """A core that needs this piece of dimension `d`, as text."""
    return core_of_piece(wish.plan, wish.step.region, wish.step.grid, wish.need[d], piece)


def wanted(need: Pieces, hold: Pieces, size: int) -> tuple[Ints, Ints, Any]:
    """[pieces]: what of each piece needed lies in the tensor and in the box held; whether there is any."""
    used = hold.hi > hold.lo
    if not used.any():
        return need.lo, need.lo, np.zeros(len(need.lo), np.bool_)
    lo = np.maximum(need.lo, max(0, int(hold.lo[used].min())))
    hi = np.minimum(need.hi, min(size, int(hold.hi[used].max())))
    return lo, hi, (hi > lo) & (need.hi > need.lo)


def first_difference(a: Ints, b: Ints) -> str:
    """The first two numbers in which tables differ, as text."""
    if len(a) != len(b):
        return f"{len(a)} long, must be {len(b)}"
    i = int(np.flatnonzero(a != b)[0])
    return f"{a[i]} at {i}, must be {b[i]}"


def _judge_sources(wish: Wish, held: Held, move: Move, elements: Sequence[tuple[Ints, Ints]]) -> None:
    """Every entry's core, together with any entries of the other dimensions, holds what it sends."""
    columns = [m.core % held.grid.columns for m in move.dims]
    rows = [m.core // held.grid.columns for m in move.dims]
    for what, parts, limit in (("column", columns, held.grid.columns), ("row", rows, held.grid.rows)):
        reach = sum(int(p.max()) for p in parts)
        if min(int(p.min()) for p in parts) < 0 or reach >= limit:
            raise IllegalPlan(f"{wish.where}: comes from {what} {reach} of the producer's {limit}")
    for d, (m, h, (first, end)) in enumerate(zip(move.dims, held.layout, elements, strict=True)):
        where = f"{wish.where}: dimension {d}"
        number = _held_along(where, "column", columns, d, h.x) + _held_along(where, "row", rows, d, h.y)
        have_lo, have_hi = h.lo[number], h.hi[number]
        bad = (m.source < 0) | (first != have_lo + m.source) | (end > have_hi)
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            piece = int(np.searchsorted(m.start, i, side="right")) - 1
            raise IllegalPlan(
                f"{where}: {_core(wish, d, piece)} is sent [{first[i]}, {end[i]}) from offset "
                f"{m.source[i]} of a core that holds [{have_lo[i]}, {have_hi[i]})"
            )


def _held_along(where: str, side: str, parts: Sequence[Ints], d: int, table: Ints) -> Ints:
    """[entries of dimension d]: what their columns (or rows) add to the number of the piece held.

    parts: by dimension, what each entry adds to the column (or row); table: the number by column (or row).
    Raises unless it is the same whichever entries of the other dimensions come with them.
    """
    own, at = np.unique(parts[d], return_inverse=True)
    others = _sums([np.unique(p) for k, p in enumerate(parts) if k != d])
    seen = table[own[:, None] + others[None, :]]
    if (seen != seen[:, :1]).any():
        i, j = np.argwhere(seen != seen[:, :1])[0]
        raise IllegalPlan(
            f"{where}: {side}s {own[i] + others[0]} and {own[i] + others[j]} of the "
            f"producer stand for one source, but hold pieces {seen[i, 0]} and {seen[i, j]}"
        )
    return seen[at, 0]


def _sums(values: Sequence[Ints]) -> Ints:
    """All sums of one value of each array, each once."""
    start = np.zeros(1, np.int64)
    return reduce(lambda total, v: np.unique(np.add.outer(total, v)), values, start)
