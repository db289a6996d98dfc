"""Another entry of a program: how it lies beside the first one, whose states and, mostly, weights it shares.

What was split for one token a call suits a call of many badly. So plans are made that are bound to what the
first entry keeps in several degrees, and the one of fewest cycles is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...ir.affine import access_axes
from ...ir.graph import Graph, Node
from ...ir.op import Op
from ..build.assemble import assemble
from ..build.companions import Companions
from ..build.regions import Ground
from ..build.routes import routed
from ..cost.timing import simulate
from ..plan.layout import Cut, Grid, Split
from ..plan.plan import Plan, Step
from ..splits.candidates import part_axis
from ..splits.choice import Choice, Question, Site, Source, tile_elements
from ..splits.follow import follow
from ..splits.policy import POLICY, Policy
from .choices import Estimator
from .explain import DoesNotFit, explain

Read = tuple[str, str, int]  # a tensor, the name of an op that reads it, and as which operand


@dataclass(frozen=True)
class Ties:
    """What binds an op to where the first entry keeps what it reads.

    loose: bytes below which a constant does not: it may lie a second time. caches: whether caches do, or are
    moved to where their readers run. share, working: of the room beside what is kept, what the operands of a
    bound op and what any other op may take while they run. copies: what second copies of constants may take.
    """

    share: float
    working: float
    loose: float = 0
    caches: bool = True
    copies: float = 0.0


@dataclass
class Alike:
    """Splits for the nodes of another entry that read what the first entry's plan keeps."""

    graph: Graph
    first: Plan
    ties: Ties
    taken: int = 0  # bytes on a core that entries between keep
    _readers: dict[Read, list[Step]] = field(default_factory=lambda: {})
    room: float = 0.0

    def __post_init__(self) -> None:
        resident = self.first.graph.resident
        for s in self.first.steps:
            for j, o in enumerate(s.operands):
                if s.kind == "task" and o.tensor in resident:
                    self._readers.setdefault((o.tensor, s.op.name, j), []).append(s)
        kept = [b for b in self.first.buffers if b.stays and b.over < 0]
        fullest = max((b.address + b.bytes for b in kept), default=0)
        self.room = max(0.0, self.first.wafer.sram_bytes - fullest - self.taken)

    def choice(self, node: int) -> Choice | None:
        """The split with which the node reads the largest tensor that it can where the first entry keeps it,
        cut along time besides where the tiles are too large.

        None for a node that reads nothing so, and lays what it reads a second time, or only a cache whose
        share of the result would not fit: the cache is then moved to where the node runs.
        """
        n = self.graph.nodes[node]
        if self._is_free(n):
            return None
        found = next((f for j in self._largest_first(n.inputs) if (f := self._as_kept(node, j))), None)
        if found is None:
            return None
        cuts, grid, more = found
        kept = [t in self.graph.resident for t in n.inputs]
        split = self._in_time(n.op, cuts, more, kept)
        whole = {a: k * split.time_ways(a) for a, k in split.extents(n.op.axes).items()}
        result = float(tile_elements(n.op.write, whole)) * n.op.out_type.bytes
        if self._working(n.op, split, kept) + result > self.room and not self._weights(n.inputs):
            return None
        return Choice.given(split, grid, part_axis(n.op, split))

    @property
    def could_be_copied(self) -> bool:
        """Whether the constants, each once more, leave any of the room."""
        cores = sum(r.columns * r.rows for r in self.first.regions)
        room = self.ties.copies * self.room * cores
        return sum(self.graph.tensors[t].bytes for t in self.graph.constants) < room

    def _is_free(self, n: Node) -> bool:
        """Whether nothing that the node reads binds it. What a cache is filled with goes to where it is."""
        tensors = [self.graph.tensors[t] for t in n.inputs if t in self.graph.resident]
        bound = [
            t.bytes >= self.ties.loose if t.name in self.graph.constants else self.ties.caches
            for t in tensors
        ]
        return n.output not in self.graph.resident and not any(bound)

    def _largest_first(self, tensors: Sequence[str]) -> list[int]:
        return sorted(range(len(tensors)), key=lambda j: -self.graph.tensors[tensors[j]].bytes)

    def _as_kept(self, node: int, operand: int) -> tuple[tuple[Cut, ...], Grid, list[str]] | None:
        """The cuts and the grid with which a node reads an operand where the first entry keeps it, and the
        axes that may be cut along time besides; None where there are none.

        First those of a reader in the first entry with the same axes, then those with which other axes read
        the same pieces.
        """
        n = self.graph.nodes[node]
        readers = self._readers.get((n.inputs[operand], n.op.name, operand), [])
        size = n.op.size
        for s in readers:
            own = s.op.size
            if all(size.get(c.axis) == own[c.axis] for c in s.split.cuts if c.ways > 1):
                cuts = tuple(c for c in s.split.cuts if c.axis in size)
                return cuts, s.grid, [a for a, k in n.op.axes if own.get(a) != k and a not in n.op.whole]
        read = access_axes(n.op.reads[operand])
        for s in readers:
            kept = Source(s.grid, s.split, s.op.reads[operand], s.op.axes, s.region, 0.0)
            found = follow(n.op, operand, kept)
            if found is not None and found[1] == s.grid:
                more = [a for a in size if a not in read and a not in n.op.whole]
                return found[0].cuts, s.grid, more
        return None

    def _weights(self, inputs: Sequence[str]) -> bool:
        return any(t in self.graph.constants for t in inputs)

    def regions(self) -> dict[int, int]:
        """Each node's region: where what it reads is kept, else that of the node before it."""
        out: dict[int, int] = {}
        last = 0
        for i, n in enumerate(self.graph.nodes):
            found = (self._readers.get((t, n.op.name, j)) for j, t in enumerate(n.inputs))
            last = next((s[0].region for s in found if s is not None), last)
            out[i] = last
        return out

    def _in_time(self, op: Op, cuts: tuple[Cut, ...], more: Sequence[str], kept: Sequence[bool]) -> Split:
        """The cuts, and one along time of the longest axis that only this entry has, if it must be."""
        split, most = Split(cuts), self.ties.share * self.room
        for a in sorted(more, key=lambda a: -op.size[a])[:1]:
            ways = 1
            while ways < op.size[a] and self._working(op, split, kept) > most:
                ways *= 2
                split = Split((*cuts, Cut(a, "t", min(ways, op.size[a]))))
        return split

    def _working(self, op: Op, split: Split, kept: Sequence[bool]) -> float:
        """Bytes of the operands that a tile receives."""
        tile = split.extents(op.axes)
        reads = zip(op.reads, op.in_types, kept, strict=True)
        return sum(float(tile_elements(access, tile)) * t.bytes for access, t, own in reads if not own)


def plan_beside(
    graph: Graph, first: Plan, between: Sequence[Plan] = (), later: int = 0, policy: Policy = POLICY
) -> Plan:
    """The plan of another entry of the program whose first entry's plan is `first`: of those tried, that of
    fewest cycles. between: those of the entries that were planned after the first. later: entries to come,
    which want as much room for copies.

    States lie where the first plan has them, and so do constants, but for second copies where there is room.
    Raises DoesNotFit where too little is left.
    """
    estimator, budget = Estimator(graph, first.wafer, policy), first.wafer.sram_bytes
    shares = policy.shares_of_rest
    bound = [(loose, caches) for loose in (0, policy.loose_bytes) for caches in (True, False)]
    companions = Companions(first=first, between=tuple(between))
    taken = sum(b.bytes for b in companions.kept_between)

    def built(ties: Ties) -> Plan:
        return _beside(Alike(graph, first, ties, taken), estimator, companions)

    share = policy.copied_share / (1 + later)
    copies = Alike(graph, first, Ties(0, policy.copied_working, np.inf, False, share), taken)
    made: list[Plan] = []
    if copies.could_be_copied:
        made = [p for p in [built(copies.ties)] if _bytes(p) <= budget]
    if made:
        del bound[1:]  # there is room for what the others save
    nearest = first
    for loose, caches in bound:
        for share in shares:
            nearest = built(Ties(share, policy.moved_share, loose, caches))
            if _bytes(nearest) <= budget:
                made.append(nearest)
                shares = (share,)  # fewer bytes at once are more cuts
                break
    if not made:
        raise DoesNotFit(explain(nearest), nearest)
    found = [routed(p) for p in made]
    return min(found, key=lambda p: simulate(p).cycles) if len(found) > 1 else found[0]


def _bytes(plan: Plan) -> int:
    return int(plan.sram().max(initial=0))


def _beside(as_first: Alike, estimator: Estimator, companions: Companions) -> Plan:
    """A plan without routes, which may be over budget."""
    graph, first, ties, policy = as_first.graph, as_first.first, as_first.ties, estimator.policy
    sizes = [sum(graph.tensors[t].bytes for t in n.inputs if t in graph.constants) for n in graph.nodes]
    copies, total = ties.copies * as_first.room, max(1, sum(sizes))
    limits = {
        i: replace(
            one,
            resident=copies * sizes[i] / total if copies and sizes[i] else policy.small_bytes,
            working=ties.working * as_first.room,
            uncut=(),
        )
        for i, one in estimator.limits(range(len(graph.nodes))).items()
    }

    def choose_split(i: int, sources: tuple[Source | None, ...], site: Site) -> Choice:
        known = as_first.choice(i)
        if known is not None:
            return known
        return estimator.choice(Question(graph.nodes[i].op, sources, site, limits[i]))

    ground = Ground(first.wafer, first.regions, as_first.regions(), policy)
    return assemble(graph, ground, choose_split, first.objective, companions)
