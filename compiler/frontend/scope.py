"""The values of one graph on its way: by their names in the model, what a core holds and what none can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import onnx
from onnx import TensorProto, helper

from ...ir.dtypes import DType, by_onnx
from ...ir.graph import TooLarge, Unsupported
from ...ir.op import Array
from ...ir.rules import GraphBuilder
from ...runtime.script import Stage
from ..errors import DoesNotFit, quoted, shown
from .load import array_of, dense
from .types import static

Key = tuple[str, str]
"""A value: ("tensor", its name in the graph), or ("held", number) for one that only the host holds."""


@dataclass(frozen=True)
class HostStep:
    """What the host does once `at` nodes of the graph are there. stage: made when its values have numbers."""

    at: int
    reads: tuple[Key, ...]
    makes: tuple[Key | None, ...]
    stage: Callable[[Mapping[Key, int]], Stage]


@dataclass
class Scope:
    """The values that a node may read, and the graph that it adds to.

    names: ONNX value -> tensor of `graph`. inputs: the tensors that a call gives. held: values that only the
    host can hold: their keys, and their types as far as known. texts: constants of that kind. lost: values
    behind a refused node. steps: what the host does between the graph's nodes.
    """

    graph: GraphBuilder = field(default_factory=GraphBuilder)
    names: dict[str, str] = field(default_factory=lambda: {"": ""})
    inputs: list[str] = field(default_factory=list[str])
    held: dict[str, tuple[Key, onnx.TypeProto]] = field(default_factory=dict[str, tuple[Key, onnx.TypeProto]])
    texts: dict[str, TensorProto] = field(default_factory=dict[str, TensorProto])
    lost: set[str] = field(default_factory=set[str])
    steps: list[HostStep] = field(default_factory=list[HostStep])
    _numbers: Iterator[int] = field(default_factory=count)

    # -- scopes inside it ---------------------------------------------------------------
    def nested(self) -> Scope:
        """A scope inside, of the same graph: it knows all that this one does, its own names stay its own."""
        return replace(
            self,
            names=dict(self.names),
            held=dict(self.held),
            texts=dict(self.texts),
            lost=set(self.lost),
        )

    def of_function(self, arguments: Mapping[str, str]) -> Scope:
        """A scope of a function's body, of the same graph: it knows the arguments' tensors only."""
        return Scope(self.graph, {"": "", **arguments}, self.inputs)

    # -- declaring ----------------------------------------------------------------------
    def add_initializers(self, graph: onnx.GraphProto, known: dict[str, Array] | None = None) -> None:
        """Declares a graph's constants. known: their values where they were read before; filled."""
        for t in graph.initializer:
            try:
                value = known.get(t.name) if known is not None else None
                if value is None:
                    value = array_of(t)
                if known is not None:
                    known[t.name] = value
                self.add_constant(t.name, value)
            except Unsupported:
                self.texts[t.name] = t
            except (TooLarge, MemoryError) as e:
                raise _too_large(t.name, e, graph) from None
        for s in graph.sparse_initializer:
            try:
                self.add_constant(s.values.name, dense(s))
            except (TooLarge, MemoryError) as e:
                raise _too_large(s.values.name, e, graph) from None

    def add_constant(self, name: str, value: Array) -> None:
        self.names[name] = self.graph.brought(value, name)

    def add_input(self, name: str, shape: Sequence[int], dtype: DType) -> None:
        self.names[name] = self.graph.tensor(name, shape, dtype)
        self.inputs.append(self.names[name])

    def enter(self, name: str, kind: onnx.TypeProto | None) -> Key:
        """Declares a value that comes from outside or from the host."""
        shape = static(kind)
        if kind is None or shape is None:
            self.held[name] = (key := ("held", str(next(self._numbers)))), kind or onnx.TypeProto()
            return key
        dtype = by_onnx(kind.tensor_type.elem_type)
        assert dtype is not None
        self.names[name] = tensor = self.graph.tensor(name, shape, dtype)
        return "tensor", tensor

    # -- asking -------------------------------------------------------------------------
    def knows(self, name: str) -> bool:
        return any(name in of for of in (self.names, self.held, self.texts, self.lost))

    def value(self, name: str) -> Array | None:
        """What is known of a value when compiling."""
        return self.graph.value(self.names.get(name, ""))

    def kind(self, name: str) -> onnx.TypeProto:
        """A value's type, as far as known."""
        if name in self.names:
            return self.kind_of(self.names[name])
        if name in self.texts:
            return helper.make_tensor_type_proto(self.texts[name].data_type, self.texts[name].dims)
        return self.held[name][1] if name in self.held else onnx.TypeProto()

    def kind_of(self, tensor: str) -> onnx.TypeProto:
        """The type of a tensor of the graph; of no type where it is "", an input that is left out."""
        if not tensor:
            return onnx.TypeProto()
        t = self.graph.tensors[tensor]
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(t.dtype.numpy), t.shape)


def _too_large(name: str, e: Exception, graph: onnx.GraphProto) -> DoesNotFit:
    """The error of a constant that has no room, with the first node that reads it."""
    reader = next((n for n in graph.node if name in n.input), None)
    of = (
        ""
        if reader is None
        else f" of node {quoted(reader.name or reader.op_type)} ({shown(reader.op_type)})"
    )
    what = str(e) if isinstance(e, TooLarge) else "it has no room in this machine's memory"
    return DoesNotFit(f"constant {quoted(name)}{of}: {shown(what, 300)}; try smaller sizes")
