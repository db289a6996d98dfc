"""A graph computed in NumPy, op by op: what every other way of computing it must agree with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .graph import Graph
from .op import Array


def steps(graph: Graph, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Yields (name, value) of every tensor as soon as it is whole: inputs, constants, results."""
    values: dict[str, Array] = dict(graph.constants)
    for name in graph.inputs:
        t = graph.tensors[name]
        if name not in inputs:
            raise KeyError(f"no value for input {t}")
        value = np.asarray(inputs[name])
        if value.shape != t.shape or value.dtype != t.dtype.numpy:
            raise ValueError(f"input {t} given as {value.dtype}{list(value.shape)}")
        values[name] = value
    yield from values.items()
    last = {n.output: i for i, n in enumerate(graph.nodes)}
    for i, node in enumerate(graph.nodes):
        t = graph.tensors[node.output]
        if node.output not in values:
            values[node.output] = np.zeros(t.shape, t.dtype.numpy)
        if all(n > 0 for _, n in node.op.axes):
            box = node.op.hold({a: (0, n) for a, n in node.op.axes})
            at = tuple(slice(lo, hi) for lo, hi in box)
            # an op may compute wider than it stores (sums in f32 of f16)
            part = node.op.reference(*(values[t] for t in node.inputs))
            values[node.output][at] = part.astype(t.dtype.numpy, copy=False)
        if last[node.output] == i:
            yield node.output, values[node.output]


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The graph's outputs. KeyError or ValueError for inputs that do not fit."""
    wanted = set(graph.outputs)
    found = {name: value for name, value in steps(graph, inputs) if name in wanted}
    return {name: found[name] for name in graph.outputs}
