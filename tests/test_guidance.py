"""What bounds a plan, and what would help: estimates that the timing model bears out, none for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plans import GRAPHS, planned
from waferc.compiler.passes.narrow_weights import narrow_weights
from waferc.compiler.show.critical_parts import path_rows
from waferc.compiler.show.guidance import WORTH, guidance, guidance_lines
from waferc.compiler.show.rows import at_core
from waferc.placement.build import placement_file as written
from waferc.placement.build.routes import routed
from waferc.placement.cost.critical_path import critical_path
from waferc.placement.cost.timing import cycles_of, simulate
from waferc.placement.machine.presets import preset
from waferc.placement.planner import plan

PLANS = [("attention", "8x8"), ("convolution", "16x16"), ("mlp", "8x8"), ("state", "8x8")]


@pytest.mark.parametrize(("name", "wafer"), PLANS)
def test_bounds_are_parts_of_the_critical_path(name: str, wafer: str) -> None:
    made = planned(name, wafer)
    timing = simulate(made)
    found = guidance(made, timing)
    rows = {r["part"]: r for r in path_rows(made, timing)}
    assert found.cycles == round(timing.cycles) and found.bounds
    assert sum(b.share for b in found.bounds) <= 1.01
    assert [b.cycles for b in found.bounds] == sorted((b.cycles for b in found.bounds), reverse=True)
    legs = {(g.step, g.core) for g in critical_path(made, timing)}
    for b in found.bounds:
        assert rows[b.part][b.kind] == b.cycles and (b.step, b.core) in legs
        assert b.node == made.steps[b.step].name


@pytest.mark.parametrize("name", ["attention", "mlp"])
def test_f16_gains_what_the_same_placement_takes_with_it(name: str) -> None:
    made = planned(name, "8x8")
    timing = simulate(made)
    (found,) = (r for r in guidance(made, timing).remedies if r.ask == "--weights f16")
    narrow = narrow_weights(GRAPHS[name](), "f16", "f32")
    again = routed(written.read(written.write(made), narrow, preset("8x8")))
    assert timing.cycles - found.gain == pytest.approx(cycles_of(again), rel=0.01)
    y, x = divmod(int(made.sram().argmax()), 8)
    wide, less = (sum(b.bytes for b in at_core(p, x, y)[0] if b.role == "constant") for p in (made, again))
    assert f"{wide - less:,} bytes less" in found.why and wide > less


@pytest.mark.parametrize(("name", "wafer"), PLANS)
def test_no_gain_is_larger_than_what_is_lost(name: str, wafer: str) -> None:
    made = planned(name, wafer)
    timing = simulate(made)
    legs = critical_path(made, timing)
    lost = {"--constraints FILE": max(g.waiting for g in legs), "--wafer": sum(g.compute for g in legs)}
    for r in guidance(made, timing, {"batch": 4}).remedies:
        if r.unit == "cycles":
            assert WORTH <= r.share < 1 and r.gain == round(r.share * timing.cycles)
        assert r.gain > 0
        for ask, most in lost.items():
            if r.ask.startswith(ask):
                assert r.gain <= round(most)


def test_free_memory_is_told_as_positions_or_as_more_at_once() -> None:
    made = planned("mlp", "8x8")
    timing = simulate(made)
    found = {r.unit: r for r in guidance(made, timing, {"batch": 10}).remedies}
    free = made.wafer.sram_bytes - int(made.sram().max())
    assert f"{free:,}" in found["of batch"].why and found["of batch"].gain > 0
    full = replace(made, wafer=replace(made.wafer, sram_bytes=int(made.sram().max())))
    assert "of batch" not in {r.unit for r in guidance(full, timing, {"batch": 10}).remedies}


def test_nothing_is_said_where_nothing_helps() -> None:
    narrow = narrow_weights(GRAPHS["convolution"](), "f16", "f32")
    made = plan(narrow, replace(preset("64x64"), colours=1000))
    timing = simulate(made)
    found = guidance(made, timing)
    asked = {r.ask for r in found.remedies}
    assert "--weights f16" not in asked and not any(a.startswith("--wafer") for a in asked)
    lines = guidance_lines(replace(found, remedies=()))
    assert lines[0] == "Bound by:" and "To try:" not in lines


def test_lines_name_a_gain_for_each_remedy() -> None:
    made = planned("attention", "8x8")
    found = guidance(made, simulate(made))
    lines = guidance_lines(found)
    at = lines.index("To try:")
    assert len(lines) - at - 1 == len(found.remedies) and at - 1 == len(found.bounds)
    for r, line in zip(found.remedies, lines[at + 1 :], strict=True):
        assert line.startswith(f"{r.ask}: {r.how_sure} {r.gain:,} ")
