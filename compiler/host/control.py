"""If, Loop and Scan whose course only a run tells: the host decides, the bodies are scripts of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap

import onnx
from onnx import TensorProto

from ...ir.rules import GraphBuilder
from ...runtime.script import Body, Branch, Loop, Scan, Script
from ..frontend.free_names import free_names
from ..frontend.load import attribute_value
from ..frontend.node import ModelNode
from ..frontend.scope import HostStep, Key, Scope
from ..frontend.types import either, empty_of, scalar, slice_of, stacked_of, static
from ..frontend.unroll import ways_of_scan
from .so_far import StagesSoFar
from .stages import numbers

WalkNodes = Callable[[Scope, Sequence[onnx.NodeProto]], None]


@dataclass(frozen=True)
class Surroundings:
    """What is around a node: the stages so far, and its scope. walk: enters the nodes of a body."""

    stages: StagesSoFar
    scope: Scope
    walk: WalkNodes

    def key(self, name: str) -> Key:
        return self.stages.key(self.scope, name)

    def enter_results(self, node: onnx.NodeProto, kinds: Sequence[onnx.TypeProto]) -> tuple[Key | None, ...]:
        """Declares the node's outputs."""
        results = zip(node.output, kinds, strict=False)
        return tuple(self.scope.enter(name, kind) if name else None for name, kind in results)


@dataclass(frozen=True)
class Inside:
    """A body's scope, its inputs and outputs. outer: the values that it captures, its last inputs."""

    scope: Scope
    inputs: tuple[Key, ...]
    outputs: tuple[str, ...]
    outer: tuple[Key, ...]

    def kinds(self) -> list[onnx.TypeProto]:
        """The types of its outputs."""
        return list(map(self.scope.kind, self.outputs))

    def finished(self, stages: StagesSoFar) -> Script:
        return stages.script(self.scope, self.inputs, self.outputs)


def step_of(around: Surroundings, node: ModelNode, opset: int) -> HostStep | None:
    """What the host does for a node of `CONTROL`; None where it must run there as one operator."""
    at = len(around.scope.graph.nodes)
    given = {a.name: a for a in node.proto.attribute}
    if node.op_type == "If":
        return _if(around, node.proto, given, at)
    if node.op_type == "Loop":
        return _loop(around, node.proto, given["body"].g, at)
    return _scan(around, node.proto, given, at) if opset >= 9 else None


def _if(
    around: Surroundings, node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto], at: int
) -> HostStep:
    condition = around.key(node.input[0])
    then = _inside(around, given["then_branch"].g, [])
    otherwise = _inside(around, given["else_branch"].g, [])
    kinds = [either(a, b) for a, b in zip(then.kinds(), otherwise.kinds(), strict=True)]
    outputs = around.enter_results(node, kinds)
    scripts = then.finished(around.stages), otherwise.finished(around.stages)
    reads = (condition, *then.outer, *otherwise.outer)

    def stage(number_of: Mapping[Key, int]) -> Branch:
        inside = zip(scripts, (then, otherwise), strict=True)
        one, other = (Body(script, numbers(of.outer, number_of)) for script, of in inside)
        return Branch(number_of[condition], one, other, numbers(outputs, number_of))

    return HostStep(at, reads, outputs, stage)


def _loop(around: Surroundings, node: onnx.NodeProto, body: onnx.GraphProto, at: int) -> HostStep:
    given = [*node.input, "", ""][: max(2, len(node.input))]
    count, condition = (around.key(t) if t else None for t in given[:2])
    carried = tuple(map(around.key, given[2:]))
    first = [scalar(TensorProto.INT64), scalar(TensorProto.BOOL)]
    inside, kinds = _steady(around, body, first, list(map(around.scope.kind, given[2:])), [])
    rows = inside.kinds()[1 + len(carried) :]
    stacked = [stacked_of(row, 0, _iterations(around.scope, given, inside)) for row in rows]
    outputs = around.enter_results(node, [*kinds, *stacked])
    empty = _without_rows(rows, body)
    script = inside.finished(around.stages)
    reads = (*(k for k in (count, condition) if k is not None), *carried, *inside.outer)

    def stage(number_of: Mapping[Key, int]) -> Loop:
        times, go = numbers((count, condition), number_of)
        held = Body(script, numbers(inside.outer, number_of))
        return Loop(times, go, numbers(carried, number_of), held, numbers(outputs, number_of), empty)

    return HostStep(at, reads, outputs, stage)


def _without_rows(
    rows: Sequence[onnx.TypeProto], body: onnx.GraphProto
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Type and shape of each of a body's last outputs, for where no iteration makes one."""
    declared = [v.type for v in body.output[len(body.output) - len(rows) :]]
    return tuple(starmap(empty_of, zip(rows, declared, strict=True)))


def _iterations(scope: Scope, given: Sequence[str], inside: Inside) -> int | None:
    """How often a loop runs, where that is known."""
    count, condition = (scope.value(t) if t else None for t in given[:2])
    goes_on = inside.scope.value(inside.outputs[0])
    if count is None or goes_on is None or not goes_on.all():
        return None
    starts = not given[1] or (condition is not None and condition.all())
    return max(0, int(count.reshape(-1)[0])) if starts else None


def _scan(
    around: Surroundings, node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto], at: int
) -> HostStep:
    values = {name: attribute_value(a) for name, a in given.items()}
    body, over = given["body"].g, int(values["num_scan_inputs"])
    first = len(node.input) - over
    names, made = [*node.input], len(body.output) - first
    axes, back, axes_out, back_out = ways_of_scan(values, over, made)
    carried = tuple(map(around.key, names[:first]))
    scanned = tuple(map(around.key, names[first:]))
    outer = list(map(around.scope.kind, names))
    slices = [slice_of(kind, a) for kind, a in zip(outer[first:], axes, strict=True)]
    inside, kinds = _steady(around, body, [], outer[:first], slices)
    shape = static(outer[first])
    length = None if shape is None else shape[axes[0]]
    rows = zip(inside.kinds()[first:], axes_out, strict=True)
    stacked = [stacked_of(row, axis, length) for row, axis in rows]
    outputs = around.enter_results(node, [*kinds, *stacked])
    script = inside.finished(around.stages)
    reads = (*carried, *scanned, *inside.outer)

    def stage(number_of: Mapping[Key, int]) -> Scan:
        sources = zip(numbers(scanned, number_of), axes, back, strict=True)
        return Scan(
            numbers(carried, number_of),
            tuple((n, int(a), bool(b)) for n, a, b in sources),
            Body(script, numbers(inside.outer, number_of)),
            numbers(outputs, number_of),
            tuple((int(a), bool(b)) for a, b in zip(axes_out, back_out, strict=True)),
        )

    return HostStep(at, reads, outputs, stage)


def _steady(
    around: Surroundings,
    body: onnx.GraphProto,
    before: Sequence[onnx.TypeProto],
    carried: Sequence[onnx.TypeProto],
    after: Sequence[onnx.TypeProto],
) -> tuple[Inside, list[onnx.TypeProto]]:
    """A body whose carried values have the same types in every iteration, and these types."""
    kinds, skipped = list(carried), int(bool(before))
    while True:
        mark = around.stages.mark()
        inside = _inside(around, body, [*before, *kinds, *after])
        given = inside.kinds()[skipped : skipped + len(kinds)]
        wider = [either(a, b) for a, b in zip(kinds, given, strict=True)]
        if wider == kinds:
            return inside, kinds
        around.stages.back_to(mark)
        kinds = wider


def _inside(around: Surroundings, body: onnx.GraphProto, kinds: Sequence[onnx.TypeProto]) -> Inside:
    """A body's nodes in a scope and a graph of its own, for inputs of these types."""
    scope = around.scope
    inner = Scope(GraphBuilder(folding=scope.graph.folding))  # one measure for all graphs of a model
    outer: list[Key] = []
    captured: list[Key] = []
    for name in free_names(body):
        value = scope.value(name)
        if name in scope.texts:
            inner.texts[name] = scope.texts[name]
        elif value is not None:
            inner.names[name] = inner.graph.constant(value, name)
        else:
            outer.append(around.key(name))
            captured.append(inner.enter(name, scope.kind(name)))
    own = {t.name for t in body.initializer}  # old models list them among the inputs
    inputs = [
        inner.enter(v.name, kind if kind.WhichOneof("value") else v.type)
        for v, kind in zip((v for v in body.input if v.name not in own), kinds, strict=True)
    ]
    inner.add_initializers(body)
    around.walk(inner, body.node)
    return Inside(inner, (*inputs, *captured), tuple(o.name for o in body.output), tuple(outer))
