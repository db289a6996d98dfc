"""Operators of one node under any split: the bits of a run core by core, and what the op means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nodes import Case, case, floats, ints, normal, whole
from single import close
from test_sweeps import agree, inputs_of, inside, placed, placements
from waferc.compiler.importer import import_model
from waferc.compiler.passes.simplify import simplify
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph
from waferc.placement.judge.judge import judge
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan

NODES: list[Case] = [
    case("GatherElements", normal(7, 9, 5), whole(6, 11, 4), axis=1),
    case("GatherND", normal(4, 6, 5, 7), whole(4, 3, 2, dtype="int64"), batch_dims=1),
    case("ScatterElements", normal(7, 9, 5), whole(6, 11, 4), normal(6, 11, 4), axis=1),
    case("ScatterElements", normal(7, 9, 5), whole(7, 11, 5), normal(7, 11, 5), axis=1, reduction="add"),
    case("ScatterND", normal(7, 9, 5), whole(6, 2, dtype="int64"), normal(6, 5), reduction="mul"),
    case("ReverseSequence", normal(7, 9, 5), whole(9, dtype="int64")),
    case("ArgMax", whole(6, 30, 3), axis=1, select_last_index=1),
    case("TopK", normal(5, 30, 3), ints(6), constants=[1], outputs=2, axis=1),
    case("TopK", normal(2, 1100), ints(6), constants=[1], outputs=2),
    case("CumSum", normal(7, 30, 5), ints(1)[0], constants=[1], reverse=1),
    case("CumSum", normal(2, 1100), ints(1)[0], constants=[1], exclusive=1),
    case("Hardmax", normal(6, 25), axis=1),
    case("Resize", normal(1, 2, 7, 9), None, floats(1, 1, 2, 1.5), constants=[2], mode="linear"),
    case("Resize", normal(1, 2, 7, 9), None, floats(1, 1, 0.7, 2.2), constants=[2], mode="cubic"),
    case("GridSample", normal(2, 3, 6, 7), normal(2, 5, 4, 2), padding_mode="reflection", opset=20),
    case(
        "RoiAlign",
        normal(2, 3, 6, 7),
        floats(0, 0, 4, 3, 1, 1, 3, 5).reshape(2, 4),
        ints(0, 1),
        output_height=2,
        output_width=3,
        sampling_ratio=2,
        opset=16,
    ),
    case("MaxPool", whole(1, 3, 8, 9).astype(np.float32), outputs=2, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("LRN", normal(2, 9, 3, 4), size=3),
    case("Det", normal(6, 4, 4)),
    case("Col2Im", normal(2, 18, 36), ints(8, 7), ints(3, 2), constants=[1, 2]),
    case("DFT", normal(2, 12, 5, 2), None, ints(1)[0], constants=[2], inverse=1, opset=20),
]


def graph_of(one: Case) -> Graph:
    return import_model(one.proto())


@pytest.mark.thorough
@pytest.mark.parametrize("one", NODES, ids=str)
@settings(max_examples=6)
@given(data=st.data())
def test_the_same_bits_however_a_plan_cuts(one: Case, data: st.DataObject) -> None:
    """Indices drawn at random also point outside: what is said of them must not depend on the split."""
    prepared: Callable[[Graph], Graph] = data.draw(st.sampled_from([lambda g: g, simplify]))
    graph = prepared(graph_of(one))
    wafer = preset(data.draw(st.sampled_from(["4x4", "8x8"])))
    if data.draw(st.integers(0, 3)):
        p = placed(graph, wafer, data.draw(placements(graph, wafer)))
    else:
        p = plan(graph, replace(wafer, sram_bytes=1 << 20))
        judge(p)
    agree(p)
    inputs = inside(graph, inputs_of(graph, 0))
    (made,) = agree(p, feed=lambda _: inputs)
    for name, value in evaluate(graph, inputs).items():
        close(made[name], value, 1e-4)
