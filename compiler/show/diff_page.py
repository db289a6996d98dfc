"""Two plans as one self-contained page: what changed, and their grids beside one another with the change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .difference import Difference, Rows, Side, change
from .drawing import printable, svg
from .heatmap import Style, arrange, compose
from .metrics import Metric, metric_of
from .sheet import Box, Outline, Panel, Sheet, outlines

HERE = Path(__file__).parent
SHOWN = ("sram", "cycles", "links", "steps")
MOST_ROWS = 200  # of a table
TITLES = {
    "largest": "Largest differences",
    "options": "Options",
    "totals": "Totals",
    "layers": "Cycles of the critical path by layer",
    "sram": "SRAM on all cores, in bytes",
    "links": "Links, in bytes",
    "regions": "Regions",
    "splits": "Splits",
}


def diff_page(a: Side, b: Side, found: Difference) -> str:
    """The whole page; it loads nothing and sends nothing. a and b: as they were compared."""
    page = (HERE / "diff.html").read_text(encoding="utf-8")
    title = escape(printable(f"{a.name} and {b.name}"))
    parts = {"title": title, "body": "\n".join(_body(a, b, found))}
    # Split first, then join: a name from the model that looks like a placeholder stays a name.
    first, *rest = page.split("{{")
    out = [first]
    for piece in rest:
        key, text = piece.split("}}", 1)
        out += [parts[key], text]
    return "".join(out)


def _body(a: Side, b: Side, found: Difference) -> Iterator[str]:
    yield f"<p>{escape(printable(found.compared))}.</p>"
    if found.nothing:
        yield "<p>Nothing changed.</p>"
        return
    yield from _table("largest", found.largest)
    yield from _grids(a, b)
    for name in ("options", "totals", "layers", "sram", "links", "regions", "splits"):
        yield from _table(name, getattr(found, name))


def _table(name: str, rows: Rows) -> Iterator[str]:
    if not rows:
        return
    titles = [t for t in rows[0] if t != "share"]
    number = {t: all(isinstance(r.get(t, 0), int | float) for r in rows) for t in titles}
    yield f"<h2>{TITLES[name]}</h2>"
    heads = "".join(f"<th{_aligned(number[t])}>{escape(_head(t))}</th>" for t in titles)
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{TITLES[name]}">'
    yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
    for row in rows[:MOST_ROWS]:
        cells = "".join(f"<td{_aligned(number[t])}>{escape(_told(row.get(t, '')))}</td>" for t in titles)
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table></div>"
    if len(rows) > MOST_ROWS:
        yield f"<p>and {len(rows) - MOST_ROWS:,} more</p>"


def _aligned(number: bool) -> str:
    return ' class="n"' if number else ""


def _head(title: str) -> str:
    return {"a": "A", "b": "B"}.get(title, title)


def _told(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))


def _grids(a: Side, b: Side) -> Iterator[str]:
    """The metrics of both plans, and of wafers of one size their change, with one geometry each."""
    sizes = [(s.plan.wafer.width, s.plan.wafer.height) for s in (a, b)]
    for name in SHOWN:
        metrics = [metric_of(s.plan, s.timing, name) for s in (a, b)]
        sheets = [_sheet(s, name, m) for s, m in zip((a, b), metrics, strict=True)]
        yield f"<h2>{escape(metrics[0].title)}{f', {metrics[0].unit}' if metrics[0].unit else ''}</h2>"
        if sizes[0] == sizes[1]:
            moved = replace(metrics[0], values=change(metrics[0].values, metrics[1].values))
            sheets.append(_sheet(b, f"{name}, B less A", _difference(moved)))
            box = _around(*(s.used for s in sheets[:2]))
            yield from _row([replace(s, crop=box) for s in sheets], ("A", "B", "B less A"), _scale(metrics))
        else:
            for sheet, label in zip(sheets, "AB", strict=True):
                yield from _row([replace(sheet, crop=sheet.used)], (label,))


def _difference(metric: Metric) -> Metric:
    return replace(metric, title=f"{metric.title}, change", budget=None, difference=True, arrows=None)


def _sheet(side: Side, name: str, metric: Metric) -> Sheet:
    wafer = side.plan.wafer
    regions: tuple[Outline, ...] = outlines(side.plan)
    panel = Panel(name, replace(metric, arrows=None))
    return Sheet(side.name, wafer.width, wafer.height, (panel,), regions, wafer.dead())


def _around(*boxes: Box) -> Box:
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    return left, top, right - left, bottom - top


def _scale(metrics: list[Metric]) -> str:
    """One for both: to the larger most; a budget is the same for both."""
    most = max((float(np.nanmax(m.values)) for m in metrics if np.isfinite(m.values).any()), default=0.0)
    return "auto" if metrics[0].budget is not None or most <= 0 else f"0:{most}"


def _row(sheets: list[Sheet], labels: tuple[str, ...], scale: str = "auto") -> Iterator[str]:
    frame, style = arrange(sheets[0])[0], Style(scale=scale)
    box = (frame.left, frame.top, frame.cell, frame.x, frame.y, frame.width, frame.height)
    place = f'data-grid="{" ".join(map(str, box))}"'
    yield f'<div class="grids" tabindex="0" role="group" aria-label="grids" {place}>'
    for sheet, label in zip(sheets, labels, strict=True):
        yield f"<figure><figcaption>{escape(label)}</figcaption>{svg(compose(sheet, style))}</figure>"
    yield '</div><p class="said" aria-live="polite"></p>'
