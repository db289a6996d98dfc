"""Index and order operators: every meaning and every kernel."""

from __future__ import annotations

import numpy as np
import pytest
from nodes import Case, case, computed, flags, ints, normal, same_as_onnxruntime, whole
from single import by_kernels, close, model
from waferc.compiler.errors import InvalidInput
from waferc.compiler.importer import import_model
from waferc.ir.evaluate import evaluate
from waferc.ir.op import Array

INDEX = [
    case("Gather", normal(7, 5), ints(3, -1, 0)),
    case("Gather", normal(7, 5), whole(2, 3, low=0, high=5), axis=1),
    case("Gather", normal(3, 7, 5), ints(6)[0], axis=1),
    case("Gather", normal(70), whole(2, 30, low=0, high=70)),
    case("Gather", flags(7, 5), ints(3, -1, 0)),
    case("Gather", whole(7, 5, dtype="int64"), ints(3, -1, 0)),
    case("Gather", normal(7, 5), ints(2)[0], constants=[1]),
    case("Gather", normal(7, 5), ints(1, 3, 5), constants=[1]),
    case("Gather", normal(7, 5), ints(6, -2, 4), constants=[1]),
    case("Gather", normal(7, 5), np.array([[1, 6], [2, 2]]), constants=[1], axis=0),
    case("Gather", normal(7, 5), whole(20, low=0, high=7), constants=[1]),
    case("Gather", normal(70, 40), whole(6, low=0, high=70), constants=[0]),
    case("OneHot", ints(0, 2, -1, 7), ints(4), np.array([0.5, 2.0], np.float32), constants=[1]),
    case(
        "OneHot",
        whole(2, 3, dtype="int64", low=0, high=4),
        ints(4),
        np.array([0, 1], np.int64),
        constants=[1],
        axis=1,
    ),
    case("GatherElements", normal(7, 9, 5), whole(6, 11, 4, low=-9, high=9), axis=1),
    case("GatherElements", flags(7, 5), whole(3, 5, dtype="int64", low=0, high=7)),
    case("GatherND", normal(4, 6, 5, 7), whole(4, 3, 2, dtype="int64", low=-5, high=5), batch_dims=1),
    case("GatherND", whole(4, 6, 5), whole(8, 3, dtype="int64", low=-4, high=4)),
    *(
        case("ScatterElements", normal(7, 9, 5), whole(6, 4, 4, low=-9, high=9), normal(6, 4, 4), axis=1, **r)
        for r in ({}, *({"reduction": kind} for kind in ("add", "mul", "max", "min")))
    ),
    case("ScatterElements", whole(9), ints(3, 3, -1, 3), whole(4), opset=13),
    case("Scatter", normal(5, 3), ints(0, 4, 2).reshape(1, 3), normal(1, 3), opset=9),
    *(
        case("ScatterND", normal(7, 9, 5), whole(6, 2, dtype="int64", low=-7, high=7), normal(6, 5), **r)
        for r in ({}, *({"reduction": kind} for kind in ("add", "mul", "max", "min")))
    ),
    case("ScatterND", whole(5, 6), whole(2, 4, 1, dtype="int64", low=0, high=5), whole(2, 4, 6)),
    case("ReverseSequence", normal(7, 9, 5), whole(9, dtype="int64", low=0, high=8)),
    case("ReverseSequence", normal(3, 6), ints(6, 1, 4), batch_axis=0, time_axis=1),
    case("Compress", normal(4, 5), np.array([0, 1, 1], np.bool_), constants=[1], axis=0),
    case("Compress", normal(4, 5), np.array([1, 0, 1, 0, 0, 0, 1], np.bool_), constants=[1]),
]

FEW = whole(7, 30, 3, low=0, high=4)
ROWS = normal(4, 40)
ROWS[1] = 0
ROWS[1, 3] = -0.0
ROWS[2, 9:12] = np.inf
ORDER = [
    *(case(kind, FEW, axis=1) for kind in ("ArgMax", "ArgMin")),
    *(case(kind, FEW, axis=-2, select_last_index=1, keepdims=0) for kind in ("ArgMax", "ArgMin")),
    *(case("ArgMax", FEW.astype(t), axis=0) for t in ("float64", "int8", "float16")),
    case("ArgMax", ROWS, axis=1),
    case("TopK", ROWS, ints(6), constants=[1], outputs=2, axis=1),
    case("TopK", FEW, ints(6), constants=[1], outputs=2, axis=1, largest=0),
    case("TopK", FEW.astype(np.int64), ints(30), constants=[1], outputs=2, axis=1),
    case("TopK", normal(2, 2500), ints(20), constants=[1], outputs=2),
    case("TopK", whole(1100, 2, dtype="int64"), ints(5), constants=[1], outputs=2, axis=0, largest=0),
    case("TopK", ROWS, opset=9, outputs=2, k=3),
    *(case("CumSum", normal(5, 7, 3), ints(a)[0], constants=[1], reverse=a % 2) for a in (0, 1, -1)),
    case("CumSum", whole(3, 9), ints(1)[0], constants=[1], exclusive=1),
    *(case("CumSum", whole(2, 2500), ints(1)[0], constants=[1], exclusive=e, reverse=e) for e in (0, 1)),
    *(case("Hardmax", normal(3, 9, 4), axis=1, opset=n) for n in (11, 13)),
    case("Hardmax", FEW.astype(np.float32), axis=1),
    case("Unique", whole(3, 9).astype(np.float32), constants=[0], outputs=4),
    case("Unique", whole(9, 2, dtype="int64", low=0, high=2), constants=[0], outputs=4, axis=0, sorted=0),
    case("NonZero", whole(3, 9, low=0, high=2), constants=[0]),
]


@pytest.mark.parametrize("one", [*INDEX, *ORDER], ids=str)
def test_against_onnxruntime(one: Case) -> None:
    same_as_onnxruntime(one)


# -- beyond onnxruntime -----------------------------------------------------------------


def test_gather_outside_yields_zeros() -> None:
    data, indices = normal(4, 20), ints(-5, 4, 2**40, -(2**40), 3)
    graph = import_model(model("Gather", [data, indices]))
    want = np.zeros((5, 20), np.float32)
    want[4] = data[3]
    for run in (evaluate, by_kernels):
        np.testing.assert_array_equal(run(graph, {"x0": data, "x1": indices})["y0"], want)


def test_scatter_drops_what_points_outside() -> None:
    data, at = normal(4, 3), np.array([[5, 1, -5], [2**40, -1, 0]])
    new = normal(2, 3)
    want = data.copy()
    want[1, 1], want[3, 1], want[0, 2] = new[0, 1], new[1, 1], new[1, 2]
    (out,) = computed(case("ScatterElements", data, at, new))
    np.testing.assert_array_equal(out, want)


def test_a_gather_at_several_coordinates_is_inside_in_all_or_gives_zero() -> None:
    data = normal(4, 6)
    at = np.array([[3, 5], [3, 6], [4, 0], [-4, -6], [-5, 0]])
    (out,) = computed(case("GatherND", data, at))
    np.testing.assert_array_equal(out, [data[3, 5], 0, 0, data[0, 0], 0])


@pytest.mark.parametrize("kind", ["add", "mul", "max", "min"])
def test_booleans_scatter(kind: str) -> None:
    data, at, new = flags(6), ints(1, 1, 4, 0), flags(4)
    want = data.copy()
    for place, value in zip(at, new, strict=True):
        want[place] = (want[place] | value) if kind in ("add", "max") else (want[place] & value)
    (out,) = computed(case("ScatterElements", data, at, new, reduction=kind, opset=18))
    np.testing.assert_array_equal(out, want)


def test_a_circular_cache_goes_on_at_its_start() -> None:
    past, new, at = normal(2, 5, 3), normal(2, 4, 3), ints(3, 0)
    want = past.copy()
    for b, first in enumerate(at):
        for s in range(4):
            want[b, (first + s) % 5] = new[b, s]
    (out,) = computed(case("TensorScatter", past, new, at, opset=24, mode="circular", axis=1))
    np.testing.assert_array_equal(out, want)


def test_what_is_not_a_number_is_the_greatest() -> None:
    """As NumPy has it; onnxruntime's answer depends on where it stands."""
    x = normal(3, 40)
    x[0, 7], x[1, [3, 30]] = np.nan, np.nan
    (greatest,) = computed(case("ArgMax", x, axis=1))
    (least,) = computed(case("ArgMin", x, axis=1))
    np.testing.assert_array_equal(greatest[:, 0], np.argmax(x, 1))
    np.testing.assert_array_equal(least[:, 0], np.argmin(x, 1))
    for largest in (0, 1):
        row = x[:, ::-1] if largest else x
        order = np.argsort(row, 1, kind="stable")
        order = (39 - order[:, ::-1]) if largest else order
        _, at = computed(case("TopK", x, ints(5), constants=[1], outputs=2, largest=largest))
        np.testing.assert_array_equal(at, order[:, :5])


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_products(exclusive: int, reverse: int) -> None:
    x = np.abs(normal(2, 9, 5)) + np.float32(0.5)
    row = x[:, ::-1] if reverse else x
    want = np.cumprod(row, 1)
    if exclusive:
        want = np.concatenate([np.ones((2, 1, 5), np.float32), want[:, :-1]], 1)
    own = {"exclusive": exclusive, "reverse": reverse}
    (out,) = computed(case("CumProd", x, ints(1)[0], constants=[1], opset=26, **own))
    close(out, want[:, ::-1] if reverse else want)


def sums(x: Array, **own: int) -> Array:
    return computed(case("CumSum", x, ints(0)[0], constants=[1], **own))[0]


def test_long_rows_of_floats_in_parts() -> None:
    x = normal(3000)
    close(sums(x), np.cumsum(x.astype(np.float64)).astype(np.float32))
    close(sums(x, reverse=1), np.cumsum(x[::-1].astype(np.float64))[::-1].astype(np.float32))


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (case("GatherElements", normal(3, 4), ints(0, 1)), "GatherElements of"),
        (case("GatherND", normal(3, 4), np.zeros((2, 3), np.int64)), "GatherND of"),
        (case("ScatterND", normal(3, 4), np.zeros((2, 1), np.int64), normal(3, 4)), "ScatterND of"),
        (case("TopK", normal(3, 4), ints(5), constants=[1], outputs=2), "TopK of 5 of 4"),
    ],
    ids=str,
)
def test_contradictions(one: Case, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        import_model(one.proto())
