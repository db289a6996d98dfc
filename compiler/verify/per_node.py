"""The first node that is wrong: each compiled alone, and run on the golden runtime's values and in a row.

Alone, a node takes what the golden runtime gave to it; along the chain, what ours made of the inputs. A
node that departs alone is wrong; one that departs along the chain only has the errors of those before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from ...ir.op import Array
from ...runtime.ports import Port
from ..frontend.inputs import Binding, add_inputs
from ..frontend.load import dense
from ..frontend.scope import Scope
from ..stopwatch import Report, silent
from .call_inputs import Feed
from .compare import Comparison, Rule, compare
from .golden import Golden, apart
from .single_nodes import Build, NotChecked, Programs, Step, constants_of, model_of, steps_of


@dataclass(frozen=True)
class Inputs:
    """What a call of the model takes, and its values that are known when compiling."""

    ports: tuple[Port, ...]
    constants: Mapping[str, Array]


@dataclass(frozen=True)
class Departure:
    """A node and its first output that is wrong, in the first call where one is.

    model: what shows it, the node with the least of those before it. feed: that model's inputs.
    """

    step: Step
    comparison: Comparison
    model: onnx.ModelProto
    feed: Feed


@dataclass(frozen=True)
class Found:
    """What came of all nodes. alone, chain: the first that departs in each way.

    nodes: of the model; after both ways have departed no more are looked at. unchecked: those that could
    not be compared, and why.
    """

    nodes: int
    unchecked: tuple[tuple[Step, str], ...]
    alone: Departure | None
    chain: Departure | None

    @property
    def first(self) -> Departure | None:
        """The one to look at: what is wrong by itself."""
        return self.alone or self.chain


def inputs_of(model: str | Path, given: Binding) -> Inputs:
    """The model's inputs with static shapes. Raises UsageError, InvalidInput, UnsupportedModel."""
    held = apart(model)
    proto = held.model
    known = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name not in held.large}
    known |= held.large
    known |= {s.values.name: dense(s) for s in proto.graph.sparse_initializer}
    scope = Scope(names=dict.fromkeys(("", *known), ""))
    add_inputs(scope, proto.graph, given)
    tensors = scope.graph.tensors
    ports = [Port(name, tensors[name].shape, tensors[name].dtype.numpy) for name in scope.inputs]
    return Inputs(tuple(ports), {**known, **scope.graph.constants})


@dataclass(frozen=True)
class Model:
    """A model with what the golden runtime says of every value in it, call by call."""

    proto: onnx.ModelProto
    steps: Sequence[Step]
    constants: set[str]
    right: Sequence[Feed]
    programs: Programs
    rule: Rule

    def run(self, step: Step, values: Feed, call: int) -> Feed:
        """What the node makes of `values`, and of the golden runtime's constants. Raises NotChecked."""
        own = {n: values[n] for n in step.inputs if n in values and n not in self.constants}
        return self.programs.run(step, {**self.right[call], **own}, self.constants)

    def wrong(self, made: Feed, call: int) -> Comparison | None:
        """The first of the values that breaks the rule."""
        compared = (compare(n, v, self.right[call][n], self.rule, call) for n, v in made.items())
        return next((c for c in compared if not c.passed), None)


def check_nodes(
    model: str | Path,
    golden: Golden,
    inputs: Inputs,
    feeds: Sequence[Feed],
    states: Sequence[tuple[str, str]],
    rule: Rule,
    build: Build,
    progress: Report = silent,
) -> Found:
    """Every node of the model, alone and along the chain, until both ways have departed.

    golden: gives every node's results (`golden.exposed`). states: pairs of which the past is 0 in the first
    call, then what the golden runtime made. build: makes the program of a node's model. A node that cannot be
    checked hands on the golden runtime's values.
    """
    proto = apart(model).model
    steps, right = steps_of(proto.graph), _golden_values(golden, inputs, feeds, states)
    constants = constants_of(steps, inputs.constants, right[0])
    scene = Model(proto, steps, constants, right, Programs(proto, build), rule)
    ours = [dict(values) for values in right]
    unchecked: dict[tuple[str, ...], tuple[Step, str]] = {}
    alone: Departure | None = None
    chain: Departure | None = None
    for i, step in enumerate(steps):
        if alone and chain:
            break
        progress("nodes", i / len(steps))
        try:
            if alone is None and (found := _departs(scene, step, right)):
                alone = _departure(scene, found, [step])
            if chain is None and (found := _departs(scene, step, ours)):
                row = [] if alone else [s for s in steps[:i] if s.outputs not in unchecked]
                chain = _departure(scene, found, _shortest(scene, step, row, found.call))
        except NotChecked as e:
            unchecked[step.outputs] = step, str(e)
    return Found(len(steps), tuple(unchecked.values()), alone, chain)


@dataclass(frozen=True)
class _Wrong:
    step: Step
    comparison: Comparison
    call: int


def _departs(model: Model, step: Step, taken: Sequence[Feed]) -> _Wrong | None:
    """Runs the node on what it takes in each call; the first wrong output. Results join what is taken,
    unless it is the golden runtime's."""
    first: _Wrong | None = None
    for call, values in enumerate(taken):
        made = model.run(step, values, call)
        if taken is not model.right:
            values |= made
        if first is None and (c := model.wrong(made, call)):
            first = _Wrong(step, c, call)
    return first


def _departure(model: Model, wrong: _Wrong, shown: Sequence[Step]) -> Departure:
    values = model.right[wrong.call]
    outputs = [n for n in wrong.step.outputs if n in values]
    small = model_of(shown, outputs, values, model.constants, model.proto)
    return Departure(wrong.step, wrong.comparison, small, {v.name: values[v.name] for v in small.graph.input})


def _shortest(model: Model, target: Step, before: Sequence[Step], call: int) -> Sequence[Step]:
    """The node with as few of those before it as show its departure, from the golden runtime's values on."""
    reach, some = 0, [target]
    while not model.wrong(_along(model, some, call), call):
        reach, shorter = max(1, 2 * reach), len(some)
        some = _behind(target, before, reach)
        if len(some) == shorter:
            break
    return some


def _along(model: Model, steps: Sequence[Step], call: int) -> Feed:
    """What the last of the nodes makes, each taking what those before it made."""
    values, made = dict(model.right[call]), dict[str, Array]()
    for s in steps:
        made = model.run(s, values, call)
        values |= made
    return made


def _behind(target: Step, before: Sequence[Step], reach: int) -> list[Step]:
    """The node and those whose results come to it through at most `reach` others, in their order."""
    maker = {name: s for s in before for name in s.outputs}
    found, edge = set[tuple[str, ...]](), [target]
    for _ in range(reach):
        edge = [maker[n] for s in edge for n in s.inputs if n in maker and maker[n].outputs not in found]
        found |= {s.outputs for s in edge}
    return [*(s for s in before if s.outputs in found), target]


def _golden_values(
    golden: Golden, inputs: Inputs, feeds: Sequence[Feed], states: Sequence[tuple[str, str]]
) -> list[Feed]:
    """Every value that the golden runtime tells, and those that it was given, in each call."""
    pasts = {past for past, _ in states}
    kept = {p.name: np.zeros(p.shape, p.dtype) for p in inputs.ports if p.name in pasts}
    out: list[Feed] = []
    for feed in feeds:
        whole = {**inputs.constants, **kept, **feed}
        made = golden.run({name: whole[name] for name in golden.inputs if name in whole})
        kept = {past: made[present] for past, present in states}
        out.append({**whole, **made})
    return out
