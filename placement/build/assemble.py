"""Assembling a plan: with regions given and splits chosen, all nodes in order, lifetimes and addresses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from ...ir.graph import Graph
from ...ir.op import Op
from ..machine.wafer import Wafer
from ..plan.layout import Region
from ..plan.move import identical
from ..plan.plan import Buffer, Plan, Step
from ..splits.choice import Choice, Source
from .addresses import allocate
from .assembly import Assembly
from .residents import residents
from .step_order import order

PILE = 0.4  # of SRAM: constants of small ops and inputs may pile up to this before they are spread
CROWDED = 0.5  # of all SRAM: where constants take more, nothing may pile up

Chooser = Callable[[int, Sequence[Source | None], int, int, int], Choice]
"""(node, sources, region, columns, rows) -> the node's split on that region."""


def assemble(
    graph: Graph,
    wafer: Wafer,
    regions: tuple[Region, ...],
    region_of: Mapping[int, int],
    choose: Chooser,
    objective: str,
    others: Sequence[Graph] = (),
    beside: Plan | None = None,
) -> Plan:
    """The plan for `regions`, each node on region `region_of[node]`, split as `choose` says.

    others: graphs of the program's other entries, whose kernels lie on the cores, too. beside: the plan of
    the first entry, for another one. The plan may be over budget.
    """
    constants = sum(graph.tensors[t].bytes for t in graph.constants)
    crowded = constants > CROWDED * wafer.sram_bytes * sum(r.core.size for r in regions)
    kept = None if beside is None else residents(beside)
    a = Assembly(graph, wafer, regions, 0.0 if crowded else PILE, kept)
    a.tensors.update(graph.tensors)
    pasts = {p for p, _ in graph.states}
    own = graph.in_place
    caches: dict[str, int] = {}  # present -> node, until its first reader says where it lies

    def lay(tensors: Iterable[str], region: int) -> None:
        for t in tensors:
            if t in graph.inputs and t not in a.writers:
                a.lay_input(t, region, "state" if t in pasts else "input")

    for i, node in enumerate(graph.nodes):
        region = region_of[i]
        if node.output in own:
            caches[node.output] = i
            lay((t for t in node.inputs if t not in pasts), region)
            if kept is not None and own[node.output] in kept.states:
                a.lay_input(own[node.output], region, "state")
                a.filled(caches.pop(node.output), own[node.output])
            continue
        lay(node.inputs, region)
        r = regions[region]
        sources = [None if t in caches else a.source(t, region) for t in node.inputs]
        c = choose(i, sources, region, r.columns, r.rows)
        grid = c.grid if c.fixed else a.spot(region, c.grid, c.resident)
        for j, t in enumerate(node.inputs):
            if t in caches:
                a.cache(caches.pop(t), own[t], node.op, j, region, grid, c.split)
        a.task(i, node, region, grid, c.split, c.part)
    for t, i in caches.items():
        a.lay_input(own[t], region_of[i], "state")
        a.filled(i, own[t])
    for t in graph.inputs:
        if t not in a.writers:
            a.lay_input(t, 0, "state" if t in pasts else "input")
    for past, present in graph.update_order():
        a.update(past, present)
    return _finish(a, objective, others, beside)


def _finish(a: Assembly, objective: str, others: Sequence[Graph], beside: Plan | None) -> Plan:
    """Positions, lifetimes, addresses."""
    ordered = order(a)
    position = {n: p for p, n in enumerate(ordered)}
    end = len(ordered)
    outputs: dict[str, tuple[int, ...]] = {}
    buffers: list[Buffer] = []
    owned = {a.steps[i].step.result for t in a.graph.outputs for i in a.writers.get(t, ())}
    for b in a.buffers:
        at = [position[s] for s in a.users.get(b.number, ())]
        live = (min(at, default=0), max(at, default=0))
        if b.stays:
            live = (-1, end)
        elif b.role == "input":
            live = (-1, live[1])
        if b.number in owned:
            live = (live[0], end)
        buffers.append(replace(b, live=live))
    for number in ordered:
        _take_over(a, a.steps[number].step, position, owned, buffers)
    for d in a.steps:
        if d.step.scratch >= 0:
            p = position[d.step.number]
            buffers[d.step.scratch] = replace(buffers[d.step.scratch], live=(p, p))
    steps = tuple(replace(a.steps[n].step, position=position[n]) for n in ordered)
    steps = tuple(_renumber(s, position) for s in steps)
    for t in a.graph.outputs:
        outputs[t] = tuple(sorted(position[i] for i in a.writers.get(t, ())))
    ran = [s for s in steps if s.kind == "task" or (s.kind == "update" and s.operands)]
    more = [n.op for g in others for n in g.nodes]
    code = tuple(
        code_bytes([*(s.op for s in ran if s.region == r), *more], a.wafer) for r in range(len(a.regions))
    )
    if beside is not None:
        code = beside.code_bytes
    alone = [b for b in beside.buffers if not b.stays] if beside is not None else []
    return Plan(
        graph=a.graph,
        tensors=a.tensors,
        wafer=a.wafer,
        objective=objective,
        regions=a.regions,
        steps=steps,
        buffers=allocate(buffers, code, a.wafer.sram_bytes, alone),
        code_bytes=code,
        lays=tuple(a.lays),
        outputs=outputs,
    )


def _take_over(
    a: Assembly, s: Step, position: Mapping[int, int], owned: Collection[int], buffers: list[Buffer]
) -> None:
    """Lays the result of `s` over an operand that nobody else reads any more, where they lie alike."""
    if s.kind != "task" or not any(map(s.op.overwrites, range(len(s.operands)))):
        return
    new = buffers[s.result]
    for j, o in enumerate(s.operands):
        old = buffers[o.buffer]
        if (
            o.received
            or not s.op.overwrites(j)
            or old.role != "result"
            or old.number in owned
            or (old.region, old.grid, old.shape) != (new.region, new.grid, new.shape)
            or old.live[1] != position[s.number]
            or old.number in s.fetched
            or not all(s.op.overwrites(k) for k, p in enumerate(s.operands) if p.buffer == o.buffer)
        ):
            continue
        writer, *readers = (a.steps[n].step for n in dict.fromkeys(a.users[old.number]))
        # Who fetches it from elsewhere must have done so in an earlier wavefront.
        if any(
            r.wavefront == s.wavefront and (r.leader != s.leader or old.number in r.fetched) for r in readers
        ):
            continue
        apart = identical(s.hold, writer.hold, s.grid, writer.grid)
        if apart is not None and not any(t.any() for t in apart):
            buffers[new.number] = replace(new, order=old.order, over=old.number)
            return


def code_bytes(ops: Iterable[Op], wafer: Wafer) -> int:
    """What the kernels of `ops` take on each core of a region."""
    kernels = {(type(op).__name__, op.key(), op.in_types, op.out_type) for op in ops}
    return wafer.code_bytes_base + len(kernels) * wafer.code_bytes_per_kernel


def _renumber(step: Step, position: Mapping[int, int]) -> Step:
    """Steps are numbered by their position."""
    rides = step.rides if step.rides < 0 else position[step.rides]
    return replace(step, number=position[step.number], rides=rides)
