"""Artifact or plan -> loaded program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..codegen.artifact import Artifact, InvalidArtifact, read
from .engine import Code, bitcode, host_lanes
from .image import decode, encode, image_of
from .program import Program

if TYPE_CHECKING:
    from ..codegen.records import Lowered
    from ..placement.plan import Plan


def load(source: str | Path | Artifact, threads: int | None = None, guard: bool = False) -> Program:
    """A program ready to run. With `guard`, its tables and kernels are built again, checked and unshared.

    Raises InvalidArtifact, OSError; with guard GuardViolation, and NotEnoughMemory (a MemoryError)
    when the literal SRAM has no room.
    """
    artifact = source if isinstance(source, Artifact) else read(source)
    if not artifact.runnable:
        raise InvalidArtifact("a plan without kernels cannot run; compile the model to a program (.wafer)")
    if guard:
        return prepare(artifact.plan(), threads, guard=True)
    image = decode(artifact)
    constants = artifact.constants()
    if missing := [n for kind, n in image.tables.host if kind == "constant" and n not in constants]:
        raise InvalidArtifact(f"weights.json: constant {missing[0]!r} is missing")
    try:
        code = Code(artifact.entry("kernels.bc"))
    except RuntimeError as e:
        raise InvalidArtifact(f"kernels.bc: {e}") from None
    if missing := code.missing(("execute", *image.symbols, *image.pulls)):
        raise InvalidArtifact(f"kernels.bc: no function {missing!r}")
    return Program(image, code, constants, threads)


def prepare(plan: Plan, threads: int | None = None, guard: bool = False) -> Program:
    """The program of a plan whose constants have values. Raises as `load` with guard."""
    from ..codegen.tables import make_tables

    if guard:
        from .guard import judge_in_place

        judge_in_place(plan)
    lowered = make_tables(plan, host_lanes(), guard)
    image = image_of(plan, lowered, guard)
    return Program(image, Code(_native(lowered, guard)), plan.graph.constants, threads)


def entries(plan: Plan) -> dict[str, bytes]:
    """What a run needs, as an artifact's entries."""
    from ..codegen.tables import make_tables

    lowered = make_tables(plan, host_lanes())
    return {**encode(image_of(plan, lowered)), "kernels.bc": _native(lowered)}


def _native(lowered: Lowered, guard: bool = False) -> bytes:
    """Bitcode of the executor and all kernels."""
    from ..codegen.executor import make_executor
    from ..codegen.kernels import make_module

    return bitcode(make_executor(lowered.pulls, guard), make_module(lowered.kernels))
