"""Sweeps -> tables of kernel calls, relocatable; `caller` makes them.

Every call is laid out beforehand: a kernel gets the address of its task block, and nothing is computed
between two calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...placement.plan.layout import Ints
from ...placement.plan.plan import Plan
from ..kernels.kernel import Kernel, kernel_for, stride_kinds
from ..pool import Entry, Pool
from ..words import Base
from .arena import share
from .homes import Home, Lay
from .records import Calls, GroupWords, Margins, Placed, Resident, SweepWords
from .sweeps import Part, Sweep

CALL = 3_000_000  # the work of a call that is worth more than one thread: some 30 microseconds
CACHED = 16 << 20  # bytes of constants that a host's caches may keep from call to call
RUN = 32  # sweeps between two meetings of the threads at most

Homes = Mapping[int, Home]


def make_calls(
    plans: Mapping[str, Plan], lanes: int, dot2: bool
) -> tuple[Resident, dict[str, Calls], tuple[Kernel, ...]]:
    """What all entries share, their calls for a host with `lanes` f32 lanes, and the kernels called.

    dot2: whether it has an instruction for pairs of bf16.
    """
    shared = share(plans, lanes)
    homes = shared.homes
    ahead = sum(h.bytes for h in homes.values() if h.kind == "constant") > CACHED
    kernels: dict[Kernel, int] = {}
    calls = {name: _calls(part, homes, kernels, lanes, dot2, ahead) for name, part in shared.entries.items()}
    margins = tuple(
        Margins(h.offset, h.elements, str(h.dtype.numpy), h.fill)
        for h in homes.values()
        if h.fill is not None
    )
    constants = tuple(_placed(lay, homes) for lay in shared.constants)
    return Resident(shared.bytes, constants, margins), calls, tuple(kernels)


def _calls(
    part: Part, homes: Homes, kernels: dict[Kernel, int], lanes: int, dot2: bool, ahead: bool
) -> Calls:
    pool = Pool()
    groups: list[Entry] = []
    sweeps, found = part.sweeps, list[Ints]()
    for s, barrier in zip(sweeps, barriers(sweeps, homes), strict=True):
        words = [0] * GroupWords.SIZE
        words[GroupWords.ITEMS] = len(s.boxes.items) - 1
        words[GroupWords.SWEEPS] = 1
        words[GroupWords.SHARED] = int(s.shared)
        words[GroupWords.BARRIER] = int(barrier)
        table = pool.table([_sweep(s, homes, pool, kernels, lanes, dot2, ahead, found)])
        groups.append(Entry(words, {int(GroupWords.TABLE): table}))
    section = pool.table(groups), len(groups)
    fills = np.concatenate([np.zeros((0, 4), np.int64), *found])
    return Calls(
        pool.words(),
        pool.relocations(),
        fills,
        section,
        tuple(_placed(lay, homes) for lay in part.inputs),
        tuple(_placed(lay, homes) for lay in part.outputs),
        frozenset(lay.tensor for lay in (*part.inputs, *part.outputs) if homes[lay.home].bound),
        sum(s.work for s in sweeps if s.shared) >= CALL,
    )


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


def _placed(lay: Lay, homes: Homes) -> Placed:
    home = homes[lay.home]
    size = home.dtype.bytes
    return Placed(
        lay.tensor,
        str(home.dtype.numpy),
        lay.shape,
        home.offset + lay.offset * size,
        tuple(s * size for s in lay.strides),
        lay.host_offset * size,
        tuple(s * size for s in lay.host_strides),
    )


def _sweep(
    s: Sweep,
    homes: Homes,
    pool: Pool,
    kernels: dict[Kernel, int],
    lanes: int,
    dot2: bool,
    ahead: bool,
    found: list[Ints],
) -> Entry:
    """A sweep's record. found: gets what `Calls.fills` holds of it."""
    axes = [a for a, _ in s.op.axes]
    rows = [dict(v.strides) for v in s.views]
    kinds = stride_kinds(s.op, rows, s.lane, [v.pairs for v in s.views])
    kernel = kernel_for(s.op, s.lane, kinds, lanes, part=s.part, dot2=dot2, ahead=ahead)
    layout = kernel.signature.layout
    b = s.boxes
    calls = np.zeros((len(b.mode), layout.words(False)), np.int64)
    first = {a: b.first[:, i] for i, a in enumerate(axes)}
    for j, v in enumerate(s.views):
        home = homes[v.home]
        calls[:, j] = home.offset + v.at(first) * home.dtype.bytes
    for i, a in enumerate(axes):
        calls[:, layout.extent(a)] = b.extent[:, i]
        calls[:, layout.origin(a)] = b.first[:, i]
    calls[:, layout.mode] = b.mode
    calls[:, layout.chunk] = s.chunk
    words = [0] * SweepWords.SIZE
    words[SweepWords.BYTES] = 8 * calls.shape[1]
    strides = pool.add([r.get(a, 0) for r in rows for a in axes])
    at = pool.addressed(calls, len(s.views))
    positions, step = s.filled
    if positions:
        # Positions past those that a cache holds add nothing: a sum over them ends there, and another one
        # need not run over its axis to be 0.
        kept = positions not in s.op.reduced
        for a in s.op.reduced if kept else (positions,):
            place = at + np.arange(len(calls)) * calls.shape[1] + layout.extent(a)
            begin = first[positions] * step
            found.append(np.stack([place, calls[:, layout.extent(a)], begin, place * 0 + kept], 1))
    return Entry(
        words,
        {
            int(SweepWords.STRIDES): strides,
            int(SweepWords.CALLS): at,
            int(SweepWords.ITEMS): pool.add(b.items),
        },
        {int(SweepWords.KERNEL): (Base.KERNEL, kernels.setdefault(kernel, len(kernels)))},
    )
