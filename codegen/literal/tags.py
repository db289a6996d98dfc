"""Tags: what a literal run calls the buffers in SRAM, the same for all entries of a program.

Every buffer has a tag of its own, but those of constants and states that entries share: the same piece of
the same tensor at the same address of the same cores is one buffer, whatever its number in each plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from ...placement.plan.layout import Grid, whole
from ...placement.plan.move import HOST, Move, derive
from ...placement.plan.plan import Plan, Step
from .records import FREE


@dataclass(frozen=True)
class Tagged:
    """A plan's tags, by buffer number, and its constants that another entry's laying brings."""

    tags: tuple[int, ...]
    laid_before: frozenset[int]


def tags_of(plans: Iterable[Plan]) -> list[Tagged]:
    """The tags of the plans of one program."""
    known: dict[object, int] = {}
    last = FREE
    out: list[Tagged] = []
    for plan in plans:
        shared = _shared(plan)
        tags: list[int] = []
        before: set[int] = set()
        for b in plan.buffers:
            key = shared.get(b.number)
            if b.over >= 0 and b.stays:
                key = "changed", tags[b.over]  # what a state becomes where it lies
            if key is not None and key in known:
                tags.append(known[key])
                before.add(b.number)
            else:
                last += 1
                tags.append(last)
                if key is not None:
                    known[key] = last
        out.append(Tagged(tuple(tags), frozenset(before)))
    return out


def from_host(step: Step, shape: tuple[int, ...]) -> Move:
    """How an input (of `shape`) comes to its owners."""
    return derive(step.hold, whole(shape), shape, Grid(1, 1), HOST, step.result)


def _shared(plan: Plan) -> dict[int, object]:
    """For each buffer that stays: what it is, in words that hold for every entry's plan."""
    laid = {m.target: (t, m) for t, m in plan.lays}
    for s in plan.steps:
        if s.kind == "input" and plan.buffers[s.result].stays:
            laid[s.result] = s.tensor, from_host(s, plan.graph.tensors[s.tensor].shape)
    out: dict[int, object] = {}
    for number, (tensor, move) in laid.items():
        b = plan.buffers[number]
        r = plan.regions[b.region]
        where = r.x, r.y, r.width, r.height, b.grid, b.address
        pieces = tuple(getattr(d, f.name).tobytes() for d in move.dims for f in fields(d))
        out[number] = b.role, tensor, b.dtype, b.shape, b.order, where, pieces
    return out
