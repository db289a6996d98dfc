"""The other entries of a program: what of theirs lies on the cores, and which of their ops run alike.

Two entries' graphs name a constant or a cache that they share alike. The first plan says where it lies;
the second one splits what reads it in the same way, and gets along with the SRAM that is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...ir.graph import Graph
from ...ir.op import Op
from ..machine.wafer import Wafer
from ..plan.layout import Grid, Layout, layout
from ..plan.move import Move
from ..plan.plan import Buffer, Plan, Step


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


def residents(plan: Plan, graph: Graph) -> Residents:
    """What `plan` keeps on the cores, for the plan of `graph`: of a cache that this does not change the old
    value alone."""
    kept = [b for b in plan.buffers if b.stays and (b.over < 0 or b.name in graph.in_place)]
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
        past: (
            laid[past],
            number[laid[past].result],
            number.get(results[present], -1) if present in own else -1,
        )
        for past, present in plan.graph.states
    }
    return Residents(
        buffers,
        tuple((t, replace(m, target=number[m.target])) for t, m in plan.lays),
        {k: tuple(of.values()) for k, of in constants.items()},
        states,
    )


@dataclass(frozen=True, eq=False)
class Companions:
    """The other entries of a program, as one entry's plan has to know them; none where it is alone.

    graphs: of the entries whose plans come after this one's. first: the plan of the first entry, which says
    where lies what all share, for the plan of another. between: the plans of those that came after it.
    """

    graphs: tuple[Graph, ...] = ()
    first: Plan | None = None
    between: tuple[Plan, ...] = ()

    @property
    def want_room(self) -> bool:
        """Whether entries that come later need room for what comes and goes."""
        return bool(self.graphs)

    def residents(self, graph: Graph) -> Residents:
        """What lies on the cores already, for the plan of `graph`."""
        return Residents((), (), {}, {}) if self.first is None else residents(self.first, graph)

    @property
    def obstacles(self) -> tuple[Buffer, ...]:
        """Buffers of other entries that this one's plan does not begin with: what is alive only while they
        run, and what entries between keep to themselves."""
        if self.first is None:
            return ()
        passing = (b for plan in (self.first, *self.between) for b in plan.buffers if not b.stays)
        return (*passing, *self.kept_between)

    @property
    def kept_between(self) -> tuple[Buffer, ...]:
        """What stays on the cores for the entries between, and not for the first one."""
        if self.first is None:
            return ()
        shared = {_place(b) for b in self.first.buffers if b.stays}
        return tuple(b for plan in self.between for b in plan.buffers if b.stays and _place(b) not in shared)

    def code_bytes(self, ops: Mapping[int, Sequence[Op]], wafer: Wafer) -> tuple[int, ...]:
        """By region, what code takes on each of its cores: of an entry's own `ops` and of the others'."""
        if self.first is not None:
            return self.first.code_bytes
        others = [n.op for g in self.graphs for n in g.nodes]
        return tuple(code_bytes([*own, *others], wafer) for own in ops.values())

    def alike(self, graph: Graph) -> dict[int, Op]:
        """For nodes that read constants or caches: the op of another entry that reads them so, too."""
        found = {
            (t, n.op.name, j): n.op
            for g in self.graphs
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


ALONE = Companions()
"""Of a program with one entry."""


def _place(b: Buffer) -> tuple[object, ...]:
    """Where a buffer lies."""
    return b.name, b.region, b.grid, b.dtype, b.shape, b.order, b.address


def code_bytes(ops: Iterable[Op], wafer: Wafer) -> int:
    """What the kernels of `ops` take on each core of a region."""
    kernels = {(type(op).__name__, op.key(), op.in_types, op.out_type) for op in ops}
    return wafer.code_bytes_base + len(kernels) * wafer.code_bytes_per_kernel
