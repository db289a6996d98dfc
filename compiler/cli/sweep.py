"""`waferc sweep`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError, shown
from ..show.text import table
from .command import Verb
from .console import Console
from .named_files import Reads
from .options import gathered

if TYPE_CHECKING:
    from ..sweep.point import Row
    from ..sweep.study import Study

MOST_ROWS = 40  # that are shown


@dataclass(frozen=True)
class Sweep:
    """How a study is swept. workers: points at once. address: of a cluster of Ray. output: a folder."""

    engine: str
    workers: int
    address: str | None
    output: str | None
    pictures: bool


@click.command("sweep", cls=Verb)
@click.argument("study", type=Reads())
@click.option(
    "--engine",
    type=click.Choice(["here", "processes", "ray"]),
    default="processes",
    show_default=True,
    help="What computes points.",
)
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, help="Points at once.")
@click.option("--address", metavar="HOST:PORT", help="A cluster of Ray; a local one is started without.")
@click.option("-o", "--output", metavar="FOLDER", help="Write rows.csv, rows.json and the pictures there.")
@click.option("--pictures/--no-pictures", default=True, show_default=True, help="With -o: draw.")
@gathered(Sweep)
@click.pass_obj
def sweep(console: Console, study: str, how: Sweep) -> None:
    """Sweep models over wafers and options: STUDY.toml says which.

    Each point is planned, or estimated from plans, and kept in the user's cache: a
    sweep that was interrupted goes on where it was. A point that does not fit is a row
    with its reason. The rows are the same for any number of workers.
    """
    from ..sweep.engines import Engine
    from ..sweep.point import points_of
    from ..sweep.results import pareto
    from ..sweep.run import run
    from ..sweep.study import load

    if how.address and how.engine != "ray":
        raise UsageError("--address is for --engine ray")
    of = load(study)
    points = points_of(of)
    started = time.perf_counter()

    def told(done: int, total: int) -> None:
        console.progress(f"sweep, {done} of {total} points", done / max(1, total))

    kind = "here" if how.engine == "processes" and how.workers == 1 else how.engine
    engine = Engine(kind, how.workers, how.address)
    done = run(points, engine, told)
    seconds = time.perf_counter() - started
    _say(console, of, done.rows, pareto(of, done.rows))
    if how.output is not None:
        _write(Path(how.output), of, done.rows, how.pictures)
        console.note(f"wrote {shown(how.output)}")
    each = f", {seconds / done.computed:.1f} s each" if done.computed else ""
    lost = f"; {done.lost} workers died, their points were done again" if done.lost else ""
    console.note(f"{len(points)} points, {done.computed} of them computed in {seconds:,.0f} s{each}{lost}")
    console.result({"title": of.title, "rows": list(done.rows)})


def _say(console: Console, study: Study, rows: Any, front: list[Row]) -> None:
    titles = ["", "model", *study.values, "tokens/s", "cycles", "wafers", "fabric", "fill"]
    shown_rows: list[list[Any]] = []
    for r in rows[:MOST_ROWS]:
        mark = "*" if r in front else ""
        own = [mark, r["model"], *(f"{r[k]}" for k in study.values)]
        if r["reason"]:
            shown_rows.append([*own, "-", "-", "-", "-", shown(r["reason"], 60)])
            continue
        own += [f"{r['tokens_s']:,.0f}", f"{r['cycles']:,}", f"{r['wafers']}"]
        shown_rows.append([*own, f"{100 * r['fabric']:.0f} %", f"{100 * r['fill']:.0f} %"])
    for line in table(titles, shown_rows, wrap=["fill"]):
        console.say(line)
    more = f"; {len(rows) - MOST_ROWS:,} more rows with -o" if len(rows) > MOST_ROWS else ""
    console.say(
        f"*: no other is better in one of {' and '.join(study.pareto)} and as good in the other{more}"
    )


def _write(folder: Path, study: Study, rows: Any, drawn: bool) -> None:
    from ..files import write_text
    from ..sweep.pictures import pictures, write
    from ..sweep.results import as_csv, as_json

    made = pictures(study, rows) if drawn else {}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(str(folder / "rows.csv"), as_csv(study, rows))
    write_text(str(folder / "rows.json"), as_json(study, rows))
    for name, figure in made.items():
        write(figure, folder / name)
