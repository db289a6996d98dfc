"""What routers do with a colour: whether two moves may share one is decided by the routers that both pass.

A move that columns and rows decide apart (who hears whom along a row is the same in every row, and so for
columns) configures a router by what its column does and what its row does: two short lists say all of it.
Of other moves, lanes and reductions only where they pass is known, as a block of columns and rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..cost.reach import NOWHERE, Ends
from ..machine.wafer import LINKS, Wafer
from ..plan.colours import HOST, LANES, lanes, reduction
from ..plan.layout import Ints
from ..plan.move import DimensionMoves

Codes = np.ndarray[Any, np.dtype[np.uint8]]

# What a column does: its bytes come from one of its sources, or from the west or the east; they go on to the
# east, to the west, into the column. What a row does is the same, turned: from the north or the south, on to
# the south, to the north, off the ramp.
SOURCE, LOWER, HIGHER = 1, 2, 3
UP, DOWN, TARGET = 4, 8, 16
PASSED = 32  # in some way
CODES = 64

EAST, WEST, SOUTH, NORTH, RAMP = 1, 2, 4, 8, 16  # of a router's configuration, with FROM[...] << 5
FROM_RAMP, FROM_WEST, FROM_EAST, FROM_NORTH, FROM_SOUTH = (n << 5 for n in range(1, 6))


@dataclass(frozen=True)
class Passage:
    """The routers that use a colour for one purpose, from column x0 and row y0 of the wafer on.

    columns, rows: a code for each. purpose: of what is PASSED; only what has the same one may be there, too.
    """

    x0: int
    y0: int
    columns: bytes
    rows: bytes
    purpose: str = ""


LANE, SUM = "lane", "sum"  # purposes
Lanes = Mapping[tuple[str, bool], Passage]
"""By direction, and by whether lanes of `express` hops are meant."""

APART, ALIKE, DIFFERENT = range(3)


@lru_cache(maxsize=1 << 16)
def meeting(a: Passage, b: Passage) -> int:
    """APART where no router has both, ALIKE where all that have both do the same for both, else DIFFERENT."""
    if a == b or (a.purpose and a.purpose == b.purpose):
        return ALIKE
    columns = _common(a.x0, a.columns, b.x0, b.columns)
    rows = _common(a.y0, a.rows, b.y0, b.rows)
    one = CONFIGURATION[columns[:, None] // CODES, rows // CODES]
    other = CONFIGURATION[columns[:, None] % CODES, rows % CODES]
    both = (one > 0) & (other > 0)
    if not both.any():
        return APART
    return DIFFERENT if (both & (one != other)).any() or a.purpose or b.purpose else ALIKE


def _common(at: int, one: bytes, there: int, other: bytes) -> Ints:
    """The distinct pairs of codes of two lists, one from `at` on, the other from `there`, where both have
    one."""
    lo, hi = max(at, there), min(at + len(one), there + len(other))
    if lo >= hi:
        return np.zeros(0, np.int64)
    a = np.frombuffer(one, np.uint8)[lo - at : hi - at].astype(np.int64)
    b = np.frombuffer(other, np.uint8)[lo - there : hi - there]
    return np.flatnonzero(np.bincount((a * CODES + b)[(a > 0) & (b > 0)], minlength=CODES * CODES))


def _configurations() -> Codes:
    """[column's code, row's code]: the router's configuration, 0 where it is not passed."""
    column, row = np.arange(CODES)[:, None], np.arange(CODES)
    level = (row & 3) == SOURCE
    comes = np.select([(column & 3) == c for c in (SOURCE, LOWER, HIGHER)], [FROM_RAMP, FROM_WEST, FROM_EAST])
    falls = np.select([(row & 3) == c for c in (LOWER, HIGHER)], [FROM_NORTH, FROM_SOUTH])
    into = (column & TARGET) > 0
    down = np.where(into & (row & UP > 0), SOUTH, 0) | np.where(into & (row & DOWN > 0), NORTH, 0)
    itself = level & ((column & 3) == SOURCE)
    down |= np.where(into & (row & TARGET > 0) & ~itself, RAMP, 0)
    along = np.where(level & (column & UP > 0), EAST, 0) | np.where(level & (column & DOWN > 0), WEST, 0)
    known = ((column & 3) > 0) & ((row & 3) > 0) & (along | down > 0)
    out = np.where(known, np.where(level, comes, falls) | along | down, 0)
    return np.where((column & PASSED > 0) & (row & PASSED > 0), 255, out).astype(np.uint8)


CONFIGURATION = _configurations()


class Colours:
    """What the colours of a wafer's routers are used for, but the host's."""

    def __init__(self, wafer: Wafer) -> None:
        self.wafer = wafer
        count = wafer.colours - HOST
        self._firsts = [*range(min(LANES, count), count), *range(LANES)]
        self._used: list[dict[Passage, frozenset[int]]] = [{} for _ in range(count)]

    def copy(self) -> Colours:
        out = Colours(self.wafer)
        out._used = [dict(used) for used in self._used]
        return out

    def relay(self, ways: Lanes) -> None:
        """Keeps the lanes that a move passes."""
        for (direction, far), passage in ways.items():
            self._keep(lanes(direction, far), passage)

    def relay_everywhere(self) -> None:
        self.relay({(d, far): self._every(LANE) for d in LINKS for far in (False, True)})

    def sum_everywhere(self) -> None:
        self.sum(dict.fromkeys(("x", "y"), self._every(SUM)))

    def _every(self, purpose: str) -> Passage:
        columns, rows = (bytes([PASSED]) * size for size in (self.wafer.width, self.wafer.height))
        return Passage(0, 0, columns, rows, purpose)

    def relays(self, ways: Lanes) -> bool:
        """Keeps the lanes that a move passes, if no tree has their colours there."""
        free = all(
            self._free(passage, frozenset(), self._used[c])
            for (direction, far), passage in ways.items()
            for c in self._there(lanes(direction, far))
        )
        if free:
            self.relay(ways)
        return free

    def sum(self, sides: Mapping[str, Passage]) -> None:
        """Keeps the colours of reductions by side where one passes."""
        for side, passage in sides.items():
            self._keep(reduction(side, self.wafer.colours), passage)

    def _keep(self, colours: range, passage: Passage) -> None:
        for c in self._there(colours):
            self._used[c][passage] = frozenset()

    def _there(self, colours: range) -> Iterator[int]:
        """Of these colours those that a router has; a wafer with fewer is refused elsewhere."""
        return (c for c in colours if 0 <= c < len(self._used))

    def take(self, passages: Sequence[Passage], steps: frozenset[int]) -> int | None:
        """The first of as many colours, one after the other, on which the trees of moves of these steps meet
        no others, taken for them; None where there are none. Those that nobody else keeps come first.
        """
        for first in self._firsts:
            if first + len(passages) <= len(self._used) and all(
                self._free(p, steps, self._used[first + i]) for i, p in enumerate(passages)
            ):
                for i, p in enumerate(passages):
                    used = self._used[first + i]
                    used[p] = used.get(p, frozenset()) | steps
                return first
        return None

    def _free(self, passage: Passage, steps: frozenset[int], used: Mapping[Passage, frozenset[int]]) -> bool:
        """Whether all routers do the same for both where they meet, and not at once."""
        for other, then in used.items():
            met = meeting(passage, other)
            if met == DIFFERENT or (met == ALIKE and not steps.isdisjoint(then)):
                return False
        return True


# -- passages of moves --------------------------------------------------------------------------------


def tree_passages(x: Ends, y: Ends, colour_x: Ints, colour_y: Ints, purpose: str) -> tuple[Passage, ...]:
    """The passages of a move's trees, by colour: colour_x * (1 + the greatest colour_y) + colour_y.

    colour_x, colour_y: of the producer's columns and rows. purpose: where only that they pass is known.
    """
    columns, rows = (
        [_line(e, c == n, bool(purpose)) for n in range(int(c.max(initial=0)) + 1)]
        for e, c in ((x, colour_x), (y, colour_y))
    )
    return tuple(
        Passage(x0, y0, c, r, f"{purpose} {i} {j}" if purpose else "")
        for i, (x0, c) in enumerate(columns)
        for j, (y0, r) in enumerate(rows)
    )


def _line(e: Ends, members: Any, passed: bool) -> tuple[int, bytes]:
    """(first coordinate, codes from there on) along one side, of the sources that are `members`."""
    at, lo, hi = _spans(e, members)
    first, size = _box(e)
    at, lo, hi = at - first, lo - first, hi - first
    out = np.zeros(size, np.uint8)
    out[_covered(at + 1, hi, size)] = LOWER
    out[_covered(lo, at - 1, size)] = HIGHER
    out[at] = SOURCE
    out[_covered(at, hi - 1, size)] |= UP
    out[_covered(lo + 1, at, size)] |= DOWN
    out[e.to[e.target[members[e.source]]] - first] |= TARGET
    return first, (np.where(out > 0, PASSED, 0).astype(np.uint8) if passed else out).tobytes()


def lane_passages(x: Ends, y: Ends, express: int) -> Lanes:
    """The routers whose lanes a relayed move takes: along its sources' rows, then its targets' columns."""
    along, down = _stretches(x), _stretches(y)
    rows, columns = _places(y, y.at[y.source]), _places(x, x.to[x.target])
    ways = (along[0], rows), (along[1], rows), (columns, down[0]), (columns, down[1])
    far = [int(e.distance.max(initial=0)) >= express for e in (x, x, y, y)]
    out: dict[tuple[str, bool], Passage] = {}
    for direction, (c, r), long in zip(LINKS, ways, far, strict=True):
        if c.any() and r.any():
            out |= {(direction, f): _passed(x, y, c, r, LANE) for f in (False, True)[: 1 + long]}
    return out


def sum_passages(x: Ends, y: Ends) -> dict[str, Passage]:
    """By side the routers that a reduction takes: along its columns, then along the rows of its roots."""
    along, down = (np.logical_or(*_stretches(e)) for e in (x, y))
    columns, rows = _places(x, x.at[x.source]), _places(y, y.to[y.target])
    found = {"x": (along, rows), "y": (columns, down)}
    return {s: _passed(x, y, c, r, SUM) for s, (c, r) in found.items() if c.any() and r.any()}


def _passed(x: Ends, y: Ends, columns: Any, rows: Any, purpose: str) -> Passage:
    along, down = ((PASSED * own).astype(np.uint8).tobytes() for own in (columns, rows))
    return Passage(_box(x)[0], _box(y)[0], along, down, purpose)


def _box(e: Ends) -> tuple[int, int]:
    """The least coordinate of all ends, and how many there are up to the greatest."""
    first = int(min(e.at.min(), e.to.min()))
    return first, int(max(e.at.max(), e.to.max())) - first + 1


def _spans(e: Ends, members: Any) -> tuple[Ints, Ints, Ints]:
    """Of `members` that send: where they are, and the least and the greatest coordinate of their way."""
    lo, hi = e.spans()
    own = members & (hi < NOWHERE)
    return e.at[own], lo[own], hi[own]


def _stretches(e: Ends) -> tuple[Any, Any]:
    """bool [size of the box]: what lies on ways upward and on ways downward, their ends included."""
    first, size = _box(e)
    at, lo, hi = (c - first for c in _spans(e, np.ones(len(e.at), np.bool_)))
    up = _covered(at, np.where(hi > at, hi, at - 1), size)
    return up, _covered(np.where(lo < at, lo, at + 1), at, size)


def _places(e: Ends, places: Ints) -> Any:
    """bool [size of the box]: what is one of the places."""
    first, size = _box(e)
    out = np.zeros(size, np.bool_)
    out[places - first] = True
    return out


def _covered(lo: Ints, hi: Ints, size: int) -> Any:
    """bool [size]: what lies in one of the intervals [lo, hi]."""
    edges = np.zeros(size + 1, np.int64)
    some = hi >= lo
    np.add.at(edges, lo[some], 1)
    np.subtract.at(edges, hi[some] + 1, 1)
    return np.cumsum(edges)[:size] > 0


# -- which moves are decided apart ----------------------------------------------------------------------


def apart(dims: tuple[DimensionMoves, ...], x: Ends, y: Ends) -> bool:
    """Whether columns alone decide which columns hear one another, and rows which rows do.

    A core hears no others than those that both its column and its row hear: it does if it hears so many.
    """
    return _heard(dims, len(x.to), len(y.to)) == len(x.target) * len(y.target)


@lru_cache(maxsize=256)
def _heard(dims: tuple[DimensionMoves, ...], columns: int, rows: int) -> int:
    """How many producers all cores hear, one after the other; -1 where time ties dimensions to one another.

    What a core hears of a dimension it hears of all that the others bring.
    """
    if sum(bool(d.t.any()) for d in dims) > 1:
        return -1
    out: Any = np.ones((1, 1), np.int64)
    for d in dims:
        x, y = (own if own.any() else own[:1] for own in (d.x, d.y))
        piece = np.add.outer(y, x)
        if d.t.any():
            out = out * _in_any_step(d)[piece]
        else:
            out = out * np.diff(d.start)[piece + d.t[0]]
    return int(np.broadcast_to(out, (rows, columns)).sum())


def _in_any_step(d: DimensionMoves) -> Ints:
    """By piece of the first step: the producers of it in all steps, each once."""
    first, steps = np.unique(np.add.outer(d.x, d.y)), np.unique(d.t)
    piece: Ints = np.add.outer(first, steps)
    count: Ints = np.diff(d.start)[piece].ravel()
    begin: Any = d.start[piece].ravel() - np.cumsum(count) + count
    entry: Any = np.add(np.repeat(begin, count), np.arange(int(count.sum())))
    of = np.repeat(np.repeat(first, len(steps)), count)
    distinct = np.unique(np.stack([of, d.core[entry]]), axis=1)[0]
    return np.bincount(distinct, minlength=int(first[-1]) + 1)
