"""Weights dequantised in the graph: what products read of them, and that it is the same product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from plans import Model
from sampled import sampled
from test_sweeps import agree, inputs_of
from waferc.compiler.passes.simplify import simplify
from waferc.ir import dtypes
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph
from waferc.ir.op import Array
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan

RANDOM = np.random.default_rng(3)


def stored(dtype: dtypes.DType, *shape: int) -> Array:
    low, high = dtype.limits
    return RANDOM.integers(int(low), int(high), shape, endpoint=True).astype(dtype.numpy)


def scales(*shape: int) -> Array:
    return RANDOM.uniform(0.01, 0.1, shape).astype(np.float32)


def gemm(m: Model, x: str, w: str) -> str:
    return m.op("Gemm", x, w, transB=1)


def transposed(m: Model, x: str, w: str) -> str:
    return m.op("MatMul", x, m.op("Transpose", w, perm=[1, 0]))


def conv(m: Model, x: str, w: str) -> str:
    return m.op("Conv", x, w, pads=[1, 1, 1, 1], group=2)


def looked_up(m: Model, x: str, w: str) -> str:
    """A table that a product reads, too."""
    rows = m.op("Gather", w, m.constant(np.array([3, 1], np.int64)), axis=0)
    return m.op("Concat", m.op("Gemm", x, w, transB=1), m.op("Gemm", rows, w, transB=1), axis=0)


MATRIX, IMAGE = (9, 40), (1, 8, 7, 7)
CASES: list[tuple[Any, Sequence[int], Array, Sequence[Array], int, dtypes.DType | None]] = [
    (gemm, MATRIX, stored(dtypes.I8, 30, 40), [scales()], 0, dtypes.I8),
    (gemm, MATRIX, stored(dtypes.I8, 30, 40), [scales(30)], 0, dtypes.I8),
    (gemm, MATRIX, stored(dtypes.U8, 30, 40), [scales(30), np.full(30, 128, np.uint8)], 0, dtypes.I8),
    (gemm, MATRIX, stored(dtypes.U8, 30, 40), [scales(30), stored(dtypes.U8, 30)], 0, dtypes.I16),
    (gemm, MATRIX, stored(dtypes.I4, 30, 40), [scales(30), stored(dtypes.I4, 30)], 0, dtypes.U32),
    (gemm, MATRIX, stored(dtypes.U4, 30, 40), [scales(30)], 0, dtypes.U32),
    (gemm, MATRIX, stored(dtypes.I8, 30, 40), [scales(40)], 1, None),
    (transposed, MATRIX, stored(dtypes.I8, 30, 40), [scales(30)], 0, dtypes.I8),
    (conv, IMAGE, stored(dtypes.I8, 6, 4, 3, 3), [scales(6), stored(dtypes.I8, 6)], 0, dtypes.I16),
    (conv, IMAGE, stored(dtypes.I8, 6, 4, 3, 3), [scales(6)], 0, dtypes.I8),
    (conv, IMAGE, stored(dtypes.I8, 6, 4, 3, 3), [scales(4)], 1, None),
    (looked_up, MATRIX, stored(dtypes.I8, 30, 40), [scales(30)], 0, None),
]


def by_bytes(m: Model, x: str) -> str:
    """Of at most 12.8."""
    scale, zero = m.constant(np.float32(0.1)), m.constant(np.int8(3))
    return m.op("DequantizeLinear", m.op("QuantizeLinear", x, scale, zero), scale, zero)


def moved(m: Model, x: str) -> str:
    return m.op("Reshape", m.op("Neg", by_bytes(m, x)), m.constant(np.array(m.shape(x), np.int64)))


def norm(m: Model, x: str) -> str:
    return m.op("RMSNormalization", x, m.constant(np.full(m.shape(x)[-1], 0.5, np.float32)))


def softmax(m: Model, x: str) -> str:
    return m.op("Softmax", x)


def built(case: int, bound: Callable[[Model, str], str] | None) -> Graph:
    """bound: what makes of the input something that products read, and that has a bound."""
    make, shape, weight, others, axis, _ = CASES[case]
    m = Model()
    given = m.tensor("x", shape, dtypes.F32)
    x = given if bound is None else bound(m, given)
    names = [m.constant(v, "weight") for v in (weight, *others)]
    y = make(m, x, m.op("DequantizeLinear", *names, axis=axis))
    return m.graph("quantised", [given], [m.op("Relu", y)])


def types_of(graph: Graph) -> set[dtypes.DType]:
    """Of the constants that are matrices or more."""
    constants = [graph.tensors[n] for n in graph.constants]
    return {t.dtype for t in constants if sum(n > 1 for n in t.shape) > 1}


@pytest.mark.parametrize("bound", [None, by_bytes])
@pytest.mark.parametrize("case", sampled(range(len(CASES)), 3))
def test_products_read_what_is_stored(case: int, bound: Callable[[Model, str], str] | None) -> None:
    graph, wanted = built(case, bound), CASES[case][-1]
    ready = simplify(graph)
    assert types_of(ready) == {dtypes.F32 if wanted is None else wanted if bound else dtypes.U32}
    inputs = inputs_of(graph, 0)
    exact = evaluate(graph, inputs)
    for g in (ready, graph):  # a graph that is not simplified dequantises at run time
        for name, value in agree(plan(g, preset("8x8")))[0].items():
            largest = float(np.abs(exact[name]).max())
            np.testing.assert_allclose(value, exact[name], rtol=0, atol=2e-6 * largest)


@pytest.mark.parametrize("bound", [by_bytes, moved, norm, softmax])
def test_a_scale_waits_where_what_it_scales_is_bounded(bound: Callable[[Model, str], str]) -> None:
    assert types_of(simplify(built(1, bound))) == {dtypes.I8}


@pytest.mark.parametrize("kind", [dtypes.I8, dtypes.U8, dtypes.I4, dtypes.I16, dtypes.F8E4M3FN])
@pytest.mark.parametrize("size", [1e36, 1e-38])
def test_no_scale_moves_a_sum_out_of_range(kind: dtypes.DType, size: float) -> None:
    """Sums of 1e36 * 100 leave f32's range, those of 1e36 * 100 * 1e-3 do not."""
    m = Model()
    x, w = m.tensor("x", (2, 40), dtypes.F32), np.full((30, 40), 7).astype(kind.numpy)
    names = m.constant(w, "weight"), m.constant(np.full(30, 1e-3, np.float32))
    y = m.op("Gemm", x, m.op("DequantizeLinear", *names, axis=0), transB=1)
    graph = m.graph("wide", [x], [y])
    given = {"x": np.full((2, 40), size, np.float32)}
    with np.errstate(all="raise"):
        (exact,) = evaluate(graph, given).values()
    ((found,),) = [agree(plan(simplify(graph), preset("4x4")), feed=lambda _: given)[0].values()]
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    np.testing.assert_allclose(exact, np.full((2, 30), 40 * size * 7e-3), rtol=1e-4)


def test_a_scale_does_not_wait_where_its_norm_is_not_bounded() -> None:
    """A gain that is computed, or so large that 40 numbers of 8 bits times it sum up past the range."""

    def computed(m: Model, x: str) -> str:
        gain = m.op("ReduceMax", x, axes=[0], keepdims=0)
        return m.op("RMSNormalization", x, gain)

    def large(m: Model, x: str) -> str:
        return m.op("RMSNormalization", x, m.constant(np.full(40, 1e34, np.float32)))

    for bound in (computed, large):
        assert types_of(simplify(built(1, bound))) == {dtypes.U32}
