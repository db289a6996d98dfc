"""A graph's nodes, and the host's steps between them, in as few stages as dependences allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...ir.graph import Graph, GraphBuilder, Node
from ...runtime.script import NONE, Script, Stage, WaferStage

Key = tuple[str, str]
"""A value: ("tensor", its name in the graph), or ("held", number) for one that only the host holds."""


@dataclass(frozen=True)
class Step:
    """What the host does once `at` nodes of the graph are there. stage: made when its values have numbers."""

    at: int
    reads: tuple[Key, ...]
    makes: tuple[Key | None, ...]
    stage: Callable[[Mapping[Key, int]], Stage]


def numbers(keys: Sequence[Key | None], number_of: Mapping[Key, int]) -> tuple[int, ...]:
    """The values' numbers; NONE for one that is not there, or that nobody asks for."""
    return tuple(NONE if key is None else number_of.get(key, NONE) for key in keys)


def leveled(
    g: GraphBuilder,
    steps: Sequence[Step],
    inputs: Sequence[Key],
    outputs: Sequence[Key],
    entry: Callable[[Graph], str],
) -> Script:
    """The script of a graph. entry: adds the graph of a stage to the program and gives its entry's name."""
    nodes, live = _needed(g, steps, outputs)
    of_tensor, of_step = _levels(g, nodes, steps, live)
    number_of: dict[Key, int] = {}
    for key in (*inputs, *(k for i in live for k in (*steps[i].reads, *steps[i].makes) if k is not None)):
        number_of.setdefault(key, len(number_of))
    asked = {t for i in live for kind, t in steps[i].reads if kind == "tensor"}
    asked |= {t for kind, t in outputs if kind == "tensor"}
    asked |= {t for n in nodes for t in n.inputs if of_tensor.get(n.output) != of_tensor.get(t)}
    stages: list[Stage] = []
    for level in range(1 + max((0, *of_tensor.values(), *of_step.values()))):
        mine = [n for n in nodes if of_tensor[n.output] == level]
        if mine:
            graph = _stage(g, mine, asked)
            name = entry(graph)
            ports = [
                tuple((t, number_of.setdefault(("tensor", t), len(number_of))) for t in ends)
                for ends in (graph.inputs, graph.outputs)
            ]
            stages.append(WaferStage(name, *ports))
        stages += [steps[i].stage(number_of) for i in live if of_step[i] == level]
    results = tuple(number_of.setdefault(key, len(number_of)) for key in outputs)
    constants = tuple(
        (number, g.constants[t])
        for (kind, t), number in number_of.items()
        if kind == "tensor" and t in g.constants
    )
    return Script(tuple(number_of[key] for key in inputs), results, tuple(stages), constants)


def _needed(g: GraphBuilder, steps: Sequence[Step], outputs: Sequence[Key]) -> tuple[list[Node], list[int]]:
    """The nodes, and the numbers of the steps, that the outputs depend on."""
    wanted = {*outputs}
    nodes: list[Node] = []
    live: list[int] = []
    left = len(g.nodes)

    def back_to(at: int) -> None:
        for n in reversed(g.nodes[at:left]):
            if ("tensor", n.output) in wanted:
                nodes.append(n)
                wanted.update(("tensor", t) for t in n.inputs)

    for i in reversed(range(len(steps))):
        back_to(steps[i].at)
        left = min(left, steps[i].at)
        if any(key in wanted for key in steps[i].makes):
            live.append(i)
            wanted.update(steps[i].reads)
    back_to(0)
    return nodes[::-1], live[::-1]


def _levels(
    g: GraphBuilder, nodes: Sequence[Node], steps: Sequence[Step], live: Sequence[int]
) -> tuple[dict[str, int], dict[int, int]]:
    """The level at which each tensor that a node writes is made, and that of each step."""
    position = {id(n): i for i, n in enumerate(g.nodes)}
    ready: dict[Key, int] = {}  # the level from which on a value is there
    of_tensor: dict[str, int] = {}
    of_step: dict[int, int] = {}
    waiting = list(live)

    def pass_steps(at: int) -> None:
        while waiting and steps[waiting[0]].at <= at:
            i = waiting.pop(0)
            of_step[i] = max((0, *(ready.get(key, 0) for key in steps[i].reads)))
            for key in steps[i].makes:
                if key is not None:
                    ready[key] = of_step[i] + (key[0] == "tensor")

    for n in nodes:
        pass_steps(position[id(n)])
        level = max((of_tensor.get(n.output, 0), *(ready.get(("tensor", t), 0) for t in n.inputs)))
        of_tensor[n.output] = ready["tensor", n.output] = level
    pass_steps(len(g.nodes))
    return of_tensor, of_step


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
