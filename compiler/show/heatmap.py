"""A sheet as a heatmap: one coloured square per core, with axes, outlines, arrows, and a legend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .colours import DEAD, Scale, brief, number, scale_of
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
from .legend import INK, KEY_ROW, KEY_WIDTH, PALE, key, legend
from .sheet import ALL, Box, Outline, Panel, Sheet, shown_box

T = TypeVar("T", bound=np.generic)
MARGIN = 20
HEADER = 64
AXIS = 34  # pixels left of a grid, and above it, for the numbers of rows and columns
PANEL = 900  # pixels that a grid is scaled up to; a larger one takes a pixel per core
SMALL = 400  # one of several
LARGEST_CELL = 64
NUMBERED_GRID = 16  # grids up to this size carry the value in each cell
ARROWED_CELL = 16  # pixels from which a cell has arrows
APART = 50  # pixels between the numbers along an axis
SHAPE = 1.5  # width of a picture of several panels, by its height
HOLES = 2.0  # how much less a picture is liked of which all places but one are empty
OUTLINE: Colour = (20, 20, 20)
ZOOM: Colour = (200, 0, 120)
WAY: Colour = (214, 39, 40)
LINK: Colour = (20, 20, 20)


@dataclass(frozen=True)
class Frame:
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

    def middle(self, x: int, y: int) -> tuple[int, int]:
        left, top = self.pixel(x, y)
        return left + self.cell // 2, top + self.cell // 2

    def part(self, values: NDArray[T]) -> NDArray[T]:
        return values[self.y : self.y + self.height, self.x : self.x + self.width]

    def has(self, x: int, y: int) -> bool:
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height


@dataclass(frozen=True)
class Style:
    """size: pixels that the picture is wide, about; 0 for what suits it. scale: "auto", "linear", "log" or
    "LOW:HIGH"."""

    size: int = 0
    scale: str = "auto"


def draw(sheet: Sheet, path: str | Path, style: Style | None = None) -> None:
    """Writes a heatmap as PNG or SVG, by the suffix of `path`.

    Raises ValueError for an unknown suffix, OSError where the file cannot be written.
    """
    compose(sheet, style).write(Path(path))


def compose(sheet: Sheet, style: Style | None = None) -> Drawing:
    """The panels with their legends. Of one panel the whole wafer, and beside it the used part enlarged
    where that helps; of several the part that is used."""
    sheet.check()
    style = style or Style()
    scales = _scales(sheet, style.scale)
    frames = arrange(sheet, style.size)
    one = len(sheet.panels) == 1
    shapes: list[Shape] = []
    for i, frame in enumerate(frames):
        panel = sheet.panels[0 if one else i]
        shapes += _panel(sheet, panel, scales[panel.name], frame, close=not one or frame is frames[-1])
        if not one:
            shapes.append(_caption(panel, frame))
    if one and len(frames) > 1:
        shapes += _enlarged(*frames)
    right, bottom = max(f.right for f in frames), max(f.bottom for f in frames)
    left = right + 2 * MARGIN
    width = left + KEY_WIDTH + MARGIN
    end = HEADER - 28
    for name in dict.fromkeys(p.name for p in sheet.panels):
        own = [p.metric for p in sheet.panels if p.name == name]
        used, end = legend(sheet, own, scales[name], left, end + 28)
        shapes += used
    if len(sheet.regions) > 1:
        rows = max(8, (bottom - end - 40) // KEY_ROW)
        used, end = key(sheet.regions, left, end + 28, rows)
        shapes += used
    first = sheet.panels[0].metric
    kinds = list(dict.fromkeys(_titled(p) for p in sheet.panels))
    line = f"{'; '.join(kinds)}; {sheet.width} x {sheet.height} cores"
    if one and sheet.panels[0].label:
        line = f"{sheet.panels[0].label}: {line}"
    head: list[Shape] = [
        Text(MARGIN, 22, fit(sheet.title, width - 2 * MARGIN, 20), 20, INK),
        Text(MARGIN, 46, fit(line, width - 2 * MARGIN, 14), 14, PALE),
    ]
    told = {"Title": sheet.title, "Description": f"{first.title}: {line}", **sheet.told}
    return Drawing(width, max(bottom, end) + MARGIN, (*head, *shapes), told)


def _titled(panel: Panel) -> str:
    m = panel.metric
    return f"{m.title} ({m.unit})" if m.unit else m.title


def _scales(sheet: Sheet, asked: str) -> dict[str, Scale]:
    """By metric: panels of one metric share a scale, so that they can be compared."""
    out: dict[str, Scale] = {}
    for name in dict.fromkeys(p.name for p in sheet.panels):
        scale = scale_of(*(p.metric for p in sheet.panels if p.name == name))
        out[name] = scale.asked_for(asked) if scale.kind == "amount" else scale
    return out


# -- where things are ---------------------------------------------------------------------------------


def arrange(sheet: Sheet, size: int = 0) -> tuple[Frame, ...]:
    """Of one panel the wafer, and its used part if cores grow at least twice as large there; else one
    frame per panel, in rows."""
    count = len(sheet.panels)
    if count > 1 or sheet.crop is not None:
        return _rows(shown_box(sheet), count, size, sheet.columns)
    room = size - KEY_WIDTH - 4 * MARGIN if size else PANEL
    cell = cell_for(sheet.width, sheet.height, room)
    whole = Frame(0, 0, sheet.width, sheet.height, cell, MARGIN + AXIS, HEADER + AXIS)
    x, y, width, height = sheet.used
    left, top = max(0, x - 1), max(0, y - 1)
    width = min(sheet.width, x + width + 1) - left
    height = min(sheet.height, y + height + 1) - top
    closer = cell_for(width, height, room)
    if closer < 2 * cell or max(sheet.width, sheet.height) <= NUMBERED_GRID:
        return (whole,)
    return whole, Frame(left, top, width, height, closer, whole.right + 2 * MARGIN + AXIS, whole.top)


def _rows(box: Box, count: int, size: int, given: int) -> tuple[Frame, ...]:
    x, y, width, height = box
    best: tuple[float, int, int] = (math.inf, 1, 1)
    for columns in (given,) if given else range(1, count + 1):
        if size:
            room = (size - KEY_WIDTH - 3 * MARGIN) // columns - AXIS - MARGIN
        else:
            room = PANEL if count == 1 else SMALL
        cell = cell_for(width, height, max(1, room))
        wide = columns * (width * cell + AXIS + MARGIN)
        high = -(-count // columns) * (height * cell + AXIS + 2 * MARGIN)
        empty = 1 - count / (-(-count // columns) * columns)
        best = min(best, (abs(math.log(wide / high / SHAPE)) + HOLES * empty, columns, cell))
    _, columns, cell = best
    out: list[Frame] = []
    for i in range(count):
        row, column = divmod(i, columns)
        left = MARGIN + AXIS + column * (width * cell + AXIS + MARGIN)
        top = HEADER + AXIS + MARGIN + row * (height * cell + AXIS + 2 * MARGIN)
        out.append(Frame(x, y, width, height, cell, left, top))
    return tuple(out)


def cell_for(width: int, height: int, room: int = PANEL) -> int:
    return max(1, min(LARGEST_CELL, room // max(width, height)))


# -- one grid -----------------------------------------------------------------------------------------


def _panel(sheet: Sheet, panel: Panel, scale: Scale, frame: Frame, close: bool) -> list[Shape]:
    """The cells of one frame, axes, dead cores, outlines; close: names, arrows and ways, too."""
    m = panel.metric
    values, dead = frame.part(m.values), frame.part(sheet.dead)
    pixels = scale.colours(values)
    if panel.name != "dead":
        pixels[dead] = DEAD
    tips = _tips(panel, values, dead, frame)
    shapes: list[Shape] = [Cells(frame.left, frame.top, frame.cell, pixels, tips)]
    shapes.append(
        Rectangle(
            frame.left - 1,
            frame.top - 1,
            frame.right - frame.left + 2,
            frame.bottom - frame.top + 2,
            outline=PALE,
        )
    )
    shapes += _axes(frame)
    if frame.cell >= 8:
        shapes += _crosses(dead, frame)
    small = max(frame.width, frame.height) <= NUMBERED_GRID
    arrowed = m.arrows is not None and frame.cell >= ARROWED_CELL and values.size <= TIPPED_CELLS
    if frame.cell >= 40 and small and not m.categories and not arrowed and not m.line:
        shapes += _numbers(values, dead, pixels, frame)
    if not close:
        return shapes
    for box in panel.marked:
        shapes += _outline(Outline(*box, ""), frame, ZOOM)
    for i, region in enumerate(sheet.regions if len(sheet.regions) > 1 else ()):
        shapes += _outline(region, frame, OUTLINE)
        x, y = frame.pixel(region.x, region.y)
        if frame.has(region.x, region.y):
            shapes += _name(i, region, x, y, frame.cell)
    if m.arrows is not None and arrowed:
        shapes += _arrows(m.arrows, frame)
    return shapes + _way(panel, frame)


def _outline(r: Outline, f: Frame, colour: Colour) -> list[Shape]:
    """The part of a rectangle that the frame shows."""
    left, top = max(r.x, f.x), max(r.y, f.y)
    right, bottom = min(r.x + r.width, f.x + f.width), min(r.y + r.height, f.y + f.height)
    if left >= right or top >= bottom:
        return []
    x, y = f.pixel(left, top)
    thick = 1 if f.cell < 4 else 2 if f.cell < 24 else 3
    return [Rectangle(x, y, (right - left) * f.cell, (bottom - top) * f.cell, colour, None, thick)]


def _crosses(dead: NDArray[np.bool_], f: Frame) -> list[Shape]:
    shapes: list[Shape] = []
    for dy, dx in np.argwhere(dead).tolist():
        x, y = f.pixel(f.x + dx, f.y + dy)
        a, b = 2, f.cell - 4
        shapes.append(Line(x + a, y + a, x + b, y + b, WHITE))
        shapes.append(Line(x + a, y + b, x + b, y + a, WHITE))
    return shapes


def _axes(f: Frame) -> list[Shape]:
    """Numbers of columns above the grid and of rows beside it."""
    shapes: list[Shape] = []
    step = _step(f.cell)
    for x in range(-(-f.x // step) * step, f.x + f.width, step):
        at = f.middle(x, f.y)[0]
        shapes += [Line(at, f.top - 5, at, f.top - 2, PALE), Text(at, f.top - 13, str(x), 11, PALE, "m")]
    for y in range(-(-f.y // step) * step, f.y + f.height, step):
        at = f.middle(f.x, y)[1]
        shapes += [Line(f.left - 5, at, f.left - 2, at, PALE), Text(f.left - 8, at, str(y), 11, PALE, "r")]
    return shapes


def _step(cell: int) -> int:
    """Cores between numbers along an axis: 1, 2 or 5 times a power of ten."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power * cell >= min(APART, max(24, cell)):
                return digit * power
        power *= 10


def _name(i: int, r: Outline, x: int, y: int, cell: int) -> list[Shape]:
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


def _numbers(
    values: NDArray[np.float64], dead: NDArray[np.bool_], pixels: NDArray[np.uint8], f: Frame
) -> list[Shape]:
    shapes: list[Shape] = []
    lightness = pixels @ np.array([0.299, 0.587, 0.114])
    for y, x in np.argwhere(np.isfinite(values) & ~dead).tolist():
        left, top = f.pixel(f.x + x, f.y + y)
        ink = INK if lightness[y, x] > 130 else WHITE
        at = left + f.cell // 2, top + f.cell // 2 + 6
        shapes.append(Text(*at, brief(float(values[y, x])), 12, ink, "m"))
    return shapes


def _tips(panel: Panel, values: NDArray[np.float64], dead: NDArray[np.bool_], f: Frame) -> tuple[str, ...]:
    """What an SVG says when the pointer rests on a cell."""
    if values.size > TIPPED_CELLS:
        return ()
    m = panel.metric
    out: list[str] = []
    for y in range(f.height):
        for x in range(f.width):
            value = float(values[y, x])
            if dead[y, x]:
                text = "dead"
            elif not np.isfinite(value):
                text = "unused"
            else:
                text = m.categories[int(value)] if m.categories else f"{number(value)} {m.unit}"
            out.append(f"core ({f.x + x}, {f.y + y}): {text}")
    return tuple(out)


def _arrows(links: NDArray[np.float64], f: Frame) -> list[Shape]:
    """Each link as an arrow across the edge that it crosses, the thicker the more it carries of the most."""
    most = float(links.max(initial=0)) or 1.0
    shapes: list[Shape] = []
    reach, head = f.cell // 2 - 1, max(2, f.cell // 10)
    for direction, (dx, dy) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        part = f.part(links[direction])
        for row, column in np.argwhere(part > 0).tolist():
            x, y = f.middle(f.x + column, f.y + row)
            x, y = x - dy * f.cell // 6, y + dx * f.cell // 6  # one lane for each way
            tip = x + dx * reach, y + dy * reach
            thick = 1 + round(3 * float(part[row, column]) / most)
            shapes.append(Line(x, y, *tip, LINK, thick))
            for side in (1, -1):
                back = tip[0] - dx * head + dy * side * head, tip[1] - dy * head + dx * side * head
                shapes.append(Line(*tip, *back, LINK, thick))
    return shapes


def _way(panel: Panel, f: Frame) -> list[Shape]:
    """A path from core to core, along rows and then columns, numbered along the way where there is room."""
    places = [c for c in panel.metric.line if f.has(*c)]
    shapes: list[Shape] = []
    for (ax, ay), (bx, by) in pairwise(places):
        corners = [f.middle(ax, ay), f.middle(bx, ay), f.middle(bx, by)]
        shapes += [Line(*c, *d, WAY, 2) for c, d in pairwise(corners) if c != d]
    taken: list[tuple[int, int]] = []
    for i, core in enumerate(places):
        x, y = f.middle(*core)
        width = text_width(str(i + 1), 10) + 6
        if f.cell * f.width < 200 or any(abs(x - u) < width + 2 and abs(y - v) < 16 for u, v in taken):
            continue
        taken.append((x, y))
        shapes.append(Rectangle(x - width // 2, y - 7, width, 14, WAY, WHITE))
        shapes.append(Text(x, y, str(i + 1), 10, WAY, "m"))
    return shapes


def _caption(panel: Panel, f: Frame) -> Shape:
    m = panel.metric
    text = f"{m.title}: {panel.label}" if panel.of.label == ALL else panel.label or m.title
    if m.budget and np.isfinite(m.values).any():
        text += f", {float(np.nanmax(m.values)) / m.budget:.1%} full"
    return Text(f.left, f.top - AXIS + 4, fit(printable(text), f.right - f.left, 13), 13, INK)


def _enlarged(wafer: Frame, detail: Frame) -> list[Shape]:
    """Where on the wafer the enlarged part lies."""
    x, y = wafer.pixel(detail.x, detail.y)
    width, height = detail.width * wafer.cell, detail.height * wafer.cell
    around = Rectangle(x - 2, y - 2, width + 4, height + 4, ZOOM, None, 2)
    wide, high = detail.right - detail.left + 6, detail.bottom - detail.top + 6
    edge = Rectangle(detail.left - 3, detail.top - 3, wide, high, ZOOM, None, 2)
    last = detail.x + detail.width - 1, detail.y + detail.height - 1
    note = f"cores ({detail.x}, {detail.y}) to ({last[0]}, {last[1]})"
    return [around, edge, Text(detail.left, detail.top - AXIS + 4, note, 13, ZOOM)]
