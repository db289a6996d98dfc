"""Another entry of a program: a plan beside the first one's, with what stays on the cores in the same place.

Both entries' graphs name a constant or a cache that they share alike. The first plan says where it lies;
the second one splits what reads it in the same way, and gets along with the SRAM that is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..ir.graph import Graph
from ..ir.op import Op
from .layout import Cut, Grid, Layout, Split, layout
from .move import Move
from .plan import Buffer, Plan, Step
from .split import Choice, part_axis, tile_elements

SHARE = 0.2  # of the room that residents leave: what one op may use while it runs


class Unlike(ValueError):
    """Two entries of one program compute too differently to share what lies on the cores."""


@dataclass(frozen=True)
class Kept:
    """A constant's buffer in a plan, the grid it lies on, and what of the tensor each core holds."""

    buffer: int
    grid: Grid
    held: Layout


@dataclass(frozen=True)
class Residents:
    """What a plan keeps on the cores, numbered anew from 0: what the plan of another entry begins with.

    constants: by tensor and region. states: by past, the step that lays it, its buffer, and the buffer of its
    value in the next call where that is changed in place (-1 where not).
    """

    buffers: tuple[Buffer, ...]
    lays: tuple[tuple[str, Move], ...]
    constants: Mapping[tuple[str, int], Sequence[Kept]]
    states: Mapping[str, tuple[Step, int, int]]


def residents(plan: Plan) -> Residents:
    """What `plan` keeps on the cores."""
    kept = [b for b in plan.buffers if b.role in ("constant", "state")]
    number = {b.number: i for i, b in enumerate(kept)}
    buffers = tuple(
        replace(b, number=i, over=number[b.over] if b.over >= 0 else -1) for i, b in enumerate(kept)
    )
    constants: dict[tuple[str, int], dict[int, Kept]] = {}
    for s in plan.steps:
        for o, access in zip(s.operands, s.op.reads, strict=False):
            if s.kind == "task" and o.tensor in plan.graph.constants:
                held = layout(access, s.op.axes, s.split, merge_time=True)
                of = constants.setdefault((o.tensor, s.region), {})
                of.setdefault(o.buffer, Kept(number[o.buffer], s.grid, held))
    results = {s.tensor: s.result for s in plan.steps if s.kind == "task"}
    laid = {s.tensor: s for s in plan.steps if s.kind == "input"}
    own = plan.graph.in_place
    states = {
        past: (laid[past], number[laid[past].result], number[results[present]] if present in own else -1)
        for past, present in plan.graph.states
    }
    return Residents(
        buffers,
        tuple((t, replace(m, target=number[m.target])) for t, m in plan.lays),
        {k: tuple(of.values()) for k, of in constants.items()},
        states,
    )


def alike(graph: Graph, others: Sequence[Graph]) -> dict[int, Op]:
    """For nodes that read constants or caches, the op of another entry that reads them in the same way."""
    found = {
        (t, n.op.name, j): n.op
        for g in others
        for n in g.nodes
        for j, t in enumerate(n.inputs)
        if t in g.resident
    }
    out: dict[int, Op] = {}
    for i, n in enumerate(graph.nodes):
        for j, t in enumerate(n.inputs):
            if (op := found.get((t, n.op.name, j))) is not None:
                out[i] = op
    return out


@dataclass
class Alike:
    """Splits for the nodes of another entry that read what the first entry's plan keeps."""

    graph: Graph
    first: Plan
    _readers: dict[tuple[str, str, int], Step] = field(default_factory=lambda: {})
    room: float = 0.0

    def __post_init__(self) -> None:
        resident = self.first.graph.resident
        for s in self.first.steps:
            for j, o in enumerate(s.operands):
                if s.kind == "task" and o.tensor in resident:
                    self._readers.setdefault((o.tensor, s.op.name, j), s)
        kept = [b for b in self.first.buffers if b.role in ("constant", "state") and b.over < 0]
        fullest = max((b.address + b.bytes for b in kept), default=0)
        self.room = max(0.0, self.first.wafer.sram_bytes - fullest)

    def choice(self, node: int) -> Choice | None:
        """The split of the first entry's reader of the same tensors, cut along time besides where the tiles
        are too large.

        None for a node that reads nothing of the first entry's, or only a cache whose share of the result
        would not fit: the cache is then moved to where the node runs. Raises Unlike for one whose axes are
        others.
        """
        n = self.graph.nodes[node]
        found = [
            (self.graph.tensors[t].bytes, s)
            for j, t in enumerate(n.inputs)
            if (s := self._readers.get((t, n.op.name, j))) is not None
        ]
        if not found:
            return None
        _, s = max(found, key=lambda f: f[0])
        size, own = n.op.size, s.op.size
        for c in s.split.cuts:
            if c.ways > 1 and size.get(c.axis) != own[c.axis]:
                raise Unlike(f"{n.op.name} of {n.inputs} is cut along {c.axis!r} by the first entry")
        cuts = tuple(c for c in s.split.cuts if c.axis in size)
        more = [a for a, k in n.op.axes if own.get(a) != k and a not in n.op.whole]
        kept = [t in self.graph.resident for t in n.inputs]
        split = self._in_time(n.op, cuts, more, kept)
        whole = {a: k * split.time_ways(a) for a, k in split.extents(n.op.axes).items()}
        result = float(tile_elements(n.op.write, whole)) * n.op.out_type.bytes
        if self._working(n.op, split, kept) + result > self.room and not self._weights(n.inputs):
            return None
        return Choice(split, s.grid, part_axis(n.op, split), 0.0, 0.0, 0.0, fixed=True)

    def _weights(self, inputs: Sequence[str]) -> bool:
        return any(t in self.graph.constants for t in inputs)

    def regions(self) -> dict[int, int]:
        """Each node's region: where what it reads is kept, else that of the node before it."""
        out: dict[int, int] = {}
        last = 0
        for i, n in enumerate(self.graph.nodes):
            found = (self._readers.get((t, n.op.name, j)) for j, t in enumerate(n.inputs))
            last = next((s.region for s in found if s is not None), last)
            out[i] = last
        return out

    def _in_time(self, op: Op, cuts: tuple[Cut, ...], more: Sequence[str], kept: Sequence[bool]) -> Split:
        """The cuts, and one along time of the longest axis that only this entry has, if it must be."""
        split = Split(cuts)
        for a in sorted(more, key=lambda a: -op.size[a])[:1]:
            ways = 1
            while ways < op.size[a] and self._working(op, split, kept) > SHARE * self.room:
                ways *= 2
                split = Split((*cuts, Cut(a, "t", min(ways, op.size[a]))))
        return split

    def _working(self, op: Op, split: Split, kept: Sequence[bool]) -> float:
        """Bytes of the operands that a tile receives."""
        tile = split.extents(op.axes)
        reads = zip(op.reads, op.in_types, kept, strict=True)
        return sum(float(tile_elements(access, tile)) * t.bytes for access, t, own in reads if not own)
