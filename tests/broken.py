"""Ways to break a plan, each a function from a good plan to a bad one (see test_check)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from waferc.ir.graph import Node
from waferc.placement.judge.judge import IllegalPlan, judge
from waferc.placement.plan.layout import Cut, Grid, Region, Split
from waferc.placement.plan.move import HOST, Detour, DimensionMoves, Move
from waferc.placement.plan.plan import Buffer, Operand, Plan, Step


class Absent(Exception):
    """The plan has nothing that could be broken in this way; another one may."""


T = TypeVar("T")


def first(found: Iterable[T]) -> T:
    for one in found:
        return one
    raise Absent


def with_step(p: Plan, at: int, **changes: Any) -> Plan:
    steps = list(p.steps)
    steps[at] = replace(steps[at], **changes)
    return replace(p, steps=tuple(steps))


def with_buffer(p: Plan, at: int, **changes: Any) -> Plan:
    buffers = list(p.buffers)
    buffers[at] = replace(buffers[at], **changes)
    return replace(p, buffers=tuple(buffers))


def with_operand(p: Plan, step: Step, j: int, **changes: Any) -> Plan:
    operands = list(step.operands)
    operands[j] = replace(operands[j], **changes)
    return with_step(p, step.number, operands=tuple(operands))


def with_moves(p: Plan, step: Step, j: int, moves: tuple[Move, ...]) -> Plan:
    """The moves of operand `j`, or of the step itself for -1, replaced."""
    if j < 0:
        return with_step(p, step.number, moves=moves)
    return with_operand(p, step, j, moves=moves)


def found(p: Plan, wanted: Callable[[Step, int, Move], bool]) -> tuple[Step, int, Move]:
    """The first (step, operand number or -1, move) that is wanted."""
    for s in p.steps:
        for j, moves in [*((j, o.moves) for j, o in enumerate(s.operands)), (-1, s.moves)]:
            for m in moves:
                if wanted(s, j, m):
                    return s, j, m
    raise Absent


def several_entries(s: Step, j: int, m: Move) -> bool:
    return j >= 0 and any(len(d.core) > 3 for d in m.dims)


def change_move(p: Plan, wanted: Callable[[Step, int, Move], bool], change: Callable[[Move], Move]) -> Plan:
    s, j, m = found(p, wanted)
    every = s.operands[j].moves if j >= 0 else s.moves
    return with_moves(p, s, j, tuple(change(n) if n is m else n for n in every))


def change_longest(change: Callable[[DimensionMoves], DimensionMoves]) -> Callable[[Move], Move]:
    """A move with its table of most entries changed."""

    def apply(m: Move) -> Move:
        k = max(range(len(m.dims)), key=lambda d: len(m.dims[d].core))
        return replace(m, dims=(*m.dims[:k], change(m.dims[k]), *m.dims[k + 1 :]))

    return apply


def in_a_move(change: Callable[[DimensionMoves], DimensionMoves]) -> Callable[[Plan], Plan]:
    """The first move with a table of several entries, with that table changed."""
    return lambda p: change_move(p, several_entries, change_longest(change))


def pick(d: DimensionMoves, entries: Any, start: Any) -> DimensionMoves:
    """The table with only (or again) these entries."""
    return replace(
        d,
        start=np.asarray(start),
        core=d.core[entries],
        source=d.source[entries],
        target=d.target[entries],
        length=d.length[entries],
    )


def dropped(d: DimensionMoves) -> DimensionMoves:
    return pick(d, np.arange(len(d.core) - 1), np.minimum(d.start, len(d.core) - 1))


def doubled(d: DimensionMoves) -> DimensionMoves:
    n = len(d.core)
    return pick(d, np.r_[np.arange(n), n - 1], np.where(d.start == n, n + 1, d.start))


def moved(name: str, by: int) -> Callable[[DimensionMoves], DimensionMoves]:
    def apply(d: DimensionMoves) -> DimensionMoves:
        values = getattr(d, name).copy()
        values[-1] += by
        return replace(d, **{name: values})

    return apply


def change_parts(change: Callable[[DimensionMoves], DimensionMoves]) -> Callable[[Plan], Plan]:
    """The table of partial results of the first join changed."""

    def apply(p: Plan) -> Plan:
        return change_move(
            p, lambda s, j, m: s.kind == "join", lambda m: replace(m, dims=(change(m.dims[0]), *m.dims[1:]))
        )

    return apply


# -- bad plans --------------------------------------------------------------------------------------


def on_a_dead_core(p: Plan) -> Plan:
    core = int(p.regions[0].on(p.steps[1].grid)[-1, -1])
    dead = (core % p.wafer.width, core // p.wafer.width)
    return replace(p, wafer=replace(p.wafer, dead_cores=(dead,)))


def past_the_wafer(p: Plan) -> Plan:
    return replace(p, regions=(replace(p.regions[0], width=p.wafer.width + 1),))


def overlapping_regions(p: Plan) -> Plan:
    r = p.regions[0]
    other = Region("other", r.x, r.y, 2, 2, r.core[:2, :2])
    return replace(p, regions=(r, other), code_bytes=p.code_bytes * 2)


def core_twice(p: Plan) -> Plan:
    core = p.regions[0].core.copy()
    core[0, 1] = core[0, 0]
    return replace(p, regions=(replace(p.regions[0], core=core),))


def core_elsewhere(p: Plan) -> Plan:
    r = p.regions[0]
    smaller = replace(r, width=r.width - 1, x=r.x + 1)
    return replace(p, regions=(smaller,))


def grid_past_region(p: Plan) -> Plan:
    g = p.steps[1].grid
    return with_step(p, 1, grid=replace(g, x=p.regions[0].columns - g.columns + 1))


def other_grid_than_split(p: Plan) -> Plan:
    return with_step(p, 1, grid=Grid(1, 1))


def one_byte_over(p: Plan) -> Plan:
    return replace(p, wafer=replace(p.wafer, sram_bytes=int(p.sram().max()) - 1))


def code_grown(p: Plan) -> Plan:
    return replace(p, code_bytes=tuple(c + 4096 for c in p.code_bytes))


def same_address(p: Plan) -> Plan:
    constants = [b for b in p.buffers if b.role == "constant"]
    a, b = constants[0], constants[1]
    return with_buffer(p, b.number, address=a.address)


def short_life(p: Plan) -> Plan:
    s = first(s for s in p.steps if s.kind == "task")
    result = p.buffers[s.result]
    return with_buffer(p, s.result, live=(result.live[0], result.live[1] - 1))


def output_dies(p: Plan) -> Plan:
    number = p.steps[p.outputs[p.graph.outputs[0]][0]].result
    return with_buffer(p, number, live=(p.buffers[number].live[0], len(p.steps) - 1))


def small_receive(p: Plan) -> Plan:
    _, _, m = found(p, several_entries)
    return with_buffer(p, m.target, shape=tuple(n - 1 for n in p.buffers[m.target].shape))


def elsewhere_received(p: Plan) -> Plan:
    _, _, m = found(p, several_entries)
    g = p.buffers[m.target].grid
    return with_buffer(p, m.target, grid=Grid(g.columns, g.rows - 1))


def no_scratch(p: Plan) -> Plan:
    s = first(s for s in p.steps if s.scratch >= 0)
    return with_step(p, s.number, scratch=-1)


def late_delivery(p: Plan) -> Plan:
    s, _, _ = found(p, several_entries)
    return with_step(p, s.number, wavefront=s.wavefront - 1)


def swapped(p: Plan) -> Plan:
    """A consumer before its producer."""
    s = first(s for s in p.steps if s.kind == "join")
    made = first(t for t in p.steps if t.node == s.node and t.kind == "task")
    steps = list(p.steps)
    steps[made.number] = replace(s, number=made.number, position=made.number, wavefront=made.wavefront)
    steps[s.number] = replace(made, number=s.number, position=s.number, wavefront=s.wavefront)
    return replace(p, steps=tuple(steps))


def wrong_number(p: Plan) -> Plan:
    return with_step(p, 2, number=3)


def is_tree(s: Step, j: int, m: Move) -> bool:
    return m.route == "tree"


def is_relay(s: Step, j: int, m: Move) -> bool:
    return m.route == "relay" and j >= 0


def high_colour(p: Plan) -> Plan:
    def recolour(m: Move) -> Move:
        assert m.colour_x is not None and m.colour_y is not None
        return replace(m, colour_x=m.colour_x * 0 + p.wafer.colours, colour_y=m.colour_y * 0)

    return change_move(p, is_tree, recolour)


def kept_colour(p: Plan) -> Plan:
    """A tree on the host's colour."""

    def recolour(m: Move) -> Move:
        assert m.colour_x is not None and m.colour_y is not None
        return replace(m, colour_x=m.colour_x * 0 + p.wafer.colours - 1, colour_y=m.colour_y * 0)

    return change_move(p, is_tree, recolour)


def lane_colour(p: Plan) -> Plan:
    """A tree with the colour of a lane at a router where some move relays."""
    return _on_another(p, range(16), "the lane ")


def reduction_colour(p: Plan) -> Plan:
    """A tree with the colour of a reduction at a router that one passes."""
    return _on_another(p, range(p.wafer.colours - 6, p.wafer.colours - 2), "the reduction along ")


def _on_another(p: Plan, colours: Iterable[int], says: str) -> Plan:
    """A tree on one of these colours that is refused so: where that colour's owner passes no router of it, it
    is allowed."""
    trees = [m for s in p.steps for o in s.operands for m in o.moves if m.route == "tree"]
    for tree in trees:
        for colour in colours:

            def recolour(m: Move, to: int = colour) -> Move:
                assert m.colour_x is not None and m.colour_y is not None
                return replace(m, colour_x=m.colour_x * 0 + to, colour_y=m.colour_y * 0)

            bad = change_move(p, lambda s, j, m, tree=tree: m is tree, recolour)
            try:
                judge(bad)
            except IllegalPlan as e:
                if says in str(e):
                    return bad
    raise Absent


def few_colours(p: Plan) -> Plan:
    lanes = [
        replace(
            s,
            operands=tuple(
                replace(
                    o, moves=tuple(replace(m, route="relay") if m.route == "tree" else m for m in o.moves)
                )
                for o in s.operands
            ),
        )
        for s in p.steps
    ]
    return replace(p, steps=tuple(lanes), wafer=replace(p.wafer, colours=8))


def one_colour_twice(p: Plan) -> Plan:
    """All trees of a move on one colour: they meet."""

    def recolour(m: Move) -> Move:
        assert m.colour_x is not None and m.colour_y is not None
        return replace(m, colour_x=m.colour_x * 0 + 20, colour_y=m.colour_y * 0)

    return change_move(p, crossing, recolour)


def crossing(s: Step, j: int, m: Move) -> bool:
    """A tree move with more than one colour."""
    if m.route != "tree" or m.colour_x is None or m.colour_y is None:
        return False
    return len(np.unique(np.add.outer(m.colour_x, m.colour_y))) > 1


def two_meanings(p: Plan) -> Plan:
    """Two moves whose trees differ, on the same colours."""
    trees = [(s, m) for s in p.steps for o in s.operands for m in o.moves if m.route == "tree"]
    pairs = ((a, b) for i, a in enumerate(trees) for b in trees[i + 1 :])
    meeting = ((m, n) for (s, m), (t, n) in pairs if s.grid != t.grid and s.grid.overlaps(t.grid))
    one, second = first(meeting)
    assert one.colour_x is not None
    colour = int(one.colour_x.min())

    def recolour(m: Move) -> Move:
        assert m.colour_x is not None
        return replace(m, colour_x=m.colour_x - m.colour_x.min() + colour)

    return change_move(p, lambda s, j, m: m is second, recolour)


def false_local(p: Plan) -> Plan:
    return change_move(p, is_relay, lambda m: replace(m, route="local"))


def no_route(p: Plan) -> Plan:
    return change_move(p, is_relay, lambda m: replace(m, route="host"))


def dead_link(wanted: Callable[[Step, int, Move], bool]) -> Callable[[Plan], Plan]:
    """The links out of the first column die; the routes stay as they are."""

    def apply(p: Plan) -> Plan:
        found(p, wanted)
        links = tuple((x, y, d) for y in range(p.wafer.height) for x in (3, 4) for d in ("east", "west"))
        return replace(p, wafer=replace(p.wafer, dead_links=links))

    return apply


def detoured(change: Callable[[Detour], Detour]) -> Callable[[Plan], Plan]:
    def apply(p: Plan) -> Plan:
        return change_move(
            p,
            lambda s, j, m: bool(m.detours),
            lambda m: replace(m, detours=(change(m.detours[0]), *m.detours[1:])),
        )

    return apply


def shortcut(d: Detour) -> Detour:
    """A corner left out: the path jumps."""
    return replace(d, corners=(d.corners[0], *d.corners[2:]))


def ends_early(d: Detour) -> Detour:
    return replace(d, corners=d.corners[:-1])


def off_the_wafer(d: Detour) -> Detour:
    (x, y), last = d.corners[0], d.corners[-1]
    return replace(d, corners=((x, y), (x, -1), (last[0], -1), last))


def straight(d: Detour) -> Detour:
    (x0, y0), (x1, y1) = d.corners[0], d.corners[-1]
    middle = () if x0 == x1 or y0 == y1 else ((x1, y0),)
    return replace(d, corners=((x0, y0), *middle, (x1, y1)))


def without_detours(p: Plan) -> Plan:
    return change_move(p, lambda s, j, m: bool(m.detours), lambda m: replace(m, detours=()))


def not_laid(p: Plan) -> Plan:
    return replace(p, lays=p.lays[1:])


def laid_twice(p: Plan) -> Plan:
    return replace(p, lays=(*p.lays, p.lays[0]))


def half_laid(p: Plan) -> Plan:
    tensor, m = max(p.lays, key=lambda lay: max(len(d.core) for d in lay[1].dims))
    return replace(
        p, lays=tuple((t, change_longest(dropped)(n)) if (t, n) == (tensor, m) else (t, n) for t, n in p.lays)
    )


def laid_by_a_core(p: Plan) -> Plan:
    tensor, m = p.lays[0]
    assert m.source == HOST
    return replace(p, lays=((tensor, replace(m, source=0)), *p.lays[1:]))


def in_place(s: Step, o: Operand, p: Plan) -> bool:
    return not o.received and o.tensor not in p.graph.constants


def first_in_place(p: Plan) -> tuple[Step, int]:
    return first(
        (s, j) for s in p.steps if s.kind == "task" for j, o in enumerate(s.operands) if in_place(s, o, p)
    )


def wrong_place(p: Plan) -> Plan:
    s, j = first_in_place(p)
    x = s.operands[j].x.copy()
    x[-1, -1] += 1
    return with_operand(p, s, j, x=x)


def never_received(p: Plan) -> Plan:
    """An operand that comes from other cores, called in place."""
    s, j, m = found(p, lambda s, j, m: s.kind == "task" and len(s.operands[j].moves) == 1)
    return with_operand(p, s, j, moves=(), received=False, buffer=m.source)


def in_place_of_many(p: Plan) -> Plan:
    s, j, m = found(p, lambda s, j, m: j >= 0 and len(s.operands[j].moves) > 1)
    return with_operand(p, s, j, moves=(), received=False, buffer=m.source)


def one_move_less(p: Plan) -> Plan:
    s, j, _ = found(p, lambda s, j, m: j >= 0 and len(s.operands[j].moves) > 1)
    return with_moves(p, s, j, s.operands[j].moves[1:])


def one_move_twice(p: Plan) -> Plan:
    s, j, m = found(p, lambda s, j, m: j >= 0 and len(s.operands[j].moves) > 1)
    return with_moves(p, s, j, (*s.operands[j].moves, m))


def from_another(p: Plan) -> Plan:
    """A move from another buffer, that lives as long."""
    other = p.steps[0].result
    top = (p.wafer.sram_bytes - p.buffers[other].bytes) // 16 * 16
    p = with_buffer(p, other, live=(-1, len(p.steps)), address=top)
    return change_move(p, lambda s, j, m: j >= 0 and m.source != other, lambda m: replace(m, source=other))


def no_fill(p: Plan) -> Plan:
    s, j = first((s, j) for s in p.steps for j, o in enumerate(s.operands) if o.fill)
    return with_operand(p, s, j, fill=False)


def early_update(p: Plan) -> Plan:
    """The state's new value laid over its old one in the wavefront that still reads it."""
    past = p.graph.states[0][0]
    update = first(s for s in p.steps if s.kind == "update")
    last = max(s.position for s in p.steps for o in s.operands if o.tensor == past)
    return with_step(p, last, wavefront=update.wavefront)


def update_elsewhere(p: Plan) -> Plan:
    update = first(s for s in p.steps if s.kind == "update")
    return with_step(p, update.number, result=first(s for s in p.steps if s.kind == "task").result)


def no_update(p: Plan) -> Plan:
    return replace(p, steps=tuple(s for s in p.steps if s.kind != "update"))


def state_dies(p: Plan) -> Plan:
    number = first(s for s in p.steps if s.kind == "update").result
    return with_buffer(p, number, live=(-1, len(p.steps) - 1))


def node_left_out(p: Plan) -> Plan:
    extra = Node(p.graph.nodes[-1].op, p.graph.nodes[-1].inputs, p.graph.nodes[-1].output)
    return replace(p, graph=replace(p.graph, nodes=(*p.graph.nodes, extra)))


def another_op(p: Plan) -> Plan:
    s = first(s for s in p.steps if s.kind == "task" and s.op.name == "Relu")
    axes = tuple((a, n + 1) for a, n in s.op.axes)
    return with_step(p, s.number, op=replace(s.op, axes=axes))


def whole_axis_cut(p: Plan) -> Plan:
    s = first(s for s in p.steps if s.op.name == "Softmax")
    axis = s.op.whole[0]
    cuts = (*s.split.cuts, Cut(axis, "t", 2))
    return with_step(p, s.number, split=Split(cuts))


def part_unnamed(p: Plan) -> Plan:
    s = first(s for s in p.steps if s.part)
    return with_step(p, s.number, part="")


def writes_the_same(p: Plan) -> Plan:
    """The second part of a Concat over the first, in graph and plan alike."""
    target = first(n.output for n in p.graph.nodes if sum(m.output == n.output for m in p.graph.nodes) > 1)
    over, second = [i for i, n in enumerate(p.graph.nodes) if n.output == target][:2]
    op = replace(p.graph.nodes[second].op, write=p.graph.nodes[over].op.write)
    nodes = list(p.graph.nodes)
    nodes[second] = replace(nodes[second], op=op)
    s = first(s for s in p.steps if s.node == second)
    changed = with_step(p, s.number, op=op, write=op.write)
    return replace(changed, graph=replace(p.graph, nodes=tuple(nodes)))


def output_of_another(p: Plan) -> Plan:
    return replace(p, outputs={**p.outputs, p.graph.outputs[0]: (0,)})


# -- riders, and results that take over an operand's buffer --------------------------------------------


def a_rider(p: Plan) -> Step:
    """A rider that is the last of its wavefront."""
    last = {s.wavefront: s for s in p.steps}
    return first(s for s in last.values() if s.rides >= 0)


def rides_a_wavefront_later(p: Plan) -> Plan:
    s = a_rider(p)
    return with_step(p, s.number, wavefront=s.wavefront + 1)


def rides_on_an_input(p: Plan) -> Plan:
    return with_step(p, a_rider(p).number, rides=0)


def rides_on_a_rider(p: Plan) -> Plan:
    s = first(s for s in p.steps if s.rides >= 0 and s.rides != s.number - 1)
    return with_step(p, s.number, rides=s.number - 1)


def rides_from_afar(p: Plan) -> Plan:
    """A rider put on the task before its own."""
    s = a_rider(p)
    other = first(t for t in p.steps[: s.rides] if t.kind == "task" and t.rides < 0)
    return with_step(p, s.number, rides=other.number)


def rides_on_other_cores(p: Plan) -> Plan:
    for leader, s in zip(p.steps[1:], p.steps[2:], strict=False):
        alone = leader.kind in ("task", "join") and leader.rides < 0 and s.rides < 0 and s.kind == "task"
        if alone and s.grid != leader.grid and s.wavefront == leader.wavefront:
            return with_step(p, s.number, rides=leader.number)
    raise Absent


def rides_and_receives(p: Plan) -> Plan:
    """A step on the cores of the one before, whose operand comes from elsewhere."""
    s = a_rider(p)
    return with_operand(p, s, 0, received=True)


def rides_for_nothing(p: Plan) -> Plan:
    """A rider that reads, where it lies, what an earlier wavefront left, and nothing else."""
    makers = {t.result: t for t in p.steps if t.kind in ("task", "join")}
    for s in (s for s in p.steps if s.rides >= 0):
        left = [
            j for j, o in enumerate(s.operands) if o.buffer in makers and makers[o.buffer].leader == s.leader
        ]
        earlier = [t for t in p.steps[: s.rides] if t.kind == "task" and t.grid == s.grid]
        if len(left) == 1 and earlier:
            return with_operand(p, s, left[0], buffer=earlier[0].result)
    raise Absent


def an_over(p: Plan) -> tuple[Step, Buffer]:
    """A step whose result takes over an operand's buffer, and that buffer."""
    return first((s, p.buffers[p.buffers[s.result].over]) for s in p.steps if p.buffers[s.result].over >= 0)


def over_another_address(p: Plan) -> Plan:
    s, old = an_over(p)
    return with_buffer(p, s.result, address=old.address + 16)


def over_another_order(p: Plan) -> Plan:
    s, old = first(
        (s, p.buffers[p.buffers[s.result].over])
        for s in p.steps
        if p.buffers[s.result].over >= 0 and sum(n > 1 for n in p.buffers[s.result].shape) > 1
    )
    return with_buffer(p, s.result, order=old.order[::-1])


def over_a_constant(p: Plan) -> Plan:
    s, _ = an_over(p)
    return with_buffer(p, s.result, over=first(b.number for b in p.buffers if b.role == "constant"))


def over_what_is_not_read(p: Plan) -> Plan:
    """A buffer taken over by a step that reads another one, which lies just there."""
    s, old = an_over(p)
    copy = replace(old, number=len(p.buffers), over=-1)
    operands = tuple(replace(o, buffer=copy.number) if o.buffer == old.number else o for o in s.operands)
    return with_step(replace(p, buffers=(*p.buffers, copy)), s.number, operands=operands)


def over_other_elements(p: Plan) -> Plan:
    """A softmax over its own operand: every element is computed from a whole row."""
    for s in p.steps:
        for o in s.operands:
            old, new = p.buffers[o.buffer], p.buffers[s.result]
            if s.op.name == "Softmax" and not o.received and (old.shape, old.grid) == (new.shape, new.grid):
                return with_buffer(p, new.number, over=old.number, order=old.order, address=old.address)
    raise Absent


def over_what_is_read_later(p: Plan) -> Plan:
    """A result over an operand that a later step still reads."""
    for s in p.steps:
        for j, o in enumerate(s.operands):
            old, new = p.buffers[o.buffer], p.buffers[s.result]
            alike = (old.role, old.shape, old.grid) == (new.role, new.shape, new.grid)
            if s.op.overwrites(j) and not o.received and alike and old.live[1] > s.position:
                return with_buffer(p, new.number, over=old.number, order=old.order, address=old.address)
    raise Absent


def over_what_it_fetches(p: Plan) -> Plan:
    """A step that overwrites what it also receives from other cores."""
    for s in p.steps:
        for j, o in enumerate(s.operands):
            over = p.buffers[s.result].over
            if over >= 0 and o.moves and over != o.buffer:
                return with_moves(p, s, j, (replace(o.moves[0], source=over), *o.moves[1:]))
    raise Absent
