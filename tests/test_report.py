"""The data of reports: they say of a plan what the plan says, and are safe to open. Without a browser."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from plans import GRAPHS, damaged, planned
from report_pages import HOSTILE, Markup, Read, entry_of, page_of, read
from waferc.compiler.report.page import Page, html
from waferc.compiler.report.tables import Tables
from waferc.compiler.show.critical_parts import FIRST_PART, leg_rows, path_rows, step_parts
from waferc.compiler.show.rows import at_core, step_rows
from waferc.placement.cost.critical_path import writers
from waferc.placement.cost.timing import held, simulate
from waferc.placement.machine.presets import preset
from waferc.placement.plan.plan import Plan
from waferc.placement.planner import plan as plan_of

SHAPES = arrays.array_shapes(min_dims=1, max_dims=2, max_side=6)
PLANS = [("mlp", "16x16"), ("convolution", "8x8"), ("attention", "16x16")]


@pytest.fixture(params=PLANS, ids=[p[0] for p in PLANS])
def plan(request: pytest.FixtureRequest) -> Plan:
    return planned(*request.param)


def ragged() -> Plan:
    """A plan around dead cores."""
    return plan_of(GRAPHS["mlp"](), damaged(16, 0.02, 1))


@given(
    st.one_of(
        arrays.arrays(np.int64, SHAPES, elements=st.integers(lo, hi))
        for lo, hi in ((-3, 3), (-(1 << 31), (1 << 31) - 1), (-(1 << 52), 1 << 52))
    ).filter(lambda a: a.size > 0),
    st.booleans(),
)
def test_tables_come_back(values: Any, early: bool) -> None:
    tables = Tables()
    other = tables.add(np.arange(5) * 7)
    number = tables.add(values, early)
    assert tables.add(values.copy()) == number and tables.add(np.arange(5) * 7) == other
    head, tail = (base64.b64encode(part).decode() for part in tables.packed({"x": 1}))
    page = f'<script id="head">{head}</script><script id="tail">{tail}</script>'
    found = read(page)
    assert found.data["x"] == 1 and np.array_equal(found.tables[number].reshape(values.shape), values)
    assert np.array_equal(found.tables[other][0], np.arange(5) * 7)


def whole(r: Read, plane: int, plan: Plan) -> Any:
    """A plane of the first entry over the whole wafer."""
    x, y, w, h = r.data["entries"][0]["box"]
    out = np.zeros((plan.wafer.height, plan.wafer.width), np.int64)
    out[y : y + h, x : x + w] = r.tables[plane]
    return out


def judge(plan: Plan) -> Read:
    """That a page's data are the plan's, to the cycle and byte."""
    timing, r = simulate(plan), read(page_of(plan))
    (e,) = r.data["entries"]
    assert np.array_equal(whole(r, e["sram"], plan), plan.sram())
    assert np.array_equal(whole(r, e["busy"], plan), np.rint(timing.busy))
    for plane, table in zip(timing.links, e["links"], strict=True):
        assert np.array_equal(whole(r, table, plan), np.rint(plane))
    for s, told, row in zip(plan.steps, e["steps"], step_rows(plan, timing), strict=True):
        start = told["base"] + r.tables[told["start"]]
        mask = held(s)
        assert np.array_equal(start, np.rint(timing.start[s.position]))
        assert np.array_equal((start + r.tables[told["long"]])[mask], np.rint(timing.end[s.position])[mask])
        assert told["cores"] == mask.sum() and (told["mask"] < 0) == mask.all()
        assert (told["first"], told["last"], told["bytes"]) == (row["start"], row["end"], row["bytes"])
        moves = [m for o in told["operands"] for m in o["moves"]] + told["moves"]
        assert [m["received"] for m in moves] == [plan.received(s, m) for m in s.received]
    assert e["path_parts"] == path_rows(plan, timing)
    assert [e["parts"][told["part"]] for told in e["steps"]] == step_parts(plan)
    legs = [{k: leg[k] for k in ("step", "core", "end", "fabric")} for leg in leg_rows(plan, timing)]
    assert [{k: leg[k] for k in ("step", "core", "end", "fabric")} for leg in e["path"]] == legs
    return r


def test_the_data_are_the_plans(plan: Plan) -> None:
    judge(plan)


def test_the_update_of_a_state_belongs_to_the_layer_that_computes_it() -> None:
    plan = planned("state", "8x8")
    judge(plan)
    parts = step_parts(plan)
    updates = [s for s in plan.steps if s.kind == "update"]
    assert updates
    for s in updates:
        (before,) = writers(plan)[s.position].values()
        assert parts[s.position] == parts[before] != FIRST_PART
    assert {parts[s.position] for s in plan.steps if s.kind == "input"} == {FIRST_PART}


def test_the_data_are_those_of_a_plan_around_dead_cores() -> None:
    plan = ragged()
    r = judge(plan)
    w = plan.wafer
    assert r.tables[r.data["wafer"]["dead"]].ravel().tolist() == sorted(
        y * w.width + x for x, y in w.dead_cores
    )
    for region, told in zip(plan.regions, r.data["entries"][0]["regions"], strict=True):
        if told["cores"] >= 0:
            assert np.array_equal(r.tables[told["cores"]], region.core)
            assert r.tables[told["along_x"]].size == region.columns
    assert any(told["cores"] >= 0 for told in r.data["entries"][0]["regions"])


def test_buffers_hold_what_their_layout_says(plan: Plan) -> None:
    """The boxes of what lies on cores are no larger than its shape, and all of them cover the tensor."""
    r = read(page_of(plan))
    e = r.data["entries"][0]
    x, y = (int(v) for v in np.argwhere(plan.sram() > 0)[0][::-1])
    assert [b.number for b in at_core(plan, x, y)[0]]
    for b, told in zip(plan.buffers, e["buffers"], strict=True):
        if told["layout"] is None:
            assert b.role == "scratch"
            continue
        for (tx, ty, lo, hi), most in zip(told["layout"], b.shape, strict=True):
            number = r.tables[tx][0][None, : b.grid.columns] + r.tables[ty][0][: b.grid.rows, None]
            extent = (r.tables[hi][0] - r.tables[lo][0])[number]
            assert extent.max() <= most and extent.min() >= 0
        if b.role == "constant":
            shape = plan.graph.tensors[b.name].shape
            ends = [int(r.tables[hi].max()) for _, _, _, hi in told["layout"]]
            assert ends == list(shape)


def test_a_page_loads_nothing_and_allows_its_own_script_alone() -> None:
    text = page_of(planned("mlp", "16x16"))
    page = Markup(text)
    assert page.loads == [] and set(page.scripts) == {"head", "tail", ""}
    digest = base64.b64encode(hashlib.sha256(page.scripts[""].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy
    assert "default-src 'none'" in page.policy and "unsafe" not in page.policy
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_hostile_name_stays_a_name() -> None:
    plan = planned("mlp", "16x16")
    steps = tuple(replace(s, name=HOSTILE, source=(HOSTILE, "x" * 5000)) for s in plan.steps)
    evil = replace(plan, steps=steps, buffers=tuple(replace(b, name=HOSTILE) for b in plan.buffers))
    text = html(Page(HOSTILE, evil.wafer, [entry_of(evil)], [(HOSTILE, HOSTILE)], [(HOSTILE, HOSTILE)]))
    page = Markup(text)
    assert set(page.scripts) == {"head", "tail", ""} and "window.hacked=1</script>" not in text
    assert page.scripts[""] == Markup(page_of(plan)).scripts[""]
    told = read(text).data["entries"][0]["steps"][1]
    assert "\n" not in told["name"] and "\u202e" not in told["name"] and "hacked" in told["name"]
    assert len(told["nodes"][1]) <= 1000


def test_entries_share_what_is_alike() -> None:
    plan = planned("attention", "16x16")
    one, two = page_of(plan), page_of(plan, plan)
    both = read(two).data["entries"]
    assert [e["entry"] for e in both] == ["main", "main1"]
    first, second = (read(two).data["entries"][i]["steps"] for i in (0, 1))
    assert [s["start"] for s in first] == [s["start"] for s in second]
    assert len(two) - len(one) < 0.3 * (len(one) - len(Markup(one).scripts[""]))


def test_a_page_without_a_plan_says_why() -> None:
    text = html(Page("big", preset("8x8"), [], [("does not fit", "for a reason")], [("date", "today")]))
    assert read(text).data["entries"] == [] and "for a reason" in text


def test_the_packed_data_are_the_same_for_the_same_plan() -> None:
    assert page_of(planned("mlp", "16x16")) == page_of(planned("mlp", "16x16"))
