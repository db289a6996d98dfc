"""Element types: one `DType` per ONNX element type that a core can store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import ml_dtypes
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DType:
    """An element type: its name, its size in bytes, and its kind.

    `kind` is "f" (float), "i" (signed), "u" (unsigned) or "b" (bool, one byte, 0 or 1). Types of fewer than
    eight bits have a byte for each element: their bits are its lowest, the rest is 0.
    """

    name: str
    bytes: int
    kind: str

    def __str__(self) -> str:
        return self.name

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """NumPy's type, or that of ml_dtypes, with the same bytes."""
        return np.dtype(_NUMPY[self.name])

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def bits(self) -> int:
        return _BITS.get(self.name, 8 * self.bytes)

    @property
    def computed(self) -> DType:
        """The type that arithmetic on this one is done in: f32 for floats that are only stored."""
        return _COMPUTED.get(self.name, self)

    @property
    def wide(self) -> DType:
        """The type of what an operator has between its operands and its result, which is rounded once: for
        f16, too, f32, whose range holds the squares, sums and powers of what f16 holds."""
        return F32 if self == F16 else self.computed

    @property
    def limits(self) -> tuple[int, int] | tuple[float, float]:
        """The least and the greatest finite number."""
        if self.is_float:
            of_float = cast(Any, ml_dtypes.finfo(self.numpy))
            return float(of_float.min), float(of_float.max)
        of_integer = ml_dtypes.iinfo(self.numpy)
        return int(of_integer.min), int(of_integer.max)

    @property
    def least_normal(self) -> float:
        """Of a float, the least positive number that has all bits of precision."""
        return float(cast(Any, ml_dtypes.finfo(self.numpy)).smallest_normal)


F16 = DType("f16", 2, "f")
BF16 = DType("bf16", 2, "f")  # the upper half of an f32
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

F8E4M3FN = DType("f8e4m3fn", 1, "f")
F8E4M3FNUZ = DType("f8e4m3fnuz", 1, "f")
F8E5M2 = DType("f8e5m2", 1, "f")
F8E5M2FNUZ = DType("f8e5m2fnuz", 1, "f")
F8E8M0 = DType("f8e8m0", 1, "f")  # powers of two
F6E2M3 = DType("f6e2m3", 1, "f")
F6E3M2 = DType("f6e3m2", 1, "f")
F4E2M1 = DType("f4e2m1", 1, "f")
I4 = DType("i4", 1, "i")
U4 = DType("u4", 1, "u")
I2 = DType("i2", 1, "i")
U2 = DType("u2", 1, "u")

ALL = (F16, BF16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, BOOL)
MINIFLOATS = (F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F6E2M3, F6E3M2, F4E2M1)
SMALL = (*MINIFLOATS, I4, U4, I2, U2)  # moved, converted and quantised, never computed in
WEIGHTS = (F16, BF16)  # what weights may be stored as instead of f32
SUB_BYTE = (I4, U4, I2, U2)
SIGNED = {1: I8, 2: I16, 4: I32, 8: I64}  # integers by their bytes
_BITS = {"f6e2m3": 6, "f6e3m2": 6, "f4e2m1": 4, "i4": 4, "u4": 4, "i2": 2, "u2": 2}
_COMPUTED = {t.name: F32 for t in (BF16, *MINIFLOATS)}
_NUMPY = {
    "f16": "float16",
    "bf16": "bfloat16",
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
    "f8e4m3fn": "float8_e4m3fn",
    "f8e4m3fnuz": "float8_e4m3fnuz",
    "f8e5m2": "float8_e5m2",
    "f8e5m2fnuz": "float8_e5m2fnuz",
    "f8e8m0": "float8_e8m0fnu",
    "f6e2m3": "float6_e2m3fn",
    "f6e3m2": "float6_e3m2fn",
    "f4e2m1": "float4_e2m1fn",
    "i4": "int4",
    "u4": "uint4",
    "i2": "int2",
    "u2": "uint2",
}
_BY_NAME = {t.name: t for t in (*ALL, *SMALL)}
_BY_NUMPY = {t.numpy: t for t in (*ALL, *SMALL)}


def by_name(name: str) -> DType:
    """The type called `name`; KeyError when there is none."""
    return _BY_NAME[name]


def of_numpy(dtype: np.dtype[np.generic]) -> DType:
    """The type that stores NumPy's `dtype`; KeyError when there is none."""
    return _BY_NUMPY[np.dtype(dtype)]


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether NumPy's `dtype` is a float that a core can store; NumPy itself knows only its own."""
    found = _BY_NUMPY.get(dtype)
    return found is not None and found.is_float


# TensorProto.DataType numbers of the ONNX standard (onnx.proto).
_BY_ONNX = {
    1: F32,
    2: U8,
    3: I8,
    4: U16,
    5: I16,
    6: I32,
    7: I64,
    9: BOOL,
    10: F16,
    11: F64,
    12: U32,
    13: U64,
    16: BF16,
    17: F8E4M3FN,
    18: F8E4M3FNUZ,
    19: F8E5M2,
    20: F8E5M2FNUZ,
    21: U4,
    22: I4,
    23: F4E2M1,
    24: F8E8M0,
    25: U2,
    26: I2,
    27: F6E2M3,
    28: F6E3M2,
}


def by_onnx(number: int) -> DType | None:
    """The type of ONNX's TensorProto.DataType `number`; None where a core cannot store it."""
    return _BY_ONNX.get(number)


def stored_as(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Numbers as a float type that is only stored, rounded once, to nearest, ties to even.

    What is too large for the type becomes infinite, or what the type has instead.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _single(values).astype(dtype.numpy)


def _single(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers as f32 that round to a shorter float as they themselves do: not exact ones to odd.

    See `floats.odd_f32`; ml_dtypes rounds f64 and integers to f32 first, and then again.
    """
    kind = of_numpy(values.dtype)
    if kind.computed == F32 or kind.bytes <= 2:
        return values.astype(np.float32)
    if kind.bytes == 8 and not kind.is_float:
        low = values & values.dtype.type(0x7FF)
        sticky = (values ^ low) | (low != 0).astype(values.dtype) << values.dtype.type(11)
        large = np.abs(values.astype(np.float64)) >= 2.0**53
        values = np.where(large, sticky, values)
    wide = values.astype(np.float64)
    near = wide.astype(np.float32)
    bits = near.view(np.int32)
    short = np.abs(near.astype(np.float64)) - np.abs(wide)
    step = np.where(bits & 1, 0, np.where(short < 0, 1, np.where(short > 0, -1, 0)))
    return (bits + step.astype(np.int32)).view(np.float32)
