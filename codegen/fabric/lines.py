"""Ways along one line: from an origin to all that hear it, straight, or from stop to stop on the shared
lanes.

Lanes go one hop or `express` hops; those begin at every core whose coordinate is a multiple of `express`. A
stream takes them between such stations and goes on from each by single hops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...placement.plan.layout import Ints

NO_EXPRESS = 1 << 40
BIG = 1 << 20  # more than any coordinate


@dataclass(frozen=True)
class Ways:
    """Links of ways in one direction, [links]: of which line, the coordinate that each leaves, what is
    before.

    before: number of the link before, -1 where that is the line's origin. stop: whether a task takes the
    bytes off behind it. arrival: [targets], the link behind which each is.
    """

    line: Ints
    leaves: Ints
    before: Ints
    stop: Any
    arrival: Ints


def spread(length: Ints) -> tuple[Ints, Ints]:
    """For runs of these lengths: the run's number and the place in it, of every element."""
    run = np.repeat(np.arange(len(length), dtype=np.int64), length)
    return run, np.arange(len(run)) - np.repeat(np.cumsum(length) - length, length)


def upward(origin: Ints, line: Ints, at: Ints, express: int, stops: bool) -> Ways:
    """From `origin[line]` up to each target `at` of a line, all beyond their origin."""
    start = origin[line]
    station = at // express * express
    base = np.maximum(station, start)
    far = np.where((station > start) & (at == station), base, at)
    first = -(-origin // express) * express  # the first station of each line
    last = np.full(len(origin), -BIG)
    np.maximum.at(last, line, np.where(station > start, station, -BIG))
    goes = (last >= first) & (first > origin)
    lines = np.concatenate([line, np.flatnonzero(goes)])
    chain = lines * 2 * BIG + np.concatenate([base, origin[goes]]) + BIG
    key, of = np.unique(chain, return_inverse=True)
    end = np.full(len(key), -BIG)
    np.maximum.at(end, of, np.concatenate([far, first[goes]]))
    single_line, single_base = key // (2 * BIG), key % (2 * BIG) - BIG
    run, place = spread(np.maximum(end - single_base, 0))
    hops_line, hops_at = single_line[run], single_base[run] + place
    count = np.maximum((last - first) // express, 0)
    of_line, number = spread(count)
    flight, step = spread(np.full(len(of_line), express if len(of_line) else 0))
    fly_line, fly_base = of_line[flight], (first[of_line] + number * express)[flight]
    all_line = np.concatenate([hops_line, fly_line])
    leaves = np.concatenate([hops_at, fly_base + step])
    stop = np.concatenate([np.ones(len(run), np.bool_), step == express - 1]) & stops
    # Behind a link that ends a hop or a flight lies a place that others go on from.
    ends = np.concatenate([np.ones(len(run), np.bool_), step == express - 1])
    entered = (all_line * 2 * BIG + leaves + 1 + BIG)[ends]
    which = np.flatnonzero(ends)
    order = np.argsort(entered)

    def behind(of: Ints, where: Ints) -> Ints:
        """The link that enters a place of a line; -1 at its origin."""
        wanted = of * 2 * BIG + where + BIG
        i = np.minimum(np.searchsorted(entered[order], wanted), max(0, len(order) - 1))
        if not len(order):
            return np.full(len(wanted), -1, np.int64)
        found = which[order[i]]
        return np.where(entered[order[i]] == wanted, found, -1)

    inside = np.concatenate([place > 0, step > 0])
    before = np.where(inside, np.arange(len(leaves)) - 1, behind(all_line, leaves))
    return Ways(all_line, leaves, before.astype(np.int64), stop, behind(line, at))
