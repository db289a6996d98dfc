"""Assembling a plan: with regions given and splits chosen, all nodes in order, lifetimes and addresses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from ...ir.graph import Graph
from ...ir.op import Op
from ..plan.move import identical
from ..plan.plan import Buffer, Plan, Step
from ..splits.choice import Choice, Site, Source
from .addresses import allocate
from .assembly import Assembly, Lies, Tiling
from .companions import ALONE, Companions
from .inputs import fill_cache, lay_cache, lay_input, spot
from .regions import Ground
from .step_order import order
from .steps import task, update

Chooser = Callable[[int, tuple[Source | None, ...], Site], Choice]
"""(node, where its operands lie, where it runs) -> its split."""
ANYWHERE: Mapping[str, Lies] = {}
"""Of inputs that are laid where there is room."""


def assemble(
    graph: Graph,
    ground: Ground,
    choose: Chooser,
    objective: str,
    companions: Companions = ALONE,
    lies: Mapping[str, Lies] = ANYWHERE,
) -> Plan:
    """The plan of `graph` on `ground`, each node split as `choose` says. It may be over budget.

    lies: where inputs lie; the others are spread over the region of their first reader.
    """
    constants = sum(graph.tensors[t].bytes for t in graph.constants)
    policy, room = ground.policy, ground.wafer.sram_bytes * sum(r.core.size for r in ground.regions)
    pile = 0.0 if constants > policy.crowded * room else policy.pile_share
    a = Assembly(graph, ground.wafer, ground.regions, policy, pile, companions.residents(graph), lies)
    a.tensors.update(graph.tensors)
    pasts = {p for p, _ in graph.states}
    caches: dict[str, int] = {}  # present -> node, until its first reader says where it lies
    for i, node in enumerate(graph.nodes):
        region = ground.region_of[i]
        past = graph.in_place.get(node.output)
        if past is None:
            _lay(a, node.inputs, region, pasts)
            sources = tuple(None if t in caches else a.source(t, region) for t in node.inputs)
            _run(a, i, region, choose(i, sources, ground.site(region)), caches)
            continue
        _lay(a, (t for t in node.inputs if t not in pasts), region, pasts)
        if past in a.residents.states:
            lay_input(a, past, region, "state")
            fill_cache(a, i)
        else:
            caches[node.output] = i
    for t, i in caches.items():
        lay_input(a, graph.in_place[t], ground.region_of[i], "state")
        fill_cache(a, i)
    _lay(a, graph.inputs, 0, pasts)
    for past, present in graph.update_order():
        update(a, past, present)
    return _finish(a, objective, companions)


def _lay(a: Assembly, tensors: Iterable[str], region: int, pasts: Collection[str]) -> None:
    """Lays those of `tensors` that are inputs of the graph and lie nowhere yet."""
    for t in tensors:
        if t in a.graph.inputs and t not in a.writers:
            lay_input(a, t, region, "state" if t in pasts else "input")


def _run(a: Assembly, number: int, region: int, c: Choice, caches: dict[str, int]) -> None:
    """The step of node `number`, and the caches that it is the first to read."""
    node = a.graph.nodes[number]
    grid = c.grid if c.fixed else spot(a, region, c.grid, c.resident)
    on = Tiling.of(node.op, region, grid, c.split, c.part, c.roots)
    for j, t in enumerate(node.inputs):
        if t in caches:
            lay_cache(a, caches.pop(t), on, j)
    task(a, number, on)


def _finish(a: Assembly, objective: str, companions: Companions) -> Plan:
    """Positions, lifetimes, addresses."""
    ordered = order(a)
    position = {n: p for p, n in enumerate(ordered)}
    steps = tuple(_renumber(replace(a.steps[n].step, position=position[n]), position) for n in ordered)
    ran: dict[int, list[Op]] = {r: [] for r in range(len(a.regions))}
    for s in steps:
        if s.kind == "task" or (s.kind == "update" and s.operands):
            ran[s.region].append(s.op)
    code = companions.code_bytes(ran, a.wafer)
    return Plan(
        graph=a.graph,
        tensors=a.tensors,
        wafer=a.wafer,
        objective=objective,
        regions=a.regions,
        steps=steps,
        buffers=allocate(_alive(a, ordered), code, a.wafer.sram_bytes, companions.obstacles),
        code_bytes=code,
        lays=tuple(a.lays),
        outputs={t: tuple(sorted(position[i] for i in a.writers.get(t, ()))) for t in a.graph.outputs},
    )


def _alive(a: Assembly, ordered: Sequence[int]) -> list[Buffer]:
    """The buffers with the first and the last position that need them; some lie over others."""
    position, end = {n: p for p, n in enumerate(ordered)}, len(ordered)
    owned = {a.steps[i].step.result for t in a.graph.outputs for i in a.writers.get(t, ())}
    buffers: list[Buffer] = []
    for b in a.buffers:
        at = [position[s] for s in a.users.get(b.number, ())]
        first = -1 if b.stays or b.role == "input" else min(at, default=0)
        last = end if b.stays or b.number in owned else max(at, default=0)
        buffers.append(replace(b, live=(first, last)))
    for number in ordered:
        _take_over(a, a.steps[number].step, position, owned, buffers)
    for d in a.steps:
        if d.step.scratch >= 0:
            p = position[d.step.number]
            buffers[d.step.scratch] = replace(buffers[d.step.scratch], live=(p, p))
    return buffers


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


def _renumber(step: Step, position: Mapping[int, int]) -> Step:
    """Steps are numbered by their position."""
    rides = step.rides if step.rides < 0 else position[step.rides]
    return replace(step, number=position[step.number], rides=rides)
