"""What a graph takes of a wafer's SRAM whatever its plan: known before any search."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...ir.graph import Graph

MOST_SHOWN = 3  # tensors
LONGEST = 60  # characters of a name


@dataclass(frozen=True)
class Least:
    """The most bytes that lie on all cores together at one moment. Each tensor counts once.

    what: kinds of tensors among them, in words. largest: (tensor, a node that reads it or writes it, bytes).
    """

    bytes: int
    what: str
    largest: tuple[tuple[str, str, int], ...]

    def __str__(self) -> str:
        return "; ".join(f"{short(node)}, {short(tensor)} ({n:,})" for tensor, node, n in self.largest)


def short(name: str) -> str:
    """A name from a model that leaves room on a line for what else is said."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


def least(graph: Graph) -> Least:
    """Constants and caches all the time; inputs until they are last read, which is after all are laid; what a
    node makes until it is last read; results to the end. Between two nodes all of these lie somewhere.
    """
    stay = {t for t in graph.resident if t in graph.readers or t in graph.results}
    last = {t: i for i, n in enumerate(graph.nodes) for t in n.inputs}
    last |= dict.fromkeys(graph.results, len(graph.nodes))
    own = graph.in_place
    changed = set(own.values())  # caches: what they become is counted
    alive = {t for t in graph.inputs if t in last and t not in stay and t not in changed}
    size = {t: tensor.bytes for t, tensor in graph.tensors.items()}
    ends: dict[int, list[str]] = {}
    for t, i in last.items():
        ends.setdefault(i, []).append(t)
    total = most = sum(size[t] for t in alive)
    at = 0  # nodes that are done at the worst moment
    for i, n in enumerate(graph.nodes):
        if n.output not in alive and n.output not in stay and n.output not in own and n.output in last:
            alive.add(n.output)
            total += size[n.output]
        for t in ends.get(i, ()):
            if t in alive:
                alive.remove(t)
                total -= size[t]
        if total > most:
            most, at = total, i + 1
    passing = _alive_after(graph, at, last, stay | changed)
    return Least(
        most + sum(size[t] for t in stay), _words(graph, stay, passing), _largest(graph, {*stay, *passing})
    )


def _alive_after(graph: Graph, done: int, last: dict[str, int], stay: set[str]) -> set[str]:
    """What is passing by when so many nodes are done."""
    made = {*graph.inputs, *(n.output for n in graph.nodes[:done])} - stay - graph.in_place.keys()
    return {t for t in made if last.get(t, -1) >= done}


def _words(graph: Graph, stay: set[str], passing: Iterable[str]) -> str:
    kinds: list[str] = []
    if any(t in graph.constants for t in stay):
        kinds.append("constants")
    if any(t not in graph.constants for t in stay):
        kinds.append("caches")
    inputs, results = set(graph.inputs), set(graph.results)
    kinds += ["inputs"] if any(t in inputs for t in passing) else []
    rest = [t for t in passing if t not in inputs]
    kinds += ["results"] if any(t in results for t in rest) else []
    kinds += ["what nodes hand on"] if any(t not in results for t in rest) else []
    return " and ".join(filter(None, [", ".join(kinds[:-1]), *kinds[-1:]])) or "nothing"


def _largest(graph: Graph, among: set[str]) -> tuple[tuple[str, str, int], ...]:
    """Of some tensors the largest, with the ONNX node that reads them first, or makes them."""
    ordered = sorted(among, key=lambda t: (-graph.tensors[t].bytes, t))[:MOST_SHOWN]
    found: list[tuple[str, str, int]] = []
    for t in ordered:
        i = next((i for i, _ in graph.readers.get(t, ())), next(iter(graph.writers.get(t, ())), None))
        node = graph.nodes[i] if i is not None else None
        name = "" if node is None else (node.source[0] if node.source else node.op.name)
        found.append((t, name, graph.tensors[t].bytes))
    return tuple(found)
