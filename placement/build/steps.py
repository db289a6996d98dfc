"""The steps of a node: its task, the join of partial results, and a state's update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...ir.affine import Access, access_axes, axis, constant
from ...ir.graph import Node, Tensor
from ...ir.ops.reduce import REDUCTIONS
from ..plan.layout import along_side, layout
from ..plan.move import combining, derive
from ..plan.plan import Buffer, Operand, Step
from ..splits.join import join_split
from .assembly import Assembly, Tiling
from .operands import operand

PART = "part"  # the axis of partial results in a join


def task(a: Assembly, number: int, on: Tiling) -> None:
    """The step of a node, and the join of its partial results if a part is cut."""
    node, op = a.graph.nodes[number], on.op
    operands = tuple(operand(a, on, j, t) for j, t in enumerate(node.inputs))
    tensor, write = _partial(a, node, on) if on.part else (node.output, op.write)
    if tensor in a.graph.resident:
        result = _over_past(a, node, operands)
    else:
        held = layout(write, op.axes, on.split, on.part, merge_time=True)
        inner = along_side(write, on.lane)
        innermost = None if inner is None else inner + bool(on.part)
        result = a.buffer(tensor, "result", on, op.out_type, held, innermost)
    scratch = _scratch(a, tensor, on)
    temporary = [o.buffer for o in operands if o.received] + [scratch] * (scratch >= 0)
    rides = _leader(a, operands, on)
    step = Step(
        name=node.source[0] if node.source else op.name,
        kind="task",
        node=number,
        op=op,
        tensor=tensor,
        write=write,
        region=on.region,
        grid=on.grid,
        split=on.split,
        part=on.part,
        lane_axis=on.lane,
        operands=operands,
        result=result,
        scratch=scratch,
        wavefront=_level(a, node.inputs) if rides < 0 else a.steps[rides].step.wavefront,
        source=node.source,
        rides=rides,
    )
    a.add(step, temporary)
    if on.part:
        _join(a, node, a.steps[-1].step, on.roots)


def _partial(a: Assembly, node: Node, on: Tiling) -> tuple[str, Access]:
    """A new tensor for a node's partial results, and how they are written: from the box's corner on."""
    box = on.op.hold({axis: (0, n) for axis, n in on.op.axes})
    tensor = f"{node.output}#{len(a.steps)}"
    shape = (on.split.space_ways(on.part), *(hi - lo for lo, hi in box))
    a.tensors[tensor] = Tensor(tensor, shape, on.op.out_type)
    return tensor, tuple(e.plus(constant(-lo)) for e, (lo, _) in zip(on.op.write, box, strict=True))


def _over_past(a: Assembly, node: Node, operands: Sequence[Operand]) -> int:
    """The buffer of a state's new value, which takes over that of its old one."""
    updates = node.op.updates
    assert updates is not None and not operands[updates].received
    name = node.inputs[updates]
    known = a.residents.states[name][2] if name in a.residents.states else -1
    if known >= 0:
        return known
    past, number = a.buffers[operands[updates].buffer], len(a.buffers)
    a.buffers.append(replace(past, number=number, name=node.output, over=past.number))
    return number


def _scratch(a: Assembly, tensor: str, on: Tiling) -> int:
    """The buffer of what the op needs besides its operands, -1 for none."""
    dtype = on.op.out_type
    _, nbytes = a.wafer.task(on.op, on.split.extents(on.op.axes))
    if not int(nbytes):
        return -1
    number = len(a.buffers)
    shape = (-(-int(nbytes) // dtype.bytes),)
    a.buffers.append(Buffer(number, tensor, "scratch", on.region, on.grid, dtype, shape, (0,)))
    return number


def _level(a: Assembly, tensors: Sequence[str]) -> int:
    """The first wavefront after all writers of `tensors`."""
    return 1 + max((a.steps[i].step.wavefront for t in tensors for i in a.writers.get(t, ())), default=0)


def _leader(a: Assembly, operands: Sequence[Operand], on: Tiling) -> int:
    """The step that one with these operands rides on, -1 for none.

    It is the one whose task leaves the last of them, on the same cores; the others must be there
    before that task starts, or be left by it too.
    """
    if any(o.received for o in operands):
        return -1
    made = [a.writing(o.tensor)[0] for o in operands if o.tensor in a.writers]
    last = max((s.wavefront for s in made), default=-1)
    leaders = {s.leader for s in made if s.wavefront == last}
    if len(leaders) != 1:
        return -1
    s = a.steps[leaders.pop()].step
    rides = s.kind in ("task", "join") and (s.region, s.grid) == (on.region, on.grid)
    return s.number if rides else -1


def _join(a: Assembly, node: Node, made: Step, roots: int) -> None:
    """The fabric reduction of the partial results of step `made`, with at most so many roots a line."""
    op, write = made.op, made.op.write
    assert op.combine is not None
    split, grid = join_split(op, made.split, made.part, made.grid, a.policy, roots)
    axes = ((PART, a.tensors[made.tensor].shape[0]), *((x, op.size[x]) for x in access_axes(write)))
    joined = REDUCTIONS[op.combine](
        axes=axes,
        reads=((axis(PART), *made.write),),
        write=write,
        in_types=(op.out_type,),
        out_type=op.out_type,
    )
    on = Tiling(joined, made.region, grid, split, lane=made.lane_axis)
    result = a.buffer(node.output, "result", on, op.out_type, on.layout(write), along_side(write, on.lane))
    shape, (parts, *held) = a.tensors[made.tensor].shape[1:], made.hold
    rest = derive(on.layout(made.write), tuple(held), shape, made.grid, made.result, result)
    move = combining(rest, parts, made.grid, op.combine)
    a.add(
        Step(
            name=made.name,
            kind="join",
            node=made.node,
            op=joined,
            tensor=node.output,
            write=write,
            region=on.region,
            grid=grid,
            split=split,
            lane_axis=on.lane,
            result=result,
            wavefront=made.wavefront + 1,
            moves=(replace(move, route="join"),),
            source=made.source,
        )
    )


def update(a: Assembly, past: str, present: str) -> None:
    """The last step of a state: its new value over its old one, on the old one's cores."""
    old = a.writing(past)[0]
    new = operand(a, Tiling(old.op, old.region, old.grid, old.split), 0, present)
    if new.received:
        # The new value is received straight into the state's own buffer.
        a.buffers.pop()
    a.add(
        replace(
            old,
            kind="update",
            operands=() if new.received else (new,),
            moves=tuple(replace(m, target=old.result) for m in new.moves),
            wavefront=1 + max(d.step.wavefront for d in a.steps),
            lane_axis=old.op.lane_axis(old.split.extents(old.op.axes)),
        )
    )
