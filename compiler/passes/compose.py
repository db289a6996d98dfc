"""Composing a Copy into an op that reads its result, or into the op that wrote its operand.

A Copy relates two index spaces through its own axes. To drop it, those axes must be
expressed in the axes of the other op: `digits` does that, one tensor dimension at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...ir.affine import Access, Affine, Interval, access_axes
from ...ir.op import Op, product

Sizes = Mapping[str, int]


def full_box(op: Op) -> dict[str, Interval]:
    return {a: (0, n) for a, n in op.axes}


def leaves(access: Access, box: Mapping[str, Interval], shape: Sequence[int]) -> list[int]:
    """The dimensions in which `access` passes the ends of a tensor of `shape`."""
    out: list[int] = []
    for j, (e, n) in enumerate(zip(access, shape, strict=True)):
        lo, hi = e.hull(box)
        if lo < 0 or hi > n:
            out.append(j)
    return out


def dense(access: Access, sizes: Sizes) -> bool:
    """Whether the access covers its box without gaps, each element once."""
    for e in access:
        reach = 1
        for a, c in sorted(e.terms, key=lambda t: abs(t[1])):
            if sizes[a] == 1:
                continue
            if abs(c) != reach:
                return False
            reach *= sizes[a]
    used = [a for e in access for a, _ in e.terms if sizes[a] > 1]
    return len(used) == len(set(used))


@dataclass
class Match:
    """The axes of a Copy in terms of another op's axes.

    splits: axes of the other op that had to be cut into digits: (name, size, coefficient).
    outside: Copy axes whose expression passes the Copy's own range.
    """

    allow_splits: bool
    values: dict[str, Affine] = field(default_factory=lambda: {})
    splits: dict[str, list[tuple[str, int, int]]] = field(default_factory=lambda: {})
    outside: list[str] = field(default_factory=lambda: [])

    def dimension(self, mine: Affine, copy: Op, theirs: Affine, other: Op) -> bool:
        """Solves `mine == theirs` for the Copy's axes in `mine`. False where that is impossible."""
        sizes = copy.size
        live = sorted(((a, c) for a, c in mine.terms if sizes[a] > 1), key=lambda t: -t[1])
        lo, hi = theirs.hull(full_box(other))
        low, high = mine.hull(full_box(copy))
        inside = low <= lo and hi <= high
        rest = theirs.plus(Affine((), -mine.const))
        if any(a in self.values for a, _ in live):
            return False
        if not live:
            return inside
        if len(live) == 1 and live[0][1] == 1:
            self.values[live[0][0]] = rest
            if not inside:
                self.outside.append(live[0][0])
            return True
        return inside and dense((mine,), sizes) and self._digits(live, sizes, rest, other)

    def _digits(self, live: Sequence[tuple[str, int]], sizes: Sizes, rest: Affine, other: Op) -> bool:
        """Splits `rest` into one expression per digit of a mixed-radix number, largest first."""
        if any(c < 0 for _, c in live):
            return False
        terms: list[tuple[str, int]] = []
        ranges = full_box(other)
        for x, e in rest.terms:
            pieces = self._pieces(x, e, live, sizes, other)
            terms += [(name, c) for name, _, c in pieces]
            ranges |= {name: (0, n) for name, n, _ in pieces}
        remaining, const = terms, rest.const
        for a, c in live:
            mine = tuple((x, e // c) for x, e in remaining if e % c == 0)
            remaining = [(x, e) for x, e in remaining if e % c]
            self.values[a] = Affine(mine, const // c)
            const %= c
            low, high = self.values[a].hull(ranges)
            if low < 0 or high > sizes[a]:
                return False
        return not remaining

    def _pieces(
        self, x: str, e: int, live: Sequence[tuple[str, int]], sizes: Sizes, other: Op
    ) -> list[tuple[str, int, int]]:
        """Axis `x` as (name, size, coefficient in the expression): itself, or cut into digits."""
        n = other.size[x]
        if x in self.splits:
            return [(name, size, e * c) for name, size, c in self.splits[x]]
        inner = [(a, c) for a, c in live if c >= abs(e)]
        start = next((c for _, c in reversed(inner) if c == e), None)
        if not self.allow_splits or start is None or other.names_axis(x):
            return [(x, n, e)]
        digits: list[tuple[int, int]] = []  # (size, coefficient), smallest first
        left = n
        for a, c in reversed(inner):
            if left == 1:
                break
            size = min(left, sizes[a]) if (a, c) != inner[0] else left
            if left % size:
                return [(x, n, e)]
            digits.append((size, c // e))
            left //= size
        if len(digits) < 2 or product([size for size, _ in digits]) != n:
            return [(x, n, e)]
        taken = set(other.size) | {name for parts in self.splits.values() for name, _, _ in parts}
        parts: list[tuple[str, int, int]] = []
        for i, (size, c) in enumerate(reversed(digits)):
            name = f"{x}_{i}"
            while name in taken:
                name += "_"
            parts.append((name, size, c))
            taken.add(name)
        self.splits[x] = parts
        return [(name, size, e * c) for name, size, c in parts]

    def through(self, access: Access, sizes: Sizes) -> Access | None:
        """A Copy's access in the other op's axes; None where an axis was not determined."""
        out: list[Affine] = []
        for e in access:
            total = Affine((), e.const)
            for a, c in e.terms:
                if sizes[a] == 1:
                    continue
                if a not in self.values:
                    return None
                total = total.plus(self.values[a].times(c))
            out.append(total)
        return tuple(out)

    def split(self, op: Op) -> Op:
        """`op` with the axes that were cut replaced by their digits."""
        if not self.splits:
            return op
        axes: list[tuple[str, int]] = []
        for a, n in op.axes:
            axes += [(name, size) for name, size, _ in self.splits[a]] if a in self.splits else [(a, n)]

        def renamed(access: Access) -> Access:
            out = access
            for a, parts in self.splits.items():
                by = Affine(tuple((name, c) for name, _, c in parts))
                out = tuple(e.substitute(a, by) for e in out)
            return out

        reads = tuple(map(renamed, op.reads))
        return replace(op, axes=tuple(axes), reads=reads, write=renamed(op.write))


def into_reader(
    reader: Op,
    operand: int,
    copy: Op,
    copied: Sequence[int],
    shapes: Sequence[Sequence[int]],
    sole: bool,
    splits: bool,
) -> Op | None:
    """`reader` reading the Copy's operand instead of its result; None where that is not the same.

    copied: shape of the Copy's operand. shapes: those of the reader's present operands.
    sole: the Copy writes the whole tensor, so that what lies outside is padding.
    """
    match = Match(splits)
    for mine, theirs in zip(copy.write, reader.reads[operand], strict=True):
        if not match.dimension(mine, copy, theirs, reader):
            return None
    read = match.through(copy.reads[0], copy.size)
    if read is None:
        return None
    fill = reader.fill
    if match.outside and not (sole and all(_keeps_outside(copy, a, copied) for a in match.outside)):
        return None
    if leaves(copy.reads[0], full_box(copy), copied):
        padded = any(leaves(r, full_box(reader), s) for r, s in zip(reader.reads, shapes, strict=True))
        if not reader.fills or (padded and reader.fill != copy.fill):
            return None
        fill = copy.fill
    ready = match.split(reader)
    reads = (*ready.reads[:operand], read, *ready.reads[operand + 1 :])
    return replace(ready, reads=reads, fill=fill)


def _keeps_outside(copy: Op, axis: str, copied: Sequence[int]) -> bool:
    """Whether a value of `axis` past its range makes the Copy read outside its operand."""
    found = [(e, n) for e, n in zip(copy.reads[0], copied, strict=True) if e.coefficient(axis)]
    if len(found) != 1:
        return False
    e, n = found[0]
    if len([a for a in e.axes if copy.size[a] > 1]) != 1 or abs(e.coefficient(axis)) != 1:
        return False
    low, high = e.hull(full_box(copy))
    return low <= 0 and high >= n


def into_writer(writer: Op, copy: Op, splits: bool) -> Op | None:
    """`writer` writing where the Copy would; None where that is not the same.

    The Copy must not pass its operand's ends.
    """
    match = Match(splits)
    for mine, theirs in zip(copy.reads[0], writer.write, strict=True):
        if not match.dimension(mine, copy, theirs, writer):
            return None
    write = match.through(copy.write, copy.size)
    if write is None or match.outside:
        return None
    if set(writer.whole) & set(access_axes(writer.write)) - set(access_axes(write)):
        return None  # a row of one element is still written along its axis
    ready = replace(match.split(writer), write=write)
    determined = {a for e in copy.reads[0] for a in e.axes}
    if any(n > 1 and a not in determined for a, n in copy.axes) or not dense(write, ready.size):
        return None
    return ready
