"""A decoder of `decoder.py` as a mixture of experts: feed-forward layers in parts that a router chooses from.

    python examples/smollm2/upcycle.py build/smollm2.onnx build/smollm2-moe.onnx --experts 8 --chosen 8

Each layer is cut in equal parts, the experts. The results of those chosen for a token are added as they are.
With all of them chosen the layer is the one that it was whatever the router says, but for the order of sums.
With fewer it is a model of those sizes whose text is worth nothing: the router is random.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def upcycled(model: onnx.ModelProto, experts: int, chosen: int, seed: int = 0) -> onnx.ModelProto:
    """The model with `experts` parts of each feed-forward layer, `chosen` of them for each token."""
    random = np.random.default_rng(seed)
    given = {t.name: t for t in model.graph.initializer}
    out = onnx.ModelProto()
    out.CopyFrom(model)
    constants: dict[str, TensorProto] = {}

    def constant(name: str, value: NDArray[Any]) -> str:
        constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def parts(name: str, axis: int) -> str:
        """[experts, in, out] of a weight that is cut along one axis."""
        value = numpy_helper.to_array(given.pop(name))
        return constant(f"{name}.experts", np.stack(np.split(value, experts, axis)))

    count, inner = constant("chosen", np.array([chosen])), constant("inner", np.array([2, 3]))
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        name, _, what = node.name.rpartition(".")
        if not name.endswith(".feed") or what not in ("gate", "up", "down"):
            nodes.append(node)
            continue
        if what == "gate":
            x = node.input[0]
            width = given[f"{name}.gate.weight"].dims[0]
            router = constant(
                f"{name}.router.weight", random.standard_normal((width, experts)).astype(np.float32)
            )
            nodes += [
                helper.make_node("MatMul", [x, router], [f"{name}.router"], f"{name}.router"),
                helper.make_node(
                    "TopK", [f"{name}.router", count], [f"{name}.scores", f"{name}.chosen"], f"{name}.chosen"
                ),
                helper.make_node("Unsqueeze", [x, inner], [f"{name}.rows"], f"{name}.rows"),
            ]
        weights = parts(f"{name}.{what}.weight", 0 if what == "down" else 1)
        looked_up = f"{name}.{what}.chosen"
        nodes.append(helper.make_node("Gather", [weights, f"{name}.chosen"], [looked_up], looked_up))
        rows, made = (node.input[0], f"{name}.each") if what == "down" else (f"{name}.rows", node.output[0])
        nodes.append(helper.make_node("MatMul", [rows, looked_up], [made], node.name))
        if what == "down":
            nodes.append(
                helper.make_node("ReduceSum", [made, inner], list(node.output), f"{name}.added", keepdims=0)
            )
    del out.graph.node[:], out.graph.initializer[:]
    out.graph.node.extend(nodes)
    out.graph.initializer.extend([*given.values(), *constants.values()])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--chosen", type=int, default=8)
    given = parser.parse_args()
    onnx.save(upcycled(onnx.load(given.model), given.experts, given.chosen), given.output)


if __name__ == "__main__":
    main()
