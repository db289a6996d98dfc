"""Random ONNX graphs of one to twenty operators, of all families, with what they are fed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from growing import (
    BF16,
    BOOL,
    F32,
    FLOATS,
    MOST_ELEMENTS,
    OPSET,
    WHOLE,
    Draw,
    Growing,
    Value,
)
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from random_steps import STEPS
from waferc.ir.op import Array


@dataclass(frozen=True)
class Random:
    """A model, what it is fed, all its results, and the sizes of the dimensions that it leaves open."""

    model: onnx.ModelProto
    feed: dict[str, Array]
    results: tuple[Value, ...]
    dims: dict[str, int]


@st.composite
def graphs(draw: Draw, most: int = 12) -> Random:
    g = Growing(draw, np.random.default_rng(draw(st.integers(0, 999))))
    sizes = st.integers(1, 7) | st.just(1)
    for i in range(draw(st.integers(1, 2))):
        kind = g.one_of(F32, F32, BF16, *FLOATS, *WHOLE, BOOL)
        shape = [draw(sizes) for _ in range(g.one_of(0, 1, 2, 3, 3, 4, 4))]
        if shape and draw(st.integers(0, 7)) == 0:
            shape[g.number(0, len(shape) - 1)] = 0
        g.inputs[f"x{i}"] = g.numbers(kind, shape)
        g.values.append(Value(f"x{i}", kind, tuple(shape)))
    count = len(g.values)
    for _ in range(draw(st.integers(1, most))):
        x = g.values[-1] if draw(st.integers(0, 3)) else g.one_of(*g.values)
        for step in draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=3)):  # the first that suits
            if len(g.nodes) > most - 3 or prod(x.shape) > MOST_ELEMENTS:
                break
            with suppress(onnx.checker.ValidationError):  # an operator that lacks the type
                if step(g, x):
                    break
    if not g.nodes:
        g.op("Identity", g.values[0], exact=True)
    results = g.values[count:]
    used = {name for node in g.nodes for name in node.input}
    ends = [v for v in results if v.name not in used]
    model = model_of(g, ends)
    return Random(model, g.inputs, tuple(results), opened(g, model))


def opened(g: Growing, model: onnx.ModelProto) -> dict[str, int]:
    """Some dimensions of inputs become names, which another of that size may share; the names' sizes."""
    out: dict[str, int] = {}
    for value in model.graph.input:
        for d in value.type.tensor_type.shape.dim:
            if d.dim_value and g.number(0, 3) == 0:
                known = [name for name, size in out.items() if size == d.dim_value]
                name = g.one_of(f"N{len(out)}", *known)
                out[name], d.dim_param = d.dim_value, name
    return out


def model_of(g: Growing, outputs: Sequence[Value]) -> onnx.ModelProto:
    def declared(v: Value) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(v.name, v.kind, v.shape)

    graph = helper.make_graph(
        g.nodes,
        "random",
        [declared(v) for v in g.values if v.name in g.inputs],
        [declared(v) for v in outputs],
        [numpy_helper.from_array(a, n) for n, a in g.constants.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", OPSET)])
