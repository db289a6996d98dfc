"""Artifact or plan -> loaded program."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..codegen.artifact import Artifact, InvalidArtifact, read
from .cache import read_entry, sources_in, write_entry
from .engine import Code, bitcode, host_dot2, host_lanes
from .homes import Homes
from .image import Image, decode, encode
from .judge import judge_constants
from .ports import ports_of
from .program import Program

if TYPE_CHECKING:
    from ..codegen.kernels import Kernel
    from ..placement.plan import Plan


def load(source: str | Path | Artifact, threads: int | None = None, guard: bool = False) -> Program:
    """A program ready to run. With `guard`, its plan is run literally and checked.

    Raises InvalidArtifact, OSError; with guard GuardViolation, and NotEnoughMemory (a MemoryError)
    when the literal SRAM has no room.
    """
    artifact = source if isinstance(source, Artifact) else read(source)
    if not artifact.runnable:
        raise InvalidArtifact("a plan without kernels cannot run; compile the model to a program (.wafer)")
    if guard:
        return prepare(artifact.plan(), threads, guard=True)
    image = decode(artifact)
    if image.dot2 not in (None, host_dot2()):  # made on another kind of host
        return prepare(artifact.plan(), threads)
    constants = artifact.constants()
    judge_constants(image.calls, constants)
    try:
        code = Code(artifact.entry("kernels.bc"))
    except RuntimeError as e:
        raise InvalidArtifact(f"kernels.bc: {e}") from None
    if missing := code.missing(("call", *image.symbols)):
        raise InvalidArtifact(f"kernels.bc: no function {missing!r}")
    return Program(image.ports, Homes(image, code, constants), threads)


def prepare(plan: Plan, threads: int | None = None, guard: bool = False) -> Program:
    """The program of a plan whose constants have values. Raises as `load` with guard."""
    if not guard:
        image, native = _lowered(plan)
        return Program(image.ports, Homes(image, Code(native), plan.graph.constants), threads)
    from ..codegen.executor import make_executor
    from ..codegen.kernels import make_module
    from ..codegen.tables import make_tables
    from .guard import judge_in_place
    from .literal import Literal

    judge_in_place(plan)
    lowered = make_tables(plan, host_lanes(), host_dot2())
    code = Code(bitcode(make_executor(lowered.pulls), make_module(lowered.kernels)))
    return Program(ports_of(plan.graph), Literal(plan, lowered, code), threads)


def entries(plan: Plan) -> dict[str, bytes]:
    """What a run needs, as an artifact's entries."""
    image, native = _lowered(plan)
    return {**encode(image), "kernels.bc": native}


def _lowered(plan: Plan) -> tuple[Image, bytes]:
    """The image of a plan, and bitcode of all that it calls."""
    from ..codegen.calls import make_calls

    calls, kernels = make_calls(plan, host_lanes(), host_dot2())
    dot2 = host_dot2() if any(k.op.paired for k in kernels) else None
    image = Image(ports_of(plan.graph), calls, tuple(k.symbol for k in kernels), dot2)
    return image, _native(kernels)


def _native(kernels: Sequence[Kernel]) -> bytes:
    """Bitcode of the kernels and of what calls them, kept for programs that need the same."""
    import llvmlite

    from .. import codegen, ir

    named = [
        *sorted(k.digest for k in kernels),
        sources_in(*ir.__path__, *codegen.__path__),
        llvmlite.__version__,
    ]
    name = hashlib.sha256("\0".join(named).encode()).hexdigest() + ".bc"
    made = read_entry(name)
    if made is None:
        from ..codegen.caller import make_caller
        from ..codegen.kernels import make_module

        made = bitcode(make_caller(), make_module(kernels))
        write_entry(name, made)
    return made
