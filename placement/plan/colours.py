"""What the colours of a router are for: all of them are counted here.

Shared lanes have the first ones, four in each direction. The host has the last two, one for what comes in
and one for what goes out. Before them a reduction has two for each side of the grid that it sums along:
neighbours alternate, several roots of a line take turns. A lane or a reduction has its colours in the routers
that it passes and in no others: everywhere else they are multicast trees', and so is what is left.
"""

from __future__ import annotations

from ..machine.wafer import LINKS
from .plan import Step

LANE = 4  # of a direction: 2 lengths x 2 alternating
LANES = LANE * len(LINKS)
HOST = 2
REDUCTION = 2  # along a side
LEAST = LANES + 2 * REDUCTION + HOST  # that every plan finds room in


def lanes(direction: str, far: bool) -> range:
    """The colours of the lanes in a direction, one of wafer.LINKS: of one hop, or of `express` hops."""
    first = LANE * LINKS.index(direction) + LANE // 2 * far
    return range(first, first + LANE // 2)


def reduction(side: str, colours: int) -> range:
    """The colours of reductions along a side of the grid, "x" or "y", of a router that has so many."""
    first = colours - HOST - REDUCTION * (1 + (side == "y"))
    return range(first, first + REDUCTION)


def summed_sides(producer: Step) -> frozenset[str]:
    """The sides of the grid ("x", "y") along which the partial results of a step are reduced."""
    return frozenset(c.side for c in producer.split.cuts if c.axis == producer.part and c.side != "t")
