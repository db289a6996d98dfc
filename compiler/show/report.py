"""A plan as one self-contained HTML file: the grid to zoom into, the table of operations, the summary."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .colours import DEAD, UNUSED, VIRIDIS, scale_of
from .drawing import printable
from .picture import Picture

HERE = Path(__file__).parent


def write_report(picture: Picture, path: str | Path) -> None:
    """Writes the report to `path`. Raises OSError where that fails."""
    Path(path).write_text(html(picture), encoding="utf-8")


def html(picture: Picture) -> str:
    """The whole page; it loads nothing and sends nothing."""
    picture.check()
    page = (HERE / "report.html").read_text(encoding="utf-8")
    parts = {
        "title": escape(printable(picture.title)),
        "script": (HERE / "report.js").read_text(encoding="utf-8"),
        "data": embedded(data(picture)),
    }
    # Split first, then join: a name from the model that looks like a placeholder stays a name.
    pieces = page.split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        key, rest = piece.split("}}", 1)
        out += [parts[key], rest]
    return "".join(out)


def embedded(value: object) -> str:
    """JSON that may stand inside a <script> element, whatever the strings in it say."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data(picture: Picture) -> dict[str, Any]:
    """What report.js draws. Values: of the used box, deflated little-endian float32, NaN where unused."""
    x, y, width, height = picture.used()
    metrics: list[dict[str, Any]] = []
    for name, m in picture.metrics.items():
        scale = scale_of(replace(m, budget=None))  # its script knows no colour past the end of a scale
        part = m.values[y : y + height, x : x + width].astype("<f4")
        metrics.append(
            {
                "name": name,
                "title": printable(m.title),
                "unit": printable(m.unit),
                "low": scale.low,
                "high": scale.high,
                "logarithmic": scale.logarithmic,
                "ticks": scale.ticks(),
                "values": packed(part.tobytes()),
            }
        )
    dead = np.flatnonzero(picture.dead).astype("<u4")
    columns = [printable(c) for c in picture.operations[0]] if picture.operations else []
    return {
        "width": picture.width,
        "height": picture.height,
        "box": [x, y, width, height],
        "colours": VIRIDIS,
        "unused": UNUSED,
        "dead_colour": DEAD,
        "metrics": metrics,
        "dead": packed(dead.tobytes()),
        "regions": [
            {
                "name": printable(r.name),
                "label": printable(r.label),
                "box": [r.x, r.y, r.width, r.height],
                "nodes": [printable(n) for n in r.nodes],
            }
            for r in picture.regions
        ],
        "columns": columns,
        "operations": [[cell(v) for v in row.values()] for row in picture.operations],
        "summary": [[printable(k), printable(v)] for k, v in picture.summary.items()],
    }


def cell(value: str | int | float | tuple[str, ...]) -> str | int | float:
    if isinstance(value, tuple):
        return ", ".join(map(printable, value))
    return printable(value) if isinstance(value, str) else value


def packed(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw, 6)).decode()
