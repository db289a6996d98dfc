"""Operators of the host that take indices, which are held to their bounds.

onnx's reference wraps some that are outside, and answers to others with NumPy's errors. It also inserts at
the front of a sequence what the standard wants at its end.
"""

# The reference's own `_run` is not typed.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_gather, op_gathernd, op_scatter_elements, op_scatternd, op_split_to_sequence
from onnx.reference.ops.aionnxml import op_array_feature_extractor

from ...ir.op import Array
from ...runtime.reports import InvalidIndex
from .index_bounds import attributes_of, problem_of


def _judged(own: OpRun, data: Array, indices: Array) -> None:
    node: onnx.NodeProto = own.onnx_node
    if problem := problem_of(node.op_type, attributes_of(node), data.shape, np.asarray(indices)):
        raise InvalidIndex(f"node {node.name!r}: {problem}")


class Gather(op_gather.Gather):
    def _run(self, x: Array, indices: Array, axis: int | None = None) -> Any:
        _judged(self, x, indices)
        return super()._run(x, indices, axis=axis)


class GatherElements(OpRun):
    def _run(self, data: Array, indices: Array, axis: int = 0) -> Any:
        _judged(self, data, indices)
        axis += data.ndim if axis < 0 else 0
        cut = tuple(slice(None) if d == axis else slice(n) for d, n in enumerate(indices.shape))
        return (np.take_along_axis(data[cut], indices.astype(np.int64), axis),)


class GatherND(op_gathernd.GatherND):
    def _run(self, data: Array, indices: Array, batch_dims: int | None = None) -> Any:
        _judged(self, data, indices)
        return super()._run(data, indices, batch_dims=batch_dims)


class ScatterElements(op_scatter_elements.ScatterElements):
    def _run(
        self,
        data: Array,
        indices: Array,
        updates: Array,
        axis: int | None = None,
        reduction: str | None = None,
    ) -> Any:
        _judged(self, data, indices)
        return super()._run(data, indices, updates, axis=axis, reduction=reduction)


class ScatterND(op_scatternd.ScatterND):
    def _run(self, data: Array, indices: Array, updates: Array, reduction: str | None = None) -> Any:
        _judged(self, data, indices)
        return super()._run(data, indices, updates, reduction=reduction)


class ArrayFeatureExtractor(op_array_feature_extractor.ArrayFeatureExtractor):
    def _run(self, data: Array, indices: Array) -> Any:
        _judged(self, data, indices)
        return super()._run(data, indices)


# -- sequences --------------------------------------------------------------------------------
def _position(own: OpRun, given: Any, count: int, ends: int) -> int:
    """A position in a sequence of `count` elements, from -count to ends, as one from its start."""
    position = int(np.asarray(given).reshape(-1)[0])
    if not -count <= position <= ends:
        allowed = f"{-count} to {ends}" if -count <= ends else "none"
        raise InvalidIndex(
            f"node {own.onnx_node.name!r}: position {position} is outside a sequence of {count} elements "
            f"(allowed: {allowed})"
        )
    return position + count if position < 0 else position


class SequenceAt(OpRun):
    def _run(self, seq: Sequence[Any], position: Any) -> Any:
        return (seq[_position(self, position, len(seq), len(seq) - 1)],)


class SequenceInsert(OpRun):
    def _run(self, seq: Sequence[Any], tensor: Any, position: Any = None) -> Any:
        at = len(seq) if position is None else _position(self, position, len(seq), len(seq))
        return ([*seq[:at], tensor, *seq[at:]],)


class SequenceErase(OpRun):
    def _run(self, seq: Sequence[Any], position: Any = None) -> Any:
        at = _position(self, -1 if position is None else position, len(seq), len(seq) - 1)
        return ([*seq[:at], *seq[at + 1 :]],)


class SplitToSequence(op_split_to_sequence.SplitToSequence):
    def _run(self, mat: Array, split: Any = None, axis: int = 0, keepdims: int = 1) -> Any:
        sizes, size = np.asarray([] if split is None else split), mat.shape[axis]
        if sizes.ndim and split is not None and (sizes.min(initial=0) < 0 or sizes.sum() != size):
            wrong = f"parts of {' '.join(map(str, sizes[:8].tolist()))} elements"
            raise InvalidIndex(f"node {self.onnx_node.name!r}: {wrong}, axis {axis} has {size}")
        if split is not None and not sizes.ndim and sizes < 1:
            raise InvalidIndex(f"node {self.onnx_node.name!r}: parts of {int(sizes)} elements")
        return super()._run(mat, split, axis=axis, keepdims=keepdims)


ArrayFeatureExtractor.op_domain = "ai.onnx.ml"
OPERATORS: tuple[type[OpRun], ...] = (
    ArrayFeatureExtractor,
    Gather,
    GatherElements,
    GatherND,
    ScatterElements,
    ScatterND,
    SequenceAt,
    SequenceErase,
    SequenceInsert,
    SplitToSequence,
)
