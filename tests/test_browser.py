"""The questions that developers ask of a placement, each answered on the page: by clicks, typing, the clock,
the address and keys; what the page says is what the plan says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import DESK, ENGINES, PHONE, Report, browsing, is_firefox, named, number
from plans import GRAPHS, damaged
from report_pages import HOSTILE, entry_of, page_of
from waferc import compile_model
from waferc.compiler.report.page import Page, html
from waferc.compiler.show.considered import Weighing, attempts, considered_rows
from waferc.compiler.show.diff_page import diff_page
from waferc.compiler.show.difference import Side, difference
from waferc.compiler.show.figures import figures
from waferc.compiler.show.found import of_node, of_step, of_tensor
from waferc.compiler.show.rows import at_core, buffer_rows
from waferc.compiler.show.trace_counters import sram_in_use
from waferc.placement.build.routers import Passage, lane_passages, sum_passages
from waferc.placement.cost.critical_path import critical_path, last_legs
from waferc.placement.cost.links import link_bytes
from waferc.placement.cost.reach import ends_of
from waferc.placement.cost.timing import Timing, held, simulate
from waferc.placement.judge.pairs import pairs_of
from waferc.placement.judge.trees import visits
from waferc.placement.machine.wafer import LINKS
from waferc.placement.plan.colours import HOST, LANE, REDUCTION
from waferc.placement.plan.move import Move, records
from waferc.placement.plan.plan import Plan, Step
from waferc.placement.planner import plan as plan_of
from waferc.placement.planner import run
from waferc.placement.search.search import Search

pytestmark = pytest.mark.browser
DIGITS = Path(__file__).resolve().parent.parent / "examples/digits/digits.onnx"


@pytest.fixture(scope="module", params=ENGINES)
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    with browsing(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_model(DIGITS, wafer="16x16", dims={"batch": 16}, until="plan").plan


@pytest.fixture(scope="module")
def timing(plan: Plan) -> Timing:
    return simulate(plan)


@pytest.fixture(scope="module")
def path(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "digits.html"
    out.write_text(page_of(plan), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def shared(browser: Any, path: Path) -> Iterator[Report]:
    report = Report(browser, path)
    yield report
    report.close()


@pytest.fixture
def report(shared: Report) -> Report:
    """The digits on 16x16 cores, as if just opened."""
    return shared.open()


def opened(browser: Any, tmp_path: Path, text: str, fragment: str = "", **how: Any) -> Report:
    file = tmp_path / "page.html"
    file.write_text(text, encoding="utf-8")
    return Report(browser, file, **how).open(fragment)


# -- the questions ---------------------------------------------------------------------------------


def test_how_full_is_the_fullest_core_and_where(report: Report, plan: Plan) -> None:
    sram = plan.sram()
    y, x = np.unravel_index(int(sram.argmax()), sram.shape)
    report.tab.click("#inspector-body dd a >> nth=0")
    assert report.title == f"core ({x}, {y})"
    assert report.facts()["highest byte"].startswith(f"{sram.max():,} of {plan.wafer.sram_bytes:,}")


def test_which_cores_are_hot_unused_and_dead(browser: Any, tmp_path: Path) -> None:
    plan = plan_of(GRAPHS["convolution"](), damaged(16, 0.03, 3))
    report = opened(browser, tmp_path, page_of(plan))
    assert f"dead: {len(plan.wafer.dead_cores)} cores" in report.legend
    dx, dy = plan.wafer.dead_cores[-1]
    report.tab.click("#wafer")
    report.settled()
    assert report.pixel(dx + 0.35, dy) == (0, 0, 0)
    assert report.hover(dx, dy) == f"core ({dx}, {dy}): dead"
    sram = plan.sram()
    (y, x), (fy, fx) = np.argwhere((sram == 0) & ~plan.wafer.dead())[0], np.argwhere(sram == sram.max())[0]
    assert "nothing held" in report.hover(x, y)
    assert f"{sram.max():,} of" in report.hover(fx, fy)
    report.click_core(dx, dy)
    assert report.facts()["state"].startswith("dead")
    report.close()


def test_how_many_cycles_and_where_they_go(report: Report, plan: Plan, timing: Timing) -> None:
    *_, total = rows = report.table("part", "cycles", "fabric", "waiting", "compute")
    assert number(total[1]) == round(timing.cycles) and total[0] == "total"
    sums = [sum(number(r[i]) for r in rows[:-1]) for i in range(1, 5)]
    assert np.allclose(sums, [number(v) for v in total[1:]], atol=len(rows))
    assert report.facts()["cycles per call"].startswith(f"{timing.cycles:,.0f} ")


def test_where_a_node_lies(report: Report, plan: Plan, timing: Timing) -> None:
    before = report.drawn()
    report.tab.click("#model a[title=conv2]")
    assert report.title == "node conv2" and report.drawn() != before
    rows = report.table("step", "op", "cores", "place", "start", "end")
    for row, told in zip(rows, of_node(plan, timing, "conv2"), strict=True):
        assert [number(row[i]) for i in (0, 2, 4, 5)] == [told[k] for k in ("step", "cores", "start", "end")]
        assert row[3].startswith(told["place"])


@pytest.mark.parametrize(
    ("text", "title"), [("fc1", "node fc1"), ("maxpool", "node pool"), ("image", "tensor image")]
)
def test_a_node_an_operator_and_a_tensor_are_found_by_typing(report: Report, text: str, title: str) -> None:
    report.press("/")
    report.tab.keyboard.type(text)
    kind = title.split()[0]
    report.tab.click(f"#found a:has-text('{kind}') >> nth=0")
    assert report.title.startswith(title)
    report.press("/")
    report.tab.keyboard.type("no such thing")
    assert report.tab.inner_text("#found") == "nothing found"


def test_what_runs_on_a_core_in_which_order_and_when(report: Report, plan: Plan, timing: Timing) -> None:
    report.click_core(7, 9)
    assert report.title == "core (7, 9)"
    rows = report.table("step", "op", "start", "end")
    told = sorted(
        (round(timing.start[s.position][r, c]), s.position, round(timing.end[s.position][r, c]))
        for s, r, c in at_core(plan, 7, 9)[1]
    )
    assert [(number(r[2]), number(r[0]), number(r[3])) for r in rows] == told


def test_what_is_in_a_cores_memory_at_which_address(report: Report, plan: Plan) -> None:
    report.click_core(3, 12)
    rows = report.table("address", "bytes", "role", "tensor", "box", "live in steps")
    told = buffer_rows(plan, at_core(plan, 3, 12)[0])
    assert [(number(r[0]), number(r[1]), r[2], r[5]) for r in rows[1:]] == [
        (t["address"], t["bytes"], t["role"], t["live"]) for t in told
    ]
    assert rows[0][2] == "code" and number(rows[0][1]) == plan.code_bytes[0]


def test_the_memory_of_a_core_over_time_and_its_peak(report: Report, plan: Plan, timing: Timing) -> None:
    counter = sram_in_use(plan, timing)
    y, x = np.unravel_index(int(plan.sram().argmax()), plan.sram().shape)
    report.open(f"#core={x},{y}")
    words = report.facts()["most live"]
    peak = int(counter.bytes.max())
    assert words.startswith(f"{peak:,} bytes, from cycle {round(counter.times[counter.bytes.argmax()]):,},")
    bars = report.tab.locator("#inspector-body svg.memory rect.bar")
    assert bars.count() == 1 + len(at_core(plan, int(x), int(y))[0])
    bars.last.dispatch_event("click")
    assert report.title.startswith("tensor ")


def test_what_happens_at_a_cycle(report: Report, plan: Plan, timing: Timing) -> None:
    at = round(timing.cycles) // 2
    report.tab.fill("#cycle", str(at))
    report.press("Tab")
    report.layer("busy")
    busy = np.zeros(plan.wafer.cores, np.bool_)
    for s in plan.steps:
        first, last = np.rint(timing.start[s.position]), np.rint(timing.end[s.position])
        on = held(s) & (first <= at) & (at < last) & (s.kind != "input")
        busy[plan.regions[s.region].on(s.grid)[on]] = True
    assert busy.sum() > 0 and f"{busy.sum():,} cores compute" in report.legend
    rows = report.table("step", "op", "cores")
    assert sum(number(r[2]) for r in rows) == busy.sum()
    y, x = divmod(int(np.flatnonzero(busy)[0]), plan.wafer.width)
    assert "runs step" in report.hover(x, y)


def test_the_slider_and_play_move_the_clock(report: Report, timing: Timing) -> None:
    before = report.drawn()
    report.tab.focus("#clock")
    report.press(*["ArrowRight"] * 3)
    assert report.tab.input_value("#cycle") == "3" and report.tab.input_value("#layer") == "busy"
    report.press("End")
    assert number(report.tab.get_attribute("#clock", "aria-valuetext")) == round(timing.cycles)
    report.press("Home")
    report.tab.select_option("#speed", "4")
    report.tab.click("#play")
    report.until("state.at > 2000")
    assert report.drawn() != before
    report.tab.click("#play")
    report.until("byId('play').textContent === 'Play'")
    stopped = report.tab.evaluate("state.at")
    report.tab.wait_for_timeout(120)
    assert report.tab.evaluate("state.at") == stopped and f"at={stopped}" in report.fragment


PIECEWISE = """async (cycles) => {
  const next = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const frame = () => next().then(next);
  const image = (c) => c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  const all = () => [image(look.stage.canvas), image(byId("time"))];
  const wrong = [], seen = new Set();
  for (const at of cycles) {
    byId("clock").value = at;
    byId("clock").dispatchEvent(new Event("input"));
    await frame();
    const shown = all(), told = byId("legend").textContent;
    look.busyImage = null;
    look.stage.repaint();
    byId("legend").of = null;
    showControls(look);
    look.timeline.draw(true);
    await frame();
    all().forEach((anew, i) => { // a path's edge may be a little else where it is clipped
      if (anew.some((v, k) => Math.abs(v - shown[i][k]) > 24)) wrong.push([at, i]);
    });
    if (told !== byId("legend").textContent) wrong.push([at, told]);
    seen.add(look.stage.canvas.toDataURL());
  }
  return { wrong, pictures: seen.size };
}"""


@pytest.mark.parametrize("fragment", ["#layer=busy", "#core=6,5&path=1&layer=busy", "#step=4&layer=busy"])
@pytest.mark.parametrize("dead", [0.0, 0.03])
def test_what_the_clock_changes_is_drawn_as_the_whole_would_be(
    browser: Any, tmp_path: Path, dead: float, fragment: str
) -> None:
    """In any order of cycles, also where regions have holes."""
    plan = plan_of(GRAPHS["attention"](), damaged(16, dead, 5))
    timing = simulate(plan)
    cycles = [
        round(t) for s in plan.steps for t in (timing.start[s.position].max(), timing.end[s.position].min())
    ]
    cycles = np.random.default_rng(3).permutation(sorted({*cycles})[:40]).tolist()
    report = opened(browser, tmp_path, page_of(plan), fragment)
    found = report.tab.evaluate(PIECEWISE, [*cycles, 0, *sorted(cycles)])
    assert found["wrong"] == [] and found["pictures"] > 6
    report.close()


WORK = """async (cycles) => {
  const next = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const frame = () => next().then(next);
  const context = CanvasRenderingContext2D.prototype;
  const { putImageData, drawImage, clip, rect, restore } = context;
  const work = { cores: 0, drawn: 0, nodes: 0 };
  let area = 0, within = 0; // of the rectangles of a path, and of the clip, 0 for none
  context.rect = function (x, y, w, h) { area += w * h; return rect.call(this, x, y, w, h); };
  context.clip = function () { [within, area] = [area, 0]; return clip.call(this); };
  context.restore = function () { within = 0; return restore.call(this); };
  context.drawImage = function (...all) {
    work.drawn += within || this.canvas.width * this.canvas.height;
    return drawImage.apply(this, all);
  };
  context.putImageData = function (...all) {
    const [image, , , , , w, h] = all;
    work.cores += all.length > 3 ? w * h : image.width * image.height;
    return putImageData.apply(this, all);
  };
  const watch = new MutationObserver((all) => {
    for (const n of all.flatMap((m) => [...m.addedNodes])) {
      work.nodes += 1 + (n.querySelectorAll?.("*").length ?? 0);
    }
  });
  const out = [];
  for (const at of cycles) {
    byId("clock").value = at;
    byId("clock").dispatchEvent(new Event("input"));
    await frame();
    Object.assign(work, { cores: 0, drawn: 0, nodes: 0 }); // what moved to this cycle was one leap
    watch.observe(document.body, { childList: true, subtree: true });
    byId("clock").value = at + 1;
    byId("clock").dispatchEvent(new Event("input"));
    await frame();
    watch.disconnect();
    for (const m of watch.takeRecords()) work.nodes += m.addedNodes.length;
    const box = around([...look.busyImage.lit, look.stage.layer.changed ?? [0, 0, 0, 0]]);
    out.push({ ...work, changed: box[2] * box[3] });
  }
  return { out, scale: look.stage.scale, width: look.stage.canvas.width };
}"""


def test_a_step_of_the_clock_does_the_work_of_what_it_changes(browser: Any, tmp_path: Path) -> None:
    """Cores painted and pixels drawn are those of the steps that run, of many; only text is made."""
    plan = plan_of(GRAPHS["attention"](), damaged(64, 0.0, 1))
    cycles = [int(simulate(plan).cycles * i / 9) for i in range(1, 9)]
    report = opened(browser, tmp_path, page_of(plan))
    found = report.tab.evaluate(WORK, cycles)
    edge, line = 8 * found["width"], 3000  # of what smoothing mixes in, and of the timeline's mark
    assert any(w["changed"] > 64 for w in found["out"])
    for w in found["out"]:
        assert w["cores"] <= w["changed"]
        assert w["drawn"] <= w["changed"] * found["scale"] ** 2 + edge + line
        assert w["nodes"] <= 8
    report.close()


def on_link(plan: Plan, step: Step, move: Move, x: int, y: int, direction: str) -> float:
    """Bytes of one move on a link."""
    return float(link_bytes(plan, [(step, move)])[LINKS.index(direction), y, x])


def test_which_link_is_fullest_and_in_which_direction(report: Report, plan: Plan, timing: Timing) -> None:
    d, y, x = np.unravel_index(int(timing.links.argmax()), timing.links.shape)
    report.tab.click("#inspector-body dd a >> nth=1")
    assert report.title == f"link from ({x}, {y}) {LINKS[d]}"
    assert report.facts()["carries"].startswith(f"{timing.links.max():,.0f} bytes")
    report.layer("links")
    plain = report.drawn()
    report.press("z")
    assert report.drawn() != plain
    dx, dy = {"east": (1, 0), "west": (-1, 0), "south": (0, 1), "north": (0, -1)}[LINKS[d]]
    report.press("Escape")
    report.tab.mouse.click(*report.place(x + dx * 0.5 - dy * 0.14, y + dy * 0.5 + dx * 0.14))
    assert report.title == f"link from ({x}, {y}) {LINKS[d]}"


def test_the_load_of_a_link_over_time(report: Report, plan: Plan, timing: Timing) -> None:
    d, y, x = np.unravel_index(int(timing.links.argmax()), timing.links.shape)
    report.open(f"#link={x},{y},{LINKS[d]}")
    rows = report.table("route", "to step", "bytes", "from cycle", "until", "busy")
    assert sum(number(r[2]) for r in rows) == round(timing.links[d, y, x])
    starts = [number(r[3]) for r in rows]
    assert starts == sorted(starts) and all(number(r[4]) >= number(r[3]) for r in rows)
    for (
        row
    ) in rows:  # nothing is sent before some task that may send it has ended, nor kept past the last start
        step = plan.steps[number(row[1])]
        assert number(row[4]) <= round(max(timing.start[step.position][held(step)].max(), number(row[3])))
        ends = [timing.end[s.position][held(s)].min() for s in plan.steps if s.result in step.fetched]
        assert number(row[3]) >= round(min(ends))
    assert report.tab.locator("#inspector-body svg.chart rect").count() > 0
    assert "of its capacity" in report.body


def test_which_routes_pass_a_link(report: Report, plan: Plan) -> None:
    for x, y, direction in ((7, 8, "north"), (3, 3, "east"), (12, 5, "west"), (7, 2, "south")):
        report.open(f"#link={x},{y},{direction}")
        told = [
            (s.position, on)
            for s in plan.steps
            for m in s.received
            if (on := round(on_link(plan, s, m, x, y, direction)))
        ]
        shown = (
            []
            if "carries nothing" in report.body
            else report.table("route", "to step", "bytes", "from cycle", "until", "busy")
        )
        assert sorted((number(r[1]), number(r[2])) for r in shown) == sorted(told)


def test_the_colours_in_use_at_a_router(report: Report, plan: Plan) -> None:
    x, y = 7, 8
    colours: set[int] = set()
    taken: set[object] = set()  # lanes, and sides of reductions
    for s in plan.steps:
        for m in s.received:
            by = next(p for p in plan.steps if p.result == m.source)
            ends = ends_of(plan, s, by, m, "x"), ends_of(plan, s, by, m, "y")
            if m.route == "relay":
                lanes = lane_passages(*ends, plan.wafer.express)
                taken |= {lane for lane, p in lanes.items() if passes(p, x, y)}
            elif m.route == "join":
                taken |= {side for side, p in sum_passages(*ends).items() if passes(p, x, y)}
            elif m.route == "tree":
                v = visits(plan, "", by, m, pairs_of(plan, s, by, m))
                colours |= set(v.colour[v.core == y * plan.wafer.width + x].tolist())
    report.click_core(x, y)
    facts = report.facts()
    assert {number(k) for k in facts if k.startswith("colour ")} == colours
    assert REDUCTION == LANE // 2  # of each side, and of each direction and length
    assert number(facts["colours"]) == len(colours) + REDUCTION * len(taken) + HOST


def passes(p: Passage, x: int, y: int) -> bool:
    column, row = x - p.x0, y - p.y0
    inside = 0 <= column < len(p.columns) and 0 <= row < len(p.rows)
    return inside and p.columns[column] > 0 and p.rows[row] > 0


def test_what_a_route_carries_from_where_to_where(report: Report, plan: Plan) -> None:
    """A move, then one source of it; its targets are those of the plan's records."""
    kinds: set[str] = set()
    for s in plan.steps:
        for k, m in enumerate(s.received):
            if m.route in kinds or m.route == "local":
                continue
            kinds.add(m.route)
            report.open(f"#route={s.position}.{k}")
            facts = report.facts()
            assert facts["route"].startswith(m.route) and number(facts["received"]) == plan.received(s, m)
            found = [
                np.concatenate(c)
                for c in zip(*((r.target, r.source, r.elements) for r in records(m, s.grid)))
            ]
            report.tab.click("#inspector-body table a >> nth=0")
            x, y = (int(v) for v in report.title.split("core (")[1].rstrip(")").split(", "))
            by = next(p for p in plan.steps if p.result == m.source and p.kind != "update")
            cores = plan.regions[by.region].on(by.grid).ravel()
            mine = found[1] == int(np.flatnonzero(cores == y * plan.wafer.width + x)[0])
            to = plan.regions[s.region].on(s.grid).ravel()
            size = plan.buffers[m.source].dtype.bytes
            told: dict[int, int] = {}
            for target, elements in zip(found[0][mine], found[2][mine], strict=True):
                told[int(to[target])] = told.get(int(to[target]), 0) + int(elements) * size
            assert number(report.facts()["goes to"]) == len(told)
            for row in report.table("core", "bytes", "hops", "turns", "relays"):
                tx, ty = (int(v) for v in row[0].strip("()").split(", "))
                assert told[ty * plan.wafer.width + tx] == number(row[1])
                assert number(row[2]) == abs(tx - x) + abs(ty - y)
    assert kinds == {"tree", "relay", "join"}


def test_what_arrives_at_a_core_from_where(report: Report, plan: Plan) -> None:
    step = next(
        s
        for s in plan.steps
        if s.kind == "task" and s.position > 3 and any(m.route == "relay" for m in s.received)
    )
    core = int(plan.regions[step.region].on(step.grid)[0, 0])
    y, x = divmod(core, plan.wafer.width)
    start = round(simulate(plan).start[step.position][0, 0])
    report.open(f"#core={x},{y}&at={start}")
    told: dict[tuple[int, str], int] = {}
    for m in step.received:
        by = next(p for p in plan.steps if p.result == m.source and p.kind != "update")
        cores = plan.regions[by.region].on(by.grid).ravel()
        for r in records(m, step.grid):
            for source, elements in zip(r.source[r.target == 0], r.elements[r.target == 0], strict=True):
                key = (int(cores[source]), m.route)
                told[key] = told.get(key, 0) + int(elements) * plan.buffers[m.source].dtype.bytes
    assert f"Arrives for step {step.position}" in report.body
    rows = report.table("from", "bytes", "route", "tensor")
    shown: dict[tuple[int, str], int] = {}
    for source, size, route, _ in rows:
        at = (
            core
            if source == "itself"
            else (lambda v: v[1] * plan.wafer.width + v[0])([int(n) for n in source.strip("()").split(", ")])
        )
        shown[at, route] = shown.get((at, route), 0) + number(size)
    assert len(told) <= 40 and shown == told


def test_the_critical_path_leg_by_leg(report: Report, plan: Plan, timing: Timing) -> None:
    before = report.drawn()
    report.press("p")
    assert report.drawn() != before and report.tab.get_attribute("#path", "aria-pressed") == "true"
    rows = report.table("leg", "step", "core", "end", "fabric", "waiting", "compute")
    for i, (row, leg) in enumerate(zip(rows, critical_path(plan, timing), strict=True)):
        assert (
            number(row[0]) == i + 1
            and number(row[1]) == leg.step
            and row[2] == f"({leg.core[0]}, {leg.core[1]})"
        )
        assert [number(v) for v in row[3:]] == [
            round(v) for v in (leg.end, leg.fabric, leg.waiting, leg.compute)
        ]
    assert "path=1" in report.fragment


def test_which_steps_wait_and_for_whom(report: Report, plan: Plan, timing: Timing) -> None:
    told = last_legs(plan, timing)
    for leg in told[3:8]:
        report.open(f"#step={leg.step}")
        facts = report.facts()
        assert [number(facts[k]) for k in ("fabric", "waiting", "compute")] == [
            round(leg.fabric),
            round(leg.waiting),
            round(leg.compute),
        ]
        assert facts["on core"].startswith(f"({leg.core[0]}, {leg.core[1]})")
        assert leg.after < 0 or number(facts["sent by"]) == leg.after
    row = of_step(plan, timing, 7)
    report.open("#step=7")
    (first, *_) = row["expected_error"]
    assert f"{first['median']:.0%}" in report.facts()["expected error"]
    assert [number(r[3]) for r in report.table("tensor", "from", "route", "received", "bytes")] == [
        o["received"] for o in row["operands"]
    ]


def test_a_step_that_waits_names_the_step_that_keeps_its_core(browser: Any, tmp_path: Path) -> None:
    plan = plan_of(GRAPHS["attention"](), damaged(8, 0.0, 0))
    timing = simulate(plan)
    leg = max(last_legs(plan, timing), key=lambda leg: leg.waiting)
    assert leg.waiting > 1
    report = opened(browser, tmp_path, page_of(plan), f"#step={leg.step}")
    keeper = plan.steps[number(report.facts()["kept by"])]
    core = leg.core[1] * plan.wafer.width + leg.core[0]
    (row, column), *_ = np.argwhere(plan.regions[keeper.region].on(keeper.grid) == core)
    assert abs(timing.end[keeper.position][row, column] - (leg.end - leg.compute)) <= 1
    report.close()


def test_how_a_tensor_is_cut_over_the_cores(report: Report, plan: Plan, timing: Timing) -> None:
    step = plan.steps[3]
    report.find(step.tensor)
    if not report.title.startswith("tensor"):
        report.open(named("tensor", step.tensor))
    assert report.tab.input_value("#layer") == "tensor"
    for row in report.table("core", "elements of the tensor"):
        x, y = (int(v) for v in row[0].strip("()").split(", "))
        (r, c), *_ = np.argwhere(plan.regions[step.region].on(step.grid) == y * plan.wafer.width + x)
        box = [(int(p.lo[p.x[c] + p.y[r]]), int(p.hi[p.x[c] + p.y[r]])) for p in step.hold]
        assert row[1] == "[" + ", ".join(f"{a}:{b}" for a, b in box) + "]"
        assert row[1] in report.hover(x, y)
    told = of_tensor(plan, timing, step.tensor)["buffers"]
    rows = report.table(
        "role", "cores", "boxes", "replicas", "bytes", "address", "tile", "live in steps", "place"
    )
    assert [(r[0], number(r[1]), number(r[4]), number(r[5])) for r in rows] == [
        (b["role"], b["cores"], b["bytes"], b["address"]) for b in told
    ]
    if step.part:
        assert "partial sums" in report.facts()["partial sums"]


def test_replicas_of_a_weight_have_one_colour(report: Report, plan: Plan) -> None:
    b = next(b for b in plan.buffers if b.role == "constant" and b.grid.cores > 16)
    report.open(named("tensor", b.name))
    row = next(
        r
        for r in report.table(
            "role", "cores", "boxes", "replicas", "bytes", "address", "tile", "live in steps", "place"
        )
        if r[0] == "constant"
    )
    (move,) = [m for name, m in plan.lays if m.target == b.number]
    grid = np.zeros((b.grid.rows, b.grid.columns), np.int64)
    for d in move.dims:
        grid = grid * 100_000 + d.y[:, None] + d.x[None, :]
    assert number(row[2]) == len(np.unique(grid))
    cores = plan.regions[b.region].on(b.grid)
    same = np.argwhere(grid == grid[0, 0])[-1]
    colours = [report.pixel(int(c) % 16, int(c) // 16) for c in (cores[0, 0], cores[tuple(same)])]
    assert colours[0] == colours[1]


def test_is_it_fast_against_the_machines_limits(report: Report, plan: Plan, timing: Timing) -> None:
    limits = [e.strip() for e in report.tab.locator(".limits > div").all_inner_texts()]
    assert [t.split(" ")[0] for t in limits] == ["multiply-adds", "cores", "fullest", "SRAM,"]
    link, used = limits[2], plan.wafer.serial(plan.wafer.wavelets(timing.links.max())) / timing.cycles
    assert f"{used * 100:.0f} %" in link or f"{used * 100:.1f} %" in link
    assert f"{plan.sram().max():,} of {plan.wafer.sram_bytes:,} bytes" in limits[3]
    report.open("#step=3")
    assert "of its peak of" in report.facts()["products"]


def test_what_the_planner_tried_and_what_it_weighed_for_a_step(
    browser: Any, tmp_path: Path, plan: Plan
) -> None:
    graph = GRAPHS["attention"]()
    search = Search(graph, plan.wafer)
    run(search)
    made = search.result()
    entry = replace(entry_of(made), attempts=str(search))
    report = opened(browser, tmp_path, html(Page(graph.name, made.wafer, [entry])))
    assert report.table("way", "on", "came to") == attempts(str(search))
    now = report.tab.inner_text("#inspector-body tr[aria-current]")
    assert now.endswith("the best so far")
    weighing = Weighing(made)
    step = next(s for s in made.steps if len(weighing.of(s)) > 2)
    report.open(f"#step={step.position}")
    rows = report.table("split", "grid", "cycles", "beside")
    assert [[c.strip() for c in row] for row in rows] == considered_rows(weighing.of(step))
    report.close()


def test_a_link_in_a_bug_report_opens_the_same_view(browser: Any, report: Report) -> None:
    report.click_core(5, 4)
    report.tab.fill("#cycle", "12345")
    report.press("Tab")
    report.layer("cycles")
    report.press("p")
    report.tab.click("#closer")
    report.settled()
    report.tab.wait_for_timeout(260)
    other = Report(browser, report.path).open(report.fragment)
    for what in ("title", "body", "legend", "fragment"):
        assert getattr(other, what) == getattr(report, what)
    assert other.drawn() == report.drawn()
    assert "core=5,4&at=12345&layer=cycles&path=1&view=" in other.fragment
    other.close()


def test_back_and_forward_go_from_selection_to_selection(report: Report) -> None:
    report.click_core(1, 1)
    report.click_core(2, 2)
    report.tab.go_back()
    report.settled()
    assert report.title == "core (1, 1)"
    report.tab.go_forward()
    report.settled()
    assert report.title == "core (2, 2)"


def test_all_of_it_can_be_done_with_keys(report: Report, plan: Plan, timing: Timing) -> None:
    report.press("g", "ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowDown")
    assert "core (1, 11)" in report.tab.text_content("#said")
    report.press("Enter")
    assert report.title == "core (1, 11)"
    starts = sorted(s for s in (round(timing.start[p.position][held(p)].min()) for p in plan.steps) if s > 0)
    report.press("]", "]")
    assert report.tab.evaluate("state.at") == sorted(set(starts))[1]
    report.press("[", ".", ".", ",")
    assert report.tab.evaluate("state.at") == starts[0] + 1
    for key, layer in zip("123456", ("sram", "cycles", "busy", "links", "ops", "tensor"), strict=True):
        report.press(key)
        assert report.tab.input_value("#layer") == layer
    report.press("Escape", "?")
    assert report.title == "Summary" and report.tab.is_visible("#help")
    report.press("Escape")
    assert not report.tab.is_visible("#help")
    report.press("/", "ArrowDown", "Enter")
    report.tab.keyboard.press("Tab")
    assert report.tab.evaluate("document.activeElement.matches('a, summary')")


def test_operations_have_a_colour_each(report: Report, plan: Plan, timing: Timing) -> None:
    report.layer("ops")
    spent: dict[str, Any] = {}
    for s in plan.steps:
        if s.kind == "input":
            continue
        mine = spent.setdefault(
            s.op.name if s.kind in ("task", "join") else s.kind, np.zeros(plan.wafer.cores)
        )
        start, end = np.rint(timing.start[s.position]), np.rint(timing.end[s.position])
        mine[plan.regions[s.region].on(s.grid)] += np.where(held(s), end - start, 0)
    most = max(spent, key=lambda k: spent[k].sum())
    dominant = np.argmax(np.stack([*spent.values()]), axis=0) == list(spent).index(most)
    assert f"{most}: {dominant.sum():,} cores" in report.legend


# -- agreement, whatever is asked --------------------------------------------------------------------

AGREE = """async () => {
  const plan = look.plan, out = { links: 0, starts: [], memory: [] };
  for (let d = 0; d < 4; d++) {
    for (let y = 0; y < plan.wafer.height; y++) {
      for (let x = 0; x < plan.wafer.width; x++) {
        let sum = 0;
        for (const s of plan.steps) for (const m of s.received) sum += bytesOn(plan, m, x, y, DIRECTIONS[d]);
        if (Math.abs(sum - plan.at(plan.links[d], x, y)) > 0.5) out.links++;
      }
    }
  }
  for (let core = 0; core < plan.wafer.width * plan.wafer.height; core += 37) {
    out.starts.push(plan.running(core).map((t) => [t.step.number, t.start, t.end]));
    out.memory.push(plan.buffersAt(core).map((b) => b.buffer.number));
  }
  return out;
}"""


@pytest.mark.parametrize("dead", [0.0, 0.03])
@pytest.mark.parametrize("name", ["attention", "convolution"])
def test_moves_add_up_to_the_links_and_cores_to_the_plan(
    browser: Any, tmp_path: Path, name: str, dead: float
) -> None:
    plan = plan_of(GRAPHS[name](), damaged(16, dead, 5))
    timing = simulate(plan)
    report = opened(browser, tmp_path, page_of(plan))
    found = report.tab.evaluate(AGREE)
    assert found["links"] == 0
    for i, (starts, memory) in enumerate(zip(found["starts"], found["memory"], strict=True)):
        y, x = divmod(i * 37, plan.wafer.width)
        buffers, steps = at_core(plan, x, y)
        assert memory == [b.number for b in buffers]
        assert starts == [
            [s.position, round(timing.start[s.position][r, c]), round(timing.end[s.position][r, c])]
            for s, r, c in steps
        ]
    report.close()


# -- how it is to use ---------------------------------------------------------------------------------


def test_two_entries_are_both_there(browser: Any, tmp_path: Path, plan: Plan) -> None:
    other = plan_of(GRAPHS["attention"](), plan.wafer)
    report = opened(browser, tmp_path, page_of(plan, other))
    report.click_core(4, 4)
    report.tab.select_option("#entry", label="main1")
    report.settled()
    assert f"{simulate(other).cycles:,.0f}" in report.tab.inner_text("#of")
    assert "entry=main1" in report.fragment and report.title == "core (4, 4)"
    again = Report(browser, report.path).open(report.fragment)
    assert again.body == report.body
    again.close()
    report.close()


def test_what_does_not_fit_is_red_and_says_why(browser: Any, tmp_path: Path, plan: Plan) -> None:
    tight = replace(plan, wafer=replace(plan.wafer, sram_bytes=int(plan.sram().max()) - 1))
    report = opened(browser, tmp_path, page_of(tight, notes=(("does not fit", "19,712 of 19,711 bytes"),)))
    over = tight.sram() > tight.wafer.sram_bytes
    assert f"over the budget: {over.sum():,} cores" in report.legend
    y, x = np.argwhere(over)[0]
    red, green, blue = report.pixel(int(x), int(y))
    assert red > 180 and green < 60 and blue < 80
    assert report.facts()["does not fit"] == "19,712 of 19,711 bytes"
    empty = opened(browser, tmp_path, html(Page("big", plan.wafer, [], [("does not fit", "for a reason")])))
    assert "for a reason" in empty.body and not empty.tab.is_visible("#grid")
    for r in (report, empty):
        r.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_of_it_shuts_anybody_out(
    browser: Any, path: Path, scheme: str, size: tuple[int, int]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e '.[dev]'").Axe()
    report = Report(browser, path, size, scheme)
    for fragment in (
        "",
        "#core=7,9&layer=busy&at=30000",
        "#step=3&path=1",
        "#link=7,8,north&layer=links",
        named("tensor", "image"),
    ):
        report.open(fragment)
        found = axe.run(report.tab).response["violations"]
        bad = [
            (v["id"], [n["target"] for n in v["nodes"]][:3])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert bad == [], fragment
    report.tab.click("#help-button")
    assert [
        v["id"] for v in axe.run(report.tab).response["violations"] if v["impact"] in ("serious", "critical")
    ] == []
    report.close()


PINCH = """() => {
  const c = look.stage.canvas, r = c.getBoundingClientRect();
  const at = (type, pointerId, x) => c.dispatchEvent(
    new PointerEvent(type, { pointerId, clientX: r.left + x, clientY: r.top + 90, bubbles: true }));
  c.setPointerCapture = () => {};
  at("pointerdown", 1, 100);
  at("pointerdown", 2, 140);
  at("pointermove", 2, 180);
  at("pointermove", 2, 240);
  at("pointerup", 1, 100);
  at("pointerup", 2, 240);
}"""


def test_it_is_of_use_on_a_phone(browser: Any, path: Path) -> None:
    if is_firefox(browser):
        pytest.skip("Playwright cannot touch in Firefox's own builds")
    report = Report(browser, path, PHONE, touch=True).open()
    assert report.tab.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    report.tab.touchscreen.tap(*report.place(6, 6))
    report.settled()
    assert report.title == "core (6, 6)" and report.tab.is_visible("#inspector-body")
    report.tab.click("#tab-model")
    assert report.tab.is_visible("#model") and not report.tab.is_visible("#inspector-body")
    report.tab.click("#model a >> nth=2")
    assert report.tab.is_visible("#inspector-body")
    for fragment in ("#core=7,9", "#step=3", "#link=7,8,north", named("tensor", "image")):
        report.open(fragment)
        assert report.tab.evaluate("document.documentElement.scrollWidth") <= PHONE[0], fragment
    before = report.tab.evaluate("look.stage.scale")
    report.tab.evaluate(PINCH)
    assert report.tab.evaluate("look.stage.scale") > 1.5 * before
    report.close()


def test_no_name_runs_as_a_script_or_leaves_its_place(browser: Any, tmp_path: Path, plan: Plan) -> None:
    steps = tuple(
        replace(s, name=HOSTILE + str(s.position), source=(HOSTILE, "W" * 3000), tensor=HOSTILE)
        for s in plan.steps
    )
    evil = replace(plan, steps=steps, buffers=tuple(replace(b, name=HOSTILE) for b in plan.buffers))
    text = html(Page(HOSTILE, evil.wafer, [entry_of(evil)], [(HOSTILE, HOSTILE)], [(HOSTILE, HOSTILE)]))
    report = opened(browser, tmp_path, text)
    for fragment in (
        "",
        "#core=3,3",
        "#step=3",
        "#node=%3Cimg%20src%3Dx%3E",
        "#tensor=x&entry=%3Cscript%3E",
        "#route=3.0",
        "#at=1e9&view=a,b",
        "#core=99999,1",
        "#%%%",
        "#link=1,1,up",
    ):
        report.open(fragment)
        report.tab.mouse.move(*report.place(4, 4))
        report.press("/")
        report.tab.keyboard.type("hacked")
        assert report.tab.evaluate("window.hacked") is None
        assert report.tab.evaluate("document.querySelectorAll('img, script').length") == 3
        assert report.tab.evaluate("document.documentElement.scrollWidth") <= DESK[0]
    report.open()
    report.find("hacked")
    assert "<img src=x onerror=window.hacked=1>" in report.title
    assert json.dumps(report.complaints) == "[]"
    report.close()


def test_it_asks_for_nothing_and_works_without_streams(browser: Any, path: Path, report: Report) -> None:
    report.open("#core=7,9&at=30000&layer=busy")
    old = Report(browser, path)
    old.tab.add_init_script("delete window.DecompressionStream")
    old.open("#core=7,9&at=30000&layer=busy")
    assert old.tab.evaluate("typeof DecompressionStream") == "undefined"
    assert (old.body, old.drawn()) == (report.body, report.drawn())
    assert {u.split("#")[0] for u in old.requests} <= {path.as_uri(), "about:blank"}
    old.close()


def test_it_prints(browser: Any, report: Report) -> None:
    if is_firefox(browser):
        pytest.skip("Playwright cannot ask Firefox's own builds for a printer's media")
    report.open("#step=3")
    report.tab.emulate_media(media="print")
    assert report.tab.is_visible("#inspector-body") and not report.tab.is_visible("#bar")
    assert len(report.tab.pdf()) > 10_000
    report.tab.emulate_media(media="screen")


GRIDS = """() => [...document.querySelectorAll(".grids")].map((row) => ({
  views: [...row.querySelectorAll("svg")].map((p) => p.getAttribute("viewBox")),
  marks: [...row.querySelectorAll(".mark")].map((m) => m.getAttribute("visibility") + m.getAttribute("x")),
  said: row.nextElementSibling.textContent,
}))"""


def test_two_plans_are_compared_with_one_selection_and_one_view(
    browser: Any, tmp_path: Path, plan: Plan, timing: Timing
) -> None:
    """Grids of A, of B and of B less A: they pan and zoom together, and the same core is marked in all."""
    other = compile_model(DIGITS, wafer="16x16", dims={"batch": 16}, weights="f16", until="plan").plan
    sides = [
        Side(name, {"model": "one", "weights": name}, p, t, figures(p, t.links))
        for name, p, t in (("f32", plan, timing), ("f16", other, simulate(other)))
    ]
    file = tmp_path / "diff.html"
    file.write_text(diff_page(sides[0], sides[1], difference(*sides)), encoding="utf-8")
    report = Report(browser, file)
    tab = report.tab
    tab.goto(file.as_uri())
    before = tab.evaluate(GRIDS)
    assert all(len(row["views"]) == 3 and len(set(row["views"])) == 1 for row in before)
    captions = [c.strip() for c in tab.locator(".grids >> nth=0 >> figcaption").all_inner_texts()]
    assert captions == ["A", "B", "B less A"]
    box = tab.locator(".grids svg").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.click(x, y)
    now = tab.evaluate(GRIDS)
    for row in now:
        assert row["said"].startswith("core (") and row["said"] == now[0]["said"]
        assert len(set(row["marks"])) == 1 and row["marks"][0].startswith("visible")
    tab.mouse.move(x, y)
    tab.mouse.wheel(0, -200)
    zoomed = tab.evaluate(GRIDS)
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 20, steps=3)
    tab.mouse.up()
    panned = tab.evaluate(GRIDS)
    for a, b, c in zip(before, zoomed, panned, strict=True):
        assert len({*a["views"], *b["views"], *c["views"]}) == 3
    tab.focus(".grids >> nth=2")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(GRIDS)[0]["said"] == tab.evaluate(GRIDS)[2]["said"] != now[0]["said"]
    tab.keyboard.press("Escape")
    assert tab.evaluate(GRIDS) == before
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e '.[dev]'").Axe()
    for width, height in (DESK, PHONE):
        tab.set_viewport_size({"width": width, "height": height})
        found = axe.run(tab).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    report.close()
