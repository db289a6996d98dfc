"""What a program needs to run, free of addresses, and its form in an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen.artifact import Artifact, InvalidArtifact, dumps, npy
from ..codegen.records import GRANULE, Base, Lowered, MoveWords, Record, Section, Tables

if TYPE_CHECKING:
    from ..placement.plan import Plan

SECTIONS = ("laying", "poisoning", "inputs", "steps", "reading")
MOST_CORES = 1 << 24  # of a wafer


@dataclass(frozen=True)
class Port:
    """A graph input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class StepName:
    """What a message calls a step: its ONNX node, its op, its region, the tensors of its operands."""

    node: str
    op: str
    region: int
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """A program's ports, states, memory map, tables and symbols.

    width: of the wafer; core number = y * width + x. regions: for each region the physical core
    numbers, int32 [rows, columns]. cores, used: numbers of the cores in use and the bytes of SRAM
    used on each, int64 [n]. names: by step number; only guard tells them.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[tuple[str, str], ...]
    width: int
    sram_bytes: int
    regions: tuple[Any, ...]
    cores: Any
    used: Any
    tables: Tables
    symbols: tuple[str, ...]
    pulls: tuple[str, ...]
    guard: bool = False
    names: tuple[StepName, ...] = ()

    @property
    def pitch(self) -> int:
        """Bytes from core to core in the literal SRAM of a guarded run."""
        return -(-self.sram_bytes // GRANULE) * GRANULE

    def check(self) -> None:
        """Raises InvalidArtifact unless tables, sections and cores are consistent.

        Guards against an artifact made of parts that do not belong together. Its kernels are native
        code: a program is run only if its source is trusted.
        """
        _judge_cores(self)
        _judge_relocations(self)
        for name in SECTIONS:
            _judge_section(self, name, getattr(self.tables, name))


def image_of(plan: Plan, lowered: Lowered, guard: bool = False) -> Image:
    """The image of a plan with its tables."""
    graph = plan.graph

    def ports(names: Sequence[str]) -> tuple[Port, ...]:
        tensors = [graph.tensors[n] for n in names]
        return tuple(Port(t.name, t.shape, np.dtype(t.dtype.numpy)) for t in tensors)

    used = plan.sram().ravel()
    numbers = [r.core.ravel() for r in plan.regions]
    cores = np.unique(np.concatenate(numbers)).astype(np.int64) if numbers else np.zeros(0, np.int64)
    return Image(
        ports(graph.inputs),
        ports(graph.outputs),
        graph.states,
        plan.wafer.width,
        plan.wafer.sram_bytes,
        tuple(r.core for r in plan.regions),
        cores,
        used[cores],
        lowered.tables,
        tuple(k.symbol for k in lowered.kernels),
        tuple(p.symbol for p in lowered.pulls),
        guard,
        tuple(StepName(s.name, s.op.name, s.region, tuple(o.tensor for o in s.operands)) for s in plan.steps),
    )


def encode(image: Image) -> dict[str, bytes]:
    """An unguarded image as entries of an artifact."""
    t = image.tables
    facts = {
        "inputs": [[p.name, list(p.shape), p.dtype.name] for p in image.inputs],
        "outputs": [[p.name, list(p.shape), p.dtype.name] for p in image.outputs],
        "states": [list(s) for s in image.states],
        "width": image.width,
        "sram_bytes": image.sram_bytes,
        "symbols": list(image.symbols),
        "pulls": list(image.pulls),
        "host": [list(h) for h in t.host],
        "laid": list(t.laid),
        "sections": {name: list(getattr(t, name)) for name in SECTIONS},
        "work": t.work,
        "regions": len(image.regions),
    }
    out = {
        "image.json": dumps(facts),
        "tables/words.npy": npy(t.words),
        "tables/relocations.npy": npy(t.relocations),
        "tables/cores.npy": npy(image.cores),
        "tables/used.npy": npy(image.used),
    }
    return out | {f"tables/region{i}.npy": npy(core) for i, core in enumerate(image.regions)}


def decode(artifact: Artifact) -> Image:
    """The image in an artifact, checked. Raises InvalidArtifact."""
    facts: Any = artifact.json("image.json")
    try:
        sections: Mapping[str, Any] = facts["sections"]
        tables = Tables(
            artifact.array("tables/words.npy", np.int64, 1),
            artifact.array("tables/relocations.npy", np.int64, 2),
            *(_section(sections[name]) for name in SECTIONS),
            host=tuple((_kind(kind), str(name)) for kind, name in facts["host"]),
            laid=tuple(map(str, facts["laid"])),
            work=int(facts["work"]),
        )
        image = Image(
            _ports(facts["inputs"]),
            _ports(facts["outputs"]),
            tuple((str(a), str(b)) for a, b in facts["states"]),
            int(facts["width"]),
            int(facts["sram_bytes"]),
            tuple(artifact.array(f"tables/region{i}.npy", np.int32, 2) for i in range(facts["regions"])),
            artifact.array("tables/cores.npy", np.int64, 1),
            artifact.array("tables/used.npy", np.int64, 1),
            tables,
            tuple(map(str, facts["symbols"])),
            tuple(map(str, facts["pulls"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        if isinstance(e, InvalidArtifact):
            raise
        raise InvalidArtifact(f"image.json is not complete: {e!r}") from None
    image.check()
    return image


def _ports(data: Any) -> tuple[Port, ...]:
    out = tuple(Port(str(n), tuple(int(d) for d in shape), np.dtype(str(t))) for n, shape, t in data)
    for p in out:
        size = 1
        for d in p.shape:
            size *= d
        if p.dtype.kind not in "fiub" or min(p.shape, default=0) < 0 or size > 1 << 40:
            raise InvalidArtifact(f"image.json: {p.name!r} is {p.dtype}{list(p.shape)}")
    return out


def _section(data: Any) -> Section:
    offset, count = data
    return int(offset), int(count)


def _kind(kind: Any) -> Any:
    if kind not in ("constant", "input", "output"):
        raise InvalidArtifact(f"image.json: a host buffer of kind {kind!r}")
    return kind


def _judge_cores(image: Image) -> None:
    if len(image.cores) != len(image.used) or (np.diff(image.cores) <= 0).any() or image.width < 1:
        raise InvalidArtifact("tables/cores.npy does not name each core in use once, in order")
    if len(image.cores) and (image.cores[0] < 0 or image.cores[-1] >= MOST_CORES):
        raise InvalidArtifact(f"tables/cores.npy: a core number outside 0 to {MOST_CORES}")
    if not 0 <= image.sram_bytes < 1 << 32 or (
        len(image.used) and not 0 <= image.used.min() <= image.used.max() <= image.sram_bytes
    ):
        raise InvalidArtifact(f"tables/used.npy: a core uses more than its {image.sram_bytes} bytes")
    for i, core in enumerate(image.regions):
        if not np.isin(core, image.cores).all():
            raise InvalidArtifact(f"tables/region{i}.npy: a core that is not in use")
    known = {
        "constant": None,
        "input": {p.name for p in image.inputs},
        "output": {p.name for p in image.outputs},
    }
    for kind, name in image.tables.host:
        names = known[kind]
        if names is not None and name not in names:
            raise InvalidArtifact(f"image.json: {kind} {name!r} is no {kind} of the program")
    inputs = {p.name for p in image.inputs}
    if {*image.tables.laid} != inputs or len(image.tables.laid) != image.tables.inputs[1]:
        raise InvalidArtifact("image.json: not every input is laid once")
    if not {past for past, _ in image.states} <= inputs:
        raise InvalidArtifact("image.json: a state that is no input")


def _judge_relocations(image: Image) -> None:
    t = image.tables
    r = t.relocations
    if r.shape[1] != 3:
        raise InvalidArtifact(f"tables/relocations.npy has {r.shape[1]} columns, not 3")
    at, kind, value = r.T
    most = {
        Base.WORDS: 1,
        Base.KERNEL: len(image.symbols),
        Base.PULL: len(image.pulls),
        Base.REGION: len(image.regions),
        Base.HOST: len(t.host),
        Base.WATCH: int(image.guard),
    }
    limits = np.array([most[b] for b in Base], np.int64)
    if len(r) and not (
        0 <= at.min() <= at.max() < len(t.words) and 0 <= kind.min() <= kind.max() < len(limits)
    ):
        raise InvalidArtifact(f"tables/relocations.npy leaves the {len(t.words)} words")
    if (value < 0).any() or (value >= limits[kind]).any() or len(np.unique(at)) != len(at):
        raise InvalidArtifact("tables/relocations.npy names a kernel, region or buffer that is not there")
    inside = t.words[at[kind == Base.WORDS]]
    if (inside < 0).any() or (inside >= 8 * len(t.words)).any() or (inside % 8).any():
        raise InvalidArtifact("tables/words.npy: an offset leaves the table")


def _judge_section(image: Image, name: str, section: Section) -> None:
    """Records lie inside the words, their grids inside their regions, their tables inside the words."""
    offset, count = section
    words = image.tables.words
    if min(offset, count) < 0 or offset + count * Record.SIZE > len(words):
        raise InvalidArtifact(f"image.json: section {name!r} leaves the {len(words)} words")
    if not count:
        return
    r = words[offset : offset + count * Record.SIZE].reshape(count, Record.SIZE)
    positive = [
        Record.COLUMNS,
        Record.ROWS,
        Record.STEPS,
        Record.AXES,
        Record.OPERANDS,
        Record.MOVES,
        Record.FILLS,
    ]
    positive += [Record.START, Record.COLUMN_PITCH, Record.ROW_PITCH]
    if (r[:, positive] < 0).any() or (r[:, positive] >= 1 << 31).any():
        raise InvalidArtifact(f"tables/words.npy: a record of {name!r} has a negative or huge count")
    last = (r[:, Record.COLUMNS] - 1) * r[:, Record.COLUMN_PITCH] + (r[:, Record.ROWS] - 1) * r[
        :, Record.ROW_PITCH
    ]
    moves_end = r[:, Record.MOVE_TABLE] // 8 + r[:, Record.MOVES] * MoveWords.SIZE
    if (moves_end > len(words)).any():
        raise InvalidArtifact(f"tables/words.npy: a record of {name!r} has moves outside the table")
    sizes = np.zeros(len(words), np.int64)  # cores in the table that a word points at
    at, kind, value = image.tables.relocations.T
    regions = np.array([r.size for r in image.regions], np.int64)
    chosen = kind == Base.REGION
    sizes[at[chosen]] = regions[value[chosen]]
    sizes[at[kind == Base.HOST]] = 1
    over = np.flatnonzero(
        r[:, Record.START] + last >= sizes[offset + np.arange(count) * Record.SIZE + Record.BASES]
    )
    if len(over):
        raise InvalidArtifact(f"tables/words.npy: record {over[0]} of {name!r} leaves its region")
