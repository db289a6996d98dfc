"""Graphs and wafers as JSON values and back, judged field by field before anything of them is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, cast

from ...ir import ops
from ...ir.absent import absent
from ...ir.dtypes import DType, by_name
from ...ir.graph import Graph, InvalidModel, Length, Node, Tensor
from ...ir.op import Array, InvalidOp, Op
from ...placement.machine.wafer import Wafer, WaferError
from .typed import Misfit, decode, encode, member

__all__ = ["Undecodable", "decode_graph", "decode_wafer", "encode", "encode_graph"]

assert ops.__all__  # importing the package is what makes the classes that a file may name
MOST = 1 << 40  # of a dimension, of a tensor's elements and of a stride
MOST_ITERATIONS = 1 << 60  # of an op


class Undecodable(ValueError):
    """JSON that does not describe what it should."""


def encode_graph(graph: Graph) -> Any:
    """A graph without its constants' values."""
    return {
        "name": graph.name,
        "tensors": [[t.name, list(t.shape), t.dtype.name] for t in graph.tensors.values()],
        "constants": list(graph.constants),
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "states": [list(s) for s in graph.states],
        "length": encode(graph.length),
        "nodes": [
            {"op": encode(n.op), "inputs": list(n.inputs), "output": n.output, "source": list(n.source)}
            for n in graph.nodes
        ],
    }


def decode_graph(data: Any, constants: Mapping[str, Array] | None = None) -> Graph:
    """The graph, checked. Raises Undecodable, naming the field.

    constants: their values, of other graphs' too; None where these are not at hand.
    """
    try:
        graph = _graph(data, constants)
        graph.check()
        return graph
    except (Misfit, InvalidModel, InvalidOp) as e:
        raise Undecodable(str(e)) from None
    except RecursionError:
        raise Undecodable("nodes: ops within ops without end") from None


def decode_wafer(data: Any) -> Wafer:
    """The wafer, checked. Raises Undecodable, naming the field."""
    try:
        wafer: Wafer = decode(data, Wafer)
        wafer.check()
        return wafer
    except (Misfit, WaferError) as e:
        raise Undecodable(str(e)) from None


def _graph(data: Any, given: Mapping[str, Array] | None) -> Graph:
    names = tuple[str, ...]
    rows: Sequence[tuple[str, tuple[int, ...], str]] = member(
        data, "tensors", tuple[tuple[str, tuple[int, ...], str], ...]
    )
    tensors: dict[str, Tensor] = {}
    for i, (name, shape, kind) in enumerate(rows):
        where = f".tensors[{i}]"
        if name in tensors:
            raise Misfit(f"a second tensor {name!r}", where)
        if min(shape, default=0) < 0 or max((prod(shape), *shape)) > MOST:
            raise Misfit(f"{name!r} has shape {list(shape)}", where)
        tensors[name] = Tensor(name, shape, _type(kind, where))
    held = {n: _value(tensors[n], given) for n in _known(data, "constants", names, tensors)}
    inputs = _known(data, "inputs", names, tensors)
    states = cast(tuple[tuple[str, str], ...], member(data, "states", tuple[tuple[str, str], ...]))
    for i, state in enumerate(states):
        if state[0] not in inputs or state[1] not in tensors:
            raise Misfit(f"{state[0]!r} is no input, or {state[1]!r} no tensor", f".states[{i}]")
    listed: Any = data.get("nodes")
    if not isinstance(listed, list):
        raise Misfit("is no list", ".nodes")
    nodes = tuple(_node(row, i, tensors) for i, row in enumerate(cast(list[Any], listed)))
    length: Length | None = member(data, "length", Length | None)
    if length is not None:
        _judge_length(length, inputs, tensors)
    taken = {*inputs, *held}
    if len(taken) < len(inputs) + len(held):
        raise Misfit("a tensor is listed twice, or is a constant, too", ".inputs")
    for i, node in enumerate(nodes):
        if node.output in taken:
            raise Misfit(f"{node.output!r} is an input or a constant", f".nodes[{i}].output")
    outputs = _known(data, "outputs", names, tensors)
    return Graph(member(data, "name", str), tensors, nodes, held, inputs, outputs, states, length)


def _known(data: Any, name: str, hint: Any, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A member that is a list of tensors."""
    return _all_known(member(data, name, hint), tensors, f".{name}")


def _all_known(names: Iterable[str], tensors: Mapping[str, Tensor], where: str) -> tuple[str, ...]:
    out = tuple(names)
    for i, n in enumerate(out):
        if n not in tensors:
            raise Misfit(f"{n!r} is no tensor", f"{where}[{i}]")
    return out


def _type(name: str, where: str) -> DType:
    try:
        return by_name(name)
    except KeyError:
        raise Misfit(f"{name!r} is no element type", f"{where}[2]") from None


def _value(tensor: Tensor, given: Mapping[str, Array] | None) -> Array:
    kind = tensor.dtype.numpy
    if given is None:
        return absent(tensor.name, tensor.shape, kind)
    value = given.get(tensor.name)
    if value is None:
        raise Misfit(f"{tensor.name!r} is not among the weights", ".constants")
    if (value.shape, value.dtype) != (tensor.shape, kind):
        raise Misfit(f"{tensor} is {value.dtype}{list(value.shape)} among the weights", ".constants")
    return value


def _node(row: Any, number: int, tensors: Mapping[str, Tensor]) -> Node:
    where = f".nodes[{number}]"
    try:
        op: Op = member(row, "op", Op)
        inputs: tuple[str, ...] = member(row, "inputs", tuple[str, ...])
        output: str = member(row, "output", str)
        source: tuple[str, ...] = member(row, "source", tuple[str, ...])
        _judge_op(op)
    except Misfit as e:
        raise Misfit(e.what, where + e.path) from None
    _all_known(inputs, tensors, f"{where}.inputs")
    _all_known([output], tensors, f"{where}.output")
    if len(inputs) != len(op.reads):
        raise Misfit(f"{len(inputs)} tensors for {len(op.reads)} reads", f"{where}.inputs")
    return Node(op, inputs, output, source)


def _judge_op(op: Op) -> None:
    """Misfit for sizes that no op has, or fields that contradict one another."""
    sizes = [n for _, n in op.axes]
    if min(sizes, default=0) < 0 or max(sizes, default=0) > MOST or prod(sizes) > MOST_ITERATIONS:
        raise Misfit(f"axes of {sizes}", ".op.fields.axes")
    if len({a for a, _ in op.axes}) < len(sizes):
        raise Misfit("an axis twice", ".op.fields.axes")
    for access in (*op.reads, op.write):
        for e in access:
            if abs(e.const) > MOST or any(abs(c) > MOST for _, c in e.terms):
                raise Misfit(f"a stride past every tensor: {e}", ".op.fields")
    try:
        op.check()
        size = op.size
        _ = op.key(), op.alternatives(size), op.lane_axis(size), op.folds, op.paired, op.across
    except InvalidOp as e:
        raise Misfit(str(e), ".op") from None
    except (
        Exception
    ) as e:  # the answers of an op's own methods rest on its fields together: whatever they raise
        raise Misfit(f"is no {op.name} that waferc makes ({type(e).__name__}: {e})", ".op") from None


def _judge_length(at: Length, inputs: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    where = ".length.fields"
    if at.input not in inputs or tensors[at.input].shape != () or tensors[at.input].dtype.name != "i64":
        raise Misfit(f"{at.input!r} is no input that counts", f"{where}.input")
    if not 0 < at.added <= at.capacity:
        raise Misfit(f"{at.added} of {at.capacity} positions", where)
    for i, (name, d) in enumerate(at.dims):
        if (
            name not in inputs
            or not 0 <= d < len(tensors[name].shape)
            or tensors[name].shape[d] != at.capacity
        ):
            raise Misfit(f"dimension {d} of {name!r} has no {at.capacity} positions", f"{where}.dims[{i}]")
