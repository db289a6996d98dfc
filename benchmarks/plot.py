"""The ratios of a bench as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waferc.compiler.show.drawing import Drawing, Line, Rectangle, Shape, Text

LEFT, TOP, WIDTH, BAR, GAP = 150, 50, 640, 13, 10
MOST = 4.0  # the ratio at the right end; longer bars are cut and say so by their number
COLOURS = {
    ("smallest", 1): (31, 97, 141),
    ("smallest", 2): (93, 173, 226),
    ("wse3", 1): (160, 90, 20),
    ("wse3", 2): (235, 160, 70),
}
OTHER = (140, 140, 140)


def plot(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes a picture of waferc's time over onnxruntime's, one bar for each workload, wafer and threads."""
    names = list(dict.fromkeys(r["workload"] for r in results))
    kinds = list(dict.fromkeys((r["wafer"], r["threads"]) for r in results))
    ratio = {(r["workload"], r["wafer"], r["threads"]): r["ratio"] for r in results}
    shapes: list[Shape] = [Text(LEFT, 14, "waferc's time over onnxruntime's; left of 1 waferc is faster", 15)]
    x = LEFT
    for kind in kinds:
        shapes.append(Rectangle(x, 28, BAR, BAR, fill=COLOURS.get(kind, OTHER)))
        label = f"{kind[0]}, {kind[1]} thread{'s' if kind[1] > 1 else ''}"
        shapes.append(Text(x + BAR + 5, 28 + BAR // 2, label))
        x += 150
    y = TOP
    for name in names:
        middle = y + len(kinds) * BAR // 2
        shapes.append(Text(LEFT - 8, middle, name, anchor="r"))
        for kind in kinds:
            if (value := ratio.get((name, *kind))) is not None:
                length = max(1, round(min(value, MOST) / MOST * WIDTH))
                shapes.append(Rectangle(LEFT, y, length, BAR - 2, fill=COLOURS.get(kind, OTHER)))
                shapes.append(Text(LEFT + length + 4, y + BAR // 2 - 1, f"{value:.2f}", 11))
            y += BAR
        y += GAP
    one = LEFT + round(WIDTH / MOST)
    shapes.append(Line(one, TOP - 5, one, y, (60, 60, 60)))
    shapes.append(Text(one, y + 8, "1", anchor="m"))
    Drawing(LEFT + WIDTH + 60, y + 20, tuple(shapes)).write(path)
