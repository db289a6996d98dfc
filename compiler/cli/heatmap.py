"""`waferc heatmap`."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError, quoted, shown
from .command import Verb
from .console import Console
from .named_files import Format, Reads, Writes
from .options import NameIn, entry, gathered

if TYPE_CHECKING:
    from ..show.sheet import Sheet
    from .saved import Saved

METRICS = (
    "sram",
    "cycles",
    "busy",
    "links",
    "east",
    "west",
    "south",
    "north",
    "routes",
    "path",
    "holders",
    "operators",
    "layers",
    "steps",
    "dead",
)
MOST_PIXELS = 10_000
CROP = re.compile(r"(\d{1,6}),(\d{1,6}),(\d{1,6})x(\d{1,6})", re.ASCII)
CSV = Format("a table of numbers is a .csv file", (".csv",))
PICTURE = Format("a heatmap is a .png or .svg file", (".png", ".svg"), chosen=True)


class Crop(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """X,Y,WIDTHxHEIGHT"""

    name = "X,Y,WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, int, int]:
        found = CROP.fullmatch(value) if isinstance(value, str) else None
        if found is None or "0" in (found[3].lstrip("0") or "0", found[4].lstrip("0") or "0"):
            self.fail(f"{quoted(str(value))} is no part of a wafer such as 0,0,16x8", param, ctx)
        return int(found[1]), int(found[2]), int(found[3]), int(found[4])


class Limits(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """auto, linear, log or LOW:HIGH"""

    name = "SCALE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from ..show.colours import Scale

        try:
            Scale(0, 1).asked_for(value)
        except ValueError:
            self.fail(f"{quoted(str(value))} is none of auto, linear, log or LOW:HIGH", param, ctx)
        return value


@dataclass(frozen=True)
class Drawn:
    """What is drawn, and how, from the command line."""

    output: str | None
    table: str | None
    metrics: tuple[str, ...]
    nodes: tuple[str, ...]
    step: int | None
    tensor: str | None
    layers: int
    moments: tuple[float, ...]
    film: int
    crop: tuple[int, int, int, int] | None
    scale: str
    size: int
    entry: str | None

    def judge(self, json: bool) -> None:
        """Raises UsageError where two options contradict one another, or nothing is asked for."""
        of = {"--node": self.nodes, "--step": self.step, "--tensor": self.tensor, "--layers": self.layers}
        given = [flag for flag, value in of.items() if value not in ((), None, 0)]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)}: one of them at a time")
        if self.moments and self.film:
            raise UsageError("--at and --film: one of them at a time")
        if not (self.output or self.table or json):
            raise UsageError("nothing to write: give -o FILE.png, --csv FILE.csv or --json FILE.json")


@click.command(cls=Verb)
@click.argument("program", type=Reads())
@click.option("-o", "output", type=Writes(PICTURE), metavar="FILE.png|FILE.svg", help="The picture.")
@click.option("--csv", "table", type=Writes(CSV), metavar="FILE.csv", help="The numbers, a line per core.")
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(METRICS),
    multiple=True,
    default=("sram",),
    metavar="METRIC",
    help="What is shown, sram by default; repeated: side by side.",
)
@click.option(
    "--node",
    "nodes",
    type=NameIn("node"),
    multiple=True,
    metavar="NAME",
    help="Of this ONNX node; may be repeated.",
)
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="Of this step.")
@click.option("--tensor", type=NameIn("tensor"), metavar="NAME", help="Of this tensor.")
@click.option(
    "--layers", type=click.IntRange(0, 64), default=0, metavar="N", help="Of the N layers with most cycles."
)
@click.option(
    "--at", "moments", type=float, multiple=True, metavar="CYCLE", help="At this cycle; may be repeated."
)
@click.option(
    "--film", type=click.IntRange(0, 64), default=0, metavar="N", help="At N cycles through the call."
)
@click.option("--crop", type=Crop(), metavar="X,Y,WxH", help="Only this part of the wafer.")
@click.option(
    "--scale",
    type=Limits(),
    default="auto",
    metavar="SCALE",
    help="linear, log or LOW:HIGH; auto by default.",
)
@click.option(
    "--size", type=click.IntRange(0, MOST_PIXELS), default=0, metavar="PIXELS", help="About so wide."
)
@entry
@gathered(Drawn)
@click.pass_obj
def heatmap(console: Console, program: str, how: Drawn) -> None:
    """Draw a program or plan on the wafer.

    Every core of PROGRAM (.wafer or .plan) is coloured by a metric: sram (of the
    budget), cycles, busy (which cores compute, at a cycle), links (the fullest
    outgoing one; with arrows where cells are large), east, west, south, north
    (links that way), routes (of --step, --node or --tensor), path (the critical
    path), holders (of a --tensor), operators, layers, steps (their number), dead.
    Of a whole call, or at cycles of it. --json and --csv have the numbers.
    """
    from ..show.sheet import Asked, csv_lines, numbers, sheet_of
    from .saved import Saved

    how.judge(console.json_path is not None)
    saved = Saved(program, how.entry)
    asked = Asked(how.metrics, how.nodes, how.step, how.tensor, how.layers, how.moments, how.film, how.crop)
    sheet = sheet_of(saved.plan, saved.timing, asked)
    sheet = replace(sheet, told=_origin(saved, how))
    if how.output is not None:
        _draw(sheet, how.output, how)
        console.note(f"wrote {shown(how.output)}")
    if how.table is not None:
        from ..files import write_text

        write_text(how.table, "".join(f"{line}\n" for line in csv_lines(sheet)))
        console.note(f"wrote {shown(how.table)}")
    if console.json_path is not None:
        told = {"program": program, "entry": saved.entry, "output": how.output, "cycles": saved.timing.cycles}
        console.result({**told, **numbers(sheet)})


def _draw(sheet: Sheet, output: str, how: Drawn) -> None:
    from ...ir.disk import replacing
    from ..show.heatmap import Style, draw

    with replacing(output) as part:
        draw(sheet, part, Style(how.size, how.scale))


def _origin(saved: Saved, how: Drawn) -> dict[str, str]:
    """By keywords of PNG: what made the picture, of what."""
    from importlib.metadata import version

    manifest = saved.manifest
    words = [f"--metric {m}" for m in how.metrics]
    words += [f"--node {shlex.quote(n)}" for n in how.nodes]
    words += [f"--step {how.step}"] if how.step is not None else []
    words += [f"--tensor {shlex.quote(how.tensor)}"] if how.tensor is not None else []
    words += [f"--at {at:.15g}" for at in how.moments]
    words += [f"--{name} {n}" for name, n in (("layers", how.layers), ("film", how.film)) if n]
    words += [f"--crop {how.crop[0]},{how.crop[1]},{how.crop[2]}x{how.crop[3]}"] if how.crop else []
    words += [f"--entry {shlex.quote(saved.entry)}"] if len(saved.entries) > 1 else []
    asked = {k: manifest[k] for k in ("wafer", "optimize", "weights") if k in manifest}
    return {
        "Software": f"waferc {version('waferc')}",
        "Source": f"model sha256 {manifest.get('model', 'unknown')}",
        "Comment": "; ".join(f"{k} {v}" for k, v in asked.items()),
        "Command": f"waferc heatmap {shlex.quote(saved.path)} {' '.join(words)}",
    }
