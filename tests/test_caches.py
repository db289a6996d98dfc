"""Key-value caches: states of a capacity that are filled in place, position by position."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from waferc.codegen.artifact.artifact import InvalidArtifact, npy, read, write
from waferc.compiler.compiled import Compiled
from waferc.compiler.errors import UnsupportedModel, UsageError
from waferc.compiler.passes import blocked_softmax
from waferc.compiler.pipeline import compile_model
from waferc.ir.op import Array
from waferc.placement.judge.judge import IllegalPlan, judge
from waferc.placement.machine.presets import preset
from waferc.placement.plan.plan import Plan
from waferc.placement.search.budget import budget
from waferc.placement.splits.choice import Site
from waferc.placement.splits.policy import POLICY
from waferc.runtime.load import load, prepare
from waferc.runtime.program import InputError, Program
from waferc.runtime.reports import InvalidIndex

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))

from decoder import TINY, decoder, random_weights

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
CAPACITY = 24


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    outputs: dict[str, tuple[int, Sequence[int | str]]],
    opset: int = 17,
    **constants: Any,
) -> bytes:
    def infos(named: dict[str, tuple[int, Sequence[int | str]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in named.items()]

    initializers = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "m", infos(inputs), infos(outputs), initializers)
    version = 11 if opset > 21 else 8
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def attention(**more: Any) -> bytes:
    """One query over cached keys and values, without any mask; `more` nodes see the caches, too."""
    caches = {f"past.{kind}": (FLOAT, [1, 2, "P", 8]) for kind in ("key", "value")}
    new = {kind: (FLOAT, [1, 2, 1, 8]) for kind in ("q", "k", "v")}
    nodes = [
        helper.make_node("Concat", ["past.key", "k"], ["present.key"], axis=2),
        helper.make_node("Concat", ["past.value", "v"], ["present.value"], axis=2),
        helper.make_node("Transpose", ["present.key"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "present.value"], ["mixed"]),
        *more.get("nodes", ()),
    ]
    outputs = {"mixed": (FLOAT, [1, 2, 1, 8]), **more.get("outputs", {})}
    presents = {f"present.{kind}": (FLOAT, [1, 2, "T", 8]) for kind in ("key", "value")}
    return model_of(nodes, {**new, **caches}, {**outputs, **presents}, **more.get("constants", {}))


def test_caches_are_no_load_besides_what_keeps_them() -> None:
    graph = compile_model(attention(), wafer="8x8", capacity=CAPACITY, until="plan").graph
    caches = sum(graph.tensors[past].bytes for past, _ in graph.states)
    b = budget(graph, range(len(graph.nodes)), Site(0, 8, 8, preset("8x8"), POLICY))
    assert max(b.carried.values()) * 64 < caches / 2


def attended(calls: int, scale: float = 1.0) -> Iterator[tuple[dict[str, Array], Array]]:
    """Inputs of `attention`, and what comes out in float64. scale: of the queries."""
    random = np.random.default_rng(0)
    keys, values = np.zeros((2, 0, 8)), np.zeros((2, 0, 8))
    for _ in range(calls):
        q, k, v = (random.standard_normal((1, 2, 1, 8)).astype(np.float32) for _ in range(3))
        q *= np.float32(scale)
        keys, values = np.concatenate([keys, k[0]], 1), np.concatenate([values, v[0]], 1)
        scores = q[0].astype(np.float64) @ keys.transpose(0, 2, 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        yield {"q": q, "k": k, "v": v}, (scores / scores.sum(-1, keepdims=True) @ values)[None]


@pytest.fixture(scope="module")
def tokens() -> Compiled:
    """The tiny decoder, a token a call."""
    made = decoder(TINY, random_weights()).SerializeToString()
    return compile_model(made, wafer="16x16", dims={"S": 1}, capacity=CAPACITY)


def logits(program: Program, ids: Sequence[int], threads: int | None = None) -> Array:
    """[tokens, vocabulary], a call for each entry-sized chunk of `ids`."""
    n = program.ports.inputs[0].shape[1]
    out: list[Array] = []
    for i in range(0, len(ids), n):
        places = np.arange(program.length, program.length + n)[None]
        feed = {"input_ids": np.array([ids[i : i + n]]), "position_ids": places}
        out.append(program.run(feed, threads)["logits"][0])
    return np.concatenate(out)


def golden(ids: Sequence[int]) -> Array:
    """The tiny decoder on all tokens at once, in onnx's reference."""
    made = ReferenceEvaluator(decoder(TINY, random_weights()))
    empty = np.zeros((1, TINY.kv_heads, 0, TINY.head), np.float32)
    caches = {f"past_key_values.{i}.{kind}": empty for i in range(TINY.layers) for kind in ("key", "value")}
    found: Any = made.run(
        None, {"input_ids": np.array([ids]), "position_ids": np.arange(len(ids))[None], **caches}
    )
    return found[0][0]


# -- numbers -------------------------------------------------------------------------------------
@pytest.mark.parametrize("wafer", ["8x8", "16x16"])
@pytest.mark.parametrize("simplify", [False, True])
def test_positions_that_hold_nothing_count_for_nothing(wafer: str, simplify: bool) -> None:
    """The model has no mask of its own."""
    made = compile_model(attention(), wafer=wafer, capacity=CAPACITY, simplify=simplify)
    assert made.graph.outputs == ("mixed",)
    program, guarded = made.program, prepare(made.plan, guard=True)
    for number, (feed, right) in enumerate(attended(CAPACITY)):
        ours = program.run(feed)["mixed"]
        np.testing.assert_allclose(ours, right, atol=1e-5)
        if number < 4:
            assert guarded.run(feed)["mixed"].tobytes() == ours.tobytes()
    assert program.length == program.capacity == CAPACITY


@pytest.mark.thorough
def test_a_long_cache_is_attended_to_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of positions with maxima of their own: also those in which nothing is visible yet."""
    monkeypatch.setattr(blocked_softmax, "LAYERS", 1)
    made = compile_model(attention(), wafer="8x8", capacity=blocked_softmax.SHORT)
    assert any("k.block" in n.op.size for n in made.graph.nodes)
    assert not {"k.block", "k.in"} & set(made.graph.nodes[-1].op.size)  # its result is computed once
    program, guarded = made.program, prepare(made.plan, guard=True)
    # The blocks' maxima are far apart.
    for number, (feed, right) in enumerate(attended(3 * blocked_softmax.BLOCK + 1, scale=20)):
        ours = program.run(feed)["mixed"]
        np.testing.assert_allclose(ours, right, atol=1e-5)
        if number < blocked_softmax.BLOCK + 2:
            assert guarded.run(feed)["mixed"].tobytes() == ours.tobytes()


@pytest.mark.thorough
def test_a_decoder_gives_the_same_logits_token_by_token_and_in_chunks(tokens: Compiled) -> None:
    ids = np.random.default_rng(1).integers(0, TINY.vocabulary, 20).tolist()
    right = golden(ids)
    tokens.reset()
    np.testing.assert_allclose(logits(tokens.program, ids), right, atol=1e-4)
    made = decoder(TINY, random_weights()).SerializeToString()
    chunks = compile_model(made, wafer="16x16", dims={"S": 4}, capacity=CAPACITY)
    np.testing.assert_allclose(logits(chunks.program, ids), right, atol=1e-4)


@pytest.mark.thorough
def test_a_decoder_gives_the_same_bits_in_every_way(tokens: Compiled, tmp_path: Path) -> None:
    ids = [3, 1, 4, 1, 5]
    tokens.reset()
    once = logits(tokens.program, ids, threads=1)
    tokens.reset()
    assert logits(tokens.program, ids, threads=2).tobytes() == once.tobytes()
    assert logits(prepare(tokens.plan, guard=True), ids).tobytes() == once.tobytes()
    tokens.save(tmp_path / "p.wafer")
    assert logits(load(tmp_path / "p.wafer"), ids).tobytes() == once.tobytes()
    assert logits(load(tmp_path / "p.wafer", guard=True), ids).tobytes() == once.tobytes()


@pytest.mark.thorough
def test_only_what_a_cache_holds_is_read(tokens: Compiled) -> None:
    """Calls of products are cut to the positions that are filled, to the same bits as whole ones."""
    program = prepare(tokens.plans)
    calls = program._machine._entries["main"]  # pyright: ignore
    word, whole, *_ = calls._calls.fills.T
    assert len(word) and (calls._words[word] <= whole).all()
    ids = [7, 3, 9]
    first = logits(program, ids)
    assert (calls._words[word] < whole).any()
    program.reset()
    calls._fill = lambda end: None  # every call goes on to the capacity
    calls._words[word] = whole
    assert logits(program, ids).tobytes() == first.tobytes()


WRONG_FILLS: dict[str, Callable[[Array], Array]] = {
    "three columns": lambda f: f[:, :3],
    "a word that is an address": lambda f: f * 0,
    "words outside": lambda f: f + (1 << 40),
    "a longer extent": lambda f: f + np.array([0, 1, 0, 0]),
    "one twice": lambda f: np.concatenate([f, f]),
    "before the first position": lambda f: f - np.array([0, 0, 1 << 20, 0]),
}


@pytest.mark.thorough
@pytest.mark.parametrize("what", WRONG_FILLS)
def test_a_program_that_would_read_past_its_caches_is_refused(
    tokens: Compiled, tmp_path: Path, what: str
) -> None:
    tokens.save(tmp_path / "p.wafer")
    a = read(tmp_path / "p.wafer")
    fills = a.array("main/tables/fills.npy")
    files = {**a.files, "main/tables/fills.npy": npy(WRONG_FILLS[what](fills))}
    manifest = {k: v for k, v in a.manifest.items() if k not in ("format", "sha256")}
    write(tmp_path / "q.wafer", manifest, files)
    with pytest.raises(InvalidArtifact, match=r"fills\.npy"):
        load(tmp_path / "q.wafer")


def test_no_cache_goes_to_the_host(tokens: Compiled) -> None:
    tokens.reset()
    ran = tokens.program.run({"input_ids": np.array([[1]]), "position_ids": np.array([[0]])})
    assert list(ran) == ["logits"]
    assert tokens.program.ports.states


def test_full_caches_take_no_more_and_are_left_as_they_were(tokens: Compiled) -> None:
    tokens.reset()
    ids = np.random.default_rng(2).integers(0, TINY.vocabulary, CAPACITY).tolist()
    first = logits(tokens.program, ids)
    with pytest.raises(InputError, match=rf"hold {CAPACITY} of {CAPACITY} positions, a call adds 1"):
        logits(tokens.program, [1])
    assert tokens.program.length == CAPACITY
    tokens.reset()
    assert tokens.program.length == 0
    assert logits(tokens.program, ids).tobytes() == first.tobytes()


def test_a_refused_input_adds_no_position(tokens: Compiled) -> None:
    tokens.reset()
    with pytest.raises(InputError, match="is missing"):
        tokens.run({"input_ids": np.array([[1]])})
    assert tokens.program.length == 0


# -- what is a cache -----------------------------------------------------------------------------
def test_states_of_other_names_grow_too() -> None:
    nodes = [
        helper.make_node("Concat", ["seen", "x"], ["now"], axis=0),
        helper.make_node("ReduceMax", ["now"], ["most"], axes=[0], keepdims=0),
        helper.make_node("ReduceSum", ["now", "zero"], ["total"], keepdims=0),
    ]
    inputs = {"x": (FLOAT, [2, 4]), "seen": (FLOAT, ["n", 4])}
    outputs = {"most": (FLOAT, [4]), "total": (FLOAT, [4]), "now": (FLOAT, ["m", 4])}
    model = model_of(nodes, inputs, outputs, zero=np.array([0]))
    made = compile_model(model, wafer="8x8", states=[("seen", "now")], capacity=8)
    rows = -np.abs(np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)) - 1
    for i in range(0, 8, 2):
        out = made.run({"x": rows[i : i + 2]})
        np.testing.assert_array_equal(out["most"], rows[: i + 2].max(0))
        np.testing.assert_allclose(out["total"], rows[: i + 2].sum(0), rtol=1e-6)


def test_an_attention_mask_over_all_positions_is_given_in_full() -> None:
    nodes = [
        helper.make_node("Concat", ["past.key", "k"], ["present.key"], axis=1),
        helper.make_node("MatMul", ["present.key", "q"], ["scores"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("ReduceMax", ["masked"], ["most"], axes=[1], keepdims=1),
    ]
    inputs = {
        "q": (FLOAT, [4]),
        "k": (FLOAT, [1, 1, 4]),
        "mask": (FLOAT, [1, "past + 1"]),
        "past.key": (FLOAT, [1, "past", 4]),
    }
    outputs = {"most": (FLOAT, [1, 1]), "present.key": (FLOAT, [1, "total", 4])}
    made = compile_model(model_of(nodes, inputs, outputs), wafer="8x8", capacity=6)
    assert {p.name: p.shape for p in made.program.ports.inputs}["mask"] == (1, 6)
    mask = np.array([[0, -9, 0, 5, 5, 5]], np.float32)
    random = np.random.default_rng(0)
    keys: list[Array] = []
    for i in range(3):
        q, k = (
            random.standard_normal(4).astype(np.float32),
            random.standard_normal((1, 1, 4)).astype(np.float32),
        )
        keys.append(k[0, 0])
        out = made.run({"q": q, "k": k, "mask": mask})["most"]
        np.testing.assert_allclose(
            out, (np.array(keys) @ q + mask[0, : i + 1]).max().reshape(1, 1), rtol=1e-5
        )


def extra(operator: str, read: str) -> dict[str, Any]:
    nodes = [helper.make_node(operator, [read], ["extra"])]
    return {"nodes": nodes, "outputs": {"extra": (FLOAT, [1, 2, "P", 8])}}


def refusals() -> Iterator[tuple[str, bytes, dict[str, Any], type[Exception], str]]:
    plain = attention()
    yield (
        "no caches",
        model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1])}, {"y": (FLOAT, [1])}),
        {},
        UsageError,
        "the model has no caches",
    )
    yield "too small", plain, {"capacity": 1}, UsageError, "a call adds 1 positions; it must hold 2 at least"
    yield "unknown state", plain, {"states": [("past.key", "mixed")]}, UsageError, "does not grow into"
    yield "the old cache", attention(**extra("Relu", "past.key")), {}, UnsupportedModel, "is read besides"
    yield (
        "a part of the cache",
        attention(
            nodes=[helper.make_node("Gather", ["present.key", "two"], ["extra"], axis=2)],
            outputs={"extra": (FLOAT, [1, 2, 8])},
            constants={"two": np.array(0)},
        ),
        {},
        UnsupportedModel,
        "takes a part of a cache's positions",
    )


def test_what_cannot_be_a_cache_is_refused() -> None:
    for name, model, options, error, text in refusals():
        with pytest.raises(error) as found:
            compile_model(model, wafer="8x8", **{"capacity": CAPACITY, **options})
        assert text in str(found.value), name
        assert "\n" not in str(found.value)


# -- TensorScatter ---------------------------------------------------------------------------------
@pytest.mark.parametrize("shape, rows, dim", [((3, 5, 4), 2, 1), ((2, 3, 6, 20), 1, -2), ((2, 7), 3, 1)])
def test_tensor_scatter_is_the_standard_s(shape: tuple[int, ...], rows: int, dim: int) -> None:
    new = (*shape[:dim], rows, *shape[dim:][1:])
    random = np.random.default_rng(0)
    feed: dict[str, Array] = {
        "past": random.standard_normal(shape).astype(np.float32),
        "new": random.standard_normal(new).astype(np.float32),
        "at": random.integers(0, shape[dim] - rows + 1, shape[0]),
    }
    node = helper.make_node("TensorScatter", ["past", "new", "at"], ["y"], axis=dim)
    inputs = {"past": (FLOAT, shape), "new": (FLOAT, new), "at": (INT, shape[:1])}
    made = compile_model(model_of([node], inputs, {"y": (FLOAT, shape)}, 24), wafer="8x8")
    right = np.array(feed["past"])
    for b, first in enumerate(feed["at"].tolist()):
        np.moveaxis(right[b], dim - 1 if dim > 0 else dim, 0)[first : first + rows] = np.moveaxis(
            feed["new"][b], dim - 1 if dim > 0 else dim, 0
        )
    ours = made.run(feed)["y"]
    np.testing.assert_array_equal(ours, right)
    assert prepare(made.plan, guard=True).run(feed)["y"].tobytes() == ours.tobytes()
    with pytest.raises(InvalidIndex, match=f"write index {shape[dim]} is outside"):
        made.run({**feed, "at": np.full(shape[0], shape[dim])})


def test_a_scattered_state_is_changed_where_it_lies() -> None:
    """The standard's other form of a cache: of a fixed length, with the position as an input."""
    nodes = [
        helper.make_node("TensorScatter", ["past", "new", "at"], ["present"], axis=1),
        helper.make_node("ReduceSum", ["present", "one"], ["total"], keepdims=0),
    ]
    inputs = {"past": (FLOAT, [1, 6, 4]), "new": (FLOAT, [1, 1, 4]), "at": (INT, [1])}
    outputs = {"total": (FLOAT, [1, 4]), "present": (FLOAT, [1, 6, 4])}
    model = model_of(nodes, inputs, outputs, 24, one=np.array([1]))
    made = compile_model(model, wafer="8x8", states=[("past", "present")])
    assert made.graph.outputs == ("total",)
    guarded = prepare(made.plan, guard=True)
    right = np.zeros((1, 6, 4), np.float32)
    for i, at in enumerate((0, 3, 5, 3)):
        row = np.full((1, 1, 4), i + 1, np.float32)
        right[:, at : at + 1] = row
        feed = {"new": row, "at": np.array([at])}
        for program in (made.program, guarded):
            np.testing.assert_array_equal(program.run(feed)["total"], right.sum(1))


# -- the judge -------------------------------------------------------------------------------------
def broken(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Plans whose caches are not changed where they lie, or are read too late."""
    present = next(b for b in plan.buffers if b.role == "state" and b.over >= 0)
    past = plan.buffers[present.over]

    def buffers(**changes: Any) -> Plan:
        new = tuple(replace(b, **changes) if b is present else b for b in plan.buffers)
        return replace(plan, buffers=new)

    yield "address is", buffers(address=present.address + 16)
    yield "should be a state", buffers(role="result")
    yield "does not change", buffers(over=-1)
    yield "is used from -1", buffers(live=(0, len(plan.steps)))
    assert past.role == "state"


def test_the_judge_refuses_caches_that_are_not_their_past(tokens: Compiled) -> None:
    judge(tokens.plan)
    for text, plan in broken(tokens.plan):
        with pytest.raises(IllegalPlan) as found:
            judge(plan)
        assert text in str(found.value)
