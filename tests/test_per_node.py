"""The first wrong node: which is named, alone and along the chain, and the model that shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_cli import perceptron, same_as_golden
from waferc import compile_model
from waferc.compiler.cli.main import main
from waferc.compiler.errors import UnsupportedModel
from waferc.compiler.frontend import external
from waferc.compiler.frontend.inputs import Binding
from waferc.compiler.verify import single_nodes
from waferc.compiler.verify.compare import Rule
from waferc.compiler.verify.golden import exposed, golden
from waferc.compiler.verify.per_node import Found, check_nodes, inputs_of
from waferc.ir.builder import Arithmetic, Value
from waferc.ir.ops.activation import Relu
from waferc.ir.ops.elementwise import Neg
from waferc.runtime.program import Program

TINY = ("tiny.onnx", "--dim", "batch=2", "--wafer", "4x4", "--per-node")


def verify(*words: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ("verify", *words), terminal_width=80)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, int],
    weights: Mapping[str, np.ndarray] | None = None,
) -> str:
    """A model at opset 17 with inputs of floats; outputs: name -> element type."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()],
        [numpy_helper.from_array(v, n) for n, v in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())
    return str(path)


def nodes(*rows: tuple[str, str, str, str]) -> list[onnx.NodeProto]:
    """(name, operator, inputs, outputs) each."""
    return [helper.make_node(kind, ins.split(), outs.split(), name) for name, kind, ins, outs in rows]


def wrong_by_one(self: Relu, b: Arithmetic, *x: Value) -> Value:
    return b.add(b.max(x[0], b.const(0, self.out_type)), b.const(1, self.out_type))


def test_the_wrong_node_is_named_and_shown(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perceptron(here)
    with monkeypatch.context() as planted:
        planted.setattr(Relu, "scalar", wrong_by_one)
        done = verify(*TINY)
        assert done.exit_code == 8
        same_as_golden("per_node.txt", done.stdout + done.stderr)
        assert sorted(p.name for p in here.iterdir()) == ["first-wrong.npz", "first-wrong.onnx", "tiny.onnx"]
        (node,) = onnx.load("first-wrong.onnx").graph.node
        assert (node.name, node.op_type) == ("act", "Relu")
        (command,) = re.findall("^  waferc verify (.*)$", done.stdout, re.M)
        again = verify(*command.split())
        assert again.exit_code == 8 and "output 'r': 32 of 32 values" in again.stderr
    monkeypatch.setenv("WAFERC_CACHE", "no more wrong kernels")
    assert verify(*command.split()).exit_code == 0


def test_nothing_is_left_behind_by_what_agrees(here: Path) -> None:
    perceptron(here)
    done = verify(*TINY, "-o", "shown.onnx", "--json", "-")
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["passed"] and len(found["outputs"]) == 1
    assert found["nodes"] == {
        "count": 3,
        "unchecked": [],
        "first_alone": None,
        "first_along_the_chain": None,
    }
    assert [p.name for p in here.iterdir()] == ["tiny.onnx"]


def a_little_wrong(self: Neg, b: Arithmetic, *x: Value) -> Value:
    return b.mul(x[0], b.const(-1 - 0.7e-4, self.out_type))


def test_errors_that_add_up_are_shown_with_the_nodes_that_it_takes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Neg, "scalar", a_little_wrong)
    rows = nodes(
        ("a", "Relu", "x", "p"), ("b", "Neg", "p", "q"), ("c", "Neg", "q", "r"), ("d", "Neg", "r", "y")
    )
    save(here / "sum.onnx", rows, {"x": [4, 4]}, {"y": TensorProto.FLOAT})
    done = verify("sum.onnx", "--wafer", "4x4", "--per-node", "-o", "shown.onnx", "--json", "sum.json")
    assert done.exit_code == 8
    assert "node 'c', output 'r'" in done.stderr and "by the errors of the nodes before it" in done.stderr
    found = json.loads(Path("sum.json").read_text())["nodes"]
    assert found["first_alone"] is None and found["first_along_the_chain"]["node"] == "c"
    assert [n.name for n in onnx.load("shown.onnx").graph.node] == ["b", "c"]
    assert verify("shown.onnx", "--inputs", "shown.npz", "--wafer", "4x4").exit_code == 8


def test_errors_that_leave_the_outputs_right_are_told_and_pass(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Neg, "scalar", a_little_wrong)
    rows = nodes(("b", "Neg", "x", "q"), ("c", "Neg", "q", "r"), ("d", "Sign", "r", "y"))
    save(here / "sign.onnx", rows, {"x": [4, 4]}, {"y": TensorProto.FLOAT})
    done = verify("sign.onnx", "--wafer", "4x4", "--per-node")
    assert done.exit_code == 0 and re.search("^along the chain +c +Neg +r", done.stdout, re.M)
    assert [p.name for p in here.iterdir()] == ["sign.onnx"]


def test_a_program_that_is_wrong_although_its_nodes_are_not(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perceptron(here)
    run = Program.run

    def wrong(self: Program, *given: Any) -> dict[str, np.ndarray]:
        return {n: v + (n == "y") for n, v in run(self, *given).items()}

    monkeypatch.setattr(Program, "run", wrong)  # nodes by themselves have no names
    done = verify(*TINY)
    assert done.exit_code == 8 and "every node agrees, the whole program does not: output 'y'" in done.stderr


# -- the kinds of nodes -----------------------------------------------------------------


class Builds:
    """Makes programs and counts them; refuses the operators named."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.made = refused, list[str]()

    def __call__(self, content: bytes, bytes_held: int) -> Program:
        (node,) = onnx.load_from_string(content).graph.node
        if node.op_type in self.refused:
            raise UnsupportedModel(f"no {node.op_type} today")
        self.made.append(node.op_type)
        return compile_model(content, wafer="4x4").program


def check(path: str, build: Builds, calls: int = 1, states: Sequence[tuple[str, str]] = ()) -> Found:
    inputs = inputs_of(path, Binding())
    rng = np.random.default_rng(0)
    pasts = {past for past, _ in states}
    feeds = [
        {p.name: rng.standard_normal(p.shape).astype(p.dtype) for p in inputs.ports if p.name not in pasts}
        for _ in range(calls)
    ]
    right = golden("onnxruntime", exposed(path))
    return check_nodes(path, right, inputs, feeds, states, Rule(), build)


def test_integers_booleans_and_nan_are_compared(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = nodes(("n", "Sqrt", "x", "s"), ("b", "IsNaN", "s", "nan"), ("i", "ArgMax", "x", "at"))
    rows.append(helper.make_node("Cast", ["nan"], ["k"], "c", to=TensorProto.INT32))
    save(here / "m.onnx", rows, {"x": [3, 5]}, {"at": TensorProto.INT64, "k": TensorProto.INT32})
    found = check("m.onnx", Builds())
    assert found == Found(4, (), None, None)
    monkeypatch.setattr(np, "isnan", np.isfinite)  # the judge's own, which then takes no NaN for another
    found = check("m.onnx", Builds())
    assert found.alone and found.alone.step.name == "n" and found.chain and found.chain.step.name == "n"


def test_refused_and_drawing_nodes_are_not_checked_and_those_behind_them_are(here: Path) -> None:
    rows = nodes(
        ("a", "Relu", "x", "p"),
        ("r", "RandomNormalLike", "p", "q"),
        ("t", "Tanh", "q", "s"),
        ("e", "Exp", "s", "y"),
    )
    save(here / "m.onnx", rows, {"x": [2, 3]}, {"y": TensorProto.FLOAT})
    found = check("m.onnx", Builds("Tanh"))
    assert [(s.name, why) for s, why in found.unchecked] == [
        ("r", "it draws random numbers, each runtime its own"),
        ("t", "no Tanh today"),
    ]
    assert found.first is None


def test_nodes_of_the_host_are_checked_and_sequences_are_not(here: Path) -> None:
    rows = nodes(
        ("split", "SplitToSequence", "x", "parts"),
        ("one", "SequenceAt", "parts at", "p"),
        ("where", "NonZero", "p", "places"),
        ("sum", "ReduceSum", "p", "y"),
    )
    outputs = {"places": TensorProto.INT64, "y": TensorProto.FLOAT}
    save(here / "m.onnx", rows, {"x": [4, 3]}, outputs, {"at": np.array(1)})
    done = verify("m.onnx", "--wafer", "4x4", "--per-node")
    assert done.exit_code == 0, done.stderr
    assert "2 of 4 nodes agree" in done.stdout and "PASS: 2 outputs" in done.stdout
    assert re.search(r"^  split \(SplitToSequence\) +", done.stdout, re.M)


def test_equal_nodes_are_compiled_once(here: Path) -> None:
    rows = nodes(*((f"n{i}", "Tanh", f"t{i}", f"t{i + 1}") for i in range(5)), ("last", "Add", "t5 w", "y"))
    weights = {"w": np.ones(3, np.float32)}
    save(here / "m.onnx", rows, {"t0": [2, 3]}, {"y": TensorProto.FLOAT}, weights)
    build = Builds()
    assert check("m.onnx", build, calls=2).first is None
    assert build.made == ["Tanh", "Add"]


def test_what_folds_in_the_model_is_constant_for_its_node(here: Path) -> None:
    rows = nodes(
        ("s", "Shape", "x", "n"),
        ("g", "Gather", "n one", "m"),
        ("c", "Concat", "m minus", "to"),
        ("r", "Reshape", "x to", "y"),
    )
    rows[2].attribute.append(helper.make_attribute("axis", 0))
    weights = {"one": np.array([1]), "minus": np.array([-1])}
    save(here / "m.onnx", rows, {"x": [2, 3]}, {"y": TensorProto.FLOAT}, weights)
    assert check("m.onnx", Builds()) == Found(4, (), None, None)


def test_bodies_take_values_from_outside(here: Path) -> None:
    def body(kind: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(kind, ["h", "w"], ["z"])], kind, [], [out])

    rows = nodes(("a", "Relu", "x", "h"))
    bodies = {"then_branch": body("Add"), "else_branch": body("Mul")}
    rows.append(helper.make_node("If", ["condition"], ["y"], "choice", **bodies))
    weights = {"w": np.full(3, 2, np.float32), "condition": np.array(False)}
    save(here / "m.onnx", rows, {"x": [2, 3]}, {"y": TensorProto.FLOAT}, weights)
    assert check("m.onnx", Builds()) == Found(2, (), None, None)


def test_states_are_the_golden_runtimes_call_by_call(here: Path) -> None:
    save(
        here / "m.onnx", nodes(("add", "Add", "sum x", "y")), {"x": [4], "sum": [4]}, {"y": TensorProto.FLOAT}
    )
    assert check("m.onnx", Builds(), calls=3, states=[("sum", "y")]) == Found(1, (), None, None)


def in_files(here: Path) -> str:
    """A model whose weights lie beside it, one of them in a branch."""
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    branch = helper.make_graph(
        [helper.make_node("Add", ["p", "b"], ["s"])],
        "branch",
        [],
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(w[0], "b")],
    )
    rows = [
        helper.make_node("MatMul", ["x", "w"], ["p"], "m"),
        helper.make_node("If", ["c"], ["y"], "i", then_branch=branch, else_branch=branch),
    ]
    save(
        here / "m.onnx",
        rows,
        {"x": [2, 3]},
        {"y": TensorProto.FLOAT},
        {"w": w, "c": np.array(True)},
    )
    proto = onnx.load(here / "m.onnx")
    onnx.save(proto, here / "m.onnx", save_as_external_data=True, size_threshold=8)
    return "m.onnx"


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
@pytest.mark.parametrize("words", [(), ("--per-node",)], ids=str)
def test_large_weights_stay_in_their_files(
    here: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, words: Sequence[str]
) -> None:
    monkeypatch.setattr(external, "SMALL", 0)  # all of them are large
    held = exposed(in_files(here))
    assert list(held.large) == ["w"] and held.model.ByteSize() < 2000
    done = verify("m.onnx", "--wafer", "4x4", "--golden", runtime, *words)
    assert done.exit_code == 0 and "PASS: 1 output, 8 values" in done.stdout, done.stderr


def test_a_node_of_more_than_a_message_holds_is_not_checked(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_nodes, "MOST_HELD", 40)
    done = verify(in_files(here), "--wafer", "4x4", "--per-node")
    assert done.exit_code == 0 and "its constants of 48 bytes pass the 40 of" in " ".join(done.stdout.split())


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_a_golden_runtime_without_memory_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    def none(*_: object, **__: object) -> None:
        raise MemoryError if runtime == "reference" else RuntimeError("initialization: std::bad_alloc")

    path = "onnx.reference.ReferenceEvaluator" if runtime == "reference" else "onnxruntime.InferenceSession"
    monkeypatch.setattr(path, none)
    done = verify(in_files(here), "--wafer", "4x4", "--golden", runtime)
    assert done.exit_code == 5 and "needs more memory" in done.stderr
