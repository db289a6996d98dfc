"""A plan as a heatmap: one coloured square per core, regions outlined and named, with a legend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .colours import DEAD, OVER, UNUSED, Scale, brief, number, scale_of
from .drawing import (
    TIPPED_CELLS,
    WHITE,
    Cells,
    Colour,
    Drawing,
    Line,
    Rectangle,
    Shape,
    Text,
    fit,
    printable,
    text_width,
)
from .picture import Metric, Picture
from .text import plural

MARGIN = 20
HEADER = 64
PANEL = 900  # pixels that a grid is scaled up to; a larger one takes a pixel per core
LARGEST_CELL = 64
NUMBERED_GRID = 16  # grids up to this size carry the value in each cell
KEY_WIDTH = 330
KEY_ROW = 18
INK: Colour = (30, 30, 30)
PALE: Colour = (110, 110, 110)
OUTLINE: Colour = (20, 20, 20)
ZOOM: Colour = (200, 0, 120)


@dataclass(frozen=True)
class Panel:
    """A part of the wafer, `width` x `height` cores from (x, y), drawn at pixels (left, top)."""

    x: int
    y: int
    width: int
    height: int
    cell: int
    left: int
    top: int

    @property
    def right(self) -> int:
        return self.left + self.width * self.cell

    @property
    def bottom(self) -> int:
        return self.top + self.height * self.cell

    def pixel(self, x: int, y: int) -> tuple[int, int]:
        """Top left of core (x, y)."""
        return self.left + (x - self.x) * self.cell, self.top + (y - self.y) * self.cell

    def part(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values[self.y : self.y + self.height, self.x : self.x + self.width]


@dataclass(frozen=True)
class Outline:
    """All regions that share one rectangle of cores."""

    x: int
    y: int
    width: int
    height: int
    label: str


def draw(picture: Picture, metric: str, path: str | Path) -> None:
    """Writes a heatmap of `metric` as PNG or SVG, by the suffix of `path`.

    Raises ValueError for an unknown metric or suffix, OSError where the file cannot be written.
    """
    compose(picture, metric).write(Path(path))


def compose(picture: Picture, metric: str) -> Drawing:
    """The whole wafer, beside it the used part enlarged where that helps, and the legend."""
    picture.check()
    if metric not in picture.metrics:
        raise ValueError(f"no metric {metric!r}; there are {', '.join(picture.metrics)}")
    shown = picture.metrics[metric]
    scale = scale_of(shown)
    regions = outlines(picture)
    panels = arrange(picture)
    detail = panels[-1]
    right, bottom = max(p.right for p in panels), max(p.bottom for p in panels)
    legend_left = right + 2 * MARGIN
    width = legend_left + KEY_WIDTH + MARGIN
    rows_for_key = max(8, (bottom - HEADER - 330) // KEY_ROW)
    shapes: list[Shape] = [
        Text(MARGIN, 22, fit(picture.title, width - 2 * MARGIN, 20), 20, INK),
        Text(MARGIN, 46, f"{shown.title} ({shown.unit}), {picture.width} x {picture.height} cores", 14, PALE),
    ]
    for p in panels:
        named = regions if p is detail else ()
        shapes += grid(picture, shown, scale, p, named)
    if len(panels) > 1:
        shapes += frame(panels[0], detail)
    used, end = legend(picture, shown, scale, legend_left)
    shapes += used
    key_shapes, end = key(regions, legend_left, end + 28, rows_for_key)
    shapes += key_shapes
    return Drawing(width, max(bottom, end) + MARGIN, tuple(shapes))


def outlines(picture: Picture) -> tuple[Outline, ...]:
    """Regions by rectangle, in the picture's order; a shared one is named by its first and a count."""
    found: dict[tuple[int, int, int, int], list[str]] = {}
    for r in picture.regions:
        found.setdefault((r.x, r.y, r.width, r.height), []).extend(r.nodes or (r.name,))
    out: list[Outline] = []
    for box, nodes in found.items():
        nodes = list(dict.fromkeys(nodes))
        more = f" +{len(nodes) - 1}" if len(nodes) > 1 else ""
        out.append(Outline(*box, printable(nodes[0]) + more))
    return tuple(out)


def arrange(picture: Picture) -> tuple[Panel, ...]:
    """One panel, or the wafer and an enlargement of its used part if cores grow at least twice as large."""
    cell = cell_for(picture.width, picture.height)
    wafer = Panel(0, 0, picture.width, picture.height, cell, MARGIN, HEADER)
    x, y, width, height = picture.used()
    left, top = max(0, x - 1), max(0, y - 1)
    width = min(picture.width, x + width + 1) - left
    height = min(picture.height, y + height + 1) - top
    closer = cell_for(width, height)
    if closer < 2 * cell or max(picture.width, picture.height) <= NUMBERED_GRID:
        return (wafer,)
    return wafer, Panel(left, top, width, height, closer, wafer.right + 2 * MARGIN, HEADER)


def cell_for(width: int, height: int) -> int:
    return max(1, min(LARGEST_CELL, PANEL // max(width, height)))


def grid(
    picture: Picture, metric: Metric, scale: Scale, p: Panel, regions: tuple[Outline, ...]
) -> list[Shape]:
    """The cells of one panel, dead cores, outlines and names."""
    values = p.part(metric.values)
    dead = picture.dead[p.y : p.y + p.height, p.x : p.x + p.width]
    pixels = scale.colours(values)
    pixels[dead] = DEAD
    shapes: list[Shape] = [Cells(p.left, p.top, p.cell, pixels, tips(metric, values, dead, p))]
    shapes.append(Rectangle(p.left - 1, p.top - 1, p.right - p.left + 2, p.bottom - p.top + 2, outline=PALE))
    if p.cell >= 8:
        for dy, dx in np.argwhere(dead).tolist():
            x, y = p.pixel(p.x + dx, p.y + dy)
            a, b = 2, p.cell - 4
            shapes.append(Line(x + a, y + a, x + b, y + b, WHITE))
            shapes.append(Line(x + a, y + b, x + b, y + a, WHITE))
    if p.cell >= 40 and max(p.width, p.height) <= NUMBERED_GRID:
        shapes += numbers(values, dead, pixels, p)
    for i, r in enumerate(regions):
        x, y = p.pixel(r.x, r.y)
        thick = 1 if p.cell < 4 else 2 if p.cell < 24 else 3
        shapes.append(Rectangle(x, y, r.width * p.cell, r.height * p.cell, OUTLINE, None, thick))
        shapes += name(i, r, x, y, p.cell)
    return shapes


def name(i: int, r: Outline, x: int, y: int, cell: int) -> list[Shape]:
    """Number and name in the region's corner, the number alone, or nothing, by the room there is."""
    size, height = 11, 15
    room = r.width * cell - 4
    if r.height * cell < height + 2:
        return []
    text = fit(f"{i + 1}: {r.label}", room - 6, size) if room >= 60 else ""
    if not text.startswith(f"{i + 1}:"):  # too long: cut the name, keep the number
        cut = fit(r.label, room - 6 - text_width(f"{i + 1}: ", size), size) if room >= 60 else ""
        text = f"{i + 1}: {cut}" if cut else str(i + 1)
    width = text_width(text, size) + 6
    if width > room:
        return []
    box = Rectangle(x + 1, y + 1, width, height, fill=OUTLINE)
    return [box, Text(x + 4, y + 1 + height // 2, text, size, WHITE)]


def numbers(
    values: NDArray[np.float64], dead: NDArray[np.bool_], pixels: NDArray[np.uint8], p: Panel
) -> list[Shape]:
    shapes: list[Shape] = []
    lightness = pixels @ np.array([0.299, 0.587, 0.114])
    for y in range(p.height):
        for x in range(p.width):
            if np.isfinite(values[y, x]) and not dead[y, x]:
                left, top = p.pixel(p.x + x, p.y + y)
                ink = INK if lightness[y, x] > 130 else WHITE
                at = left + p.cell // 2, top + p.cell // 2 + 6
                shapes.append(Text(*at, brief(float(values[y, x])), 12, ink, "m"))
    return shapes


def tips(metric: Metric, values: NDArray[np.float64], dead: NDArray[np.bool_], p: Panel) -> tuple[str, ...]:
    """What an SVG says when the pointer rests on a cell."""
    if values.size > TIPPED_CELLS:
        return ()
    out: list[str] = []
    for y in range(p.height):
        for x in range(p.width):
            value = float(values[y, x])
            text = (
                "dead" if dead[y, x] else f"{number(value)} {metric.unit}" if np.isfinite(value) else "unused"
            )
            out.append(f"core ({p.x + x}, {p.y + y}): {text}")
    return tuple(out)


def frame(wafer: Panel, detail: Panel) -> list[Shape]:
    """Where on the wafer the enlarged part lies."""
    x, y = wafer.pixel(detail.x, detail.y)
    width, height = detail.width * wafer.cell, detail.height * wafer.cell
    around = Rectangle(x - 2, y - 2, width + 4, height + 4, ZOOM, None, 2)
    edge = Rectangle(
        detail.left - 3,
        detail.top - 3,
        detail.right - detail.left + 6,
        detail.bottom - detail.top + 6,
        ZOOM,
        None,
        2,
    )
    note = (
        f"cores ({detail.x}, {detail.y}) to ({detail.x + detail.width - 1}, {detail.y + detail.height - 1})"
    )
    return [around, edge, Text(detail.left, HEADER - 13, note, 13, ZOOM)]


def legend(picture: Picture, metric: Metric, scale: Scale, left: int) -> tuple[list[Shape], int]:
    """The colour bar with its ticks, and what grey and black mean; also the pixel below it."""
    top, height, bar = HEADER + 24, 200, 22
    bend = ", logarithmic" if scale.logarithmic else ""
    ramp = np.linspace(1, 0, height)
    low, high = (np.log10(scale.low), np.log10(scale.high)) if scale.logarithmic else (scale.low, scale.high)
    values = low + ramp * (high - low)
    column = scale.colours(10**values if scale.logarithmic else values)
    shapes: list[Shape] = [
        Text(left, HEADER + 6, f"{metric.title}, {metric.unit}{bend}", 13, INK),
        Cells(left, top, 1, np.repeat(column[:, None], bar, 1)),
        Rectangle(left, top, bar, height, outline=PALE),
    ]
    for tick in (*scale.ticks(), scale.high):
        y = top + round((1 - float(scale.position(np.array([tick]))[0])) * (height - 1))
        if tick == scale.high or abs(y - top) > 11:  # the largest value is always told
            shapes.append(Line(left + bar, y, left + bar + 5, y, INK))
            told = " budget" if scale.bounded and tick == scale.high else ""
            shapes.append(Text(left + bar + 9, y, number(tick) + told, 12, INK))
    used = int(np.isfinite(metric.values).sum())
    dead = int(picture.dead.sum())
    y = top + height + 22
    fullest = number(float(np.nanmax(metric.values))) if used else "0"
    over = f"over budget ({plural(metric.over, 'core')})" if metric.over else "no core is over budget"
    for colour, text in (
        *(((OVER, f"{over}; fullest {fullest}"),) if scale.bounded else ()),
        (UNUSED, f"unused ({picture.width * picture.height - used - dead:,} cores)"),
        (DEAD, f"dead ({dead:,} cores)"),
    ):
        shapes.append(Rectangle(left, y - 7, 14, 14, outline=PALE, fill=colour))
        if colour == DEAD:
            shapes.append(Line(left + 3, y - 4, left + 10, y + 3, WHITE))
            shapes.append(Line(left + 3, y + 3, left + 10, y - 4, WHITE))
        shapes.append(Text(left + 22, y, text, 12, INK))
        y += KEY_ROW + 2
    return shapes, y


def key(regions: tuple[Outline, ...], left: int, top: int, rows: int) -> tuple[list[Shape], int]:
    """The regions by number: name, size and place; also the pixel below the list."""
    if not regions:
        return [], top
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
