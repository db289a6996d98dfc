"""What bounds a plan, and what to ask for instead, with what each would gain by the timing model.

A gain is found by timing the same plan once more with one thing changed: it is what that thing costs. "about"
marks what a plan made for it may exceed, "at most" all that is lost there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...ir.dtypes import F16
from ...placement.cost.critical_path import Leg, critical_path
from ...placement.cost.timing import Timing, cycles_of
from ...placement.machine.presets import preset, presets
from ...placement.machine.wafer import LINKS
from ...placement.plan.plan import Buffer, Plan, Step
from ..errors import shown
from .critical_parts import KINDS, path_rows, step_parts
from .figures import running_cores
from .rows import LONGEST_NAME, at_core
from .text import brief_name

WORTH = 0.02  # share of a call's cycles below which nothing is said of a gain, or of a bound
MOST_BOUNDS = 5
SLACK = 0.5  # share of the budget that is free on the fullest core from which it is told
MOST_WORK = 1 << 25  # cores times steps of a plan that is timed again
FULL = 0.9  # share of the wafer's cores in use from which a larger one is proposed

BOUND, TRY = "Bound by:", "To try:"
KIND_WORDS = {"fabric": "on the fabric", "waiting": "waiting for busy cores", "compute": "computing"}


@dataclass(frozen=True)
class Bound:
    """A part of the critical path: cycles of one kind in one part of the model, and the step with most."""

    part: str
    kind: str
    cycles: int
    share: float
    step: int
    node: str
    core: tuple[int, int]


@dataclass(frozen=True)
class Remedy:
    """What to ask for. why: what it changes. gain: in `unit`; share: of a call's cycles, or 0."""

    ask: str
    why: str
    how_sure: Literal["about", "at most"]
    gain: int
    unit: str
    share: float


@dataclass(frozen=True)
class Guidance:
    """bounds: largest first. remedies: by gain; none where nothing helps."""

    cycles: int
    bounds: tuple[Bound, ...]
    remedies: tuple[Remedy, ...]


def guidance(plan: Plan, timing: Timing, dims: Mapping[str, int] | None = None) -> Guidance:
    """What bounds the plan and what would help. dims: what symbolic dimensions were bound to."""
    legs = critical_path(plan, timing)
    every = [*_narrower(plan, timing), *_larger(plan, timing, legs), *_nearer(plan, timing, legs, dims or {})]
    every += [*_waiting(plan, timing, legs), *_fullest_link(plan, timing), *_room(plan, dims or {})]
    worth = [r for r in every if r.gain > 0 and (r.unit != "cycles" or r.share >= WORTH)]
    return Guidance(
        round(timing.cycles), tuple(_bounds(plan, timing, legs)), tuple(sorted(worth, key=lambda r: -r.share))
    )


# -- what bounds it ---------------------------------------------------------------------------------------


def _bounds(plan: Plan, timing: Timing, legs: list[Leg]) -> Iterator[Bound]:
    part = step_parts(plan)
    found: list[tuple[float, str, str]] = []
    for row in path_rows(plan, timing)[:-1]:
        found += [(row[kind], row["part"], kind) for kind in KINDS]
    for cycles, name, kind in sorted(found, reverse=True)[:MOST_BOUNDS]:
        if cycles >= WORTH * timing.cycles and cycles > 0:
            leg = max((g for g in legs if part[g.step] == name), key=lambda g: getattr(g, kind), default=None)
            if leg is not None:
                node = shown(plan.steps[leg.step].name, LONGEST_NAME)
                yield Bound(name, kind, round(cycles), cycles / timing.cycles, leg.step, node, leg.core)


# -- what to try -------------------------------------------------------------------------------------------


def _gained(plan: Plan, timing: Timing, **wafer: Any) -> float:
    """Cycles that a call takes less on a wafer with other constants; 0 where timing it would take long."""
    if sum(s.grid.cores for s in plan.steps) > MOST_WORK:
        return 0.0
    return timing.cycles - cycles_of(replace(plan, wafer=replace(plan.wafer, **wafer)))


def _cycles(ask: str, why: str, sure: Literal["about", "at most"], gain: float, timing: Timing) -> Remedy:
    return Remedy(ask, why, sure, round(gain), "cycles", gain / timing.cycles if timing.cycles else 0.0)


def _narrower(plan: Plan, timing: Timing) -> Iterator[Remedy]:
    """Weights in 16 bits: the same plan with them."""
    chosen = plan.graph.narrowable
    own = [b for b in plan.buffers if b.role == "constant" and b.name in chosen]
    if not own or sum(s.grid.cores for s in plan.steps) > MOST_WORK:
        return
    steps = tuple(_narrowed(plan, s, chosen) for s in plan.steps)
    buffers = tuple(
        replace(b, dtype=F16) if b.name in chosen and b.role == "constant" else b for b in plan.buffers
    )
    gain = timing.cycles - cycles_of(replace(plan, steps=steps, buffers=buffers))
    freed = _on_fullest(plan, own) // 2
    yield _cycles(
        "--weights f16", f"weights take {freed:,} bytes less of the fullest core", "about", gain, timing
    )


def _narrowed(plan: Plan, step: Step, chosen: frozenset[str]) -> Step:
    if step.kind != "task":
        return step
    kinds = [
        F16 if plan.buffers[o.buffer].role == "constant" and o.tensor in chosen else t
        for o, t in zip(step.operands, step.op.in_types, strict=True)
    ]
    same = tuple(kinds) == tuple(step.op.in_types)
    return step if same else replace(step, op=replace(step.op, in_types=tuple(kinds)))


def _on_fullest(plan: Plan, buffers: list[Buffer]) -> int:
    core = int(plan.sram().argmax())
    y, x = divmod(core, plan.wafer.width)
    there = {b.number for b in at_core(plan, x, y)[0]}
    return sum(b.bytes for b in buffers if b.number in there)


def _larger(plan: Plan, timing: Timing, legs: list[Leg]) -> Iterator[Remedy]:
    """Where all cores compute: the next wafer with more of them shares the work."""
    wafer = plan.wafer
    if running_cores(plan).sum() < FULL * wafer.cores:
        return
    more = sorted((w for w in map(preset, presets()) if w.cores > wafer.cores), key=lambda w: w.cores)
    if more:
        compute = sum(g.compute for g in legs)
        gain = compute * (1 - wafer.cores / more[0].cores)
        yield _cycles(f"--wafer {more[0].name}", "all cores compute", "about", gain, timing)


def _nearer(plan: Plan, timing: Timing, legs: list[Leg], dims: Mapping[str, int]) -> Iterator[Remedy]:
    """The fabric's part: relays where colours ran out, and ways, which a larger call takes no more of."""
    fabric = sum(g.fabric for g in legs)
    if fabric < WORTH * timing.cycles:
        return
    relays = _gained(plan, timing, relay=0.0) if _relayed(plan) else 0.0
    yield _cycles(
        "a wafer.toml with more colours",
        "routes without a colour are relayed by tasks",
        "at most",
        relays,
        timing,
    )
    if dims:
        ways = _gained(plan, timing, hop=0.0, turn=0.0, send=0.0, done=0.0)
        name, size = max(dims.items(), key=lambda d: d[1])
        why = f"for each {size:,} of it: ways on the fabric are no longer for more"
        yield _cycles(f"--dim {shown(name, 40)}={2 * size}", why, "at most", ways / 2, timing)


def _relayed(plan: Plan) -> bool:
    return any(m.route == "relay" for s in plan.steps for m in s.received)


def _waiting(plan: Plan, timing: Timing, legs: list[Leg]) -> Iterator[Remedy]:
    """The core that the path waits for most."""
    leg = max(legs, key=lambda g: g.waiting, default=None)
    if leg is not None and leg.waiting > 0:
        x, y = leg.core
        why = f"step {leg.step} waits for core ({x}, {y}), which is busy; place it elsewhere"
        yield _cycles("--constraints FILE", why, "at most", leg.waiting, timing)


def _fullest_link(plan: Plan, timing: Timing) -> Iterator[Remedy]:
    """In a pipeline: one link that is fuller than the busiest core is busy."""
    if plan.objective != "throughput" or not timing.links.any():
        return
    wafer = plan.wafer
    index = int(timing.links.argmax())
    direction, rest = divmod(index, wafer.cores)
    y, x = divmod(rest, wafer.width)
    full = float(wafer.serial(wafer.wavelets(timing.links.max())))
    busy = float(timing.busy.max(initial=0.0))
    gain = full - max(busy, float(wafer.serial(wafer.wavelets(timing.links[timing.links > 0].mean()))))
    where = f"link ({x}, {y}) {LINKS[direction]}"
    why = f"between calls: {where} is full for {full:,.0f} cycles; lead routes past it"
    yield _cycles("--constraints FILE", why, "at most", gain, timing)


def _room(plan: Plan, dims: Mapping[str, int]) -> Iterator[Remedy]:
    """Memory that stays free on the fullest core: more positions in the caches, or more at once."""
    used, budget = int(plan.sram().max(initial=0)), plan.wafer.sram_bytes
    free = budget - used
    if free < SLACK * budget:
        return
    states = _on_fullest(plan, [b for b in plan.buffers if b.role == "state"])
    pasts = [plan.graph.tensors[p] for p, _ in plan.graph.states]
    length = max((max(t.shape, default=0) for t in pasts), default=0)
    if states and length:
        gain = length * free // states
        why = f"the fullest core has {free:,} bytes free"
        yield Remedy("--capacity N", why, "about", gain, "positions", 0.0)
    elif dims:
        moving = _on_fullest(plan, [b for b in plan.buffers if not b.stays and b.over < 0])
        name, size = max(dims.items(), key=lambda d: d[1])
        if moving:
            gain = size * free // moving
            why = f"the fullest core has {free:,} bytes free"
            yield Remedy(f"--dim {shown(name, 40)}=N", why, "about", gain, f"of {shown(name, 40)}", 0.0)


# -- in words --------------------------------------------------------------------------------------------


def guidance_lines(found: Guidance) -> list[str]:
    """What bounds it, a line for each part, then what to try; nothing of the latter where nothing helps."""
    out: list[str] = []
    if found.bounds:
        out.append(BOUND)
    for b in found.bounds:
        x, y = b.core
        where = f"step {b.step} ({brief_name(b.node, 60)}) on core ({x}, {y})"
        what = f"{b.cycles:,} cycles {KIND_WORDS[b.kind]} in {brief_name(shown(b.part, LONGEST_NAME), 60)}"
        out.append(f"{b.share:4.0%}  {what}, most of it in {where}")
    if found.remedies:
        out.append(TRY)
    for r in found.remedies:
        gain = (
            f"{r.gain:,} cycles less ({r.share:.0%})" if r.unit == "cycles" else f"{r.gain:,} more {r.unit}"
        )
        out.append(f"{r.ask}: {r.how_sure} {gain}; {r.why}")
    return out
