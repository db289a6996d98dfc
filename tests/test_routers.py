"""What routers are taken to do with a colour, beside what the judge paints, move by move."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_moves import Axes, coordinates, reads, space_splits
from waferc.ir.affine import axis
from waferc.placement.build import placement_file as written
from waferc.placement.build.regions import make_region
from waferc.placement.build.routers import (
    ALIKE,
    APART,
    CONFIGURATION,
    DIFFERENT,
    LANE,
    SUM,
    Passage,
    apart,
    lane_passages,
    meeting,
    sum_passages,
    tree_passages,
)
from waferc.placement.build.routes import colour_intervals, routed
from waferc.placement.cost.reach import Ends, ends
from waferc.placement.judge import lanes as judged
from waferc.placement.judge import trees
from waferc.placement.judge.judge import judge
from waferc.placement.judge.pairs import pairs_of
from waferc.placement.machine.presets import preset
from waferc.placement.plan.colours import lanes, reduction
from waferc.placement.plan.layout import Cut, Grid, Split, layout
from waferc.placement.plan.move import Move, derive
from workloads import products

WAFER = preset("32x32")
REGION = make_region(WAFER, "all", 0, 0, 32, 32)
PLAN: Any = SimpleNamespace(wafer=WAFER, regions=[REGION])
BITS = {1: trees.EAST, 2: trees.WEST, 4: trees.SOUTH, 8: trees.NORTH, 16: trees.RAMP}  # by ours the judge's


@st.composite
def moves(draw: st.DrawFn) -> tuple[Move, Grid, Grid, Ends, Ends]:
    """A move with its producer's grid and its consumer's; sizes seldom divide, so that the last cores of a
    line hear nothing."""
    shape = tuple(draw(st.lists(st.integers(1, 8), min_size=1, max_size=2)))
    held: Axes = tuple((f"h{i}", n) for i, n in enumerate(shape))
    made = draw(space_splits(held))
    axes, access = draw(reads(len(shape)))
    split = draw(space_splits(axes))
    if draw(st.booleans()):
        split = Split((*split.cuts, Cut(draw(st.sampled_from([a for a, _ in axes])), "t", 2)))

    def placed(columns: int, rows: int) -> Grid:
        dx, dy = (draw(st.integers(1, max(1, min(3, 31 // n)))) for n in (columns, rows))
        x, y = (draw(st.integers(0, 31 - (n - 1) * d)) for n, d in ((columns, dx), (rows, dy)))
        return Grid(columns, rows, x, y, dx, dy)

    assume(max(*made.grid[:2], *split.grid[:2]) <= 32)
    producer, consumer = placed(*made.grid[:2]), placed(*split.grid[:2])
    hold = layout(tuple(axis(a) for a, _ in held), held, made, merge_time=True)
    move = derive(layout(access, axes, split), hold, shape, producer, 0, 1)
    x, y = (
        ends(move, producer, coordinates(consumer, side), coordinates(producer, side), side) for side in "xy"
    )
    return move, producer, consumer, x, y


def step(grid: Grid) -> Any:
    return SimpleNamespace(region=0, grid=grid)


def painted(
    move: Move, producer: Grid, consumer: Grid, x: Ends, y: Ends
) -> tuple[list[np.ndarray[Any, Any]], tuple[Passage, ...]]:
    """(the judge's configurations by colour, [cores]; the passages of the move's trees)."""
    cx, cy = (colour_intervals(*e.spans()) for e in (x, y))
    ways = int(cy.max(initial=0)) + 1
    passages = tree_passages(x, y, cx, cy, "" if apart(move.dims, x, y) else "these tables")
    coloured: Any = SimpleNamespace(colour_x=cx * ways, colour_y=cy, detours=())
    pairs = pairs_of(PLAN, step(consumer), step(producer), move)
    seen = trees.visits(PLAN, "", step(producer), coloured, pairs)
    out = [np.zeros(WAFER.cores, np.int64) for _ in passages]
    for core, colour, configuration in zip(seen.core, seen.colour, seen.configuration, strict=True):
        assert out[colour][core] == 0  # no two trees of a move meet
        out[colour][core] = configuration
    return out, passages


def expected(p: Passage) -> np.ndarray[Any, Any]:
    """[cores]: what routers do, in the judge's words; 255 for what is only passed."""
    out = np.zeros((32, 32), np.int64)
    columns, rows = (np.frombuffer(codes, np.uint8) for codes in (p.columns, p.rows))
    own = CONFIGURATION[columns[None, :], rows[:, None]].astype(np.int64)
    words = np.where(own == 255, 255, own & 7 << 5)
    for bit, other in BITS.items():
        words |= np.where((own < 255) & (own & bit > 0), other, 0)
    out[p.y0 : p.y0 + own.shape[0], p.x0 : p.x0 + own.shape[1]] = words
    return out.ravel()


@settings(max_examples=60, deadline=None)
@given(moves())
def test_routers_do_what_the_judge_paints(drawn: tuple[Move, Grid, Grid, Ends, Ends]) -> None:
    seen, passages = painted(*drawn)
    for configuration, passage in zip(seen, passages, strict=True):
        if passage.purpose:
            assert not (configuration[expected(passage) == 0]).any()
        else:
            assert np.array_equal(configuration, expected(passage))


@settings(max_examples=60, deadline=None)
@given(moves(), moves())
def test_two_moves_meet_where_the_judge_says_so(one: Any, other: Any) -> None:
    mine, passages = painted(*one)
    theirs, others = painted(*other)
    for a, p in zip(mine, passages, strict=True):
        for b, q in zip(theirs, others, strict=True):
            both = (a > 0) & (b > 0)
            exact = APART if not both.any() else ALIKE if (a == b)[both].all() else DIFFERENT
            met = meeting(p, q)
            assert met == meeting(q, p)
            if p.purpose or q.purpose:
                assert met == DIFFERENT or exact == APART or p.purpose == q.purpose
            else:
                assert met == exact or (p == q and exact == APART)  # what passes nothing at all


@settings(max_examples=60, deadline=None)
@given(moves())
def test_lanes_are_kept_where_the_judge_sees_them_taken(drawn: tuple[Move, Grid, Grid, Ends, Ends]) -> None:
    move, producer, consumer, x, y = drawn
    kept: dict[int, np.ndarray[Any, Any]] = {}
    for (direction, far), p in lane_passages(x, y, WAFER.express).items():
        assert p.purpose == LANE
        kept |= dict.fromkeys(lanes(direction, far), expected(p))
    _within(Move(0, 1, move.dims), producer, consumer, kept)
    kept = {}
    for side, p in sum_passages(x, y).items():
        assert p.purpose == SUM
        kept |= dict.fromkeys(reduction(side, WAFER.colours), expected(p))
    _within(Move(0, 1, move.dims, route="join"), producer, consumer, kept)


def _within(move: Move, producer: Grid, consumer: Grid, kept: dict[int, Any]) -> None:
    of = judged.Kept("", step(consumer), step(producer), move)
    box = judged.near(PLAN, of)
    for _, colours, passed in judged.passed(PLAN, of, box):
        for colour in colours:
            own = kept.get(colour, np.zeros(WAFER.cores)).reshape(WAFER.height, WAFER.width)
            assert not (passed & (own[box] == 0)).any()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_routed_plans_are_legal_where_last_cores_hear_nothing(data: st.DataObject) -> None:
    """Two products in a row, cut in numbers that do not divide their axes."""
    k, n = (data.draw(st.integers(2, 40)) for _ in range(2))
    graph, wafer = products(k, n), preset("16x16")
    ops: list[dict[str, Any]] = []
    for i, node in enumerate(graph.nodes):
        cuts: list[list[Any]] = []
        for side in "xy":
            axes = [a for a, size in node.op.axes if size > 1]
            if axes and data.draw(st.booleans()):
                cuts.append([data.draw(st.sampled_from(axes)), side, data.draw(st.integers(2, 16))])
        ops.append({"node": i, "region": 0, "split": cuts, "roots": data.draw(st.integers(0, 2))})
    region = {"name": "all", "x": 0, "y": 0, "columns": 16, "rows": 16}
    placement = {"schema": written.SCHEMA, "regions": [region], "ops": ops}
    try:
        made = written.read(json.loads(json.dumps(placement)), graph, wafer)
    except written.PlacementError:
        assume(False)
        return
    judge(routed(made))
