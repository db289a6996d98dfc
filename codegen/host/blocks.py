"""Blocks: the boxes of a sweep's iterations that one kernel call computes.

They are chosen for the host's caches and threads and have nothing to do with the tiles of the plan:
a sum's order is kept by its stages, and kept axes may be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ...ir.op import Op
from ...placement.plan.layout import Ints
from .sum_order import Stage

NEAR = 1 << 18  # bytes of operands that stay in the cache next to a processor: half of a common L2
ELEMENTS = 1 << 14  # of an elementwise block
SHARES = 16  # blocks that a sweep worth sharing is cut into at least
LITTLE = 300_000  # vector lanes' work below which a sweep is not shared: some microseconds


@dataclass(frozen=True)
class Boxes:
    """Calls: first iteration and extent of each axis, int64 [calls, axes], their modes [calls], and the
    calls of each item, which one thread makes in order: [items + 1]."""

    first: Ints
    extent: Ints
    mode: Ints
    items: Ints


def boxes(
    axes: Sequence[tuple[str, int]],
    steps: Mapping[str, int],
    stages: Sequence[Stage],
    names: Mapping[str, str],
    outermost: str = "",
) -> Boxes:
    """Every item is a box of kept axes, at most `steps[axis]` long, and goes through all stages.

    names: of the stages' axes in `axes`. outermost: the axis that the items go along last; the others follow
    in their order, the first outermost.
    """
    kept = sorted(((a, n) for a, n in axes if a in steps), key=lambda axis: axis[0] != outermost)
    cuts = [np.arange(0, n, steps[a], dtype=np.int64) for a, n in kept]
    grid: Sequence[Ints] = np.meshgrid(*cuts, indexing="ij") if cuts else ()
    items = int(np.prod([len(c) for c in cuts], dtype=np.int64))
    number = {a: i for i, (a, _) in enumerate(axes)}
    first = np.zeros((items, len(stages), len(axes)), np.int64)
    extent = np.zeros_like(first)
    for i, (_, n) in enumerate(axes):
        extent[:, :, i] = n
    for (a, n), at in zip(kept, grid, strict=True):
        low = at.ravel()[:, None]
        first[:, :, number[a]] = low
        extent[:, :, number[a]] = np.minimum(steps[a], n - low)
    for s, stage in enumerate(stages):
        for a, (lo, n) in stage.bounds.items():
            if a in names:
                first[:, s, number[names[a]]] = lo
                extent[:, s, number[names[a]]] = n
    modes = np.tile(np.array([s.mode for s in stages], np.int64), items)
    starts = np.arange(items + 1, dtype=np.int64) * len(stages)
    shape = len(modes), len(axes)
    return Boxes(first.reshape(shape), extent.reshape(shape), modes, starts)


def steps_of(op: Op, lane: str, width: int, lanes: int, whole: Sequence[str]) -> dict[str, int]:
    """How far a block goes along each kept axis.

    width: of the panels that the lane axis is cut into, 0 for none. whole: axes that must not be cut.
    """
    size = op.size
    kept = [a for a, _ in op.axes if a not in op.reduced]
    steps = {a: max(1, size[a]) for a in kept}
    work = sum(int(w.elements) for w in op.work(size))
    if width and lane in steps:
        steps[lane] = width
    inner = prod(size[a] for a in op.reduced)
    bound = NEAR // 4 if op.panels else ELEMENTS

    def cost() -> int:
        """What one block reads of its largest operand, in elements."""
        return inner * prod(steps[a] for a in kept if a != lane or not width)

    free = [a for a in kept if a not in whole]
    for a in free:
        if a == lane and width:
            continue
        while cost() > bound and steps[a] > 1:
            steps[a] = -(-steps[a] // 2)
    if work >= LITTLE:
        # Enough blocks for the threads, cut along the outermost axes.
        for a in free:
            others = prod(-(-size[b] // steps[b]) for b in kept if b != a)
            least = lanes if a == lane else 1
            while others * -(-size[a] // steps[a]) < SHARES and steps[a] >= 2 * least:
                half = -(-steps[a] // 2)
                steps[a] = -(-half // lanes) * lanes if a == lane else half
    return steps
