"""Heatmaps of synthetic pictures, from 8x8 to a whole wafer."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from waferc.compiler.show.colours import (
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
from waferc.compiler.show.drawing import Cells, Text, fit, shorten, text_width
from waferc.compiler.show.heatmap import arrange, compose, draw
from waferc.compiler.show.picture import METRICS, Metric, Picture, Region, limits

HOSTILE = "</script><script>alert(1)</script>{{data}}&amp;\n"


def picture(
    width: int, height: int, regions: tuple[Region, ...], dead: tuple[tuple[int, int], ...] = ()
) -> Picture:
    """Every metric is x + y inside the regions; dead cores are given as (x, y)."""
    values = np.full((height, width), np.nan)
    for r in regions:
        ys, xs = np.mgrid[r.y : r.y + r.height, r.x : r.x + r.width]
        values[r.y : r.y + r.height, r.x : r.x + r.width] = xs + ys
    broken = np.zeros((height, width), np.bool_)
    for x, y in dead:
        broken[y, x] = True
        values[y, x] = np.nan
    metrics = {name: Metric(f"{name} title", "bytes", values) for name in METRICS}
    rows = tuple({"name": r.name, "region": r.name, "tiles": 4, "nodes": r.nodes} for r in regions)
    return Picture(f"{width}x{height}", width, height, metrics, regions, broken, rows, {"cycles": "1,234"})


SMALL = picture(
    8, 8, (Region("r0", 0, 0, 8, 4, ("conv1",)), Region("r1", 2, 5, 3, 2, (HOSTILE,))), ((7, 0), (0, 7))
)
CORNER = picture(755, 1170, (Region("r0", 5, 7, 20, 10, ("conv1", "relu1")),), ((754, 1169),))
WHOLE = picture(755, 1170, (Region("r0", 0, 0, 755, 1170, ("matmul",)),), ((3, 3),))


def pixels(drawn: Picture, tmp_path: Path) -> Image.Image:
    draw(drawn, "sram", tmp_path / "map.png")
    return Image.open(tmp_path / "map.png").convert("RGB")


def centre(drawn: Picture, x: int, y: int) -> tuple[int, int]:
    """A pixel of the core (x, y), off its centre where a number may stand."""
    p = arrange(drawn)[-1]
    left, top = p.pixel(x, y)
    return left + p.cell // 2, top + p.cell * 3 // 4


@pytest.mark.parametrize("drawn", [SMALL, CORNER, WHOLE], ids=["8x8", "corner", "whole"])
def test_png_colours_each_core_by_its_value(drawn: Picture, tmp_path: Path) -> None:
    image = pixels(drawn, tmp_path)
    scale = scale_of(drawn.metrics["sram"])
    values = drawn.metrics["sram"].values
    used = np.argwhere(np.isfinite(values))
    for y, x in used[[len(used) * 3 // 7, len(used) * 5 // 7]].tolist():
        expected = tuple(scale.colours(values[y : y + 1, x])[0].tolist())
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


def test_lightness_rises_along_the_map() -> None:
    lightness = np.array(VIRIDIS) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()


def test_cells_are_never_below_a_pixel_and_a_small_part_is_enlarged() -> None:
    assert [p.cell for p in arrange(WHOLE)] == [1]
    wafer, detail = arrange(CORNER)
    assert wafer.cell == 1 and detail.cell >= 16
    assert (detail.x, detail.y, detail.width, detail.height) == (4, 6, 22, 12)
    assert len(arrange(SMALL)) == 1 and arrange(SMALL)[0].cell == 64


def test_names_stand_in_their_regions_and_numbers_in_small_grids() -> None:
    texts = [s.text for s in compose(SMALL, "sram").shapes if isinstance(s, Text)]
    assert "1: conv1" in texts
    assert "10" in texts  # the value of core (7, 3)
    assert not any("\n" in t for t in texts)
    assert any(
        "relu1" not in t and "conv1 +1" in t
        for t in (s.text for s in compose(CORNER, "ops").shapes if isinstance(s, Text))
    )


def test_svg_is_well_formed_with_a_tip_per_core_or_one_image(tmp_path: Path) -> None:
    for drawn, name in ((SMALL, "small.svg"), (WHOLE, "whole.svg")):
        draw(drawn, "links", tmp_path / name)
    small = ElementTree.parse(tmp_path / "small.svg").getroot()
    tips = [t.text for t in small.iter("{http://www.w3.org/2000/svg}title")]
    assert len(tips) == 64 and "core (2, 1): 3 bytes" in tips and "core (7, 0): dead" in tips
    whole = ElementTree.parse(tmp_path / "whole.svg").getroot()
    images = [i.get("href", "") for i in whole.iter("{http://www.w3.org/2000/svg}image")]
    data = base64.b64decode(images[0].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(data)).size == (755, 1170)


def test_wrong_requests_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are sram, cycles, links, ops"):
        draw(SMALL, "heat", tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"\.png or \.svg, not '\.gif'"):
        draw(SMALL, "sram", tmp_path / "a.gif")
    outside = Picture("p", 2, 2, {}, (Region("r", 1, 0, 2, 1),), np.zeros((2, 2), np.bool_))
    with pytest.raises(ValueError, match="region r leaves the 2x2 grid"):
        outside.check()
    with pytest.raises(ValueError, match="unknown metrics heat"):
        Picture("p", 8, 8, {"heat": SMALL.metrics["sram"]}, (), SMALL.dead).check()


def test_a_huge_range_is_logarithmic() -> None:
    metric = Metric("m", "u", np.array([[0.0, 1.0, 1.0 + HUGE_RANGE]]))
    scale = scale_of(metric)
    assert scale.logarithmic and scale.ticks() == [1, 10, 100, 1000]
    assert scale.position(np.array([0.0, 1.0, 1.0 + HUGE_RANGE])).tolist() == [0, 0, 1]
    assert not scale_of(Metric("m", "u", np.array([[2.0, 1000.0]]))).logarithmic
    assert scale_of(Metric("m", "u", np.full((2, 2), np.nan))) == Scale(0, 1)
    assert Scale(0, 40000).ticks() == [0, 10000, 20000, 30000, 40000]


def test_a_scale_ends_at_the_budget_and_what_is_over_is_red() -> None:
    values = np.full((8, 8), 50.0)
    values[0, 0], values[0, 1], values[0, 2] = 101, 100, np.nan
    metric = Metric("SRAM in use", "bytes", values, 100.0)
    scale = scale_of(metric)
    colours = [tuple(c) for c in scale.colours(values[0, :3]).tolist()]
    assert colours == [OVER, VIRIDIS[-1], UNUSED] and (scale.low, scale.high) == (0, 100)
    drawn = Picture("p", 8, 8, {"sram": metric}, (), np.zeros((8, 8), np.bool_))
    texts = [s.text for s in compose(drawn, "sram").shapes if isinstance(s, Text)]
    assert "100 budget" in texts and "over budget (1 core); fullest 101" in texts
    assert limits(drawn)["sram"] == {"unit": "bytes", "least": 50, "most": 101, "budget": 100, "over": 1}


def test_text_is_shortened_from_the_front() -> None:
    assert shorten("/encoder/layer.0/MatMul", 12) == "....0/MatMul"
    assert text_width(fit("/encoder/layer.0/attention/MatMul", 90, 11), 11) <= 90
    assert fit("abcdefgh", 3, 11) == ""
    assert shorten("a\nb", 9) == r"a\nb"
    assert [number(44976.0), number(0.25), number(2.5e9)] == ["44,976", "0.25", "2.5e+09"]
    assert [brief(950.0), brief(44976.0), brief(1.2e6)] == ["950", "45.0k", "1.2M"]


def test_the_grid_is_one_shape_whatever_its_size() -> None:
    """900,000 cores must not become 900,000 Python objects."""
    shapes = compose(WHOLE, "sram").shapes
    assert len(shapes) < 60
    grids = [s for s in shapes if isinstance(s, Cells) and s.cell * s.pixels.shape[1] == 755]
    assert len(grids) == 1 and grids[0].pixels.shape == (1170, 755, 3)
