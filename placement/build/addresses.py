"""Addresses: where in a core's SRAM each buffer lies, by liveness over the schedule."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..plan.plan import Buffer

ALIGNMENT = 16  # bytes; vector operations want aligned descriptors
ALWAYS = 1 << 60  # a position that no schedule reaches
DENSE = 4  # bytes, or those of an element: where room is short
TRIES = 4  # orders of buffers tried while some end above the limit


def allocate(
    buffers: Sequence[Buffer],
    code_bytes: Sequence[int],
    limit: float = math.inf,
    alone: Sequence[Buffer] = (),
) -> tuple[Buffer, ...]:
    """The buffers with addresses, all below `limit` if one of a few orders manages that.

    Two buffers may share addresses when their grids are disjoint or they never live at the same
    time. Code lies at address 0 of each region. Nothing is refused here: a plan over budget is
    for the caller to judge. One that takes over another lies where that one does.
    One that has an address keeps it. alone: placed buffers of other entries of the program. Those of them
    that do not stay are alive only when this one's are not, but for those of this one that stay.
    """
    heads = _heads(buffers)
    owners = _owners(buffers, heads)
    best = made = _first_fit(owners, code_bytes, (), ALIGNMENT, alone, limit)
    early: set[int] = set()
    for _ in range(TRIES):
        high = {b.number for b in made if b.address + b.bytes > limit} - early
        if not high:
            break
        # Those that came last found the gaps taken in bits: now they choose first.
        early |= high
        made = _first_fit(owners, code_bytes, early, DENSE, alone, limit)
        best = min(best, made, key=_highest)
    at = {b.number: b.address for b in best}
    return tuple(replace(b, address=at[heads.get(b.number, b.number)]) for b in buffers)


def _heads(buffers: Sequence[Buffer]) -> dict[int, int]:
    """For each buffer that takes over another, the first of the buffers that lie there in turn."""
    over = {b.number: b.over for b in buffers if b.over >= 0}
    heads: dict[int, int] = {}
    for number, old in over.items():
        way = [number]
        while old in over and old not in heads:
            way.append(old)
            old = over[old]
        heads |= dict.fromkeys(way, heads.get(old, old))
    return heads


def _owners(buffers: Sequence[Buffer], heads: Mapping[int, int]) -> list[Buffer]:
    """The buffers that have an address of their own, living as long as those that take them over."""
    last: dict[int, int] = {}
    for b in buffers:
        if b.number in heads:
            head = heads[b.number]
            last[head] = max(last.get(head, -1), b.live[1])
    return [
        replace(b, live=(b.live[0], max(b.live[1], last.get(b.number, -1))))
        for b in buffers
        if b.number not in heads
    ]


def _highest(buffers: Sequence[Buffer]) -> int:
    return max((b.address + b.bytes for b in buffers), default=0)


def _first_fit(
    buffers: Sequence[Buffer],
    code_bytes: Sequence[int],
    early: Collection[int],
    alignment: int,
    alone: Sequence[Buffer],
    limit: float,
) -> tuple[Buffer, ...]:
    """Each buffer where it fits first; after `early` the longest-lived, widest spread and largest come first.

    What has its place comes first, then what lives always.
    """

    def rank(b: Buffer) -> tuple[int, int, int, int, int]:
        turn = 0 if b.address >= 0 else 2 - (b.stays or b.number in early)
        return turn, b.live[0] - b.live[1], -b.grid.cores, -b.bytes, b.number

    order = [*alone, *sorted(buffers, key=rank)]
    n = len(order)
    names = ("region", "x0", "y0", "x1", "y1", "dx", "dy", "first", "last", "lo", "hi")
    table: dict[str, Any] = {k: np.zeros(n, np.int64) for k in names}
    passing = np.array([not b.stays for b in alone], np.bool_)
    out: dict[int, Buffer] = {}
    for i, b in enumerate(order):
        x0, y0, x1, y1 = b.grid.box
        live = b.live if i >= len(alone) else (-1, ALWAYS)
        clash = (
            (table["region"][:i] == b.region)
            & (table["x0"][:i] < x1)
            & (table["x1"][:i] > x0)
            & (table["y0"][:i] < y1)
            & (table["y1"][:i] > y0)
            & (table["first"][:i] <= b.live[1])
            & (table["last"][:i] >= b.live[0])
        )
        for start, pitch, own, step in (("x0", "dx", x0, b.grid.dx), ("y0", "dy", y0, b.grid.dy)):
            if step > 1:  # spread grids whose columns lie between one another's
                every = np.gcd(table[pitch][:i], step)
                clash &= (table[start][:i] - own) % np.maximum(every, 1) == 0
        if i >= len(alone) and not b.stays:
            clash[: len(alone)] &= ~passing
        lo, hi = table["lo"][:i][clash], table["hi"][:i][clash]
        nbytes = b.bytes
        aligned = max(alignment, b.dtype.bytes)
        address = b.address
        if address < 0 and alone and b.stays:
            # At the end: what comes and goes has the room behind what the first entry keeps to itself.
            address = _last_gap(lo, hi, nbytes, code_bytes[b.region], aligned, limit)
        if address < 0:
            address = _first_gap(lo, hi, nbytes, code_bytes[b.region], aligned)
        if i >= len(alone):
            out[b.number] = replace(b, address=address)
        row = (b.region, x0, y0, x1, y1, b.grid.dx, b.grid.dy, *live, address, address + nbytes)
        for key, value in zip(table, row, strict=True):
            table[key][i] = value
    return tuple(out[b.number] for b in buffers)


def _last_gap(lo: Any, hi: Any, nbytes: int, start: int, alignment: int, limit: float) -> int:
    """The last aligned address from `start` where `nbytes` lie clear of all [lo, hi) and end at `limit` or
    before; -1 where there is none."""
    if not math.isfinite(limit):
        return -1
    for end in [int(limit), *sorted(lo.tolist(), reverse=True)]:
        at = (end - nbytes) // alignment * alignment
        if start <= at and not ((lo < at + nbytes) & (hi > at)).any():
            return at
    return -1


def _first_gap(lo: Any, hi: Any, nbytes: int, start: int, alignment: int) -> int:
    """The first aligned address from `start` where `nbytes` lie clear of all intervals [lo, hi)."""
    order = np.argsort(lo, kind="stable")
    # Before interval i, addresses are free from the highest end of those that begin before it.
    free = np.concatenate([[start], np.maximum(np.maximum.accumulate(hi[order]), start)])
    free = -(-free // alignment) * alignment
    enough = np.flatnonzero(lo[order] - free[:-1] >= nbytes)
    return int(free[enough[0]] if len(enough) else free[-1])
