"""What a normal run is laid out from: orders of sums, boxes, and homes in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import GRAPHS, planned, riding
from test_sweeps import PASSES, forced
from waferc.codegen.host.arena import share
from waferc.codegen.host.blocks import boxes
from waferc.codegen.host.homes import LINE, Home, Panels, View, allocate
from waferc.codegen.host.sum_order import Stage, orders
from waferc.codegen.host.sweeps import Sweep
from waferc.ir import dtypes
from waferc.ir.builder import FRESH, RESUME
from waferc.placement.plan.layout import axis_indices
from waferc.placement.plan.plan import Plan, Step

Points = list[tuple[int, ...]]


# -- orders ----------------------------------------------------------------------------------------


def inside(bounds: Mapping[str, tuple[int, int]], axes: Sequence[tuple[str, int]]) -> Points:
    """The iterations of one stage."""
    spans = [bounds.get(a, (0, n)) for a, n in axes]
    return list(product(*(range(lo, lo + n) for lo, n in spans)))


def literal(step: Step, axes: Sequence[tuple[str, int]]) -> list[list[Points]]:
    """The iterations that one element of the result is summed from, by part and time step, core by core."""
    index = axis_indices(step.split, step.op.axes)
    columns, rows, steps = step.split.grid
    kept = [a for a, _ in step.op.axes if a not in step.op.reduced]
    parts: dict[int, list[Points]] = {}
    for x, y in product(range(columns), range(rows)):
        if any(index[a].x[x] or index[a].y[y] for a in kept):
            continue  # another element
        times: list[Points] = []
        for t in range(steps):
            if any(index[a].t[t] for a in kept):
                continue
            at = {a: int(i.x[x] + i.y[y] + i.t[t]) for a, i in index.items()}
            spans = [range(int(index[a].origins[at[a]]), int(index[a].ends[at[a]])) for a, _ in axes]
            if points := list(product(*spans)):
                times.append(points)
        if times:
            key = int(index[step.part].x[x] + index[step.part].y[y]) if step.part else 0
            parts.setdefault(key, times)
    return [parts[k] for k in sorted(parts)]


def plans_with_sums() -> list[Plan]:
    made = [planned(name, wafer) for name in GRAPHS for wafer in ("4x4", "8x8", "32x32")]
    return made + [forced(kind) for kind in PASSES]


@pytest.mark.parametrize("p", plans_with_sums(), ids=lambda p: f"{p.graph.name}-{p.wafer.name}")
def test_stages_cover_every_iteration_once_in_the_order_of_the_plan(p: Plan) -> None:
    for step in p.steps:
        axes = [(a, n) for a, n in step.op.axes if a in step.op.reduced]
        if step.kind != "task" or not axes or step.op.combine is None:
            continue
        ours, right = orders(step), literal(step, axes)
        seen = [point for o in ours for s in o.stages for point in inside(s.bounds, axes)]
        assert sorted(seen) == sorted(product(*(range(n) for _, n in axes)))
        free = not step.op.out_type.is_float or step.op.combine in ("min", "max")
        if free:
            assert len(ours) == 1
            continue
        assert [o.stages[0].mode for o in ours] == [FRESH] * len(ours)
        if ours[0].part:
            # Chunks of a kernel's own are the parts.
            firsts = [{point[[a for a, _ in axes].index(ours[0].part)] for point in chain(*t)} for t in right]
            assert [min(f) for f in firsts] == [i * ours[0].chunk for i in range(len(right))]
            assert all(len(f) <= ours[0].chunk for f in firsts)
        elif len(ours) > 1:
            assert [[inside(s.bounds, axes) for s in o.stages] for o in ours] == right
        elif step.part:
            # Each part is a stage, but for the first, which may have several.
            by_stage = [inside(s.bounds, axes) for s in ours[0].stages]
            assert by_stage[-(len(right) - 1) or len(by_stage) :] == [
                sorted(chain(*times)) for times in right[1:]
            ]
        else:
            by_stage = [inside(s.bounds, axes) for s in ours[0].stages]
            assert list(chain(*by_stage)) == list(chain(*right[0]))


# -- boxes -------------------------------------------------------------------------------------------

SIZES = st.integers(1, 9)


@given(st.lists(SIZES, max_size=3), st.lists(SIZES, max_size=2), st.data())
def test_boxes_tile_the_iterations(kept: list[int], summed: list[int], data: st.DataObject) -> None:
    """Every item goes through all stages in order, and together they hold each iteration once."""
    axes = [(f"x{i}", n) for i, n in enumerate(kept)] + [(f"r{i}", n) for i, n in enumerate(summed)]
    steps = {a: data.draw(st.integers(1, n)) for a, n in axes if a[0] == "x"}
    cut = data.draw(st.integers(1, summed[0])) if summed else 1
    stages = (
        [
            Stage({"old": (lo, min(cut, summed[0] - lo))}, RESUME if lo else FRESH)
            for lo in range(0, summed[0], cut)
        ]
        if summed
        else [Stage({}, FRESH)]
    )
    made = boxes(axes, steps, stages, {"old": "r0"})
    times = np.zeros([n for _, n in axes], np.int64)
    for first, extent in zip(made.first, made.extent, strict=True):
        times[tuple(slice(lo, lo + n) for lo, n in zip(first, extent, strict=True))] += 1
    assert (times == 1).all()
    assert made.items.tolist() == list(range(0, len(made.mode) + 1, len(stages)))
    assert made.mode.reshape(-1, len(stages)).tolist() == [[s.mode for s in stages]] * (len(made.items) - 1)
    for i in range(len(made.items) - 1):
        own = made.first[made.items[i] : made.items[i + 1], : len(kept)]
        assert (own == own[0]).all(), "an item computes one box of results"


# -- homes ---------------------------------------------------------------------------------------------


@st.composite
def homes(draw: st.DrawFn) -> list[Home]:
    out: list[Home] = []
    for number in range(draw(st.integers(1, 12))):
        first = draw(st.integers(-1, 5))
        n = draw(st.integers(0, 300))
        live = first, first + draw(st.integers(0, 4))
        dtype = draw(st.sampled_from([dtypes.I8, dtypes.F32, dtypes.F64]))
        out.append(Home(number, "t", "result", dtype, (n,), (1,), 0, n, live=live))
    return out


@given(homes())
def test_homes_that_live_at_the_same_time_are_apart(made: list[Home]) -> None:
    placed, size = allocate(made)
    assert [replace(h, offset=-1) for h in placed] == made
    for i, h in enumerate(placed):
        assert h.offset % LINE == 0 and h.offset >= 0 and h.offset + h.bytes <= size
        for o in placed[:i]:
            if h.live[0] <= o.live[1] and o.live[0] <= h.live[1]:
                assert h.offset + h.bytes <= o.offset or o.offset + o.bytes <= h.offset


def test_homes_that_never_meet_share_memory() -> None:
    made = [Home(i, "t", "result", dtypes.F32, (99,), (1,), 0, 99, live=(i, i)) for i in range(5)]
    placed, size = allocate(made)
    assert {h.offset for h in placed} == {0}
    assert size == -(-99 * 4 // LINE) * LINE


def touched(sweep: Sweep, v: View) -> np.ndarray:
    """The element of its home that every iteration of a sweep reads or writes."""
    sizes = [n for _, n in sweep.op.axes]
    at = np.meshgrid(*(np.arange(n) for n in sizes), indexing="ij")
    first = {a: i for (a, _), i in zip(sweep.op.axes, at, strict=True)}
    return np.broadcast_to(v.at(first), sizes)


@pytest.mark.parametrize("wafer", ["4x4", "16x16"])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_access_lies_in_its_home_while_it_lives(name: str, wafer: str) -> None:
    shared = share({"main": planned(name, wafer)}, 16)
    for number, sweep in enumerate(shared.entries["main"].sweeps):
        for v in sweep.views:
            home = shared.homes[v.home]
            at = touched(sweep, v)
            assert 0 <= at.min() <= at.max() < home.elements
            assert home.live[0] <= number <= home.live[1]
        written = touched(sweep, sweep.views[-1])
        kept = [i for i, (a, _) in enumerate(sweep.op.axes) if a not in sweep.op.reduced]
        results = written.size // max(
            1, int(np.prod([sweep.op.axes[i][1] for i in range(written.ndim) if i not in kept]))
        )
        assert len(np.unique(written)) == results, "no two iterations write one element"


def test_the_last_to_read_a_tensor_writes_over_it() -> None:
    home = {s.name: s.views[-1].home for s in share({"main": riding()}, 16).entries["main"].sweeps}
    assert home["n2_Softmax"] == home["n3_Add"] == home["n4_Neg"]
    # What the product made is read once more by the sum; a softmax reads whole rows; an output is apart.
    assert len({home[n] for n in ("n0_MatMul", "n1_Relu", "n2_Softmax", "n5_MatMul")}) == 4
    assert home["n5_MatMul"] == home["n6_Relu"] == home["n8_Add"]


def test_a_home_taken_over_is_the_outputs_own() -> None:
    shared = share({"main": riding()}, 16)
    (out,) = shared.entries["main"].outputs
    assert shared.homes[out.home].tensor == out.tensor == riding().graph.outputs[0]


@given(st.integers(1, 60), st.integers(1, 16), st.integers(1, 5), st.integers(0, 99))
def test_a_view_through_panels_reads_the_same_elements(n: int, width: int, rows: int, offset: int) -> None:
    """[rows, n] in panels of `width` columns: [panels, rows, width]."""
    panels = -(-n // width)
    whole = np.arange(rows * n).reshape(rows, n)
    packed = np.full((panels, rows, width), -1)
    for p in range(panels):
        part = whole[:, p * width : (p + 1) * width]
        packed[p, :, : part.shape[1]] = part
    v = View(0, offset, {"k": width, "n": 1}, Panels("n", width, rows * width))
    k, i = np.meshgrid(np.arange(rows), np.arange(n), indexing="ij")
    np.testing.assert_array_equal(packed.ravel()[v.at({"k": k, "n": i}) - offset], whole)


@pytest.mark.parametrize("name", ["mlp", "convolution", "attention"])
def test_constants_stand_in_panels_as_their_sweeps_read_them(name: str) -> None:
    """What is laid, read through the panels, is the tensor as the op reads it."""
    p = planned(name, "8x8")
    shared = share({"main": p}, 16)
    arena = {h: np.full(home.elements, np.nan) for h, home in shared.homes.items()}
    for lay in shared.constants:
        value = p.graph.constants[lay.tensor].ravel().astype(np.float64)
        grid = np.indices(lay.shape)
        to = lay.offset + sum(s * i for s, i in zip(lay.strides, grid, strict=True))
        at = lay.host_offset + sum(s * i for s, i in zip(lay.host_strides, grid, strict=True))
        arena[lay.home][to] = value[at]
    panels = 0
    for sweep in shared.entries["main"].sweeps:
        for v in sweep.views[:-1]:
            home = shared.homes[v.home]
            if home.kind == "constant":
                panels += v.panels is not None
                read = arena[v.home][touched(sweep, v)]
                assert not np.isnan(read).any()
                values = p.graph.constants[home.tensor].astype(np.float64)
                assert set(np.unique(read)) == set(np.unique(values))
    assert panels or name != "mlp"
