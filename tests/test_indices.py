"""Indices outside their axis: of constants an error of the model, of a run the end of the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import waferc
from nodes import Case, case, flags, ints, normal
from onnx import TensorProto, helper
from waferc.ir.op import Array

KERNEL = {"kernel_shape": [2, 2], "strides": [2, 2]}
PLACES = np.array([[[[0, 2], [8, 10]], [[16, 18], [24, 26]]]])
ROIS = np.array([[0, 0, 4, 4], [1, 1, 5, 5]], np.float32)
ROI = {"opset": 16, "output_height": 2, "output_width": 2}


def placed(value: int, at: tuple[int, ...]) -> Array:
    """PLACES with another one at a position."""
    out = PLACES.copy()
    out[at] = value
    return out


# What is wrong with the operand in each; the message's words after the node's name.
OUTSIDE: list[tuple[Case, str]] = [
    (case("Gather", normal(7, 5), ints(3, 7, 0)), "index 7 is outside axis 0 of 7 elements"),
    (case("Gather", normal(7, 5), ints(3, -8, 0)), "index -8 is outside axis 0 of 7 elements"),
    (case("Gather", normal(7, 5), ints(4, 1 << 40), axis=1), f"index {1 << 40} is outside axis 1 of 5"),
    (case("Gather", normal(70, 33), ints(70)[0]), "index 70 is outside axis 0 of 70 elements"),
    (case("Gather", normal(7, 5), ints(-(1 << 63))), f"index {-(1 << 63)} is outside axis 0"),
    (case("Gather", normal(7, 5), np.array([3, 7], np.int32)), "index 7 is outside axis 0 of 7"),
    (case("Gather", flags(7, 5), ints(3, 9, 0)), "index 9 is outside axis 0 of 7 elements"),
    (
        case("GatherElements", normal(3, 4), np.array([[0, 1], [5, 0]]), axis=1),
        "index 5 is outside axis 1 of 4",
    ),
    (case("GatherND", normal(4, 6, 5), np.array([[1, 2, 3], [1, 6, 2]])), "index 6 is outside axis 1 of 6"),
    (
        case("GatherND", normal(4, 6, 5), np.full((4, 2, 1), -7), batch_dims=1),
        "index -7 is outside axis 1 of 6 elements",
    ),
    (
        case("ScatterElements", normal(7, 5), np.array([[0, 1, 2, 9, 3]]), normal(1, 5)),
        "index 9 is outside axis 0 of 7 elements",
    ),
    (  # fewer indices than the data have along another axis
        case("ScatterElements", normal(7, 5), np.array([[0, 1, 2, 9]]), normal(1, 4)),
        "index 9 is outside axis 0 of 7 elements",
    ),
    (
        case("Scatter", normal(7, 5), np.array([[0, 1, 2, -9, 3]]), normal(1, 5), opset=9),
        "index -9 is outside axis 0 of 7 elements",
    ),
    (
        case("ScatterND", normal(7, 5), np.array([[0, 1], [3, 5]]), normal(2), reduction="add"),
        "index 5 is outside axis 1 of 5 elements",
    ),
    (case("ReverseSequence", normal(7, 3, 5), ints(1, 8, 2)), "sequence length 8 is outside axis 0 of 7"),
    (case("ReverseSequence", normal(7, 3, 5), ints(1, -1, 2)), "sequence length -1 is outside axis 0 of 7"),
    (
        case("TensorScatter", normal(2, 4, 8, 3), normal(2, 4, 2, 3), ints(1, 7), opset=24),
        "write index 7 is outside axis 2 of 8 elements (allowed: 0 to 6)",
    ),
    (case("MaxUnpool", normal(1, 2, 2, 2), placed(64, (0, 1, 1, 1)), **KERNEL), "flat result 64 is outside"),
    (case("MaxUnpool", normal(1, 2, 2, 2), placed(17, (0, 0, 1, 1)), **KERNEL), "17 is outside axis 2 of 16"),
    (
        case("RoiAlign", normal(2, 3, 8, 8), ROIS, ints(0, 2), sampling_ratio=2, **ROI),
        "batch index 2 is outside axis 0 of 2 elements",
    ),
    (case("RoiAlign", normal(2, 3, 8, 8), ROIS, ints(0, -1), **ROI), "batch index -1 is outside axis 0 of 2"),
    (case("NegativeLogLikelihoodLoss", normal(3, 5), ints(1, 5, 0)), "label 5 is outside axis 1 of 5"),
    (case("NegativeLogLikelihoodLoss", normal(3, 5), ints(1, -1, 0)), "label -1 is outside axis 1 of 5"),
    (
        case("NegativeLogLikelihoodLoss", normal(3, 5), ints(1, -1, 5), ignore_index=-1),
        "label 5 is outside axis 1 of 5 elements",
    ),
    (case("SoftmaxCrossEntropyLoss", normal(3, 5), ints(1, -3, 0)), "label -3 is outside axis 1 of 5"),
    (
        case(
            "RNN",
            normal(4, 2, 3),
            normal(1, 5, 3),
            normal(1, 5, 5),
            None,
            np.array([4, 5], np.int32),
            hidden_size=5,
        ),
        "sequence length 5 is outside axis 0 of 4 elements",
    ),
]


def compiled(one: Case, **options: Any) -> waferc.Compiled:
    return waferc.compile_model(one.proto().SerializeToString(), wafer="8x8", **options)


@pytest.mark.thorough
@pytest.mark.parametrize("one, words", OUTSIDE, ids=str)
def test_a_call_ends_at_an_index_outside_whatever_way_it_runs(one: Case, words: str, tmp_path: Path) -> None:
    program = compiled(one)
    program.save(tmp_path / "p.wafer")
    texts: set[str] = set()
    saved = waferc.load(tmp_path / "p.wafer")
    for way in (program.prepared(1), program.prepared(2), program.prepared(guard=True), saved):
        for _ in range(2):  # what a call met is forgotten
            with pytest.raises(waferc.InvalidIndex) as caught:
                way.run(one.fed())
            texts.add(str(caught.value))
    assert len(texts) == 1 and "node 'it': " in (text := texts.pop()) and words in text


@pytest.mark.parametrize("one, words", OUTSIDE, ids=str)
def test_constant_indices_outside_are_errors_of_the_model(one: Case, words: str) -> None:
    positions = [i for i, x in enumerate(one.inputs) if i and x is not None and x.dtype.kind == "i"]
    for constants in (positions, [i for i, x in enumerate(one.inputs) if x is not None]):
        with pytest.raises(waferc.InvalidInput, match="node 'it'") as caught:
            compiled(replace(one, constants=constants))
        assert words in str(caught.value)


def test_the_ends_of_an_axis_are_inside_and_a_good_call_follows_a_bad_one() -> None:
    one = case("Gather", normal(7, 5), ints(-7, 6, -1, 0))
    program = compiled(one).prepared(2)
    data = one.fed()["x0"]
    for _ in range(2):
        (y,) = program.run(one.fed()).values()
        assert np.array_equal(y, data[[-7, 6, -1, 0]])
        with pytest.raises(waferc.InvalidIndex, match="index 7 is"):
            program.run({"x0": data, "x1": ints(1, 7, -8, 2)})


def test_one_hot_has_no_index_outside() -> None:
    one = case("OneHot", ints(0, 99, -1, -5), ints(4), np.array([0.5, 2.0], np.float32), constants=[1])
    expected = np.full((4, 4), 0.5, np.float32)
    expected[0, 0] = expected[2, 3] = 2
    (y,) = compiled(one).run(one.fed()).values()
    assert np.array_equal(y, expected)


def test_an_axis_of_nothing_takes_no_index() -> None:
    with pytest.raises(waferc.InvalidInput, match=r"node 'it' .*axis 0, which has 0 elements"):
        compiled(case("Gather", normal(0, 5), ints(0)))
    one = case("Gather", normal(0, 5), np.zeros(0, np.int64))
    (y,) = compiled(one).run(one.fed()).values()
    assert y.shape == (0, 5)


def test_the_first_of_two_nodes_is_named_by_its_own_name() -> None:
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["a"], "words 'of'\nan embedding", axis=0),
        helper.make_node("Gather", ["a", "j"], ["y"], "second", axis=1),
    ]
    proto = model_of(nodes, {"x": normal(6, 4), "i": ints(1, 2), "j": ints(1, 2, 3)}, (2, 3))
    program = waferc.compile_model(proto.SerializeToString(), wafer="8x8")
    for guard in (False, True):
        way = program.prepared(guard=guard)
        with pytest.raises(waferc.InvalidIndex) as caught:
            way.run({"x": normal(6, 4), "i": ints(1, 6), "j": ints(1, 2, 3)})
        assert "an embedding" in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(waferc.InvalidIndex, match="node 'second': index 4 is outside axis 1 of 4"):
            way.run({"x": normal(6, 4), "i": ints(1, 5), "j": ints(1, 2, 4)})


def model_of(
    nodes: list[onnx.NodeProto], inputs: Mapping[str, Array], shape: tuple[int, ...]
) -> onnx.ModelProto:
    """Nodes on inputs; the output is y, of f32."""
    values = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in inputs.items()
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", values, [y])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 21)])


# -- on the host ------------------------------------------------------------------------------
def sequence(op_type: str) -> onnx.ModelProto:
    """An operator on the sequence of a and b, and a position i; what is left is joined."""
    last = "y" if op_type == "SequenceAt" else "t"
    given = ["s", "a", "i"] if op_type == "SequenceInsert" else ["s", "i"]
    nodes = [
        helper.make_node("SequenceConstruct", ["a", "b"], ["s"]),
        helper.make_node(op_type, given, [last], "it"),
    ]
    if last == "t":
        nodes.append(helper.make_node("ConcatFromSequence", ["t"], ["y"], axis=0))
    size = {"SequenceAt": 2, "SequenceErase": 2, "SequenceInsert": 6}[op_type]
    return model_of(nodes, {"a": normal(2), "b": normal(2), "i": ints(0)[0]}, (size,))


@pytest.mark.parametrize("op_type", ["SequenceAt", "SequenceErase", "SequenceInsert"])
@pytest.mark.parametrize("position", range(-3, 4))
def test_positions_in_sequences(op_type: str, position: int) -> None:
    """From either end; an insertion may be after the last."""
    rows = [np.array([1, 2], np.float32), np.array([3, 4], np.float32)]
    program = waferc.compile_model(sequence(op_type).SerializeToString(), wafer="8x8").prepared()
    given = {"a": rows[0], "b": rows[1], "i": ints(position)[0]}
    if not -2 <= position <= (2 if op_type == "SequenceInsert" else 1):
        with pytest.raises(
            waferc.InvalidIndex, match=f"'it': position {position} is outside .* of 2 elements"
        ):
            program.run(given)
        return
    at = position + 2 if position < 0 else position
    left = {
        "SequenceAt": rows[at : at + 1],
        "SequenceErase": rows[:at] + rows[at + 1 :],
        "SequenceInsert": [*rows[:at], rows[0], *rows[at:]],
    }[op_type]
    assert np.array_equal(program.run(given)["y"], np.concatenate(left))


def strings(op_type: str, constant: bool, index: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """An operator on three strings at two indices."""
    nd = op_type.endswith("ND")
    indices = ints(1, index).reshape((2, 1) if nd else (2,))
    words = np.array(["a", "b", "c"], object)
    values = {"s": words, **({} if constant else {"i": indices})}
    kinds = {"s": TensorProto.STRING, "i": TensorProto.INT64, "u": TensorProto.STRING}
    if op_type.startswith("Scatter"):
        values["u"] = words[:2]
    size = 3 if op_type.startswith("Scatter") else 2
    node = helper.make_node(op_type, ["s", "i", "u"] if "u" in values else ["s", "i"], ["y"], "it")
    ends = [helper.make_tensor_value_info(n, kinds[n], v.shape) for n, v in values.items()]
    held = [onnx.numpy_helper.from_array(indices, "i")] if constant else []
    y = helper.make_tensor_value_info("y", TensorProto.STRING, [size])
    graph = helper.make_graph([node], "g", ends, [y], held)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 21)]), values


@pytest.mark.parametrize("op_type", ["Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"])
def test_indices_into_strings(op_type: str) -> None:
    for index, wrong in ((-3, False), (2, False), (3, True), (-4, True)):
        proto, values = strings(op_type, False, index)
        program = waferc.compile_model(proto.SerializeToString(), wafer="8x8").prepared()
        fixed, _ = strings(op_type, True, index)
        if wrong:
            words = f"index {index} is outside axis 0 of 3 elements"
            with pytest.raises(waferc.InvalidIndex, match=f"node 'it': {words}"):
                program.run(values)
            with pytest.raises(waferc.InvalidInput, match=rf"node 'it' \({op_type}\): {words}"):
                waferc.compile_model(fixed.SerializeToString(), wafer="8x8")
            continue
        y = program.run(values)["y"].tolist()
        expected = ["a", "b", "c"]
        if op_type.startswith("Scatter"):
            expected[1], expected[index] = "a", "b"
            assert y == expected
        else:
            assert y == ["b", expected[index]]


# -- on the command line ----------------------------------------------------------------------
def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner
    from waferc.compiler.cli.main import main as command

    monkeypatch.chdir(tmp_path)
    one = case("Gather", normal(7, 5), ints(3, 7, 0))
    onnx.save(one.proto(), "m.onnx")
    onnx.save(replace(one, constants=[1]).proto(), "constant.onnx")
    np.savez("in.npz", **one.fed())
    run = CliRunner().invoke
    assert run(command, ["compile", "constant.onnx", "--wafer", "8x8", "-o", "c.wafer"]).exit_code == 3
    assert not Path("c.wafer").exists()
    assert run(command, ["compile", "m.onnx", "--wafer", "8x8", "-o", "m.wafer"]).exit_code == 0
    for more in ([], ["--guard"], ["--threads", "1"]):
        result = run(command, ["run", "m.wafer", "--inputs", "in.npz", "-o", "out.npz", *more])
        assert result.exit_code == 3 and not Path("out.npz").exists()
        assert "node 'it': index 7 is outside axis 0 of 7 elements (allowed: -7 to 6)" in result.stderr
    assert run(command, ["verify", "m.onnx", "--wafer", "8x8", "--inputs", "in.npz"]).exit_code == 3
