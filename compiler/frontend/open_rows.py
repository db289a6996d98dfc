"""NonZero of what a run computes: it takes rows, of which only the run knows how many there are.

The walk goes on with a row for every place. That is the same model if each row is computed for itself and put
where its place says, or nowhere; and if nothing is made of how many rows there are. The latter is seen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...ir.rules import GraphBuilder
from ..errors import quoted
from .node import ModelNode

MEASURES = (("", "Shape"), ("", "Size"))
ENDS = (("", "Scatter"), ("", "ScatterElements"), ("", "ScatterND"))  # they may put rows where they belong
SHAPED = (("", "Reshape"), ("", "Expand"), ("", "ConstantOfShape"))  # what a number may be but data: a size


@dataclass
class OpenRows:
    """What a walk found.

    sizes: tensors with such rows. numbers: constants made of how many there are. problem: what is made of
    these, "" for nothing.
    """

    sizes: set[str] = field(default_factory=set[str])
    numbers: set[str] = field(default_factory=set[str])
    problem: str = ""

    def follow(self, g: GraphBuilder, node: ModelNode, inputs: Sequence[str], results: Sequence[str]) -> None:
        """Notes what a node made."""
        made = [t for t in results if t and t not in inputs]
        counted = not self.numbers.isdisjoint(inputs)
        if node.key == ("", "NonZero") and made and made[0] not in g.constants:
            self.sizes.update(made)
        elif node.key in MEASURES and not self.sizes.isdisjoint(inputs):
            self.numbers.update(made)
        elif counted and node.key in SHAPED and (made or results[0] in self.sizes):
            (self.numbers if inputs[0] in self.numbers and len(inputs) > 1 else self.sizes).update(made)
        elif counted and all(t in g.constants for t in results):
            self.numbers.update(made)
        elif counted:
            self.judge_number(node, inputs)
        elif not self.sizes.isdisjoint(inputs[:1] if node.key in ENDS else inputs):
            self.sizes.update(made)

    def judge_output(self, g: GraphBuilder, name: str, tensor: str) -> None:
        """Notes an output that is made of how many rows there are."""
        if tensor in self.numbers or (tensor in self.sizes and tensor in g.constants):
            self.problem = self.problem or f"output {quoted(name)} is made of how many there are"

    def judge_number(self, node: ModelNode, inputs: Sequence[str]) -> None:
        """Notes a node that computes with, or decides by, how many rows there are."""
        if not self.numbers.isdisjoint(inputs):
            self.problem = self.problem or f"{node.where} takes how many there are for a number"
