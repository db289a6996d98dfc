"""Random graphs compiled for a small wafer, against onnxruntime with its optimiser off.

More than `make thorough` runs: make thorough ARGS="-k random_graphs --hypothesis-profile=many".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, reject, settings
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_state
from random_graphs import Random, Value, graphs
from waferc.compiler.pipeline import compile_model
from waferc.ir import dtypes
from waferc.ir.op import Array

EPSILON = {
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.DOUBLE: 2.0**-52,
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
}
LACKING = (onnxruntime_state.NotImplemented, onnxruntime_state.InvalidGraph)
WAFER = "6x5"  # of few plans to search, and sides that no size divides for long
EXAMPLES = 150 if settings.get_current_profile_name() == "waferc" else settings.default.max_examples


@dataclass(frozen=True)
class Told:
    """Values by name, and the type's epsilon that the golden keeps at best."""

    values: dict[str, Array]
    epsilon: float


def told(model: onnx.ModelProto, feed: Mapping[str, Array], results: Sequence[Value]) -> Told:
    """What onnxruntime computes for each of `results`; where it lacks a type, onnx's reference evaluator,
    which takes a few functions of float64 in float32."""
    all_told = onnx.ModelProto()
    all_told.CopyFrom(model)
    del all_told.graph.output[:]
    for v in results:
        kind, name = v.kind, v.name
        if kind == TensorProto.BFLOAT16:  # which onnxruntime does not hand out
            kind, name = TensorProto.FLOAT, f"{v.name}.wide"
            all_told.graph.node.append(helper.make_node("Cast", [v.name], [name], to=kind))
        all_told.graph.output.append(helper.make_tensor_value_info(name, kind, v.shape))
    names = [o.name for o in all_told.graph.output]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    epsilon = max((EPSILON[v.kind] for v in results if v.kind in EPSILON), default=0.0)
    try:
        session = onnxruntime.InferenceSession(all_told.SerializeToString(), options)
        given = {
            n: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(a, kinds[n]) for n, a in feed.items()
        }
        values = [v.numpy() for v in session.run_with_ort_values(names, given)]
    except LACKING:
        values = ReferenceEvaluator(all_told).run(names, dict(feed))
        epsilon = max(epsilon, EPSILON[TensorProto.FLOAT])
    return Told({v.name: np.asarray(x) for v, x in zip(results, values, strict=True)}, epsilon)


def shaken(one: Random, epsilon: float) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model and what it is fed with every float off by up to one part in 1 / epsilon."""
    random = np.random.default_rng(0)

    def off(a: Array) -> Array:
        if not dtypes.is_float(a.dtype):
            return a
        return np.asarray(a * (1 + epsilon * random.uniform(-1, 1, a.shape))).astype(a.dtype)

    model = onnx.ModelProto()
    model.CopyFrom(one.model)
    scales = {x for n in model.graph.node if n.op_type == "Resize" for x in n.input[1:]}  # decide shapes
    for t in model.graph.initializer:
        if t.name not in scales:
            t.CopyFrom(numpy_helper.from_array(off(numpy_helper.to_array(t)), t.name))
    return model, {n: off(a) for n, a in one.feed.items()}


def tolerances(one: Random, right: Told) -> dict[str, float]:
    """How far each result may be off: some roundings of the largest value on the way there, and some times
    what the golden itself changes by when all its floats do in their last bits."""
    out: dict[str, float] = {}
    with np.errstate(all="ignore"):
        moved = told(*shaken(one, right.epsilon), one.results)
    largest = 1.0
    for v in one.results:
        if not v.floating:
            continue
        a, b = (np.asarray(x[v.name]).astype(np.float64) for x in (right.values, moved.values))
        finite = np.isfinite(a) & np.isfinite(b)
        largest = max(largest, float(np.abs(a[finite]).max(initial=0)))
        out[v.name] = 32 * (right.epsilon * largest + float(np.abs(a - b)[finite].max(initial=0)))
    return out


def judge(one: Random) -> None:
    """AssertionError where the compiled program departs from the golden."""
    try:
        right = told(one.model, one.feed, one.results)
    except Exception:  # neither golden can run it: nothing to compare with
        reject()
    if any(
        right.values[v.name].shape != v.shape for v in one.results
    ):  # GlobalMaxPool of three dimensions does so
        reject()
    ours = compile_model(one.model.SerializeToString(), wafer=WAFER, dims=one.dims).run(one.feed)
    ends = {o.name for o in one.model.graph.output}
    allowed = tolerances(one, right)
    for v in one.results:
        if v.name not in ends:
            continue
        a, b = ours[v.name], right.values[v.name]
        assert a.shape == b.shape == v.shape
        assert a.dtype == helper.tensor_dtype_to_np_dtype(v.kind)
        if v.exact:
            np.testing.assert_array_equal(a.astype(b.dtype), b)
        else:
            a, b = a.astype(np.float64), b.astype(np.float64)
            np.testing.assert_allclose(a, b, rtol=0, atol=allowed[v.name])


@pytest.mark.thorough
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(one=graphs())
def test_random_graphs_compute_what_onnxruntime_does(one: Random) -> None:
    judge(one)
