"""Recurrent layers: LSTM, GRU and RNN, unrolled over their (static) time steps.

The product of all inputs with W is one contraction; a step adds one with R. What
follows is elementwise and fused: two ops for an LSTM cell, one for a GRU or RNN cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .. import math
from ..builder import Arithmetic, Value
from ..graph import GraphBuilder, Spec, Unsupported, register
from ..op import Array
from .activation import Relu, Sigmoid, Tanh
from .contract import product_of
from .elementwise import Add, Elementwise, Mul, apply
from .rearrange import concat, integers, pick, reshape, slice_axis, transpose


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


# -- the layer ----------------------------------------------------------------------------

State = tuple[str, ...]  # h, or h and c
Step = Callable[[GraphBuilder, "Direction", str, State], State]


@dataclass(frozen=True)
class Direction:
    """One direction's weights, transposed: R is [hidden, gates * hidden]."""

    weights: str
    recurrence: str
    input_bias: str | None
    recurrent_bias: str | None
    hidden: int
    hint: str

    def gate(self, g: GraphBuilder, tensor: str, number: int) -> str:
        """Gate `number` of a tensor [batch, gates * hidden]."""
        return slice_axis(g, tensor, 1, number * self.hidden, self.hidden, self.hint)

    def recur(self, g: GraphBuilder, h: str) -> str:
        return product_of(g, h, self.recurrence, ["m", "k"], ["k", "n"], self.hint)


DEFAULT_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"]}


def _check(g: GraphBuilder, spec: Spec, directions: int, steps: int) -> None:
    """Raises Unsupported for what the standard allows and this expansion does not do."""
    if spec.attribute("layout", 0):
        raise Unsupported(f"{spec.op_type} with layout 1 (batch first)")
    if spec.attribute("clip") is not None:
        raise Unsupported(f"{spec.op_type} with clip")
    if spec.attribute("input_forget", 0):
        raise Unsupported("LSTM with input_forget")
    if spec.op_type == "LSTM" and spec.has(7):
        raise Unsupported("LSTM with peepholes")
    default = DEFAULT_ACTIVATIONS.get(spec.op_type)
    named = [str(a).lower() for a in spec.attribute("activations", [])]
    if default and named and named != default * directions:
        raise Unsupported(f"{spec.op_type} with activations {', '.join(named)}")
    if spec.has(4):
        lengths = integers(g.known(spec.inputs[4], f"{spec.op_type}'s sequence_lens"))
        if any(n != steps for n in lengths):
            raise Unsupported(f"{spec.op_type} with sequences of different lengths")


def _layer(g: GraphBuilder, spec: Spec, gates: int, states: int, steps: Sequence[Step]) -> Sequence[str]:
    """Unrolls every direction; returns Y, Y_h (and Y_c). steps: one per direction."""
    x, hint = spec.inputs[0], next(o for o in spec.outputs if o)
    length, batch, _ = g.shape(x)
    hidden = g.shape(spec.inputs[2])[2]
    kind = spec.attribute("direction", "forward")
    reverse = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[kind]
    _check(g, spec, len(reverse), length)
    outputs: list[list[str]] = []
    finals: list[State] = []
    for d, backwards in enumerate(reverse):
        direction = _direction(g, spec, d, gates, hidden, hint)
        projected = product_of(g, x, direction.weights, ["m", "k"], ["k", "n"], hint)
        if direction.input_bias:
            projected = apply(g, Add, [projected, direction.input_bias], hint)
        zeros = g.constant(np.zeros((batch, hidden), g.dtype(x).numpy))
        given = [spec.inputs[5 + s] if spec.has(5 + s) else None for s in range(states)]
        state = tuple(pick(g, t, 0, d, hint) if t else zeros for t in given)
        produced: list[str] = []
        for t in reversed(range(length)) if backwards else range(length):
            state = steps[d](g, direction, pick(g, projected, 0, t, hint), state)
            produced.append(state[0])
        outputs.append(produced[::-1] if backwards else produced)
        finals.append(state)
    results: list[str] = [""] * len(spec.outputs)
    for s, name in enumerate(spec.outputs):
        if not name:
            continue
        if s == 0:
            steps_of = [[reshape(g, h, (1, 1, batch, hidden), name) for h in row] for row in outputs]
            both = [concat(g, column, 1, name) for column in zip(*steps_of, strict=True)]
            results[0] = concat(g, both, 0, name)
        else:
            last = [reshape(g, final[s - 1], (1, batch, hidden), name) for final in finals]
            results[s] = concat(g, last, 0, name)
    return results


def _direction(g: GraphBuilder, spec: Spec, d: int, gates: int, hidden: int, hint: str) -> Direction:
    weights, recurrence = (transpose(g, pick(g, t, 0, d, hint), (1, 0), hint) for t in spec.inputs[1:3])
    input_bias = recurrent_bias = None
    if spec.has(3):
        bias = pick(g, spec.inputs[3], 0, d, hint)
        input_bias = slice_axis(g, bias, 0, 0, gates * hidden, hint)
        recurrent_bias = slice_axis(g, bias, 0, gates * hidden, gates * hidden, hint)
        if not (spec.op_type == "GRU" and spec.attribute("linear_before_reset", 0)):
            input_bias, recurrent_bias = apply(g, Add, [input_bias, recurrent_bias], hint), None
    return Direction(weights, recurrence, input_bias, recurrent_bias, hidden, hint)


def _lstm_step(g: GraphBuilder, d: Direction, x: str, state: State) -> State:
    h, c = state
    total = apply(g, Add, [x, d.recur(g, h)], d.hint)
    i, o, f, new = (d.gate(g, total, n) for n in range(4))
    c = apply(g, LSTMCell, [i, f, new, c], d.hint)
    return apply(g, LSTMOutput, [o, c], d.hint), c


def _gru_reset_after(g: GraphBuilder, d: Direction, x: str, state: State) -> State:
    (h,) = state
    recurrent = d.recur(g, h)
    if d.recurrent_bias:
        recurrent = apply(g, Add, [recurrent, d.recurrent_bias], d.hint)
    parts = [d.gate(g, t, n) for t in (x, recurrent) for n in range(3)]
    return (apply(g, GRUCell, [*parts, h], d.hint),)


def _gru_reset_before(g: GraphBuilder, d: Direction, x: str, state: State) -> State:
    (h,) = state
    weights = [
        slice_axis(g, d.recurrence, 1, a * d.hidden, n * d.hidden, d.hint) for a, n in ((0, 2), (2, 1))
    ]
    gates = slice_axis(g, x, 1, 0, 2 * d.hidden, d.hint)
    recurrent = product_of(g, h, weights[0], ["m", "k"], ["k", "n"], d.hint)
    both = apply(g, Sigmoid, [apply(g, Add, [gates, recurrent], d.hint)], d.hint)
    kept = apply(g, Mul, [d.gate(g, both, 1), h], d.hint)
    new = product_of(g, kept, weights[1], ["m", "k"], ["k", "n"], d.hint)
    return (apply(g, GRUBlend, [d.gate(g, both, 0), d.gate(g, x, 2), new, h], d.hint),)


def _lstm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return _layer(g, spec, 4, 2, [_lstm_step] * 2)


def _gru(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    step = _gru_reset_after if spec.attribute("linear_before_reset", 0) else _gru_reset_before
    return _layer(g, spec, 3, 1, [step] * 2)


def _rnn(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    kinds: dict[str, type[Elementwise]] = {"tanh": Tanh, "relu": Relu, "sigmoid": Sigmoid}
    named = [str(a).lower() for a in spec.attribute("activations", ["Tanh", "Tanh"])]
    for a in named:
        if a not in kinds:
            raise Unsupported(f"RNN with activation {a}")

    def step_of(kind: type[Elementwise]) -> Step:
        def step(g: GraphBuilder, d: Direction, x: str, state: State) -> State:
            total = apply(g, Add, [x, d.recur(g, state[0])], d.hint)
            return (apply(g, kind, [total], d.hint),)

        return step

    return _layer(g, spec, 1, 1, [step_of(kinds[a]) for a in named])


register("LSTM", _lstm, 7)
register("GRU", _gru, 7)
register("RNN", _rnn, 7)
