"""Elementwise circular and hyperbolic functions, and what a rotation by tables of them asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import math
from ..builder import Arithmetic, Value
from ..graph import InvalidModel
from ..op import Array
from ..rules import PREPARED, GraphBuilder, Spec
from .elementwise import Elementwise


class Sin(Elementwise):
    onnx = "Sin"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.sin(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.sin(x[0])


class Cos(Elementwise):
    onnx = "Cos"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.cos(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.cos(x[0])


class Tan(Elementwise):
    onnx = "Tan"
    since = 7

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.tan(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.tan(x[0])


class Asin(Elementwise):
    onnx = "Asin"
    since = 7

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.asin(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.arcsin(x[0])


class Acos(Elementwise):
    onnx = "Acos"
    since = 7

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.acos(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.arccos(x[0])


class Atan(Elementwise):
    onnx = "Atan"
    since = 7

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.atan(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.arctan(x[0])


class Sinh(Elementwise):
    onnx = "Sinh"
    since = 9

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.sinh(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.sinh(x[0])


class Cosh(Elementwise):
    onnx = "Cosh"
    since = 9

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.cosh(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.cosh(x[0])


class Asinh(Elementwise):
    onnx = "Asinh"
    since = 9

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.asinh(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.arcsinh(x[0])


class Acosh(Elementwise):
    onnx = "Acosh"
    since = 9

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.acosh(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.arccosh(x[0])


class Atanh(Elementwise):
    onnx = "Atanh"
    since = 9

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.atanh(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.arctanh(x[0])


def _tables_judged(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The inputs of a RotaryEmbedding, tables as wide as half of what turns: its body would repeat one."""
    x, heads = g.shape(spec.inputs[0]), spec.attribute("num_heads", 0)
    size = x[-1] // heads if len(x) == 3 and heads else x[-1]
    half = (spec.attribute("rotary_embedding_dim", 0) or size) // 2
    for name in spec.inputs[1:3]:
        if not g.shape(name) or g.shape(name)[-1] != half:
            raise InvalidModel(f"RotaryEmbedding by {g.tensors[name]}, which should have {half} columns")
    return list(spec.inputs)


PREPARED["RotaryEmbedding"] = _tables_judged
