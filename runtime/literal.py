"""Running a plan literally, for guard: every core has its own SRAM, every move is made and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..codegen.literal.records import Lowered, Tables, WatchWords
from ..codegen.words import Base, Section, StepWords
from ..ir.op import Array
from ..placement.plan.plan import Plan
from .engine import Code
from .guard import steps_of, violation
from .ports import Part, ports_of
from .reports import Reports
from .sram import Arena, arena, memory_of


class Literal:
    """The cores' SRAM with a program's constants in place, and the tables of its entries."""

    def __init__(self, plans: Mapping[str, Plan], lowered: Mapping[str, Lowered], code: Code) -> None:
        self.memory = memory_of(list(plans.values()))
        self._arena = arena(self.memory)
        self._watch = _watch(self._arena)
        self._entries = {n: _Entry(p, lowered[n], code, self._arena, self._watch) for n, p in plans.items()}
        for entry in self._entries.values():
            entry.poison()
        for entry in self._entries.values():
            entry.lay_constants()

    def lay(self, entry: str, given: Mapping[str, Array]) -> None:
        """Lays inputs into the SRAM of their owners; nothing of the entry's last call is left but states."""
        self._entries[entry].lay(given)

    def read(self, entry: str, parts: Mapping[str, Part]) -> dict[str, Array]:
        """Copies of parts of states, from the SRAM of their owners."""
        own = self._entries[entry]
        return {name: own.state(name)[part].copy() for name, part in parts.items()}

    def write(self, entry: str, parts: Mapping[str, tuple[Part, Array]]) -> None:
        """Changes parts of states."""
        own, given = self._entries[entry], dict[str, Array]()
        for name, (part, value) in parts.items():
            given[name] = own.state(name)
            given[name][part] = value
        own.lay(given)

    def call(self, entry: str, threads: int) -> dict[str, Array]:
        """Runs all steps of an entry, on one thread, and reads the outputs.

        Raises GuardViolation, or InvalidIndex; states then hold what the run left.
        """
        out = self._entries[entry].call()
        if self._watch[WatchWords.CODE]:
            found = violation(self.memory, self._entries[entry].steps, self._watch)
            self._watch[:] = _watch(self._arena)
            raise found
        self._entries[entry].reports.check()
        return out


class _Entry:
    """One entry's tables, on the SRAM that all share."""

    def __init__(self, plan: Plan, lowered: Lowered, code: Code, memory: Arena, watch: Any) -> None:
        self.steps = steps_of(plan)
        self._tables, self._constants = lowered.tables, plan.graph.constants
        self._code, self._watch = code, watch
        self._execute = code.function("execute", 2)
        self._regions = [np.ascontiguousarray(memory.base[core.ravel()]) for core in self.steps.regions]
        self._cells = np.zeros(max(1, len(self._tables.host)), np.int64)
        self._cell = {buffer: i for i, buffer in enumerate(self._tables.host)}
        self.reports = Reports(lowered.tables.judged)
        self._words = self._relocated(lowered)
        self._ports = ports_of(plan.graph)

    def poison(self) -> None:
        """Leaves what does not stay to nobody."""
        self._section(self._tables.poisoning)

    def lay_constants(self) -> None:
        kept = {n: np.ascontiguousarray(self._constants[n]) for k, n in self._cell if k == "constant"}
        for name, array in kept.items():
            self._point(("constant", name), array)
        self._section(self._tables.laying)

    def lay(self, given: Mapping[str, Array]) -> None:
        self.poison()
        start, _ = self._tables.inputs
        for i, name in enumerate(self._tables.laid):
            if name in given:
                self._point(("input", name), given[name])
                self._section((start + i * StepWords.SIZE, 1))

    def state(self, name: str) -> Array:
        port = self._ports.by_name[name]
        out = np.zeros(port.shape, port.dtype)
        self._point(("output", name), out)
        start, _ = self._tables.kept
        self._section((start + self._tables.states.index(name) * StepWords.SIZE, 1))
        return out

    def call(self) -> dict[str, Array]:
        out = {p.name: np.zeros(p.shape, p.dtype) for p in self._ports.outputs}
        for name, array in out.items():
            self._point(("output", name), array)
        self._section(self._tables.steps)
        self._section(self._tables.reading)
        fixed = {n: np.array(self._constants[n]) for n in out if n in self._constants}  # on no core
        return {**out, **fixed}

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
            Base.REPORT: self.reports.addresses(),
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
