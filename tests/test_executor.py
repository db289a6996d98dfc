"""The executor's tables: moves of every type and size, the order of sums, barriers where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from plans import GRAPHS, Model, planned
from waferc.codegen.barriers import barriers, orders
from waferc.codegen.records import Base, Record
from waferc.codegen.tables import make_tables
from waferc.ir import dtypes
from waferc.ir.dtypes import DType
from waferc.ir.graph import Graph
from waferc.placement.move import records
from waferc.placement.plan import Plan, Step
from waferc.placement.planner import plan
from waferc.placement.wafer import preset
from waferc.runtime.load import prepare

# -- moves -------------------------------------------------------------------------------------


def moved(dtype: DType, shape: tuple[int, int]) -> Graph:
    """A tensor that goes through every kind of move: transposed, in parts, reshaped."""
    m = Model()
    x = m.tensor("x", shape, dtype)
    t = m.op("Transpose", m.op("Identity", x), perm=[1, 0])
    both = m.op("Concat", x, m.op("Transpose", t, perm=[1, 0]), axis=1)
    return m.graph("moved", [x], [t, both])


@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (2, 301), (40, 5), (128, 33)], ids=str)
@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
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
    """Guard joins element by element, the executor rows by vectors: the bits are the same."""
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


# -- barriers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Byte:
    """What one thread does to one range of one core's SRAM."""

    core: int
    low: int
    high: int
    writes: bool
    thread: int


def touched(p: Plan, step: Step, by_columns: bool, threads: int) -> Iterator[Byte]:
    """Every access of a step, core by core: an own reading of the plan, for small grids."""
    columns, rows = step.grid.columns, step.grid.rows
    grid = p.regions[step.region].on(step.grid)
    shares = [(columns * rows * (k + 1)) // threads for k in range(threads)]
    thread: dict[tuple[int, int], int] = {}
    for number in range(columns * rows):
        x, y = (number // rows, number % rows) if by_columns else (number % columns, number // columns)
        thread[x, y] = next(k for k, end in enumerate(shares) if number < end)
    own = [(step.result, True), *((o.buffer, o.received) for o in step.operands)]
    own += [(step.scratch, True)] if step.scratch >= 0 else []
    for (x, y), k in thread.items():
        for b, writes in own:
            buffer = p.buffers[b]
            yield Byte(int(grid[y, x]), buffer.address, buffer.address + buffer.bytes, writes, k)
    producers = {s.result: s for s in p.steps if s.kind != "update"}
    for m in (*step.moves, *(m for o in step.operands for m in o.moves)):
        source = producers[m.source]
        cores = p.regions[source.region].on(source.grid).ravel()
        buffer = p.buffers[m.source]
        for chunk in records(m, step.grid):
            pairs: Any = np.unique(np.stack([chunk.target, chunk.source], 1), axis=0)
            for target, at in pairs.tolist():
                k = thread[target % columns, target // columns]
                yield Byte(int(cores[at]), buffer.address, buffer.address + buffer.bytes, False, k)


def races(p: Plan, steps: list[Step], order: list[bool], meet: list[bool], threads: int) -> list[str]:
    """Pairs of accesses by different threads with no barrier between, one of them writing."""
    out: list[str] = []
    since: dict[int, list[Byte]] = {}
    for s, by_columns, after in zip(steps, order, meet, strict=True):
        for b in touched(p, s, by_columns, threads):
            for a in since.get(b.core, []):
                if a.thread != b.thread and (a.writes or b.writes) and a.low < b.high and b.low < a.high:
                    out.append(f"{s.name}: core {b.core}, {a} and {b}")
            since.setdefault(b.core, []).append(b)
        if after:
            since = {}
    return out


@pytest.mark.parametrize("name", GRAPHS)
def test_no_two_threads_meet_at_an_address(name: str) -> None:
    p = planned(name, "8x8")
    steps = [s for s in p.steps if s.kind != "input"]
    order = orders(steps)
    meet = barriers(p, steps, order)
    assert meet[-1]
    assert races(p, steps, order, meet, 3) == []


def test_a_barrier_left_out_is_a_race() -> None:
    """The test above can fail; and there are steps that need no barrier."""
    p = planned("attention", "8x8")
    steps = [s for s in p.steps if s.kind != "input"]
    order = orders(steps)
    meet = barriers(p, steps, order)
    assert not all(meet)
    last = len(meet) - 1
    for i in [i for i, m in enumerate(meet) if m and i != last]:
        without = [m and j != i for j, m in enumerate(meet)]
        assert races(p, steps, order, without, 64), f"the barrier after {steps[i].name} is not needed"


# -- tables ------------------------------------------------------------------------------------


def test_tables_are_the_same_every_time_and_know_no_address() -> None:
    p = planned("convolution", "8x8")
    a, b = make_tables(p, 16), make_tables(p, 16)
    np.testing.assert_array_equal(a.tables.words, b.tables.words)
    np.testing.assert_array_equal(a.tables.relocations, b.tables.relocations)
    assert a.kernels == b.kernels
    assert a.pulls == b.pulls
    start, count = a.tables.steps
    assert count == len([s for s in p.steps if s.kind != "input"])
    kinds = {int(at): int(kind) for at, kind, _ in a.tables.relocations}
    for i in range(count):
        assert kinds[start + i * Record.SIZE + Record.BASES] == Base.REGION


def test_a_plan_without_guard_has_none_of_it() -> None:
    p = planned("mlp", "8x8")
    plain, guarded = make_tables(p, 16), make_tables(p, 16, guard=True)
    assert plain.tables.poisoning[1] == 0
    assert guarded.tables.poisoning[1] > 0
    assert guarded.tables.steps[1] > plain.tables.steps[1]  # buffers die between the steps
    assert not any(pull.guard for pull in plain.pulls)
    assert all(pull.guard for pull in guarded.pulls)
