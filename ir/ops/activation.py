"""Elementwise activations and transcendental functions.

The one-line formulas are those of the ONNX operator schemas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import erf as exact_erf
from math import pi, sqrt

import numpy as np

from .. import math
from ..builder import Arithmetic, Value
from ..dtypes import BF16, F16, F32, F64
from ..graph import Unsupported
from ..op import Array
from ..rules import GraphBuilder, Spec
from .elementwise import Elementwise


class Relu(Elementwise):
    onnx = "Relu"
    exact = once = True
    since = 6

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.max(x[0], b.const(0, self.out_type))

    def numpy(self, *x: Array) -> Array:
        return np.maximum(x[0], np.zeros((), x[0].dtype))


class Exp(Elementwise):
    onnx = "Exp"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.exp(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.exp(x[0])


@dataclass(frozen=True, kw_only=True)
class SoftmaxWeight(Elementwise):
    """e^x for x of at most 0, times `share`, a power of two; where e^x is no normal number it is 0."""

    share: float = 1.0

    @property
    def most(self) -> float:
        return self.share

    def times(self, factor: float) -> SoftmaxWeight:
        return replace(self, share=self.share * factor)

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.weight(b, x[0], self.share)

    def numpy(self, *x: Array) -> Array:
        return np.exp(x[0]) * x[0].dtype.type(self.share)


class Log(Elementwise):
    onnx = "Log"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.log(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.log(x[0])


class Tanh(Elementwise):
    onnx = "Tanh"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.tanh(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.tanh(x[0])


def _sigmoid(x: Array) -> Array:
    # exp of a negative number only, so that nothing overflows
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _erf(x: Array) -> Array:
    return np.vectorize(exact_erf, otypes=[x.dtype])(x)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


class Sigmoid(Elementwise):
    onnx = "Sigmoid"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.sigmoid(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return _sigmoid(x[0])


class Erf(Elementwise):
    onnx = "Erf"
    since = 9

    @classmethod
    def build(cls, g: GraphBuilder, spec: Spec) -> Sequence[str]:
        if not g.dtype(spec.inputs[0]).is_float:
            raise Unsupported("Erf of integers, which the standard took back in opset 13")
        return super().build(g, spec)

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.erf(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return _erf(x[0])


@dataclass(frozen=True, kw_only=True)
class LeakyRelu(Elementwise):
    onnx = "LeakyRelu"
    exact = True
    since = 6
    alpha: float = 0.01

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        slope = b.mul(x[0], b.const(self.alpha, self.out_type))
        return b.select(b.compare("lt", x[0], b.const(0, self.out_type)), slope, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.where(x[0] < 0, x[0] * self.alpha, x[0])


class PRelu(Elementwise):
    onnx = "PRelu"
    exact = once = True
    arity = 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.select(b.compare("lt", x[0], b.const(0, self.out_type)), b.mul(x[0], x[1]), x[0])

    def numpy(self, *x: Array) -> Array:
        return np.where(x[0] < 0, x[0] * x[1], x[0])


@dataclass(frozen=True, kw_only=True)
class ThresholdedRelu(Elementwise):
    onnx = "ThresholdedRelu"
    exact = True
    since = 10
    alpha: float = 1.0

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        above = b.compare("gt", x[0], b.const(self.alpha, self.out_type))
        return b.select(above, x[0], b.const(0, self.out_type))

    def numpy(self, *x: Array) -> Array:
        return np.where(x[0] > np.asarray(self.alpha, x[0].dtype), x[0], np.zeros((), x[0].dtype))


@dataclass(frozen=True, kw_only=True)
class Elu(Elementwise):
    onnx = "Elu"
    since = 6
    alpha: float = 1.0

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        below = b.mul(math.expm1(b, x[0]), b.const(self.alpha, self.out_type))
        return b.select(b.compare("lt", x[0], b.const(0, self.out_type)), below, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.where(x[0] < 0, self.alpha * np.expm1(x[0]), x[0])


@dataclass(frozen=True, kw_only=True)
class Celu(Elementwise):
    onnx = "Celu"
    since = 12
    alpha: float = 1.0

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        alpha = b.const(self.alpha, self.out_type)
        below = b.mul(math.expm1(b, b.div(x[0], alpha)), alpha)
        return b.select(b.compare("lt", x[0], b.const(0, self.out_type)), below, x[0])

    def numpy(self, *x: Array) -> Array:
        return np.where(x[0] < 0, self.alpha * np.expm1(x[0] / self.alpha), x[0])


@dataclass(frozen=True, kw_only=True)
class Selu(Elementwise):
    onnx = "Selu"
    since = 6
    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        alpha, gamma = b.const(self.alpha, self.out_type), b.const(self.gamma, self.out_type)
        below = b.mul(alpha, math.expm1(b, x[0]))
        return b.mul(gamma, b.select(b.compare("gt", x[0], b.const(0, self.out_type)), x[0], below))

    def numpy(self, *x: Array) -> Array:
        return self.gamma * np.where(x[0] > 0, x[0], self.alpha * np.expm1(x[0]))


@dataclass(frozen=True, kw_only=True)
class HardSigmoid(Elementwise):
    onnx = "HardSigmoid"
    since = 6
    alpha: float = 0.2
    beta: float = 0.5

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        line = b.fma(x[0], b.const(self.alpha, self.out_type), b.const(self.beta, self.out_type))
        return b.max(b.const(0, self.out_type), b.min(b.const(1, self.out_type), line))

    def numpy(self, *x: Array) -> Array:
        return np.clip(self.alpha * x[0] + self.beta, 0, 1)


class HardSwish(Elementwise):
    onnx = "HardSwish"
    since = 14

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        line = b.fma(x[0], b.const(1 / 6, self.out_type), b.const(0.5, self.out_type))
        return b.mul(x[0], b.max(b.const(0, self.out_type), b.min(b.const(1, self.out_type), line)))

    def numpy(self, *x: Array) -> Array:
        return x[0] * np.clip(x[0] * (1 / 6) + 0.5, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Swish(Elementwise):
    onnx = "Swish"
    since = 24
    alpha: float = 1.0

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        scaled = x[0] if self.alpha == 1 else b.mul(x[0], b.const(self.alpha, self.out_type))
        return b.mul(x[0], math.sigmoid(b, scaled))

    def numpy(self, *x: Array) -> Array:
        return x[0] * _sigmoid(x[0] * self.alpha)


@dataclass(frozen=True, kw_only=True)
class QuickGelu(Swish):
    """Swish with another default, as onnxruntime's optimizer writes it."""

    onnx = "QuickGelu"
    domain = "com.microsoft"
    since = 1
    types = (F16, BF16, F32, F64)
    alpha: float = 1.702


class Softplus(Elementwise):
    onnx = "Softplus"
    since = 1

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.softplus(b, x[0])

    def numpy(self, *x: Array) -> Array:
        return _softplus(x[0])


class Softsign(Elementwise):
    onnx = "Softsign"
    since = 1

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.div(x[0], b.add(b.const(1, self.out_type), b.abs(x[0])))

    def numpy(self, *x: Array) -> Array:
        return x[0] / (1 + np.abs(x[0]))


class Mish(Elementwise):
    onnx = "Mish"
    since = 18

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.mul(x[0], math.tanh(b, math.softplus(b, x[0])))

    def numpy(self, *x: Array) -> Array:
        return x[0] * np.tanh(_softplus(x[0]))


@dataclass(frozen=True, kw_only=True)
class Gelu(Elementwise):
    onnx = "Gelu"
    since = 20
    approximate: str = "none"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        def const(value: float) -> Value:
            return b.const(value, self.out_type)

        if self.approximate == "tanh":
            cubic = b.fma(b.mul(b.mul(x[0], x[0]), x[0]), const(0.044715), x[0])
            gate = math.tanh(b, b.mul(cubic, const(sqrt(2 / pi))))
        else:
            gate = math.erf(b, b.mul(x[0], const(sqrt(0.5))))
        return b.mul(b.mul(const(0.5), x[0]), b.add(const(1), gate))

    def numpy(self, *x: Array) -> Array:
        if self.approximate == "tanh":
            gate = np.tanh(sqrt(2 / pi) * (x[0] + 0.044715 * x[0] ** 3))
        else:
            gate = _erf(x[0] * sqrt(0.5))
        return 0.5 * x[0] * (1 + gate)


@dataclass(frozen=True, kw_only=True)
class Shrink(Elementwise):
    """x moved towards 0 by `bias` where it is further than `lambd` from it, else 0."""

    onnx = "Shrink"
    since = 9
    bias: float = 0.0
    lambd: float = 0.5

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        wide = F64 if x[0].dtype.bytes > F16.bytes and x[0].dtype != F32 else F32
        value, bias, limit = b.cast(x[0], wide), b.const(self.bias, wide), b.const(self.lambd, wide)
        low = b.select(b.compare("lt", value, b.neg(limit)), b.add(value, bias), b.const(0, wide))
        return b.cast(b.select(b.compare("gt", value, limit), b.sub(value, bias), low), self.out_type)

    def numpy(self, *x: Array) -> Array:
        low = np.where(x[0] < -self.lambd, x[0] + self.bias, 0)
        return np.where(x[0] > self.lambd, x[0] - self.bias, low).astype(x[0].dtype)
