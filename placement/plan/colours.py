"""What the colours of a router are for: all of them are counted here.

Shared lanes have the first ones. The host has the last two, one for what comes in and one for what goes out.
Before them a reduction has two for each side of the grid that it sums along: neighbours alternate, several
roots of a line take turns. The rest is for multicast trees.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..machine.wafer import Wafer
from .plan import Step

LANES = 16  # 4 directions x 2 lengths x 2 alternating
HOST = 2
REDUCTION = 2  # along a side
LEAST = LANES + 2 * REDUCTION + HOST  # that every plan finds room in


def summed_sides(producer: Step) -> frozenset[str]:
    """The sides of the grid ("x", "y") along which the partial results of a step are reduced."""
    return frozenset(c.side for c in producer.split.cuts if c.axis == producer.part and c.side != "t")


def reductions(steps: Iterable[Step]) -> int:
    """How many colours the reductions of these steps take."""
    return REDUCTION * len(frozenset[str]().union(*(summed_sides(s) for s in steps if s.part)))


def for_trees(wafer: Wafer, steps: Iterable[Step]) -> range:
    """The colours that are left for multicast trees."""
    return range(LANES, max(LANES, wafer.colours - HOST - reductions(steps)))
