"""Recurrent layers: LSTM, GRU and RNN, unrolled over their (static) time steps.

The product of all inputs with W is one contraction; a step adds one with R. See `cells`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..dtypes import I64
from ..graph import InvalidModel
from ..op import Bound
from ..rules import GraphBuilder, Rule, Spec, register
from .bounds import within
from .cells import (
    DEFAULTS,
    Direction,
    Function,
    State,
    Step,
    functions_of,
    gru_reset_after,
    gru_reset_before,
    lstm_step,
    rnn_step,
)
from .conversion import Where, cast
from .elementwise import Add, apply, scalar_constant
from .logic import Less
from .rearrange import concat, pick, reshape, slice_axis, transpose

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
REVERSED = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}


def direction_of(
    g: GraphBuilder, spec: Spec, d: int, functions: tuple[Function, ...], hint: str
) -> Direction:
    """Direction `d` of a standard layer."""
    hidden, gates, wide = g.shape(spec.inputs[2])[2], GATES[spec.op_type], g.dtype(spec.inputs[0]).wide
    weights, recurrence = (transpose(g, pick(g, t, 0, d, hint), (1, 0), hint) for t in spec.inputs[1:3])
    input_bias = recurrent_bias = None
    if spec.has(3):
        bias = cast(g, pick(g, spec.inputs[3], 0, d, hint), wide)
        input_bias = slice_axis(g, bias, 0, 0, gates * hidden, hint)
        recurrent_bias = slice_axis(g, bias, 0, gates * hidden, gates * hidden, hint)
        if not (spec.op_type == "GRU" and spec.attribute("linear_before_reset", 0)):
            input_bias, recurrent_bias = apply(g, Add, [input_bias, recurrent_bias], hint), None
    clip = spec.attribute("clip")
    peepholes = cast(g, pick(g, spec.inputs[7], 0, d, hint), wide) if spec.has(7) else None
    coupled = bool(spec.attribute("input_forget", 0))
    named = [str(a).lower() for a in spec.attribute("activations") or DEFAULTS[spec.op_type]]
    usual = tuple(named) == DEFAULTS[spec.op_type] * (len(named) // len(DEFAULTS[spec.op_type]))
    return Direction(
        weights,
        recurrence,
        input_bias,
        recurrent_bias,
        hidden,
        hint,
        functions,
        usual and clip is None and peepholes is None and not coupled,
        clip,
        peepholes,
        coupled,
    )


MakeDirection = Callable[[GraphBuilder, Spec, int, tuple[Function, ...], str], Direction]


def layer(g: GraphBuilder, spec: Spec, step: Step, make: MakeDirection = direction_of) -> Sequence[str]:
    """Unrolls every direction; returns Y, Y_h (and Y_c). layout 1 has the batch first everywhere."""
    _judge_ranks(g, spec)
    hint, given = next(o for o in spec.outputs if o), g.dtype(spec.inputs[0])
    wide = given.wide  # of all but the factors of products, until the results are rounded
    batch_first = bool(spec.attribute("layout", 0))
    x = transpose(g, spec.inputs[0], (1, 0, 2), hint) if batch_first else spec.inputs[0]
    (length, batch, _), hidden = g.shape(x), g.shape(spec.inputs[2])[2]
    directions = REVERSED.get(spec.attribute("direction", "forward"))
    if directions is None:
        raise InvalidModel(f"{spec.op_type} in direction {spec.attribute('direction')!r}")
    if make is direction_of:
        _judge_shapes(g, spec, len(directions))
    functions = functions_of(spec, len(directions))
    lasting = _lasting(g, spec, length, batch, hint)
    outputs: list[list[str]] = []
    finals: list[State] = []
    for d, backwards in enumerate(directions):
        direction = make(g, spec, d, functions[d], hint)
        projected = direction.project(g, x, wide)
        if direction.input_bias:
            projected = apply(g, Add, [projected, direction.input_bias], hint)
        state = _first(g, spec, d, [batch, hidden], batch_first, hint)
        zero = scalar_constant(g, 0, wide)
        produced: list[str] = []
        for t in reversed(range(length)) if backwards else range(length):
            new = step(g, direction, pick(g, projected, 0, t, hint), state)
            made = new[0]
            if lasting:  # past its end a sequence keeps its state and gives zeros
                alive = pick(g, lasting, 0, t, hint)
                state = tuple(apply(g, Where, [alive, a, b], hint) for a, b in zip(new, state, strict=True))
                made = apply(g, Where, [alive, made, zero], hint)
            else:
                state = new
            produced.append(made)
        if lasting and length:  # an empty sequence has no last step, and ends in zeros, as onnxruntime has it
            begun = pick(g, lasting, 0, 0, hint)
            state = tuple(apply(g, Where, [begun, s, zero], hint) for s in state)
        outputs.append(produced[::-1] if backwards else produced)
        finals.append(state)
    results: list[str] = [""] * len(spec.outputs)
    for s, name in enumerate(spec.outputs):
        if not name:
            continue
        if s == 0:
            if not length:
                shape = (batch, 0) if batch_first else (0, len(directions), batch)
                shape = (*shape, len(directions), hidden) if batch_first else (*shape, hidden)
                results[0] = g.constant(np.zeros(shape, wide.numpy), name)
                continue
            steps_of = [[reshape(g, h, (1, 1, batch, hidden), name) for h in row] for row in outputs]
            both = [concat(g, column, 1, name) for column in zip(*steps_of, strict=True)]
            whole = concat(g, both, 0, name)
            results[0] = transpose(g, whole, (2, 0, 1, 3), name) if batch_first else whole
        else:
            last = [reshape(g, final[s - 1], (1, batch, hidden), name) for final in finals]
            whole = concat(g, last, 0, name)
            results[s] = transpose(g, whole, (1, 0, 2), name) if batch_first else whole
    return [cast(g, t, given, hint) if t else t for t in results]


def _judge_ranks(g: GraphBuilder, spec: Spec) -> None:
    """InvalidModel for an input of X, W, R, B, sequence_lens, states and peepholes in other dimensions."""
    for name, rank in zip(spec.inputs, (3, 3, 3, 2, 1, 3, 3, 2), strict=False):
        if name and len(g.shape(name)) != rank:
            raise InvalidModel(f"{spec.op_type} of {g.tensors[name]}, which should have {rank} dimensions")


def _judge_shapes(g: GraphBuilder, spec: Spec, directions: int) -> None:
    """InvalidModel for inputs whose sizes do not belong together."""
    batch_first, gates = bool(spec.attribute("layout", 0)), GATES[spec.op_type]
    length, batch, size = (g.shape(spec.inputs[0])[i] for i in ((1, 0, 2) if batch_first else (0, 1, 2)))
    hidden = g.shape(spec.inputs[2])[2]
    if (said := spec.attribute("hidden_size")) is not None and said != hidden:
        raise InvalidModel(f"hidden_size {said}, R {g.tensors[spec.inputs[2]]} is for {hidden}")
    state = (batch, directions, hidden) if batch_first else (directions, batch, hidden)
    wanted = [
        g.shape(spec.inputs[0]),
        (directions, gates * hidden, size),
        (directions, gates * hidden, hidden),
        (directions, 2 * gates * hidden),
        (batch,),
        state,
        state,
        (directions, 3 * hidden),
    ]
    for name, shape in zip(spec.inputs, wanted, strict=False):
        if name and g.shape(name) != shape:
            raise InvalidModel(
                f"{spec.op_type} of {g.tensors[name]}, which should be {list(shape)} "
                f"for {length} steps, {batch} sequences, {hidden} hidden"
            )


def _first(g: GraphBuilder, spec: Spec, d: int, shape: Sequence[int], batch_first: bool, hint: str) -> State:
    """The state before the first step, zeros where none is given."""
    wide = g.dtype(spec.inputs[0]).wide
    zeros = g.constant(np.zeros(tuple(shape), wide.numpy))
    numbers = (5, 6) if spec.op_type == "LSTM" else (5,)
    dim = 1 if batch_first else 0
    return tuple(
        cast(g, pick(g, spec.inputs[i], dim, d, hint), wide) if spec.has(i) else zeros for i in numbers
    )


def _lasting(g: GraphBuilder, spec: Spec, length: int, batch: int, hint: str) -> str:
    """[length, batch, 1], which sequences have a step; "" where all have all."""
    if not spec.has(4):
        return ""
    known = g.value(spec.inputs[4])
    if known is not None and (known == length).all():
        return ""
    axis = 1 if spec.attribute("layout", 0) else 0
    bound = Bound(0, 0, length + 1, "sequence length", axis, length)
    lengths = within(g, spec.inputs[4], bound, hint)
    lengths = reshape(g, cast(g, lengths, I64), (1, batch, 1), hint)
    return apply(g, Less, [g.constant(g.folding.line(length).reshape(length, 1, 1)), lengths], hint)


def _rule(step: Step) -> Rule:
    return lambda g, spec: layer(g, spec, step)


def _gru(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    after = spec.attribute("linear_before_reset", 0)
    return layer(g, spec, gru_reset_after if after else gru_reset_before)


register("LSTM", _rule(lstm_step), 7)
register("GRU", _gru, 7)
register("RNN", _rule(rnn_step), 7)
