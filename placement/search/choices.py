"""Splits and latencies of groups on regions of a given size, chosen op by op and remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...ir.graph import Graph
from ..build.companions import ALONE, Companions
from ..machine.wafer import Wafer
from ..plan.layout import Grid
from ..splits.candidates import uncut
from ..splits.choice import Choice, Limits, Question, Site, Source
from ..splits.choose import choose, estimated
from ..splits.join import left
from ..splits.next_product import NOTHING, Later
from ..splits.policy import Policy
from .groups import Group

FAR = 20.0  # hops that what another group makes is taken to come


class Estimator:
    """Splits and latencies of groups on regions of a given size, remembered by question."""

    def __init__(self, graph: Graph, wafer: Wafer, policy: Policy, companions: Companions = ALONE) -> None:
        self.graph, self.wafer, self.policy = graph, wafer, policy
        self._alike = companions.alike(graph)
        self._choices: dict[Any, Choice] = {}

    def choice(self, q: Question, later: Later | None = NOTHING) -> Choice:
        """The best split. later: what choices leave to the op ahead; None: by estimates alone."""
        site = q.site
        local = tuple(
            s and replace(s, region=0 if q.near(s) else 1, distance=round(s.distance, -1)) for s in q.sources
        )
        # Equal ops whose sources lie alike are split alike, wherever that is in the region.
        near = [s.grid for s in local if s is not None and s.region == 0 and s.known]
        x, y = min((g.x for g in near), default=0), min((g.y for g in near), default=0)
        moved = tuple(s and replace(s, grid=_moved(s.grid, -x, -y)) for s in local)
        here = replace(site, region=0)
        key: Any = Question(q.op, moved, here, q.limits), later
        if (known := self._choices.get(key)) is not None:
            grid = _moved(known.grid, x, y)
            box = grid.box
            if min(box[:2]) >= 0 and box[2] <= site.columns and box[3] <= site.rows:
                return replace(known, grid=grid)
            key = (*key, x, y)
        if key not in self._choices:
            asked = Question(q.op, local, here, q.limits)
            c = estimated(asked) if later is None else choose(asked, later)
            self._choices[key] = replace(c, grid=_moved(c.grid, -x, -y))
        c = self._choices[key]
        return replace(c, grid=_moved(c.grid, x, y))

    def limits(self, nodes: Sequence[int]) -> dict[int, Limits]:
        """What each node may keep resident, in proportion to its constants, and use while it runs."""
        graph, policy, sram = self.graph, self.policy, self.wafer.sram_bytes
        constants = {
            i: sum(graph.tensors[t].bytes for t in graph.nodes[i].inputs if t in graph.resident)
            for i in nodes
        }
        total = max(1, sum(constants.values()))
        resident, working = policy.resident_share * sram, policy.working_share * sram
        return {
            i: Limits(
                round(resident * c / total) + policy.small_bytes,
                working * (policy.beside_share if i in self._alike else 1.0),
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
        site = Site(0, columns, rows, self.wafer, self.policy)
        total, fits, slack = 0.0, True, self.policy.slack
        for i in (i for g in groups for i in g.nodes):
            n, own = self.graph.nodes[i], limits[i]
            if n.output in self.graph.resident:
                continue  # a cache is filled where it is read
            c = self.choice(
                Question(n.op, tuple(self._source(t, sources) for t in n.inputs), site, own), None
            )
            total += c.cycles
            fits = fits and c.resident <= own.resident * slack and c.working <= own.working * slack
            sources[n.output] = left(n.op, c, self.policy, self.graph.tensors[n.output].shape)
        return total, fits

    def _source(self, tensor: str, sources: Mapping[str, Source]) -> Source | None:
        if tensor in self.graph.resident:
            return None
        return sources.get(tensor, Source.anywhere(FAR))


def _moved(grid: Grid, x: int, y: int) -> Grid:
    return replace(grid, x=grid.x + x, y=grid.y + y)
