"""Judging routes: live links, whole paths, and colours that mean one thing at each router."""

from __future__ import annotations

import numpy as np

from ..plan.plan import Plan
from .links import Links, judge_paths
from .pairs import Pairs, pairs_of
from .trees import Colours, Visits, visits
from .verdict import IllegalPlan, Index, core_name, step_name


def judge_routes(plan: Plan, index: Index) -> None:
    """Raises IllegalPlan unless every record has a whole path over live links, and colours agree."""
    links = Links(plan.wafer)
    colours = Colours(plan)
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
                colours.reserve_lanes(where)
            if m.route == "join":
                colours.reserve_join(where, producer)
            if m.route in ("relay", "join") and not (links.any or m.detours):
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
    colours.judge_kinds()


def _judge_local(plan: Plan, where: str, pairs: Pairs) -> None:
    away = np.flatnonzero(pairs.source != pairs.target)
    if len(away):
        i = int(away[0])
        source, target = core_name(plan, int(pairs.source[i])), core_name(plan, int(pairs.target[i]))
        raise IllegalPlan(f"{where}: leaves {source} for {target}")
