"""Plan -> tables: the step records that the executor walks, relocatable.

Everything is one array of 64-bit words and a list of relocations: words to which the address of the
array, a kernel, a pull function or a region's table of cores is added when the program is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from ..ir.affine import Access
from ..placement.layout import Grid, Ints, axis_indices, layout, whole
from ..placement.move import HOST, DimensionMoves, Move, derive, identical
from ..placement.plan import Buffer, Plan, Step
from .executor import (
    MOST_WORDS,
    AxisWords,
    DimensionWords,
    FillWords,
    MoveWords,
    OperandWords,
    Pull,
    Record,
)
from .kernels import Kernel, kernel_for, stride_kinds


class Base(IntEnum):
    """What is added to a relocated word."""

    WORDS = 0  # the address of the table itself
    KERNEL = 1  # `value` is the kernel's number; the word becomes its address
    PULL = 2
    REGION = 3  # the address of a region's table of core addresses
    HOST = 4  # the address of the cell that holds a host buffer's address
    ERROR = 5  # the address of the error record


@dataclass(frozen=True)
class Tables:
    """The words and how to relocate them.

    steps: word offset of the first step record, and how many; likewise `laying` (constants,
    once), `inputs` (each call, before the steps) and `reading` (outputs, after them). relocations:
    int64 [n, 3]: word, Base, value. host: names of the host buffers, numbered.
    """

    words: Ints
    relocations: Ints
    steps: tuple[int, int]
    laying: tuple[int, int]
    inputs: tuple[int, int]
    reading: tuple[int, int]
    kernels: tuple[Kernel, ...]
    pulls: tuple[Pull, ...]
    host: tuple[str, ...]


@dataclass
class _Pool:
    """Words under construction; equal arrays are stored once."""

    chunks: list[Ints] = field(default_factory=lambda: [])
    size: int = 0
    known: dict[bytes, int] = field(default_factory=lambda: {})
    relocations: list[tuple[int, int, int]] = field(default_factory=lambda: [])

    def add(self, array: Any, share: bool = True) -> int:
        """The word offset of a copy of `array`."""
        flat = np.ascontiguousarray(array, np.int64).ravel()
        key = flat.tobytes()
        if share and key in self.known:
            return self.known[key]
        at = self.size
        self.chunks.append(flat)
        self.size += len(flat)
        if share:
            self.known[key] = at
        return at

    def record(self, values: Sequence[Any], tables: Mapping[int, int], others: Mapping[int, tuple[Base, int]]) -> int:
        """Adds words; those in `tables` hold offsets into the pool, those in `others` are relocated."""
        words = [int(v) for v in values]
        for i, offset in tables.items():
            words[i] = offset * 8
        at = self.add(words, share=False)
        for i in tables:
            self.relocations.append((at + i, Base.WORDS, 0))
        for i, (base, value) in others.items():
            self.relocations.append((at + i, base, value))
        return at


def strides(op_axes: Sequence[tuple[str, int]], access: Access, pitches: Sequence[int]) -> dict[str, int]:
    """Elements per step of each iteration axis of a tensor held with `pitches`."""
    return {
        a: sum(e.coefficient(a) * p for e, p in zip(access, pitches, strict=True)) for a, _ in op_axes
    }


class _Maker:
    def __init__(self, plan: Plan, lanes: int, guard: bool) -> None:
        self.plan, self.lanes, self.guard = plan, lanes, guard
        self.pool = _Pool()
        self.kernels: dict[Kernel, int] = {}
        self.pulls: dict[Pull, int] = {}
        self.host: dict[str, int] = {}

    # -- moves ---------------------------------------------------------------------------
    def _scaled(self, d: DimensionMoves, producer: Grid, region_columns: int) -> Ints:
        """Producer core numbers as offsets in the region's table."""
        rows, columns = d.core // producer.columns, d.core % producer.columns
        return rows * producer.dy * region_columns + columns * producer.dx

    def move(
        self, move: Move, producer: Grid | None, target: Buffer | None, host: str, host_shape: tuple[int, ...]
    ) -> tuple[list[int], dict[int, int], dict[int, tuple[Base, int]]]:
        """Words of a move record. The host's buffer, where it is an end, is row-major of `host_shape`."""
        plan = self.plan
        row_major = [int(np.prod(host_shape[i + 1 :], dtype=np.int64)) for i in range(len(host_shape))]
        source = plan.buffers[move.source] if move.source != HOST else None
        dtype = (source or target or plan.buffers[0]).dtype
        size = dtype.bytes
        source_pitch = list(source.pitches) if source else row_major
        target_pitch = list(target.pitches) if target else row_major
        lead = 1 if move.combine else 0
        if lead:
            target_pitch = [0, *target_pitch]
        order = list(range(lead)) + [
            lead + d for d in (target.order if target else range(len(host_shape)))
        ]
        dims: list[int] = []
        table: dict[int, int] = {}
        kept = [d for d in order if d < lead or not _single(move.dims[d])]
        dropped = [d for d in order if d not in kept]
        source_offset = (source.address if source else 0) + sum(
            int(move.dims[d].source[0]) * source_pitch[d] * size for d in dropped
        )
        target_offset = (target.address if target else 0) + sum(
            int(move.dims[d].target[0]) * target_pitch[d] * size for d in dropped
        )
        if source is not None and producer is not None:
            region = plan.regions[source.region]
            start = producer.y * region.columns + producer.x
            start += sum(int(self._scaled(move.dims[d], producer, region.columns)[0]) for d in dropped)
        else:
            region, start = None, 0
        empty = any(int(d.start[-1]) == 0 for d in move.dims)
        for n, d in enumerate(kept):
            m = move.dims[d]
            core = self._scaled(m, producer, region.columns) if region is not None and producer else m.core * 0
            for w, array in (
                (DimensionWords.X, m.x),
                (DimensionWords.Y, m.y),
                (DimensionWords.T, m.t),
                (DimensionWords.START, m.start),
                (DimensionWords.CORE, core),
                (DimensionWords.SOURCE, m.source * source_pitch[d] * size),
                (DimensionWords.TARGET, m.target * target_pitch[d] * size),
                (DimensionWords.LENGTH, m.length),
            ):
                table[n * DimensionWords.SIZE + w] = self.pool.add(array)
            dims += [0] * 8 + [source_pitch[d] * size, target_pitch[d] * size]
        dims_at = self.pool.record(dims or [0], table, {})
        pull = Pull(len(kept), dtype.name, move.combine or "", self.guard)
        if not move.combine and not self.guard:
            pull = Pull(len(kept), COPIED[dtype.bytes])
        number = self.pulls.setdefault(pull, len(self.pulls))
        words = [0] * MoveWords.SIZE
        words[MoveWords.SOURCE], words[MoveWords.TARGET], words[MoveWords.START] = source_offset, target_offset, start
        other = {
            int(MoveWords.FUNCTION): (Base.PULL, number),
            int(MoveWords.BASES): (Base.REGION, source.region)
            if source is not None
            else (Base.HOST, self.host_number(host)),
        }
        assert not empty or kept, "an empty move keeps a dimension"
        return words, {int(MoveWords.DIMENSIONS): dims_at}, other

    def host_number(self, name: str) -> int:
        return self.host.setdefault(name, len(self.host))

    def moves(
        self,
        moves: Sequence[tuple[Move, Grid | None, Buffer | None, str, tuple[int, ...]]],
    ) -> int:
        """The word offset of a table of moves."""
        words: list[int] = []
        tables: dict[int, int] = {}
        others: dict[int, tuple[Base, int]] = {}
        for i, m in enumerate(moves):
            w, t, o = self.move(*m)
            at = i * MoveWords.SIZE
            words += w
            tables |= {at + k: v for k, v in t.items()}
            others |= {at + k: v for k, v in o.items()}
        return self.pool.record(words or [0], tables, others)

    # -- steps -----------------------------------------------------------------------------
    def step(self, step: Step, producers: Mapping[int, Step]) -> tuple[list[int], dict[int, int], dict[int, tuple[Base, int]]]:
        plan, op = self.plan, step.op
        result = plan.buffers[step.result]
        gw, gh, steps = step.split.grid
        words = [0] * Record.SIZE
        tables: dict[int, int] = {}
        others: dict[int, tuple[Base, int]] = {}
        indices = axis_indices(step.split, op.axes)
        axis_words: list[int] = []
        axis_tables: dict[int, int] = {}
        for n, (a, _) in enumerate(op.axes):
            i = indices[a]
            at = n * AxisWords.SIZE
            extent = i.ends - i.origins
            for w, array in (
                (AxisWords.X, i.x),
                (AxisWords.Y, i.y),
                (AxisWords.T, i.t),
                (AxisWords.EXTENT, extent),
                (AxisWords.ORIGIN, i.origins),
            ):
                axis_tables[at + w] = self.pool.add(array)
            axis_words += [0] * AxisWords.SIZE
        tables[Record.AXIS_TABLE] = self.pool.record(axis_words or [0], axis_tables, {})
        computes = step.kind == "task" or (step.kind == "update" and bool(step.operands))
        sources = [(plan.buffers[o.buffer], a, (o.x, o.y, o.t)) for o, a in zip(step.operands, op.reads, strict=False)]
        within = _within_hold(step, gw, gh, steps)
        sources.append((result, step.write, within))
        operand_words: list[int] = []
        operand_tables: dict[int, int] = {}
        rows: list[dict[str, int]] = []
        bounds: list[int] = []
        for n, (buffer, access, offsets) in enumerate(sources if computes else ()):
            lead = len(buffer.shape) - len(access)
            pitches = buffer.pitches[lead:]
            rows.append(strides(op.axes, access, pitches))
            at = n * OperandWords.SIZE
            scale = np.array(pitches, np.int64)[:, None] * buffer.dtype.bytes
            operand_words += [buffer.address, 0, 0, 0]
            x, y, t = (
                (o * scale).sum(0) if len(pitches) else np.zeros(o.shape[1], np.int64) for o in offsets
            )
            back = _backward(access, pitches, indices, buffer.dtype.bytes)
            for w, array in ((OperandWords.X, x + back[0]), (OperandWords.Y, y + back[1]), (OperandWords.T, t + back[2])):
                operand_tables[at + w] = self.pool.add(array)
            bounds += [buffer.address, buffer.address + buffer.bytes]
        tables[Record.OPERAND_TABLE] = self.pool.record(operand_words or [0], operand_tables, {})
        if computes:
            kinds = stride_kinds(op, rows, step.lane_axis)
            kernel = kernel_for(op, step.lane_axis, kinds, self.lanes, self.guard)
            others[Record.KERNEL] = (Base.KERNEL, self.kernels.setdefault(kernel, len(self.kernels)))
            tables[Record.STRIDES] = self.pool.add([r[a] for r in rows for a, _ in op.axes] or [0])
            if kernel.signature.layout.words(self.guard) > MOST_WORDS:
                raise ValueError(f"{step.name}: {op.name} has too many operands and axes for one task")
        region = plan.regions[step.region]
        self._grid(words, step.grid, region.columns)
        words[Record.STEPS] = steps
        words[Record.AXES] = len(op.axes)
        words[Record.OPERANDS] = len(sources) if computes else 0
        words[Record.NUMBER] = step.number
        words[Record.BARRIER] = 1
        others[Record.BASES] = (Base.REGION, step.region)
        reduced = [indices[a].t for a in op.reduced if a in indices]
        cut = {c.axis: c.ways for c in step.split.cuts if c.side == "t"}
        first = np.ones(steps, np.int64)
        for a, t in zip([a for a in op.reduced if a in indices], reduced, strict=True):
            if a in cut:
                first &= (t % cut[a]) == 0
        tables[Record.FIRST] = self.pool.add(first)
        moves: list[tuple[Move, Grid | None, Buffer | None, str, tuple[int, ...]]] = []
        fills: list[int] = []
        for o in step.operands:
            target = plan.buffers[o.buffer]
            if o.fill and o.received:
                fills += _fill(target, op.fill)
            moves += [(m, producers[m.source].grid, target, "", ()) for m in o.moves]
        moves += [(m, producers[m.source].grid, plan.buffers[m.target], "", ()) for m in step.moves]
        words[Record.MOVES] = len(moves)
        tables[Record.MOVE_TABLE] = self.moves(moves)
        words[Record.FILLS] = len(fills) // FillWords.SIZE
        tables[Record.FILL_TABLE] = self.pool.add(fills or [0])
        tables[Record.BOUNDS] = self.pool.add(bounds or [0])
        others[Record.ERROR] = (Base.ERROR, 0)
        return words, tables, others

    def _grid(self, words: list[int], grid: Grid, columns: int) -> None:
        words[Record.COLUMNS], words[Record.ROWS] = grid.columns, grid.rows
        words[Record.START] = grid.y * columns + grid.x
        words[Record.COLUMN_PITCH], words[Record.ROW_PITCH] = grid.dx, grid.dy * columns

    def transfer(
        self, moves: Sequence[Move], grid: Grid, region: int, target: Buffer | None, producers: Sequence[Grid | None], host: str, shape: tuple[int, ...], number: int, fill: float | None
    ) -> tuple[list[int], dict[int, int], dict[int, tuple[Base, int]]]:
        """A record that only moves, between the host and the cores of `grid` (of `region`, or the host)."""
        words = [0] * Record.SIZE
        self._grid(words, grid, self.plan.regions[region].columns if target else 1)
        words[Record.STEPS] = max((len(d.t) for m in moves for d in m.dims[:1]), default=1)
        words[Record.MOVES] = len(moves)
        words[Record.NUMBER] = number
        table = self.moves([(m, p, target, host, shape) for m, p in zip(moves, producers, strict=True)])
        fills = _fill(target, fill) if target is not None and fill is not None else []
        words[Record.FILLS] = len(fills) // FillWords.SIZE
        tables = {
            int(Record.MOVE_TABLE): table,
            int(Record.FILL_TABLE): self.pool.add(fills or [0]),
            int(Record.FIRST): self.pool.add(np.ones(words[Record.STEPS], np.int64)),
        }
        bases = (Base.REGION, region) if target else (Base.HOST, self.host_number(host))
        return words, tables, {int(Record.BASES): bases, int(Record.ERROR): (Base.ERROR, 0)}

    def section(self, records: Sequence[tuple[list[int], dict[int, int], dict[int, tuple[Base, int]]]]) -> tuple[int, int]:
        """Records one after the other: (word offset, count)."""
        words: list[int] = []
        tables: dict[int, int] = {}
        others: dict[int, tuple[Base, int]] = {}
        for i, (w, t, o) in enumerate(records):
            at = i * Record.SIZE
            words += w
            tables |= {at + k: v for k, v in t.items()}
            others |= {at + k: v for k, v in o.items()}
        return self.pool.record(words or [0], tables, others), len(records)


COPIED = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}


def _single(d: DimensionMoves) -> bool:
    """Whether the dimension is one entry of one element for every piece: it takes no loop."""
    return len(d.start) == 2 and int(d.start[1]) == 1 and int(d.length[0]) == 1


def _fill(buffer: Buffer, value: float) -> list[int]:
    bits = np.zeros(8, np.uint8)
    raw = np.asarray(value).astype(buffer.dtype.numpy).tobytes()
    bits[: len(raw)] = np.frombuffer(raw, np.uint8)
    return [buffer.address, buffer.elements, int(bits.view(np.int64)[0]), buffer.dtype.bytes]


def _within_hold(step: Step, gw: int, gh: int, steps: int) -> tuple[Ints, Ints, Ints]:
    """Where in the held box each time step's tile lies."""
    dims = len(step.write)
    zero = np.zeros((dims, gw), np.int64), np.zeros((dims, gh), np.int64), np.zeros((dims, steps), np.int64)
    if steps == 1:
        return zero
    tile = layout(step.write, step.op.axes, step.split)
    hold = layout(step.write, step.op.axes, step.split, merge_time=True)
    offsets = identical(tile, hold, step.grid, step.grid)
    assert offsets is not None, "a tile lies in what its core holds"
    return offsets


def _backward(access: Access, pitches: Sequence[int], indices: Mapping[str, Any], size: int) -> tuple[Any, Any, Any]:
    """Bytes from a box's first element to the element of iteration 0, for negative coefficients.

    A ragged last tile starts nearer: the distance follows the tile's own extent, so such an
    axis may be cut along one side only.
    """
    out: list[Any] = [0, 0, 0]
    for e, p in zip(access, pitches, strict=True):
        for a, c in e.terms:
            if c >= 0:
                continue
            i = indices[a]
            extent = i.ends - i.origins
            cut = [s for s, v in enumerate((i.x, i.y, i.t)) if v.any()]
            if len(cut) > 1:
                raise ValueError(f"axis {a} runs backwards and is cut along two sides")
            side = cut[0] if cut else 0
            number = (i.x, i.y, i.t)[side]
            out[side] = out[side] + np.maximum(extent[number] - 1, 0) * -c * p * size
    return out[0], out[1], out[2]


def make_tables(plan: Plan, lanes: int, guard: bool = False) -> Tables:
    """The tables of a plan for a host with `lanes` f32 lanes. Word offsets, no addresses."""
    m = _Maker(plan, lanes, guard)
    producers = {s.result: s for s in plan.steps if s.kind != "update"}
    lays = [
        m.transfer([move], b.grid, b.region, b, [None], f"const:{t}", plan.graph.tensors[t].shape, -1, None)
        for t, move in plan.lays
        for b in (plan.buffers[move.target],)
    ]
    laying = m.section(lays)
    inputs: list[Any] = []
    for s in plan.steps:
        if s.kind == "input":
            b = plan.buffers[s.result]
            shape = plan.graph.tensors[s.tensor].shape
            move = derive(s.hold, whole(shape), shape, Grid(1, 1), HOST, b.number)
            inputs.append(m.transfer([move], b.grid, b.region, b, [None], f"in:{s.tensor}", shape, s.number, None))
    laid = m.section(inputs)
    steps = m.section([m.step(s, producers) for s in plan.steps if s.kind != "input"])
    reading: list[Any] = []
    for name, owners in plan.outputs.items():
        shape = plan.graph.tensors[name].shape
        owned = [plan.steps[i] for i in owners]
        moves = [derive(whole(shape), s.hold, shape, s.grid, s.result, HOST) for s in owned]
        reading.append(
            m.transfer(moves, Grid(1, 1), 0, None, [s.grid for s in owned], f"out:{name}", shape, -1, None)
        )
    read = m.section(reading)
    words = np.concatenate(m.pool.chunks) if m.pool.chunks else np.zeros(0, np.int64)
    relocations = np.array(m.pool.relocations, np.int64).reshape(-1, 3)
    return Tables(
        words, relocations, steps, laying, laid, read, tuple(m.kernels), tuple(m.pulls), tuple(m.host)
    )

