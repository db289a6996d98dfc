"""The processor that kernels are made for: all of the host that machine code depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """lanes: f32 elements of a vector register. dot2: whether there is an instruction for pairs of bf16.

    ahead: whether what is read once is asked for ahead, as it comes from the main memory.
    """

    lanes: int
    dot2: bool = False
    ahead: bool = False
