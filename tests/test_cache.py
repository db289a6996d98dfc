"""What compiles keep for one another: the plan that a search found, and kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import GRAPHS, Model, damaged
from waferc import compile_model
from waferc.codegen.kernels import kernel as kernels
from waferc.compiler import planning
from waferc.compiler.errors import DoesNotFit
from waferc.compiler.passes.simplify import simplify
from waferc.ir import dtypes
from waferc.ir.graph import Graph
from waferc.placement import planner
from waferc.placement.build import placement_file as written
from waferc.placement.judge.judge import judge
from waferc.placement.machine.presets import preset
from waferc.placement.machine.wafer import Wafer
from waferc.placement.plan.plan import Plan
from waferc.placement.search.search import Search
from waferc.runtime.cache import cache_folder, sources_in

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WAFERC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def differences(a: Any, b: Any, where: str = "plan") -> list[str]:
    """Where two values of one kind differ, down to each number of each table."""
    if isinstance(a, np.ndarray):
        return [] if np.array_equal(a, b) and a.dtype == b.dtype else [where]
    if is_dataclass(a):
        pairs = {f.name: (getattr(a, f.name), getattr(b, f.name)) for f in fields(a)}
    elif isinstance(a, Mapping):
        pairs = {str(k): (a[k], b[k]) for k in a} if a.keys() == b.keys() else {"keys": (1, 2)}
    elif isinstance(a, tuple | list) and len(a) == len(b):
        pairs = {str(i): pair for i, pair in enumerate(zip(a, b, strict=True))}
    else:
        return [] if a == b else [where]
    return [d for name, (x, y) in pairs.items() for d in differences(x, y, f"{where}.{name}")]


def table() -> Graph:
    """A table read twice that takes over half of an 8x8 wafer's memory: planned within budgets."""
    m = Model()
    token = m.tensor("token", (1,), dtypes.I64)
    weights = m.normal(0, 4096, 96)
    h = m.op("MatMul", m.op("Gather", weights, token), m.normal(1, 96, 96))
    return simplify(m.graph("table", [token], [m.op("Gemm", h, weights, transB=1)]))


def product() -> Graph:
    """A product whose operands stream through an 8x8 wafer in steps."""
    m = Model()
    x = m.tensor("x", (256, 256), dtypes.F32)
    return m.graph("product", [x], [m.op("MatMul", x, m.normal(0, 256, 257))])


LINKS = replace(preset("16x16"), dead_links=((3, 4, "east"), (3, 5, "south"), (9, 9, "west")))
WAFERS = {"16x16": preset("16x16"), "dead cores": damaged(20, 0.01, 1), "dead links": LINKS}
FULL = {"table": table, "product": product}
SEARCHES = [(g, w, o) for g in GRAPHS for w in WAFERS for o in ("latency", "throughput")]
SEARCHES += [(g, "8x8", "latency") for g in FULL]


def search(graph: str, wafer: str) -> tuple[Graph, Wafer]:
    return (FULL[graph](), preset("8x8")) if graph in FULL else (GRAPHS[graph](), WAFERS[wafer])


@pytest.mark.thorough
@pytest.mark.parametrize("graph, wafer, objective", SEARCHES)
def test_a_plan_is_found_again_to_the_byte(graph: str, wafer: str, objective: str) -> None:
    model, machine = search(graph, wafer)
    name = planning.name_of(model, machine, objective)

    def build(data: Any) -> Plan:
        return written.read(data, model, machine)

    assert planning.kept_plan(name, build) is None
    made = planner.plan(model, machine, objective)
    planning.keep_plan(name, made)
    again = planning.kept_plan(name, build)
    assert again is not None
    judge(again)
    assert differences(made, again) == []


@pytest.mark.thorough
def test_searches_cover_trees_partial_sums_regions_and_steps_in_time() -> None:
    """The plans above are of every kind that a placement has to say."""
    made = [planner.plan(*search(g, w), o) for g, w, o in SEARCHES]
    steps = [s for p in made for s in p.steps]
    routes = {m.route for s in steps for m in (*s.moves, *(m for o in s.operands for m in o.moves))}
    assert routes >= {"tree", "relay", "join"}
    assert any(m.detours for s in steps for o in s.operands for m in o.moves)
    assert any(s.kind == "update" for s in steps)
    assert any((s.grid.dx, s.grid.dy) != (1, 1) for s in steps)
    assert any(s.split.grid[2] > 1 for s in steps)
    assert any(len(p.regions) > 1 for p in made)


def compiled(path: Path, **options: Any) -> bytes:
    compile_model(DIGITS, **{"dims": {"batch": 4}, "wafer": "16x16", **options}).save(path)
    return path.read_bytes()


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Search]:
    """The searches that there were."""
    found: list[Search] = []
    run = planner.run

    def counted(search: Search) -> None:
        found.append(search)
        run(search)

    monkeypatch.setattr(planner, "run", counted)
    return found


def test_a_second_compile_searches_no_more(searches: list[Search], tmp_path: Path) -> None:
    first = compiled(tmp_path / "a.wafer")
    assert compiled(tmp_path / "b.wafer") == first
    assert len(searches) == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options", [{"optimize": "throughput"}, {"weights": "f16"}, {"simplify": False}], ids=str
)
def test_other_options_are_another_search(
    options: dict[str, Any], searches: list[Search], tmp_path: Path
) -> None:
    compiled(tmp_path / "a.wafer")
    compiled(tmp_path / "b.wafer", **options)
    assert len(searches) == 2


def test_all_that_a_search_depends_on_is_in_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, wafer = GRAPHS["mlp"](), preset("16x16")
    others = [
        (GRAPHS["attention"](), wafer, "latency"),
        (graph, replace(wafer, hop=wafer.hop + 1), "latency"),
        (graph, replace(wafer, dead_cores=((1, 1),)), "latency"),
        (graph, wafer, "throughput"),
    ]
    names = {planning.name_of(*search) for search in [(graph, wafer, "latency"), *others]}
    assert len(names) == 1 + len(others)
    # What the weights are worth is not: they are no part of a plan.
    zeros = {n: np.zeros_like(v) for n, v in graph.constants.items()}
    assert planning.name_of(replace(graph, constants=zeros), wafer, "latency") in names
    # A changed planner, or a changed operator, plans anew.
    monkeypatch.setattr(planning, "sources_in", lambda *folders: "changed")
    assert planning.name_of(graph, wafer, "latency") not in names


def test_a_changed_source_changes_the_digest_of_its_folder(tmp_path: Path) -> None:
    digests: set[str] = set()
    for number, text in enumerate(("a = 1", "a = 2", "a = 2")):
        folder = tmp_path / str(number) / "inner"
        folder.mkdir(parents=True)
        (folder / "m.py").write_text(text)
        digests.add(sources_in(str(folder.parent)))
    assert len(digests) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("damage", ["flipped", "truncated", "no JSON", "another model", "illegal"])
def test_a_damaged_plan_is_searched_for_anew(
    damage: str, searches: list[Search], cache: Path, tmp_path: Path
) -> None:
    first = compiled(tmp_path / "a.wafer")
    (kept,) = cache.glob("*.placement")
    whole = kept.read_bytes()
    if damage == "flipped":
        kept.write_bytes(whole[:90] + bytes([whole[90] ^ 1]) + whole[91:])
    elif damage == "truncated":
        kept.write_bytes(whole[: len(whole) // 2])
    else:
        held = {
            "no JSON": b"{",
            "another model": whole[32:].replace(b'"op":"', b'"op":"Other'),
            "illegal": whole[32:].replace(b'"grid":[', b'"grid":[1'),
        }
        planning.write_entry(kept.name, held[damage])
    assert compiled(tmp_path / "b.wafer") == first
    assert len(searches) == 2
    assert kept.read_bytes() == whole


def test_an_illegal_plan_is_searched_for_anew(
    searches: list[Search], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A placement can be built and be no plan: what does not fit is left to the judge."""
    first = compiled(tmp_path / "a.wafer")
    kept = planning.kept_plan

    def tight(name: str, build: planning.Build) -> Plan | None:
        made = kept(name, build)
        return None if made is None else replace(made, wafer=replace(made.wafer, sram_bytes=1024))

    monkeypatch.setattr(planning, "kept_plan", tight)
    assert compiled(tmp_path / "b.wafer") == first
    assert len(searches) == 2


def test_a_search_that_finds_no_plan_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    small = replace(preset("8x8"), sram_bytes=6000)
    with pytest.raises(DoesNotFit) as first:
        compiled(tmp_path / "a.wafer", wafer=small)
    (kept,) = cache.glob("*.placement")

    def none(*_: Any, **__: Any) -> Plan:
        raise AssertionError("searched again")

    with monkeypatch.context() as held:
        held.setattr(planner, "run", none)
        with pytest.raises(DoesNotFit) as again:
            compiled(tmp_path / "a.wafer", wafer=small)
        assert again.value.args == first.value.args
        assert first.value.plan is not None and again.value.plan is not None
        assert (again.value.plan.sram() == first.value.plan.sram()).all()
        for wrong in (b'{"refused": 1}', b'{"refused": "no", "nearest": 3}', b"[]", b"3"):
            planning.write_entry(kept.name, wrong)
            with pytest.raises(AssertionError, match="searched again"):
                compiled(tmp_path / "a.wafer", wafer=small)


def test_a_cache_that_cannot_be_written_is_no_error(
    searches: list[Search], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("WAFERC_CACHE", str(blocked / "cache"))
    assert cache_folder() == blocked / "cache"
    assert compiled(tmp_path / "a.wafer") == compiled(tmp_path / "b.wafer")
    assert len(searches) == 2


def test_kernels_are_written_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make = kernels.make_module

    def counted(*arguments: Any) -> str:
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(kernels, "make_module", counted)
    first = compiled(tmp_path / "a.wafer")
    assert compiled(tmp_path / "b.wafer") == first
    assert len(made) == 1
    (kept,) = cache.glob("*.bc")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    assert compiled(tmp_path / "c.wafer") == first
    assert len(made) == 2
    assert kept.read_bytes() == whole
