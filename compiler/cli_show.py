"""`waferc heatmap`, `report`, `inspect`, `wafers` and `ops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import Verb
from .console import Console, facts, table
from .errors import UsageError, quoted, shown
from .options import Core, entry

if TYPE_CHECKING:
    from .saved import Saved

METRICS = ("sram", "cycles", "links", "ops")
PICTURES = (".png", ".svg")


@click.command(cls=Verb)
@click.argument("program")
@click.option("-o", "output", required=True, metavar="FILE.png|FILE.svg", help="The picture.")
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    default="sram",
    show_default=True,
    help="Bytes in use; cycles computing; bytes on the fullest link; steps.",
)
@entry
@click.pass_obj
def heatmap(console: Console, program: str, output: str, metric: str, entry: str | None) -> None:
    """Draw a program or plan on the wafer.

    Every core of PROGRAM (.wafer or .plan) is coloured by a metric; regions are
    outlined and named.
    """
    from .files import replacing
    from .heatmap import draw
    from .saved import Saved
    from .show import picture

    if not output.lower().endswith(PICTURES):
        raise UsageError(f"-o {quoted(output)}: a heatmap is a {' or '.join(PICTURES)} file")
    saved = Saved(program, entry)
    drawn = picture(saved.plan, saved.timing)
    with replacing(output) as part:
        draw(drawn, metric, part)
    console.note(f"wrote {shown(output)}")
    console.result({"program": program, "metric": metric, "output": output})


@click.command(cls=Verb)
@click.argument("program")
@click.option("-o", "output", required=True, metavar="FILE.html", help="The report.")
@entry
@click.pass_obj
def report(console: Console, program: str, output: str, entry: str | None) -> None:
    """Write a page to explore a program or plan with.

    One HTML file that needs nothing else: the wafer to zoom into, the table of steps
    and the totals of PROGRAM (.wafer or .plan).
    """
    from .files import replacing
    from .report import write_report
    from .saved import Saved
    from .show import picture

    saved = Saved(program, entry)
    drawn = picture(saved.plan, saved.timing)
    with replacing(output) as part:
        write_report(drawn, part)
    console.note(f"wrote {shown(output)}")
    console.result({"program": program, "output": output})


@click.command(cls=Verb)
@click.argument("program")
@click.option("--core", type=Core(), metavar="X,Y", help="What lies and runs on this core.")
@entry
@click.pass_obj
def inspect(console: Console, program: str, core: tuple[int, int] | None, entry: str | None) -> None:
    """Say what is inside a program or plan.

    The totals, regions and steps of PROGRAM (.wafer or .plan), or the buffers and
    steps of one core.
    """
    from .saved import Saved

    saved = Saved(program, entry)
    console.result(_overview(console, saved) if core is None else _core(console, saved, *core))


def _overview(console: Console, saved: Saved) -> dict[str, Any]:
    from .paths import leg_rows, path_rows
    from .show import region_rows, step_rows, summary

    f = saved.figures
    regions, steps = region_rows(saved.plan), step_rows(saved.plan, saved.timing)
    if len(saved.entries) > 1:
        console.say(f"entry {saved.entry} of {', '.join(saved.entries)}")
    for line in facts(summary(saved.plan, f)):
        console.say(line)
    if saved.hosts:
        some = ", ".join(shown(name) + (f" x {n}" if n > 1 else "") for name, n in saved.hosts.items())
        console.say(f"on the host, between the entries: {some}")
    console.say()
    rows = [
        [r["region"], r["place"], len(r["nodes"]), shown(r["nodes"][0]) if r["nodes"] else r["name"]]
        for r in regions
    ]
    for line in table(["region", "place", "nodes", "first"], rows):
        console.say(line)
    console.say()
    titles = ["step", "rides", "op", "node", "split", "grid", "tiles", "start", "end", "bytes"]
    for line in table(titles, [[s[t] for t in titles] for s in steps], wrap=["split"]):
        console.say(line)
    console.say("rides: on the step whose task, and wavefront, it is part of. start, end: cycles.")
    console.say("bytes: what the step reads, holds and writes on one core.")
    console.say()
    console.say("Critical path, in cycles:")
    path = path_rows(saved.plan, saved.timing)
    titles = ["part", "steps", "cycles", "fabric", "waiting", "compute"]
    for line in table(titles, [[p[t] for t in titles] for p in path]):
        console.say(line)
    console.say("fabric: until the last operand is there. waiting: the core is busy.")
    return {
        "program": saved.path,
        "entries": list(saved.entries),
        "entry": saved.entry,
        "host": saved.hosts,
        "figures": vars(f),
        "regions": regions,
        "steps": steps,
        "critical_path": {"parts": path, "legs": leg_rows(saved.plan, saved.timing)},
    }


def _core(console: Console, saved: Saved, x: int, y: int) -> dict[str, Any]:
    from .show import at_core, buffer_rows, code_at, share

    plan, wafer = saved.plan, saved.plan.wafer
    if not (0 <= x < wafer.width and 0 <= y < wafer.height):
        raise UsageError(
            f"--core {x},{y}: wafer {shown(wafer.name)} has columns 0 to {wafer.width - 1} "
            f"and rows 0 to {wafer.height - 1}"
        )
    used = int(plan.sram()[y, x])
    buffers, running = at_core(plan, x, y)
    rows = buffer_rows(plan, buffers)
    code = code_at(plan, y * wafer.width + x)
    console.say(
        f"core ({x}, {y}): {share(used, wafer.sram_bytes)} bytes, {code:,} of them code from address 0"
    )
    if (x, y) in wafer.dead_cores:
        console.say("this core is dead")
    if rows:
        console.say()
        titles = ["address", "bytes", "role", "type", "shape", "live", "name"]
        for line in table(titles, [[r[t] for t in titles] for r in rows]):
            console.say(line)
    steps = [
        {
            "step": s.position,
            "op": s.op.name if s.kind in ("task", "join") else s.kind,
            "start": round(float(saved.timing.start[s.position][row, column])),
            "end": round(float(saved.timing.end[s.position][row, column])),
            "node": shown(s.name),
        }
        for s, row, column in running
    ]
    if steps:
        console.say()
        titles = ["step", "op", "start", "end", "node"]
        for line in table(titles, [[s[t] for t in titles] for s in steps]):
            console.say(line)
    return {
        "program": saved.path,
        "core": [x, y],
        "used": used,
        "code": code,
        "buffers": rows,
        "steps": steps,
    }


@click.command(cls=Verb)
@click.pass_obj
def wafers(console: Console) -> None:
    """List the wafer presets and their constants.

    Besides these, --wafer takes WIDTHxHEIGHT (with wse3's constants) and TOML files.
    """
    from dataclasses import asdict

    from ..placement.wafer import PRESETS, preset

    machines = [preset(name) for name in PRESETS]
    rows = [
        [m.name, f"{m.width}x{m.height}", m.cores, m.sram_bytes, f"{m.clock_hz / 1e9:g}", m.colours]
        for m in machines
    ]
    for line in table(["wafer", "grid", "cores", "bytes", "GHz", "colours"], rows):
        console.say(line)
    console.say()
    own = [m for m in machines if m.name in ("wse2", "wse3")]
    names = (
        "hop", "turn", "send", "done", "wavelet_bytes", "wavelet", "loop", "stage", "relay", "express",
        "code_bytes_base", "code_bytes_per_kernel", "host_bytes_per_cycle",
    )  # fmt: skip
    lines: list[list[str]] = [[n, *(f"{getattr(m, n):g}{_mark(n in m.assumed)}" for m in own)] for n in names]
    for kind in own[0].vector:
        cells = [
            f"{m.vector[kind][0]:g} + n/{m.vector[kind][1]:g}{_mark(f'vector.{kind}' in m.assumed)}"
            for m in own
        ]
        lines.append([f"vector.{kind}", *cells])
    for line in table(["constant", *(m.name for m in own)], lines):
        console.say(line)
    console.say("Cycles, unless named bytes; vectors: cycles for n elements.")
    console.say("?: assumed, not published.")
    console.result({"wafers": [asdict(m) for m in machines]})


def _mark(assumed: bool) -> str:
    return " ?" if assumed else ""


@click.command("ops", cls=Verb)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.pass_obj
def operators(console: Console, names: tuple[str, ...]) -> None:
    """List the ONNX operators and how each is carried out.

    All of the installed onnx, or those with NAME in their name: where they run, the
    opsets that brought the versions known, the element types of their tensors, and
    what is left out.
    """
    from .catalogue import TERMS, summary
    from .catalogue import operators as standard

    every = standard()
    found = [o for o in every if not names or any(n.lower() in o.name.lower() for n in names)]
    if not found:
        raise UsageError(f"no operator of ONNX has {' or '.join(map(quoted, names))} in its name")
    titles = ["operator", "where", "opsets", "types", "limits"]
    rows = [[o.full_name, o.where, o.opsets, o.typed, o.limits] for o in found if names or not o.domain]
    for line in table(titles, rows, wrap=["opsets", "types", "limits"]):
        console.say(line)
    console.say()
    for line in summary(found):
        console.say(line)
    console.say()
    for line in facts(TERMS):
        console.say(line)
    entries = [
        {
            "operator": o.name,
            "domain": o.domain or "ai.onnx",
            "where": o.place,
            "opsets": o.versions,
            "converted": o.converted,
            "types": {parameter: [t.name for t in types] for parameter, types in o.types},
            "limits": o.limits,
        }
        for o in found
    ]
    console.result({"operators": entries})
