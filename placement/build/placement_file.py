"""A placement as JSON: written by the compiler, edited by people, read back.

It says which region each op is on and how it is split; all else of a plan follows from it, so the
same text both constrains a new compile and rebuilds the plan of a saved one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...ir.graph import Graph
from ..machine.wafer import Wafer
from ..plan.layout import Cut, Grid, Region, Split
from ..plan.plan import Plan
from ..splits.candidates import part_axis
from ..splits.choice import Choice, Source
from .assemble import assemble
from .regions import make_region

SCHEMA = 1


class PlacementError(ValueError):
    """A placement that cannot be used; the message says which entry and why."""


def write(plan: Plan) -> dict[str, Any]:
    """The placement of `plan` as plain data, in the order of its nodes."""
    hurry = {i for i, _ in plan.urgent}
    ops: list[dict[str, Any]] = []
    for s in sorted((s for s in plan.steps if s.kind == "task"), key=lambda s: s.node):
        g = s.grid
        ops.append(
            {
                "node": s.node,
                "op": s.op.name,
                "onnx": list(s.source),
                "region": s.region,
                "split": [[c.axis, c.side, c.ways] for c in s.split.cuts],
                "grid": [g.columns, g.rows, g.x, g.y, g.dx, g.dy],
                **({"urgent": sorted(j for i, j in plan.urgent if i == s.node)} if s.node in hurry else {}),
            }
        )
    return {
        "schema": SCHEMA,
        "wafer": plan.wafer.name,
        "optimize": plan.objective,
        "regions": [
            {"name": r.name, "x": r.x, "y": r.y, "columns": r.columns, "rows": r.rows} for r in plan.regions
        ],
        "ops": ops,
    }


def read(
    data: Mapping[str, Any],
    graph: Graph,
    wafer: Wafer,
    choose: Callable[[int, Sequence[Source | None], int, int, int], Choice] | None = None,
    others: Sequence[Graph] = (),
    beside: Plan | None = None,
) -> Plan:
    """The plan that a placement describes.

    choose: splits of ops whose entry has no "split". others, beside: see `assemble`. Raises PlacementError
    for a placement of another model, or one that contradicts itself; whether the plan is legal is
    `Plan.check`'s to say.
    """
    try:
        if data["schema"] != SCHEMA:
            raise PlacementError(f"placement has schema {data['schema']!r}, this waferc reads {SCHEMA}")
        regions: list[Region] = []
        for i, r in enumerate(data["regions"]):
            x, y, columns, rows = (int(r[k]) for k in ("x", "y", "columns", "rows"))
            if (
                min(x, y) < 0
                or min(columns, rows) < 1
                or x + columns > wafer.width
                or y + rows > wafer.height
            ):
                raise PlacementError(
                    f"region {i} ({columns}x{rows} at {x},{y}) passes the wafer's "
                    f"{wafer.width}x{wafer.height} cores"
                )
            region = make_region(wafer, str(r["name"]), x, y, columns, rows)
            if region is None:
                raise PlacementError(f"region {i} has more dead cores than spare ones")
            regions.append(region)
        entries = {int(e["node"]): e for e in data["ops"]}
        chosen: dict[int, Choice] = {}
        urgent = frozenset((i, int(j)) for i, e in entries.items() for j in e.get("urgent", ()))
        region_of: dict[int, int] = {}
        for i, node in enumerate(graph.nodes):
            e = entries.get(i)
            if e is None or e.get("op", node.op.name) != node.op.name:
                raise PlacementError(
                    f"node {i} is {node.op.name}, the placement says {e.get('op') if e else 'nothing'}; "
                    "it belongs to another model, or to other --dim values"
                )
            region_of[i] = int(e["region"])
            if not 0 <= region_of[i] < len(regions):
                raise PlacementError(f"node {i} is on region {region_of[i]}; there are {len(regions)}")
            if "split" in e:
                split = Split(tuple(Cut(str(a), _side(s), int(w)) for a, s, w in e["split"]))
                gw, gh, _ = split.grid
                grid = Grid(*(int(v) for v in e["grid"])) if "grid" in e else Grid(gw, gh)
                _fits(i, node.op.size, split, grid, regions[region_of[i]])
                chosen[i] = Choice(split, grid, part_axis(node.op, split), 0.0, 0.0, 0.0, fixed=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, PlacementError):
            raise
        raise PlacementError(f"placement is not complete: {error!r}") from None

    def choice(i: int, sources: Sequence[Source | None], region: int, columns: int, rows: int) -> Choice:
        if i in chosen:
            return chosen[i]
        if choose is None:
            raise PlacementError(f"node {i} has no split")
        return choose(i, sources, region, columns, rows)

    made = assemble(
        graph,
        wafer,
        tuple(regions),
        region_of,
        choice,
        str(data.get("optimize", "latency")),
        others,
        beside,
    )
    return replace(made, urgent=urgent)


def _side(name: Any) -> Any:
    if name not in ("x", "y", "t"):
        raise PlacementError(f"a cut is along x, y or t, not {name!r}")
    return name


def _fits(node: int, size: Mapping[str, int], split: Split, grid: Grid, region: Region) -> None:
    for c in split.cuts:
        if c.axis not in size or c.ways < 1:
            raise PlacementError(f"node {node}: cut {c.axis}/{c.ways}; axes are {', '.join(size)}")
    for i, c in enumerate(split.cuts):
        if c.side == "t" and any(o.axis == c.axis and o.side != "t" for o in split.cuts[i + 1 :]):
            raise PlacementError(
                f"node {node}: {c.axis} is cut along time before space; put the time cut last"
            )
    gw, gh, _ = split.grid
    if (gw, gh) != (grid.columns, grid.rows):
        raise PlacementError(
            f"node {node}: the split has {gw}x{gh} cores, its grid {grid.columns}x{grid.rows}"
        )
    x0, y0, x1, y1 = grid.box
    if min(x0, y0) < 0 or min(grid.dx, grid.dy) < 1 or x1 > region.columns or y1 > region.rows:
        raise PlacementError(
            f"node {node}: its grid ({grid}) passes the region ({region.columns}x{region.rows})"
        )
