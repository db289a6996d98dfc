"""Addresses: where in a core's SRAM each buffer lies, by liveness over the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .plan import Buffer

ALIGNMENT = 16  # bytes; vector operations want aligned descriptors


def allocate(buffers: Sequence[Buffer], code_bytes: Sequence[int]) -> tuple[Buffer, ...]:
    """The buffers with addresses: first fit; the longest-lived, widest spread and largest first.

    Two buffers may share addresses when their grids are disjoint or they never live at the same
    time. Code lies at address 0 of each region. Nothing is refused here: a plan over budget is
    for the caller to judge.
    """
    order = sorted(buffers, key=lambda b: (b.live[0] - b.live[1], -b.grid.cores, -b.bytes, b.number))
    n = len(order)
    table: dict[str, Any] = {
        k: np.zeros(n, np.int64) for k in ("region", "x0", "y0", "x1", "y1", "first", "last", "lo", "hi")
    }
    out: dict[int, Buffer] = {}
    for i, b in enumerate(order):
        x0, y0, x1, y1 = b.grid.box
        clash = (
            (table["region"][:i] == b.region)
            & (table["x0"][:i] < x1)
            & (table["x1"][:i] > x0)
            & (table["y0"][:i] < y1)
            & (table["y1"][:i] > y0)
            & (table["first"][:i] <= b.live[1])
            & (table["last"][:i] >= b.live[0])
        )
        lo, hi = table["lo"][:i][clash], table["hi"][:i][clash]
        address = -(-code_bytes[b.region] // ALIGNMENT) * ALIGNMENT
        for j in np.argsort(lo, kind="stable"):
            if lo[j] - address >= b.bytes:
                break
            address = max(address, -(-int(hi[j]) // ALIGNMENT) * ALIGNMENT)
        out[b.number] = replace(b, address=address)
        row = (b.region, x0, y0, x1, y1, *b.live, address, address + b.bytes)
        for key, value in zip(table, row, strict=True):
            table[key][i] = value
    return tuple(out[b.number] for b in buffers)
