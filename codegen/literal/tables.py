"""Plan -> tables for a literal run: the step records that the executor walks core by core, with guard.

Everything is one array of 64-bit words and a list of relocations: words to which the address of the
array, a kernel, a pull function or a region's table of cores is added when the program is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.affine import Access
from ...placement.plan.layout import Grid, Ints, axis_indices, layout, whole
from ...placement.plan.move import HOST, Move, derive, identical
from ...placement.plan.plan import Buffer, Plan, Step
from ..host.sum_order import lane_of
from ..kernels.kernel import Kernel, kernel_for, stride_kinds
from ..pool import Entry, Pool
from ..words import Base, Record, Section
from .executor import MOST_WORDS
from .move_tables import MoveTables
from .records import (
    FREE,
    AxisWords,
    ClaimWords,
    FillWords,
    HostBuffer,
    HostKind,
    Lowered,
    OperandWords,
    OwnedWords,
    Tables,
)
from .tags import Tagged, from_host, tags_of


def make_tables(plans: Mapping[str, Plan], lanes: int, dot2: bool) -> dict[str, Lowered]:
    """The tables of each of a program's plans for a host with `lanes` f32 lanes, and what they call.

    dot2: see `make_calls`.
    """
    tagged = zip(plans.items(), tags_of(plans.values()), strict=True)
    return {name: _Maker(p, lanes, dot2, tags).make() for (name, p), tags in tagged}


class _Maker:
    def __init__(self, plan: Plan, lanes: int, dot2: bool, tagged: Tagged) -> None:
        self.plan, self.lanes, self.dot2 = plan, lanes, dot2
        self.pool = Pool()
        self.tags, self.laid_before = tagged.tags, tagged.laid_before
        self.moves = MoveTables(plan, self.pool, self.tags)
        self.kernels: dict[Kernel, int] = {}
        self.producers = {s.result: s.grid for s in plan.steps if s.kind != "update"}

    def make(self) -> Lowered:
        plan = self.plan
        laying = [
            self._lay(plan.buffers[m.target], m, -1, "constant", t)
            for t, m in plan.lays
            if m.target not in self.laid_before
        ]
        poisoning = self._freed([b for b in plan.buffers if not b.stays])
        first = [s for s in plan.steps if s.kind == "input"]
        inputs: list[Entry] = []
        for s in first:
            b, shape = plan.buffers[s.result], plan.graph.tensors[s.tensor].shape
            move = from_host(s, shape)
            inputs.append(self._lay(b, move, s.number, "input", s.tensor))
        steps: list[Entry] = []
        for s in plan.steps:
            if s.kind == "input":
                continue
            steps.append(self._step(s))
            result = plan.buffers[s.result]
            if result.over >= 0:
                steps.append(self._renamed(result))
            dead = [b for b in plan.buffers if b.live[1] == s.position and not b.stays]
            steps += self._freed([b for b in dead if b.number != result.over])
        reading = [self._read(name, [plan.steps[i] for i in owners]) for name, owners in plan.outputs.items()]
        # What a call made of a state in place is the past of the next one, of whichever entry.
        changed = [plan.buffers[b.over] for b in plan.buffers if b.role == "state" and b.over >= 0]
        reading += [self._renamed(b) for b in changed]
        tables = Tables(
            laying=self._section(laying),
            poisoning=self._section(poisoning),
            inputs=self._section(inputs),
            steps=self._section(steps),
            reading=self._section(reading),
            words=self.pool.words(),
            relocations=self.pool.relocations(),
            host=tuple(self.moves.host),
            laid=tuple(s.tensor for s in first),
        )
        return Lowered(tables, tuple(self.kernels), tuple(self.moves.pulls))

    def _section(self, records: Sequence[Entry]) -> Section:
        return self.pool.table(records), len(records)

    # -- steps -----------------------------------------------------------------------------
    def _step(self, step: Step) -> Entry:
        plan, op = self.plan, step.op
        entry = self._record(step.grid, step.region, step.number, step.split.grid[2])
        words, offsets = entry.words, entry.offsets
        indices = axis_indices(step.split, op.axes)
        axes = [self._axis(indices[a]) for a, _ in op.axes]
        words[Record.AXES], offsets[Record.AXIS_TABLE] = len(axes), self.pool.table(axes)
        if step.kind == "task" or (step.kind == "update" and step.operands):
            self._kernel(step, entry)
        first = np.ones(step.split.grid[2], np.int64)
        in_time = {c.axis: c.ways for c in step.split.cuts if c.side == "t"}
        for a in op.reduced:
            if a in in_time:
                first &= (indices[a].t % in_time[a]) == 0
        offsets[Record.FIRST] = self.pool.add(first)
        moves = [
            self.moves.entry(m, self.producers[m.source], operand=j)
            for j, o in enumerate(step.operands)
            for m in o.moves
        ]
        moves += [self.moves.entry(m, self.producers[m.source]) for m in step.moves]
        fills = [_fill(plan.buffers[o.buffer], op.fill) for o in step.operands if o.fill and o.received]
        self._put(entry, Record.MOVES, Record.MOVE_TABLE, moves)
        self._put(entry, Record.FILLS, Record.FILL_TABLE, fills)
        claims = [self._claim(plan.buffers[o.buffer]) for o in step.operands if o.received]
        if step.scratch >= 0:
            claims.append(self._claim(plan.buffers[step.scratch]))
        if plan.buffers[step.result].over < 0:
            claims.append(self._claim(plan.buffers[step.result], once=True))
        self._put(entry, Record.CLAIMS, Record.CLAIM_TABLE, claims)
        return entry

    def _record(self, grid: Grid, region: int, number: int, steps: int) -> Entry:
        """A record that does nothing on the cores of a grid; region -1: on the host."""
        words = [0] * Record.SIZE
        columns = self.plan.regions[region].columns if region >= 0 else 1
        words[Record.COLUMNS], words[Record.ROWS] = grid.columns, grid.rows
        words[Record.START] = grid.y * columns + grid.x
        words[Record.COLUMN_PITCH], words[Record.ROW_PITCH] = grid.dx, grid.dy * columns
        words[Record.STEPS], words[Record.NUMBER] = steps, number
        entry = Entry(words, {int(Record.FIRST): self.pool.add(np.ones(steps, np.int64))})
        if region >= 0:
            entry.others[Record.BASES] = (Base.REGION, region)
        entry.others[Record.WATCH] = (Base.WATCH, 0)
        return entry

    def _put(self, entry: Entry, count: Record, table: Record, rows: Sequence[Entry]) -> None:
        entry.words[count], entry.offsets[table] = len(rows), self.pool.table(rows)

    def _axis(self, index: Any) -> Entry:
        extent = index.ends - index.origins
        arrays = {
            AxisWords.X: index.x,
            AxisWords.Y: index.y,
            AxisWords.T: index.t,
            AxisWords.EXTENT: extent,
            AxisWords.ORIGIN: index.origins,
        }
        return Entry([0] * AxisWords.SIZE, {int(w): self.pool.add(a) for w, a in arrays.items()})

    def _kernel(self, step: Step, entry: Entry) -> None:
        """The step's kernel, and where its operands and its result lie."""
        plan, op = self.plan, step.op
        sources = [
            (plan.buffers[o.buffer], a, (o.x, o.y, o.t)) for o, a in zip(step.operands, op.reads, strict=True)
        ]
        sources.append((plan.buffers[step.result], step.write, _within_hold(step)))
        table: list[Entry] = []
        rows: list[dict[str, int]] = []
        for buffer, access, offsets in sources:
            pitches = buffer.pitches[len(buffer.shape) - len(access) :]
            rows.append(strides(op.axes, access, pitches))
            scale = np.array(pitches, np.int64)[:, None] * buffer.dtype.bytes
            x, y, t = ((o * scale).sum(0) for o in offsets)
            arrays = {OperandWords.X: x, OperandWords.Y: y, OperandWords.T: t}
            places = {int(w): self.pool.add(array) for w, array in arrays.items()}
            words = [0] * OperandWords.SIZE
            words[OperandWords.OFFSET] = buffer.address
            table.append(Entry(words, places))
            backward = _backward(access, op.axes, pitches, buffer.dtype.bytes)
            words[OperandWords.BACKWARD] = len(backward)
            places[OperandWords.BACKWARD_TABLE] = self.pool.table(backward)
        self._put(entry, Record.OPERANDS, Record.OPERAND_TABLE, table)
        lane = lane_of(step)
        kernel = kernel_for(op, lane, stride_kinds(op, rows, lane), self.lanes, True, dot2=self.dot2)
        if kernel.signature.layout.words(True) > MOST_WORDS:
            raise ValueError(f"{step.name}: {op.name} has too many operands and axes for one task")
        entry.others[Record.KERNEL] = (Base.KERNEL, self.kernels.setdefault(kernel, len(self.kernels)))
        entry.offsets[Record.STRIDES] = self.pool.add([r[a] for r in rows for a, _ in op.axes])
        held = [b for b, _, _ in sources]
        bounds = [n for b in held for n in (b.address, b.address + b.bytes)]
        entry.offsets[Record.BOUNDS] = self.pool.add(bounds)
        # While a step runs, the buffer that its result takes over is still the operand's.
        owners = [*held[:-1], plan.buffers[held[-1].over] if held[-1].over >= 0 else held[-1]]
        owned = [self._owned(b, j) for j, b in enumerate(owners)]
        self._put(entry, Record.OWNED, Record.OWNED_TABLE, owned)

    # -- from and to the host ------------------------------------------------------------------
    def _lay(self, buffer: Buffer, move: Move, number: int, kind: HostKind, tensor: str) -> Entry:
        """A record that lays a tensor of the host into its buffer."""
        entry = self._record(buffer.grid, buffer.region, number, 1)
        self._put(entry, Record.MOVES, Record.MOVE_TABLE, [self.moves.entry(move, None, (kind, tensor))])
        self._put(entry, Record.CLAIMS, Record.CLAIM_TABLE, [self._claim(buffer, once=True)])
        return entry

    def _read(self, tensor: str, owners: Sequence[Step]) -> Entry:
        """A record that reads an output into the host's buffer."""
        shape, host = self.plan.graph.tensors[tensor].shape, _output(tensor)
        entry = self._record(Grid(1, 1), -1, -1, 1)
        entry.others[Record.BASES] = (Base.HOST, self.moves.host_number(host))
        moves = [derive(whole(shape), s.hold, shape, s.grid, s.result, HOST) for s in owners]
        rows = [self.moves.entry(m, s.grid, host) for m, s in zip(moves, owners, strict=True)]
        self._put(entry, Record.MOVES, Record.MOVE_TABLE, rows)
        return entry

    def _renamed(self, buffer: Buffer) -> Entry:
        """A record that leaves what a step has put over its operand to the result's buffer."""
        entry = self._record(buffer.grid, buffer.region, -1, 1)
        self._put(entry, Record.CLAIMS, Record.CLAIM_TABLE, [self._claim(buffer, once=True, kept=True)])
        return entry

    def _freed(self, buffers: Sequence[Buffer]) -> list[Entry]:
        """Records that poison dead buffers and leave them to nobody, one for each grid."""
        by_grid: dict[tuple[int, Grid], list[Buffer]] = {}
        for b in buffers:
            by_grid.setdefault((b.region, b.grid), []).append(b)
        out: list[Entry] = []
        for (region, grid), dead in by_grid.items():
            entry = self._record(grid, region, -1, 1)
            claims = [self._claim(b, once=True, tag=FREE) for b in dead]
            self._put(entry, Record.CLAIMS, Record.CLAIM_TABLE, claims)
            out.append(entry)
        return out

    def _claim(self, buffer: Buffer, once: bool = False, tag: int | None = None, kept: bool = False) -> Entry:
        words = [0] * ClaimWords.SIZE
        words[ClaimWords.OFFSET], words[ClaimWords.BYTES] = buffer.address, buffer.bytes
        words[ClaimWords.TAG] = self.tags[buffer.number] if tag is None else tag
        words[ClaimWords.ONCE], words[ClaimWords.KEPT] = int(once), int(kept)
        return Entry(words)

    def _owned(self, buffer: Buffer, operand: int) -> Entry:
        words = [0] * OwnedWords.SIZE
        words[OwnedWords.OFFSET], words[OwnedWords.BYTES] = buffer.address, buffer.bytes
        words[OwnedWords.TAG], words[OwnedWords.OPERAND] = self.tags[buffer.number], operand
        return Entry(words)


def _output(tensor: str) -> HostBuffer:
    return "output", tensor


def _fill(buffer: Buffer, value: float) -> Entry:
    bits = np.zeros(8, np.uint8)
    raw = np.asarray(value).astype(buffer.dtype.numpy).tobytes()
    bits[: len(raw)] = np.frombuffer(raw, np.uint8)
    words = [0] * FillWords.SIZE
    words[FillWords.OFFSET], words[FillWords.ELEMENTS] = buffer.address, buffer.elements
    words[FillWords.VALUE], words[FillWords.BYTES] = int(bits.view(np.int64)[0]), buffer.dtype.bytes
    return Entry(words)


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
) -> list[Entry]:
    """How far the element of iteration 0 lies behind the first of its box, which has the lowest index."""
    number = {a: n for n, (a, _) in enumerate(axes)}
    out: list[Entry] = []
    for e, p in zip(access, pitches, strict=True):
        out += [Entry([number[a], -c * p * size]) for a, c in e.terms if c < 0]
    return out
