"""Another entry of a program: split like the first one, whose weights and states it shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...ir.affine import access_axes
from ...ir.graph import Graph
from ...ir.op import Op
from ..build.assemble import assemble
from ..build.companions import Companions
from ..build.regions import Ground
from ..build.routes import routed
from ..plan.layout import Cut, Grid, Split
from ..plan.plan import Plan, Step
from ..splits.candidates import part_axis
from ..splits.choice import Choice, Question, Site, Source, tile_elements
from ..splits.follow import follow
from ..splits.policy import POLICY, Policy
from .choices import Estimator
from .explain import DoesNotFit, explain

Read = tuple[str, str, int]  # a tensor, the name of an op that reads it, and as which operand


@dataclass
class Alike:
    """Splits for the nodes of another entry that read what the first entry's plan keeps."""

    graph: Graph
    first: Plan
    policy: Policy
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
        split, most = Split(cuts), self.policy.share_of_rest * self.room
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


def plan_beside(graph: Graph, first: Plan, between: Sequence[Plan] = (), policy: Policy = POLICY) -> Plan:
    """The plan of another entry of the program whose first entry's plan is `first`; between: those of the
    entries that were planned after it.

    What both keep on the cores lies where the first one has it; a constant that this one reads in other
    pieces lies a second time. Raises DoesNotFit where too little room is left.
    """
    wafer = first.wafer
    companions = Companions(first=first, between=tuple(between))
    as_first = Alike(graph, first, policy, sum(b.bytes for b in companions.kept_between))
    estimator = Estimator(graph, wafer, policy)
    working = policy.working_share * as_first.room
    limits = {
        i: replace(one, resident=policy.small_bytes, working=working, uncut=())
        for i, one in estimator.limits(range(len(graph.nodes))).items()
    }

    def choose_split(i: int, sources: tuple[Source | None, ...], site: Site) -> Choice:
        known = as_first.choice(i)
        if known is not None:
            return known
        return estimator.choice(Question(graph.nodes[i].op, sources, site, limits[i]))

    ground = Ground(wafer, first.regions, as_first.regions(), policy)
    built = assemble(graph, ground, choose_split, first.objective, companions)
    if int(built.sram().max(initial=0)) > wafer.sram_bytes:
        raise DoesNotFit(explain(built), built)
    return routed(built)
