"""The streams of a reduction: partial results of a line go to their root, added up on the way.

As `Wafer.join` has it: neighbours in groups to the middle of each, then from middle to middle to the root;
over both sides of the grid first down the columns, then along the root's row. A core adds each wavelet to its
own when it has all that it hears, as often as it hears one; the sum goes on wavelet by wavelet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...placement.machine.wafer import GROUPS, Wafer
from ...placement.plan.layout import Ints
from ...placement.plan.move import Move
from ...placement.plan.plan import Plan, Step
from .lines import NO_EXPRESS, upward
from .multicast import EAST, NORTH, SOUTH, WEST, Ends, needs_of
from .words import ADDER, RAMP_IN, RAMP_OUT, Drafts, ticks


def reduction(drafts: Drafts, plan: Plan, step: Step, producer: Step, move: Move) -> Ends:
    """Adds a join's streams, one to each root. `first` are the cores that add; `last` those of the roots."""
    w = plan.wafer
    to = plan.regions[step.region].on(step.grid).ravel().astype(np.int64)
    at = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)
    needs, own = needs_of(plan, step, producer, move)
    root = np.concatenate([needs.consumer, own])
    part = np.concatenate([needs.sources[needs.stream], np.searchsorted(at, to[own])])
    amount = np.zeros(len(to), np.int64)
    np.maximum.at(amount, needs.consumer, needs.wavelets)
    place = at[part]
    x, y, rx, ry = place % w.width, place // w.width, to[root] % w.width, to[root] // w.width
    down = _parents(w, root * w.width + x, y, ry)
    heads = np.flatnonzero(y == ry)
    along = np.full(len(part), -1, np.int64)
    row = _parents(w, root[heads], x[heads], rx[heads])
    along[heads] = np.where(row >= 0, heads[row], -1)
    parent = np.where(down >= 0, down, along)
    heard = np.bincount(parent[parent >= 0], minlength=len(part))
    service = ticks(np.maximum(w.wavelet, w.add * heard))
    # A root has its sum behind the ramp; others hand theirs on. All set up at once: who hears nobody begins.
    where: Any = np.where
    latency = where(parent < 0, ticks(w.send + w.done), ticks(w.stage))
    latency = latency + where(heard == 0, ticks(w.vector["fma_f32"][0] + w.loop), 0)
    adder = drafts.add(ADDER * w.cores + place, service, latency, amount[root], step.position)
    sent = amount[root]
    for chosen, axis, across, ways in (
        (down >= 0, y, x, (NORTH, SOUTH)),
        ((down < 0) & (along >= 0), x, y, (WEST, EAST)),
    ):
        for way, sign in zip(ways, (-1, 1), strict=True):
            child = np.flatnonzero(chosen)
            child = child[np.sign(axis[parent[child]] - axis[child]) == sign]
            if len(child):
                hop = _Hop(drafts, w, step.position, way, sign)
                ends = adder[child], adder[parent[child]]
                hop.add(axis[child], across[child], axis[parent[child]], ends, sent[child])
    roots = np.flatnonzero(parent < 0)
    return Ends(part, adder, root[roots], adder[roots])


def _parents(wafer: Wafer, line: Ints, at: Ints, root: Ints) -> Ints:
    """[parts]: whom each hands its sum to; -1 for the one at its line's root. line: any number of it."""
    order = np.lexsort((at, line))
    _, of = np.unique(line[order], return_inverse=True)
    count = np.bincount(of)
    start = np.cumsum(count) - count
    i = np.arange(len(order)) - start[of]
    is_root = at[order] == root[order]
    middle = np.zeros(len(count), np.int64)
    middle[of[is_root]] = i[is_root]
    pitch = int(np.diff(at[order])[of[1:] == of[:-1]].min(initial=1 << 20)) if len(order) > 1 else 1
    group = _group(wafer, int(count.max(initial=1)), pitch)
    own, home = i // group, (middle // group)[of]

    def centre(number: Ints) -> Ints:
        usual = np.minimum(number * group + group // 2, count[of] - 1)
        return np.where(number == home, middle[of], usual)

    c = centre(own)
    to = np.where(i < c, i + 1, np.where(i > c, i - 1, centre(own + np.sign(home - own))))
    out = np.full(len(order), -1, np.int64)
    out[order] = np.where(is_root, -1, order[np.minimum(start[of] + to, len(order) - 1)])
    return out


def _group(wafer: Wafer, parts: int, pitch: int) -> int:
    """The size of groups that takes least, as `Wafer.join` takes it."""

    def cycles(group: int) -> float:
        near, far = -(-(min(group, parts) - 1) // 2), -(-(-(-parts // group) - 1) // 2)
        return near * (wafer.hop * pitch + wafer.stage) + far * (group * pitch * wafer.hop + wafer.stage)

    return min((*GROUPS, parts), key=cycles)


@dataclass(frozen=True)
class _Hop:
    """Adds straight ways from one adder to the next, all in one direction."""

    drafts: Drafts
    wafer: Wafer
    step: int
    way: int
    sign: int

    def add(self, start: Ints, across: Ints, end: Ints, adders: tuple[Ints, Ints], count: Any) -> None:
        w, drafts = self.wafer, self.drafts
        number = np.arange(len(start), dtype=np.int64)
        each = ticks(w.wavelet)

        def core(at: Ints, other: Ints) -> Ints:
            return other * w.width + at if self.way in (EAST, WEST) else at * w.width + other

        up = drafts.add(RAMP_OUT * w.cores + core(start, across), each, 0, count, self.step)
        drafts.edge(adders[0], up)
        found = upward(self.sign * start, number, self.sign * end, NO_EXPRESS, False)
        link = self.way * w.cores + core(self.sign * found.leaves, across[found.line])
        node = drafts.add(link, each, ticks(w.hop), count[found.line], self.step)
        drafts.edge(np.where(found.before < 0, up[found.line], node[found.before]), node)
        into = drafts.add(RAMP_IN * w.cores + core(end, across), each, 0, count, self.step)
        drafts.edge(node[found.arrival], into)
        drafts.edge(into, adders[1])
