"""What colours of a heatmap mean: a bar with its ticks, or a list of categories; and the regions' names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .colours import CATEGORIES, DEAD, OVER, UNUSED, Scale, number
from .drawing import WHITE, Cells, Colour, Line, Rectangle, Shape, Text, fit, text_width
from .metrics import Metric
from .sheet import Outline, Sheet
from .text import plural

KEY_WIDTH = 330
KEY_ROW = 18
BAR = 22
HEIGHT = 200
INK: Colour = (30, 30, 30)
PALE: Colour = (110, 110, 110)


def legend(
    sheet: Sheet, metrics: Sequence[Metric], scale: Scale, left: int, top: int
) -> tuple[list[Shape], int]:
    """Of the panels of one metric, which share a scale; also the pixel below it."""
    first = metrics[0]
    bend = ", logarithmic" if scale.logarithmic else ""
    title = f"{first.title}, {first.unit}{bend}" if first.unit else first.title
    shapes: list[Shape] = [Text(left, top + 6, fit(title, KEY_WIDTH, 13), 13, INK)]
    y = top + 24
    if scale.kind == "category":
        for i, name in enumerate(first.categories):
            cores = sum(int((m.values == i).sum()) for m in metrics)
            if cores:
                where = plural(cores, "core") if len(metrics) == 1 else ""
                shapes += _row(left, y + 8, CATEGORIES[i], name, where)
                y += KEY_ROW
    else:
        shapes += _bar(scale, left, y)
        y += HEIGHT + 14
    used = sum(int(np.isfinite(m.values).sum()) for m in metrics)
    dead = int(sheet.dead.sum())
    y += 8
    if scale.bounded:
        over = sum(m.over for m in metrics)
        most = max((float(np.nanmax(m.values)) for m in metrics if np.isfinite(m.values).any()), default=0.0)
        told = f"over budget ({plural(over, 'core')})" if over else "no core is over budget"
        shapes += _row(left, y, OVER, f"{told}; fullest {number(most)}")
        y += KEY_ROW + 2
    unused = sheet.width * sheet.height - used - dead
    if len(metrics) > 1 or unused > 0:
        shapes += _row(
            left, y, UNUSED, "unused" if len(metrics) > 1 else f"unused ({plural(unused, 'core')})"
        )
        y += KEY_ROW + 2
    if dead and not first.categories:
        shapes += _row(left, y, DEAD, f"dead ({dead:,} cores)")
        shapes.append(Line(left + 3, y - 4, left + 10, y + 3, WHITE))
        shapes.append(Line(left + 3, y + 3, left + 10, y - 4, WHITE))
        y += KEY_ROW + 2
    return shapes, y


def _row(left: int, y: int, colour: Colour, text: str, end: str = "") -> list[Shape]:
    """A patch of the colour and what it means."""
    room = KEY_WIDTH - 26 - (text_width(end, 12) + 8 if end else 0)
    shapes: list[Shape] = [
        Rectangle(left, y - 7, 14, 14, outline=PALE, fill=colour),
        Text(left + 22, y, fit(text, room, 12), 12, INK),
    ]
    if end:
        shapes.append(Text(left + KEY_WIDTH, y, end, 12, PALE, "r"))
    return shapes


def _bar(scale: Scale, left: int, top: int) -> list[Shape]:
    """The colours from most to least, with ticks."""
    ramp = np.linspace(1, 0, HEIGHT)
    low, high = (np.log10(scale.low), np.log10(scale.high)) if scale.logarithmic else (scale.low, scale.high)
    values = low + ramp * (high - low)
    column = scale.colours(10**values if scale.logarithmic else values)
    shapes: list[Shape] = [
        Cells(left, top, 1, np.repeat(column[:, None], BAR, 1)),
        Rectangle(left, top, BAR, HEIGHT, outline=PALE),
    ]
    for tick in (*scale.ticks(), scale.high):
        y = top + round((1 - float(scale.position(np.array([tick]))[0])) * (HEIGHT - 1))
        if tick == scale.high or abs(y - top) > 11:  # the largest value is always told
            shapes.append(Line(left + BAR, y, left + BAR + 5, y, INK))
            told = " budget" if scale.bounded and tick == scale.high else ""
            shapes.append(Text(left + BAR + 9, y, number(tick) + told, 12, INK))
    return shapes


def key(regions: tuple[Outline, ...], left: int, top: int, rows: int) -> tuple[list[Shape], int]:
    """The regions by number: name, size and place; also the pixel below the list."""
    shapes: list[Shape] = [Text(left, top - 14, "regions", 13, INK)]
    shown = regions if len(regions) <= rows else regions[: rows - 1]
    y = top + 4
    for i, r in enumerate(shown):
        place = f"{r.width}x{r.height} at ({r.x}, {r.y})"
        room = KEY_WIDTH - text_width(place, 12) - 40
        shapes.append(Text(left + 20, y, str(i + 1), 12, PALE, "r"))
        shapes.append(Text(left + 27, y, fit(r.label, room, 12), 12, INK))
        shapes.append(Text(left + KEY_WIDTH, y, place, 12, PALE, "r"))
        y += KEY_ROW
    if len(shown) < len(regions):
        shapes.append(Text(left + 27, y, f"and {len(regions) - len(shown)} more", 12, PALE))
        y += KEY_ROW
    return shapes, y
