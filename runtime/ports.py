"""What goes into a program and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..ir.graph import Graph, Length

Part = tuple[slice, ...]  # of a tensor: one slice for each dimension


@dataclass(frozen=True)
class Port:
    """A graph input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Ports:
    """All of an entry's. states: (past, present) pairs that keep their value between calls; the past is
    an input, the present an output unless it stays on the wafer. length: of the caches among them.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[tuple[str, str], ...]
    length: Length | None = None

    @cached_property
    def by_name(self) -> dict[str, Port]:
        """The inputs."""
        return {p.name: p for p in self.inputs}

    @cached_property
    def kept(self) -> frozenset[str]:
        """The inputs that keep their value between calls."""
        return frozenset(past for past, _ in self.states)

    @property
    def laid(self) -> tuple[Port, ...]:
        """What is laid in a call: the inputs, and the length that the runtime keeps."""
        own = () if self.length is None else (Port(self.length.input, (), np.dtype(np.int64)),)
        return (*self.inputs, *own)


def ports_of(graph: Graph) -> Ports:
    def ports(names: Sequence[str]) -> tuple[Port, ...]:
        tensors = [graph.tensors[n] for n in names]
        return tuple(Port(t.name, t.shape, np.dtype(t.dtype.numpy)) for t in tensors)

    hidden = graph.length.input if graph.length else None
    inputs = ports([n for n in graph.inputs if n != hidden])
    return Ports(inputs, ports(graph.outputs), graph.states, graph.length)
