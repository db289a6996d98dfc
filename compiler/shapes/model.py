"""ONNX models written node by node, with seeded random weights or with none.

Weights are scaled so that values stay near 1: a product's by 1 / sqrt(its depth).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
Array = NDArray[Any]


class Model:
    """An ONNX model in the making: nodes by name of their operator, weights from one seed.

    shapes_only: weights are external data in a file that does not exist. part: what weights are counted as;
    `counted` has their number by part.
    """

    def __init__(self, name: str, shapes_only: bool = False) -> None:
        self.name, self._shapes_only = name, shapes_only
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, Array] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self.part = ""
        self.counted: Counter[str] = Counter()

    def input(self, name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        """Makes `value` the output `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, value: Any, kind: type = np.float32) -> str:
        name = f"c{len(self._weights) + len(self._shapes)}"
        self._weights[name] = np.asarray(value, kind)
        return name

    def weight(self, *shape: int, scale: float) -> str:
        """Normal values times `scale`, which are counted."""
        self.counted[self.part] += prod(shape)
        if self._shapes_only:
            return self._shape(shape)
        return self.constant(self._random.standard_normal(shape, np.float32) * np.float32(scale))

    def near(self, value: float, *shape: int) -> str:
        """A vector's values about `value`, which are counted: what normalisations scale by."""
        self.counted[self.part] += prod(shape)
        return self.values(value + 0.1 * np.sin(np.arange(prod(shape))).reshape(shape))

    def values(self, value: Array) -> str:
        """These f32 values, or only their shape: no weights."""
        return self._shape(value.shape) if self._shapes_only else self.constant(value)

    def _shape(self, shape: tuple[int, ...]) -> str:
        name = f"c{len(self._weights) + len(self._shapes)}"
        self._shapes[name] = shape
        return name

    def __getattr__(self, operator: str) -> Callable[..., str]:
        """`model.MatMul(a, b)` adds a node; numbers and lists become constants of their own."""
        if operator.startswith("_"):
            raise AttributeError(operator)

        return lambda *operands, **attributes: self._add(operator, 1, operands, attributes)[0]

    def two(
        self, operator: str, *operands: str | float | Sequence[int], **attributes: Any
    ) -> tuple[str, str]:
        """A node with two results."""
        first, second = self._add(operator, 2, operands, attributes)
        return first, second

    def _add(
        self, operator: str, count: int, operands: Sequence[str | float | Sequence[int]], attributes: Any
    ) -> list[str]:
        at = f"v{len(self._nodes)}"
        out = [at, *(f"{at}.{i}" for i in range(1, count))]
        names = [
            o
            if isinstance(o, str)
            else self.constant(o)
            if isinstance(o, float)
            else self.constant(o, np.int64)
            for o in operands
        ]
        self._nodes.append(helper.make_node(operator, names, out, **attributes))
        return out

    def proto(self) -> onnx.ModelProto:
        weights = [numpy_helper.from_array(v, n) for n, v in self._weights.items()]
        weights += [_elsewhere(n, shape) for n, shape in self._shapes.items()]
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _elsewhere(name: str, shape: Sequence[int]) -> TensorProto:
    """An f32 tensor whose values would be in a file next to the model."""
    out = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    out.data_location = TensorProto.EXTERNAL
    out.external_data.add(key="location", value="weights.bin")
    return out
