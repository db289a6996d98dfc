"""Quantised operators: the standard's reference on whole tensors, and equal bits however they are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from sampled import sampled
from test_sweeps import agree, inputs_of, placed, placements
from waferc.compiler.importer import import_model
from waferc.compiler.passes.simplify import simplify
from waferc.ir import dtypes
from waferc.ir.op import Array
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan

RANDOM = np.random.default_rng(11)
Given = tuple[dtypes.DType, tuple[int, ...]]  # an input of the model


def scales(*shape: int, dtype: Any = np.float32) -> Array:
    return RANDOM.uniform(0.01, 0.3, shape).astype(dtype)


def whole(dtype: dtypes.DType, *shape: int) -> Array:
    low, high = dtype.limits
    return RANDOM.integers(int(low), int(high), shape, endpoint=True).astype(dtype.numpy)


@dataclass(frozen=True)
class Case:
    """One node: inputs of the model, constants, None where it has none."""

    op_type: str
    inputs: Sequence[Given | Array | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1

    def __str__(self) -> str:
        given = filter(lambda x: x is not None, self.inputs)
        kinds = [x[0].name if isinstance(x, tuple) else x.dtype.name for x in given]
        own = "-".join(f"{k}{v}" for k, v in self.attributes.items())
        return "-".join([self.op_type, *kinds, own]).replace(" ", "")

    def model(self) -> onnx.ModelProto:
        results = [f"y{i}" for i in range(self.outputs)]
        names = [f"i{i}" if x is not None else "" for i, x in enumerate(self.inputs)]
        infos, constants = [], []
        for name, x in zip(names, self.inputs, strict=True):
            if isinstance(x, tuple):
                kind = helper.np_dtype_to_tensor_dtype(x[0].numpy)
                infos.append(helper.make_tensor_value_info(name, kind, x[1]))
            elif x is not None:
                constants.append(numpy_helper.from_array(x, name))
        node = helper.make_node(self.op_type, names, results, **self.attributes)
        outputs = [onnx.ValueInfoProto(name=r) for r in results]
        graph = helper.make_graph([node], "case", infos, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
        return onnx.shape_inference.infer_shapes(model)


F, U8, I8, I4 = dtypes.F32, dtypes.U8, dtypes.I8, dtypes.I4
SPREAD = {"group": 2, "pads": [1, 0, 1, 2]}
RIGHT = [whole(I8, 30, 13), scales(13), whole(I8, 13)]
CASES = [
    Case("QuantizeLinear", [(F, (3, 20, 7)), scales(20), whole(U8, 20)]),
    Case("QuantizeLinear", [(F, (3, 20, 7)), scales(3), whole(I8, 3)], {"axis": -3}),
    Case("QuantizeLinear", [(F, (3, 20, 7)), scales()], {"output_dtype": 3}),
    *(
        Case("QuantizeLinear", [(F, (3, 14, 7)), scales(3, 4, 7), whole(t, 3, 4, 7)], {"block_size": 4})
        for t in (dtypes.U4, dtypes.I4, dtypes.I2, dtypes.I16)
    ),
    *(
        Case("QuantizeLinear", [(F, (5, 9)), scales(9)], {"output_dtype": n, "saturate": s})
        for n in (17, 18, 19, 20, 23)
        for s in (0, 1)
    ),
    *(Case("QuantizeLinear", [(t, (5, 9)), scales(dtype=t.numpy)]) for t in (dtypes.F16, dtypes.BF16)),
    Case("DequantizeLinear", [(U8, (3, 20, 7)), scales(20), whole(U8, 20)]),
    Case("DequantizeLinear", [(I8, (3, 20, 7)), (F, (20,)), (I8, (20,))]),
    Case(
        "DequantizeLinear",
        [(dtypes.I4, (3, 14, 7)), scales(3, 4, 7), whole(dtypes.I4, 3, 4, 7)],
        {"block_size": 4},
    ),
    Case("DequantizeLinear", [(dtypes.U2, (16, 5)), scales(2, 5)], {"block_size": 8, "axis": 0}),
    Case("DequantizeLinear", [(dtypes.I32, (3, 5)), scales()]),
    Case("DequantizeLinear", [(U8, (3, 5)), scales(dtype=np.float16)]),
    Case("DequantizeLinear", [(U8, (3, 5)), scales()], {"output_dtype": 16}),
    *(Case("DequantizeLinear", [(t, (5, 9)), scales(9)]) for t in dtypes.MINIFLOATS[:4]),
    Case("MatMulInteger", [(U8, (9, 30)), whole(I8, 30, 13)]),
    Case("MatMulInteger", [(U8, (9, 30)), (U8, (30, 13)), (U8, ()), (U8, (13,))]),
    Case("MatMulInteger", [(I8, (2, 9, 30)), whole(U8, 30, 13), whole(I8, 2, 9, 1), whole(U8, 1)]),
    Case("ConvInteger", [(U8, (1, 4, 9, 8)), whole(U8, 6, 2, 3, 3), whole(U8)], SPREAD),
    Case("QLinearMatMul", [(U8, (9, 30)), scales(), whole(U8), *RIGHT, 30 * scales(), whole(U8)]),
    Case("QLinearMatMul", [(I8, (9, 30)), scales(9, 1), whole(I8, 9, 1), *RIGHT, 30 * scales(), whole(I8)]),
    Case(
        "QLinearConv",
        [
            (U8, (1, 4, 9, 8)),
            scales(),
            whole(U8),
            whole(I8, 6, 4, 3, 3),
            scales(6),
            np.zeros(6, np.int8),
            scales() * 30,
            whole(U8),
        ],
        {"strides": [2, 1], "pads": [1, 1, 1, 1]},
    ),
    Case("DynamicQuantizeLinear", [(F, (5, 40))], outputs=3),
]


@pytest.mark.parametrize("case", sampled(CASES, 3), ids=str)
def test_results_are_those_of_the_reference(case: Case) -> None:
    model = case.model()
    graph = import_model(model)
    ours = agree(plan(simplify(graph), preset("8x8")))[0]
    theirs = ReferenceEvaluator(model).run(None, inputs_of(graph, 0))
    for name, value in zip(graph.outputs, theirs, strict=True):
        wanted = np.asarray(value)
        assert ours[name].dtype == wanted.dtype
        np.testing.assert_array_equal(ours[name].astype(np.float64), wanted.astype(np.float64))


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=4)
@given(data=st.data())
def test_the_same_bits_however_they_are_cut(case: Case, data: st.DataObject) -> None:
    wafer = replace(preset("8x8"), name="drawn")
    graph = import_model(case.model())
    whole_graph = agree(plan(graph, wafer))[0]
    cut = agree(placed(graph, wafer, data.draw(placements(graph, wafer))))[0]
    for name, value in whole_graph.items():
        assert cut[name].tobytes() == value.tobytes()


def test_a_vector_of_zero_points_is_one_for_each_row() -> None:
    """Which the reference leaves to broadcasting."""
    zeros, right = whole(U8, 9), whole(I8, 30, 13)
    graph = import_model(Case("MatMulInteger", [(U8, (9, 30)), right, zeros]).model())
    left = inputs_of(graph, 0)["i0"].astype(np.int32)
    wanted = (left - zeros[:, None]) @ right.astype(np.int32)
    np.testing.assert_array_equal(agree(plan(graph, preset("8x8")))[0]["y0"], wanted)
