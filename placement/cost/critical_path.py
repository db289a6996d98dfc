"""The critical path: which steps a call's cycles go to, walked back from the task that ends last.

Each leg of it is one step on one core: cycles on the fabric until its last operand was there, cycles that
the core was still busy with other work, and cycles that it computed. Their sum is the call's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..machine.wafer import Wafer
from ..plan.move import Move
from ..plan.plan import Plan, Step
from .fabric import Floats, traffic_of
from .reach import Ends
from .timing import Timing, came

Place = tuple[int, int]  # row and column of a step's grid


@dataclass(frozen=True)
class Leg:
    """A step of the path on core (x, y), which ends at `end`; all in cycles.

    after: the step whose bytes it waited for last, -1 for none.
    """

    step: int
    after: int
    core: tuple[int, int]
    end: float
    fabric: float
    waiting: float
    compute: float


def critical_path(plan: Plan, timing: Timing) -> list[Leg]:
    """The legs, first to last."""
    if not plan.steps:
        return []
    sources = writers(plan)
    number = int(np.argmax([e.max(initial=0.0) for e in timing.end]))
    at = _latest(timing.end[number])
    legs: list[Leg] = []
    while True:
        leg, before = _leg(plan, timing, number, at, sources[number])
        legs.append(leg)
        if before is None:
            return legs[::-1]
        number, at = before


def last_legs(plan: Plan, timing: Timing) -> list[Leg]:
    """By step: what the task took that ended last, on whichever core that was."""
    return [
        _leg(plan, timing, number, _latest(end), made)[0]
        for number, (end, made) in enumerate(zip(timing.end, writers(plan), strict=True))
    ]


def _leg(
    plan: Plan, timing: Timing, number: int, at: Place, made: dict[int, int]
) -> tuple[Leg, tuple[int, Place] | None]:
    """The leg of a step's task at `at`; also the step and place of the task that it heard last, or None."""
    begin, end = float(timing.start[number][at]), float(timing.end[number][at])
    cause = max(_causes(plan, timing, number, at, made), default=None)
    arrived, ready = cause[:2] if cause else (0.0, 0.0)
    step = plan.steps[number]
    y, x = divmod(int(plan.regions[step.region].on(step.grid)[at]), plan.wafer.width)
    leg = Leg(number, cause[2] if cause else -1, (x, y), end, arrived - ready, begin - arrived, end - begin)
    return leg, cause[2:] if cause else None


def writers(plan: Plan) -> list[dict[int, int]]:
    """By step: the position of the step that has written each buffer that it reads; constants have none."""
    made: dict[int, int] = {}
    out: list[dict[int, int]] = []
    for i, step in enumerate(plan.steps):
        out.append({b: made[b] for b, _ in reads(step) if b in made})
        made[step.result] = i
    return out


def reads(step: Step) -> Iterator[tuple[int, Move | None]]:
    """The buffers that the step's operands come from, and how: in place is no move."""
    for o in step.operands:
        yield from ((m.source, m) for m in o.moves)
        if not o.received:
            yield o.buffer, None
    yield from ((m.source, m) for m in step.moves)


def _causes(
    plan: Plan, timing: Timing, number: int, at: Place, made: dict[int, int]
) -> Iterator[tuple[float, float, int, Place]]:
    """(arrival, when its producer was done, producer, the producer's place) of each run-time operand."""
    step = plan.steps[number]
    for buffer, move in reads(step):
        if buffer not in made:
            continue  # a constant
        source = made[buffer]
        producer, ends = plan.steps[source], timing.end[source]
        place = origin(plan, step, producer, move, ends, at)
        if place is not None:
            arrived = ends if move is None else came(plan, step, producer, move, ends)
            yield float(arrived[place if move is None else at]), float(ends[place]), source, place


def origin(
    plan: Plan, step: Step, producer: Step, move: Move | None, ends: Floats, at: Place
) -> Place | None:
    """The core of the producer that the consumer at `at` hears last, or shares; None where none is heard.

    ends: of the producer. move: None for an operand in place.
    """
    if move is not None:
        return _last(plan, step, producer, move, ends, at)
    rows, columns = step.grid.within(producer.grid)
    return int(rows[at[0]]), int(columns[at[1]])


def _last(plan: Plan, step: Step, producer: Step, move: Move, ends: Floats, at: Place) -> Place | None:
    """The core of the producer whose bytes come last to the consumer at `at`; None where none come."""
    t = traffic_of(plan, step, producer, move)
    still = move.route == "join"
    rows, down = _ways(plan.wafer, t.y, at[0], still)
    columns, along = _ways(plan.wafer, t.x, at[1], still)
    if not len(rows) or not len(columns):
        return None
    row, column = _latest(ends[np.ix_(rows, columns)] + down[:, None] + along)
    return int(rows[row]), int(columns[column])


def _ways(wafer: Wafer, e: Ends, target: int, still: bool) -> tuple[Any, Any]:
    """(producer columns or rows that number `target` hears, cycles from each)."""
    pair = e.target == target
    hops = e.distance[pair]
    return e.source[pair], np.zeros(len(hops)) if still else wafer.hop * hops


def _latest(times: Floats) -> Place:
    row, column = np.unravel_index(int(np.argmax(times)), times.shape)
    return int(row), int(column)
