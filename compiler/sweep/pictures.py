"""A study as two pictures: tokens a second over two parameters, and what moving each one makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..show.drawing import printable
from .point import Row
from .results import sensitivity
from .study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 6.4  # inches


def pictures(study: Study, rows: Sequence[Row]) -> dict[str, Figure]:
    """By name of a file. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib: pip install 'waferc[sweep]'") from None
    out: dict[str, Any] = {}
    bars = list(sensitivity(study, rows))
    if bars:
        figure: Any = Figure(figsize=(WIDTH, 1.2 + 0.3 * len(bars)), layout="constrained")
        _bars(figure.add_subplot(), study, bars)
        out["bars.png"] = figure
    if len(study.map) == 2:
        figure = Figure(figsize=(WIDTH, 4.0 * len(study.models)), layout="constrained")
        for i, model in enumerate(study.models, 1):
            _map(figure, figure.add_subplot(len(study.models), 1, i), study, model, rows)
        out["map.png"] = figure
    return out


def _bars(axes: Any, study: Study, bars: Sequence[Any]) -> None:
    many = len(study.models) > 1
    names = [printable(f"{b.parameter} = {b.value}" + (f", {b.model}" if many else "")) for b in bars]
    axes.barh(names, [b.ratio - 1 for b in bars], left=1, color="#0b66c3")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("tokens a second, of those where all parameters have their first value")
    axes.set_title(printable(study.title), fontsize="medium")


def _map(figure: Any, axes: Any, study: Study, model: str, rows: Sequence[Row]) -> None:
    """Tokens a second of the best point at each pair of values; empty where none fits."""
    across, down = study.map
    xs, ys = sorted(study.values[across]), sorted(study.values[down])  # pyright: ignore
    found = np.full((len(ys), len(xs)), np.nan)
    for r in rows:
        if r["model"] == model and not r["reason"]:
            at = ys.index(r[down]), xs.index(r[across])
            found[at] = np.fmax(found[at], r["tokens_s"])
    drawn = axes.imshow(found, origin="lower", aspect="auto")
    for (y, x), v in np.ndenumerate(found):
        axes.text(x, y, "-" if np.isnan(v) else f"{v:,.0f}", ha="center", va="center", color="white")
    axes.set_xticks(range(len(xs)), [str(v) for v in xs])
    axes.set_yticks(range(len(ys)), [str(v) for v in ys])
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    axes.set_title(printable(f"{study.title}: {model}"), fontsize="medium")
    figure.colorbar(drawn, ax=axes, label="tokens a second, one user")


def write(figure: Figure, path: Path) -> None:
    """The same bytes every time: without the version of what drew it."""
    drawn: Any = figure
    drawn.savefig(path, dpi=110, metadata={"Software": None})
