"""What a picture of the wafer is held to."""

from __future__ import annotations

import numpy as np
import pytest
from waferc.compiler.show.metrics import Metric
from waferc.compiler.show.picture import METRICS, Picture, Region

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


def test_a_picture_that_contradicts_itself_is_told() -> None:
    outside = Picture("p", 2, 2, {}, (Region("r", 1, 0, 2, 1),), np.zeros((2, 2), np.bool_))
    with pytest.raises(ValueError, match="region r leaves the 2x2 grid"):
        outside.check()
    with pytest.raises(ValueError, match="unknown metrics heat"):
        Picture("p", 8, 8, {"heat": SMALL.metrics["sram"]}, (), SMALL.dead).check()
