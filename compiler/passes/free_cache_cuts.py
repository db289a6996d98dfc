"""Caches that other entries of a model can cut as freely as the one that is planned first."""

from __future__ import annotations

from dataclasses import replace

from ...ir.affine import access_axes
from ...ir.graph import Graph
from ...ir.op import identity
from ...ir.ops.rearrange import Copy
from .rewriter import Rewriter


def cut_caches_freely(graph: Graph) -> Graph:
    """Products that read a cache with at most one axis in a dimension of their result, copied to what it is.

    A cache lies as one entry's product cuts it; those of other entries must be able to cut alike.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        op = node.op
        reads_cache = op.product and not graph.in_place.keys().isdisjoint(node.inputs)
        if not reads_cache or all(len(e.axes) <= 1 for e in op.write):
            r.nodes.append(node)
            continue
        write = identity(access_axes(op.write))
        sizes = tuple((a, op.size[a]) for a in access_axes(op.write))
        plain = r.tensor(f"{node.output}.plain", [n for _, n in sizes], op.out_type)
        r.add(replace(op, write=write), node.inputs, plain, node.source)
        copied = Copy(
            axes=sizes, reads=(write,), write=op.write, in_types=(op.out_type,), out_type=op.out_type
        )
        r.add(copied, (plain,), node.output, node.source)
    return r.finish()
