"""What the simulator's tables hold, in 64-bit words. Times are ticks, TICKS of them a cycle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...placement.plan.layout import Ints

TICKS = 1024
DIRECTIONS = 4  # resources are numbered kind * cores + core: outgoing links in the order of wafer.LINKS first
RAMP_OUT, RAMP_IN, ADDER = 4, 5, 6
KINDS = 7
RAMP = 1 << 4  # of a router's outputs; those to its links are 1 << number
FROM = (
    5  # bits from here on: where a colour comes from, 1 + the number of the link that it came by, or RAMP_OUT
)

# What ends a simulation.
FINISHED, TWO_WAYS, STUCK, WAITS = range(4)


class Found:
    """Words of what a simulation found."""

    CODE, TIME, ROUTER, COLOUR, NODE, OTHER, OTHER_TIME, SERVED = range(8)
    SIZE = 8


@dataclass(frozen=True)
class Nodes:
    """Servers of streams: links, ramps and adders, each serving a stream's wavelets one after the other.

    [nodes]: resource: its number, which one wavelet takes for `service` ticks. latency: until the wavelet is
    behind it. count: wavelets. place: router * colours + colour that it enters, -1 where colours are not
    looked at; meaning: that router's configuration. step: position in the plan. [edges]: before, after.
    """

    resource: Ints
    service: Ints
    latency: Ints
    count: Ints
    place: Ints
    meaning: Ints
    step: Ints
    before: Ints
    after: Ints

    @property
    def size(self) -> int:
        return len(self.resource)


def ticks(cycles: Any) -> Any:
    """Cycles as whole ticks."""
    return np.rint(np.asarray(cycles) * TICKS).astype(np.int64)


class Drafts:
    """Nodes and edges in the making, in chunks of arrays."""

    def __init__(self) -> None:
        self.size = 0
        self._nodes: list[tuple[Ints, ...]] = []
        self._edges: list[tuple[Ints, Ints]] = []

    def add(self, resource: Any, service: Any, latency: Any, count: Any, step: int, colour: Any = -1) -> Ints:
        """New nodes; their numbers. service, latency: ticks. colour: router * colours + colour, or -1."""
        n = len(resource)
        full = [
            np.broadcast_to(np.asarray(a, np.int64), n) for a in (resource, service, latency, count, colour)
        ]
        self._nodes.append((*full, np.full(n, step, np.int64)))
        self.size += n
        return np.arange(self.size - n, self.size, dtype=np.int64)

    def edge(self, before: Ints, after: Ints) -> None:
        """Each of `after` hears the one of `before` at its place."""
        self._edges.append((np.asarray(before, np.int64), np.asarray(after, np.int64)))

    def done(self) -> Nodes:
        """All of them; what routers' colours mean follows from the edges."""
        none = np.zeros(0, np.int64)
        resource, service, latency, count, place, step = (
            np.concatenate([none, *(c[i] for c in self._nodes)]) for i in range(6)
        )
        before, after = (np.concatenate([none, *(e[i] for e in self._edges)]) for i in range(2))
        return Nodes(
            resource, service, latency, count, place, np.zeros(self.size, np.int64), step, before, after
        )
