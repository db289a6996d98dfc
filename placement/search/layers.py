"""Layers: the stretch of a graph in which the same ops come again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...ir.graph import Graph
from ...ir.op import Op

MOST_PERIODS = 16  # lengths of a layer that are looked at


@dataclass(frozen=True)
class Layers:
    """`count` layers of `period` nodes each, from node `start` on."""

    start: int
    period: int
    count: int

    @property
    def end(self) -> int:
        """The first node after the last layer."""
        return self.start + self.period * self.count

    def of(self, node: int) -> int:
        """The number of the node's layer; -1 for a node before the first one, `count` after the last."""
        if node < self.start:
            return -1
        return min((node - self.start) // max(1, self.period), self.count)


def repeated(graph: Graph) -> Layers | None:
    """The most nodes that are layers alike; None where nothing repeats."""
    numbers: dict[Op, int] = {}
    ops = np.array([numbers.setdefault(n.op, len(numbers)) for n in graph.nodes], np.int64)
    best: Layers | None = None
    for period in sorted(_periods(ops.tolist())):
        same = np.concatenate([[False], ops[period:] == ops[:-period], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1])
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            count = (last - first) // period + 1
            if count > 1 and (best is None or period * count > best.period * best.count):
                best = Layers(first, period, count)
    return best


def _periods(ops: Sequence[int]) -> list[int]:
    """How far from one another equal ops stand, the most frequent distances."""
    places: dict[int, list[int]] = {}
    for i, op in enumerate(ops):
        places.setdefault(op, []).append(i)
    apart = Counter(b - a for at in places.values() for a, b in pairwise(at))
    return [d for d, _ in apart.most_common(MOST_PERIODS)]
