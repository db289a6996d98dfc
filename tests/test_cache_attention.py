"""Attentions that hold keys and values of their own, as states of a capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sampled import sampled
from waferc.compiler.frontend.inputs import Binding
from waferc.compiler.importer import import_entries
from waferc.compiler.pipeline import compile_model
from waferc.ir.evaluate import steps
from waferc.ir.op import Array
from waferc.runtime.reports import InvalidIndex

CAPACITY, WORDS, WIDE, SIZE = 16, 24, 32, 16
FLOAT, INT, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
IDS = np.random.default_rng(5).integers(0, WORDS, CAPACITY)
CHUNKS = (5, *[1] * 6, 5)

node = helper.make_node


def weights(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Layer:
    """What attends. nodes: from `embedded` [1, S, WIDE] to `mixed` [1, S, width]. heads: of keys. one: keys
    and values in one tensor."""

    nodes: Sequence[NodeProto]
    heads: int = 2
    one: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, tuple[int, Sequence[int | str]]] = field(default_factory=dict[str, Any])
    opset: int = 17
    width: int = 4 * SIZE

    @property
    def caches(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of empty ones; dimension -2 grows."""
        if self.one:
            return {"past_0": (2, 1, self.heads, 0, SIZE)}
        return {f"past_key_values.0.{k}": (1, self.heads, 0, SIZE) for k in ("key", "value")}

    def presents(self) -> list[str]:
        return [p.replace("past_key_values", "present").replace("past_", "present_") for p in self.caches]


LENGTHS = [
    node("ReduceSum", ["attention_mask", "at_one"], ["sums"], keepdims=0),
    node("Sub", ["sums", "one"], ["lasts"]),
    node("Cast", ["lasts"], ["seqlens"], to=INT32),
    node("Shape", ["attention_mask"], ["mask_shape"]),
    node("Gather", ["mask_shape", "one"], ["total_64"]),
    node("Cast", ["total_64"], ["total"], to=INT32),
    node("Cast", ["attention_mask"], ["mask_32"], to=INT32),
    # a causal mask in floats, as builders hand it to attentions with biases
    node("Shape", ["input_ids"], ["ids_shape"]),
    node("Gather", ["ids_shape", "one"], ["new"]),
    node("Sub", ["total_64", "new"], ["before"]),
    node("Range", ["before", "total_64", "one"], ["rows_1"]),
    node("Unsqueeze", ["rows_1", "at_one"], ["rows"]),
    node("Range", ["zero", "total_64", "one"], ["columns"]),
    node("LessOrEqual", ["columns", "rows"], ["seen"]),
    node("Where", ["seen", "none", "lowest"], ["bias_2"]),
    node("Unsqueeze", ["bias_2", "at_zero_one"], ["bias"]),
]


def projected(name: str, heads: int) -> tuple[NodeProto, Array]:
    made = node("MatMul", ["embedded", f"w_{name}"], [name])
    return made, weights(len(name) + ord(name[0]), WIDE, heads * SIZE) / 4


def of_three(last: NodeProto, heads: int = 4, shared: int = 2, **more: Any) -> Layer:
    """Queries, keys and values apart."""
    made = {name: projected(name, n) for name, n in (("q", heads), ("k", shared), ("v", shared))}
    constants = {f"w_{n}": w for n, (_, w) in made.items()}
    given = more.pop("constants", {})
    return Layer([*(m for m, _ in made.values()), last], shared, constants={**constants, **given}, **more)


PAST = ["past_key_values.0.key", "past_key_values.0.value"]
PRESENT = ["mixed", "present.0.key", "present.0.value"]
ANGLES = np.arange(CAPACITY)[:, None] / 10.0 ** (np.arange(SIZE // 2) / 4)
TABLES = {"cos": np.cos(ANGLES).astype(np.float32), "sin": np.sin(ANGLES).astype(np.float32)}


def grouped(*rest: str, **own: Any) -> Layer:
    """rest: inputs from position_ids on."""
    turned = ["cos", "sin"] if own.get("do_rotary") else ["", ""]
    inputs = ["q", "k", "v", *PAST, "seqlens", "total", *turned, *rest]
    last = node(
        "GroupQueryAttention",
        inputs,
        PRESENT,
        "it",
        domain="com.microsoft",
        num_heads=4,
        kv_num_heads=2,
        **own,
    )
    ends = {"position_ids": (INT, [1, "S"])} if "position_ids" in rest else {}
    held = {"sink": weights(3, 4)}
    return of_three(last, constants={**TABLES, **held}, inputs=ends)


def packed() -> Layer:
    made, w = projected("q", 8)
    inputs = ["q", "", "", *PAST, "seqlens", "total", "cos", "sin"]
    own = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1}
    last = node("GroupQueryAttention", inputs, PRESENT, "it", domain="com.microsoft", **own)
    return Layer([made, last], constants={**TABLES, "w_q": w})


def multi(*rest: str, **own: Any) -> Layer:
    """rest: inputs from bias to attention_bias."""
    inputs = ["q", "k", "v", *rest, *[""] * (3 - len(rest)), *PAST]
    last = node("MultiHeadAttention", inputs, PRESENT, "it", domain="com.microsoft", num_heads=2, **own)
    return of_three(last, 2, width=2 * SIZE, constants={"biases": weights(8, 6 * SIZE)})


def joined(mask: str = "", bias: str = "", **own: Any) -> Layer:
    inputs = ["embedded", "w_q", "biases", mask, "past_0", bias]
    while not inputs[-1]:
        inputs.pop()
    last = node("Attention", inputs, ["mixed", "present_0"], "it", domain="com.microsoft", num_heads=2, **own)
    constants = {"w_q": projected("q", 6)[1], "biases": weights(8, 6 * SIZE)}
    return Layer([last], one=True, constants=constants, width=2 * SIZE)


def standard(mask: str = "", opset: int = 23, **own: Any) -> Layer:
    last = node(
        "Attention", ["q", "k", "v", mask, *PAST], PRESENT, "it", q_num_heads=4, kv_num_heads=2, **own
    )
    return of_three(last, opset=opset)


LAYERS: Mapping[str, Layer] = {
    "grouped": grouped(),
    "grouped, rotated": grouped(do_rotary=1),
    "grouped, turned in pairs": grouped(do_rotary=1, rotary_interleaved=1),
    "grouped, at given positions": grouped("position_ids", do_rotary=1),
    "grouped, window of 3": grouped(do_rotary=1, local_window_size=3),
    "grouped, window of the capacity": grouped(local_window_size=CAPACITY),
    "grouped, wider window": grouped(local_window_size=100),
    "grouped, capped": grouped(softcap=1.5, scale=0.5),
    "grouped, smooth": grouped(smooth_softmax=1),
    "grouped, sinks and a window": grouped("", "", "sink", do_rotary=1, local_window_size=4),
    "grouped, biased": grouped("", "bias"),
    "grouped, packed": packed(),
    "heads, masked": multi("biases", "", "bias"),
    "heads, padded": multi("", "mask_32", "bias"),
    "heads, causal": multi(unidirectional=1),
    "joined, causal": joined(unidirectional=1),
    "joined, masked": joined("mask_32", unidirectional=1),
    "standard, causal": standard(is_causal=1),
    "standard, masked": standard("bias", softcap=1.5),
    "standard, of bools": standard("seen"),
    "standard 24, causal": standard(opset=24, is_causal=1),
}


def model_of(layer: Layer) -> bytes:
    nodes = [
        node("Gather", ["words", "input_ids"], ["embedded"]),
        *LENGTHS,
        *layer.nodes,
        node("MatMul", ["mixed", "w_out"], ["logits"]),
    ]
    constants: dict[str, Any] = {
        "words": weights(0, WORDS, WIDE), "at_one": np.array([1]), "one": np.array(1), "zero": np.array(0),
        "at_zero_one": np.array([0, 1]), "none": np.float32(0), "lowest": np.float32(-3e38),
        **layer.constants,
    }  # fmt: skip
    constants["w_out"] = weights(1, layer.width, WORDS) / 4
    used = {i for n in nodes for i in n.input}
    needed: list[NodeProto] = []
    wanted = {"logits", *layer.presents()}
    for n in reversed(nodes):
        if wanted & set(n.output):
            needed.insert(0, n)
            wanted |= set(n.input)

    def ends(named: Mapping[str, Any]) -> list[Any]:
        return [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in named.items()]

    def grown(shape: Sequence[int], symbol: str) -> tuple[int, list[int | str]]:
        return FLOAT, [*shape[:-2], symbol, shape[-1]]

    given = {
        "input_ids": (INT, [1, "S"]),
        "attention_mask": (INT, [1, "total_length"]),
        **layer.inputs,
        **{n: grown(s, "past_length") for n, s in layer.caches.items()},
    }
    given = {n: v for n, v in given.items() if n in wanted}
    made = {n: grown(s, "total_length") for n, s in zip(layer.presents(), layer.caches.values(), strict=True)}
    graph = helper.make_graph(
        needed, "m", ends(given), ends({"logits": (FLOAT, [1, "S", WORDS]), **made}),
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items() if n in wanted & used],
    )  # fmt: skip
    imports = [helper.make_opsetid("", layer.opset), helper.make_opsetid("com.microsoft", 1)]
    version = 11 if layer.opset > 21 else 8
    return helper.make_model(graph, opset_imports=imports, ir_version=version).SerializeToString()


def fed(names: set[str], at: int, new: int, total: int) -> dict[str, Array]:
    given = {
        "input_ids": IDS[None, at : at + new],
        "attention_mask": (np.arange(total)[None] < at + new).astype(np.int64),
        "position_ids": np.arange(at, at + new)[None],
    }
    return {n: v for n, v in given.items() if n in names}


def peer(layer: Layer, chunks: Sequence[int]) -> list[Array]:
    """onnxruntime's logits after each call, with growing caches."""
    session = onnxruntime.InferenceSession(model_of(layer), providers=["CPUExecutionProvider"])
    names = {i.name for i in session.get_inputs()}
    caches = {n: np.zeros(s, np.float32) for n, s in layer.caches.items()}
    out: list[Array] = []
    at = 0
    for n in chunks:
        found: Any = session.run(["logits", *layer.presents()], {**fed(names, at, n, at + n), **caches})
        caches = dict(zip(caches, found[1:], strict=True))
        out.append(found[0])
        at += n
    return out


def wide(names: Mapping[str, Any], at: int, new: int) -> dict[str, Array]:
    return fed({*names} & {"input_ids", "attention_mask", "position_ids"}, at, new, CAPACITY)


def meant(layer: Layer, chunks: Sequence[int]) -> list[Array]:
    """What the graphs of all sizes of chunks mean, one after the other."""
    entries = {f"{n}": Binding({"S": n}) for n in sorted(set(chunks))}
    graphs = import_entries(model_of(layer), entries, capacity=CAPACITY, host=False).graphs
    caches = {n: np.zeros((*s[:-2], CAPACITY, s[-1]), np.float32) for n, s in layer.caches.items()}
    out: list[Array] = []
    at = 0
    for n in chunks:
        graph = graphs[f"{n}"]
        assert graph.outputs == ("logits",)
        length = {graph.length.input: np.asarray(at)} if graph.length else {}
        found = dict(steps(graph, {**wide(graph.tensors, at, n), **caches, **length}))
        caches = {past: found[present] for past, present in graph.states}
        out.append(found["logits"])
        at += n
    return out


def alike(found: Sequence[Array], wanted: Sequence[Array]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("chunks", [CHUNKS, (1,) * CAPACITY], ids=["chunks", "tokens"])
def test_states_of_attentions_give_onnxruntimes_logits(kind: str, chunks: Sequence[int]) -> None:
    alike(meant(LAYERS[kind], chunks), peer(LAYERS[kind], chunks))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["grouped, sinks and a window"])
def test_they_run_as_programs(kind: str) -> None:
    layer, chunks = LAYERS[kind], (4, 1, 1, 4)
    entries = {f"{n}": {"S": n} for n in sorted(set(chunks))}
    program = compile_model(model_of(layer), wafer="4x4", capacity=CAPACITY, entries=entries).program
    at, found = 0, list[Array]()
    for n in chunks:
        names = {p.name: p for p in program.entries[f"{n}"].inputs}
        found.append(program.run(wide(names, at, n), entry=f"{n}")["logits"])
        at += n
    alike(found, peer(layer, chunks))


@pytest.mark.thorough
@pytest.mark.parametrize("guard", sampled([False, True], 2))
def test_a_padded_text_ends_in_an_error(guard: bool) -> None:
    """seqlens_k, which follows from the mask, says less than there are positions: on the left, too, where
    onnxruntime itself takes the last ones for others."""
    layer = LAYERS["grouped, rotated"]
    made = compile_model(model_of(layer), wafer="4x4", capacity=CAPACITY, entries={"4": {"S": 4}})
    program = made.prepared(guard=guard)
    given = wide({p.name: p for p in program.entries["4"].inputs}, 0, 4)
    whole = program.run(given)["logits"]
    program.reset()
    for at in (0, 3):
        padded = given["attention_mask"].copy()
        padded[0, at] = 0
        said = r"node 'it': seqlens_k less the last position \(padding.*\) is -1 \(allowed: 0\)"
        with pytest.raises(InvalidIndex, match=said):
            program.run({**given, "attention_mask": padded})
        program.reset()
    assert (program.run(given)["logits"] == whole).all()
