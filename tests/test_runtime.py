"""Loaded programs: calls, states, threads, and what they refuse."""

from __future__ import annotations

import os
import threading
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from plans import GRAPHS, Model, all_shared, planned
from waferc.codegen.host.arena import share
from waferc.codegen.host.calls import barriers
from waferc.codegen.host.homes import View
from waferc.ir import dtypes
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph, InvalidModel
from waferc.ir.op import Array
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan
from waferc.runtime import program as running
from waferc.runtime.load import prepare
from waferc.runtime.program import InputError, Program
from waferc.runtime.workers import usable


def inputs_of(graph: Graph, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    tensors = [graph.tensors[t] for t in graph.inputs]
    return {t.name: random.standard_normal(t.shape).astype(t.dtype.numpy) for t in tensors}


def bits(outputs: dict[str, Array]) -> dict[str, bytes]:
    return {n: a.tobytes() for n, a in outputs.items()}


@pytest.fixture
def two() -> Program:
    """A program whose calls take two threads, where there are two processors."""
    with all_shared():
        return prepare(planned("mlp", "8x8"), threads=2)


# -- numbers and threads -----------------------------------------------------------------------


@pytest.mark.parametrize("wafer", ["8x8", "32x32"])
@pytest.mark.parametrize("name", GRAPHS)
def test_outputs_are_those_of_the_reference(name: str, wafer: str) -> None:
    p = planned(name, wafer)
    inputs = inputs_of(p.graph)
    ours, right = prepare(p).run(inputs), evaluate(p.graph, inputs)
    assert list(ours) == list(p.graph.outputs)
    for n, a in ours.items():
        np.testing.assert_allclose(a, right[n], rtol=0, atol=1e-5 * float(np.abs(right[n]).max()))


@pytest.mark.parametrize("name", GRAPHS)
def test_the_bits_are_the_same_for_all_threads_and_repeats(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "usable", lambda: 3)
    p = planned(name, "16x16")
    inputs, once = inputs_of(p.graph), bits(prepare(p).run(inputs_of(p.graph), 1))
    with all_shared():
        assert all(s.shared for s in share({"main": p}, 16).entries["main"].sweeps)
        program = prepare(p, threads=2)
    for threads in (1, 2, 3, 2, 1, 3, None):
        program.reset()
        assert bits(program.run(inputs, threads)) == once


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_threads_meet_between_sweeps_that_touch_the_same_memory(name: str, shared: bool) -> None:
    p = planned(name, "16x16")
    with all_shared() if shared else nullcontext():
        found = share({"main": p}, 16)
    sweeps, homes = found.entries["main"].sweeps, found.homes
    met = np.cumsum([0, *barriers(sweeps, homes)])  # how often before each sweep

    def memory(v: View) -> set[int]:
        home = homes[v.home]
        return set(range(home.offset, home.offset + home.bytes, 4))

    for j, after in enumerate(sweeps):
        for i, before in enumerate(sweeps[:j]):
            own, others = memory(after.views[-1]), memory(before.views[-1])
            touched = [own & memory(v) for v in before.views] + [others & memory(v) for v in after.views]
            if any(touched) and (before.shared or after.shared):
                assert met[i] < met[j], (before.name, after.name)


def test_threads_do_not_wait_between_sweeps_that_have_nothing_in_common() -> None:
    m = Model()
    x, y = m.tensor("x", (4, 64), dtypes.F32), m.tensor("y", (4, 64), dtypes.F32)
    products = m.op("MatMul", x, m.normal(1, 64, 32)), m.op("MatMul", y, m.normal(2, 64, 48))
    graph = m.graph("apart", [x, y], products)
    with all_shared():
        found = share({"main": plan(graph, preset("8x8"))}, 16)
    assert barriers(found.entries["main"].sweeps, found.homes) == [False, False]


def test_a_program_takes_as_many_threads_as_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    p = planned("mlp", "8x8")
    assert prepare(p).threads == usable()
    assert prepare(p, threads=1).threads == 1
    monkeypatch.setattr(running, "usable", lambda: 3)
    assert prepare(p).threads == 3


def test_threads_are_no_more_than_processors(two: Program) -> None:
    assert prepare(planned("mlp", "8x8"), threads=1000).threads == usable()
    inputs = inputs_of(planned("mlp", "8x8").graph)
    assert bits(two.run(inputs, 1000)) == bits(two.run(inputs, 1))


def test_a_call_leaves_the_callers_affinity_alone(two: Program) -> None:
    before = os.sched_getaffinity(0)
    two.run(inputs_of(planned("mlp", "8x8").graph), 2)
    assert os.sched_getaffinity(0) == before


def test_threads_are_kept_between_calls_and_end_with_the_program() -> None:
    """They sleep while there is nothing to do, and are woken."""
    with all_shared():
        program = prepare(planned("mlp", "8x8"))
    inputs = inputs_of(planned("mlp", "8x8").graph)
    before = set(threading.enumerate())
    once = bits(program.run(inputs, 2))
    kept = set(threading.enumerate()) - before
    for rest in (0, 0, 0.02, 0.1, 0):
        time.sleep(rest)
        assert bits(program.run(inputs, 2)) == once
    assert set(threading.enumerate()) - before == kept
    assert len(kept) == min(2, usable()) - 1
    del program
    for t in kept:
        t.join(5)
        assert not t.is_alive()


def test_calls_from_several_threads_take_turns(two: Program) -> None:
    graph = planned("mlp", "8x8").graph
    feeds = [inputs_of(graph, seed) for seed in range(4)]
    right = [bits(two.run(f)) for f in feeds]
    got: list[Any] = [None] * 4

    def call(i: int) -> None:
        for _ in range(20):
            got[i] = bits(two.run(feeds[i], 1 + i % 2))
            if got[i] != right[i]:
                return

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == right


# -- inputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y": np.zeros(3)}, r"no input 'y'; inputs are 'x'"),
        ({"x": None}, r"input 'x' is missing: float32\[10, 100\]"),
        ({"x": np.zeros((10, 99), np.float32)}, r"'x' has shape \[10, 99\], compiled for \[10, 100\]"),
        ({"x": np.zeros((10, 100))}, r"'x' has type float64, the program takes float32"),
        ({"x": np.zeros((10, 100), ">f4")}, r"'x' has type >f4, the program takes float32"),
    ],
)
def test_inputs_that_do_not_fit(two: Program, changes: dict[str, Any], message: str) -> None:
    good = inputs_of(planned("mlp", "8x8").graph)
    right = bits(two.run(good))
    bad = {k: v for k, v in {**good, **changes}.items() if v is not None}
    with pytest.raises(InputError, match=message):
        two.run(bad)
    assert bits(two.run(good)) == right


def test_inputs_need_not_be_dense_and_are_not_changed(two: Program) -> None:
    (x,) = inputs_of(planned("mlp", "8x8").graph).values()
    wide = np.repeat(x, 2, axis=1)
    strided = wide[:, ::2]
    strided.setflags(write=False)
    assert bits(two.run({"x": strided})) == bits(two.run({"x": x}))
    assert (wide == np.repeat(x, 2, axis=1)).all()


def test_outputs_belong_to_the_caller(two: Program) -> None:
    graph = planned("mlp", "8x8").graph
    first = two.run(inputs_of(graph, 0))
    kept = bits(first)
    two.run(inputs_of(graph, 1))
    assert bits(first) == kept


def scalars() -> Graph:
    m = Model()
    x, n = m.tensor("x", (), dtypes.F32), m.tensor("n", (), dtypes.I64)
    return m.graph("scalars", [x, n], [m.op("Neg", x), m.op("Neg", n)])


def test_scalars() -> None:
    program = prepare(plan(scalars(), preset("8x8")))
    a, b = program.run({"x": np.float32(2.5), "n": np.int64(-7)}).values()
    assert (a.shape, a.dtype, a[()]) == ((), np.float32, -2.5)
    assert (b.shape, b.dtype, b[()]) == ((), np.int64, 7)


def test_an_input_that_is_an_output_and_one_that_nobody_reads() -> None:
    m = Model()
    x, y = m.tensor("x", (5, 7), dtypes.F32), m.tensor("y", (300,), dtypes.F32)
    graph = m.graph("through", [x, y], [x, m.op("Neg", x)])
    inputs = inputs_of(graph)
    for guard in (False, True):
        a, b = prepare(plan(graph, preset("8x8")), guard=guard).run(inputs).values()
        np.testing.assert_array_equal(a, inputs["x"])
        np.testing.assert_array_equal(b, -inputs["x"])


def test_backwards_through_a_tensor_cut_along_two_sides() -> None:
    """A reversing Slice: the element of iteration 0 is the box's last."""
    m = Model()
    x = m.tensor("x", (7, 1500), dtypes.F32)
    ends = [m.constant(np.array(v, np.int64)) for v in ([-1, -1], [-100, -2000], [0, 1], [-1, -1])]
    graph = m.graph("reversed", [x], [m.op("Neg", m.op("Slice", m.op("Relu", x), *ends))])
    inputs = inputs_of(graph)
    (out,) = prepare(plan(graph, preset("16x16")), guard=True).run(inputs).values()
    np.testing.assert_array_equal(out, -np.maximum(inputs["x"], 0)[::-1, ::-1])


# -- states ------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("wafer", ["8x8", "32x32"])
def test_a_state_is_kept_reset_and_overridden(wafer: str, guard: bool) -> None:
    p = planned("state", wafer)
    program = prepare(p, guard=guard)
    y, present = p.graph.outputs
    weight = next(iter(p.graph.constants.values()))
    assert program.state_inputs == {"past"}

    def right(x: Array, past: Array) -> None:
        out = program.run({"x": x})
        np.testing.assert_allclose(out[y], past @ weight, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(out[present], past + x)

    past = np.zeros((4, 24), np.float32)
    for i in range(3):
        x = inputs_of(p.graph, i)["x"]
        right(x, past)
        past = past + x
    program.reset()
    right(x, np.zeros_like(past))

    given = inputs_of(p.graph, 9)
    out = program.run(given, 2)
    np.testing.assert_array_equal(out[present], given["past"] + given["x"])
    right(x, given["past"] + given["x"])


def test_a_state_that_takes_another_ones_old_value() -> None:
    """A delay line: the second state becomes what the first one was, whatever order they are given in."""
    m = Model()
    x, a, b = (m.tensor(n, (4, 8), dtypes.F32) for n in ("x", "a", "b"))
    y, new = m.op("Neg", b), m.op("Add", x, x)
    graph = m.graph("delay", [x, a, b], [y, new], [(a, new), (b, a)])
    program = prepare(plan(graph, preset("4x4")))
    given = [np.full((4, 8), i, np.float32) for i in range(1, 6)]
    seen = [program.run({"x": v})[y][0, 0] for v in given]
    assert seen == [0, 0, -2, -4, -6]


def test_states_that_swap_are_refused() -> None:
    m = Model()
    a, b = (m.tensor(n, (4,), dtypes.F32) for n in ("a", "b"))
    with pytest.raises(InvalidModel, match="swap"):
        m.graph("swap", [a, b], [m.op("Neg", a)], [(a, b), (b, a)])


def test_a_refused_call_leaves_the_state_alone() -> None:
    p = planned("state", "8x8")
    program, x = prepare(p), inputs_of(p.graph)["x"]
    program.run({"x": x})
    with pytest.raises(InputError):
        program.run({"x": x, "past": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(program.run({"x": x})[p.graph.outputs[1]], x + x)
