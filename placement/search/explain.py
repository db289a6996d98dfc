"""Why a plan does not fit: who uses what on the fullest core."""

from __future__ import annotations

from ..plan.plan import Plan


class DoesNotFit(ValueError):
    """The model does not fit the wafer; `plan` is the nearest attempt, None where there is not even that."""

    def __init__(self, message: str, plan: Plan | None = None) -> None:
        super().__init__(message)
        self.plan = plan


def explain(plan: Plan) -> str:
    """Who uses what on the fullest core of a plan that is over budget."""
    used = plan.sram()
    core = int(used.argmax())
    x, y = core % plan.wafer.width, core // plan.wafer.width
    here = [b for b in plan.buffers if (plan.regions[b.region].on(b.grid) == core).any()]
    here.sort(key=lambda b: (-b.bytes, b.number))
    steps = {o.buffer: s for s in plan.steps for o in s.operands} | {s.result: s for s in plan.steps}
    largest = "; ".join(
        f"{steps[b.number].name if b.number in steps else b.name} ({b.role} {b.bytes:,})" for b in here[:3]
    )
    return (
        f"core ({x}, {y}) needs {int(used.max()):,} bytes, budget {plan.wafer.sram_bytes:,}; "
        f"largest: {largest}; try a larger --wafer"
    )
