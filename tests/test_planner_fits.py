"""Models that fill most of a small wafer's memory: they fit, and compute what they should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from plans import Model
from waferc import compile_model
from waferc.compiler.verify.golden import OnnxRuntime
from waferc.ir.dtypes import F32
from waferc.placement.build import placement_file as written
from waferc.placement.build import routes as route
from waferc.placement.build.addresses import allocate
from waferc.placement.machine.presets import preset
from waferc.placement.plan.layout import Grid
from waferc.placement.plan.plan import Buffer
from waferc.placement.search.budget import budget
from waferc.placement.splits.choice import Site
from waferc.placement.splits.policy import POLICY

WAFER = "8x8"
SRAM = preset(WAFER).cores * preset(WAFER).sram_bytes
Array = np.ndarray[Any, np.dtype[Any]]


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    output: tuple[str, Sequence[int]],
    weights: Mapping[str, Array],
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "full",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(v, n) for n, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("size", [256, 320])
def test_a_product_streams_its_operand_where_three_matrices_fill_memory(size: int) -> None:
    x, w = normal(size, size), normal(size, size + 1)[:, 1:].copy()
    model = onnx_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, (size, size))},
        ("y", (size, size)),
        {"w": w},
    )
    c = compile_model(model, wafer=WAFER)
    assert any(s.split.grid[2] > 1 for s in c.plan.steps if s.kind == "task")
    np.testing.assert_allclose(c.run({"x": x})["y"], x @ w, rtol=0, atol=1e-4 * size)


def test_a_table_that_is_read_twice_is_kept_once() -> None:
    rows, width = 4096, 96
    table, gain = normal(rows, width), normal(width, width) / 10
    assert 2 * table.nbytes > SRAM > table.nbytes
    model = onnx_model(
        [
            helper.make_node("Gather", ["table", "token"], ["x"]),
            helper.make_node("MatMul", ["x", "gain"], ["h"]),
            helper.make_node("Gemm", ["h", "table"], ["y"], transB=1),
        ],
        {"token": (TensorProto.INT64, (1,))},
        ("y", (1, rows)),
        {"table": table, "gain": gain},
    )
    c = compile_model(model, wafer=WAFER)
    large = [b for b in c.plan.buffers if b.role == "constant" and b.name in c.graph.constants]
    assert sum(b.bytes * b.grid.cores for b in large) < 1.3 * (table.nbytes + gain.nbytes)
    for token in (0, 7, rows - 1):
        want = (table[[token]] @ gain) @ table.T
        np.testing.assert_allclose(c.run({"token": np.array([token])})["y"], want, rtol=0, atol=1e-3)
    again = written.read(c.placement(), c.graph, c.plan.wafer)
    assert str(route.routed(again)) == str(c.plan)
    # Budgeted as kept once with a row that is whole on the product's cores, or twice.
    b = budget(c.graph, range(len(c.graph.nodes)), Site(0, 8, 8, preset(WAFER), POLICY))
    (name,) = (t for t in c.graph.constants if c.graph.tensors[t].bytes == table.nbytes)
    first = next(b.offers[key] for i, key in b.keys.items() if name in c.graph.nodes[i].inputs)
    once = first.share == first.resident
    assert once.any() and (first.share[~once] == 2 * first.resident[~once]).all()
    assert first.working[once].min() > first.working[~once].min()


def test_convolutions_whose_activations_crowd_memory_run_in_steps() -> None:
    """Weights take a sixth of memory, two layers' results alive at once two thirds."""
    channels, side = (48, 192), 32
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, Array] = {}
    tensor = "x"
    for i in range(4):
        inner, outer = channels if i % 2 == 0 else channels[::-1]
        k = 3 if i == 0 else 1
        weights[f"w{i}"] = normal(outer, inner, k, k) * np.float32((2 / (inner * k * k)) ** 0.5)
        nodes.append(helper.make_node("Conv", [tensor, f"w{i}"], [f"c{i}"], pads=[k // 2] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        tensor = f"r{i}"
    shape = (1, channels[0], side, side)
    model = onnx_model(nodes, {"x": (TensorProto.FLOAT, shape)}, (tensor, shape), weights)
    c = compile_model(model, wafer=WAFER)
    assert any(s.split.grid[2] > 1 for s in c.plan.steps if s.kind == "task")
    x = normal(*shape)
    want = OnnxRuntime(model).run({"x": x})[tensor]
    np.testing.assert_allclose(c.run({"x": x})[tensor], want, rtol=0, atol=1e-4 * float(np.abs(want).max()))


def test_limits_leave_room_for_what_else_is_alive() -> None:
    m = Model()
    x = m.tensor("x", (256, 256), F32)
    h = m.op("Relu", m.op("MatMul", x, m.normal(0, 256, 256)))
    graph = m.graph("m", [x], [m.op("Add", h, x)])
    wafer = preset(WAFER)
    b = budget(graph, range(len(graph.nodes)), Site(0, wafer.width, wafer.height, wafer, POLICY))
    # x is alive all along; when Add runs, so is what Relu made.
    share = 256 * 256 * 4 / wafer.cores
    assert [b.carried[i] for i in range(len(graph.nodes))] == [share, 2 * share, 2 * share]
    limits = b.limits(40_000)
    kept = sum(one.resident for one in limits.values())
    assert share <= kept < 40_000
    for i, one in limits.items():
        assert kept + b.carried[i] + one.working <= 40_000 * 1.01


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=14))
def test_a_limit_never_makes_addresses_worse(drawn: list[tuple[int, int, int]]) -> None:
    made = [
        Buffer(i, f"b{i}", "result", 0, Grid(1, 1), F32, (n,), (0,), (first, first + length))
        for i, (n, first, length) in enumerate(drawn)
    ]

    def highest(buffers: Sequence[Buffer]) -> int:
        return max(b.address + b.bytes for b in buffers)

    free = highest(allocate(made, (0,)))
    peak = max(sum(b.bytes for b in made if b.live[0] <= t <= b.live[1]) for t in range(14))
    placed = allocate(made, (0,), limit=peak)
    assert peak <= highest(placed) <= free
    assert all(b.address % 4 == 0 for b in placed)
    for i, a in enumerate(placed):
        for b in placed[:i]:
            if a.live[0] <= b.live[1] and b.live[0] <= a.live[1]:
                assert a.address + a.bytes <= b.address or b.address + b.bytes <= a.address
