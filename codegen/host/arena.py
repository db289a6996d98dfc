"""All entries of a program on one arena: what they share lies there once, the rest takes turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...placement.plan.plan import Plan
from .entry_homes import kept_padded_reads, work_of
from .homes import Home, Lay, Stock, allocate, margins_of
from .sweeps import Part, sweeps_of


@dataclass(frozen=True)
class Shared:
    """All of a program: homes with addresses, the constants that are laid once, and its entries."""

    homes: Mapping[int, Home]
    bytes: int
    constants: tuple[Lay, ...]
    entries: Mapping[str, Part]


def share(plans: Mapping[str, Plan], lanes: int, widens: bool = False) -> Shared:
    """The sweeps of a program's plans, by entry, for a host with `lanes` f32 lanes. widens: see `sweeps_of`.

    A constant or state of one name is the same in all entries. It stands in memory as the entry wants it
    that computes least: there reading it is what takes the time.
    """
    stock = Stock(margins_of(read for plan in plans.values() for read in kept_padded_reads(plan)))
    least_first = sorted(plans, key=lambda name: work_of(plans[name]))
    made = {name: sweeps_of(plans[name], lanes, stock, widens) for name in least_first}
    homes = [_lived(h, stock.count) for h in stock.homes.values()]
    # Constants that only stand in panels need no home in their own order.
    used = [h for h in homes if h.kind != "constant" or h.number in stock.touched]
    placed, size = allocate(used)
    kept = {h.number: h for h in placed}
    constants = tuple(lay for lay in stock.constants if lay.home in kept)
    return Shared(kept, size, constants, {name: made[name] for name in plans})


def _lived(home: Home, end: int) -> Home:
    """What keeps its value between calls lives always."""
    lasts = home.stays or home.fill is not None
    return replace(home, live=(-1, end)) if lasts else home
