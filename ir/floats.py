"""Float formats, and what elementary functions are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps

from . import polynomials as fitted
from .builder import Arithmetic, Value
from .dtypes import F32, F64, I32, I64, DType

PI = 3.141592653589793
LN2 = 0.6931471805599453


@dataclass(frozen=True)
class Format:
    """A float type and the constants that depend on it.

    ln2: log(2) in two parts, the first short enough that its product with an exponent is exact.
    lowest, highest: past them exp is 0 or infinite. splitter: sqrt(1/2)'s bits.
    """

    dtype: DType
    integer: DType
    mantissa: int
    ln2: tuple[float, float]
    lowest: float
    highest: float
    splitter: int
    smallest: float  # normal
    exp: tuple[float, ...]

    @property
    def bias(self) -> int:
        return (1 << (8 * self.dtype.bytes - 2 - self.mantissa)) - 1

    @property
    def magic(self) -> float:
        """Added to a small number, leaves its nearest integer in the low bits of the sum."""
        return 1.5 * 2.0**self.mantissa


SINGLE = Format(
    F32,
    I32,
    23,
    (0.693145751953125, 1.4286068203094173e-06),
    -104.0,
    89.0,
    0x3F3504F3,
    2.0**-126,
    fitted.EXP_F32,
)
DOUBLE = Format(
    F64,
    I64,
    52,
    (0.6931471803691238, 1.9082149292705877e-10),
    -746.0,
    710.0,
    0x3FE6A09E667F3BCD,
    2.0**-1022,
    fitted.EXP_F64,
)

Function = Callable[[Arithmetic, Value], Value]


def format_of(x: Value) -> Format:
    return DOUBLE if x.dtype == F64 else SINGLE


def in_f32(function: Function) -> Function:
    """Computes f16 and bf16 in f32."""

    @wraps(function)
    def wrapped(b: Arithmetic, x: Value) -> Value:
        return b.cast(function(b, b.cast(x, F32)), x.dtype) if x.dtype.bytes == 2 else function(b, x)

    return wrapped


def in_f64(function: Function) -> Function:
    """Computes f16 and f32 in f64: the results are correctly rounded but for rare ties."""

    @wraps(function)
    def wrapped(b: Arithmetic, x: Value) -> Value:
        return b.cast(function(b, b.cast(x, F64)), x.dtype)

    return wrapped


def polynomial(b: Arithmetic, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's rule, lowest degree first."""
    out = b.const(coefficients[-1], x.dtype)
    for c in reversed(coefficients[:-1]):
        out = b.fma(out, x, b.const(c, x.dtype))
    return out


def with_sign(b: Arithmetic, magnitude: Value, x: Value) -> Value:
    """`magnitude` with the sign of `x`; not negative, or already of that sign."""
    integer = b.bits(x).dtype
    sign = b.bit_and(b.bits(x), b.const(-(1 << (8 * integer.bytes - 1)), integer))
    return b.from_bits(b.bit_or(b.bits(magnitude), sign), x.dtype)
