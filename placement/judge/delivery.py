"""Judging what steps get: operands, partial results, new values of states and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..plan.layout import Grid, Layout, at_once, layout, whole
from ..plan.move import HOST, Move
from ..plan.plan import Operand, Plan, Step
from .in_place import judge_in_place
from .tables import Held, Judged, Wish, first_difference, judge_tables, wanted
from .verdict import IllegalPlan, Index, core_of_piece, grid_core, step_name


@dataclass(frozen=True)
class _Walk:
    """What the judging of one plan goes by. lays: what the host lays, by buffer; judged: see `Judged`."""

    plan: Plan
    index: Index
    lays: Mapping[int, Sequence[tuple[str, Move]]]
    judged: Judged


def judge_delivery(plan: Plan, index: Index) -> None:
    """Raises IllegalPlan unless all operands, joins, updates and constants get what they need."""
    walk = _Walk(plan, index, _lays(plan), set())
    makers = {t.node: t for t in reversed(plan.steps) if t.kind == "task"}
    for s in plan.steps:
        if s.kind == "input":
            if s.operands or s.moves:
                raise IllegalPlan(f"{step_name(s)}: the host lays it, but it has moves")
            continue
        for j in range(len(s.operands)):
            _judge_operand(walk, s, j)
        if s.kind == "join":
            _judge_join(walk, s, makers[s.node].tensor)
        elif s.kind == "update" and s.moves:
            present = dict(plan.graph.states)[s.tensor]
            wish = Wish(plan, f"{step_name(s)}: {present!r}", s, s.hold, plan.tensors[present].shape)
            _judge_moves(walk, wish, present, s.moves, s.result)
        elif s.moves:
            raise IllegalPlan(f"{step_name(s)}: has moves of its own, only its operands may")


def _lays(plan: Plan) -> dict[int, list[tuple[str, Move]]]:
    """What the host lays when the program is loaded, by buffer; raises unless all are constants."""
    out: dict[int, list[tuple[str, Move]]] = {}
    for tensor, move in plan.lays:
        if not 0 <= move.target < len(plan.buffers) or plan.buffers[move.target].role != "constant":
            raise IllegalPlan(
                f"constant {tensor!r} is laid into buffer {move.target}, which holds no constant"
            )
        out.setdefault(move.target, []).append((tensor, move))
    return out


def _judge_join(walk: _Walk, s: Step, tensor: str) -> None:
    """A join gets all partial results, each on the core that made it. tensor: that of the results."""
    need = layout(s.op.reads[0], s.op.axes, s.split)
    wish = Wish(walk.plan, f"{step_name(s)}: partial results", s, need, walk.plan.tensors[tensor].shape)
    _judge_aligned(wish.where, need[1:], s.hold)
    _judge_moves(walk, wish, tensor, s.moves, s.result)


def _judge_operand(walk: _Walk, s: Step, j: int) -> None:
    """A step gets operand `j` as its op reads it: a constant, received, or left in place by its writer."""
    plan, o = walk.plan, s.operands[j]
    need = layout(s.op.reads[j], s.op.axes, s.split)
    where = f"{step_name(s)}: operand {j} {o.tensor!r}"
    wish = Wish(plan, where, s, need, plan.tensors[o.tensor].shape)
    _judge_same(where, o.need, need)
    if not o.fill:
        _judge_inside(wish)
    if o.tensor in plan.graph.constants:
        _judge_constant(walk, wish, j)
    elif o.received:
        for offsets in (o.x, o.y, o.t):
            if np.any(offsets):
                raise IllegalPlan(
                    f"{where}: read at offset {np.max(offsets)} of its receive buffer, must be 0"
                )
        _judge_moves(walk, wish, o.tensor, o.moves, o.buffer)
    else:
        _judge_left(walk, wish, o)


def _judge_inside(wish: Wish) -> None:
    """No core needs anything past the tensor's ends."""
    for d, (p, n) in enumerate(zip(wish.need, wish.shape, strict=True)):
        out = np.flatnonzero(((p.lo < 0) | (p.hi > n)) & (p.hi > p.lo))
        if len(out):
            core = core_of_piece(wish.plan, wish.step.region, wish.step.grid, p, int(out[0]))
            raise IllegalPlan(
                f"{wish.where}: {core} needs [{p.lo[out[0]]}, {p.hi[out[0]]}) of dimension {d}, "
                f"which has {n} elements, and no fill"
            )


def _judge_constant(walk: _Walk, wish: Wish, j: int) -> None:
    """A constant is laid once, by the host, and lies where the step reads it."""
    s, where = wish.step, wish.where
    o = s.operands[j]
    held = layout(s.op.reads[j], s.op.axes, s.split, merge_time=True)
    laid = walk.lays.get(o.buffer, [])
    if len(laid) != 1 or laid[0][0] != o.tensor or o.moves or o.received:
        raise IllegalPlan(f"{where}: constant laid {len(laid)} times into buffer {o.buffer}, must be 1")
    _, move = laid[0]
    if move.source != HOST:
        raise IllegalPlan(f"{where}: a constant comes from the host, not from buffer {move.source}")
    by_host = Wish(wish.plan, where, s, at_once(held), wish.shape)
    judge_tables(by_host, Held(whole(wish.shape), Grid(1, 1)), move, walk.judged)
    judge_in_place(wish, Held(held, s.grid), o)


def _judge_left(walk: _Walk, wish: Wish, o: Operand) -> None:
    """An operand that is not moved lies where the one step that writes it has left it."""
    s, where = wish.step, wish.where
    writers = walk.index.writers.get(o.tensor, ())
    if len(writers) != 1 or writers[0].result != o.buffer or o.moves:
        raise IllegalPlan(
            f"{where}: read in place from buffer {o.buffer}; {len(writers)} steps write the tensor, "
            f"into {[w.result for w in writers]}"
        )
    w = writers[0]
    if w.region != s.region:
        raise IllegalPlan(f"{where}: read in place in region {s.region}, {step_name(w)} lies in {w.region}")
    judge_in_place(wish, Held(w.hold, w.grid), o)


def _judge_same(where: str, given: Layout, need: Layout) -> None:
    """The layout that the plan gives for an operand is the one that the op's access asks for."""
    for d, (g, n) in enumerate(zip(given, need, strict=True)):
        for name in ("x", "y", "t", "lo", "hi"):
            a, b = getattr(g, name), getattr(n, name)
            if not np.array_equal(a, b):
                raise IllegalPlan(f"{where}: dimension {d}: {name} is {first_difference(a, b)}")


def _judge_aligned(where: str, need: Layout, hold: Layout) -> None:
    """Both layouts have the same pieces, but for a constant shift."""
    for d, (n, h) in enumerate(zip(need, hold, strict=True)):
        for name in ("x", "y"):
            if not np.array_equal(getattr(n, name), getattr(h, name)):
                raise IllegalPlan(f"{where}: dimension {d}: joined on other cores than held")
        used = n.hi > n.lo
        shift = (n.lo - h.lo)[used]
        if not np.array_equal(n.hi - n.lo, h.hi - h.lo) or (shift != shift[:1]).any():
            lengths = first_difference(n.hi - n.lo, h.hi - h.lo)
            raise IllegalPlan(f"{where}: dimension {d}: pieces joined are {lengths}")


def _judge_moves(walk: _Walk, wish: Wish, tensor: str, moves: Sequence[Move], target: int) -> None:
    """The moves of a tensor into buffer `target`: one from each of its writers that has any of it."""
    where, s = wish.where, wish.step
    writers = walk.index.writers.get(tensor, ())
    if not writers:
        raise IllegalPlan(f"{where}: no step writes it")
    by_buffer = {w.result: w for w in writers}
    seen: dict[int, Move] = {}
    for m in moves:
        if m.source not in by_buffer or m.target != target:
            raise IllegalPlan(
                f"{where}: a move from buffer {m.source} to {m.target}; "
                f"must be from one of {sorted(by_buffer)} to {target}"
            )
        if m.source in seen:
            raise IllegalPlan(f"{where}: delivered twice from {step_name(by_buffer[m.source])}")
        seen[m.source] = m
        if (m.combine is not None) != (s.kind == "join"):
            raise IllegalPlan(f"{where}: combined by {m.combine} in a {s.kind}")
    for w in writers:
        if w.result in seen:
            judge_tables(wish, Held(w.hold, w.grid), seen[w.result], walk.judged)
        elif all(
            wanted(n, h, size)[2].any() for n, h, size in zip(wish.need, w.hold, wish.shape, strict=True)
        ):
            core = grid_core(wish.plan, s.region, s.grid, 0, 0)
            raise IllegalPlan(
                f"{where}: nothing comes from {step_name(w)} to the grid at {core}; 0 moves, must be 1"
            )
