"""Graphs, ops and wafers as JSON values and back. Names classes only from a fixed list; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ...ir.absent import absent
from ...ir.affine import Affine
from ...ir.dtypes import DType, by_name
from ...ir.graph import Graph, Length, Node, Tensor
from ...ir.op import Op
from ...placement.machine.wafer import Wafer


class Undecodable(ValueError):
    """JSON that does not describe what it should."""


def op_classes() -> dict[str, type[Any]]:
    """Every concrete op, and what their fields are made of, by the class's name."""
    from ...ir import ops  # registers every op class; a run needs none of them

    fused = ops.fused
    parts = (fused.Constant, fused.Operand, fused.Result, fused.Step, ops.sample.Border)
    out: dict[str, type[Any]] = {c.__name__: c for c in parts}
    todo: list[type[Op]] = [Op]
    while todo:
        c = todo.pop()
        out[c.__name__] = c
        todo += c.__subclasses__()
    return out


def encode(value: Any) -> Any:
    """A JSON value for numbers, strings, tuples, mappings, DTypes and our dataclasses."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, DType):
        return {"type": value.name}
    if isinstance(value, Affine):
        return {"affine": [[[a, c] for a, c in value.terms], value.const]}
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Mapping):
        return {"map": [[encode(k), encode(v)] for k, v in value.items()]}  # pyright: ignore[reportUnknownVariableType]
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "class": type(value).__name__,
            "fields": {f.name: encode(getattr(value, f.name)) for f in fields(value)},
        }
    raise TypeError(f"cannot encode {type(value).__name__}")


def decode(value: Any, classes: Mapping[str, type[Any]]) -> Any:
    """The value of `encode`; lists become tuples. Raises Undecodable."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list):
        return tuple(decode(v, classes) for v in value)  # pyright: ignore[reportUnknownVariableType]
    try:
        match value:
            case {"float": text}:
                return float.fromhex(text)
            case {"type": name}:
                return by_name(name)
            case {"affine": [terms, const]}:
                return Affine(tuple((a, c) for a, c in terms), const)
            case {"map": items}:
                return {decode(k, classes): decode(v, classes) for k, v in items}
            case {"class": name, "fields": given}:
                return classes[name](**{k: decode(v, classes) for k, v in given.items()})
            case _:
                pass
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise Undecodable(f"{e!r}") from None
    raise Undecodable(f"{str(value)[:60]!r}")


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


def decode_graph(data: Any, constants: Mapping[str, Any] | None = None) -> Graph:
    """The graph; `constants` maps names to values where they are known."""
    classes = op_classes()
    try:
        tensors = {n: Tensor(n, tuple(s), by_name(t)) for n, s, t in data["tensors"]}
        given = constants or {}
        return Graph(
            data["name"],
            tensors,
            tuple(
                Node(decode(n["op"], classes), tuple(n["inputs"]), n["output"], tuple(n["source"]))
                for n in data["nodes"]
            ),
            {
                n: given[n] if n in given else absent(n, tensors[n].shape, tensors[n].dtype.numpy)
                for n in data["constants"]
            },
            tuple(data["inputs"]),
            tuple(data["outputs"]),
            tuple((a, b) for a, b in data["states"]),
            decode(data["length"], {"Length": Length}),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise Undecodable(f"graph: {e!r}") from None


def decode_wafer(data: Any) -> Wafer:
    wafer = decode(data, {"Wafer": Wafer})
    if not isinstance(wafer, Wafer):
        raise Undecodable("wafer")
    return wafer
