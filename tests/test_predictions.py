"""What plans are predicted to take, in golden/cycles.txt: a change of the planner shows what it makes slower.

Of a program with two entries both: first the one that is planned first, the token.
A plan depends on no host, so the cycles are the same everywhere. WAFERC_REFRESH=1 writes the file anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import StringStringEntryProto, TensorProto
from waferc import compile_model
from waferc.placement.cost.timing import cycles_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))

import generate
from decoder import TINY, Shape, decoder, random_weights

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden" / "cycles.txt"
DIGITS = (ROOT / "examples" / "digits" / "digits.onnx").read_bytes()
SMALL = generate.Decoder("small", 6, 256, 2048, 4, 2, 2048, head=64)
SMOLLM2 = replace(generate.SMOLLM2_135M, layers=2)
ENTRIES = {"prefill": {"S": 8}, "decode": {"S": 1}}


def shapes(decoder: generate.Decoder) -> bytes:
    return generate.decode(decoder, 0, shapes_only=True).SerializeToString()


# name -> (model, options of `compile_model`)
WORKLOADS: Mapping[str, tuple[Callable[[], bytes], Mapping[str, Any]]] = {
    "digits, 16x16": (lambda: DIGITS, {"wafer": "16x16", "dims": {"batch": 1}}),
    "digits, wse3": (lambda: DIGITS, {"wafer": "wse3", "dims": {"batch": 1}}),
    "digits, 16 images, wse3": (lambda: DIGITS, {"wafer": "wse3", "dims": {"batch": 16}}),
    "digits in a pipeline, wse3": (
        lambda: DIGITS,
        {"wafer": "wse3", "dims": {"batch": 1}, "optimize": "throughput"},
    ),
    "two layers of SmolLM2, 64x64": (
        lambda: shapes(SMOLLM2),
        {"wafer": "64x64", "capacity": 512, "no_weights": True},
    ),
    "two layers of SmolLM2, f16, wse3": (
        lambda: shapes(SMOLLM2),
        {"wafer": "wse3", "capacity": 512, "no_weights": True, "weights": "f16"},
    ),
    "six layers in stacks, 32x32": (
        lambda: shapes(SMALL),
        {"wafer": "32x32", "capacity": 64, "no_weights": True, "weights": "f16"},
    ),
    "one layer of Llama-3.1-8B, wse2": (
        lambda: generate.decode_layer(generate.LLAMA_3_1_8B).SerializeToString(),
        {"wafer": "wse2", "capacity": 2048, "no_weights": True, "weights": "f16"},
    ),
    # A prompt of eight tokens, and one token: whose products are cut as the other's that read the same.
    "a prompt and a token of a tiny decoder, 16x16": (
        lambda: decoder(replace(TINY, layers=1), random_weights(5)).SerializeToString(),
        {"wafer": "16x16", "capacity": 32, "entries": ENTRIES},
    ),
    "a prompt and a token of two layers of SmolLM2, 64x64": (
        lambda: decoder(replace(Shape(), layers=2, vocabulary=4096), elsewhere).SerializeToString(),
        {"wafer": "64x64", "capacity": 512, "no_weights": True, "entries": ENTRIES},
    ),
}


def elsewhere(name: str, shape: tuple[int, ...]) -> TensorProto:
    """A weight of which only the shape is known."""
    place = StringStringEntryProto(key="location", value="no.data")
    kind = {"data_type": TensorProto.FLOAT, "data_location": TensorProto.EXTERNAL}
    return TensorProto(name=name, dims=shape, external_data=[place], **kind)


QUICK = frozenset(n for n in WORKLOADS if n.startswith("digits") or n == "two layers of SmolLM2, 64x64")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.thorough) for n in WORKLOADS]
)
def test_a_plan_takes_as_long_as_before(name: str) -> None:
    model, options = WORKLOADS[name]
    compiled = compile_model(model(), until="plan", **options)
    known = dict(line.rsplit(": ", 1) for line in GOLDEN.read_text("utf-8").splitlines())
    cycles = " and ".join(f"{cycles_of(p):,.0f}" for p in compiled.plans.values())
    if os.environ.get("WAFERC_REFRESH"):
        known = {n: cycles if n == name else known.get(n, "") for n in WORKLOADS}
        GOLDEN.write_text("".join(f"{n}: {c}\n" for n, c in known.items()), encoding="utf-8")
    assert cycles == known.get(name), f"cycles, before and after: {known.get(name)}, {cycles}"
