"""`waferc report` and `inspect`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError, shown
from ..show.text import facts, table
from .command import Verb
from .console import Console
from .found import inspect_core, inspect_cycle, inspect_link, inspect_node, inspect_step, inspect_tensor, note
from .named_files import PAGE, Format, Reads, Writes
from .options import Core, Link, NameIn, entry, gathered

if TYPE_CHECKING:
    from .saved import Saved


@click.command(cls=Verb)
@click.argument("program", type=Reads())
@click.option("-o", "output", type=Writes(PAGE), required=True, metavar="FILE.html", help="The report.")
@entry
@click.pass_obj
def report(console: Console, program: str, output: str, entry: str | None) -> None:
    """Write a page to explore a program or plan with.

    One HTML file that needs nothing else: layers and nodes of PROGRAM (.wafer or
    .plan), the wafer with what lies and runs where, and a clock to replay a call.
    """
    from ...ir.disk import replacing
    from ..report.page import write_page
    from ..stopwatch import Stopwatch
    from .pages import page_of_saved
    from .saved import Saved

    saved = Saved(program, entry)
    watch = Stopwatch(console.progress)
    page = watch.timed("report", lambda: page_of_saved(saved, [] if saved.entries else _ends(saved)))
    with replacing(output) as part:
        watch.timed("writing", lambda: write_page(page, part))
    console.note(f"wrote {shown(output)}")
    console.result({"program": program, "output": output})


ONE = ("core", "link", "node", "step", "tensor", "at")  # of which `inspect` shows one


@dataclass(frozen=True)
class Inspected:
    """What is looked at, from the command line: one of ONE at most, else the whole."""

    core: tuple[int, int] | None
    link: tuple[int, int, str] | None
    node: str | None
    step: int | None
    tensor: str | None
    at: float | None
    graph_path: str | None
    entry: str | None


@click.command(cls=Verb)
@click.argument("program", type=Reads())
@click.option("--core", type=Core(), metavar="X,Y", help="What lies and runs on this core.")
@click.option("--link", type=Link(), metavar="X,Y,DIRECTION", help="What this core's link that way carries.")
@click.option(
    "--node", type=NameIn("node"), metavar="NAME", help="The steps of this ONNX node, or of this name."
)
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="One step: operands, result, readers.")
@click.option(
    "--tensor", type=NameIn("tensor"), metavar="NAME", help="Who holds, writes and reads this tensor."
)
@click.option("--at", type=float, metavar="CYCLE", help="What computes and what is under way at this cycle.")
@click.option(
    "--graph",
    "graph_path",
    type=Writes(Format("a graph is a .dot or .graphml file", (".dot", ".graphml"), chosen=True)),
    metavar="FILE",
    help="Write its steps, regions and hand-overs as a graph: a .dot or .graphml file.",
)
@entry
@gathered(Inspected)
@click.pass_obj
def inspect(console: Console, program: str, how: Inspected) -> None:
    """Say what is inside a program or plan.

    The totals, regions and steps of PROGRAM (.wafer or .plan), or what there is of
    one core, link, ONNX node, step, tensor or cycle. Tables are as wide as the
    terminal, or COLUMNS.
    """
    from .saved import Saved

    asked = {f"--{name}": value for name, value in vars(how).items() if name in ONE and value is not None}
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)}: one of them at a time")
    saved, graph_path = Saved(program, how.entry), how.graph_path
    if how.core is not None:
        result = inspect_core(console, saved, *how.core)
    elif how.link is not None:
        result = inspect_link(console, saved, how.link)
    elif how.at is not None:
        result = inspect_cycle(console, saved, how.at)
    elif how.node is not None:
        result = inspect_node(console, saved, how.node)
    elif how.step is not None:
        result = inspect_step(console, saved, how.step)
    elif how.tensor is not None:
        result = inspect_tensor(console, saved, how.tensor)
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
    from ..show.considered import attempts
    from ..show.critical_parts import leg_rows, path_rows
    from ..show.guidance import guidance, guidance_lines
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
    titles = ["step", "rides", "op", "node", "start", "end", "bytes", "grid", "tiles", "split"]
    for line in table(titles, [[s[t] for t in titles] for s in steps], wrap=["split"]):
        console.say(line)
    note(console, "rides: on the step whose task, and wavefront, it is part of. start, end: cycles.")
    note(console, "bytes: what the step reads, holds and writes on one core.")
    console.say()
    console.say("Critical path, in cycles:")
    path = path_rows(saved.plan, saved.timing)
    titles = ["part", "steps", "cycles", "fabric", "waiting", "compute"]
    for line in table(titles, [[p[t] for t in titles] for p in path]):
        console.say(line)
    note(console, "fabric: until the last operand is there. waiting: the core is busy.")
    console.say()
    tried = attempts(saved.attempts)
    if tried:
        console.say("Plans that were tried:")
        for line in table(["way", "on", "came to"], tried, wrap=["on"]):
            console.say(line)
        console.say()
    advice = guidance(saved.plan, saved.timing, saved.dims)
    for line in guidance_lines(advice):
        note(console, line)
    return {
        "program": saved.path,
        "entries": list(saved.entries),
        "entry": saved.entry,
        "host": saved.hosts,
        "figures": vars(f),
        "regions": regions,
        "steps": steps,
        "critical_path": {"parts": path, "legs": leg_rows(saved.plan, saved.timing)},
        "attempts": [dict(zip(("way", "on", "came_to"), row, strict=True)) for row in tried],
        "guidance": asdict(advice),
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
