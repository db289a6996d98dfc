"""Recurrent layers against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nodes import Case, case, computed, normal, same_as_onnxruntime
from sampled import sampled
from single import close
from waferc.compiler.errors import InvalidInput
from waferc.compiler.importer import import_model
from waferc.ir.evaluate import evaluate
from waferc.ir.op import Array

WEIGHTS = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(
    op_type: str,
    direction: str = "forward",
    given: bool = True,
    lengths: Array | None = None,
    peepholes: bool = False,
    **own: Any,
) -> Case:
    """A layer of 5 steps, batch 2, from 3 features to 4."""
    d, gates, hidden = (2 if direction == "bidirectional" else 1), WEIGHTS[op_type], 4
    weights = [normal(d, gates * hidden, 3), normal(d, gates * hidden, hidden)]
    inputs: list[Array | None] = [normal(5, 2, 3), *weights]
    constants = [1, 2]
    if given:
        inputs += [normal(d, 2 * gates * hidden), lengths, normal(d, 2, hidden)]
        constants.append(3)
        if op_type == "LSTM":
            inputs.append(normal(d, 2, hidden))
        if peepholes:
            inputs.append(normal(d, 3 * hidden))
    outputs = 3 if op_type == "LSTM" else 2
    return case(
        op_type,
        *inputs,
        constants=constants,
        outputs=outputs,
        hidden_size=hidden,
        direction=direction,
        **own,
    )


RECUR = [
    *(recurrent(t, d) for t in WEIGHTS for d in ("forward", "reverse", "bidirectional")),
    *(recurrent(t, given=False) for t in WEIGHTS),
    recurrent("GRU", linear_before_reset=1),
    recurrent("RNN", activations=["Relu"]),
    recurrent("RNN", "bidirectional", lengths=np.array([5, 3], np.int32)),
    recurrent("GRU", lengths=np.array([0, 3], np.int32)),
    recurrent("LSTM", "reverse", lengths=np.array([5, 3], np.int32)),
    *(recurrent(t, clip=0.3) for t in WEIGHTS),
    recurrent("GRU", linear_before_reset=1, clip=0.5),
    recurrent("LSTM", "bidirectional", peepholes=True),
    recurrent("LSTM", peepholes=True, clip=0.2),
    recurrent("LSTM", input_forget=1),
    recurrent("LSTM", activations=["HardSigmoid", "Relu", "Softsign"], activation_alpha=[0.3]),
    recurrent(
        "LSTM",
        "bidirectional",
        activations=["Sigmoid", "LeakyRelu", "Elu", "HardSigmoid", "Affine", "ScaledTanh"],
        activation_alpha=[0.3, 0.7, 0.25, 0.9, 1.1],
        activation_beta=[0.4, 0.1, 1.3],
    ),
    recurrent("GRU", activations=["HardSigmoid", "Softplus"]),
    recurrent(
        "GRU", activations=["Sigmoid", "ThresholdedRelu"], activation_alpha=[0.2], linear_before_reset=1
    ),
    recurrent("RNN", activations=["LeakyRelu"], activation_alpha=[0.2]),
]


LONG = [
    *(recurrent(t, "bidirectional", lengths=np.array([5, 3], np.int32)) for t in WEIGHTS),
    *(recurrent(t, "bidirectional", lengths=np.array([0, 3], np.int32)) for t in WEIGHTS),
    *(recurrent(t, "bidirectional", clip=0.3) for t in WEIGHTS),
]


@pytest.mark.parametrize(
    "one", [*sampled(RECUR, 3), *(pytest.param(one, marks=pytest.mark.thorough) for one in LONG)], ids=str
)
def test_against_onnxruntime(one: Case) -> None:
    same_as_onnxruntime(one, 2e-5)


@pytest.mark.parametrize("op_type", WEIGHTS)
def test_batch_first_is_the_same_layer(op_type: str) -> None:
    """onnxruntime has no layout 1."""
    one = recurrent(op_type, "bidirectional")
    swapped = {0: (1, 0, 2), 5: (1, 0, 2), 6: (1, 0, 2)}
    turned = [
        x.transpose(swapped[i]) if x is not None and i in swapped else x for i, x in enumerate(one.inputs)
    ]
    other = case(op_type, *turned, constants=one.constants, outputs=one.outputs, **one.attributes, layout=1)
    right = list(evaluate(import_model(one.proto()), one.fed()).values())
    ours = list(evaluate(import_model(other.proto()), other.fed()).values())
    close(ours[0].transpose(1, 2, 0, 3), right[0])
    for mine, theirs in zip(ours[1:], right[1:], strict=True):
        close(mine.transpose(1, 0, 2), theirs)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_sequence_of_no_steps_gives_nothing_and_its_first_state(
    kind: str, gates: int, direction: str, layout: int
) -> None:
    n = 1 + (direction == "bidirectional")
    x = np.zeros((2, 0, 3) if layout else (0, 2, 3), np.float32)
    w, r = np.ones((n, 2 * gates, 3), np.float32), np.ones((n, 2 * gates, 2), np.float32)
    more = {"activations": ["Tanh"] * n} if kind == "RNN" else {}
    made = computed(case(kind, x, w, r, hidden_size=2, layout=layout, direction=direction, outputs=2, **more))
    assert made[0].shape == ((2, 0, n, 2) if layout else (0, n, 2, 2))
    assert made[1].shape == ((2, n, 2) if layout else (n, 2, 2)) and not made[1].any()


@pytest.mark.parametrize("named", [["A", "B", "C"], ["Nothing"], ["Tanh"], ["Tanh"] * 4, ["\x1b"] * 3])
def test_activations_that_the_standard_does_not_have_are_invalid(named: list[str]) -> None:
    x, w, r = (np.ones(s, np.float32) for s in ((1, 1, 3), (1, 8, 3), (1, 8, 2)))
    with pytest.raises(InvalidInput, match="activation"):
        import_model(case("LSTM", x, w, r, hidden_size=2, activations=named).proto())
