"""The streams of a move: from each producer along its row, then along the columns, copied on the way.

A tree's routers copy all that its source sends to everyone. On the shared lanes a task takes a stream off at
each stop and sends it on: into a column only what is needed there, off the ramp only what the core needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...placement.machine.wafer import LINKS, Wafer
from ...placement.plan.layout import Ints
from ...placement.plan.move import Move, records
from ...placement.plan.plan import Plan, Step
from .lines import NO_EXPRESS, Ways, upward
from .words import DIRECTIONS, RAMP_IN, RAMP_OUT, Drafts, ticks

EAST, WEST, SOUTH, NORTH = (LINKS.index(d) for d in ("east", "west", "south", "north"))


@dataclass(frozen=True)
class Ends:
    """Where streams begin and end: [streams] their producers (grid numbers) and first nodes, [targets] the
    consumers and the nodes behind which they have all of a stream."""

    producer: Ints
    first: Ints
    consumer: Ints
    last: Ints


@dataclass(frozen=True)
class Needs:
    """Who needs how much of whom, [pairs]: grid numbers, places, wavelets; column: of all in the target's
    column.

    stream: number of the source among those that send; sources: [streams] their grid numbers.
    """

    stream: Ints
    sources: Ints
    consumer: Ints
    dx: Ints
    dy: Ints
    wavelets: Ints
    column: Ints


def needs_of(plan: Plan, step: Step, producer: Step, move: Move) -> tuple[Needs, Ints]:
    """What goes from core to core, and the consumers (grid numbers) that hear themselves without the
    fabric."""
    w, target = plan.wafer, plan.regions[step.region].on(step.grid).ravel().astype(np.int64)
    source = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)
    buffer = plan.buffers[move.source]
    found = list(records(move, step.grid, boxes=True))
    none = np.zeros(0, np.int64)
    t, s, n, box = (
        np.concatenate([none, *(getattr(r, f) for r in found)])
        for f in ("target", "source", "elements", "box")
    )
    own = np.unique(t[source[s] == target[t]])
    away = source[s] != target[t]
    t, s, n, box = t[away], s[away], n[away], box[away]
    sources, stream = np.unique(s, return_inverse=True)
    pair, of = np.unique(stream * len(target) + t, return_inverse=True)
    amount = np.zeros(len(pair), np.int64)
    np.add.at(amount, of, n)
    stream, consumer = np.divmod(pair, max(1, len(target)))
    dx, dy = target[consumer] % w.width, target[consumer] // w.width
    # What a column needs of a source: each box once, however many of its rows read it.
    x = target[t] % w.width
    boxes = np.unique(np.stack([s, x, box, n]), axis=1) if len(s) else np.zeros((4, 0), np.int64)
    line, at = np.unique(boxes[0] * w.width + boxes[1], return_inverse=True)
    total = np.zeros(len(line), np.int64)
    np.add.at(total, at, boxes[3])
    column = total[np.searchsorted(line, sources[stream] * w.width + dx)]
    held = buffer.elements
    column = np.minimum(column, held)
    carried = (w.wavelets(a * buffer.dtype.bytes) for a in (np.minimum(amount, column), column))
    return Needs(stream, sources, consumer, dx, dy, *carried), own


def multicast(drafts: Drafts, plan: Plan, step: Step, producer: Step, move: Move) -> tuple[Ends, Ints]:
    """Adds a tree's or a relayed move's streams. Also the consumers that hear themselves."""
    w = plan.wafer
    needs, own = needs_of(plan, step, producer, move)
    tree = move.route == "tree"
    buffer = plan.buffers[move.source]
    sent = int(w.wavelets(buffer.elements * buffer.dtype.bytes))
    if tree:
        needs = replace(needs, wavelets=needs.wavelets * 0 + sent, column=needs.column * 0 + sent)
    core = plan.regions[producer.region].on(producer.grid).ravel().astype(np.int64)[needs.sources]
    colour = _colours(move, producer)[needs.sources] if tree else np.full(len(core), -1)
    draw = _Drawing(drafts, w, step.position, tree)
    first = draw.ramp(RAMP_OUT, core, w.send, sent, colour)
    # A trunk along each source's row, to every column that hears it.
    line, of = np.unique(needs.stream * w.width + needs.dx, return_inverse=True)
    stream, bx = np.divmod(line, w.width)
    column = np.zeros(len(line), np.int64)
    column[of] = needs.column
    row = core // w.width
    start = core % w.width
    branches = np.zeros(len(line), np.bool_)
    np.logical_or.at(branches, of, needs.dy != row[needs.stream])
    trunk = _Lines(start, row, first, np.full(len(core), sent), colour, np.zeros(len(core), np.int64))
    at, onward = draw.along(trunk, (stream, bx, branches), (WEST, EAST))
    here = bx == start[stream]
    at, onward = np.where(here, first[stream], at), np.where(here, first[stream], onward)
    # A branch in each column, to every row.
    turns = ticks(w.turn) * ~here
    branch = _Lines(row[stream], bx, onward, column, colour[stream], turns)
    level = needs.dy == row[needs.stream]
    ends = (of, needs.dy, np.zeros(len(of), np.bool_))
    behind = np.where(level, at[of], draw.along(branch, ends, (NORTH, SOUTH))[0])
    done = w.done + (w.multicast if tree else 0.0)
    last = draw.ramp(RAMP_IN, needs.dy * w.width + needs.dx, done, needs.wavelets, colour[needs.stream])
    drafts.edge(behind, last)
    return Ends(needs.sources, first, needs.consumer, last), own


def _colours(move: Move, producer: Step) -> Ints:
    """[cores] of the producer: its tree's colour."""
    assert move.colour_x is not None and move.colour_y is not None
    return np.add.outer(np.asarray(move.colour_y), np.asarray(move.colour_x)).ravel()


@dataclass(frozen=True)
class _Lines:
    """[lines] to draw: the coordinate they start from, the one that stays, the node before, wavelets, colour
    (-1: not looked at), and ticks that the first link takes more."""

    start: Ints
    across: Ints
    first: Ints
    count: Ints
    colour: Ints
    turns: Ints


@dataclass(frozen=True)
class _Drawing:
    """Adds nodes of one move."""

    drafts: Drafts
    wafer: Wafer
    step: int
    tree: bool

    def _place(self, core: Ints, colour: Any) -> Any:
        """router * colours + colour, -1 where it has none to be looked at."""
        return np.where(np.asarray(colour) >= 0, core * self.wafer.colours + colour, -1)

    def ramp(self, kind: int, core: Ints, latency: float, count: Any, colour: Ints) -> Ints:
        """A ramp at each core. Only what leaves by one enters a router."""
        place = self._place(core, colour) if kind == RAMP_OUT else -1
        number = kind * self.wafer.cores + core
        return self.drafts.add(number, ticks(self.wafer.wavelet), ticks(latency), count, self.step, place)

    def along(
        self, lines: _Lines, targets: tuple[Ints, Ints, Any], ways: tuple[int, int]
    ) -> tuple[Ints, Ints]:
        """Links from each line's origin to its targets (line, coordinate, whether more goes on from there).

        For each target the node behind which it is, and the one behind which others go on from there.
        """
        line, at, goes_on = targets
        out = np.full((2, len(line)), -1, np.int64)
        for direction, sign in zip(ways, (-1, 1), strict=True):
            chosen = np.flatnonzero(np.sign(at - lines.start[line]) == sign)
            if len(chosen):
                express = NO_EXPRESS if self.tree else self.wafer.express
                found = upward(sign * lines.start, line[chosen], sign * at[chosen], express, not self.tree)
                node, after = self._links(found, sign * found.leaves, lines, direction, goes_on[chosen])
                out[:, chosen] = node[found.arrival], after[found.arrival]
        return out[0], out[1]

    def _links(self, found: Ways, leaves: Ints, lines: _Lines, way: int, goes_on: Any) -> tuple[Ints, Ints]:
        """The nodes of links, and of what is behind each: a task's relay, or the link itself."""
        w, drafts, line = self.wafer, self.drafts, found.line
        across = lines.across[line]
        core = across * w.width + leaves if way in (EAST, WEST) else leaves * w.width + across
        entered = core + {EAST: 1, WEST: -1, SOUTH: w.width, NORTH: -w.width}[way]
        begins = found.before < 0
        latency = ticks(w.hop) + np.where(begins, lines.turns[line], 0)
        place, count = self._place(entered, lines.colour[line]), lines.count[line]
        node = drafts.add(way * w.cores + core, ticks(w.wavelet), latency, count, self.step, place)
        # A task at a stop sends on what it hears, by its core's ramp.
        passed = np.zeros(len(node), np.bool_)
        passed[found.before[~begins]] = True
        passed[found.arrival[goes_on]] = True
        stops = np.flatnonzero(found.stop & passed)
        ramp = RAMP_OUT * w.cores + entered[stops]
        after = node.copy()
        after[stops] = drafts.add(ramp, ticks(w.wavelet), ticks(w.relay), count[stops], self.step)
        drafts.edge(node[stops], after[stops])
        drafts.edge(np.where(begins, lines.first[line], after[found.before]), node)
        return node, after


assert len(LINKS) == DIRECTIONS
