"""What heatmaps and reports show of a plan: arrays over the wafer's cores and tables of text.

A picture knows neither plans nor models, so every drawing can be tested on synthetic ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

METRICS = ("sram", "cycles", "links", "ops")

Row = Mapping[str, str | int | float | tuple[str, ...]]
"""One operation: column title -> value. All rows of a picture have the same columns."""


@dataclass(frozen=True)
class Metric:
    """One value per core, [height, width] in `unit`; NaN on cores that the plan does not use."""

    title: str
    unit: str
    values: NDArray[np.float64]


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
