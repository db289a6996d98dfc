"""Weights stored in 16 bits: the same as a model whose weights were rounded beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from waferc import compile_model
from waferc.compiler.errors import UsageError
from waferc.compiler.verify.compare import Rule, compare
from waferc.compiler.verify.golden import OnnxRuntime
from waferc.ir.dtypes import BF16, F16, F32, DType, stored_as
from waferc.ir.evaluate import evaluate
from waferc.ir.ops.contract import Contract
from waferc.ir.ops.conversion import Cast
from waferc.placement.machine.wafer import mixed_products
from waferc.runtime import engine
from waferc.runtime import load as loading
from waferc.runtime.engine import has_pairs, processor
from waferc.runtime.load import load, prepare

KINDS = {"f16": F16, "bf16": BF16}
RNG = np.random.default_rng(0)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape, np.float32)


def model(nodes: list, inputs: dict, outputs: dict, weights: dict) -> onnx.ModelProto:
    """inputs: name -> (shape, element type); outputs: name -> shape, floats."""
    ends = [helper.make_tensor_value_info(n, kind, shape) for n, (shape, kind) in inputs.items()]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()]
    tensors = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "weights", ends, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
CASES = {
    "gemm": (
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["h"], alpha=0.5, transB=1),
            helper.make_node("Relu", ["h"], ["y"]),
        ],
        {"x": ((5, 24), FLOAT)},
        {"y": (5, 33)},
        {"w": normal(33, 24), "b": normal(33)},
    ),
    "conv": (
        [
            helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["h", "d"], ["y"], group=8, strides=[2, 2]),
        ],
        {"x": ((1, 3, 12, 12), FLOAT)},
        {"y": (1, 8, 5, 5)},
        {"w": normal(8, 3, 3, 3), "b": normal(8), "d": normal(8, 1, 3, 3)},
    ),
    # One table looked up and multiplied with, as language models have it.
    "tied": (
        [
            helper.make_node("Gather", ["table", "i"], ["h"]),
            helper.make_node("Tanh", ["h"], ["t"]),
            helper.make_node("Gemm", ["t", "table"], ["y"], transB=1),
        ],
        {"i": ((3,), INT64)},
        {"y": (3, 40)},
        {"table": normal(40, 20)},
    ),
}
INPUTS = {
    "gemm": {"x": normal(5, 24)},
    "conv": {"x": normal(1, 3, 12, 12)},
    "tied": {"i": np.array([39, 0, -1])},
}


def rounded(proto: onnx.ModelProto, dtype: DType) -> bytes:
    """The model with its matrices rounded to `dtype` and kept as f32."""
    out = onnx.ModelProto.FromString(proto.SerializeToString())
    for t in out.graph.initializer:
        value = numpy_helper.to_array(t)
        if value.ndim > 1:
            value = stored_as(value, dtype).astype(np.float32)
            t.CopyFrom(numpy_helper.from_array(value, t.name))
    return out.SerializeToString()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_rounded_weights(case: str, kind: str, tmp_path: Path) -> None:
    proto, feed = model(*CASES[case]), INPUTS[case]
    compiled = compile_model(proto.SerializeToString(), wafer="8x8", weights=kind, activations="f32")
    golden = OnnxRuntime(rounded(proto, KINDS[kind])).run(feed)["y"]
    ours = compiled.run(feed)["y"]
    found = compare("y", ours, golden, Rule(rtol=1e-5))
    assert found.passed, found
    unrounded = OnnxRuntime(proto.SerializeToString()).run(feed)["y"]
    assert not compare("y", ours, unrounded, Rule(rtol=1e-5)).passed
    guarded = prepare(compiled.plan, guard=True).run(feed)["y"]
    compiled.save(tmp_path / "p.wafer")
    again = load(tmp_path / "p.wafer").run(feed)["y"]
    assert ours.tobytes() == guarded.tobytes() == again.tobytes()


@pytest.mark.parametrize("case", CASES)
def test_products_with_bf16_weights_round_the_other_factor(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto, feed = model(*CASES[case]).SerializeToString(), INPUTS[case]
    compiled = compile_model(proto, wafer="8x8", weights="bf16")
    graph = compiled.graph
    products = [n.op for n in graph.nodes if isinstance(n.op, Contract)]
    assert products
    assert all(op.in_types == (BF16, BF16) for op in products)
    casts = [n for n in graph.nodes if n.op.out_type == BF16]
    assert len(casts) == len(products)
    assert not any(isinstance(n.op, Cast) for n in casts if n.inputs[0] not in graph.inputs)  # fused
    ours = compiled.run(feed)["y"]
    found = compare("y", ours, evaluate(graph, feed)["y"], Rule(rtol=1e-5))
    assert found.passed, found
    in_f32 = compile_model(proto, wafer="8x8", weights="bf16", activations="f32").run(feed)["y"]
    assert not compare("y", ours, in_f32, Rule(rtol=1e-5)).passed
    guarded = prepare(compiled.plan, guard=True).run(feed)["y"]
    compiled.save(tmp_path / "p.wafer")
    saved = [load(tmp_path / "p.wafer").run(feed)["y"]]
    other = replace(processor(), dot2=has_pairs() and not processor().dot2)
    # A host that multiplies pairs otherwise makes kernels of its own, which compute the same bits.
    monkeypatch.setattr(loading, "processor", lambda: other)
    saved += [load(tmp_path / "p.wafer").run(feed)["y"], prepare(compiled.plan).run(feed)["y"]]
    assert {ours.tobytes()} == {x.tobytes() for x in (guarded, *saved)}


def test_how_a_host_multiplies_pairs_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WAFERC_CACHE", str(tmp_path))
    if not has_pairs():
        assert not processor().dot2
        pytest.skip("this host has no instruction for pairs of bf16")
    first = engine.pairs_pay()
    (kept,) = tmp_path.glob("*.pairs")
    assert kept.read_bytes().endswith(b"1" if first else b"0")
    monkeypatch.setattr(engine, "Code", None)  # what is known is not measured again
    assert engine.pairs_pay() is first


def test_one_cast_serves_all_products() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("MatMul", ["x", "v"], ["z"]),
        helper.make_node("MatMul", ["y", "z"], ["t"]),
    ]
    weights = {"w": normal(6, 6), "v": normal(6, 6)}
    proto = model(nodes, {"x": ((6, 6), FLOAT)}, {"t": (6, 6)}, weights).SerializeToString()
    graph = compile_model(proto, weights="bf16", until="graph").graph
    types = [n.op.in_types for n in graph.nodes]
    assert types == [(F32,), (BF16, BF16), (BF16, BF16), (F32, F32)]


def test_bf16_activations_need_bf16_weights() -> None:
    for kind in ("f32", "f16"):
        with pytest.raises(UsageError, match=f"--activations bf16 needs --weights bf16, not {kind}"):
            compile_model(b"", weights=kind, activations="bf16")


@pytest.mark.parametrize("kind", KINDS)
def test_half_the_bytes_and_the_mixed_rate(kind: str) -> None:
    proto = model(*CASES["gemm"]).SerializeToString()
    wide, narrow = (
        compile_model(proto, wafer="8x8", weights=k, activations="f32", until="plan") for k in ("f32", kind)
    )

    def stored(compiled: object) -> int:
        return sum(t.nbytes for t in compiled.graph.constants.values() if t.ndim > 1)

    assert stored(narrow) * 2 == stored(wide)
    assert [t.dtype for t in narrow.graph.tensors.values() if len(t.shape) > 1].count(KINDS[kind]) == 1
    assert [mixed_products(n.op) for n in narrow.graph.nodes].count(True) == 1
    assert not any(mixed_products(n.op) for n in wide.graph.nodes)
    assert narrow.figures.cycles < narrow.figures.cycles_at_f32
    assert wide.figures.cycles == wide.figures.cycles_at_f32
    assert any("fma_mixed" in a for a in narrow.figures.assumed)
    assert not any("fma_mixed" in a for a in wide.figures.assumed)


def test_vectors_and_what_others_read_stay_f32() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["w", "x"], ["y"]),
        helper.make_node("Mul", ["h", "v"], ["z"]),
    ]
    weights = {"w": normal(6, 6), "v": normal(6)}
    proto = model(nodes, {"x": ((6, 6), FLOAT)}, {"y": (6, 6), "z": (6, 6)}, weights)
    graph = compile_model(proto.SerializeToString(), weights="f16", until="graph").graph
    assert {graph.tensors[n].dtype for n in graph.constants} == {F32}


def test_what_f16_cannot_hold_is_refused() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weights = {"w": np.full((4, 4), 7e4, np.float32)}
    proto = model(nodes, {"x": ((4, 4), FLOAT)}, {"y": (4, 4)}, weights).SerializeToString()
    with pytest.raises(UsageError, match="'w' holds 70000, f16 ends at 65504; try --weights bf16"):
        compile_model(proto, weights="f16", until="graph")
    assert compile_model(proto, weights="bf16", until="graph").graph.tensors["w"].dtype == BF16


def test_bf16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -np.inf, 3.4e38, 1e-40, -0.0])
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xFF80, 0x7F80, 0x0001, 0x8000]
    assert stored_as(values.astype(np.float32), BF16).view(np.uint16).tolist() == expected
    nan = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(stored_as(nan, BF16).astype(np.float32)).all()
    every = np.arange(1 << 16, dtype=np.uint16).view(BF16.numpy)
    numbers = every.astype(np.float32)
    back = stored_as(numbers, BF16)
    assert np.array_equal(back[~np.isnan(numbers)], every[~np.isnan(numbers)])
    # Against the nearest of all bf16 numbers, found by search.
    finite = np.sort(numbers[np.isfinite(numbers)].astype(np.float64))
    some = np.concatenate([normal(500), normal(500) * np.float32(1e30)]).astype(np.float32)
    above = np.searchsorted(finite, some)
    nearest = np.minimum(abs(finite[above - 1] - some), abs(finite[above] - some))
    assert np.array_equal(abs(stored_as(some, BF16).astype(np.float64) - some), nearest)
