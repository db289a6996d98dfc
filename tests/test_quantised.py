"""Weights dequantised in the graph: what products read of them, and that it is the same product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from plans import Model
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


def built(case: int) -> Graph:
    make, shape, weight, others, axis, _ = CASES[case]
    m = Model()
    x = m.tensor("x", shape, dtypes.F32)
    names = [m.constant(v, "weight") for v in (weight, *others)]
    y = make(m, x, m.op("DequantizeLinear", *names, axis=axis))
    return m.graph("quantised", [x], [m.op("Relu", y)])


@pytest.mark.parametrize("case", range(len(CASES)))
def test_products_read_what_is_stored(case: int) -> None:
    graph, wanted = built(case), CASES[case][-1]
    ready = simplify(graph)
    constants = [ready.tensors[n] for n in ready.constants]
    found = {t.dtype for t in constants if sum(n > 1 for n in t.shape) > 1}
    assert found == {wanted or dtypes.F32}
    inputs = inputs_of(graph, 0)
    exact = evaluate(graph, inputs)
    for g in (ready, graph):  # a graph that is not simplified dequantises at run time
        for name, value in agree(plan(g, preset("8x8")))[0].items():
            largest = float(np.abs(exact[name]).max())
            np.testing.assert_allclose(value, exact[name], rtol=0, atol=2e-6 * largest)
