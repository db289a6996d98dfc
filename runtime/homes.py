"""Running a program on homes: equal bytes of many cores are backed by the same memory."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..codegen.records import Base, Placed
from ..ir.op import Array
from .engine import Code
from .image import Image
from .workers import Workers

PAGE = 4096


class Homes:
    """The arena with a program's constants in place, and its calls."""

    def __init__(self, image: Image, code: Code, constants: Mapping[str, Array]) -> None:
        calls = image.calls
        self._calls, self._code = calls, code
        self._memory = mmap.mmap(-1, max(calls.arena, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)  # weights are more pages than there are TLB entries
        raw = np.frombuffer(self._memory, np.uint8)
        for m in calls.margins:
            kind = np.dtype(m.dtype)
            raw[m.offset : m.offset + m.elements * kind.itemsize].view(kind)[:] = m.fill
        for p in calls.constants:
            value = np.ascontiguousarray(constants[p.tensor])
            np.copyto(_strided(self._memory, p, p.offset, p.strides), _host(value, p))
        self._words = _relocated(image, code, raw.ctypes.data)
        offset, count = calls.groups
        self._workers = Workers(code, self._words.ctypes.data + 8 * offset, count)
        self._inputs = {p.tensor: (_strided(self._memory, p, p.offset, p.strides), p) for p in calls.inputs}
        self._outputs = [(p, _strided(self._memory, p, p.offset, p.strides)) for p in calls.outputs]

    def lay(self, given: Mapping[str, Array]) -> None:
        """Copies inputs (of the right shape and type) into their homes."""
        for name, array in given.items():
            home, _ = self._inputs[name]
            np.copyto(home, array)

    def call(self, threads: int) -> dict[str, Array]:
        """Runs all groups; the outputs are the caller's own arrays."""
        self._workers.run(threads if self._calls.shared else 1)
        return {p.tensor: home.copy() for p, home in self._outputs}


def _strided(memory: Any, p: Placed, offset: int, strides: tuple[int, ...]) -> Array:
    return np.ndarray(p.shape, np.dtype(p.dtype), memory, offset, strides)


def _host(value: Array, p: Placed) -> Array:
    return np.ndarray(p.shape, np.dtype(p.dtype), value, p.host_offset, p.host_strides)


def _relocated(image: Image, code: Code, arena: int) -> Any:
    """The tables' words with addresses in place."""
    words = image.calls.words.copy()
    at, kind, value = image.calls.relocations.T
    kernels = np.array(code.addresses(image.symbols), np.int64)
    chosen = kind == Base.KERNEL
    words[at[chosen]] = kernels[value[chosen]]
    words[at[kind == Base.ARENA]] += arena
    words[at[kind == Base.WORDS]] += words.ctypes.data
    return words
