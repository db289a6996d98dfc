"""Elementwise and rearrange operators: every meaning and every kernel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nodes import SPECIAL, Case, case, flags, ints, normal, positive, same_as_onnxruntime, whole
from single import by_kernels, close, golden, model
from waferc.compiler.errors import InputUnbound, InvalidInput, UnsupportedOperator
from waferc.compiler.importer import import_model
from waferc.ir.affine import access_axes
from waferc.ir.dtypes import F32, I32
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph
from waferc.ir.op import gather, scatter
from waferc.ir.ops.rearrange import Cut, Relabel, refine, reshape, slice_box
from waferc.ir.rules import GraphBuilder

X = normal(2, 3, 37)
ELEMENTWISE = [
    *(case(t, X) for t in ("Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Exp", "Relu", "Sigmoid", "Tanh")),
    *(case(t, X) for t in ("Softplus", "Softsign", "Elu", "Selu", "Celu", "HardSigmoid", "HardSwish", "Erf")),
    *(case(t, X) for t in ("Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh", "Mish", "LeakyRelu")),
    *(
        case(t, SPECIAL)
        for t in ("Abs", "Relu", "Floor", "Round", "IsNaN", "IsInf", "Sigmoid", "Tanh", "Exp")
    ),
    *(case(t, positive(5, 9)) for t in ("Sqrt", "Log", "Reciprocal")),
    case("Acosh", 1 + positive(40)),
    *(case(t, np.tanh(normal(40))) for t in ("Asin", "Acos", "Atanh")),
    *(case(t, X, normal(3, 1)) for t in ("Add", "Sub", "Mul", "Div", "Less", "GreaterOrEqual", "PRelu")),
    *(case(t, whole(4, 5), whole(5)) for t in ("Add", "Sub", "Mul", "Equal", "Greater", "LessOrEqual")),
    case("Div", whole(64), np.array([3, -3, 7, -1] * 16, np.int32)),
    case("Div", whole(16, dtype="uint8", low=0, high=99), np.array([3] * 16, np.uint8)),
    case("Mod", whole(64), np.array([3, -3, 7, -1] * 16, np.int32)),
    case("Mod", whole(64), np.array([3, -3, 7, -1] * 16, np.int32), fmod=1),
    case("Mod", normal(20), positive(20), fmod=1),
    case("Pow", positive(3, 5), normal(5)),
    case("Pow", normal(7), np.array(2.0, np.float32), constants=[1]),
    case("Pow", normal(7), np.array(3.0, np.float32), constants=[1]),
    case("Pow", positive(7), np.array(0.5, np.float32), constants=[1]),
    case("Pow", positive(7), np.array([2.5], np.float32), constants=[1]),
    case("Pow", positive(7), np.array([2], np.int64)),
    case("Pow", whole(40, low=-3, high=4), whole(40, low=0, high=5)),
    *(case(t, flags(4, 5), flags(5)) for t in ("And", "Or", "Xor", "Equal")),
    case("Not", flags(9)),
    *(case(t, whole(17), whole(17)) for t in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    case("BitwiseNot", whole(17)),
    *(
        case(
            "BitShift", whole(9, dtype="uint32", low=0), whole(9, dtype="uint32", low=0, high=9), direction=d
        )
        for d in ("LEFT", "RIGHT")
    ),
    case("IsInf", SPECIAL, detect_negative=0),
    case("IsInf", SPECIAL, detect_positive=0),
    case("LeakyRelu", X, alpha=0.3),
    case("Elu", X, alpha=0.5),
    case("Celu", X, alpha=2.0),
    case("Selu", X, alpha=1.2, gamma=0.7),
    case("HardSigmoid", X, alpha=0.5, beta=0.1),
    case("ThresholdedRelu", X, alpha=0.25),
    case("QuickGelu", X, domain="com.microsoft"),
    case("QuickGelu", X, domain="com.microsoft", alpha=0.7),
    case("Gelu", X, opset=20),
    case("Gelu", X, opset=20, approximate="tanh"),
    case("Where", flags(3, 1), normal(2, 3, 4), normal(4)),
    case("Min", normal(3, 4), normal(4), normal(3, 1)),
    case("Max", normal(3, 4), normal(4)),
    case("Sum", normal(3, 4), normal(4), normal(3, 1)),
    case("Mean", normal(3, 4), normal(4), normal(3, 1)),
    case("Mean", normal(3, 4)),
    case("Clip", X, np.array(-0.5, np.float32), np.array(0.5, np.float32), constants=[1, 2]),
    case("Clip", X, None, np.array(0.5, np.float32), constants=[2]),
    case("Clip", X, np.array(-0.5, np.float32)),
    # bounds that cross
    *(
        case("Clip", X, np.array(0.5, np.float32), np.array(-0.5, np.float32), constants=known)
        for known in ([], [1], [2], [1, 2])
    ),
    case("Clip", X, opset=10, min=-0.25, max=0.75),
    case("Clip", X),
    # what an integer cannot hold is not defined
    *(case("Cast", np.clip(normal(33) * 50, -127, 127), to=t) for t in (1, 3, 6, 7, 9, 10, 11)),
    *(case("Cast", whole(33), to=t) for t in (1, 2, 7, 9, 11)),
    case("CastLike", whole(9), normal(1)),
    case("Identity", normal(3)),
    case("Dropout", normal(3, 4), opset=13, outputs=2),
    case("Dropout", normal(3, 4), opset=7, ratio=0.3),
    case("Add", np.array(2.0, np.float32), np.array(3.0, np.float32)),
    case("Pow", whole(40, low=1, high=9), whole(40, low=-2, high=9).astype(np.float32)),
    case("Pow", whole(9, low=-9, high=9), np.array(5.0, np.float32), constants=[1]),
]

REARRANGE = [
    case("Transpose", normal(2, 3, 4)),
    case("Transpose", normal(2, 3, 4), perm=[1, 0, 2]),
    case("Reshape", normal(2, 3, 8), ints(6, -1), constants=[1]),
    case("Reshape", normal(2, 3, 8), ints(0, 2, 3, 0 + 4), constants=[1]),
    case("Reshape", normal(6, 10), ints(4, 15), constants=[1]),
    case("Reshape", normal(3, 6, 10), ints(3, 4, 15), constants=[1]),
    case("Reshape", normal(1, 1), ints(1), constants=[1]),
    case("Reshape", normal(1), ints(), constants=[1]),
    case("Flatten", normal(2, 3, 4)),
    case("Flatten", normal(2, 3, 4), axis=0),
    case("Flatten", normal(2, 3, 4), axis=-1),
    case("Squeeze", normal(1, 3, 1, 4)),
    case("Squeeze", normal(1, 3, 1, 4), ints(-2), constants=[1]),
    case("Squeeze", normal(1, 3, 1, 4), opset=11, axes=[0]),
    case("Unsqueeze", normal(3, 4), ints(0, -1), constants=[1]),
    case("Unsqueeze", normal(3, 4), opset=11, axes=[1]),
    case("Slice", normal(7, 9), ints(1), ints(5), ints(1), constants=[1, 2, 3]),
    case("Slice", normal(7, 9), ints(-1, 8), ints(-100, 1), ints(0, 1), ints(-2, -3), constants=[1, 2, 3, 4]),
    case("Slice", normal(7, 9), ints(-3), ints(2**62), ints(-1), constants=[1, 2, 3]),
    case("Slice", normal(7, 9), opset=9, starts=[2, 0], ends=[5, -1]),
    case("Concat", normal(2, 3), normal(2, 1), normal(2, 4), axis=1),
    case("Concat", normal(2, 3), axis=-1),
    case("Concat", normal(0, 3), normal(0, 2), axis=1),
    case("Concat", normal(2, 0), normal(2, 3), normal(2, 0), axis=1),
    case("Split", normal(6, 4), opset=13, outputs=3, axis=0),
    case("Split", normal(7, 4), ints(2, 5), constants=[1], outputs=2, axis=0),
    case("Split", normal(7, 4), outputs=3, axis=0, num_outputs=3),
    case("Split", normal(7, 4), opset=11, outputs=2, axis=1, split=[1, 3]),
    case("Pad", normal(3, 4), ints(1, 0, 2, 3), constants=[1]),
    case("Pad", normal(3, 4), ints(1, -1, 2, 3), np.array(2.5, np.float32), constants=[1, 2]),
    case("Pad", normal(3, 4), ints(2, 1), None, ints(-1), constants=[1, 3]),
    case("Pad", normal(3, 4), opset=10, pads=[0, 1, 1, 0], value=1.5),
    *(case("Pad", normal(3, 4), ints(1, 2, 2, 3), constants=[1], mode=m) for m in ("reflect", "edge")),
    case("Pad", normal(3, 4), ints(1, 2, 2, 3), constants=[1], mode="wrap"),
    case("Expand", normal(3, 1), ints(2, 1, 4), constants=[1]),
    case("Tile", normal(3, 4), ints(2, 3), constants=[1]),
    *(case("DepthToSpace", normal(1, 8, 2, 3), blocksize=2, mode=m) for m in ("DCR", "CRD")),
    case("SpaceToDepth", normal(1, 2, 4, 6), blocksize=2),
    case("SpaceToDepth", normal(1, 2, 4, 6), blocksize=2, mode="CRD", opset=28),
    case("Shape", normal(2, 3, 4)),
    case("Shape", normal(2, 3, 4), start=1, end=-1),
    case("Size", normal(2, 3)),
    case("EyeLike", normal(3, 4), k=1),
    case("Trilu", normal(2, 4, 5)),
    case("Trilu", normal(4, 5), ints(1)[0], constants=[1], upper=0),
    case("Range", ints(2)[0], ints(11)[0], ints(3)[0], constants=[0, 1, 2]),
    case("ConstantOfShape", ints(2, 3), constants=[0]),
]


@pytest.mark.parametrize("one", [*ELEMENTWISE, *REARRANGE], ids=str)
def test_against_onnxruntime(one: Case) -> None:
    same_as_onnxruntime(one)


# -- beyond onnxruntime -----------------------------------------------------------------


def test_swish_against_its_formula() -> None:
    x = normal(50)
    graph = import_model(model("Swish", [x], opset=24, alpha=1.5))
    want = x / (1 + np.exp(-1.5 * x.astype(np.float64)))
    for run in (evaluate, by_kernels):
        close(run(graph, {"x0": x})["y0"], want.astype(np.float32), 1e-6)


def test_a_foreign_operator_says_what_it_takes_and_its_domain_must_be_imported() -> None:
    with pytest.raises(InvalidInput, match="QuickGelu takes f16, bf16, f32, f64, not x0: i32"):
        import_model(model("QuickGelu", [whole(4).astype(np.int32)], domain="com.microsoft"))
    proto = model("QuickGelu", [X], domain="com.microsoft")
    del proto.opset_import[1]
    with pytest.raises(InvalidInput, match=r"onnx's checker refuses .*com\.microsoft"):
        import_model(proto)
    reason = r"of domain 'com\.microsoft' \d+ operators are known, not this one"
    with pytest.raises(UnsupportedOperator, match=reason):
        import_model(model("MurmurHash3", [normal(2, 3), normal(3, 2)], domain="com.microsoft"))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_cast_saturates(dtype: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.9, -2.9, 0.0], np.float32)
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    limits = np.iinfo(dtype)
    low = -2 if limits.min < 0 else 0
    want = np.array([0, limits.max, limits.min, limits.max, limits.min, 2, low, 0], dtype)
    graph = import_model(model("Cast", [x], to=number))
    for run in (evaluate, by_kernels):
        np.testing.assert_array_equal(run(graph, {"x0": x})["y0"], want)


def test_integer_division_by_zero_does_not_trap() -> None:
    a, b = np.array([7, -7, -(2**31)], np.int32), np.array([0, 0, -1], np.int32)
    for op_type in ("Div", "Mod"):
        graph = import_model(model(op_type, [a, b]))
        want = {"Div": [0, 0, -(2**31)], "Mod": [0, 0, 0]}[op_type]
        for run in (evaluate, by_kernels):
            assert run(graph, {"x0": a, "x1": b})["y0"].tolist() == want


def test_relabel_stays_on_one_core_but_for_leading_dimensions() -> None:
    graph = import_model(model("Reshape", [normal(3, 6, 10), ints(3, 4, 15)], [1]))
    (node,) = graph.nodes
    assert isinstance(node.op, Relabel)
    assert set(node.op.whole) == {a for a, _ in node.op.axes} - {"b0"}


# -- properties -------------------------------------------------------------------------

factors = st.lists(st.sampled_from([1, 2, 3, 4, 5]), min_size=1, max_size=6)


@st.composite
def two_shapes(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two shapes of one size."""
    parts = draw(factors)
    other = draw(st.permutations(parts))

    def grouped(sizes: Sequence[int]) -> list[int]:
        out = [1]
        for n in sizes:
            if draw(st.booleans()):
                out.append(n)
            else:
                out[-1] *= n
        return out

    return grouped(parts), grouped(other)


@given(two_shapes())
def test_refine_is_row_major(shapes: tuple[list[int], list[int]]) -> None:
    old, new = shapes
    found = refine(old, new)
    if found is None:
        return
    sizes, read, write = found
    axes = [(f"f{i}", n) for i, n in enumerate(sizes)]
    assert int(np.prod(sizes)) == int(np.prod(old))
    assert set(access_axes(read)) == set(access_axes(write)) == {a for a, _ in axes}
    x = np.arange(int(np.prod(old))).reshape(old)
    out = np.full(new, -1)
    scatter(gather(x, read, axes, 0), write, axes, out)
    np.testing.assert_array_equal(out, x.reshape(new))


@given(two_shapes())
def test_refine_finds_what_there_is(shapes: tuple[list[int], list[int]]) -> None:
    """Shapes whose boundaries divide each other always have common factors."""
    old, new = shapes
    strides = sorted({int(np.prod(s[i:])) for s in shapes for i in range(len(s) + 1)})
    chain = all(b % a == 0 for a, b in itertools.pairwise(strides))
    assert (refine(old, new) is not None) == chain


@given(two_shapes())
def test_reshape_by_kernel(shapes: tuple[list[int], list[int]]) -> None:
    old, new = shapes
    g = GraphBuilder()
    x = g.tensor("x", old, I32)
    y = reshape(g, x, new, "y")
    graph = Graph("g", g.tensors, tuple(g.nodes), g.constants, (x,), (y,))
    graph.check()
    value = np.arange(int(np.prod(old)), dtype=np.int32).reshape(old)
    for run in (evaluate, by_kernels):
        np.testing.assert_array_equal(run(graph, {"x": value})[y], value.reshape(new))


@given(st.integers(1, 9), st.integers(-12, 12), st.integers(-12, 12), st.sampled_from([-3, -1, 1, 2]))
def test_slice_bounds(size: int, start: int, end: int, step: int) -> None:
    """As numpy's slices, where the start lies within the dimension."""
    x = np.arange(size, dtype=np.int32)
    proto = model("Slice", [x, ints(start), ints(end), ints(0), ints(step)], [1, 2, 3, 4])
    close(evaluate(import_model(proto), {"x0": x})["y0"], golden(proto, {"x0": x})["y0"])


def test_slice_box_of_everything_is_free() -> None:
    g = GraphBuilder()
    x = g.tensor("x", (3, 4), F32)
    assert slice_box(g, x, [Cut(0, 1, 3), Cut(0, 1, 4)], "y") == x
    assert not g.nodes


# -- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (model("Reshape", [normal(2, 3), ints(4, 2)], [1]), "6 elements"),
        (model("Reshape", [normal(2, 3), ints(-1, 4)], [1]), "Reshape of"),
        (model("Squeeze", [normal(2, 3), ints(0)], [1]), "Squeeze of axes"),
        (model("Add", [normal(2), normal(3)]), "broadcast"),
        (model("Cast", [normal(2)], to=14), "has type complex64"),
        (model("Concat", [normal(2, 3), normal(3, 3)], axis=1), "Concat of shapes"),
        (model("Transpose", [normal(2, 3)], perm=[0, 0]), "perm"),
        (model("Gather", [normal(2, 3), ints(0)], axis=4), "axis 4"),
        (model("Pad", [normal(3), ints(5, 0)], [1], mode="reflect"), "mode reflect"),
        (model("Split", [normal(5), ints(2, 2)], [1], outputs=2), "Split of 5"),
    ],
)
def test_contradictions_name_the_node(bad: onnx.ModelProto, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as e:
        import_model(bad)
    assert "'it'" in str(e.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (model("Reshape", [normal(6), ints(2, 3)]), "needs --value x1="),
    ],
)
def test_refusals_say_why(bad: onnx.ModelProto, message: str) -> None:
    with pytest.raises((UnsupportedOperator, InputUnbound), match=message):
        import_model(bad)
