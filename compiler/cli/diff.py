"""`waferc diff`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..errors import shown
from ..show.text import table
from .command import Verb
from .console import Console
from .found import note
from .named_files import Format, Reads, Writes
from .options import entry as of_entry

if TYPE_CHECKING:
    from ..show.difference import Difference, Rows, Side

MOST_ROWS = 20  # of a table; --json has all


@click.command(cls=Verb)
@click.argument("a", type=Reads())
@click.argument("b", type=Reads())
@click.option(
    "--html",
    type=Writes(Format("the comparison is an .html file", (".html", ".htm"))),
    metavar="FILE.html",
    help="A page with both grids and the difference.",
)
@of_entry
@click.pass_obj
def diff(console: Console, a: str, b: str, html: str | None, entry: str | None) -> None:
    """Compare two programs or plans.

    What changed from A to B (.wafer or .plan): options, totals, splits, regions,
    cycles by layer, SRAM, links; the largest differences first. Nodes are found
    again by their names.
    """
    from ..show.difference import difference

    sides = _side(a, entry), _side(b, entry)
    found = difference(*sides)
    _say(console, found)
    if html is not None:
        from ..files import write_text
        from ..show.diff_page import diff_page

        write_text(html, diff_page(*sides, found))
        console.note(f"wrote {shown(html)}")
    console.result({"a": a, "b": b, "nothing_changed": found.nothing, **asdict(found)})


def _side(path: str, entry: str | None) -> Side:
    from ..show.difference import Side
    from .saved import Saved

    saved = Saved(path, entry)
    return Side(path, saved.manifest, saved.plan, saved.timing, saved.figures)


def _say(console: Console, found: Difference) -> None:
    note(console, f"{found.compared}.")
    if found.nothing:
        console.say("Nothing changed.")
        return
    if found.same_plan:
        console.say("The plans are the same.")
    if found.largest:
        console.say()
        console.say("Largest differences:")
        for i, row in enumerate(found.largest, 1):
            note(
                console,
                f"{i}. {row['node']}: {row['kind']} {row['a']:,} -> {row['b']:,} ({row['change']:+,}), "
                f"{row['share']:.1%} of all",
            )
    totals = [r for r in found.totals if "change" in r]
    _table(console, "Options", found.options, ("option", "a", "b"))
    _table(console, "Totals", totals, ("figure", "a", "b", "change"))
    titles = ("layer", "a", "b", "change", "fabric", "waiting", "compute")
    _table(console, "Cycles of the critical path, and the change of their parts", found.layers, titles)
    _table(console, "SRAM on all cores, in bytes", found.sram, ("role", "a", "b", "change"))
    _table(console, "Links, in bytes", found.links, ("links", "a", "b", "change"))
    _table(console, "Regions", found.regions, ("region", "a", "b"))
    _table(console, "Splits", found.splits, ("node", "a", "b"), ("a", "b"))


def _table(
    console: Console, heading: str, rows: Rows, titles: tuple[str, ...], wrap: tuple[str, ...] = ()
) -> None:
    if not rows:
        return
    console.say()
    console.say(f"{heading}:")
    cells = [[_cell(r[t]) for t in titles] for r in rows[:MOST_ROWS]]
    for line in table(titles, cells, wrap=wrap):
        console.say(line)
    if len(rows) > MOST_ROWS:
        console.say(f"and {len(rows) - MOST_ROWS:,} more; --json has all")


def _cell(value: Any) -> Any:
    """Numbers, and of all else what can be shown of it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number else shown(str(value), 200)
