"""Two plans side by side: what is named as changed is what changed, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from plans import GRAPHS, planned
from waferc.compiler.passes.narrow_weights import narrow_weights
from waferc.compiler.show.critical_parts import path_rows
from waferc.compiler.show.diff_page import diff_page
from waferc.compiler.show.difference import LARGEST, Side, change, difference
from waferc.compiler.show.figures import figures
from waferc.placement.cost.timing import simulate
from waferc.placement.machine.presets import preset
from waferc.placement.plan.plan import Plan
from waferc.placement.planner import plan

HOSTILE = "</script><script>alert(1)</script>{{title}}"


def side(made: Plan, **manifest: object) -> Side:
    timing = simulate(made)
    return Side("p.wafer", {"model": "same", **manifest}, made, timing, figures(made, timing.links))


A = side(planned("attention", "8x8"), weights="f32")
B = side(plan(narrow_weights(GRAPHS["attention"](), "f16", "f32"), preset("8x8")), weights="f16")


def test_the_same_plan_has_no_difference() -> None:
    found = difference(A, side(planned("attention", "8x8"), weights="f32"))
    assert found.nothing and found.model == "same"
    for rows in ("options", "totals", "regions", "splits", "layers", "sram", "links", "largest"):
        assert getattr(found, rows) == []


def test_f16_changes_what_it_changes() -> None:
    found = difference(A, B)
    assert not found.nothing and found.model == "same" and found.common == found.nodes
    assert found.options == [{"option": "weights", "a": "f32", "b": "f16"}]
    totals = {r["figure"]: r for r in found.totals}
    assert totals["cycles"]["a"] == round(A.timing.cycles) and totals["cycles"]["b"] == round(B.timing.cycles)
    assert totals["fullest core bytes"]["change"] == int(B.plan.sram().max()) - int(A.plan.sram().max())
    (total,) = (r for r in found.layers if r["layer"] == "total")
    assert total["a"] == path_rows(A.plan, A.timing)[-1]["cycles"]
    constants = {r["role"]: r for r in found.sram}["constant"]
    assert constants["b"] < constants["a"] and constants["change"] == constants["b"] - constants["a"]
    links = {r["links"]: r for r in found.links}
    for name, row in links.items():
        direction, what = name.split(", ")
        plane = A.timing.links[("east", "west", "south", "north").index(direction)]
        assert row["a"] == round(float(plane.max() if what == "fullest link" else plane.sum()))
    assert len(found.largest) == LARGEST
    shares = [r["share"] for r in found.largest]
    assert shares == sorted(shares, reverse=True) and shares[-1] > 0 and shares[0] <= 1
    assert all(r["change"] == r["b"] - r["a"] != 0 for r in found.largest)
    back = difference(B, A)
    assert [(r["node"], r["kind"], -r["change"]) for r in back.largest] == [
        (r["node"], r["kind"], r["change"]) for r in found.largest
    ]
    json.dumps(asdict(found))


def test_other_options_and_other_files_are_told_of_plans_that_are_the_same() -> None:
    again = side(planned("attention", "8x8"), weights="f32", dims={"batch": 2})
    found = difference(A, again)
    assert found.same_plan and not found.nothing
    assert found.options == [{"option": "dims", "a": None, "b": {"batch": 2}}]
    changed = difference(A, replace(A, manifest={"model": "other", "weights": "f32"}))
    assert changed.model == "changed" and changed.compared.startswith("two files of a model")


def test_different_models_are_told_and_what_can_be_compared() -> None:
    found = difference(A, side(planned("convolution", "8x8")))
    assert found.model == "different" and "not splits and layers" in found.compared
    assert found.splits == found.layers == found.largest == []
    assert found.totals and found.sram and found.links


def test_another_wafer_is_another_plan() -> None:
    found = difference(A, side(planned("attention", "16x16"), weights="f32"))
    assert found.model == "same" and found.splits
    assert {r["node"] for r in found.splits} <= {s.name for s in A.plan.steps}


def test_changes_of_what_only_one_has() -> None:
    a, b = np.array([[1.0, np.nan, np.nan, 4.0]]), np.array([[3.0, 2.0, np.nan, np.nan]])
    assert (
        change(a, b).tolist()[0][:2] == [2, 2] and change(a, b)[0, 3] == -4 and np.isnan(change(a, b)[0, 2])
    )


class Page(HTMLParser):
    """Scripts, pictures and all addresses that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href")]


@pytest.mark.parametrize("wafer", ["8x8", "16x16"])
def test_the_page_has_both_grids_and_their_change(wafer: str) -> None:
    other = B if wafer == "8x8" else side(planned("attention", wafer))
    text = diff_page(A, other, difference(A, other))
    page = Page()
    page.feed(text)
    assert page.tags.count("script") == 1 and all(v.startswith("data:") for v in page.loads)
    assert page.tags.count("svg") == (12 if wafer == "8x8" else 8)
    rows = re.findall(r'data-grid="([^"]*)"', text)
    assert all(len(row.split()) == 7 for row in rows)


def test_no_name_becomes_a_part_of_the_page() -> None:
    hostile = replace(A, name=HOSTILE, plan=replace(A.plan, graph=replace(A.plan.graph, name=HOSTILE)))
    page = Page()
    text = diff_page(hostile, B, difference(hostile, B))
    page.feed(text)
    assert page.tags.count("script") == 1 and "<script>alert" not in text
