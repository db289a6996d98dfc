"""Running a plan literally, for guard: every core has its own SRAM, every move is made and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.records import GRANULE, Base, Lowered, Record, Section, Tables, WatchWords
from ..ir.op import Array
from ..placement.plan import Plan
from .engine import Code
from .guard import violation
from .ports import Port, ports_of
from .sram import Arena, arena


@dataclass(frozen=True)
class StepName:
    """What a message calls a step: its ONNX node, its op, its region, the tensors of its operands."""

    node: str
    op: str
    region: int
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Which cores are in use and what their SRAM is called.

    width: of the wafer; core number = y * width + x. regions: for each region the physical core
    numbers, int32 [rows, columns]. cores, used: numbers of the cores in use and the bytes of SRAM
    used on each, int64 [n]. names: by step number.
    """

    width: int
    sram_bytes: int
    regions: tuple[Any, ...]
    cores: Any
    used: Any
    names: tuple[StepName, ...]

    @property
    def pitch(self) -> int:
        """Bytes from core to core."""
        return -(-self.sram_bytes // GRANULE) * GRANULE


def memory_of(plan: Plan) -> Memory:
    used = plan.sram().ravel()
    numbers = [r.core.ravel() for r in plan.regions]
    cores = np.unique(np.concatenate(numbers)).astype(np.int64) if numbers else np.zeros(0, np.int64)
    names = tuple(
        StepName(s.name, s.op.name, s.region, tuple(o.tensor for o in s.operands)) for s in plan.steps
    )
    return Memory(
        plan.wafer.width,
        plan.wafer.sram_bytes,
        tuple(r.core for r in plan.regions),
        cores,
        used[cores],
        names,
    )


class Literal:
    """The cores' SRAM with a plan's constants in place, and its tables."""

    def __init__(self, plan: Plan, lowered: Lowered, code: Code) -> None:
        self.memory = memory_of(plan)
        self._tables = lowered.tables
        self._code = code
        self._execute = code.function("execute", 2)
        self._arena = arena(self.memory)
        self._watch = _watch(self._arena)
        self._regions = [np.ascontiguousarray(self._arena.base[core.ravel()]) for core in self.memory.regions]
        self._cells = np.zeros(max(1, len(self._tables.host)), np.int64)
        self._cell = {buffer: i for i, buffer in enumerate(self._tables.host)}
        self._words = self._relocated(lowered)
        self._outputs: tuple[Port, ...] = ports_of(plan.graph).outputs
        self._section(self._tables.poisoning)
        kept = {n: np.ascontiguousarray(plan.graph.constants[n]) for k, n in self._cell if k == "constant"}
        for name, array in kept.items():
            self._point(("constant", name), array)
        self._section(self._tables.laying)

    def lay(self, given: Mapping[str, Array]) -> None:
        """Lays inputs into the SRAM of their owners; nothing of an earlier call is left but states."""
        self._section(self._tables.poisoning)
        start, _ = self._tables.inputs
        for i, name in enumerate(self._tables.laid):
            if name in given:
                self._point(("input", name), given[name])
                self._section((start + i * Record.SIZE, 1))

    def call(self, threads: int) -> dict[str, Array]:
        """Runs all steps, on one thread, and reads the outputs.

        Raises GuardViolation; states then hold what the run left.
        """
        out = {p.name: np.zeros(p.shape, p.dtype) for p in self._outputs}
        for name, array in out.items():
            self._point(("output", name), array)
        self._section(self._tables.steps)
        self._section(self._tables.reading)
        if self._watch[WatchWords.CODE]:
            found = violation(self.memory, self._watch)
            self._watch[:] = _watch(self._arena)
            raise found
        return out

    def _point(self, buffer: tuple[Any, str], array: Array) -> None:
        """The native side finds the host's buffer at `array`, which must outlive the section that uses it."""
        self._cells[self._cell[buffer]] = array.ctypes.data

    def _section(self, section: Section) -> None:
        offset, count = section
        self._execute(self._words.ctypes.data + 8 * offset, count)

    def _relocated(self, lowered: Lowered) -> Any:
        """The tables' words with addresses in place."""
        t: Tables = self._tables
        words = t.words.copy()
        at, kind, value = t.relocations.T
        cells = self._cells.ctypes.data + 8 * np.arange(len(self._cells), dtype=np.int64)
        addresses: dict[Base, Sequence[int] | Any] = {
            Base.KERNEL: np.array(self._code.addresses([k.symbol for k in lowered.kernels]), np.int64),
            Base.PULL: np.array(self._code.addresses([p.symbol for p in lowered.pulls]), np.int64),
            Base.REGION: np.array([r.ctypes.data for r in self._regions], np.int64),
            Base.HOST: cells,
            Base.WATCH: np.array([self._watch.ctypes.data], np.int64),
        }
        for base, table in addresses.items():
            chosen = kind == base
            words[at[chosen]] = table[value[chosen]]
        words[at[kind == Base.WORDS]] += words.ctypes.data
        return words


def _watch(memory: Arena) -> Any:
    """A watch record, nothing found yet."""
    out = np.zeros(WatchWords.SIZE, np.int64)
    out[WatchWords.ARENA], out[WatchWords.BYTES] = memory.start, memory.bytes
    out[WatchWords.TAGS] = memory.tags.ctypes.data
    return out
