"""Sweeps -> tables of kernel calls, relocatable; `caller` makes them.

Every call is laid out beforehand: a kernel gets the address of its task block, and nothing is computed
between two calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...placement.plan.layout import Ints
from ...placement.plan.plan import Plan
from ..kernels.kernel import Kernel, kernel_for, stride_kinds
from ..kernels.signature import TaskLayout
from ..pool import Pool, Record
from ..processor import Processor
from ..words import Base, Judged
from .arena import share
from .homes import Home, Lay
from .records import Calls, GroupWords, HostCopy, Margins, Resident, SweepWords
from .sweeps import Part, Sweep

CALL = 3_000_000  # the work of a call that is worth more than one thread: some 30 microseconds
CACHED = 16 << 20  # bytes of constants that a host's caches may keep from call to call
RUN = 32  # sweeps between two meetings of the threads at most

Homes = Mapping[int, Home]


def make_calls(
    plans: Mapping[str, Plan], processor: Processor
) -> tuple[Resident, dict[str, Calls], tuple[Kernel, ...]]:
    """What all entries share, their calls for a host with such processors, and the kernels called."""
    shared = share(plans, processor.lanes, widens=not processor.dot2)
    homes = shared.homes
    far = sum(h.bytes for h in homes.values() if h.kind == "constant") > CACHED
    kernels: dict[Kernel, int] = {}
    made = {
        name: _EntryTables(homes, replace(processor, ahead=far), kernels).calls(part)
        for name, part in shared.entries.items()
    }
    margins = tuple(
        Margins(h.offset, h.elements, str(h.dtype.numpy), h.fill)
        for h in homes.values()
        if h.fill is not None
    )
    constants = tuple(_copied(lay, homes) for lay in shared.constants)
    return Resident(shared.bytes, constants, margins), made, tuple(kernels)


@dataclass(frozen=True)
class _EntryTables:
    """The tables of one entry in the making. kernels: the numbers of those that the program calls so far.

    fills: rows of `Calls.fills`. judged: as in `Calls`.
    """

    homes: Homes
    processor: Processor
    kernels: dict[Kernel, int]
    pool: Pool = field(default_factory=Pool)
    fills: list[Ints] = field(default_factory=list[Ints])
    judged: list[Judged] = field(default_factory=list[Judged])

    def calls(self, part: Part) -> Calls:
        """The entry's calls; once."""
        sweeps, homes = part.sweeps, self.homes
        groups = [self._group(s, b) for s, b in zip(sweeps, barriers(sweeps, homes), strict=True)]
        section = self.pool.table(groups), len(groups)
        fills = np.concatenate([np.zeros((0, 4), np.int64), *self.fills])
        return Calls(
            self.pool.words(),
            self.pool.relocations(),
            fills,
            section,
            tuple(_copied(lay, homes) for lay in part.inputs),
            tuple(_copied(lay, homes) for lay in part.outputs),
            frozenset(lay.tensor for lay in (*part.inputs, *part.outputs) if homes[lay.home].bound),
            sum(s.work for s in sweeps if s.shared) >= CALL,
            tuple(self.judged),
        )

    def _group(self, s: Sweep, barrier: bool) -> Record:
        """The record of a group that is one sweep."""
        words = [0] * GroupWords.SIZE
        words[GroupWords.ITEMS] = len(s.boxes.items) - 1
        words[GroupWords.SWEEPS] = 1
        words[GroupWords.SHARED] = int(s.shared)
        words[GroupWords.BARRIER] = int(barrier)
        return Record(words, {int(GroupWords.TABLE): self.pool.table([self._sweep(s)])})

    def _sweep(self, s: Sweep) -> Record:
        """A sweep's record."""
        axes = [a for a, _ in s.op.axes]
        rows = [dict(v.strides) for v in s.views]
        kinds = stride_kinds(s.op, rows, s.lane, [v.pairs for v in s.views])
        kernel = kernel_for(s.op, s.lane, kinds, self.processor, part=s.part)
        calls = self._task_blocks(s, kernel.signature.layout)
        words = [0] * SweepWords.SIZE
        words[SweepWords.BYTES] = 8 * calls.shape[1]
        strides = self.pool.add([r.get(a, 0) for r in rows for a in axes])
        at = self.pool.addressed(calls, len(s.views))
        if s.op.bounds:
            self.pool.reporting(at, calls, len(self.judged))
            self.judged.extend(Judged(s.name, bound) for bound in s.op.bounds)
        self._fill(s, kernel.signature.layout, calls, at)
        places = {
            int(SweepWords.STRIDES): strides,
            int(SweepWords.CALLS): at,
            int(SweepWords.ITEMS): self.pool.add(s.boxes.items),
        }
        number = self.kernels.setdefault(kernel, len(self.kernels))
        return Record(words, places, {int(SweepWords.KERNEL): (Base.KERNEL, number)})

    def _task_blocks(self, s: Sweep, layout: TaskLayout) -> Ints:
        """The words that each call of a sweep is given, int64 [calls, words]."""
        b = s.boxes
        axes = [a for a, _ in s.op.axes]
        calls = np.zeros((len(b.mode), layout.words(False)), np.int64)
        first = {a: b.first[:, i] for i, a in enumerate(axes)}
        for j, v in enumerate(s.views):
            home = self.homes[v.home]
            calls[:, j] = home.offset + v.at(first) * home.dtype.bytes
        for i, a in enumerate(axes):
            calls[:, layout.extent(a)] = b.extent[:, i]
            calls[:, layout.origin(a)] = b.first[:, i]
        calls[:, layout.mode] = b.mode
        calls[:, layout.chunk] = s.chunk
        return calls

    def _fill(self, s: Sweep, layout: TaskLayout, calls: Ints, at: int) -> None:
        """Notes the extents of a sweep's calls, which are at word `at`, that end where a cache does.

        Positions past those that a cache holds add nothing: a sum over them ends there, and another one
        need not run over its axis to be 0.
        """
        positions, step = s.filled
        if not positions:
            return
        kept = positions not in s.op.reduced
        for a in s.op.reduced if kept else (positions,):
            place = at + np.arange(len(calls)) * calls.shape[1] + layout.extent(a)
            begin = calls[:, layout.origin(positions)] * step
            self.fills.append(np.stack([place, calls[:, layout.extent(a)], begin, place * 0 + kept], 1))


def barriers(sweeps: Sequence[Sweep], homes: Homes) -> list[bool]:
    """Whether all threads meet after each sweep.

    They do before one that touches the memory of an earlier one, if either is shared: sweeps that are not
    are all the first thread's.
    """
    out = [False] * len(sweeps)
    since: list[_Touched] = []
    for i, s in enumerate(sweeps):
        own = _touched(s, homes)
        if len(since) == RUN or any(own.meets(other) for other in since):
            out[i - 1] = True
            since.clear()
        since.append(own)
    return out


@dataclass(frozen=True)
class _Touched:
    """The memory of a sweep: (first byte, end) of the homes that it reads, but for constants, and writes."""

    reads: tuple[tuple[int, int], ...]
    writes: tuple[int, int]
    shared: bool

    def meets(self, other: _Touched) -> bool:
        """Whether one writes what the other touches, and they may be different threads'."""
        if not (self.shared or other.shared):
            return False
        pairs = [(self.writes, r) for r in (*other.reads, other.writes)]
        pairs += [(other.writes, r) for r in self.reads]
        return any(a[0] < b[1] and b[0] < a[1] for a, b in pairs)


def _touched(s: Sweep, homes: Homes) -> _Touched:
    *reads, writes = [homes[v.home] for v in s.views]
    own = writes.offset, writes.offset + writes.bytes
    others = {(h.offset, h.offset + h.bytes) for h in reads if h.kind != "constant"}
    return _Touched(tuple(sorted(others)), own, s.shared)


def _copied(lay: Lay, homes: Homes) -> HostCopy:
    home = homes[lay.home]
    size = home.dtype.bytes
    return HostCopy(
        lay.tensor,
        str(home.dtype.numpy),
        lay.shape,
        home.offset + lay.offset * size,
        tuple(s * size for s in lay.strides),
        lay.host_offset * size,
        tuple(s * size for s in lay.host_strides),
    )
