"""A random ONNX graph in the making: what a step of it may use.

A value is *exact* where every right implementation has the same bits: inputs, integers, and what is only
moved or chosen. Operators that jump (rounding, comparing, sorting, quantising) take exact values only, so
that no result hangs on the last bit of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_node_outputs
from waferc.ir.op import Array

OPSET = 21
Draw = Any  # hypothesis' draw function: the type of what it returns depends on what it is given
F32, F16, F64, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16
I8, I32, I64, U8 = TensorProto.INT8, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8
BOOL = TensorProto.BOOL
FLOATS, SIGNED, WHOLE = (F32, F16, F64, BF16), (I8, I32, I64), (I8, I32, I64, U8)
MOST_ELEMENTS = 2000  # of a value


@dataclass(frozen=True)
class Value:
    name: str
    kind: int
    shape: tuple[int, ...]
    exact: bool = True
    bound: float = 4.0  # of its magnitude, roughly: what keeps chains of products finite

    @property
    def floating(self) -> bool:
        return self.kind in FLOATS


@dataclass
class Growing:
    """A graph in the making."""

    draw: Draw
    random: np.random.Generator
    values: list[Value] = field(default_factory=list[Value])
    inputs: dict[str, Array] = field(default_factory=dict[str, Array])
    constants: dict[str, Array] = field(default_factory=dict[str, Array])
    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def maybe(self) -> bool:
        return bool(self.draw(st.booleans()))

    def numbers(self, kind: int, shape: Sequence[int]) -> Array:
        """Small values; floats an odd multiple of 1/16: never halfway between integers, nor one."""
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        if kind == BOOL:
            return np.asarray(self.random.random(shape) < 0.5)
        if kind in FLOATS:
            return np.asarray((self.random.integers(-24, 24, shape) * 2 + 1) / 16).astype(dtype)
        return np.asarray(self.random.integers(0 if kind == U8 else -5, 6, shape)).astype(dtype)

    def constant(self, value: Array) -> Value:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return Value(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)

    def weight(self, like: Value, *shape: int) -> Value:
        return self.constant(self.numbers(like.kind, shape))

    def whole(self, *values: int) -> Value:
        return self.constant(np.array(values, np.int64))

    def op(
        self,
        kind: str,
        *inputs: Value | None,
        exact: bool = False,
        bound: float = 4.0,
        outputs: int = 1,
        **more: Any,
    ) -> Value:
        """Adds a node; its first result. `exact`: if its inputs are, so is the result."""
        names = [f"v{len(self.nodes)}{'abc'[i]}" for i in range(outputs)]
        node = helper.make_node(
            kind, [x.name if x else "" for x in inputs], names, f"n{len(self.nodes)}", **more
        )
        given = [x for x in inputs if x]
        types = {x.name: helper.make_tensor_type_proto(x.kind, x.shape) for x in given}
        data = {n: numpy_helper.from_array(self.constants[n], n) for n in types if n in self.constants}
        found = infer_node_outputs(
            onnx.defs.get_schema(kind, OPSET),
            node,
            types,
            data,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        self.nodes.append(node)
        made: list[Value] = []
        for name in names:
            tensor = found[name].tensor_type
            shape = tuple(d.dim_value for d in tensor.shape.dim)
            floating = tensor.elem_type in FLOATS
            sure = not floating or (exact and all(x.exact for x in given))
            made.append(Value(name, tensor.elem_type, shape, sure, bound))
        self.values += made
        return made[0]

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        results: Sequence[tuple[int, Sequence[int]]],
        exact: bool,
        bound: float,
        **more: Any,
    ) -> Value:
        """Adds a node whose results' types are known; its first result."""
        names = [f"v{len(self.nodes)}{'abc'[i]}" for i in range(len(results))]
        self.nodes.append(helper.make_node(kind, inputs, names, f"n{len(self.nodes)}", **more))
        made = [Value(n, k, tuple(s), exact, bound) for n, (k, s) in zip(names, results, strict=True)]
        self.values += made
        return made[0]
