"""If, Loop and Scan whose course only a run tells: the host decides, the bodies are scripts of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

from ...runtime.script import Body, Branch, Loop, Scan, Script
from ..frontend.free_names import free_names
from ..frontend.load import attribute_value
from ..frontend.types import either, empty_of, scalar, slice_of, stacked_of, static
from .stages import Key, Step, numbers

if TYPE_CHECKING:
    from .partition import Scope


@dataclass(frozen=True)
class Inside:
    """A body's scope, its inputs and outputs. outer: the values that it captures, its last inputs."""

    scope: Scope
    inputs: tuple[Key, ...]
    outputs: tuple[str, ...]
    outer: tuple[Key, ...]

    def finished(self) -> Script:
        return self.scope.finish(self.inputs, self.outputs)


def step_of(scope: Scope, node: onnx.NodeProto) -> Step | None:
    """What the host does for a node of `CONTROL`; None where it must run there as one operator."""
    at = len(scope.builder.graph.nodes)
    given = {a.name: a for a in node.attribute}
    if node.op_type == "If":
        return _if(scope, node, given, at)
    if node.op_type == "Loop":
        return _loop(scope, node, given["body"].g, at)
    return _scan(scope, node, given, at) if scope.builder.opsets.get("", 1) >= 9 else None


def _if(scope: Scope, node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto], at: int) -> Step:
    condition = scope.key(node.input[0])
    made: list[tuple[Inside, list[onnx.TypeProto]]] = []
    for which in ("then_branch", "else_branch"):
        inside = _inside(scope, given[which].g, [])
        made.append((inside, [inside.scope.kind(o.name) for o in given[which].g.output]))
    (then, mine), (otherwise, yours) = made
    kinds = [either(a, b) for a, b in zip(mine, yours, strict=True)]
    outputs = tuple(scope.enter(o, k) if o else None for o, k in zip(node.output, kinds, strict=False))
    scripts = then.finished(), otherwise.finished()
    reads = (condition, *then.outer, *otherwise.outer)

    def stage(number_of: Mapping[Key, int]) -> Branch:
        inside = zip(scripts, (then, otherwise), strict=True)
        one, other = (Body(script, numbers(of.outer, number_of)) for script, of in inside)
        return Branch(number_of[condition], one, other, numbers(outputs, number_of))

    return Step(at, reads, outputs, stage)


def _loop(scope: Scope, node: onnx.NodeProto, body: onnx.GraphProto, at: int) -> Step:
    given = [*node.input, "", ""][: max(2, len(node.input))]
    count, condition = (scope.key(t) if t else None for t in given[:2])
    carried = tuple(map(scope.key, given[2:]))
    first = [scalar(TensorProto.INT64), scalar(TensorProto.BOOL)]
    inside, kinds = _steady(scope, body, first, [scope.kind(t) for t in given[2:]], [])
    rows = [inside.scope.kind(o.name) for o in body.output[1 + len(carried) :]]
    stacked = [stacked_of(row, 0, _iterations(scope, given, inside, body)) for row in rows]
    results = zip(node.output, [*kinds, *stacked], strict=False)
    outputs = tuple(scope.enter(o, kind) if o else None for o, kind in results)
    empty = tuple(empty_of(row) for row in rows)
    script = inside.finished()
    reads = (*(k for k in (count, condition) if k is not None), *carried, *inside.outer)

    def stage(number_of: Mapping[Key, int]) -> Loop:
        times, go = numbers((count, condition), number_of)
        held = Body(script, numbers(inside.outer, number_of))
        return Loop(times, go, numbers(carried, number_of), held, numbers(outputs, number_of), empty)

    return Step(at, reads, outputs, stage)


def _iterations(scope: Scope, given: Sequence[str], inside: Inside, body: onnx.GraphProto) -> int | None:
    """How often a loop runs, where that is known."""
    count, condition = (
        scope.builder.graph.value(scope.builder.names.get(t, "")) if t else None for t in given[:2]
    )
    inner = inside.scope.builder
    goes_on = inner.graph.value(inner.names.get(body.output[0].name, ""))
    if count is None or goes_on is None or not goes_on.all():
        return None
    starts = not given[1] or (condition is not None and condition.all())
    return int(count.reshape(-1)[0]) if starts else None


def _scan(scope: Scope, node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto], at: int) -> Step:
    values = {name: attribute_value(a) for name, a in given.items()}
    body, over = given["body"].g, int(values["num_scan_inputs"])
    first = len(node.input) - over
    names, made = [*node.input], len(body.output) - first
    axes = values.get("scan_input_axes") or [0] * over
    back = values.get("scan_input_directions") or [0] * over
    axes_out = values.get("scan_output_axes") or [0] * made
    back_out = values.get("scan_output_directions") or [0] * made
    carried = tuple(map(scope.key, names[:first]))
    scanned = tuple(map(scope.key, names[first:]))
    slices = [slice_of(scope.kind(t), a) for t, a in zip(names[first:], axes, strict=True)]
    inside, kinds = _steady(scope, body, [], [scope.kind(t) for t in names[:first]], slices)
    shape = static(scope.kind(names[first]))
    length = None if shape is None else shape[axes[0]]
    rows = [inside.scope.kind(o.name) for o in body.output[first:]]
    stacked = [stacked_of(row, axis, length) for row, axis in zip(rows, axes_out, strict=True)]
    results = zip(node.output, [*kinds, *stacked], strict=False)
    outputs = tuple(scope.enter(o, kind) if o else None for o, kind in results)
    script = inside.finished()
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

    return Step(at, reads, outputs, stage)


def _steady(
    scope: Scope,
    body: onnx.GraphProto,
    before: Sequence[onnx.TypeProto],
    carried: Sequence[onnx.TypeProto],
    after: Sequence[onnx.TypeProto],
) -> tuple[Inside, list[onnx.TypeProto]]:
    """A body whose carried values have the same types in every iteration, and these types."""
    kinds, skipped = list(carried), int(bool(before))
    while True:
        mark = scope.found.mark()
        inside = _inside(scope, body, [*before, *kinds, *after])
        given = [inside.scope.kind(o.name) for o in body.output[skipped : skipped + len(kinds)]]
        wider = [either(a, b) for a, b in zip(kinds, given, strict=True)]
        if wider == kinds:
            return inside, kinds
        scope.found.back_to(mark)
        kinds = wider


def _inside(scope: Scope, body: onnx.GraphProto, kinds: Sequence[onnx.TypeProto]) -> Inside:
    """A body's nodes in a scope of its own, for inputs of these types."""
    inner = scope.beside()
    outer: list[Key] = []
    captured: list[Key] = []
    for name in free_names(body):
        value = scope.builder.graph.value(scope.builder.names.get(name, ""))
        if name in scope.texts:
            inner.texts[name] = scope.texts[name]
        elif value is not None:
            inner.builder.add_constant(name, value)
        else:
            outer.append(scope.key(name))
            captured.append(inner.enter(name, scope.kind(name)))
    inputs = [
        inner.enter(v.name, kind if kind.WhichOneof("value") else v.type)
        for v, kind in zip(body.input, kinds, strict=True)
    ]
    inner.add_constants(body)
    inner.walk(body.node)
    return Inside(inner, (*inputs, *captured), tuple(o.name for o in body.output), tuple(outer))
