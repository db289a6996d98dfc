"""The order in which a step's sums are made, for its tiles and for blocks of many cores alike.

A plan fixes the order of every reduction: each core adds what its tiles read, time step by time step,
and a join adds the cores' partial results by their index. A block that stands for all these cores must
add in that order, or its bits would differ. Integers, minima and maxima may be taken in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ...ir.affine import access_axes
from ...ir.builder import FRESH, JOIN, RESUME
from ...ir.op import Op
from ...ir.ops.loops import LONG
from ...placement.plan.layout import axis_indices
from ...placement.plan.plan import Step

WIDE = 8  # elements along a kept axis that make lanes along it worth while
SHORT = 256  # iterations of one partial result up to which a kernel keeps several in registers

Bounds = Mapping[str, tuple[int, int]]  # reduced axis -> first iteration, how many


@dataclass(frozen=True)
class Stage:
    """One pass over some of the reduced iterations, and what becomes of its sum."""

    bounds: Bounds
    mode: int


@dataclass(frozen=True)
class Order:
    """The stages of a sum, one after the other; part: chunks of it that a kernel keeps apart, or ""."""

    stages: tuple[Stage, ...]
    part: str = ""
    chunk: int = 0


def across(step: Step) -> str:
    """The reduced axis that vectors run along, "" for a kept one; the same for tiles and blocks.

    Partial results of a few iterations each are summed in every lane of its own.
    """
    op = step.op
    if step.part and not op.order_free:
        wide = any(op.size[a] >= WIDE for a in access_axes(op.write))
        if wide or (step.part == op.across and _partial(step) < LONG):
            return ""
    return op.across


def _partial(step: Step) -> int:
    """Iterations of the axis `part` in one partial result."""
    a = step.part
    return step.split.tile(a, step.op.size[a]) * step.split.time_ways(a)


def lane_of(step: Step) -> str:
    """The axis that the vectors of one tile run along."""
    op = step.op
    if chosen := across(step):
        return chosen
    own = step.lane_axis
    if own not in op.reduced and own not in op.whole:
        return own
    kept = [a for a in access_axes(op.write) if a not in op.whole]
    return kept[-1] if kept else ""


def orders(step: Step) -> tuple[Order, ...]:
    """The sums of one step with its join, over whole axes, to be joined one after the other.

    Mostly one: the results of several are joined element by element, where each of the cores' partial
    results is made in several passes.
    """
    op, split = step.op, step.split
    whole = {a: (0, n) for a, n in op.axes if a in op.reduced}
    if op.combine is None or op.order_free:
        return (Order((Stage(whole, FRESH),)),)
    timed = [a for a in whole if split.time_ways(a) > 1]
    resumes = op.resumes and not across(step)
    # A sum that resumes goes through the first reduced axis in order whether or not it is cut in time.
    if resumes and op.out_type == op.accumulate and timed in ([], [*op.reduced[:1]]):
        timed = []
    parts = _chunks(op, step.part, _partial(step)) if step.part else [(0, 0)]
    if step.part and not timed and not across(step):
        chunk = parts[0][1]
        rest = prod(op.size[a] for a in op.reduced if a != step.part)
        if chunk * rest < SHORT or not resumes:
            return (Order((Stage(whole, FRESH),), step.part, chunk),)
    made: list[list[Bounds]] = []
    for lo, n in parts:
        bounds = {**whole, step.part: (lo, n)} if step.part else whole
        made.append(list(_passes(step, bounds, timed)))
    if max(map(len, made[1:]), default=1) > 1:
        return tuple(_in_passes(passes, resumes) for passes in made)
    first = _in_passes(made[0], resumes)
    return (Order((*first.stages, *(Stage(passes[0], JOIN) for passes in made[1:]))),)


def _in_passes(passes: Sequence[Bounds], resumes: bool) -> Order:
    """A sum that goes on from pass to pass."""
    modes = [FRESH, *[RESUME if resumes else JOIN] * (len(passes) - 1)]
    return Order(tuple(map(Stage, passes, modes)))


def _chunks(op: Op, axis: str, chunk: int) -> list[tuple[int, int]]:
    size = op.size[axis]
    return [(lo, min(chunk, size - lo)) for lo in range(0, size, chunk)]


def _passes(step: Step, bounds: Bounds, timed: Sequence[str]) -> Iterator[Bounds]:
    """The time steps of one partial result, those that differ in `timed`, in their order."""
    op, split = step.op, step.split
    indices = axis_indices(split, op.axes)
    numbers = zip(*(indices[a].t.tolist() for a in timed), strict=True)
    for chosen in dict.fromkeys(numbers) if timed else [()]:
        spans: dict[str, tuple[int, int]] = {}
        for a, number in zip(timed, chosen, strict=True):
            lo, n = bounds[a]
            tile = split.tile(a, op.size[a])
            spans[a] = lo + number * tile, min(tile, n - number * tile)
        if all(n > 0 for _, n in spans.values()):
            yield {**bounds, **spans}
