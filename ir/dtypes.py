"""Element types: one `DType` per ONNX element type that a core can store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DType:
    """An element type: its name, its size in bytes, and its kind.

    `kind` is "f" (float), "i" (signed), "u" (unsigned) or "b" (bool, one byte, 0 or 1).
    """

    name: str
    bytes: int
    kind: str

    def __str__(self) -> str:
        return self.name

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy type of the stored bits."""
        return np.dtype(_NUMPY[self.name])

    @property
    def is_float(self) -> bool:
        return self.kind == "f"


F16 = DType("f16", 2, "f")
BF16 = DType("bf16", 2, "f")  # the upper half of an f32; factors only: read and widened, never computed in
F32 = DType("f32", 4, "f")
F64 = DType("f64", 8, "f")
I8 = DType("i8", 1, "i")
I16 = DType("i16", 2, "i")
I32 = DType("i32", 4, "i")
I64 = DType("i64", 8, "i")
U8 = DType("u8", 1, "u")
U16 = DType("u16", 2, "u")
U32 = DType("u32", 4, "u")
U64 = DType("u64", 8, "u")
BOOL = DType("bool", 1, "b")

ALL = (F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, BOOL)
WEIGHTS = (F16, BF16)  # what weights may be stored as instead of f32
_NUMPY = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "bool": "bool",
    "bf16": "uint16",
}
_BY_NAME = {t.name: t for t in (*ALL, BF16)}
_BY_NUMPY = {t.numpy: t for t in ALL}


def by_name(name: str) -> DType:
    """The type called `name`; KeyError when there is none."""
    return _BY_NAME[name]


def of_numpy(dtype: np.dtype[np.generic]) -> DType:
    """The type that stores NumPy's `dtype`; KeyError when there is none."""
    return _BY_NUMPY[np.dtype(dtype)]


# TensorProto.DataType numbers of the ONNX standard (onnx.proto).
_BY_ONNX = {1: F32, 2: U8, 3: I8, 4: U16, 5: I16, 6: I32, 7: I64, 9: BOOL, 10: F16, 11: F64, 12: U32, 13: U64}


def by_onnx(number: int) -> DType | None:
    """The type of ONNX's TensorProto.DataType `number`; None where a core cannot store it."""
    return _BY_ONNX.get(number)


def stored_as(values: NDArray[np.float32], dtype: DType) -> NDArray[Any]:
    """f32 values as the stored bits of F16 or BF16, rounded to nearest, ties to even."""
    if dtype == F16:
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    bits = np.asarray(values, order="C").view(np.uint32)
    rounded = np.asarray(bits >> 16)
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    # Rounding a NaN could carry out of its mantissa; its upper half with the quiet bit is one.
    np.copyto(rounded, (bits >> 16) | 0x40, where=np.isnan(values))
    return rounded.astype(np.uint16)


def f32_of(stored: NDArray[Any], dtype: DType) -> NDArray[np.float32]:
    """The values of F16's or BF16's stored bits."""
    if dtype == F16:
        return stored.astype(np.float32)
    return (stored.astype(np.uint32) << 16).view(np.float32)
