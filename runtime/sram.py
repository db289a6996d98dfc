"""The cores' SRAM as host memory: the literal array that guard uses."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen.literal.records import GRANULE

if TYPE_CHECKING:
    from ..placement.plan.plan import Plan

PAGE = 4096
RESERVE = getattr(mmap, "MAP_NORESERVE", 0)


class NotEnoughMemory(MemoryError):
    """A program's tensors, or the literal SRAM of a guarded run, need more memory than there is."""


@dataclass(frozen=True)
class Arena:
    """start: address; bytes: in all; base: int64 by core number, where its SRAM starts (0: not in use)."""

    start: int
    bytes: int
    base: Any
    memory: mmap.mmap = field(repr=False)
    tags: Any = field(repr=False)  # int32 for every GRANULE bytes


def arena(memory: Memory) -> Arena:
    """Memory for the SRAM of the cores in use, zeros. Raises NotEnoughMemory."""
    base = np.zeros(int(memory.cores.max(initial=-1)) + 1, np.int64)
    base[memory.cores] = memory.cores * memory.pitch
    size = len(base) * memory.pitch
    _enough(memory)
    reserved = _reserve(size)
    start = _address(reserved)
    base[memory.cores] += start
    return Arena(start, size, base, reserved, np.frombuffer(_reserve(size // GRANULE * 4), np.int32))


def needed(memory: Memory) -> int:
    """Bytes of memory that a guarded run touches: every core's used SRAM in whole pages, and the tags."""
    pages = -(-memory.used // PAGE) + 1
    return int((pages * PAGE).sum() * (GRANULE + 4) // GRANULE)


def available() -> int:
    """Bytes of memory that this process can still get, as far as the system tells."""
    out = os.sysconf("SC_AVPHYS_PAGES") * PAGE if "SC_AVPHYS_PAGES" in os.sysconf_names else 1 << 62
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        out = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text("ascii"))
        out = min(out, limit - int((group / "memory.current").read_text("ascii")))
    except (OSError, ValueError):
        pass
    return out


def _enough(memory: Memory) -> None:
    need, have = needed(memory), available()
    if need > have:
        raise NotEnoughMemory(
            f"the literal SRAM of {len(memory.cores):,} cores needs {need:,} bytes of memory, "
            f"{have:,} are free; try a smaller --wafer, or without --guard"
        )


def _reserve(size: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, max(size, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | RESERVE)
    except OSError as e:
        raise NotEnoughMemory(f"{size:,} bytes of address space for SRAM: {e.strerror}") from None


def _address(memory: mmap.mmap) -> int:
    return np.frombuffer(memory, np.uint8).ctypes.data


@dataclass(frozen=True)
class Memory:
    """Which cores are in use, by all entries of a program, and what is used of their SRAM.

    width: of the wafer; core number = y * width + x. cores, used: numbers of the cores in use and the
    bytes of SRAM used on each, int64 [n].
    """

    width: int
    sram_bytes: int
    cores: Any
    used: Any

    @property
    def pitch(self) -> int:
        """Bytes from core to core."""
        return -(-self.sram_bytes // GRANULE) * GRANULE


def memory_of(plans: Sequence[Plan]) -> Memory:
    wafer = plans[0].wafer
    used = np.max([p.sram().ravel() for p in plans], axis=0)
    numbers = [r.core.ravel() for p in plans for r in p.regions]
    cores = np.unique(np.concatenate(numbers)).astype(np.int64) if numbers else np.zeros(0, np.int64)
    return Memory(wafer.width, wafer.sram_bytes, cores, used[cores])
