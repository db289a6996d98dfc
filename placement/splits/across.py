"""Running across lines: an operand that lies along one side of the grid is told to the other one.

A product whose operand lies on a column takes it along every row: each of its cores hears the one core of
its row that has what it needs, so that the hand-over is one multicast. Its partial results are then joined on
a line of the other side, where those after it go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from ...ir.affine import access_axes
from ...ir.op import Op
from ..plan.layout import Cut, Grid, Side, Split
from .candidates import cuttable, useful_ways
from .choice import Choice, Limits, Question, Site, Source, tile_elements
from .choose import followed, latest, weighed
from .delivery_time import delivery
from .follow import Taken, digits_taken, feasible, follow
from .join import left
from .next_product import Ahead

LARGEST = 4  # numbers of cuts of an axis that are tried
ROOTS = (1, 2, 4, 8)  # of a line that joins partial results, besides as many as `join_split` likes
STEPS = (2, 3, 4)  # of a product whose tiles are then small enough to be multiplied at once
FEW_PRODUCTS = 512  # in a tile that needs no such steps
QUICKEST, FOLLOWED = 12, 3  # splits across lines looked at closely, and followed to the op ahead


def on_lines(q: Question, most: int) -> list[Choice]:
    """Ways to run where an operand lies, of a product across its lines, of what hears nobody on a line.

    most: of those across lines, the quickest. Their cycles are those with every operand in place. None of
    them is over its limits.
    """
    found: list[Choice] = []
    wide: list[Choice] = []
    near = [(j, s) for j, s in enumerate(q.sources) if s is not None and q.near(s) and s.known]
    for j, source in near:
        if (own := followed(q, j, source)) is not None:
            found.append(weighed(q, own.split, own.grid))
        if q.op.reduced and len(q.sources) > 1:
            wide += (weighed(q, split, grid) for split, grid in across(q, j, source))
    if not near and not q.op.reduced:
        found += (weighed(q, split, grid) for split, grid in lines(q.op, q.site))
    wide.sort(key=lambda c: c.cycles)
    found += (_in_time(q, c) for c in wide[:most])
    return [
        c for c in dict.fromkeys(found) if q.excess(c) <= 1 and not _copies(q, c.split) and not _both(q.op, c)
    ]


def best_on_lines(q: Question, ahead: Ahead | None, stored: bool = False) -> Choice | None:
    """The best of them with what it leaves to the op ahead, that run along lines too.

    By real moves, on trees if they need no more colours than there are for all. Few that look best by
    themselves are followed on, each with a few numbers of roots. stored: the op ahead puts its operand into a
    cache, which lies where that is read.
    """
    policy = q.site.policy
    every = [
        (c.cycles + latest(q, c, np.inf, policy.line_colours), n, c)
        for n, c in enumerate(on_lines(q, QUICKEST))
    ]
    every.sort(key=lambda f: (f[0], f[2].grid.cores, f[1]))
    if not every:
        return None
    if ahead is None:
        return replace(every[0][2], roots=1) if q.op.product else every[0][2]
    best, least = None, np.inf
    for own, _, c in every[:FOLLOWED]:
        for roots in (0, *ROOTS) if c.part else (0,):
            made = replace(c, roots=roots)
            if own < least and (total := own + onward(q, made, ahead, stored)) < least:
                best, least = made, total
    return best


def onward(q: Question, c: Choice, ahead: Ahead, stored: bool) -> float:
    """Cycles of the ops after `q.op`, run as `c` says, up to the one ahead and its own.

    Each runs where the result lies, the last one across its lines. Where one cannot, all of the result comes
    to it over one link.
    """
    site = q.site
    wafer, policy = site.wafer, site.policy
    source = left(q.op, c, policy, _shape(q.op))
    out = 0.0
    for link, operand in ahead.chain:
        found = follow(link, operand, source)
        if found is None:
            return out + _from_afar(link, operand, site)
        out += float(wafer.task(link, found[0].extents(link.axes))[0])
        source = Source(found[1], found[0], link.write, link.axes, site.region, 0.0, _shape(link))
    if stored:  # one source a line is told to all who keep a share on a tree, several on relays
        if follow(ahead.op, ahead.operand, source) is None:
            return out + _from_afar(ahead.op, ahead.operand, site)
        few = min(source.grid.columns, source.grid.rows) == 1
        return out if few else out + float(wafer.relayed(np.float64((site.columns + site.rows) / 2)))
    asked = _asked(ahead, source, site)
    ways = on_lines(asked, FOLLOWED)
    ways.sort(key=lambda w: w.cycles)
    least = np.inf
    for w in ways:
        if w.cycles < least:
            least = min(
                least, w.cycles + delivery(asked, ahead.operand, w.split, w.grid, policy.line_colours)
            )
    return out + least


def _shape(op: Op) -> tuple[int, ...]:
    """Of the result."""
    return tuple(hi for _, hi in op.hold({a: (0, n) for a, n in op.axes}))


def _from_afar(op: Op, operand: int, site: Site) -> float:
    """Cycles until all of an operand has come over one link, half the region away."""
    wafer, hops = site.wafer, np.float64((site.columns + site.rows) / 2)
    elements = tile_elements(op.reads[operand], op.size)
    serial = wafer.serial(wafer.wavelets(elements * op.in_types[operand].bytes))
    return float(wafer.route(hops, 1) + wafer.relayed(hops) + serial)


def _asked(ahead: Ahead, source: Source, site: Site) -> Question:
    """The question of the op ahead, its operand at `source`; of others that do not stay nothing is known."""
    others = (None if kept else Source.anywhere(0.0) for kept in ahead.constant)
    sources = tuple(source if j == ahead.operand else s for j, s in enumerate(others))
    return Question(ahead.op, sources, site, Limits(np.inf, np.inf))


def line_ways(size: int, limit: int, most: int) -> list[int]:
    """Useful numbers of cuts, and those next to the limit whose tiles several roots can share."""
    least = -(-size // limit)
    even = {-(-size // (-(-least // roots) * roots)) for roots in (2, 4, 8)}
    return sorted({*useful_ways(size, limit, most)[-LARGEST:], *(w for w in even if w > 1)})


def lines(op: Op, site: Site) -> Iterator[tuple[Split, Grid]]:
    """The longest axis along x in the middle row, or along y in the middle column; or all on one core."""
    x, y = site.columns // 2, site.rows // 2
    axes = sorted(cuttable(op), key=lambda a: -op.size[a])
    for a in axes[:1]:
        for w in useful_ways(op.size[a], site.columns, site.policy.most_ways)[-1:]:
            yield Split((Cut(a, "x", w),)), Grid(w, 1, (site.columns - w) // 2, y)
        for w in useful_ways(op.size[a], site.rows, site.policy.most_ways)[-1:]:
            yield Split((Cut(a, "y", w),)), Grid(1, w, x, (site.rows - w) // 2)
    yield Split(), Grid(1, 1, x, y)


def _in_time(q: Question, c: Choice) -> Choice:
    """A product in several steps, if its tiles are then small enough for a quicker way to compute them."""
    op = q.op
    tile = c.split.extents(op.axes)
    if math.prod(tile.values()) < FEW_PRODUCTS:
        return c
    kept = [a for a, n in op.axes if n > 1 and a not in op.reduced and a not in op.whole]
    best = c
    if op.product and kept:
        a = max(kept, key=lambda a: tile[a])
        for ways in STEPS:
            if ways <= tile[a]:
                other = weighed(q, Split((*c.split.cuts, Cut(a, "t", ways))), c.grid)
                best = min(best, other, key=lambda f: (q.excess(f), f.cycles))
    return best


def _copies(q: Question, split: Split) -> bool:
    """Whether a split would make copies of a cache."""
    return any(c.axis in q.limits.uncut and c.side != "t" for c in split.cuts)


def _both(op: Op, c: Choice) -> bool:
    """Whether a product is to be joined along both sides: what it makes would lie on no line."""
    return op.product and len({cut.side for cut in c.split.cuts if cut.axis == c.part}) > 1


class _Side(NamedTuple):
    """One side of a grid: the producer's outermost digits that are kept, then a cut of an axis that the
    operand lacks (1: none), at start, start + pitch, ..."""

    kept: Sequence[Taken]
    axis: str
    ways: int
    start: int
    pitch: int

    @property
    def cores(self) -> int:
        return int(np.prod([t.ways for t in self.kept], dtype=np.int64)) * self.ways


def across(q: Question, operand: int, source: Source) -> Iterator[tuple[Split, Grid]]:
    """Splits that keep some of the outermost digits of an operand's sides, and cut other axes besides."""
    op, grid, site = q.op, source.grid, q.site
    found = digits_taken(op, operand, source)
    if found is None:
        return
    has = set(access_axes(op.reads[operand]))
    free = sorted((a for a in cuttable(op, q.limits.uncut) if a not in has), key=lambda a: -op.size[a])
    most = site.policy.most_ways
    along_x = _sides(
        op, [t for t in found if t.side == "x"], (grid.x, grid.dx, grid.columns), free, site.columns, most
    )
    along_y = _sides(
        op, [t for t in found if t.side == "y"], (grid.y, grid.dy, grid.rows), free, site.rows, most
    )
    for x, y in product(along_x, along_y):
        if (x.axis and x.axis == y.axis) or x.ways * y.ways == 1:
            continue
        kept, dropped = _outermost(found, len(x.kept), len(y.kept))
        cuts = merged([Cut(t.axis, t.side, t.ways) for t in kept])
        sides: tuple[tuple[Side, _Side], ...] = (("x", x), ("y", y))
        new = [Cut(s.axis, side, s.ways) for side, s in sides if s.ways > 1]
        reduced = set(op.reduced)
        split = Split(
            (*(c for c in cuts if c.axis not in reduced), *new, *(c for c in cuts if c.axis in reduced))
        )
        if feasible(op, split, _tiles(op, kept, dropped, new, split)):
            yield split, Grid(x.cores, y.cores, x.start, y.start, x.pitch, y.pitch)


def _outermost(digits: Sequence[Taken], x: int, y: int) -> tuple[list[Taken], list[Taken]]:
    """The first so many digits of each side, and the others."""
    left = {"x": x, "y": y}
    kept: list[Taken] = []
    dropped: list[Taken] = []
    for t in digits:
        left[t.side] -= 1
        (kept if left[t.side] >= 0 else dropped).append(t)
    return kept, dropped


def merged(cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts, those of one axis that follow one another along a side as one."""
    out: list[Cut] = []
    for c in cuts:
        if out and (out[-1].axis, out[-1].side) == (c.axis, c.side):
            out[-1] = replace(c, ways=out[-1].ways * c.ways)
        else:
            out.append(c)
    return out


def _tiles(
    op: Op, kept: Sequence[Taken], dropped: Sequence[Taken], new: Sequence[Cut], split: Split
) -> dict[str, int]:
    """What the tiles of cut axes must be, for the producer's digits to mean the same."""
    out = {c.axis: split.tile(c.axis, op.size[c.axis]) for c in new}
    for t in kept:
        out[t.axis] = t.tile * math.prod(d.ways for d in dropped if d.axis == t.axis)
    return out


def _sides(
    op: Op, digits: Sequence[Taken], at: tuple[int, int, int], free: Sequence[str], limit: int, most: int
) -> list[_Side]:
    """What may become of a side whose cores are `at` (start, pitch, how many), `limit` cores long."""
    start, pitch, count = at
    out: list[_Side] = []
    for n in range(len(digits) + 1):
        kept = digits[:n]
        if any(not t.axis for t in kept):
            break
        blocks = int(np.prod([t.ways for t in kept], dtype=np.int64))
        block = count // blocks  # producers in a block that has the same of what is kept
        middle = start + block // 2 * pitch
        out.append(_Side(kept, "", 1, middle if block > 1 else start, block * pitch))
        if any(t.axis in op.reduced for t in kept):
            continue
        for a in free:
            if blocks == 1:
                for w in line_ways(op.size[a], limit, most):
                    first = min(max(middle - w // 2, 0), limit - w)
                    out.append(_Side(kept, a, w, first, 1))
            else:
                room = block * pitch
                for w in range(2, min(room, op.size[a]) + 1):
                    if room % w == 0 and op.size[a] % w == 0:
                        first = start + (room // w) // 2 - pitch // 2
                        out.append(_Side(kept, a, w, max(first, 0), room // w))
    return out
