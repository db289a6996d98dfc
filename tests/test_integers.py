"""What integers do where numbers have no answer (docs/numerics.md): run, guarded, and folded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import waferc
from nodes import Case, case
from onnx import helper
from sampled import sampled
from waferc.ir.op import Array

SIGNED, UNSIGNED = ("int8", "int16", "int32", "int64"), ("uint8", "uint16", "uint32", "uint64")


def everywhere(one: Case) -> list[Array]:
    """By the kernels, guarded, and folded when compiling."""
    found: list[Array] = []
    for constants in ((), range(len(one.inputs))):
        content = replace(one, constants=constants).proto().SerializeToString()
        program = waferc.compile_model(content, wafer="8x8")
        given = {} if constants else one.fed()
        found += [next(iter(program.prepared(guard=g).run(given).values())) for g in (False, True)]
    return found


@pytest.mark.parametrize("kind", sampled((*SIGNED, *UNSIGNED), 3))
def test_integers_divided_by_zero_and_by_less(kind: str) -> None:
    ends = np.iinfo(kind)
    down = kind in SIGNED
    x = np.array([7, 0, ends.min, ends.max, ends.min, -7 if down else 7], kind)
    y = np.array([0, 0, 0, 0, -1 if down else 1, 2], kind)
    last = {"Div": -3 if down else 3, "Mod": 1, "fmod": -1 if down else 1}
    for name, own in (("Div", {}), ("Mod", {}), ("fmod", {"fmod": 1})):
        at_ends = ends.min if name == "Div" else 0
        expected = np.array([0, 0, 0, 0, at_ends, last[name]], kind)
        for made in everywhere(case(name if not own else "Mod", x, y, **own)):
            assert made.dtype == kind and np.array_equal(made, expected)


@pytest.mark.parametrize("kind", UNSIGNED)
def test_shifts_past_the_width(kind: str) -> None:
    bits = np.iinfo(kind).bits
    x, y = np.array([255, 1, 3, 128], kind), np.array([bits, bits + 1, 200, 1], kind)
    for direction, last in (("LEFT", (128 << 1) & ((1 << bits) - 1)), ("RIGHT", 64)):
        for made in everywhere(case("BitShift", x, y, direction=direction)):
            assert made.tolist() == [0, 0, 0, last]


@pytest.mark.parametrize("kind", (*SIGNED, *UNSIGNED))
def test_floats_past_an_integer_type(kind: str) -> None:
    ends = np.iinfo(kind)
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1.9], np.float32)
    to = int(helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    for made in everywhere(case("Cast", x, to=to)):
        assert made.tolist() == [0, ends.max, ends.min, ends.max, ends.min, 1]
