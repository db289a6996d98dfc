"""A model's nodes as the walk enters them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import onnx

from ..errors import Refusal, quoted, shown
from .free_names import free_in_bodies
from .opsets import domain_of


@dataclass(frozen=True)
class ModelNode:
    """A node at its position among its graph's, and what sources and errors call it.

    One in a function's body has the name of the call.
    """

    proto: onnx.NodeProto
    position: int
    name: str

    @property
    def op_type(self) -> str:
        return self.proto.op_type

    @cached_property
    def domain(self) -> str:
        return domain_of(self.proto.domain)

    @property
    def key(self) -> tuple[str, str]:
        """What rules and functions are found by."""
        return self.domain, self.op_type

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The values that it takes: its inputs, then what its bodies capture."""
        return tuple(t for t in (*self.proto.input, *free_in_bodies(self.proto)) if t)

    @property
    def named(self) -> onnx.NodeProto:
        """The node with the name that errors call it."""
        out = onnx.NodeProto()
        out.CopyFrom(self.proto)
        out.name = self.name
        return out

    @property
    def where(self) -> str:
        return f"node {quoted(self.name)} ({shown(self.op_type)})"

    def refusal(self, reason: str, unbound: tuple[str, ...] = ()) -> Refusal:
        return Refusal(self.op_type, self.domain, 1, reason, self.name, unbound)


def nodes_of(protos: Iterable[onnx.NodeProto]) -> Iterator[ModelNode]:
    """A graph's nodes; one without a name is called after its operator and its position."""
    for i, proto in enumerate(protos):
        yield ModelNode(proto, i, proto.name or f"{proto.op_type}_{i}")
