"""A small fixed part of ONNX's own tests, and whether the count of all of them can be trusted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import Row, accept, behind, judge, lost, refusals, run, totals
from onnx import ModelProto, TensorProto, helper
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt
from single import model
from suite import groups_of, in_shard
from supervised import Died, each
from waferc.compiler.errors import UsageError
from waferc.compiler.onnx_backend import WaferBackend

X = np.array([-1.0, 2.0], np.float32)


@pytest.mark.thorough
def test_a_small_part_of_the_suite(tmp_path: Path) -> None:
    """Nothing wrong, no crash, no pass of the committed list lost."""
    script, output = Path(__file__).with_name("conformance.py"), tmp_path / "part.json"
    command = [sys.executable, script, "--shard", "0.008", "--workers", "1", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(output.read_text())["totals"]
    assert 8 < counts["all"]["tests"] < 30
    assert counts["all"]["pass"] >= 6
    assert (
        sum(counts["all"][status] for status in ("pass", "refused", "not comparable"))
        == (counts["all"]["tests"])
    )


def case(op_type: str, expected: Any, name: str = "test_planted", inputs: Any = None, **own: Any) -> TestCase:
    """A node test of one input, X, and what it says the output is. own: the node's attributes."""
    proto = model(op_type, [X], **own)
    data = [([X] if inputs is None else inputs, [expected])]
    return TestCase(name, name, None, None, proto, data, "node", 1e-3, 1e-7)


# -- one test is counted as what it is ------------------------------------------------------
def test_a_right_answer_passes_on_the_wafer() -> None:
    row = judge(case("Relu", np.maximum(X, 0)))
    assert (row.status, row.where, row.max_abs, row.refusals) == ("pass", "wafer", 0.0, ())
    assert row.groups == ("node", "plain")


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        (np.array([0, 2.1], np.float32), "Mismatched elements: 1 / 2"),
        (np.array([0, 2, 0], np.float32), "incorrect shape"),
        (np.array([0, 2], np.float64), "float32"),
        (np.array([0, np.nan], np.float32), "nan"),
        ([np.array([0, 2], np.float32)], "instead of list"),
    ],
    ids=["value", "shape", "type", "nan", "sequence"],
)
def test_a_wrong_answer_is_wrong(expected: Any, says: str) -> None:
    row = judge(case("Relu", expected))
    assert row.status == "wrong"
    assert says in row.detail
    if says.startswith("Mismatched"):
        assert row.max_abs == pytest.approx(0.1, rel=1e-5)
        assert row.max_rel == pytest.approx(0.1 / 2.1, rel=1e-5)


@pytest.mark.parametrize(("expected", "status"), [([1, 99], "pass"), ([2, 7], "wrong")])
def test_a_float_that_its_integer_type_does_not_hold_may_be_any(expected: list[int], status: str) -> None:
    given = np.array([1.5, 1000], np.float32)
    planted = case("Cast", np.array(expected, np.int8), inputs=[given], to=TensorProto.INT8)
    assert judge(planted).status == status


def test_a_sequence_that_is_too_short_is_wrong() -> None:
    """The suite's own comparison looks at what there is only."""

    class Short(Planted):
        gives = ([],)

    row = judge(case("Relu", [X]), Short)
    assert (row.status, row.detail) == ("wrong", "0 values instead of 1")


def test_a_refusal_names_operator_and_reason() -> None:
    planted = case("Relu", X)
    assert planted.model is not None
    planted.model.graph.node[0].domain = "com.example"
    planted.model.opset_import.append(helper.make_opsetid("com.example", 1))
    row = judge(planted)
    assert (row.status, row.where) == ("refused", "")
    assert row.refusals == (("com.example.Relu", "domain 'com.example' is not known"),)


def test_a_type_that_no_core_stores_passes_on_the_host() -> None:
    planted = case("Identity", X.astype(np.complex64), inputs=[X.astype(np.complex64)])
    assert planted.model is not None
    for value in (*planted.model.graph.input, *planted.model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.COMPLEX64
    row = judge(planted)
    assert (row.status, row.where) == ("pass", "host")


class Planted(Backend):
    """A backend that raises, or gives."""

    raises: Exception | None = None
    gives: Sequence[Any] = ()

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> BackendRep:
        if cls.raises:
            raise cls.raises

        class Rep(BackendRep):
            runs_on = "host"

            def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
                return tuple(cls.gives)

        return Rep()


def test_what_is_no_refusal_is_a_crash() -> None:
    """onnx's ways to skip a test too, which its own runner takes for passes."""

    class Failing(Planted):
        raises = ZeroDivisionError("oh")

    class Skipping(Planted):
        raises = BackendIsNotSupposedToImplementIt("not me")

    row = judge(case("Relu", X), Failing)
    assert row.status == "crashed"
    assert row.detail.startswith("ZeroDivisionError: oh (test_conformance.py:")
    assert judge(case("Relu", X), Skipping).status == "crashed"
    assert judge(case("Relu", X, inputs=[])).status == "crashed"
    empty = case("Relu", X)
    empty.data_sets = []
    assert judge(empty).status == "crashed"


@pytest.mark.parametrize(
    ("given", "status"), [([0, 1], "not comparable"), ([0, 2], "wrong"), ([0, 1, 1], "wrong")], ids=str
)
def test_one_draw_of_another_generator_is_not_compared(given: list[int], status: str) -> None:
    class Drawn(Planted):
        gives = (np.array(given, np.float32),)

    row = judge(case("Relu", np.ones(2, np.float32), "test_bernoulli_planted"), Drawn)
    assert (row.status, row.where) == (status, "host")


# -- processes ------------------------------------------------------------------------------
def treat(what: str) -> str:
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "hang":
        time.sleep(60)
    return what.upper()


def test_a_process_that_dies_or_hangs_takes_its_own_item_only() -> None:
    items = ["a", "die", "b", "exit", "hang", "c", "d"]
    results = dict(each(treat, items, workers=2, timeout=1.0))
    assert {k: v for k, v in results.items() if isinstance(v, str)} == dict(zip("abcd", "ABCD", strict=True))
    died = {k: v.how for k, v in results.items() if isinstance(v, Died)}
    assert died == {
        "die": "killed by SIGKILL",
        "exit": "the process ended with code 3",
        "hang": "no end after 1 s",
    }


def fall(one: TestCase) -> Row:
    if one.name == "test_b":
        os.kill(os.getpid(), signal.SIGKILL)
    return Row(one.name, ("node",), "pass", "wafer")


def test_the_death_of_a_process_is_a_crash_of_its_test() -> None:
    cases = [case("Relu", X, f"test_{letter}") for letter in "cba"]
    rows = run(cases, workers=1, work=fall)
    assert [(r.name, r.status) for r in rows] == [
        ("test_a", "pass"),
        ("test_b", "crashed"),
        ("test_c", "pass"),
    ]
    assert rows[1].detail == "killed by SIGKILL"
    assert rows[1].groups == ("node", "plain")


# -- counting -------------------------------------------------------------------------------
ROWS = [
    Row("test_a", ("node", "plain"), "pass", "wafer"),
    Row("test_a_expanded", ("node", "expanded"), "refused", "", (("F", "'x' is odd"), ("G", "no"))),
    Row("test_b", ("node",), "pass", "host"),
    Row("test_b_expanded_ver18", ("node", "expanded"), "refused", "", (("F", "'y' is odd"),)),
    Row("test_c", ("node", "plain"), "wrong", "wafer"),
    Row("test_c_expanded", ("node", "expanded"), "crashed"),
]


def test_totals_keep_the_statuses_apart() -> None:
    counts = totals(ROWS)
    assert list(counts["all"].values()) == [6, 2, 2, 1, 1, 0, 1]
    assert list(counts["plain"].values()) == [2, 1, 0, 1, 0, 0, 1]
    assert counts["expanded"]["refused"] == 2


def test_refusals_are_counted_by_operator_and_reason() -> None:
    assert refusals(ROWS) == [(2, "F", "'...' is odd"), (1, "G", "no")]


def test_a_loss_is_found_and_an_accepted_list_keeps_what_did_not_run() -> None:
    accepted = ["test_a", "test_c", "test_elsewhere"]
    assert lost(ROWS, accepted) == ["test_c"]
    assert accept(ROWS, accepted) == ["test_a", "test_b", "test_elsewhere"]
    assert behind(ROWS) == ["test_a_expanded", "test_b_expanded_ver18"]


def test_a_shard_is_the_same_part_everywhere() -> None:
    names = [f"test_{i}" for i in range(2000)]
    tenth = [n for n in names if in_shard(n, 0.1)]
    assert 150 < len(tenth) < 250
    assert tenth[:3] == ["test_8", "test_12", "test_14"]
    assert [n for n in names if in_shard(n, 1.0)] == names


def test_plain_tests_are_of_the_usual_types_without_control_flow() -> None:
    def groups(one: TestCase) -> list[str]:
        assert one.model is not None
        return groups_of(one, one.model)

    assert groups(case("Relu", X)) == ["node", "plain"]
    assert groups(case("Relu", X, "test_relu_expanded_ver18")) == ["node", "expanded"]
    half = case("Relu", X)
    assert half.model is not None
    half.model.graph.input[0].type.tensor_type.elem_type = 10
    assert groups(half) == ["node"]


# -- the backend ----------------------------------------------------------------------------
def test_the_backend_binds_open_shapes_when_it_runs() -> None:
    proto = model("Relu", [X])
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[0].Clear()
    dims[0].dim_param = "n"
    program = WaferBackend.prepare(proto)
    for n in (1, 5, 0):
        x = np.linspace(-1, 1, n, dtype=np.float32)
        (y,) = program.run([x])
        np.testing.assert_array_equal(y, np.maximum(x, 0))
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_the_backend_runs_one_node() -> None:
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    x, high = np.array([-3, 9], np.float32), np.array(4, np.float32)
    (y,) = WaferBackend.run_node(node, [x, high])
    assert y.tolist() == [-3, 4]
    split = helper.make_node("Split", ["x"], ["a", "b"], axis=0)
    first, second = WaferBackend.run_node(split, [x], opset_version=11)
    assert (first.tolist(), second.tolist()) == ([-3], [9])


def test_the_backend_moves_to_a_larger_wafer_when_it_must() -> None:
    weights = np.ones((1024, 1024), np.float32)  # 4 MiB, more than 8x8 cores have
    program = WaferBackend.prepare(model("MatMul", [weights[:1], weights], constants=[1]))
    assert program.run({"x0": weights[:1]})[0].tolist() == [[1024.0] * 1024]


@pytest.mark.parametrize(
    ("device", "inputs", "says"),
    [
        ("CUDA:0", [X], "there is CPU only"),
        ("CPU", [X, X], "2 inputs given, the model takes 1"),
        ("CPU", {"y": X}, "input 'x0' is missing"),
    ],
    ids=["device", "count", "name"],
)
def test_the_backend_says_what_is_wrong(device: str, inputs: Any, says: str) -> None:
    assert WaferBackend.supports_device(device) == (device == "CPU")
    with pytest.raises(UsageError, match=says):
        WaferBackend.prepare(model("Relu", [X]), device).run(inputs)
