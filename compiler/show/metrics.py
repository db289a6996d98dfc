"""Numbers over the grid: one for each core of a plan, of all steps or some, of a whole call or one moment.

Heatmaps draw them, their tables list them, and two plans are compared by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...placement.cost.critical_path import critical_path, writers
from ...placement.cost.links import link_bytes
from ...placement.cost.timing import Timing, held
from ...placement.machine.wafer import LINKS
from ...placement.plan.move import Move
from ...placement.plan.plan import Buffer, Plan, Step
from ..errors import UsageError, shown
from .critical_parts import step_parts

Floats = NDArray[np.float64]
MOST_CATEGORIES = 10  # that have a colour of their own
OTHERS = "others"


@dataclass(frozen=True)
class Metric:
    """One value per core, [height, width] in `unit`; NaN on cores that have none.

    budget: what a core has of it, None where there is no such bound. categories: where values are their
    numbers. difference: whether values are changes, to both sides of zero. arrows: bytes on each core's
    outgoing links, [4, height, width] in the order of wafer.LINKS. line: (x, y) of the cores along a path.
    """

    title: str
    unit: str
    values: Floats
    budget: float | None = None
    categories: tuple[str, ...] = ()
    difference: bool = False
    arrows: Floats | None = None
    line: tuple[tuple[int, int], ...] = ()

    @property
    def over(self) -> int:
        """Cores over the budget."""
        return 0 if self.budget is None else int((self.values > self.budget).sum())


@dataclass(frozen=True)
class Selection:
    """What a metric is of. steps: positions of some, empty for all. tensor: its name. at: a cycle of the
    call, None for the whole call. label: of the selection, in words."""

    steps: frozenset[int] = frozenset()
    tensor: str | None = None
    at: float | None = None
    label: str = ""

    def has(self, step: Step) -> bool:
        return not self.steps or step.position in self.steps


WHOLE = Selection()


@dataclass(frozen=True)
class Kind:
    """A metric that there is. told: of it, in help. wants: what it cannot do without: a moment ("at"), some
    steps or a tensor ("some"), a tensor ("tensor")."""

    told: str
    make: Callable[[Plan, Timing, Selection], Metric]
    wants: str = ""


def metric_of(plan: Plan, timing: Timing, name: str, of: Selection = WHOLE) -> Metric:
    """The metric called `name`, one of `KINDS`. Raises UsageError where the selection lacks what it needs."""
    kind = KINDS[name]
    if kind.wants == "at" and of.at is None:
        raise UsageError(f"--metric {name} is of one moment: --at CYCLE or --film N")
    if kind.wants == "tensor" and of.tensor is None:
        raise UsageError(f"--metric {name} needs --tensor NAME")
    if kind.wants == "some" and not of.steps and of.tensor is None:
        raise UsageError(f"--metric {name} needs --step, --node or --tensor")
    return kind.make(plan, timing, of)


# -- memory -----------------------------------------------------------------------------------------


def _sram(plan: Plan, timing: Timing, of: Selection) -> Metric:
    budget = float(plan.wafer.sram_bytes)
    if of.at is not None and not of.steps:
        return Metric("SRAM in use at the cycle", "bytes", _on(held_bytes(plan, timing, of.at)), budget)
    if of.steps or of.tensor is not None:
        title = "SRAM of the tensor" if of.tensor is not None else "SRAM of these steps"
        return Metric(title, "bytes", _on(_bytes_of(plan, _buffers(plan, of))), budget)
    return Metric("SRAM in use", "bytes", _on(plan.sram().astype(np.float64)), budget)


def held_bytes(plan: Plan, timing: Timing, at: float) -> Floats:
    """[height, width]: bytes of code and live buffers on each core at a cycle of the call.

    As a step starts, a core holds what is live at it; buffers that share one address count once.
    """
    position = np.full(plan.wafer.cores, -1)
    since = np.full(plan.wafer.cores, -np.inf)
    for s in plan.steps:
        cores = plan.regions[s.region].on(s.grid)
        start = timing.start[s.position]
        now = held(s) & (start <= at) & (start >= since[cores])
        position[cores[now]] = s.position
        since[cores[now]] = start[now]
    out = code_bytes(plan).astype(np.float64)
    for b in plan.buffers:
        lives = [(b.live, b.bytes)]
        if b.over >= 0:
            base = plan.buffers[b.over]
            lives.append(
                ((max(b.live[0], base.live[0]), min(b.live[1], base.live[1])), -min(b.bytes, base.bytes))
            )
        cores = plan.regions[b.region].on(b.grid)
        reached = position[cores]
        for (first, last), nbytes in lives:
            if first <= last:
                out[cores] += np.where((first <= reached) & (reached <= last), nbytes, 0)
    return out.reshape(plan.wafer.height, plan.wafer.width)


def code_bytes(plan: Plan) -> NDArray[np.int64]:
    """[cores]: bytes of code on each."""
    out = np.zeros(plan.wafer.cores, np.int64)
    for region, nbytes in zip(plan.regions, plan.code_bytes, strict=True):
        out[region.core] = np.maximum(out[region.core], nbytes)
    return out


def _bytes_of(plan: Plan, buffers: Sequence[Buffer]) -> Floats:
    out = np.zeros(plan.wafer.cores)
    for b in buffers:
        out[plan.regions[b.region].on(b.grid)] += b.bytes
    return out.reshape(plan.wafer.height, plan.wafer.width)


def _buffers(plan: Plan, of: Selection) -> list[Buffer]:
    """Those of a tensor, else those that the steps read, hold and write; one address counts once."""
    if of.tensor is not None:
        named = [b for b in plan.buffers if b.name == of.tensor or b.name.startswith(f"{of.tensor}#")]
        found = [b for b in named if b.role != "scratch"]  # "#": its partial sums
    else:
        steps = [s for s in plan.steps if of.has(s)]
        numbers = {n for s in steps for n in (s.result, s.scratch, *(o.buffer for o in s.operands)) if n >= 0}
        found = [plan.buffers[n] for n in sorted(numbers)]
    known = {b.number for b in found}
    return [b for b in found if b.over not in known]


def _holders(plan: Plan, _: Timing, of: Selection) -> Metric:
    """By role: where a tensor lies, whole or in parts, and who has a copy of it."""
    found = _buffers(plan, of)
    made = {s.result: s for s in plan.steps}
    out = np.full(plan.wafer.cores, np.nan)
    names: dict[str, int] = {}
    for b in sorted(found, key=lambda b: b.role != "receive"):  # who has it counts more than who gets it
        cores = plan.regions[b.region].on(b.grid)
        step = made.get(b.number)
        own: Any = np.ones(cores.shape, np.bool_) if step is None else held(step)
        role = f"{b.role}, partial sums over {step.part}" if step is not None and step.part else b.role
        out[cores[own]] = names.setdefault(f"{role}: {b.bytes:,} bytes per core", len(names))
    return _categorised(f"Who holds {shown(of.tensor or '', 60)}", out, tuple(names), plan)


# -- time ---------------------------------------------------------------------------------------------


def _running(plan: Plan, timing: Timing, of: Selection) -> Iterator[tuple[Step, Any, Floats]]:
    """(step, cores, cycles that each computes until the moment) of the selected steps that compute."""
    for s in plan.steps:
        if of.has(s) and s.kind != "input":
            active = held(s)
            start, end = timing.start[s.position][active], timing.end[s.position][active]
            if of.at is not None:
                start, end = np.minimum(start, of.at), np.minimum(end, of.at)
            yield s, plan.regions[s.region].on(s.grid)[active], end - start


def _cycles(plan: Plan, timing: Timing, of: Selection) -> Metric:
    total = np.zeros(plan.wafer.cores)
    seen = np.zeros(plan.wafer.cores, np.bool_)
    for _, cores, cycles in _running(plan, timing, of):
        total[cores] += cycles
        seen[cores] = True
    if not of.steps and of.at is None:
        total = timing.busy.reshape(-1)
    until = "until the cycle" if of.at is not None else "per call"
    used = seen if of.steps else seen | (plan.sram().reshape(-1) > 0)
    return Metric("Cycles spent computing", f"cycles {until}", _shaped(plan, np.where(used, total, np.nan)))


def _steps(plan: Plan, timing: Timing, of: Selection) -> Metric:
    count = np.zeros(plan.wafer.cores)
    for _, cores, _cycles in _running(plan, timing, of):
        count[cores] += 1
    used = count > 0 if of.steps else plan.sram().reshape(-1) > 0
    return Metric(
        "Steps with work on the core", "steps per call", _shaped(plan, np.where(used, count, np.nan))
    )


def _busy(plan: Plan, timing: Timing, of: Selection) -> Metric:
    """Which cores compute at a moment; those that will, or have, but do not now, wait."""
    out = np.where(plan.sram().reshape(-1) > 0, 0.0, np.nan)
    for s in plan.steps:
        if of.has(s) and s.kind != "input":
            out[plan.regions[s.region].on(s.grid)[_now(timing, s, of.at or 0.0)]] = 1
    return _categorised("Cores that compute at the cycle", out, ("waiting", "computing"), plan)


def _now(timing: Timing, step: Step, at: float) -> NDArray[np.bool_]:
    """[rows, columns]: where a step computes at a moment."""
    start, end = timing.start[step.position], timing.end[step.position]
    return held(step) & (start <= at) & (at < end)


def _named_most(plan: Plan, timing: Timing, of: Selection, title: str, name: Callable[[Step], str]) -> Metric:
    """By what each core computes: at the moment, else what takes most of its cycles."""
    order: dict[str, list[Step]] = {}
    for s in plan.steps:
        if of.has(s) and s.kind not in ("input", "join"):
            order.setdefault(name(s), []).append(s)
    most = np.zeros(plan.wafer.cores)
    out = np.full(plan.wafer.cores, np.nan)
    for number, steps in enumerate(order.values()):
        own = np.zeros(plan.wafer.cores)
        for s in steps:
            cores = plan.regions[s.region].on(s.grid)
            if of.at is not None:
                own[cores[_now(timing, s, of.at)]] = 1
            else:
                active = held(s)
                own[cores[active]] += (timing.end[s.position] - timing.start[s.position])[active]
        more = own > most
        most[more], out[more] = own[more], number
    return _categorised(title, out, tuple(order), plan)


def _operators(plan: Plan, timing: Timing, of: Selection) -> Metric:
    what = "Operator at the cycle" if of.at is not None else "Operator that takes most cycles"
    return _named_most(plan, timing, of, what, lambda s: s.op.name)


def _layers(plan: Plan, timing: Timing, of: Selection) -> Metric:
    part = step_parts(plan)
    what = "Layer at the cycle" if of.at is not None else "Layer that takes most cycles"
    return _named_most(plan, timing, of, what, lambda s: shown(part[s.position], 60))


def _path(plan: Plan, timing: Timing, of: Selection) -> Metric:
    """Cycles of the critical path on each core, and the way that it takes."""
    out = np.full((plan.wafer.height, plan.wafer.width), np.nan)
    line: list[tuple[int, int]] = []
    for leg in critical_path(plan, timing):
        if of.has(plan.steps[leg.step]) and (of.at is None or leg.end - leg.compute <= of.at):
            x, y = leg.core
            out[y, x] = np.nan_to_num(out[y, x]) + leg.fabric + leg.waiting + leg.compute
            if not line or line[-1] != leg.core:
                line.append(leg.core)
    return Metric("Critical path", "cycles of the path", out, line=tuple(line))


# -- links --------------------------------------------------------------------------------------------


def _moves(plan: Plan, timing: Timing, of: Selection) -> Iterator[tuple[Step, Move]]:
    """The selected moves over links: all that a step receives, or all of a tensor, that are under way."""
    made = writers(plan)
    for s in plan.steps:
        for m in s.received:
            wanted = plan.buffers[m.source].name == of.tensor if of.tensor is not None else of.has(s)
            if not wanted or m.route == "local":
                continue
            producer = made[s.position].get(m.source)
            if of.at is None:
                yield s, m
            elif producer is not None:
                when = under_way(plan, timing, s, producer)
                if when is not None and when[0] <= of.at < when[1]:
                    yield s, m


def moves_under_way(plan: Plan, timing: Timing, at: float) -> Iterator[tuple[Step, Move]]:
    """All moves over links whose bytes are on their way at a cycle, with the steps that receive them."""
    return _moves(plan, timing, Selection(at=at))


def under_way(plan: Plan, timing: Timing, step: Step, producer: int) -> tuple[float, float] | None:
    """From when to when what a step receives from a producer is on its way: from the first producer's end to
    the last consumer's start, which may be after it arrived. None where nobody sends or receives."""
    done, started = timing.end[producer][held(plan.steps[producer])], timing.start[step.position][held(step)]
    if not done.size or not started.size:
        return None
    begin = float(done.min())
    return begin, max(begin, float(started.max()))


def carried(plan: Plan, timing: Timing, of: Selection) -> Floats:
    """[4, height, width]: bytes of the selected moves on each core's outgoing links."""
    if of == WHOLE:
        return timing.links
    return link_bytes(plan, _moves(plan, timing, of))


def _linked(name: str, *directions: int) -> Callable[[Plan, Timing, Selection], Metric]:
    def make(plan: Plan, timing: Timing, of: Selection) -> Metric:
        links = carried(plan, timing, of)
        values = links[list(directions)].max(axis=0)
        used = values > 0 if of.steps or of.tensor is not None else (values > 0) | (plan.sram() > 0)
        arrows = np.zeros_like(links)
        arrows[list(directions)] = links[list(directions)]
        unit = "bytes under way" if of.at is not None else "bytes per call"
        return Metric(name, unit, np.where(used, values, np.nan), arrows=arrows)

    return make


# -- the wafer ------------------------------------------------------------------------------------------


def _dead(plan: Plan, _: Timing, __: Selection) -> Metric:
    wafer = plan.wafer
    out = np.zeros((wafer.height, wafer.width))
    for x, y, _direction in wafer.dead_links:
        out[y, x] = 1
    out[wafer.dead()] = 2
    return _categorised(
        "What works", out.reshape(-1), ("works", "some outgoing link is dead", "dead core"), plan
    )


# -- shared -----------------------------------------------------------------------------------------------


def _on(values: Floats) -> Floats:
    return np.where(values > 0, values, np.nan)


def _shaped(plan: Plan, values: Floats) -> Floats:
    return values.reshape(plan.wafer.height, plan.wafer.width)


def _categorised(title: str, values: Floats, names: tuple[str, ...], plan: Plan) -> Metric:
    """Of more categories than colours the smallest are one."""
    if len(names) > MOST_CATEGORIES:
        counts = np.bincount(values[np.isfinite(values)].astype(np.int64), minlength=len(names))
        kept: list[int] = sorted(np.argsort(-counts, kind="stable")[: MOST_CATEGORIES - 1].tolist())
        table = np.full(len(names), len(kept), np.float64)
        table[kept] = np.arange(len(kept))
        there = np.isfinite(values)
        values = np.where(there, table[np.where(there, values, 0).astype(np.int64)], np.nan)
        names = (*(names[i] for i in kept), OTHERS)
    return Metric(title, "", _shaped(plan, values), categories=tuple(names))


KINDS: dict[str, Kind] = {
    "sram": Kind("bytes of SRAM in use, of the budget", _sram),
    "cycles": Kind("cycles spent computing", _cycles),
    "busy": Kind("which cores compute at a cycle", _busy, "at"),
    "links": Kind("bytes on the fullest outgoing link", _linked("Fullest outgoing link", 0, 1, 2, 3)),
    **{d: Kind(f"bytes on links to the {d}", _linked(f"Links to the {d}", i)) for i, d in enumerate(LINKS)},
    "routes": Kind("bytes of some moves on their way", _linked("Routes", 0, 1, 2, 3), "some"),
    "path": Kind("the critical path, in cycles", _path),
    "holders": Kind("who holds a tensor, in which role", _holders, "tensor"),
    "operators": Kind("operators, by colour", _operators),
    "layers": Kind("layers of the model, by colour", _layers),
    "steps": Kind("number of steps with work", _steps),
    "dead": Kind("dead cores and links", _dead),
}
