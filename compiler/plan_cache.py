"""Plans kept from one compile to the next, as placements: a search is not made twice.

A placement says all that a search decides, so the plan built of it is the one that the search found, to
the byte. It is judged like any other. An entry is found by all that the search depends on: the graph
without its weights' values, the wafer, the objective, the seed, and the planner itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from .. import ir, placement
from ..codegen.encode import encode, encode_graph
from ..ir.graph import Graph
from ..placement import route, written
from ..placement.plan import Plan
from ..placement.wafer import Wafer
from ..runtime.cache import read_entry, sources_in, write_entry


def name_of(
    graph: Graph, wafer: Wafer, objective: str, seed: int, others: Sequence[Graph] = (), beside: str = ""
) -> str:
    """The entry of the plan that a search for these would find.

    others: graphs of the program's other entries. beside: the entry of the first one's plan, for another's.
    """
    graphs = [encode_graph(g) for g in (graph, *others)]
    asked = json.dumps([graphs, encode(wafer), objective, seed, beside, np.__version__])
    planner = sources_in(*ir.__path__, *placement.__path__)
    return hashlib.sha256((asked + planner).encode()).hexdigest() + ".placement"


def kept_plan(
    name: str, graph: Graph, wafer: Wafer, others: Sequence[Graph] = (), beside: Plan | None = None
) -> Plan | None:
    """The plan of an entry, not yet judged; None where there is none that can be built.

    others, beside: see `written.read`.
    """
    held = read_entry(name)
    if held is None:
        return None
    try:
        return route.routed(written.read(json.loads(held), graph, wafer, None, others, beside))
    except ValueError:  # no JSON, or a placement that nothing can be built of
        return None


def keep_plan(name: str, plan: Plan) -> None:
    """Writes an entry. A cache that cannot be written is no error."""
    write_entry(name, json.dumps(written.write(plan), separators=(",", ":")).encode())
