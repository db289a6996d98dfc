"""The judge: lets good plans through, and names what is wrong with each of many bad ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import broken
import numpy as np
import plans
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from waferc.ir.dtypes import F32
from waferc.placement.build import placement_file as written
from waferc.placement.build.routes import routed
from waferc.placement.judge.judge import IllegalPlan, judge
from waferc.placement.machine.presets import load, preset
from waferc.placement.plan.layout import Grid
from waferc.placement.plan.move import Move
from waferc.placement.plan.plan import Buffer, Plan
from waferc.placement.planner import plan

BEFORE = Path(__file__).parent.parent / "benchmarks" / "data" / "wse3-before.toml"


@pytest.mark.parametrize("wafer", plans.SMALL)
@pytest.mark.parametrize("graph", plans.GRAPHS)
def test_a_good_plan_passes(graph: str, wafer: str) -> None:
    judge(plans.planned(graph, wafer))


# Which plan is broken, how, and what the judge must say.
BAD = [
    (
        "mlp",
        broken.on_a_dead_core,
        r"'\w+' \(step \d\): a tile on dead core \(\d+, \d+\), \d+ of \d+ are dead",
    ),
    ("mlp", broken.past_the_wafer, r"region 'n0_MatMul': 17x\d+ at core \(0, 0\) passes the wafer's 16x16"),
    ("mlp", broken.overlapping_regions, r"regions 'n0_MatMul' and 'other' both have core \(0, 0\)"),
    ("mlp", broken.core_twice, r"region 'n0_MatMul': core \(0, 0\) stands for 2"),
    ("mlp", broken.core_elsewhere, r"region 'n0_MatMul': core \(0, 0\) is not in its rectangle"),
    ("mlp", broken.grid_past_region, r"task 'n0_MatMul' \(step 1\): grid .* ends at \(\d+, \d+\), region"),
    ("mlp", broken.other_grid_than_split, r"task 'n0_MatMul' \(step 1\): split .* for a grid of 1x1"),
    ("mlp", broken.one_byte_over, r"buffer '.*'.*: ends at (\d+) on core \(\d+, \d+\), budget \d+"),
    ("mlp", broken.code_grown, r"buffer '.*'.*: address \d+ on core \(\d+, \d+\); code ends at \d+"),
    (
        "mlp",
        broken.same_address,
        r"constant buffer '.*' .* and constant buffer '.*' .* both have address \d+ on core",
    ),
    ("mlp", broken.short_life, r"result buffer '.*' .*: lives from \d+ to (\d+), is used from \d+ to \d+"),
    ("mlp", broken.output_dies, r"result buffer '.*' .*: lives from \d+ to (\d+), is used from \d+ to \d+"),
    ("mlp", broken.small_receive, r"receive buffer '.*' .* has \d+ elements along dimension \d, needs \d+"),
    ("mlp", broken.elsewhere_received, r"on grid .*, but receive buffer '.*' .* on "),
    ("attention", broken.no_scratch, r"scratch of 0 bytes, \w+ takes \d+"),
    ("mlp", broken.late_delivery, r"in wavefront (\d), but it reads .* of \1"),
    ("mlp", broken.swapped, r"at position \d, but it reads .* at \d"),
    ("mlp", broken.wrong_number, r"\(step 3\): position 2, but it is the one at 2"),
    ("mlp", broken.high_colour, r"tree from .*: colour 24, a router has 24"),
    (
        "mlp",
        broken.lane_colour,
        r"relay from .*: the lane \w+ has colour \d+ at core \(\d+, \d+\), where a tree for .* has it",
    ),
    (
        "mlp",
        broken.reduction_colour,
        r"join from .*: the reduction along [xy] has colour \d+ at core \(\d+, \d+\), where a tree for ",
    ),
    ("mlp", broken.kept_colour, r"tree from .*: colour 23, a router has 24, the last 2 for the host"),
    (
        "mlp",
        broken.few_colours,
        r"(relay|join) from .*: lanes take 16 colours(, reductions \d)? and the host 2, a router has 8",
    ),
    ("mlp", broken.one_colour_twice, r"two trees of the step have colour 20 at core \(\d+, \d+\) at once"),
    ("attention", broken.two_meanings, r"colour \d+ at core \(\d+, \d+\) is \w+ -> .*, but \w+ -> .* for "),
    ("mlp", broken.false_local, r"local from .*: leaves core \(\d+, \d+\) for core \(\d+, \d+\)"),
    ("mlp", broken.no_route, r"host from .*: no route between cores"),
    (
        "mlp",
        broken.dead_link(broken.is_relay),
        r"uses dead link (east|west) of core \([34], \d+\)|dead link of core",
    ),
    ("state", broken.dead_link(broken.is_tree), r"tree uses a dead link of core \([34], \d+\)"),
    (
        "links",
        broken.without_detours,
        r"the path from core \(\d+, \d+\) to core .* uses dead link \w+ of core",
    ),
    (
        "links",
        broken.detoured(broken.straight),
        r"detour from core \(\d+, \d+\) to core .* uses dead link \w+ of core",
    ),
    (
        "links",
        broken.detoured(broken.shortcut),
        r"detour from core \(\d+, \d+\) to core .* (is cut between|uses dead)",
    ),
    ("links", broken.detoured(broken.ends_early), r"detour from core \(\d+, \d+\) to core .* goes from "),
    (
        "links",
        broken.detoured(broken.off_the_wafer),
        r"detour from .* leaves the wafer's 16x16 at core \(\d+, -1\)",
    ),
    (
        "mlp",
        broken.change_parts(broken.dropped),
        r"join 'n\d_MatMul'.*partial results: dimension 0: .* needs \[0, \d+\), gets \[0, \d+\)",
    ),
    (
        "mlp",
        broken.change_parts(broken.doubled),
        r"join 'n\d_MatMul'.*partial results: dimension 0: .* twice",
    ),
    (
        "mlp",
        broken.change_parts(lambda d: broken.pick(d, np.arange(len(d.core))[::-1], d.start)),
        r"join 'n\d_MatMul'.*partial result \d+ is added before \d+",
    ),
    (
        "mlp",
        broken.change_parts(broken.moved("core", -1)),
        r"join 'n\d_MatMul'.*(is sent \[\d+, \d+\) from offset 0|comes from column)",
    ),
    ("mlp", broken.not_laid, r"operand \d 'weight.*': constant laid 0 times"),
    ("mlp", broken.laid_twice, r"operand \d 'weight.*': constant laid 2 times"),
    ("mlp", broken.half_laid, r"operand \d 'weight.*': dimension \d: core \(\d+, \d+\) needs .*entries"),
    (
        "mlp",
        broken.laid_by_a_core,
        r"operand \d 'weight.*': a constant comes from the host, not from buffer 0",
    ),
    (
        "mlp",
        broken.wrong_place,
        r"operand \d '.*': core \(\d+, \d+\) needs \[\d+, \d+\) of dimension \d at offset \d+",
    ),
    ("mlp", broken.never_received, r"task 'n\d_\w+' \(step \d\): operand 0 '.*': core \(\d+, \d+\)"),
    (
        "parts",
        broken.in_place_of_many,
        r"operand 0 '.*': read in place from buffer \d+; 3 steps write the tensor",
    ),
    ("parts", broken.one_move_less, r"operand 0 '.*': nothing comes from task 'n\d_\w+'"),
    ("parts", broken.one_move_twice, r"operand 0 '.*': delivered twice from task 'n\d_\w+'"),
    ("mlp", broken.from_another, r"operand \d '.*': a move from buffer 0 to \d+; must be from one of"),
    (
        "convolution",
        broken.no_fill,
        r"operand 0 'x': core \(\d+, \d+\) needs \[-1, \d+\) of dimension 2.* no fill",
    ),
    (
        "state",
        broken.early_update,
        r"update 'past' \(step \d+\): in wavefront \d, but .* reads the old value",
    ),
    ("state", broken.update_elsewhere, r"state 'past': its new value '.*' is not written into its buffer"),
    ("state", broken.no_update, r"state 'past': its new value"),
    ("state", broken.state_dies, r"state buffer 'past'.*: lives from -1 to \d+, is used from -1 to \d+"),
    ("mlp", broken.node_left_out, r"node 5 \(Softmax, .*\) has no step"),
    ("mlp", broken.another_op, r"task 'n2_Relu' .*: Relu is not node 2 \(Relu\)"),
    (
        "mlp",
        broken.whole_axis_cut,
        r"task 'n4_Softmax' .*: cut d1/2 along t: Softmax keeps axis d1 \(size 30\) whole",
    ),
    ("mlp", broken.part_unnamed, r"task 'n0_MatMul' .*: cut k/\d+ along .: a reduced axis cut in space"),
    (
        "parts",
        broken.writes_the_same,
        r"task 'n\d_Concat' .* write the same of 'n\d_Concat_out",
    ),
    (
        "mlp",
        broken.output_of_another,
        r"output 'n4_Softmax_out.*': read from steps \(0,\), written by \(\d+,\)",
    ),
    (
        "mlp",
        broken.in_a_move(broken.dropped),
        r"needs \[\d+, \d+\)",
    ),
    (
        "mlp",
        broken.in_a_move(broken.doubled),
        r"needs \[.*twice",
    ),
    (
        "mlp",
        broken.in_a_move(broken.moved("core", -1)),
        r"is sent \[\d+, \d+\) from offset \d+ of a core that holds|comes from (column|row)|one source",
    ),
    (
        "mlp",
        broken.in_a_move(broken.moved("source", 1)),
        r"is sent \[\d+, \d+\) from offset \d+ of a core that holds \[\d+, \d+\)",
    ),
    (
        "mlp",
        broken.in_a_move(broken.moved("target", 1)),
        r"needs \[\d+, \d+\), gets \[\d+, \d+\)",
    ),
    (
        "mlp",
        broken.in_a_move(broken.moved("core", 10_000)),
        r"comes from (row|column) \d+ of the producer's \d+",
    ),
    (
        "mlp",
        broken.in_a_move(broken.moved("x", 1)),
        r"piece numbers x are \d+ at \d+, must be \d+",
    ),
    ("riders", broken.rides_a_wavefront_later, r"rides on step \d+ of wavefront \d+, in wavefront \d+"),
    ("riders", broken.rides_on_an_input, r"rides on step 0, which leads no task: input 'x'"),
    ("riders", broken.rides_on_a_rider, r"rides on step \d+, which leads no task: task"),
    ("riders", broken.rides_from_afar, r"rides on step \d+, but .* comes between"),
    ("riders", broken.rides_on_other_cores, r"rides on step \d+ on \[.*\] of region 0, is on \[.*\]"),
    ("riders", broken.rides_and_receives, r"rides on step \d+, but operand 0 '.*' is received"),
    ("riders", broken.rides_for_nothing, r"rides on step \d+, but reads nothing that its task leaves"),
    ("riders", broken.over_another_address, r"takes over result buffer .*: address is \d+, must be \d+"),
    ("riders", broken.over_another_order, r"takes over result buffer .*: pitches is .*, must be"),
    (
        "riders",
        broken.over_a_constant,
        r"takes over constant buffer .*; only a result can take over a result",
    ),
    ("riders", broken.over_what_is_not_read, r"takes over result buffer .* does not read where it lies"),
    ("riders", broken.over_other_elements, r"takes over .*: task '.*' .* reads other elements of operand 0"),
    ("riders", broken.over_what_is_read_later, r"at position \d+; they live until \d+ and from \d+"),
    ("riders", broken.over_what_it_fetches, r"in wavefront \d+, in which task '.*' .* reads it"),
]


@pytest.mark.parametrize(
    "cuts",
    [
        [["m", "y", 5], ["k", "t", 4]],
        [["n", "x", 5], ["n", "t", 3]],
        [["n", "x", 5], ["k", "y", 4], ["k", "t", 3]],
        [["m", "t", 2], ["n", "t", 3], ["k", "x", 3]],
    ],
)
def test_cuts_along_time_are_legal(cuts: list[tuple[str, str, int]]) -> None:
    """The first product of the MLP in steps: its result, its weights and its partial results stay whole."""
    placement = written.write(plans.planned("mlp", "8x8"))
    columns, rows = (math.prod(w for _, side, w in cuts if side == of) for of in ("x", "y"))
    placement["ops"][0] |= {"split": cuts, "grid": [columns, rows, 0, 0, 1, 1]}
    made = routed(written.read(placement, plans.mlp(), preset("8x8")))
    first_step = broken.first(s for s in made.steps if s.node == 0)
    assert first_step.split.grid == (columns, rows, math.prod(w for _, side, w in cuts if side == "t"))
    judge(made)


LINKS = tuple((x, y, d) for y in range(0, 16, 3) for x in (3, 7) for d in ("east", "west"))


@cache
def around_dead_links() -> Plan:
    """A plan with detours."""
    return plan(plans.mlp(), replace(preset("16x16"), dead_links=LINKS))


def test_a_plan_around_dead_links_passes() -> None:
    judge(around_dead_links())


@cache
def with_scratch() -> Plan:
    """A plan on a machine that gains by multiplying all of a tile before it sums."""
    wafer = load(str(BEFORE))
    return plan(plans.attention(), replace(wafer, width=8, height=8, fabric_width=0, fabric_height=0))


def candidates(name: str) -> Iterator[Plan]:
    """Plans to break: the graph's own first, then any that could serve."""
    if name == "links":
        yield around_dead_links()
        return
    if name == "riders":
        yield plans.riding()
    for graph in sorted(plans.GRAPHS, key=lambda g: g != name):
        for wafer in ("16x16", "8x8", "32x32"):
            yield plans.planned(graph, wafer)
    yield with_scratch()


@pytest.mark.parametrize("name, breaks, message", BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_a_bad_plan_is_refused_and_named(name: str, breaks: Callable[[Plan], Plan], message: str) -> None:
    for good in candidates(name):
        try:
            bad = breaks(good)
        except broken.Absent:
            continue
        judge(good)
        with pytest.raises(IllegalPlan) as refused:
            judge(bad)
        assert re.search(message, str(refused.value)), refused.value
        assert "\n" not in str(refused.value)
        return
    pytest.fail("no plan that could be broken in this way")


grids = st.builds(Grid, *(st.integers(a, b) for a, b in ((1, 4), (1, 4), (0, 3), (0, 3), (1, 2), (1, 2))))


@settings(max_examples=150)
@given(
    st.lists(st.tuples(grids, st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=2),
    st.integers(0, 3),
)
def test_two_buffers_clash_where_they_share_a_core_a_moment_and_a_byte(
    made: list[tuple[Grid, int, int]], gap: int
) -> None:
    good = plans.planned("mlp", "16x16")
    region = good.regions[0]
    assume(all(g.box[2] <= region.columns and g.box[3] <= region.rows for g, _, _ in made))
    n, top = len(good.buffers), good.wafer.sram_bytes - 64
    extra = [
        Buffer(n + i, "extra", "scratch", 0, g, F32, (4,), (0,), (start, start + length), top + 8 * gap * i)
        for i, (g, start, length) in enumerate(made)
    ]
    cores = [
        {(g.x + i * g.dx, g.y + j * g.dy) for i in range(g.columns) for j in range(g.rows)}
        for g, _, _ in made
    ]
    moments = [set(range(start, start + length + 1)) for _, start, length in made]
    clash = cores[0] & cores[1] and moments[0] & moments[1] and gap < 2
    bad = replace(good, buffers=(*good.buffers, *extra))
    if clash:
        with pytest.raises(IllegalPlan, match=r"scratch buffer 'extra' .* both have address"):
            judge(bad)
    else:
        judge(bad)


TABLES = ("x", "y", "t", "start", "core", "source", "target", "length")


@settings(max_examples=300)
@given(st.data())
def test_no_number_of_a_move_can_change_unnoticed(data: st.DataObject) -> None:
    """One element of one table of one move, of any step or lay, changed a little."""
    good = plans.planned(
        data.draw(st.sampled_from(sorted(plans.GRAPHS))), data.draw(st.sampled_from(plans.SMALL))
    )
    name = data.draw(st.sampled_from(TABLES))
    by = data.draw(st.sampled_from([-3, -1, 1, 2, 1 << 40]))

    def bump(m: Move) -> Move:
        d = data.draw(st.integers(0, len(m.dims) - 1))
        values = getattr(m.dims[d], name).copy()
        values[data.draw(st.integers(0, len(values) - 1))] += by
        return replace(m, dims=(*m.dims[:d], replace(m.dims[d], **{name: values}), *m.dims[d + 1 :]))

    every = [(s, j) for s in good.steps for j, o in enumerate(s.operands) if o.moves]
    every += [(s, -1) for s in good.steps if s.moves]
    chosen = data.draw(st.integers(0, len(every) + len(good.lays) - 1))
    if chosen < len(every):
        s, j = every[chosen]
        moves = list(s.operands[j].moves if j >= 0 else s.moves)
        k = data.draw(st.integers(0, len(moves) - 1))
        moves[k] = bump(moves[k])
        bad = broken.with_moves(good, s, j, tuple(moves))
    else:
        lays = list(good.lays)
        tensor, move = lays[chosen - len(every)]
        lays[chosen - len(every)] = tensor, bump(move)
        bad = replace(good, lays=tuple(lays))
    with pytest.raises(IllegalPlan):
        judge(bad)
