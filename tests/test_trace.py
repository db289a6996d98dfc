"""Chrome traces by the rules of Perfetto's loader: no bar lost, an arrow has both ends, counters add up."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from plans import planned, riding
from waferc.compiler.show import chrome_trace as module
from waferc.compiler.show.chrome_trace import chrome_trace
from waferc.compiler.show.text import brief_name
from waferc.placement.cost.timing import held, simulate

Event = dict[str, Any]
READERS: tuple[Callable[[float], int], ...] = (int, round)  # of nanoseconds: cut, or to the nearest


def loaded(events: list[Event], whole: Callable[[float], int]) -> tuple[list[Event], dict[Any, list[Event]]]:
    """(bars that the loader drops, bars that each arrow is bound to), the way Perfetto's slice tracker does.

    In the order of time, equal times as in the file; a bar that ends when another begins is closed, one that
    ends inside an open one nests, and one that ends after it is dropped. An arrow is bound to the innermost
    open bar of its track; what ends before it has begun is lost.
    """
    dropped: list[Event] = []
    arrows: dict[Any, list[Event]] = defaultdict(list)
    stacks: dict[Any, list[tuple[int, Event]]] = defaultdict(list)
    for e in sorted((e for e in events if e["ph"] in "Xsf"), key=lambda e: whole(e["ts"] * 1000)):
        stack, at = stacks[e["pid"], e["tid"]], whole(e["ts"] * 1000)
        if e["ph"] == "X":
            while stack and stack[-1][0] <= at:
                stack.pop()
            end = at + whole(e["dur"] * 1000)
            if stack and end > stack[-1][0]:
                dropped.append(e)
            else:
                stack.append((end, e))
        elif stack and (e["ph"] == "s") == (e["id"] not in arrows):
            assert at <= max(stack[-1][0], whole(stack[-1][1]["ts"] * 1000))
            arrows[e["id"]].append(stack[-1][1])
    return dropped, arrows


def overlapping(events: list[Event]) -> int:
    """Bars that a loader would drop if a row of cores, or a core, were one track."""
    one = {e["tid"]: e["args"]["name"].split(", lane")[0] for e in events if e["name"] == "thread_name"}
    return len(loaded([{**e, "tid": one[e["tid"]]} for e in events if e["ph"] == "X"], int)[0])


@pytest.mark.parametrize("most", [10, module.MOST_EVENTS], ids=["rows", "cores"])
@pytest.mark.parametrize("name", ["attention", "convolution", "state", "riding"])
def test_perfetto_loads_all_of_a_trace(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", most)
    plan = riding() if name == "riding" else planned(name, "16x16")
    timing = simulate(plan)
    trace = json.loads(json.dumps(chrome_trace(plan, timing)))
    events = trace["traceEvents"]
    bars = [e for e in events if e["ph"] == "X"]
    if name == "attention" and most == 10:
        assert overlapping(events) > 0  # without lanes bars would be lost: the plan tests the rule
    rows = [held(s).sum() if most > 10 else held(s).any(axis=1).sum() for s in plan.steps]
    assert len(bars) == sum(rows) and trace["otherData"]["tracks"].startswith(
        "cores" if most > 10 else "rows"
    )
    assert sum(e["args"]["cores"] for e in bars) == sum(int(held(s).sum()) for s in plan.steps)
    for whole in READERS:
        dropped, arrows = loaded(events, whole)
        assert not dropped
        assert len(arrows) == sum(e["ph"] == "s" for e in events) == sum(e["ph"] == "f" for e in events) > 0
        for producer, consumer in arrows.values():
            assert producer["args"]["step"] < consumer["args"]["step"]
            assert producer["args"]["start"] <= consumer["args"]["start"]


def test_arrows_lead_from_who_computes_to_who_needs_it() -> None:
    plan = planned("attention", "8x8")
    trace = chrome_trace(plan, simulate(plan))
    made = {s.result: s.position for s in plan.steps if s.kind != "update"}
    needed: set[tuple[int, int]] = set()
    for s in plan.steps:
        sources = [m.source for m in s.received] + [o.buffer for o in s.operands if not o.received]
        needed |= {(made[b], s.position) for b in sources if b in made}
    _, arrows = loaded(trace["traceEvents"], int)
    assert {(a["args"]["step"], b["args"]["step"]) for a, b in arrows.values()} == needed


def test_counters_agree_with_the_plan() -> None:
    plan = planned("attention", "16x16")
    counted: dict[str, list[int]] = defaultdict(list)
    for e in chrome_trace(plan, simulate(plan))["traceEvents"]:
        if e["ph"] == "C":
            counted[e["name"]].append(e["args"]["bytes"])
    (sram,) = (v for k, v in counted.items() if k.startswith("SRAM"))
    assert 0 < max(sram) <= int(plan.sram().max())
    moving = counted["bytes under way on links"]
    assert min(moving) == moving[-1] == 0 and np.max(moving) > 0


def test_bars_have_short_names_that_end_like_the_whole() -> None:
    assert brief_name("MatMul") == "MatMul"
    name = "/model/model.0/auto_model/encoder/layer.0/attention/self/MatMul"
    assert brief_name(name) == "../attention/self/MatMul"
    assert brief_name("x" * 40 + "y") == ".." + "x" * 25 + "y"
    for most in range(3, 70):
        assert len(brief_name(name, most)) <= most
