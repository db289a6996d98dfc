"""Small programs that are soon planned, of every kind that a planner's numbers decide on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import plans
from waferc import compile_model
from waferc.ir import dtypes
from waferc.ir.entries import agreed
from waferc.ir.graph import Graph
from waferc.placement.build.companions import Companions
from waferc.placement.machine.presets import preset
from waferc.placement.machine.wafer import Wafer
from waferc.placement.plan.plan import Plan
from waferc.placement.planner import run
from waferc.placement.search.search import Search
from waferc.placement.search.second_entry import plan_beside
from waferc.placement.splits.policy import POLICY, Policy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))

from decoder import Shape, decoder, random_weights


@dataclass(frozen=True, eq=False)
class Workload:
    """graphs: the program's entries."""

    graphs: tuple[Graph, ...]
    wafer: Wafer
    objective: str = "latency"

    def search(self, policy: Policy = POLICY) -> Search:
        """What comes of the first entry."""
        first, *others = self.graphs
        made = Search(first, self.wafer, self.objective, Companions(tuple(others)), policy)
        run(made)
        return made

    def plans(self, policy: Policy = POLICY) -> tuple[Plan, ...]:
        first = self.search(policy).result()
        return first, *(plan_beside(g, first, policy) for g in self.graphs[1:])


def memory(wafer: Wafer, nbytes: int) -> Wafer:
    """The wafer with so many bytes on each core, hardly any of them for code."""
    return replace(wafer, sram_bytes=nbytes, code_bytes_base=0, code_bytes_per_kernel=16)


def table() -> Graph:
    """A table that is looked up in, and multiplied with at the end."""
    m = plans.Model()
    token = m.tensor("token", (1,), dtypes.I64)
    rows = m.normal(0, 512, 24)
    h = m.op("MatMul", m.op("Gather", rows, token), m.normal(1, 24, 24))
    return m.graph("table", [token], [m.op("Einsum", h, rows, equation="ik,jk->ij")])


def square(size: int) -> Graph:
    """A product as large as memory."""
    m = plans.Model()
    x = m.tensor("x", (size, size), dtypes.F32)
    return m.graph("square", [x], [m.op("MatMul", x, m.normal(0, size, size))])


def chain(count: int, width: int) -> Graph:
    """Layers that are alike, before them a product larger than one of them."""
    m = plans.Model()
    x = m.tensor("x", (1, 2 * width), dtypes.F32)
    h = m.op("MatMul", x, m.normal(0, 2 * width, width))
    for i in range(count):
        h = m.op("Relu", m.op("MatMul", h, m.normal(i, width, width)))
    return m.graph("chain", [x], [m.op("MatMul", h, m.normal(1, width, 2 * width))])


def tower(count: int) -> Graph:
    """Products one after the other."""
    m = plans.Model()
    x = m.tensor("x", (2, 64), dtypes.F32)
    h = x
    for i in range(count):
        h = m.op("MatMul", h, m.normal(i, 64, 64))
    return m.graph("tower", [x], [h])


def vector(depth: int, width: int) -> Graph:
    m = plans.Model()
    x = m.tensor("x", (1, depth), dtypes.F32)
    h = m.op("MatMul", x, m.normal(0, depth, width))
    return m.graph("vector", [x], [m.op("MatMul", h, m.normal(1, width, 32))])


def sums(rows: int) -> Graph:
    """A running sum over calls: present = past + the rows' sum; y = x @ w + past @ v."""
    m = plans.Model()
    x, past = m.tensor("x", (rows, 24), dtypes.F32), m.tensor("past", (1, 24), dtypes.F32)
    y = m.op("Add", m.op("MatMul", x, m.normal(0, 24, 300)), m.op("MatMul", past, m.normal(1, 24, 300)))
    total = m.op("ReduceSum", x, m.constant(np.array([0], np.int64)), keepdims=1)
    present = m.op("Add", past, total)
    return m.graph("sums", [x, past], [y, present], [(past, present)])


def decode() -> Graph:
    """One layer of a decoder, a token at a time."""
    shape = Shape(layers=1, width=16, hidden=32, heads=2, kv_heads=1, head=8, vocabulary=64, positions=16)
    model = decoder(shape, random_weights(1)).SerializeToString()
    return compile_model(model, dims={"S": 1}, wafer="8x8", capacity=16, until="graph").graph


WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "mlp": lambda: Workload((plans.mlp(),), preset("16x16")),
    "attention": lambda: Workload((plans.attention(),), preset("8x8")),
    "pipeline": lambda: Workload((plans.mlp(),), preset("16x16"), "throughput"),
    "tower": lambda: Workload((tower(5),), preset("16x16"), "throughput"),
    "table": lambda: Workload((table(),), memory(preset("8x8"), 1400)),
    "square": lambda: Workload((square(96),), memory(preset("8x8"), 3000)),
    "stacks": lambda: Workload((chain(6, 224),), memory(replace(preset("8x8"), width=8, height=104), 4096)),
    "line": lambda: Workload((vector(16384, 8),), memory(replace(preset("8x8"), width=256, height=4), 1700)),
    "long line": lambda: Workload((vector(65536, 8),), replace(preset("8x8"), width=384, height=1)),
    "short": lambda: Workload((vector(2048, 8),), replace(preset("8x8"), width=256, height=4)),
    "entries": lambda: Workload(
        tuple(agreed({"one": sums(1), "twenty": sums(20)}).values()), memory(preset("8x8"), 5200)
    ),
    "decode": lambda: Workload((decode(),), preset("8x8")),
}
