"""The splits that the planner weighs for a step, with its prices: why this one and not another.

The question is asked again as it stands in the plan, with operands where they lie. What a choice leaves to
the steps after it, which the search also counts, is not in these prices; so the split that a plan has need
not be the cheapest of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ...placement.plan.plan import Plan, Step
from ...placement.search.choices import Estimator
from ...placement.splits.choice import Limits, Question, Site, Source
from ...placement.splits.choose import considered, priced
from ...placement.splits.policy import POLICY
from ..errors import shown

MOST_SHOWN = 8  # splits of a step
MOST_ATTEMPTS = 200  # of a search that are shown
MOST_ASKED = 96  # different questions of a plan that are asked for a report


@dataclass(frozen=True)
class Considered:
    """A split. cycles: with all operands' ways, infinite where it cannot be; over: times over its share
    of the memory, 1 within; chosen: the plan has it.
    """

    split: str
    grid: str
    cycles: float
    over: float
    chosen: bool


class Weighing:
    """The questions of a plan's steps. Equal ones are answered once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._writers: defaultdict[str, list[Step]] = defaultdict(list)
        for s in plan.steps:
            if s.kind != "update":
                self._writers[s.tensor].append(s)
        self._limits: dict[int, Limits] = {}
        self._answers: dict[Any, list[Considered]] = {}
        self._estimator = Estimator(plan.graph, plan.wafer, POLICY)
        nodes: defaultdict[int, list[int]] = defaultdict(list)
        for s in plan.steps:
            if s.node >= 0 and s.kind == "task":
                nodes[s.region].append(s.node)
        for own in nodes.values():
            self._limits |= self._estimator.limits(sorted(set(own)))

    def of(self, step: Step, most: float = math.inf) -> list[Considered]:
        """The cheapest first, the plan's own among them; none for what is no node of the graph's.

        most: different questions that are answered; none for a step whose question is one more.
        """
        if step.kind != "task" or step.node < 0 or step.rides >= 0:
            return []
        q = self._question(step)
        key = q, step.split, step.grid
        if key not in self._answers:
            if len(self._answers) >= most:
                return []
            self._answers[key] = self._asked(q, step)
        return self._answers[key]

    def _asked(self, q: Question, step: Step) -> list[Considered]:
        own = priced(q, step.split, step.grid)
        rows = {(str(c.split), c.grid.columns, c.grid.rows): c for c in reversed(considered(q))}
        rows[str(step.split), step.grid.columns, step.grid.rows] = own
        found = [
            Considered(str(c.split), f"{c.grid.columns}x{c.grid.rows}", c.cycles, q.excess(c), c is own)
            for c in sorted(rows.values(), key=lambda c: (q.excess(c), c.cycles))
        ]
        kept = found[:MOST_SHOWN]
        return kept if any(c.chosen for c in kept) else [*kept[:-1], *(c for c in found if c.chosen)]

    def _question(self, step: Step) -> Question:
        """Sources are told from the plan; of one that lies where it is read, too."""
        node, region = self.plan.graph.nodes[step.node], self.plan.regions[step.region]
        site = Site(step.region, region.columns, region.rows, self.plan.wafer, POLICY)
        sources = tuple(self._source(t, step) for t in node.inputs)
        return Question(node.op, sources, site, self._limits[step.node])

    def _source(self, tensor: str, step: Step) -> Source | None:
        if tensor in self.plan.graph.resident:
            return None
        made = [s for s in self._writers[tensor] if s.position < step.position]
        shape = self.plan.graph.tensors[tensor].shape
        if not made:
            return Source.anywhere(0.0, shape)
        s, here, there = made[-1], *(self.plan.regions[r] for r in (step.region, made[-1].region))
        far = abs(here.x + here.width / 2 - there.x - there.width / 2)
        far += abs(here.y + here.height / 2 - there.y - there.height / 2)
        return Source(s.grid, s.split, s.write, s.op.axes, s.region, far, shape)


def considered_rows(rows: list[Considered]) -> list[list[str]]:
    """Rows of a table: split, grid, cycles, what is to be said of it."""
    least = min((c.cycles for c in rows if c.over <= 1), default=math.inf)
    out: list[list[str]] = []
    for c in rows:
        cycles = f"{c.cycles:,.0f}" if math.isfinite(c.cycles) else "not possible"
        words = ["chosen"] if c.chosen else []
        words += [f"{c.over:.1f} times its share of the memory"] if c.over > 1.05 else []
        more = c.cycles - least
        words += [f"{more:+,.0f}"] if not words and 0 < more < math.inf else []
        out.append([c.split or "uncut", c.grid, cycles, ", ".join(words)])
    return out


def attempts(text: str) -> list[list[str]]:
    """Of a search's plans, one a line: in which way, on what, and what came of it."""
    out: list[list[str]] = []
    for line in text.splitlines()[:MOST_ATTEMPTS]:
        way, _, rest = line.partition(": ")
        what, _, came = rest.rpartition(": ")
        out.append([shown(part, 200) for part in (way, what, came)])
    return out
