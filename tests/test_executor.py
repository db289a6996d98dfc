"""The literal run's tables: moves of every type and size, the order of sums, what is poisoned when."""

from __future__ import annotations

import numpy as np
import pytest
from plans import Model, planned
from waferc.codegen.literal.tables import make_tables
from waferc.codegen.processor import Processor
from waferc.codegen.words import Base, StepWords
from waferc.ir import dtypes
from waferc.ir.dtypes import DType
from waferc.ir.graph import Graph
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan
from waferc.runtime.load import prepare

# -- moves -------------------------------------------------------------------------------------


def moved(dtype: DType, shape: tuple[int, int]) -> Graph:
    """A tensor that goes through every kind of move: transposed, in parts, reshaped."""
    m = Model()
    x = m.tensor("x", shape, dtype)
    t = m.op("Transpose", m.op("Identity", x), perm=[1, 0])
    both = m.op("Concat", x, m.op("Transpose", t, perm=[1, 0]), axis=1)
    return m.graph("moved", [x], [t, both])


@pytest.mark.thorough
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (2, 301), (40, 5), (128, 33)], ids=str)
@pytest.mark.parametrize("dtype", [*dtypes.ALL, *dtypes.SMALL], ids=str)
def test_every_type_is_moved_bit_by_bit(dtype: DType, shape: tuple[int, int]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (*shape, dtype.bytes), np.uint8)
    x = (raw[..., 0] > 127) if dtype == dtypes.BOOL else raw.view(dtype.numpy)[..., 0]
    p = plan(moved(dtype, shape), preset("8x8"))
    for guard in (False, True):
        t, both = prepare(p, guard=guard).run({"x": x}).values()
        assert t.tobytes() == np.ascontiguousarray(x.T).tobytes()
        assert both.tobytes() == np.concatenate([x, x], 1).tobytes()


def test_padding_is_filled_for_every_size_of_element() -> None:
    for dtype in (dtypes.I8, dtypes.I16, dtypes.F32, dtypes.F64):
        m = Model()
        x = m.tensor("x", (9, 21), dtype)
        pads = m.constant(np.array([2, 3, 1, 4], np.int64))
        value = m.constant(np.array(7, dtype.numpy))
        graph = m.graph("padded", [x], [m.op("Neg", m.op("Pad", m.op("Neg", x), pads, value))])
        given = np.arange(189).reshape(9, 21).astype(dtype.numpy)
        (out,) = prepare(plan(graph, preset("8x8")), guard=True).run({"x": given}).values()
        inner = np.pad(-given, ((2, 1), (3, 4)), constant_values=7)
        np.testing.assert_array_equal(out, -inner)


def joined(n: int, k: int) -> Graph:
    m = Model()
    x = m.tensor("x", (n, k), dtypes.F32)
    return m.graph("joined", [x], [m.op("MatMul", x, m.normal(0, k, 5))])


def test_partial_results_are_joined_in_the_order_of_their_index() -> None:
    """A guarded run joins them element by element, a normal one in chunks: the bits are the same."""
    found = 0
    for n, k in ((1, 4096), (3, 2048), (16, 1024)):
        p = plan(joined(n, k), preset("16x16"))
        joins = [s for s in p.steps if s.kind == "join"]
        found += len(joins)
        x = np.random.default_rng(n).standard_normal((n, k)).astype(np.float32)
        (plain,) = prepare(p).run({"x": x}).values()
        (guarded,) = prepare(p, guard=True).run({"x": x}).values()
        assert plain.tobytes() == guarded.tobytes()
        weight = next(iter(p.graph.constants.values()))
        np.testing.assert_allclose(plain, x @ weight, rtol=0, atol=1e-3)
    assert found, "no product was cut along its sum"


# -- tables ------------------------------------------------------------------------------------


def test_tables_are_the_same_every_time_and_know_no_address() -> None:
    p = planned("convolution", "8x8")
    a, b = (make_tables({"main": p}, Processor(16))["main"] for _ in range(2))
    np.testing.assert_array_equal(a.tables.words, b.tables.words)
    np.testing.assert_array_equal(a.tables.relocations, b.tables.relocations)
    assert a.kernels == b.kernels
    assert a.pulls == b.pulls
    start, count = a.tables.steps
    kinds = {int(at): int(kind) for at, kind, _ in a.tables.relocations}
    assert {kinds[start + i * StepWords.SIZE + StepWords.BASES] for i in range(count)} == {Base.REGION}


def test_what_nothing_else_kept_is_poisoned_when_it_dies() -> None:
    """Every buffer but constants and states is poisoned before a call, and again by the step it dies at."""
    p = planned("mlp", "8x8")
    t = make_tables({"main": p}, Processor(16))["main"].tables
    start, count = t.steps
    numbers = t.words[start : start + count * StepWords.SIZE].reshape(count, StepWords.SIZE)[
        :, StepWords.NUMBER
    ]
    assert [s.number for s in p.steps if s.kind != "input"] == numbers[numbers >= 0].tolist()
    died = {b.live[1] for b in p.buffers if not b.stays}
    for position in died & set(range(len(p.steps))):
        i = numbers.tolist().index(next(s.number for s in p.steps if s.position == position))
        assert numbers[i + 1] == -1
    assert t.poisoning[1] > 0
