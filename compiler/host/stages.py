"""A graph's nodes, and the host's steps between them, in as few stages as dependences allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...ir.graph import Graph, Node
from ...ir.rules import GraphBuilder
from ...runtime.script import NONE, Script, Stage, WaferStage
from ..frontend.scope import HostStep, Key

if TYPE_CHECKING:
    import networkx as nx


def numbers(keys: Sequence[Key | None], number_of: Mapping[Key, int]) -> tuple[int, ...]:
    """The values' numbers; NONE for one that is not there, or that nobody asks for."""
    return tuple(NONE if key is None else number_of.get(key, NONE) for key in keys)


def script_in_stages(
    g: GraphBuilder,
    steps: Sequence[HostStep],
    inputs: Sequence[Key],
    outputs: Sequence[Key],
    entry: Callable[[Graph], str],
) -> Script:
    """The script of a graph: a stage of the wafer, then the steps that follow it, and so on.

    entry: adds the graph of a stage to the program and gives its entry's name.
    """
    work = _staged(g, steps, outputs)
    needed = [steps[i] for i in work.of_step]
    number_of: dict[Key, int] = {}
    for key in (*inputs, *(k for s in needed for k in (*s.reads, *s.makes) if k is not None)):
        number_of.setdefault(key, len(number_of))
    asked = {t for s in needed for kind, t in s.reads if kind == "tensor"}
    asked |= {t for kind, t in outputs if kind == "tensor"}
    of_tensor = work.of_tensor
    asked |= {t for n in work.nodes for t in n.inputs if of_tensor[n.output] != of_tensor.get(t)}
    stages: list[Stage] = []
    for number in range(1 + max((0, *of_tensor.values(), *work.of_step.values()))):
        mine = [n for n in work.nodes if of_tensor[n.output] == number]
        if mine:
            graph = _stage(g, mine, asked)
            name = entry(graph)
            ports = [
                tuple((t, number_of.setdefault(("tensor", t), len(number_of))) for t in ends)
                for ends in (graph.inputs, graph.outputs)
            ]
            stages.append(WaferStage(name, *ports))
        stages += [steps[i].stage(number_of) for i, of in work.of_step.items() if of == number]
    results = tuple(number_of.setdefault(key, len(number_of)) for key in outputs)
    constants = tuple(
        (number, g.constants[t])
        for (kind, t), number in number_of.items()
        if kind == "tensor" and t in g.constants
    )
    return Script(tuple(number_of[key] for key in inputs), results, tuple(stages), constants)


@dataclass(frozen=True)
class StagedWork:
    """The nodes that outputs depend on, and in which stage what happens.

    of_tensor: by what a node writes. of_step: by the step's position; a step follows its stage's nodes.
    """

    nodes: Sequence[Node]
    of_tensor: Mapping[str, int]
    of_step: Mapping[int, int]


def _staged(g: GraphBuilder, steps: Sequence[HostStep], outputs: Sequence[Key]) -> StagedWork:
    """Each node and step in the first stage in which all that it reads is there."""
    import networkx as nx

    flow = _flow(g, steps)
    ends = [key for key in outputs if key in flow]
    end: Key = "end", ""
    flow.add_node(end)
    flow.add_edges_from((key, end) for key in ends)
    needed = nx.ancestors(flow, end)  # pyright: ignore[reportUnknownMemberType]
    stage_of: dict[Key, int] = {}
    for key in nx.topological_sort(flow.subgraph(needed)):
        # a tensor that the host makes is there in the next stage: its own stage's nodes ran before
        stage_of[key] = max(
            (stage_of[k] + (k[0] == "step" and key[0] == "tensor") for k in flow.predecessors(key)), default=0
        )
    nodes = [n for n in g.nodes if ("tensor", n.output) in needed]
    of_step = {i: stage_of["step", str(i)] for i in range(len(steps)) if ("step", str(i)) in needed}
    return StagedWork(nodes, {n.output: stage_of["tensor", n.output] for n in nodes}, of_step)


def _flow(g: GraphBuilder, steps: Sequence[HostStep]) -> nx.DiGraph[Key]:
    """What flows into what: values into values, and through steps, ("step", position)."""
    import networkx as nx

    flow: nx.DiGraph[Key] = nx.DiGraph()
    for n in g.nodes:
        flow.add_node(("tensor", n.output))
        flow.add_edges_from((("tensor", t), ("tensor", n.output)) for t in n.inputs)
    for i, step in enumerate(steps):
        here = "step", str(i)
        flow.add_edges_from((key, here) for key in step.reads)
        flow.add_edges_from((here, key) for key in step.makes if key is not None)
    return flow


def _stage(g: GraphBuilder, nodes: Sequence[Node], asked: set[str]) -> Graph:
    """The graph of some nodes. asked: tensors that others read."""
    made = dict.fromkeys(n.output for n in nodes)
    read = dict.fromkeys(t for n in nodes for t in n.inputs)
    constants = {t: g.constants[t] for t in read if t in g.constants}
    inputs = tuple(t for t in read if t not in made and t not in constants)
    tensors = {t: g.tensors[t] for t in (*inputs, *constants, *made)}
    graph = Graph("", tensors, tuple(nodes), constants, inputs, tuple(t for t in made if t in asked))
    graph.check()
    return graph
