"""Tables of one-node models: random inputs, and what is asked of each against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from single import by_kernels, close, golden, model
from waferc.compiler.importer import import_model
from waferc.compiler.passes.simplify import simplify
from waferc.ir.evaluate import evaluate
from waferc.ir.op import Array

random = np.random.default_rng(7)


def normal(*shape: int) -> Array:
    return random.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    return np.abs(normal(*shape)) + np.float32(0.1)


def whole(*shape: int, dtype: str = "int32", low: int = -9, high: int = 9) -> Array:
    return random.integers(low, high, shape).astype(dtype)


def flags(*shape: int) -> Array:
    return random.integers(0, 2, shape).astype(np.bool_)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


SPECIAL = np.array([0.0, -0.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 3.0e38, 1e-40], np.float32)


@dataclass(frozen=True)
class Case:
    """One ONNX node. constants: which inputs are initialisers."""

    op_type: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Sequence[int] = ()
    opset: int = 21
    outputs: int = 1
    domain: str = ""

    def __str__(self) -> str:
        shapes = "_".join("x".join(map(str, x.shape)) if x is not None else "-" for x in self.inputs)
        own = ",".join(f"{k}={v}" for k, v in self.attributes.items() if not isinstance(v, onnx.TensorProto))
        return f"{self.op_type}-{self.opset}-{shapes}-{own}".replace(" ", "")

    def proto(self) -> onnx.ModelProto:
        ends = self.inputs, self.constants, self.opset, self.outputs, self.domain
        return model(self.op_type, *ends, **dict(self.attributes))

    def fed(self) -> dict[str, Array]:
        return {f"x{i}": x for i, x in enumerate(self.inputs) if x is not None and i not in self.constants}


def case(op_type: str, *inputs: Array | None, **more: Any) -> Case:
    own = {k: more.pop(k) for k in ("constants", "opset", "outputs", "domain") if k in more}
    return Case(op_type, [x if x is None else np.asarray(x) for x in inputs], more, **own)


def same_as_onnxruntime(one: Case, scale: float = 2e-6) -> None:
    """Meaning, meaning after the passes, and kernels agree with onnxruntime."""
    proto = one.proto()
    theirs = golden(proto, one.fed())
    graph = import_model(proto)
    for g in (graph, simplify(graph)):
        for run in (evaluate, by_kernels):
            ours = run(g, one.fed())
            assert list(ours) == list(theirs)
            for name, value in theirs.items():
                close(ours[name], np.asarray(value), scale)


def computed(one: Case) -> list[Array]:
    """The outputs by the kernels, which must be what the meaning says."""
    graph = import_model(one.proto())
    meant, made = evaluate(graph, one.fed()), by_kernels(graph, one.fed())
    for name, value in meant.items():
        close(made[name], value)
    return list(made.values())
