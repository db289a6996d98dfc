"""What the planner did not take: plans that were tried, splits that were weighed, and their prices."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from plans import GRAPHS, planned
from waferc import compile_model
from waferc.codegen.artifact.artifact import SEARCH
from waferc.compiler.cli.main import main
from waferc.compiler.errors import DoesNotFit
from waferc.compiler.show.considered import MOST_SHOWN, Weighing, attempts, considered_rows
from waferc.placement.cost.timing import simulate
from waferc.placement.machine.presets import preset
from waferc.placement.planner import run
from waferc.placement.search.search import Search

DIGITS = Path(__file__).resolve().parent.parent / "examples/digits/digits.onnx"


@pytest.mark.parametrize("name", ["attention", "convolution", "mlp"])
def test_every_split_of_the_plan_is_among_those_that_are_weighed(name: str) -> None:
    plan = planned(name, "16x16")
    weighing, told = Weighing(plan), 0
    for s in plan.steps:
        found = weighing.of(s)
        if not found:
            assert s.kind != "task" or s.node < 0 or s.rides >= 0
            continue
        told += 1
        (chosen,) = (c for c in found if c.chosen)
        assert (chosen.split, chosen.grid) == (str(s.split), f"{s.grid.columns}x{s.grid.rows}")
        others = [(c.over, c.cycles) for c in found if not c.chosen]
        assert others == sorted(others) and len(found) <= MOST_SHOWN
        assert all(c.cycles > 0 for c in found)
        assert weighing.of(s) is found
        rows = considered_rows(found)
        assert [r[3].startswith("chosen") for r in rows] == [c.chosen for c in found]
    assert told > 1


def test_no_more_questions_are_asked_than_were_allowed() -> None:
    plan = planned("attention", "16x16")
    weighing = Weighing(plan)
    first = [s.position for s in plan.steps if weighing.of(s, 2)]
    assert 2 <= len(first) < sum(bool(Weighing(plan).of(s)) for s in plan.steps)
    assert [s.position for s in plan.steps if weighing.of(s, 2)] == first


def test_the_plan_is_the_last_best_of_those_that_were_tried() -> None:
    search = Search(GRAPHS["attention"](), preset("8x8"))
    run(search)
    plan, rows = search.result(), attempts(str(search))
    assert len(rows) == len(str(search).splitlines()) > 1
    *_, best = (came for _, _, came in rows if came.endswith("the best so far"))
    assert best.startswith(f"{simulate(plan).cycles:,.0f} cycles")
    assert [len(r) for r in attempts("a: b: c: 7 cycles\nno colon\n")] == [3, 3]
    assert attempts("a: b: c: 7 cycles")[0] == ["a", "b: c", "7 cycles"]


def test_what_was_tried_is_kept_with_the_plan_and_told(tmp_path: Path) -> None:
    first, again = (compile_model(DIGITS, wafer="16x16", until="plan", dims={"batch": 2}) for _ in range(2))
    assert first.phases["main"][SEARCH] == again.phases["main"][SEARCH] != ""
    path = tmp_path / "d.plan"
    first.save(path, "plan")
    done = CliRunner().invoke(main, ["inspect", str(path), "--json", "-"], catch_exceptions=False)
    told = json.loads(done.output)["attempts"]
    assert [list(t.values()) for t in told] == attempts(first.phases["main"][SEARCH])
    text = CliRunner().invoke(main, ["inspect", str(path)], catch_exceptions=False).output
    assert "Plans that were tried:" in text and told[0]["came_to"] in text
    number = next(s.position for s in first.plan.steps if s.op.product)
    text = CliRunner().invoke(main, ["inspect", str(path), "--step", str(number)]).output
    assert re.search(r"[\d,]+ +chosen", text) and "expected error" in text


def test_a_model_that_does_not_fit_says_what_was_tried() -> None:
    wafer = replace(preset("8x8"), sram_bytes=3000)
    with pytest.raises(DoesNotFit) as e:
        compile_model(DIGITS, wafer=wafer, until="plan", dims={"batch": 2})
    rows = attempts(e.value.attempts)
    assert rows and all("over" in came or came == "no place" for _, _, came in rows)
    assert not any("cycles" in came for *_, came in rows)
