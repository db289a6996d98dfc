"""Models of types that cores only store: from a file to results, and through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from waferc.compiler.cli.main import main
from waferc.compiler.pipeline import compile_model
from waferc.ir import dtypes
from waferc.ir.op import Array
from waferc.runtime.load import load

RANDOM = np.random.default_rng(8)


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def network(dtype: int) -> onnx.ModelProto:
    """A convolution, a normalisation, a reduction and a product, in one float type."""
    random = np.random.default_rng(5)
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "g": (8,), "m": (8, 10)}
    constants = [
        numpy_helper.from_array(random.standard_normal(s).astype(dtypes.BF16.numpy).astype(kind), n)
        for n, s in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Gelu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("LayerNormalization", ["f", "g"], ["n"]),
        helper.make_node("MatMul", ["n", "m"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", dtype, (2, 3, 9, 9))
    y = helper.make_tensor_value_info("y", dtype, (2, 10))
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.thorough
def test_a_network_in_bf16(tmp_path: Path) -> None:
    """Near to itself in f32; saved and loaded, guarded and not, the same bits."""
    x = normal(2, 3, 9, 9).astype(dtypes.BF16.numpy)
    wide = compile_model(network(TensorProto.FLOAT).SerializeToString(), wafer="16x16")
    exact = wide.run({"x": x.astype(np.float32)})["y"]
    narrow = compile_model(network(TensorProto.BFLOAT16).SerializeToString(), wafer="16x16")
    y = narrow.run({"x": x})["y"]
    assert y.dtype == dtypes.BF16.numpy
    np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.03)
    path = tmp_path / "network.wafer"
    narrow.save(path)
    for guard in (False, True):
        assert load(path, guard=guard).run({"x": x})["y"].tobytes() == y.tobytes()


FAMILIES: list[tuple[str, list[Array], dict[str, Any]]] = [
    ("TopK", [normal(3, 20), np.array([4])], {}),
    ("CumSum", [normal(3, 20), np.array(1)], {}),
    ("LSTM", [normal(4, 2, 3), normal(1, 20, 3), normal(1, 20, 5)], {"hidden_size": 5}),
    ("ScatterND", [normal(6, 4), np.array([[1], [3]]), normal(2, 4)], {"reduction": "add"}),
    ("AveragePool", [normal(1, 2, 8, 8)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [normal(1, 2, 8, 8)], {"kernel_shape": [3, 3]}),
    ("ConvTranspose", [normal(1, 3, 5, 5), normal(3, 2, 3, 3)], {"strides": [2, 2]}),
    ("InstanceNormalization", [normal(2, 3, 9), normal(3), normal(3)], {}),
    ("ReduceLogSumExp", [normal(3, 9)], {}),
    ("ReduceProd", [normal(3, 9)], {}),
    ("Mod", [normal(3, 9), normal(3, 9)], {"fmod": 1}),
    ("Tan", [normal(3, 9)], {}),
    ("LogSoftmax", [normal(3, 9)], {}),
    ("Einsum", [normal(3, 4), normal(4, 5), normal(5, 2)], {"equation": "ab,bc,cd->ad"}),
    ("GridSample", [normal(1, 2, 5, 5), normal(1, 3, 3, 2)], {}),
    ("Pad", [normal(3, 9), np.array([1, 1, 1, 1])], {}),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("op_type", "inputs", "attributes"), FAMILIES, ids=[f[0] for f in FAMILIES])
def test_every_family_takes_bf16(op_type: str, inputs: list[Array], attributes: dict[str, Any]) -> None:
    """Near to the same in f32, where inputs are equal."""
    given = [x.astype(dtypes.BF16.numpy) if x.dtype == np.float32 else x for x in inputs]

    def first(arrays: list[Array]) -> Array:
        names = [f"x{i}" for i in range(len(arrays))]
        infos, fixed = [], []
        for name, x in zip(names, arrays, strict=True):
            if x.dtype == np.int64:
                fixed.append(numpy_helper.from_array(x, name))
            else:
                kind = helper.np_dtype_to_tensor_dtype(x.dtype)
                infos.append(helper.make_tensor_value_info(name, kind, x.shape))
        node = helper.make_node(op_type, names, ["y", "z"] if op_type == "TopK" else ["y"], **attributes)
        results = [onnx.ValueInfoProto(name=n) for n in node.output]
        graph = helper.make_graph([node], "one", infos, results, fixed)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        compiled = compile_model(onnx.shape_inference.infer_shapes(model).SerializeToString(), wafer="8x8")
        return compiled.run({i.name: arrays[int(i.name[1:])] for i in infos})["y"]

    ours, exact = first(given), first([x.astype(np.float32) if x.dtype.kind == "V" else x for x in given])
    assert ours.dtype == dtypes.BF16.numpy
    largest = float(np.abs(exact).max())
    np.testing.assert_allclose(ours.astype(np.float32), exact, rtol=0, atol=0.02 * largest)


@pytest.mark.parametrize(
    "dtype", [TensorProto.BFLOAT16, TensorProto.FLOAT8E5M2, TensorProto.FLOAT4E2M1, TensorProto.INT4]
)
def test_the_command_line_reads_and_writes_them(dtype: int, tmp_path: Path) -> None:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    shapes = {"x": (3, 5), "y": (5, 3), "z": (5, 3)}
    x, y, z = (helper.make_tensor_value_info(n, dtype, s) for n, s in shapes.items())
    constant = numpy_helper.from_array(np.ones((3, 5), kind), "c")
    nodes = [helper.make_node("Transpose", ["x"], ["y"]), helper.make_node("Transpose", ["c"], ["z"])]
    graph = helper.make_graph(nodes, "moved", [x], [y, z], [constant])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    model, program, out = (str(tmp_path / n) for n in ("m.onnx", "m.wafer", "out.npz"))
    onnx.save(proto, model)
    value = RANDOM.integers(-2, 2, (3, 5)).astype(np.int8).astype(kind)
    given = tmp_path / "x.npy"
    np.save(given, value.view(f"V{value.itemsize}"))
    runner = CliRunner()
    made = runner.invoke(main, ["compile", model, "-o", program, "--wafer", "8x8"])
    assert made.exit_code == 0, made.output
    for words in (["--input", f"x={given}"], ["--random", "0"]):
        ran = runner.invoke(main, ["run", program, *words, "-o", out])
        assert ran.exit_code == 0, ran.output
        if words[0] == "--input":
            with np.load(out) as found:
                assert found["y"].tobytes() == np.ascontiguousarray(value.T).tobytes()
                assert found["z"].view(kind).astype(np.float32).tolist() == np.ones((5, 3)).tolist()


def test_equal_bytes_of_two_types_are_two_constants() -> None:
    raw = np.arange(1, 8, dtype=np.uint8)
    kinds = {"a": TensorProto.FLOAT8E4M3FN, "b": TensorProto.FLOAT8E5M2FNUZ}
    values = {n: raw.view(helper.tensor_dtype_to_np_dtype(t)) for n, t in kinds.items()}
    at = helper.make_tensor_value_info("at", TensorProto.INT64, (7,))
    nodes, outputs = [], []
    for n in kinds:
        nodes.append(helper.make_node("Gather", [n, "at"], [f"{n}_picked"]))
        nodes.append(helper.make_node("Cast", [f"{n}_picked"], [f"{n}_out"], to=TensorProto.FLOAT))
        outputs.append(helper.make_tensor_value_info(f"{n}_out", TensorProto.FLOAT, (7,)))
    constants = [numpy_helper.from_array(v, n) for n, v in values.items()]
    graph = helper.make_graph(nodes, "alike", [at], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    found = compile_model(model.SerializeToString(), wafer="8x8").run({"at": np.arange(7)})
    for n in kinds:
        assert found[f"{n}_out"].tolist() == values[n].astype(np.float32).tolist()
