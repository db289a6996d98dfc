"""Routes once more: trees first for the moves that a call waits for."""

from __future__ import annotations

from dataclasses import replace

from ..build.routes import routed
from ..cost.critical_path import critical_path
from ..cost.timing import Timing
from ..plan.plan import Plan


def hurried(plan: Plan, timing: Timing) -> Plan:
    """The plan with trees first for the moves of its critical path. It need not be quicker."""
    producer = {s.number: s for s in plan.steps}
    urgent = {
        (s.node, j)
        for leg in critical_path(plan, timing)
        for s in (producer[leg.step],)
        if leg.after >= 0
        for j, o in enumerate(s.operands)
        if any(m.source == producer[leg.after].result for m in o.moves)
    }
    return routed(replace(plan, urgent=frozenset(urgent)))
