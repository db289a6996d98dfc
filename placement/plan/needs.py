"""How much the consumers of a move receive."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .layout import Ints
from .move import MOST_KEPT, DimensionMoves

MOST_NEEDS = 64  # of these tables, a number for each core, that are remembered: a layer's


@lru_cache(maxsize=MOST_NEEDS)
def need_elements(dims: tuple[DimensionMoves, ...]) -> Any:
    """[rows, columns] (each 1 where it does not matter): elements that each consumer receives."""
    total: Any = 0
    lengths = [_lengths(d) for d in dims]
    for t in range(len(dims[0].t) if dims else 1):
        n: Any = np.ones((1, 1))
        for d, own in zip(dims, lengths, strict=True):
            x = d.x if d.x.any() else d.x[:1]
            y = d.y if d.y.any() else d.y[:1]
            n = n * own[y[:, None] + x[None, :] + d.t[t]]
        total = total + n
    return total


def most_elements(dims: tuple[DimensionMoves, ...]) -> int:
    """The most that one consumer receives."""
    if not dims or len(dims[0].t) > 1 or any(d.x.any() and d.y.any() for d in dims):
        return int(np.max(need_elements(dims), initial=0))
    along_x: Any = 1
    along_y: Any = 1
    for d in dims:  # each dimension varies along one side: the most is where both sides have most
        own = _lengths(d)
        if d.y.any():
            along_y = along_y * own[d.y + d.t[0]]
        else:
            along_x = along_x * own[d.x + d.t[0]]
    return int(np.max(along_x, initial=0)) * int(np.max(along_y, initial=0))


def _lengths(d: DimensionMoves) -> Ints:
    """[pieces]: how many elements of the dimension each receives."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(d.length)])
    return before[d.start[1:]] - before[d.start[:-1]]


@lru_cache(maxsize=MOST_KEPT)
def different_rows(dims: tuple[DimensionMoves, ...], rows: int) -> int:
    """How many of a consumer's `rows` need something else than all the others."""
    number = np.zeros(rows, np.int64)
    for d in dims:
        if d.y.any():
            number = np.unique(number * (int(d.y.max()) + 1) + d.y, return_inverse=True)[1]
    return int(number.max(initial=0)) + 1
