"""The operations, by families. Importing this package registers every ONNX operator."""

from . import contract, elementwise, index, normalize, rearrange, recur, reduce, window

__all__ = ["contract", "elementwise", "index", "normalize", "rearrange", "recur", "reduce", "window"]
