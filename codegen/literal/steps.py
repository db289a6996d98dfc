"""The records of a plan's steps: their tiles, what is moved for them, and their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.affine import Access
from ...placement.plan.layout import Grid, Ints, axis_indices, layout
from ...placement.plan.move import identical
from ...placement.plan.plan import Buffer, Step
from ..host.sum_order import lane_of
from ..kernels.kernel import Kernel, kernel_for, stride_kinds
from ..pool import Record
from ..processor import Processor
from ..words import Base, Judged, StepWords
from .claims import claim, filled, owned
from .draft import Draft
from .executor import MOST_WORDS
from .records import AxisWords, OperandWords

_Offsets = tuple[Any, Any, Any]  # elements by [dimension, column], [dimension, row], [dimension, time step]


@dataclass(frozen=True)
class _Held:
    """What a kernel reads or writes: the buffer, how iterations see it, where each tile lies in it."""

    buffer: Buffer
    access: Access
    offsets: _Offsets

    @property
    def pitches(self) -> tuple[int, ...]:
        """Elements between neighbours along the tensor's own dimensions."""
        return self.buffer.pitches[len(self.buffer.shape) - len(self.access) :]


@dataclass(frozen=True)
class StepRecords:
    """Makes the records of a plan's steps; notes the kernels that they call, and what these report.

    producers: the grid of the step that fills each buffer.
    """

    draft: Draft
    processor: Processor
    producers: dict[int, Grid]
    kernels: dict[Kernel, int] = field(default_factory=lambda: {})
    judged: list[Judged] = field(default_factory=list[Judged])

    def record(self, step: Step) -> Record:
        """The record of a step that is no input."""
        draft, op = self.draft, step.op
        plan, pool = draft.plan, draft.pool
        out = draft.record(step.grid, step.region, step.number, step.split.grid[2])
        indices = axis_indices(step.split, op.axes)
        draft.put(out, StepWords.AXES, StepWords.AXIS_TABLE, [self._axis(indices[a]) for a, _ in op.axes])
        if step.kind == "task" or (step.kind == "update" and step.operands):
            self._kernel(step, out)
        first = np.ones(step.split.grid[2], np.int64)
        in_time = {c.axis: c.ways for c in step.split.cuts if c.side == "t"}
        for a in op.reduced:
            if a in in_time:
                first &= (indices[a].t % in_time[a]) == 0
        out.offsets[StepWords.FIRST] = pool.add(first)
        moves = [
            draft.moves.record(m, self.producers[m.source], operand=j)
            for j, o in enumerate(step.operands)
            for m in o.moves
        ]
        moves += [draft.moves.record(m, self.producers[m.source]) for m in step.moves]
        fills = [filled(plan.buffers[o.buffer], op.fill) for o in step.operands if o.fill and o.received]
        draft.put(out, StepWords.MOVES, StepWords.MOVE_TABLE, moves)
        draft.put(out, StepWords.FILLS, StepWords.FILL_TABLE, fills)
        draft.put(out, StepWords.CLAIMS, StepWords.CLAIM_TABLE, self._claims(step))
        return out

    def _claims(self, step: Step) -> list[Record]:
        """The SRAM that a step takes over: what it receives into, scratch, and its result."""
        plan, tags = self.draft.plan, self.draft.tags
        taken = [plan.buffers[o.buffer] for o in step.operands if o.received]
        if step.scratch >= 0:
            taken.append(plan.buffers[step.scratch])
        out = [claim(b, tags[b.number]) for b in taken]
        result = plan.buffers[step.result]
        if result.over < 0:
            out.append(claim(result, tags[result.number], once=True))
        return out

    def _axis(self, index: Any) -> Record:
        extent = index.ends - index.origins
        arrays = {
            AxisWords.X: index.x,
            AxisWords.Y: index.y,
            AxisWords.T: index.t,
            AxisWords.EXTENT: extent,
            AxisWords.ORIGIN: index.origins,
        }
        return Record([0] * AxisWords.SIZE, {int(w): self.draft.pool.add(a) for w, a in arrays.items()})

    def _kernel(self, step: Step, out: Record) -> None:
        """The step's kernel, and where its operands and its result lie."""
        draft, op = self.draft, step.op
        buffers, pool = draft.plan.buffers, draft.pool
        held = [
            _Held(buffers[o.buffer], a, (o.x, o.y, o.t)) for o, a in zip(step.operands, op.reads, strict=True)
        ]
        held.append(_Held(buffers[step.result], step.write, _within_hold(step)))
        table = [self._operand(h, op.axes) for h in held]
        draft.put(out, StepWords.OPERANDS, StepWords.OPERAND_TABLE, table)
        rows = [strides(op.axes, h.access, h.pitches) for h in held]
        lane = lane_of(step)
        kernel = kernel_for(op, lane, stride_kinds(op, rows, lane), self.processor, guard=True)
        if kernel.signature.layout.words(True) > MOST_WORDS:
            raise ValueError(f"{step.name}: {op.name} has too many operands and axes for one task")
        if op.bounds:
            out.others[StepWords.REPORTS] = (Base.REPORT, len(self.judged))
            self.judged.extend(Judged(step.name, bound) for bound in op.bounds)
        out.others[StepWords.KERNEL] = (Base.KERNEL, self.kernels.setdefault(kernel, len(self.kernels)))
        out.offsets[StepWords.STRIDES] = pool.add([r[a] for r in rows for a, _ in op.axes])
        bounds = [n for h in held for n in (h.buffer.address, h.buffer.address + h.buffer.bytes)]
        out.offsets[StepWords.BOUNDS] = pool.add(bounds)
        # While a step runs, the buffer that its result takes over is still the operand's.
        *owners, result = (h.buffer for h in held)
        owners.append(buffers[result.over] if result.over >= 0 else result)
        ranges = [owned(b, draft.tags[b.number], j) for j, b in enumerate(owners)]
        draft.put(out, StepWords.OWNED, StepWords.OWNED_TABLE, ranges)

    def _operand(self, h: _Held, axes: Sequence[tuple[str, int]]) -> Record:
        pool, size = self.draft.pool, h.buffer.dtype.bytes
        scale = np.array(h.pitches, np.int64)[:, None] * size
        x, y, t = ((o * scale).sum(0) for o in h.offsets)
        arrays = {OperandWords.X: x, OperandWords.Y: y, OperandWords.T: t}
        places = {int(w): pool.add(array) for w, array in arrays.items()}
        words = [0] * OperandWords.SIZE
        words[OperandWords.OFFSET] = h.buffer.address
        backward = _backward(h.access, axes, h.pitches, size)
        words[OperandWords.BACKWARD] = len(backward)
        places[OperandWords.BACKWARD_TABLE] = pool.table(backward)
        return Record(words, places)


def strides(op_axes: Sequence[tuple[str, int]], access: Access, pitches: Sequence[int]) -> dict[str, int]:
    """Elements per step of each iteration axis of a tensor held with `pitches`."""
    return {a: sum(e.coefficient(a) * p for e, p in zip(access, pitches, strict=True)) for a, _ in op_axes}


def _within_hold(step: Step) -> tuple[Ints, Ints, Ints]:
    """Where in the held box each time step's tile lies: elements by [dimension, column or row or step]."""
    columns, rows, steps = step.split.grid
    dims = len(step.write)
    if steps == 1:
        return (
            np.zeros((dims, columns), np.int64),
            np.zeros((dims, rows), np.int64),
            np.zeros((dims, 1), np.int64),
        )
    tile = layout(step.write, step.op.axes, step.split)
    hold = layout(step.write, step.op.axes, step.split, merge_time=True)
    offsets = identical(tile, hold, step.grid, step.grid, steps)
    assert offsets is not None, "a tile lies in what its core holds"
    return offsets


def _backward(
    access: Access, axes: Sequence[tuple[str, int]], pitches: Sequence[int], size: int
) -> list[Record]:
    """How far the element of iteration 0 lies behind the first of its box, which has the lowest index."""
    number = {a: n for n, (a, _) in enumerate(axes)}
    out: list[Record] = []
    for e, p in zip(access, pitches, strict=True):
        out += [Record([number[a], -c * p * size]) for a, c in e.terms if c < 0]
    return out
