"""Sizes of regions: which are worth trying, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...ir.graph import Graph
from ..build.regions import logical_width
from ..machine.wafer import Wafer
from ..splits.policy import Policy


def shapes(wafer: Wafer, policy: Policy) -> list[tuple[int, int]]:
    """Logical (columns, rows) worth trying for a region, smallest first: as square as the wafer allows."""
    most_x, most_y = logical_width(wafer, wafer.width), wafer.height
    return sorted({(min(s, most_x), min(s, most_y)) for s in policy.sides}, key=lambda s: s[0] * s[1])


def holds(need: int, largest: tuple[int, int], wafer: Wafer, policy: Policy) -> bool:
    """Whether so many bytes leave enough of all SRAM, and fit the largest region."""
    return need <= policy.crowded * wafer.memory and need <= largest[0] * largest[1] * wafer.sram_bytes


def likely_side(graph: Graph, wafer: Wafer) -> float:
    """The side s at which work / s^2 and ways of s/4 hops for each op that sums far take least together.

    work: cycles of the whole model on one core.
    """
    work = sum(float(wafer.task(n.op, dict(n.op.axes))[0]) for n in graph.nodes)
    sums = sum(bool(n.op.reduced) for n in graph.nodes)
    return (8 * max(work, 1.0) / (max(sums, 1) * max(wafer.hop, 1.0))) ** (1 / 3)


def climb(
    sizes: Sequence[tuple[int, int]],
    side: float,
    few: bool,
    cycles: Callable[[tuple[int, int]], float],
    policy: Policy,
) -> None:
    """Asks for the `cycles` (infinite: does not fit) of `sizes`, smallest first, from the likely side on.

    Goes on upward while that gains or nothing fits, else downward while it gains. few: sizes far
    from the likely side are tried too.
    """

    def likely(i: int) -> bool:
        return few or 1 / policy.sure <= max(sizes[i]) / side <= policy.sure

    start = min(range(len(sizes)), key=lambda i: abs(math.log(max(sizes[i]) / side)))
    best, at = math.inf, start
    for i in range(start, len(sizes)):
        if math.isfinite(best) and not likely(i):
            break
        now = cycles(sizes[i])
        if math.isfinite(best) and now > policy.gain * best:
            break
        best, at = now, i
    if at > start and math.isfinite(best):
        return
    for i in reversed(range(start)):
        if math.isfinite(best) and not likely(i):
            break
        now = cycles(sizes[i])
        if math.isfinite(best) and now * policy.gain > best:
            break
        best = min(best, now)
