"""Numbers in the code, where constants of one element were read."""

from __future__ import annotations

import math
from dataclasses import replace

from ...ir.graph import Graph, Node
from ...ir.ops.fused import Constant, Fused, Operand, Source, as_steps, renumbered


def embed_scalars(graph: Graph) -> Graph:
    """Constants of one element become numbers in the code of the elementwise ops that read them."""
    nodes: list[Node] = []
    for node in graph.nodes:
        op = node.op
        values = [_scalar(graph, t) for t in node.inputs]
        if not op.elementwise or op.is_copy or all(v is None for v in values):
            nodes.append(node)
            continue
        kept = [j for j, v in enumerate(values) if v is None]
        sources: list[Source] = [v or Operand(kept.index(j)) for j, v in enumerate(values)]
        fused = Fused(
            axes=op.axes,
            reads=tuple(op.reads[j] for j in kept),
            write=op.write,
            in_types=tuple(op.in_types[j] for j in kept),
            out_type=op.out_type,
            fill=op.fill,
            steps=renumbered(as_steps(op), sources, 0),
        )
        nodes.append(replace(node, op=fused, inputs=tuple(node.inputs[j] for j in kept)))
    return replace(graph, nodes=tuple(nodes))


def _scalar(graph: Graph, tensor: str) -> Constant | None:
    value = graph.constants.get(tensor)
    if value is None or value.size != 1:
        return None
    number = value.reshape(()).item()
    if isinstance(number, float) and math.isnan(number):
        return None  # one NaN is not like another
    return Constant(number, repr(number), graph.tensors[tensor].dtype)
