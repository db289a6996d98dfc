"""Groups: which consecutive ops share a region."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.graph import Graph


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
    graph inputs. Each group has an anchor; trailing ops without one join the last group.
    """
    last_use = {t: i for i, n in enumerate(graph.nodes) for t in n.inputs}
    last_anchor = max((i for i in range(len(graph.nodes)) if is_anchor(graph, i)), default=-1)
    groups: list[list[int]] = [[]]
    alive: dict[str, int] = {}
    for i, n in enumerate(graph.nodes):
        groups[-1].append(i)
        alive[n.output] = graph.tensors[n.output].bytes
        alive = {t: b for t, b in alive.items() if last_use.get(t, -1) > i}
        largest = max(alive.values(), default=0)
        wide = sum(b * 8 >= largest for b in alive.values())
        if wide <= 1 and i < last_anchor and any(is_anchor(graph, j) for j in groups[-1]):
            groups.append([])
    out: list[Group] = []
    for g in groups:
        named = [j for j in g if is_anchor(graph, j)] or g
        names = [s for j in named for s in graph.nodes[j].source[:1]]
        out.append(Group(names[0] if names else "group", tuple(g)))
    return tuple(out)
