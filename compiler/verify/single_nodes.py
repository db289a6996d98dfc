"""Nodes of a model as models of their own, with the values that they have in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import onnx
from onnx import helper, numpy_helper

from ...ir.dtypes import of_numpy
from ...ir.op import Array
from ...runtime.program import Program
from ..errors import UnsupportedOperator, WafercError, quoted, shown
from ..frontend.free_names import free_names
from ..host.one_node import DRAWING

Build = Callable[[bytes, int], Program]
"""The program of a serialised model whose tensors have so many bytes. Raises WafercError."""

KEPT = 64  # programs: equal nodes are mostly near one another

MOST_HELD = 1 << 30  # bytes of constants: a model in memory has less than 2 GiB, and is copied
TRAINING = 2  # Dropout's input that makes it draw


class NotChecked(Exception):
    """A node that cannot be compared. The message is the reason."""


@dataclass(frozen=True)
class Step:
    """A node of a model: what it takes, from outside its bodies too, and what it makes."""

    node: onnx.NodeProto
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def draws(self) -> bool:
        given = self.node.input[TRAINING:] if self.node.op_type == "Dropout" else ()
        return self.node.op_type in DRAWING or any(given)


def steps_of(graph: onnx.GraphProto) -> list[Step]:
    """The graph's nodes in their order, named as the importer names them."""
    return [
        Step(n, n.name or f"{n.op_type}_{i}", tuple(dict.fromkeys(_read(n))), tuple(filter(None, n.output)))
        for i, n in enumerate(graph.node)
    ]


def _read(node: onnx.NodeProto) -> Iterator[str]:
    yield from filter(None, node.input)
    for a in node.attribute:
        yield from free_names(a.g)


def constants_of(steps: Sequence[Step], known: Mapping[str, Array], values: Mapping[str, Array]) -> set[str]:
    """The names whose values are known when compiling: `known`, and what is computed from nothing else.

    values: of a call; what is not among them is not known.
    """
    constant = set(known)
    for s in steps:
        shape_alone = s.node.op_type in ("Shape", "Size") and not s.node.domain
        if not s.draws and (shape_alone or constant.issuperset(s.inputs)):
            constant |= {name for name in s.outputs if name in values}
    return constant


def model_of(
    steps: Sequence[Step],
    outputs: Sequence[str],
    values: Mapping[str, Array],
    constants: set[str],
    whole: onnx.ModelProto,
) -> onnx.ModelProto:
    """Some of the nodes of `whole`, with static shapes.

    What they take from elsewhere are inputs, and `constants` initializers. Raises NotChecked for a value
    that is not there or that no core could hold, or for more than a message can hold.
    """
    made = {name for s in steps for name in s.outputs}
    taken = dict.fromkeys(name for s in steps for name in s.inputs if name not in made)
    declared = {name: _declared(name, values) for name in (*taken, *outputs)}
    held = sum(values[name].nbytes for name in taken if name in constants)
    if held > MOST_HELD:
        raise NotChecked(f"its constants of {held:,} bytes pass the {MOST_HELD:,} of a model of one node")
    graph = helper.make_graph(
        [s.node for s in steps],
        whole.graph.name or "node",
        [declared[name] for name in taken if name not in constants],
        [declared[name] for name in outputs],
        [numpy_helper.from_array(values[name], name) for name in taken if name in constants],
    )
    model = onnx.ModelProto(ir_version=whole.ir_version, graph=graph)
    model.opset_import.extend(whole.opset_import)
    model.functions.extend(whole.functions)
    return model


def _declared(name: str, values: Mapping[str, Array]) -> onnx.ValueInfoProto:
    if name not in values:
        raise NotChecked(f"the type of {quoted(name)} is not known")
    value: Any = values[name]
    try:
        of_numpy(value.dtype)
    except (AttributeError, KeyError):  # a sequence or nothing; text
        raise NotChecked(f"{quoted(name)} is no tensor of numbers") from None
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


class Programs:
    """Programs of single nodes; nodes that differ in names alone share one."""

    def __init__(self, whole: onnx.ModelProto, build: Build) -> None:
        self._whole, self._build = whole, build
        self._kept: dict[bytes, Program | str] = {}

    def run(self, step: Step, values: Mapping[str, Array], constants: set[str]) -> dict[str, Array]:
        """What the node makes of `values`, which hold its outputs' types too. Raises NotChecked."""
        if step.draws:
            raise NotChecked("it draws random numbers, each runtime its own")
        known = [name for name in step.outputs if name in values]
        if not known:
            raise NotChecked(f"the type of {quoted(step.outputs[0])} is not known")
        anonymous, names = _renamed(step)
        own = {names[n]: values[n] for n in (*step.inputs, *known) if n in values}
        given = {names[n] for n in step.inputs if n in constants}
        outputs = [names[n] for n in known]
        model = model_of([anonymous], outputs, own, given, self._whole)
        program = self._program(model, sum(value.nbytes for value in own.values()))
        out = program.run({p.name: own[p.name] for p in program.ports.inputs})
        return {name: out[names[name]] for name in known}

    def _program(self, model: onnx.ModelProto, bytes_held: int) -> Program:
        content = model.SerializeToString()
        key = sha256(content).digest()
        found = self._kept.pop(key, None)
        if found is None:
            try:
                found = self._build(content, bytes_held)
            except UnsupportedOperator as e:
                found = "; ".join(r.reason for r in e.refusals)
            except WafercError as e:
                found = str(e)
        self._kept[key] = found
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        if isinstance(found, str):
            raise NotChecked(shown(found, 200))
        return found


def _renamed(step: Step) -> tuple[Step, dict[str, str]]:
    """The node with names by position, and those names. With bodies, which read by name, it keeps its own."""
    if any(a.HasField("g") for a in step.node.attribute):
        return step, {n: n for n in (*step.inputs, *step.outputs)}
    names = {n: f"i{i}" for i, n in enumerate(step.inputs)}
    names |= {n: f"o{i}" for i, n in enumerate(step.outputs)}
    node = onnx.NodeProto()
    node.CopyFrom(step.node)
    node.ClearField("name")
    node.ClearField("doc_string")
    del node.input[:], node.output[:]
    node.input.extend(names.get(n, "") for n in step.node.input)
    node.output.extend(names.get(n, "") for n in step.node.output)
    inputs, outputs = (tuple(names[n] for n in of) for of in (step.inputs, step.outputs))
    return Step(node, "", inputs, outputs), names
