"""Models that run on the wafer in stages, with operators, branches and loops of the host between them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from single import golden
from test_cli import good, same_as_golden, waferc
from waferc import UnsupportedOperator, compile_model
from waferc.codegen.artifact.artifact import InvalidArtifact, read, write
from waferc.compiler.errors import DoesNotFit, UnsupportedModel
from waferc.compiler.frontend.inputs import Binding
from waferc.compiler.frontend.node import ModelNode
from waferc.compiler.frontend.scope import Scope
from waferc.compiler.frontend.walk import Walk
from waferc.compiler.host.operators import operator
from waferc.compiler.importer import import_entries
from waferc.compiler.survey import survey
from waferc.ir.op import Array
from waferc.runtime.load import load
from waferc.runtime.play import HostError
from waferc.runtime.program import InputError
from waferc.runtime.script import Branch, HostStage, Loop, Scan, WaferStage

F, N, B, S = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
X = np.array([-1, 2, -3, 4], np.float32)


def value(name: str, kind: int = F, shape: Sequence[Any] = (4,)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array)))


def model(nodes: Sequence[onnx.NodeProto], inputs: Any, outputs: Any, opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, ir_version=9, opset_imports=imports)


def body(nodes: Sequence[onnx.NodeProto], inputs: Any, outputs: Any) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", inputs, outputs)


def compiled(proto: onnx.ModelProto, **more: Any) -> Any:
    return compile_model(proto.SerializeToString(), wafer="4x4", **more)


def agrees(proto: onnx.ModelProto, made: Any, feed: Mapping[str, Any]) -> None:
    """The program gives what onnxruntime gives."""
    ours = made.run(feed)
    for name, theirs in golden(proto, feed).items():
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-5)
        assert np.shape(ours[name]) == np.shape(theirs)


def stages(made: Any) -> list[type]:
    return [type(s) for s in made.program.staged.play.script.stages]


# -- models -----------------------------------------------------------------------------


def chosen() -> onnx.ModelProto:
    """The positive elements of x + x, and x + x times what the words stand for."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"], "add"),
        helper.make_node("Greater", ["twice", "zero"], ["positive"], "greater"),
        helper.make_node("Compress", ["twice", "positive"], ["y"], "choose"),
        helper.make_node("LabelEncoder", ["words"], ["n"], "encode", domain="ai.onnx.ml",
                         keys_strings=["a", "b"], values_floats=[1.0, 2.0]),
        helper.make_node("Mul", ["n", "twice"], ["z"], "mul"),
    ]  # fmt: skip
    nodes.insert(0, constant("zero", np.float32(0)))
    inputs = [value("x"), value("words", S)]
    return model(nodes, inputs, [value("y", F, ["k"]), value("z")])


def branching() -> onnx.ModelProto:
    """Relu(x) where its sum is positive, else x + 1; both capture x."""
    one = [constant("one", np.float32(1)), helper.make_node("Add", ["x", "one"], ["e"], "plus")]
    branches = {
        "then_branch": body([helper.make_node("Relu", ["x"], ["t"], "relu")], [], [value("t")]),
        "else_branch": body(one, [], [value("e")]),
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], "sum", keepdims=0),
        helper.make_node("Cast", ["sum"], ["c"], "cast", to=B),
        constant("least", np.float32(0)),
        helper.make_node("Greater", ["sum", "least"], ["positive"], "greater"),
        helper.make_node("If", ["positive"], ["b"], "choice", **branches),
        helper.make_node("Neg", ["b"], ["y"], "neg"),
    ]
    return model(nodes, [value("x")], [value("y")])


def looping(count: int | None = None) -> onnx.ModelProto:
    """n times h = h + x, all of them stacked; n is an input, or `count`."""
    inner = [
        helper.make_node("Identity", ["go"], ["on"], "on"),
        helper.make_node("Add", ["h", "x"], ["h2"], "step"),
        helper.make_node("Mul", ["h2", "h2"], ["row"], "square"),
    ]
    ends = (
        [value("i", N, ()), value("go", B, ()), value("h")],
        [value("on", B, ()), value("h2"), value("row")],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["last", "rows"], "loop", body=body(inner, *ends))]
    inputs = [value("x")]
    if count is None:
        inputs.append(value("n", N, ()))
    else:
        nodes.insert(0, constant("n", np.int64(count)))
    return model(nodes, inputs, [value("last"), value("rows", F, ["k", 4])])


def scanning(length: int) -> onnx.ModelProto:
    """Running sums of the rows of s[length, 4], last row first."""
    inner = [
        helper.make_node("Add", ["h", "row"], ["h2"], "step"),
        helper.make_node("Neg", ["h2"], ["out"], "neg"),
    ]
    ends = [value("h"), value("row")], [value("h2"), value("out")]
    node = helper.make_node(
        "Scan", ["x", "s"], ["last", "rows"], "scan", body=body(inner, *ends), num_scan_inputs=1
    )
    return model(
        [node], [value("x"), value("s", F, (length, 4))], [value("last"), value("rows", F, (length, 4))]
    )


def test_what_is_scanned_together_on_the_host_is_as_long() -> None:
    nodes = [helper.make_node("Compress", ["s", name], [f"{name}s"], axis=0) for name in ("a", "b")]
    ends = [value("h"), value("r"), value("t")], [value("h2"), value("out")]
    inner = [helper.make_node("Add", ["r", "t"], ["out"]), helper.make_node("Add", ["h", "out"], ["h2"])]
    words = {"body": body(inner, *ends), "num_scan_inputs": 2}
    nodes.append(helper.make_node("Scan", ["x", "as", "bs"], ["last", "rows"], "scan", **words))
    inputs = [value("x"), value("s", F, (3, 4)), value("a", B, (3,)), value("b", B, (3,))]
    made = compiled(model(nodes, inputs, [value("last"), value("rows", F, ["k", 4])]))
    given = {"x": X, "s": np.ones((3, 4), np.float32), "a": np.array([True, True, False])}
    assert made.run({**given, "b": given["a"]})["rows"].tolist() == [[2] * 4] * 2
    with pytest.raises(HostError, match="scans inputs of 1 and 2 elements together"):
        made.run({**given, "b": np.array([True, False, False])})


WORDS = np.array(["a", "b", "a", "b"], object)


# -- what runs where --------------------------------------------------------------------


def test_the_wafer_works_before_and_behind_the_host() -> None:
    made = compiled(chosen())
    assert made.runs_on == "mixed"
    assert [g.name for g in made.graphs.values()] == ["g, stage1", "g, stage2"]
    assert stages(made) == [WaferStage, HostStage, HostStage, WaferStage]
    out = made.run({"x": X, "words": WORDS})
    assert out["y"].tolist() == [4, 8] and out["z"].tolist() == [-2, 8, -6, 16]
    assert [(r.op_type, r.reason) for r in made.hosts] == [
        ("Compress", "Compress's condition depends on data"),
        ("LabelEncoder", "its input 'words' has element type STRING"),
    ]
    assert [(r.op_type, r.status) for r in survey(chosen())] == [
        ("Constant", "wafer"), ("Add", "wafer"), ("Greater", "wafer"), ("Compress", "host"),
        ("LabelEncoder", "host"), ("Mul", "wafer"),
    ]  # fmt: skip


def test_every_node_is_entered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the host has a share or not, by the importer and by what `waferc check` shows."""
    entered: list[str] = []
    enter = Walk._enter

    def counted(walk: Walk, scope: Scope, node: ModelNode, among: Sequence[onnx.NodeProto]) -> None:
        entered.append(node.name)
        enter(walk, scope, node, among)

    monkeypatch.setattr(Walk, "_enter", counted)
    wafer = model([helper.make_node("Relu", ["x"], ["y"], "relu")], [value("x")], [value("y")])
    names = ["Constant_0", "add", "greater", "choose", "encode", "mul"]
    branches = ["sum", "cast", "Constant_2", "greater", "choice", "relu", "Constant_0", "plus", "neg"]
    for proto, expected in ((wafer, ["relu"]), (chosen(), names), (branching(), branches)):
        for look in (lambda p: import_entries(p, {"main": Binding()}), survey):
            entered.clear()
            look(proto)
            assert sorted(entered) == sorted(expected)


def test_a_model_of_the_host_alone_is_a_program(tmp_path: Path) -> None:
    node = helper.make_node("StringNormalizer", ["w"], ["y"], "lower", case_change_action="LOWER")
    made = compiled(model([node], [value("w", S, [2])], [value("y", S, ["k"])]))
    assert made.runs_on == "host" and not made.graphs
    made.save(tmp_path / "p.wafer")
    for program in (made.program, load(tmp_path / "p.wafer", host=operator)):
        assert program.run({"w": np.array(["A", "b"])})["y"].tolist() == ["a", "b"]


@pytest.mark.parametrize("x", [X, -X])
def test_a_branch_is_the_hosts_decision_alone(x: Array) -> None:
    made = compiled(branching())
    assert stages(made) == [WaferStage, Branch, WaferStage]
    assert len(made.graphs) == 4
    agrees(branching(), made, {"x": x})
    assert sum(made.program.staged.ran.values()) == 3 and not made.program.staged.hosted


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_loop_calls_its_body(n: int) -> None:
    made = compiled(looping())
    assert stages(made) == [Loop]
    agrees(looping(), made, {"x": X, "n": np.array(n)})
    assert made.program.staged.ran.total() == n


ENDS = (helper.make_node("Slice", ["x", "from", "to"], ["row"]),)
SOME = (helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["row"], to=F))
FORM = (helper.make_node("Reshape", ["x", "to"], ["row"]),)


@pytest.mark.parametrize(
    ("trips", "on", "given"),
    [(-1, None, "call"), (-(2**63), True, "model"), (5, False, "call"), (None, False, "model")],
)
@pytest.mark.parametrize(
    ("row", "declared"),
    [
        (ENDS, [4, 6, 5]),
        (ENDS, [2, "a", 5]),
        (ENDS, [-1, 3, None]),
        (ENDS, None),
        (SOME, [3, 7]),
        (SOME, [None, None]),
        (FORM, [2, 60]),
        ((helper.make_node("Relu", ["x"], ["row"]),), None),
    ],
)
def test_what_a_loop_without_iterations_stacks(
    row: Sequence[onnx.NodeProto], declared: Any, trips: int | None, on: bool | None, given: str
) -> None:
    """Sizes that only an iteration would tell are as the body declares them, else 0."""
    limits = [("trips", trips, N, np.int64), ("on", on, B, np.bool_)]
    names = [name if limit is not None else "" for name, limit, _, _ in limits]
    ends = [value("i", N, []), value("go", B, [])], [value("next", B, []), value("row", F, declared)]
    inner = body([helper.make_node("Identity", ["go"], ["next"]), *row], *ends)
    outer = body(
        [helper.make_node("Identity", ["go_on"], ["again"])], [], [value("again", B, []), value("y", F, None)]
    )
    outer.input.extend([value("j", N, []), value("go_on", B, [])])
    outer.node.append(helper.make_node("Loop", names, ["y"], body=inner))
    feed = {"x": np.ones((4, 6, 5), np.float32), "from": np.zeros(2, np.int64), "to": np.array([2, 60])}
    kinds = [value("x", F, [4, 6, 5]), value("from", N, [2]), value("to", N, [2]), value("twice", N, [])]
    proto = model([helper.make_node("Loop", names, ["y"], "loop", body=inner)], kinds, [value("y", F, None)])
    twice = model([helper.make_node("Loop", ["twice", ""], ["y"], body=outer)], kinds, [value("y", F, None)])
    for of in (proto, twice):
        for name, limit, kind, numpy in limits:
            if limit is None:
                continue
            if given == "model":
                of.graph.initializer.append(numpy_helper.from_array(np.array(limit, numpy), name))
            else:
                of.graph.input.append(value(name, kind, []))
                feed[name] = np.array(limit, numpy)
    del proto.graph.input[3]
    agrees(proto, compiled(proto), feed)
    agrees(twice, compiled(twice), {**feed, "twice": np.array(2)})


def test_a_short_loop_is_written_out_and_a_long_one_is_not() -> None:
    for proto, where in ((looping(6), "wafer"), (looping(65), "mixed")):
        made = compiled(proto)
        assert made.runs_on == where
        agrees(proto, made, {"x": X})


def test_a_scan_is_written_out_or_calls_its_body() -> None:
    for length, where in ((6, "wafer"), (70, "mixed")):
        made = compiled(scanning(length))
        assert made.runs_on == where
        assert where == "wafer" or stages(made) == [Scan]
        rows = np.arange(length * 4, dtype=np.float32).reshape(length, 4)
        agrees(scanning(length), made, {"x": X, "s": rows})


def test_a_carried_value_that_grows_stays_on_the_host() -> None:
    inner = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Concat", ["h", "x"], ["h2"], axis=0),
    ]
    ends = (
        [value("i", N, ()), value("go", B, ()), value("h", F, ["k"])],
        [value("on", B, ()), value("h2", F, ["m"])],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], "loop", body=body(inner, *ends))
    proto = model([loop], [value("x"), value("n", N, ())], [value("y", F, ["k"])])
    agrees(proto, compiled(proto), {"x": X, "n": np.array(3)})


def test_names_inside_bodies_are_their_own() -> None:
    """Each body calls its values as another body, and as the stages' graphs, call theirs."""
    then = body([helper.make_node("Relu", ["x"], ["stage1\n"])], [], [value("stage1\n")])
    other = body([helper.make_node("Neg", ["x"], ["stage1\n"])], [], [value("stage1\n")])
    nodes = [
        helper.make_node("If", ["c"], ["0"], then_branch=then, else_branch=other),
        helper.make_node("If", ["c"], ["../1"], then_branch=other, else_branch=then),
        helper.make_node("Sub", ["0", "../1"], ["y"]),
    ]
    proto = model(nodes, [value("x"), value("c", B, ())], [value("y")])
    for c in (True, False):
        agrees(proto, compiled(proto), {"x": X, "c": np.array(c)})


def test_bodies_within_bodies_capture_from_all_around() -> None:
    """Each iteration adds x where the sum of h is below k, else subtracts it; k, x and h are outer values."""
    branches = {
        "then_branch": body([helper.make_node("Add", ["h", "x"], ["a"])], [], [value("a")]),
        "else_branch": body([helper.make_node("Sub", ["h", "x"], ["b"])], [], [value("b")]),
    }
    inner = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("ReduceSum", ["h"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "k"], ["below"]),
        helper.make_node("If", ["below"], ["h2"], **branches),
    ]
    ends = [value("i", N, ()), value("go", B, ()), value("h")], [value("on", B, ()), value("h2")]
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], "loop", body=body(inner, *ends))
    proto = model([loop], [value("x"), value("k", F, ()), value("n", N, ())], [value("y")])
    for k in (-9, 5):
        feed = {"x": X, "k": np.array(k, np.float32), "n": np.array(4)}
        agrees(proto, compiled(proto), feed)


def test_the_host_may_work_in_a_branch_that_is_known() -> None:
    nodes = [
        helper.make_node("NonZero", ["h"], ["at"], "where"),
        helper.make_node("Size", ["at"], ["t"], "count"),
    ]
    taken = body(nodes, [], [value("t", N, ())])
    other = body([constant("e", np.int64(0))], [], [value("e", N, ())])
    whole = [
        constant("yes", np.array(True)),
        helper.make_node("Relu", ["x"], ["h"], "relu"),
        helper.make_node("If", ["yes"], ["n"], "known", then_branch=taken, else_branch=other),
        helper.make_node("Neg", ["n"], ["y"], "neg"),
    ]
    proto = model(whole, [value("x")], [value("y", N, ())])
    made = compiled(proto)
    agrees(proto, made, {"x": X})
    assert stages(made) == [WaferStage, HostStage, HostStage, WaferStage]
    assert [r.op_type for r in made.hosts] == ["NonZero", "Size"]


def test_a_loop_of_known_count_may_read_what_the_host_makes() -> None:
    inner = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Add", ["h", "some"], ["h2"]),
        helper.make_node("Identity", ["h2"], ["row"]),
    ]
    ends = (
        [value("i", N, ()), value("go", B, ()), value("h", F, ["k"])],
        [value("on", B, ()), value("h2", F, ["k"]), value("row", F, ["k"])],
    )
    nodes = [
        constant("n", np.int64(3)),
        constant("zero", np.float32(0)),
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Compress", ["x", "positive"], ["some"]),
        helper.make_node("Loop", ["n", "", "some"], ["y", "rows"], "loop", body=body(inner, *ends)),
    ]
    proto = model(nodes, [value("x")], [value("y", F, ["k"]), value("rows", F, [3, "k"])])
    agrees(proto, compiled(proto), {"x": X})


def test_what_nothing_runs_is_refused_all_at_once() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], "fine"),
        helper.make_node("Fancy", ["a"], ["b"], "far", domain="com.example"),
        helper.make_node("Nonsense", ["b"], ["y"], "none"),
    ]
    proto = model(nodes, [value("x")], [value("y")])
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedOperator) as e:
        compiled(proto)
    assert [r.op_type for r in e.value.refusals] == ["Fancy", "Nonsense"]


def test_states_and_entries_leave_nothing_to_the_host() -> None:
    with pytest.raises(UnsupportedModel, match="with --state, --capacity or --entry"):
        compiled(branching(), states=[("x", "y")])


def test_functions_are_counted_before_they_are_expanded() -> None:
    functions = [
        helper.make_function(
            "own", f"f{i}", ["a"], ["b"],
            [helper.make_node(f"f{i + 1}", ["a"], ["t"], domain="own"),
             helper.make_node(f"f{i + 1}", ["t"], ["b"], domain="own")]
            if i < 35 else [helper.make_node("Neg", ["a"], ["b"])],
            [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
        )
        for i in range(36)
    ]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("f0", ["x"], ["y"], domain="own")], "g", [value("x")], [value("y")]
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    proto = helper.make_model(graph, ir_version=9, opset_imports=imports, functions=functions)
    with pytest.raises(DoesNotFit, match="stand for 34,359,738,368 nodes; at most 1,000,000"):
        compiled(proto)


def test_an_opset_of_before_is_taken_where_nothing_changed() -> None:
    for op_type, fine in (("Not", True), ("Relu", False)):
        kind = B if fine else F
        proto = model([helper.make_node(op_type, ["x"], ["y"])], [value("x", kind)], [value("y", kind)], 1)
        if fine:
            assert compiled(proto).run({"x": X > 0})["y"].tolist() == (X <= 0).tolist()
        else:
            with pytest.raises(UnsupportedModel, match="opset 1: waferc takes opsets 6"):
                compiled(proto)


# -- saved, guarded, damaged ------------------------------------------------------------


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("make", [chosen, branching, looping])
def test_a_saved_program_gives_the_same_bits(tmp_path: Path, make: Any, guard: bool) -> None:
    proto = make()
    feeds = {"x": X, "words": WORDS, "n": np.array(3)}
    feed = {v.name: feeds[v.name] for v in proto.graph.input}
    made = compiled(proto)
    made.save(tmp_path / "p.wafer")
    again = load(tmp_path / "p.wafer", guard=guard, host=operator)
    right, ours = made.run(feed), again.run(feed)
    assert {n: a.tobytes() for n, a in ours.items()} == {n: a.tobytes() for n, a in right.items()}


def test_a_program_without_operators_of_the_host_needs_no_onnx(tmp_path: Path) -> None:
    compiled(looping()).save(tmp_path / "p.wafer")
    assert load(tmp_path / "p.wafer").run({"x": X, "n": np.array(2)})["last"].tolist() == [-3, 6, -9, 12]
    compiled(chosen()).save(tmp_path / "q.wafer")
    with pytest.raises(InvalidArtifact, match=r"operators on the host \(Compress, ai.onnx.ml.LabelEncoder\)"):
        load(tmp_path / "q.wafer")
    code = (
        "import sys\nsys.modules['onnx'] = None\nimport waferc.compiler.cli.main as m\nm.main(sys.argv[1:])"
    )
    words = [sys.executable, "-c", code, "run", str(tmp_path / "q.wafer"), "--random", "0"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 4 and "pip install onnx" in done.stderr


DAMAGES: list[tuple[Any, str]] = [
    (lambda s: s["script"]["stages"].pop(0), "is read before it is made"),
    (lambda s: s["script"]["stages"].append(["host", 7, [], []]), "operator 7"),
    (lambda s: s["script"]["stages"].append(["wafer", "evil", [], []]), "entry 'evil'"),
    (lambda s: s["script"]["stages"].append(["jump"]), "stage 'jump'"),
    (lambda s: s["script"].pop("stages"), "stages: is missing"),
    (lambda s: s["outputs"].append("more"), "another number of inputs or outputs"),
    (lambda s: s["ports"].append(["q", [1], "float32"]), "a port that is no input"),
    (lambda s: s["ports"].append(["x", [1], "object"]), "'object' is no element type"),
    (lambda s: s["operators"].append("Evil"), "host/2.onnx"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=[says for _, says in DAMAGES])
def test_damaged_scripts_are_refused(tmp_path: Path, damage: Any, says: str) -> None:
    compiled(chosen()).save(tmp_path / "p.wafer")
    artifact = read(tmp_path / "p.wafer")
    script = json.loads(artifact.files["script.json"])
    damage(script)
    files = {**artifact.files, "script.json": json.dumps(script).encode()}
    manifest = {k: v for k, v in artifact.manifest.items() if k not in ("format", "sha256")}
    write(tmp_path / "q.wafer", manifest, files)
    with pytest.raises(InvalidArtifact, match=says):
        load(tmp_path / "q.wafer", host=operator)


def test_what_a_run_may_get_wrong() -> None:
    program = compiled(chosen()).program
    for feed, says in (
        ({"x": X}, "input 'words' is missing"),
        ({"x": X[:3], "words": WORDS}, r"input 'x' has shape \[3\], compiled for \[4\]"),
        ({"x": X, "words": WORDS, "z": X}, "no input 'z'"),
    ):
        with pytest.raises(InputError, match=says):
            program.run(feed)
    with pytest.raises(HostError, match=r"is float32\[2\] in this run, compiled for float32\[4\]"):
        program.run({"x": X, "words": WORDS[:2]})


# -- the command line -------------------------------------------------------------------


@pytest.fixture
def here(here: Path) -> Path:
    (here / "chosen.onnx").write_bytes(chosen().SerializeToString())
    (here / "branch.onnx").write_bytes(branching().SerializeToString())
    np.save(here / "words.npy", WORDS.astype(str))
    good("compile", "chosen.onnx", "--wafer", "4x4", "-o", "chosen.wafer")
    good("compile", "branch.onnx", "--wafer", "4x4", "-o", "branch.wafer")
    return here


ERRORS: list[tuple[int, tuple[str, ...]]] = [
    (2, ("run", "chosen.wafer", "--random", "0")),
    (2, ("run", "branch.wafer", "--random", "0", "--trace", "o")),
    (2, ("run", "branch.wafer", "--random", "0", "--entry", "main")),
    (4, ("check", "chosen.onnx", "--wafer", "4x4", "--no-host")),
    (4, ("compile", "chosen.onnx", "--wafer", "4x4", "--no-host", "-o", "o")),
    (4, ("compile", "branch.onnx", "--wafer", "4x4", "--no-host", "-o", "o")),
    (4, ("compile", "branch.onnx", "--wafer", "4x4", "--state", "x=y", "-o", "o")),
    (4, ("run", "chosen.wafer", "--random", "0", "--no-host")),
]


def test_every_error_is_one_line(here: Path) -> None:
    lines: list[str] = []
    for code, words in ERRORS:
        done = waferc(*words)
        assert done.exit_code == code, (words, done.stderr)
        assert done.stderr.startswith("waferc: error: ") and done.stderr.count("\n") == 1, done.stderr
        lines += [f"$ waferc {' '.join(words)}", done.stderr.rstrip("\n"), f"exit {code}", ""]
    same_as_golden("stage_errors.txt", "\n".join(lines))


def test_a_program_of_the_host_alone(here: Path) -> None:
    node = helper.make_node("StringNormalizer", ["w"], ["y"], "lower", case_change_action="LOWER")
    proto = model([node], [value("w", S, [4])], [value("y", S, ["k"])])
    (here / "text.onnx").write_bytes(proto.SerializeToString())
    good("compile", "text.onnx", "--wafer", "4x4", "-o", "text.wafer")
    assert "nothing of the model runs on the wafer" in good("check", "text.onnx", "--wafer", "4x4")
    assert "y  object[4]  a b a b" in good("run", "text.wafer", "--input", "w=words.npy", "-o", "out.npz")
    assert np.load("out.npz")["y"].tolist() == ["a", "b", "a", "b"]
    assert "PASS" in good(
        "verify", "text.onnx", "--wafer", "4x4", "--input", "w=words.npy", "--golden", "reference"
    )
    text = good("inspect", "text.wafer", "--json", "o.json")
    assert "inputs       w\noutputs      y\non the host  StringNormalizer" in text
    assert json.loads((here / "o.json").read_text())["host"] == {"StringNormalizer": 1}
    good("report", "text.wafer", "-o", "o.html")
    graph, core = ("--graph", "o.dot"), ("--core", "0,0")
    for words in (("heatmap", "-o", "o.png"), ("inspect", *graph), ("inspect", *core)):
        done = waferc(words[0], "text.wafer", *words[1:])
        assert (done.exit_code, done.stderr) == (
            2,
            "waferc: error: nothing of 'text.wafer' runs on the wafer: there is nothing to show\n",
        )


def test_every_verb_takes_programs_in_stages(here: Path) -> None:
    text = good("run", "chosen.wafer", "--random", "0", "--input", "words=words.npy", "--json", "run.json")
    assert "host          Compress, ai.onnx.ml.LabelEncoder" in text
    run = json.loads((here / "run.json").read_text())
    good("inspect", "chosen.wafer", "--json", "inspect.json")
    each = [json.loads(good("inspect", "chosen.wafer", "--entry", e, "--json", "-")) for e in run["stages"]]
    assert run["cycles"] == sum(e["figures"]["cycles"] for e in each) > 0
    for picture in (("heatmap", "o.png"), ("report", "o.html")):
        good(picture[0], "chosen.wafer", "-o", picture[1])
    assert "  host   " in good("check", "chosen.onnx", "--wafer", "4x4")
    assert "decisions only" in good("run", "branch.wafer", "--random", "0", "-o", "out.npz")
    assert "PASS" in good("verify", "branch.onnx", "--wafer", "4x4")
    assert "PASS" in good("verify", "branch.onnx", "--program", "branch.wafer", "--guard")
