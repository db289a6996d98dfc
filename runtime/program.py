"""A loaded program: the cores' SRAM as host memory, and calls that run on it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..codegen.records import Base, Record, Section, WatchWords
from ..ir.op import Array
from .engine import Code
from .image import Image, Port
from .sram import Arena, arena
from .workers import Workers, usable

__all__ = ["InputError", "Port", "Program"]

MOST_THREADS = 64
LITTLE_WORK = 8_000_000  # elements per call below which a second thread costs more than it saves


class InputError(ValueError):
    """Inputs that a program cannot take; the message says which, and the two facts that disagree."""


class Program:
    """A program in memory. `run` may be called any number of times; state stays between calls.

    threads: host threads, of a call that does not say; None: one, or as many as there are processors
    where a call has the work for them. Results do not depend on it. Calls from several threads take turns.
    """

    def __init__(
        self, image: Image, code: Code, constants: Mapping[str, Array], threads: int | None = None
    ) -> None:
        self.image = image
        enough = image.tables.work >= LITTLE_WORK
        self.threads = _limited(threads or (usable() if enough else 1))
        self._code, self._execute = code, code.executor()
        self._arena = arena(image)
        self._watches = _watches(self._arena) if image.guard else np.zeros((1, WatchWords.SIZE), np.int64)
        self._regions = [np.ascontiguousarray(self._arena.base[core.ravel()]) for core in image.regions]
        self._cells = np.zeros(max(1, len(image.tables.host)), np.int64)
        self._cell = {buffer: i for i, buffer in enumerate(image.tables.host)}
        self._words = _relocated(image, code, self._regions, self._cells, self._watches)
        self._arrived = np.zeros(8, np.int64)  # a cache line of its own
        self._workers = Workers()
        self._lock = threading.Lock()
        self._ports = {p.name: p for p in image.inputs}
        self._state_inputs = frozenset(past for past, _ in image.states)
        with self._lock:
            self._poison()
            self._lay_constants(constants)
            self._reset()

    @property
    def state_inputs(self) -> frozenset[str]:
        """Graph inputs that keep their value between calls."""
        return self._state_inputs

    def run(self, inputs: Mapping[str, Any], threads: int | None = None) -> dict[str, Array]:
        """Outputs by name for `inputs` by name. A state may be left out: it keeps its value.

        Raises InputError for a missing or unknown name, or a wrong shape or type: nothing ran. When built
        with guard, raises GuardViolation if a rule was broken; states then hold what the run left.
        """
        with self._lock:
            given = self._accepted(inputs)
            out = {p.name: np.zeros(p.shape, p.dtype) for p in self.image.outputs}
            self._poison()
            self._lay(given)
            for name, array in out.items():
                self._point(("output", name), array)
            self._section(self.image.tables.steps, _limited(threads) if threads else self.threads)
            self._section(self.image.tables.reading, 1)
            self._judge()
            return out

    def reset(self) -> None:
        """Sets all states to zero."""
        with self._lock:
            self._reset()

    def _accepted(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The inputs as dense arrays of the right shape and type."""
        for name in inputs:
            if name not in self._ports:
                raise InputError(f"no input {name!r}; inputs are {', '.join(map(repr, self._ports))}")
        given: dict[str, Array] = {}
        for name, port in self._ports.items():
            if name not in inputs:
                if name in self._state_inputs:
                    continue
                raise InputError(f"input {name!r} is missing: {port.dtype}{list(port.shape)}")
            array = np.asarray(inputs[name])
            if array.shape != port.shape:
                raise InputError(
                    f"input {name!r} has shape {list(array.shape)}, compiled for {list(port.shape)}"
                )
            if array.dtype != port.dtype:
                raise InputError(f"input {name!r} has type {array.dtype}, the program takes {port.dtype}")
            given[name] = np.ascontiguousarray(array)
        return given

    # -- sections ------------------------------------------------------------------------
    def _lay_constants(self, constants: Mapping[str, Array]) -> None:
        """Lays the constants into SRAM, where they stay."""
        kept = {
            name: np.ascontiguousarray(constants[name]) for kind, name in self._cell if kind == "constant"
        }
        for name, array in kept.items():
            self._point(("constant", name), array)
        self._section(self.image.tables.laying, self.threads)

    def _reset(self) -> None:
        ports = (self._ports[name] for name in sorted(self._state_inputs))
        self._lay({p.name: np.zeros(p.shape, p.dtype) for p in ports})

    def _lay(self, given: Mapping[str, Array]) -> None:
        """Lays those inputs into the SRAM of their owners."""
        start, _ = self.image.tables.inputs
        for i, name in enumerate(self.image.tables.laid):
            if name in given:
                self._point(("input", name), given[name])
                self._section((start + i * Record.SIZE, 1), 1)

    def _poison(self) -> None:
        """Guard: nothing of an earlier call is left, but constants and states."""
        self._section(self.image.tables.poisoning, 1)

    def _point(self, buffer: tuple[Any, str], array: Array) -> None:
        """The native side finds the host's buffer at `array`, which must outlive the section that uses it."""
        self._cells[self._cell[buffer]] = array.ctypes.data

    def _section(self, section: Section, threads: int) -> None:
        offset, count = section
        if not count:
            return
        at, arrived = self._words.ctypes.data + 8 * offset, self._arrived.ctypes.data
        if threads == 1:
            self._execute(at, count, 0, 1, arrived)
            return
        self._arrived[:] = 0
        execute = self._execute
        self._workers.run(lambda k: execute(at, count, k, threads, arrived), threads)

    def _judge(self) -> None:
        if self.image.guard and self._watches[:, WatchWords.CODE].any():
            from .guard import violation

            found = violation(self.image, self._watches)
            self._watches[:] = _watches(self._arena)
            if found is not None:
                raise found


def _limited(threads: int) -> int:
    """Threads that may meet at a barrier: each needs a processor."""
    return max(1, min(threads, usable(), MOST_THREADS))


def _watches(memory: Arena) -> Any:
    """A watch record for each host thread, nothing found yet."""
    out = np.zeros((MOST_THREADS, WatchWords.SIZE), np.int64)
    out[:, WatchWords.ARENA], out[:, WatchWords.BYTES] = memory.start, memory.bytes
    out[:, WatchWords.TAGS] = memory.tags.ctypes.data
    return out


def _relocated(image: Image, code: Code, regions: Sequence[Any], cells: Any, watches: Any) -> Any:
    """The tables' words with addresses in place."""
    words = image.tables.words.copy()
    at, kind, value = image.tables.relocations.T
    addresses = {
        Base.KERNEL: np.array(code.addresses(image.symbols), np.int64),
        Base.PULL: np.array(code.addresses(image.pulls), np.int64),
        Base.REGION: np.array([r.ctypes.data for r in regions], np.int64),
        Base.HOST: cells.ctypes.data + 8 * np.arange(len(cells), dtype=np.int64),
        Base.WATCH: np.array([watches.ctypes.data], np.int64),
    }
    for base, table in addresses.items():
        chosen = kind == base
        words[at[chosen]] = table[value[chosen]]
    words[at[kind == Base.WORDS]] += words.ctypes.data
    return words
