"""Plans of models whose weights are shapes only: the same as with them, shown but not run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from waferc import compile_model
from waferc.codegen.artifact.artifact import read
from waferc.compiler.cli.main import main
from waferc.compiler.errors import UnsupportedModel, UnsupportedOperator, UsageError
from waferc.ir.absent import Absent, ValuesNeeded, absent

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import generate

RNG = np.random.default_rng(0)
SMALL = generate.Decoder("small", 2, 64, 96, 4, 2, 128, head=16)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape, np.float32)


def write(folder: Path, nodes: list, inputs: dict, outputs: dict, weights: dict, data: bool = True) -> Path:
    """A model whose tensors of 512 bytes and more lie in another file; without `data`, in one that is gone.

    inputs and outputs: name -> shape, floats (an input called "i": integers).
    """

    def infos(shapes: dict) -> list:
        kinds = {"i": TensorProto.INT64}
        return [
            helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()
        ]

    tensors = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "m", infos(inputs), infos(outputs), tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    external_data_helper.convert_model_to_external_data(model, location="data.bin", size_threshold=512)
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    onnx.save(model, str(path))
    if not data:
        (folder / "data.bin").unlink()
    return path


CASES = {
    "layers": (
        [
            helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "wt"], ["h"]),
            helper.make_node("LayerNormalization", ["h", "g", "b"], ["n"]),
            helper.make_node("Gemm", ["n", "v", "b"], ["y"], alpha=0.5, transB=1),
        ],
        {"x": (8, 128)},
        {"y": (8, 256)},
        {"w": normal(256, 128), "v": normal(256, 256), "g": normal(256), "b": normal(256)},
    ),
    "conv": (
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["c", "g", "b", "b", "g"], ["n"]),
            helper.make_node("Relu", ["n"], ["y"]),
        ],
        {"x": (1, 8, 16, 16)},
        {"y": (1, 256, 16, 16)},
        {"w": normal(256, 8, 3, 3), "g": np.abs(normal(256)), "b": normal(256)},
    ),
    # One table looked up and multiplied with: kept once, although nobody can compare values.
    "tied": (
        [
            helper.make_node("Gather", ["table", "i"], ["h"]),
            helper.make_node("Gemm", ["h", "table"], ["y"], transB=1),
        ],
        {"i": (4,)},
        {"y": (4, 4096)},
        {"table": normal(4096, 64)},
    ),
    "bits": (
        [
            helper.make_node(
                "MatMulNBits", ["x", "w", "s", "z"], ["y"], domain="com.microsoft", K=128, N=64, block_size=32
            )
        ],
        {"x": (2, 128)},
        {"y": (2, 64)},
        {
            "w": RNG.integers(0, 256, (64, 4, 16)).astype(np.uint8),
            "s": normal(64, 4),
            "z": RNG.integers(0, 256, (64, 2)).astype(np.uint8),
        },
    ),
}


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "int8", "int4"])
@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_that_of_the_model_with_weights(name: str, kind: str, tmp_path: Path) -> None:
    full, gone = (write(tmp_path / str(d), *CASES[name], data=d) for d in (True, False))
    a = compile_model(full, wafer="16x16", weights=kind, until="plan")
    b = compile_model(gone, wafer="16x16", weights=kind, until="plan", no_weights=True)
    assert a.placement() == b.placement() and a.timing.cycles == b.timing.cycles
    assert a.graph.tensors == b.graph.tensors and any(
        isinstance(v, Absent) for v in b.graph.constants.values()
    )


def test_data_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, *CASES["tied"])
    compiled = compile_model(path, wafer="16x16", until="plan", no_weights=True)
    assert all(isinstance(v, Absent) for v in compiled.graph.constants.values())


def test_values_that_decide_shapes_are_asked_for(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "sizes"], ["y"])]
    sizes = np.ones(100, np.int64)
    path = write(tmp_path, nodes, {"x": (1,)}, {"y": [1] * 100}, {"sizes": sizes}, data=False)
    with pytest.raises(UnsupportedModel, match="values of 'sizes' are needed"):
        compile_model(path, wafer="8x8", until="plan", no_weights=True)


def test_without_weights_there_is_no_program(tmp_path: Path) -> None:
    path = write(tmp_path, *CASES["tied"], data=False)
    with pytest.raises(UsageError, match="no program"):
        compile_model(path, wafer="16x16", no_weights=True)


def test_an_absent_array_has_a_shape_and_no_values() -> None:
    a = absent("w", (3, 4), np.dtype(np.float32))
    assert isinstance(a, Absent)
    assert a.T.shape == (4, 3) and a == a.T.T and a != a.T
    assert a.reshape((12,)).shape == (12,) and a.astype(np.float16).nbytes == 24
    assert a.T.reshape((12,)) != a.reshape((12,))
    for use in (np.asarray, np.sum, lambda v: v[0], lambda v: v.item()):
        with pytest.raises(ValuesNeeded, match="'w'"):
            use(a)


@pytest.mark.parametrize("asked", ["ravel", "tolist", "min", "flat", "any"])
def test_whatever_asks_an_absent_array_for_values_is_told(asked: str) -> None:
    lack = absent("w", (2, 3), np.dtype(np.int64))
    assert lack.reshape(-1).shape == (6,)
    with pytest.raises(ValuesNeeded, match="'w' are needed"):
        getattr(lack, asked)


@pytest.mark.parametrize(
    "use", [bool, int, float, len, list, round, index, lambda a: 2 in a, lambda a: a + 1, lambda a: a > 0]
)
def test_python_s_own_questions_are_answered_so_too(use: Callable[[Any], object]) -> None:
    with pytest.raises(ValuesNeeded, match="'w' are needed"):
        use(absent("w", (), np.dtype(np.int64)))


@pytest.mark.parametrize("name", ["trips", "on"])
def test_a_loop_by_a_constant_without_values_is_refused(tmp_path: Path, name: str) -> None:
    """The number of its iterations, and whether it begins."""
    kind = TensorProto.INT64 if name == "trips" else TensorProto.BOOL
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("a", "b", "x", "y")]
    ends = [helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("go", "gone")]
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    steps = [helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Identity", ["go"], ["gone"])]
    body = helper.make_graph(steps, "body", [count, ends[0], value[0]], [ends[1], value[1]])
    loop = helper.make_node("Loop", ["trips", "on", "x"], ["y"], body=body)
    held = [numpy_helper.from_array(np.array(v), n) for n, v in (("trips", 3), ("on", True)) if n != name]
    held.append(TensorProto(name=name, data_type=kind, data_location=TensorProto.EXTERNAL))
    held[-1].external_data.add(key="location", value="none.bin")
    graph = helper.make_graph([loop], "g", [value[2]], [value[3]], held)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UnsupportedOperator, match=f"the values of '{name}' are needed"):
        compile_model(tmp_path / "m.onnx", wafer="4x4", no_weights=True, until="plan")


@pytest.mark.thorough
def test_a_decoder_of_shapes_is_planned_and_shown(tmp_path: Path) -> None:
    whole = generate.decode(SMALL, 8).SerializeToString()
    path = tmp_path / "decode.onnx"
    path.write_bytes(generate.decode(SMALL, 8, shapes_only=True).SerializeToString())
    plan, picture, page = (str(tmp_path / n) for n in ("d.plan", "d.png", "d.html"))

    def waferc(*words: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, words, prog_name="waferc")

    options = ("--wafer", "32x32", "--weights", "bf16", "--no-weights")
    made = waferc("compile", str(path), "-o", plan, *options, "--compile-to", "plan")
    assert made.exit_code == 0, made.output
    for words in (["inspect", plan], ["heatmap", plan, "-o", picture], ["report", plan, "-o", page]):
        assert waferc(*words).exit_code == 0
    assert waferc("run", plan, "--random", "0").exit_code == 7
    refused = waferc("compile", str(path), "-o", str(tmp_path / "d.wafer"), *options)
    assert refused.exit_code == 2 and not (tmp_path / "d.wafer").exists()
    placement = read(plan).json("main/placement.json")
    same = compile_model(whole, wafer="32x32", weights="bf16", until="plan")
    assert placement["regions"] == same.placement()["regions"]


def test_files_of_shapes_are_small() -> None:
    d = replace(SMALL, layers=32, width=4096, hidden=14_336, heads=32, kv_heads=8, head=128)
    assert len(generate.decode(d, 2048, shapes_only=True).SerializeToString()) < 200_000
