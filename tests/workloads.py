"""Small programs that are soon planned, of every kind that a planner's numbers decide on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
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
        return first, *(plan_beside(g, first, policy=policy) for g in self.graphs[1:])


def small(width: int, height: int, nbytes: int) -> Wafer:
    """A wafer of so many cores with so many bytes each, hardly any of them for code."""
    size = replace(preset("8x8"), width=width, height=height)
    return replace(size, sram_bytes=nbytes, code_bytes_base=0, code_bytes_per_kernel=16)


def table(rows: int = 512, width: int = 24, tokens: int = 1) -> Graph:
    """A table that is looked up in, and multiplied with at the end."""
    m = plans.Model()
    token = m.tensor("token", (tokens,), dtypes.I64)
    held = m.normal(0, rows, width)
    h = m.op("MatMul", m.op("Gather", held, token), m.normal(1, width, width))
    return m.graph("table", [token], [m.op("Einsum", h, held, equation="ik,jk->ij")])


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


def blocks(count: int, width: int, hidden: int) -> Graph:
    """Layers of two products each, whose results add up."""
    m = plans.Model()
    x = m.tensor("x", (1, width), dtypes.F32)
    h = x
    for i in range(count):
        up = m.op("Relu", m.op("MatMul", h, m.normal(i, width, hidden)))
        h = m.op("Add", h, m.op("MatMul", up, m.normal(50 + i, hidden, width)))
    return m.graph("blocks", [x], [h])


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


def wide(rows: int) -> Graph:
    """Two products of as many rows as a call has."""
    m = plans.Model()
    x = m.tensor("x", (rows, 96), dtypes.F32)
    h = m.op("Relu", m.op("MatMul", x, m.normal(0, 96, 300)))
    return m.graph("wide", [x], [m.op("MatMul", h, m.normal(1, 300, 96))])


def gained(rows: int) -> Graph:
    """Two products, and a gain for each column of the first one's result."""
    m = plans.Model()
    x = m.tensor("x", (rows, 96), dtypes.F32)
    h = m.op("Mul", m.op("MatMul", x, m.normal(0, 96, 96)), m.normal(3, 96))
    return m.graph("gained", [x], [m.op("Relu", m.op("MatMul", h, m.normal(1, 96, 96)))])


def sums(rows: int) -> Graph:
    """A running sum over calls: present = past + the rows' sum; y = x @ w + past @ v."""
    m = plans.Model()
    x, past = m.tensor("x", (rows, 24), dtypes.F32), m.tensor("past", (1, 24), dtypes.F32)
    y = m.op("Add", m.op("MatMul", x, m.normal(0, 24, 300)), m.op("MatMul", past, m.normal(1, 24, 300)))
    total = m.op("ReduceSum", x, m.constant(np.array([0], np.int64)), keepdims=1)
    present = m.op("Add", past, total)
    return m.graph("sums", [x, past], [y, present], [(past, present)])


def products(*sizes: int) -> Graph:
    """A vector through matrices of these sizes."""
    m = plans.Model()
    x = h = m.tensor("x", (1, sizes[0]), dtypes.F32)
    for i, (depth, width) in enumerate(pairwise(sizes)):
        h = m.op("Relu", m.op("MatMul", h, m.normal(i, depth, width)))
    return m.graph("products", [x], [h])


def decode(tokens: int = 1) -> Graph:
    """One layer of a decoder, so many tokens at a time."""
    shape = Shape(layers=1, width=16, hidden=32, heads=2, kv_heads=1, head=8, vocabulary=64, positions=16)
    model = decoder(shape, random_weights(1)).SerializeToString()
    return compile_model(model, dims={"S": tokens}, wafer="8x8", capacity=16, until="graph").graph


WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "mlp": lambda: Workload((plans.mlp(),), preset("16x16")),
    "attention": lambda: Workload((plans.attention(),), preset("8x8")),
    "pipeline": lambda: Workload((plans.mlp(),), preset("16x16"), "throughput"),
    "tower": lambda: Workload((tower(5),), preset("16x16"), "throughput"),
    "tight mlp": lambda: Workload((plans.mlp(),), small(4, 4, 4000)),
    "slow mlp": lambda: Workload((plans.mlp(),), small(4, 4, 5000)),
    "tight attention": lambda: Workload((plans.attention(),), small(8, 8, 1500)),
    "fuller attention": lambda: Workload((plans.attention(),), small(8, 8, 2000)),
    "tight tower": lambda: Workload((tower(5),), small(12, 7, 2600)),
    "table": lambda: Workload((table(),), small(8, 8, 1400)),
    "odd table": lambda: Workload((table(),), small(12, 7, 1160)),
    "tight table": lambda: Workload((table(1000, 12, 3),), small(8, 8, 1208)),
    "square": lambda: Workload((square(96),), small(8, 8, 3000)),
    "stacks": lambda: Workload((chain(6, 224),), small(8, 104, 4096)),
    "stacked blocks": lambda: Workload((blocks(6, 96, 256),), small(8, 104, 2408)),
    "line": lambda: Workload((vector(16384, 8),), small(256, 4, 1700)),
    "long line": lambda: Workload((vector(65536, 8),), replace(preset("8x8"), width=384, height=1)),
    "entries": lambda: Workload(
        tuple(agreed({"one": sums(1), "twenty": sums(20)}).values()), small(8, 8, 5200)
    ),
    "wide entries": lambda: Workload(
        tuple(agreed({"one": wide(1), "many": wide(16)}).values()), small(4, 4, 28_800)
    ),
    "tokens": lambda: Workload(
        tuple(agreed({"one": decode(), "many": decode(8)}).values()), small(8, 8, 2600)
    ),
    "gains": lambda: Workload(
        tuple(agreed({"one": gained(1), "many": gained(4)}).values()), small(8, 8, 2500)
    ),
    "lines": lambda: Workload((products(768, 3072, 768),), preset("64x64")),
    "decode": lambda: Workload((decode(),), preset("8x8")),
    "tight decode": lambda: Workload((decode(),), small(12, 7, 900)),
    "four tokens": lambda: Workload((decode(4),), preset("32x32")),
}
