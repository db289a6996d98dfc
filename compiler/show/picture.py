"""What heatmaps and reports show of a plan: arrays over the wafer's cores and tables of text.

A picture knows neither plans nor models, so every drawing can be tested on synthetic ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...placement.cost.timing import Timing
from ...placement.machine.wafer import Wafer
from ...placement.plan.plan import Plan
from ..errors import shown
from .critical_parts import path_line, path_rows
from .figures import figures
from .metrics import Metric
from .rows import (
    region_rows,
    step_rows,
    summary,
)

METRICS = ("sram", "cycles", "links", "ops")

Row = Mapping[str, str | int | float | tuple[str, ...]]
"""One operation: column title -> value. All rows of a picture have the same columns."""


@dataclass(frozen=True)
class Region:
    """A rectangle of cores, `width` x `height` from (x, y); nodes are the ONNX nodes computed there."""

    name: str
    x: int
    y: int
    width: int
    height: int
    nodes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The first ONNX node and how many more there are, else the region's own name."""
        more = f" +{len(self.nodes) - 1}" if len(self.nodes) > 1 else ""
        return f"{self.nodes[0] if self.nodes else self.name}{more}"


@dataclass(frozen=True)
class Picture:
    """A wafer of width x height cores as it looks under a plan.

    metrics: by the names of METRICS. dead: [height, width], cores that do not work.
    """

    title: str
    width: int
    height: int
    metrics: Mapping[str, Metric]
    regions: tuple[Region, ...]
    dead: NDArray[np.bool_]
    operations: tuple[Row, ...] = ()
    summary: Mapping[str, str] = field(default_factory=dict[str, str])

    def check(self) -> None:
        """Raises ValueError unless metrics are known, arrays have the grid's shape and regions lie on it."""
        if unknown := set(self.metrics) - set(METRICS):
            raise ValueError(f"picture: unknown metrics {', '.join(sorted(unknown))}")
        shape = (self.height, self.width)
        for name, values in (("dead", self.dead), *((k, m.values) for k, m in self.metrics.items())):
            if values.shape != shape:
                raise ValueError(f"picture: {name} has shape {values.shape}, the grid is {shape}")
        for r in self.regions:
            inside = r.x + r.width <= self.width and r.y + r.height <= self.height
            if not inside or min(r.x, r.y) < 0 or min(r.width, r.height) < 1:
                raise ValueError(f"picture: region {r.name} leaves the {self.width}x{self.height} grid")
        if len({tuple(row) for row in self.operations}) > 1:
            raise ValueError("picture: operations have different columns")

    def used(self) -> tuple[int, int, int, int]:
        """The smallest box (x, y, width, height) around all regions and all cores that have a value.

        The whole wafer if there are none.
        """
        busy = np.zeros((self.height, self.width), np.bool_)
        for m in self.metrics.values():
            busy |= np.isfinite(m.values)
        for r in self.regions:
            busy[r.y : r.y + r.height, r.x : r.x + r.width] = True
        columns, rows = np.flatnonzero(busy.any(0)), np.flatnonzero(busy.any(1))
        if not len(rows):
            return 0, 0, self.width, self.height
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


MOST_PARTS = 100  # of the critical path that a report lists


def picture(plan: Plan, timing: Timing) -> Picture:
    """What heatmaps and reports draw."""
    wafer = plan.wafer
    sram = plan.sram().astype(np.float64)
    used = sram > 0

    def on_used(values: Any) -> Any:
        return np.where(used, values, np.nan)

    links = timing.links.max(axis=0)
    metrics = {
        "sram": Metric("SRAM in use", "bytes", on_used(sram), float(wafer.sram_bytes)),
        "cycles": Metric("Cycles spent computing", "cycles per call", on_used(timing.busy)),
        # Routers of unused cores forward, too.
        "links": Metric(
            "Fullest outgoing link", "bytes per call", np.where(used | (links > 0), links, np.nan)
        ),
        "ops": Metric("Steps with work on the core", "steps per call", on_used(timing.ops)),
    }
    regions = tuple(
        Region(
            r["name"],
            plan.regions[i].x,
            plan.regions[i].y,
            plan.regions[i].width,
            plan.regions[i].height,
            tuple(r["nodes"]),
        )
        for i, r in enumerate(region_rows(plan))
    )
    rows = tuple(step_rows(plan, timing))
    facts = dict(summary(plan, figures(plan, timing.links)))
    *parts, total = path_rows(plan, timing)
    facts["critical path"] = path_line(total)
    facts |= {f"critical path, {p['part']}": path_line(p) for p in parts[:MOST_PARTS]}
    title = f"{shown(plan.graph.name, 60)} on {shown(wafer.name, 40)}"
    return Picture(title, wafer.width, wafer.height, metrics, regions, wafer.dead(), rows, facts)


def empty_picture(wafer: Wafer, title: str, facts: Mapping[str, str]) -> Picture:
    """The picture of a model for which there is no plan at all. facts: why, and what is known of it."""
    values = np.full((wafer.height, wafer.width), np.nan)
    metrics = {"sram": Metric("SRAM in use", "bytes", values)}
    return Picture(title, wafer.width, wafer.height, metrics, (), wafer.dead(), (), facts)
