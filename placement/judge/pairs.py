"""Between which cores a move goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..plan.layout import Ints
from ..plan.move import Move, records
from ..plan.plan import Plan, Step


@dataclass(frozen=True)
class Pairs:
    """The distinct (producer core, consumer core) pairs of a move.

    number: the producer's grid number. source, target: physical cores. sx, sy, dx, dy: where they lie.
    """

    number: Ints
    source: Ints
    target: Ints
    sx: Ints
    sy: Ints
    dx: Ints
    dy: Ints


def pairs_of(plan: Plan, step: Step, producer: Step, move: Move) -> Pairs:
    """The pairs of a move from the producer to the step."""
    target = plan.regions[step.region].on(step.grid).ravel().astype(np.int64)
    source = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)
    found = [_distinct(r.source * len(target) + r.target) for r in records(move, step.grid)]
    every = _distinct(np.concatenate(found)) if found else np.zeros(0, np.int64)
    number, consumer = np.divmod(every, max(1, len(target)))
    s, d, w = source[number], target[consumer], plan.wafer.width
    return Pairs(number, s, d, s % w, s // w, d % w, d // w)


def _distinct(values: Ints) -> Ints:
    """Sorted, each once (by sorting: NumPy's own way hashes, which takes ten times as long here)."""
    ordered = np.sort(values)
    return ordered[np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]]
