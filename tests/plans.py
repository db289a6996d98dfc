"""Small graphs that the tests of planning share, and how they are planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import waferc.ir.ops  # noqa: F401  (registers the operators)
from waferc.codegen.host import blocks, calls, entry_homes, sweeps
from waferc.ir import dtypes
from waferc.ir.graph import Graph
from waferc.ir.rules import REGISTRY, GraphBuilder, Spec
from waferc.placement.build import placement_file as written
from waferc.placement.build.routes import routed
from waferc.placement.machine.presets import preset
from waferc.placement.machine.wafer import Wafer
from waferc.placement.plan.plan import Plan
from waferc.placement.planner import plan


class Model(GraphBuilder):
    """A graph under construction, one ONNX operator at a time."""

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds one node called `n<number>_<kind>`; its first output."""
        name = f"n{len(self.nodes)}_{kind}"
        self.source = (name,)
        spec = Spec(kind, name, inputs, (f"{name}_out",), attributes, 17)
        return REGISTRY["", kind].rule(self, spec)[0]

    def normal(self, seed: int, *shape: int) -> str:
        """A constant of normally distributed f32."""
        return self.constant(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), "weight")

    def graph(
        self,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        states: Sequence[tuple[str, str]] = (),
    ) -> Graph:
        out = Graph(
            name,
            self.tensors,
            tuple(self.nodes),
            self.constants,
            tuple(inputs),
            tuple(outputs),
            tuple(states),
        )
        out.check()
        return out


def mlp() -> Graph:
    """Two products with a bias, a relu and a softmax; sizes that few cuts divide."""
    m = Model()
    x = m.tensor("x", (10, 100), dtypes.F32)
    h = m.op("Relu", m.op("Add", m.op("MatMul", x, m.normal(0, 100, 75)), m.normal(1, 75)))
    return m.graph("mlp", [x], [m.op("Softmax", m.op("MatMul", h, m.normal(2, 75, 30)))])


def convolution() -> Graph:
    """A padded convolution and a pooling: halos and fills."""
    m = Model()
    x = m.tensor("x", (1, 3, 14, 14), dtypes.F32)
    h = m.op("Conv", x, m.normal(0, 8, 3, 3, 3), m.normal(1, 8), pads=[1, 1, 1, 1])
    h = m.op("Relu", h)
    return m.graph("convolution", [x], [m.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])])


def attention() -> Graph:
    """One head with normalisation, transposed keys and a residual."""
    m = Model()
    x = m.tensor("x", (12, 32), dtypes.F32)
    n = m.op("LayerNormalization", x, m.normal(0, 32), m.normal(1, 32))
    q, k, v = (m.op("MatMul", n, m.normal(2 + i, 32, 32)) for i in range(3))
    p = m.op("Softmax", m.op("MatMul", q, m.op("Transpose", k, perm=[1, 0])))
    return m.graph("attention", [x], [m.op("Add", m.op("MatMul", p, v), x)])


def parts() -> Graph:
    """A tensor written in three parts (Concat), read whole by a product."""
    m = Model()
    x, y = m.tensor("x", (6, 20), dtypes.F32), m.tensor("y", (6, 9), dtypes.F32)
    h = m.op("Concat", m.op("Relu", x), y, m.op("Neg", x), axis=1)
    return m.graph("parts", [x, y], [m.op("MatMul", h, m.normal(0, 49, 16))])


def state() -> Graph:
    """A running sum kept on the wafer: present = past + x, and a product that reads the past."""
    m = Model()
    x, past = m.tensor("x", (4, 24), dtypes.F32), m.tensor("past", (4, 24), dtypes.F32)
    y = m.op("MatMul", past, m.normal(0, 24, 8))
    present = m.op("Add", past, x)
    return m.graph("state", [x, past], [y, present], [(past, present)])


def riders() -> Graph:
    """What can all be done where the products lie, and a result read twice."""
    m = Model()
    x, y = m.tensor("x", (16, 12), dtypes.F32), m.tensor("y", (16, 24), dtypes.F32)
    h = m.op("MatMul", x, m.normal(0, 12, 10))
    h = m.op("Neg", m.op("Add", m.op("Softmax", m.op("Relu", h)), h))
    h = m.op("Relu", m.op("MatMul", h, m.normal(1, 10, 24)))
    return m.graph("riders", [x, y], [m.op("Add", h, m.op("Neg", y))])


@cache
def riding() -> Plan:
    """A plan of `riders` in which each of eight cores does the rows that it has, then columns."""
    graph = riders()
    split = {0: "m", 5: "n", 6: "d1", 8: "d1"}
    ops = [
        {
            "node": i,
            "op": n.op.name,
            "region": 0,
            "split": [[split.get(i, n.op.axes[0][0]), "x", 8]],
            "grid": [8, 1, 0, 0, 1, 1],
        }
        for i, n in enumerate(graph.nodes)
    ]
    regions = [{"name": "all", "x": 0, "y": 0, "columns": 8, "rows": 8}]
    return routed(
        written.read({"schema": written.SCHEMA, "regions": regions, "ops": ops}, graph, preset("8x8"))
    )


GRAPHS: dict[str, Callable[[], Graph]] = {
    f.__name__: f for f in (mlp, convolution, attention, parts, state, riders)
}
SMALL = ("8x8", "16x16", "32x32")


@cache
def planned(name: str, wafer: str) -> Plan:
    """The plan of a shared graph on a preset, made once."""
    return plan(GRAPHS[name](), preset(wafer))


def damaged(side: int, share: float, seed: int) -> Wafer:
    """A side x side wafer on which this share of the cores is dead, chosen at random."""
    random = np.random.default_rng(seed)
    cores = random.choice(side * side, round(side * side * share), replace=False)
    dead = tuple((int(c) % side, int(c) // side) for c in np.sort(cores))
    return replace(preset(f"{side}x{side}"), dead_cores=dead)


@contextmanager
def all_shared() -> Iterator[None]:
    """Programs made meanwhile share out all their work among threads, and use the caller's arrays
    where they are, however little it is worth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_homes, "BOUND", 0)
        patch.setattr(calls, "CALL", 0)
        for module in (blocks, sweeps):
            patch.setattr(module, "LITTLE", 0)
        yield
