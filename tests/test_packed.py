"""Weights in words of several numbers: the products and look-ups of the floats that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from plans import Model
from sampled import sampled
from test_sweeps import agree, inputs_of
from waferc import compile_model
from waferc.compiler.errors import UsageError
from waferc.compiler.passes.packed_weights import pack_floats
from waferc.compiler.passes.simplify import simplify
from waferc.compiler.verify.golden import OnnxRuntime
from waferc.ir import dtypes, packing
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph
from waferc.ir.op import Array
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan
from waferc.runtime.load import load, prepare

RANDOM = np.random.default_rng(5)
KINDS = {"i4": dtypes.I4, "u4": dtypes.U4, "i8": dtypes.I8, "u8": dtypes.U8, "u2": dtypes.U2}
FLOATS = {"f16": np.float16, "f32": np.float32}


@given(st.sampled_from([2, 4, 8]), st.integers(0, 1), st.integers(0, 2**32 - 1))
def test_words_hold_their_numbers(bits: int, dim: int, seed: int) -> None:
    shape = [3, 3]
    shape[dim] = 5 * packing.count(bits)
    numbers = np.random.default_rng(seed).integers(0, 1 << bits, shape).astype(np.uint8)
    words = packing.packed(numbers, dim, bits)
    assert words.nbytes * 8 == numbers.size * bits
    apart = np.moveaxis(packing.unpacked(words, bits), -1, dim + 1)
    np.testing.assert_array_equal(apart.reshape(shape), numbers)


def stored(kind: str, *shape: int) -> Array:
    low, high = KINDS[kind].limits
    return RANDOM.integers(int(low), int(high), shape, endpoint=True).astype(KINDS[kind].numpy)


def scales(kind: str, *shape: int) -> Array:
    return (RANDOM.uniform(0.01, 0.1, shape) * RANDOM.choice([-1, 1], shape)).astype(FLOATS[kind])


# shape of x; of the weights [k, n] or [n, k]; numbers, scales, block along k, whether there are zero points
CASES: list[tuple[Sequence[int], bool, str, str, int, bool]] = [
    ((1, 64), False, "u4", "f32", 32, False),
    ((1, 64), False, "u4", "f16", 32, True),
    ((5, 64), True, "i4", "f32", 16, True),
    ((3, 96), False, "i4", "f32", 64, False),  # cut finer, as no whole number of blocks is 96 long
    ((2, 3, 40), True, "u8", "f32", 8, True),
    ((9, 48), False, "i8", "f16", 16, False),
    ((4, 32), False, "u2", "f32", 16, True),
    ((1, 24), False, "i4", "f32", 24, False),
]


def built(case: int) -> Graph:
    shape, turned, kind, scale, block, zeros = CASES[case]
    m, depth, columns = Model(), shape[-1], 37
    x = m.tensor("x", shape, dtypes.F32)
    own = (columns, depth) if turned else (depth, columns)
    axis = int(turned)
    each = tuple(-(-n // block) if d == axis else n for d, n in enumerate(own))
    parts = [stored(kind, *own), scales(scale, *each), *([stored(kind, *each)] if zeros else [])]
    names = [m.constant(v, "weight") for v in parts]
    w = m.op("DequantizeLinear", *names, axis=axis, block_size=block, output_dtype=1)
    w = m.op("Transpose", w, perm=[1, 0]) if turned else w
    return m.graph("packed", [x], [m.op("Relu", m.op("MatMul", x, w))])


@pytest.mark.parametrize("case", sampled(range(len(CASES)), 3))
def test_products_read_words(case: int) -> None:
    graph = built(case)
    ready = simplify(graph)
    words = [ready.constants[n] for n in ready.constants if ready.tensors[n].dtype == packing.WORD]
    shape, _, kind, *_ = CASES[case]
    assert [w.nbytes * 8 for w in words] == [shape[-1] * 37 * KINDS[kind].bits]
    assert not [t for t in map(ready.tensors.get, ready.constants) if t and t.bytes > words[0].nbytes]
    exact = evaluate(graph, inputs_of(graph, 0))
    for wafer in ("4x4", "16x16"):
        for name, value in agree(plan(ready, preset(wafer)), (1, 2))[0].items():
            largest = float(np.abs(exact[name]).max())
            np.testing.assert_allclose(value, exact[name], rtol=0, atol=2e-6 * largest)


@pytest.mark.parametrize("scale", FLOATS)
@pytest.mark.parametrize("kind", sampled(["u4", "u8", "u2"], 3))
def test_a_weight_is_rounded_as_the_standard_says(kind: str, scale: str) -> None:
    """Each weight alone: x has one 1 in a row."""
    m = Model()
    depth, columns = 32, 33
    x = m.tensor("x", (depth, depth), dtypes.F32)
    parts = [
        stored(kind, depth, columns),
        scales(scale, 2, columns) * FLOATS[scale](1 / 3),
        stored(kind, 2, columns),
    ]
    names = [m.constant(v, "weight") for v in parts]
    w = m.op("DequantizeLinear", *names, axis=0, block_size=16, output_dtype=1)
    graph = m.graph("one", [x], [m.op("MatMul", x, w)])
    ones = {"x": np.eye(depth, dtype=np.float32)}
    (right,) = evaluate(graph, ones).values()
    found = agree(plan(simplify(graph), preset("4x4")), (1,), lambda _: ones)
    (ours,) = found[0].values()
    np.testing.assert_array_equal(ours, right)


def tied(scale: str, kind: str, zeros: bool) -> Graph:
    """A table that is looked up and multiplied with."""
    m = Model()
    at, x = m.tensor("at", (3,), dtypes.I64), m.tensor("x", (2, 48), dtypes.F32)
    parts = [stored(kind, 41, 48), scales(scale, 41, 3), *([stored(kind, 41, 3)] if zeros else [])]
    names = [m.constant(v, "table") for v in parts]
    w = m.op("DequantizeLinear", *names, axis=1, block_size=16, output_dtype=1)
    rows = m.op("Gather", w, at, axis=0)
    return m.graph("tied", [at, x], [m.op("Tanh", rows), m.op("Gemm", x, w, transB=1)])


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("kind", sampled(["i4", "u8"], 2))
def test_a_table_lies_once(kind: str, zeros: bool) -> None:
    graph = tied("f16", kind, zeros)
    ready = simplify(graph)
    kinds = sorted(str(ready.tensors[n].dtype) for n in ready.constants)
    assert kinds == sorted(["u32", "f16", *(["u8"] if zeros else [])])
    feed = {"at": np.array([40, 0, -1]), "x": RANDOM.standard_normal((2, 48), np.float32)}
    exact = evaluate(graph, feed)
    for name, value in agree(plan(ready, preset("8x8")), (1, 2), lambda _: feed)[0].items():
        np.testing.assert_allclose(value, exact[name], rtol=0, atol=2e-6 * float(np.abs(exact[name]).max()))


def test_cycles_count_what_is_unpacked() -> None:
    """The same product takes longer than of f16, and its bytes are a quarter and the scales."""
    ready = simplify(built(1))
    node = next(n for n in ready.nodes if n.op.product)
    kinds = {w.kind for w in node.op.work(node.op.size)}
    assert kinds == {"fma", "unpack"}
    wafer = preset("4x4")
    free = replace(wafer, vector={**wafer.vector, "unpack_f16": (0.0, 1e9), "unpack_f32": (0.0, 1e9)})
    assert wafer.task(node.op, node.op.size)[0] > free.task(node.op, node.op.size)[0]
    p = plan(ready, wafer)
    assert int(p.sram().sum()) >= sum(ready.tensors[n].bytes for n in ready.constants)


# -- models of floats --------------------------------------------------------------------------
def decoder() -> onnx.ModelProto:
    """A table that is looked up and multiplied with, places that are only looked up, a product between."""
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["rows"]),
        helper.make_node("Gather", ["places", "i"], ["at"]),
        helper.make_node("Add", ["rows", "at"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["g"]),
        helper.make_node("Tanh", ["g"], ["t"]),
        helper.make_node("Einsum", ["t", "table"], ["y"], equation="bd,vd->bv"),
    ]
    weights = {
        "table": RANDOM.standard_normal((40, 64), np.float32),
        "places": RANDOM.standard_normal((40, 64), np.float32),
        "w": RANDOM.standard_normal((64, 64), np.float32) * np.float32(0.2),
    }
    inits = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    ends = [helper.make_tensor_value_info("i", TensorProto.INT64, [3])]
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 40])]
    graph = helper.make_graph(nodes, "decoder", ends, results, inits)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


FEED = {"i": np.array([39, 0, -1])}


@pytest.mark.parametrize(("weights", "bits", "most"), [("int8", 8, 0.02), ("int4", 4, 0.4)])
def test_floats_are_packed(weights: str, bits: int, most: float, tmp_path: Path) -> None:
    proto = decoder().SerializeToString()
    compiled = compile_model(proto, wafer="8x8", weights=weights)
    graph = compiled.graph
    by_type: dict[str, int] = {}
    for name in graph.constants:
        t = graph.tensors[name]
        by_type[str(t.dtype)] = by_type.get(str(t.dtype), 0) + t.bytes
    table, rest = 40 * 64, 64 * 64  # a table that is looked up and multiplied with keeps 8 bits
    assert by_type["u32"] == table + rest * bits // 8
    assert by_type["f16"] == (table + rest) // 32 * 2 + 40 * 64 * 2
    ours = compiled.run(FEED)["y"]
    exact = OnnxRuntime(proto).run(FEED)["y"]
    error = np.abs(ours - exact).max() / np.abs(exact).max()
    assert 0 < error < most
    (same,) = evaluate(graph, FEED).values()
    np.testing.assert_allclose(ours, same, rtol=0, atol=2e-6 * float(np.abs(same).max()))
    compiled.save(tmp_path / "p.wafer")
    guarded = prepare(compiled.plan, guard=True).run(FEED)["y"]
    again = load(tmp_path / "p.wafer").run(FEED)["y"]
    assert ours.tobytes() == guarded.tobytes() == again.tobytes()


@pytest.mark.parametrize(("bits", "farthest"), [(8, 0.5 / 127), (4, 0.5 / 7)])
def test_numbers_are_the_nearest(bits: int, farthest: float) -> None:
    m = Model()
    x = m.tensor("x", (2, 64), dtypes.F32)
    w = RANDOM.standard_normal((64, 9), np.float32)
    w[32:, 0] = 0
    graph = m.graph("near", [x], [m.op("MatMul", x, m.constant(w, "w"))])
    packed = pack_floats(graph, bits)
    found = evaluate(packed, {"x": np.stack([np.ones(64), np.eye(64)[5]]).astype(np.float32)})
    (values,) = found.values()
    assert np.all(np.abs(values[1] - w[5]) <= 1.01 * farthest * np.abs(w[:32]).max(0))
    zero = evaluate(
        packed, {"x": np.repeat([[0.0], [1.0]], 32, 0).reshape(1, 64).repeat(2, 0).astype(np.float32)}
    )
    assert next(iter(zero.values()))[0, 0] == 0


def test_weights_past_the_range_of_scales_are_refused() -> None:
    m = Model()
    x = m.tensor("x", (2, 32), dtypes.F32)
    large = m.constant(np.full((32, 4), 1e6, np.float32), "w")
    graph = m.graph("large", [x], [m.op("MatMul", x, large)])
    with pytest.raises(UsageError, match="int4: 'w' holds 1e\\+06, scales in f16 end at 65504"):
        pack_floats(graph, 4)


# -- onnxruntime's operators -------------------------------------------------------------------
def of_bits(shape: Sequence[int], columns: int, bits: int, block: int, zeros: bool) -> bytes:
    depth = shape[-1]
    blocks = -(-depth // block)
    parts: dict[str, Any] = {
        "b": RANDOM.integers(0, 256, (columns, blocks, block * bits // 8)).astype(np.uint8),
        "s": RANDOM.uniform(0.01, 0.1, (columns, blocks)).astype(np.float32),
    }
    if zeros:
        parts["z"] = RANDOM.integers(0, 256, (columns, -(-blocks * bits // 8))).astype(np.uint8)
    own: dict[str, Any] = {"K": depth, "N": columns, "bits": bits, "block_size": block}
    node = helper.make_node("MatMulNBits", ["x", *parts], ["y"], domain="com.microsoft", **own)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*shape[:-1], columns])]
    inits = [numpy_helper.from_array(v, n) for n, v in parts.items()]
    graph = helper.make_graph([node], "bits", ends, results, inits)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("bits", "block"), [(4, 32), (4, 128), (8, 32)])
def test_products_of_bits_keep_their_bytes(bits: int, block: int, zeros: bool) -> None:
    proto = of_bits((2, 96), 50, bits, block, zeros)
    compiled = compile_model(proto, wafer="8x8")
    graph = compiled.graph
    assert sum(graph.tensors[n].bytes for n in graph.constants if graph.tensors[n].dtype == packing.WORD) == (
        96 * 50 * bits // 8
    )
    feed = {"x": RANDOM.standard_normal((2, 96), np.float32)}
    exact = OnnxRuntime(proto).run(feed)["y"]
    np.testing.assert_allclose(compiled.run(feed)["y"], exact, rtol=0, atol=2e-6 * float(np.abs(exact).max()))


def test_several_rows_read_what_one_row_reads() -> None:
    """144 columns stand three vectors wide for one row; several rows take two at a time."""
    weights, each = stored("i4", 64, 144), scales("f16", 2, 144)
    held = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(each, "s")]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"], axis=0, block_size=32, output_dtype=1),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["S", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["S", 144])
    proto = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], held),
        opset_imports=[helper.make_opsetid("", 23)],
        ir_version=10,
    )
    entries = {f"s{n}": {"S": n} for n in (1, 9)}
    made = compile_model(proto.SerializeToString(), wafer="4x4", entries=entries)
    wide = weights.astype(np.float64) * np.repeat(each.astype(np.float64), 32, axis=0)
    for n in (1, 9):
        fed = RANDOM.standard_normal((n, 64)).astype(np.float32)
        out = made.program.run({"x": fed}, entry=f"s{n}")["y"]
        np.testing.assert_allclose(out, fed @ wide, atol=1e-4)
