"""Heatmaps of synthetic sheets, from 8x8 to a whole wafer, and what the numbers of real plans say."""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from plans import damaged, planned
from waferc import compile_model
from waferc.compiler.errors import UsageError
from waferc.compiler.show.colours import (
    CATEGORIES,
    CHANGES,
    DEAD,
    HUGE_RANGE,
    OVER,
    UNUSED,
    VIRIDIS,
    Scale,
    brief,
    number,
    scale_of,
)
from waferc.compiler.show.drawing import Cells, Line, Text, fit, shorten, text_width
from waferc.compiler.show.heatmap import Style, arrange, compose, draw
from waferc.compiler.show.metrics import (
    KINDS,
    MOST_CATEGORIES,
    OTHERS,
    Metric,
    Selection,
    held_bytes,
    metric_of,
)
from waferc.compiler.show.plot import plot_sheet
from waferc.compiler.show.sheet import Asked, Outline, Panel, Sheet, csv_lines, numbers, sheet_of
from waferc.placement.cost.critical_path import critical_path
from waferc.placement.cost.timing import held, simulate

SVG = "{http://www.w3.org/2000/svg}"
ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "</title><script>alert(1)</script>&\n"


def sheet(
    width: int, height: int, regions: tuple[Outline, ...], dead: tuple[tuple[int, int], ...] = ()
) -> Sheet:
    """The metric is x + y inside the regions; dead cores are given as (x, y)."""
    values = np.full((height, width), np.nan)
    for r in regions:
        ys, xs = np.mgrid[r.y : r.y + r.height, r.x : r.x + r.width]
        values[r.y : r.y + r.height, r.x : r.x + r.width] = xs + ys
    broken = np.zeros((height, width), np.bool_)
    for x, y in dead:
        broken[y, x] = True
        values[y, x] = np.nan
    panel = Panel("cycles", Metric("title", "bytes", values))
    return Sheet(f"{width}x{height}", width, height, (panel,), regions, broken)


SMALL = sheet(
    8, 8, (Outline(0, 0, 8, 4, "conv1"), Outline(2, 5, 3, 2, HOSTILE.replace("\n", " "))), ((7, 0), (0, 7))
)
CORNER = sheet(755, 1170, (Outline(5, 7, 20, 10, "conv1 +1"),), ((754, 1169),))
WHOLE = sheet(755, 1170, (Outline(0, 0, 755, 1170, "matmul"),), ((3, 3),))


def pixels(drawn: Sheet, tmp_path: Path) -> Image.Image:
    draw(drawn, tmp_path / "map.png")
    return Image.open(tmp_path / "map.png").convert("RGB")


def texts(drawn: Sheet, style: Style | None = None) -> list[str]:
    return [s.text for s in compose(drawn, style).shapes if isinstance(s, Text)]


def centre(drawn: Sheet, x: int, y: int) -> tuple[int, int]:
    """A pixel of the core (x, y), off its centre where a number may stand."""
    f = arrange(drawn)[-1]
    left, top = f.pixel(x, y)
    return left + f.cell // 2, top + f.cell * 3 // 4


# -- drawings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [SMALL, CORNER, WHOLE], ids=["8x8", "corner", "whole"])
def test_png_colours_each_core_by_its_value(drawn: Sheet, tmp_path: Path) -> None:
    image = pixels(drawn, tmp_path)
    metric = drawn.panels[0].metric
    scale = scale_of(metric)
    used = np.argwhere(np.isfinite(metric.values))
    for y, x in used[[len(used) * 3 // 7, len(used) * 5 // 7]].tolist():
        expected = tuple(scale.colours(metric.values[y : y + 1, x])[0].tolist())
        assert image.getpixel(centre(drawn, x, y)) == expected


def test_unused_dead_and_zero_differ(tmp_path: Path) -> None:
    image = pixels(SMALL, tmp_path)
    x, y = centre(SMALL, 0, 7)
    assert image.getpixel((x, y)) == DEAD
    assert image.getpixel(centre(SMALL, 7, 7)) == UNUSED
    zero = Scale(0, 1).colours(np.zeros(1))[0]
    assert tuple(zero) == VIRIDIS[0] and VIRIDIS[0] not in (UNUSED, DEAD)
    left, top = arrange(SMALL)[0].pixel(0, 7)
    crossed = [image.getpixel((left + i, top + i)) for i in range(4, 20)]
    assert (255, 255, 255) in crossed


def test_lightness_rises_along_the_map_and_colours_of_categories_differ() -> None:
    lightness = np.array(VIRIDIS) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    assert len(CATEGORIES) == MOST_CATEGORIES and len({*CATEGORIES, DEAD, UNUSED, OVER}) == 13


def test_cells_are_never_below_a_pixel_and_a_small_part_is_enlarged() -> None:
    assert [f.cell for f in arrange(WHOLE)] == [1]
    wafer, detail = arrange(CORNER)
    assert wafer.cell == 1 and detail.cell >= 16
    assert (detail.x, detail.y, detail.width, detail.height) == (4, 6, 22, 12)
    assert len(arrange(SMALL)) == 1 and arrange(SMALL)[0].cell == 64


def test_axes_have_coordinates_and_a_crop_shows_that_part() -> None:
    said = texts(CORNER)
    assert {"0", "700", "1150"} <= set(said)
    part = replace(CORNER, crop=(10, 8, 4, 3))
    (frame,) = arrange(part)
    assert (frame.x, frame.y, frame.width, frame.height) == (10, 8, 4, 3)
    assert {"10", "11", "12", "13", "8", "9"} <= set(texts(part)) and "700" not in texts(part)
    wide = compose(part, Style(size=900)).width
    assert 600 <= wide <= 960


def test_names_stand_in_their_regions_and_numbers_in_small_grids() -> None:
    said = texts(SMALL)
    assert "1: conv1" in said
    assert "10" in said  # the value of core (7, 3)
    assert not any("\n" in t for t in said)
    assert not any("conv1" in t for t in texts(CORNER))  # one region: its name says nothing


def test_svg_is_well_formed_with_a_tip_per_core_or_one_image(tmp_path: Path) -> None:
    for drawn, name in ((SMALL, "small.svg"), (WHOLE, "whole.svg")):
        draw(drawn, tmp_path / name)
    small = ElementTree.parse(tmp_path / "small.svg").getroot()
    tips = [t.text for t in small.iter(f"{SVG}title")]
    assert len(tips) == 65 and "core (2, 1): 3 bytes" in tips and "core (7, 0): dead" in tips
    whole = ElementTree.parse(tmp_path / "whole.svg").getroot()
    images = [i.get("href", "") for i in whole.iter(f"{SVG}image")]
    data = base64.b64decode(images[0].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(data)).size == (755, 1170)


def test_a_picture_says_what_it_is_of(tmp_path: Path) -> None:
    told = replace(SMALL, title=HOSTILE, told={"Software": "waferc 9", "Comment": 'weights "f16" ü\n'})
    draw(told, tmp_path / "a.png")
    known = Image.open(tmp_path / "a.png").info
    assert known["Software"] == "waferc 9" and known["Comment"] == 'weights "f16" ü\\n'
    assert known["Description"].startswith("title: ")
    draw(told, tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.get("role") == "img" and root.findtext(f"{SVG}title") == HOSTILE.replace("\n", "\\n")
    assert json.loads(root.findtext(f"{SVG}metadata") or "")["Software"] == "waferc 9"
    assert root.find(f".//{SVG}script") is None


def test_wrong_requests_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg, not '\.gif'"):
        draw(SMALL, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="crop leaves the 8x8 grid"):
        replace(SMALL, crop=(4, 4, 5, 1)).check()
    with pytest.raises(ValueError, match="r leaves the 8x8 grid"):
        replace(SMALL, regions=(Outline(1, 0, 8, 1, "r"),)).check()
    with pytest.raises(ValueError, match="no panels"):
        replace(SMALL, panels=()).check()


def test_the_grid_is_one_shape_whatever_its_size() -> None:
    """900,000 cores must not become 900,000 Python objects."""
    shapes = compose(WHOLE).shapes
    assert len(shapes) < 200
    grids = [s for s in shapes if isinstance(s, Cells) and s.cell * s.pixels.shape[1] == 755]
    assert len(grids) == 1 and grids[0].pixels.shape == (1170, 755, 3)


def test_text_is_shortened_from_the_front() -> None:
    assert shorten("/encoder/layer.0/MatMul", 12) == "....0/MatMul"
    assert text_width(fit("/encoder/layer.0/attention/MatMul", 90, 11), 11) <= 90
    assert fit("abcdefgh", 3, 11) == ""
    assert shorten("a\nb", 9) == r"a\nb"
    assert [number(44976.0), number(0.25), number(2.5e9)] == ["44,976", "0.25", "2.5e+09"]
    assert [brief(950.0), brief(44976.0), brief(1.2e6)] == ["950", "45.0k", "1.2M"]


# -- scales ---------------------------------------------------------------------------------------------


def test_a_huge_range_is_logarithmic() -> None:
    metric = Metric("m", "u", np.array([[0.0, 1.0, 1.0 + HUGE_RANGE]]))
    scale = scale_of(metric)
    assert scale.logarithmic and scale.ticks() == [1, 10, 100, 1000]
    assert scale.position(np.array([0.0, 1.0, 1.0 + HUGE_RANGE])).tolist() == [0, 0, 1]
    assert not scale_of(Metric("m", "u", np.array([[2.0, 1000.0]]))).logarithmic
    assert scale_of(Metric("m", "u", np.full((2, 2), np.nan))) == Scale(0, 1)
    assert Scale(0, 40000).ticks() == [0, 10000, 20000, 30000, 40000]
    assert not any("-0" in number(t) for t in Scale(0, 7).ticks())


def test_limits_can_be_asked_for() -> None:
    scale = Scale(1, 5000, logarithmic=True)
    assert scale.asked_for("auto") == scale and scale.asked_for("linear") == Scale(0, 5000)
    assert scale.asked_for("10:20") == Scale(10, 20) and Scale(0, 50).asked_for("log").low == 50 / HUGE_RANGE
    for wrong in ("5:5", "9:3", "a:b", "1", "nan:1", "0:inf", ":"):
        with pytest.raises(ValueError):
            scale.asked_for(wrong)


def test_a_scale_ends_at_the_budget_and_what_is_over_is_red() -> None:
    values = np.full((8, 8), 50.0)
    values[0, 0], values[0, 1], values[0, 2] = 101, 100, np.nan
    metric = Metric("SRAM in use", "bytes", values, 100.0)
    scale = scale_of(metric)
    colours = [tuple(c) for c in scale.colours(values[0, :3]).tolist()]
    assert colours == [OVER, VIRIDIS[-1], UNUSED] and (scale.low, scale.high) == (0, 100)
    drawn = Sheet("p", 8, 8, (Panel("sram", metric),), (), np.zeros((8, 8), np.bool_))
    said = texts(drawn)
    assert "100 budget" in said and "over budget (1 core); fullest 101" in said
    (panel,) = numbers(drawn)["panels"]
    assert (panel["least"], panel["most"], panel["budget"], panel["over"]) == (50, 101, 100, 1)
    assert panel["values"][0][:3] == [101, 100, None]


def test_changes_are_coloured_to_both_sides_of_none() -> None:
    scale = scale_of(Metric("m", "u", np.array([[-4.0, 0.0, 2.0]]), difference=True))
    assert (scale.low, scale.high) == (-4, 4)
    colours = [tuple(c) for c in scale.colours(np.array([-4.0, 0.0, 4.0])).tolist()]
    assert colours == [CHANGES[0], CHANGES[5], CHANGES[-1]]


def test_panels_of_one_metric_share_a_scale(tmp_path: Path) -> None:
    low = replace(SMALL.panels[0].metric, values=SMALL.panels[0].metric.values / 2)
    two = replace(SMALL, crop=(0, 0, 8, 8), panels=(*SMALL.panels, Panel("cycles", low, "half")))
    first, second = (s for s in compose(two).shapes if isinstance(s, Cells) and s.cell > 1)
    scale = scale_of(SMALL.panels[0].metric)
    at = np.isfinite(low.values) & ~SMALL.dead
    assert (first.pixels[at] == scale.colours(SMALL.panels[0].metric.values)[at]).all()
    assert (second.pixels[at] == scale.colours(low.values)[at]).all()


# -- of plans -------------------------------------------------------------------------------------------


def test_every_metric_says_what_the_timing_says() -> None:
    plan = planned("attention", "8x8")
    timing = simulate(plan)
    used = plan.sram() > 0
    same = {
        "sram": plan.sram(),
        "cycles": timing.busy,
        "links": timing.links.max(axis=0),
        "east": timing.links[0],
        "west": timing.links[1],
        "south": timing.links[2],
        "north": timing.links[3],
        "steps": timing.ops,
    }
    for name, values in same.items():
        metric = metric_of(plan, timing, name)
        assert (np.isfinite(metric.values) == used).all()
        assert (metric.values[used] == values[used]).all(), name
    path = metric_of(plan, timing, "path")
    assert np.nansum(path.values) == pytest.approx(timing.cycles)
    assert path.line[-1] == critical_path(plan, timing)[-1].core


def test_parts_of_a_call_add_up_to_the_whole() -> None:
    plan = planned("attention", "8x8")
    timing = simulate(plan)
    for name in ("cycles", "steps"):
        own = [metric_of(plan, timing, name, Selection(frozenset([s.position]))).values for s in plan.steps]
        assert np.nan_to_num(own).sum(0) == pytest.approx(np.nan_to_num(metric_of(plan, timing, name).values))
    links = [metric_of(plan, timing, "routes", Selection(frozenset([s.position]))).arrows for s in plan.steps]
    assert np.sum([a for a in links if a is not None], axis=0) == pytest.approx(timing.links)


def test_moments_of_a_call() -> None:
    plan = planned("convolution", "8x8")
    timing = simulate(plan)
    end = metric_of(plan, timing, "cycles", Selection(at=timing.cycles)).values
    assert np.nan_to_num(end) == pytest.approx(np.nan_to_num(metric_of(plan, timing, "cycles").values))
    assert np.nan_to_num(metric_of(plan, timing, "cycles", Selection(at=0)).values).max() == 0
    for at in np.linspace(0, timing.cycles, 7):
        busy = metric_of(plan, timing, "busy", Selection(at=at)).values
        running = np.zeros((8, 8), np.bool_)
        for s in plan.steps:
            now = held(s) & (timing.start[s.position] <= at) & (at < timing.end[s.position])
            cores = plan.regions[s.region].on(s.grid)[now]
            running[cores // 8, cores % 8] |= s.kind != "input"
        assert (np.nan_to_num(busy) == running).all()
        held_now = held_bytes(plan, timing, at)
        assert (held_now <= plan.sram()).all()
        carried = metric_of(plan, timing, "links", Selection(at=at)).arrows
        assert carried is not None and (carried <= timing.links).all()


def test_holders_are_told_by_role() -> None:
    plan = planned("mlp", "8x8")
    timing = simulate(plan)
    tensor = next(s for s in plan.steps if s.part).tensor.split("#")[0]
    found = metric_of(plan, timing, "holders", Selection(tensor=tensor))
    assert found.categories and all("bytes per core" in c for c in found.categories)
    assert any("partial sums over" in c for c in found.categories)


def test_dead_cores_and_many_categories() -> None:
    wafer = replace(damaged(8, 0.05, 3), dead_links=((0, 0, "east"),))
    plan = replace(planned("mlp", "8x8"), wafer=wafer)
    dead = metric_of(plan, simulate(planned("mlp", "8x8")), "dead")
    assert (dead.values == 2).sum() == len(wafer.dead_cores)
    assert dead.values[0, 0] in (1, 2)
    plan = planned("attention", "16x16")
    many = metric_of(plan, simulate(plan), "layers")
    assert len(many.categories) <= MOST_CATEGORIES
    if len(many.categories) == MOST_CATEGORIES:
        assert many.categories[-1] == OTHERS


def test_what_is_asked_for_becomes_panels() -> None:
    plan = planned("attention", "8x8")
    timing = simulate(plan)
    film = sheet_of(plan, timing, Asked(("busy",), film=4))
    assert [p.of.at for p in film.panels] == [timing.cycles * k / 8 for k in (1, 3, 5, 7)]
    both = sheet_of(plan, timing, Asked(("sram", "cycles"), layers=2))
    assert both.columns == 3 and len(both.panels) == 6
    for kind in KINDS:
        asked = Asked((kind,), step=3, at=(10.0,))
        if KINDS[kind].wants == "tensor":
            asked = replace(asked, step=None, tensor=plan.steps[3].tensor)
        compose(sheet_of(plan, timing, asked))
    wrong = (
        (Asked(("busy",)), "--at CYCLE or --film N"),
        (Asked(("routes",)), "needs --step, --node or --tensor"),
        (Asked(("holders",)), "needs --tensor"),
        (Asked(step=99), "there are steps 0 to"),
        (Asked(nodes=("n",)), "no step is of a node called that"),
        (Asked(tensor="t"), "the plan has none called that"),
        (Asked(at=(-1.0,)), "a call takes cycles 0 to"),
        (Asked(at=(float("nan"),)), "a call takes cycles 0 to"),
        (Asked(crop=(4, 4, 5, 1)), "has columns 0 to 7"),
        (Asked(("sram", "cycles"), film=64), "128 panels"),
    )
    for asked, message in wrong:
        with pytest.raises(UsageError, match=message):
            sheet_of(plan, timing, asked)


def test_tables_hold_what_is_drawn() -> None:
    plan = planned("attention", "8x8")
    timing = simulate(plan)
    sheet = sheet_of(plan, timing, Asked(("cycles", "operators"), crop=(1, 2, 4, 3)))
    rows = list(csv.DictReader(io.StringIO("\n".join(csv_lines(sheet)))))
    told = numbers(sheet)
    assert told["box"] == [1, 2, 4, 3]
    for row in rows:
        x, y = int(row["x"]), int(row["y"])
        assert float(row["cycles"]) == pytest.approx(timing.busy[y, x], rel=1e-9)
        category = told["panels"][1]["values"][y - 2][x - 1]
        assert row["operators"] == told["panels"][1]["categories"][int(category)]
    assert len(rows) == 12
    named = replace(sheet.panels[1].metric, categories=("=1+1", 'a "b", c') * 5)
    lines = list(csv_lines(replace(sheet, panels=(Panel("m", named, "@x"),))))
    assert not any(cell[:1] in "=+-@" for line in csv.reader(lines) for cell in line if cell)


def test_arrows_stand_on_the_links_that_carry() -> None:
    plan = planned("mlp", "8x8")
    timing = simulate(plan)
    drawn = compose(sheet_of(plan, timing, Asked(("links",))))
    assert sum(isinstance(s, Line) for s in drawn.shapes) >= 3 * int((timing.links > 0).sum())


def test_a_notebook_sees_numbers_pictures_and_figures() -> None:
    made = compile_model(ROOT / "examples/digits/digits.onnx", wafer="8x8", dims={"batch": 2}, until="plan")
    shown = made._repr_html_()
    assert "fullest core" in shown and shown.count("<svg") == 1 and "<script" not in shown
    sheet = made.sheet("cycles", "layers", at=[50.0])
    assert [p.metric.values.shape for p in sheet.panels] == [(8, 8), (8, 8)]
    pytest.importorskip("matplotlib")
    figure = made.plot("sram", "layers", "path")
    out = io.BytesIO()
    figure.savefig(out, format="png")
    assert out.getvalue().startswith(b"\x89PNG")
    axes = [a for a in figure.axes if a.images]
    assert len(axes) == 3 and axes[0].images[0].get_array().shape == (8, 8, 3)


def test_without_matplotlib_a_figure_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'waferc\[plot\]'"):
        plot_sheet(SMALL)
