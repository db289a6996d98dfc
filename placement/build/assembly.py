"""What a plan is made of while it is built: steps, buffers and constants, added one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ...ir.affine import Access
from ...ir.dtypes import DType
from ...ir.graph import Graph, Tensor
from ...ir.op import Op
from ..machine.wafer import Wafer
from ..plan.layout import Grid, Layout, Region, Split, layout, row_order
from ..plan.move import Move
from ..plan.plan import Buffer, Role, Step
from ..splits.choice import Source
from ..splits.policy import Policy
from .companions import Residents

MOST_WORK = 1 << 62  # of a reader whose wish is not to be overruled


@dataclass(frozen=True)
class Tiling:
    """An op in tiles on the cores of a grid.

    part: the reduced axis cut in space, "" for none. lane: the axis that its vectors run along, "" for none.
    roots: of a line that joins partial results, as `Choice` has them.
    """

    op: Op
    region: int
    grid: Grid
    split: Split
    part: str = ""
    lane: str = ""
    roots: int = 0

    @staticmethod
    def of(op: Op, region: int, grid: Grid, split: Split, part: str = "", roots: int = 0) -> Tiling:
        """The tiling with the lane that suits its tiles."""
        return Tiling(op, region, grid, split, part, op.lane_axis(split.extents(op.axes)), roots)

    def layout(self, access: Access, merge_time: bool = False) -> Layout:
        """What each core has of a tensor seen through `access`, its partial results left aside."""
        return layout(access, self.op.axes, self.split, merge_time=merge_time)


class Lies(NamedTuple):
    """Where an input lies: its region's number, how it is cut, by `tensor_axes`' names, and its cores."""

    region: int
    split: Split
    grid: Grid


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
    lies: Mapping[str, Lies]  # where inputs are to lie
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

    def keep(self, number: int) -> None:
        """Counts a buffer among those that its cores keep."""
        b = self.buffers[number]
        r = self.regions[b.region]
        used = self.resident.setdefault(b.region, np.zeros((r.rows, r.columns), np.int64))
        _, _, x1, y1 = b.grid.box
        used[b.grid.y : y1 : b.grid.dy, b.grid.x : x1 : b.grid.dx] += b.bytes

    def buffer(
        self, name: str, role: Role, on: Tiling, dtype: DType, held: Layout, innermost: int | None
    ) -> int:
        """The number of a new buffer for the largest tile of `held` on the cores of a tiling.

        innermost: the dimension whose elements are neighbours in memory; None for the last one.
        """
        number = len(self.buffers)
        shape, order = tuple(p.extent for p in held), row_order(len(held), innermost)
        self.buffers.append(Buffer(number, name, role, on.region, on.grid, dtype, shape, order))
        return number

    def writing(self, tensor: str) -> list[Step]:
        """The steps so far that write a tensor."""
        return [self.steps[i].step for i in self.writers[tensor]]

    def source(self, tensor: str, region: int) -> Source | None:
        """Where a run-time tensor lies, for choosing splits; None for a constant."""
        if tensor in self.graph.constants:
            return None
        steps = self.writing(tensor)
        s = steps[0]
        a, b = self.regions[s.region], self.regions[region]
        far = abs(a.x + a.width / 2 - b.x - b.width / 2) + abs(a.y + a.height / 2 - b.y - b.height / 2)
        shape = self.graph.tensors[tensor].shape
        if len(steps) > 1:
            return Source.anywhere(far, shape)
        return Source(s.grid, s.split, s.write, s.op.axes, s.region, far, shape)

    def add(self, step: Step, temporary: Sequence[int] = ()) -> int:
        """The number of a new step, noted with all that it reads and writes.

        temporary: buffers that live only while it runs. An update writes no tensor anew.
        """
        number = len(self.steps)
        self.steps.append(_Draft(replace(step, number=number), list(temporary)))
        if step.kind != "update":
            self.writers.setdefault(step.tensor, []).append(number)
        for o in step.operands:
            self.users.setdefault(o.buffer, []).append(number)
            for m in o.moves:
                self.users.setdefault(m.source, []).append(number)
        for m in step.moves:
            self.users.setdefault(m.source, []).append(number)
        self.users.setdefault(step.result, []).append(number)
        return number
