"""Groups: which consecutive ops share a region."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.graph import Graph


@dataclass(frozen=True)
class Group:
    """Consecutive nodes that share a region; named after its first op with weights."""

    name: str
    nodes: tuple[int, ...]


def is_anchor(graph: Graph, node: int) -> bool:
    """Whether the node multiplies or looks up resident weights."""
    n = graph.nodes[node]
    return bool(n.op.reduced) and any(t in graph.constants for t in n.inputs)


def layers(graph: Graph) -> tuple[Group, ...]:
    """Groups of consecutive nodes, cut where one tensor of size is all that stays alive.

    Tensors under an eighth of the largest one alive do not count (masks, statistics), nor do
    graph inputs. Each group has an anchor; what follows it up to the last such place before the
    next anchor (a residual, a normalisation) stays with it.
    """
    last_use = {t: i for i, n in enumerate(graph.nodes) for t in n.inputs}
    starts = [0]
    alive: dict[str, int] = {}
    place = -1  # the last place since the last anchor where a group may end
    anchored = False
    for i, n in enumerate(graph.nodes):
        if is_anchor(graph, i):
            if anchored and place >= 0:
                starts.append(place + 1)
            anchored, place = True, -1
        alive[n.output] = graph.tensors[n.output].bytes
        alive = {t: b for t, b in alive.items() if last_use.get(t, -1) > i}
        largest = max(alive.values(), default=0)
        if anchored and sum(b * 8 >= largest for b in alive.values()) <= 1:
            place = i
    out: list[Group] = []
    for start, end in zip(starts, [*starts[1:], len(graph.nodes)], strict=True):
        nodes = tuple(range(start, end))
        named = [j for j in nodes if is_anchor(graph, j)] or nodes
        names = [s for j in named for s in graph.nodes[j].source[:1]]
        out.append(Group(names[0] if names else "group", nodes))
    return tuple(out)
