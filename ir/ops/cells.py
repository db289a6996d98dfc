"""One step of a recurrent layer: what LSTM, GRU and RNN make of a state and a projected input.

With the standard's default functions the elementwise part of a step is fused by hand: two ops for an LSTM
cell, one for a GRU cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .. import math
from ..builder import Arithmetic, Value
from ..dtypes import DType
from ..graph import InvalidModel
from ..op import Array
from ..rules import GraphBuilder, Spec
from .activation import Elu, HardSigmoid, LeakyRelu, Relu, Sigmoid, Softplus, Softsign, Tanh, ThresholdedRelu
from .contract import product_of
from .elementwise import Add, Clip, Elementwise, Mul, Sub, apply, scalar_constant
from .rearrange import slice_axis

State = tuple[str, ...]  # h, or h and c


# -- fused cells ------------------------------------------------------------------------------
class LSTMCell(Elementwise):
    """c' = sigmoid(f) * c + sigmoid(i) * tanh(g), of operands i, f, g, c."""

    arity = 4

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        i, f, g, c = x
        kept = b.mul(math.sigmoid(b, f), c)
        return b.fma(math.sigmoid(b, i), math.tanh(b, g), kept)

    def numpy(self, *x: Array) -> Array:
        i, f, g, c = x
        return _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)


class LSTMOutput(Elementwise):
    """h = sigmoid(o) * tanh(c), of operands o, c."""

    arity = 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.mul(math.sigmoid(b, x[0]), math.tanh(b, x[1]))

    def numpy(self, *x: Array) -> Array:
        return _sigmoid(x[0]) * np.tanh(x[1])


class GRUCell(Elementwise):
    """linear_before_reset's h' = (1 - z) * tanh(xh + r * rh) + z * h.

    z = sigmoid(xz + rz), r = sigmoid(xr + rr); operands xz, xr, xh, rz, rr, rh, h.
    """

    arity = 7

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        xz, xr, xh, rz, rr, rh, h = x
        reset = math.sigmoid(b, b.add(xr, rr))
        return _blend_scalar(b, math.sigmoid(b, b.add(xz, rz)), math.tanh(b, b.fma(reset, rh, xh)), h)

    def numpy(self, *x: Array) -> Array:
        xz, xr, xh, rz, rr, rh, h = x
        z = _sigmoid(xz + rz)
        return (1 - z) * np.tanh(xh + _sigmoid(xr + rr) * rh) + z * h


class GRUBlend(Elementwise):
    """h' = (1 - z) * tanh(xh + rh) + z * h, of operands z, xh, rh, h."""

    arity = 4

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        z, xh, rh, h = x
        return _blend_scalar(b, z, math.tanh(b, b.add(xh, rh)), h)

    def numpy(self, *x: Array) -> Array:
        z, xh, rh, h = x
        return (1 - z) * np.tanh(xh + rh) + z * h


def _blend_scalar(b: Arithmetic, z: Value, new: Value, old: Value) -> Value:
    one = b.const(1, z.dtype)
    return b.fma(b.sub(one, z), new, b.mul(z, old))


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


# -- functions --------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class ScaledTanh(Elementwise):
    """alpha * tanh(beta * x)."""

    alpha: float = 1.0
    beta: float = 1.0

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        inner = b.mul(x[0], b.const(self.beta, self.out_type))
        return b.mul(math.tanh(b, inner), b.const(self.alpha, self.out_type))

    def numpy(self, *x: Array) -> Array:
        return self.alpha * np.tanh(self.beta * x[0])


@dataclass(frozen=True, kw_only=True)
class Line(Elementwise):
    """alpha * x + beta, the standard's Affine."""

    alpha: float = 1.0
    beta: float = 0.0

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.fma(x[0], b.const(self.alpha, self.out_type), b.const(self.beta, self.out_type))

    def numpy(self, *x: Array) -> Array:
        return self.alpha * x[0] + self.beta


# By name; each with the parameters that it has.
FUNCTIONS: dict[str, tuple[type[Elementwise], tuple[str, ...]]] = {
    "relu": (Relu, ()),
    "tanh": (Tanh, ()),
    "sigmoid": (Sigmoid, ()),
    "affine": (Line, ("alpha", "beta")),
    "leakyrelu": (LeakyRelu, ("alpha",)),
    "thresholdedrelu": (ThresholdedRelu, ("alpha",)),
    "scaledtanh": (ScaledTanh, ("alpha", "beta")),
    "hardsigmoid": (HardSigmoid, ("alpha", "beta")),
    "elu": (Elu, ("alpha",)),
    "softsign": (Softsign, ()),
    "softplus": (Softplus, ()),
}
DEFAULTS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
Function = Callable[[GraphBuilder, str, str], str]  # of a tensor and a hint


def _function(g: GraphBuilder, x: str, hint: str, kind: type[Elementwise], own: dict[str, float]) -> str:
    return apply(g, kind, [x], hint, **own)


def functions_of(spec: Spec, directions: int) -> list[tuple[Function, ...]]:
    """The functions of each direction. Given parameters go to those that have some, in their order."""
    default = DEFAULTS[spec.op_type]
    named = [str(a).lower() for a in spec.attribute("activations") or default * directions]
    if unknown := [a for a in named if a not in FUNCTIONS]:
        raise InvalidModel(f"{spec.op_type} with activation {unknown[0]!r}, which the standard does not have")
    if len(named) != len(default) * directions:
        raise InvalidModel(
            f"{spec.op_type} with {len(named)} activations; {directions} directions "
            f"have {len(default) * directions}"
        )
    given = {name: list(spec.attribute(f"activation_{name}") or ()) for name in ("alpha", "beta")}
    made: list[Function] = []
    for a in named:
        kind, parameters = FUNCTIONS[a]
        own = {name: float(given[name].pop(0)) for name in parameters if given[name]}
        made.append(partial(_function, kind=kind, own=own))
    return [tuple(made[d * len(default) : (d + 1) * len(default)]) for d in range(directions)]


# -- steps ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Direction:
    """One direction's weights, transposed: R is [hidden, gates * hidden].

    functions: those of the standard's f, g and h. standard: they are the default ones and nothing else is
    asked for. clip: how far from 0 their operands may be. peepholes: [3 * hidden], for i, o and f.
    """

    weights: str
    recurrence: str
    input_bias: str | None
    recurrent_bias: str | None
    hidden: int
    hint: str
    functions: tuple[Function, ...]
    standard: bool
    clip: float | None = None
    peepholes: str | None = None
    coupled: bool = False

    def gate(self, g: GraphBuilder, tensor: str, number: int) -> str:
        """Gate `number` of a tensor [batch, gates * hidden]."""
        return slice_axis(g, tensor, 1, number * self.hidden, self.hidden, self.hint)

    def project(self, g: GraphBuilder, x: str, wide: DType) -> str:
        """The inputs of all steps, [length, batch, inputs], by the weights."""
        return product_of(g, (x, ["m", "k"]), (self.weights, ["k", "n"]), self.hint, wide)

    def recur(self, g: GraphBuilder, h: str, weights: str | None = None) -> str:
        return product_of(g, (h, ["m", "k"]), (weights or self.recurrence, ["k", "n"]), self.hint)

    def sum(self, g: GraphBuilder, *terms: str) -> str:
        total = terms[0]
        for t in terms[1:]:
            total = apply(g, Add, [total, t], self.hint)
        return total

    def times(self, g: GraphBuilder, a: str, b: str) -> str:
        return apply(g, Mul, [a, b], self.hint)

    def less(self, g: GraphBuilder, x: str) -> str:
        """1 - x."""
        return apply(g, Sub, [scalar_constant(g, 1, g.dtype(x)), x], self.hint)

    def active(self, g: GraphBuilder, number: int, x: str) -> str:
        """Function `number` of x."""
        if self.clip is not None:
            x = apply(g, Clip, [x], self.hint, low=-self.clip, high=self.clip)
        return self.functions[number](g, x, self.hint)

    def peeping(self, g: GraphBuilder, x: str, number: int, c: str) -> str:
        """x and what gate `number` sees of the cell."""
        if self.peepholes is None:
            return x
        weight = slice_axis(g, self.peepholes, 0, number * self.hidden, self.hidden, self.hint)
        return self.sum(g, x, self.times(g, weight, c))


Step = Callable[[GraphBuilder, Direction, str, State], State]  # of a step's projected input and the state


def lstm_step(g: GraphBuilder, d: Direction, x: str, state: State) -> State:
    h, c = state
    total = d.sum(g, x, d.recur(g, h))
    i, o, f, new = (d.gate(g, total, n) for n in range(4))
    if d.standard:
        c = apply(g, LSTMCell, [i, f, new, c], d.hint)
        return apply(g, LSTMOutput, [o, c], d.hint), c
    i = d.active(g, 0, d.peeping(g, i, 0, c))
    f = d.less(g, i) if d.coupled else d.active(g, 0, d.peeping(g, f, 2, c))
    c = d.sum(g, d.times(g, f, c), d.times(g, i, d.active(g, 1, new)))
    o = d.active(g, 0, d.peeping(g, o, 1, c))
    # The cell itself is not clipped, as in onnxruntime.
    return d.times(g, o, d.functions[2](g, c, d.hint)), c


def gru_reset_after(g: GraphBuilder, d: Direction, x: str, state: State) -> State:
    (h,) = state
    recurrent = d.recur(g, h)
    if d.recurrent_bias:
        recurrent = d.sum(g, recurrent, d.recurrent_bias)
    xz, xr, xh, rz, rr, rh = (d.gate(g, t, n) for t in (x, recurrent) for n in range(3))
    if d.standard:
        return (apply(g, GRUCell, [xz, xr, xh, rz, rr, rh, h], d.hint),)
    z, r = d.active(g, 0, d.sum(g, xz, rz)), d.active(g, 0, d.sum(g, xr, rr))
    return (_blend(g, d, z, d.active(g, 1, d.sum(g, xh, d.times(g, r, rh))), h),)


def gru_reset_before(g: GraphBuilder, d: Direction, x: str, state: State) -> State:
    (h,) = state
    gates, new = (
        slice_axis(g, d.recurrence, 1, a * d.hidden, n * d.hidden, d.hint) for a, n in ((0, 2), (2, 1))
    )
    own = slice_axis(g, x, 1, 0, 2 * d.hidden, d.hint)
    both = d.active(g, 0, d.sum(g, own, d.recur(g, h, gates)))
    z, r = d.gate(g, both, 0), d.gate(g, both, 1)
    xh, rh = d.gate(g, x, 2), d.recur(g, d.times(g, r, h), new)
    if d.standard:
        return (apply(g, GRUBlend, [z, xh, rh, h], d.hint),)
    return (_blend(g, d, z, d.active(g, 1, d.sum(g, xh, rh)), h),)


def _blend(g: GraphBuilder, d: Direction, z: str, new: str, old: str) -> str:
    return d.sum(g, d.times(g, d.less(g, z), new), d.times(g, z, old))


def rnn_step(g: GraphBuilder, d: Direction, x: str, state: State) -> State:
    return (d.active(g, 0, d.sum(g, x, d.recur(g, state[0]))),)
