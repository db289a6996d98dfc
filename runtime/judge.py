"""Judging an image: whether its parts belong together, before anything of it is used.

An artifact made of parts of several programs, or written by hand, must be refused, not run. Kernels are
native code and are not looked into: a program is run only if its source is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen.artifact.artifact import InvalidArtifact
from ..codegen.host.records import Calls, GroupWords, HostCopy, Resident, SweepWords
from ..codegen.kernels.signature import FIXED, TaskLayout, Touch
from ..codegen.words import Base
from ..ir.dtypes import ALL, SMALL
from ..ir.op import Array

if TYPE_CHECKING:
    from .ports import Port, Ports

MOST_BYTES = 1 << 40  # of an arena
MOST_DIMENSIONS = 64  # of a NumPy array
SPARE = 1 << 20  # bytes of an arena that may lie idle, besides as many as are used
TYPES = frozenset(str(t.numpy) for t in (*ALL, *SMALL))
SYMBOL = re.compile(r"kernel_[0-9a-f]{32}_([0-9a-z]+)")
MODES = 3  # of a call: resume, start afresh, join
POINTERS: dict[int, Base] = {
    SweepWords.KERNEL: Base.KERNEL,
    SweepWords.STRIDES: Base.WORDS,
    SweepWords.CALLS: Base.WORDS,
    SweepWords.ITEMS: Base.WORDS,
}


def judge(ports: Ports, calls: Calls, arena: int, symbols: Sequence[str]) -> int:
    """The end of what an entry uses of the arena. InvalidArtifact unless its copies, relocations and calls
    stay inside arena, ports and words."""
    _judge_ports(ports)
    copied = _judge_copies(ports, calls, arena)
    _judge_relocations(calls, len(symbols))
    _judge_fills(calls)
    return max(copied, _judge_groups(calls, arena, [_touch(symbol) for symbol in symbols]))


def _touch(symbol: str) -> Touch:
    """What a kernel touches, by its name."""
    named = SYMBOL.fullmatch(symbol)
    touch = Touch.read(named[1]) if named else None
    if touch is None:
        raise InvalidArtifact(f"image.json: {symbol[:40]!r} is no kernel's name")
    return touch


def judge_arena(arena: int, used: int) -> None:
    """InvalidArtifact for an arena far larger than the end of all that is used of it."""
    if arena > 2 * used + SPARE:
        raise InvalidArtifact(f"image.json: an arena of {arena} bytes, of which {used} are used")


def judge_resident(resident: Resident) -> int:
    """The end of what lies in the arena from the start. InvalidArtifact unless constants and margins stay
    inside it."""
    arena = resident.arena
    if not 0 <= arena <= MOST_BYTES:
        raise InvalidArtifact(f"image.json: an arena of {arena} bytes")
    used = max((_judge_copy(p, arena) for p in resident.constants), default=0)
    for m in resident.margins:
        end = m.offset + m.elements * np.dtype(m.dtype).itemsize
        if m.elements < 0 or m.offset < 0 or end > arena:
            raise InvalidArtifact(f"image.json: margins leave the arena of {arena} bytes")
        if not _holds(m.dtype, m.fill):
            raise InvalidArtifact(f"image.json: margins of {m.fill} in {m.dtype}")
        used = max(used, end)
    return used


def judge_together(entries: Sequence[tuple[Ports, Calls]]) -> None:
    """InvalidArtifact unless a state is the same in all entries, and all caches have the same capacity."""
    places: dict[str, HostCopy] = {}
    capacities: set[int] = set()
    for ports, calls in entries:
        for p in calls.inputs:
            if p.tensor in ports.kept and places.setdefault(p.tensor, p) != p:
                raise InvalidArtifact(f"image.json: state {p.tensor!r} is not the same in all entries")
        if ports.length is not None:
            capacities.add(ports.length.capacity)
    if len(capacities) > 1:
        raise InvalidArtifact(f"image.json: caches of {sorted(capacities)} positions")


def judge_constants(resident: Resident, constants: Mapping[str, Array]) -> None:
    """InvalidArtifact unless every constant is there and holds what its copies read."""
    for p in resident.constants:
        if p.tensor not in constants:
            raise InvalidArtifact(f"weights.json: constant {p.tensor!r} is missing")
        value = constants[p.tensor]
        low, high = _span(p.host_offset, p.shape, p.host_strides, value.dtype.itemsize)
        if value.dtype.name != p.dtype or low < 0 or high > value.nbytes:
            raise InvalidArtifact(f"image.json: the copy of constant {p.tensor!r} leaves its array")


# -- ports and copies ----------------------------------------------------------------------------
def _judge_ports(ports: Ports) -> None:
    inputs, outputs = ([p.name for p in own] for own in (ports.inputs, ports.outputs))
    if len(set(inputs)) < len(inputs) or len(set(outputs)) < len(outputs):
        raise InvalidArtifact("image.json: two ports of one name")
    for past, _ in ports.states:
        if past not in inputs:
            raise InvalidArtifact(f"image.json: state {past!r} is no input")
    if (at := ports.length) is not None and (at.input in inputs or not 0 < at.added <= at.capacity):
        raise InvalidArtifact(f"image.json: {at.added} of {at.capacity} positions, counted by {at.input!r}")


def _judge_copies(ports: Ports, calls: Calls, arena: int) -> int:
    """Every copy stays inside the arena; those of ports have the port's shape and type."""
    used = max((_judge_copy(p, arena) for p in (*calls.inputs, *calls.outputs)), default=0)
    _judge_each("input", calls.inputs, ports.laid)
    _judge_each("output", calls.outputs, ports.outputs)
    # The caller's array stands in for a bound tensor for one call only, and is in C order.
    dense = {p.tensor for p in (*calls.inputs, *calls.outputs) if p.strides == p.host_strides == _c_order(p)}
    passed = {p.name for p in ports.inputs} & {p.name for p in ports.outputs}
    if calls.bound - dense or calls.bound & (ports.kept | passed):
        raise InvalidArtifact("image.json: a bound tensor that is no array like the caller's")
    return used


def _judge_copy(p: HostCopy, arena: int) -> int:
    if not is_shape(p.shape):
        raise InvalidArtifact(f"image.json: {p.tensor!r} is copied as {list(p.shape)}")
    if any(abs(s) > MOST_BYTES for s in (*p.strides, *p.host_strides, p.host_offset)):
        raise InvalidArtifact(f"image.json: a stride of {p.tensor!r} is past every array")
    size = np.dtype(p.dtype).itemsize
    low, high = _span(p.offset, p.shape, p.strides, size)
    # Elements of a home have places of their own: there is room for all of them.
    if low < 0 or max(high, size * prod(p.shape)) > arena:
        raise InvalidArtifact(f"image.json: {p.tensor!r} leaves the arena of {arena} bytes")
    return high


def _c_order(p: HostCopy) -> tuple[int, ...]:
    """The strides in bytes of an array of the copy's shape."""
    size = np.dtype(p.dtype).itemsize
    return tuple(size * prod(p.shape[d + 1 :]) for d in range(len(p.shape)))


def _judge_each(kind: str, copies: Sequence[HostCopy], ports: Sequence[Port]) -> None:
    by_name = {p.name: p for p in ports}
    if sorted(p.tensor for p in copies) != sorted(by_name):
        raise InvalidArtifact(f"image.json: not every {kind} is copied once")
    for p in copies:
        port = by_name[p.tensor]
        if (p.dtype, p.shape) != (port.dtype.name, port.shape):
            raise InvalidArtifact(
                f"image.json: {kind} {p.tensor!r} is {port.dtype.name}{list(port.shape)}, "
                f"copied as {p.dtype}{list(p.shape)}"
            )


def is_shape(shape: Sequence[int]) -> bool:
    """Whether an array may have it."""
    inside = len(shape) <= MOST_DIMENSIONS and all(0 <= n <= MOST_BYTES for n in shape)
    return inside and prod(n for n in shape if n) <= MOST_BYTES


def _holds(dtype: str, value: float) -> bool:
    """Whether elements of a type can be filled with a value."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        return value == value // 1 and np.iinfo(kind).min <= value <= np.iinfo(kind).max
    return kind.kind == "f" or value in (0, 1)


def _span(offset: int, shape: Sequence[int], strides: Sequence[int], size: int) -> tuple[int, int]:
    """The bytes that a strided array touches, [first, end); nothing for an empty one."""
    if 0 in shape:
        return offset, offset
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    return offset + sum(min(0, r) for r in reach), offset + sum(max(0, r) for r in reach) + size


# -- words ---------------------------------------------------------------------------------------
def _judge_fills(calls: Calls) -> None:
    """What is cut short at run time is an extent, and never longer than it is in the words."""
    f = calls.fills
    if f.shape[1] != 4:
        raise InvalidArtifact(f"tables/fills.npy has {f.shape[1]} columns, not 4")
    if not len(f):
        return
    word, whole = f[:, 0], f[:, 1]
    inside = 0 <= word.min() <= word.max() < len(calls.words)
    if not inside or np.isin(word, calls.relocations[:, 0]).any() or (calls.words[word] != whole).any():
        raise InvalidArtifact("tables/fills.npy names words that are no extents")
    if (whole < 1).any() or (f[:, 2] < 0).any() or len(np.unique(word)) < len(word):
        raise InvalidArtifact("tables/fills.npy cuts an extent of nothing, or one twice")


def _judge_relocations(calls: Calls, kernels: int) -> None:
    r = calls.relocations
    if r.shape[1] != 3:
        raise InvalidArtifact(f"tables/relocations.npy has {r.shape[1]} columns, not 3")
    at, kind, value = r.T
    limits = np.zeros(len(Base), np.int64)
    limits[Base.WORDS], limits[Base.KERNEL], limits[Base.ARENA] = 1, kernels, 1
    limits[Base.REPORT] = len(calls.judged)
    if len(r) and not (
        0 <= at.min() <= at.max() < len(calls.words) and 0 <= kind.min() <= kind.max() < len(limits)
    ):
        raise InvalidArtifact(f"tables/relocations.npy leaves the {len(calls.words)} words")
    if (value < 0).any() or (value >= limits[kind]).any() or len(np.unique(at)) != len(at):
        raise InvalidArtifact("tables/relocations.npy names a kernel or table that is not there")
    inside = calls.words[at[kind == Base.WORDS]]
    if (inside < 0).any() or (inside >= 8 * len(calls.words)).any() or (inside % 8).any():
        raise InvalidArtifact("tables/words.npy: an offset leaves the table")


class _Words:
    """The words, what is added to each when the program is loaded, and rows of them that must be inside."""

    def __init__(self, calls: Calls) -> None:
        self.words, self.reports = calls.words, len(calls.judged)
        self.base = np.full(len(calls.words), -1, np.int64)
        self.base[calls.relocations[:, 0]] = calls.relocations[:, 1]
        self.value = np.zeros(len(calls.words), np.int64)
        self.value[calls.relocations[:, 0]] = calls.relocations[:, 2]

    def rows(self, first: int, count: int, width: int, bases: Mapping[int, Base], what: str) -> Any:
        """int64 [count, width] from word `first`: the columns in `bases` are relocated so, no other."""
        if first < 0 or count < 0 or first + count * width > len(self.words):
            raise InvalidArtifact(f"tables/words.npy: {what} leaves the {len(self.words)} words")
        wanted = np.full(width, -1, np.int64)
        for column, base in bases.items():
            wanted[column] = base
        here = slice(first, first + count * width)
        if (self.base[here].reshape(count, width) != wanted).any():
            raise InvalidArtifact(
                f"tables/relocations.npy: {what} has an address where none belongs, or none"
            )
        return self.words[here].reshape(count, width)


def _judge_groups(calls: Calls, arena: int, kernels: Sequence[Touch]) -> int:
    """Groups, sweeps and calls lie inside the words, what calls compute on inside the arena."""
    words, used = _Words(calls), 0
    offset, count = calls.groups
    for g in words.rows(offset, count, GroupWords.SIZE, {GroupWords.TABLE: Base.WORDS}, "a group"):
        items, sweeps, table = (int(g[w]) for w in (GroupWords.ITEMS, GroupWords.SWEEPS, GroupWords.TABLE))
        if items < 0:
            raise InvalidArtifact(f"tables/words.npy: a group of {items} items")
        rows = words.rows(table // 8, sweeps, SweepWords.SIZE, POINTERS, "a sweep")
        for i, s in enumerate(rows):
            number = int(words.value[table // 8 + i * SweepWords.SIZE + SweepWords.KERNEL])
            used = max(used, _judge_sweep(words, s, items, arena, kernels[number]))
    return used


def _judge_sweep(words: _Words, sweep: Any, items: int, arena: int, kernel: Touch) -> int:
    starts = words.rows(int(sweep[SweepWords.ITEMS]) // 8, items + 1, 1, {}, "an item").ravel()
    if starts[0] < 0 or (np.diff(starts) < 0).any():
        raise InvalidArtifact("tables/words.npy: an item's calls are not one after the other")
    count = int(starts[-1])
    if count == 0:
        return 0
    # A call: addresses of the tensors, extents and origins of the axes, mode and chunk, perhaps a report.
    tensors, axes = len(kernel.sizes), kernel.axes
    layout = TaskLayout(tensors, tuple(map(str, range(axes))), kernel.reports > 0)
    width = layout.words(False)
    if sweep[SweepWords.BYTES] != 8 * width:
        raise InvalidArtifact(
            f"tables/words.npy: calls of {int(sweep[SweepWords.BYTES])} bytes, the kernel takes {8 * width}"
        )
    first = int(sweep[SweepWords.CALLS]) // 8
    bases = dict.fromkeys(range(tensors), Base.ARENA)
    if kernel.reports:
        bases[layout.report(False)] = Base.REPORT
    rows = words.rows(first, count, width, bases, "a call")
    if kernel.reports:
        report = words.value[first + layout.report(False) : first + count * width : width]
        if (report > words.reports - kernel.reports).any():
            raise InvalidArtifact("tables/relocations.npy: a call reports what nobody judges")
    extents, mode, chunk = rows[:, tensors : tensors + axes], rows[:, layout.mode], rows[:, layout.chunk]
    if (rows[:, tensors:] < 0).any() or (mode >= MODES).any() or (chunk < 0).any():
        raise InvalidArtifact("tables/words.npy: a call of a negative extent or an unknown mode")
    given = words.rows(int(sweep[SweepWords.STRIDES]) // 8, tensors, axes, {}, "a stride")
    told = np.array([[FIXED.get(k, -1) for k in row] for row in kernel.strides], np.int64)
    busy = (extents > 0).all(1)
    # float64 is exact where it matters and does not wrap.
    sizes = np.array(kernel.sizes, np.float64)
    strides = np.where(told < 0, given, told).astype(np.float64) * sizes[:, None]
    start = rows[busy, :tensors].astype(np.float64)
    last = (extents[busy] - 1).astype(np.float64)
    low = start + last @ np.minimum(strides, 0).T
    high = start + last @ np.maximum(strides, 0).T + sizes
    if (low < 0).any() or (high > arena).any():
        raise InvalidArtifact("tables/words.npy: an address leaves the arena")
    return int(high.max(initial=0))
