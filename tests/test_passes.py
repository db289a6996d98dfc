"""Graph passes: the same numbers, fewer nodes, and no composition that reads what is not there."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from single import by_kernels, close, golden
from waferc.compiler.errors import UnsupportedModel
from waferc.compiler.importer import import_model
from waferc.compiler.passes import simplify as simplifying
from waferc.compiler.passes.dead_nodes import eliminate_dead
from waferc.compiler.passes.late_scales import MOST_ROWS
from waferc.compiler.passes.mask_caches import mask_caches
from waferc.compiler.passes.merge_equal import merge_equal
from waferc.compiler.passes.narrow_weights import narrow_weights
from waferc.compiler.passes.rewriter import Rewriter
from waferc.compiler.passes.simplify import CLEAN, PASSES, simplify
from waferc.ir.dtypes import BF16, F32, I64
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph, Length, Node, Tensor
from waferc.ir.op import MEANING, PROMISES, Array, Op, gather, identity
from waferc.ir.ops.contract import Contract
from waferc.ir.ops.elementwise import Div
from waferc.ir.ops.normalize import Softmax
from waferc.ir.ops.tensor_scatter import TensorScatter

if TYPE_CHECKING:
    from _typeshed import TraceFunction

MODELS = Path(__file__).resolve().parent.parent / "build" / "models"
random = np.random.default_rng(3)


def normal(*shape: int) -> Array:
    return random.standard_normal(shape).astype(np.float32)


def several(
    nodes: Sequence[tuple[str, str, str] | tuple[str, str, str, dict[str, object]]],
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    """A model of (operator, "a b", "c", attributes) rows on f32 inputs."""
    made = [
        helper.make_node(n[0], n[1].split(), n[2].split(), f"n{i}", **(n[3] if len(n) > 3 else {}))
        for i, n in enumerate(nodes)
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    for r in results:
        r.type.tensor_type.shape.SetInParent()
    fixed = [numpy_helper.from_array(v, n) for n, v in (constants or {}).items()]
    graph = helper.make_graph(made, "several", values, results, fixed)
    inferred = onnx.shape_inference.infer_shapes(
        helper.make_model(_open(graph), ir_version=8, opset_imports=[helper.make_opsetid("", opset)])
    )
    return inferred


def _open(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Outputs with a type and no shape, for inference to fill in."""
    for r in graph.output:
        r.type.tensor_type.ClearField("shape")
    return graph


def check(proto: onnx.ModelProto) -> Graph:
    """The simplified graph before fusion, after its numbers and those after fusion were found right."""
    graph = import_model(proto)
    better = simplify(graph, CLEAN)
    inputs = {t: normal(*graph.tensors[t].shape) for t in graph.inputs}
    theirs = golden(proto, inputs)
    for g in (better, simplify(graph)):
        for run in (evaluate, by_kernels):
            ours = run(g, inputs)
            for name, value in theirs.items():
                close(ours[name], np.asarray(value))
    return better


def kinds(graph: Graph) -> Counter[str]:
    return Counter(n.op.name for n in graph.nodes)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def test_dead_nodes_go_and_inputs_stay() -> None:
    proto = several(
        [("Relu", "x", "y"), ("Neg", "x", "z"), ("Exp", "z", "w")], {"x": (3,), "unused": (2,)}, ["y"]
    )
    g = eliminate_dead(import_model(proto))
    assert kinds(g) == {"Relu": 1}
    assert g.inputs == ("x", "unused")


def test_equal_nodes_merge_but_outputs_keep_their_names() -> None:
    rows = [("Relu", "x", "a"), ("Relu", "x", "b"), ("Exp", "a", "c"), ("Exp", "b", "d"), ("Add", "c d", "e")]
    g = check(several(rows, {"x": (3,)}, ["e"]))
    assert kinds(g) == {"Relu": 1, "Exp": 1, "Add": 1}
    g = merge_equal(import_model(several(rows, {"x": (3,)}, ["a", "b"])))
    assert g.outputs == ("a", "b")
    check(several(rows, {"x": (3,)}, ["a", "b", "e"]))


def test_equal_constants_merge() -> None:
    c = normal(4)
    proto = several([("Mul", "x p", "a"), ("Mul", "a q", "b")], {"x": (4,)}, ["b"], {"p": c, "q": c.copy()})
    assert len(check(proto).constants) == 1


@pytest.mark.parametrize("place", [0, 1, 4999, 9999])
def test_constants_that_differ_in_one_bit_do_not_merge(place: int) -> None:
    zeros, almost = np.zeros(10_000, np.float32), np.zeros(10_000, np.float32)
    almost[place] = -0.0
    rows, ends = [("Mul", "x p", "a"), ("Mul", "a q", "b")], ({"x": (10_000,)}, ["b"])
    for q, left in ((zeros.copy(), 1), (almost, 2)):
        graph = merge_equal(import_model(several(rows, *ends, {"p": zeros, "q": q})))
        assert len({n for node in graph.nodes for n in node.inputs if n in graph.constants}) == left


def test_attention_needs_no_copy() -> None:
    rows = [
        ("MatMul", "x wq", "q0"),
        ("MatMul", "x wk", "k0"),
        ("MatMul", "x wv", "v0"),
        *((("Reshape", f"{t}0 heads", f"{t}1")) for t in "qkv"),
        ("Transpose", "q1", "q", {"perm": [0, 2, 1, 3]}),
        ("Transpose", "k1", "k", {"perm": [0, 2, 3, 1]}),
        ("Transpose", "v1", "v", {"perm": [0, 2, 1, 3]}),
        ("MatMul", "q k", "s"),
        ("Softmax", "s", "p"),
        ("MatMul", "p v", "o0"),
        ("Transpose", "o0", "o1", {"perm": [0, 2, 1, 3]}),
        ("Reshape", "o1 flat", "o2"),
        ("MatMul", "o2 wo", "y"),
    ]
    constants = {f"w{t}": normal(12, 12) for t in "qkvo"}
    constants |= {"heads": ints(0, 0, 3, 4), "flat": ints(0, 0, 12)}
    g = check(several(rows, {"x": (1, 5, 12)}, ["y"], constants))
    assert kinds(g) == {"Contract": 6, "Softmax": 1}


def test_split_axes_on_both_sides() -> None:
    """[8, 6] -> [4, 12]: rows pair up; neither side has the axes, so one is cut."""
    rows = [("Relu", "x", "a"), ("Reshape", "a s", "b"), ("MatMul", "b w", "y")]
    g = check(several(rows, {"x": (8, 6)}, ["y"], {"s": ints(4, 12), "w": normal(12, 5)}))
    assert kinds(g) == {"Relu": 1, "Contract": 1}
    rows = [("Reshape", "x s", "b"), ("MatMul", "b w", "y")]
    g = check(several(rows, {"x": (8, 6)}, ["y"], {"s": ints(4, 12), "w": normal(12, 5)}))
    assert kinds(g) == {"Contract": 1}


def test_normalised_axis_is_not_cut() -> None:
    rows = [("Reshape", "x s", "b"), ("Softmax", "b", "y", {"axis": -1})]
    assert kinds(check(several(rows, {"x": (8, 6)}, ["y"], {"s": ints(4, 12)}))) == {"Copy": 1, "Softmax": 1}


def test_padding_becomes_the_convolution_s_own() -> None:
    rows = [("Pad", "x p", "a"), ("Conv", "a w", "y")]
    constants = {"p": ints(0, 0, 1, 2, 0, 0, 0, 1), "w": normal(3, 2, 3, 3)}
    assert kinds(check(several(rows, {"x": (1, 2, 6, 7)}, ["y"], constants))) == {"Contract": 1}


def test_padding_of_another_value_stays_under_a_padded_reader() -> None:
    """The Pad's 1 and the convolution's 0 cannot be one fill."""
    rows = [("Pad", "x p v", "a"), ("Conv", "a w", "y", {"pads": [1, 1]})]
    constants = {"p": ints(0, 0, 1, 0, 0, 1), "v": np.array(1, np.float32), "w": normal(3, 2, 3)}
    assert kinds(check(several(rows, {"x": (1, 2, 6)}, ["y"], constants))) == {"Copy": 1, "Contract": 1}


def test_a_slice_under_a_padded_reader_stays() -> None:
    """What the convolution pads with zeros lies inside the sliced tensor."""
    rows = [("Slice", "x s e a", "b"), ("Conv", "b w", "y", {"pads": [1, 1]})]
    constants = {"s": ints(1), "e": ints(5), "a": ints(2), "w": normal(3, 2, 3)}
    assert kinds(check(several(rows, {"x": (1, 2, 8)}, ["y"], constants))) == {"Copy": 1, "Contract": 1}


def test_a_transpose_under_a_padded_reader_goes() -> None:
    rows = [("Transpose", "x", "b", {"perm": [0, 2, 1]}), ("Conv", "b w", "y", {"pads": [1, 1]})]
    assert kinds(check(several(rows, {"x": (1, 8, 2)}, ["y"], {"w": normal(3, 2, 3)}))) == {"Contract": 1}


def test_unit_dimension_under_a_padded_reader_stays() -> None:
    """Padding of a dimension that the operand does not have."""
    rows = [("Unsqueeze", "x a", "b"), ("Conv", "b w", "y", {"pads": [1, 0, 1, 0]})]
    constants = {"a": ints(2), "w": normal(3, 2, 3, 1)}
    check(several(rows, {"x": (1, 2, 8)}, ["y"], constants))


def test_a_reader_within_one_part_of_a_concat() -> None:
    rows = [
        ("Concat", "x y", "c", {"axis": 0}),
        ("Slice", "c s e", "d"),
        ("Relu", "d", "z"),
    ]
    g = check(several(rows, {"x": (3, 2), "y": (4, 2)}, ["z"], {"s": ints(4), "e": ints(6)}))
    assert kinds(g) == {"Relu": 1}


def test_a_reader_across_parts_keeps_the_concat() -> None:
    rows = [("Concat", "x y", "c", {"axis": 0}), ("Relu", "c", "z")]
    g = check(several(rows, {"x": (3, 2), "y": (4, 2)}, ["z"]))
    assert kinds(g) == {"Copy": 2, "Relu": 1}


def test_producers_write_into_the_concat() -> None:
    rows = [("Relu", "x", "a"), ("Exp", "y", "b"), ("Concat", "a b", "z", {"axis": 1})]
    assert kinds(check(several(rows, {"x": (3, 2), "y": (3, 5)}, ["z"]))) == {"Relu": 1, "Exp": 1}


def test_a_tensor_that_is_an_output_keeps_its_writer() -> None:
    rows = [("Relu", "x", "a"), ("Transpose", "a", "b")]
    assert kinds(check(several(rows, {"x": (3, 2)}, ["a", "b"]))) == {"Relu": 1, "Copy": 1}


def test_part_of_a_result_is_not_written() -> None:
    rows = [("Relu", "x", "a"), ("Slice", "a s e", "b")]
    check(several(rows, {"x": (5,)}, ["b"], {"s": ints(1), "e": ints(3)}))


def test_repeats_are_not_writes() -> None:
    rows = [("Relu", "x", "a"), ("Tile", "a r", "b")]
    check(several(rows, {"x": (2, 3)}, ["b"], {"r": ints(2, 2)}))


def test_reversed_results_are_dense() -> None:
    rows = [("Relu", "x", "a"), ("Slice", "a s e d t", "b")]
    constants = {"s": ints(4), "e": ints(-9), "d": ints(0), "t": ints(-1)}
    check(several(rows, {"x": (5, 2)}, ["b"], constants))


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 1), (1, 4)])
def test_rows_that_are_written_without_a_dimension_of_one(kind: str, shape: tuple[int, ...]) -> None:
    check(several([(kind, "x", "a"), ("Unsqueeze", "a d", "b")], {"x": shape}, ["b"], {"d": ints(0)}))


# -- fusion -----------------------------------------------------------------------------


def fused(proto: onnx.ModelProto) -> Graph:
    check(proto)
    return simplify(import_model(proto))


def test_a_diamond_becomes_one_op() -> None:
    """gelu by hand: one value read five times, and four numbers."""
    rows = [
        ("Add", "x b", "a"),
        ("Div", "a r", "c"),
        ("Erf", "c", "d"),
        ("Add", "d one", "e"),
        ("Mul", "a e", "f"),
        ("Mul", "f half", "y"),
    ]
    numbers = {"r": 2**0.5, "one": 1.0, "half": 0.5}
    constants = {k: np.array(v, np.float32) for k, v in numbers.items()} | {"b": normal(6)}
    g = fused(several(rows, {"x": (4, 6)}, ["y"], constants))
    assert kinds(g) == {"Add+Div+Erf+Add+Mul+Mul": 1}
    assert g.nodes[0].inputs == ("x", "b")
    assert g.nodes[0].source == tuple(f"n{i}" for i in range(6))


def test_what_is_broadcast_is_not_computed_again() -> None:
    rows = [("Exp", "x", "a"), ("Mul", "a y", "z")]
    g = fused(several(rows, {"x": (1, 6), "y": (5, 6)}, ["z"]))
    assert kinds(g) == {"Exp": 1, "Mul": 1}


def test_what_others_read_stays() -> None:
    rows = [("Exp", "x", "a"), ("Neg", "a", "y"), ("ReduceSum", "a", "z")]
    assert kinds(fused(several(rows, {"x": (5, 6)}, ["y", "z"])))["Exp"] == 1
    assert kinds(fused(several(rows[:2], {"x": (5, 6)}, ["y", "a"])))["Exp"] == 1


def test_numbers_in_the_code_tell_zeros_apart() -> None:
    rows = [("Div", "x p", "y"), ("Div", "x m", "z")]
    constants = {"p": np.array(0.0, np.float32), "m": np.array(-0.0, np.float32)}
    g = fused(several(rows, {"x": (3,)}, ["y", "z"], constants))
    assert len({n.op.key() for n in g.nodes}) == len({n.op for n in g.nodes}) == 2


def test_not_a_number_stays_an_operand() -> None:
    constants = {"c": np.array(np.nan, np.float32)}
    g = simplify(import_model(several([("Add", "x c", "y")], {"x": (3,)}, ["y"], constants)))
    assert g.nodes[0].inputs == ("x", "c")
    assert np.isnan(evaluate(g, {"x": normal(3)})["y"]).all()


def test_padding_of_two_values_is_not_fused() -> None:
    rows = [("Pad", "x p v", "a"), ("Exp", "a", "b"), ("Pad", "y p", "c"), ("Add", "b c", "z")]
    constants = {"p": ints(1, 2), "v": np.array(3, np.float32)}
    g = fused(several(rows, {"x": (4,), "y": (4,)}, ["z"], constants))
    assert kinds(g) == {"Exp": 1, "Add": 1}


def test_units_are_dropped() -> None:
    g = fused(several([("Exp", "x", "y")], {"x": (1, 5, 1, 4)}, ["y"]))
    assert [n for _, n in g.nodes[0].op.axes] == [5, 4]
    assert len(fused(several([("Exp", "x", "y")], {"x": (1, 1)}, ["y"])).nodes[0].op.axes) == 1


@st.composite
def chains(draw: st.DrawFn) -> onnx.ModelProto:
    """An elementwise op between random rearrangements, then a sum over one axis."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3))
    rows: list[tuple[str, str, str, dict[str, object]]] = []
    constants: dict[str, Array] = {}
    first, current = list(shape), "x"
    for i in range(draw(st.integers(1, 5))):
        choice = draw(st.sampled_from(["transpose", "reshape", "slice", "pad", "relu", "reverse", "expand"]))
        out, own, inputs = f"t{i}", {}, current
        if choice == "transpose":
            order = list(draw(st.permutations(range(len(shape)))))
            own, op_type, shape = {"perm": order}, "Transpose", [shape[d] for d in order]
        elif choice == "reshape":
            op_type, size = "Reshape", int(np.prod(shape))
            split = draw(st.sampled_from([n for n in (1, 2, 3, 4, 6) if size % n == 0]))
            shape = draw(st.sampled_from([[size], [split, size // split], [size // split, split]]))
            constants[f"c{i}"], inputs = ints(*shape), f"{current} c{i}"
        elif choice in ("slice", "reverse"):
            op_type, d = "Slice", draw(st.integers(0, len(shape) - 1))
            bounds = (0, max(1, shape[d] - 1), d, 1) if choice == "slice" else (-1, -99, d, -1)
            for part, value in zip("seat", bounds, strict=True):
                constants[f"{part}{i}"] = ints(value)
            inputs = f"{current} s{i} e{i} a{i} t_{i}"
            constants[f"t_{i}"] = constants.pop(f"t{i}")
            shape = [n if j != d or choice == "reverse" else max(1, n - 1) for j, n in enumerate(shape)]
        elif choice == "pad":
            op_type = "Pad"
            widths = draw(st.lists(st.integers(0, 2), min_size=2 * len(shape), max_size=2 * len(shape)))
            constants[f"c{i}"], inputs = ints(*widths), f"{current} c{i}"
            shape = [n + widths[j] + widths[j + len(shape)] for j, n in enumerate(shape)]
        elif choice == "expand":
            op_type = "Expand"
            shape = [draw(st.sampled_from([1, 3])) if n == 1 else n for n in shape]
            constants[f"c{i}"], inputs = ints(*shape), f"{current} c{i}"
        else:
            op_type = "Relu"
        rows.append((op_type, inputs, out, own))
        current = out
    last = draw(st.sampled_from(["Relu", "ReduceSum", "Softmax"]))
    if last == "ReduceSum":
        constants["over"] = ints(draw(st.integers(0, len(shape) - 1)))
        rows.append(("ReduceSum", f"{current} over", "y", {"keepdims": draw(st.integers(0, 1))}))
    else:
        rows.append((last, current, "y", {}))
    return several(rows, {"x": first}, ["y"], constants)


@given(chains())
def test_random_chains(proto: onnx.ModelProto) -> None:
    graph = import_model(proto)
    better = simplify(graph)
    # A Softmax becomes several ops, so that its rows can be spread over cores; nothing else grows.
    if not any(isinstance(n.op, Softmax) for n in graph.nodes):
        assert len(better.nodes) <= len(graph.nodes)
    unfused = simplify(graph, CLEAN)
    x = np.arange(1, 1 + int(np.prod(graph.tensors["x"].shape)), dtype=np.float32)
    inputs = {"x": (x % 7 - 2).reshape(graph.tensors["x"].shape)}
    want = evaluate(graph, inputs)["y"]
    close(want, golden(proto, inputs)["y"])
    for g in (unfused, better):
        for run in (evaluate, by_kernels):
            close(run(g, inputs)["y"], want)


# -- real models ------------------------------------------------------------------------


def feeds(name: str) -> dict[str, Array]:
    if name.startswith("silero"):
        return {"input": 0.1 * normal(1, 576), "state": 0.1 * normal(2, 1, 128)}
    if name.startswith("magika"):
        return {"bytes": random.integers(0, 257, (1, 2048)).astype(np.int32)}
    mask = np.ones((1, 16), np.int64)
    mask[0, 12:] = 0
    return {"input_ids": random.integers(0, 30000, (1, 16)), "attention_mask": mask}


REAL = [
    ("silero_vad_openvino_16k.onnx", {}, 23, 4),
    ("magika.onnx", {"unk__214": 1}, 25, 0),
    ("paraphrase-MiniLM-L3-v2.onnx", {"batch_size": 1, "sequence_length": 16}, 102, 2),
]


@pytest.mark.parametrize(("name", "dims", "nodes", "copies"), REAL, ids=[r[0] for r in REAL])
def test_real_models(name: str, dims: dict[str, int], nodes: int, copies: int) -> None:
    """MiniLM's two Copies are the outputs that are inputs; silero's are a reflection and its state."""
    path = MODELS / name
    if not path.exists():
        pytest.skip(f"{path} IS MISSING: run `make models`")
    graph = import_model(path, dims)
    better = simplify(graph)
    inputs = feeds(name)
    theirs = golden(onnx.load(path), inputs)
    for g in (graph, simplify(graph, CLEAN), better):
        ours = evaluate(g, inputs)
        assert list(ours) == list(theirs)
        for output, value in theirs.items():
            close(ours[output], np.asarray(value))
    assert len(better.nodes) <= nodes
    assert kinds(better)["Copy"] <= copies


# -- scales -----------------------------------------------------------------------------------------
def normalised(rows: int) -> onnx.ModelProto:
    """RMSNorm as exporters write it, then two products."""
    return several(
        [
            ("Mul", "x x", "s"),
            ("ReduceMean", "s axes", "m"),
            ("Add", "m eps", "e"),
            ("Sqrt", "e", "r"),
            ("Div", "x r", "n"),
            ("Mul", "gain n", "g"),
            ("MatMul", "g w", "y"),
            ("MatMul", "g v", "z"),
        ],
        {"x": (rows, 24)},
        ["y", "z"],
        {
            "axes": np.array([-1]),
            "eps": np.float32(1e-5),
            "gain": normal(24),
            "w": normal(24, 16),
            "v": normal(24, 8),
        },
    )


@pytest.mark.parametrize("rows", [1, 3, MOST_ROWS + 1])
def test_a_product_does_not_wait_for_its_operands_scale(rows: int) -> None:
    proto = normalised(rows)
    graph = simplify(import_model(proto))
    x = 10 * normal(rows, 24)
    for name, value in golden(proto, {"x": x}).items():
        close(evaluate(graph, {"x": x})[name], value)
    makers = {n.output: n for n in graph.nodes}

    def made_by_sums(tensor: str) -> int:
        """The most sums on the way to a tensor."""
        node = makers.get(tensor)
        return 0 if node is None else bool(node.op.reduced) + max(map(made_by_sums, node.inputs))

    products = [n for n in graph.nodes if (type(n.op) is Contract and "w" in n.inputs) or "v" in n.inputs]
    assert len(products) == 2
    waiting = [max(map(made_by_sums, n.inputs)) for n in products]
    assert waiting == ([1, 1] if rows > MOST_ROWS else [0, 0])


def test_a_scale_that_is_no_sum_of_its_operand_stays() -> None:
    """A constant, or an input, costs the product no time: nothing is gained behind it."""
    proto = several(
        [("Mul", "x s", "n"), ("MatMul", "n w", "y")],
        {"x": (2, 24), "s": (2, 1)},
        ["y"],
        {"w": normal(24, 16)},
    )
    graph = simplify(import_model(proto))
    assert isinstance(graph.nodes[-1].op, Contract)


def test_attention_is_divided_by_its_total_behind_the_sum() -> None:
    proto = several(
        [("MatMul", "q k", "s"), ("Softmax", "s", "p"), ("MatMul", "p v", "y")],
        {"q": (4, 1, 8), "k": (4, 8, 32), "v": (4, 32, 8)},
        ["y"],
    )
    graph = simplify(import_model(proto))
    feed = {"q": normal(4, 1, 8), "k": normal(4, 8, 32), "v": normal(4, 32, 8)}
    close(evaluate(graph, feed)["y"], golden(proto, feed)["y"])
    assert isinstance(graph.nodes[-1].op, Div)
    assert 32 not in graph.nodes[-1].op.size.values()


# -- halves -----------------------------------------------------------------------------------------
def rotated(first: str, second: str, parts: tuple[str, str] = ("Neg", "Identity")) -> onnx.ModelProto:
    """x * cos + Concat(first part, second part) * sin, as rotary embeddings."""
    return several(
        [
            ("Split", "x", "low high", {"axis": -1, "num_outputs": 2}),
            (parts[0], first, "a"),
            (parts[1], second, "b"),
            ("Concat", "a b", "turned", {"axis": -1}),
            ("Mul", "turned sin", "s"),
            ("Mul", "x cos", "c"),
            ("Add", "c s", "y"),
        ],
        {"x": (3, 2, 16), "sin": (2, 16), "cos": (2, 16)},
        ["y"],
    )


@pytest.mark.parametrize(
    "proto",
    [
        rotated("high", "low"),
        rotated("high", "low", ("Identity", "Neg")),
        rotated("high", "low", ("Neg", "Neg")),
        rotated("low", "high"),
        rotated("low", "low"),
    ],
)
def test_swapped_halves_are_part_of_the_op_that_reads_them(proto: onnx.ModelProto) -> None:
    graph = simplify(import_model(proto))
    feed = {"x": normal(3, 2, 16), "sin": normal(2, 16), "cos": normal(2, 16)}
    feed["x"][0, 0, :4] = [np.nan, -0.0, np.inf, 0.0]
    right = golden(proto, feed)["y"]
    np.testing.assert_array_equal(evaluate(graph, feed)["y"], right)
    close(by_kernels(graph, feed)["y"], right)
    assert len(graph.nodes) == 1


def test_parts_that_are_no_halves_stay() -> None:
    proto = several(
        [
            ("Split", "x", "low high", {"axis": -1, "num_outputs": 2}),
            ("Neg", "high", "a"),
            ("Concat", "a z", "turned", {"axis": -1}),
            ("Mul", "turned sin", "y"),
        ],
        {"x": (2, 16), "z": (2, 8), "sin": (2, 16)},
        ["y"],
    )
    graph = simplify(import_model(proto))
    feed = {"x": normal(2, 16), "z": normal(2, 8), "sin": normal(2, 16)}
    np.testing.assert_array_equal(evaluate(graph, feed)["y"], golden(proto, feed)["y"])


# -- queries in groups ------------------------------------------------------------------------------
def grouped(bias: bool = True, plain: bool = False, outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
    """Scores of 2 groups of 3 heads of 4 elements, turned by halves, against 5 keys a group.

    plain: the product's result is read once more, not head by head.
    """
    shapes = {"heads": (1, 6, 1, 4), "apart": (1, 2, 1, 5, 4), "each": (1, 2, 3, 5, 4), "keys": (1, 6, 5, 4)}
    rows: list[Any] = [
        ("MatMul", "x w", "p"),
        ("Add", "p b", "q") if bias else ("Identity", "p", "q"),
        ("Reshape", "q heads", "h"),
        ("Split", "h", "low high", {"axis": -1, "num_outputs": 2}),
        ("Neg", "high", "minus"),
        ("Concat", "minus low", "turned", {"axis": -1}),
        ("Mul", "turned sin", "s"),
        ("Mul", "h cos", "c"),
        ("Add", "c s", "r"),
        ("Reshape", "k apart", "k1"),
        ("Expand", "k1 each", "k2"),
        ("Reshape", "k2 keys", "k3"),
        ("Transpose", "k3", "k4", {"perm": [0, 1, 3, 2]}),
        ("MatMul", "r k4", "y"),
    ]
    if plain:
        rows.append(("Softmax", "q", "z", {"axis": -1}))
    constants = {n: ints(*shape) for n, shape in shapes.items()} | {"w": normal(7, 24), "b": normal(24)}
    return several(rows, {"x": (1, 7), "k": (1, 2, 5, 4), "sin": (4,), "cos": (4,)}, outputs, constants)


@pytest.mark.parametrize("bias", [True, False])
def test_heads_of_a_group_lie_side_by_side(bias: bool) -> None:
    graph = simplify(import_model(grouped(bias)))
    check(grouped(bias))
    heads = [e for n in graph.nodes for r in n.op.reads for e in r if len(e.terms) > 2]
    assert len(heads) == 2  # of the turned and of the plain half: group, then depth, then head
    assert all(sorted(abs(c) for _, c in e.terms) == [1, 3, 6, 12] for e in heads)


def test_columns_that_are_read_in_their_order_stay() -> None:
    for proto in (grouped(plain=True, outputs=["y", "z"]), grouped(outputs=["y", "q"])):
        check(proto)
        graph = simplify(import_model(proto))
        assert not any("by_group" in t for t in graph.constants)


# -- what ops answer --------------------------------------------------------------------------------
class Distance(Contract):
    """The sum of (a - b)^2: shaped like a product, computed like one, and no product."""

    def reference(self, *operands: Array) -> Array:
        a, b = (gather(x, read, self.axes, 0) for x, read in zip(operands, self.reads, strict=True))
        over = tuple(i for i, (name, _) in enumerate(self.axes) if name in self.reduced)
        return ((a - b) ** 2).sum(axis=over)


def paired(kind: type[Contract], weight: Array, cached: int = 0) -> Graph:
    """x [2, k] and a weight, or a cache that is filled in place, [k, 3] in one op."""
    k = weight.shape[0]
    op = kind(
        axes=(("m", 2), ("n", 3), ("k", k)),
        reads=(identity("mk"), identity("kn")),
        write=identity("mn"),
        in_types=(F32, F32),
        out_type=F32,
    )
    shapes = {"x": (2, k), "w": (k, 3), "y": (2, 3)}
    if not cached:
        tensors = {n: Tensor(n, s, F32) for n, s in shapes.items()}
        return Graph("paired", tensors, (Node(op, ("x", "w"), "y"),), {"w": weight}, ("x",), ("y",))
    update = TensorScatter(
        axes=(("c", k), ("n", 3), ("s", 1)),
        reads=(identity("cn"), identity("sn"), ()),
        write=identity("cn"),
        in_types=(F32, F32, I64),
        out_type=F32,
        in_place=True,
    )
    tensors = {n: Tensor(n, s, F32) for n, s in {**shapes, "past": (k, 3), "new": (1, 3)}.items()}
    tensors["at"] = Tensor("at", (), I64)
    nodes = (Node(update, ("past", "new", "at"), "w"), Node(op, ("x", "w"), "y"))
    length = Length("at", k, 1, (("past", 0),))
    inputs = ("x", "past", "new", "at")
    return Graph("paired", tensors, nodes, {}, inputs, ("y",), (("past", "w"),), length)


def test_what_is_shaped_like_a_product_is_not_rounded_like_one() -> None:
    weight = normal(8, 3)
    narrowed = narrow_weights(paired(Contract, weight), "bf16", "bf16")
    assert narrowed.nodes[-1].op.in_types == (BF16, BF16)
    graph = paired(Distance, weight)
    left = narrow_weights(simplify(graph), "bf16", "bf16")
    x = normal(2, 8)
    exact = ((x[:, :, None].astype(np.float64) - weight) ** 2).sum(1)
    np.testing.assert_allclose(evaluate(left, {"x": x})["y"], exact, rtol=1e-5)
    assert all(t.dtype == F32 for t in left.tensors.values())


def test_what_is_shaped_like_a_product_is_not_0_where_a_cache_holds_nothing() -> None:
    graph = paired(Contract, normal(8, 3), cached=8)
    graph.check()
    assert graph.length is not None
    assert mask_caches(graph, graph.length) is graph  # a factor of 0
    graph = paired(Distance, normal(8, 3), cached=8)
    with pytest.raises(UnsupportedModel, match=r"Distance.* combines all positions, also"):
        mask_caches(graph, graph.length or Length("", 0, 0))


def classes(kind: type[Op] = Op) -> Iterator[type[Op]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from classes(inner)


def test_an_op_of_another_meaning_promises_nothing_that_it_does_not_say() -> None:
    every = list(classes())
    assert Distance in every and len(every) > 60
    for kind in every:
        if not MEANING.isdisjoint(vars(kind)):
            assert vars(kind).keys() >= PROMISES, kind
    assert not Distance.product and not Distance.rounds_factors
    assert Distance.elementwise is False and Distance.combine == "add"  # what follows from its shape stays


PASSES_FOLDER = Path(simplifying.__file__).parent


@pytest.mark.parametrize("path", sorted(PASSES_FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_no_pass_asks_for_an_op_s_class(path: Path) -> None:
    """By isinstance(op, Contract), type(op) is Contract or a match over classes: see `Op.product`."""
    names = {kind.__name__ for kind in classes()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "type", f"{path.name}:{node.lineno}"
            if node.func.id in ("isinstance", "issubclass"):
                asked = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                assert not asked & names, f"{path.name}:{node.lineno}"
        assert not isinstance(node, ast.MatchClass), f"{path.name}:{node.lineno}"


# -- a table of passes --------------------------------------------------------------------------------
def test_every_pass_has_a_name_and_is_in_a_file_of_its_own() -> None:
    rows = [row for stage in PASSES for row in stage.passes]
    files = {p.stem for p in PASSES_FOLDER.glob("*.py")}
    for name, _ in rows:
        assert any(name.replace(" ", "_").startswith(file) for file in files), name


def chain(count: int) -> onnx.ModelProto:
    return several([("Relu", f"t{i}", f"t{i + 1}") for i in range(count)], {"t0": (8,)}, [f"t{count}"])


def star(count: int) -> onnx.ModelProto:
    """One tensor that all read, and as many results."""
    rows = [
        row
        for i in range(count)
        for row in (("Exp", "x", f"a{i}"), ("Mul", f"a{i} x", f"b{i}"), ("Softmax", f"b{i}", f"y{i}"))
    ]
    return several(rows, {"x": (8,)}, [f"y{i}" for i in range(count)])


def joined(count: int) -> onnx.ModelProto:
    """One tensor that all write."""
    rows = [("Exp", f"a{i}", f"a{i + 1}") for i in range(count)]
    parts = " ".join(f"a{i + 1}" for i in range(count))
    return several([*rows, ("Concat", parts, "c", {"axis": 0}), ("Neg", "c", "y")], {"a0": (8,)}, ["y"])


def multiplied(count: int) -> onnx.ModelProto:
    """Products, each with a weight of its own, normalised in between."""
    rows = [
        row
        for i in range(count)
        for row in (("Softmax", f"t{i}", f"n{i}"), ("MatMul", f"n{i} w{i}", f"t{i + 1}"))
    ]
    return several(rows, {"t0": (1, 8)}, [f"t{count}"], {f"w{i}": normal(8, 8) for i in range(count)})


def counted(graph: Graph) -> tuple[int, Counter[str]]:
    """Lines that run while a graph is simplified, and how often tables of writers and readers are made."""
    lines, tables = 0, Counter[str]()

    def trace(frame: FrameType, event: str, _: object) -> TraceFunction:
        nonlocal lines
        if event == "line":
            lines += 1
        elif event == "call" and frame.f_code.co_name in ("writers", "readers"):
            tables[frame.f_code.co_name] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        simplify(graph)
    finally:
        sys.settrace(before)
    return lines, tables


@pytest.mark.parametrize("make", [star, joined, multiplied])
def test_four_times_the_nodes_are_four_times_the_work(make: Callable[[int], onnx.ModelProto]) -> None:
    (few, tables), (many, more) = (counted(import_model(make(count))) for count in (64, 256))
    assert many <= 4.2 * few
    assert more == tables  # once for a graph, not for a node
    assert max(more.values()) <= 24


def test_a_long_chain_is_simplified_in_as_many_looks_at_it() -> None:
    """4,000 nodes: a table that was made anew for each of them took minutes."""
    made: list[Counter[str]] = []
    for count in (1000, 4000):
        graph, tables = import_model(chain(count)), Counter[str]()

        def call(frame: FrameType, event: str, _: object, tables: Counter[str] = tables) -> None:
            tables[frame.f_code.co_name] += event == "call"

        before = sys.getprofile()
        sys.setprofile(call)
        try:
            simplify(graph)
        finally:
            sys.setprofile(before)
        made.append(tables)
    few, many = made
    assert few["writers"] == many["writers"] and few["readers"] == many["readers"]
    assert many.total() <= 4.2 * few.total()


def test_names_are_new() -> None:
    r = Rewriter(import_model(chain(2)))
    assert [r.tensor("t1", (1,), F32) for _ in range(2)] == ["t1.1", "t1.2"]
    r.nodes += r.graph.nodes
    assert r.finish() is r.graph
