"""What `inspect`, `heatmap`, `diff`, trace and page say of one plan agrees to the cycle and the byte."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from report_pages import read
from waferc import compile_model
from waferc.compiler.cli.main import main
from waferc.placement.machine.wafer import LINKS

SIDE = 4
Said = Mapping[str, Any]


def model() -> bytes:
    """Two products, a Relu and a Softmax: moves, joins, riders, memory that is used again."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((24, 40)), "w2": rng.standard_normal((40, 12))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "act"),
        helper.make_node("MatMul", ["r", "w2"], ["z"], "second"),
        helper.make_node("Softmax", ["z"], ["y"], "end"),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [6, 24]), ("y", [6, 12]))
    ]
    held = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "agreed", ends[:1], ends[1:], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return made.SerializeToString()


def waferc(*words: str) -> Said:
    done = click.testing.CliRunner().invoke(main, [*words, "--json", "-"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("agreed") / "p.wafer")
    compile_model(model(), wafer=f"{SIDE}x{SIDE}").save(path)
    return path


def grid(program: str, *words: str) -> list[np.ndarray]:
    """The panels' values over the whole wafer; 0 where there are none."""
    data = waferc("heatmap", program, "--crop", f"0,0,{SIDE}x{SIDE}", *words)
    return [np.array([[v or 0 for v in row] for row in p["values"]]) for p in data["panels"]]


@pytest.fixture(scope="module")
def trace(program: str, tmp_path_factory: pytest.TempPathFactory) -> Said:
    path = tmp_path_factory.mktemp("trace") / "t.json"
    waferc("run", program, "--random", "0", "--trace", str(path))
    return json.loads(path.read_text())


def test_cycles_of_a_call_and_of_each_step(program: str, trace: Said) -> None:
    whole = waferc("inspect", program)
    cycles = whole["figures"]["cycles"]
    assert trace["otherData"]["cycles"] == waferc("heatmap", program)["cycles"] == cycles
    legs = whole["critical_path"]["legs"]
    assert sum(leg[k] for leg in legs for k in ("fabric", "waiting", "compute")) == pytest.approx(
        cycles, abs=2 * len(legs)
    )
    assert whole["guidance"]["cycles"] == round(cycles)
    bars: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for e in trace["traceEvents"]:
        if e["ph"] == "X":
            bars[e["args"]["step"]].append((e["args"]["start"], e["args"]["end"]))
    for row in whole["steps"]:
        own = bars[row["step"]]
        assert round(min(a for a, _ in own)) == row["start"] and round(max(b for _, b in own)) == row["end"]
        assert waferc("inspect", program, "--step", str(row["step"]))["end"] == row["end"]


def test_cycles_of_each_core(program: str, trace: Said) -> None:
    (cycles,) = grid(program, "--metric", "cycles")
    busy = np.zeros((SIDE, SIDE))
    threads = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    for e in trace["traceEvents"]:
        if e["ph"] == "X" and e["cat"] != "input":
            x, y = map(int, threads[e["tid"]].split("(")[1].split(")")[0].split(", "))
            busy[y, x] += e["args"]["end"] - e["args"]["start"]
    assert busy == pytest.approx(cycles)
    by_step = sum(
        grid(program, "--metric", "cycles", "--step", str(i))[0] for i in range(len(steps(program)))
    )
    assert by_step == pytest.approx(cycles)


def steps(program: str) -> list[Said]:
    return waferc("inspect", program)["steps"]


def test_bytes_of_each_core(program: str) -> None:
    (sram,) = grid(program)
    figures = waferc("inspect", program)["figures"]
    x, y = figures["fullest_core"]
    assert sram.max() == sram[y, x] == figures["fullest_core_bytes"]
    for y in range(SIDE):
        for x in range(SIDE):
            core = waferc("inspect", program, "--core", f"{x},{y}")
            ends = [b["address"] + b["bytes"] for b in core["buffers"]]
            assert core["used"] == sram[y, x] == max(ends, default=core["code"])


def test_bytes_at_each_moment(program: str, trace: Said) -> None:
    counters = [e for e in trace["traceEvents"] if e["ph"] == "C"]
    clock = trace["otherData"]["clock_hz"]
    sram = [e for e in counters if e["name"].startswith("SRAM")]
    x, y = map(int, sram[0]["name"].split("(")[1].rstrip(")").split(", "))
    moving = [e for e in counters if e["name"].startswith("bytes under way")]
    cycles = waferc("inspect", program)["figures"]["cycles"]
    for at in np.linspace(1, cycles - 1, 6).tolist():
        now = at / clock * 1e6
        told = [e["args"]["bytes"] for e in sram if e["ts"] <= now][-1]
        (held,) = grid(program, "--at", str(at))
        assert held[y, x] == told
        said = waferc("inspect", program, "--at", str(at))
        assert said["fullest_core_bytes"] == held.max()
        assert (
            sum(m["received"] for m in said["moves"])
            == [e["args"]["bytes"] for e in moving if e["ts"] <= now][-1]
        )
        (busy,) = grid(program, "--metric", "busy", "--at", str(at))
        assert (busy.sum() > 0) == bool(said["steps"])
        assert max((s["now"] for s in said["steps"]), default=0) <= busy.sum()


def test_the_page_says_the_same(program: str, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    assert click.testing.CliRunner().invoke(main, ["report", program, "-o", str(page)]).exit_code == 0
    found = read(page.read_text(encoding="utf-8"))
    (entry,) = found.data["entries"]
    whole = waferc("inspect", program)
    assert entry["cycles"] == round(whole["figures"]["cycles"])
    assert [(s["first"], s["last"]) for s in entry["steps"]] == [
        (s["start"], s["end"]) for s in whole["steps"]
    ]
    assert [leg["end"] for leg in entry["path"]] == [leg["end"] for leg in whole["critical_path"]["legs"]]
    x, y, width, height = entry["box"]
    part = (slice(y, y + height), slice(x, x + width))
    words = ("--metric", "sram", "--metric", "cycles", *(w for d in LINKS for w in ("--metric", d)))
    sram, cycles, *links = (values[part] for values in grid(program, *words))
    assert (found.tables[entry["sram"]] == sram).all()
    assert (found.tables[entry["busy"]] == np.rint(cycles)).all()
    for table, plane in zip(entry["links"], links, strict=True):
        assert (found.tables[table] == np.rint(plane)).all()


def test_bytes_of_each_link(program: str) -> None:
    figures = waferc("inspect", program)["figures"]
    planes = dict(zip(LINKS, grid(program, *(w for d in LINKS for w in ("--metric", d))), strict=True))
    x, y, direction = figures["fullest_link"]
    assert planes[direction][y, x] == figures["fullest_link_bytes"]
    assert max(p.max() for p in planes.values()) == figures["fullest_link_bytes"]
    (fullest,) = grid(program, "--metric", "links")
    assert (fullest == np.max(list(planes.values()), axis=0)).all()
    for direction, plane in planes.items():
        y, x = np.unravel_index(int(plane.argmax()), plane.shape)
        for a, b in ((int(x), int(y)), (1, 2)):
            link = waferc("inspect", program, "--link", f"{a},{b},{direction}")
            assert link["bytes"] == plane[b, a] == sum(m["bytes"] for m in link["moves"])
    same = waferc("diff", program, program)
    assert same["nothing_changed"]
