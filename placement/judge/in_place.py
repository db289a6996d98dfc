"""Judging what is read in place: the same core holds all that it needs, where the operand says."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..plan.layout import Grid, Ints, Pieces
from ..plan.plan import Operand
from .tables import Held, Wish
from .verdict import IllegalPlan, buffer_name, grid_core


def judge_in_place(wish: Wish, held: Held, o: Operand) -> None:
    """Raises IllegalPlan unless operand `o` lies on the wish's own cores, at the offsets that it gives."""
    where, s = wish.where, wish.step
    b = wish.plan.buffers[o.buffer]
    if b.region != s.region or b.grid != held.grid:
        raise IllegalPlan(f"{where}: {buffer_name(b)} lies on grid {b.grid}, not on {held.grid}")
    columns, rows = _within(wish, held.grid)
    for name, table, n in (("x", o.x, s.grid.columns), ("y", o.y, s.grid.rows), ("t", o.t, s.split.grid[2])):
        if table.shape != (len(wish.need), n):
            raise IllegalPlan(f"{where}: offsets {name} are {table.shape}, must be {(len(wish.need), n)}")
    empty: Any = np.zeros((1, 1, 1), np.bool_)
    for n in wish.need:
        at = n.number()
        empty = empty | (n.hi[at] <= n.lo[at])
    for d, (n, h) in enumerate(zip(wish.need, held.layout, strict=True)):
        moved = Pieces(h.x[columns], h.y[rows], h.t[:1], h.lo, h.hi, h.column, h.row)
        wants, has = n.number(), moved.number()
        table = _short(o.t[d])[:, None, None] + _short(o.y[d])[:, None] + _short(o.x[d])
        lo, hi, have_lo, have_hi = n.lo[wants], n.hi[wants], h.lo[has], h.hi[has]
        wrong = ((lo < have_lo) | (hi > have_hi) | (table != lo - have_lo)) & ~empty
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            core = grid_core(wish.plan, s.region, s.grid, int(at[2]), int(at[1]))
            lo, hi, have_lo, have_hi, offset = (
                int(np.broadcast_to(v, wrong.shape)[at]) for v in (lo, hi, have_lo, have_hi, table)
            )
            raise IllegalPlan(
                f"{where}: {core} needs [{lo}, {hi}) of dimension {d} at offset {offset} of what it holds, "
                f"[{have_lo}, {have_hi})"
            )


def _within(wish: Wish, producer: Grid) -> tuple[Ints, Ints]:
    """The producer's columns and rows of the step's; raises where a core of the step is none of its."""
    g = wish.step.grid
    columns, rest_x = np.divmod(g.x + g.dx * np.arange(g.columns) - producer.x, producer.dx)
    rows, rest_y = np.divmod(g.y + g.dy * np.arange(g.rows) - producer.y, producer.dy)
    off_x = (rest_x != 0) | (columns < 0) | (columns >= producer.columns)
    off_y = (rest_y != 0) | (rows < 0) | (rows >= producer.rows)
    if off_x.any() or off_y.any():
        core = grid_core(wish.plan, wish.step.region, g, int(off_x.argmax()), int(off_y.argmax()))
        raise IllegalPlan(
            f"{wish.where}: {core} is on the step's grid {g}, not on {producer} where it is held"
        )
    return columns, rows


def _short(values: Ints) -> Ints:
    """One value in place of equal ones."""
    return values[:1] if (values == values[:1]).all() else values
