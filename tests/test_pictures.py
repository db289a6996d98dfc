"""Reports of synthetic pictures, on a small grid and on a whole wafer."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from waferc.compiler.show.metrics import Metric
from waferc.compiler.show.picture import METRICS, Picture, Region
from waferc.compiler.show.report import html, write_report

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


class Page(HTMLParser):
    """Collects the scripts' contents and every address that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.loads: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag == "script":
            self.inside = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


def test_report_holds_the_values_and_loads_nothing(tmp_path: Path) -> None:
    write_report(CORNER, tmp_path / "report.html")
    page = Page()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.loads == [] and len(page.scripts) == 2
    data = json.loads(page.scripts[0])
    assert data["box"] == [5, 7, 20, 10] and data["summary"] == [["cycles", "1,234"]]
    raw = zlib.decompress(base64.b64decode(data["metrics"][0]["values"]))
    values = np.frombuffer(raw, "<f4").reshape(10, 20)
    assert np.array_equal(values, CORNER.metrics["sram"].values[7:17, 5:25].astype(np.float32))
    dead = np.frombuffer(zlib.decompress(base64.b64decode(data["dead"])), "<u4")
    assert dead.tolist() == [1169 * 755 + 754]
    assert data["operations"] == [["r0", "r0", 4, "conv1, relu1"]]


def test_a_hostile_name_stays_a_name() -> None:
    page = Page()
    page.feed(html(SMALL))
    assert len(page.scripts) == 2
    region = json.loads(page.scripts[0])["regions"][1]
    assert region["nodes"] == [HOSTILE.replace("\n", r"\n")]
    titled = Picture(HOSTILE, 8, 8, SMALL.metrics, SMALL.regions, SMALL.dead)
    again = Page()
    again.feed(html(titled))
    assert len(again.scripts) == 2
    assert not re.search(r"<script>alert", html(titled))


def test_a_picture_that_contradicts_itself_is_told() -> None:
    outside = Picture("p", 2, 2, {}, (Region("r", 1, 0, 2, 1),), np.zeros((2, 2), np.bool_))
    with pytest.raises(ValueError, match="region r leaves the 2x2 grid"):
        outside.check()
    with pytest.raises(ValueError, match="unknown metrics heat"):
        Picture("p", 8, 8, {"heat": SMALL.metrics["sram"]}, (), SMALL.dead).check()
