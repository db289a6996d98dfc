"""Random operators: the reference's draws where there is a seed, and how they are distributed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from test_sweeps import agree
from waferc.compiler.importer import import_model
from waferc.compiler.passes.simplify import simplify
from waferc.compiler.pipeline import compile_model
from waferc.ir.graph import Graph
from waferc.ir.op import Array
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan

MANY = (50, 400)


def model(op_type: str, like: tuple[int, ...] | None = None, **own: Any) -> onnx.ModelProto:
    """One node; like: the shape of its input, if it has one."""
    infos = [] if like is None else [helper.make_tensor_value_info("x", TensorProto.FLOAT, like)]
    node = helper.make_node(op_type, [i.name for i in infos], ["y"], "it", **own)
    graph = helper.make_graph([node], "random", infos, [onnx.ValueInfoProto(name="y")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return onnx.shape_inference.infer_shapes(proto)


def run(proto: onnx.ModelProto, x: Array | None = None) -> list[Array]:
    compiled = compile_model(proto.SerializeToString(), wafer="16x16")
    return list(compiled.run({} if x is None else {"x": x}).values())


@pytest.mark.parametrize(
    ("op_type", "own"),
    [
        ("RandomUniform", {"shape": MANY, "low": -2.0, "high": 3.0, "seed": 4.0}),
        ("RandomUniform", {"shape": MANY, "dtype": TensorProto.FLOAT16, "seed": 1.0}),
        ("RandomNormal", {"shape": MANY, "mean": 1.5, "scale": 0.5, "seed": 3.0}),
        ("RandomNormal", {"shape": MANY, "dtype": TensorProto.DOUBLE, "seed": 3.0}),
    ],
)
def test_with_a_seed_draws_are_the_references(op_type: str, own: dict[str, Any]) -> None:
    proto = model(op_type, **own)
    (theirs,) = ReferenceEvaluator(proto).run(None, {})
    (ours,) = run(proto)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_without_a_seed_nodes_draw_apart_and_every_time_alike() -> None:
    names = ["a", "b"]
    nodes = [helper.make_node("RandomNormal", [], [n], shape=MANY) for n in names]
    graph = helper.make_graph(nodes, "two", [], [onnx.ValueInfoProto(name=n) for n in names])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    proto = onnx.shape_inference.infer_shapes(proto)
    first, again = run(proto), run(proto)
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.03
    for values in first:
        assert abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.03


def test_bernoulli_draws_ones_as_often_as_told() -> None:
    p = np.broadcast_to(np.linspace(0, 1, 400, dtype=np.float32), MANY)
    (drawn,) = run(model("Bernoulli", MANY), p)
    assert set(np.unique(drawn)) == {0, 1}
    assert abs(drawn.mean(axis=0) - p[0]).max() < 0.3
    assert abs(drawn.mean() - 0.5) < 0.01


def test_multinomial_draws_classes_by_their_weights() -> None:
    weights = np.array([[1, 2, 0, 5], [0, 0, 1, 0]], np.float32)
    with np.errstate(divide="ignore"):
        x = np.log(weights)
    (drawn,) = run(model("Multinomial", (2, 4), sample_size=4000, dtype=TensorProto.INT64), x)
    assert drawn.shape == (2, 4000) and drawn.dtype == np.int64
    for row, wanted in zip(drawn, weights, strict=True):
        shares = np.bincount(row, minlength=4) / 4000
        assert abs(shares - wanted / wanted.sum()).max() < 0.03
        assert not shares[wanted == 0].any()


def dropout(known: bool) -> tuple[Graph, onnx.ModelProto]:
    """Training told by a constant or by an input, with a ratio of 0.3."""
    constants = [helper.make_tensor("r", TensorProto.FLOAT, (), [0.3])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, MANY)]
    if known:
        constants.append(helper.make_tensor("t", TensorProto.BOOL, (), [True]))
    else:
        inputs.append(helper.make_tensor_value_info("t", TensorProto.BOOL, ()))
    node = helper.make_node("Dropout", ["x", "r", "t"], ["y", "mask"], seed=5)
    outputs = [onnx.ValueInfoProto(name=n) for n in ("y", "mask")]
    graph = helper.make_graph([node], "dropout", inputs, outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    proto = onnx.shape_inference.infer_shapes(proto)
    return import_model(proto), proto


@pytest.mark.parametrize("known", [True, False])
def test_dropout_in_training(known: bool) -> None:
    graph, proto = dropout(known)
    agree(plan(simplify(graph), preset("8x8")))
    x = np.random.default_rng(0).standard_normal(MANY).astype(np.float32)
    for training in [True] if known else [True, False]:
        feed = {"x": x} if known else {"x": x, "t": np.array(training)}
        y, mask = compile_model(proto.SerializeToString(), wafer="16x16").run(feed).values()
        theirs, kept = ReferenceEvaluator(proto).run(None, feed)
        np.testing.assert_array_equal(mask, kept)
        np.testing.assert_allclose(y, theirs, rtol=1e-6)
        assert abs(mask.mean() - (0.7 if training else 1)) < 0.02
