"""Models that the standard does not allow are refused, by node; odd ones that it allows compile and run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from single import close
from waferc.compiler.errors import DoesNotFit, InvalidInput, ModelWarning, UsageError
from waferc.compiler.importer import import_model
from waferc.compiler.pipeline import compile_model
from waferc.ir.op import Array

F, D_, I64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
node, value = helper.make_node, helper.make_tensor_value_info
random = np.random.default_rng(13)


def normal(*shape: int) -> Array:
    return random.standard_normal(shape).astype(np.float32)


def made(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, Array] | None = None,
    opsets: Sequence[tuple[str, int]] = (("", 21),),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(v, name) for name, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    imports = [helper.make_opsetid(*o) for o in opsets]
    return helper.make_model(graph, ir_version=8, opset_imports=imports, functions=list(functions))


def one(
    op_type: str,
    *inputs: Array | None,
    constants: Sequence[int] = (),
    opset: int = 21,
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node 'it' of x0, x1, ...; outputs have neither type nor shape."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    given = {n: x for n, x in zip(names, inputs, strict=True) if x is not None}
    held = {f"x{i}": given[f"x{i}"] for i in constants}
    ends = [
        value(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in given.items() if n not in held
    ]
    results = [f"y{i}" for i in range(outputs)]
    it = node(op_type, names, results, "it", **attributes)
    return made([it], ends, [onnx.ValueInfoProto(name=r) for r in results], held, (("", opset),))


def same_as_onnxruntime(proto: onnx.ModelProto, feeds: Mapping[str, Array], **options: Any) -> None:
    """The compiled model, simplified or not, cut for cores and guarded, agrees with onnxruntime."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = session.run(None, dict(feeds))
    for simplify in (True, False):
        compiled = compile_model(proto.SerializeToString(), wafer="8x8", simplify=simplify, **options)
        ours = compiled.run(dict(feeds))
        for output, golden in zip(proto.graph.output, theirs, strict=True):
            assert ours[output.name].shape == golden.shape
            close(ours[output.name], golden)


# -- types ------------------------------------------------------------------------------
X, H, D, N = normal(2, 3), normal(2, 3).astype("f2"), normal(2, 3).astype("f8"), np.ones((2, 3), np.int64)
TYPES = [
    (one("Add", X, N), "inputs 'x0' and 'x1' have types float and int64"),
    (one("Concat", X, N, axis=0), "'x0' and 'x1' have types float and int64"),
    (one("Where", N > 0, X, N), "'x1' and 'x2' have types float and int64"),
    (one("Where", X, X, X), "input 'x0' (condition) has type float, the operator takes bool"),
    (one("Softmax", N), "input 'x0' (input) has type int64"),
    (one("MatMul", X, normal(3, 2).astype("f2")), "float and float16"),
    (one("Gemm", X, normal(3, 2).astype("f8")), "float and double"),
    (one("Clip", X, None, np.array(1.0)), "'x0' and 'x2' have types float and double"),
    (one("Gather", X, np.float32([0])), "input 'x1' (indices) has type float"),
    (one("Max", X, X, H), "'x0' and 'x2' have types float and float16"),
    (one("Equal", X, X, opset=7), "input 'x0' (A) has type float, the operator takes bool, int32, int64"),
]


@pytest.mark.parametrize(("proto", "says"), TYPES, ids=[says for _, says in TYPES])
def test_types_are_those_of_the_standard(proto: onnx.ModelProto, says: str) -> None:
    with pytest.raises(InvalidInput) as e:
        import_model(proto)
    assert says in str(e.value)
    assert "'it'" in str(e.value)


def wrong_add() -> list[onnx.NodeProto]:
    """Nodes whose types come from inference only: the cast's float meets an int64."""
    return [node("Cast", ["x"], ["f"], "cast", to=F), node("Add", ["f", "x"], ["y"], "bad")]


def test_types_are_judged_in_bodies_and_functions() -> None:
    x, y = value("x", I64, [2]), value("y", F, [2])
    body = helper.make_graph(wrong_add(), "b", [], [y])
    fine = helper.make_graph([node("Cast", ["x"], ["z"], to=F)], "c", [], [value("z", F, [2])])
    branch = node("If", ["c"], ["y"], "if", then_branch=fine, else_branch=body)
    called = helper.make_function("own", "Twice", ["x"], ["y"], wrong_add(), [helper.make_opsetid("", 21)])
    protos = [
        (made(wrong_add(), [x], [y]), "bad"),
        (made([branch], [x, value("c", TensorProto.BOOL, [])], [y]), "bad"),
        (
            made(
                [node("Twice", ["x"], ["y"], "call", domain="own")],
                [x],
                [y],
                opsets=(("", 21), ("own", 1)),
                functions=[called],
            ),
            "call",
        ),
    ]
    for proto, name in protos:
        with pytest.raises(
            InvalidInput, match=rf"node '{name}' \(Add\): inputs 'f' and 'x' have types float"
        ):
            import_model(proto)


def test_contradicting_declarations_are_refused() -> None:
    relu, x = [node("Relu", ["x"], ["y"], "r")], value("x", F, [2, 3])
    with pytest.raises(InvalidInput, match="output 'y' has type float, the model declares it as int64"):
        import_model(made(relu, [x], [value("y", I64, [2, 3])]))
    for shape in ([2, 4], [6], [2, 3, 1]):
        with pytest.raises(InvalidInput, match=r"node 'r' \(Relu\): output 'y' has shape \[2, 3\]"):
            import_model(made(relu, [x], [value("y", F, shape)]))
    inner = made([*relu, node("Neg", ["y"], ["z"])], [x], [value("z", F, ["a", None])])
    inner.graph.value_info.append(value("y", F, [3, 2]))
    with pytest.raises(InvalidInput, match=r"declares it as \[3, 2\]"):
        import_model(inner)
    listed = made([node("Add", ["x", "c"], ["y"])], [x, value("c", F, [3])], [value("y", F, [2, 3])])
    listed.graph.initializer.append(numpy_helper.from_array(normal(2), "c"))
    with pytest.raises(InvalidInput, match=r"initializer 'c' has shape \[2\], the input of its name \[3\]"):
        import_model(listed)
    opened = made(relu, [value("x", F, ["n", 3])], [value("y", F, [2, 3])])  # and what was said of y is left
    import_model(opened, {"n": 4})
    with pytest.raises(InvalidInput, match=r"declares it as \[2, 3, 1\]"):
        import_model(made(relu, [value("x", F, ["n", 3])], [value("y", F, [2, 3, 1])]), {"n": 4})
    for declared in ([2, 3], ["n", 3], None):
        import_model(made(relu, [x], [value("y", F, declared)]))


# -- attributes -------------------------------------------------------------------------
IMAGE, FILTERS = normal(1, 2, 5, 5), normal(2, 2, 3, 3)
NAN = float("nan")
MEANINGLESS = [
    one("Conv", IMAGE, FILTERS, strides=[0, 1]),
    one("Conv", IMAGE, FILTERS, dilations=[0, 1]),
    one("Conv", IMAGE, FILTERS, dilations=[-1, -1]),
    one("Conv", IMAGE, FILTERS, group=0),
    one("Conv", IMAGE, FILTERS, pads=[-1, 0, 0, 0]),
    one("Conv", IMAGE, FILTERS, pads=[1, 1]),
    one("Conv", IMAGE, FILTERS, auto_pad="WHAT"),
    one("Conv", IMAGE, FILTERS, kernel_shape=[2, 2]),
    one("Conv", IMAGE, FILTERS, strides=2),
    one("Conv", IMAGE, FILTERS, unheard=1),
    one("MaxPool", IMAGE, kernel_shape=[0, 2]),
    one("MaxPool", IMAGE),
    one("MaxPool", IMAGE, kernel_shape=[2]),
    one("AveragePool", IMAGE, kernel_shape=[2, 2], ceil_mode=2),
    one("LpPool", IMAGE, kernel_shape=[2, 2], p=0),
    one("ConvTranspose", IMAGE, FILTERS, output_padding=[9, 9]),
    one("ConvTranspose", IMAGE, FILTERS, kernel_shape=[9, 9]),
    one("Resize", IMAGE, None, np.float32([1, 1, -1, 2]), constants=[2]),
    one("Resize", IMAGE, None, np.float32([1, 1, NAN, 2]), constants=[2]),
    one("Resize", IMAGE, None, np.float32([1, 1, 2, 2]), constants=[2], mode="WHAT"),
    one("Tile", X, np.int64([-1, 2]), constants=[1]),
    one("OneHot", N, np.int64(3), normal(3), constants=[1]),
    one("OneHot", N, np.int64(-3), normal(2), constants=[1]),
    one("Transpose", X, perm=[0, 0]),
    one("Softmax", X, axis=2),
    one("ReduceSum", X, keepdims=2),
    one("Gelu", X, approximate="WHAT"),
    one("Cast", X, to=99),
    one("Cast", X, to=0),
    one("DepthToSpace", normal(1, 4, 2, 2), blocksize=0),
    one("Split", X, axis=1, num_outputs=0),
    one("Split", X, axis=1, num_outputs=1 << 62, outputs=3),
    one("Split", X, np.int64([4, -1]), axis=1, constants=[1], outputs=2),
    one("TopK", X, np.int64([-1]), constants=[1], outputs=2),
    one("LayerNormalization", X, normal(3), epsilon=NAN),
    one("LayerNormalization", X, normal(3), stash_type=TensorProto.UINT8),
    one("RandomUniform", shape=[2, 3], dtype=I64),
    one("RandomNormalLike", X, dtype=TensorProto.BOOL),
    one("EyeLike", X, dtype=TensorProto.STRING),
    one("InstanceNormalization", IMAGE, normal(1, 2), normal(2)),
    one("Clip", X, normal(2), constants=[1]),
    one("CumSum", X, np.zeros((0,), np.int64), constants=[1]),
    one("LRN", IMAGE, size=0),
    one("GRU", normal(3, 1, 3), normal(1, 6, 3), normal(1, 6, 2), hidden_size=0, outputs=2),
    one("GRU", normal(3, 1, 3), normal(1, 6, 3), normal(1, 6, 2), hidden_size=2, direction="up", outputs=2),
    one("BitShift", np.ones(2, np.uint8), np.ones(2, np.uint8), direction="UP"),
    one("Pad", X, np.int64([0, 1, 0]), constants=[1]),
    one("Pad", X, np.int64([0, 1, 0, 1]), constants=[1], mode="WHAT"),
    one("Einsum", X, X, equation="ij,jk->"),
    one("Einsum", X, equation="i->"),
    one("Einsum", X, X[0], equation="...i,i->"),
    one("Einsum", X, X[0], equation="..i,i->"),
    one("Einsum", X, equation="i.j->ij"),
    one("Einsum", X, equation="i....j->ij"),
    one("Einsum", X, equation="ij->i->j"),
    one("Einsum", X, X, equation="...,...->ij"),
    one("Einsum", X, equation="ij->ijj"),
    one("Einsum", X, equation="i1->i"),
    one("CenterCropPad", X, np.int64([2, 3]), constants=[1], axes=[1, 1]),
    one("Compress", X, np.array([True]), axis=1 << 40),
    one("SplitToSequence", X, axis=-(1 << 63)),
    one("GRU", normal(3, 1, 3), normal(1, 6, 3), normal(1, 6, 2), hidden_size=3, outputs=2),
    one("RNN", normal(3, 1, 3), normal(1, 2, 3), normal(1, 2, 2), hidden_size=1 << 40, outputs=2),
    one("LSTM", normal(3, 1, 3), normal(1, 8, 3), normal(1, 8, 2), hidden_size=4, outputs=2),
    one("RotaryEmbedding", normal(1, 2, 3, 8), normal(1, 3, 1), normal(1, 3, 1), opset=23),
    one(
        "RotaryEmbedding",
        normal(1, 2, 3, 8),
        normal(1, 3, 4),
        normal(1, 3, 4),
        opset=23,
        rotary_embedding_dim=2,
    ),
    one("MaxUnpool", IMAGE, np.zeros(IMAGE.shape, np.int64), kernel_shape=[2, 2], pads=[1]),
    one("SplitToSequence", X, axis=7),
    one("EyeLike", X[0]),
    one("ArgMin", np.float32(1), axis=0),
    one("Split", np.float32(1), num_outputs=1),
    one("GatherElements", np.float32(1), np.int64(0)),
    one("ScatterElements", np.float32(1), np.int64(0), np.float32(2)),
    one("GatherND", X, np.int64(0)),
    one("ScatterND", X, np.int64(0), np.float32(2)),
    one("ConvTranspose", np.float32(1), FILTERS),
    one("DeformConv", IMAGE, normal(2), normal(1, 2, 3, 3)),
    one("Det", X[0]),
    one("ReverseSequence", np.float32(1), np.int64([1])),
    one("STFT", X[0], np.int64(1), None, np.int64(2), constants=[1, 3]),
    one("GroupNormalization", normal(3), normal(1), normal(1), num_groups=1),
    one("GroupNormalization", normal(1, 2, 2), np.float32(1), np.float32(1), num_groups=1),
    one(
        "ConstantOfShape", np.int64([2]), constants=[0], value=numpy_helper.from_array(np.zeros(0, np.int64))
    ),
    one("Multinomial", normal(1, 0)),
    one("GRU", normal(3, 1, 3), normal(1, 6, 3), np.float32(1), hidden_size=2, outputs=2),
    one("GRU", normal(3, 1, 3), normal(1, 6, 3), normal(1, 6, 2), normal(1, 6), hidden_size=2, outputs=2),
    one(
        "LSTM", normal(3, 1, 3), normal(1, 8, 3), normal(1, 8, 2), None, None, normal(3, 1, 2), hidden_size=2
    ),
]


@pytest.mark.parametrize("proto", MEANINGLESS, ids=lambda p: p.graph.node[0].op_type)
def test_attributes_and_parameters_that_mean_nothing_are_refused(proto: onnx.ModelProto) -> None:
    with pytest.raises(InvalidInput) as e:
        compile_model(proto.SerializeToString(), wafer="8x8", until="graph")
    assert "\n" not in str(e.value)


def test_a_tensor_goes_into_a_sequence_of_its_kind_only() -> None:
    """No type parameter says so: the standard's inference compares the elements."""
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["s"]),
        node("SequenceInsert", ["s", "n"], ["t"], "it"),
        node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ]
    for kind in (I64, D_, TensorProto.BOOL):
        ends = [value("x", F, [2]), value("n", kind, [2])]
        with pytest.raises(InvalidInput, match=r"node 'it' \(SequenceInsert\): .*same elem type"):
            import_model(made(nodes, ends, [value("y", F, None)]))


def test_what_the_host_makes_has_room_too() -> None:
    for proto in (
        one("ConvTranspose", normal(1, 1, 3, 3), normal(1, 2, 3, 3), strides=[(1 << 31) - 1] * 2),
        one("AveragePool", IMAGE, kernel_shape=[2, 2], pads=[(1 << 31) - 1] * 4),
        one("ConvTranspose", normal(1, 1, 3, 3), normal(1, 2, 3, 3), strides=[1 << 21, 1 << 21]),
    ):
        with pytest.raises(DoesNotFit, match=r"node 'it' .* bytes.*try smaller sizes"):
            compile_model(proto.SerializeToString(), wafer="8x8", until="graph")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scan_input_axes": [0, 0]},
        {"scan_input_axes": [7]},
        {"scan_output_axes": [0, 0]},
        {"scan_input_axes": []},
        {"scan_output_axes": []},
        {"scan_input_directions": []},
        {"scan_output_directions": []},
    ],
)
def test_axes_of_a_scan(wrong: Mapping[str, Sequence[int]]) -> None:
    body = helper.make_graph([node("Relu", ["a"], ["b"])], "body", [value("a", F, [3])], [value("b", F, [3])])
    scan = node("Scan", ["x"], ["y"], "it", body=body, num_scan_inputs=1)
    for name, ways in wrong.items():
        scan.attribute.append(helper.make_attribute(name, ways, attr_type=onnx.AttributeProto.INTS))
    with pytest.raises(InvalidInput, match="node 'it'"):
        import_model(made([scan], [value("x", F, [2, 3])], [value("y", F, None)]))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_a_pad_leaves_no_dimension_below_0(mode: str) -> None:
    for x, widths in ((normal(0, 2), [1, 0, -3, 0]), (normal(4, 2), [-3, 0, -2, 0])):
        with pytest.raises(InvalidInput, match=r"node 'it' \(Pad\): Pad crops .* to "):
            import_model(one("Pad", x, np.int64(widths), constants=[1], mode=mode))


def test_nothing_has_no_edge() -> None:
    for mode in ("edge", "reflect", "wrap"):
        with pytest.raises(InvalidInput, match=f"Pad by 1 in mode {mode} of a dimension of 0"):
            import_model(one("Pad", normal(0, 2), np.int64([1, 0, 0, 0]), constants=[1], mode=mode))


def test_inputs_that_are_scanned_together_are_as_long() -> None:
    ends = [value("a", F, [3]), value("b", F, [3])], [value("c", F, [3])]
    body = helper.make_graph([node("Add", ["a", "b"], ["c"])], "body", *ends)
    scan = node("Scan", ["x", "z"], ["y"], "it", body=body, num_scan_inputs=2)
    inputs = [value("x", F, [2, 3]), value("z", F, [4, 3])]
    with pytest.raises(InvalidInput, match=r"'it'.*scans inputs of 2 and 4 elements together"):
        import_model(made([scan], inputs, [value("y", F, None)]))


def test_sizes_whose_sums_leave_64_bits() -> None:
    for proto in (
        one("MaxPool", normal(1, 1, 3, 3), kernel_shape=[2, 2**63 - 1], auto_pad="SAME_LOWER"),
        one("ConvTranspose", normal(1, 1, 3, 3), normal(1, 2, 3, 3), strides=[3, 2**63 - 1]),
        one("AveragePool", normal(1, 1, 3, 3), kernel_shape=[1, 1], pads=[0, 0, 0, 2**62]),
    ):
        with pytest.raises(InvalidInput, match=r"node 'it'.*2147483647"):
            import_model(proto)


def test_a_branch_has_no_inputs_but_its_initializers() -> None:
    """And what its reader says of a value that a branch makes and nothing in it reads."""
    branch = helper.make_graph([node("Relu", ["x"], ["b"])], "then", [], [value("b", F, [2])])
    cond, x, y = value("c", TensorProto.BOOL, []), value("x", F, [2]), value("y", F, [2])
    for kind in (False, True):
        taken = onnx.GraphProto()
        taken.CopyFrom(branch)
        taken.input.append(value("held" if kind else "z", F, [2]))
        taken.initializer.append(numpy_helper.from_array(normal(2), "held"))
        it = node("If", ["c"], ["y"], "it", then_branch=taken, else_branch=branch)
        if kind:
            compile_model(made([it], [cond, x], [y]).SerializeToString(), wafer="8x8", until="graph")
        else:
            with pytest.raises(InvalidInput, match=r"'it'.*branch 'then' has an input 'z'"):
                compile_model(made([it], [cond, x], [y]).SerializeToString(), wafer="8x8", until="graph")
    it = node("If", ["c"], ["y"], "it", then_branch=branch, else_branch=branch)
    with pytest.raises(InvalidInput, match=r"condition has shape \[0\], the operator wants 1 element"):
        import_model(made([it], [x], [y], {"c": np.zeros(0, np.bool_)}))
    it = node("If", ["c"], ["b"], "it", then_branch=branch, else_branch=branch)
    late = made([node("Neg", ["b"], ["y"]), it], [cond, x], [y])
    with pytest.raises(InvalidInput, match=r"'b'|made by"):
        import_model(made([node("If", ["b"], ["y"], "it", then_branch=branch, else_branch=branch)], [x], [y]))
    with pytest.warns(ModelWarning):
        compile_model(late.SerializeToString(), wafer="8x8", until="graph")


def test_the_number_of_inputs_and_what_may_be_left_out() -> None:
    for proto in (one("Add", X), one("Add", X, X, X), one("Concat", X, None, axis=0), one("Relu", None)):
        with pytest.raises(InvalidInput):
            import_model(proto)
    same_as_onnxruntime(
        one("Clip", X, None, np.array(0.5, np.float32)), {"x0": X, "x2": np.array(0.5, np.float32)}
    )


# -- ends -------------------------------------------------------------------------------
def ends(nodes: Sequence[onnx.NodeProto], *outputs: str) -> onnx.ModelProto:
    """From x, with a constant c, to outputs."""
    results = [value(o, F, [2, 3]) for o in outputs]
    return made(nodes, [value("x", F, [2, 3])], results, {"c": normal(2, 3)})


RELU = [node("Relu", ["x"], ["y"], "r")]
ENDS = {
    "an input that is an output": ends(RELU, "x", "y"),
    "one output twice": ends(RELU, "y", "y"),
    "a constant twice": ends(RELU, "y", "c", "c"),
    "no nodes": ends([], "x"),
    "no nodes, all of it": ends([], "x", "c", "x"),
    "identities": ends([node("Identity", ["x"], ["a"]), node("Identity", ["a"], ["b"])], "b", "a", "x"),
    "names like those that we make": ends(
        [node("Relu", ["x"], ["x.1"]), node("Neg", ["x.1"], ["y.1"])], "x", "x.1", "y.1"
    ),
    "beside the host": ends(
        [*RELU, node("NonZero", ["x"], ["n"]), node("Shape", ["n"], ["s"])], "x", "y", "y"
    ),
}


@pytest.mark.parametrize("kind", ENDS)
def test_odd_ends(kind: str) -> None:
    proto = ENDS[kind]
    same_as_onnxruntime(proto, {"x": normal(2, 3)})


def test_a_state_that_is_an_output_is_refused() -> None:
    with pytest.raises(UsageError, match="input 'x' is an output, too"):
        compile_model(ends(RELU, "x", "y").SerializeToString(), wafer="8x8", states=[("x", "y")])


# -- what others write otherwise --------------------------------------------------------
def test_ends_without_a_shape_or_a_type() -> None:
    x = normal(2, 3)
    for inputs, outputs in (
        ([value("x", F, None)], [value("y", F, [2, 3])]),
        ([value("x", F, None)], [value("y", F, None)]),
        ([value("x", F, None)], [onnx.ValueInfoProto(name="y")]),
    ):
        same_as_onnxruntime(made(RELU, inputs, outputs), {"x": x}, shapes={"x": (2, 3)})
        with pytest.raises(InvalidInput, match=r"input 'x' has no shape; add --shape x="):
            import_model(made(RELU, inputs, outputs))
    with pytest.raises(InvalidInput, match="input 'x' has no type"):
        import_model(made(RELU, [onnx.ValueInfoProto(name="x")], [value("y", F, [2, 3])]))


@pytest.mark.parametrize("names", [("ai.onnx", ""), ("", "ai.onnx"), ("ai.onnx", "ai.onnx")])
def test_the_long_name_of_the_standard_s_domain(names: tuple[str, str]) -> None:
    relu = node("Relu", ["x"], ["y"], domain=names[1])
    proto = made([relu], [value("x", F, [2, 3])], [value("y", F, [2, 3])], opsets=[(names[0], 17)])
    same_as_onnxruntime(proto, {"x": normal(2, 3)})


def test_two_opsets_of_one_domain_are_refused() -> None:
    proto = made(RELU, [value("x", F, [2])], [value("y", F, [2])], opsets=[("", 17), ("ai.onnx", 13)])
    with pytest.raises(InvalidInput, match=r"opsets 17 and 13 of domain 'ai\.onnx'"):
        import_model(proto)


def test_nodes_out_of_order_are_sorted_with_a_warning() -> None:
    proto = ends([node("Neg", ["a"], ["y"], "second"), node("Relu", ["x"], ["a"], "first")], "y")
    before = proto.SerializeToString()
    with pytest.warns(ModelWarning, match="they were put in order, node 'first'"):
        import_model(proto)
    assert proto.SerializeToString() == before  # the caller's own model stays as it is
    late = [
        helper.make_graph([node(kind, ["late"], [f"{kind}_o"])], kind, [], [value(f"{kind}_o", F, [2, 3])])
        for kind in ("Relu", "Neg")
    ]
    branch = node("If", ["c"], ["y"], then_branch=late[0], else_branch=late[1])
    captured = made(
        [branch, node("Abs", ["x"], ["late"])],
        [value("x", F, [2, 3]), value("c", TensorProto.BOOL, [])],
        [value("y", F, [2, 3])],
    )
    with pytest.warns(ModelWarning):
        same_as_onnxruntime(captured, {"x": normal(2, 3), "c": np.array(True)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_model(ends(RELU, "y"))


def late(*inner: onnx.NodeProto) -> onnx.GraphProto:
    """A branch whose nodes stand the wrong way round: -relu(x)."""
    nodes = [node("Neg", ["a"], ["o"]), node("Relu", ["x"], ["a"]), *inner]
    return helper.make_graph(nodes, "late", [], [value("o", F, None)])


def late_bodies() -> dict[str, onnx.ModelProto]:
    """Models of x and of a condition c that give -relu(x) or, of a loop, x + 3 relu(x)."""
    ends = [value("x", F, [2, 3]), value("c", TensorProto.BOOL, [])]
    y = [onnx.ValueInfoProto(name="y")]
    plain = helper.make_graph([node("Abs", ["x"], ["p"])], "plain", [], [value("p", F, None)])
    branch = node("If", ["c"], ["y"], "if", then_branch=late(), else_branch=plain)
    inner = helper.make_graph(
        [node("If", ["c"], ["q"], then_branch=late(), else_branch=plain)], "inner", [], [value("q", F, None)]
    )
    body = helper.make_graph(
        [node("Add", ["v", "r"], ["w"]), node("Relu", ["x"], ["r"]), node("Identity", ["go"], ["on"])],
        "body",
        [value("i", I64, []), value("go", TensorProto.BOOL, []), value("v", F, [2, 3])],
        [value("on", TensorProto.BOOL, []), value("w", F, [2, 3])],
    )
    function = helper.make_function(
        "own", "Late", ["a"], ["b"], [node("Neg", ["t"], ["b"]), node("Relu", ["a"], ["t"])],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    call = node("Late", ["x"], ["y"], "call", domain="own")
    loop = node("Loop", ["n", ""], ["y"], "loop", body=body)
    loop.input.append("x")
    return {
        "a branch": made([branch], ends, y),
        "a branch of a branch": made(
            [node("If", ["c"], ["y"], then_branch=inner, else_branch=plain)], ends, y
        ),
        "a loop": made([loop], ends, y, {"n": np.array(3)}),
        "a loop of the host": made([loop], [*ends, value("n", I64, [])], y),
        "a function": made([call], ends, y, opsets=[("", 21), ("own", 1)], functions=[function]),
    }


@pytest.mark.parametrize("kind", late_bodies())
def test_nodes_out_of_order_in_bodies(kind: str) -> None:
    proto, x = late_bodies()[kind], normal(2, 3)
    feeds = {"x": x, "c": np.array(True), "n": np.array(3)}
    with pytest.warns(ModelWarning, match="put in order"):
        compiled = compile_model(proto.SerializeToString(), wafer="8x8")
    ours = compiled.run({v.name: feeds[v.name] for v in proto.graph.input})["y"]
    relu = np.maximum(x, 0)
    np.testing.assert_allclose(ours, x + 3 * relu if "loop" in kind else -relu, rtol=1e-6)


@pytest.mark.parametrize("names", [("ai.onnx", ""), ("", "ai.onnx"), ("ai.onnx", "ai.onnx"), ("", "")])
def test_the_long_name_in_functions_and_branches(names: tuple[str, str]) -> None:
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"], domain=names[1])],
        [helper.make_opsetid(names[0], 21)],
    )  # fmt: skip
    branches = {
        f"{branch}_branch": helper.make_graph(
            [node(kind, ["t"], [kind], domain=names[1])], branch, [], [value(kind, F, None)]
        )
        for branch, kind in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [node("Twice", ["x"], ["t"], domain="own"), node("If", ["c"], ["y"], domain=names[1], **branches)]
    ends = [value("x", F, [2, 3]), value("c", TensorProto.BOOL, [])]
    of = made(
        nodes,
        ends,
        [onnx.ValueInfoProto(name="y")],
        opsets=[(names[0], 21), ("own", 1)],
        functions=[function],
    )
    compiled, x = compile_model(of.SerializeToString(), wafer="8x8"), normal(2, 3)
    for c in (True, False):  # onnxruntime knows the long name in a model's nodes only
        ours = compiled.run({"x": x, "c": np.array(c)})["y"]
        np.testing.assert_array_equal(ours, np.maximum(2 * x, 0) if c else -2 * x)


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 6, 4), 6), ((1, 6, 2, 2, 2), 1), ((2, 6), 2), ((0, 6, 4), 3), ((2, 6, 1, 1), 6)],
)
def test_group_normalization_of_any_shape(shape: tuple[int, ...], groups: int, opset: int) -> None:
    each = groups if opset < 21 else 6
    for kind in ("f4", "f2"):
        x, scale, bias = normal(*shape).astype(kind), normal(each).astype(kind), normal(each).astype(kind)
        proto = one(
            "GroupNormalization",
            x,
            scale,
            bias,
            constants=[1, 2],
            opset=opset,
            num_groups=groups,
            epsilon=1e-3,
        )
        if x.size:
            same_as_onnxruntime(proto, {"x0": x})
        else:  # onnxruntime cannot reshape it
            (y,) = compile_model(proto.SerializeToString(), wafer="8x8").run({"x0": x}).values()
            assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("opset", [18, 19, 20, 21])
def test_group_normalization_of_every_opset(opset: int) -> None:
    x, each = normal(2, 6, 4, 5), 3 if opset < 21 else 6
    proto = one(
        "GroupNormalization", x, normal(each), normal(each), constants=[1, 2], opset=opset, num_groups=3
    )
    same_as_onnxruntime(proto, {"x0": x})


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("size", [(1, 2, 3, 4), (2, 2, 3, 4), (1, 2, 2, 3, 4), (3, 1, 2, 3, 4)])
def test_affine_grid_of_any_number_of_images(size: tuple[int, ...], aligned: int) -> None:
    rank = len(size) - 2
    theta = normal(size[0], rank, rank + 1)
    proto = one("AffineGrid", theta, np.int64(size), constants=[1], opset=20, align_corners=aligned)
    same_as_onnxruntime(proto, {"x0": theta})


def test_a_first_dimension_of_0_is_empty_or_given() -> None:
    proto = made(RELU, [value("x", F, [0, 3])], [value("y", F, [0, 3])])
    same_as_onnxruntime(proto, {"x": normal(0, 3)})
    x = normal(2, 3)
    given = compile_model(proto.SerializeToString(), wafer="8x8", shapes={"x": (2, 3)})
    assert np.array_equal(given.run({"x": x})["y"], np.maximum(x, 0))


# -- nothing at all ---------------------------------------------------------------------
def past(length: str | int) -> onnx.ModelProto:
    """Attention of two positions over them and what came before."""
    nodes = [
        node("Concat", ["p", "x"], ["k"], axis=1),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["x", "kt"], ["s"]),
        node("Softmax", ["s"], ["w"], axis=-1),
        node("MatMul", ["w", "k"], ["y"]),
    ]
    inputs = [value("p", F, [1, length, 3]), value("x", F, [1, 2, 3])]
    return made(nodes, inputs, [value("y", F, [1, 2, 3]), value("k", F, [1, "total", 3])])


EMPTY: list[tuple[onnx.ModelProto, dict[str, Array]]] = [
    (past("n"), {"p": normal(1, 0, 3), "x": normal(1, 2, 3)}),
    (
        made(
            [node("MatMul", ["x", "w"], ["a"]), node("Softmax", ["a"], ["y"])],
            [value("x", F, ["n", 3])],
            [value("y", F, ["n", 4])],
            {"w": normal(3, 4)},
        ),
        {"x": normal(0, 3)},
    ),
    (
        made(
            [node("MatMul", ["x", "z"], ["y"])],
            [value("x", F, [2, "n"]), value("z", F, ["n", 4])],
            [value("y", F, [2, 4])],
        ),
        {"x": normal(2, 0), "z": normal(0, 4)},
    ),
    (
        made(
            [node("Conv", ["x", "w"], ["a"]), node("GlobalAveragePool", ["a"], ["y"])],
            [value("x", F, ["n", 2, 4, 4])],
            [value("y", F, ["n", 2, 1, 1])],
            {"w": FILTERS},
        ),
        {"x": normal(0, 2, 4, 4)},
    ),
    (
        made(
            [node("ReduceSum", ["x", "a"], ["y"], keepdims=0), node("Relu", ["x"], ["z"])],
            [value("x", F, ["n", 3])],
            [value("y", F, [3]), value("z", F, ["n", 3]), value("x", F, ["n", 3])],
            {"a": np.int64([0])},
        ),
        {"x": normal(0, 3)},
    ),
]


@pytest.mark.parametrize(("proto", "feeds"), EMPTY)
def test_dimensions_of_0(proto: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    same_as_onnxruntime(proto, feeds, dims={"n": 0})
    same_as_onnxruntime(proto, feeds, shapes={name: x.shape for name, x in feeds.items()})


def test_a_name_that_is_no_text_is_refused() -> None:
    content = made(RELU, [value("x", F, [2])], [value("y", F, [2])]).SerializeToString()
    for wrong in (
        content.replace(b"\x0a\x01x", b"\x0a\x01\xff"),
        content.replace(b"\x1a\x01r", b"\x1a\x01\xff"),
    ):
        assert wrong != content
        with pytest.raises(InvalidInput, match=r"a text that is no UTF-8: \w+ '\\xff' of a"):
            import_model(wrong)


def test_what_a_function_needs_may_not_be_left_out_where_it_is_called() -> None:
    function = onnx.helper.make_function(
        "own",
        "Pooled",
        ["a", "b"],
        ["c"],
        [node("MaxPool", ["b"], ["c"], kernel_shape=[2])],
        [onnx.helper.make_opsetid("", 21)],
    )
    call = onnx.helper.make_node("Pooled", ["x"], ["y"], "call", domain="own")
    proto = made([call], [value("x", F, [1, 1, 4])], [value("y", F, [1, 1, 3])])
    proto.functions.append(function)
    proto.opset_import.append(onnx.helper.make_opsetid("own", 1))
    with pytest.raises(InvalidInput, match=r"'call'.*: input 0 \(X\) is left out"):
        import_model(proto)
