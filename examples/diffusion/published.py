"""What a pass over a block costs published diffusion models: cycles on a wafer, seconds on GPUs.

    .venv/bin/python examples/diffusion/published.py examples/diffusion/published.json

LLaDA-8B and Dream-7B (which is Qwen2.5-7B; its biases are left out) as graphs of
`examples/smollm2/decoder.py` without weights, in which a pass's tokens see one another. Two plans for each
number of tokens: of one layer between a tiny table and product, and of the table and the product for all
tokens. An estimate is as many of the first as there are layers, and one of the second; what lies between
layers is in none of them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from models import Shape, decoder
from onnx import TensorProto, helper
from waferc.compiler.errors import WafercError
from waferc.compiler.islands.island import engine, island
from waferc.compiler.islands.price import Asked, price
from waferc.compiler.islands.work import work
from waferc.compiler.pipeline import compile_model

CAPACITY = 1024
TOKENS = (1, 8, 32)
HEAD = {"head": 128, "positions": 2 * CAPACITY, "causal": False}
SHAPES = {
    "LLaDA-8B": Shape(32, 4096, 12288, 32, 32, vocabulary=126464, **HEAD),
    "Dream-7B": Shape(28, 3584, 18944, 28, 4, vocabulary=152064, **HEAD),
}
GPUS = ("A100", "H100", "B200")
ENGINE = "SGLang"
TINY = 128


def elsewhere(name: str, shape: tuple[int, ...]) -> TensorProto:
    """A weight of which only the shape is known."""
    out = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
    out.data_location = TensorProto.EXTERNAL
    out.external_data.add(key="location", value="weights")
    return out


def around(shape: Shape) -> onnx.ModelProto:
    """The table of embeddings, the last norm and the product, for all tokens."""
    weights = [elsewhere("table", (shape.vocabulary, shape.width))]
    weights += [elsewhere("head", (shape.width, shape.vocabulary)), elsewhere("gain", (shape.width,))]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], "rows"),
        helper.make_node("RMSNormalization", ["rows", "gain"], ["normed"], "normed", epsilon=1e-6),
        helper.make_node("MatMul", ["normed", "head"], ["logits"], "logits"),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "S"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "S", shape.vocabulary])
    graph = helper.make_graph(nodes, "around", [ids], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def planned(proto: onnx.ModelProto, tokens: int, capacity: int | None) -> Any:
    return compile_model(
        proto.SerializeToString(),
        wafer="wse3",
        weights="f16",
        no_weights=True,
        dims={"S": tokens},
        capacity=capacity,
        until="plan",
    )


def main() -> None:
    out: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        one = out[name] = {"layers": shape.layers, "layer": {}, "around": {}, "seconds": {}, "reasons": {}}
        layer = decoder(replace(shape, layers=1, vocabulary=TINY), elsewhere)
        for tokens in TOKENS:
            try:
                inside, outside = planned(layer, tokens, CAPACITY), planned(around(shape), tokens, None)
            except WafercError as e:
                one["reasons"][tokens] = str(e)
                print(name, tokens, e, flush=True)
                continue
            one["layer"][tokens], one["around"][tokens] = inside.figures.cycles, outside.figures.cycles
            one["clock_hz"] = inside.wafer.clock_hz
            parts = [*work(inside.graph, "layer", shape.layers), *work(outside.graph, "around", 1)]
            for gpu in GPUS:
                found = price(parts, island(gpu), engine(ENGINE), Asked()).seconds
                one["seconds"].setdefault(gpu, {})[tokens] = found
            print(name, tokens, one["layer"][tokens], one["around"][tokens], flush=True)
            Path(sys.argv[1]).write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
