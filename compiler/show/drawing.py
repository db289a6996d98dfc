"""Drawings of rectangles, lines, text and coloured grids, written as PNG or SVG.

Coordinates are pixels from the top left; colours are (red, green, blue), 0 to 255.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
TIPPED_CELLS = 4096  # up to so many cells an SVG draws each on its own, with its tip; beyond, one image


@dataclass(frozen=True)
class Rectangle:
    """Outlined by `line` pixels inside its edge, filled, or both."""

    x: int
    y: int
    width: int
    height: int
    outline: Colour | None = None
    fill: Colour | None = None
    line: int = 1


@dataclass(frozen=True)
class Line:
    x: int
    y: int
    to_x: int
    to_y: int
    colour: Colour
    line: int = 1


@dataclass(frozen=True)
class Text:
    """One line of text. anchor: "l", "m" or "r" of its width lies at x; y is its vertical middle."""

    x: int
    y: int
    text: str
    size: int = 13
    colour: Colour = (30, 30, 30)
    anchor: str = "l"


@dataclass(frozen=True)
class Cells:
    """A grid of squares of `cell` pixels; pixels [height, width, 3] uint8. tips: one per cell, row by row."""

    x: int
    y: int
    cell: int
    pixels: NDArray[np.uint8]
    tips: tuple[str, ...] = ()

    @property
    def gap(self) -> int:
        """Pixels left free between cells, so that equal neighbours can be told apart."""
        return 1 if self.cell >= 8 else 0


Shape = Rectangle | Line | Text | Cells


@dataclass(frozen=True)
class Drawing:
    """told: what its file says of itself, by PNG's keywords ("Title", "Description", "Software", ...)."""

    width: int
    height: int
    shapes: tuple[Shape, ...]
    told: Mapping[str, str] = field(default_factory=dict[str, str])

    def write(self, path: Path) -> None:
        """As PNG or SVG, by the suffix. Raises ValueError for another suffix, OSError."""
        suffix = path.suffix.lower()
        if suffix == ".png":
            path.write_bytes(png(self))
        elif suffix == ".svg":
            path.write_text(svg(self), encoding="utf-8")
        else:
            raise ValueError(f"{path.name}: a picture is .png or .svg, not {suffix or 'without a suffix'!r}")


@cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font: the same picture on every machine."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Pixels that `text` takes in a PNG; an SVG's viewer may differ a little."""
    return round(font(size).getlength(text))


def printable(text: str) -> str:
    """`text` with line breaks and other unprintable characters written as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str, length: int) -> str:
    """At most `length` characters, printable. The end stays: it is what tells paths apart."""
    text = printable(text)
    return text if len(text) <= length else "..." + text[max(0, len(text) - length + 3) :]


def fit(text: str, width: int, size: int) -> str:
    """`text` cut to `width` pixels, "" if nothing readable fits."""
    text = printable(text)
    for length in range(len(text), 5, -1):
        short = shorten(text, length)
        if text_width(short, size) <= width:
            return short
    return text if text_width(text, size) <= width else ""


def png(drawing: Drawing) -> bytes:
    image = Image.new("RGB", (drawing.width, drawing.height), WHITE)
    pen = ImageDraw.Draw(image)
    for s in drawing.shapes:
        match s:
            case Rectangle():
                corners = (s.x, s.y, s.x + s.width - 1, s.y + s.height - 1)
                pen.rectangle(corners, fill=s.fill, outline=s.outline, width=s.line)
            case Line():
                pen.line((s.x, s.y, s.to_x, s.to_y), fill=s.colour, width=s.line)
            case Text():
                pen.text((s.x, s.y), s.text, s.colour, font(s.size), anchor=f"{s.anchor}m")
            case Cells():
                big = s.pixels.repeat(s.cell, 0).repeat(s.cell, 1)
                if s.gap:
                    big[s.cell - 1 :: s.cell] = WHITE
                    big[:, s.cell - 1 :: s.cell] = WHITE
                image.paste(Image.fromarray(big), (s.x, s.y))
    known = PngInfo()
    for keyword, text in drawing.told.items():
        known.add_text(keyword, printable(text))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=False, pnginfo=known)
    return out.getvalue()


def svg(drawing: Drawing) -> str:
    size = f'width="{drawing.width}" height="{drawing.height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {drawing.width} {drawing.height}"'
        ' font-family="Helvetica, Arial, sans-serif" role="img">',
        *_told(drawing.told),
        f'<rect {size} fill="{css(WHITE)}"/>',
    ]
    for s in drawing.shapes:
        match s:
            case Rectangle():
                lines.append(svg_rectangle(s))
            case Line():
                ends = f'x1="{s.x}" y1="{s.y}" x2="{s.to_x}" y2="{s.to_y}"'
                lines.append(f'<line {ends} stroke="{css(s.colour)}" stroke-width="{s.line}"/>')
            case Text():
                anchor = {"l": "start", "m": "middle", "r": "end"}[s.anchor]
                at = f'x="{s.x}" y="{s.y}" dy="0.35em" font-size="{s.size}" text-anchor="{anchor}"'
                lines.append(f'<text {at} fill="{css(s.colour)}">{escape(printable(s.text))}</text>')
            case Cells():
                lines.extend(svg_cells(s))
    return "\n".join([*lines, "</svg>", ""])


def _told(told: Mapping[str, str]) -> list[str]:
    """Title and description, which screen readers tell, and all of it as metadata."""
    if not told:
        return []
    lines = [
        f"<{tag}>{escape(printable(told[name]))}</{tag}>"
        for tag, name in (("title", "Title"), ("desc", "Description"))
        if name in told
    ]
    return [*lines, f"<metadata>{escape(json.dumps(dict(told)))}</metadata>"]


def css(colour: Colour | None) -> str:
    return "none" if colour is None else f"#{colour[0]:02x}{colour[1]:02x}{colour[2]:02x}"


def svg_rectangle(s: Rectangle) -> str:
    inset = s.line / 2 if s.outline else 0  # SVG centres a stroke on the edge
    width, height = s.width - 2 * inset, s.height - 2 * inset
    at = f'x="{s.x + inset:g}" y="{s.y + inset:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {at} fill="{css(s.fill)}" stroke="{css(s.outline)}" stroke-width="{s.line}"/>'


def svg_cells(s: Cells) -> list[str]:
    height, width = int(s.pixels.shape[0]), int(s.pixels.shape[1])
    if height * width > TIPPED_CELLS or not s.tips:
        out = io.BytesIO()
        Image.fromarray(s.pixels).save(out, "PNG")
        data = base64.b64encode(out.getvalue()).decode()
        at = f'x="{s.x}" y="{s.y}" width="{width * s.cell}" height="{height * s.cell}"'
        return [
            f'<image {at} preserveAspectRatio="none" style="image-rendering:pixelated"'
            f' href="data:image/png;base64,{data}"/>'
        ]
    lines: list[str] = []
    side = s.cell - s.gap
    for y in range(height):
        for x in range(width):
            red, green, blue = map(int, s.pixels[y, x])
            at = f'x="{s.x + x * s.cell}" y="{s.y + y * s.cell}" width="{side}" height="{side}"'
            tip = escape(printable(s.tips[y * width + x]))
            lines.append(f'<rect {at} fill="{css((red, green, blue))}"><title>{tip}</title></rect>')
    return lines
