"""A loaded program: the cores' SRAM as host memory, and calls that run on it."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.guard import POISON, RECORD_WORDS
from ..codegen.tables import Base, Tables
from ..ir.op import Array
from ..placement.plan import Plan
from .engine import Code

PAGE = 4096


@dataclass(frozen=True)
class Port:
    """A graph input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class InputError(ValueError):
    """Inputs that a program cannot take; the message says which, and the two facts that disagree."""


class GuardViolation(RuntimeError):
    """A kernel or a move broke the rules of a core's SRAM."""


@dataclass(frozen=True)
class Image:
    """What a program needs to run: its ports, states, memory map, tables and code.

    regions: for each region the physical core numbers, int32 [rows, columns]. used: bytes of
    SRAM in use by core number, for the compact arena.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[tuple[str, str], ...]
    regions: tuple[Any, ...]
    used: tuple[Any, Any]  # (core numbers, bytes)
    sram_bytes: int
    tables: Tables
    symbols: tuple[str, ...]
    pulls: tuple[str, ...]
    guard: bool = False
    names: tuple[tuple[str, str], ...] = ()  # (step name, op), by step number


class Program:
    """A program in memory. `run` may be called any number of times; state stays between calls.

    threads: host threads; results do not depend on it.
    """

    def __init__(self, image: Image, code: Code, constants: Mapping[str, Array], threads: int | None = None) -> None:
        self.image = image
        self.threads = threads or len(os.sched_getaffinity(0))
        self._code = code
        self._execute: Any = code.executor()
        self._memory, bases = _arena(image)
        tables = image.tables
        self._error = np.zeros(max(RECORD_WORDS, 8), np.int64)
        self._host = [np.zeros(0)] * len(tables.host)
        self._cells = np.zeros(max(1, len(tables.host)), np.int64)
        self._regions = [np.ascontiguousarray(bases[core.ravel()]) for core in image.regions]
        self._words = _relocate(tables, code, image, self._regions, self._cells, self._error)
        self._arrived = np.zeros(8, np.int64)
        self._staging: dict[str, Array] = {}
        for port in (*image.inputs, *image.outputs):
            kind = "in" if port in image.inputs else "out"
            self._staging[f"{kind}:{port.name}"] = np.zeros(port.shape, port.dtype)
        for port in image.outputs:
            self._staging[f"out:{port.name}"] = np.zeros(port.shape, port.dtype)
        self._lay(constants)
        self._lock = threading.Lock()

    # -- calls -----------------------------------------------------------------------
    @property
    def state_inputs(self) -> frozenset[str]:
        return frozenset(past for past, _ in self.image.states)

    def run(self, inputs: Mapping[str, Any], threads: int | None = None) -> dict[str, Array]:
        """Outputs by name for `inputs` by name. A state may be left out: it keeps its value.

        Raises InputError for a missing or unknown name, or a wrong shape or type, and
        GuardViolation when built with guard and a rule is broken.
        """
        with self._lock:
            given = self._accept(inputs)
            for name, array in given.items():
                self._staging[f"in:{name}"][...] = array
            self._section(self.image.tables.inputs, 1, skip=self.state_inputs - set(given))
            self._section(self.image.tables.steps, threads or self.threads)
            self._section(self.image.tables.reading, 1)
            self._raise_violation()
            return {p.name: self._staging[f"out:{p.name}"].copy() for p in self.image.outputs}

    def reset(self) -> None:
        """Sets all states to zero."""
        with self._lock:
            for name in self.state_inputs:
                self._staging[f"in:{name}"][...] = 0
            others = {p.name for p in self.image.inputs} - self.state_inputs
            self._section(self.image.tables.inputs, 1, skip=frozenset(others))

    def _accept(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        ports = {p.name: p for p in self.image.inputs}
        if unknown := [n for n in inputs if n not in ports]:
            raise InputError(f"no input {unknown[0]!r}; inputs are {', '.join(map(repr, ports))}")
        given: dict[str, Array] = {}
        for name, port in ports.items():
            if name not in inputs:
                if name in self.state_inputs:
                    continue
                raise InputError(f"input {name!r} is missing: {port.dtype}{list(port.shape)}")
            array = np.asarray(inputs[name])
            if array.shape != port.shape:
                raise InputError(f"input {name!r} has shape {list(array.shape)}, compiled for {list(port.shape)}")
            if array.dtype != port.dtype:
                raise InputError(f"input {name!r} has type {array.dtype}, the program takes {port.dtype}")
            given[name] = array
        return given

    # -- native ------------------------------------------------------------------------
    def _lay(self, constants: Mapping[str, Array]) -> None:
        """Points the host cells at their buffers and lays the constants into SRAM."""
        for i, name in enumerate(self.image.tables.host):
            kind, _, tensor = name.partition(":")
            self._host[i] = np.ascontiguousarray(constants[tensor]) if kind == "const" else self._staging[name]
            self._cells[i] = self._host[i].ctypes.data
        self._section(self.image.tables.laying, self.threads)
        for i, name in enumerate(self.image.tables.host):
            if name.startswith("const:"):
                self._host[i] = np.zeros(0)
                self._cells[i] = 0
        self.reset_unlocked()

    def reset_unlocked(self) -> None:
        """States start at zero."""
        for name in self.state_inputs:
            self._staging[f"in:{name}"][...] = 0
        others = {p.name for p in self.image.inputs} - self.state_inputs
        self._section(self.image.tables.inputs, 1, skip=frozenset(others))

    def _section(self, section: tuple[int, int], threads: int, skip: frozenset[str] = frozenset()) -> None:
        offset, count = section
        if not count:
            return
        from ..codegen.executor import Record

        at = self._words.ctypes.data + 8 * offset
        if skip or section == self.image.tables.inputs:
            for i, port in enumerate(self._input_order()):
                if port not in skip:
                    self._execute(at + 8 * Record.SIZE * i, 1, 0, 1, self._arrived.ctypes.data)
            return
        threads = max(1, min(threads, 64))
        self._arrived[:] = 0
        if threads == 1:
            self._execute(at, count, 0, 1, self._arrived.ctypes.data)
            return
        others = [
            threading.Thread(target=self._pinned, args=(at, count, k, threads), daemon=True)
            for k in range(1, threads)
        ]
        for t in others:
            t.start()
        self._execute(at, count, 0, threads, self._arrived.ctypes.data)
        for t in others:
            t.join()

    def _pinned(self, at: int, count: int, number: int, threads: int) -> None:
        """One worker's share, on a processor of its own: two on one take turns at the barrier."""
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) >= threads:
            os.sched_setaffinity(0, {usable[number % len(usable)]})
        self._execute(at, count, number, threads, self._arrived.ctypes.data)

    def _input_order(self) -> list[str]:
        return [name for name in self.image.tables.host if name.startswith("in:")] and [
            n.partition(":")[2] for n in self.image.tables.host if n.startswith("in:")
        ]

    def _raise_violation(self) -> None:
        if not self.image.guard or not self._error[0]:
            return
        code, operand, address, place = (int(v) for v in self._error[:4])
        self._error[:] = 0
        what = {1: "read outside its buffer", 2: "wrote outside its buffer", 3: "read a stale value"}.get(code, "?")
        step, core = (place - 1) >> 32, (place - 1) & 0xFFFFFFFF
        name, op = self.image.names[step] if 0 <= step < len(self.image.names) else ("?", "?")
        who = "a move of" if operand < 0 else f"operand {operand} of"
        raise GuardViolation(f"{who} {name!r} ({op}) {what} on core {core} at address {address:#x}")


def _arena(image: Image) -> tuple[Any, Any]:
    """(memory, int64 address of each physical core's SRAM).

    With guard the literal array of cores, reserved and poisoned; else one compact range per core.
    """
    cores, used = image.used
    highest = int(cores.max(initial=0)) + 1
    addresses = np.zeros(highest, np.int64)
    if image.guard:
        size = highest * image.sram_bytes
        span = np.arange(highest, dtype=np.int64) * image.sram_bytes
    else:
        rounded = (used + 63) // 64 * 64
        size = int(rounded.sum())
        span = np.zeros(highest, np.int64)
        span[cores] = np.cumsum(rounded) - rounded
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    memory = mmap.mmap(-1, max(size, PAGE), flags=flags)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    addresses[:] = start + span
    if image.guard:
        view = np.frombuffer(memory, np.uint8)
        for c in cores:
            view[span[c] : span[c] + image.sram_bytes] = POISON
    return memory, addresses


def _relocate(
    tables: Tables, code: Code, image: Image, regions: Sequence[Any], cells: Any, error: Any
) -> Any:
    """The tables' words with addresses in place."""
    words = tables.words.copy()
    at, kind, value = tables.relocations.T if len(tables.relocations) else np.zeros((3, 0), np.int64)
    kernels = np.array(code.addresses(image.symbols) or [0], np.int64)
    pulls = np.array(code.addresses(image.pulls) or [0], np.int64)
    region = np.array([r.ctypes.data for r in regions] or [0], np.int64)
    cell = cells.ctypes.data + 8 * np.arange(len(cells), dtype=np.int64)
    for base, table in (
        (Base.KERNEL, kernels),
        (Base.PULL, pulls),
        (Base.REGION, region),
        (Base.HOST, cell),
    ):
        chosen = kind == base
        words[at[chosen]] = table[value[chosen]]
    words[at[kind == Base.ERROR]] = error.ctypes.data
    words[at[kind == Base.WORDS]] += words.ctypes.data
    return words


def image_of(plan: Plan, tables: Tables, guard: bool = False) -> Image:
    """The image of a plan with its tables."""
    graph = plan.graph

    def ports(names: Sequence[str]) -> tuple[Port, ...]:
        return tuple(
            Port(n, graph.tensors[n].shape, np.dtype(graph.tensors[n].dtype.numpy)) for n in names
        )

    sram = plan.sram().ravel()
    cores = np.unique(np.concatenate([r.core.ravel() for r in plan.regions])).astype(np.int64)
    return Image(
        ports(graph.inputs),
        ports(graph.outputs),
        graph.states,
        tuple(r.core for r in plan.regions),
        (cores, sram[cores]),
        plan.wafer.sram_bytes,
        tables,
        tuple(k.symbol for k in tables.kernels),
        tuple(p.symbol for p in tables.pulls),
        guard,
        tuple((s.name, s.op.name) for s in plan.steps),
    )
