"""The parts of a plan: steps with their operands, buffers and moves, added one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...ir.affine import access_axes, axis, constant
from ...ir.dtypes import DType
from ...ir.graph import Graph, Node, Tensor
from ...ir.op import Op
from ...ir.ops.rearrange import Copy
from ...ir.ops.reduce import REDUCTIONS
from ..machine.wafer import Wafer
from ..plan.layout import Cut, Grid, Layout, Region, Split, along_side, at_once, layout, row_order, whole
from ..plan.move import HOST, Move, combining, derive, identical
from ..plan.plan import Buffer, Operand, Role, Step
from ..splits.candidates import useful_ways
from ..splits.choice import Source, tile_elements
from ..splits.join import join_split
from ..splits.policy import Policy
from .companions import Residents

MOST_WORK = 1 << 62  # of a reader whose wish is not to be overruled
ROWS_BYTES = 1024  # of new rows of a cache that a core receives at a time
INPUT_BYTES = 512  # an input is spread until a core owns no more than this, where the region allows


@dataclass
class _Draft:
    """A step before positions and addresses are known."""

    step: Step
    buffers: list[int]  # those that live only while it runs


@dataclass(frozen=True)
class Laid:
    """A constant's buffer and where it lies. work: elements of its largest reader's iteration space."""

    buffer: int
    grid: Grid
    held: Layout
    work: int


@dataclass
class Assembly:
    """The state of one build: steps so far, who writes what, and buffers."""

    graph: Graph
    wafer: Wafer
    regions: tuple[Region, ...]
    policy: Policy
    pile: float  # of SRAM: up to there, what is small may lie where it likes
    residents: Residents  # what another entry of the program keeps on the cores
    tensors: dict[str, Tensor] = field(default_factory=lambda: {})
    steps: list[_Draft] = field(default_factory=lambda: [])
    writers: dict[str, list[int]] = field(default_factory=lambda: {})
    buffers: list[Buffer] = field(default_factory=lambda: [])
    users: dict[int, list[int]] = field(default_factory=lambda: {})  # buffer -> steps that use it
    lays: list[tuple[str, Move]] = field(default_factory=lambda: [])
    resident: dict[int, Any] = field(default_factory=lambda: {})  # region -> bytes laid, by core
    laid: dict[tuple[str, int], list[Laid]] = field(default_factory=lambda: {})  # constant, region -> buffers

    def __post_init__(self) -> None:
        self.buffers += self.residents.buffers
        self.lays += self.residents.lays
        for place, kept in self.residents.constants.items():
            self.laid[place] = [Laid(k.buffer, k.grid, k.held, MOST_WORK) for k in kept]
        for b in self.residents.buffers:
            if b.over < 0:
                self.keep(b.number)

    def spot(self, region: int, grid: Grid, resident: float) -> Grid:
        """`grid` where it is, or moved to where its fullest core holds least if constants pile up there."""
        r = self.regions[region]
        if region not in self.resident or resident == 0:
            return grid
        used = self.resident[region]
        x0, y0, x1, y1 = grid.box
        wide, high = x1 - x0, y1 - y0

        def fullest(x: int, y: int) -> int:
            return int(used[y : y + high : grid.dy, x : x + wide : grid.dx].max())

        if fullest(grid.x, grid.y) + resident <= self.pile * self.wafer.sram_bytes:
            return grid
        _, y, x = min(
            (fullest(x, y), y, x)
            for y in _offsets(r.rows, high, grid.dy)
            for x in _offsets(r.columns, wide, grid.dx)
        )
        return replace(grid, x=x, y=y)

    def keep(self, number: int) -> None:
        """Counts a buffer among those that its cores keep."""
        b = self.buffers[number]
        r = self.regions[b.region]
        used = self.resident.setdefault(b.region, np.zeros((r.rows, r.columns), np.int64))
        _, _, x1, y1 = b.grid.box
        used[b.grid.y : y1 : b.grid.dy, b.grid.x : x1 : b.grid.dx] += b.bytes

    def buffer(
        self,
        name: str,
        role: Role,
        region: int,
        grid: Grid,
        dtype: DType,
        held: Layout,
        innermost: int | None,
    ) -> int:
        number = len(self.buffers)
        shape, order = tuple(p.extent for p in held), row_order(len(held), innermost)
        self.buffers.append(Buffer(number, name, role, region, grid, dtype, shape, order, (0, 0)))
        return number

    def source(self, tensor: str, region: int) -> Source | None:
        """Where a run-time tensor lies, for choosing splits; None for a constant."""
        if tensor in self.graph.constants:
            return None
        steps = [self.steps[i].step for i in self.writers[tensor]]
        s = steps[0]
        a, b = self.regions[s.region], self.regions[region]
        far = abs(a.x + a.width / 2 - b.x - b.width / 2) + abs(a.y + a.height / 2 - b.y - b.height / 2)
        shape = self.graph.tensors[tensor].shape
        if len(steps) > 1:
            return Source.anywhere(far, shape)
        return Source(s.grid, s.split, s.write, s.op.axes, s.region, far, shape)

    def add(self, step: Step, temporary: Sequence[int] = ()) -> int:
        number = len(self.steps)
        self.steps.append(_Draft(replace(step, number=number), list(temporary)))
        self.writers.setdefault(step.tensor, []).append(number)
        for o in step.operands:
            self.users.setdefault(o.buffer, []).append(number)
            for m in o.moves:
                self.users.setdefault(m.source, []).append(number)
        for m in step.moves:
            self.users.setdefault(m.source, []).append(number)
        self.users.setdefault(step.result, []).append(number)
        return number

    # -- inputs ----------------------------------------------------------------------
    def lay_input(self, name: str, region: int, role: Role) -> int:
        """The owners of a graph input: spread over the region, each byte once."""
        if name in self.residents.states:
            step, buffer, _ = self.residents.states[name]
            return self.add(replace(step, number=-1, result=buffer, position=0))
        tensor = self.graph.tensors[name]
        axes = tuple((f"d{i}", n) for i, n in enumerate(tensor.shape))
        op = _whole_copy(axes, tensor.dtype)
        r = self.regions[region]
        cuts: list[Cut] = []
        rest = tensor.bytes
        for a, n in sorted(axes, key=lambda t: -t[1]):
            for side, limit in (("x", r.columns), ("y", r.rows)):
                if rest <= INPUT_BYTES or any(c.side == side or c.axis == a for c in cuts):
                    continue
                useful = useful_ways(n, limit, self.policy.most_ways)
                enough = [w for w in useful if rest / w <= INPUT_BYTES]
                ways = enough[:1] or useful[-1:]
                if ways:
                    cuts.append(Cut(a, "x" if side == "x" else "y", ways[0]))
                    rest = -(-rest // ways[0])
        split = Split(tuple(cuts))
        columns, rows, _ = split.grid
        return self._laid(name, role, op, region, self.spot(region, Grid(columns, rows), rest), split, None)

    def _laid(
        self, name: str, role: Role, op: Copy, region: int, grid: Grid, split: Split, innermost: int | None
    ) -> int:
        held = layout(op.write, op.axes, split)
        result = self.buffer(name, role, region, grid, op.out_type, held, innermost)
        self.keep(result)
        return self.add(
            Step(
                number=-1,
                name=name,
                kind="input",
                node=-1,
                op=op,
                tensor=name,
                write=op.write,
                region=region,
                grid=grid,
                split=split,
                part="",
                lane_axis="",
                operands=(),
                result=result,
                scratch=-1,
                wavefront=0,
                position=0,
            )
        )

    def cache(
        self, number: int, past: str, reader: Op, operand: int, region: int, grid: Grid, split: Split
    ) -> None:
        """A cache where operand `operand` of its first reader wants it, and the step that fills it further.

        Where the reader is split so that it would be kept twice, the cache lies apart and is moved to it.
        """
        access = reader.reads[operand]
        names = [e.axes[0] for e in self.graph.nodes[number].op.write]
        cuts: list[Cut] = []
        for c in split.cuts:
            d = next((d for d, e in enumerate(access) if e.coefficient(c.axis) > 0), None)
            if d is not None and c.side != "t":
                cuts.append(Cut(names[d], c.side, c.ways))
        own = Split(tuple(cuts))
        if own.grid[:2] == (grid.columns, grid.rows):
            tensor = self.graph.tensors[past]
            op = _whole_copy(tuple(zip(names, tensor.shape, strict=True)), tensor.dtype)
            lane = reader.lane_axis(split.extents(reader.axes))
            self._laid(past, "state", op, region, grid, own, along_side(access, lane))
        else:
            self.lay_input(past, region, "state")
        self.filled(number, past)

    def filled(self, number: int, past: str) -> None:
        """The step of node `number` on the cores where its cache lies."""
        s = self.steps[self.writers[past][0]].step
        node = self.graph.nodes[number]
        names = dict(zip((a for a, _ in s.op.axes), (e.axes[0] for e in node.op.write), strict=True))
        cuts = tuple(replace(c, axis=names[c.axis]) for c in s.split.cuts)
        rows, split = node.op.size["s"], Split(cuts)
        row = tile_elements(node.op.reads[1], split.extents(node.op.axes)) * node.op.in_types[1].bytes // rows
        if (steps := min(rows, -(-row * rows // ROWS_BYTES))) > 1:  # new rows are received some at a time
            split = Split((*cuts, Cut("s", "t", steps)))
        self.task(number, node, s.region, s.grid, split, "")

    # -- operands --------------------------------------------------------------------
    def operand(
        self, op: Op, j: int, tensor: str, region: int, grid: Grid, split: Split, lane: str
    ) -> Operand:
        """How a step on `grid` gets operand `j`."""
        access = op.reads[j]
        need = layout(access, op.axes, split)
        shape = self.graph.tensors[tensor].shape
        steps = split.grid[2]
        zero = (
            np.zeros((len(shape), grid.columns), np.int64),
            np.zeros((len(shape), grid.rows), np.int64),
            np.zeros((len(shape), steps), np.int64),
        )
        innermost = along_side(access, lane)
        dtype = op.in_types[j]
        fill = any(
            bool(((p.lo < 0) | (p.hi > n))[p.hi > p.lo].any()) for p, n in zip(need, shape, strict=True)
        )
        if tensor in self.graph.constants:
            held = layout(access, op.axes, split, merge_time=True)
            buffer = self.constant(tensor, op, region, grid, held, innermost)
            offsets = identical(need, held, grid, grid, steps)
            assert offsets is not None, "a resident operand covers all its steps"
            return Operand(tensor, buffer, need, *offsets, fill=fill)
        writers = [self.steps[i].step for i in self.writers[tensor]]
        if len(writers) == 1 and writers[0].region == region and not fill:
            w = writers[0]
            offsets = identical(need, w.hold, grid, w.grid, steps)
            if offsets is not None:
                return Operand(tensor, w.result, need, *offsets)
        buffer = self.buffer(tensor, "receive", region, grid, dtype, need, innermost)
        moves = tuple(derive(need, w.hold, shape, w.grid, w.result, buffer) for w in writers)
        return Operand(tensor, buffer, need, *zero, moves=moves, received=True, fill=fill)

    def constant(
        self,
        tensor: str,
        op: Op,
        region: int,
        grid: Grid,
        held: Layout,
        innermost: int | None,
    ) -> int:
        """The buffer of a constant: one for all readers that hold the same of it on the same cores.

        Not where pieces pass the tensor's ends: each reader fills those as its op says.
        """
        of = self.graph.tensors[tensor]
        laid = self.laid.setdefault((tensor, region), [])
        inside = all(p.lo.min() >= 0 and p.hi.max() <= n for p, n in zip(held, of.shape, strict=True))
        work = int(np.prod([n for _, n in op.axes], dtype=np.int64))
        for i, other in enumerate(laid if inside else ()):
            if other.grid == grid and _equal(held, other.held):
                if other.work < work:
                    # It lies in memory as the reader with the most work wants it.
                    old = self.buffers[other.buffer]
                    self.buffers[other.buffer] = replace(old, order=row_order(len(held), innermost))
                    laid[i] = replace(other, work=work)
                return other.buffer
        number = self.buffer(
            tensor, "constant", region, grid, self.graph.tensors[tensor].dtype, held, innermost
        )
        self.keep(number)
        move = derive(at_once(held), whole(of.shape), of.shape, Grid(1, 1), HOST, number)
        self.lays.append((tensor, replace(move, route="host")))
        if inside:
            laid.append(Laid(number, grid, held, work))
        return number

    def level(self, tensors: Sequence[str]) -> int:
        """The first wavefront after all writers of `tensors`."""
        return 1 + max(
            (self.steps[i].step.wavefront for t in tensors for i in self.writers.get(t, ())), default=0
        )

    def leader(self, operands: Sequence[Operand], region: int, grid: Grid) -> int:
        """The step that one with these operands rides on, -1 for none.

        It is the one whose task leaves the last of them, on the same cores; the others must be there
        before that task starts, or be left by it too.
        """
        if any(o.received for o in operands):
            return -1
        made = [self.steps[self.writers[o.tensor][0]].step for o in operands if o.tensor in self.writers]
        last = max((s.wavefront for s in made), default=-1)
        leaders = {s.leader for s in made if s.wavefront == last}
        if len(leaders) != 1:
            return -1
        s = self.steps[leaders.pop()].step
        rides = s.kind in ("task", "join") and (s.region, s.grid) == (region, grid)
        return s.number if rides else -1

    # -- steps -----------------------------------------------------------------------
    def task(self, number: int, node: Node, region: int, grid: Grid, split: Split, part: str) -> None:
        """The step of a node, and the join of its partial results if `part` is cut."""
        op = node.op
        extents = split.extents(op.axes)
        lane = op.lane_axis(extents)
        operands = tuple(self.operand(op, j, t, region, grid, split, lane) for j, t in enumerate(node.inputs))
        tensor, write = node.output, op.write
        if part:
            box = op.hold({a: (0, n) for a, n in op.axes})
            write = tuple(e.plus(constant(-lo)) for e, (lo, _) in zip(op.write, box, strict=True))
            tensor = f"{node.output}#{len(self.steps)}"
            ways = split.space_ways(part)
            shape = (ways, *(hi - lo for lo, hi in box))
            self.tensors[tensor] = Tensor(tensor, shape, op.out_type)
        held = layout(write, op.axes, split, part, merge_time=True)
        lead = 1 if part else 0
        inner = along_side(write, lane)
        innermost = None if inner is None else lead + inner
        if tensor in self.graph.resident:
            assert op.updates is not None and not operands[op.updates].received
            name = node.inputs[op.updates]
            past = self.buffers[operands[op.updates].buffer]
            result = self.residents.states[name][2] if name in self.residents.states else -1
            if result < 0:
                result = len(self.buffers)
                self.buffers.append(replace(past, number=result, name=tensor, over=past.number))
        else:
            result = self.buffer(tensor, "result", region, grid, op.out_type, held, innermost)
        scratch = -1
        _, scratch_bytes = self.wafer.task(op, extents)
        temporary = [o.buffer for o in operands if o.received]
        if int(scratch_bytes):
            scratch = len(self.buffers)
            self.buffers.append(
                Buffer(
                    scratch,
                    tensor,
                    "scratch",
                    region,
                    grid,
                    op.out_type,
                    (-(-int(scratch_bytes) // op.out_type.bytes),),
                    (0,),
                    (0, 0),
                )
            )
            temporary.append(scratch)
        rides = self.leader(operands, region, grid)
        wavefront = self.level(node.inputs) if rides < 0 else self.steps[rides].step.wavefront
        made = self.add(
            Step(
                number=-1,
                name=node.source[0] if node.source else op.name,
                kind="task",
                node=number,
                op=op,
                tensor=tensor,
                write=write,
                region=region,
                grid=grid,
                split=split,
                part=part,
                lane_axis=lane,
                operands=operands,
                result=result,
                scratch=scratch,
                wavefront=wavefront,
                position=0,
                source=node.source,
                rides=rides,
            ),
            temporary,
        )
        if part:
            self.join(number, node, made, region)

    def join(self, number: int, node: Node, made: int, region: int) -> None:
        """The fabric reduction of the partial results of step `made`."""
        step = self.steps[made].step
        op = step.op
        assert op.combine is not None
        split, grid = join_split(op, step.split, step.part, step.grid, self.policy)
        box = op.hold({a: (0, n) for a, n in op.axes})
        kept = access_axes(op.write)
        axes = ((PART, self.tensors[step.tensor].shape[0]), *((a, op.size[a]) for a in kept))
        write = op.write
        joined = REDUCTIONS[op.combine](
            axes=axes,
            reads=((axis(PART), *step.write),),
            write=write,
            in_types=(op.out_type,),
            out_type=op.out_type,
        )
        held = layout(write, axes, split)
        need = layout(step.write, axes, split)
        lane = step.lane_axis
        innermost = along_side(write, lane)
        result = self.buffer(node.output, "result", region, grid, op.out_type, held, innermost)
        shape = tuple(hi - lo for lo, hi in box)
        move = combining(need, step.hold, shape, step.grid, step.result, result, op.combine)
        self.add(
            Step(
                number=-1,
                name=step.name,
                kind="join",
                node=number,
                op=joined,
                tensor=node.output,
                write=write,
                region=region,
                grid=grid,
                split=split,
                part="",
                lane_axis=lane,
                operands=(),
                result=result,
                scratch=-1,
                wavefront=step.wavefront + 1,
                position=0,
                moves=(replace(move, route="join"),),
                source=step.source,
            )
        )

    def update(self, past: str, present: str) -> None:
        """The last step of a state: its new value over its old one, on the old one's cores."""
        old = self.steps[self.writers[past][0]].step
        operand = self.operand(old.op, 0, present, old.region, old.grid, old.split, "")
        if operand.received:
            # The new value is received straight into the state's own buffer.
            self.buffers.pop()
            moves = tuple(replace(m, target=old.result) for m in operand.moves)
            operands: tuple[Operand, ...] = ()
        else:
            moves, operands = (), (operand,)
        last = 1 + max(s.step.wavefront for s in self.steps)
        self.steps.append(
            _Draft(
                replace(
                    old,
                    number=len(self.steps),
                    kind="update",
                    operands=operands,
                    moves=moves,
                    wavefront=last,
                    lane_axis=old.op.lane_axis(old.split.extents(old.op.axes)),
                ),
                [],
            )
        )
        number = len(self.steps) - 1
        for m in moves:
            self.users.setdefault(m.source, []).append(number)
        for o in operands:
            self.users.setdefault(o.buffer, []).append(number)
        self.users.setdefault(old.result, []).append(number)


def _whole_copy(axes: tuple[tuple[str, int], ...], dtype: DType) -> Copy:
    """What the host does to lay a tensor."""
    access = tuple(axis(a) for a, _ in axes)
    return Copy(axes=axes, reads=(access,), write=access, in_types=(dtype,), out_type=dtype)


PART = "part"


def _equal(a: Layout, b: Layout) -> bool:
    """Whether two layouts of one grid, time steps merged, have the same pieces on the same cores."""
    names = ("x", "y", "lo", "hi")
    return all(np.array_equal(getattr(p, n), getattr(q, n)) for p, q in zip(a, b, strict=True) for n in names)


SPOTS, MOST_SPOTS = 12, 128  # places tried along each side; for grids with free columns in between


def _offsets(size: int, taken: int, pitch: int) -> list[int]:
    """Where a grid may start along a side: apart from one another, or between the columns of a spread one."""
    free = size - taken
    step = max(1, taken, -(-free // SPOTS)) if pitch == 1 else -(-max(1, free) // MOST_SPOTS)
    return list(range(0, free + 1, step))
