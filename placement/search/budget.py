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
from ..machine.wafer import Wafer
from ..splits.candidates import Candidates, dense, enumerate_cuts, uncut
from ..splits.choice import Limits
from ..splits.estimate import cut_extents, estimate, joining_parts
from .shared_constants import Partner, followed, partners

# Of the bytes shared out: working sets tried.
WORKING = (0.015, 0.03, 0.06, 0.1, 0.15, 0.22, 0.3, 0.4, 0.5, 0.6)
PLACES = 8  # where the caches of different layers may lie, each on cores of its own
SLACK = 1.001  # a choice may keep this much more than the one that its limits come from
TIME_WAYS = (4, 16, 64, 256)  # cuts of one axis along time that are weighed
SPARING = 1.25  # times the fewest bytes: what a constant with several readers may take
PRICES = np.geomspace(1e-4, 1e4, 49)  # cycles per byte


@dataclass(frozen=True)
class Offer:
    """Splits of one op worth their bytes: cycles with operands in place, bytes kept and in use. [splits]

    share: bytes kept; of a cache on a part of the cores, as if on all: other layers' lie on other parts.
    """

    cycles: Any
    resident: Any
    working: Any
    share: Any


def offer(
    op: Op,
    kept: Sequence[bool | None],
    uncut: tuple[str, ...],
    alike: Op | None,
    others: Sequence[Partner],
    columns: int,
    rows: int,
    wafer: Wafer,
) -> Offer:
    """What the splits of `op` on a region cost.

    kept: by operand, whether it is a constant of its own; None: it is another op's, which lies there anyway.

    uncut, alike: see `Limits`. others: readers of the same constants: they are split in the same way, or each
    keeps its own.

    Cuts along time are among them for ops that keep something: they make room for it.
    """
    c = enumerate_cuts(op, columns, rows, True, uncut)
    times: list[dict[str, int]] = [{}]
    if any(kept):
        times += [{a: w} for a in c.axes for w in TIME_WAYS if w <= op.size[a]]
    limits = Limits(0, 0, True, uncut, alike)
    apart = [_figures(op, c, t, kept, limits, (), wafer) for t in times]
    together = [_figures(op, c, {}, kept, limits, others, wafer)] if others else []
    cycles, resident, working, cores = np.concatenate([*apart, *together], axis=1)
    share = resident
    if uncut:  # rectangles of more than half of the cores overlap
        share = resident * np.where(
            2 * cores <= columns * rows, np.maximum(cores / (columns * rows), 1 / PLACES), 1
        )
    if others:
        alone = sum(f.shape[1] for f in apart)
        share = share * np.where(np.arange(len(share)) < alone, 1 + len(others), 1)
    return Offer(cycles, resident, working, share)


def _figures(
    op: Op,
    c: Candidates,
    time: Mapping[str, int],
    kept: Sequence[bool | None],
    limits: Limits,
    others: Sequence[Partner],
    wafer: Wafer,
) -> Any:
    """[4, legal splits]: cycles, bytes kept and in use, and cores, when cut along `time` besides.

    others: ops that must be able to follow.
    """
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
    cycles, resident, working = estimate(op, tiles, held, steps, own, received, joined, wafer)
    working = limits.in_use(op, held, working)
    if others:
        resident = np.broadcast_to(np.asarray(resident, float), (n,))
        sparing = legal & (resident <= SPARING * np.min(resident, initial=np.inf, where=legal))
        least = followed(op, c, sparing, others, wafer)
        legal, working = np.isfinite(least), np.maximum(working, least)
    figures = cycles, resident, working, c.ways.prod((0, 2))
    return np.stack([np.broadcast_to(np.asarray(v, float), (n,))[legal] for v in figures])


@dataclass(frozen=True)
class Budget:
    """The offers of a region's ops, and what else lies on a core while they run.

    keys: each node's offer. carried: by node, bytes on each core of other live tensors, spread evenly.
    """

    offers: Mapping[Any, Offer]
    keys: Mapping[int, Any]
    carried: Mapping[int, float]

    def limits(self, nbytes: float) -> dict[int, Limits]:
        """Each node's limits when all that they keep and the largest working set have `nbytes` of a core.

        Of several sizes of working sets the one with the least cycles is taken.
        """
        best: tuple[dict[Any, float], float] = {}, 0.0
        least = (np.inf, np.inf)
        counts = dict.fromkeys(self.offers, 0)
        most = dict.fromkeys(self.offers, 0.0)
        for i, k in self.keys.items():
            counts[k] += 1
            most[k] = max(most[k], self.carried[i])
        for share in WORKING:
            working = share * nbytes
            picked, total, cycles = self._picked(counts, most, nbytes - working, working)
            over = max(0.0, total - (nbytes - working))
            if (over, cycles) < least:
                least = over, cycles
                best = picked, max(working, nbytes - total)
        kept, left = best
        return {
            i: Limits(kept[k] * SLACK, max(left - self.carried[i], 0.0), True, k[2], k[3])
            for i, k in self.keys.items()
        }

    def _picked(
        self, counts: Mapping[Any, int], carried: Mapping[Any, float], room: float, working: float
    ) -> tuple[dict[Any, float], float, float]:
        """(bytes that each op keeps, their sum, cycles) at the lowest price that keeps to `room`."""
        fronts = {k: _front(o, working - carried[k]) for k, o in self.offers.items()}
        at: Any = np.zeros(len(PRICES))
        cycles: Any = np.zeros(len(PRICES))
        chosen: dict[Any, Any] = {}
        for k, (spent, kept, share) in fronts.items():
            pick = np.argmin(spent + PRICES[:, None] * share, axis=1)
            chosen[k] = kept[pick]
            at = at + counts[k] * share[pick]
            cycles = cycles + counts[k] * spent[pick]
        fitting = np.flatnonzero(at <= room)
        p = int(fitting[0]) if len(fitting) else len(PRICES) - 1
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


def budget(
    graph: Graph,
    nodes: Sequence[int],
    columns: int,
    rows: int,
    wafer: Wafer,
    alike: Mapping[int, Op] | None = None,
) -> Budget:
    """The offers of `nodes` on one region; of a constant with several readers the first one keeps it."""
    own, seen = graph.in_place, set[str]()
    keys: dict[int, Any] = {}
    offers: dict[Any, Offer] = {}
    with_others = partners(graph, columns, rows)
    for i in nodes:
        n = graph.nodes[i]
        if n.output in own:
            continue  # it runs where its cache is read
        kept = tuple(None if t in seen else t in graph.resident for t in n.inputs)
        seen.update(t for t in n.inputs if t in graph.resident)
        fixed, other = uncut(graph, i), (alike or {}).get(i)
        others = with_others.get(i, ())
        keys[i] = key = (n.op, kept, fixed, other, others)
        if key not in offers:
            offers[key] = offer(n.op, kept, fixed, other, others, columns, rows, wafer)
    return Budget(offers, keys, {i: b / (columns * rows) for i, b in _alive(graph, nodes).items()})


def _alive(graph: Graph, nodes: Sequence[int]) -> dict[int, int]:
    """Bytes of all run-time tensors, but for its own result, that are needed when a node runs or later.

    Not of caches: what holds them is among what is kept.
    """
    last = {t: i for i, n in enumerate(graph.nodes) for t in n.inputs}
    last |= dict.fromkeys((*graph.results, *(past for past, _ in graph.states)), len(graph.nodes))
    alive = set(graph.inputs) - {past for past, _ in graph.states}  # those are kept by who reads them
    out: dict[int, int] = {}
    for i, n in enumerate(graph.nodes):
        alive = {t for t in alive if last.get(t, -1) >= i}
        out[i] = sum(graph.tensors[t].bytes for t in alive if t != n.output)
        alive |= {n.output} - graph.in_place.keys()
    return {i: out[i] for i in nodes}
