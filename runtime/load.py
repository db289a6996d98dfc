"""Artifact or plan -> loaded program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..codegen.artifact import Artifact, InvalidArtifact, dumps, npy, read
from ..codegen.executor import make_executor
from ..codegen.tables import Tables, make_tables
from ..placement.plan import Plan
from .engine import Code, bitcode, host_lanes
from .program import Image, Port, Program, image_of


def native(tables: Tables, guard: bool = False) -> bytes:
    """Bitcode of the executor and all kernels of `tables`."""
    from ..codegen.kernels import make_module

    return bitcode(make_executor(tables.pulls, guard), make_module(tables.kernels))


def entries(plan: Plan) -> dict[str, bytes]:
    """What a run needs, as an artifact's entries."""
    tables = make_tables(plan, host_lanes())
    image = image_of(plan, tables)
    facts = {
        "inputs": [[p.name, list(p.shape), p.dtype.name] for p in image.inputs],
        "outputs": [[p.name, list(p.shape), p.dtype.name] for p in image.outputs],
        "states": [list(s) for s in image.states],
        "sram_bytes": image.sram_bytes,
        "symbols": list(image.symbols),
        "pulls": list(image.pulls),
        "host": list(tables.host),
        "sections": [tables.steps, tables.laying, tables.inputs, tables.reading],
        "regions": len(image.regions),
        "lanes": host_lanes(),
    }
    out = {
        "image.json": dumps(facts),
        "tables/words.npy": npy(tables.words),
        "tables/relocations.npy": npy(tables.relocations),
        "tables/cores.npy": npy(image.used[0]),
        "tables/used.npy": npy(image.used[1]),
        "kernels.bc": native(tables),
    }
    return out | {f"tables/region{i}.npy": npy(core) for i, core in enumerate(image.regions)}


def load(source: str | Path | Artifact, threads: int | None = None, guard: bool = False) -> Program:
    """A program ready to run. With `guard`, its tables and kernels are built again, checked and unshared.

    Raises InvalidArtifact, OSError; MemoryError when the literal SRAM of a guarded run has no room.
    """
    artifact = source if isinstance(source, Artifact) else read(source)
    if not artifact.runnable:
        raise InvalidArtifact("a plan without kernels cannot run; compile the model to a program (.wafer)")
    if guard:
        return prepare(artifact.plan(), threads, guard=True)
    facts: Any = artifact.json("image.json")
    try:
        image = Image(
            tuple(Port(n, tuple(s), np.dtype(t)) for n, s, t in facts["inputs"]),
            tuple(Port(n, tuple(s), np.dtype(t)) for n, s, t in facts["outputs"]),
            tuple((a, b) for a, b in facts["states"]),
            tuple(artifact.array(f"tables/region{i}.npy") for i in range(facts["regions"])),
            (artifact.array("tables/cores.npy"), artifact.array("tables/used.npy")),
            facts["sram_bytes"],
            Tables(
                artifact.array("tables/words.npy"),
                artifact.array("tables/relocations.npy"),
                *((int(a), int(b)) for a, b in facts["sections"]),
                (),
                (),
                tuple(facts["host"]),
            ),
            tuple(facts["symbols"]),
            tuple(facts["pulls"]),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise InvalidArtifact(f"image.json is not complete: {e!r}") from None
    return Program(image, Code(artifact.entry("kernels.bc")), artifact.constants(), threads)


def prepare(plan: Plan, threads: int | None = None, guard: bool = False) -> Program:
    """The program of a plan whose constants have values."""
    tables = make_tables(plan, host_lanes(), guard)
    return Program(image_of(plan, tables, guard), Code(native(tables, guard)), plan.graph.constants, threads)


