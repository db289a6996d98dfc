"""Decoders that take positions and masks from the length of their caches, as exporters write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper
from sampled import sampled
from test_caches import FLOAT, INT, model_of
from waferc.compiler.compiled import Compiled
from waferc.compiler.errors import UnsupportedModel, UnsupportedOperator, WafercError
from waferc.compiler.frontend.inputs import Binding
from waferc.compiler.importer import import_entries, import_model
from waferc.compiler.pipeline import compile_model
from waferc.ir import dtypes
from waferc.ir.evaluate import evaluate, steps
from waferc.ir.op import Array
from waferc.ir.ops import running
from waferc.ir.ops.conversion import Cast, Where
from waferc.ir.ops.elementwise import Add, Div, Elementwise, Max, Min, Mul, Neg, Sub, apply
from waferc.ir.ops.logic import Equal, Greater, GreaterOrEqual, Less, LessOrEqual
from waferc.ir.rules import GraphBuilder

HEADS, SIZE, WORDS, TABLE = 2, 8, 24, 40
WIDE = HEADS * SIZE
INT32 = TensorProto.INT32
EXPORTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "exports"  # beside the project, if at all

node = helper.make_node
Build = Callable[[], tuple[Sequence[NodeProto], Mapping[str, Array]]]


# -- a layer of attention, and what each kind of decoder makes of the length -----------------------
def lengths() -> list[NodeProto]:
    """past, new and total, as exporters get them: from shapes. positions [S], slots [total]."""
    return [
        node("Shape", ["past_key_values.0.key"], ["cache_shape"]),
        node("Gather", ["cache_shape", "two"], ["past"]),
        node("Shape", ["input_ids"], ["ids_shape"]),
        node("Gather", ["ids_shape", "one"], ["new"]),
        node("Add", ["past", "new"], ["total"]),
        node("Range", ["past", "total", "one"], ["positions"]),
        node("Range", ["zero", "total", "one"], ["slots"]),
        node("Unsqueeze", ["positions", "at_one"], ["rows"]),
        node("Unsqueeze", ["slots", "at_zero"], ["columns"]),
        node("Unsqueeze", ["new", "at_zero"], ["new_1"]),
        node("Unsqueeze", ["past", "at_zero"], ["past_1"]),
        node("Unsqueeze", ["total", "at_zero"], ["total_1"]),
    ]


def causal(seen: str = "seen") -> list[NodeProto]:
    return [node("LessOrEqual", ["columns", "rows"], [seen])]


def masked(seen: str = "seen") -> list[NodeProto]:
    return [node("Where", [seen, "scores", "lowest"], ["masked"])]


def compared() -> tuple[list[NodeProto], dict[str, Array]]:
    """Llama's: the mask is expanded to a shape of the length."""
    nodes = [
        *causal(),
        node("Concat", ["at_one_value", "at_one_value", "new_1", "total_1"], ["mask_shape"], axis=0),
        node("Equal", ["mask_shape", "minus_one"], ["open"]),
        node("Where", ["open", "ones_4", "mask_shape"], ["expanded_shape"]),
        node("Expand", ["seen", "expanded_shape"], ["expanded"]),
        *masked("expanded"),
    ]
    return nodes, {"minus_one": np.array(-1), "ones_4": np.ones(4, np.int64)}


def windowed(window: int) -> Build:
    def build() -> tuple[list[NodeProto], dict[str, Array]]:
        nodes = [
            *causal("before"),
            node("Sub", ["rows", "window"], ["start"]),
            node("Greater", ["columns", "start"], ["near"]),
            node("And", ["before", "near"], ["seen"]),
            *masked(),
        ]
        return nodes, {"window": np.array(window)}

    return build


def chunked() -> tuple[list[NodeProto], dict[str, Array]]:
    """Only positions of the same chunk of 4."""
    nodes = [
        *causal("before"),
        node("Div", ["rows", "four"], ["chunk"]),
        node("Div", ["columns", "four"], ["of_chunk"]),
        node("Equal", ["chunk", "of_chunk"], ["same"]),
        node("And", ["before", "same"], ["seen"]),
        *masked(),
    ]
    return nodes, {"four": np.array(4)}


def by_trilu() -> tuple[list[NodeProto], dict[str, Array]]:
    """Falcon's: a float mask, of which the upper part is multiplied by where it is seen."""
    nodes = [
        node("Concat", ["new_1", "total_1"], ["mask_shape"], axis=0),
        node("ConstantOfShape", ["mask_shape"], ["lows"], value=helper.make_tensor("v", FLOAT, [1], [-3e38])),
        node("Trilu", ["lows", "one"], ["upper"], upper=1),
        node("Greater", ["columns", "rows"], ["unseen"]),
        node("Cast", ["unseen"], ["unseen_f"], to=FLOAT),
        node("Mul", ["lows", "unseen_f"], ["bias"]),
        node("Add", ["scores", "bias"], ["masked"]),
    ]
    return nodes, {}


def rotated() -> tuple[list[NodeProto], dict[str, Array]]:
    """Gemma's: cos and sin of positions that no input gives."""
    nodes = [
        *causal(),
        node("Cast", ["rows"], ["rows_f"], to=FLOAT),
        node("MatMul", ["rows_f", "frequencies"], ["angles"]),
        node("Cos", ["angles"], ["cos"]),
        node("Sin", ["angles"], ["sin"]),
        node("Mul", ["embedded", "cos"], ["turned"]),
        node("Add", ["turned", "sin"], ["placed"]),
        *masked(),
    ]
    return nodes, {"frequencies": np.linspace(0.1, 1, WIDE, dtype=np.float32)[None]}


def from_table() -> tuple[list[NodeProto], dict[str, Array]]:
    """BART's: rows of a table, two further on."""
    nodes = [
        *causal(),
        node("Add", ["positions", "two"], ["rows_of_table"]),
        node("Gather", ["table", "rows_of_table"], ["place"]),
        node("Add", ["embedded", "place"], ["placed"]),
        *masked(),
    ]
    return nodes, {"table": weights(7, TABLE, WIDE)}


def from_square(rows: int) -> Build:
    """GPT-Neo's: rows past to total, columns 0 to total, of a square of bools."""

    def build() -> tuple[list[NodeProto], dict[str, Array]]:
        nodes = [
            node("Slice", ["square", "past_1", "total_1", "at_zero"], ["some_rows"]),
            node("Slice", ["some_rows", "at_zero", "total_1", "at_one"], ["seen"]),
            *masked(),
        ]
        return nodes, {"square": np.tri(rows, dtype=np.bool_)}

    return build


def from_end() -> tuple[list[NodeProto], dict[str, Array]]:
    """T5's: the last rows, as many as there are new tokens, of what is made for all pairs of positions."""
    nodes = [
        node("Unsqueeze", ["slots", "at_one"], ["all_rows"]),
        node("Sub", ["columns", "all_rows"], ["behind"]),
        node("Add", ["behind", "middle"], ["bucket"]),
        node("Gather", ["table", "bucket"], ["all_biases"]),
        node("Neg", ["new_1"], ["last"]),
        node("Slice", ["all_biases", "last", "end", "at_zero"], ["bias"]),
        node("Add", ["scores", "bias"], ["biased"]),
        *causal(),
        node("Where", ["seen", "biased", "lowest"], ["masked"]),
    ]
    return nodes, {"table": weights(9, 2 * TABLE), "middle": np.array(TABLE), "end": np.array([2**62])}


def in_32_bits() -> tuple[list[NodeProto], dict[str, Array]]:
    """Sizes that are multiplied, divided, limited and cast on their way."""
    nodes = [
        node("Cast", ["total"], ["total_32"], to=INT32),
        node("Cast", ["past"], ["past_32"], to=INT32),
        node("Mul", ["total_32", "six"], ["sixfold"]),
        node("Div", ["sixfold", "three"], ["double"]),
        node("Sub", ["double", "total_32"], ["total_again"]),
        node("Min", ["total_again", "many"], ["limited"]),
        node("Max", ["past_32", "none"], ["from"]),
        node("Range", ["from", "limited", "one_32"], ["rows_32"]),
        node("Unsqueeze", ["rows_32", "at_one"], ["rows_32_1"]),
        node("Size", ["past_key_values.0.value"], ["elements"]),
        node("Div", ["elements", "per_position"], ["past_again"]),
        node("Add", ["past_again", "new"], ["count"]),
        node("Range", ["zero", "count", "one"], ["columns_64"]),
        node("Cast", ["columns_64"], ["columns_32"], to=INT32),
        node("GreaterOrEqual", ["rows_32_1", "columns_32"], ["seen"]),
        *masked(),
    ]
    numbers = {"six": 6, "three": 3, "many": 1000, "none": -1, "one_32": 1}
    own = {name: np.array(value, np.int32) for name, value in numbers.items()}
    return nodes, {**own, "per_position": np.array(WIDE)}


def by_distance() -> tuple[list[NodeProto], dict[str, Array]]:
    """ALiBi's biases: of the distance from the last position, and of each query's."""
    nodes = [
        *causal(),
        node("Sub", ["one", "total"], ["farthest"]),
        node("Range", ["farthest", "one", "one"], ["behind"]),
        node("Cast", ["behind"], ["behind_f"], to=FLOAT),
        node("Mul", ["behind_f", "steepness"], ["bias"]),
        node("Sub", ["columns", "rows"], ["distances"]),
        node("Abs", ["distances"], ["apart"]),
        node("Cast", ["apart"], ["apart_f"], to=FLOAT),
        node("Mul", ["apart_f", "steepness"], ["more"]),
        node("Add", ["bias", "more"], ["both"]),
        node("Where", ["seen", "scores", "lowest"], ["hidden"]),
        node("Add", ["hidden", "both"], ["masked"]),
    ]
    return nodes, {"steepness": np.array(0.05, np.float32)}


def summed(reverse: int = 1) -> tuple[list[NodeProto], dict[str, Array]]:
    """Of all positions a number each, which those that hold nothing have as well."""
    nodes = [
        *causal(),
        node("Sub", ["columns", "rows"], ["distances"]),
        node("Cast", ["distances"], ["distances_f"], to=FLOAT),
        node("Exp", ["distances_f"], ["shrunk"]),
        node("ReduceSum", ["shrunk", "at_one"], ["all"]),
        node("CumSum", ["shrunk", "one"], ["some"], reverse=reverse),
        node("Sub", ["all", "some"], ["sums"]),
        node("ReduceMax", ["distances_f"], ["farthest"], axes=[1]),
        node("Add", ["sums", "farthest"], ["bias"]),
        node("Add", ["scores", "bias"], ["more"]),
        node("Where", ["seen", "more", "lowest"], ["masked"]),
    ]
    return nodes, {}


def sunk() -> tuple[list[NodeProto], dict[str, Array]]:
    """gpt-oss's: a score of no key stands behind all others, and its share is cut off."""
    nodes = [
        *causal(),
        node("Where", ["seen", "scores", "lowest"], ["hidden"]),
        node("Concat", ["at_one_value", "heads", "new_1", "at_one_value"], ["sink_shape"], axis=0),
        node("Expand", ["sink", "sink_shape"], ["sinks"]),
        node("Concat", ["hidden", "sinks"], ["with_sinks"], axis=-1),
        node("Softmax", ["with_sinks"], ["all_shares"], axis=-1),
        node("Slice", ["all_shares", "at_zero", "minus_one", "at_three"], ["masked"]),
    ]
    own = {"heads": HEADS, "minus_one": -1, "at_three": 3}
    return nodes, {"sink": weights(6, 1, HEADS, 1, 1), **{n: np.array([v]) for n, v in own.items()}}


def weights(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def decoder(build: Build) -> bytes:
    """A layer with caches and no position_ids. What `build` makes stands between scores and masked, or
    between embedded and placed."""
    nodes, constants = build()
    made = {o for n in nodes for o in n.output}
    placed = "placed" if "placed" in made else "embedded"
    late, rest = {"scores"}, list[NodeProto]()
    for n in nodes:
        if "masked" in n.output or not late.isdisjoint(n.input):
            late |= {*n.output}
            rest.append(n)
    first = [n for n in nodes if n not in rest]
    attention: list[NodeProto] = []
    for name in ("q", "k", "v"):
        attention += [
            node("MatMul", [placed, f"w_{name}"], [f"{name}_flat"]),
            node("Reshape", [f"{name}_flat", "by_heads"], [f"{name}_heads"]),
            node("Transpose", [f"{name}_heads"], [name], perm=[0, 2, 1, 3]),
        ]
    graph = [
        node("Gather", ["words", "input_ids"], ["embedded"]),
        *lengths(),
        *first,
        *attention,
        node("Concat", ["past_key_values.0.key", "k"], ["present.0.key"], axis=2),
        node("Concat", ["past_key_values.0.value", "v"], ["present.0.value"], axis=2),
        node("Transpose", ["present.0.key"], ["k_turned"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "k_turned"], ["products"]),
        node("Mul", ["products", "scale"], ["scores"]),
        *rest,
        node("Softmax", ["masked"], ["shares"], axis=-1),
        node("MatMul", ["shares", "present.0.value"], ["mixed"]),
        node("Transpose", ["mixed"], ["mixed_rows"], perm=[0, 2, 1, 3]),
        node("Reshape", ["mixed_rows", "flat"], ["joined"]),
        node("Add", ["joined", placed], ["after"]),
        node("MatMul", ["after", "w_out"], ["logits"]),
    ]
    cache = (FLOAT, [1, HEADS, "past_length", SIZE])
    kept = (FLOAT, [1, HEADS, "past_length + S", SIZE])
    ends = ("0.key", "0.value")
    return model_of(
        graph,
        {"input_ids": (INT, [1, "S"]), **{f"past_key_values.{e}": cache for e in ends}},
        {"logits": (FLOAT, [1, "S", WORDS]), **{f"present.{e}": kept for e in ends}},
        words=weights(0, WORDS, WIDE),
        w_out=weights(1, WIDE, WORDS) / 4,
        scale=np.array(0.35, np.float32),
        lowest=np.array(-3e38, np.float32),
        by_heads=np.array([0, 0, HEADS, SIZE]),
        flat=np.array([0, 0, WIDE]),
        at_zero=np.array([0]),
        at_one=np.array([1]),
        at_one_value=np.array([1]),
        zero=np.array(0),
        one=np.array(1),
        two=np.array(2),
        **{f"w_{n}": weights(i, WIDE, WIDE) / 4 for i, n in enumerate("qkv", 2)},
        **constants,
    )


KINDS: Mapping[str, Build] = {
    "a mask by comparing": compared,
    "a window of 3": windowed(3),
    "a window of the capacity": windowed(16),
    "a window that is wider": windowed(100),
    "chunks": chunked,
    "a float mask": by_trilu,
    "cos and sin": rotated,
    "a table": from_table,
    "distances": by_distance,
    "sizes of 32 bits": in_32_bits,
    "rows of a square": from_square(TABLE),
    "the last rows": from_end,
    "a sum": summed,
    "a sink": sunk,
}
IDS = np.random.default_rng(5).integers(0, WORDS, 16)


def peer(model: bytes, chunks: Sequence[int]) -> list[Array]:
    """onnxruntime's logits after each call, with growing caches."""
    session = onnxruntime.InferenceSession(model)
    caches = {f"past_key_values.0.{k}": np.zeros((1, HEADS, 0, SIZE), np.float32) for k in ("key", "value")}
    out: list[Array] = []
    at = 0
    for n in chunks:
        found: Any = session.run(None, {"input_ids": IDS[None, at : at + n], **caches})
        logits, key, value = found
        caches = {"past_key_values.0.key": key, "past_key_values.0.value": value}
        out.append(logits)
        at += n
    return out


def ours(made: Compiled, chunks: Sequence[int]) -> list[Array]:
    out: list[Array] = []
    at = 0
    for n in chunks:
        out.append(made.program.run({"input_ids": IDS[None, at : at + n]}, entry=f"s{n}")["logits"])
        at += n
    return out


def alike(found: Sequence[Array], wanted: Sequence[Array]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()


CHUNKS = (5, *[1] * 6, 5)


def entries_of(chunks: Sequence[int]) -> dict[str, dict[str, int]]:
    return {f"s{n}": {"S": n} for n in sorted(set(chunks))}


def by_reference(model: bytes, chunks: Sequence[int], **given: Array) -> list[Array]:
    """Logits after each call, of the graphs that are planned."""
    bound = {name: Binding(dims) for name, dims in entries_of(chunks).items()}
    graphs = import_entries(model, bound, capacity=16, host=False).graphs
    kept = {past: np.zeros((1, HEADS, 16, SIZE), np.float32) for past, _ in graphs[f"s{chunks[0]}"].states}
    out: list[Array] = []
    at = 0
    for n in chunks:
        graph = graphs[f"s{n}"]
        values = dict(
            steps(graph, {"input_ids": IDS[None, at : at + n], "length": np.array(at), **kept, **given})
        )
        kept = {past: values[present] for past, present in graph.states}
        out.append(values["logits"])
        at += n
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [CHUNKS, (1,) * 16], ids=["chunks", "tokens"])
def test_positions_and_masks_are_the_run_s(kind: str, chunks: Sequence[int]) -> None:
    """Capacity 16 is the width of a row as well."""
    model = decoder(KINDS[kind])
    alike(by_reference(model, chunks), peer(model, chunks))


@pytest.mark.parametrize("kind", sampled(["a window of 3", "distances"], 2))
def test_a_program_counts_its_positions(kind: str) -> None:
    model = decoder(KINDS[kind])
    made = compile_model(model, wafer="4x4", capacity=16, entries=entries_of(CHUNKS))
    alike(ours(made, CHUNKS), peer(model, CHUNKS))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("capacity, new", [(16, 5), (8, 1), (2, 1), (3, 2), (24, 3)])
def test_full_caches_give_the_bits_of_a_plain_model(kind: str, capacity: int, new: int) -> None:
    model, past = decoder(KINDS[kind]), capacity - new
    imported = import_entries(model, {"": Binding({"S": new})}, capacity=capacity, host=False)
    plain = import_model(model, {"S": new, "past_length": past})
    held = {
        f"past_key_values.0.{k}": weights(i, 1, HEADS, past, SIZE) for i, k in enumerate(("key", "value"))
    }
    rest = np.full((1, HEADS, new, SIZE), 7.5, np.float32)  # what no call has written
    ids = {"input_ids": IDS[None, :new]}
    full = {name: np.concatenate([value, rest], 2) for name, value in held.items()}
    found = evaluate(imported.graphs[""], {**ids, **full, "length": np.array(past)})["logits"]
    np.testing.assert_array_equal(found, evaluate(plain, {**ids, **held})["logits"])


def operators(build: Build, new: int) -> list[str]:
    """Of the graph at capacity 16, but for what masks and writes the caches."""
    made = import_entries(decoder(build), {"": Binding({"S": new})}, capacity=16, host=False)
    return sorted(n.op.name for n in made.graphs[""].nodes if n.op.name not in ("Less", "TensorScatter"))


def test_what_is_alike_at_every_length_is_decided() -> None:
    """A window that is wider than the caches is none, and a shape is not one with an open dimension."""
    wide = operators(windowed(100), 5)
    assert "Greater" not in wide and "Equal" not in operators(compared, 5)
    assert wide.count("LessOrEqual") == operators(windowed(3), 5).count("LessOrEqual") == 1
    assert operators(windowed(3), 5).count("Greater") == 1


INTEGERS: Sequence[type[Elementwise]] = (Add, Sub, Mul, Div, Neg, Min, Max)
DECIDED: Sequence[type[Elementwise]] = (Equal, Less, LessOrEqual, Greater, GreaterOrEqual)


@pytest.mark.parametrize("kind", [*INTEGERS, *DECIDED, Where, Cast], ids=lambda k: k.__name__)
def test_what_an_op_says_of_even_steps_holds_at_each(kind: type[Elementwise]) -> None:
    random, steps, said = np.random.default_rng(0), 6, 0
    for _ in range(300):
        g = GraphBuilder()
        count = kind.arity
        types = [dtypes.BOOL if kind is Where and j == 0 else dtypes.I64 for j in range(count)]
        names = [g.tensor("x", (2,), t) for t in types]
        own = (
            {"out_type": random.choice(np.array([dtypes.I32, dtypes.U8, dtypes.BOOL]))}
            if kind is Cast
            else {}
        )
        apply(g, kind, names, "y", **own)
        op = g.nodes[-1].op
        starts = [random.integers(-4, 5, 2) for _ in types]
        moves = [random.integers(-1, 2, 2) * int(random.integers(0, 2)) for _ in types]

        def at(n: int, starts: Any = starts, moves: Any = moves, types: Any = types) -> list[Array]:
            return [
                np.asarray(a > 0) if t == dtypes.BOOL else a + n * m
                for a, m, t in zip(starts, moves, types, strict=True)
            ]

        if op.steps_evenly(at(0), at(steps), steps):
            said += 1
            found = [op.reference(*at(n)).astype(np.int64) for n in range(steps + 1)]
            assert len({tuple(b - a) for a, b in pairwise(found)}) == 1
    assert said >= 20


# -- what is refused -----------------------------------------------------------------------------------
def fixed_branch() -> tuple[list[NodeProto], dict[str, Array]]:
    def branch(name: str) -> Any:
        out = helper.make_tensor_value_info(f"{name}.out", FLOAT, None)
        return helper.make_graph([node(name, ["scores"], [f"{name}.out"])], name, [], [out])

    nodes = [
        node("Greater", ["past", "zero"], ["started"]),
        node(
            "If", ["started"], ["masked"], name="first?", then_branch=branch("Neg"), else_branch=branch("Abs")
        ),
    ]
    return nodes, {}


def rows_one_behind_the_other() -> tuple[list[NodeProto], dict[str, Array]]:
    nodes = [
        *causal(),
        node("Cast", ["seen"], ["seen_f"], to=FLOAT),
        node("Reshape", ["seen_f", "minus_one"], ["in_line"]),
        node("Range", ["zero", "new", "one"], ["new_rows"]),
        node("Unsqueeze", ["new_rows", "at_one"], ["new_rows_1"]),
        node("Mul", ["new_rows_1", "total"], ["starts"]),
        node("Add", ["starts", "columns"], ["places"]),
        node("Gather", ["in_line", "places"], ["bias"], name="in line"),
        node("Add", ["scores", "bias"], ["masked"]),
    ]
    return nodes, {"minus_one": np.array([-1])}


def ordered() -> tuple[list[NodeProto], dict[str, Array]]:
    """The largest of what all positions have."""
    nodes = [
        node("Sub", ["columns", "rows"], ["distances"]),
        node("Cast", ["distances"], ["distances_f"], to=FLOAT),
        node("TopK", ["distances_f", "at_one"], ["largest", "places"], name="all of them"),
        node("Add", ["scores", "largest"], ["masked"]),
    ]
    return nodes, {}


def averaged() -> tuple[list[NodeProto], dict[str, Array]]:
    """The divisor is a size that no Shape gave."""
    nodes = [
        node("ReduceMean", ["scores"], ["average"], axes=[3], name="mean of all"),
        node("Sub", ["scores", "average"], ["less"]),
        *causal(),
        node("Where", ["seen", "less", "lowest"], ["masked"]),
    ]
    return nodes, {}


def short_table() -> tuple[list[NodeProto], dict[str, Array]]:
    nodes, constants = from_table()
    return nodes, {**constants, "table": weights(7, 12, WIDE)}


def other_count() -> tuple[list[NodeProto], dict[str, Array]]:
    nodes = [
        *causal(),
        node("Range", ["zero", "past", "one"], ["old"], name="old ones"),
        node("Cast", ["old"], ["old_f"], to=FLOAT),
        node("ReduceMax", ["old_f"], ["oldest"], keepdims=0),
        node("Add", ["scores", "oldest"], ["more"]),
        node("Where", ["seen", "more", "lowest"], ["masked"]),
    ]
    return nodes, {}


REFUSED: Mapping[str, tuple[Build, str, str]] = {
    "a branch": (fixed_branch, "first?", "the condition changes with the number of positions"),
    "rows in a line": (rows_one_behind_the_other, "in line", "which elements it takes"),
    "the largest": (ordered, "all of them", "also those that hold nothing yet"),
    "a mean": (averaged, "mean of all", "the size of something that grows with the caches"),
    "a short table": (short_table, "Gather", "outside axis 0 of 12 elements"),
    "another count": (other_count, "old ones", "Range's number of elements changes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named_with_its_reason(kind: str) -> None:
    build, where, reason = REFUSED[kind]
    with pytest.raises(WafercError) as found:
        import_entries(decoder(build), {"": Binding({"S": 3})}, capacity=16, host=False)
    assert where in str(found.value) and reason in str(found.value)
    assert "\n" not in str(found.value)
    assert isinstance(found.value, UnsupportedModel | UnsupportedOperator)


def test_a_table_may_be_as_long_as_the_caches_reach() -> None:
    """Rows 2 to 13 of 14."""
    nodes, constants = from_table()
    model = decoder(lambda: (nodes, {**constants, "table": weights(7, 14, WIDE)}))
    import_entries(model, {"": Binding({"S": 3})}, capacity=12, host=False)
    with pytest.raises(UnsupportedOperator, match="try a --capacity below 13"):
        import_entries(model, {"": Binding({"S": 3})}, capacity=13, host=False)


@pytest.mark.thorough
def test_a_model_may_have_a_length_of_its_own() -> None:
    """As the name of an output."""
    model = onnx.load_from_string(decoder(compared))
    model.graph.node.append(node("Add", ["logits", "logits"], ["length"]))
    model.graph.output.append(helper.make_tensor_value_info("length", FLOAT, [1, "S", WORDS]))
    model.graph.node.append(node("Identity", ["total"], ["so_far"]))
    model.graph.output.append(helper.make_tensor_value_info("so_far", INT, []))
    made = compile_model(model.SerializeToString(), wafer="4x4", capacity=16, dims={"S": 2})
    for at in (0, 2, 4):
        out = made.run({"input_ids": IDS[None, at : at + 2]})
        np.testing.assert_array_equal(out["length"], 2 * out["logits"])
        assert out["so_far"] == at + 2


def test_a_mask_may_come_before_the_tokens() -> None:
    """How many positions it has in the first, short builds is known from the tokens."""
    model = onnx.load_from_string(decoder(compared))
    mask = helper.make_tensor_value_info("attention_mask", INT, [1, "past_length + S"])
    rest = [*model.graph.input]
    del model.graph.input[:]
    model.graph.input.extend([mask, *rest])
    seen = next(n for n in model.graph.node if n.output[0] == "seen")
    seen.output[0] = "before"
    cast = node("Cast", ["attention_mask"], ["given"], to=TensorProto.BOOL)
    both = node("And", ["before", "given"], ["seen"])
    at = [*model.graph.node].index(seen) + 1
    nodes = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], cast, both, *nodes[at:]])
    found = by_reference(model.SerializeToString(), (4, 4, 4), attention_mask=np.ones((1, 16), np.int64))
    alike(found, peer(decoder(compared), (4, 4, 4)))


# -- models as exporters wrote them ------------------------------------------------------------------
OPTIMUM = [f"optimum-{name}" for name in ("llama", "phi3", "qwen3", "gpt2", "gemma3", "falcon")]


@pytest.mark.parametrize("reverse", [0, 1])
def test_a_running_sum_of_more_than_a_row(reverse: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut into parts, of which the last one is full at the capacity and at no other length."""
    monkeypatch.setattr(running, "LONG_ROW", 4)
    model = decoder(lambda: summed(reverse))
    alike(by_reference(model, CHUNKS), peer(model, CHUNKS))


def test_a_table_may_end_at_the_capacity() -> None:
    """A slice up to its end is one, though of full caches it takes all; of longer ones there is none."""
    model = decoder(from_square(16))
    alike(by_reference(model, CHUNKS), peer(model, CHUNKS))
    with pytest.raises(UnsupportedOperator, match="Slice's number of elements changes"):
        import_entries(model, {"": Binding({"S": 1})}, capacity=17, host=False)


@pytest.mark.models
@pytest.mark.parametrize("name", [*OPTIMUM, "genai-gemma3-int4", "nbits-qwen3"])
def test_exports_give_onnxruntime_s_logits(name: str) -> None:
    """Ten tokens together and 14 alone. Qwen3's and Gemma's norms share a weight between 4 heads and 2."""
    folder = EXPORTS / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    golden = np.load(folder / "golden.npz")
    entries = {f"s{n}": {"batch_size": 1, "sequence_length": n} for n in (1, 10)}
    made = compile_model(folder / "model.onnx", wafer="16x16", capacity=64, entries=entries)
    ids, at = golden["ids"], 0
    for i, n in enumerate((10, *[1] * 14)):
        given = {
            "input_ids": ids[None, at : at + n],
            "position_ids": np.arange(at, at + n)[None],
            "attention_mask": np.ones((1, 64), np.int64),
        }
        needed = {p.name for p in made.program.entries[f"s{n}"].inputs}
        out = made.program.run({k: v for k, v in given.items() if k in needed}, entry=f"s{n}")
        wanted = golden["logits"][i]
        assert np.abs(out["logits"][0, -1] - wanted).max() <= 1e-4 * np.abs(golden["logits"]).max()
        at += n
