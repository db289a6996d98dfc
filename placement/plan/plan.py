"""The plan: the legal mapping of a graph onto a wafer, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...ir.affine import Access
from ...ir.dtypes import DType
from ...ir.graph import Graph, Tensor
from ...ir.op import Op
from ..machine.wafer import Wafer
from .layout import Grid, Ints, Layout, Region, Split, layout
from .move import Move
from .needs import need_elements

if TYPE_CHECKING:
    import networkx as nx

Role = Literal["input", "constant", "state", "result", "receive", "scratch"]
Kind = Literal["input", "task", "join", "update"]


@dataclass(frozen=True)
class Buffer:
    """An address range that is the same on every core of a grid.

    shape: the largest box held, by tensor dimension. order: dimensions from outermost to
    innermost in memory. live: first and last position in the schedule, inclusive; resident
    buffers live always. address: byte offset in the core's SRAM. over: number of the result
    buffer that this one takes over, -1 for none: the step that writes it computes each element from
    the one that lies there, which nobody reads any more, and both have the same address.
    """

    number: int
    name: str
    role: Role
    region: int
    grid: Grid
    dtype: DType
    shape: tuple[int, ...]
    order: tuple[int, ...]
    live: tuple[int, int] = (0, 0)
    address: int = -1
    over: int = -1

    @property
    def stays(self) -> bool:
        """Whether it keeps its value between calls."""
        return self.role in ("constant", "state")

    @cached_property
    def elements(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def bytes(self) -> int:
        return self.elements * self.dtype.bytes

    @cached_property
    def pitches(self) -> tuple[int, ...]:
        """Elements between neighbours, by tensor dimension."""
        out = [0] * len(self.shape)
        step = 1
        for d in reversed(self.order):
            out[d] = step
            step *= self.shape[d]
        return tuple(out)


@dataclass(frozen=True)
class Operand:
    """How a step gets one operand: in place, or received by moves just before it runs.

    need: layout of what each core reads. x, y, t: [dims, columns/rows/steps] element offsets of
    the need within `buffer` (zeros when received). fill: whether some core needs elements
    outside the tensor.
    """

    tensor: str
    buffer: int
    need: Layout
    x: Ints
    y: Ints
    t: Ints
    moves: tuple[Move, ...] = ()
    received: bool = False
    fill: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """One op on its grid: an input laid by the host, tasks, a fabric reduction, or a state's update.

    node: number in the graph, -1 for none. part: the reduced axis cut in space, "" for none;
    the result then has a leading dimension of partial results. write: access of the result
    (relative to `offset` for partial results). position: place in the schedule.

    rides: number of the step, its *leader*, that this one rides on; -1 for none. A rider runs on each core
    as the last part of its leader's task, in the leader's wavefront: all its operands lie there, left by
    that task or by earlier wavefronts.
    """

    number: int = -1
    name: str
    kind: Kind
    node: int = -1
    op: Op
    tensor: str
    write: Access
    region: int
    grid: Grid
    split: Split
    part: str = ""
    lane_axis: str = ""
    operands: tuple[Operand, ...] = ()
    result: int
    scratch: int = -1
    wavefront: int = 0
    position: int = 0
    moves: tuple[Move, ...] = ()  # a join's, or an update's
    source: tuple[str, ...] = ()
    rides: int = -1

    @cached_property
    def hold(self) -> Layout:
        """What each core holds when the step is done."""
        return layout(self.write, self.op.axes, self.split, self.part, merge_time=True)

    @property
    def received(self) -> tuple[Move, ...]:
        """The moves that bring the step what it needs: its operands', then its own."""
        return (*(m for o in self.operands for m in o.moves), *self.moves)

    @cached_property
    def fetched(self) -> frozenset[int]:
        """The buffers that the step's moves read."""
        return frozenset(m.source for m in self.received)

    @property
    def leader(self) -> int:
        """Number of the step whose task this one is part of: its own, or that of the step it rides on."""
        return self.number if self.rides < 0 else self.rides

    @property
    def tiles(self) -> int:
        """Tiles that the step's kernel computes per call (empty ones not counted)."""
        if self.kind in ("input", "join"):
            return 0
        full = 1
        for a, n in self.op.axes:
            if n == 0:
                return 0
            full *= -(-n // self.split.tile(a, n))
        return full


@dataclass(frozen=True, repr=False)
class Plan:
    """Regions, steps in schedule order, buffers with addresses, moves with routes.

    urgent: (node, operand) of moves that a call waits for, which were the first to become trees.
    """

    graph: Graph
    tensors: Mapping[str, Tensor]  # the graph's, and partial results
    wafer: Wafer
    objective: str
    regions: tuple[Region, ...]
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    code_bytes: tuple[int, ...]  # per region, at address 0
    lays: tuple[tuple[str, Move], ...] = ()  # constants, laid once when the program is loaded
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {})  # name -> steps that own it
    urgent: frozenset[tuple[int, int]] = frozenset()

    @property
    def wavefronts(self) -> int:
        return 1 + max((s.wavefront for s in self.steps), default=-1)

    @property
    def tasks(self) -> int:
        """Tasks per call. A rider's kernel is part of its leader's task; where the leader is a join,
        which is the fabric's business, the first rider is the task."""
        led = (s for s in self.steps if s.rides >= 0 and s.rides == s.number - 1)
        first = (s for s in led if self.steps[s.rides].kind == "join")
        return sum(s.tiles for s in self.steps if s.rides < 0) + sum(s.tiles for s in first)

    def sram(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64 [height, width]: the highest byte in use on each core at any time."""
        out = np.zeros(self.wafer.cores, np.int64)
        for i, (region, code) in enumerate(zip(self.regions, self.code_bytes, strict=True)):
            used = np.full(region.core.shape, code, np.int64)
            for g, end in dict.fromkeys((b.grid, b.address + b.bytes) for b in self.buffers if b.region == i):
                _, _, x1, y1 = g.box
                at = used[g.y : y1 : g.dy, g.x : x1 : g.dx]
                np.maximum(at, end, out=at)
            out[region.core] = np.maximum(out[region.core], used)
        return out.reshape(self.wafer.height, self.wafer.width)

    def to_networkx(self) -> nx.MultiDiGraph[str]:
        """The plan for networkx: a node for each step, an edge for each operand in place and each hand-over.

        Attributes are str, int or bool; none is of a single core. Of the whole: name, wafer, optimize, and
        "region 0", ... ("16x16 at 0,0: its name"). Of a step ("step 0", ..., by position): name, kind, op,
        onnx, region, grid, split, part (the axis of its partial sums), wavefront, tiles, bytes (of its result
        on one core), rides (the position of the step whose task it is part of, or -1). Of an edge: tensor,
        route ("in place", or a move's), bytes (what all of the step's cores receive), crosses (whether it
        goes to another region).
        """
        import networkx as nx

        places = {
            f"region {i}": f"{r.columns}x{r.rows} at {r.x},{r.y}: {r.name}"
            for i, r in enumerate(self.regions)
        }
        out: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        out.graph.update(name=self.graph.name, wafer=self.wafer.name, optimize=self.objective, **places)
        made = {s.result: s for s in self.steps if s.kind != "update"}
        for s in self.steps:
            out.add_node(
                f"step {s.position}",
                name=s.name,
                kind=s.kind,
                op=s.op.name,
                onnx=", ".join(s.source),
                region=s.region,
                grid=str(s.grid),
                split=str(s.split),
                part=s.part,
                wavefront=s.wavefront,
                tiles=s.tiles,
                bytes=self.buffers[s.result].bytes,
                rides=s.rides,
            )
        for s in self.steps:
            lies = [(o.tensor, "in place", 0, o.buffer) for o in s.operands if not o.received]
            brought = [(o.tensor, m) for o in s.operands for m in o.moves] + [(s.tensor, m) for m in s.moves]
            lies += [(t, m.route, self.received(s, m), m.source) for t, m in brought]
            for tensor, route, received, source in lies:
                if (p := made.get(source)) is not None:
                    edge = {"tensor": tensor, "route": route, "bytes": received}
                    edge["crosses"] = p.region != s.region
                    out.add_edge(f"step {p.position}", f"step {s.position}", **edge)
        return out

    def received(self, step: Step, move: Move) -> int:
        """Bytes that all cores of a step together receive by a move."""
        each = np.asarray(need_elements(move.dims))
        alike = step.grid.cores // each.size  # the cores that each of these numbers is for
        return int(each.sum()) * alike * self.buffers[move.source].dtype.bytes

    def __repr__(self) -> str:
        ends = f"{len(self.regions)} regions, {len(self.steps)} steps"
        return f"Plan({self.graph.name!r} on {self.wafer.name}, {ends}, for {self.objective})"

    def __str__(self) -> str:
        used = self.sram()
        lines = [
            f"plan of {self.graph.name!r} on {self.wafer.name} ({self.wafer.width}x{self.wafer.height}), "
            f"optimized for {self.objective}",
            f"  cores {int((used > 0).sum()):,}  tasks {self.tasks:,}  wavefronts {self.wavefronts}  "
            f"fullest core {int(used.max(initial=0)):,} of {self.wafer.sram_bytes:,} B",
        ]
        for i, r in enumerate(self.regions):
            lines.append(f"  region {i} {r.name!r}: {r.columns}x{r.rows} at {r.x},{r.y}")
        for s in self.steps:
            b = self.buffers[s.result]
            part = f" partial over {s.part}" if s.part else ""
            rides = f" rides on {s.rides}" if s.rides >= 0 else ""
            over = f" over {self.buffers[b.over].name!r}" if b.over >= 0 else ""
            lines.append(
                f"  {s.position:4} w{s.wavefront}{rides} {s.kind} {s.op.name} {s.name!r} "
                f"on region {s.region} [{s.grid}] {s.split}{part} "
                f"-> {b.dtype}{list(b.shape)} at {b.address}{over}"
            )
            for o in s.operands:
                c = self.buffers[o.buffer]
                how = "received" if o.received else "in place"
                routes = " ".join(m.route for m in o.moves)
                lines.append(f"         {how} {o.tensor!r} {list(c.shape)} at {c.address} {routes}".rstrip())
        return "\n".join(lines) + "\n"
