"""Artifact or plan -> loaded program."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..codegen.artifact.artifact import SCRIPT, Artifact, InvalidArtifact, by_entry, constants_of, read
from ..ir.op import Array
from .cache import read_entry, sources_in, write_entry
from .engine import Code, bitcode, processor
from .homes import Homes
from .image import Entry, Image, decode, encode
from .judge import judge_constants
from .play import Operator
from .ports import ports_of
from .program import Idle, Program, Staged
from .saved_script import decode_play, judge_play

if TYPE_CHECKING:
    from ..codegen.kernels.kernel import Kernel
    from ..placement.plan.plan import Plan


def load(
    source: str | Path | Artifact,
    threads: int | None = None,
    guard: bool = False,
    host: Callable[[bytes], Operator] | None = None,
) -> Program:
    """A program ready to run. With `guard`, its plans are run literally and checked.

    host: makes operators on the host of what a program holds of them (`compiler.host.operator`).

    Raises InvalidArtifact, OSError; with guard GuardViolation, and NotEnoughMemory (a MemoryError)
    when the literal SRAM has no room.
    """
    artifact = source if isinstance(source, Artifact) else read(source)
    if not artifact.runnable:
        raise InvalidArtifact("a plan without kernels cannot run; compile the model to a program (.wafer)")
    values, staged = artifact.values(), _staged(artifact, host)
    if guard or not artifact.entries:
        return _judged(prepare(artifact.plans(), threads, guard, values, staged))
    image = decode(artifact)
    if image.dot2 is not None and image.dot2 != processor().dot2:  # made on another kind of host
        return _judged(prepare(artifact.plans(), threads, False, values, staged))
    constants = artifact.constants()
    judge_constants(image.resident, constants)
    try:
        code = Code(artifact.file("kernels.bc"))
    except RuntimeError as e:
        raise InvalidArtifact(f"kernels.bc: {e}") from None
    if missing := code.missing(("call", *image.symbols)):
        raise InvalidArtifact(f"kernels.bc: no function {missing!r}")
    return _judged(_program(image, code, constants, threads, values, staged))


def _judged(program: Program) -> Program:
    """A program read from a file, whose script calls its entries as it must."""
    if program.staged is not None:
        judge_play(program.staged.play, program.entries)
    return program


def _staged(artifact: Artifact, host: Callable[[bytes], Operator] | None) -> Staged | None:
    """The program's script, if it has one."""
    if SCRIPT not in artifact.files:
        return None
    play = decode_play(artifact)
    if play.operators and host is None:
        raise InvalidArtifact(
            f"operators on the host ({', '.join(play.operators[:4])}): load it with host=, see compiler.host"
        )
    contents = [artifact.file(f"host/{i}.onnx") for i in range(len(play.operators))]
    return Staged(play, [host(content) for content in contents] if host is not None else [])


def prepare(
    plans: Plan | Mapping[str, Plan],
    threads: int | None = None,
    guard: bool = False,
    values: Mapping[str, Array] | None = None,
    staged: Staged | None = None,
) -> Program:
    """The program of a plan whose constants have values, or of several by entry. Raises as `load` with guard.

    values: of inputs that are constants. staged: the script and its host's operators. Constants and states
    of one name must be the same in all plans (see `ir.entries`).
    """
    named = by_entry(plans)
    if not named:
        return Program({}, Idle(), threads, values, staged)
    if not guard:
        image, native = _lowered(named)
        return _program(image, Code(native), constants_of(named), threads, values or {}, staged)
    from ..codegen.kernels.kernel import make_module
    from ..codegen.literal.executor import make_executor
    from ..codegen.literal.tables import make_tables
    from .guard import judge_in_place
    from .literal import Literal

    for plan in named.values():
        judge_in_place(plan)
    lowered = make_tables(named, processor())
    pulls = {p: None for made in lowered.values() for p in made.pulls}
    kernels = [k for made in lowered.values() for k in made.kernels]
    code = Code(bitcode(make_executor(tuple(pulls)), make_module(kernels)))
    ports = {name: ports_of(plan.graph) for name, plan in named.items()}
    return Program(ports, Literal(named, lowered, code), threads, values, staged)


def files(plans: Plan | Mapping[str, Plan]) -> dict[str, bytes]:
    """What a run needs, as an artifact's files."""
    if not by_entry(plans):
        return {}
    image, native = _lowered(by_entry(plans))
    return {**encode(image), "kernels.bc": native}


def _program(
    image: Image,
    code: Code,
    constants: Mapping[str, Array],
    threads: int | None,
    values: Mapping[str, Array],
    staged: Staged | None,
) -> Program:
    ports = {name: entry.ports for name, entry in image.entries.items()}
    return Program(ports, Homes(image, code, constants), threads, values, staged)


def _lowered(plans: Mapping[str, Plan]) -> tuple[Image, bytes]:
    """The image of a program's plans, and bitcode of all that it calls."""
    from ..codegen.host.calls import make_calls

    resident, calls, kernels = make_calls(plans, processor())
    dot2 = processor().dot2 if any(k.op.paired for k in kernels) else None
    made = {name: Entry(ports_of(plan.graph), calls[name]) for name, plan in plans.items()}
    image = Image(made, resident, tuple(k.symbol for k in kernels), dot2)
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
        from ..codegen.host.caller import make_caller
        from ..codegen.kernels.kernel import make_module

        made = bitcode(make_caller(), make_module(kernels))
        write_entry(name, made)
    return made
