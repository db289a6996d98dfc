"""A normal run computes the bits of the literal one: the test of the rule that receives may be elided.

A normal run never walks cores: it reads each tensor from one home wherever a core would have received
it, and sums in blocks. A guarded run makes every move of the plan and computes tile by tile, so equal bits on
plans of every kind mean that nothing was elided that mattered and that every sum kept its order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from plans import GRAPHS, Model, all_shared, planned
from sampled import sampled
from waferc.codegen.host.arena import share
from waferc.compiler import planning
from waferc.compiler.passes.narrow_weights import narrow_weights
from waferc.compiler.passes.simplify import CLEAN, simplify
from waferc.compiler.pipeline import compile_model
from waferc.ir import dtypes
from waferc.ir.dtypes import DType
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph
from waferc.ir.op import Array, Op
from waferc.ir.ops.contract import Contract
from waferc.placement.build import placement_file as written
from waferc.placement.build.routes import routed
from waferc.placement.judge.judge import IllegalPlan, judge
from waferc.placement.machine.presets import preset
from waferc.placement.machine.wafer import Wafer
from waferc.placement.plan.layout import Cut, Split
from waferc.placement.plan.plan import Plan
from waferc.placement.planner import plan
from waferc.placement.splits.candidates import dense
from waferc.runtime import load as loading
from waferc.runtime import program as running
from waferc.runtime.engine import has_pairs, processor
from waferc.runtime.load import prepare
from waferc.runtime.reports import InvalidIndex

Draw = Any  # hypothesis' draw function: the type of what it returns depends on what it is given
CALLS = 2  # with states, the second call reads what the first one left


def inputs_of(graph: Graph, seed: int) -> dict[str, Array]:
    """A value for every input that is no state."""
    random = np.random.default_rng(seed)
    pasts = {past for past, _ in graph.states}
    tensors = [graph.tensors[name] for name in graph.inputs if name not in pasts]
    return {t.name: numbers(random, t.dtype, t.shape) for t in tensors}


def numbers(random: np.random.Generator, dtype: DType, shape: Sequence[int]) -> Array:
    """Values whose sums round differently in different orders, zeros of both signs among them."""
    if dtype == dtypes.BOOL:
        return random.random(shape) < 0.5
    if not dtype.is_float:
        return random.integers(-9, 10, shape).astype(dtype.numpy)
    x = np.asarray(random.standard_normal(shape))
    return np.where(np.abs(x) < 0.1, np.copysign(0, x), x).astype(dtype.numpy)


def same(ours: Array, theirs: Array) -> None:
    """Equal bits; any NaN is as good as another."""
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    if ours.tobytes() != theirs.tobytes():
        if ours.dtype == dtypes.BF16.numpy:
            ours, theirs = ours.astype(np.float32), theirs.astype(np.float32)
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))


def inside(graph: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    """The inputs with indices inside their axes."""
    out = dict(inputs)
    for node in graph.nodes:
        for b in node.op.bounds:
            if (t := node.inputs[b.operand]) in out:
                out[t] = (b.low + (out[t] - b.low) % max(1, b.high - b.low)).astype(out[t].dtype)
    return out


def outcome(run: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """What a call gives; where an index is outside its axis nothing, under the name of what is wrong."""
    try:
        return run()
    except InvalidIndex as e:
        return {str(e): np.zeros(0)}


def agree(
    p: Plan, threads: Sequence[int] = (2,), feed: Callable[[int], dict[str, Array]] | None = None
) -> list[dict[str, Array]]:
    """What each of some calls gives; AssertionError if guarded and normal runs differ in a bit.

    feed: the inputs of a call by its number.
    """
    feed = feed or (lambda seed: inputs_of(p.graph, seed))
    with all_shared(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "usable", lambda: max(threads))
        plain, guarded = prepare(p), prepare(p, guard=True)
        made: list[dict[str, Array]] = []
        for seed in range(CALLS if p.graph.states else 1):
            made.append(outcome(lambda seed=seed: guarded.run(feed(seed))))
        for n in threads:
            plain.reset()
            for seed, right in enumerate(made):
                ours = outcome(lambda seed=seed, n=n: plain.run(feed(seed), n))
                assert list(ours) == list(right)
                for name, value in ours.items():
                    same(value, right[name])
    return made


# -- plans that the planner makes ------------------------------------------------------------------


@pytest.mark.parametrize("wafer", ["4x4", "8x8", "32x32"])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_bits_on_every_wafer_and_by_every_number_of_threads(name: str, wafer: str) -> None:
    agree(planned(name, wafer), (1, 2, 3))


@pytest.mark.parametrize("dot2", [False, True])
@pytest.mark.parametrize("name", ["mlp", "convolution", "riders"])
def test_bf16_however_a_host_multiplies_it(name: str, dot2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Factors that are widened first, and pairs as they are."""
    if dot2 and not has_pairs():
        pytest.skip("this host has no instruction for pairs of bf16")
    monkeypatch.setattr(loading, "processor", lambda: replace(processor(), dot2=dot2))
    graph = narrow_weights(GRAPHS[name](), "bf16", "bf16")
    agree(plan(graph, preset("8x8")))


# -- plans with splits of any kind -----------------------------------------------------------------


@st.composite
def splits(draw: Draw, op: Op, columns: int, rows: int) -> list[list[Any]]:
    """Cuts of an op over at most columns x rows cores and four time steps, whether they divide it or not."""
    room = {"x": columns, "y": rows, "t": 4}
    cuts: list[list[Any]] = []
    part = ""
    axes = sorted((a for a, n in op.axes if n > 1 and a not in op.whole), key=lambda a: a in op.reduced)
    for side in ("x", "y", "t"):
        for a in axes:
            reduced = a in op.reduced and side != "t"
            done = prod(ways for b, _, ways in cuts if b == a)
            most = min(room[side], op.size[a] // done)
            if most < 2 or (reduced and part not in ("", a)) or not draw(st.booleans()):
                continue
            ways = draw(st.integers(2, most))
            cuts.append([a, side, ways])
            room[side] //= ways
            part = a if reduced else part
    split = Split(tuple(Cut(*c) for c in cuts))
    # A dimension that several axes make up may be cut along an inner one only where what a core holds of it,
    # after all time steps, stays dense.
    held = Split(tuple(c for c in split.cuts if c.side != "t"))
    ways = {a: split.axis_ways(a) for a, _ in op.axes}
    return cuts if dense(op.write, held.extents(op.axes), ways) else []


@st.composite
def placements(draw: Draw, graph: Graph, wafer: Wafer) -> dict[str, Any]:
    """Every op of a graph somewhere on one region, cut somehow."""
    ops: list[dict[str, Any]] = []
    for i, node in enumerate(graph.nodes):
        cuts = draw(splits(node.op, wafer.width, wafer.height))
        w, h = (prod(ways for _, side, ways in cuts if side == own) for own in ("x", "y"))
        x, y = draw(st.integers(0, wafer.width - w)), draw(st.integers(0, wafer.height - h))
        ops.append({"node": i, "region": 0, "split": cuts, "grid": [w, h, x, y, 1, 1]})
    region = {"name": "all", "x": 0, "y": 0, "columns": wafer.width, "rows": wafer.height}
    return {"schema": written.SCHEMA, "regions": [region], "ops": ops}


def placed(graph: Graph, wafer: Wafer, data: dict[str, Any]) -> Plan:
    """The plan of a placement, on cores with room for whatever it wants."""
    p = routed(written.read(data, graph, replace(wafer, sram_bytes=1 << 20)))
    judge(p)
    return p


@pytest.mark.parametrize("name", sampled(GRAPHS, 3))
@settings(max_examples=12)
@given(data=st.data())
def test_the_same_bits_however_a_plan_cuts(name: str, data: st.DataObject) -> None:
    wafer = preset(data.draw(st.sampled_from(["4x4", "8x8", "16x16"])))
    graph = GRAPHS[name]()
    if data.draw(st.booleans()):
        graph = narrow_weights(graph, "bf16", "bf16")
    agree(placed(graph, wafer, data.draw(placements(graph, wafer))))


# -- sums whose parts are made in several passes ---------------------------------------------------


def product(dtype: DType, m: int, k: int, n: int) -> Graph:
    model = Model()
    x = model.tensor("x", (m, k), dtype)
    weight = model.constant(numbers(np.random.default_rng(1), dtype, (k, n)), "weight")
    return model.graph("product", [x], [model.op("MatMul", x, weight)])


def filtered(dtype: DType) -> Graph:
    m = Model()
    x = m.tensor("x", (1, 6, 7, 7), dtype)
    weight = m.constant(numbers(np.random.default_rng(1), dtype, (8, 6, 3, 3)), "weight")
    return m.graph("filtered", [x], [m.op("Conv", x, weight, pads=[1, 1, 1, 1])])


def reduced(kind: str, dtype: DType, axes: Sequence[int]) -> Graph:
    m = Model()
    x = m.tensor("x", (5, 6, 50), dtype)
    return m.graph("reduced", [x], [m.op(kind, x, axes=list(axes), keepdims=0)])


PASSES: dict[str, tuple[Callable[[], Graph], list[list[Any]]]] = {
    "f32, the cut axis again": (
        lambda: product(dtypes.F32, 4, 64, 9),
        [["k", "x", 3], ["k", "t", 2]],
    ),
    "f16, which rounds after every pass": (
        lambda: product(dtypes.F16, 4, 64, 9),
        [["k", "x", 3], ["k", "t", 4]],
    ),
    "bf16, odd parts": (
        lambda: narrow_weights(product(dtypes.F32, 4, 63, 9), "bf16", "bf16"),
        [["k", "x", 3], ["k", "t", 3]],
    ),
    "bf16, even parts": (
        lambda: narrow_weights(product(dtypes.F32, 4, 94, 39), "bf16", "bf16"),
        [["k", "x", 3], ["k", "t", 2]],
    ),
    "bf16 windows": (
        lambda: narrow_weights(filtered(dtypes.F32), "bf16", "bf16"),
        [["REDUCED0", "x", 2], ["REDUCED2", "t", 3]],
    ),
    "a dot product": (lambda: product(dtypes.F32, 1, 900, 2), [["k", "y", 4], ["k", "t", 3]]),
    "another axis of a window": (
        lambda: filtered(dtypes.F32),
        [["REDUCED0", "x", 2], ["REDUCED2", "t", 3]],
    ),
    "two axes in time": (
        lambda: filtered(dtypes.F32),
        [["REDUCED0", "y", 3], ["REDUCED2", "t", 3], ["REDUCED1", "t", 2]],
    ),
    "a sum along vectors": (
        lambda: reduced("ReduceSum", dtypes.F32, [0, 2]),
        [["REDUCED1", "x", 3], ["REDUCED0", "t", 2]],
    ),
    "a product": (
        lambda: reduced("ReduceProd", dtypes.F32, [0, 1]),
        [["REDUCED0", "x", 2], ["REDUCED1", "t", 3]],
    ),
    "a mean of f16": (
        lambda: reduced("ReduceMean", dtypes.F16, [1, 2]),
        [["REDUCED1", "y", 4], ["REDUCED1", "t", 4]],
    ),
}


def forced(kind: str) -> Plan:
    """The plan of one of PASSES: its graph with its cuts on every op that has their axes."""
    make, cuts = PASSES[kind]
    graph, wafer = make(), preset("4x4")
    ops: list[dict[str, Any]] = []
    for i, node in enumerate(graph.nodes):
        names = {f"REDUCED{j}": a for j, a in enumerate(node.op.reduced)} | {a: a for a, _ in node.op.axes}
        fits = node.op.reduced and all(a in names for a, _, _ in cuts)
        mine = [[names[a], side, n] for a, side, n in cuts] if fits else []
        w, h = (prod(ways for _, side, ways in mine if side == own) for own in ("x", "y"))
        ops.append({"node": i, "region": 0, "split": mine, "grid": [w, h, 0, 0, 1, 1]})
    region = {"name": "all", "x": 0, "y": 0, "columns": 4, "rows": 4}
    return placed(graph, wafer, {"schema": written.SCHEMA, "regions": [region], "ops": ops})


@pytest.mark.parametrize("kind", PASSES)
def test_parts_of_a_sum_made_in_several_passes_each(kind: str) -> None:
    p = forced(kind)
    assert any(s.part and s.split.grid[2] > 1 for s in p.steps)
    agree(p, (1, 2))


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [("bf16, odd parts", False), ("bf16, even parts", True), ("bf16 windows", False)],
)
def test_weights_stand_in_pairs_where_every_pass_starts_evenly(kind: str, pairs: bool) -> None:
    products = [
        s for s in share({"main": forced(kind)}, 16).entries["main"].sweeps if isinstance(s.op, Contract)
    ]
    assert products
    assert {s.views[1].pairs for s in products} == {pairs}


def test_a_product_of_a_column_and_a_row() -> None:
    """Of one term each: no axis is reduced any more."""
    agree(plan(simplify(product(dtypes.F32, 5, 1, 9)), preset("4x4")))


# -- graphs of any kind -------------------------------------------------------------------------------


class Growing:
    """A graph that a test grows step by step. `names`: the tensors so far."""

    def __init__(self, draw: Draw, dtype: DType) -> None:
        self.draw, self.dtype, self.m = draw, dtype, Model()
        self.random = np.random.default_rng(draw(st.integers(0, 99)))
        shape = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
        self.names = [self.m.tensor("x", shape, dtype)]

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def shape(self, x: str) -> tuple[int, ...]:
        return self.m.shape(x)

    def constant(self, *shape: int) -> str:
        return self.m.constant(numbers(self.random, self.dtype, shape), "weight")

    def integers(self, *values: int) -> str:
        return self.m.constant(np.array(values, np.int64), "at")


def alone(g: Growing, x: str) -> str:
    if g.dtype == dtypes.BOOL:
        return g.m.op("Not", x)
    if not g.dtype.is_float:
        return g.m.op(g.one_of("Neg", "Abs"), x)
    return g.m.op(g.one_of("Neg", "Relu", "Tanh", "Sigmoid", "Abs"), x)


def together(g: Growing, x: str) -> str:
    """With a constant, or another tensor, that is stretched to x or to which x is stretched."""
    kind = g.one_of("And", "Or", "Xor") if g.dtype == dtypes.BOOL else g.one_of("Add", "Sub", "Mul")
    others = [t for t in g.names if g.shape(t) == g.shape(x)]
    if others and g.draw(st.booleans()):
        return g.m.op(kind, x, g.one_of(*others))
    shape = [n if g.draw(st.booleans()) else 1 for n in g.shape(x)][g.number(0, len(g.shape(x))) :]
    if shape and g.shape(x)[-1] == 1:
        shape[-1] = g.number(1, 9)
    return g.m.op(kind, g.constant(*shape), x)


def multiplied(g: Growing, x: str) -> str | None:
    shape = g.shape(x)
    if not g.dtype.is_float or len(shape) < 2:
        return None
    if g.draw(st.booleans()):
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        return g.m.op("MatMul", x, g.m.op("Transpose", x, perm=order))
    if len(shape) == 2 and g.draw(st.booleans()):
        a, b, n = g.number(0, 1), g.number(0, 1), g.number(1, 40)
        k = shape[0] if a else shape[1]
        weight = g.constant(n, k) if b else g.constant(k, n)
        return g.m.op("Gemm", x, weight, g.constant(n), transA=a, transB=b, alpha=0.5)
    return g.m.op("MatMul", x, g.constant(shape[-1], g.number(1, 40)))


def windowed(g: Growing, x: str) -> str | None:
    shape = g.shape(x)
    if not g.dtype.is_float or len(shape) != 4:
        return None
    kernel = [g.number(1, 3) for _ in range(2)]
    spread = {"strides": [g.number(1, 3) for _ in range(2)]}
    pads = [g.number(0, k - 1) for k in (*kernel, *kernel)]
    kind = g.one_of("Conv", "Conv", "MaxPool", "AveragePool")
    if kind != "AveragePool":
        spread["dilations"] = [g.number(1, 2) for _ in range(2)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, spread.get("dilations", (1, 1)), strict=True)]
    if any(n + a + b < r for n, a, b, r in zip(shape[2:], pads[:2], pads[2:], reach, strict=True)):
        return None
    if kind != "Conv":
        return g.m.op(kind, x, kernel_shape=kernel, pads=pads, **spread)
    group = g.one_of(*[d for d in range(1, shape[1] + 1) if shape[1] % d == 0])
    filters = group * g.number(1, 6)
    weight = g.constant(filters, shape[1] // group, *kernel)
    return g.m.op("Conv", x, weight, g.constant(filters), pads=pads, group=group, **spread)


def gathered(g: Growing, x: str) -> str | None:
    """Fewer numbers from many: along any axes, or all of them."""
    if g.dtype == dtypes.BOOL or not g.shape(x):
        return None
    axes = sorted(g.draw(st.sets(st.integers(0, len(g.shape(x)) - 1), min_size=1)))
    kinds = ["ReduceSum", "ReduceMax", "ReduceMin"]
    kinds += ["ReduceMean", "ReduceL2", "ReduceProd"] if g.dtype.is_float else []
    return g.m.op(g.one_of(*kinds), x, axes=axes, keepdims=g.number(0, 1))


def normalised(g: Growing, x: str) -> str | None:
    shape = g.shape(x)
    if not g.dtype.is_float or not shape:
        return None
    if g.draw(st.booleans()):
        return g.m.op("Softmax", x, axis=g.number(-len(shape), -1))
    return g.m.op("LayerNormalization", x, g.constant(shape[-1]), g.constant(shape[-1]), epsilon=0.1)


def picked(g: Growing, x: str) -> str | None:
    shape = g.shape(x)
    if not shape:
        return None
    axis = g.number(0, len(shape) - 1)
    n = shape[axis]
    if g.draw(st.booleans()):
        at = g.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=9))
        return g.m.op("Gather", x, g.integers(*at), axis=axis)
    step = g.one_of(1, 2, 3, -1, -2)
    start, end = (g.number(0, n - 1), n) if step > 0 else (g.number(0, n - 1), -n - 1)
    return g.m.op("Slice", x, *(g.integers(v) for v in (start, end, axis, step)))


def rearranged(g: Growing, x: str) -> str:
    shape = g.shape(x)
    if g.draw(st.booleans()):
        return g.m.op("Transpose", x, perm=list(g.draw(st.permutations(range(len(shape))))))
    total = prod(shape)
    first = g.one_of(*[d for d in range(1, total + 1) if total % d == 0])
    rest = total // first
    second = g.one_of(*[d for d in range(1, rest + 1) if rest % d == 0])
    new = (first, second, rest // second) if g.draw(st.booleans()) else (first, rest)
    return g.m.op("Reshape", x, g.integers(*new))


def joined(g: Growing, x: str) -> str | None:
    shape = g.shape(x)
    if not shape:
        return None
    axis = g.number(0, len(shape) - 1)
    others = [t for t in g.names if len(g.shape(t)) == len(shape)]
    fits = [t for t in others if all(a == b for i, (a, b) in enumerate(zip(g.shape(t), shape)) if i != axis)]
    parts = g.draw(st.lists(st.sampled_from([x, *fits]), min_size=1, max_size=3))
    return g.m.op("Concat", x, *parts, axis=axis)


def padded(g: Growing, x: str) -> str | None:
    """One tensor with margins of several values."""
    rank = len(g.shape(x))
    if not rank or g.dtype == dtypes.BOOL:
        return None
    pads = [g.number(0, 2) for _ in range(2 * rank)]

    def once(value: int) -> str:
        fill = g.m.constant(np.array(value, g.dtype.numpy), "fill")
        return g.m.op("Pad", x, g.integers(*pads), fill)

    if g.draw(st.booleans()):
        return once(g.number(-3, 3))
    kinds = [g.m.op("Neg", once(value)) for value in (g.number(-3, 3), 7)]
    return g.m.op("Add", *kinds)


STEPS: list[Callable[[Growing, str], str | None]] = [
    alone,
    together,
    multiplied,
    windowed,
    gathered,
    normalised,
    picked,
    rearranged,
    joined,
    padded,
]
MOST_ELEMENTS = 4000  # of a tensor: a guarded run checks every element


@st.composite
def graphs(draw: Draw, dtype: DType) -> Graph:
    """A few operators of any families, one after the other or side by side, maybe with a state."""
    g = Growing(draw, dtype)
    for make in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5)):
        x = g.names[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(g.names))
        if prod(g.shape(x)) <= MOST_ELEMENTS and (new := make(g, x)) is not None:
            g.names.append(new)
    inputs, states = ["x"], []
    x = g.names[-1]
    if draw(st.booleans()) and dtype != dtypes.BOOL:
        past = g.m.tensor("past", g.shape(x), dtype)
        inputs.append(past)
        g.names.append(g.m.op("Add", g.m.op("Neg", past), x))
        states.append((past, g.names[-1]))
    last = g.names[-1]
    if last == "x" or last in g.m.constants:
        last = g.m.op("Identity" if dtype == dtypes.BOOL else "Abs", last)
    outputs = {last, draw(st.sampled_from([n for n in g.names if n not in g.m.constants]))}
    return g.m.graph("grown", inputs, sorted(outputs), states)


def widened(graph: Graph) -> Graph:
    """The graph in float64."""

    def wide(t: DType) -> DType:
        return dtypes.F64 if t.is_float else t

    nodes = tuple(
        replace(n, op=replace(n.op, in_types=tuple(map(wide, n.op.in_types)), out_type=wide(n.op.out_type)))
        for n in graph.nodes
    )
    tensors = {n: replace(t, dtype=wide(t.dtype)) for n, t in graph.tensors.items()}
    constants = {n: c.astype(tensors[n].dtype.numpy) for n, c in graph.constants.items()}
    return replace(graph, nodes=nodes, tensors=tensors, constants=constants)


def close(dtype: DType, ours: Array, right: Array, error: float) -> None:
    if not dtype.is_float:
        np.testing.assert_array_equal(ours, right)
        return
    ours = ours.astype(right.dtype)
    finite = np.isfinite(right) & np.isfinite(ours)
    largest = float(np.abs(right[finite]).max(initial=1))
    np.testing.assert_allclose(ours[finite], right[finite], rtol=0, atol=error * largest)


ERRORS = {dtypes.F16: 0.1, dtypes.F32: 1e-4, dtypes.F64: 1e-12, dtypes.BF16: 0.5}  # of the largest value
KINDS = [dtypes.F32, dtypes.F16, dtypes.BF16, dtypes.F64, dtypes.I32, dtypes.BOOL]


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_graphs_of_every_family_on_any_wafer(dtype: DType, data: st.DataObject) -> None:
    graph = data.draw(graphs(dtype))
    side = data.draw(st.integers(4, 16)), data.draw(st.integers(4, 16))
    wafer = replace(preset("16x16"), name="drawn", width=side[0], height=side[1])
    ready = graph
    if data.draw(st.booleans()):
        ready = simplify(graph) if data.draw(st.booleans()) else simplify(graph, CLEAN)
    error = ERRORS.get(dtype, 0.0)
    if dtype == dtypes.F32 and data.draw(st.booleans()):
        ready, error = narrow_weights(ready, "bf16", "bf16"), 0.1
    if data.draw(st.booleans()):
        p = plan(ready, wafer)
        judge(p)
    else:
        p = placed(ready, wafer, data.draw(placements(ready, wafer)))
    made = agree(p)
    past = {a: np.zeros(graph.tensors[a].shape, np.float64) for a, _ in graph.states}
    for seed, ours in enumerate(made):
        inputs = {**inputs_of(graph, seed), **past}
        wide = widened(graph)
        right = evaluate(wide, {n: v.astype(wide.tensors[n].dtype.numpy) for n, v in inputs.items()})
        past = {a: right[b] for a, b in graph.states}
        for name, value in ours.items():
            close(dtype, value, right[name], error)


# -- a wrong plan ------------------------------------------------------------------------------------


def test_a_plan_that_lost_a_move_is_refused_before_there_is_a_program() -> None:
    """A normal run would not miss the bytes that a core never got: only the judge keeps it honest."""
    p = planned("mlp", "8x8")
    s = next(s for s in p.steps if s.kind == "task" and any(o.moves and not o.fill for o in s.operands))
    operands = tuple(replace(o, moves=o.moves[1:]) if o.received else o for o in s.operands)
    steps = tuple(replace(t, operands=operands) if t is s else t for t in p.steps)
    wrong = replace(p, steps=steps)
    with pytest.raises(IllegalPlan, match="moves, must be 1"):
        judge(wrong)
    same(*(prepare(q).run(inputs_of(p.graph, 0))["n4_Softmax_out"] for q in (p, wrong)))


def test_every_compile_is_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pipeline makes no program of a plan that its judge refuses."""

    def refuse(plan: Plan, tell: object) -> None:
        raise IllegalPlan("planted")

    monkeypatch.setattr(planning, "judge", refuse)
    path = tmp_path / "relu.onnx"
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (3, 4)) for n in "xy")
    onnx.save(
        helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])), path
    )
    with pytest.raises(IllegalPlan, match="planted"):
        compile_model(path, wafer="4x4")
