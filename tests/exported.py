"""Folders of tiny language models as exporters write them: decoders, a merged one, an encoder with one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from language import CHAT, byte_tokenizer
from onnx import NodeProto, TensorProto, helper
from test_cache_length import HEADS, SIZE, WIDE, WORDS, compared, node
from test_cache_length import decoder as one_layer
from test_caches import FLOAT, INT, model_of
from waferc.ir.op import Array

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))

from decoder import Shape, decoder, random_weights

SHAPE = Shape(1, 16, 32, 2, 1, 8, vocabulary=262, positions=64)
CONTEXT, BANDS, FRAMES = 32, 4, 8
ROOM, PAD = 12, 2  # of a source: positions that an encoder knows, and the token that is none
CONFIG = {"model_type": "llama", "max_position_embeddings": CONTEXT, "eos_token_id": [2, 5]}
MARKS = {"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|im_end|>", "chat_template": CHAT}


def tiny_decoder() -> bytes:
    return decoder(SHAPE, random_weights(5)).SerializeToString()


def write_folder(folder: Path, models: Mapping[str, bytes], config: Mapping[str, Any] = CONFIG) -> Path:
    """A folder with a tokenizer, a chat template in its configuration, and these models."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in models.items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(byte_tokenizer())
    (folder / "tokenizer_config.json").write_text(json.dumps(MARKS), encoding="utf-8")
    return folder


def merged() -> bytes:
    """`one_layer`, as transformers.js has it: without caches the other branch, which is another model."""
    model = onnx.load_from_string(one_layer(compared))
    graph = model.graph
    ends = [*graph.output]
    outputs = [o.name for o in ends]
    branches: dict[str, Any] = {}
    without = [
        node("Gather", ["words", "input_ids"], ["alone"]),
        node("MatMul", ["alone", "w_out"], ["logits.0"]),
        *(node("Identity", [f"past_key_values.{e}"], [f"present.{e}.0"]) for e in ("0.key", "0.value")),
    ]
    inside = {"else_branch": (without, 0), "then_branch": (renamed(graph.node, outputs), 1)}
    for name, (nodes, number) in inside.items():
        results = [helper.make_tensor_value_info(f"{o}.{number}", FLOAT, None) for o in outputs]
        branches[name] = helper.make_graph(nodes, name, [], results)
        for i, o in enumerate(results):
            branches[name].output[i].CopyFrom(o)
    del graph.node[:]
    graph.node.append(node("If", ["use_cache_branch"], outputs, name="first?", **branches))
    graph.input.append(helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]))
    return model.SerializeToString()


def renamed(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes with other names for these values."""
    made: list[NodeProto] = []
    for n in nodes:
        copied = NodeProto()
        copied.CopyFrom(n)
        for names in (copied.input, copied.output):
            for i, name in enumerate(names):
                if name in outputs:
                    names[i] = f"inner.{name}"
        made.append(copied)
    for o in outputs:
        made.append(node("Identity", [f"inner.{o}"], [f"{o}.1"]))
    return made


# -- an encoder and its decoder ---------------------------------------------------------------------------


def values(seed: int, *shape: int) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) / 2).astype(np.float32)


def heads_of(name: str, source: str, weight: str) -> list[NodeProto]:
    return [
        node("MatMul", [source, weight], [f"{name}.flat"]),
        node("Reshape", [f"{name}.flat", "by_heads"], [f"{name}.rows"]),
        node("Transpose", [f"{name}.rows"], [name], perm=[0, 2, 1, 3]),
    ]


def encoder(heard: bool) -> bytes:
    """Of tokens that see their sum, or of the frames of a sound."""
    if heard:
        nodes = [
            node("Transpose", ["input_features"], ["frames"], perm=[0, 2, 1]),
            node("MatMul", ["frames", "w_frames"], ["last_hidden_state"]),
        ]
        return model_of(
            nodes,
            {"input_features": (FLOAT, ["batch_size", "feature_size", "encoder_sequence_length"])},
            {"last_hidden_state": (FLOAT, ["batch_size", "encoder_sequence_length", WIDE])},
            w_frames=values(11, BANDS, WIDE),
        )
    nodes = [
        node("Gather", ["words", "input_ids"], ["word"]),
        # as M2M100 counts: what is no padding stands at 1 and so on
        node("Equal", ["input_ids", "padding"], ["none"]),
        node("Not", ["none"], ["some"]),
        node("Cast", ["some"], ["one_each"], to=INT),
        node("CumSum", ["one_each", "along"], ["counted"]),
        node("Mul", ["counted", "one_each"], ["at"]),
        node("Gather", ["places", "at"], ["place"]),
        node("Add", ["word", "place"], ["embedded"]),
        node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        node("Unsqueeze", ["mask", "last"], ["columns"]),
        node("Mul", ["embedded", "columns"], ["seen"]),
        node("ReduceSum", ["seen", "one"], ["sum"], keepdims=1),
        node("Add", ["embedded", "sum"], ["last_hidden_state"]),
    ]
    shape: Any = ["batch_size", "encoder_sequence_length"]
    return model_of(
        nodes,
        {"input_ids": (INT, shape), "attention_mask": (INT, shape)},
        {"last_hidden_state": (FLOAT, [*shape, WIDE])},
        words=values(12, WORDS, WIDE),
        places=values(18, ROOM + 1, WIDE),
        padding=np.array(PAD),
        along=np.array(1),
        last=np.array([-1]),
        one=np.array([1]),
    )


CROSS = ("0.encoder.key", "0.encoder.value")


def decoder_alone() -> bytes:
    """The decoder's first call, of which keys and values of the encoder's states are of use."""
    nodes = [
        node("Gather", ["words", "input_ids"], ["embedded"]),
        node("MatMul", ["embedded", "w_out"], ["logits"]),
        *heads_of("present.0.encoder.key", "encoder_hidden_states", "w_key"),
        *heads_of("present.0.encoder.value", "encoder_hidden_states", "w_value"),
    ]
    source: Any = ["batch_size", "encoder_sequence_length"]
    kept: Any = (FLOAT, ["batch_size", HEADS, "encoder_sequence_length", SIZE])
    outputs: Any = {"logits": (FLOAT, ["batch_size", "decoder_sequence_length", WORDS])}
    return model_of(
        nodes,
        {
            "input_ids": (INT, ["batch_size", "decoder_sequence_length"]),
            "encoder_hidden_states": (FLOAT, [*source, WIDE]),
        },
        outputs | {f"present.{e}": kept for e in CROSS},
        words=values(13, WORDS, WIDE),
        w_out=values(14, WIDE, WORDS),
        w_key=values(15, WIDE, WIDE),
        w_value=values(16, WIDE, WIDE),
        by_heads=np.array([0, 0, HEADS, SIZE]),
    )


def decoder_behind(masked: bool) -> bytes:
    """`one_layer` with attention to the encoder's keys and values. masked: some of them may be none."""
    model = onnx.load_from_string(one_layer(compared))
    graph = model.graph
    graph.node[-1].input[0] = "crossed"
    scores = [
        node("Transpose", ["past_key_values.0.encoder.key"], ["cross.turned"], perm=[0, 1, 3, 2]),
        node("MatMul", ["cross", "cross.turned"], ["cross.scores"]),
    ]
    chosen = "cross.scores"
    if masked:
        scores += [
            node("Cast", ["encoder_attention_mask"], ["cross.mask"], to=TensorProto.BOOL),
            node("Unsqueeze", ["cross.mask", "cross.axes"], ["cross.seen"]),
            node("Where", ["cross.seen", "cross.scores", "lowest"], ["cross.masked"]),
        ]
        chosen = "cross.masked"
    extra = [
        *heads_of("cross", "after", "w_cross"),
        *scores,
        node("Softmax", [chosen], ["cross.shares"], axis=-1),
        node("MatMul", ["cross.shares", "past_key_values.0.encoder.value"], ["cross.mixed"]),
        node("Transpose", ["cross.mixed"], ["cross.in_line"], perm=[0, 2, 1, 3]),
        node("Reshape", ["cross.in_line", "flat"], ["cross.joined"]),
        node("Add", ["cross.joined", "after"], ["crossed"]),
    ]
    nodes = [*graph.node]
    del graph.node[:]
    graph.node.extend([*nodes[:-1], *extra, nodes[-1]])
    constants = {"w_cross": values(17, WIDE, WIDE), "cross.axes": np.array([1, 2])}
    graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in constants.items())
    kept = [1, HEADS, "encoder_sequence_length", SIZE]
    graph.input.extend(helper.make_tensor_value_info(f"past_key_values.{e}", FLOAT, kept) for e in CROSS)
    if masked:
        shape = [1, "encoder_sequence_length"]
        graph.input.append(helper.make_tensor_value_info("encoder_attention_mask", INT, shape))
    return model.SerializeToString()


def pair(heard: bool) -> dict[str, bytes]:
    """The three models by their files' names."""
    return {
        "encoder_model.onnx": encoder(heard),
        "decoder_model.onnx": decoder_alone(),
        "decoder_with_past_model.onnx": decoder_behind(masked=not heard),
    }


def genai_pair() -> dict[str, bytes]:
    """As onnxruntime-genai's builder writes one: the encoder makes keys and values itself."""
    model, alone = (onnx.load_from_string(m) for m in (encoder(False), decoder_alone()))
    graph = model.graph
    kept = {f"present.{e}" for e in CROSS}
    behind = [n for n in alone.graph.node if "logits" not in n.output and "embedded" not in n.output]
    for n in behind:
        n.input[:] = ["last_hidden_state" if i == "encoder_hidden_states" else i for i in n.input]
    graph.node.extend(behind)
    graph.output.extend(o for o in alone.graph.output if o.name in kept)
    known = {i for n in behind for i in n.input}
    graph.initializer.extend(t for t in alone.graph.initializer if t.name in known)
    return {"encoder.onnx": model.SerializeToString(), "decoder.onnx": decoder_behind(masked=True)}


# -- what onnxruntime makes of them -------------------------------------------------------------------------


def session(model: bytes | Path) -> Any:
    runtime: Any = onnxruntime
    return runtime.InferenceSession(str(model) if isinstance(model, Path) else model)


def called(run: Any, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs; of `feed` what the model has as an input is given."""
    known = {i.name for i in run.get_inputs()}
    given = {name: value for name, value in feed.items() if name in known}
    return dict(zip([o.name for o in run.get_outputs()], run.run(None, given), strict=True))


def step_by_step(model: bytes | Path, ids: Sequence[int], more: Mapping[str, Array] | None = None) -> Array:
    """Logits after each token, given one by one. more: other inputs of each call."""
    run = session(model)
    shapes = {
        i.name: i.shape for i in run.get_inputs() if i.name.startswith("past") and i.name not in (more or {})
    }
    caches = {
        name: np.zeros(
            [1 if d == 0 else n if isinstance(n, int) else 0 for d, n in enumerate(shape)], np.float32
        )
        for name, shape in shapes.items()
    }
    out: list[Array] = []
    for at, token in enumerate(ids):
        given = {
            "input_ids": np.array([[token]]),
            "attention_mask": np.ones((1, at + 1), np.int64),
            "position_ids": np.array([[at]]),
        }
        found = called(run, {**given, **caches, **(more or {})})
        caches = {name: found["present" + name.removeprefix("past_key_values")] for name in caches}
        out.append(found["logits"][0, -1])
    return np.array(out)


def step_by_step_behind(folder: Path, source: Mapping[str, Array], ids: Sequence[int]) -> Array:
    """The same for an encoder and its decoder."""
    hidden = called(session(folder / "encoder_model.onnx"), source)["last_hidden_state"]
    mask = source.get("attention_mask", np.ones(hidden.shape[:2], np.int64))
    given = {
        "encoder_hidden_states": hidden,
        "encoder_attention_mask": mask,
        "input_ids": np.array([[ids[0]]]),
    }
    first = called(session(folder / "decoder_model.onnx"), given)
    cross = {f"past_key_values.{n.removeprefix('present.')}": v for n, v in first.items() if ".encoder." in n}
    return step_by_step(
        folder / "decoder_with_past_model.onnx", ids, {**cross, "encoder_attention_mask": mask}
    )
