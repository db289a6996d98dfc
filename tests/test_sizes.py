"""Sizes of regions: the order in which they are tried."""

from __future__ import annotations

import pytest
from waferc.placement.search.region_sizes import climb
from waferc.placement.splits.policy import POLICY


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("best", range(6))
def test_sizes_are_climbed_to_the_best_near_the_likely_side(best: int, few: bool) -> None:
    """On a curve with one valley: found from any start where all sizes may be tried, else if it is near."""
    sizes = [(4 << i, 4 << i) for i in range(6)]
    for start in range(6):
        asked: list[tuple[int, int]] = []

        def cycles(size: tuple[int, int], asked: list[tuple[int, int]] = asked) -> float:
            asked.append(size)
            return 100.0 + 50 * abs(sizes.index(size) - best)

        climb(sizes, float(sizes[start][0]), few, cycles, POLICY)
        assert len(set(asked)) == len(asked)
        assert (sizes[best] in asked) if few else (asked == [sizes[start]])


def test_sizes_where_nothing_fits_are_all_asked_for() -> None:
    sizes = [(8, 8), (16, 16), (32, 32)]
    asked: list[tuple[int, int]] = []

    def cycles(size: tuple[int, int]) -> float:
        asked.append(size)
        return 7.0 if size == (8, 8) else float("inf")

    climb(sizes, 16.0, False, cycles, POLICY)
    assert asked == [(16, 16), (32, 32), (8, 8)]
