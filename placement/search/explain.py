"""Why a plan does not fit: who uses what on the fullest core."""

from __future__ import annotations

from collections.abc import Sequence

from ..machine.wafer import Wafer
from ..plan.plan import Buffer, Plan
from .least import Least, short


class DoesNotFit(ValueError):
    """The model does not fit the wafer; `plan` is the nearest attempt, None where there is not even that.

    least: what it takes at least, where that is more than the wafer has.
    """

    def __init__(self, message: str, plan: Plan | None = None, least: Least | None = None) -> None:
        super().__init__(message)
        self.plan, self.least = plan, least


def explain(plan: Plan, room: int | None = None) -> str:
    """Who uses what on the fullest core of a plan that is over budget.

    room: bytes of a core that may stay in use between calls, the rest being for entries that come later; None
    where there are none.
    """
    used = plan.sram()
    budget = plan.wafer.sram_bytes
    if room is not None and int(used.max()) <= budget:
        kept = [b for b in plan.buffers if b.stays]
        core = int(
            plan.regions[(b := max(kept, key=lambda b: b.address + b.bytes)).region].on(b.grid).flat[0]
        )
        return (
            f"{_core(plan, core)} keeps {b.address + b.bytes:,} bytes between calls, budget {room:,}: of "
            f"{budget:,} bytes {budget - room:,} are for the entries that come later; "
            f"largest: {_largest(plan, core, kept)}"
        )
    core = int(used.argmax())
    return (
        f"{_core(plan, core)} needs {int(used.max()):,} bytes, budget {budget:,}; "
        f"largest: {_largest(plan, core, plan.buffers)}"
    )


def _core(plan: Plan, core: int) -> str:
    return f"core ({core % plan.wafer.width}, {core // plan.wafer.width})"


def _largest(plan: Plan, core: int, buffers: Sequence[Buffer]) -> str:
    here = [b for b in buffers if (plan.regions[b.region].on(b.grid) == core).any()]
    here.sort(key=lambda b: (-b.bytes, b.number))
    steps = {o.buffer: s for s in plan.steps for o in s.operands} | {s.result: s for s in plan.steps}
    return "; ".join(
        f"{short(steps[b.number].name if b.number in steps else b.name)} ({b.role} {b.bytes:,})"
        for b in here[:3]
    )


def too_much(found: Least, wafer: Wafer, cores: int) -> DoesNotFit:
    """The error of a graph that no plan brings onto so many cores."""
    return DoesNotFit(
        f"{found.what} need {found.bytes:,} bytes; wafer {wafer.name} has {cores * wafer.sram_bytes:,} "
        f"({cores:,} core{'' if cores == 1 else 's'} x {wafer.sram_bytes:,}); largest: {found}",
        least=found,
    )
