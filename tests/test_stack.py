"""Layers that are alike: found in a graph, several on each of several regions, and the path through them."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from waferc.compiler.importer import import_model
from waferc.compiler.passes.simplify import simplify
from waferc.compiler.show.critical_parts import leg_rows, path_rows
from waferc.ir.affine import axis
from waferc.ir.dtypes import F32
from waferc.ir.graph import Graph
from waferc.ir.ops.contract import Contract
from waferc.placement.cost.critical_path import critical_path
from waferc.placement.cost.timing import simulate
from waferc.placement.judge.judge import judge
from waferc.placement.machine.presets import preset
from waferc.placement.plan.layout import Cut, Grid, Split
from waferc.placement.plan.plan import Plan
from waferc.placement.planner import plan
from waferc.placement.search.layer_stacks import stacked
from waferc.placement.search.layers import repeated
from waferc.placement.splits.join import join_split
from waferc.placement.splits.policy import POLICY

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import generate

FEW, LONG = POLICY.few_elements, POLICY.long_line
SMALL = generate.Decoder("small", 6, 256, 2048, 4, 2, 2048, head=64)
# Memory enough for the model, and not for it in the largest region that is tried, 16 x 384.
WAFER = replace(
    preset("wse3"),
    name="long",
    width=16,
    height=1200,
    sram_bytes=6144,
    code_bytes_base=0,
    code_bytes_per_kernel=16,
)


def graph(decoder: generate.Decoder = SMALL) -> Graph:
    proto = generate.decode(decoder, 32, shapes_only=True)
    return simplify(import_model(proto.SerializeToString(), weights=False))


def test_layers_are_found() -> None:
    g = graph()
    found = repeated(g)
    assert found is not None and found.count == SMALL.layers
    ops = [n.op for n in g.nodes[found.start : found.end]]
    assert ops[: found.period] * found.count == ops
    assert [found.of(i) for i in (found.start - 1, found.start, found.end - 1, found.end)] == [-1, 0, 5, 6]


def test_what_does_not_repeat_has_no_layers() -> None:
    assert repeated(replace(graph(), nodes=graph().nodes[:1])) is None


@pytest.mark.parametrize("side", [20.0, 60.0])
def test_stacks_hold_each_layer_whole(side: float) -> None:
    g = graph()
    found = repeated(g)
    assert found is not None
    for region_of, sizes in stacked(g, found, WAFER, side, POLICY):
        assert len(region_of) == len(g.nodes) and max(region_of) < len(sizes)
        assert sum(c * r for _, c, r in sizes) <= WAFER.cores
        order = [r for r in region_of if sizes[r][0].startswith("layers")]
        assert order == sorted(order)


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(graph(), WAFER)


@pytest.mark.thorough
@pytest.mark.thorough
def test_layers_are_split_alike(made: Plan) -> None:
    """All layers but those where the region changes take the same splits in the same places."""
    found = repeated(made.graph)
    assert found is not None
    splits = {s.node: (s.split, s.grid) for s in made.steps if s.kind == "task" and s.node >= 0}
    for i in range(found.start, found.start + found.period):
        layers_of = {
            splits[i + n * found.period] for n in range(found.count) if i + n * found.period in splits
        }
        assert len(layers_of) <= 2


@pytest.mark.parametrize(
    ("ways", "size", "roots"), [(LONG, FEW, 1), (LONG, 2 * FEW, 2 * FEW), (LONG // 2, FEW, FEW)]
)
def test_a_long_line_has_one_root_for_a_few_elements(ways: int, size: int, roots: int) -> None:
    op = Contract(
        axes=(("n", size), ("k", 4 * LONG)),
        reads=((axis("k"),), (axis("k"), axis("n"))),
        write=(axis("n"),),
        in_types=(F32, F32),
        out_type=F32,
    )
    split, grid = join_split(op, Split((Cut("k", "x", ways),)), "k", Grid(ways, 1), POLICY)
    assert grid.columns == roots and split.axis_ways("n") == roots


@pytest.mark.thorough
def test_a_large_model_is_stacked(made: Plan) -> None:
    assert len(made.regions) > 1 and made.sram().max() <= made.wafer.sram_bytes
    judge(made)


@pytest.mark.thorough
def test_the_path_is_shown_by_layer(made: Plan) -> None:
    timing = simulate(made)
    *parts, total = path_rows(made, timing)
    names = [p["part"] for p in parts]
    assert [n for n in names if n.startswith("layer ")] == [f"layer {i}" for i in range(SMALL.layers)]
    assert names[-1] == "after the layers"
    assert total["cycles"] == round(timing.cycles) == pytest.approx(sum(p["cycles"] for p in parts), abs=9)
    legs = leg_rows(made, timing)
    assert sum(p["steps"] for p in parts) == len(legs) == total["steps"]


@pytest.mark.thorough
def test_the_critical_path_is_the_whole_call(made: Plan) -> None:
    timing = simulate(made)
    legs = critical_path(made, timing)
    assert sum(g.fabric + g.waiting + g.compute for g in legs) == pytest.approx(timing.cycles)
    assert legs[-1].end == timing.cycles
    assert all(min(g.fabric, g.waiting, g.compute) >= 0 for g in legs)
    assert [g.step for g in legs] == sorted(g.step for g in legs)
    for before, after in pairwise(legs):
        begin = after.end - after.fabric - after.waiting - after.compute
        assert begin == pytest.approx(before.end)
