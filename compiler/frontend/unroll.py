"""Loop and Scan whose number of iterations is known, written out: then they run on the wafer entirely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from ...ir.graph import InvalidModel, Unsupported
from ...ir.op import Array
from ...ir.ops.rearrange import normal_axis
from ...ir.rules import REGISTRY, GraphBuilder, Spec
from .load import attribute_value

MOST_ITERATIONS = 64
MOST_NODES = 1024  # of all iterations together, as the model has them
MOST_WRITTEN = 1 << 12  # of all loops of a model that stand in others, as often as they are met
OPSET = 18  # of the nodes that take slices and stack them

Run = Callable[[onnx.GraphProto, Sequence[str]], Sequence[str]]
"""Adds a body's nodes once, for the tensors of its inputs; gives those of its outputs."""


def loop(g: GraphBuilder, node: onnx.NodeProto, inputs: Sequence[str], run: Run) -> list[str]:
    """The tensors of a Loop's outputs. Raises Unsupported unless every iteration is known to take place."""
    body = node.attribute[0].g
    limit, condition, *carried = (*inputs, "", "")[: max(2, len(inputs))]
    most = g.fixed(limit, "the number of iterations") if limit else None
    count = MOST_ITERATIONS + 1 if most is None else int(only(most, "number of iterations"))
    condition = condition or g.constant(np.array(True))
    stacked: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
    i = 0
    while _holds(g, condition) and i < count:
        _limit(body, i + 1 if most is None else count)
        condition, *results = _once(g, run, body, [g.constant(np.array(i, np.int64)), condition, *carried])
        carried = results[: len(carried)]
        for rows, row in zip(stacked, results[len(carried) :], strict=True):
            rows.append(row)
        i += 1
    if not i and stacked:
        raise Unsupported("a loop without iterations stacks nothing")
    return [*carried, *(_stacked(g, rows, 0) for rows in stacked)]


def scan(g: GraphBuilder, node: onnx.NodeProto, inputs: Sequence[str], run: Run, opset: int) -> list[str]:
    """The tensors of a Scan's outputs."""
    given: dict[str, Any] = {a.name: attribute_value(a) for a in node.attribute}
    if opset >= 9:
        return _scanned(g, given, inputs, run)
    # before: the lengths of the sequences come first, and all has a first dimension of the batch
    lengths, *inputs = inputs
    if lengths:
        raise Unsupported("Scan with sequence_lens")
    if flat := next((x for x in inputs if not g.shape(x)), None):
        raise InvalidModel(f"Scan of {g.tensors[flat]}, which has no dimension of the batch")
    batch = g.shape(inputs[0])[0]
    _limit(given["body"], batch)
    given["scan_input_directions"] = given.get("directions")
    items = [_scanned(g, given, [_taken(g, x, b, 0) for x in inputs], run) for b in range(batch)]
    return [_stacked(g, rows, 0) for rows in zip(*items, strict=True)]


def _scanned(g: GraphBuilder, given: dict[str, Any], inputs: Sequence[str], run: Run) -> list[str]:
    body: onnx.GraphProto = given["body"]
    over = int(given["num_scan_inputs"])
    first = len(inputs) - over
    carried, scanned = list(inputs[:first]), inputs[first:]
    made = len(body.output) - first
    axes, back, axes_out, back_out = ways_of_scan(given, over, made)
    axes = [normal_axis(int(a), len(g.shape(x))) for a, x in zip(axes, scanned, strict=True)]
    lengths = [g.shape(x)[a] for x, a in zip(scanned, axes, strict=True)]
    count = lengths[0]
    if any(n != count for n in lengths):
        raise InvalidModel(f"scans inputs of {' and '.join(map(str, lengths))} elements together")
    _limit(body, count)
    if not count:
        raise Unsupported("a scan over nothing")
    stacked: list[list[str]] = [[] for _ in axes_out]
    for i in range(count):
        slices = [
            _taken(g, x, count - 1 - i if b else i, a) for x, a, b in zip(scanned, axes, back, strict=True)
        ]
        results = _once(g, run, body, [*carried, *slices])
        carried = list(results[:first])
        for rows, row in zip(stacked, results[first:], strict=True):
            rows.append(row)
    ends = zip(stacked, axes_out, back_out, strict=True)
    return [*carried, *(_stacked(g, rows[:: -1 if b else 1], a) for rows, a, b in ends)]


def ways_of_scan(given: Mapping[str, Any], over: int, made: int) -> list[Sequence[int]]:
    """The axes and directions of a Scan's inputs, and of its outputs. Raises InvalidModel."""
    counts = {"scan_input_axes": over, "scan_input_directions": over}
    counts |= {"scan_output_axes": made, "scan_output_directions": made}
    ways = [given.get(name) for name in counts]
    whole: list[Sequence[int]] = [
        [0] * n if way is None else way for way, n in zip(ways, counts.values(), strict=True)
    ]
    if any(len(way) != n for way, n in zip(whole, counts.values(), strict=True)):
        raise InvalidModel(f"axes or directions are not those of {over} scan inputs, {made} outputs")
    return whole


def _taken(g: GraphBuilder, tensor: str, at: int, axis: int) -> str:
    return _rule(g, "Gather", [tensor, g.constant(np.array(at, np.int64))], axis=axis)


def _holds(g: GraphBuilder, condition: str) -> bool:
    return bool(only(g.fixed(condition, "whether it goes on"), "condition"))


def only(value: Array, what: str) -> Any:
    """The one element of a value. Raises InvalidModel where it has none or several."""
    if value.size != 1:
        raise InvalidModel(f"the {what} has shape {list(value.shape)}, the operator wants 1 element")
    return value.reshape(())


def _limit(body: onnx.GraphProto, iterations: int) -> None:
    if iterations > MOST_ITERATIONS:
        raise Unsupported(f"more than {MOST_ITERATIONS} iterations")
    if (nodes := _nodes(body) * iterations) > MOST_NODES:
        raise Unsupported(f"{nodes:,} nodes when written out")


def _once(g: GraphBuilder, run: Run, body: onnx.GraphProto, arguments: Sequence[str]) -> Sequence[str]:
    """One iteration. Loops in loops are met again and again: all their nodes are counted."""
    folding = g.folding
    if folding.inside:
        folding.written += len(body.node) + 1
        if folding.written > MOST_WRITTEN:
            raise Unsupported(f"loops in loops are more than {MOST_WRITTEN:,} nodes when written out")
    folding.inside += 1
    try:
        return run(body, arguments)
    finally:
        folding.inside -= 1


def _nodes(graph: onnx.GraphProto) -> int:
    inner = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return len(graph.node) + sum(map(_nodes, inner))


def _stacked(g: GraphBuilder, rows: Sequence[str], axis: int) -> str:
    at = g.constant(np.array([axis], np.int64))
    wide = [_rule(g, "Unsqueeze", [row, at]) for row in rows]
    return _rule(g, "Concat", wide, axis=axis) if len(wide) > 1 else wide[0]


def _rule(g: GraphBuilder, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
    """The result of an operator, added to the graph."""
    spec = Spec(op_type, g.source[0], tuple(inputs), (g.source[0],), attributes, OPSET)
    return REGISTRY["", op_type].rule(g, spec)[0]
