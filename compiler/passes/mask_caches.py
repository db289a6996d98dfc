"""Attention over a cache of fixed capacity: what lies past its filled part is masked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ...ir.graph import Graph, GraphBuilder, Length, Node
from ...ir.ops.contract import Contract
from ...ir.ops.conversion import Where
from ...ir.ops.elementwise import Add, Mul, apply
from ...ir.ops.index import TensorScatter
from ...ir.ops.logic import Less
from ...ir.ops.loops import neutral
from ...ir.ops.normalize import Softmax
from ...ir.ops.rearrange import Copy, reshape
from ...ir.ops.reduce import Reduce
from ..errors import UnsupportedModel, quoted


# -- what positions that hold nothing may touch ---------------------------------------------------
def visible_only(graph: Graph) -> Graph:
    """The graph with positions past `length + added` masked wherever they would be summed or compared."""
    assert graph.length is not None
    return _Masking(graph, graph.length).run()


@dataclass
class _Masking:
    """dims: for each tensor the dimensions that run over positions; nothing: tensors that are 0 past the
    visible ones."""

    graph: Graph
    length: Length
    dims: dict[str, tuple[int, ...]] = field(default_factory=lambda: {})
    nothing: set[str] = field(default_factory=lambda: set())
    _visible: str = ""

    def run(self) -> Graph:
        graph = self.graph
        self.g = g = GraphBuilder(dict(graph.tensors), dict(graph.constants))
        for node in graph.nodes:
            g.source = node.source
            positions = set(self._positions(node))
            g.nodes.append(self._masked(node, positions))
            self._note(g.nodes[-1], positions)
        out = replace(graph, tensors=g.tensors, constants=g.constants, nodes=tuple(g.nodes))
        out.check()
        return out

    def _positions(self, node: Node) -> Iterator[str]:
        """The node's axes that run over positions."""
        op = node.op
        if isinstance(op, TensorScatter) and op.in_place:
            yield "c"
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

    def _masked(self, node: Node, positions: set[str]) -> Node:
        """The node with operands that are nothing where no position is."""
        op = node.op
        for a in sorted(positions & {*op.reduced, *op.whole}):
            over = [
                (j, d)
                for j, (t, access) in enumerate(zip(node.inputs, op.reads, strict=True))
                for d in self.dims.get(t, ())
                if access[d].axes == (a,)
            ]
            if isinstance(op, Contract):
                if any(node.inputs[j] in self.nothing for j, _ in over):
                    continue
                fill = 0.0
            elif isinstance(op, Softmax):
                fill = float("-inf")
            elif isinstance(op, Reduce):
                fill = neutral(op.kind, op.in_types[0])
            else:
                raise UnsupportedModel(
                    f"node {quoted(node.source[0] if node.source else op.name)} ({op.name}) combines all "
                    "positions of a cache, also those that hold nothing yet"
                )
            j, d = over[0]
            masked = self._mask(node.inputs[j], d, fill)
            node = replace(node, inputs=(*node.inputs[:j], masked, *node.inputs[j + 1 :]))
        return node

    def _mask(self, tensor: str, dim: int, fill: float) -> str:
        g = self.g
        shape = g.shape(tensor)
        seen = reshape(g, self.visible(), [n if d == dim else 1 for d, n in enumerate(shape)], "visible")
        value = g.constant(np.asarray(fill, g.dtype(tensor).numpy))
        out = apply(g, Where, [seen, tensor, value], tensor)
        self.dims[out] = self.dims[tensor]
        return out

    def visible(self) -> str:
        """bool [capacity]: the positions that hold something once this call's are written."""
        if not self._visible:
            g = self.g
            added = g.constant(np.asarray(self.length.added, np.int64))
            end = apply(g, Add, [self.length.input, added], "end")
            places = g.constant(np.arange(self.length.capacity, dtype=np.int64))
            self._visible = apply(g, Less, [places, end], "visible")
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
        empty = [t in self.nothing for t in node.inputs]
        # 0 stays 0 where it is moved, or multiplied with what is finite.
        if (
            (isinstance(op, TensorScatter) and op.in_place)
            or (isinstance(op, Softmax) and not op.logarithm)
            or (isinstance(op, Copy) and all(empty))
            or (isinstance(op, Mul | Contract) and any(empty))
        ):
            self.nothing.add(node.output)
