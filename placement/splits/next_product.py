"""Looking ahead: what a split leaves to the next op that moves its result.

A split that is quickest by itself may leave its result where the next product has to gather it from
everywhere. The ops in between that could run where the result lies are taken to do so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ...ir.graph import Graph
from ...ir.op import Op
from ..cost.fabric import joining
from ..plan.layout import Grid, Split
from .candidates import dense, enumerate_cuts, part_axis
from .choice import Choice, Limits, Site, Source
from .estimate import Demand, Share, arrival, cut_extents, demand, estimate, joining_parts
from .follow import follow
from .join import join_split
from .policy import Policy

MOST_FOLLOWED = 24  # tensors that a result is followed through by all of its ways


@dataclass(frozen=True)
class Ahead:
    """The next op with a sum of products, node number `node`, reached through `chain`.

    Each op of the chain comes with the operand that it follows. constant: by operand of `op`.
    """

    node: int = field(compare=False)
    chain: tuple[tuple[Op, int], ...]
    op: Op
    operand: int
    constant: tuple[bool, ...]


def ahead_of(graph: Graph, node: int, policy: Policy) -> Ahead | None:
    """What node's result goes into first that sums over an axis with weights or another tensor."""
    chain: list[tuple[Op, int]] = []
    tensor = graph.nodes[node].output
    for _ in range(policy.most_links):
        found: tuple[int, int] | None = None
        for i, j in graph.readers.get(tensor, ()):
            op = graph.nodes[i].op
            if op.reduced and len(set(graph.nodes[i].inputs)) > 1:
                return Ahead(
                    i, tuple(chain), op, j, tuple(t in graph.resident for t in graph.nodes[i].inputs)
                )
            if not op.reduced and found is None and _same_shape(graph, i, tensor):
                found = i, j
        if found is None:
            return None
        chain.append((graph.nodes[found[0]].op, found[1]))
        tensor = graph.nodes[found[0]].output
    return None


def nearest_product(graph: Graph, node: int, policy: Policy) -> Ahead | None:
    """As `ahead_of`, by any of the ways that a result goes on, the shortest; dimensions of 1 do not count."""
    ways: list[tuple[str, tuple[tuple[Op, int], ...]]] = [(graph.nodes[node].output, ())]
    for tensor, chain in ways:
        every = graph.readers.get(tensor, ())
        # Where an op reads a tensor twice, it runs where the elements lie that it reads in their order.
        once = {i: j for i, j in every if not _turned(graph, i, j)}
        for i, j in once.items():
            n, op = graph.nodes[i], graph.nodes[i].op
            if op.reduced and len(set(n.inputs)) > 1:
                return Ahead(i, chain, op, j, tuple(t in graph.resident for t in n.inputs))
            same = math.prod(graph.tensors[n.output].shape) == math.prod(graph.tensors[tensor].shape)
            if not op.reduced and same and len(chain) < policy.most_links and len(ways) < MOST_FOLLOWED:
                ways.append((n.output, (*chain, (op, j))))
    return None


def _turned(graph: Graph, node: int, operand: int) -> bool:
    """Whether a node reads another order of an operand's elements: no op runs where they lie."""
    return any(k < 0 for e in graph.nodes[node].op.reads[operand] for _, k in e.terms)


def _same_shape(graph: Graph, node: int, tensor: str) -> bool:
    return graph.tensors[graph.nodes[node].output].shape == graph.tensors[tensor].shape


@dataclass(frozen=True)
class Prospects:
    """Splits of the op ahead: what they need of the operand, and their cycles with every operand in place.

    limits, excess: what it may take, and how many times over that the splits are.
    """

    demand: Demand
    cycles: Any  # float [splits]
    limits: Limits
    excess: float

    @cached_property
    def least(self) -> float:
        return float(np.min(self.cycles, initial=np.inf))


def prospects(ahead: Ahead, site: Site, limits: Limits) -> Prospects:
    """The splits of the op ahead on a region that keep closest to the limits, the quickest of them first."""
    op, constant, wafer = ahead.op, ahead.constant, site.wafer
    c = enumerate_cuts(op, site.columns, site.rows, site.policy, limits.tight)
    cut, tiles = cut_extents(op, c, {})
    received = {j: 0.0 for j, fixed in enumerate(constant) if not fixed}
    joined = joining_parts(op, cut, wafer)
    cycles, resident, working = estimate(op, Share(tiles, tiles, 1), constant, received, joined, wafer)
    n = c.ways.shape[1]
    cycles, resident, working = (
        np.broadcast_to(np.asarray(v, float), (n,)) for v in (cycles, resident, working)
    )
    legal = np.broadcast_to(np.asarray(dense(op.write, tiles, cut)), (n,))
    excess = np.where(legal, limits.excess(resident, working), np.inf)
    least = float(excess.min()) * 1.01
    near = np.flatnonzero(legal & (excess <= least))
    best = near[np.argsort(cycles[near], kind="stable")[: site.policy.most_prospects]]
    d = demand(op, ahead.operand, c.axes, c.ways[:, best], 1, wafer)
    return Prospects(d, cycles[best], limits, least)


@dataclass(frozen=True, eq=False)
class Later:
    """What choices for an op leave to the op ahead, in cycles: `least` at least, where that has to move."""

    least: float
    cycles: Callable[[Choice], float]


NOTHING = Later(0.0, lambda choice: 0.0)
"""Left by an op that no product comes after."""


class Outlook:
    """What comes after each node of a graph, and what choices leave to it: one memory for a whole search.

    The same question has the same `Later`, so that a cache may have it in its key.
    """

    def __init__(self, graph: Graph, policy: Policy) -> None:
        self.graph = graph
        self.ahead = tuple(ahead_of(graph, i, policy) for i in range(len(graph.nodes)))
        self._prospects: dict[tuple[Ahead, Site, Limits], Prospects] = {}
        self._later: dict[tuple[Op, Ahead, Site, Limits], Later] = {}

    def later(self, node: int, site: Site, limits: Mapping[int, Limits]) -> Later:
        """What a node's choices at `site` leave. limits: by node; the op ahead may have the node's own."""
        ahead = self.ahead[node]
        if ahead is None:
            return NOTHING
        op, of = self.graph.nodes[node].op, limits.get(ahead.node, limits[node])
        key = op, ahead, site, of
        if key not in self._later:
            there = self._prospects.get(key[1:])
            if there is None:
                there = self._prospects[key[1:]] = prospects(ahead, site, of)
            self._later[key] = Later(there.least, _remembered(op, ahead, there, site))
        return self._later[key]


def _remembered(op: Op, ahead: Ahead, there: Prospects, site: Site) -> Callable[[Choice], float]:
    known: dict[tuple[Split, Grid], float] = {}

    def left(c: Choice) -> float:
        if not math.isfinite(c.cycles):
            return 0.0
        at = c.split, c.grid
        if at not in known:
            known[at] = cycles_ahead(ahead, op, c, there, site)
        return known[at]

    return left


def cycles_ahead(ahead: Ahead, op: Op, choice: Choice, p: Prospects, site: Site) -> float:
    """Estimated cycles of the op ahead, arrival included, once `op` has run as `choice` says."""
    split, grid = choice.split, choice.grid
    if choice.part:
        split, grid = join_split(op, split, choice.part, grid, site.policy, choice.roots)
    source = Source(grid, split, op.write, op.axes, 0, 0.0)
    for link, operand in ahead.chain:
        followed = follow(link, operand, source)
        if followed is None:
            source = Source.anywhere(0.0)
            break
        source = Source(followed[1], followed[0], link.write, link.axes, 0, 0.0)
    late = arrival(p.demand, source, site.wafer)
    return float(np.min(p.cycles + late, initial=_in_place(ahead, source, p, site)))


def _in_place(ahead: Ahead, source: Source, p: Prospects, site: Site) -> float:
    """Cycles of the op ahead where its operand lies; infinite where it cannot run there."""
    op = ahead.op
    found = follow(op, ahead.operand, source) if source.known else None
    if found is None:
        return float("inf")
    split, grid = found
    part, wafer = part_axis(op, split), site.wafer
    received = {j: 0.0 for j, fixed in enumerate(ahead.constant) if not fixed and j != ahead.operand}

    def joined(wavelets: Any) -> Any:
        return joining(wafer, split, part, grid, wavelets) if part else 0.0

    cycles, resident, working = estimate(op, Share.of(op, split), ahead.constant, received, joined, wafer)
    return float(cycles) if p.limits.excess(resident, working) <= p.excess else float("inf")
