"""How many bytes each link carries in a call: of a reduction merged ones, of all else each copy."""

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
    links = np.zeros((4, plan.wafer.height, plan.wafer.width))
    for _, m, traffic in _over_links(plan, moves):
        if m.route == "join":
            _add_join(links, traffic, merged_bytes(plan, m, traffic))
        else:
            _add(plan.wafer, links, traffic)
    return links


def over_link(plan: Plan, x: int, y: int, direction: int) -> Iterator[tuple[Step, Move, float]]:
    """The moves that use the outgoing link of core (x, y), by its number in wafer.LINKS; the step that
    receives each, and its bytes on the link. They sum up to what `link_bytes` has there."""
    for step, m, t in _over_links(plan):
        if m.route == "join":
            nbytes = _join_at(plan.wafer, t, (x, y, direction)) * merged_bytes(plan, m, t)
        else:
            nbytes = _at(plan.wafer, t, x, y, direction)
        if nbytes:
            yield step, m, nbytes


def _over_links(
    plan: Plan, moves: Iterable[tuple[Step, Move]] | None = None
) -> Iterator[tuple[Step, Move, Traffic]]:
    """The moves that leave a core, of those that steps receive, with their traffic. moves: by default all."""
    by_result = {s.result: s for s in plan.steps if s.kind != "update"}
    for step, m in moves if moves is not None else ((s, m) for s in plan.steps for m in s.received):
        if m.route != "local":
            yield step, m, traffic_of(plan, step, by_result[m.source], m)


def _at(wafer: Wafer, move: Traffic, x: int, y: int, direction: int) -> float:
    """Bytes of a move on one link, as `_add` adds them."""
    nbytes = move.sent * wafer.wavelet_bytes
    if direction < 2:
        sends = np.bincount(move.y.at[move.y.source], minlength=wafer.height)[y] > 0
        return float(nbytes * _coverage(move.x, wafer.width)[direction][x]) if sends else 0.0
    count = np.bincount(move.x.to[move.x.target], minlength=wafer.width)[x]
    into = _coverage(move.y, wafer.height)[direction - 2][y] * count * nbytes
    return float(min(into, move.through * wafer.wavelet_bytes))


def _join_at(wafer: Wafer, move: Traffic, link: tuple[int, int, int]) -> float:
    """Roots whose results a reduction carries over one link, as `_add_join` adds them."""
    x, y, direction = link
    if direction < 2:
        roots = np.bincount(move.y.target, minlength=len(move.y.to)) > 0
        return float(_reach(move.x, wafer.width)[direction][x] * (move.y.to[roots] == y).any())
    heard = np.bincount(move.x.source, minlength=len(move.x.at))
    return float(_reach(move.y, wafer.height)[direction - 2][y] * heard[move.x.at == x].sum())


def merged_bytes(plan: Plan, move: Move, traffic: Traffic) -> float:
    """What a link of a reduction carries for one root: its results, once for all partial ones behind it."""
    parts = max(1, int(move.dims[0].start[-1]))
    return float(np.max(traffic.inbound, initial=0)) / parts * plan.wafer.wavelet_bytes


def _add_join(links: Floats, move: Traffic, nbytes: float) -> None:
    """Adds a fabric reduction: down each column to the roots' rows, then along these, merged on the way.

    So partial results add up at each router and a link carries a root's results once, however many cores
    lie behind it. A root hears its own line, or over both sides a whole block: lines first, then their roots.
    """
    heard = np.bincount(move.x.source, minlength=len(move.x.at))  # roots that each column has a part of
    _along(links[2:], _reach(move.y, links.shape[1]), move.x.at, heard * nbytes)
    roots = np.bincount(move.y.target, minlength=len(move.y.to)) > 0
    _along(links[:2].transpose(0, 2, 1), _reach(move.x, links.shape[2]), move.y.to[roots], nbytes)


def _along(links: Floats, covered: tuple[Floats, Floats], across: Ints, nbytes: Any) -> None:
    """Adds to links, [2, places, lines], on lines `across`: a root's bytes for each that a link leads to."""
    for own, count in zip(links, covered, strict=True):
        if count.any():
            lo, hi = np.flatnonzero(count)[[0, -1]]
            own[lo : hi + 1][:, across] += count[lo : hi + 1, None] * nbytes


def _reach(e: Ends, size: int) -> tuple[Floats, Floats]:
    """How many roots each outgoing link leads to, upward and downward in the coordinate."""
    up, down = np.zeros(size + 1), np.zeros(size + 1)
    if len(e.target):
        first = np.flatnonzero(np.diff(e.target, prepend=-1))
        at, to = e.at[e.source], e.to[e.target[first]]
        lo = np.minimum(np.minimum.reduceat(at, first), to)
        hi = np.maximum(np.maximum.reduceat(at, first), to)
        np.add.at(up, lo, 1.0)
        np.subtract.at(up, to, 1.0)
        np.add.at(down, to + 1, 1.0)
        np.subtract.at(down, hi + 1, 1.0)
    return np.cumsum(up)[:size], np.cumsum(down)[:size]


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
