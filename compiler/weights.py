"""Weights in 16 bits: half the SRAM, half the bytes that the host reads, and the last digits lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..ir.absent import lacking
from ..ir.dtypes import BF16, F16, F32, DType, stored_as
from ..ir.graph import Graph, Node, Tensor
from ..ir.op import Array
from ..ir.ops.contract import Contract
from ..ir.ops.index import Gather
from .errors import UsageError, quoted

KINDS: dict[str, DType] = {"f16": F16, "bf16": BF16}


def narrow_weights(graph: Graph, kind: str) -> Graph:
    """The graph with its f32 weights stored as `kind`; sums and results stay f32.

    A weight is a constant with two dimensions or more that only products and table look-ups read.
    Raises UsageError where one is too large for f16.
    """
    dtype = KINDS[kind]
    readers = graph.readers()
    chosen = {
        name
        for name in graph.constants
        if _matrix(graph.tensors[name])
        and name not in graph.results
        and readers.get(name)
        and all(_takes(graph.nodes[i], operand) for i, operand in readers[name])
    }

    def narrowed(node: Node) -> Node:
        types = tuple(
            dtype if name in chosen else t for name, t in zip(node.inputs, node.op.in_types, strict=True)
        )
        return node if types == node.op.in_types else replace(node, op=replace(node.op, in_types=types))

    tensors = {n: Tensor(n, t.shape, dtype) if n in chosen else t for n, t in graph.tensors.items()}
    constants = {n: _stored(n, v, dtype) if n in chosen else v for n, v in graph.constants.items()}
    out = replace(graph, nodes=tuple(map(narrowed, graph.nodes)), tensors=tensors, constants=constants)
    out.check()
    return out


def _matrix(t: Tensor) -> bool:
    return t.dtype == F32 and sum(n > 1 for n in t.shape) >= 2


def _takes(node: Node, operand: int) -> bool:
    """Whether the node can read operand number `operand` in 16 bits: its other types stay f32."""
    if node.op.out_type != F32:
        return False
    return isinstance(node.op, Contract) or (isinstance(node.op, Gather) and operand == 0)


def _stored(name: str, value: Array, dtype: DType) -> Array:
    if lacking([value]):
        return value.astype(dtype.numpy)
    stored = stored_as(value, dtype)
    if dtype == F16 and not np.array_equal(np.isinf(stored), np.isinf(value)):
        largest = float(np.abs(value[np.isfinite(value)]).max())
        raise UsageError(
            f"--weights f16: {quoted(name)} holds {largest:g}, f16 ends at 65504; try --weights bf16"
        )
    return stored
