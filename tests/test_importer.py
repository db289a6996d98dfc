"""The way in: files, dimensions, opsets, functions, and what is refused and how it is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from single import close, golden, model
from waferc.compiler.errors import (
    DoesNotFit,
    InputOutput,
    InvalidInput,
    UnsupportedModel,
    UnsupportedOperator,
    UsageError,
    quoted,
    shown,
)
from waferc.compiler.frontend.inputs import Binding
from waferc.compiler.frontend.large import without_weights
from waferc.compiler.frontend.load import digest
from waferc.compiler.importer import import_entries, import_model
from waferc.compiler.survey import Row, survey
from waferc.ir.evaluate import evaluate
from waferc.ir.op import Array

random = np.random.default_rng(5)


def normal(*shape: int) -> Array:
    return random.standard_normal(shape).astype(np.float32)


def symbolic(**dims: str | int | None) -> onnx.ModelProto:
    """y = relu(x), where x has the given dimensions."""
    shape = list(dims.values())
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "r")], "g", values[:1], values[1:])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def graph_of(
    nodes: list[onnx.NodeProto],
    opsets: tuple[tuple[str, int], ...] = (("", 17),),
    functions: tuple[onnx.FunctionProto, ...] = (),
    initializers: tuple[onnx.TensorProto, ...] = (),
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    """Nodes from x: f32[4] to f32[4] results."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in outputs]
    graph = helper.make_graph(nodes, "g", [x], results, list(initializers))
    imports = [helper.make_opsetid(d, v) for d, v in opsets]
    return helper.make_model(graph, ir_version=8, opset_imports=imports, functions=list(functions))


# -- files ------------------------------------------------------------------------------


def test_the_checker_is_not_given_large_weights() -> None:
    """All else is, and a large weight that is damaged is found all the same."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "m")]
    small, large = normal(4), normal(4, 1000)
    weights = (numpy_helper.from_array(large, "w"), numpy_helper.from_array(small, "b"))
    proto = graph_of([*nodes, helper.make_node("Add", ["x", "b"], ["z"])], initializers=weights)
    bare = without_weights(proto)
    assert bare.ByteSize() < 1000 < large.nbytes < proto.ByteSize()
    assert [list(t.dims) for t in bare.graph.initializer] == [[0], [4]]
    proto.graph.initializer[0].raw_data = large.tobytes()[:-4]
    with pytest.raises(InvalidInput, match="tensor 'w'"):
        import_model(proto)
    proto.graph.initializer[0].CopyFrom(weights[0])
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(weights)
    assert bare == proto


def test_every_form_of_a_model(tmp_path: Path) -> None:
    proto = model("Relu", [normal(3)])
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    texts = {str(import_model(m)) for m in (proto, proto.SerializeToString(), path, str(path))}
    assert len(texts) == 1


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputOutput, match=r"cannot read .*none\.onnx.*No such file") as e:
        import_model(tmp_path / "none.onnx")
    assert e.value.exit_code == 6


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x00" * 40])
def test_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"bad\.onnx") as e:
        import_model(path)
    assert e.value.exit_code == 3
    assert "\n" not in str(e.value)


def test_every_truncation_is_an_error_of_ours() -> None:
    content = model("Gemm", [normal(2, 3), normal(3, 4)], constants=[1]).SerializeToString()
    for end in range(len(content)):
        with pytest.raises((InvalidInput, UnsupportedModel)):
            import_model(content[:end])


def test_external_data(tmp_path: Path) -> None:
    proto = model("Add", [normal(64, 32), normal(64, 32)], constants=[1])
    want = numpy_helper.to_array(proto.graph.initializer[0])
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = import_model(path)
    assert any(np.array_equal(v, want) for v in graph.constants.values())
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputOutput, match=r"weights\.bin"):
        import_model(path)


def test_the_checker_s_refusal_is_one_line() -> None:
    bad = graph_of([helper.make_node("Relu", ["x"], ["y"], "r", nonsense=1)])
    with pytest.raises(InvalidInput, match="checker refuses") as e:
        import_model(bad)
    assert "\n" not in str(e.value)


# -- dimensions -------------------------------------------------------------------------


def test_dimensions_bind() -> None:
    proto = symbolic(a="batch", b=3)
    assert import_model(proto, {"batch": 2}).tensors["x"].shape == (2, 3)
    assert import_model(proto, {}, {"x": (5, 3)}).tensors["x"].shape == (5, 3)
    assert import_model(symbolic(a=None), {}, {"x": (5,)}).tensors["x"].shape == (5,)


@pytest.mark.parametrize("size", [-1, "?"])
def test_what_exporters_write_for_a_dimension_without_name_or_size(size: int | str) -> None:
    proto = symbolic(a=size, b=size, c=3)
    assert import_model(proto, {}, {"x": (5, 4, 3)}).tensors["x"].shape == (5, 4, 3)
    with pytest.raises(InvalidInput, match="dimension 0 has no size"):
        import_model(proto)


def test_a_shape_binds_the_dimension_for_other_inputs() -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", values[:2], values[2:])
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    assert import_model(proto, {}, {"a": (7,)}).tensors["b"].shape == (7,)
    with pytest.raises(UsageError, match="'n' is 7 elsewhere, not 8"):
        import_model(proto, {}, {"a": (7,), "b": (8,)})


@pytest.mark.parametrize(
    ("dims", "shapes", "kind", "message"),
    [
        ({}, {}, InvalidInput, "input 'x': dimension 'batch' is not bound; add --dim batch=N"),
        ({"bach": 2}, {}, UsageError, "--dim 'bach': no such dimension; the model's are 'batch'"),
        ({"batch": -1}, {}, UsageError, "--dim batch=-1: a dimension is at least 0"),
        ({}, {"z": (1,)}, UsageError, "--shape 'z': no such input; the inputs are 'x'"),
        ({}, {"x": (1,)}, UsageError, "--shape x=1: the input has 2 dimensions"),
        ({}, {"x": (1, 4)}, UsageError, "--shape x=1,4: the model says 3, not 4"),
        ({}, {"x": (-1, 3)}, UsageError, "--shape x=-1,3: a dimension is at least 0"),
    ],
)
def test_wrong_dimensions(
    dims: dict[str, int], shapes: dict[str, tuple[int, ...]], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as e:
        import_model(symbolic(a="batch", b=3), dims, shapes)
    assert str(e.value) == message


def test_states() -> None:
    proto = model("Relu", [normal(3)])
    assert import_model(proto, states=[("x0", "y0")]).states == (("x0", "y0"),)
    with pytest.raises(UsageError, match="no output 'z'; the outputs are 'y0'"):
        import_model(proto, states=[("x0", "z")])
    with pytest.raises(UsageError, match="differ"):
        import_model(model("Cast", [normal(3)], to=7), states=[("x0", "y0")])


# -- opsets -----------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [5, 99])
def test_opsets_out_of_range(opset: int) -> None:
    proto = symbolic(a=3)
    proto.opset_import[0].version = opset
    with pytest.raises(UnsupportedModel, match=f"opset {opset}: waferc takes opsets 6 to"):
        import_model(proto)


def test_opset_6_goes_through_the_converter() -> None:
    """Opset 6 broadcasts by attribute: b's only dimension is a's first."""
    a, b = normal(3, 4), normal(3)
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("a", (3, 4)), ("y", (3, 4)))
    ]
    node = helper.make_node("Mul", ["a", "b"], ["y"], broadcast=1, axis=0)
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(b, "b")])
    graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]))
    proto = helper.make_model(graph, ir_version=3, opset_imports=[helper.make_opsetid("", 6)])
    imported = import_model(proto)
    assert imported.inputs == ("a",)
    np.testing.assert_array_equal(evaluate(imported, {"a": a})["y"], a * b[:, None])


@pytest.mark.parametrize("constant", [True, False])
def test_slopes_of_opset_6_are_of_channels(constant: bool) -> None:
    """Though they would broadcast along the last dimension too."""
    x, slope = normal(2, 3, 4, 3), normal(3)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n in ("x", "z")]
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("PRelu", ["y", "s"], ["z"])]
    stored = [numpy_helper.from_array(slope, "s")] if constant else []
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [3]))
    proto = helper.make_model(graph, ir_version=3, opset_imports=[helper.make_opsetid("", 6)])
    fed = {"x": x} if constant else {"x": x, "s": slope}
    want = np.where(-x < 0, -x * slope[:, None, None], -x)
    np.testing.assert_array_equal(evaluate(import_model(proto), fed)["z"], want)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 18, 21])
def test_one_network_in_every_opset(opset: int) -> None:
    x = normal(4)
    nodes = [
        helper.make_node("Add", ["x", "x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Softmax", ["b"], ["y"], axis=0),
    ]
    proto = graph_of(nodes, (("", opset),))
    close(evaluate(import_model(proto), {"x": x})["y"], golden(proto, {"x": x})["y"])


# -- functions and branches -------------------------------------------------------------


def doubled() -> onnx.FunctionProto:
    """own.Scale(v; by) = v * by, by 2 if not given."""
    by = helper.make_node("Constant", [], ["c"])
    by.attribute.append(onnx.AttributeProto(name="value_float", ref_attr_name="by", type=1))
    body = [by, helper.make_node("Mul", ["v", "c"], ["w"])]
    return helper.make_function(
        "own",
        "Scale",
        ["v"],
        ["w"],
        body,
        [helper.make_opsetid("", 17)],
        attribute_protos=[helper.make_attribute("by", 2.0)],
    )


def test_model_functions_expand_with_their_attributes() -> None:
    nodes = [
        helper.make_node("Scale", ["x"], ["a"], domain="own"),
        helper.make_node("Scale", ["a"], ["y"], domain="own", by=5.0),
    ]
    graph = import_model(graph_of(nodes, (("", 17), ("own", 1)), (doubled(),)))
    np.testing.assert_array_equal(
        evaluate(graph, {"x": np.arange(4, dtype=np.float32)})["y"], [0, 10, 20, 30]
    )


def test_a_function_that_calls_itself_is_refused() -> None:
    body = [helper.make_node("Loop", ["v"], ["w"], domain="own")]
    f = helper.make_function("own", "Loop", ["v"], ["w"], body, [helper.make_opsetid("own", 1)])
    proto = graph_of([helper.make_node("Loop", ["x"], ["y"], domain="own")], (("", 17), ("own", 1)), (f,))
    with pytest.raises((UnsupportedModel, InvalidInput)):
        import_model(proto)


@pytest.mark.parametrize(
    ("op_type", "opset", "own"),
    [
        ("Shrink", 21, {"lambd": 0.3, "bias": 0.1}),
        ("MeanVarianceNormalization", 13, {"axes": [0, 1]}),
        ("MeanVarianceNormalization", 13, {}),
    ],
)
def test_standard_functions_expand(op_type: str, opset: int, own: dict[str, object]) -> None:
    x = normal(3, 4, 5, 2)
    proto = model(op_type, [x], opset=opset, **own)
    close(evaluate(import_model(proto), {"x0": x})["y0"], golden(proto, {"x0": x})["y0"])


def branches(condition: onnx.NodeProto) -> onnx.ModelProto:
    def branch(name: str, op_type: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [4])
        return helper.make_graph([helper.make_node(op_type, ["x"], [out.name])], name, [], [out])

    taken = helper.make_node(
        "If", ["c"], ["y"], "choice", then_branch=branch("t", "Relu"), else_branch=branch("e", "Neg")
    )
    return graph_of([condition, taken])


@pytest.mark.parametrize("value", [True, False])
def test_a_known_branch_is_taken(value: bool) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(value)))
    graph = import_model(branches(constant))
    x = np.array([-1, 2, -3, 4], np.float32)
    want = np.maximum(x, 0) if value else -x
    np.testing.assert_array_equal(evaluate(graph, {"x": x})["y"], want)


def test_a_branch_that_depends_on_data_is_refused() -> None:
    condition = helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0)
    proto = branches(condition)
    proto.graph.node.insert(1, helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL))
    with pytest.raises(
        UnsupportedOperator, match="If, first at node 'choice': the condition depends on data"
    ):
        import_model(proto)


# -- outputs ----------------------------------------------------------------------------


def test_outputs_keep_their_names() -> None:
    """An output that is an input, a constant, or another output is a tensor of its own."""
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Relu", ["x"], ["b"]),
        helper.make_node("Identity", ["b"], ["c"]),
        helper.make_node("Constant", [], ["d"], value_floats=[1.0, 2.0, 3.0, 4.0]),
    ]
    graph = import_model(graph_of(nodes, outputs=("a", "b", "c", "d")))
    assert graph.outputs == ("a", "b", "c", "d")
    x = normal(4)
    out = evaluate(graph, {"x": x})
    np.testing.assert_array_equal(out["a"], x)
    np.testing.assert_array_equal(out["b"], out["c"])
    np.testing.assert_array_equal(out["d"], [1, 2, 3, 4])


def test_sources_name_the_onnx_nodes() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], "first"), helper.make_node("Neg", ["a"], ["y"])]
    assert [n.source for n in import_model(graph_of(nodes)).nodes] == [("first",), ("Neg_1",)]


# -- order ------------------------------------------------------------------------------


def made_of(*rows: str) -> onnx.ModelProto:
    """A model of Add nodes, "name: inputs -> output"."""
    nodes: list[onnx.NodeProto] = []
    for row in rows:
        name, inputs, output = row.replace(":", "->").split("->")
        nodes.append(helper.make_node("Add", inputs.split(), [output.strip()], name))
    return graph_of(nodes)


DISORDER = [
    (
        ("a: x q -> r", "b: r x -> q", "c: q q -> y"),
        "(Add): input 'q' waits for a cycle of nodes: 'a' -> 'b' -> 'a'",
    ),
    (
        ("c: q q -> y", "a: x q -> r", "b: r x -> q"),
        "'c' (Add): input 'q' waits for a cycle of nodes: 'a' -> 'b' -> 'a'",
    ),
    (("a: x q -> r", "b: r x -> s", "c: s s -> q", "d: q q -> y"), "'a' -> 'b' -> 'c' -> 'a'"),
    (("a: x r -> r", "b: r r -> y"), "waits for a cycle of nodes: 'a' -> 'a'"),
    (("a: x q -> y",), "'a' (Add): input 'q' is made by no node"),
]


@pytest.mark.parametrize(("rows", "says"), DISORDER)
def test_nodes_in_no_order_are_told_apart(rows: Sequence[str], says: str) -> None:
    """By the checker's pass, and by the walk where an operator that nothing runs keeps the checker out."""
    with pytest.raises(InvalidInput, match=re.escape(says)):
        import_model(made_of(*rows))
    unchecked = made_of(*rows)
    nodes = [helper.make_node("Nonsense", ["x"], ["no"]), *unchecked.graph.node]
    with pytest.raises(InvalidInput, match=re.escape(says)):
        import_entries(graph_of(nodes), {"main": Binding()})


def test_a_long_cycle_is_cut() -> None:
    rows = [f"n{i}: x v{i} -> v{i + 1}" for i in range(40)]
    rows[0] = "n0: x v40 -> v1"
    with pytest.raises(InvalidInput, match=r"'n0' -> 'n1' -> .* -> 'n7' -> 32 more -> 'n0'$"):
        import_model(made_of(*rows, "end: v40 x -> y"))


def test_a_cycle_in_a_body_is_found() -> None:
    nodes = [helper.make_node("Add", ["x", "q"], ["r"], "a"), helper.make_node("Neg", ["r"], ["q"], "b")]
    out = [helper.make_tensor_value_info("q", TensorProto.FLOAT, [4])]
    inner = helper.make_graph(nodes, "g", [], out)
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
    choice = helper.make_node("If", ["c"], ["y"], "choice", then_branch=inner, else_branch=inner)
    with pytest.raises(InvalidInput, match=r"'choice' \(If\): input 'q' waits for .* 'a' -> 'b' -> 'a'"):
        import_model(graph_of([constant, choice]))


# -- refusals ---------------------------------------------------------------------------


def unsupported() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Fancy", ["x"], ["a"], "f1", domain="com.example"),
        helper.make_node("Fancy", ["a"], ["b"], "f2", domain="com.example"),
        helper.make_node("Unique", ["x"], ["c"], "nz"),
        helper.make_node("Nonsense", ["x"], ["d"], "ns"),
        helper.make_node("Relu", ["x"], ["y"], "r"),
    ]
    return graph_of(nodes, (("", 17), ("com.example", 1)))


def test_all_refusals_at_once() -> None:
    with pytest.raises(UnsupportedOperator) as e:
        import_model(unsupported())
    assert e.value.exit_code == 4
    assert [(r.op_type, r.domain, r.count, r.node) for r in e.value.refusals] == [
        ("Fancy", "com.example", 2, "f1"),
        ("Nonsense", "", 1, "ns"),
        ("Unique", "", 1, "nz"),
    ]
    assert "com.example.Fancy (2 nodes), first at node 'f1'" in str(e.value)


def test_survey_lists_everything() -> None:
    rows = survey(unsupported())
    assert [(r.op_type, r.count, r.status) for r in rows] == [
        ("Fancy", 2, "unsupported"),
        ("Unique", 1, "host"),
        ("Nonsense", 1, "unsupported"),
        ("Relu", 1, "wafer"),
    ]
    assert all(r.reason for r in rows if r.status != "wafer")


def test_survey_tells_what_costs_nothing() -> None:
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Reshape", ["x", "s"], ["y"])]
    rows = survey(graph_of(nodes))
    assert [(r.op_type, r.status, bool(r.reason)) for r in rows] == [
        ("Shape", "wafer", True),
        ("Reshape", "wafer", True),
    ]
    assert survey(symbolic(a=2)) == [Row("Relu", "", 1, "wafer", "")]


def test_types_that_no_core_stores() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.STRING, [2])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, [2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(UnsupportedModel, match="input 'x' has element type STRING"):
        import_model(proto)
    words = helper.make_tensor("w", TensorProto.STRING, [4], [b"a"] * 4)
    nodes = [helper.make_node("Equal", ["w", "w"], ["b"], "eq"), helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(UnsupportedOperator, match="its input 'w' has element type STRING"):
        import_model(graph_of(nodes, (("", 19),), initializers=(words,)))


SIZED = {  # operator -> its inputs but the size, which stands at "n", and its attributes
    "Range": (["zero", "n", "one"], {}),
    "ConstantOfShape": (["ns"], {}),
    "Tile": (["x", "ns"], {}),
    "Expand": (["one", "ns"], {}),
    "HannWindow": (["n"], {}),
    "OneHot": (["x", "n", "pair"], {}),
    "Pad": (["x", "pads"], {}),
    "RandomNormal": ([], {"shape": ["n"]}),
    "DFT": (["rows", "n"], {}),
    "MelWeightMatrix": (["n", "n", "n", "low", "high"], {}),
}


@pytest.mark.parametrize("size", [10**13, 1 << 62])
@pytest.mark.parametrize("kind", SIZED)
def test_a_size_past_all_memory_is_refused_by_node(kind: str, size: int) -> None:
    inputs, attributes = SIZED[kind]
    values = {"n": size, "ns": [size], "zero": 0, "one": 1, "pads": [0, size]}
    named = [numpy_helper.from_array(np.asarray(v, np.int64), k) for k, v in values.items()]
    floats = {"pair": [0, 1], "low": 0, "high": 10, "rows": np.ones((1, 8, 1))}
    named += [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in floats.items()]
    given = {a: [size if d == "n" else d for d in v] for a, v in attributes.items()}
    nodes = [helper.make_node(kind, inputs, ["h"], "big", **given), helper.make_node("Shape", ["h"], ["y"])]
    proto = graph_of(nodes, (("", 20),), initializers=tuple(named))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(DoesNotFit, match="'big'") as e:
        import_model(proto)
    assert "\n" not in str(e.value) and len(str(e.value)) < 250


def test_an_input_past_all_memory_is_refused_by_name() -> None:
    with pytest.raises(DoesNotFit, match=r"'x'.* takes 36,893,488,147,419,103,232 bytes"):
        import_model(symbolic(a=1 << 62, b=2))


def test_names_are_shown_on_one_line() -> None:
    assert shown("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert len(shown("x" * 500)) <= 80
    assert quoted("n") == "'n'"
    proto = graph_of([helper.make_node("Unique", ["x"], ["y"], "evil\nname" + "z" * 200)])
    with pytest.raises(UnsupportedOperator) as e:
        import_model(proto)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 200


def test_the_digest_covers_data_in_other_files(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    path = tmp_path / "m.onnx"
    proto = helper.make_model(graph)
    onnx.save_model(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    first = digest(path)
    assert first == digest(path)
    with open(tmp_path / "w.bin", "r+b") as f:
        f.write(b"\x01")
    assert digest(path) != first
