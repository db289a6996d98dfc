"""Splits and layouts against a core-by-core enumeration that knows nothing of tables."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waferc.ir.affine import Access, Affine, Interval, axis
from waferc.placement.plan.layout import Cut, Grid, Layout, Region, Side, Split, axis_indices, layout, whole

Axes = tuple[tuple[str, int], ...]


def tile(split: Split, axes: Axes, column: int, row: int, step: int) -> dict[str, Interval]:
    """One core's box of the iteration space, from the definition: digits, nested, outermost first."""
    rest: dict[Side, int] = {"x": column, "y": row, "t": step}
    digit: list[int] = [0] * len(split.cuts)
    for i in reversed(range(len(split.cuts))):
        c = split.cuts[i]
        rest[c.side], digit[i] = divmod(rest[c.side], c.ways)
    box: dict[str, Interval] = {}
    for name, size in axes:
        number, ways = 0, 1
        for c, d in zip(split.cuts, digit, strict=True):
            if c.axis == name:
                number, ways = number * c.ways + d, ways * c.ways
        length = -(-size // ways)
        box[name] = min(number * length, size), min((number + 1) * length, size)
    return box


def hull(access: Access, box: Mapping[str, Interval]) -> list[Interval]:
    """What a tile touches; an empty interval in each dimension that it does not."""
    out: list[Interval] = []
    for e in access:
        empty = any(box[a][0] >= box[a][1] for a in e.axes)
        out.append((0, 0) if empty else e.hull(box))
    return out


def at(held: Layout, column: int, row: int, step: int) -> list[Interval]:
    """The intervals that a layout gives a core."""
    out: list[Interval] = []
    for p in held:
        n = int(p.x[column] + p.y[row] + p.t[step])
        lo, hi = int(p.lo[n]), int(p.hi[n])
        out.append((lo, hi) if hi > lo else (0, 0))
    return out


@st.composite
def splits(draw: st.DrawFn, sides: tuple[Side, ...] = ("x", "y", "t")) -> tuple[Axes, Split]:
    axes = tuple((name, draw(st.integers(1, 9))) for name in "abc"[: draw(st.integers(1, 3))])
    cuts = draw(
        st.lists(
            st.builds(Cut, st.sampled_from([a for a, _ in axes]), st.sampled_from(sides), st.integers(1, 4)),
            max_size=4,
        )
    )
    return axes, Split(tuple(cuts))


@st.composite
def accesses(draw: st.DrawFn, axes: Axes) -> Access:
    def expression() -> Affine:
        chosen = draw(st.lists(st.sampled_from([a for a, _ in axes]), unique=True, max_size=2))
        terms = tuple((a, draw(st.sampled_from([1, 2, 3, -1]))) for a in chosen)
        return Affine(terms, draw(st.integers(-2, 2)))

    return tuple(expression() for _ in range(draw(st.integers(0, 3))))


@given(splits())
def test_tiles_partition_every_axis(made: tuple[Axes, Split]) -> None:
    axes, split = made
    for name, index in axis_indices(split, axes).items():
        covered = [i for lo, hi in zip(index.origins, index.ends, strict=True) for i in range(lo, hi)]
        assert covered == list(range(dict(axes)[name]))
        assert (index.ends - index.origins).max() <= split.tile(name, index.size)
        numbers = index.x[None, None, :] + index.y[None, :, None] + index.t[:, None, None]
        assert set(numbers.ravel()) == set(range(index.ways))


@settings(max_examples=60)
@given(st.data())
def test_a_layout_is_the_hull_of_each_tile(data: st.DataObject) -> None:
    axes, split = data.draw(splits())
    access = data.draw(accesses(axes))
    seen = layout(access, axes, split)
    columns, rows, steps = split.grid
    for x, y, t in product(range(columns), range(rows), range(steps)):
        assert at(seen, x, y, t) == hull(access, tile(split, axes, x, y, t))
    for d, p in enumerate(seen):
        numbers = np.broadcast_to(p.number(), (steps, rows, columns))
        every = {
            (x, y, t): int(numbers[t, y, x])
            for x in range(columns)
            for y in range(rows)
            for t in range(steps)
        }
        assert all(n == p.x[x] + p.y[y] + p.t[t] for (x, y, t), n in every.items()), d


@settings(max_examples=60)
@given(splits(("x", "y")))
def test_what_cores_hold_is_disjoint_and_complete(made: tuple[Axes, Split]) -> None:
    axes, split = made
    shape = tuple(n for _, n in axes)
    held = layout(tuple(axis(a) for a, _ in axes), axes, split, merge_time=True)
    count = np.zeros(shape, np.int64)
    columns, rows, _ = split.grid
    for x, y in product(range(columns), range(rows)):
        count[tuple(slice(lo, hi) for lo, hi in at(held, x, y, 0))] += 1
    assert (count == 1).all()
    for p in held:
        for n in np.flatnonzero(p.hi > p.lo):
            # The part of the core's coordinate that the piece fixes leads to a core with the piece.
            assert p.x[p.column[n]] + p.y[p.row[n]] == n


@given(splits(("x", "y")), st.integers(2, 4), st.sampled_from("abc"))
def test_time_steps_of_a_core_merge(made: tuple[Axes, Split], steps: int, name: str) -> None:
    axes, split = made
    name = name if name in dict(axes) else "a"
    timed = Split((*split.cuts, Cut(name, "t", steps)))
    access = tuple(axis(a) for a, _ in axes)
    held = layout(access, axes, timed, merge_time=True)
    columns, rows, _ = timed.grid
    for x, y in product(range(columns), range(rows)):
        whole_box = at(held, x, y, 0)
        tiles = [hull(access, tile(timed, axes, x, y, t)) for t in range(steps)]
        for d, (lo, hi) in enumerate(whole_box):
            mine = {i for box in tiles for i in range(*box[d])}
            assert mine == set(range(lo, hi))
        assert all(at(held, x, y, t) == whole_box for t in range(steps))


def test_partial_results_are_a_leading_dimension() -> None:
    axes = (("m", 6), ("k", 10))
    split = Split((Cut("m", "x", 3), Cut("k", "y", 4)))
    lead, rest = layout((axis("m"),), axes, split, part="k", merge_time=True)
    assert [int(lead.x[0] + lead.y[j]) for j in range(4)] == [0, 1, 2, 3]
    # Tiles of ceil(10 / 4) = 3: all four parts have something, the last one a single element.
    assert list(zip(lead.lo, lead.hi, strict=True)) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert list(zip(rest.lo, rest.hi, strict=True)) == [(0, 2), (2, 4), (4, 6)]


def test_a_part_without_work_holds_nothing() -> None:
    split = Split((Cut("k", "y", 4),))
    (lead,) = layout((), (("k", 6),), split, part="k")  # tiles of 2: the fourth is empty
    assert list(lead.hi - lead.lo) == [1, 1, 1, 0]


def test_whole_is_one_core_with_everything() -> None:
    assert at(whole((4, 0, 5)), 0, 0, 0) == [(0, 4), (0, 0), (0, 5)]


@pytest.mark.parametrize(
    "cuts, text",
    [
        ((), "whole"),
        ((Cut("m", "x", 2), Cut("n", "x", 3), Cut("k", "y", 4)), "x: m/2 n/3, y: k/4"),
        ((Cut("k", "t", 5),), "t: k/5"),
    ],
)
def test_a_split_reads_well(cuts: tuple[Cut, ...], text: str) -> None:
    assert str(Split(cuts)) == text


def test_a_grid_picks_every_so_many_cores_of_its_region() -> None:
    region = Region("r", 0, 0, 6, 4, np.arange(24, dtype=np.int32).reshape(4, 6))
    grid = Grid(2, 2, 1, 0, 3, 2)
    assert region.on(grid).tolist() == [[1, 4], [13, 16]]
    assert grid.box == (1, 0, 5, 3)
    assert str(grid) == "2x2 at 1,0 every 3,2"
    assert grid.overlaps(Grid(1, 1, 4, 2)) and not grid.overlaps(Grid(1, 1, 5, 2))
