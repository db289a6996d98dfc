"""`waferc sweep`: the same rows by any engine, resumed, and with workers that die."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from waferc.compiler.cli.main import main
from waferc.compiler.errors import InvalidInput, UsageError
from waferc.compiler.sweep.engines import Engine
from waferc.compiler.sweep.pictures import pictures, write
from waferc.compiler.sweep.point import Point, Row, evaluate, points_of
from waferc.compiler.sweep.results import as_csv, as_json, pareto, sensitivity
from waferc.compiler.sweep.run import MOST_LOST, run
from waferc.compiler.sweep.study import Study, load, wafer_of
from waferc.placement.machine.presets import preset

TINY = """
[tiny]
layers = 1
width = 32
hidden = 48
vocabulary = 64
grouped = { heads = 2, kv_heads = 1, head = 16 }
"""
STUDY = """
title = "small"
models = ["tiny.toml"]
base = "8x8"
map = ["hop", "sram_bytes"]
[wafer]
hop = [2, 1]
sram_bytes = [44976, 400]
[options]
context = [8]
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("WAFERC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "study.toml").write_text(STUDY)
    return load(tmp_path / "study.toml")


def named(count: int) -> list[Point]:
    """Points that are no plans: what computes them is the test's."""
    wafer = preset("8x8")
    return [Point(f"{i}.point", f"model {i}", {"hop": i}, wafer, None) for i in range(count)]  # type: ignore[arg-type]


def quick(point: Point) -> Row:
    return {"model": point.model, **point.values, "tokens_s": 10.0 * int(point.values["hop"]), "reason": ""}


def deadly(point: Point) -> Row:
    """Dies once at point 2, and every time at point 5."""
    mark = Path(os.environ["WAFERC_CACHE"]) / "died"
    if point.values["hop"] == 5 or (point.values["hop"] == 2 and not mark.exists()):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        os._exit(1)
    return quick(point)


def test_a_lost_worker_costs_no_point(study: Study) -> None:
    """The one that kills its worker every time is a row with its reason, all others are as they are."""
    points = named(7)
    done = run(points, Engine("processes", 2), work=deadly)
    assert [r["model"] for r in done.rows] == [p.model for p in points]
    assert [p.values["hop"] for p, r in zip(points, done.rows, strict=True) if r != quick(p)] == [5]
    assert done.rows[5]["reason"] == f"its worker died {MOST_LOST} times"


def test_what_is_known_is_not_computed_again(study: Study) -> None:
    points = named(6)
    first = run(points[:3], Engine("here", 1), work=quick)
    assert first.computed == 3

    def stopped() -> Iterator[int]:
        yield from ()
        raise AssertionError

    again = run(points, Engine("here", 1), work=quick)
    assert again.computed == 3 and again.rows[:3] == first.rows
    assert run(points, Engine("here", 1), work=lambda p: next(stopped())).rows == again.rows


def test_rows_are_the_same_for_any_number_of_workers(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = points_of(study)
    assert len({p.name for p in points}) == len(points) == 4
    one = run(points, Engine("here", 1))
    monkeypatch.setenv("WAFERC_CACHE", str(tmp_path / "other"))
    two = run(points, Engine("processes", 2))
    assert one.computed == two.computed == 4
    assert as_csv(study, one.rows) == as_csv(study, two.rows)
    assert as_json(study, one.rows) == as_json(study, two.rows)
    # A core of 400 bytes holds nothing: a row with its reason.
    for row in one.rows:
        assert bool(row["reason"]) == (row["sram_bytes"] == 400)
        assert (row["tokens_s"] is None) == bool(row["reason"])
    slow, fast = (r for r in one.rows if not r["reason"])
    # A hop of 2 instead of 1 costs at most what the fabric has of a call.
    assert fast["cycles"] <= 1.02 * slow["cycles"]
    assert slow["cycles"] - fast["cycles"] <= (slow["fabric"] + 0.02) * slow["cycles"]
    assert [b.parameter for b in sensitivity(study, one.rows)] == ["hop"]
    assert pareto(study, one.rows) == [fast]
    read = list(csv.DictReader(as_csv(study, one.rows).splitlines()))
    assert [r["reason"] != "" for r in read] == [bool(r["reason"]) for r in one.rows]
    assert json.loads(as_json(study, one.rows))["pareto"] == [2]
    drawn = pictures(study, one.rows)
    assert set(drawn) == {"bars.png", "map.png"}
    for name, figure in drawn.items():
        write(figure, tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write(pictures(study, two.rows)[name], tmp_path / name)
        assert (tmp_path / name).read_bytes() == first


@pytest.mark.thorough
@pytest.mark.xfail(strict=True, reason="8x8: 9,260 cycles at 44,976 bytes a core, 8,382 at 16,000")
def test_more_memory_is_never_slower(study: Study) -> None:
    """By more than 2 %: a plan for less would do, and the search does not find it."""
    (point, *_) = points_of(study)
    wafers = [wafer_of(study.base, {"sram_bytes": n}) for n in (16_000, 44_976, 131_072)]
    rows = [evaluate(Point("", "tiny", {"context": 8}, w, point.of)) for w in wafers]
    cycles = [r["cycles"] for r in rows if not r["reason"]]
    assert len(cycles) >= 2
    assert all(b <= 1.02 * a for a, b in pairwise(cycles))


def test_a_front_is_what_nothing_beats(study: Study) -> None:
    rows = [
        {"model": "tiny.toml", "tokens_s": t, "sram_gb": g, "reason": why}
        for t, g, why in [(5, 5, ""), (9, 9, ""), (5, 4, ""), (8, 9, ""), (99, 1, "no"), (1, 4, "")]
    ]
    assert pareto(study, rows) == [rows[1], rows[2]]


def test_dead_cores_are_the_same_every_time() -> None:
    one, two = (wafer_of(preset("32x32"), {"dead": 0.01}) for _ in range(2))
    assert one == two and len(one.dead_cores) == 10
    assert {*one.dead_cores} < {*wafer_of(preset("32x32"), {"dead": 0.02}).dead_cores}


BAD = {
    "toml": ("[a", "not TOML"),
    "key": ('models = ["a"]\nx = 1', "unknown key 'x'"),
    "models": ("models = []", "models"),
    "field": ('models = ["a"]\n[wafer]\nhops = [1]', "has no 'hops'"),
    "kind": ('models = ["a"]\n[wafer]\n"vector.x" = [1]', "has no 'vector.x'"),
    "number": ('models = ["a"]\n[wafer]\nhop = ["x"]', "not a number"),
    "whole": ('models = ["a"]\n[wafer]\nsram_bytes = [1.5]', "not a whole number"),
    "twice": ('models = ["a"]\n[wafer]\nhop = [1, 1]', "twice"),
    "empty": ('models = ["a"]\n[wafer]\nhop = []', "no value"),
    "weights": ('models = ["a"]\n[options]\nweights = ["f8"]', "none of"),
    "points": ('models = ["a"]\npoints = "all"', "points is one of"),
    "map": ('models = ["a"]\nmap = ["hop", "x"]', "map is two of"),
    "pareto": ('models = ["a"]\npareto = ["x", "y"]', "pareto is two of"),
    "dead": ('models = ["a"]\n[wafer]\ndead = [0.5]', "0 to 0.1"),
    "many": ('models = ["a"]\n[wafer]\nhop = ' + str([*range(20000)]), "points; at most"),
    "wafer": ('models = ["a"]\n[wafer]\nwidth = [0]', "sides go from"),
}


@pytest.mark.parametrize("text, told", BAD.values(), ids=BAD)
def test_bad_studies_are_told(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises((InvalidInput, UsageError)) as e:
        load(path)
    assert told in str(e.value) and "\n" not in str(e.value)


def test_ray_is_asked_for_where_it_is_missing(study: Study, tmp_path: Path) -> None:
    try:
        import ray  # noqa: F401  # pyright: ignore
    except ImportError:
        done = CliRunner().invoke(main, ["sweep", str(tmp_path / "study.toml"), "--engine", "ray"])
        assert done.exit_code == 2 and "pip install 'waferc[sweep]'" in done.output
        return
    pytest.skip("Ray is installed")


@pytest.mark.parametrize("name", sorted(p.name for p in Path("examples/studies").glob("*.toml")))
def test_shipped_studies_can_be_read(name: str) -> None:
    assert load(Path("examples/studies") / name).title
