"""Elementwise comparisons, logic and tests of bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..builder import Arithmetic, Compare, Value
from ..dtypes import BOOL, DType
from ..op import Array, signs
from .elementwise import Elementwise


class Comparison(Elementwise):
    """Two operands of one type to a bool."""

    arity = 2
    exact = once = True
    kind: ClassVar[Compare]
    ufunc: ClassVar[np.ufunc]

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        """Where it holds, or does not, all the way."""
        if self.kind in ("eq", "ne"):
            return np.array_equal(signs(*first), signs(*last))
        return np.array_equal(self.numpy(*first), self.numpy(*last))

    @classmethod
    def result_type(cls, *x: DType) -> DType:
        return BOOL

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.compare(self.kind, x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return self.ufunc(x[0], x[1])


class Equal(Comparison):
    onnx, kind, ufunc = "Equal", "eq", np.equal


class Greater(Comparison):
    onnx, kind, ufunc = "Greater", "gt", np.greater


class GreaterOrEqual(Comparison):
    onnx, kind, ufunc, since = "GreaterOrEqual", "ge", np.greater_equal, 12


class Less(Comparison):
    onnx, kind, ufunc = "Less", "lt", np.less


class LessOrEqual(Comparison):
    onnx, kind, ufunc, since = "LessOrEqual", "le", np.less_equal, 12


class And(Elementwise):
    onnx = "And"
    exact = True
    arity = 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.bit_and(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return x[0] & x[1]


class Or(Elementwise):
    onnx = "Or"
    exact = True
    arity = 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.bit_or(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return x[0] | x[1]


class Xor(Elementwise):
    onnx = "Xor"
    exact = True
    arity = 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.bit_xor(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return x[0] ^ x[1]


class Not(Elementwise):
    onnx = "Not"
    exact = True
    since = 1

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.bit_not(x[0])

    def numpy(self, *x: Array) -> Array:
        return ~x[0]


class BitwiseAnd(And):
    onnx = "BitwiseAnd"
    since = 18


class BitwiseOr(Or):
    onnx = "BitwiseOr"
    since = 18


class BitwiseXor(Xor):
    onnx = "BitwiseXor"
    since = 18


class BitwiseNot(Not):
    onnx = "BitwiseNot"
    since = 18


class IsNaN(Elementwise):
    onnx = "IsNaN"
    exact = once = True
    since = 9

    @classmethod
    def result_type(cls, *x: DType) -> DType:
        return BOOL

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.compare("ne", x[0], x[0])

    def numpy(self, *x: Array) -> Array:
        return np.isnan(x[0])


@dataclass(frozen=True, kw_only=True)
class IsInf(Elementwise):
    onnx = "IsInf"
    exact = once = True
    since = 10
    detect_negative: int = 1
    detect_positive: int = 1

    @classmethod
    def result_type(cls, *x: DType) -> DType:
        return BOOL

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        kind = self.in_types[0]
        up = b.compare("eq", x[0], b.const(float("inf"), kind))
        down = b.compare("eq", x[0], b.const(float("-inf"), kind))
        if self.detect_negative and self.detect_positive:
            return b.bit_or(up, down)
        if self.detect_negative:
            return down
        return up if self.detect_positive else b.bit_and(up, down)  # never both: always false

    def numpy(self, *x: Array) -> Array:
        up, down = np.isposinf(x[0]), np.isneginf(x[0])
        return (up & bool(self.detect_positive)) | (down & bool(self.detect_negative))


@dataclass(frozen=True, kw_only=True)
class BitShift(Elementwise):
    onnx = "BitShift"
    exact = True
    arity = 2
    since = 11
    direction: str = "LEFT"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.shift_left(x[0], x[1]) if self.direction == "LEFT" else b.shift_right(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return np.left_shift(x[0], x[1]) if self.direction == "LEFT" else np.right_shift(x[0], x[1])
