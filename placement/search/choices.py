"""Splits and latencies of groups on regions of a given size, chosen op by op and remembered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...ir.graph import Graph
from ...ir.op import Op
from ..build.residents import alike
from ..machine.wafer import Wafer
from ..plan.layout import Grid, Split
from ..splits.candidates import uncut
from ..splits.choice import Choice, Limits, Source
from ..splits.choose import choose
from ..splits.join import join_split
from ..splits.next_product import Ahead, Prospects, cycles_ahead, prospects
from .groups import Group

RESIDENT, WORKING = 0.62, 0.30  # of SRAM: what all constants may take, and one op's working set
BESIDE = 0.8  # of that set, where another entry's op is split alike: two of its results may be alive
SMALL = 256  # bytes that any op may keep resident: a few numbers of a bias are no reason to move it


class Estimator:
    """Splits and latencies of groups on regions of a given size, remembered by op and sources."""

    def __init__(self, graph: Graph, wafer: Wafer, others: Sequence[Graph] = ()) -> None:
        self.graph, self.wafer = graph, wafer
        self._alike = alike(graph, others)
        self._choices: dict[Any, Choice] = {}
        self._prospects: dict[Any, Prospects] = {}

    def choice(
        self,
        op: Op,
        sources: Sequence[Source | None],
        region: int,
        columns: int,
        rows: int,
        limits: Limits,
        exact: bool = True,
        ahead: Ahead | None = None,
        limits_ahead: Limits | None = None,
    ) -> Choice:
        """The split of `op` on region number `region` of columns x rows.

        ahead: where its result goes next, and within which limits.
        """
        local = tuple(
            None
            if s is None
            else replace(s, region=0 if s.region == region else 1, distance=round(s.distance, -1))
            for s in sources
        )
        # Equal ops whose sources lie alike are split alike, wherever that is in the region.
        near = [s.grid for s in local if s is not None and s.region == 0 and s.write]
        x, y = min((g.x for g in near), default=0), min((g.y for g in near), default=0)
        alike = tuple(s if s is None else replace(s, grid=_moved(s.grid, -x, -y)) for s in local)
        key = (op, alike, columns, rows, limits, exact, ahead, limits_ahead)
        if (known := self._choices.get(key)) is not None:
            grid = _moved(known.grid, x, y)
            box = grid.box
            if min(box[:2]) >= 0 and box[2] <= columns and box[3] <= rows:
                return replace(known, grid=grid)
            key = (*key, x, y)
        if key not in self._choices:
            rest: tuple[Any, ...] = ()
            if ahead is not None and limits_ahead is not None:
                there = self._ahead(ahead, columns, rows, limits_ahead)
                rest = self._later(ahead, op, there), there.least
            c = choose(op, local, 0, columns, rows, limits, self.wafer, exact, *rest)
            self._choices[key] = replace(c, grid=_moved(c.grid, -x, -y))
        c = self._choices[key]
        return replace(c, grid=_moved(c.grid, x, y))

    def _later(self, ahead: Ahead, op: Op, there: Prospects) -> Callable[[Choice], float]:
        def later(c: Choice) -> float:
            return cycles_ahead(ahead, op, c, there, self.wafer) if math.isfinite(c.cycles) else 0.0

        return later

    def _ahead(self, ahead: Ahead, columns: int, rows: int, limits: Limits) -> Prospects:
        key = (ahead, columns, rows, limits)
        if key not in self._prospects:
            self._prospects[key] = prospects(ahead, columns, rows, limits, self.wafer)
        return self._prospects[key]

    def limits(self, nodes: Sequence[int]) -> dict[int, Limits]:
        """What each node may keep resident, in proportion to its constants, and use while it runs."""
        graph = self.graph
        constants = {
            i: sum(graph.tensors[t].bytes for t in graph.nodes[i].inputs if t in graph.resident)
            for i in nodes
        }
        total = max(1, sum(constants.values()))
        resident, working = RESIDENT * self.wafer.sram_bytes, WORKING * self.wafer.sram_bytes
        return {
            i: Limits(
                round(resident * c / total) + SMALL,
                working * (BESIDE if i in self._alike else 1.0),
                False,
                uncut(graph, i),
                self._alike.get(i),
            )
            for i, c in constants.items()
        }

    def latency(self, groups: Sequence[Group], columns: int, rows: int) -> tuple[float, bool]:
        """(estimated cycles, whether each op keeps to its limits) of groups on one region."""
        sources: dict[str, Source] = {}
        limits = self.limits([i for g in groups for i in g.nodes])
        total, fits = 0.0, True
        for i in (i for g in groups for i in g.nodes):
            n = self.graph.nodes[i]
            if n.output in self.graph.resident:
                continue  # a cache is filled where it is read
            held = [self._source(t, sources) for t in n.inputs]
            c = self.choice(n.op, held, 0, columns, rows, limits[i], exact=False)
            total += c.cycles
            fits = (
                fits and c.resident <= limits[i].resident * 1.001 and c.working <= limits[i].working * 1.001
            )
            split, grid = c.split, c.grid
            if c.part:
                split, grid = join_split(n.op, split, c.part, grid)
            shape = self.graph.tensors[n.output].shape
            sources[n.output] = Source(grid, split, n.op.write, n.op.axes, 0, 0.0, shape)
        return total, fits

    def _source(self, tensor: str, sources: Mapping[str, Source]) -> Source | None:
        if tensor in self.graph.resident:
            return None
        return sources.get(tensor, Source(Grid(1, 1), Split(), (), (), 1, 20.0))


def _moved(grid: Grid, x: int, y: int) -> Grid:
    return replace(grid, x=grid.x + x, y=grid.y + y)
