"""A sheet as a figure of matplotlib, for notebooks and papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .colours import CATEGORIES, DEAD, Scale, number, scale_of
from .drawing import css
from .metrics import Metric
from .sheet import Panel, Sheet, shown_box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 3.2  # inches of a panel
MOST_COLUMNS = 4


def plot_sheet(sheet: Sheet) -> Figure:
    """Panels with axes in cores, each with its bar of colours or its list of categories.

    Raises UsageError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("plot needs matplotlib: pip install 'waferc[plot]'") from None
    sheet.check()
    columns = min(len(sheet.panels), sheet.columns or MOST_COLUMNS)
    rows = -(-len(sheet.panels) // columns)
    figure: Any = Figure(figsize=(columns * SIDE * 1.3, rows * SIDE), layout="constrained")
    figure.suptitle(sheet.title)
    for i, panel in enumerate(sheet.panels, 1):
        axes = figure.add_subplot(rows, columns, i)
        scale = scale_of(*(p.metric for p in sheet.panels if p.name == panel.name))
        _draw(axes, sheet, panel, scale)
        _legend(figure, axes, panel.metric, scale)
    return figure


def _draw(axes: Any, sheet: Sheet, panel: Panel, scale: Scale) -> None:
    x, y, width, height = shown_box(sheet)
    pixels = scale.colours(panel.metric.values)
    if panel.name != "dead":
        pixels[sheet.dead] = DEAD
    edges = (x - 0.5, x + width - 0.5, y + height - 0.5, y - 0.5)
    axes.imshow(pixels[y : y + height, x : x + width], extent=edges, interpolation="nearest", aspect="equal")
    title = panel.label or panel.metric.title
    axes.set_title(title, fontsize="small")
    axes.set_xlabel("column", fontsize="small")
    axes.set_ylabel("row", fontsize="small")
    if panel.metric.line:
        axes.plot(*zip(*panel.metric.line, strict=True), color="red", linewidth=1)


def _legend(figure: Any, axes: Any, metric: Metric, scale: Scale) -> None:
    if scale.kind == "category":
        from matplotlib.patches import Patch

        seen = {int(v) for v in np.unique(metric.values[np.isfinite(metric.values)])}
        patches = [
            Patch(color=css(CATEGORIES[i]), label=name)
            for i, name in enumerate(metric.categories)
            if i in seen
        ]
        axes.legend(handles=patches, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm, Normalize

    norm = (LogNorm if scale.logarithmic else Normalize)(scale.low, scale.high)
    steps = np.linspace(0, 1, 256)
    spread = scale.low + steps * (scale.high - scale.low)
    if scale.logarithmic:
        spread = scale.low * (scale.high / scale.low) ** steps
    colours = ListedColormap(scale.colours(spread) / 255)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=metric.unit)
    if scale.bounded:
        bar.ax.set_title(f"budget {number(scale.high)}", fontsize="x-small")
