"""Weights in 16 bits: half the SRAM, half the bytes that the host reads, and the last digits lost.

What is multiplied with bf16 weights may be rounded to bf16 too. The graph says so, which makes it the same on
every host: a product of two bf16 numbers is exact in f32, where the sums are made.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...ir.absent import lacking
from ...ir.dtypes import BF16, F16, F32, DType, stored_as
from ...ir.graph import Graph, Node, Tensor
from ...ir.op import Array, identity
from ...ir.ops.conversion import Cast
from ..errors import UsageError, quoted
from .rewriter import Rewriter

KINDS: dict[str, DType] = {"f16": F16, "bf16": BF16}


def narrow_weights(graph: Graph, kind: str, activations: str) -> Graph:
    """The graph with its f32 weights stored as `kind`; sums and results stay f32.

    Those are `Graph.narrowable`. activations: "bf16" to round what products multiply with them too.
    Raises UsageError where a weight is too large for f16.
    """
    dtype = KINDS[kind]
    chosen = graph.narrowable

    def narrowed(node: Node) -> Node:
        types = tuple(
            dtype if name in chosen else t for name, t in zip(node.inputs, node.op.in_types, strict=True)
        )
        return node if types == node.op.in_types else replace(node, op=replace(node.op, in_types=types))

    tensors = {n: Tensor(n, t.shape, dtype) if n in chosen else t for n, t in graph.tensors.items()}
    constants = {n: _stored(n, v, dtype) if n in chosen else v for n, v in graph.constants.items()}
    out = replace(graph, nodes=tuple(map(narrowed, graph.nodes)), tensors=tensors, constants=constants)
    out.check()
    return _round_factors(out) if activations == "bf16" else out


def _round_factors(graph: Graph) -> Graph:
    """Run-time factors of products with bf16 weights in bf16, too: each tensor is cast once."""
    r, casts = Rewriter(graph), dict[str, str]()

    def cast(name: str) -> str:
        if name not in casts:
            shape = r.shape(name)
            casts[name] = made = r.tensor(f"{name}_bf16", shape, BF16)
            axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
            whole = identity([a for a, _ in axes])
            op = Cast(axes=axes, reads=(whole,), write=whole, in_types=(F32,), out_type=BF16)
            r.add(op, (name,), made, ())
        return casts[name]

    for node in graph.nodes:
        types = node.op.in_types
        if node.op.rounds_factors and set(types) == {F32, BF16}:
            wide = types.index(F32)
            if node.inputs[wide] not in graph.constants:
                inputs = list(node.inputs)
                inputs[wide] = cast(inputs[wide])
                node = replace(node, inputs=tuple(inputs), op=replace(node.op, in_types=(BF16, BF16)))
        r.nodes.append(node)
    return r.finish()


def _stored(name: str, value: Array, dtype: DType) -> Array:
    if lacking([value]) is not None:
        return value.astype(dtype.numpy)
    stored = stored_as(value, dtype)
    if dtype == F16 and not np.array_equal(np.isinf(stored), np.isinf(value)):
        largest = float(np.abs(value[np.isfinite(value)]).max())
        raise UsageError(
            f"--weights: {quoted(name)} holds {largest:g}, f16 ends at 65504; try --weights bf16"
        )
    return stored
