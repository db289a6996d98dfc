"""Plans along lines: found where they are quicker, written and read back, their inputs placed by hand."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import plans
import pytest
from test_sweeps import agree
from waferc.placement.build import placement_file as written
from waferc.placement.build.routes import routed
from waferc.placement.cost.timing import cycles_of
from waferc.placement.judge.judge import judge
from waferc.placement.machine.presets import preset
from waferc.placement.plan.plan import Plan
from waferc.placement.search.lines import vectors
from workloads import WORKLOADS, products


@pytest.fixture(scope="module")
def lined() -> Plan:
    """Two products whose sums take turns along the sides of the region."""
    search = WORKLOADS["lines"]().search()
    best = [a for a in search.attempts if a.best]
    assert best and best[-1].way == "along lines", str(search)
    return search.result()


def test_sums_take_turns_along_the_sides(lined: Plan) -> None:
    judge(lined)
    parts = [s for s in lined.steps if s.kind == "task" and s.part]
    sides = [{c.side for c in s.split.cuts if c.axis == s.part} for s in parts]
    assert sides in ([{"x"}, {"y"}], [{"y"}, {"x"}])
    (laid,) = (s for s in lined.steps if s.kind == "input")
    assert laid.grid.rows == 1 and laid.grid.columns > 1


def test_its_numbers_are_right(lined: Plan) -> None:
    agree(lined)


def test_a_written_plan_along_lines_is_the_same_again(lined: Plan) -> None:
    data = json.loads(json.dumps(written.write(lined)))
    again = routed(written.read(data, lined.graph, lined.wafer))
    assert str(again) == str(lined) and cycles_of(again) == cycles_of(lined)


def test_an_input_is_placed_by_hand(lined: Plan) -> None:
    data = written.write(lined)
    (entry,) = data["inputs"]
    entry |= {"split": [["d1", "y", 4]], "grid": [1, 4, 3, 8, 1, 2]}
    made = routed(written.read(data, lined.graph, lined.wafer))
    judge(made)
    (laid,) = (s for s in made.steps if s.kind == "input")
    assert str(laid.grid) == "1x4 at 3,8 every 1,2" and str(laid.split) == "y: d1/4"
    assert cycles_of(made) > cycles_of(lined)
    del data["inputs"]  # as placements were before they could say so
    judge(routed(written.read(data, lined.graph, lined.wafer)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "y"}, "entry 0 of inputs: 'y' is no input that can be placed"),
        ({"region": 3}, "input 'x' is on region 3; there are 1"),
        ({"split": [["d7", "x", 2]]}, "input 'x': cut d7/2; axes are d0, d1"),
        ({"split": [["d1", "x", 2]], "grid": [4, 1]}, "input 'x': the split has 2x1 cores, its grid 4x1"),
        ({"split": 7}, "input 'x': split is no list: 7"),
    ],
)
def test_an_input_that_cannot_lie_so_is_refused(lined: Plan, change: dict[str, Any], says: str) -> None:
    data = copy.deepcopy(written.write(lined))
    data["inputs"][0] |= change
    with pytest.raises(written.PlacementError, match=re.escape(says)):
        written.read(data, lined.graph, lined.wafer)


def test_roots_of_a_line_are_read_back() -> None:
    graph, wafer = products(64, 64), preset("8x8")
    ops: list[dict[str, Any]] = [
        {"node": 0, "region": 0, "split": [["n", "y", 8], ["k", "x", 8]], "roots": 2},
        *({"node": i, "region": 0, "split": []} for i in range(1, len(graph.nodes))),
    ]
    region = {"name": "all", "x": 0, "y": 0, "columns": 8, "rows": 8}
    data: dict[str, Any] = {"schema": written.SCHEMA, "regions": [region], "ops": ops}
    made = routed(written.read(data, graph, wafer))
    judge(made)
    (join,) = (s for s in made.steps if s.kind == "join")
    assert (join.grid.columns, join.grid.rows) == (2, 8)
    assert written.write(made)["ops"][0]["roots"] == 2
    ops[0]["roots"] = -1
    with pytest.raises(written.PlacementError, match="node 0: -1 roots of a line"):
        written.read(data, graph, wafer)


def test_vectors_are_told_from_matrices() -> None:
    assert vectors(products(8, 16)) and not vectors(plans.mlp())
