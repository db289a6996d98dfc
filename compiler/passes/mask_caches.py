"""Attention over caches of fixed capacity: what lies past their filled part counts for nothing.

Whatever sums or compares over positions sees those at or past `length + added` as nothing: they are masked,
whatever the model's own mask does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from ...ir.affine import axis
from ...ir.graph import Graph, Length, Node
from ...ir.ops.conversion import Where
from ...ir.ops.elementwise import Add, apply
from ...ir.ops.logic import Less
from ...ir.ops.rearrange import concat, reshape
from ..errors import UnsupportedModel, quoted
from .rewriter import Rewriter

Dims = Mapping[str, tuple[int, ...]]


def mask_caches(graph: Graph, length: Length, grown: Dims | None = None) -> Graph:
    """The graph with positions past `length` and what a call adds masked wherever they would be summed or
    compared.

    grown: of tensors the dimensions that run over positions, of such that no cache went into, too. Raises
    UnsupportedModel where what an op makes of such positions is not known.
    """
    return _Masking(graph, length, grown or {}).finish()


def positions_of(node: Node, dims: Dims) -> Iterator[tuple[str, tuple[int, int]]]:
    """The node's axes that run over positions and nothing else, each with its operand and the dimension."""
    for j, (t, access) in enumerate(zip(node.inputs, node.op.reads, strict=True)):
        for d in dims.get(t, ()):
            if len(access[d].terms) == 1 and access[d] == axis(access[d].axes[0]):
                yield access[d].axes[0], (j, d)


class _Masking(Rewriter):
    """filled: the dimension of each cache that is filled. dims: for each tensor made of caches the dimensions
    that run over positions; nothing: tensors that are 0 past the visible ones."""

    def __init__(self, graph: Graph, length: Length, grown: Dims) -> None:
        super().__init__(graph)
        self.length, self.filled, self.grown = length, dict(length.dims), grown
        self.dims: dict[str, tuple[int, ...]] = {}
        self.nothing: set[str] = set()
        self._visible = ""
        for node in graph.nodes:
            self.source = node.source
            positions = set(self._positions(node))
            masked = self._masked(node, positions, self.dims)
            if not masked.op.bounds:
                rest = {a for a, _ in positions_of(masked, self.grown)} - positions
                masked = self._masked(masked, rest, self.grown)
            self.nodes.append(masked)
            self._note(masked, positions)

    def _positions(self, node: Node) -> Iterator[str]:
        """The node's axes that run over positions."""
        op = node.op
        if op.updates is not None:
            yield from op.write[self.filled[node.inputs[op.updates]]].axes
            return
        for t, access in zip(node.inputs, op.reads, strict=True):
            for d in self.dims.get(t, ()):
                e = access[d]
                if len(e.terms) != 1 or e.terms[0][1] != 1 or e.const:
                    raise UnsupportedModel(
                        f"node {quoted(node.source[0] if node.source else op.name)} ({op.name}) takes a part "
                        "of a cache's positions, or several at once"
                    )
                yield e.terms[0][0]

    def _masked(self, node: Node, positions: set[str], dims: Dims) -> Node:
        """The node with operands that are nothing where no position is."""
        op = node.op
        for a in sorted(positions & {*op.reduced, *op.whole}):
            over = [place for found, place in positions_of(node, dims) if found == a]
            if op.zero_absorbs and any(node.inputs[j] in self.nothing for j, _ in over):
                continue
            j, d = over[0]
            fill = op.neutral_in(j)
            if fill is None:
                raise UnsupportedModel(
                    f"node {quoted(node.source[0] if node.source else op.name)} ({op.name}) combines all "
                    "positions, also those that hold nothing yet"
                )
            masked = self._mask(node.inputs[j], d, fill)
            node = replace(node, inputs=(*node.inputs[:j], masked, *node.inputs[j + 1 :]))
        return node

    def _mask(self, tensor: str, dim: int, fill: float) -> str:
        sizes = [n if d == dim else 1 for d, n in enumerate(self.shape(tensor))]
        seen = reshape(self, self._visible_of(sizes[dim]), sizes, "visible")
        value = self.constant(np.asarray(fill, self.dtype(tensor).numpy))
        out = apply(self, Where, [seen, tensor, value], tensor)
        self.dims[out] = self.dims.get(tensor, ())
        return out

    def _visible_of(self, size: int) -> str:
        """bool [size]: of a dimension in which something else, a sink, stands behind the positions."""
        rest = size - self.length.capacity
        return (
            concat(self, [self.visible(), self.constant(np.ones(rest, np.bool_))], 0, "visible")
            if rest
            else self.visible()
        )

    def visible(self) -> str:
        """bool [capacity]: the positions that hold something once this call's are written."""
        if not self._visible:
            added = self.constant(np.asarray(self.length.added, np.int64))
            end = apply(self, Add, [self.length.input, added], "end")
            places = self.constant(np.arange(self.length.capacity, dtype=np.int64))
            self._visible = apply(self, Less, [places, end], "visible")
        return self._visible

    def _note(self, node: Node, positions: set[str]) -> None:
        """What is known of the node's result."""
        op = node.op
        found = tuple(d for d, e in enumerate(op.write) if positions & set(e.axes))
        if not found:
            return
        if any(len(op.write[d].terms) != 1 or op.write[d].const for d in found):
            raise UnsupportedModel(f"{op.name} mixes a cache's positions with another dimension")
        self.dims[node.output] = found
        # What no call has written yet is 0. A masked position's share is 0, too.
        if (
            op.updates is not None
            or positions & set(op.softmax_over)
            or (op.zero_absorbs and not self.nothing.isdisjoint(node.inputs))
        ):
            self.nothing.add(node.output)
