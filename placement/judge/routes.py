"""Judging routes: live links, whole paths, and colours that mean one thing at each router."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..plan.plan import Plan
from .lanes import HOST_COLOURS, JOIN_COLOURS, LANE_COLOURS, Kept, judge_kept, place
from .links import Links, judge_paths
from .pairs import Pairs, pairs_of
from .trees import Colours, Visits, visits
from .verdict import IllegalPlan, Index, core_name, step_name


def judge_routes(plan: Plan, index: Index) -> None:
    """Raises IllegalPlan unless every record has a whole path over live links, and colours agree."""
    links = Links(plan.wafer)
    colours = Colours(plan)
    kept: dict[Any, dict[Any, Kept]] = {}  # moves on lanes and reductions, by what is alike, then by place
    for s in plan.steps:
        trees: list[Visits] = []
        for m in s.received:
            producer = index.owner[m.source]
            where = f"{step_name(s)}: {m.route} from {step_name(producer)}"
            if m.route not in ("local", "tree", "relay", "join"):
                raise IllegalPlan(f"{where}: no route between cores")
            if m.route == "join" and m.combine is None:
                raise IllegalPlan(f"{where}: joins nothing")
            if m.route in ("relay", "join"):
                k = Kept(where, s, producer, m)
                alike = m.route, m.dims, m.detours, s.grid, producer.grid, place(plan, k)
                kept.setdefault(alike, {}).setdefault((s.region, producer.region), k)
                if not (links.any or m.detours):
                    continue
            pairs = pairs_of(plan, s, producer, m)
            if m.route == "local":
                _judge_local(plan, where, pairs)
            elif m.route == "tree":
                trees.append(visits(plan, where, producer, m, pairs))
            else:
                judge_paths(plan, where, m, pairs, links)
        if trees:
            colours.take(s, trees, links)
    _judge_count(plan, [k for alike in kept.values() for k in alike.values()])
    for alike in kept.values():
        judge_kept(plan, list(alike.values()), colours.meaning)


def _judge_count(plan: Plan, kept: Collection[Kept]) -> None:
    """Lanes, reductions and the host have colours of their own."""
    sums = (k.producer for k in kept if k.move.route == "join")
    joined = {c.side for p in sums for c in p.split.cuts if c.axis == p.part}
    sides = JOIN_COLOURS * len(joined - {"t"})
    need = LANE_COLOURS + sides + HOST_COLOURS
    where = next((k.where for k in kept if k.move.route == "relay"), "")
    if where and plan.wafer.colours < need:
        also = f", reductions {sides}" if sides else ""
        raise IllegalPlan(
            f"{where}: lanes take {LANE_COLOURS} colours{also} and the host {HOST_COLOURS}, a router has "
            f"{plan.wafer.colours}"
        )


def _judge_local(plan: Plan, where: str, pairs: Pairs) -> None:
    away = np.flatnonzero(pairs.source != pairs.target)
    if len(away):
        i = int(away[0])
        source, target = core_name(plan, int(pairs.source[i])), core_name(plan, int(pairs.target[i]))
        raise IllegalPlan(f"{where}: leaves {source} for {target}")
