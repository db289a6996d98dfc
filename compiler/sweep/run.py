"""Runs a study: points that are known are read, the others computed, each kept as soon as it is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass

from ...runtime.cache import read_entry, write_entry
from .engines import LOST, Engine
from .point import Point, Row, evaluate, failed

MOST_LOST = 3  # workers that one point may cost
Told = Callable[[int, int], None]
"""(points done, of how many)"""


@dataclass(frozen=True)
class Done:
    """rows: of all points, in their order. computed: how many were not known. lost: workers that died."""

    rows: tuple[Row, ...]
    computed: int
    lost: int


def run(
    points: Sequence[Point],
    engine: Engine,
    told: Told = lambda done, of: None,
    work: Callable[[Point], Row] = evaluate,
) -> Done:
    """The rows of a study's points. The same for every engine, for any number of workers, and resumed."""
    known = {p.name: row for p in points if (row := _kept(p)) is not None}
    left = {p.name: p for p in points if p.name not in known}
    computed, lost = len(left), Counter[str]()
    total = len(known) + computed
    told(len(known), total)
    alone = False  # after a loss one point at a time, so that it is known whose worker is gone
    while left:
        with engine.executor() as (executor, workers):
            for p, row in _until_lost(executor, 1 if alone else workers, [*left.values()], lost, work):
                write_entry(p.name, json.dumps(row).encode())
                known[p.name] = row
                del left[p.name]
                told(len(known), total)
        for name, count in lost.items():
            if count >= MOST_LOST and name in left:
                known[name] = failed(left.pop(name), f"its worker died {count} times")
        alone = bool(lost)
    return Done(tuple(known[p.name] for p in points), computed, sum(lost.values()))


def _until_lost(
    executor: Executor, workers: int, left: Sequence[Point], lost: Counter[str], work: Callable[[Point], Row]
) -> Iterator[tuple[Point, Row]]:
    """Points with their rows as they come, until all are there or a worker is lost."""
    waiting = list(reversed(left))
    going: dict[Future[Row], Point] = {}
    while waiting or going:
        while waiting and len(going) < workers:
            p = waiting.pop()
            going[executor.submit(work, p)] = p
        finished, _ = wait(going, return_when=FIRST_COMPLETED)
        broken = False
        for future in finished:
            p = going.pop(future)
            try:
                row = future.result()
            except tuple(LOST):
                lost[p.name] += 1
                broken = True
                continue
            yield p, row
        if broken:
            return  # what else was going is done again


def _kept(point: Point) -> Row | None:
    held = read_entry(point.name)
    try:
        return None if held is None else json.loads(held)
    except ValueError:
        return None
