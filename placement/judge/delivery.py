"""Judging moves: every element that a core needs reaches it exactly once, from a core that has it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from ..plan.layout import Grid, Ints, Layout, Pieces, at_once, layout, whole
from ..plan.move import HOST, DimensionMoves, Move
from ..plan.plan import Operand, Plan, Step
from .verdict import IllegalPlan, Index, buffer_name, core_of_piece, grid_core, step_name

Judged = set[tuple[object, ...]]
"""Tables found right: the very same ones, which equal only themselves, are so again. Layers that are
alike share theirs."""


def judge_delivery(plan: Plan, index: Index) -> None:
    """Raises IllegalPlan unless all operands, joins, updates and constants get what they need."""
    lays: dict[int, list[tuple[str, Move]]] = {}
    for tensor, move in plan.lays:
        if not 0 <= move.target < len(plan.buffers) or plan.buffers[move.target].role != "constant":
            raise IllegalPlan(
                f"constant {tensor!r} is laid into buffer {move.target}, which holds no constant"
            )
        lays.setdefault(move.target, []).append((tensor, move))
    judged: Judged = set()
    makers = {t.node: t for t in reversed(plan.steps) if t.kind == "task"}
    for s in plan.steps:
        if s.kind == "input":
            if s.operands or s.moves:
                raise IllegalPlan(f"{step_name(s)}: the host lays it, but it has moves")
            continue
        for j, o in enumerate(s.operands):
            _judge_operand(plan, index, s, j, o, lays, judged)
        if s.kind == "join":
            where = f"{step_name(s)}: partial results"
            tensor = makers[s.node].tensor
            need = layout(s.op.reads[0], s.op.axes, s.split)
            _judge_aligned(where, need[1:], s.hold)
            _judge_moves(plan, where, s, need, tensor, s.moves, s.result, index, judged)
        elif s.kind == "update" and s.moves:
            present = dict(plan.graph.states)[s.tensor]
            _judge_moves(
                plan, f"{step_name(s)}: {present!r}", s, s.hold, present, s.moves, s.result, index, judged
            )
        elif s.moves:
            raise IllegalPlan(f"{step_name(s)}: has moves of its own, only its operands may")


def _judge_operand(
    plan: Plan,
    index: Index,
    s: Step,
    j: int,
    o: Operand,
    lays: dict[int, list[tuple[str, Move]]],
    judged: Judged,
) -> None:
    where = f"{step_name(s)}: operand {j} {o.tensor!r}"
    access, shape = s.op.reads[j], plan.tensors[o.tensor].shape
    need = layout(access, s.op.axes, s.split)
    _judge_same(where, o.need, need)
    if not o.fill:
        for d, (p, n) in enumerate(zip(need, shape, strict=True)):
            out = np.flatnonzero(((p.lo < 0) | (p.hi > n)) & (p.hi > p.lo))
            if len(out):
                core = core_of_piece(plan, s.region, s.grid, p, int(out[0]))
                raise IllegalPlan(
                    f"{where}: {core} needs [{p.lo[out[0]]}, {p.hi[out[0]]}) of dimension {d}, which has {n} "
                    "elements, and no fill"
                )
    if o.tensor in plan.graph.constants:
        held = layout(access, s.op.axes, s.split, merge_time=True)
        laid = lays.get(o.buffer, [])
        if len(laid) != 1 or laid[0][0] != o.tensor or o.moves or o.received:
            raise IllegalPlan(f"{where}: constant laid {len(laid)} times into buffer {o.buffer}, must be 1")
        if laid[0][1].source != HOST:
            raise IllegalPlan(f"{where}: a constant comes from the host, not from buffer {laid[0][1].source}")
        _judge_tables(plan, where, s, at_once(held), shape, whole(shape), Grid(1, 1), laid[0][1], judged)
        _judge_in_place(plan, where, s, o, need, held, s.grid)
    elif o.received:
        for offsets in (o.x, o.y, o.t):
            if np.any(offsets):
                raise IllegalPlan(
                    f"{where}: read at offset {np.max(offsets)} of its receive buffer, must be 0"
                )
        _judge_moves(plan, where, s, need, o.tensor, o.moves, o.buffer, index, judged)
    else:
        writers = index.writers.get(o.tensor, ())
        if len(writers) != 1 or writers[0].result != o.buffer or o.moves:
            raise IllegalPlan(
                f"{where}: read in place from buffer {o.buffer}; {len(writers)} steps write the tensor, "
                f"into {[w.result for w in writers]}"
            )
        w = writers[0]
        if w.region != s.region:
            raise IllegalPlan(
                f"{where}: read in place in region {s.region}, {step_name(w)} lies in {w.region}"
            )
        _judge_in_place(plan, where, s, o, need, w.hold, w.grid)


def _judge_same(where: str, given: Layout, need: Layout) -> None:
    """The layout that the plan gives for an operand is the one that the op's access asks for."""
    for d, (g, n) in enumerate(zip(given, need, strict=True)):
        for name in ("x", "y", "t", "lo", "hi"):
            a, b = getattr(g, name), getattr(n, name)
            if not np.array_equal(a, b):
                raise IllegalPlan(f"{where}: dimension {d}: {name} is {_first(a, b)}")


def _judge_aligned(where: str, need: Layout, hold: Layout) -> None:
    """Both layouts have the same pieces, but for a constant shift."""
    for d, (n, h) in enumerate(zip(need, hold, strict=True)):
        for name in ("x", "y"):
            if not np.array_equal(getattr(n, name), getattr(h, name)):
                raise IllegalPlan(f"{where}: dimension {d}: joined on other cores than held")
        used = n.hi > n.lo
        shift = (n.lo - h.lo)[used]
        if not np.array_equal(n.hi - n.lo, h.hi - h.lo) or (shift != shift[:1]).any():
            raise IllegalPlan(f"{where}: dimension {d}: pieces joined are {_first(n.hi - n.lo, h.hi - h.lo)}")


def _first(a: Ints, b: Ints) -> str:
    """The first two numbers in which tables differ, as text."""
    if len(a) != len(b):
        return f"{len(a)} long, must be {len(b)}"
    i = int(np.flatnonzero(a != b)[0])
    return f"{a[i]} at {i}, must be {b[i]}"


# -- moves -------------------------------------------------------------------------------------


def _judge_moves(
    plan: Plan,
    where: str,
    s: Step,
    need: Layout,
    tensor: str,
    moves: Sequence[Move],
    target: int,
    index: Index,
    judged: Judged,
) -> None:
    """The moves of one operand: one from each writer of the tensor that has any of it."""
    writers = index.writers.get(tensor, ())
    if not writers:
        raise IllegalPlan(f"{where}: no step writes it")
    by_buffer = {w.result: w for w in writers}
    seen: set[int] = set()
    for m in moves:
        if m.source not in by_buffer or m.target != target:
            raise IllegalPlan(
                f"{where}: a move from buffer {m.source} to {m.target}; "
                f"must be from one of {sorted(by_buffer)} to {target}"
            )
        if m.source in seen:
            raise IllegalPlan(f"{where}: delivered twice from {step_name(by_buffer[m.source])}")
        seen.add(m.source)
        if (m.combine is not None) != (s.kind == "join"):
            raise IllegalPlan(f"{where}: combined by {m.combine} in a {s.kind}")
    shape = plan.tensors[tensor].shape
    for w in writers:
        move = next((m for m in moves if m.source == w.result), None)
        if move is not None:
            _judge_tables(plan, where, s, need, shape, w.hold, w.grid, move, judged)
        elif all(_wanted(n, h, size)[2].any() for n, h, size in zip(need, w.hold, shape, strict=True)):
            core = grid_core(plan, s.region, s.grid, 0, 0)
            raise IllegalPlan(
                f"{where}: nothing comes from {step_name(w)} to the grid at {core}; 0 moves, must be 1"
            )


def _wanted(need: Pieces, hold: Pieces, size: int) -> tuple[Ints, Ints, Any]:
    """[pieces]: what of each piece needed lies in the tensor and in the box held; whether there is any."""
    used = hold.hi > hold.lo
    if not used.any():
        return need.lo, need.lo, np.zeros(len(need.lo), np.bool_)
    lo = np.maximum(need.lo, max(0, int(hold.lo[used].min())))
    hi = np.minimum(need.hi, min(size, int(hold.hi[used].max())))
    return lo, hi, (hi > lo) & (need.hi > need.lo)


def _judge_tables(
    plan: Plan,
    where: str,
    s: Step,
    need: Layout,
    shape: Sequence[int],
    hold: Layout,
    producer: Grid,
    move: Move,
    judged: Judged,
) -> None:
    """One move's tables: each wanted element once, from a core that holds it, to its place."""
    what = move.dims, need, hold, tuple(shape), producer.columns, producer.rows, move.combine
    if what in judged:
        return
    _judge_new_tables(plan, where, s, need, shape, hold, producer, move)
    judged.add(what)


def _judge_new_tables(
    plan: Plan,
    where: str,
    s: Step,
    need: Layout,
    shape: Sequence[int],
    hold: Layout,
    producer: Grid,
    move: Move,
) -> None:
    if len(move.dims) != len(need):
        raise IllegalPlan(f"{where}: {len(move.dims)} tables for {len(need)} dimensions")
    elements: list[tuple[Ints, Ints]] = []
    for d, (m, n, h, size) in enumerate(zip(move.dims, need, hold, shape, strict=True)):
        elements.append(_judge_pieces(plan, f"{where}: dimension {d}", s, m, n, h, size))
    if move.combine is not None:
        parts = elements[0][0]
        if (np.diff(parts) <= 0).any():
            i = int(np.flatnonzero(np.diff(parts) <= 0)[0])
            raise IllegalPlan(f"{where}: partial result {parts[i]} is added before {parts[i + 1]}")
    if not move.dims or any(not len(m.core) for m in move.dims):
        return  # one element, from a grid of one core; or nothing at all
    _judge_sources(plan, where, s, move, need, elements, hold, producer)


def _judge_pieces(
    plan: Plan, where: str, s: Step, m: DimensionMoves, need: Pieces, hold: Pieces, size: int
) -> tuple[Ints, Ints]:
    """The elements (first, end) that the entries bring; raises unless they tile what is wanted."""
    for name in ("x", "y", "t"):
        if not np.array_equal(getattr(m, name), getattr(need, name)):
            raise IllegalPlan(
                f"{where}: piece numbers {name} are {_first(getattr(m, name), getattr(need, name))}"
            )
    count = np.diff(m.start)
    entries = len(m.core)
    lengths = {len(m.source), len(m.target), len(m.length), entries, int(m.start[-1])}
    if len(count) != len(need.lo) or (count < 0).any() or m.start[0] != 0 or len(lengths) > 1:
        raise IllegalPlan(f"{where}: {len(count)} pieces with {entries} entries, needs {len(need.lo)} pieces")
    piece = np.repeat(np.arange(len(count)), count)
    first = need.lo[piece] + m.target
    end = first + m.length
    lo, hi, wanted = _wanted(need, hold, size)

    def wrong(p: int, what: str) -> IllegalPlan:
        core = core_of_piece(plan, s.region, s.grid, need, p)
        wants = f"[{lo[p]}, {hi[p]})" if wanted[p] else "nothing"
        return IllegalPlan(f"{where}: {core} needs {wants}, {what}")

    order = np.lexsort((first, piece))
    a, b, p = first[order], end[order], piece[order]
    if (bad := np.flatnonzero(m.length < 1)).size:
        raise wrong(int(piece[bad[0]]), f"an entry brings {m.length[bad[0]]} elements")
    if (bad := np.flatnonzero(wanted != (count > 0))).size:
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


def _sums(values: Sequence[Ints]) -> Ints:
    """All sums of one value of each array, each once."""
    start = np.zeros(1, np.int64)
    return reduce(lambda total, v: np.unique(np.add.outer(total, v)), values, start)


def _judge_sources(
    plan: Plan,
    where: str,
    s: Step,
    move: Move,
    need: Layout,
    elements: Sequence[tuple[Ints, Ints]],
    hold: Layout,
    producer: Grid,
) -> None:
    """Every entry's core, together with any entries of the other dimensions, holds what it sends."""
    columns = [m.core % producer.columns for m in move.dims]
    rows = [m.core // producer.columns for m in move.dims]
    for what, parts, limit in (("column", columns, producer.columns), ("row", rows, producer.rows)):
        reach = sum(int(p.max()) for p in parts)
        if min(int(p.min()) for p in parts) < 0 or reach >= limit:
            raise IllegalPlan(f"{where}: comes from {what} {reach} of the producer's {limit}")
    for d, (m, n, h, (first, end)) in enumerate(zip(move.dims, need, hold, elements, strict=True)):
        number = np.zeros(len(m.core), np.int64)
        for what, parts, table in (("column", columns, h.x), ("row", rows, h.y)):
            own, at = np.unique(parts[d], return_inverse=True)
            others = _sums([np.unique(p) for k, p in enumerate(parts) if k != d])
            seen = table[own[:, None] + others[None, :]]
            if (seen != seen[:, :1]).any():
                i, j = np.argwhere(seen != seen[:, :1])[0]
                raise IllegalPlan(
                    f"{where}: dimension {d}: {what}s {own[i] + others[0]} and {own[i] + others[j]} of the "
                    f"producer stand for one source, but hold pieces {seen[i, 0]} and {seen[i, j]}"
                )
            number += seen[at, 0]
        have_lo, have_hi = h.lo[number], h.hi[number]
        bad = (m.source < 0) | (first != have_lo + m.source) | (end > have_hi)
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            piece = int(np.searchsorted(m.start, i, side="right")) - 1
            core = core_of_piece(plan, s.region, s.grid, n, piece)
            raise IllegalPlan(
                f"{where}: dimension {d}: {core} is sent [{first[i]}, {end[i]}) from offset "
                f"{m.source[i]} of a core that holds [{have_lo[i]}, {have_hi[i]})"
            )


# -- in place ------------------------------------------------------------------------------------


def _judge_in_place(
    plan: Plan, where: str, s: Step, o: Operand, need: Layout, hold: Layout, producer: Grid
) -> None:
    """The same core holds all that it needs, where the operand says."""
    b = plan.buffers[o.buffer]
    if b.region != s.region or b.grid != producer:
        raise IllegalPlan(f"{where}: {buffer_name(b)} lies on grid {b.grid}, not on {producer}")
    g = s.grid
    columns, rest_x = np.divmod(g.x + g.dx * np.arange(g.columns) - producer.x, producer.dx)
    rows, rest_y = np.divmod(g.y + g.dy * np.arange(g.rows) - producer.y, producer.dy)
    off_x = (rest_x != 0) | (columns < 0) | (columns >= producer.columns)
    off_y = (rest_y != 0) | (rows < 0) | (rows >= producer.rows)
    if off_x.any() or off_y.any():
        core = grid_core(plan, s.region, g, int(off_x.argmax()), int(off_y.argmax()))
        raise IllegalPlan(f"{where}: {core} is on the step's grid {g}, not on {producer} where it is held")
    for name, table, n in (("x", o.x, g.columns), ("y", o.y, g.rows), ("t", o.t, s.split.grid[2])):
        if table.shape != (len(need), n):
            raise IllegalPlan(f"{where}: offsets {name} are {table.shape}, must be {(len(need), n)}")
    empty: Any = np.zeros((1, 1, 1), np.bool_)
    for n in need:
        at = n.number()
        empty = empty | (n.hi[at] <= n.lo[at])
    for d, (n, h) in enumerate(zip(need, hold, strict=True)):
        moved = Pieces(h.x[columns], h.y[rows], h.t[:1], h.lo, h.hi, h.column, h.row)
        wants, has = n.number(), moved.number()
        table = _short(o.t[d])[:, None, None] + _short(o.y[d])[:, None] + _short(o.x[d])
        lo, hi, have_lo, have_hi = n.lo[wants], n.hi[wants], h.lo[has], h.hi[has]
        wrong = ((lo < have_lo) | (hi > have_hi) | (table != lo - have_lo)) & ~empty
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            core = grid_core(plan, s.region, g, int(at[2]), int(at[1]))
            lo, hi, have_lo, have_hi, offset = (
                int(np.broadcast_to(v, wrong.shape)[at]) for v in (lo, hi, have_lo, have_hi, table)
            )
            raise IllegalPlan(
                f"{where}: {core} needs [{lo}, {hi}) of dimension {d} at offset {offset} of what it holds, "
                f"[{have_lo}, {have_hi})"
            )


def _short(values: Ints) -> Ints:
    """One value in place of equal ones."""
    return values[:1] if (values == values[:1]).all() else values
