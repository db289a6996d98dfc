"""Two plans side by side: what changed in options, totals, splits, regions, cycles, SRAM and links."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...placement.build import placement_file as written
from ...placement.cost.critical_path import critical_path
from ...placement.cost.timing import Timing
from ...placement.machine.wafer import LINKS
from ...placement.plan.plan import Plan
from ..errors import shown
from .critical_parts import path_rows
from .figures import Figures
from .rows import LONGEST_NAME

ALIKE = 0.5  # share of node names in common from which two plans are taken to be of one model
LARGEST = 5  # differences that are named first

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Side:
    """One of the two. manifest: what its file says of itself."""

    name: str
    manifest: Mapping[str, Any]
    plan: Plan
    timing: Timing
    figures: Figures


@dataclass(frozen=True)
class Difference:
    """Rows with "a" and "b"; those of numbers with "change" = b - a, too. Only what differs is there.

    model: "same", "changed" (another file with nodes of the same names) or "different". common, nodes: how
    many names of nodes both have, and how many there are in all. compared: what is, in words. largest: of
    nodes, by what they changed of the sum for all nodes: kind, "a", "b", "change", "share".
    """

    model: str
    common: int
    nodes: int
    compared: str
    options: Rows
    totals: Rows
    regions: Rows
    splits: Rows
    layers: Rows
    sram: Rows
    links: Rows
    largest: Rows
    same_plan: bool

    @property
    def nothing(self) -> bool:
        return self.same_plan and not self.options


def difference(a: Side, b: Side) -> Difference:
    """What changed from `a` to `b`. Nodes, and steps in their order, are found again by their names."""
    names = [{s.name for s in side.plan.steps if s.kind != "input"} for side in (a, b)]
    common, every = len(names[0] & names[1]), len(names[0] | names[1])
    alike = common >= ALIKE * every
    digests = [side.manifest.get("model") for side in (a, b)]
    model = "different" if not alike else "same" if digests[0] == digests[1] else "changed"
    by_node = _by_node(a, b) if alike else []
    return Difference(
        model,
        common,
        every,
        _compared(model, a, b, common, every),
        _options(a, b),
        _totals(a, b),
        _regions(a.plan, b.plan),
        _splits(a.plan, b.plan) if alike else [],
        _layers(a, b) if alike else [],
        _sram(a.plan, b.plan),
        _links(a, b),
        sorted(by_node, key=lambda r: -r["share"])[:LARGEST],
        _placed(a.plan) == _placed(b.plan),
    )


def _compared(model: str, a: Side, b: Side, common: int, every: int) -> str:
    first, second = (shown(side.plan.graph.name) for side in (a, b))
    if model == "different":
        return (
            f"different models, {first} and {second}: {common} of {every} names of nodes are in both; "
            "options, totals, regions, SRAM and links can still be compared, not splits and layers"
        )
    if model == "changed":
        return f"two files of a model, {first}: {common} of {every} names of nodes are in both"
    return f"one model, {first}"


def _placed(plan: Plan) -> tuple[Any, ...]:
    return str(plan), repr(written.write(plan)), plan.wafer


# -- tables -----------------------------------------------------------------------------------------


def _options(a: Side, b: Side) -> Rows:
    left, right = ({k: v for k, v in s.manifest.items() if k not in NO_OPTIONS} for s in (a, b))
    keys = dict.fromkeys([*left, *right])
    return [{"option": k, "a": left.get(k), "b": right.get(k)} for k in keys if left.get(k) != right.get(k)]


NO_OPTIONS = ("format", "host", "entries", "figures", "sha256")  # of a manifest


def _totals(a: Side, b: Side) -> Rows:
    left, right = asdict(a.figures), asdict(b.figures)
    out: Rows = []
    for key in left:
        value, other = (_whole(key, side[key]) for side in (left, right))
        if value != other:
            row: dict[str, Any] = {"figure": key.replace("_", " "), "a": value, "b": other}
            if isinstance(value, int | float) and isinstance(other, int | float):
                row["change"] = round(other - value, 2)
            out.append(row)
    return out


def _whole(key: str, value: Any) -> Any:
    """Cycles as they are told elsewhere."""
    return round(value, 2 if key == "microseconds" else None) if isinstance(value, float) else value


def _regions(a: Plan, b: Plan) -> Rows:
    places = [
        [f"{r.columns}x{r.rows} at {r.x},{r.y}: {shown(r.name, 60)}" for r in p.regions] for p in (a, b)
    ]
    most = max(map(len, places))
    left, right = (p + [""] * (most - len(p)) for p in places)
    return [{"region": i, "a": x, "b": y} for i, (x, y) in enumerate(zip(left, right, strict=True)) if x != y]


def _splits(a: Plan, b: Plan) -> Rows:
    """By step: operator, split and grid; of a step that one plan has not, ""."""
    left, right = _named_steps(a), _named_steps(b)
    out: Rows = []
    for key in dict.fromkeys([*left, *right]):
        x, y = left.get(key, ""), right.get(key, "")
        if x != y:
            out.append({"node": shown(key[0], LONGEST_NAME), "a": x, "b": y})
    return out


def _named_steps(plan: Plan) -> dict[tuple[str, int], str]:
    seen: Counter[str] = Counter()
    out: dict[tuple[str, int], str] = {}
    for s in plan.steps:
        if s.kind != "input":
            part = f", partial sums over {s.part}" if s.part else ""
            out[s.name, seen[s.name]] = f"{s.op.name}, {s.split}{part} on {s.grid.columns}x{s.grid.rows}"
            seen[s.name] += 1
    return out


def _layers(a: Side, b: Side) -> Rows:
    """Cycles of the critical path by layer."""
    left, right = ({r["part"]: r for r in path_rows(s.plan, s.timing)} for s in (a, b))
    out: Rows = []
    for part in dict.fromkeys([*left, *right]):
        x, y = left.get(part, NO_PART), right.get(part, NO_PART)
        if x["cycles"] or y["cycles"]:
            kinds = {k: y[k] - x[k] for k in ("fabric", "waiting", "compute")}
            row = {"layer": part, "a": x["cycles"], "b": y["cycles"], "change": y["cycles"] - x["cycles"]}
            out.append({**row, **kinds})
    return sorted(out, key=lambda r: r["layer"] == "total") if any(r["change"] for r in out) else []


NO_PART = {"cycles": 0, "fabric": 0, "waiting": 0, "compute": 0}


def _sram(a: Plan, b: Plan) -> Rows:
    """By role: bytes on all cores together, and the fullest core."""
    left, right = _by_role(a), _by_role(b)
    return _changes("role", {k: (left[k], right[k]) for k in dict.fromkeys([*left, *right])})


def _by_role(plan: Plan) -> Counter[str]:
    out: Counter[str] = Counter()
    for buffer in plan.buffers:
        if buffer.over < 0:
            out[buffer.role] += buffer.bytes * buffer.grid.cores
    for region, code in zip(plan.regions, plan.code_bytes, strict=True):
        out["code"] += code * region.core.size
    return out


def _links(a: Side, b: Side) -> Rows:
    """By direction: bytes times links of a call, and the fullest link."""
    pairs: dict[str, tuple[int, int]] = {}
    for i, name in enumerate(LINKS):
        left, right = (side.timing.links[i] for side in (a, b))
        pairs[f"{name}, all links"] = round(float(left.sum())), round(float(right.sum()))
        pairs[f"{name}, fullest link"] = round(float(left.max())), round(float(right.max()))
    return _changes("links", pairs)


def _changes(title: str, pairs: Mapping[str, tuple[Any, Any]]) -> Rows:
    return [{title: k, "a": x, "b": y, "change": y - x} for k, (x, y) in pairs.items() if x != y]


# -- the largest --------------------------------------------------------------------------------------


def _by_node(a: Side, b: Side) -> Rows:
    """What each node changed, as a share of the sum for all nodes: of the larger one."""
    out: Rows = []
    for kind, of in (
        ("cycles of the critical path", _path_cycles),
        ("bytes of SRAM on all cores", _node_bytes),
        ("bytes received over links", _received),
    ):
        left, right = of(a), of(b)
        whole = max(sum(left.values()), sum(right.values()), 1)
        for node in dict.fromkeys([*left, *right]):
            x, y = left.get(node, 0), right.get(node, 0)
            if x != y:
                row = {"node": shown(node, LONGEST_NAME), "kind": kind, "a": x, "b": y, "change": y - x}
                out.append({**row, "share": abs(y - x) / whole})
    return out


def _summed(pairs: Iterable[tuple[str, float]]) -> dict[str, int]:
    out: defaultdict[str, float] = defaultdict(float)
    for name, value in pairs:
        out[name] += value
    return {name: round(value) for name, value in out.items()}


def _path_cycles(side: Side) -> dict[str, int]:
    steps = side.plan.steps
    return _summed(
        (steps[leg.step].name, leg.fabric + leg.waiting + leg.compute)
        for leg in critical_path(side.plan, side.timing)
    )


def _node_bytes(side: Side) -> dict[str, int]:
    """Each buffer is its writer's, or of what is laid, its first reader's."""
    plan, owner = side.plan, dict[int, str]()
    for s in plan.steps:
        for n in (s.result, s.scratch, *(o.buffer for o in s.operands)):
            owner.setdefault(n, s.name)
    return _summed((owner.get(b.number, b.name), b.bytes * b.grid.cores) for b in plan.buffers if b.over < 0)


def _received(side: Side) -> dict[str, int]:
    return _summed(
        (s.name, side.plan.received(s, m)) for s in side.plan.steps for m in s.received if m.route != "local"
    )


# -- the grid -----------------------------------------------------------------------------------------


def change(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """b - a of one value per core; what only one has counts as 0 in the other, NaN where neither has one."""
    both = np.isnan(a) & np.isnan(b)
    return np.where(both, np.nan, np.nan_to_num(b) - np.nan_to_num(a))
