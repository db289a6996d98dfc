"""What a heatmap shows: a wafer or a part of it, in panels of one metric each, at moments, of some steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...placement.cost.timing import Timing
from ...placement.machine.wafer import Wafer
from ...placement.plan.plan import Plan
from ..errors import UsageError, quoted, shown
from .critical_parts import path_rows, step_parts
from .found import steps_of, tensor_called
from .metrics import KINDS, WHOLE, Metric, Selection, metric_of
from .rows import region_rows
from .text import brief_name

MOST_PANELS = 64
ALL = "the whole model"
Box = tuple[int, int, int, int]
"""x, y, width, height, in cores."""


@dataclass(frozen=True)
class Outline:
    """A named rectangle of cores."""

    x: int
    y: int
    width: int
    height: int
    label: str


@dataclass(frozen=True)
class Panel:
    """A metric by its name, and a label that tells it from the sheet's others. marked: boxes of its steps."""

    name: str
    metric: Metric
    label: str = ""
    of: Selection = WHOLE
    marked: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """Panels of one wafer of width x height cores. regions: outlined; dead: [height, width].

    crop: the part to show, None for all that is used. columns: of panels, 0 for what suits. told: where the
    picture is from, for its file.
    """

    title: str
    width: int
    height: int
    panels: tuple[Panel, ...]
    regions: tuple[Outline, ...]
    dead: NDArray[np.bool_]
    crop: Box | None = None
    columns: int = 0
    told: Mapping[str, str] = field(default_factory=dict[str, str])

    def check(self) -> None:
        """Raises ValueError unless there are panels of the grid's shape and all boxes lie on it."""
        if not self.panels:
            raise ValueError("sheet: no panels")
        shape = (self.height, self.width)
        for name, values in (("dead", self.dead), *((p.name, p.metric.values) for p in self.panels)):
            if values.shape != shape:
                raise ValueError(f"sheet: {name} has shape {values.shape}, the grid is {shape}")
        boxes = [(r.label, (r.x, r.y, r.width, r.height)) for r in self.regions]
        for name, (x, y, width, height) in boxes + ([("crop", self.crop)] if self.crop else []):
            if min(x, y) < 0 or min(width, height) < 1 or x + width > self.width or y + height > self.height:
                raise ValueError(f"sheet: {name} leaves the {self.width}x{self.height} grid")

    @property
    def used(self) -> Box:
        """The smallest box around all regions and all cores with a value; the wafer if there are none."""
        busy = np.zeros((self.height, self.width), np.bool_)
        for p in self.panels:
            if p.name != "dead":
                busy |= np.isfinite(p.metric.values)
        for r in self.regions:
            busy[r.y : r.y + r.height, r.x : r.x + r.width] = True
        columns, rows = np.flatnonzero(busy.any(0)), np.flatnonzero(busy.any(1))
        if not len(rows):
            return 0, 0, self.width, self.height
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


# -- what is asked for ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """Which panels: each metric for each node (or the step, the tensor, the layers) at each moment.

    layers: so many of the model's layers, those with most cycles, after the whole. at: cycles. film: so many
    moments instead, evenly through the call. crop: part of the wafer.
    """

    metrics: Sequence[str] = ("sram",)
    nodes: Sequence[str] = ()
    step: int | None = None
    tensor: str | None = None
    layers: int = 0
    at: Sequence[float] = ()
    film: int = 0
    crop: Box | None = None


def sheet_of(plan: Plan, timing: Timing, asked: Asked) -> Sheet:
    """The panels asked for. Raises UsageError for what the plan has not."""
    wafer = plan.wafer
    if asked.crop is not None:
        _judge_crop(asked.crop, wafer)
    moments = [timing.cycles * (i + 0.5) / asked.film for i in range(asked.film)] or list(asked.at)
    for at in asked.at:
        if not 0 <= at <= timing.cycles:
            raise UsageError(f"--at {at:.15g}: a call takes cycles 0 to {timing.cycles:,.0f}")
    selections = [
        Selection(s.steps, s.tensor, at, s.label)
        for s in _selections(plan, timing, asked)
        for at in (moments or [None])
    ]
    count = len(selections) * len(asked.metrics)
    if count > MOST_PANELS:
        raise UsageError(f"{count} panels; a picture has at most {MOST_PANELS}")
    panels = tuple(_panel(plan, timing, name, of) for name in asked.metrics for of in selections)
    title = f"{shown(plan.graph.name, 60)} on {shown(wafer.name, 40)}"
    columns = len(selections) if len(asked.metrics) > 1 and len(selections) > 1 else 0
    return Sheet(title, wafer.width, wafer.height, panels, outlines(plan), wafer.dead(), asked.crop, columns)


def _judge_crop(crop: Box, wafer: Wafer) -> None:
    x, y, width, height = crop
    if x + width > wafer.width or y + height > wafer.height:
        raise UsageError(
            f"--crop {x},{y},{width}x{height}: wafer {shown(wafer.name)} has columns 0 to {wafer.width - 1} "
            f"and rows 0 to {wafer.height - 1}"
        )


def _selections(plan: Plan, timing: Timing, asked: Asked) -> Iterator[Selection]:
    if asked.step is not None:
        if asked.step >= len(plan.steps):
            raise UsageError(f"--step {asked.step}: there are steps 0 to {len(plan.steps) - 1}")
        name = brief_name(shown(plan.steps[asked.step].name, 200), 40)
        yield Selection(frozenset([asked.step]), label=f"step {asked.step}, {name}")
    elif asked.tensor is not None:
        yield Selection(
            tensor=tensor_called(plan, asked.tensor), label=brief_name(shown(asked.tensor, 200), 40)
        )
    elif asked.nodes:
        for node in asked.nodes:
            steps = frozenset(s.position for s in steps_of(plan, node))
            yield Selection(steps, label=brief_name(shown(node, 200), 40))
    elif asked.layers:
        yield replace(WHOLE, label=ALL)
        yield from layer_selections(plan, timing, asked.layers)
    else:
        yield WHOLE


def layer_selections(plan: Plan, timing: Timing, most: int) -> list[Selection]:
    """The layers with most cycles of the critical path, in the model's order."""
    part = step_parts(plan)
    rows = [r for r in path_rows(plan, timing)[:-1] if r["cycles"]]
    kept = {r["part"] for r in sorted(rows, key=lambda r: -r["cycles"])[:most]}
    out: list[Selection] = []
    for row in rows:
        if row["part"] in kept:
            steps = frozenset(s.position for s in plan.steps if part[s.position] == row["part"])
            label = f"{brief_name(shown(row['part'], 200), 40)}, {row['cycles']:,} cycles"
            out.append(Selection(steps, label=label))
    return out


def _panel(plan: Plan, timing: Timing, name: str, of: Selection) -> Panel:
    if name not in KINDS:
        raise UsageError(f"no metric {quoted(name)}; there are {', '.join(KINDS)}")
    moment = "" if of.at is None else f"cycle {of.at:,.0f}"
    label = ", ".join(text for text in (of.label, moment) if text)
    return Panel(name, metric_of(plan, timing, name, of), label, of, _marked(plan, of))


def _marked(plan: Plan, of: Selection) -> tuple[Box, ...]:
    """Where the selected steps lie, each place once."""
    found: dict[Box, None] = {}
    for position in sorted(of.steps):
        s = plan.steps[position]
        y, x = np.divmod(plan.regions[s.region].on(s.grid), plan.wafer.width)
        left, top = int(x.min()), int(y.min())
        found[left, top, int(x.max()) - left + 1, int(y.max()) - top + 1] = None
    return tuple(found)


def outlines(plan: Plan) -> tuple[Outline, ...]:
    """Regions by rectangle, in the plan's order; a shared one is named by its first node and a count."""
    found: dict[Box, list[str]] = {}
    for r, row in zip(plan.regions, region_rows(plan), strict=True):
        found.setdefault((r.x, r.y, r.width, r.height), []).extend(row["nodes"] or [r.name])
    return tuple(Outline(*box, named(nodes)) for box, nodes in found.items())


def named(nodes: Sequence[str]) -> str:
    """The first of some nodes and how many more there are."""
    different = list(dict.fromkeys(nodes))
    more = f" +{len(different) - 1}" if len(different) > 1 else ""
    return shown(different[0], 200) + more


# -- its numbers -----------------------------------------------------------------------------------------


def shown_box(sheet: Sheet) -> Box:
    return sheet.crop or sheet.used


def numbers(sheet: Sheet) -> dict[str, Any]:
    """The box shown, and by panel the numbers of its cores, row by row; None for cores without."""
    x, y, width, height = shown_box(sheet)
    panels: list[dict[str, Any]] = []
    for p in sheet.panels:
        m = p.metric
        values = m.values[y : y + height, x : x + width]
        there = values[np.isfinite(values)]
        panels.append(
            {
                "metric": p.name,
                "title": m.title,
                "unit": m.unit,
                "label": p.label,
                "at": p.of.at,
                "steps": sorted(p.of.steps),
                "tensor": p.of.tensor,
                "budget": m.budget,
                "over": m.over,
                "categories": list(m.categories),
                "path": [list(core) for core in m.line],
                "least": float(there.min()) if there.size else None,
                "most": float(there.max()) if there.size else None,
                "values": [[None if v != v else v for v in row] for row in values.tolist()],
            }
        )
    return {"box": [x, y, width, height], "panels": panels}


def csv_lines(sheet: Sheet) -> Iterator[str]:
    """One line for each core that has a number in some panel, under titles; categories by their names."""
    x, y, width, height = shown_box(sheet)
    titles = [", ".join(t for t in (p.name, p.label) if t) for p in sheet.panels]
    yield ",".join(map(_cell, ["x", "y", *titles]))
    parts = [p.metric.values[y : y + height, x : x + width] for p in sheet.panels]
    some = np.any([np.isfinite(v) for v in parts], axis=0)
    for row, column in np.argwhere(some).tolist():
        cells = [_value(p.metric, float(v[row, column])) for p, v in zip(sheet.panels, parts, strict=True)]
        yield ",".join([str(x + column), str(y + row), *cells])


def _value(metric: Metric, value: float) -> str:
    if value != value:
        return ""
    return _cell(metric.categories[int(value)]) if metric.categories else f"{value:.10g}"


def _cell(text: str) -> str:
    """As RFC 4180 quotes it; what a spreadsheet takes for a formula is none then."""
    if text[:1] in "=+-@" and text:
        text = f" {text}"
    return '"' + text.replace('"', '""') + '"' if set(text) & set('",\n\r') else text
