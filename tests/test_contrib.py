"""Onnxruntime's own operators: a few drawn cases of each, and what must be said of nodes that are none."""

from __future__ import annotations

import importlib
from math import erf
from pathlib import Path
from typing import Any

import contrib
import numpy as np
import pytest
from onnx import TensorProto, helper
from single import model
from waferc import UnsupportedOperator
from waferc.compiler.errors import InvalidInput, WafercError
from waferc.compiler.importer import import_model
from waferc.compiler.onnx_backend import WaferBackend
from waferc.compiler.passes.simplify import simplify
from waferc.ir.evaluate import evaluate
from waferc.ir.rules import REGISTRY

for path in sorted(Path(__file__).parent.glob("contrib_*cases.py")):
    importlib.import_module(path.stem)

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(2, 6)
# Those that no kernel of onnxruntime on CPUs carries out: nothing to compare with.
WITHOUT_PEER = {"BiasAdd", "BiasSplitGelu", "QLinearReduceMean"}


def test_every_operator_is_drawn() -> None:
    ruled = {name for domain, name in REGISTRY if domain == "com.microsoft"}
    assert {name for domain, name in contrib.DRAWS if domain} == ruled - WITHOUT_PEER


@pytest.mark.parametrize("key", sorted(contrib.DRAWS), ids=lambda key: key[1])
def test_drawn_cases_are_onnxruntimes(key: tuple[str, str]) -> None:
    rows = [contrib.judge(key, number) for number in (1000, 1001)]
    assert [r for r in rows if r.status not in ("pass", "no oracle")] == []


@pytest.mark.parametrize("key", sorted(contrib.DRAWS)[::6], ids=lambda key: key[1])
def test_some_run_as_programs(key: tuple[str, str]) -> None:
    row = contrib.judge(key, 1002, prepared=WaferBackend)
    assert row.status in ("pass", "no oracle"), row


def one(op_type: str, *inputs: Any, **more: Any) -> dict[str, Any]:
    proto = model(op_type, inputs, domain="com.microsoft", **more)
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")  # it is declared as the first input's
    fed = {f"x{i}": x for i, x in enumerate(inputs) if x is not None and i not in more.get("constants", ())}
    return evaluate(simplify(import_model(proto)), fed)


def test_what_has_no_peer() -> None:
    bias = np.arange(6, dtype=np.float32)
    np.testing.assert_allclose(one("BiasAdd", X, bias, 2 * X)["y0"], 3 * X + bias, rtol=1e-6)
    left, right = np.split((X + bias).astype(np.float64), 2, axis=1)
    gelu = right * 0.5 * (1 + np.vectorize(erf)(right / np.sqrt(2)))
    np.testing.assert_allclose(one("BiasSplitGelu", X, bias)["y0"], left * gelu, rtol=1e-5)
    numbers = np.arange(12, dtype=np.uint8).reshape(2, 6)
    scale, zero = np.float32(0.5), np.uint8(3)
    fixed = {"constants": [1, 2, 3, 4], "axes": [1], "keepdims": 0}
    given = (scale, zero, scale / 2, zero)
    mean = one("QLinearReduceMean", numbers, *map(np.asarray, given), **fixed)
    np.testing.assert_array_equal(mean["y0"], [2, 14])


def test_onnxruntimes_norm_in_the_standards_domain_passes_the_checker() -> None:
    for opset in (11, 17, 21):
        node = helper.make_node("SimplifiedLayerNormalization", ["x", "s"], ["y"], axis=-1)
        ends = [helper.make_tensor_value_info("x", 1, (2, 6)), helper.make_tensor_value_info("s", 1, (6,))]
        graph = helper.make_graph([node], "g", ends, [helper.make_tensor_value_info("y", 1, (2, 6))])
        proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
        kept = proto.SerializeToString()
        ours = evaluate(import_model(proto), {"x": X, "s": np.ones(6, np.float32)})["y"]
        wide = X.astype(np.float64)
        np.testing.assert_allclose(ours, wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5), rtol=1e-5)
        assert proto.SerializeToString() == kept


@pytest.mark.parametrize(
    ("op_type", "inputs", "more", "said"),
    [
        ("BiasGelu", [X], {}, "BiasGelu without its input 1, B"),
        ("BiasGelu", [X, X, X], {}, "BiasGelu takes at most 2 inputs, not 3"),
        ("BiasGelu", [X, np.zeros(5, np.float32)], {}, r"the bias is x1: f32\[5\], not \[6\]"),
        ("BiasGelu", [X, np.zeros(6, np.float64)], {}, r"types float and double, the operator wants one"),
        ("FusedMatMul", [X, X], {"alpha": 3}, "attribute alpha is no float as it must be"),
        ("FusedMatMul", [X, X], {}, "do not multiply"),
        ("MatMulNBits", [X, np.zeros((4, 1, 8), np.uint8), np.zeros((4, 1), np.float32)],
         {"K": 6, "N": 4, "block_size": 12, "constants": [1, 2]}, "block_size 12 is no power of 2"),
        ("MatMulNBits", [X, np.zeros((4, 1, 9), np.uint8), np.zeros((4, 1), np.float32)],
         {"K": 6, "N": 4, "block_size": 16, "constants": [1, 2]}, r"B is x1: u8\[4, 1, 9\], not \[4, 1, 8\]"),
        ("MultiHeadAttention", [X[None]] * 3, {}, "without its attribute num_heads"),
        ("MultiHeadAttention", [X[None]] * 3, {"num_heads": 4}, "6 elements in 4 heads"),
    ],
)  # fmt: skip
def test_nodes_that_are_none_are_told_why(op_type: str, inputs: Any, more: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        one(op_type, *inputs, **more)


def test_what_is_not_carried_out_says_so() -> None:
    with pytest.raises(UnsupportedOperator, match="has no attribute 'other' that is known"):
        one("BiasGelu", X, X[0], other=1)
    node = helper.make_node("Conv", ["x"], ["y"], domain="com.microsoft.nchwc")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 8, 2, 2)) for n in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft.nchwc", 1)]
    with pytest.raises(WafercError, match="save the model with ORT_ENABLE_EXTENDED at most"):
        import_model(helper.make_model(graph, ir_version=8, opset_imports=imports))


def test_a_grouped_attentions_batch_has_one_length() -> None:
    x = np.zeros((2, 1, 24), np.float32)
    past = np.zeros((2, 1, 3, 8), np.float32)
    total = np.asarray(4, np.int32)
    heads = {"num_heads": 1, "kv_num_heads": 1}
    for lengths, held in (([3, 3], True), ([3, 2], False)):
        inputs = [x, None, None, past, past, np.array(lengths, np.int32), total]
        proto = model("GroupQueryAttention", inputs, [5, 6], domain="com.microsoft", **heads)
        proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y0", 1, (2, 1, 8)))
        if held:
            assert import_model(proto).outputs == ("y0",)
        else:
            with pytest.raises(UnsupportedOperator, match=r"seqlens_k \[3, 2\] with a total"):
                import_model(proto)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_no_key_counts_as_one_more_of_score_0(kind: type[np.floating[Any]]) -> None:
    """smooth_softmax, in the type of the queries."""
    rows = np.random.default_rng(3).standard_normal((3, 8)).astype(kind)
    inputs = [rows.reshape(1, 1, 24), None, None, *[np.zeros((1, 1, 0, 8), kind)] * 2]
    inputs += [np.zeros(1, np.int32), np.asarray(1, np.int32)]
    heads = {"num_heads": 1, "kv_num_heads": 1, "smooth_softmax": 1}
    proto = model("GroupQueryAttention", inputs, [5, 6], domain="com.microsoft", **heads)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    q, k, v = rows.astype(np.float64)
    power = np.exp(q @ k / np.sqrt(8))
    graph = import_model(proto)
    names = [i.name for i in proto.graph.input]
    given = dict(zip(names, [x for i, x in enumerate(inputs) if x is not None and i < 5], strict=True))
    out = evaluate(graph, given)[graph.outputs[0]]
    assert out.dtype == kind
    np.testing.assert_allclose(out.ravel(), v * power / (1 + power), rtol=1e-5)
