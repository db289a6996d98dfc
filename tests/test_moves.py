"""Derived moves against copying element by element, and the choice of where an op runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from waferc.ir.affine import Access, Affine, axis
from waferc.ir.dtypes import F32
from waferc.ir.ops.elementwise import Neg
from waferc.ir.ops.reduce import ReduceSum
from waferc.placement.cost.fabric import traffic_between
from waferc.placement.cost.reach import Ends, ends
from waferc.placement.machine.presets import preset
from waferc.placement.plan.layout import Cut, Grid, Layout, Split, layout
from waferc.placement.plan.move import Move, combining, derive, identical, records
from waferc.placement.plan.needs import need_elements
from waferc.placement.splits.choice import Limits, Question, Site, Source
from waferc.placement.splits.delivery_time import delivery
from waferc.placement.splits.follow import follow
from waferc.placement.splits.join import join_split
from waferc.placement.splits.policy import POLICY

Axes = tuple[tuple[str, int], ...]


def box_at(seen: Layout, x: int, y: int, t: int) -> list[tuple[int, int]]:
    numbers = [int(p.x[x] + p.y[y] + p.t[t]) for p in seen]
    return [(int(p.lo[n]), int(p.hi[n])) for p, n in zip(seen, numbers, strict=True)]


def entries(move: Move, x: int, y: int, t: int) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
    """Per record of a core and step: the producer core, and (source, target, length) by dimension."""
    ranges = []
    for d in move.dims:
        n = int(d.x[x] + d.y[y] + d.t[t])
        ranges.append(range(int(d.start[n]), int(d.start[n + 1])))
    for chosen in product(*ranges):
        pairs = list(zip(move.dims, chosen, strict=True))
        core = sum(int(d.core[e]) for d, e in pairs)
        yield core, [(int(d.source[e]), int(d.target[e]), int(d.length[e])) for d, e in pairs]


def slices(box: list[tuple[int, int]]) -> tuple[slice, ...]:
    return tuple(slice(lo, hi) for lo, hi in box)


@st.composite
def space_splits(draw: st.DrawFn, axes: Axes, most: int = 4) -> Split:
    names = [a for a, _ in axes]
    cut = st.builds(Cut, st.sampled_from(names), st.sampled_from(["x", "y"]), st.integers(2, most))
    return Split(tuple(draw(st.lists(cut, max_size=3))))


@st.composite
def reads(draw: st.DrawFn, rank: int) -> tuple[Axes, Access]:
    """A consumer's axes and its read of a tensor of `rank`: shifts, strides, halos, a step in time."""
    axes = (*((f"c{i}", draw(st.integers(1, 6))) for i in range(rank)), ("w", draw(st.integers(1, 3))))
    access: list[Affine] = []
    for i in range(rank):
        terms: tuple[tuple[str, int], ...] = ((f"c{i}", draw(st.sampled_from([1, 2, -1]))),)
        if draw(st.booleans()):
            terms = (*terms, ("w", 1))
        access.append(Affine(terms, draw(st.integers(-2, 3))))
    return axes, tuple(access)


@settings(max_examples=120)
@given(st.data())
def test_a_move_brings_each_element_once_to_its_place(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=2)))
    held_axes = tuple((f"h{i}", n) for i, n in enumerate(shape))
    made = data.draw(space_splits(held_axes))
    hold = layout(tuple(axis(a) for a, _ in held_axes), held_axes, made, merge_time=True)
    producer = Grid(*made.grid[:2])
    axes, access = data.draw(reads(len(shape)))
    split = data.draw(space_splits(axes))
    split = Split((*split.cuts, Cut("w", "t", data.draw(st.integers(1, 3)))))
    need = layout(access, axes, split)
    move = derive(need, hold, shape, producer, 0, 1)

    value = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    columns, rows, steps = split.grid
    elements: dict[tuple[int, int, int], int] = {}
    for x, y, t in product(range(columns), range(rows), range(steps)):
        box = box_at(need, x, y, t)
        size = [max(hi - lo, 0) for lo, hi in box]
        got = np.full(size, -1, np.int64)
        count = np.zeros(size, np.int64)
        for core, dims in entries(move, x, y, t):
            mine = value[slices(box_at(hold, core % producer.columns, core // producer.columns, 0))]
            source = tuple(slice(s, s + n) for s, _, n in dims)
            target = tuple(slice(o, o + n) for _, o, n in dims)
            assert mine[source].shape == got[target].shape
            assert all(n > 0 for _, _, n in dims)
            got[target] = mine[source]
            count[target] += 1
            key = (t, y * columns + x, core)
            elements[key] = elements.get(key, 0) + int(np.prod([n for _, _, n in dims]))
        wanted = np.full(size, -1, np.int64)
        inside = [(max(lo, 0), min(hi, n)) for (lo, hi), n in zip(box, shape, strict=True)]
        if all(lo < hi for lo, hi in inside):
            shifted = [(lo - at, hi - at) for (lo, hi), (at, _) in zip(inside, box, strict=True)]
            wanted[slices(shifted)] = value[slices(inside)]
        assert np.array_equal(got, wanted)
        assert np.array_equal(count, wanted >= 0)
    for chunk in (1, 1 << 20):
        seen: dict[tuple[int, int, int], int] = {}
        for r in records(move, Grid(columns, rows), chunk):
            for target, step, source, n in zip(r.target, r.step, r.source, r.elements, strict=True):
                key = (int(step), int(target), int(source))
                seen[key] = seen.get(key, 0) + int(n)
        assert seen == elements


@settings(max_examples=120)
@given(st.data())
def test_no_link_carries_more_than_the_load_says(data: st.DataObject) -> None:
    """Each element once over each link: along its producer's row, then along its consumers' columns."""
    shape = tuple(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=2)))
    held_axes = tuple((f"h{i}", n) for i, n in enumerate(shape))
    made = data.draw(space_splits(held_axes))
    hold = layout(tuple(axis(a) for a, _ in held_axes), held_axes, made, merge_time=True)
    axes, access = data.draw(reads(len(shape)))
    split = data.draw(space_splits(axes))
    need = layout(access, axes, split)
    producer, consumer = Grid(*made.grid[:2]), Grid(*split.grid[:2])
    move = derive(need, hold, shape, producer, 0, 1)
    row: dict[Any, set[Any]] = {}
    column: dict[Any, set[Any]] = {}
    for x, y in product(range(consumer.columns), range(consumer.rows)):
        for core, dims in entries(move, x, y, 0):
            sx, sy = core % producer.columns, core // producer.columns
            items = {(core, *at) for at in product(*(range(s, s + n) for s, _, n in dims))}
            for i in range(min(sx, x), max(sx, x)):
                row.setdefault((sy, i, x > sx), set()).update(items)
            for i in range(min(sy, y), max(sy, y)):
                column.setdefault((x, i, y > sy), set()).update(items)
    sides = [
        ends(move, producer, np.arange(len(to)), np.arange(len(at)), side)
        for side, to, at in (
            ("x", range(consumer.columns), range(producer.columns)),
            ("y", range(consumer.rows), range(producer.rows)),
        )
    ]
    along, down = sides
    found = traffic_between(preset("wse3"), move, along, down, int(np.prod([p.extent for p in hold])), 4)
    assert max(map(len, row.values()), default=0) <= found.row
    assert max(map(len, column.values()), default=0) <= found.column


@settings(max_examples=120)
@given(st.data())
def test_a_delivery_takes_what_its_pairs_of_cores_say(data: st.DataObject) -> None:
    """The planner's figure, from first and last consumers alone, against all pairs and all spans."""
    wafer = preset("wse3")
    shape = tuple(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=2)))
    held_axes = tuple((f"h{i}", n) for i, n in enumerate(shape))
    write = tuple(axis(a) for a, _ in held_axes)
    made = data.draw(space_splits(held_axes))
    axes, access = data.draw(reads(len(shape)))
    split = data.draw(space_splits(axes))
    op = Neg(axes=axes, reads=(access,), write=tuple(axis(a) for a, _ in axes), in_types=(F32,), out_type=F32)

    def placed(columns: int, rows: int) -> Grid:
        at, pitch = st.integers(0, 20), st.integers(1, 3)
        return Grid(columns, rows, data.draw(at), data.draw(at), data.draw(pitch), data.draw(pitch))

    producer, consumer = placed(*made.grid[:2]), placed(*split.grid[:2])
    near = data.draw(st.booleans())
    source = Source(producer, made, write, held_axes, 0, 0.0 if near else 40.0, shape)
    site = Site(0 if near else 1, wafer.width, wafer.height, wafer, POLICY)
    got = delivery(Question(op, (source,), site, Limits(0, 0)), 0, split, consumer, POLICY.tree_colours)
    need, hold = layout(access, axes, split), layout(write, held_axes, made, merge_time=True)
    if near and identical(need, hold, consumer, producer) is not None:
        assert got == 0
        return
    move = derive(need, hold, shape, producer, 0, 1)
    sides: list[Ends] = []
    for side in ("x", "y"):
        to, at = coordinates(consumer, side), coordinates(producer, side)
        sides.append(ends(move, producer, to, at, side))
    x, y = sides
    if near and x.still and y.still:
        assert got == wafer.copy(np.max(need_elements(move.dims)), F32)
        return
    t = traffic_between(wafer, move, x, y, int(np.prod([p.extent for p in hold])), 4)
    hops = int(x.distance.max(initial=0) + y.distance.max(initial=0)) + source.distance
    way = wafer.route(hops, 0 if x.still or y.still else 1)
    if not near or t.deep[0] * t.deep[1] > POLICY.tree_colours:
        way += wafer.relayed(np.asarray(hops))
    else:
        way += wafer.multicast
    assert got == way + wafer.serial(max(float(np.max(t.inbound, initial=0)), t.sent, t.row, t.column))


def coordinates(grid: Grid, side: str) -> Any:
    """The coordinates of a grid's columns ("x") or rows ("y")."""
    if side == "x":
        return np.arange(grid.x, grid.x + grid.columns * grid.dx, grid.dx)
    return np.arange(grid.y, grid.y + grid.rows * grid.dy, grid.dy)


def test_a_single_element_goes_to_every_core() -> None:
    split = Split((Cut("a", "x", 3), Cut("b", "y", 2)))
    need = layout((), (("a", 3), ("b", 2)), split)
    move = derive(need, layout((), (), Split()), (), Grid(1, 1), 0, 1)
    (r,) = records(move, Grid(3, 2))
    assert r.target.tolist() == [0, 1, 2, 3, 4, 5]
    assert r.source.tolist() == [0] * 6 and r.elements.tolist() == [1] * 6


@settings(max_examples=60)
@given(st.data())
def test_partial_results_are_all_joined_in_ascending_order(data: st.DataObject) -> None:
    axes: Axes = (
        ("m", data.draw(st.integers(1, 6))),
        ("n", data.draw(st.integers(1, 6))),
        ("k", data.draw(st.integers(2, 9))),
    )
    cuts = data.draw(space_splits(axes[:2], 3)).cuts
    parts = data.draw(st.integers(2, 4))
    split = Split((*cuts, Cut("k", data.draw(st.sampled_from(["x", "y"])), parts)))
    op = ReduceSum(
        axes=axes,
        reads=((axis("m"), axis("n"), axis("k")),),
        write=(axis("m"), axis("n")),
        in_types=(F32,),
        out_type=F32,
    )
    grid = Grid(*split.grid[:2])
    hold = layout(op.write, axes, split, part="k", merge_time=True)
    joined, roots = join_split(op, split, "k", grid, POLICY)
    kept = axes[:2]
    need = layout(op.write, (("part", parts), *kept), joined)
    assert joined.grid[:2] == (roots.columns, roots.rows)
    # The roots are cores that made partial results.
    x0, y0, x1, y1 = roots.box
    assert x0 >= 0 and y0 >= 0 and x1 <= grid.columns and y1 <= grid.rows
    shape = tuple(n for _, n in kept)
    move = combining(derive(need, hold[1:], shape, grid, 0, 1), hold[0], grid, "add")
    total = np.zeros(shape, np.int64)
    for x, y in product(range(roots.columns), range(roots.rows)):
        box = box_at(need, x, y, 0)
        order: dict[tuple[int, ...], list[int]] = {}
        for core, dims in entries(move, x, y, 0):
            held = box_at(hold, core % grid.columns, core // grid.columns, 0)
            part = held[0][0] + dims[0][0]
            for at in product(
                *(range(lo + o, lo + o + n) for (lo, _), (_, o, n) in zip(box, dims[1:], strict=True))
            ):
                assert all(lo <= i < hi for i, (lo, hi) in zip(at, held[1:], strict=True))
                order.setdefault(at, []).append(part)
                total[at] += 1
        used = [i for i in range(parts) if i * -(-axes[2][1] // parts) < axes[2][1]]
        assert all(came == used for came in order.values())
    assert (total == len(used)).all()


@settings(max_examples=150)
@given(st.data())
def test_identical_says_where_a_core_finds_what_it_needs(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=2)))
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    made = data.draw(space_splits(axes, 3))
    hold = layout(tuple(axis(a) for a, _ in axes), axes, made, merge_time=True)
    producer = Grid(*made.grid[:2], x=data.draw(st.integers(0, 1)), y=0, dx=data.draw(st.integers(1, 2)))
    # Mostly the same split, sometimes another: both answers come up.
    split = made if data.draw(st.booleans()) else data.draw(space_splits(axes, 3))
    shift = data.draw(st.integers(-1, 1))
    smaller = tuple((a, max(1, n - data.draw(st.integers(0, 1)))) for a, n in axes)
    need = layout(tuple(axis(a, 1, shift if a == "d0" else 0) for a, _ in axes), smaller, split)
    consumer = Grid(*split.grid[:2], x=producer.x, y=0, dx=producer.dx)
    found = identical(need, hold, consumer, producer)

    def physical(g: Grid, x: int, y: int) -> tuple[int, int]:
        return g.x + x * g.dx, g.y + y * g.dy

    where = {
        physical(producer, x, y): (x, y) for x, y in product(range(producer.columns), range(producer.rows))
    }
    fits, offsets = True, {}
    for x, y in product(range(consumer.columns), range(consumer.rows)):
        wants = box_at(need, x, y, 0)
        if any(hi <= lo for lo, hi in wants):
            continue
        here = where.get(physical(consumer, x, y))
        if here is None:
            fits = False
            continue
        has = box_at(hold, *here, 0)
        if not all(a <= lo and hi <= b for (lo, hi), (a, b) in zip(wants, has, strict=True)):
            fits = False
        offsets[x, y] = [lo - a for (lo, _), (a, _) in zip(wants, has, strict=True)]
    if found is None:
        return
    assert fits
    ox, oy, ot = found
    for (x, y), offset in offsets.items():
        assert [int(v) for v in ox[:, x] + oy[:, y] + ot[:, 0]] == offset


def test_identical_is_found_for_equal_splits() -> None:
    axes = (("a", 7), ("b", 9))
    split = Split((Cut("a", "x", 3), Cut("b", "y", 2)))
    seen = layout((axis("a"), axis("b")), axes, split)
    found = identical(seen, seen, Grid(3, 2, 1, 1), Grid(3, 2, 1, 1))
    assert found is not None and not any(np.any(o) for o in found)
    assert identical(seen, seen, Grid(3, 2, 1, 1), Grid(3, 2, 0, 1)) is None


def elementwise(shape: tuple[int, ...], order: tuple[int, ...]) -> Neg:
    """A map that reads its operand transposed by `order`."""
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    read = tuple(axis(f"d{i}") for i in order)
    return Neg(axes=axes, reads=(read,), write=tuple(axis(a) for a, _ in axes), in_types=(F32,), out_type=F32)


@settings(max_examples=150)
@given(st.data())
def test_an_op_that_follows_reads_in_place(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([2, 3, 4, 6, 8, 12]), min_size=1, max_size=3)))
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    op = elementwise(shape, order)
    held_axes = tuple((f"h{i}", shape[d]) for i, d in enumerate(order))
    made = data.draw(space_splits(held_axes))
    assume(all(made.axis_ways(a) <= n for a, n in held_axes))
    write = tuple(axis(a) for a, _ in held_axes)
    source = Source(Grid(*made.grid[:2]), made, write, held_axes, 0, 0.0)
    found = follow(op, 0, source)
    if found is None:
        return
    split, grid = found
    assert split.grid[:2] == (grid.columns, grid.rows)
    need = layout(op.reads[0], op.axes, split)
    hold = layout(write, held_axes, made, merge_time=True)
    assert identical(need, hold, grid, source.grid) is not None


@settings(max_examples=100)
@given(st.data())
def test_an_op_that_follows_reads_its_part_of_a_joined_dimension(data: st.DataObject) -> None:
    """Heads of a wide dimension, [32*h + d], that the producer has cut between heads."""
    per_core, cores, wide = (data.draw(st.integers(a, b)) for a, b in ((1, 3), (2, 4), (1, 6)))
    heads = per_core * cores
    axes = (("h", heads), ("d", wide))
    read = (Affine((("h", wide), ("d", 1))),)
    op = Neg(axes=axes, reads=(read,), write=(axis("h"), axis("d")), in_types=(F32,), out_type=F32)
    held = (("n", heads * wide),)
    made = Split((Cut("n", data.draw(st.sampled_from(["x", "y"])), cores),))
    source = Source(Grid(*made.grid[:2]), made, (axis("n"),), held, 0, 0.0)
    found = follow(op, 0, source)
    assert found is not None
    hold = layout((axis("n"),), held, made, merge_time=True)
    assert identical(layout(read, axes, found[0]), hold, found[1], source.grid) is not None


@settings(max_examples=100)
@given(st.data())
def test_a_cut_of_a_joined_dimension_is_followed_digit_by_digit(data: st.DataObject) -> None:
    """Heads, halves and the rest of a wide dimension, [16*h + 8*half + d], cut within halves or across."""
    sizes = data.draw(st.permutations([4, 2, 8]))
    h, half, d = sizes
    axes = (("h", h), ("half", half), ("d", d))
    read = (Affine((("h", half * d), ("half", d), ("d", 1))),)
    op = Neg(axes=axes, reads=(read,), write=tuple(axis(a) for a, _ in axes), in_types=(F32,), out_type=F32)
    total = h * half * d
    outer = data.draw(st.sampled_from([1, 2, 4]))
    inner = data.draw(st.sampled_from([w for w in (1, 2, 4, 8, 16) if outer * w <= total]))
    cuts = [Cut("n", "y", outer), Cut("n", "x", inner)]
    made = Split(tuple(c for c in cuts if c.ways > 1))
    held = (("n", total),)
    source = Source(Grid(*made.grid[:2]), made, (axis("n"),), held, 0, 0.0)
    found = follow(op, 0, source)
    assert found is not None
    hold = layout((axis("n"),), held, made, merge_time=True)
    assert identical(layout(read, axes, found[0]), hold, found[1], source.grid) is not None


def test_an_elementwise_op_follows_its_producer() -> None:
    op = elementwise((6, 8), (0, 1))
    held: Any = (("m", 6), ("n", 8))
    split = Split((Cut("m", "y", 3), Cut("n", "x", 4)))
    found = follow(op, 0, Source(Grid(4, 3), split, (axis("m"), axis("n")), held, 0, 0.0))
    assert found is not None
    assert str(found[0]) == "x: d1/4, y: d0/3"
    assert found[1] == Grid(4, 3)


def test_a_reduction_follows_on_a_part_of_the_grid() -> None:
    op = ReduceSum(
        axes=(("m", 6), ("n", 8)),
        reads=((axis("m"), axis("n")),),
        write=(axis("m"),),
        in_types=(F32,),
        out_type=F32,
    )
    split = Split((Cut("a", "y", 3),))
    source = Source(Grid(1, 3, 2, 0), split, (axis("a"), axis("b")), (("a", 6), ("b", 8)), 0, 0.0)
    found = follow(op, 0, source)
    assert found is not None and str(found[0]) == "y: m/3" and found[1] == Grid(1, 3, 2, 0)


def test_a_join_is_spread_over_the_cores_that_made_its_parts() -> None:
    op = ReduceSum(
        axes=(("m", 6), ("k", 8)),
        reads=((axis("m"), axis("k")),),
        write=(axis("m"),),
        in_types=(F32,),
        out_type=F32,
    )
    split, grid = join_split(op, Split((Cut("k", "x", 4),)), "k", Grid(4, 1, 3, 5), POLICY)
    # 6 elements over 4 cores: two roots of 3 each divide exactly, each in the middle of its two cores.
    assert str(split) == "x: m/2" and grid == Grid(2, 1, 4, 5, 2, 1)


def test_a_reduction_follows_into_partial_results() -> None:
    """The reduced axis stays cut where its digit is innermost, and only there."""
    op = ReduceSum(
        axes=(("m", 6), ("n", 8)),
        reads=((axis("m"), axis("n")),),
        write=(axis("m"),),
        in_types=(F32,),
        out_type=F32,
    )
    held: Any = (("a", 6), ("b", 8))
    write = (axis("a"), axis("b"))
    inner = Split((Cut("a", "x", 3), Cut("b", "x", 4)))
    found = follow(op, 0, Source(Grid(12, 1), inner, write, held, 0, 0.0))
    assert found is not None and str(found[0]) == "x: m/3 n/4" and found[1] == Grid(12, 1)
    outer = Split((Cut("b", "x", 4), Cut("a", "x", 3)))
    assert follow(op, 0, Source(Grid(12, 1), outer, write, held, 0, 0.0)) is None
