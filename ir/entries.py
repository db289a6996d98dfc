"""Graphs of one program's entries: what they have in common goes by one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from .absent import lacking
from .graph import Graph
from .op import Array
from .stored_bits import stored_bits

FIRST = 4096  # bytes that tell most constants apart
BLOCK = 1 << 24  # bytes that are compared together


def constants_together(graphs: Mapping[str, Graph]) -> dict[str, Array]:
    """The constants of all entries. ValueError where one name stands for two, see `agreed`."""
    out: dict[str, Array] = {}
    for entry, graph in graphs.items():
        for name, value in graph.constants.items():
            if not equal(out.setdefault(name, value), value):
                raise ValueError(f"constant {name!r} of entry {entry!r} is another one in an earlier entry")
    return out


def agreed(graphs: Mapping[str, Graph]) -> dict[str, Graph]:
    """The graphs with constants of one name only where they are the same.

    A constant that an earlier graph has by another name goes by that name; one whose name is an earlier
    graph's for another constant gets a new one. What is still as a model stores it is taken apart.
    """
    known: dict[str, Array] = {}
    out: dict[str, Graph] = {}
    for entry, given in graphs.items():
        graph = _apart(given)
        out[entry] = made = _renamed(graph, _names(graph, known))
        known |= made.constants
    return out


def _apart(graph: Graph) -> Graph:
    apart = {n: bits.apart() for n, v in graph.constants.items() if (bits := stored_bits(v)) is not None}
    return replace(graph, constants={**graph.constants, **apart}) if apart else graph


def equal(a: Array, b: Array) -> bool:
    """Whether two constants are the same, to the bit; of those without values, whether they must be."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if lacking([a, b]) is not None:
        return bool(a == b)
    stored, other = stored_bits(a), stored_bits(b)
    if stored is not None and other is not None and stored.alike(other):
        return equal(stored.source, other.source)
    x, y = _raw(a), _raw(b)
    cuts = [0, FIRST, *range(BLOCK, x.size, BLOCK), x.size]
    return all(np.array_equal(x[i:j], y[i:j]) for i, j in pairwise(cuts))


def _raw(a: Array) -> Any:
    return np.ascontiguousarray(a).reshape(-1).view(np.uint8)


def _names(graph: Graph, known: Mapping[str, Array]) -> dict[str, str]:
    """New names for constants of a graph."""
    own = graph.constants
    stay = {n for n, value in own.items() if n in graph.outputs or (n in known and equal(known[n], value))}
    alike: dict[Any, list[str]] = {}
    for name, value in known.items():
        if name not in graph.tensors or (name in own and name not in stay):  # else it is taken here
            alike.setdefault((value.shape, value.dtype), []).append(name)
    taken = {*graph.tensors, *known}
    out: dict[str, str] = {}
    for name, value in own.items():
        if name in stay:
            continue
        free = alike.get((value.shape, value.dtype), [])
        found = next((n for n in free if equal(known[n], value)), None)
        if found is not None:
            free.remove(found)
            out[name] = found
        elif name in known:
            number = 1
            while (fresh := f"{name}.{number}") in taken:
                number += 1
            taken.add(fresh)
            out[name] = fresh
    return out


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    if not names:
        return graph
    tensors = {
        names.get(n, n): replace(t, name=names[n]) if n in names else t for n, t in graph.tensors.items()
    }
    nodes = tuple(replace(n, inputs=tuple(names.get(t, t) for t in n.inputs)) for n in graph.nodes)
    constants = {names.get(n, n): value for n, value in graph.constants.items()}
    return replace(graph, tensors=tensors, nodes=nodes, constants=constants)
