"""What `waferc inspect` says of one core, link, step, node or tensor, or of one cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError, shown
from ..show.text import facts, folded, table
from .console import Console

if TYPE_CHECKING:
    from .saved import Saved

STEPS = ("step", "op", "node", "start", "end", "bytes", "cores", "place", "split")
BUFFERS = ("address", "bytes", "role", "type", "shape", "live", "name")


def inspect_node(console: Console, saved: Saved, name: str) -> dict[str, Any]:
    from ..show.found import of_node

    steps = of_node(saved.plan, saved.timing, name)
    _table(console, STEPS, steps)
    note(console, "start, end: cycles. bytes: what the step reads, holds and writes on one core.")
    return {"program": saved.path, "entry": saved.entry, "node": name, "steps": steps}


def inspect_step(console: Console, saved: Saved, position: int) -> dict[str, Any]:
    from ..show.considered import Considered, considered_rows
    from ..show.expected_error import Expected, expected_line
    from ..show.found import of_step

    step = of_step(saved.plan, saved.timing, position)
    lines = [(t, f"{step[t]:,}" if isinstance(step[t], int) else str(step[t])) for t in STEPS[1:]]
    result = step["result"]
    lines.append(("result", f"{result['name']}: {result['bytes']:,} bytes at {result['address']:,}"))
    lines.append(("read by steps", ", ".join(map(str, step["readers"])) or "none"))
    errors = expected_line([Expected(**e) for e in step["expected_error"]])
    lines += [("expected error", errors)] if errors else []
    for line in facts([("step", str(position)), *lines]):
        console.say(line)
    if step["operands"]:
        console.say()
        _table(console, ("from", "route", "received", "bytes", "address", "tensor"), step["operands"])
        note(console, "from: the step that made it. received: bytes of all cores together.")
    if step["considered"]:
        console.say()
        rows = considered_rows([Considered(**c) for c in step["considered"]])
        for line in table(["split", "grid", "cycles", ""], rows, wrap=["split"]):
            console.say(line)
        note(
            console,
            "The splits that are weighed for it, by estimates; what each leaves to later steps apart.",
        )
    return {"program": saved.path, "entry": saved.entry, **step}


def inspect_tensor(console: Console, saved: Saved, name: str) -> dict[str, Any]:
    from ..show.found import of_tensor

    found = of_tensor(saved.plan, saved.timing, name)
    for title, rows, titles in (
        (
            "Held by",
            found["buffers"],
            ("address", "bytes", "role", "type", "shape", "live", "cores", "place"),
        ),
        ("Written by", found["written"], STEPS),
        ("Read by", found["read"], STEPS),
    ):
        console.say(f"{title}:" if rows else f"{title}: none")
        if rows:
            _table(console, titles, rows)
        console.say()
    note(console, "bytes: on one core. live: first to last step. start, end: cycles.")
    return {"program": saved.path, "entry": saved.entry, "tensor": name, **found}


def inspect_link(console: Console, saved: Saved, link: tuple[int, int, str]) -> dict[str, Any]:
    from ..show.found import of_link

    x, y, direction = link
    _judge_core(saved, f"--link {x},{y},{direction}", x, y)
    found = of_link(saved.plan, saved.timing, x, y, direction)
    share = found["full"] / saved.timing.cycles if saved.timing.cycles else 0.0
    note(
        console,
        f"link ({x}, {y}) {direction}: {found['bytes']:,} bytes per call, full for {found['full']:,} cycles "
        f"({share:.1%} of the call)",
    )
    if (x, y, direction) in saved.plan.wafer.dead_links:
        console.say("this link is dead")
    if found["moves"]:
        console.say()
        _table(console, ("from", "to", "route", "bytes", "begin", "end", "tensor"), found["moves"])
        note(
            console, "from, to: steps. bytes: on this link. begin, end: cycles between which it is under way."
        )
    return {"program": saved.path, "entry": saved.entry, "link": list(link), **found}


def inspect_cycle(console: Console, saved: Saved, at: float) -> dict[str, Any]:
    from ..show.found import at_cycle

    found = at_cycle(saved.plan, saved.timing, at)
    x, y = found["fullest_core"]
    used, budget = found["fullest_core_bytes"], saved.plan.wafer.sram_bytes
    console.say(f"cycle {at:,.0f} of {saved.timing.cycles:,.0f}")
    console.say(f"fullest core then ({x}, {y}): {used:,} of {budget:,} bytes live")
    for title, rows, titles in (
        ("Computing", found["steps"], ("step", "op", "node", "start", "end", "now", "cores", "place")),
        ("Under way", found["moves"], ("from", "to", "route", "received", "begin", "end", "tensor")),
    ):
        console.say()
        console.say(f"{title}:" if rows else f"{title}: nothing")
        if rows:
            _table(console, titles, rows)
    if found["steps"]:
        note(console, "now: cores that compute the step at this cycle, of all its cores.")
    return {"program": saved.path, "entry": saved.entry, **found}


def _judge_core(saved: Saved, told: str, x: int, y: int) -> None:
    """Raises UsageError for a core that the wafer has not."""
    wafer = saved.plan.wafer
    if not (0 <= x < wafer.width and 0 <= y < wafer.height):
        raise UsageError(
            f"{told}: wafer {shown(wafer.name)} has columns 0 to {wafer.width - 1} "
            f"and rows 0 to {wafer.height - 1}"
        )


def note(console: Console, text: str) -> None:
    """A line that folds at the terminal's width."""
    for line in folded(text):
        console.say(line)


def _table(console: Console, titles: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    for line in table(titles, [[r[t] for t in titles] for r in rows], wrap=["split"]):
        console.say(line)


def inspect_core(console: Console, saved: Saved, x: int, y: int) -> dict[str, Any]:
    from ..show.rows import LONGEST_NAME, at_core, buffer_rows, code_at, share

    plan, wafer = saved.plan, saved.plan.wafer
    _judge_core(saved, f"--core {x},{y}", x, y)
    used = int(plan.sram()[y, x])
    buffers, running = at_core(plan, x, y)
    rows = buffer_rows(plan, buffers)
    code = code_at(plan, y * wafer.width + x)
    note(
        console,
        f"core ({x}, {y}): {share(used, wafer.sram_bytes)} bytes, {code:,} of them code from address 0",
    )
    if (x, y) in wafer.dead_cores:
        console.say("this core is dead")
    if rows:
        console.say()
        _table(console, BUFFERS, rows)
    steps = [
        {
            "step": s.position,
            "op": s.op.name if s.kind in ("task", "join") else s.kind,
            "start": round(float(saved.timing.start[s.position][row, column])),
            "end": round(float(saved.timing.end[s.position][row, column])),
            "node": shown(s.name, LONGEST_NAME),
        }
        for s, row, column in running
    ]
    if steps:
        console.say()
        _table(console, ("step", "op", "start", "end", "node"), steps)
    return {
        "program": saved.path,
        "core": [x, y],
        "used": used,
        "code": code,
        "buffers": rows,
        "steps": steps,
    }
