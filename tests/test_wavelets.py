"""The wavelet simulator: streams against their formula, plans against the closed form, and what it must
refuse."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import broken
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import GRAPHS, planned
from waferc import compile_model
from waferc.codegen.fabric import tables as making
from waferc.codegen.fabric.lines import NO_EXPRESS, upward
from waferc.codegen.fabric.reduction import _parents
from waferc.codegen.fabric.tables import NotSimulated, listed, tables
from waferc.codegen.fabric.words import ADDER, RAMP_IN, RAMP_OUT, TICKS, Drafts, ticks
from waferc.placement.machine.presets import preset
from waferc.runtime.wavelets import FabricError, replay, run

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import wavelets

NONE = np.zeros(0, np.int64)
WSE3 = preset("16x16")


def carried(drafts: Drafts, first: list[int], last: list[int]) -> float:
    """Cycles until a task has all from `last`, when `first` may start at once: the fabric alone, without a
    plan."""
    nodes = drafts.done()
    tasks = making.Tables(
        start=np.array([0, 1, 2]),
        core=np.array([-1, -1]),
        cycles=np.zeros(2, np.int64),
        waits=np.array([0, len(last)]),
        queue=NONE,
        queues=np.zeros(WSE3.cores + 1, np.int64),
        starts=listed([(np.zeros(len(first), np.int64), np.array(first))], 2),
        follows=listed([], 2),
        arrives=listed([(np.array(last), np.ones(len(last), np.int64))], nodes.size),
        nodes=nodes,
    )
    plan = replace(planned("state", "16x16"), wafer=WSE3)
    end, served = run(plan, tasks)
    assert (served == nodes.count).all()
    return float(end[1]) / TICKS


def way(drafts: Drafts, cores: list[int], wavelets: int, resource: int = RAMP_OUT) -> list[int]:
    """Nodes from a core's ramp over links to the east, and off the last one's."""
    w = WSE3
    each = ticks(w.wavelet)
    up = drafts.add([resource * w.cores + cores[0]], each, ticks(w.send), wavelets, 0)
    links = drafts.add(np.array(cores[:-1]), each, ticks(w.hop), wavelets, 0)
    off = drafts.add([RAMP_IN * w.cores + cores[-1]], each, ticks(w.done), wavelets, 0)
    nodes = np.concatenate([up, links, off])
    drafts.edge(nodes[:-1], nodes[1:])
    return nodes.tolist()


@given(hops=st.integers(1, 12), count=st.integers(1, 300))
@settings(max_examples=20, deadline=None)
def test_one_stream_takes_its_formula(hops: int, count: int) -> None:
    """send + hop * hops + done, and a wavelet's time for each but the first."""
    drafts = Drafts()
    nodes = way(drafts, list(range(hops + 1)), count)
    expected = WSE3.send + WSE3.hop * hops + WSE3.done + WSE3.wavelet * (count - 1)
    assert carried(drafts, nodes[:1], nodes[-1:]) == pytest.approx(expected, abs=0.01 * hops)


@given(count=st.integers(2, 200), others=st.integers(0, 200))
@settings(max_examples=20, deadline=None)
def test_streams_share_a_link_one_wavelet_at_a_time(count: int, others: int) -> None:
    """Two streams over one link take as long as all their wavelets; the link is never idle between."""
    drafts = Drafts()
    a = way(drafts, [0, 1, 2, 3], count)
    if not others:
        return
    b = way(drafts, [1, 2, 3, 4], others)
    both = carried(drafts, [a[0], b[0]], [a[-1], b[-1]])
    alone = WSE3.send + WSE3.done + 3 * WSE3.hop + WSE3.wavelet * (max(count, others) - 1)
    shared = WSE3.wavelet * (count + others)
    assert max(alone, shared) - 0.1 <= both <= shared + WSE3.send + WSE3.done + 4 * WSE3.hop + 2


def test_a_slow_core_holds_back_what_it_hears() -> None:
    """Back-pressure: behind an adder of 4 cycles a wavelet every link goes at its pace."""
    drafts = Drafts()
    nodes = way(drafts, [0, 1, 2, 3], 100)
    slow = drafts.add([ADDER * WSE3.cores + 3], ticks(4.0), 0, 100, 0)
    drafts.edge(np.array(nodes[-1:]), slow)
    took = carried(drafts, nodes[:1], slow.tolist())
    first = WSE3.send + 3 * WSE3.hop + WSE3.done
    assert took == pytest.approx(first + 4.0 * 99, abs=0.1)
    also = Drafts()
    nodes = way(also, [0, 1, 2, 3], 100)
    slow = also.add([ADDER * WSE3.cores + 3], ticks(4.0), 0, 100, 0)
    also.edge(np.array(nodes[-1:]), slow)
    held = carried(also, nodes[:1], [nodes[1]])  # the first link's end, far from the adder
    assert held > WSE3.wavelet * 100 * 2, "queues hold a few wavelets, not a hundred"


def test_a_ring_of_streams_is_a_deadlock() -> None:
    drafts = Drafts()
    a, b = way(drafts, [0, 1, 2], 50), way(drafts, [17, 18, 19], 50)
    drafts.edge(np.array([a[-1], b[-1]]), np.array([b[1], a[1]]))
    with pytest.raises(
        FabricError, match=r"^cycle \d+, router \(\d+, \d+\): deadlock, step 0 .* \d+ of 50 wavelets"
    ):
        carried(drafts, [a[0], b[0]], [a[-1], b[-1]])


@given(
    origin=st.integers(-20, 20),
    far=st.sets(st.integers(1, 40), min_size=1, max_size=12),
    express=st.sampled_from([1, 2, 4, 8, NO_EXPRESS]),
)
@settings(max_examples=200, deadline=None)
def test_every_target_of_a_line_is_reached_straight(origin: int, far: set[int], express: int) -> None:
    at = np.array(sorted(origin + d for d in far))
    ways = upward(np.array([origin]), np.zeros(len(at), np.int64), at, express, stops=True)
    for target, link in zip(at, ways.arrival, strict=True):
        stops, hops, where = 0, 0, int(target)
        while link >= 0:
            assert ways.leaves[link] == where - 1
            stops, hops, where = stops + int(ways.stop[link]), hops + 1, where - 1
            link = int(ways.before[link])
        assert where == origin and hops == target - origin
        # Single hops to the first station, flights, and single hops from the last.
        assert stops <= 2 * express + hops // express + 1
    flights = len(ways.leaves) - len(set(zip(ways.leaves.tolist(), ways.stop.tolist(), strict=True)))
    assert flights <= len(ways.leaves)
    stations = ways.leaves[1:][~ways.stop[:-1]].tolist()
    assert express == 1 or all(p % express for p in stations), "flights stop at stations only"


@given(parts=st.integers(1, 70), lines=st.integers(1, 3), pitch=st.integers(1, 3), data=st.data())
@settings(max_examples=100, deadline=None)
def test_every_partial_result_reaches_its_root(
    parts: int, lines: int, pitch: int, data: st.DataObject
) -> None:
    line = np.repeat(np.arange(lines), parts)
    at = np.tile(np.arange(parts) * pitch, lines)
    root = np.repeat([data.draw(st.integers(0, parts - 1)) * pitch for _ in range(lines)], parts)
    order = np.random.default_rng(parts).permutation(len(line))
    line, at, root = line[order], at[order], root[order]
    parent = _parents(WSE3, line, at, root)
    assert (parent < 0).sum() == lines
    heard = np.bincount(parent[parent >= 0], minlength=len(line))
    assert heard.max(initial=0) <= 4
    for i in range(len(line)):
        steps, here = 0, i
        while parent[here] >= 0:
            assert line[parent[here]] == line[i]
            here, steps = int(parent[here]), steps + 1
            assert steps <= parts
        assert at[here] == root[here]


@pytest.mark.parametrize("wafer", ["8x8", "16x16", "32x32"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_plan_is_carried_out_whole(name: str, wafer: str) -> None:
    plan = planned(name, wafer)
    t = tables(plan)
    end, served = run(plan, t)
    assert (served == t.nodes.count).all()
    again, _ = run(plan, t)
    assert np.array_equal(end, again)
    r = replay(plan)
    # No core works on two tasks at once, and no link carries two wavelets at once.
    busy = np.bincount(t.core[t.core >= 0], t.cycles[t.core >= 0], minlength=plan.wafer.cores)
    load = np.bincount(t.nodes.resource, t.nodes.count * t.nodes.service)
    assert max(busy.max(), load.max()) <= end.max()
    assert r.cycles == end.max() / TICKS and abs(r.error) < 0.45


@given(st.integers(0, 2**31))
@settings(max_examples=3, deadline=None)
def test_the_closed_form_is_near_on_random_plans(seed: int) -> None:
    """Up to 16x16; docs/accuracy.md has the median and the largest over its plans."""
    (one,) = wavelets.compared(1, seed)
    assert abs(one.replay.error) < 0.4 and one.replay.hops >= 0


@pytest.mark.parametrize("change", [broken.two_meanings, broken.one_colour_twice])
def test_a_colour_used_two_ways_is_refused(change: object) -> None:
    plan = planned("riders", "16x16")
    with pytest.raises(
        FabricError, match=r"^cycle [\d,]+, router \(\d+, \d+\): colour \d+ is .* -> .* since cycle "
    ):
        replay(change(plan))  # type: ignore[operator]


def test_tasks_that_wait_for_one_another_are_refused() -> None:
    """A core that is to do first what waits for what it does next."""
    plan = planned("mlp", "16x16")
    t = tables(plan)
    sizes = np.diff(t.queues)
    core = int(np.argmax(sizes))
    queue = t.queue.copy()
    own = slice(int(t.queues[core]), int(t.queues[core + 1]))
    queue[own] = queue[own][::-1]
    with pytest.raises(
        FabricError, match=r"^cycle [\d,]+, router \(\d+, \d+\): deadlock, step \d+ .* waits for \d+ arr"
    ):
        run(plan, replace(t, queue=queue))


def test_large_and_damaged_wafers_are_refused() -> None:
    plan = planned("mlp", "16x16")
    with pytest.raises(NotSimulated, match=r"has 883,350 cores; .* at most 4,096"):
        replay(replace(plan, wafer=preset("wse3")))
    with pytest.raises(NotSimulated, match="dead cores or links"):
        replay(replace(plan, wafer=replace(plan.wafer, dead_cores=((0, 0),))))


def test_of_the_command_line(tmp_path: Path) -> None:
    """The same bits with and without, the figures of `replay`, and a line for what cannot be simulated."""
    import json

    from click.testing import CliRunner
    from waferc.compiler.cli.main import main

    digits = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"
    program, runner = tmp_path / "d.wafer", CliRunner()
    made = compile_model(digits, wafer="8x8", dims={"batch": 1})
    made.save(program)
    common = ["run", str(program), "--random", "0", "-o"]
    for name, more in (("a", []), ("b", ["--wavelets", "--json", str(tmp_path / "b.json")])):
        result = runner.invoke(main, [*common, str(tmp_path / f"{name}.npz"), *more])
        assert result.exit_code == 0, result.output
    a, b = (np.load(tmp_path / f"{n}.npz") for n in "ab")
    assert all(np.array_equal(a[n], b[n]) for n in a.files)
    told = json.loads((tmp_path / "b.json").read_text())["wavelets"]
    assert told["cycles"] == replay(made.plan).cycles and len(told["steps"]) == len(made.plan.steps)
