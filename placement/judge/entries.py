"""Judging the entries of a program: what stays on the cores is the same for all, and safe from each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..plan.plan import Buffer, Plan
from .memory import judge_addresses
from .verdict import IllegalPlan, buffer_name

ALWAYS = (-1, 1 << 60)  # from before any call to after every one


def judge_entries(plans: Mapping[str, Plan]) -> None:
    """Raises IllegalPlan unless the plans, each legal by itself, can share their cores.

    A tensor that two entries keep is the same one: it lies at the same addresses of the same cores in
    both. What only one of them keeps is touched by no buffer of another.
    """
    names = list(plans)
    for i, a in enumerate(names):
        for b in names[:i]:
            _judge_pair(b, plans[b], a, plans[a])


def _judge_pair(one: str, first: Plan, other: str, second: Plan) -> None:
    where = f"entries {one!r} and {other!r}"
    if first.wafer != second.wafer or first.code_bytes != second.code_bytes:
        raise IllegalPlan(
            f"{where}: another wafer, or {first.code_bytes} and {second.code_bytes} bytes of code"
        )
    for a, b in zip(first.regions, second.regions, strict=False):
        if not np.array_equal(a.core, b.core):
            raise IllegalPlan(f"{where}: region {a.name!r} has other cores")
    if len(first.regions) != len(second.regions):
        raise IllegalPlan(f"{where}: {len(first.regions)} and {len(second.regions)} regions")
    sizes = {p.graph.length.capacity for p in (first, second) if p.graph.length is not None}
    if len(sizes) > 1:
        raise IllegalPlan(f"{where}: caches of {sorted(sizes)} positions")
    shared = {_place(b) for b in _kept(first)} & {_place(b) for b in _kept(second)}
    _judge_states(where, first, second, shared)
    for mine, yours in ((first, second), (second, first)):
        own = [replace(b, live=ALWAYS) for b in _kept(mine) if _place(b) not in shared]
        apart = [
            replace(b, number=b.number + len(mine.buffers), over=-1) for b in yours.buffers if b.over < 0
        ]
        for r in range(len(mine.regions)):
            judge_addresses(mine, [b for b in (*own, *apart) if b.region == r and b.bytes])


def _kept(plan: Plan) -> list[Buffer]:
    return [b for b in plan.buffers if b.stays and b.over < 0]


def _place(b: Buffer) -> tuple[Any, ...]:
    """What two plans must agree on for a tensor that both keep."""
    return b.name, b.role, b.region, b.grid, b.dtype, b.shape, b.order, b.address


def _judge_states(where: str, first: Plan, second: Plan, shared: set[tuple[Any, ...]]) -> None:
    """A state of both entries is one: else each would go on from a value of its own."""
    pasts = {past for past, _ in first.graph.states} & {past for past, _ in second.graph.states}
    for plan in (first, second):
        for b in _kept(plan):
            if b.name in pasts and _place(b) not in shared:
                raise IllegalPlan(f"{where}: {buffer_name(b)} lies elsewhere in the other one")
