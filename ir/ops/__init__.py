"""The operations, by families. Importing this package registers every ONNX operator."""

from . import (
    activation,
    contract,
    conversion,
    einsum,
    elementwise,
    fused,
    index,
    logic,
    normalize,
    rearrange,
    recur,
    reduce,
    shape,
    trigonometry,
    upsample,
    window,
)

__all__ = [
    "activation",
    "contract",
    "conversion",
    "einsum",
    "elementwise",
    "fused",
    "index",
    "logic",
    "normalize",
    "rearrange",
    "recur",
    "reduce",
    "shape",
    "trigonometry",
    "upsample",
    "window",
]
