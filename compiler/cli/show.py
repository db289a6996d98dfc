"""`waferc heatmap`, `report`, `inspect`, `wafers` and `ops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError, shown
from ..show.text import facts, table
from .command import Verb
from .console import Console
from .named_files import PAGE, Format, Reads, Writes
from .options import Core, entry

if TYPE_CHECKING:
    from .saved import Saved

METRICS = ("sram", "cycles", "links", "ops")


@click.command(cls=Verb)
@click.argument("program", type=Reads())
@click.option(
    "-o",
    "output",
    type=Writes(Format("a heatmap is a .png or .svg file", (".png", ".svg"), chosen=True)),
    required=True,
    metavar="FILE.png|FILE.svg",
    help="The picture.",
)
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
    from ...ir.disk import replacing
    from ..show.heatmap import draw
    from ..show.picture import picture
    from .saved import Saved

    saved = Saved(program, entry)
    drawn = picture(saved.plan, saved.timing)
    with replacing(output) as part:
        draw(drawn, metric, part)
    console.note(f"wrote {shown(output)}")
    console.result({"program": program, "metric": metric, "output": output})


@click.command(cls=Verb)
@click.argument("program", type=Reads())
@click.option("-o", "output", type=Writes(PAGE), required=True, metavar="FILE.html", help="The report.")
@entry
@click.pass_obj
def report(console: Console, program: str, output: str, entry: str | None) -> None:
    """Write a page to explore a program or plan with.

    One HTML file that needs nothing else: the wafer to zoom into, the table of steps
    and the totals of PROGRAM (.wafer or .plan).
    """
    from dataclasses import replace
    from pathlib import Path

    from ...ir.disk import replacing
    from ..show.picture import empty_picture, picture
    from ..show.report import write_report
    from .saved import Saved

    saved = Saved(program, entry)
    if saved.entries:
        drawn = picture(saved.plan, saved.timing)
    else:
        drawn = empty_picture(saved.wafer, Path(program).name, dict(_ends(saved)))
    if saved.hosts:
        drawn = replace(drawn, summary={**drawn.summary, "on the host": saved.host_line})
    with replacing(output) as part:
        write_report(drawn, part)
    console.note(f"wrote {shown(output)}")
    console.result({"program": program, "output": output})


@click.command(cls=Verb)
@click.argument("program", type=Reads())
@click.option("--core", type=Core(), metavar="X,Y", help="What lies and runs on this core.")
@click.option(
    "--graph",
    "graph_path",
    type=Writes(Format("a graph is a .dot or .graphml file", (".dot", ".graphml"), chosen=True)),
    metavar="FILE",
    help="Write its steps, regions and hand-overs as a graph: a .dot or .graphml file.",
)
@entry
@click.pass_obj
def inspect(
    console: Console, program: str, core: tuple[int, int] | None, graph_path: str | None, entry: str | None
) -> None:
    """Say what is inside a program or plan.

    The totals, regions and steps of PROGRAM (.wafer or .plan), or the buffers and
    steps of one core.
    """
    from .saved import Saved

    saved = Saved(program, entry)
    if core is not None:
        result = _core(console, saved, *core)
    else:
        result = _overview(console, saved) if saved.entries or graph_path else _of_host(console, saved)
    if graph_path is not None:
        from pathlib import Path

        from ...ir.disk import replacing
        from ..show.graph_files import timed_graph, write_graph

        with replacing(graph_path) as part:
            write_graph(timed_graph(saved.plan, saved.timing), part, Path(graph_path).suffix.lower())
        console.note(f"wrote {shown(graph_path)}")
        result["graph"] = graph_path
    console.result(result)


def _overview(console: Console, saved: Saved) -> dict[str, Any]:
    from ..show.critical_parts import leg_rows, path_rows
    from ..show.rows import region_rows, step_rows, summary

    f = saved.figures
    regions, steps = region_rows(saved.plan), step_rows(saved.plan, saved.timing)
    if len(saved.entries) > 1:
        console.say(f"entry {saved.entry} of {', '.join(saved.entries)}")
    for line in facts(summary(saved.plan, f)):
        console.say(line)
    if saved.hosts:
        for line in facts([("on the host, between the entries", saved.host_line)]):
            console.say(line)
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


def _of_host(console: Console, saved: Saved) -> dict[str, Any]:
    """A program of which nothing runs on the wafer."""
    for line in facts([*_ends(saved), ("on the host", saved.host_line)]):
        console.say(line)
    return {"program": saved.path, "entries": [], "host": saved.hosts, **dict(_ends(saved))}


def _ends(saved: Saved) -> list[tuple[str, str]]:
    """What goes in and out of a program of the host's, by name; shapes where they are known."""
    play = saved.play
    if play is None:
        return []
    shapes = {p.name: f" {p.dtype}{list(p.shape)}" for p in play.ports.inputs}
    return [
        ("inputs", ", ".join(shown(name) + shapes.get(name, "") for name in play.inputs)),
        ("outputs", ", ".join(map(shown, play.outputs))),
    ]


def _core(console: Console, saved: Saved, x: int, y: int) -> dict[str, Any]:
    from ..show.rows import at_core, buffer_rows, code_at, share

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
