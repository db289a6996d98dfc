"""What the indices of an operator of the host are held to, when compiling and in a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx

from ...ir.op import Array, Bound

ALONG = {"Gather": 0, "GatherElements": 0, "Scatter": 0, "ScatterElements": 0, "ArrayFeatureExtractor": -1}
ND = frozenset(("GatherND", "ScatterND"))
INDEXED = frozenset(ALONG) | ND


def problem_of(
    op_type: str, attributes: Mapping[str, Any], shape: Sequence[int], indices: Array
) -> str | None:
    """What is wrong with an operator's second input, for a first one of a shape; None: nothing."""
    for bound, values in _bounds(op_type, attributes, shape, indices):
        if (found := bound.outside(values)) is not None:
            return bound.problem(found)
    return None


def _bounds(
    op_type: str, attributes: Mapping[str, Any], shape: Sequence[int], indices: Array
) -> Iterator[tuple[Bound, Array]]:
    """The bounds of an operator's indices, and which of these each is for."""
    if op_type in ND:
        first = int(attributes.get("batch_dims", 0))
        for column, axis in enumerate(range(first, min(len(shape), first + indices.shape[-1]))):
            yield Bound(1, -shape[axis], shape[axis], "index", axis, shape[axis]), indices[..., column]
    else:
        axis = int(attributes.get("axis", ALONG[op_type]))
        axis += len(shape) if axis < 0 else 0
        if 0 <= axis < len(shape):
            yield Bound(1, -shape[axis], shape[axis], "index", axis, shape[axis]), indices


def attributes_of(node: onnx.NodeProto) -> dict[str, int]:
    """Those that decide what indices are held to."""
    return {a.name: a.i for a in node.attribute if a.name in ("axis", "batch_dims")}
