"""Values of inputs that are known when compiling: what they become, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_cli import good, same_as_golden, waferc
from waferc import compile_model
from waferc.compiler.errors import InputUnbound, UsageError
from waferc.compiler.onnx_backend import WaferBackend
from waferc.compiler.survey import survey
from waferc.runtime.load import load
from waferc.runtime.program import InputError

X = np.arange(6, dtype=np.float32).reshape(2, 3)
HOSTILE = "a=\n\x1b[31m"


def summed(name: str = "axes", length: Any = 1) -> onnx.ModelProto:
    """y = ReduceSum(x[2, 3], axes)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    axes = helper.make_tensor_value_info(name, TensorProto.INT64, [length])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])
    graph = helper.make_graph([helper.make_node("ReduceSum", ["x", name], ["y"], "sum")], "g", [x, axes], [y])
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])


def compiled(values: Any, model: onnx.ModelProto | None = None) -> Any:
    return compile_model((model or summed()).SerializeToString(), wafer="4x4", values=values)


@pytest.mark.parametrize("axes", [[1], [-1], np.array([1])])
def test_a_bound_input_is_a_constant(axes: Any) -> None:
    made = compiled({"axes": axes})
    assert [p.name for p in made.program.ports.inputs] == ["x"]
    assert made.run({"x": X})["y"].tolist() == [[3], [12]]
    assert made.manifest["values"] == {"axes": list(axes)}


def test_a_run_may_give_a_bound_input_as_it_is(tmp_path: Path) -> None:
    made = compiled({"axes": [0]})
    made.save(tmp_path / "p.wafer")
    for program in (made.program, load(tmp_path / "p.wafer"), load(tmp_path / "p.wafer", guard=True)):
        for more in ({}, {"axes": np.array([0])}):
            assert program.run({"x": X, **more})["y"].tolist() == [[3, 5, 7]]
        for other in (np.array([1]), np.array([0], np.int32), np.array(0)):
            with pytest.raises(InputError, match=r"'axes' is int64\[1\] 0 in this program, not int") as e:
                program.run({"x": X, "axes": other})
            assert "\n" not in str(e.value)


def test_an_open_dimension_is_learnt_from_the_value() -> None:
    model = summed(length="n")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "m"
    made = compile_model(model.SerializeToString(), wafer="4x4", dims={"m": 2}, values={"axes": [0, 1]})
    assert made.run({"x": X[:, :2]})["y"].tolist() == [[0 + 1 + 3 + 4]]


def test_what_asks_for_a_value_names_the_input() -> None:
    with pytest.raises(InputUnbound) as e:
        compiled({})
    assert e.value.inputs == ("axes",) and e.value.exit_code == 3
    assert str(e.value) == ("ReduceSum, first at node 'sum': needs --value axes=...: axes depends on it")
    with pytest.raises(InputUnbound) as e:
        compiled({}, summed(HOSTILE))
    assert e.value.inputs == (HOSTILE,) and str(e.value).isprintable()
    assert [(r.status, r.reason) for r in survey(summed())] == [
        ("unbound", "needs --value axes=...: axes depends on it")
    ]


def test_a_function_asks_for_what_its_body_computes_from_inputs() -> None:
    node = helper.make_node("HannWindow", ["size"], ["y"])
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    graph = helper.make_graph([node], "g", [size], [y])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(InputUnbound, match="Range: needs --value size=") as e:
        compiled({}, model)
    assert e.value.inputs == ("size",)
    assert compiled({"size": 5}, model).run({})["y"].shape == (5,)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"axis": [0]}, "--value 'axis': no such input; the inputs are 'x', 'axes'"),
        ({"axes": [0, 1]}, r"--value axes: its shape is \[2\]: the model says 1, not 2"),
        ({"axes": 0}, r"--value axes: its shape is \[\]: the input has 1 dimensions"),
        ({"axes": [0.5]}, r"--value axes: \[0.5\] is no tensor of int64"),
        ({"axes": [True]}, "is no tensor of int64"),
        ({"axes": ["0"]}, "is no tensor of int64"),
        ({"axes": [[0], [0, 1]]}, "is no tensor of int64"),
        ({"axes": [1 << 70]}, "is no tensor of int64"),
        ({"axes": {"a": 1}}, "is no tensor of int64"),
        ({"axes": None}, "is no tensor of int64"),
        ({"axes": np.array([0], np.int32)}, "--value axes: type int32, the input has int64"),
    ],
)
def test_values_that_do_not_suit_the_model(values: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        compiled(values)


def test_the_backend_binds_what_is_asked_for_and_no_more() -> None:
    program = WaferBackend.prepare(summed())
    for axis, want in ((1, [[3], [12]]), (0, [[3, 5, 7]]), (1, [[3], [12]])):
        (y,) = program.run([X, np.array([axis])])
        assert y.tolist() == want
    assert len(program._compiled) == 2


# -- the command line -------------------------------------------------------------------


@pytest.fixture
def here(here: Path) -> Path:
    (here / "sum.onnx").write_bytes(summed().SerializeToString())
    np.save(here / "zero.npy", np.array([0]))
    np.save(here / "one.npy", np.array([1]))
    np.save(here / "short.npy", np.array([1], np.int16))
    return here


SUM = ("sum.onnx", "--wafer", "4x4")
ERRORS: list[tuple[int, tuple[str, ...]]] = [
    (2, ("compile", *SUM, "--value", "axis=[0]", "-o", "o")),
    (2, ("compile", *SUM, "--value", "axes=[0,1]", "-o", "o")),
    (2, ("compile", *SUM, "--value", "axes=[0.5]", "-o", "o")),
    (2, ("compile", *SUM, "--value", "axes=[0", "-o", "o")),
    (2, ("compile", *SUM, "--value", "axes=" + "[" * 99999, "-o", "o")),
    (2, ("compile", *SUM, "--value", "axes=short.npy", "-o", "o")),
    (2, ("compile", *SUM, "--value", "axes=[0]", "--value", "axes=[1]", "-o", "o")),
    (2, ("run", "sum.wafer", "--random", "0", "--input", "axes=one.npy")),
    (3, ("compile", *SUM, "-o", "o")),
    (6, ("compile", *SUM, "--value", "axes=none.npy", "-o", "o")),
]


def test_every_error_is_one_line(here: Path) -> None:
    good("compile", *SUM, "--value", "axes=[0]", "-o", "sum.wafer")
    lines: list[str] = []
    for code, words in ERRORS:
        done = waferc(*words)
        assert done.exit_code == code, (words, done.stderr)
        assert done.stderr.startswith("waferc: error: ") and done.stderr.count("\n") == 1, done.stderr
        shown = " ".join(w if len(w) < 99 else w[:20] + "..." for w in words)
        lines += [f"$ waferc {shown}", done.stderr.rstrip("\n"), f"exit {code}", ""]
    same_as_golden("value_errors.txt", "\n".join(lines))
    assert not (here / "o").exists()


def test_values_from_files_and_json_make_the_same_program(here: Path) -> None:
    for value, output in (("[0]", "a.wafer"), ("zero.npy", "b.wafer")):
        good("compile", *SUM, "--value", f"axes={value}", "-o", output)
    assert (here / "a.wafer").read_bytes() == (here / "b.wafer").read_bytes()
    good("run", "a.wafer", "--random", "0", "--input", "axes=zero.npy")


def test_check_and_verify_take_values(here: Path) -> None:
    asked = waferc("check", *SUM)
    assert asked.exit_code == 3 and "unbound  needs --value axes=...: axes depends on it" in asked.stdout
    good("check", *SUM, "--value", "axes=[0]", "--json", "check.json")
    assert json.loads((here / "check.json").read_text())["fits"]
    for golden in ("onnxruntime", "reference"):
        assert "PASS" in good("verify", *SUM, "--value", "axes=[0]", "--golden", golden)
    good("compile", *SUM, "--value", "axes=[0]", "-o", "sum.wafer")
    assert "PASS" in good("verify", "sum.onnx", "--program", "sum.wafer")
