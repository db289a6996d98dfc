"""Each number of the policy decides something: turned, it moves a plan of a small program.

golden/policy.txt says what each turn moves, from which cycles of a call to which (two numbers where a program
has two entries); WAFERC_REFRESH=1 writes it anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from waferc.placement.build.placement_file import write
from waferc.placement.cost.timing import cycles_of
from waferc.placement.search.explain import DoesNotFit
from waferc.placement.splits.policy import POLICY, Policy
from workloads import WORKLOADS, Workload

GOLDEN = Path(__file__).parent / "golden" / "policy.txt"

# By number: what it is turned to, and whose plan that moves.
TURNS: Mapping[str, tuple[Any, str]] = {
    "most_axes": (2, "mlp"),
    "most_ways": (2, "mlp"),
    "most_ways_paired": (1, "attention"),
    "tight_time_ways": ((2,), "square"),
    "shortlist": (5, "attention"),
    "costed": (1, "attention"),
    "tree_colours": (0, "attention"),
    "line_colours": (0, "lines"),
    "line_sides": ((16,), "lines"),
    "few_elements": (4, "long line"),
    "long_line": (300, "line"),
    "most_links": (0, "tight attention"),
    "most_prospects": (1, "tower"),
    "wide_share": (0.0, "four tokens"),
    "sure": (1.0, "four tokens"),
    "one_layer": (0, "decode"),
    "ways_kept": (1, "stacked blocks"),
    "resident_share": (0.31, "stacks"),
    "working_share": (0.03, "stacks"),
    "kept_share": (0.05, "entries"),
    "small_bytes": (2000, "table"),
    "crowded": (0.25, "line"),
    "pile_share": (0.01, "attention"),
    "shares_of_rest": ((0.05,), "entries"),
    "moved_share": (0.01, "entries"),
    "loose_bytes": (0, "gains"),
    "copied_share": (0.3, "entries"),
    "copied_working": (0.5, "entries"),
    "offered_time_ways": ((), "square"),
    "sides": ((4, 8), "mlp"),
    "gain": (2.0, "four tokens"),
    "few_nodes": (0, "long line"),
    "room": (1.0, "long line"),
    "area_price": (100.0, "pipeline"),
    "least_cores": (128, "tower"),
    "stacks": (0, "stacks"),
    "idle": (2.0, "stacks"),
    "most_down": (2, "stacks"),
    "edge_shares": ((0.4, 0.25), "stacks"),
    "time_ways": ((64,), "slow mlp"),
    "working_shares": ((0.6,), "tight mlp"),
    "prices": ((1e-4, 1e-4, 1), "tight mlp"),
    "slack": (2.0, "tight mlp"),
    "fine_ways": (2, "tight attention"),
    "fine_cuts": ((), "tight decode"),
    "attempts": (1, "tight attention"),
    "more": (6.0, "tight attention"),
    "layers_in_row": (1, "fuller attention"),
    "most_across": (1, "tight tower"),
    "layers_weighed": (1, "stacked blocks"),
    "beside_share": (0.1, "wide entries"),
    "shared_weighed": (1, "tight table"),
    "sparing": (1.0, "tight table"),
}


@cache
def workload(name: str) -> Workload:
    return WORKLOADS[name]()


def outcome(name: str, policy: Policy) -> tuple[str, str]:
    """(cycles or why not, placements) of a workload's plans."""
    try:
        made = workload(name).plans(policy)
    except DoesNotFit:
        return "does not fit", ""
    return " and ".join(f"{cycles_of(p):,.0f}" for p in made), json.dumps([write(p) for p in made])


@cache
def as_it_is(name: str) -> tuple[str, str]:
    return outcome(name, POLICY)


def test_each_number_is_turned() -> None:
    assert sorted(TURNS) == sorted(f.name for f in fields(Policy))


@pytest.mark.thorough
@pytest.mark.parametrize("number", TURNS)
def test_a_number_moves_a_plan(number: str) -> None:
    value, name = TURNS[number]
    before, after = as_it_is(name), outcome(name, replace(POLICY, **{number: value}))
    assert before != after, f"{number} = {value} moves nothing in {name}"
    came = after[0] if after[0] != before[0] else "other places"
    line = f"{name}: {before[0]} -> {came}"
    known = (
        dict(row.split(" | ", 1) for row in GOLDEN.read_text("utf-8").splitlines()) if GOLDEN.exists() else {}
    )
    turn = f"{number} {getattr(POLICY, number)} -> {value}"
    if os.environ.get("WAFERC_REFRESH"):
        every = {f"{n} {getattr(POLICY, n)} -> {v}" for n, (v, _) in TURNS.items()}
        known = {t: r for t, r in {**known, turn: line}.items() if t in every}
        GOLDEN.write_text("".join(f"{t} | {r}\n" for t, r in sorted(known.items())), encoding="utf-8")
    assert line == known.get(turn)
