"""How many bytes each link carries in a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..machine.wafer import Wafer
from ..plan.layout import Ints
from ..plan.move import Move
from ..plan.plan import Plan, Step
from .fabric import Floats, Traffic, traffic_of
from .reach import NOWHERE, Ends


def link_bytes(plan: Plan, moves: Iterable[tuple[Step, Move]] | None = None) -> Floats:
    """[4, height, width]: bytes on each core's outgoing links in one call, in the order of wafer.LINKS.

    moves: some that steps receive, instead of all.
    """
    by_result = {s.result: s for s in plan.steps if s.kind != "update"}
    links = np.zeros((4, plan.wafer.height, plan.wafer.width))
    for step, m in moves if moves is not None else ((s, m) for s in plan.steps for m in s.received):
        if m.route != "local":
            _add(plan.wafer, links, traffic_of(plan, step, by_result[m.source], m))
    return links


def over_link(plan: Plan, x: int, y: int, direction: int) -> Iterator[tuple[Step, Move, float]]:
    """The moves that use the outgoing link of core (x, y), by its number in wafer.LINKS; the step that
    receives each, and its bytes on the link. They sum up to what `link_bytes` has there."""
    by_result = {s.result: s for s in plan.steps if s.kind != "update"}
    for step in plan.steps:
        for m in step.received:
            if m.route != "local":
                t = traffic_of(plan, step, by_result[m.source], m)
                if nbytes := _at(plan.wafer, t, x, y, direction):
                    yield step, m, nbytes


def _at(wafer: Wafer, move: Traffic, x: int, y: int, direction: int) -> float:
    """Bytes of a move on one link, as `_add` adds them."""
    nbytes = move.sent * wafer.wavelet_bytes
    if direction < 2:
        sends = np.bincount(move.y.at[move.y.source], minlength=wafer.height)[y] > 0
        return float(nbytes * _coverage(move.x, wafer.width)[direction][x]) if sends else 0.0
    count = np.bincount(move.x.to[move.x.target], minlength=wafer.width)[x]
    into = _coverage(move.y, wafer.height)[direction - 2][y] * count * nbytes
    return float(min(into, move.through * wafer.wavelet_bytes))


def _add(wafer: Wafer, links: Floats, move: Traffic) -> None:
    """Adds a move's bytes to [4, height, width]: along producers' rows, then down targets' columns."""
    nbytes = move.sent * wafer.wavelet_bytes
    sending = np.flatnonzero(np.bincount(move.y.at[move.y.source]))
    for number, covered in enumerate(_coverage(move.x, wafer.width)):
        if covered.any():
            lo, hi = np.flatnonzero(covered)[[0, -1]]
            links[number, :, lo : hi + 1][_evenly(sending)] += nbytes * covered[lo : hi + 1]
    count = np.bincount(move.x.to[move.x.target])
    columns = np.flatnonzero(count)
    through = move.through * wafer.wavelet_bytes
    for number, covered in enumerate(_coverage(move.y, wafer.height), 2):
        if covered.any():
            lo, hi = np.flatnonzero(covered)[[0, -1]]
            into = covered[lo : hi + 1, None] * count[columns] * nbytes
            links[number, lo : hi + 1][:, _evenly(columns)] += np.minimum(into, through)


def _evenly(numbers: Ints) -> Any:
    """Rising numbers as a slice where they are evenly spaced: what it selects is no copy."""
    pitch = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
    even = len(numbers) > 0 and (np.diff(numbers) == pitch).all()
    return slice(int(numbers[0]), int(numbers[-1]) + 1, pitch) if even else numbers


def _coverage(e: Ends, size: int) -> tuple[Floats, Floats]:
    """How many producers' spans cover each outgoing link, upward and downward in the coordinate."""
    lo, hi = e.spans()
    used = hi < NOWHERE
    at, lo, hi = e.at[used], lo[used], hi[used]
    up, down = np.zeros(size + 1), np.zeros(size + 1)
    np.add.at(up, at, 1.0)
    np.subtract.at(up, hi, 1.0)
    np.add.at(down, lo + 1, 1.0)
    np.subtract.at(down, at + 1, 1.0)
    return np.cumsum(up)[:size], np.cumsum(down)[:size]
