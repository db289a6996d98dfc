"""Running a program on homes: equal bytes of many cores are backed by the same memory."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ..codegen.host.records import Calls, HostCopy
from ..codegen.words import Base
from ..ir.op import Array
from .engine import Code
from .image import Entry, Image
from .ports import Part
from .reports import Reports
from .sram import NotEnoughMemory
from .workers import Workers

PAGE = 4096


class Homes:
    """The arena with a program's constants in place, and the calls of its entries."""

    def __init__(self, image: Image, code: Code, constants: Mapping[str, Array]) -> None:
        kept = image.resident
        try:
            memory = mmap.mmap(-1, max(kept.arena, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as e:
            raise NotEnoughMemory(f"{kept.arena:,} bytes for a program's tensors: {e.strerror}") from None
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)  # weights are more pages than there are TLB entries
        raw = np.frombuffer(memory, np.uint8)
        for m in kept.margins:
            kind = np.dtype(m.dtype)
            raw[m.offset : m.offset + m.elements * kind.itemsize].view(kind)[:] = m.fill
        for p in kept.constants:
            value = np.ascontiguousarray(constants[p.tensor])
            np.copyto(_home(memory, p), _host(value, p))
        self._memory = memory  # the words of its entries hold addresses in it
        kernels = np.array(code.addresses(image.symbols), np.int64)
        workers = Workers(code)
        self._entries = {
            name: _Entry(entry, memory, raw.ctypes.data, kernels, workers)
            for name, entry in image.entries.items()
        }

    def lay(self, entry: str, given: Mapping[str, Array]) -> None:
        """Copies inputs (of the right shape and type) into their homes, or uses them where they are."""
        self._entries[entry].lay(given)

    def read(self, entry: str, parts: Mapping[str, Part]) -> dict[str, Array]:
        """Copies of parts of states."""
        return {name: self._entries[entry].states[name][part].copy() for name, part in parts.items()}

    def write(self, entry: str, parts: Mapping[str, tuple[Part, Array]]) -> None:
        """Changes parts of states where they lie."""
        for name, (part, value) in parts.items():
            self._entries[entry].states[name][part] = value

    def call(self, entry: str, threads: int) -> dict[str, Array]:
        """Runs all groups of an entry; the outputs are the caller's own arrays. Raises InvalidIndex."""
        return self._entries[entry].call(threads)


class _Entry:
    """One entry's calls, on the arena at an address."""

    def __init__(self, entry: Entry, memory: mmap.mmap, arena: int, kernels: Any, workers: Workers) -> None:
        self._calls, self._workers, self._length = entry.calls, workers, entry.ports.length
        calls = entry.calls
        self._reports = Reports(calls.judged)
        self._words = _relocated(calls, kernels, arena, self._reports)
        self._inputs = {p.tensor: _home(memory, p) for p in calls.inputs if p.tensor not in calls.bound}
        self._outputs = {p.tensor: _home(memory, p) for p in calls.outputs if p.tensor not in calls.bound}
        self.states = {past: self._inputs[past] for past, _ in entry.ports.states}
        self._bound = _bound(calls, self._words, arena)
        self._held: dict[str, Array] = {}  # the caller's arrays that the words point at

    def lay(self, given: Mapping[str, Array]) -> None:
        if self._length is not None and self._length.input in given:
            self._fill(int(given[self._length.input]) + self._length.added)
        for name, array in given.items():
            if name in self._bound:
                self._bind(name, array)
            else:
                np.copyto(self._inputs[name], array)

    def call(self, threads: int) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for p in self._calls.outputs:
            if p.tensor in self._bound:
                out[p.tensor] = np.empty(p.shape, np.dtype(p.dtype))
                self._bind(p.tensor, out[p.tensor])
        offset, count = self._calls.groups
        start = self._words.ctypes.data + 8 * offset
        self._workers.run(start, count, threads if self._calls.shared else 1)
        self._held.clear()
        self._reports.check()
        for name, home in self._outputs.items():
            out[name] = home.copy()
        return {p.tensor: out[p.tensor] for p in self._calls.outputs}

    def _fill(self, end: int) -> None:
        """Cuts the calls that read caches to the positions before `end`; one iteration is left of each."""
        word, whole, first, aside = self._calls.fills.T
        here = np.where(aside, np.where(first < end, whole, 1), np.clip(end - first, 1, whole))
        self._words[word] = here

    def _bind(self, name: str, array: Array) -> None:
        """Points the calls' addresses in a home at the same elements of an array."""
        at, offsets = self._bound[name]
        self._words[at] = offsets + array.ctypes.data
        self._held[name] = array


def _bound(calls: Calls, words: Any, arena: int) -> dict[str, tuple[Any, Any]]:
    """For each bound tensor the words that hold addresses in its home, and how far in they are.

    Homes of bound tensors are nobody else's in this entry, and a call starts at an element of each of its
    tensors, so the address says whose it is.
    """
    at, kind, _ = calls.relocations.T
    own = at[kind == Base.ARENA]
    addresses = words[own] - arena
    out: dict[str, tuple[Any, Any]] = {}
    for p in (*calls.inputs, *calls.outputs):
        if p.tensor in calls.bound:
            bytes_ = np.dtype(p.dtype).itemsize * prod(p.shape)
            inside = (addresses >= p.offset) & (addresses < p.offset + bytes_)
            out[p.tensor] = own[inside], addresses[inside] - p.offset
    return out


def _home(memory: mmap.mmap, p: HostCopy) -> Array:
    return np.ndarray(p.shape, np.dtype(p.dtype), memory, p.offset, p.strides)


def _host(value: Array, p: HostCopy) -> Array:
    return np.ndarray(p.shape, np.dtype(p.dtype), value, p.host_offset, p.host_strides)


def _relocated(calls: Calls, kernels: Any, arena: int, reports: Reports) -> Any:
    """The tables' words with addresses in place."""
    words = calls.words.copy()
    at, kind, value = calls.relocations.T
    chosen = kind == Base.KERNEL
    words[at[chosen]] = kernels[value[chosen]]
    words[at[kind == Base.ARENA]] += arena
    chosen = kind == Base.REPORT
    words[at[chosen]] = reports.addresses()[value[chosen]]
    words[at[kind == Base.WORDS]] += words.ctypes.data
    return words
