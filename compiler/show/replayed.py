"""A replay of a plan wavelet by wavelet, as text and as JSON: how far the closed form is off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...placement.plan.plan import Plan
    from ...runtime.wavelets import Replay

MOST_STEPS = 8  # that are shown: those where the closed form is off by most cycles


def lines(plan: Plan, replay: Replay) -> list[str]:
    """The total, then the steps whose span the closed form misses most."""
    out = [
        f"wavelets      {replay.cycles:,.0f} cycles, {replay.hops:,} hops; the closed form says "
        f"{replay.closed:,.0f} ({100 * replay.error:+.1f} %)"
    ]
    worst = sorted(rows(plan, replay), key=lambda r: -abs(r["closed"] - r["cycles"]))
    for r in worst[:MOST_STEPS]:
        if round(r["closed"]) != round(r["cycles"]):
            how = ", ".join(dict.fromkeys(r["routes"])) or "in place"
            what = f"step {r['step']} {r['kind']} {r['op']} ({how})"
            out.append(f"  {what:<44} {r['cycles']:>9,.0f} cycles, closed form {r['closed']:>9,.0f}")
    return out


def rows(plan: Plan, replay: Replay) -> list[dict[str, Any]]:
    """Each step: cycles from the end of what it hears to its own, simulated and by the closed form."""
    return [
        {
            "step": s.position,
            "kind": s.kind,
            "op": s.op.name,
            "routes": [m.route for m in s.received],
            "cycles": float(replay.spans[s.position]),
            "closed": float(replay.closed_spans[s.position]),
            "end": float(replay.ends[s.position]),
            "closed_end": float(replay.closed_ends[s.position]),
        }
        for s in plan.steps
    ]
