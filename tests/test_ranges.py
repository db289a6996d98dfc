"""What leaves a type's range on the way, though neither operands nor results do."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import onnx
import pytest
from nodes import Case, case, computed, floats, ints
from onnx import TensorProto, helper, numpy_helper
from single import by_kernels, model
from waferc import compile_model
from waferc.compiler.host.operators import operator
from waferc.compiler.importer import import_model
from waferc.compiler.passes.simplify import simplify
from waferc.ir import dtypes
from waferc.ir.evaluate import evaluate
from waferc.ir.op import Array

HALVES = {"f16": np.dtype(np.float16), "bf16": np.dtype(dtypes.BF16.numpy)}
F32 = np.float32


# -- scales that wait for products ------------------------------------------------------------------
Step = tuple[str, str, str, dict[str, Any]]


def chain(steps: Sequence[Step], x: Array, constants: dict[str, Array], columns: int) -> onnx.ModelProto:
    """Nodes in f32 from x to y, of x's rows and some columns."""
    nodes = [helper.make_node(kind, given.split(), [made], **own) for kind, given, made, own in steps]
    ends = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", x.shape), ("y", (len(x), columns)))
    )
    held = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "chain", *([e] for e in ends), held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def both(proto: onnx.ModelProto, x: Array) -> tuple[Array, Array, bool]:
    """What the model means, what it is after all passes, by kernels, and whether a scale waits there."""
    graph = import_model(proto)
    passed = simplify(graph)
    waits = any("unscaled" in n.output for n in passed.nodes)
    return evaluate(graph, {"x": x})["y"], by_kernels(passed, {"x": x})["y"], waits


LAST = np.array([-1])
BY_SUM: list[Step] = [
    ("ReduceSum", "x last", "s", {}),
    ("Div", "x s", "n", {}),
    ("MatMul", "n w", "y", {}),
]


@pytest.mark.parametrize(("size", "weight"), [(1e30, 1e10), (1e-40, 1e-10), (1e-30, 1e-10), (1.0, 1.0)])
def test_a_scale_stays_where_nothing_bounds_what_it_scales(size: float, weight: float) -> None:
    x = np.array([[1, 2, 1, 0]], F32) * F32(size)
    w = np.full((4, 1), weight, F32)
    meant, made, waits = both(chain(BY_SUM, x, {"last": LAST, "w": w}, 1), x)
    assert not waits
    np.testing.assert_allclose(made, [[weight]], rtol=1e-6)
    np.testing.assert_array_equal(made, meant)


def test_the_issue_s_example_runs_to_its_value() -> None:
    x = np.array([[1e30, 2e30, 1e30, 0]], F32)
    proto = chain(BY_SUM, x, {"last": LAST, "w": np.full((4, 1), 1e10, F32)}, 1)
    y = compile_model(proto.SerializeToString(), wafer="4x4").run({"x": x})["y"]
    np.testing.assert_allclose(y, [[1e10]], rtol=1e-6)


@pytest.mark.parametrize("value", [3e38, 1.0, 1e-37, 1e-39])
@pytest.mark.parametrize("terms", [4, 7, 300])
def test_a_softmax_s_total_waits_and_no_sum_leaves_the_range(value: float, terms: int) -> None:
    x = np.zeros((1, terms), F32)
    w = np.full((terms, 3), value, F32)
    _, made, waits = both(chain([("Softmax", "x", "n", {}), ("MatMul", "n w", "y", {})], x, {"w": w}, 3), x)
    assert waits
    np.testing.assert_allclose(made, np.full((1, 3), value), rtol=2e-6, atol=terms * 2.0**-149)


@pytest.mark.parametrize("size", [1.0, 1e18, 1e-20, 1e-36])
@pytest.mark.parametrize("weight", [0.02, 1e8, 1e-3])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-12])
def test_a_norm_s_root_waits_and_no_product_leaves_the_range(
    size: float, weight: float, epsilon: float
) -> None:
    random = np.random.default_rng(3)
    x = (random.standard_normal((2, 64)) * size).astype(F32)
    w = (random.standard_normal((64, 3)) * weight).astype(F32)
    steps: list[Step] = [("RMSNormalization", "x g", "n", {"epsilon": epsilon}), ("MatMul", "n w", "y", {})]
    meant, made, waits = both(chain(steps, x, {"g": np.full(64, 0.5, F32), "w": w}, 3), x)
    assert waits
    np.testing.assert_allclose(made, meant, rtol=3e-6, atol=3e-6 * float(np.abs(meant).max()))


def test_a_norm_s_root_does_not_wait_where_weights_are_too_large_or_not_known() -> None:
    x = np.random.default_rng(3).standard_normal((2, 64)).astype(F32) * F32(1e18)
    steps: list[Step] = [("RMSNormalization", "x g", "n", {}), ("MatMul", "n w", "y", {})]
    for w in (1e30, 1e17):
        constants = {"g": np.ones(64, F32), "w": np.full((64, 3), w, F32)}
        meant, made, waits = both(chain(steps, x, constants, 3), x)
        assert not waits and np.isfinite(made).all()
        np.testing.assert_allclose(made, meant, rtol=1e-5, atol=1e-5 * float(np.abs(meant).max()))
    # without an epsilon nothing bounds the factor
    steps = [("ReduceL2", "x last", "s", {}), ("Div", "x s", "n", {}), ("MatMul", "n w", "y", {})]
    assert not both(chain(steps, x, {"last": LAST, "w": np.ones((64, 3), F32)}, 3), x)[2]


def test_a_norm_written_out_waits_like_the_operator() -> None:
    x = np.random.default_rng(3).standard_normal((2, 64)).astype(F32)
    steps: list[Step] = [
        ("Pow", "x two", "q", {}),
        ("ReduceMean", "q last", "m", {}),
        ("Add", "m e", "v", {}),
        ("Sqrt", "v", "d", {}),
        ("Div", "x d", "n", {}),
        ("Mul", "n g", "o", {}),
        ("MatMul", "o w", "y", {}),
    ]
    constants = {"two": F32(2), "last": LAST, "e": F32(1e-6), "g": np.full(64, 0.5, F32)}
    meant, made, waits = both(chain(steps, x, {**constants, "w": np.ones((64, 3), F32)}, 3), x)
    assert waits
    np.testing.assert_allclose(made, meant, rtol=3e-6)
    # a sum over half of a row does not bound the rest of it
    steps[1:2] = [("Slice", "q zero half one", "h", {}), ("ReduceMean", "h last", "m", {})]
    constants |= {"zero": np.array([0]), "half": np.array([32]), "one": np.array([1])}
    assert not both(chain(steps, x, {**constants, "w": np.ones((64, 3), F32)}, 3), x)[2]


def test_gemm_s_factor_goes_into_weights_only_where_they_stay_normal() -> None:
    x, w = np.array([[1e35, -1e35]], F32), np.ones((2, 1), F32)
    for alpha in (1e10, 0.5, 1e-3):
        (y,) = computed(case("Gemm", x, w, constants=[1], alpha=alpha))
        assert y.tolist() == [[0.0]]
    x, w = np.full((1, 1), 1e30, F32), np.full((1, 1), 1e-37, F32)
    (y,) = computed(case("Gemm", x, w, constants=[1], alpha=0.1))
    np.testing.assert_allclose(y, [[1e-8]], rtol=3e-7)
    (y,) = computed(case("Gemm", np.array([[2, 4]], np.int32), np.array([[1], [1]], np.int32), alpha=0.5))
    assert y.tolist() == [[3]]


# -- 16 bits -----------------------------------------------------------------------------------------
def row(kind: str, *values: float) -> Array:
    return np.array([values], F32).astype(HALVES[kind])


def of_16_bits(one: Case) -> Array:
    """The first output, the same by meaning and by kernels, in f64."""
    made = by_kernels(import_model(one.proto()), one.fed())["y0"]
    meant = evaluate(import_model(one.proto()), one.fed())["y0"]
    np.testing.assert_allclose(made.astype(np.float64), meant.astype(np.float64), rtol=8e-3)
    return made.astype(np.float64)


ROW = np.array([[300.0, 400.0, 0.0, 500.0]])
IMAGE = np.full((1, 3, 4), 300.0)
UPDATES = np.array([60000.0, -60000.0])
CASES: list[tuple[str, list[Array], dict[str, Any], Any]] = [
    ("ReduceL2", [ROW], {}, np.sqrt((ROW**2).sum())),
    ("ReduceLogSum", [ROW * 100], {}, np.log(ROW.sum() * 100)),
    ("ReduceLogSumExp", [np.zeros((1, 70000))], {}, np.log(70000)),
    ("LpNormalization", [ROW], {"axis": 1}, ROW / np.sqrt((ROW**2).sum())),
    ("LpNormalization", [ROW * 100], {"axis": 1, "p": 1}, ROW / ROW.sum()),
    ("LpPool", [IMAGE], {"kernel_shape": [2]}, np.full((1, 3, 3), 300 * np.sqrt(2))),
    ("GlobalLpPool", [IMAGE], {}, np.full((1, 3, 1), 600)),
    ("LRN", [IMAGE * 1.5], {"size": 3, "alpha": 1e-4}, None),
    ("MeanVarianceNormalization", [ROW * 100], {"axes": [1]}, (ROW - ROW.mean()) / ROW.std()),
    ("LayerNormalization", [ROW * 100, np.ones(4)], {}, (ROW - ROW.mean()) / ROW.std()),
    ("Mean", [ROW * 100, ROW * 100], {}, ROW * 100),
    ("Sum", [ROW * 120, ROW * 120, ROW * -120], {}, ROW * 120),
    ("Softmax", [np.zeros((1, 70000))], {}, np.full((1, 70000), 1 / 70000)),
    ("Gemm", [ROW, ROW.T], {"alpha": 0.01}, (ROW**2).sum() * 0.01),
    ("Einsum", [ROW, ROW, np.array([[0.01]])], {"equation": "ij,ij,ii->i"}, (ROW**2).sum() * 0.01),
    ("Gelu", [ROW * 100], {"approximate": "tanh"}, ROW * 100),
    ("Mish", [ROW * 100], {}, ROW * 100),
    ("Selu", [-ROW], {}, np.where(ROW > 0, -1.7580993, 0)),
    ("Det", [np.array([[300.0, 296.0], [300.0, 300.0]])], {}, 1200.0),
    ("HardSwish", [ROW * 100], {}, ROW * 100),
    ("AveragePool", [IMAGE * 200], {"kernel_shape": [3], "pads": [1, 1]}, IMAGE * 200),
    ("ScatterND", [ROW[0] * 100, np.zeros((2, 1), np.int64), UPDATES], {"reduction": "add"}, ROW[0] * 100),
]


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_what_is_between_in_16_bits_is_in_f32(number: int, kind: str) -> None:
    op_type, inputs, own, expected = CASES[number]
    given = [x.astype(HALVES[kind]) if x.dtype.kind == "f" else x for x in inputs]
    constants = [i for i, x in enumerate(given) if x.dtype.kind == "i"]
    y = of_16_bits(case(op_type, *given, constants=constants, opset=22, **own))
    wide = [x.astype(np.float64) if x.dtype.kind not in "i" else x for x in given]
    if op_type == "LRN":
        expected = wide[0] / (1 + 1e-4 / 3 * np.array([[[2], [3], [2]]]) * wide[0] ** 2) ** 0.75
    np.testing.assert_allclose(y, np.broadcast_to(expected, y.shape), rtol=0.02, atol=0.02)


def test_partial_sums_in_16_bits_stay_in_range() -> None:
    """A product that a plan cuts along its terms: half of them add up to more than f16 holds."""
    x = np.full((1, 4096), 200.0, np.float16)
    w = np.where(np.arange(4096) < 2048, 1.0, -1.0).astype(np.float16).reshape(4096, 1)
    proto = model("MatMul", [x, w], opset=21)
    y = compile_model(proto.SerializeToString(), wafer="8x8").run({"x0": x, "x1": w})["y0"]
    assert y.tolist() == [[0.0]]


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_gates_of_opposite_sums_are_no_nan(cell: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[cell]
    x = np.full((2, 1, 4), 200.0, np.float16)
    w, r = np.full((1, gates, 4), 200.0, np.float16), np.full((1, gates, 1), -200.0, np.float16)
    y = of_16_bits(case(cell, x, w, r, hidden_size=1))
    assert np.isfinite(y).all()


# -- integers ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
def test_norms_and_logarithms_of_integers_are_truncated(dtype: str) -> None:
    x = np.array([[3, 4], [5, 7]], dtype)
    for kind, expected in (
        ("ReduceL2", [[5], [8]]),
        ("ReduceSumSquare", [[25], [74]]),
        ("ReduceL1", [[7], [12]]),
        ("ReduceLogSum", [[1], [2]]),
        ("ReduceLogSumExp", [[4], [7]]),
    ):
        (y,) = computed(case(kind, x, ints(1), constants=[1]))
        assert y.dtype == dtype and y.tolist() == expected, kind


def test_a_mean_of_integers_is_in_range_where_their_sum_is_not() -> None:
    x = np.array([[2**31 - 1, 2**31 - 3]], np.int32)
    (y,) = computed(case("ReduceMean", x, ints(1), constants=[1]))
    assert y.tolist() == [[2**31 - 2]]


# -- places of Resize ---------------------------------------------------------------------------------
HALF = Fraction(1, 2)
NEAREST = {
    "round_prefer_floor": lambda x: ceil(x - HALF),
    "round_prefer_ceil": lambda x: floor(x + HALF),
    "floor": floor,
    "ceil": ceil,
}
MODES = ("align_corners", "asymmetric", "tf_half_pixel_for_nn", "pytorch_half_pixel", "half_pixel")


def place(mode: str, o: int, size: int, count: int) -> Fraction:
    scale = Fraction(count, size)
    match mode:
        case "align_corners":
            return Fraction(0) if count == 1 else Fraction(o * (size - 1), count - 1)
        case "asymmetric":
            return o / scale
        case "tf_half_pixel_for_nn":
            return (o + HALF) / scale
        case "pytorch_half_pixel" if count == 1:
            return Fraction(0)
        case _:
            return (o + HALF) / scale - HALF


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nearest", NEAREST)
def test_places_of_nearest_are_exact(mode: str, nearest: str) -> None:
    pairs = [(20, 6), (28, 4), (7, 21), (9, 6), (12, 18), (5, 13), (49, 14), (30, 100), (11, 1), (3, 60)]
    for size, count in pairs:
        x = np.arange(size, dtype=F32)
        own = {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": nearest}
        want = [min(max(NEAREST[nearest](place(mode, o, size, count)), 0), size - 1) for o in range(count)]
        one = case("Resize", x, None, None, ints(count), constants=[3], opset=19, **own)
        assert evaluate(import_model(one.proto()), one.fed())["y0"].tolist() == want, (size, count)
        scale = F32(count / size)
        if floor(float(scale) * size) != count:
            continue
        one = case("Resize", x, None, np.array([scale], F32), constants=[2], opset=19, **own)
        assert evaluate(import_model(one.proto()), one.fed())["y0"].tolist() == want, (size, float(scale))


def test_upsample_s_and_linear_places_are_exact() -> None:
    x = np.arange(10, dtype=F32)
    one = case("Upsample", x, floats(1.2), constants=[1], opset=9)
    assert evaluate(import_model(one.proto()), one.fed())["y0"].tolist() == [o * 5 // 6 for o in range(12)]
    one = case("Resize", x, None, None, ints(15), constants=[3], opset=19, mode="linear")
    want = [float(min(max(place("half_pixel", o, 10, 15), Fraction(0)), Fraction(9))) for o in range(15)]
    np.testing.assert_allclose(evaluate(import_model(one.proto()), one.fed())["y0"], want, rtol=1e-7)


# -- ai.onnx.ml ------------------------------------------------------------------------------------------
CLASSIC: list[tuple[str, dict[str, Any], list[list[float]]]] = [
    ("Scaler", {"offset": [0.5], "scale": [0.25]}, [[0.625, 0.875], [-0.375, -1.375]]),
    ("Normalizer", {"norm": "L2"}, [[0.6, 0.8], [-1 / 26**0.5, -5 / 26**0.5]]),
    ("Normalizer", {"norm": "L1"}, [[3 / 7, 4 / 7], [-1 / 6, -5 / 6]]),
    ("Normalizer", {"norm": "MAX"}, [[0.75, 1.0], [1.0, 5.0]]),
    ("LinearRegressor", {"coefficients": [0.5, 0.25], "intercepts": [0.125]}, [[2.625], [-1.625]]),
    ("FeatureVectorizer", {"inputdimensions": [3]}, [[3, 4, 0], [-1, -5, 0]]),
]


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("number", range(len(CLASSIC)), ids=[f"{c[0]}-{i}" for i, c in enumerate(CLASSIC)])
def test_classic_operators_give_f32_whatever_they_are_given(number: int, dtype: str) -> None:
    op_type, own, expected = CLASSIC[number]
    x = np.array([[3, 4], [-1, -5]], dtype)
    node = helper.make_node(op_type, ["x"], ["y"], domain="ai.onnx.ml", **own)
    value = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    graph = helper.make_graph([node], "classic", [value], [onnx.ValueInfoProto(name="y")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)], ir_version=10)
    (y,) = operator(proto.SerializeToString())([x])
    assert y.dtype == F32
    np.testing.assert_allclose(y, expected, rtol=1e-6)
