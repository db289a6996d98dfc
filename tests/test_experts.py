"""Experts: an index is an address. Products that it chooses, and loops over experts that become such."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jit
import numpy as np
import onnx
import pytest
import waferc
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from plans import Model
from sampled import sampled
from single import close, golden
from test_smollm2 import Decoder
from test_sweeps import agree, placements
from test_sweeps import placed as placed_by_hand
from waferc.compiler.importer import Binding, import_entries, import_model
from waferc.compiler.passes.simplify import simplify
from waferc.ir import dtypes
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph
from waferc.ir.op import Array, identity
from waferc.ir.ops.indexed import Indexed
from waferc.ir.packing import WORD
from waferc.placement.machine.presets import preset
from waferc.placement.plan.plan import Plan

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))

from decoder import Shape, decoder, random_weights
from upcycle import upcycled

RANDOM = np.random.default_rng(11)


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


# -- the op ---------------------------------------------------------------------------------


def indexed(t: int, c: int, k: int, n: int, experts: int, added: bool) -> Indexed:
    """A row of tokens and choices by the chosen matrix; added: over the choices, too."""
    axes = [("t", t), ("c", c), ("n", n), ("k", k), ("e", experts)]
    if added:
        axes = [axes[0], axes[2], axes[1], *axes[3:]]
    return Indexed(
        axes=tuple(axes),
        reads=(identity(["t", "c", "k"]), identity(["e", "k", "n"]), identity(["t", "c"])),
        write=identity(["t", "n"] if added else ["t", "c", "n"]),
        in_types=(dtypes.F32, dtypes.F32, dtypes.I64),
        out_type=dtypes.F32,
        chosen="e",
        of=0,
    )


@settings(max_examples=12)
@given(st.data())
def test_the_kernel_is_numpys_product_of_what_was_chosen(data: st.DataObject) -> None:
    t, c, k, n, experts = (data.draw(st.integers(1, most)) for most in (4, 3, 9, 40, 6))
    added = data.draw(st.booleans())
    op = indexed(t, c, k, n, experts, added)
    op.check()
    x, weights = normal(t, c, k), normal(experts, k, n)
    chosen = RANDOM.integers(-experts, experts, (t, c))
    wanted = np.einsum(
        "tck,tckn->" + ("tn" if added else "tcn"), x.astype(float), weights[chosen].astype(float)
    )
    close(op.reference(x, weights, chosen), wanted.astype(np.float32))
    for guard in (False, True):
        out = np.zeros(wanted.shape, np.float32)
        jit.run(op, [x, weights, chosen], out=out, guard=guard)
        close(out, wanted.astype(np.float32))


def mixture(tokens: int = 3) -> Graph:
    """Two products by chosen matrices, and the sum over the choices."""
    m = Model()
    x, at = m.tensor("x", (tokens, 1, 1, 12), dtypes.F32), m.tensor("at", (tokens, 2), dtypes.I64)
    h = m.op("MatMul", x, m.op("Gather", m.normal(0, 5, 12, 10), at))
    h = m.op("MatMul", m.op("Relu", h), m.op("Gather", m.normal(1, 5, 10, 9), at))
    axes = m.constant(np.array([1, 2], np.int64))
    return simplify(m.graph("mixture", [x, at], [m.op("ReduceSum", h, axes, keepdims=0)]))


def dequantised(m: Model, bits: int, zeros: bool, *shape: int) -> str:
    """[experts, inputs, outputs], of numbers in blocks of 16."""
    kind = {4: dtypes.U4, 8: dtypes.U8}[bits].numpy
    each = (shape[0], shape[1] // 16, shape[2])
    scales = RANDOM.uniform(0.01, 0.1, each).astype(np.float32)
    parts = [RANDOM.integers(0, 1 << bits, shape).astype(kind), scales]
    parts += [RANDOM.integers(0, 1 << bits, each).astype(kind)] if zeros else []
    names = [m.constant(v, "weight") for v in parts]
    return m.op("DequantizeLinear", *names, axis=1, block_size=16, output_dtype=1)


def in_words(bits: int, zeros: bool, added: bool) -> Graph:
    """The same of weights in words; added: the second product is over the choices, too."""
    m = Model()
    x, at = m.tensor("x", (3, 1, 1, 32), dtypes.F32), m.tensor("at", (3, 2), dtypes.I64)
    h = m.op("Relu", m.op("MatMul", x, m.op("Gather", dequantised(m, bits, zeros, 5, 32, 16), at)))
    second = m.op("Gather", dequantised(m, bits, zeros, 5, 16, 9), at)
    if added:
        y = m.op("Einsum", h, second, equation="tcmk,tckn->tmn")
    else:
        axes = m.constant(np.array([1, 2], np.int64))
        y = m.op("ReduceSum", m.op("MatMul", h, second), axes, keepdims=0)
    return m.graph("words", [x, at], [y])


def fed(seed: int, tokens: int = 3, width: int = 12) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((tokens, 1, 1, width)).astype(np.float32)
    return {"x": x, "at": random.integers(-5, 5, (tokens, 2))}


def uncut(p: Plan) -> None:
    """Fails where experts are cut, or an expert moves."""
    steps = [s for s in p.steps if isinstance(s.op, Indexed)]
    assert steps
    for s in steps:
        assert isinstance(s.op, Indexed)
        assert s.op.chosen not in {c.axis for c in s.split.cuts}
        for weights in s.operands[1:-1]:
            assert weights.tensor in p.graph.constants and not weights.moves


@settings(max_examples=4)
@given(st.data())
def test_the_same_bits_however_a_plan_cuts(data: st.DataObject) -> None:
    graph, wafer = mixture(), preset(data.draw(st.sampled_from(["4x4", "8x8"])))
    agree(placed_by_hand(graph, wafer, data.draw(placements(graph, wafer))), feed=fed)


@pytest.mark.thorough
@settings(max_examples=4)
@given(st.data())
def test_matrices_in_words_are_read_by_an_index(data: st.DataObject) -> None:
    zeros, added, bits = (
        data.draw(st.booleans()),
        data.draw(st.booleans()),
        data.draw(st.sampled_from([4, 8])),
    )
    graph, wafer = in_words(bits, zeros, added), preset(data.draw(st.sampled_from(["4x4", "8x8"])))
    ready = simplify(graph)
    assert names_of(ready).count("PackedIndexed") == 2
    words = [t for t in map(ready.tensors.get, ready.constants) if t and t.dtype == WORD]
    assert sum(t.bytes for t in words) == 5 * (32 * 16 + 16 * 9) * bits // 8
    feed = fed(0, width=32)
    (exact,), (ours,) = evaluate(graph, feed).values(), evaluate(ready, feed).values()
    close(ours, exact)
    drawn = placed_by_hand(ready, wafer, data.draw(placements(ready, wafer)))
    (found,) = agree(drawn, (1, 2), feed=lambda seed: fed(seed, width=32))[0].values()
    close(found, exact)


def test_experts_of_floats_are_packed() -> None:
    weights, at = normal(4, 64, 24), np.array([[1, 3]])
    proto = products(weights).SerializeToString()
    x = normal(1, 2, 1, 64)
    for kind, bits, most in (("int8", 8, 0.02), ("int4", 4, 0.2)):
        made = waferc.compile_model(proto, wafer="4x4", weights=kind)
        assert names_of(made.graph) == ["PackedIndexed"]
        held = sum(made.graph.tensors[t].bytes for t in made.graph.constants)
        assert held == weights.size * bits // 8 + weights.size // 32 * 2
        exact = x @ weights[at]
        ours = made.run({"x": x, "at": at})["y"]
        assert 0 < np.abs(ours - exact).max() < most * np.abs(exact).max()


@pytest.mark.parametrize(
    ("bits", "block", "zeros"), sampled([(4, 32, False), (4, 0, True), (8, 0, False), (8, 32, True)], 4)
)
def test_a_mixture_of_numbers_keeps_its_bytes(bits: int, block: int, zeros: bool) -> None:
    """com.microsoft's QMoE, in blocks or a scale for each row, and with zero points."""
    tokens, experts, width, inner = 2, 4, 64, 32
    fixed: dict[str, Array] = {}
    for layer, outputs, inputs in ((1, 2 * inner, width), (2, width, inner)):
        blocks = inputs // block if block else 1
        of_points = (outputs, -(-blocks * bits // 8)) if block else (-(-outputs * bits // 8),)
        parts = {"w": (outputs, inputs * bits // 8), "s": (outputs, blocks) if block else (outputs,)}
        parts |= {"z": of_points} if zeros else {}
        for kind, shape in parts.items():
            bytes_of = RANDOM.integers(0, 256, (experts, *shape)).astype(np.uint8)
            fixed[f"{kind}{layer}"] = (
                RANDOM.uniform(0.01, 0.1, (experts, *shape)).astype(np.float32) / np.float32(1 << (bits - 4))
                if kind == "s"
                else bytes_of
            )
    points = ["z1", "z2"] if zeros else ["", ""]
    names = ["x", "router", "w1", "s1", "", "w2", "s2", "", "", "", "", *points]
    own: dict[str, Any] = {"block_size": block} if block else {}
    own |= {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "weights_prepacked": 0}
    node = helper.make_node("QMoE", names, ["y"], domain="com.microsoft", expert_weight_bits=bits, **own)
    ends = [tensor("x", [tokens, width]), tensor("router", [tokens, experts])]
    proto = whole([node], ends, [tensor("y", [tokens, width])], fixed)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    made = waferc.compile_model(proto.SerializeToString(), wafer="8x8")
    uncut(made.plan)
    assert names_of(made.graph).count("PackedIndexed") == 2
    held = [made.graph.tensors[t] for t in made.graph.constants]
    packed = sum(v.nbytes for n, v in fixed.items() if n[0] == "w")
    assert sum(t.bytes for t in held if t.dtype == WORD) == packed
    assert sum(t.bytes for t in held) < 1.6 * packed
    x = normal(tokens, width)
    given = {"x": x, "router": normal(tokens, experts)}
    one, two = made.run(given, 1)["y"], made.run(given, 2)["y"]
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, made.prepared(1, True).run(given)["y"])
    # onnxruntime rounds what it multiplies with blocks of 8-bit weights
    close(one, golden(proto, given)["y"], 0.1 if (bits, block) == (8, 32) else 1e-5)


def test_an_index_outside_ends_the_call() -> None:
    weights, at = normal(4, 6, 8), np.array([[1, 3]])
    proto = products(weights)
    made = waferc.compile_model(proto.SerializeToString(), wafer="4x4")
    uncut(made.plan)
    for threads, guard in ((1, False), (2, False), (1, True)):
        program = made.prepared(threads, guard)
        with pytest.raises(waferc.InvalidIndex, match="index 4 is outside axis 0 of 4 elements"):
            program.run({"x": normal(1, 2, 1, 6), "at": np.array([[1, 4]])})
        x = normal(1, 2, 1, 6)
        close(program.run({"x": x, "at": at})["y"], x @ weights[at])


def products(weights: Array, turned: bool = False) -> onnx.ModelProto:
    """Rows by looked up matrices; turned: the matrix first."""
    nodes = [helper.make_node("Gather", ["w", "at"], ["g"])]
    nodes += [helper.make_node("MatMul", ["g", "x"] if turned else ["x", "g"], ["y"], "it")]
    wide = [1, 2, weights.shape[2], 1] if turned else [1, 2, 1, weights.shape[1]]
    ends = [tensor("x", wide), tensor("at", [1, 2], TensorProto.INT64)]
    return whole(nodes, ends, [tensor("y", None)], {"w": weights})


def tensor(name: str, shape: Sequence[int] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def whole(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    fixed: Mapping[str, Array],
) -> onnx.ModelProto:
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in fixed.items()]
    graph = helper.make_graph(nodes, "experts", inputs, outputs, constants)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def names_of(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def test_what_is_looked_up_for_a_product_and_what_is_not() -> None:
    weights = normal(4, 6, 8)
    for turned in (False, True):
        graph = simplify(import_model(products(weights, turned)))
        assert names_of(graph) == ["Indexed"]
        x, at = normal(*graph.tensors["x"].shape), np.array([[-1, 2]])
        ours = evaluate(graph, {"x": x, "at": at})["y"]
        close(ours, weights[at] @ x if turned else x @ weights[at])
    # a row of a table is little, and its product is by one matrix
    m = Model()
    at = m.tensor("at", (3,), dtypes.I64)
    y = m.op("MatMul", m.op("Gather", m.normal(0, 9, 4), at), m.normal(1, 4, 5))
    assert names_of(simplify(m.graph("embedding", [at], [y]))) == ["Gather", "Contract"]


# -- loops over experts ---------------------------------------------------------------------


class Loop:
    """A mixture as exporters of torch's models write it: a loop over experts, each with its rows.

    slots: the masks' first dimension is that of choices. adds: how rows are added. gated: what an expert is.
    stored: its weights are dequantised: "" for floats, else how: "i4" with a scale for blocks, "u4" with zero
    points, too, "i8" with one scale for each column.
    """

    def __init__(
        self, sizes: tuple[int, int, int], slots: bool, adds: str, gated: bool, stored: str = ""
    ) -> None:
        self.tokens, self.experts, self.chosen = sizes
        self.slots, self.adds, self.gated, self.stored = slots, adds, gated, stored
        self.nodes: list[onnx.NodeProto] = []
        self.fixed: dict[str, Array] = {"router": normal(8, self.experts), "k": np.array([self.chosen])}

    def op(self, kind: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, names, f"n{len(self.nodes)}_{kind}", **attributes))
        return names[0] if count == 1 else names

    def constant(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def weight(self, value: Array) -> str:
        name = f"c{len(self.fixed)}"
        self.fixed[name] = value
        return name

    def factor(self, inputs: int, outputs: int) -> str:
        """[inputs, outputs]: an expert's weights."""
        if not self.stored:
            return self.weight(normal(inputs, outputs))
        blocks = 1 if self.stored == "i8" else inputs // 8
        kind = getattr(dtypes, self.stored.upper())
        low, high = kind.limits
        numbers = RANDOM.integers(int(low), int(high), (inputs, outputs), endpoint=True)
        scales = RANDOM.uniform(0.5, 1.0, (blocks, outputs)).astype(np.float32) / np.float32(high)
        names = [self.weight(numbers.astype(kind.numpy))]
        if self.stored == "i8":
            names += [self.weight(scales[0])]
            return self.op("DequantizeLinear", *names, axis=1)
        names += [self.weight(scales)]
        if self.stored == "u4":
            names += [self.weight(RANDOM.integers(0, 16, scales.shape).astype(kind.numpy))]
        return self.op("DequantizeLinear", *names, axis=0, block_size=8)

    def expert(self, rows: str) -> str:
        if self.gated:
            gate, line = (self.op("MatMul", rows, self.factor(8, 16)) for _ in range(2))
            rows = self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), line)
            return self.op("MatMul", rows, self.factor(16, 8))
        if self.stored:
            rows = self.op("Add", self.op("MatMul", rows, self.factor(8, 16)), self.weight(normal(16)))
            return self.op("MatMul", self.op("Relu", rows), self.factor(16, 8))
        rows = self.op("Gemm", rows, self.weight(normal(6, 8)), self.weight(normal(6)), transB=1)
        return self.op(
            "Gemm", self.op("Relu", rows), self.weight(normal(8, 6)), self.weight(normal(8)), transB=1
        )

    def right(self, proto: onnx.ModelProto, x: Array) -> Array:
        """The result. onnxruntime rounds what dequantised weights multiply, onnx's reference does not."""
        if self.stored:
            return np.asarray(ReferenceEvaluator(proto).run(["y"], {"x": x}))[0]
        return golden(proto, {"x": x})["y"]

    def model(self, experts: Sequence[int] | None = None) -> onnx.ModelProto:
        scores = self.op("Softmax", self.op("MatMul", "x", "router"), axis=1)
        shares, at = self.op("TopK", scores, "k", count=2)
        hot = self.op("OneHot", at, self.weight(np.array(self.experts)), self.constant(0, 1))
        hot = self.op("Transpose", hot, perm=[2, 1, 0]) if self.slots else hot
        total = self.weight(np.zeros((self.tokens, 8), np.float32))
        for e in range(self.experts) if experts is None else experts:
            total = self.one(e, (shares, at, hot), total)
        self.nodes.append(helper.make_node("Add", [total, "x"], ["y"], "residual"))
        shape = [self.tokens, 8]
        return whole(self.nodes, [tensor("x", shape)], [tensor("y", shape)], self.fixed)

    def one(self, e: int, router: tuple[str, str, str], total: str) -> str:
        shares, at, hot = router
        if self.slots:
            mask = self.op(
                "Cast", self.op("Gather", hot, self.weight(np.array(e)), axis=0), to=TensorProto.BOOL
            )
        else:
            mask = self.op("Equal", at, self.weight(np.array(e)))
        places = self.op("NonZero", mask)
        rows = self.op("Split", places, count=2, axis=0, num_outputs=2)
        first, second = (self.op("Squeeze", r, self.constant(0)) for r in rows)
        token, slot = (second, first) if self.slots else (first, second)
        taken = self.op("Gather", "x", token, axis=0)
        flat = self.op("Add", self.op("Mul", token, self.constant(self.chosen)), slot)
        share = self.op("Gather", self.op("Reshape", shares, self.constant(-1, 1)), flat, axis=0)
        share = self.op(
            "Reshape", share, self.op("Concat", self.op("Shape", token), self.constant(1), axis=0)
        )
        made = self.op("Mul", self.expert(taken), share)
        if self.adds == "nd":
            place = self.op("Unsqueeze", token, self.constant(1))
            return self.op("ScatterND", total, place, made, reduction="add")
        place = self.op("Expand", self.op("Unsqueeze", token, self.constant(1)), self.op("Shape", made))
        if self.adds == "elements":
            return self.op("ScatterElements", total, place, made, axis=0, reduction="add")
        none = self.weight(np.zeros((self.tokens, 8), np.float32))
        return self.op("Add", total, self.op("ScatterElements", none, place, made, axis=0))


@settings(max_examples=8)
@given(st.data())
def test_a_loop_over_experts_is_one_pass(data: st.DataObject) -> None:
    tokens, experts = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 5))
    sizes = tokens, experts, data.draw(st.integers(1, experts))
    adds = data.draw(st.sampled_from(["none", "elements", "nd"]))
    stored = data.draw(st.sampled_from(["", "i4", "u4", "i8"]))
    loop = Loop(sizes, data.draw(st.booleans()), adds, data.draw(st.booleans()), stored)
    proto = loop.model()
    graph = simplify(import_model(proto))
    names = names_of(graph)
    assert "Scatter" not in names and names.count("PackedIndexed" if stored else "Indexed") in (2, 3)
    for _ in range(3):
        x = normal(tokens, 8)
        close(evaluate(graph, {"x": x})["y"], loop.right(proto, x))
    made = import_entries(proto, {"": Binding({}, {}, {})})
    assert made.play is None  # nothing is the host's


@pytest.mark.parametrize("adds, sizes", [("none", (3, 4, 2)), ("elements", (3, 4, 2)), ("nd", (1, 4, 1))])
def test_rows_that_are_no_loop_over_all_experts_are_put_in_place(
    adds: str, sizes: tuple[int, int, int]
) -> None:
    proto = Loop(sizes, adds != "nd", adds, True).model(experts=[2, 0, 3])
    graph = simplify(import_model(proto))
    assert "Indexed" not in names_of(graph) and names_of(graph).count("Scatter") == 3
    made = waferc.compile_model(proto.SerializeToString(), wafer="4x4")
    assert made.runs_on == "wafer"
    for _ in range(3):
        x = normal(sizes[0], 8)
        theirs = golden(proto, {"x": x})["y"]
        close(evaluate(graph, {"x": x})["y"], theirs)
        close(made.run({"x": x})["y"], theirs)


@pytest.mark.parametrize("stored", sampled(["", "i4", "i8"], 3))
def test_a_wafers_cycles_do_not_depend_on_which_experts_are_chosen(stored: str) -> None:
    loop, x = Loop((2, 4, 2), True, "none", True, stored), normal(2, 8)
    proto = loop.model()
    routers: dict[bytes, Array] = {}  # by what it chooses
    while len(routers) < 4:
        router = normal(8, 4)
        routers[np.argsort(-(x @ router))[:, :2].tobytes()] = router
    taken: set[tuple[float, int, int]] = set()
    for router in routers.values():
        given = next(t for t in proto.graph.initializer if t.name == "router")
        given.CopyFrom(numpy_helper.from_array(router, "router"))
        made = waferc.compile_model(proto.SerializeToString(), wafer="8x8")
        uncut(made.plan)
        taken.add((made.figures.cycles, made.figures.tasks, made.figures.fullest_link_bytes))
        one, two = made.run({"x": x}, 1)["y"], made.run({"x": x}, 2)["y"]
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, made.prepared(1, True).run({"x": x})["y"])
        close(one, loop.right(proto, x))
    assert len(taken) == 1


# -- what more is made of rows ----------------------------------------------------------------


def found(*nodes: tuple[str, str, str], result: str = "y") -> onnx.ModelProto:
    """NonZero of x, places `a` of its rows, rows of x there; then operators, their inputs, outputs."""
    first = (
        ("NonZero", "x", "p"),
        ("Split", "p", "p0 p1"),
        ("Squeeze", "p0 zero", "a"),
        ("Gather", "x a", "r"),
    )
    own: dict[str, dict[str, Any]] = {"Split": {"num_outputs": 2}, "Cast": {"to": TensorProto.FLOAT}}
    made = [
        helper.make_node(kind, ins.split(), outs.split(), f"{kind}_{i}", **own.get(kind, {}))
        for i, (kind, ins, outs) in enumerate((*first, *nodes))
    ]
    values = {"zero": np.array([0]), "one": np.array([1])}
    kind = TensorProto.INT64 if result == "n" else TensorProto.FLOAT
    return whole(made, [tensor("x", [3, 4])], [tensor(result, None, kind)], values)


REFUSED = [
    (found(("ReduceSum", "r zero", "y")), "node 'ReduceSum_4' (ReduceSum) does more"),
    (found(("Shape", "r", "m"), ("Identity", "m", "n"), result="n"), "output 'n' is made of"),
    (found(("Relu", "r", "y")), "output 'y' has them"),
    (
        found(("Shape", "a", "n"), ("Cast", "n", "f"), ("Mul", "x f", "y")),
        "node 'Mul_6' (Mul) takes how many there are for a number",
    ),
    (found(("Shape", "a", "n"), ("Slice", "x zero n", "y")), "(Slice) takes how many there are for a number"),
    (found(("TopK", "r one", "t n"), result="n"), "output 'n' has them"),
]


@pytest.mark.parametrize("proto, said", REFUSED, ids=range(len(REFUSED)))
def test_what_is_more_than_rows_is_refused_with_the_node(proto: onnx.ModelProto, said: str) -> None:
    with pytest.raises(waferc.UnsupportedOperator, match="how many rows it finds depends on data") as caught:
        import_model(proto)
    assert said in str(caught.value)


# -- a decoder's FFN cut in experts -----------------------------------------------------------


@pytest.mark.parametrize("chosen", [4, 2])
def test_a_decoder_cut_in_experts(chosen: int) -> None:
    """With all chosen it is the dense decoder; with two onnxruntime's of the same model."""
    shape = Shape(layers=1, width=16, hidden=32, heads=2, kv_heads=1, head=8, vocabulary=40, positions=16)
    dense = decoder(shape, random_weights(3))
    cut = upcycled(dense, experts=4, chosen=chosen)
    graph = simplify(import_model(cut, dims={"S": 2, "P": 3}))
    assert names_of(graph).count("Indexed") == 3
    given = {"input_ids": np.array([[3, 17]]), "position_ids": np.array([[3, 4]])}
    given |= {f"past_key_values.0.{kind}": normal(1, 1, 3, 8) for kind in ("key", "value")}
    theirs = golden(dense if chosen == 4 else cut, given)["logits"]
    close(evaluate(graph, given)["logits"], theirs)


SMOLLM2 = Path(__file__).resolve().parent.parent / "build" / "smollm2.onnx"
SENTENCE = (504, 3575, 282, 4649, 314)  # "The capital of France is"
ONE_TOKEN: Mapping[str, Any] = {"capacity": 32, "entries": {"decode": {"S": 1}}}


@pytest.fixture(scope="module")
def smollm2() -> onnx.ModelProto:
    if not SMOLLM2.exists():
        pytest.skip(f"{SMOLLM2} IS MISSING: run `make smollm2`")
    return onnx.load(SMOLLM2)


@pytest.mark.models
def test_smollm2_in_experts_that_are_all_chosen_is_smollm2(smollm2: onnx.ModelProto, tmp_path: Path) -> None:
    """Its greedy tokens, and its logits but for the order of sums."""
    theirs, ids = Decoder(smollm2, Shape()), list(SENTENCE)
    wanted = [theirs.logits(ids)[-1]]
    for _ in range(11):
        wanted.append(theirs.logits([int(wanted[-1].argmax())])[-1])
    del theirs
    onnx.save(upcycled(smollm2, experts=8, chosen=8), tmp_path / "experts.onnx")
    ours = waferc.LanguageModel(tmp_path / "experts.onnx", wafer="wse3", **ONE_TOKEN)
    for logits in wanted:
        found = ours.logits(ids)
        close(found, logits)
        ids = [int(found.argmax())]
        assert ids == [logits.argmax()]


@pytest.mark.models
def test_smollm2_with_two_experts_takes_as_many_cycles_on_any_routing(
    smollm2: onnx.ModelProto, tmp_path: Path
) -> None:
    """Each router chooses otherwise, and so does each for another token."""
    taken: set[tuple[float, int, int]] = set()
    routings: set[bytes] = set()
    for seed in range(3):
        cut = upcycled(smollm2, experts=8, chosen=2, seed=seed)
        names = [o for n in cut.graph.node if n.op_type == "TopK" for o in n.output[1:]]
        assert len(names) == 30
        for name in names:
            cut.graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, [1, "S", 2]))
        chosen = Decoder(cut, Shape()).values(list(SENTENCE), names)
        assert chosen.shape == (30, len(SENTENCE), 2)
        routings |= {np.sort(chosen[:, at]).tobytes() for at in range(len(SENTENCE))}
        del cut.graph.output[-len(names) :]
        onnx.save(cut, tmp_path / "experts.onnx")
        del cut
        made = waferc.compile_model(tmp_path / "experts.onnx", wafer="wse3", until="plan", **ONE_TOKEN)
        taken.add((made.figures.cycles, made.figures.tasks, made.figures.fullest_link_bytes))
    assert len(routings) == 3 * len(SENTENCE)
    assert len(taken) == 1


def test_a_saved_program_of_experts_runs(tmp_path: Path) -> None:
    proto = products(normal(4, 6, 8))
    made = waferc.compile_model(proto.SerializeToString(), wafer="4x4")
    made.save(tmp_path / "p.wafer")
    given = {"x": normal(1, 2, 1, 6), "at": np.array([[0, 2]])}
    np.testing.assert_array_equal(waferc.load(tmp_path / "p.wafer").run(given)["y"], made.run(given)["y"])
