"""The judge: is a plan legal? Independent of the planner, so that neither can excuse the other.

Everything is derived anew from the graph's accesses, the splits, grids, buffers and moves; of the
planner's code only `layout` (what a split means) and `records` (what a move's tables mean) are
used. Region descriptors and per-dimension tables are judged, not cores one by one.
"""

from __future__ import annotations

from collections.abc import Callable

from ..plan.plan import Plan
from .delivery import judge_delivery
from .graph import judge_graph
from .memory import judge_memory
from .order import judge_order
from .partition import judge_partition, judge_split
from .regions import judge_dead_cores, judge_place, judge_regions
from .routes import judge_routes
from .verdict import IllegalPlan, index_of

__all__ = ["IllegalPlan", "judge"]


Report = Callable[[str, float], None]
"""(what is judged, share done)"""


def judge(plan: Plan, report: Report = lambda what, share: None) -> None:
    """Raises IllegalPlan, one line, for the first thing that is wrong with `plan`."""
    judge_regions(plan)
    index = index_of(plan)
    for position, step in enumerate(plan.steps):
        judge_place(plan, step, position)
        judge_split(step)
    judge_graph(plan, index)
    judge_dead_cores(plan)
    report("partitions", 0.1)
    for tensor, steps in index.writers.items():
        judge_partition(plan, tensor, steps)
    report("order", 0.2)
    judge_order(plan, index)
    report("memory", 0.3)
    judge_memory(plan, index)
    report("deliveries", 0.4)
    judge_delivery(plan, index)
    report("routes", 0.7)
    judge_routes(plan, index)
