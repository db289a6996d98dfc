"""Contract, window, reduce and normalize: meaning against onnxruntime, kernels against meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jit
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_cases import CASES, Case, build, conv
from sampled import sampled
from waferc.ir import dtypes
from waferc.ir.affine import access_axes
from waferc.ir.builder import FRESH, JOIN, RESUME, Combine
from waferc.ir.graph import Graph, InvalidModel, Unsupported
from waferc.ir.op import CLOSED, Array, Op
from waferc.ir.ops.contract import Contract
from waferc.ir.ops.loops import neutral
from waferc.ir.ops.reduce import REDUCTIONS, Reduce, reduce_over
from waferc.ir.ops.row_passes import Normalize
from waferc.ir.rules import REGISTRY, GraphBuilder, Spec


def written(op: Op) -> tuple[Any, ...]:
    """The part of the result that `op` writes."""
    return (..., *(slice(lo, hi) for lo, hi in op.hold({a: (0, n) for a, n in op.axes})))


def evaluate(
    graph: Graph, operands: Sequence[Array], run: Callable[[Op, list[Array]], Array] | None = None
) -> Array:
    """The graph's output, each node by its reference or by `run`."""
    values = dict(graph.constants)
    values |= dict(zip(graph.inputs, operands, strict=True))
    for n in graph.nodes:
        args = [values[t] for t in n.inputs]
        whole = values.setdefault(n.output, np.zeros(graph.tensors[n.output].shape, n.op.out_type.numpy))
        part = whole[written(n.op)]
        part[...] = np.asarray(run(n.op, args) if run else n.op.reference(*args)).reshape(part.shape)
    return values[graph.outputs[0]]


def golden(case: Case, operands: Sequence[Array]) -> Array:
    """What onnxruntime computes."""
    infos, constants = [], []
    for i, x in enumerate(operands):
        kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
        if i in case.fixed:
            constants.append(onnx.numpy_helper.from_array(x, f"i{i}"))
        else:
            infos.append(onnx.helper.make_tensor_value_info(f"i{i}", kind, x.shape))
    node = onnx.helper.make_node(
        case.op_type, [f"i{i}" for i in range(len(operands))], ["y"], **case.attributes
    )
    result = onnx.helper.make_tensor_value_info(
        "y", onnx.helper.np_dtype_to_tensor_dtype(operands[0].dtype), None
    )
    graph = onnx.helper.make_graph([node], "case", infos, [result], constants)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", case.opset)], ir_version=8
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {i.name: operands[int(i.name[1:])] for i in session.get_inputs()}
    return np.asarray(session.run(None, feed)[0])


def runtime_operands(case: Case, operands: Sequence[Array]) -> list[Array]:
    """The operands that are graph inputs."""
    return [x for i, x in enumerate(operands) if i not in case.fixed and i not in case.constants]


def close(ours: Array, theirs: Array, dtype: str) -> None:
    """Within rounding of the largest value; NaN and infinities in the same places."""
    assert ours.shape == theirs.shape
    if np.dtype(dtype).kind != "f":
        np.testing.assert_array_equal(ours, theirs)
        return
    finite = theirs[np.isfinite(theirs)]
    scale = float(np.abs(finite).max()) if finite.size else 1.0
    step = 2e-3 if dtype == "float16" else 2e-6 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(
        ours.astype(np.float64), theirs.astype(np.float64), rtol=4 * step, atol=4 * step * scale
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_meaning(case: Case) -> None:
    """The op's reference, and folding, say what onnxruntime says."""
    operands = case.operands()
    graph, _ = build(case, operands)
    if case.nodes is not None:
        assert len(graph.nodes) == case.nodes
    theirs = golden(case, operands)
    close(evaluate(graph, runtime_operands(case, operands)), theirs, case.dtype)
    _, folded = build(Case(**{**case.__dict__, "constants": range(len(operands)), "nodes": None}), operands)
    assert folded is not None
    close(folded, theirs, case.dtype)


# -- kernels --------------------------------------------------------------------------
def dense(x: Array) -> Array:
    return x.copy()


def backwards(x: Array) -> Array:
    """Stored with the first dimension innermost."""
    return x.copy(order="F")


def gapped(x: Array) -> Array:
    """Stored within a larger array, with other values around it."""
    around = np.full([n + 3 for n in x.shape], 77, x.dtype)
    inside = around[(..., *(slice(1, n + 1) for n in x.shape))]
    inside[...] = x
    return inside


def lane_axes(op: Op) -> list[str]:
    """Every axis that vectors may run along."""
    axes = list(access_axes(op.write))
    axes += [a for a in op.reduced if all(a in access_axes(read) for read in op.reads)]
    return axes or [""]


def exact_value(op: Op, operands: Sequence[Array]) -> Array:
    """The reference in double precision, in the result's type."""
    wide = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in operands]
    with np.errstate(all="ignore"):
        return np.asarray(op.reference(*wide))


# Those with more than five axes have the most code.
WIDE = frozenset({"Conv", "ConvTranspose", "Einsum"})


@pytest.mark.parametrize(
    "case",
    [
        *sampled([c for c in CASES if c.op_type not in WIDE], 2),
        *(pytest.param(c, marks=pytest.mark.thorough) for c in CASES if c.op_type in WIDE),
    ],
    ids=str,
)
def test_kernel(case: Case) -> None:
    """Each op's kernel, in every storage order and along every lane axis, computes its reference."""
    operands = case.operands()
    graph, _ = build(case, operands)

    def run(op: Op, args: list[Array]) -> Array:
        theirs = exact_value(op, args)
        if not isinstance(op, Contract | Reduce | Normalize):
            return theirs.astype(op.out_type.numpy)  # elementwise: has tests of its own
        shape = [hi for _, hi in op.hold({a: (0, n) for a, n in op.axes})]
        random = np.random.default_rng(1)
        for store in (dense, backwards, gapped):
            stored = [store(x) for x in args]
            few = len(op.axes) <= 4 and case.dtype == "float32"
            axes = lane_axes(op) if store is dense and few else [op.lane_axis(op.size)]
            for lane_axis in axes:
                out = store(random.integers(1, 5, shape).astype(op.out_type.numpy))
                old = out.copy()
                at = written(op)
                jit.run(op, stored, lane_axis=lane_axis, out=out, guard=store is gapped)
                close(out[at], theirs, op.out_type.numpy.name)
                for mode in (RESUME, JOIN) if op.combine else ():
                    out[...] = old
                    jit.run(op, stored, lane_axis=lane_axis, out=out, mode=mode)
                    joined = REDUCTIONS[op.combine].ufunc(old[at].astype(theirs.dtype), theirs)
                    close(out[at], joined, op.out_type.numpy.name)
        return theirs.astype(op.out_type.numpy)

    evaluate(graph, runtime_operands(case, operands), run)


SIZES = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(m=SIZES, n=SIZES, k=SIZES, along=st.sampled_from("mnk"), cut=st.integers(0, 40))
def test_contract_of_any_size(m: int, n: int, k: int, along: str, cut: int) -> None:
    """Ragged rows, vectors and chains; a reduced axis cut in two time steps."""
    random = np.random.default_rng(m * 1600 + n * 40 + k)
    a, b = random.standard_normal((m, k)), random.standard_normal((k, n))
    a, b = a.astype(np.float32), b.astype(np.float32)
    out = np.full((m, n), 3, np.float32)
    steps = [(0, cut), (cut, k)] if 0 < cut < k else [(0, k)]
    for lo, hi in steps:
        graph, _ = build(Case("MatMul", [(m, hi - lo), (hi - lo, n)]), [a[:, lo:hi], b[lo:hi]])
        op = graph.nodes[0].op
        jit.run(op, [a[:, lo:hi], b[lo:hi]], lane_axis=along, out=out, mode=JOIN if lo else FRESH)
    close(out, a.astype(np.float64) @ b.astype(np.float64), "float32")


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 70)),
    over=st.sampled_from(["d1", "d2"]),
    along=st.sampled_from(["d0", "d1", "d2"]),
    logarithm=st.booleans(),
)
def test_softmax_of_any_size(shape: tuple[int, ...], over: str, along: str, logarithm: bool) -> None:
    """Rows of any length, with masked (-inf) and large elements, lanes along or across them."""
    x = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) * 30
    x[:, ::3, 1::3] = -np.inf
    x[..., 0] = 80
    kind = "LogSoftmax" if logarithm else "Softmax"
    graph, _ = build(Case(kind, [shape], {"axis": int(over[1])}), [x])
    op = graph.nodes[0].op
    close(jit.run(op, [x], lane_axis=along), exact_value(op, [x]), "float32")


@pytest.mark.parametrize("along", ["d0", "d1"])
def test_softmax_of_f16_rounds_every_step(along: str) -> None:
    """As NumPy does in f16; computed in f32 throughout, many would differ."""
    x = np.random.default_rng(4).standard_normal((40, 60)).astype(np.float16)
    op = build(Case("Softmax", [x.shape], {"axis": 1}, dtype="float16"), [x])[0].nodes[0].op
    same = jit.run(op, [x], lane_axis=along) == op.reference(x).astype(np.float16)
    assert same.mean() > 0.99


@pytest.mark.parametrize("op_type", ["ReduceMax", "ReduceMin", "ReduceSum", "Softmax", "MatMul"])
def test_nan_propagates(op_type: str) -> None:
    x = np.arange(120, dtype=np.float32).reshape(3, 40)
    x[1, 37] = np.nan
    case = Case(op_type, [(3, 40)], {} if op_type in ("Softmax", "MatMul") else {"axes": [1]}, opset=13)
    if op_type == "MatMul":
        case = Case(op_type, [(3, 40), (40, 2)])
    operands = [x, np.ones((40, 2), np.float32)][: len(case.shapes)]
    op = build(case, operands)[0].nodes[0].op
    for lane_axis in lane_axes(op):
        out = jit.run(op, operands, lane_axis=lane_axis)
        assert np.isnan(out).reshape(3, -1).all(axis=1).tolist() == [False, True, False]


def test_lanes_past_a_sum_count_for_nothing() -> None:
    """Not even times infinity."""
    operands = [np.ones(5, np.float32), np.asarray(np.inf, np.float32)]
    op = build(Case("Einsum", [(5,), ()], {"equation": "i,->"}), operands)[0].nodes[0].op
    assert jit.run(op, operands, lane_axis=op.reduced[0]) == np.inf


@pytest.mark.parametrize(
    ("kind", "dtype"),
    # ONNX has no sum or product of booleans.
    [(k, t) for k in REDUCTIONS for t in dtypes.ALL if t != dtypes.BOOL or k in ("min", "max")],
    ids=str,
)
def test_reductions_of_every_type(kind: Combine, dtype: dtypes.DType) -> None:
    """All element types, along a dense and a strided axis; no element at all is the neutral one."""
    x = np.random.default_rng(2).integers(0, 2 if dtype == dtypes.BOOL else 4, (5, 37)).astype(dtype.numpy)
    if dtype.kind in "if":
        x = -x if kind == "max" else x
    for over in ([0], [1], [0, 1]):
        g = GraphBuilder()
        reduce_over(g, REDUCTIONS[kind], g.tensor("x", x.shape, dtype), over, "y", keep=False)
        op = g.nodes[0].op
        wide = x.astype(dtype.computed.numpy)  # sums of bf16 are rounded by a conversion of their own
        theirs = REDUCTIONS[kind].ufunc.reduce(
            wide, axis=tuple(over), dtype=None if dtype.is_float else x.dtype
        )
        with np.errstate(over="ignore"):
            close(jit.run(op, [x]), np.asarray(theirs), wide.dtype.name)
    g = GraphBuilder()
    empty = reduce_over(g, REDUCTIONS[kind], g.tensor("x", (3, 0), dtype), [1], "y", keep=False)
    assert not g.nodes
    assert (g.value(empty) == np.full(3, neutral(kind, dtype), dtype.numpy)).all()


# -- cost -----------------------------------------------------------------------------
def matrix_vector() -> Contract:
    graph, _ = build(Case("MatMul", [(1, 64), (64, 48)]), [np.ones((1, 64)), np.ones((64, 48))])
    op = graph.nodes[0].op
    assert isinstance(op, Contract)
    return op


def test_work_of_a_matrix_vector_tile() -> None:
    """k rows are one loop of k turns, or two dispatches with all products held at once, where those fit.
    Slices are closed: one row of results has nothing that they would save."""
    op = matrix_vector()
    candidates = {"m": 1, "k": np.array([4, 16, 64]), "n": np.array([[48], [8]])}
    (one, none), (slices, nothing), (two, held) = op.alternatives(candidates)
    assert none == 0 and nothing == 0
    assert (slices[0].dispatches == CLOSED).all()
    assert (one[0].starts == 1).all()
    assert one[0].dispatches.tolist() == [[4, 16, 64]] * 2
    assert one[0].elements.tolist() == [[192, 768, 3072], [32, 128, 512]]
    # f64: 16 x 48 products take more than 4096 bytes, 64 x 8 just as many.
    assert two[0].dispatches.tolist() == [[2, CLOSED, CLOSED], [2, 2, 2]]
    assert held.tolist() == [[1536, 4096, 4096], [256, 1024, 4096]]
    assert two[0].elements.tolist() == [[384, 1536, 6144], [64, 256, 1024]]


@pytest.mark.parametrize("case", [c for c in CASES if c.nodes == 1], ids=str)
def test_work_takes_candidates(case: Case) -> None:
    """Work for an array of candidates is the work of each; a split in two halves the elements."""
    op = build(case, case.operands())[0].nodes[0].op
    for axis, size in op.axes:
        half = max(1, size // 2)
        together = op.work({**op.size, axis: np.array([size, half])})
        for i, n in enumerate((size, half)):
            for one, many in zip(op.work({**op.size, axis: n}), together, strict=True):
                assert np.broadcast_to(many.elements, 2)[i] == one.elements
                assert np.broadcast_to(many.dispatches, 2)[i] == one.dispatches > 0


def test_layer_norm_tells_mean_and_deviation() -> None:
    x = np.random.default_rng(3).standard_normal((4, 6, 5)).astype(np.float16) * 3 + 1
    g = GraphBuilder()
    names = g.tensor("x", x.shape, dtypes.F16), g.tensor("w", (6, 5), dtypes.F16)
    spec = Spec("LayerNormalization", "node", names, ("y", "mean", "deviation"), {"axis": 1}, 17)
    outputs = REGISTRY["", "LayerNormalization"].rule(g, spec)
    wide = x.astype(np.float64)
    expected = [wide.mean(axis=(1, 2)), 1 / np.sqrt(wide.var(axis=(1, 2)) + 1e-5)]
    for name, theirs in zip(outputs[1:], expected, strict=True):
        graph = Graph("case", g.tensors, tuple(g.nodes), g.constants, names, (name,))
        graph.check()
        assert graph.tensors[name].dtype == dtypes.F32
        close(evaluate(graph, [x, np.ones((6, 5), np.float16)]), theirs.reshape(4, 1, 1), "float32")


def test_a_normalised_axis_stays_whole() -> None:
    graph, _ = build(Case("Softmax", [(3, 5, 7)], {"axis": 1}), [np.ones((3, 5, 7), np.float32)])
    op = graph.nodes[0].op
    assert op.whole == ("d1",)
    assert op.combine is None


def test_a_reduced_axis_may_be_cut() -> None:
    op = matrix_vector()
    assert (op.combine, op.reduced, op.whole) == ("add", ("k",), ())
    assert {k.combine for k in REDUCTIONS.values()} == set(REDUCTIONS)


# -- refusals ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "outputs", "error", "says"),
    [
        (Case("MatMul", [(2, 3), (4, 5)]), 1, InvalidModel, "do not multiply"),
        (Case("MatMul", [(2, 2, 3), (3, 3, 5)]), 1, InvalidModel, "do not broadcast"),
        (Case("MatMul", [(), (3,)]), 1, InvalidModel, "scalar"),
        (Case("Gemm", [(2, 3, 1), (3, 5)]), 1, InvalidModel, "not matrices"),
        (conv((1, 4, 5, 5), (4, 3, 3, 3)), 1, InvalidModel, "1 groups"),
        (conv((1, 3, 5, 5), (4, 3, 3, 3), strides=[1]), 1, InvalidModel, "do not fit 2 dimensions"),
        (conv((1, 3, 2, 2), (4, 3, 3, 3)), 1, InvalidModel, "a window of 3 over 2"),
        (Case("ConvTranspose", [(1, 2, 4), (1, 1, 2)]), 1, InvalidModel, "1 groups"),
        (Case("ConvTranspose", [(1, 1, 1), (1, 1, 2)], {"pads": [1, 1]}), 1, InvalidModel, "padding 1"),
        (Case("ReduceSum", [(3, 4)], {"axes": [2]}, opset=11), 1, InvalidModel, "2 dimensions"),
        (Case("ReduceSum", [(3, 4), (1,)], dtype="int64"), 1, Unsupported, "axes depends on data"),
        (Case("BatchNormalization", [(3, 4), *[(4,)] * 4], {"spatial": 0}, 7), 1, Unsupported, "spatial"),
        (Case("BatchNormalization", [(3, 4), *[(3,)] * 4]), 1, InvalidModel, "each channel"),
        (Case("Einsum", [(3, 4)], {"equation": "ijk"}), 1, InvalidModel, "'ijk' for 2 dimensions"),
        (Case("Einsum", [(3, 4)], {"equation": "ij->k"}), 1, InvalidModel, "do not give"),
        (Case("Einsum", [(3, 4), (5,)], {"equation": "ij,j"}), 1, InvalidModel, "is 4 and 5"),
        (Case("Einsum", [(3, 4)], {"equation": "ij,j"}), 1, InvalidModel, "of 1 operands"),
        (Case("Softmax", [(3, 4)], {"axis": 2}), 1, InvalidModel, "axis 2"),
        (Case("GroupNormalization", [(1, 4, 2), (4,), (4,)], {"num_groups": 3}), 1, InvalidModel, "3 groups"),
    ],
    ids=str,
)
def test_refuses(case: Case, outputs: int, error: type[Exception], says: str) -> None:
    g = GraphBuilder()
    kind = dtypes.of_numpy(np.dtype(case.dtype))
    names = tuple(g.tensor(f"x{i}", s, kind) for i, s in enumerate(case.shapes))
    spec = Spec(
        case.op_type, "node", names, tuple(f"y{i}" for i in range(outputs)), case.attributes, case.opset
    )
    with pytest.raises(error, match=says):
        REGISTRY["", case.op_type].rule(g, spec)
