"""The ends of a graph: its outputs under the model's names, and the pairs of ends that are states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...ir.absent import lacking
from ...ir.graph import Graph, Node, Tensor
from ...ir.op import InvalidOp, identity
from ...ir.ops.rearrange import make_copy
from ...ir.rules import GraphBuilder
from ..errors import InvalidInput, UsageError, quoted, shown
from .scope import Scope


def graph_of(
    scope: Scope,
    outputs: Sequence[str],
    name: str,
    states: Sequence[tuple[str, str]] = (),
    grow: bool = False,
) -> Graph:
    """The checked graph of a scope whose values all are tensors; `scope` is used up.

    grow: an output may be longer than its input; such states are checked by whom they concern. Raises
    InvalidInput for an output that nothing makes, UsageError for a state that is no pair of input and output
    of one type.
    """
    own = tuple(dict.fromkeys(outputs))  # one that the model lists twice is one result
    _name_outputs(scope, own)
    g = scope.graph
    _judge_states(g, scope.inputs, own, states, grow)
    inputs = (*scope.inputs, *([g.length_input] if g.length_input else []))
    graph = Graph(name, g.tensors, tuple(g.nodes), g.constants, inputs, own, tuple(states))
    try:
        replace(graph, states=()).check() if grow else graph.check()
    except InvalidOp as e:
        raise AssertionError(f"a rule made an op that contradicts itself: {e}") from e
    return graph


def _name_outputs(scope: Scope, outputs: Sequence[str]) -> None:
    """Gives each output's tensor the output's own name."""
    taken: dict[str, str] = {}  # tensor -> output that has it already
    for name in outputs:
        if name not in scope.names:
            raise InvalidInput(f"output {quoted(name)} is made by no node")
        tensor = scope.graph.at_run_time(scope.names[name])
        if tensor == name and tensor in scope.inputs:
            taken[tensor] = name  # an input that is an output, too: it stays as it is laid
            continue
        if tensor in scope.inputs or tensor in taken or tensor in scope.graph.constants:
            tensor = _copied(scope.graph, tensor, name)
        taken[tensor] = name
    _rename(scope.graph, taken)


def _copied(g: GraphBuilder, tensor: str, hint: str) -> str:
    """A result of its own: an output that is an input of another name, a constant or another output."""
    if (value := g.value(tensor)) is not None:
        return g.constant(value if lacking([value]) is not None else np.array(value), hint)
    shape = g.shape(tensor)
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    access = identity([a for a, _ in axes])
    g.source = (hint,)
    return g.emit(make_copy(g, tensor, axes, access, access), [tensor], shape, hint)


def _rename(g: GraphBuilder, wanted: Mapping[str, str]) -> None:
    """Renames tensors; one that has a wanted name by chance makes room."""
    table = dict(wanted)
    for name in wanted.values():
        if name in g.tensors and name not in wanted:
            table[name] = g.fresh(name)
    if all(a == b for a, b in table.items()):
        return

    def new(name: str) -> str:
        return table.get(name, name)

    g.tensors = {new(t.name): Tensor(new(t.name), t.shape, t.dtype) for t in g.tensors.values()}
    g.constants = {new(name): value for name, value in g.constants.items()}
    g.nodes = [Node(n.op, tuple(map(new, n.inputs)), new(n.output), n.source) for n in g.nodes]


def _judge_states(
    g: GraphBuilder,
    inputs: Sequence[str],
    outputs: Sequence[str],
    states: Sequence[tuple[str, str]],
    grow: bool,
) -> None:
    for past, present in states:
        for end, ends, what in ((past, inputs, "input"), (present, outputs, "output")):
            if end not in ends:
                known = ", ".join(map(quoted, ends))
                raise UsageError(f"--state: no {what} {quoted(end)}; the {what}s are {known}")
        if past in outputs:
            raise UsageError(f"--state: input {quoted(past)} is an output, too: a call would overwrite it")
        a, b = g.tensors[past], g.tensors[present]
        if not grow and (a.shape, a.dtype) != (b.shape, b.dtype):
            raise UsageError(f"--state: {shown(str(a))} and {shown(str(b))} differ")
