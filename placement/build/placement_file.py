"""A placement as JSON: written by the compiler, edited by people, read back.

It says which region each op is on and how it is split; all else of a plan follows from it, so the
same text both constrains a new compile and rebuilds the plan of a saved one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from ...ir.graph import Graph
from ...ir.op import Op
from ..machine.wafer import Wafer
from ..plan.layout import Cut, Grid, Region, Split
from ..plan.plan import Plan, Step
from ..splits.candidates import part_axis
from ..splits.choice import Choice, Site, Source
from ..splits.join import join_split
from ..splits.policy import POLICY
from .assemble import Chooser, assemble
from .assembly import Lies
from .companions import ALONE, Companions
from .inputs import whole_copy
from .regions import Ground, make_region

SCHEMA = 1
MOST = 1 << 40  # of any number in a placement


class PlacementError(ValueError):
    """A placement that cannot be used; the message says which entry and why."""


def write(plan: Plan) -> dict[str, Any]:
    """The placement of `plan` as plain data, in the order of its nodes."""
    hurry = {i for i, _ in plan.urgent}
    joins = {s.node: s for s in plan.steps if s.kind == "join"}
    caches = {*plan.graph.in_place.values()}
    ops: list[dict[str, Any]] = []
    for s in sorted((s for s in plan.steps if s.kind == "task"), key=lambda s: s.node):
        ops.append(
            {
                "node": s.node,
                "op": s.op.name,
                "onnx": list(s.source),
                "region": s.region,
                **_lies(s),
                **({"roots": roots} if (roots := _roots(s, joins.get(s.node))) else {}),
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
        "inputs": [
            {"name": s.tensor, "region": s.region, **_lies(s)}
            for s in plan.steps
            if s.kind == "input" and s.tensor not in caches
        ],
        "ops": ops,
    }


def _lies(s: Step) -> dict[str, Any]:
    """How a step is cut, and its cores."""
    g = s.grid
    return {
        "split": [[c.axis, c.side, c.ways] for c in s.split.cuts],
        "grid": [g.columns, g.rows, g.x, g.y, g.dx, g.dy],
    }


def _roots(made: Step, join: Step | None) -> int:
    """Of a line that joins the step's partial results; 0 for none, or as many as nobody has to say."""
    if join is None:
        return 0
    at = join.split, join.grid
    for roots in (0, *sorted({1, *(c.ways for c in join.split.cuts)})):
        if join_split(made.op, made.split, made.part, made.grid, POLICY, roots) == at:
            return roots
    return 0


def undecided(node: int, sources: Sequence[Source | None], site: Site) -> Choice:
    """A chooser that leaves nothing open."""
    raise PlacementError(f"node {node} has no split")


def read(
    data: Any, graph: Graph, wafer: Wafer, companions: Companions = ALONE, choose: Chooser = undecided
) -> Plan:
    """The plan that a placement describes.

    data: of a JSON file. choose: splits of ops whose entry has no "split". Raises PlacementError for a
    placement of another model, or one that contradicts itself; whether the plan is legal is for the judge
    to say.
    """
    top = _mapping(data, "the placement")
    schema = _field(top, "schema", "the placement")
    if schema != SCHEMA:
        raise PlacementError(f"placement has schema {schema!r}, this waferc reads {SCHEMA}")
    objective = top.get("optimize", "latency")
    if not isinstance(objective, str):
        raise PlacementError(f"optimize is {objective!r}, not a word")
    listed = _list(_field(top, "regions", "the placement"), "regions")
    regions = tuple(_region(i, r, wafer) for i, r in enumerate(listed))
    entries = _entries(_list(_field(top, "ops", "the placement"), "ops"), graph)
    lies = _inputs(_list(top.get("inputs", []), "inputs"), graph, regions)
    region_of: dict[int, int] = {}
    chosen: dict[int, Choice] = {}
    urgent: set[tuple[int, int]] = set()
    for i, e in enumerate(entries):
        what = f"node {i}"
        region_of[i] = _number(_field(e, "region", what), f"{what}: region")
        if not 0 <= region_of[i] < len(regions):
            raise PlacementError(f"node {i} is on region {region_of[i]}; there are {len(regions)}")
        if "split" in e:
            chosen[i] = _choice(i, e, graph.nodes[i].op, regions[region_of[i]])
        urgent |= {(i, j) for j in _numbers(e.get("urgent", []), f"{what}: urgent")}

    def choice(i: int, sources: tuple[Source | None, ...], site: Site) -> Choice:
        return chosen[i] if i in chosen else choose(i, sources, site)

    ground = Ground(wafer, regions, region_of, POLICY)
    made = assemble(graph, ground, choice, objective, companions, lies)
    return replace(made, urgent=frozenset(urgent))


def _inputs(listed: Sequence[Any], graph: Graph, regions: Sequence[Region]) -> dict[str, Lies]:
    """Where inputs lie. Those not listed lie where their first reader is, caches where they are read."""
    caches = {*graph.in_place.values()}
    out: dict[str, Lies] = {}
    for i, entry in enumerate(listed):
        e = _mapping(entry, f"entry {i} of inputs")
        name = _field(e, "name", f"entry {i} of inputs")
        if name not in graph.inputs or name in caches:
            raise PlacementError(f"entry {i} of inputs: {_text(name)} is no input that can be placed")
        what = f"input {_text(name)}"
        number = _number(_field(e, "region", what), f"{what}: region")
        if not 0 <= number < len(regions):
            raise PlacementError(f"{what} is on region {number}; there are {len(regions)}")
        tensor = graph.tensors[name]
        split, grid = _placed(what, e, whole_copy(tensor.shape, tensor.dtype), regions[number])
        out[name] = Lies(number, split, grid)
    return out


def _region(number: int, data: Any, wafer: Wafer) -> Region:
    what = f"region {number}"
    r = _mapping(data, what)
    x, y, columns, rows = (_number(_field(r, k, what), f"{what}: {k}") for k in ("x", "y", "columns", "rows"))
    if min(x, y) < 0 or min(columns, rows) < 1 or x + columns > wafer.width or y + rows > wafer.height:
        raise PlacementError(
            f"{what} ({columns}x{rows} at {x},{y}) passes the wafer's {wafer.width}x{wafer.height} cores"
        )
    region = make_region(wafer, str(_field(r, "name", what)), x, y, columns, rows)
    if region is None:
        raise PlacementError(f"{what} has more dead cores than spare ones")
    return region


def _entries(listed: Sequence[Any], graph: Graph) -> list[Mapping[str, Any]]:
    """Each node's entry."""
    entries = [_mapping(e, f"entry {i} of ops") for i, e in enumerate(listed)]
    by_node = {
        _number(_field(e, "node", f"entry {i} of ops"), f"entry {i} of ops: node"): e
        for i, e in enumerate(entries)
    }
    out: list[Mapping[str, Any]] = []
    for i, node in enumerate(graph.nodes):
        e = by_node.get(i)
        if e is None or e.get("op", node.op.name) != node.op.name:
            raise PlacementError(
                f"node {i} is {node.op.name}, the placement says {_text(e.get('op')) if e else 'nothing'}; "
                "it belongs to another model, or to other --dim values"
            )
        out.append(e)
    return out


def _choice(node: int, entry: Mapping[str, Any], op: Op, region: Region) -> Choice:
    """The split that an entry says, on the grid that it says or in the region's corner."""
    what = f"node {node}"
    split, grid = _placed(what, entry, op, region)
    roots = _number(entry.get("roots", 0), f"{what}: roots")
    if roots < 0:
        raise PlacementError(f"{what}: {roots} roots of a line; 1 or more, or 0 for as many as there are")
    return Choice.given(split, grid, part_axis(op, split), roots)


def _placed(what: str, entry: Mapping[str, Any], op: Op, region: Region) -> tuple[Split, Grid]:
    """The split and the grid that an entry says."""
    split = Split(
        tuple(_cut(c, f"{what}: split") for c in _list(_field(entry, "split", what), f"{what}: split"))
    )
    columns, rows, _ = split.grid
    grid = Grid(columns, rows)
    if "grid" in entry:
        numbers = _numbers(entry["grid"], f"{what}: grid")
        if not 2 <= len(numbers) <= 6:
            raise PlacementError(f"{what}: grid is columns, rows, x, y, dx, dy, not {numbers}")
        grid = Grid(*numbers)
    _fits(what, op, split, grid, region)
    return split, grid


def _cut(data: Any, what: str) -> Cut:
    """A cut, [axis, side, ways]."""
    parts = _list(data, f"{what}: a cut")
    if len(parts) != 3:
        raise PlacementError(f"{what}: a cut is [axis, side, ways], not {parts!r}")
    axis, side, ways = parts
    if side not in ("x", "y", "t"):
        raise PlacementError(f"a cut is along x, y or t, not {side!r}")
    return Cut(str(axis), side, _number(ways, f"{what}: ways"))


# -- fields ---------------------------------------------------------------------------------------


def _mapping(data: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise PlacementError(f"{what} is no object: {data!r}")
    return cast(dict[str, Any], data)


def _list(data: Any, what: str) -> list[Any]:
    if not isinstance(data, list | tuple):
        raise PlacementError(f"{what} is no list: {data!r}")
    return list(cast(Sequence[Any], data))


def _field(data: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in data:
        raise PlacementError(f"{what} has no {name!r}")
    return data[name]


def _number(data: Any, what: str) -> int:
    """A whole number of a sane size."""
    if not isinstance(data, int) or isinstance(data, bool) or abs(data) > MOST:
        raise PlacementError(f"{what} is no whole number: {data!r}")
    return data


def _numbers(data: Any, what: str) -> list[int]:
    return [_number(v, what) for v in _list(data, what)]


def _fits(what: str, op: Op, split: Split, grid: Grid, region: Region) -> None:
    for c in split.cuts:
        if c.axis not in op.size or c.ways < 1:
            raise PlacementError(f"{what}: cut {c.axis}/{c.ways}; axes are {', '.join(op.size)}")
        parted = c.axis in op.reduced and c.side != "t" and op.combine is None
        if parted or (c.axis in op.whole and c.ways > 1):
            raise PlacementError(f"{what}: cut {c.axis}/{c.ways}; {op.name} keeps that axis whole")
    for i, c in enumerate(split.cuts):
        if c.side == "t" and any(o.axis == c.axis and o.side != "t" for o in split.cuts[i + 1 :]):
            raise PlacementError(f"{what}: {c.axis} is cut along time before space; put the time cut last")
    gw, gh, _ = split.grid
    if (gw, gh) != (grid.columns, grid.rows):
        raise PlacementError(f"{what}: the split has {gw}x{gh} cores, its grid {grid.columns}x{grid.rows}")
    x0, y0, x1, y1 = grid.box
    if min(x0, y0) < 0 or min(grid.dx, grid.dy) < 1 or x1 > region.columns or y1 > region.rows:
        raise PlacementError(f"{what}: its grid ({grid}) passes the region ({region.columns}x{region.rows})")


def _text(value: Any) -> str:
    """What a file says, on one line."""
    return ascii(value)[:80]
