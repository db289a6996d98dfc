"""What goes into a program and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.graph import Graph


@dataclass(frozen=True)
class Port:
    """A graph input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Ports:
    """All of a program's. states: (input, output) pairs that keep their value between calls."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[tuple[str, str], ...]


def ports_of(graph: Graph) -> Ports:
    def ports(names: Sequence[str]) -> tuple[Port, ...]:
        tensors = [graph.tensors[n] for n in names]
        return tuple(Port(t.name, t.shape, np.dtype(t.dtype.numpy)) for t in tensors)

    return Ports(ports(graph.inputs), ports(graph.outputs), graph.states)
