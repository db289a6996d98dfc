"""A model's nodes as the walk enters them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx

from ..errors import Refusal, quoted, shown
from .free_names import free_in_bodies
from .opsets import domain_of


@dataclass(frozen=True)
class ModelNode:
    """A node, and what sources and errors call it: one in a function's body has the name of the call."""

    proto: onnx.NodeProto
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
    def where(self) -> str:
        return f"node {quoted(self.name)} ({shown(self.op_type)})"

    def refusal(self, reason: str, unbound: tuple[str, ...] = ()) -> Refusal:
        return Refusal(self.op_type, self.domain, 1, reason, self.name, unbound)


def name_of(node: onnx.NodeProto, position: int) -> str:
    """A node's name; one without is called after its operator and its place among its graph's nodes."""
    return node.name or f"{node.op_type}_{position}"
