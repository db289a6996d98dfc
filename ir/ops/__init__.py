"""The operations, by families. Importing this package registers every ONNX operator."""

from . import (
    activation,
    contract,
    elementwise,
    index,
    logic,
    normalize,
    rearrange,
    recur,
    reduce,
    shape,
    window,
)

__all__ = [
    "activation",
    "contract",
    "elementwise",
    "index",
    "logic",
    "normalize",
    "rearrange",
    "recur",
    "reduce",
    "shape",
    "window",
]
