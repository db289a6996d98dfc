"""waferc from Python: public names, what they load, the page that shows them, graphs for networkx."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import waferc
from click.testing import CliRunner
from exported import tiny_decoder, write_folder
from plans import GRAPHS, Model
from waferc.compiler.cli.main import main
from waferc.compiler.cli.options import ASKED
from waferc.compiler.show.graph_files import timed_graph, write_graph
from waferc.ir import dtypes
from waferc.ir.graph import Graph
from waferc.placement.cost.timing import simulate
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"


def python(*words: str, folder: Path) -> str:
    """What another Python prints there."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' program for a small wafer."""
    path = tmp_path_factory.mktemp("digits") / "digits.wafer"
    waferc.compile_model(DIGITS / "digits.onnx", wafer="16x16", dims={"batch": 4}).save(path)
    return path


# -- names ------------------------------------------------------------------------------


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(waferc, name) is not None for name in waferc.__all__)
    assert sorted(waferc.__all__) == dir(waferc)
    assert waferc.compile_model.__module__ == "waferc.compiler.pipeline"
    with pytest.raises(AttributeError, match="'waferc' has no attribute 'compile'"):
        getattr(waferc, "compile")  # noqa: B009
    errors = {
        name
        for name, value in vars(sys.modules["waferc.compiler.errors"]).items()
        if isinstance(value, type) and issubclass(value, waferc.WafercError)
    }
    assert errors <= set(waferc.__all__)


def test_importing_the_package_loads_nothing_of_it(tmp_path: Path) -> None:
    code = (
        "import sys, waferc\n"
        "heavy = {'numpy', 'onnx', 'click'} & set(sys.modules)\n"
        "print([m for m in sys.modules if m.startswith('waferc.')], heavy)\n"
        "assert waferc.Request().wafer == 'wse3' and 'onnx' not in sys.modules\n"
        "print(waferc.__version__)"
    )
    names, version = python("-c", code, folder=tmp_path).splitlines()
    assert names == "[] set()"
    assert python("-m", "waferc", "--version", folder=tmp_path) == f"waferc {version}\n"


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(waferc.__file__).with_name("py.typed").exists()


def test_a_run_loads_neither_onnx_nor_networkx(digits: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom waferc.compiler.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as e:\n    assert e.code == 0, e.code\n"
        "print({'onnx', 'networkx'} & set(sys.modules))"
    )
    assert python("-c", code, "run", str(digits), "--random", "0", folder=tmp_path).endswith("\nset()\n")
    code = (
        "import sys, numpy, waferc\n"
        "waferc.load(sys.argv[1]).run({'image': numpy.zeros((4, 1, 8, 8), 'f4')})\n"
        "print({'onnx', 'networkx'} & set(sys.modules))"
    )
    assert python("-c", code, str(digits), folder=tmp_path) == "set()\n"


def test_a_program_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.wafer"
    path.write_bytes(b"none")
    with pytest.raises(waferc.ArtifactError, match=r"none\.wafer'"):
        waferc.load(path)
    with pytest.raises(FileNotFoundError):
        waferc.load(tmp_path / "missing.wafer")


def test_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "python.md").read_text(), re.M | re.S)
    assert len(blocks) > 5
    for name in ("digits.onnx", "digits_test.npz"):
        shutil.copy(DIGITS / name, tmp_path)
    write_folder(tmp_path / "tiny", {"model.onnx": tiny_decoder()})
    (tmp_path / "page.py").write_text("\n".join(blocks))
    out = python("page.py", folder=tmp_path)
    assert "OpenDimensions 3 " in out and "UsageError 2 " in out and "DoesNotFit 5 " in out
    page = (ROOT / "docs" / "python.md").read_text()
    assert [name for name in waferc.__all__ if name not in page] == []


# -- requests ---------------------------------------------------------------------------


def test_every_option_of_the_command_line_is_a_field_and_every_field_an_option() -> None:
    assert set(ASKED) == {f.name for f in fields(waferc.Request)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"optimize": "speed"}, "optimize is one of latency, throughput, not 'speed'"),
        ({"weights": "int3"}, "weights is one of f32, f16, bf16, int8, int4, not 'int3'"),
        ({"activations": "f16"}, "activations is one of f32, bf16, not 'f16'"),
        ({"until": "end"}, "until is one of graph, plan, program, not 'end'"),
        ({"activations": "bf16"}, "--activations bf16 needs --weights bf16, not f32"),
        ({"no_weights": True}, "--no-weights makes a plan"),
        ({"constraints": "p.json", "entries": {"a": {}, "b": {}}}, "a program with one entry"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(waferc.UsageError, match=message):
        waferc.Request(**options).check()
    with pytest.raises(waferc.UsageError, match=message):
        waferc.compile_model(b"", **options)


def test_options_and_a_request_are_one(tmp_path: Path) -> None:
    model = DIGITS / "digits.onnx"
    asked = waferc.Request(wafer="16x16", dims={"batch": 4}, until="plan")
    a = waferc.compile_model(model, asked)
    b = waferc.compile_model(model, wafer=preset("16x16"), dims={"batch": 4}, until="plan")
    c = waferc.compile_model(model, replace(asked, optimize="throughput"), optimize="latency")
    assert a.manifest == b.manifest == c.manifest and str(a.plan) == str(b.plan) == str(c.plan)
    assert a.manifest["wafer"] == "16x16" and a.manifest["simplify"] is True
    with pytest.raises(TypeError, match="seed"):
        waferc.compile_model(model, asked, seed=1)


def test_a_manifest_is_in_order_and_plain() -> None:
    asked = waferc.Request(
        dims={"b": 2, "a": 1},
        shapes={"x": (1, 2)},
        values={"v": np.array([1, 2])},
        states=[("s", "t")],
        entries={"second": {"z": 1, "y": 2}, "first": {}},
        weights="bf16",
    )
    written = asked.manifest()
    assert list(written["dims"]) == ["a", "b"] and written["shapes"] == {"x": [1, 2]}
    assert written["values"] == {"v": [1, 2]} and written["states"] == [["s", "t"]]
    assert list(written["entry_dims"]) == ["second", "first"]
    assert list(written["entry_dims"]["second"]) == ["y", "z"]
    assert written["activations"] == "bf16" and "constraints" not in written


# -- what they look like ----------------------------------------------------------------


def test_a_repr_is_one_short_line() -> None:
    compiled = waferc.compile_model(DIGITS / "digits.onnx", wafer="16x16", dims={"batch": 4}, until="plan")
    count = len(compiled.graph.nodes)
    assert repr(compiled.graph) == (
        f"Graph('digits', {count} nodes, inputs ['image'], outputs ['probabilities'])"
    )
    steps = len(compiled.plan.steps)
    assert repr(compiled.plan) == f"Plan('digits' on 16x16, 1 regions, {steps} steps, for latency)"
    assert repr(compiled) == "Compiled('digits', planned, entries ['main'], 16x16, runs on wafer)"
    many = replace(compiled.graph, outputs=tuple(f"y{i}" for i in range(1000)))
    assert repr(many).endswith("outputs ['y0', 'y1', 'y2', 'y3', 996 more])")


# -- graphs -----------------------------------------------------------------------------

HOSTILE = 'a"b\\n\n<&>\x1b\x00\ufffe\ud800; é'


def hostile() -> Graph:
    m = Model()
    x = m.tensor(HOSTILE, (8, 8), dtypes.F32)
    m.source = (HOSTILE,)
    return m.graph(HOSTILE, [x], [m.op("Relu", m.op("MatMul", x, m.normal(0, 8, 8)))])


def plain(held: dict[str, Any]) -> bool:
    return all(type(v) in (str, int, bool) for v in held.values())


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_for_networkx_has_its_ops_tensors_reads_and_writes(name: str) -> None:
    graph = GRAPHS[name]()
    made = graph.to_networkx()
    kinds = [held["kind"] for _, held in made.nodes(data=True)]
    assert kinds.count("op") == len(graph.nodes)
    assert (kinds.count("input"), kinds.count("constant")) == (len(graph.inputs), len(graph.constants))
    assert len(made) == len(graph.nodes) + len(graph.tensors)
    assert made.number_of_edges() == sum(len(n.inputs) + 1 for n in graph.nodes)
    named = {held["name"]: held for _, held in made.nodes(data=True) if held["kind"] != "op"}
    assert {t for t, held in named.items() if held["output"]} == set(graph.outputs)
    assert {(t, held["becomes"]) for t, held in named.items() if "becomes" in held} == set(graph.states)
    assert all(named[t]["bytes"] == graph.tensors[t].bytes for t in graph.tensors)
    assert all(plain(held) for _, held in made.nodes(data=True))
    if not graph.states:
        assert nx.is_directed_acyclic_graph(made)


@pytest.mark.parametrize("optimize", ["latency", "throughput"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_plan_for_networkx_has_its_steps_and_moves(name: str, optimize: str) -> None:
    made = plan(GRAPHS[name](), preset("16x16"), optimize)
    graph = made.to_networkx()
    assert len(graph) == len(made.steps) and nx.is_directed_acyclic_graph(graph)
    edges = [held for _, _, held in graph.edges(data=True)]
    moves = [m for s in made.steps for m in (*s.moves, *(m for o in s.operands for m in o.moves))]
    assert sum(e["route"] != "in place" for e in edges) == len(moves)
    assert all(plain(held) for held in (graph.graph, *edges, *(h for _, h in graph.nodes(data=True))))
    assert all(e["bytes"] > 0 for e in edges if e["route"] != "in place")
    places = [key for key in graph.graph if key.startswith("region ")]
    assert len(places) == len(made.regions)
    crossing = {e["crosses"] for e in edges}
    assert (True in crossing) == (len(made.regions) > 1)


def test_bytes_of_a_hand_over_are_what_all_cores_receive() -> None:
    """Of a product whose operand every core needs whole, each core has it once."""
    m = Model()
    x = m.tensor("x", (1, 64), dtypes.F32)
    made = plan(m.graph("one", [x], [m.op("MatMul", x, m.normal(0, 64, 64))]), preset("4x4"))
    (product,) = [s for s in made.steps if s.op.name == "Contract"]
    (operand,) = [o for o in product.operands if o.tensor == "x"]
    edges = made.to_networkx().in_edges(f"step {product.position}", data=True)
    (read,) = [held for _, _, held in edges if held["tensor"] == "x"]
    assert len(operand.moves) == 1
    whole = np.ones((product.grid.rows, product.grid.columns)) * 64 * 4
    for a in product.part or ():
        whole /= next(c.ways for c in product.split.cuts if c.axis == a)
    assert read["bytes"] == whole.sum()


STRING = r'"(?:[^"\\\n]|\\.)*"'
ATTRIBUTE = rf"\[label={STRING}\]"
LINES = (
    rf"digraph {STRING} {{", r"  node \[shape=box\];", rf"  {STRING} {ATTRIBUTE};",
    rf"  subgraph {STRING} {{", rf"    label={STRING}; {STRING}(; {STRING})*;", r"  }",
    rf"  {STRING} -> {STRING} {ATTRIBUTE};", "}",
)  # fmt: skip


def dot_counts(text: str) -> tuple[int, int]:
    """Nodes and edges of a DOT file of which each line is as expected."""
    lines = text.splitlines()
    kinds = [next((i for i, form in enumerate(LINES) if re.fullmatch(form, line)), -1) for line in lines]
    assert -1 not in kinds, lines[kinds.index(-1)]
    return kinds.count(2), kinds.count(6)


@pytest.mark.parametrize("make", [hostile, *GRAPHS.values()], ids=["hostile", *GRAPHS])
def test_graphs_are_written_and_read_back(make: Any, tmp_path: Path) -> None:
    made = plan(make(), preset("16x16"))
    graph = timed_graph(made, simulate(made))
    write_graph(graph, tmp_path / "part", ".dot")
    assert dot_counts((tmp_path / "part").read_text(encoding="utf-8")) == (
        len(graph),
        graph.number_of_edges(),
    )
    write_graph(graph, tmp_path / "part", ".graphml")
    back = nx.read_graphml(tmp_path / "part", force_multigraph=True)
    assert (len(back), back.number_of_edges()) == (len(graph), graph.number_of_edges())
    for node, held in graph.nodes(data=True):
        assert {k: v for k, v in back.nodes[node].items() if not isinstance(v, str)} == {
            k: v for k, v in held.items() if not isinstance(v, str)
        }
        assert back.nodes[node]["name"].isprintable()


def inspected(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["inspect", *words])
    return done.exit_code, done.stderr


@pytest.mark.parametrize("more", [(), ("--core", "0,0")])
@pytest.mark.parametrize("suffix", ["dot", "graphml", "DOT"])
def test_inspect_writes_a_graph(
    suffix: str, more: Sequence[str], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a note shortens a long path
    path = Path(f"graph.{suffix}")
    code, notes = inspected(str(digits), *more, "--graph", str(path))
    assert (code, notes) == (0, f"wrote {path}\n")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<?xml" if suffix == "graphml" else 'digraph "digits" {')
    assert "conv1" in text and os.listdir(tmp_path) == [path.name]


def test_a_graph_of_another_suffix_is_a_usage_error(digits: Path, tmp_path: Path) -> None:
    code, error = inspected(str(digits), "--graph", str(tmp_path / "graph.png"))
    assert code == 2 and error.endswith("graph.png': a graph is a .dot or .graphml file\n")
    assert os.listdir(tmp_path) == []
