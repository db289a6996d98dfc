"""What links carry: reductions merged on their way, beside a walk over every record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from plans import planned
from waferc.placement.cost.links import link_bytes
from waferc.placement.machine.wafer import LINKS, STEP
from waferc.placement.plan.move import records
from waferc.placement.plan.plan import Plan


def walked(plan: Plan) -> Mapping[str, float]:
    """Bytes by link, of joins only: each root's results once over every link that some partial result
    takes."""
    made = {s.result: s for s in plan.steps if s.kind != "update"}
    out: dict[str, float] = {}
    for step in plan.steps:
        for move in step.received:
            if move.route != "join":
                continue
            producer = made[move.source]
            to, at = (plan.regions[s.region].on(s.grid).ravel() for s in (step, producer))
            parts, size = int(move.dims[0].start[-1]), plan.buffers[move.source].dtype.bytes
            carried: dict[tuple[str, int], int] = {}
            for r in records(move, step.grid):
                for target, source, elements in zip(r.target, r.source, r.elements, strict=True):
                    x, y = int(at[source]) % plan.wafer.width, int(at[source]) // plan.wafer.width
                    dx, dy = int(to[target]) % plan.wafer.width, int(to[target]) // plan.wafer.width
                    while (x, y) != (dx, dy):
                        way = ("south" if dy > y else "north") if y != dy else "east" if dx > x else "west"
                        key = (f"{x},{y} {way}", int(target))
                        assert carried.setdefault(key, int(elements)) == elements
                        x, y = x + STEP[way][0], y + STEP[way][1]
            most = max(
                carried.values(), default=0
            )  # the model takes all roots to have as many as the fullest
            for link, _ in carried:
                out[link] = out.get(link, 0.0) + most * size
            assert parts > 1
    return out


def without_joins(plan: Plan) -> Plan:
    """The same with all joins' bytes left out."""
    steps = tuple(replace(s, moves=() if s.kind == "join" else s.moves) for s in plan.steps)
    return replace(plan, steps=steps)


@pytest.mark.parametrize(
    ("name", "wafer"), [("mlp", "16x16"), ("parts", "8x8"), ("attention", "16x16"), ("convolution", "8x8")]
)
def test_a_reduction_is_merged_on_its_way(name: str, wafer: str) -> None:
    plan = planned(name, wafer)
    alone = link_bytes(plan) - link_bytes(without_joins(plan))
    expected = np.zeros_like(alone)
    for link, nbytes in walked(plan).items():
        place, way = link.split()
        x, y = map(int, place.split(","))
        expected[LINKS.index(way), y, x] = nbytes
    assert np.array_equal(alone, expected)
