"""Budgets: what each op may keep on a core and use while it runs, so that all of them fit together.

Shares in proportion to an op's constants treat a small weight that would gain much from being held
several times like a large one that gains nothing. Here residency has a price in cycles per byte, the
same for all ops of a region, raised until what they keep leaves room for the largest working set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.graph import Graph
from ...ir.op import Op
from ..build.companions import ALONE, Companions
from ..splits.candidates import Candidates, dense, enumerate_cuts, uncut
from ..splits.choice import Limits, Site
from ..splits.estimate import Share, cut_extents, estimate, joining_parts
from ..splits.policy import Policy
from .shared_constants import Partner, followed, partners


@dataclass(frozen=True)
class Offer:
    """Splits of one op worth their bytes: cycles with operands in place, bytes kept and in use. [splits]

    share: bytes kept; of a cache on a part of the cores, as if on all: other layers' lie on other parts.
    """

    cycles: Any
    resident: Any
    working: Any
    share: Any


@dataclass(frozen=True)
class Need:
    """What an op asks of a budget; equal ones are offered the same.

    kept: by operand, whether it is a constant of its own; None: it is another op's, which lies there anyway.
    uncut, alike: see `Limits`. others: readers of the same constants: they are split in the same way, or each
    keeps its own.
    """

    op: Op
    kept: tuple[bool | None, ...]
    uncut: tuple[str, ...]
    alike: Op | None
    others: tuple[Partner, ...]

    def limits(self, resident: float, working: float) -> Limits:
        return Limits(resident, working, True, self.uncut, self.alike)


def offer(need: Need, site: Site) -> Offer:
    """What the splits of an op at a site cost.

    Cuts along time are among them for ops that keep something: they make room for it.
    """
    op, others, policy = need.op, need.others, site.policy
    c = enumerate_cuts(op, site.columns, site.rows, policy, True, need.uncut)
    times: list[dict[str, int]] = [{}]
    if any(need.kept):
        times += [{a: w} for a in c.axes for w in policy.offered_time_ways if w <= op.size[a]]
    apart = [_figures(need, c, t, (), site) for t in times]
    together = [_figures(need, c, {}, others, site)] if others else []
    cycles, resident, working, cores = np.concatenate([*apart, *together], axis=1)
    share = resident
    if need.uncut:  # rectangles of more than half of the cores overlap
        share = resident * np.where(2 * cores <= site.cores, cores / site.cores, 1)
    if others:
        alone = sum(f.shape[1] for f in apart)
        share = share * np.where(np.arange(len(share)) < alone, 1 + len(others), 1)
    return Offer(cycles, resident, working, share)


def _figures(
    need: Need, c: Candidates, time: Mapping[str, int], others: Sequence[Partner], site: Site
) -> Any:
    """[4, legal splits]: cycles, bytes kept and in use, and cores, when cut along `time` besides.

    others: ops that must be able to follow.
    """
    op, kept, wafer = need.op, need.kept, site.wafer
    n = c.ways.shape[1]
    cut, tiles = cut_extents(op, c, time)
    held = {a: extent * time.get(a, 1) for a, extent in tiles.items()}
    space = {a: ways // time.get(a, 1) for a, ways in cut.items()}
    received = {j: 0.0 for j, own in enumerate(kept) if own is False}
    joined = joining_parts(op, space, wafer)
    legal = np.broadcast_to(np.asarray(dense(op.write, tiles, cut)), (n,))
    legal = legal & np.all([cut[a] <= op.size[a] for a in time] or [np.ones(n, np.bool_)], axis=0)
    steps = int(np.prod(list(time.values())))
    own = [k is True for k in kept]
    cycles, resident, working = estimate(op, Share(tiles, held, steps), own, received, joined, wafer)
    working = need.limits(0, 0).in_use(op, held, working)
    if others:
        resident = np.broadcast_to(np.asarray(resident, float), (n,))
        sparing = legal & (resident <= site.policy.sparing * np.min(resident, initial=np.inf, where=legal))
        least = followed(op, c, sparing, others, site)
        legal, working = np.isfinite(least), np.maximum(working, least)
    figures = cycles, resident, working, c.ways.prod((0, 2))
    return np.stack([np.broadcast_to(np.asarray(v, float), (n,))[legal] for v in figures])


@dataclass(frozen=True)
class Budget:
    """The offers of a region's ops, and what else lies on a core while they run.

    keys: what each node needs. carried: by node, bytes on each core of other live tensors, spread evenly.
    """

    offers: Mapping[Need, Offer]
    keys: Mapping[int, Need]
    carried: Mapping[int, float]
    policy: Policy

    def limits(self, nbytes: float) -> dict[int, Limits]:
        """Each node's limits when all that they keep and the largest working set have `nbytes` of a core.

        Of several sizes of working sets the one with the least cycles is taken.
        """
        best: tuple[dict[Need, float], float] = {}, 0.0
        least = (np.inf, np.inf)
        counts = dict.fromkeys(self.offers, 0)
        most = dict.fromkeys(self.offers, 0.0)
        for i, k in self.keys.items():
            counts[k] += 1
            most[k] = max(most[k], self.carried[i])
        for share in self.policy.working_shares:
            working = share * nbytes
            picked, total, cycles = self._picked(counts, most, nbytes - working, working)
            over = max(0.0, total - (nbytes - working))
            if (over, cycles) < least:
                least = over, cycles
                best = picked, max(working, nbytes - total)
        kept, left = best
        slack = self.policy.slack
        return {i: k.limits(kept[k] * slack, max(left - self.carried[i], 0.0)) for i, k in self.keys.items()}

    def _picked(
        self, counts: Mapping[Need, int], carried: Mapping[Need, float], room: float, working: float
    ) -> tuple[dict[Need, float], float, float]:
        """(bytes that each op keeps, their sum, cycles) at the lowest price that keeps to `room`."""
        fronts = {k: _front(o, working - carried[k]) for k, o in self.offers.items()}
        prices = np.geomspace(*self.policy.prices)
        at: Any = np.zeros(len(prices))
        cycles: Any = np.zeros(len(prices))
        chosen: dict[Need, Any] = {}
        for k, (spent, kept, share) in fronts.items():
            pick = np.argmin(spent + prices[:, None] * share, axis=1)
            chosen[k] = kept[pick]
            at = at + counts[k] * share[pick]
            cycles = cycles + counts[k] * spent[pick]
        fitting = np.flatnonzero(at <= room)
        p = int(fitting[0]) if len(fitting) else len(prices) - 1
        return {k: float(v[p]) for k, v in chosen.items()}, float(at[p]), float(cycles[p])


def _front(o: Offer, working: float) -> tuple[Any, Any, Any]:
    """(cycles, resident bytes, their share) of the splits that none beats in cycles and share, least first.

    Those within `working` bytes; where there is none, those that use least.
    """
    fits = o.working <= max(working, float(o.working.min()))
    cycles, resident, share = o.cycles[fits], o.resident[fits], o.share[fits]
    order = np.lexsort((cycles, resident, share))
    cycles, resident, share = cycles[order], resident[order], share[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(cycles)[:-1]])
    better = cycles < before
    return cycles[better], resident[better], share[better]


def budget(graph: Graph, nodes: Sequence[int], site: Site, companions: Companions = ALONE) -> Budget:
    """The offers of `nodes` at one site; of a constant with several readers the first one keeps it."""
    own, seen = graph.in_place, set[str]()
    keys: dict[int, Need] = {}
    offers: dict[Need, Offer] = {}
    with_others, alike = partners(graph, site), companions.alike(graph)
    for i in nodes:
        n = graph.nodes[i]
        if n.output in own:
            continue  # it runs where its cache is read
        kept = tuple(None if t in seen else t in graph.resident for t in n.inputs)
        seen.update(t for t in n.inputs if t in graph.resident)
        keys[i] = need = Need(n.op, kept, uncut(graph, i), alike.get(i), with_others.get(i, ()))
        if need not in offers:
            offers[need] = offer(need, site)
    carried = {i: b / site.cores for i, b in _alive(graph, nodes).items()}
    return Budget(offers, keys, carried, site.policy)


def _alive(graph: Graph, nodes: Sequence[int]) -> dict[int, int]:
    """Bytes of all run-time tensors, but for its own result, that are needed when a node runs or later.

    Not of caches: what holds them is among what is kept.
    """
    last = {t: i for i, n in enumerate(graph.nodes) for t in n.inputs}
    last |= dict.fromkeys((*graph.results, *(past for past, _ in graph.states)), len(graph.nodes))
    ends: dict[int, list[str]] = {}
    for t, i in last.items():
        ends.setdefault(i + 1, []).append(t)
    pasts = {past for past, _ in graph.states}  # those are kept by who reads them
    alive = {t: graph.tensors[t].bytes for t in graph.inputs if t in last and t not in pasts}
    total, out = sum(alive.values()), dict[int, int]()
    for i, n in enumerate(graph.nodes):
        total -= sum(alive.pop(t, 0) for t in ends.get(i, ()))
        out[i] = total - alive.get(n.output, 0)
        if n.output not in alive and n.output not in graph.in_place and last.get(n.output, -1) > i:
            alive[n.output] = graph.tensors[n.output].bytes
            total += alive[n.output]
    return {i: out[i] for i in nodes}
