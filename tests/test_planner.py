"""Planning as a whole: every preset, every graph, every placer; damage; determinism; what does not fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plans
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waferc.ir import dtypes
from waferc.placement.build import placement_file as written
from waferc.placement.build.addresses import ALIGNMENT, allocate
from waferc.placement.build.assemble import assemble
from waferc.placement.build.regions import Ground, logical_width, physical_width
from waferc.placement.build.routes import colour_intervals, routed
from waferc.placement.cost.fabric import joining
from waferc.placement.cost.reach import NOWHERE
from waferc.placement.cost.timing import simulate, task_cycles
from waferc.placement.judge.judge import judge
from waferc.placement.machine.presets import preset
from waferc.placement.machine.wafer import Wafer
from waferc.placement.plan.layout import Cut, Grid, Side, Split, axis_indices
from waferc.placement.plan.move import Move
from waferc.placement.plan.plan import Buffer, Plan, Step
from waferc.placement.planner import chooser, plan, run
from waferc.placement.search.explain import DoesNotFit
from waferc.placement.search.placers import PLACERS, arrangements
from waferc.placement.search.search import Assignment, Search
from waferc.placement.splits.policy import POLICY


@pytest.mark.parametrize("wafer", plans.SMALL)
@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_plans_are_legal(graph: str, wafer: str) -> None:
    made = plan(plans.GRAPHS[graph](), preset(wafer))
    judge(made)
    assert {s.node for s in made.steps if s.kind == "task"} == set(range(len(made.graph.nodes)))
    assert made.sram().max() <= made.wafer.sram_bytes
    assert 0 < simulate(made).cycles < 1e7


def same_move(a: Move, b: Move) -> bool:
    tables = [
        (getattr(d, f), getattr(e, f))
        for d, e in zip(a.dims, b.dims, strict=True)
        for f in ("x", "y", "t", "start", "core", "source", "target", "length")
    ]
    tables += [
        (np.asarray(a.colour_x), np.asarray(b.colour_x)),
        (np.asarray(a.colour_y), np.asarray(b.colour_y)),
    ]
    return (a.source, a.target, a.route, a.detours) == (b.source, b.target, b.route, b.detours) and all(
        np.array_equal(x, y) for x, y in tables
    )


def moves_of(s: Step) -> list[Move]:
    return [m for o in s.operands for m in o.moves] + list(s.moves)


@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_the_same_plan_twice(graph: str) -> None:
    a, b = (plan(plans.GRAPHS[graph](), preset("16x16")) for _ in range(2))
    assert a.buffers == b.buffers and a.outputs == b.outputs and a.code_bytes == b.code_bytes
    assert [(r.name, r.x, r.y, r.core.tolist()) for r in a.regions] == [
        (r.name, r.x, r.y, r.core.tolist()) for r in b.regions
    ]
    for s, t in zip(a.steps, b.steps, strict=True):
        assert (s.name, s.kind, s.split, s.grid, s.wavefront) == (
            t.name,
            t.kind,
            t.split,
            t.grid,
            t.wavefront,
        )
        assert all(same_move(m, n) for m, n in zip(moves_of(s), moves_of(t), strict=True))


@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_a_written_placement_gives_the_same_plan_again(graph: str) -> None:
    a = plans.planned(graph, "16x16")
    text = json.dumps(written.write(a))
    b = routed(written.read(json.loads(text), plans.GRAPHS[graph](), a.wafer))
    assert a.buffers == b.buffers and a.outputs == b.outputs
    for s, t in zip(a.steps, b.steps, strict=True):
        assert (s.split, s.grid, s.wavefront) == (t.split, t.grid, t.wavefront)
        assert all(same_move(m, n) for m, n in zip(moves_of(s), moves_of(t), strict=True))


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_one_core_in_a_hundred_may_be_dead(graph: str, side: int, seed: int) -> None:
    wafer = plans.damaged(side, 0.01, seed)
    made = plan(plans.GRAPHS[graph](), wafer)
    judge(made)
    dead = wafer.dead().ravel()
    for s in made.steps:
        assert not dead[made.regions[s.region].on(s.grid)].any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("graph", ["mlp", "attention", "state"])
def test_routes_go_around_dead_links(graph: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    at = zip(random.integers(0, 16, 12), random.integers(0, 16, 12), random.integers(0, 4, 12), strict=True)
    links = {(int(x), int(y), ("east", "west", "south", "north")[d]) for x, y, d in at}
    wafer = replace(preset("16x16"), dead_links=tuple(sorted(links)))
    judge(plan(plans.GRAPHS[graph](), wafer))


# -- what does not fit ----------------------------------------------------------------------------------


def test_weights_past_the_wafer_are_refused_with_numbers() -> None:
    m = plans.Model()
    x = m.tensor("x", (1, 600), dtypes.F32)
    graph = m.graph("large", [x], [m.op("MatMul", x, m.normal(0, 600, 600))])
    with pytest.raises(
        DoesNotFit, match=r"constants.* need 1,\d{3},\d{3} bytes; wafer 4x4 has 719,616.*largest: "
    ):
        plan(graph, preset("4x4"))


def test_a_core_over_budget_is_named_with_its_largest_buffers() -> None:
    """A softmax row of 40,000 elements has no cut, and operand and result take 320,000 bytes."""
    m = plans.Model()
    x = m.tensor("x", (1, 40_000), dtypes.F32)
    graph = m.graph("row", [x], [m.op("Softmax", x)])
    with pytest.raises(
        DoesNotFit, match=r"core \(\d+, \d+\) needs [\d,]+ bytes, budget 44,976; largest: n0_Softmax"
    ) as e:
        plan(graph, preset("8x8"))
    # The nearest attempt is there to be drawn, and the judge refuses it too.
    assert e.value.plan is not None
    with pytest.raises(ValueError, match=r"budget 44976"):
        judge(e.value.plan)


# -- cost and work ------------------------------------------------------------------------------------------


def extents(s: Step) -> list[dict[str, int]]:
    """Of every tile that is not empty."""
    out: list[dict[str, int]] = []
    index = axis_indices(s.split, s.op.axes)
    columns, rows, steps = s.split.grid
    for x in range(columns):
        for y in range(rows):
            for t in range(steps):
                numbers = {a: int(i.x[x] + i.y[y] + i.t[t]) for a, i in index.items()}
                sizes = {a: int(i.ends[numbers[a]] - i.origins[numbers[a]]) for a, i in index.items()}
                if min(sizes.values(), default=1) > 0:
                    out.append(sizes)
    return out


LINEAR = ("Add", "Relu", "Neg", "Contract")  # elements in proportion to the iteration space


@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_tiles_add_up_to_the_whole_work(graph: str) -> None:
    made = plans.planned(graph, "16x16")
    seen = 0
    for s in made.steps:
        if s.kind != "task" or s.op.name not in LINEAR:
            continue
        tiles = extents(s)
        assert len(tiles) == s.tiles
        whole = sum(int(w.elements) for w in s.op.work(dict(s.op.axes)))
        assert sum(int(w.elements) for e in tiles for w in s.op.work(e)) == whole
        seen += 1
    assert seen


@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_kernel_cycles_come_from_the_wafer_alone(graph: str) -> None:
    made = plans.planned(graph, "8x8")
    for s in made.steps:
        if s.kind == "task":
            total = sum(float(made.wafer.task(s.op, e)[0]) for e in extents(s))
            assert float(task_cycles(made.wafer, s).sum()) == pytest.approx(total)


@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_a_step_ends_after_those_that_it_reads(graph: str) -> None:
    made = plans.planned(graph, "16x16")
    timing = simulate(made)
    by_result = {s.result: s.number for s in made.steps if s.kind != "update"}
    for s in made.steps:
        for m in moves_of(s):
            assert timing.end[s.number].max() > timing.end[by_result[m.source]].max() or m.route == "local"
    assert timing.cycles == pytest.approx(max(float(e.max()) for e in timing.end))


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("pitch", [1, 3])
def test_a_line_is_joined_at_its_own_price_along_either_side(side: Side, pitch: int) -> None:
    grid = Grid(64, 1, dx=pitch) if side == "x" else Grid(1, 64, dy=pitch)
    wafer = preset("wse3")
    cycles = joining(wafer, Split((Cut("k", side, 64),)), "k", grid, 5)
    assert cycles == wafer.join(64, 5, pitch)


@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_a_step_in_place_starts_after_what_it_reads(graph: str) -> None:
    made = plans.planned(graph, "16x16")
    timing = simulate(made)
    writer: dict[int, Step] = {}
    for s in made.steps:
        for o in s.operands:
            if not o.received and o.buffer in writer:
                w = writer[o.buffer]
                rows, columns = s.grid.within(w.grid)
                assert (timing.start[s.number] >= timing.end[w.number][np.ix_(rows, columns)]).all()
        if s.kind != "update":
            writer[s.result] = s


# -- colours ---------------------------------------------------------------------------------------

spans = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)), max_size=12)


@given(spans, st.integers(0, 3))
def test_overlapping_spans_get_colours_apart_and_no_more_than_overlap(
    made: list[tuple[int, int]], idle: int
) -> None:
    lo = np.array([a for a, _ in made] + [NOWHERE] * idle, np.int64)
    hi = np.array([a + n for a, n in made] + [NOWHERE] * idle, np.int64)
    colour = colour_intervals(lo, hi)
    at = range(30)
    here = [[int(c) for c, a, b in zip(colour, lo, hi, strict=True) if a <= x <= b] for x in at]
    assert all(len(set(c)) == len(c) for c in here)
    assert int(colour.max(initial=-1)) + 1 == max([*map(len, here), min(idle, 1)])


# -- SRAM ---------------------------------------------------------------------------------------------------

grids = st.builds(
    Grid,
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 2),
    st.integers(1, 2),
)


@st.composite
def buffers(draw: st.DrawFn) -> list[Buffer]:
    out: list[Buffer] = []
    for number in range(draw(st.integers(1, 8))):
        first = draw(st.integers(-1, 5))
        shape = (draw(st.integers(1, 50)),)
        live = (first, first + draw(st.integers(0, 4)))
        region = draw(st.integers(0, 1))
        out.append(Buffer(number, "b", "result", region, draw(grids), dtypes.F32, shape, (0,), live))
    return out


def cores(g: Grid) -> set[tuple[int, int]]:
    return {(g.x + i * g.dx, g.y + j * g.dy) for i in range(g.columns) for j in range(g.rows)}


@settings(max_examples=150)
@given(buffers())
def test_no_two_buffers_clash(made: list[Buffer]) -> None:
    code = (100, 0)
    placed = allocate(made, code)
    assert [replace(b, address=-1) for b in placed] == made
    for i, b in enumerate(placed):
        assert b.address >= code[b.region] and b.address % ALIGNMENT == 0
        for o in placed[:i]:
            together = b.region == o.region and b.live[0] <= o.live[1] and o.live[0] <= b.live[1]
            if together and cores(b.grid) & cores(o.grid):
                assert b.address + b.bytes <= o.address or o.address + o.bytes <= b.address


def test_buffers_that_never_meet_share_addresses() -> None:
    def buffer(number: int, grid: Grid, live: tuple[int, int]) -> Buffer:
        return Buffer(number, "b", "result", 0, grid, dtypes.F32, (8,), (0,), live)

    placed = allocate(
        [buffer(0, Grid(2, 2), (0, 1)), buffer(1, Grid(2, 2), (2, 3)), buffer(2, Grid(2, 2, 2, 0), (0, 3))],
        (16,),
    )
    assert [b.address for b in placed] == [16, 16, 16]


# -- regions ------------------------------------------------------------------------------------------------

sizes = st.lists(st.tuples(st.just("r"), st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=6)


@pytest.mark.parametrize("placer", PLACERS)
@settings(max_examples=60)
@given(sizes, st.sampled_from([0.0, 0.01, 0.03]), st.integers(0, 5))
def test_regions_are_apart_inside_and_alive(
    placer: str, wanted: Sequence[tuple[str, int, int]], share: float, seed: int
) -> None:
    wafer = plans.damaged(24, share, seed)
    regions = PLACERS[placer](wafer, wanted)
    if regions is None:
        assert share or sum(c * r for _, c, r in wanted) > 24 * 24 // 6
        return
    assert [(r.columns, r.rows) for r in regions] == [(c, r) for _, c, r in wanted]
    taken: Any = np.zeros((24, 24), np.int64)
    used: Any = np.zeros(24 * 24, np.int64)
    for r in regions:
        taken[r.y : r.y + r.height, r.x : r.x + r.width] += 1
        np.add.at(used, r.core.ravel(), 1)
        x, y = r.core % 24, r.core // 24
        assert ((x >= r.x) & (x < r.x + r.width) & (y >= r.y) & (y < r.y + r.height)).all()
        assert r.x >= 0 and r.y >= 0 and r.x + r.width <= 24 and r.y + r.height <= 24
    assert taken.max() == 1 and used.max() == 1
    assert not used[wafer.dead().ravel()].any()


@pytest.mark.parametrize("placer", PLACERS)
@pytest.mark.parametrize("dead", [0.0, 0.01])
@pytest.mark.parametrize("graph", ["mlp", "attention"])
def test_plans_on_the_regions_of_every_placer_are_legal(graph: str, dead: float, placer: str) -> None:
    """Nodes in turn on four regions: every hand-over that there can be, forward and back."""
    made, wafer = plans.GRAPHS[graph](), plans.damaged(24, dead, 1)
    regions = PLACERS[placer](wafer, [("a", 12, 8), ("b", 8, 12), ("c", 9, 4), ("d", 4, 9)])
    assert regions is not None
    ground = Ground(wafer, regions, {i: i % 4 for i in range(len(made.nodes))}, POLICY)
    built = routed(assemble(made, ground, chooser(made, wafer), "latency"))
    judge(built)
    assert {s.region for s in built.steps} == set(range(4))


def test_placers_go_along_rows_or_along_columns() -> None:
    wafer, sizes = preset("16x16"), [("r", 6, 4)] * 4
    found = arrangements(wafer, sizes)
    assert [(r.x, r.y) for r in found["strips"]] == [(0, 0), (6, 0), (10, 4), (4, 4)]
    assert [(r.x, r.y) for r in found["piles"]] == [(0, 0), (0, 4), (0, 8), (0, 12)]
    assert list(arrangements(wafer, sizes[:1])) == ["strips"]  # the same place is not tried twice


def test_what_was_attempted_is_told() -> None:
    search = Search(plans.mlp(), preset("16x16"), "throughput")
    run(search)
    assert str(search).splitlines() == [
        "all on one region: 4x4: 18,154 cycles, the best so far",
        "all on one region: 8x8: 6,959 cycles, the best so far",
        "all on one region: 16x16: 3,131 cycles, the best so far",
        "each op by itself: 16x16: 3,131 cycles",
        "each group on its region: 2 regions, 8x16 in strips: 2,051 cycles, the best so far",
        "trees where a call waits: other routes, a call: 4,694 cycles",
    ]
    assert search.result() is search.best and search.cycles < 2052


def test_what_does_not_fit_was_attempted_in_vain() -> None:
    m = plans.Model()
    x = m.tensor("x", (1, 40_000), dtypes.F32)
    search = Search(m.graph("row", [x], [m.op("Softmax", x)]), preset("8x8"))
    run(search)
    assert search.attempts and all(a.over > 0 and not a.best for a in search.attempts)
    assert {a.way for a in search.attempts} == {"all on one region", "within budgets"}
    with pytest.raises(DoesNotFit):
        search.result()


def test_wide_regions_hand_over_sooner_in_a_pile() -> None:
    """Of four regions of 64x8, one below the other: 8 hops from each to the next, not 64."""
    m = plans.Model()
    x = m.tensor("x", (2, 64), dtypes.F32)
    h = x
    for i in range(4):
        h = m.op("MatMul", h, m.normal(i, 64, 64))
    search = Search(m.graph("tower", [x], [h]), replace(preset("8x8"), width=128, height=64))
    search.build(Assignment((0, 1, 2, 3), (("r", 64, 8),) * 4))
    strips, pile = search.attempts
    assert strips.what == "4 regions, 64x8 in strips" and pile.what == "4 regions, 64x8 in piles"
    assert pile.best and pile.cycles < strips.cycles - 3 * (64 - 8) * preset("8x8").hop
    assert search.best is not None and {r.x for r in search.best.regions} == {0}


@given(st.integers(1, 200))
def test_spare_columns_are_counted_both_ways(columns: int) -> None:
    whole, hurt = preset("8x8"), plans.damaged(8, 0.05, 0)
    assert physical_width(whole, columns) == columns == logical_width(whole, columns)
    width = physical_width(hurt, columns)
    assert columns < width <= columns + 1 + columns // 15
    assert physical_width(hurt, logical_width(hurt, width)) <= width
    assert logical_width(hurt, width) >= columns


def test_a_plan_prefers_what_the_timing_says() -> None:
    """More cores never make the predicted time much worse."""
    cycles = [simulate(plans.planned("mlp", w)).cycles for w in ("8x8", "16x16", "32x32")]
    assert cycles[1] < cycles[0] and cycles[2] < 1.2 * cycles[1]


def test_a_wafer_that_is_no_wafer_is_refused() -> None:
    broken: Wafer = replace(preset("8x8"), wavelet=0)
    with pytest.raises(ValueError, match="wavelet = 0"):
        plan(plans.mlp(), broken)


def test_what_lies_where_it_was_made_rides_on_its_maker() -> None:
    """No wavefronts, tasks or buffers of their own for all that can be done as the end of a product."""
    made = plans.riding()
    judge(made)
    ridden = {s.op.name: made.steps[s.rides].name for s in made.steps if s.rides >= 0 and s.wavefront == 1}
    assert ridden == dict.fromkeys(("Relu", "Softmax", "Add", "Neg"), "n0_MatMul")
    # Two products, the negated input and the sum of both branches, on eight cores each.
    assert (made.wavefronts, made.tasks) == (4, 32)
    over = {s.name for s in made.steps if made.buffers[s.result].over >= 0}
    assert over == {"n3_Add", "n4_Neg", "n6_Relu", "n8_Add"}
    text = str(made)
    assert "w1 rides on 2 task Softmax" in text
    assert " over 'n2_Softmax_out'" in text


def test_a_kernel_after_a_join_is_a_task() -> None:
    """The reduction is the fabric's business, what its result is then used for a core's."""
    made = plans.planned("mlp", "32x32")
    for s in made.steps:
        assert s.leader == s.number or made.steps[s.rides].wavefront == s.wavefront
    joined = [s for s in made.steps if s.rides >= 0 and made.steps[s.rides].kind == "join"]
    assert joined
    rest = sum(s.tiles for s in made.steps if s.kind == "task" and s.rides < 0)
    assert made.tasks == rest + sum(s.tiles for s in joined if s.number == s.rides + 1)


def test_buffers_that_take_over_one_another_have_one_address() -> None:
    """Their lives as one: nothing else may lie there in between."""
    grid = Grid(2, 1)

    def buffer(number: int, live: tuple[int, int], over: int = -1) -> Buffer:
        return Buffer(number, f"b{number}", "result", 0, grid, dtypes.F32, (8,), (0,), live, over=over)

    chain = [buffer(0, (0, 2)), buffer(1, (2, 5), over=0), buffer(2, (5, 6), over=1)]
    placed = allocate([*chain, buffer(3, (3, 3)), buffer(4, (7, 9))], (256,))
    assert placed[0].address == placed[1].address == placed[2].address == placed[4].address
    assert placed[3].address != placed[0].address
    assert [b.live for b in placed] == [(0, 2), (2, 5), (5, 6), (3, 3), (7, 9)]


def test_outputs_are_owned_to_the_end() -> None:
    made: Plan = plans.planned("state", "8x8")
    assert set(made.outputs) == set(made.graph.outputs)
    for owners in made.outputs.values():
        for number in owners:
            assert made.buffers[made.steps[number].result].live[1] == len(made.steps)


@pytest.mark.parametrize("side", [4, 5, 8, 16])
def test_cores_that_only_pad_hear_nobody(side: int) -> None:
    """More consumers than producers, each of which feeds the one in its place."""
    m = plans.Model()
    x = m.tensor("x", (1, 1, 4, 11), dtypes.F32)
    pads = m.constant(np.array([0, 0, 0, 0, 0, 0, 1, 0], np.int64))
    y = m.op("Neg", x)
    out = m.op("Add", m.op("Pad", y, pads), m.op("Pad", y, pads, m.constant(np.array(7, np.float32))))
    wafer = replace(preset("16x16"), name="drawn", width=side, height=side)
    judge(plan(m.graph("padded", [x], [out]), wafer))
