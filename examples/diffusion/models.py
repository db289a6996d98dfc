"""The example's models as ONNX: the decoder of `examples/smollm2`, its weights in f16, and a tokenizer."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from letters import LETTERS
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "smollm2"))

from decoder import Shape, decoder

WINDOW = 128
SHAPE = Shape(
    layers=4,
    width=192,
    hidden=512,
    heads=6,
    kv_heads=6,
    head=32,
    vocabulary=len(LETTERS) + 1,
    theta=1000.0,
    positions=2 * WINDOW,
)


def write(path: Path, weights: dict[str, NDArray[np.float32]], causal: bool) -> None:
    """Writes the model, and beside it `tokenizer.json`."""

    def weight(name: str, shape: tuple[int, ...]) -> TensorProto:
        assert weights[name].shape == shape, name
        return numpy_helper.from_array(np.ascontiguousarray(weights[name], np.float32), name)

    model = decoder(replace(SHAPE, causal=causal), weight, "twin" if causal else "diffusion")
    narrow(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    path.with_name("tokenizer.json").write_text(json.dumps(tokenizer(), indent=1), encoding="utf-8")


def narrow(model: onnx.ModelProto) -> None:
    """Stores what was learnt in f16: half the bytes. Casts give it to the graph, which computes in f32."""
    graph = model.graph
    casts = list[onnx.NodeProto]()
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name.endswith(("weight", "gain", "embedding")):
            values = numpy_helper.to_array(tensor).astype(np.float16)
            stored = f"{tensor.name}.f16"
            casts.append(helper.make_node("Cast", [stored], [tensor.name], f"{tensor.name}.cast", to=1))
            tensor.CopyFrom(numpy_helper.from_array(values, stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def tokenizer() -> dict[str, object]:
    """Hugging Face's form of a tokenizer with a token for each letter, and the mask."""
    names = {letter: i for i, letter in enumerate(LETTERS)}
    mask = {"id": len(LETTERS), "content": "[MASK]", "special": True, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [mask | {"single_word": False, "lstrip": False, "rstrip": False}],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "."},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": names | {"[MASK]": len(LETTERS)}, "unk_token": " "},
    }
