"""Types that are only stored, in terms of ones that are computed in: bf16, floats of a byte or less, and
integers of fewer than eight bits.

Formats as the Open Compute Project's "8-bit Floating Point" and "Microscaling Formats" specifications have
them; those that end in UZ have a bias one higher, one zero, and their only NaN where -0 would be.
"""

from __future__ import annotations

from dataclasses import dataclass

from .builder import Arithmetic, Value
from .dtypes import (
    BF16,
    F4E2M1,
    F6E2M3,
    F6E3M2,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F32,
    F64,
    I8,
    I16,
    I32,
    SUB_BYTE,
    U8,
    DType,
)

_F32_BIAS, _F32_MANTISSA, _INFINITY, _NAN = 127, 23, 0x7F800000, 0x7FC00000


@dataclass(frozen=True)
class Minifloat:
    """A float format: a sign bit, then exponent and mantissa.

    largest: the bits of the greatest finite number. nan: those of NaN, None without one. infinity: what
    overflow is where it does not saturate. zeros: whether zero has a sign.
    """

    mantissa: int
    bias: int
    largest: int
    infinity: int
    nan: int | None
    zeros: bool = True


FORMATS = {
    F8E4M3FN: Minifloat(3, 7, 0x7E, 0x7F, 0x7F),
    F8E4M3FNUZ: Minifloat(3, 8, 0x7F, 0x80, 0x80, zeros=False),
    F8E5M2: Minifloat(2, 15, 0x7B, 0x7C, 0x7E),
    F8E5M2FNUZ: Minifloat(2, 16, 0x7F, 0x80, 0x80, zeros=False),
    F6E2M3: Minifloat(3, 1, 0x1F, 0x1F, None),
    F6E3M2: Minifloat(2, 3, 0x1F, 0x1F, None),
    F4E2M1: Minifloat(1, 1, 0x7, 0x7, None),
}
KINDS = (*FORMATS, F8E8M0, BF16, *SUB_BYTE)


# -- to what is computed in ---------------------------------------------------------------
def widened(b: Arithmetic, x: Value) -> Value:
    """The value of stored bits: f32, or an integer of eight bits."""
    if x.dtype in SUB_BYTE:
        return _integer(b, x)
    if x.dtype == BF16:
        return b.from_bits(b.shift_left(_unsigned(b, x), b.const(16, I32)), F32)
    bits = _unsigned(b, x)
    if x.dtype == F8E8M0:
        number = b.shift_left(bits, b.const(_F32_MANTISSA, I32))
        number = b.select(b.compare("eq", bits, b.const(0, I32)), b.const(1 << 22, I32), number)
        number = b.select(b.compare("eq", bits, b.const(0xFF, I32)), b.const(_NAN, I32), number)
        return b.from_bits(number, F32)
    f = FORMATS[x.dtype]
    width = x.dtype.bits
    sign = b.bit_and(bits, b.const(1 << (width - 1), I32))
    rest = b.bit_and(bits, b.const((1 << (width - 1)) - 1, I32))
    # As bits of an f32 it is too small by a power of two, denormals or not.
    small = b.from_bits(b.shift_left(rest, b.const(_F32_MANTISSA - f.mantissa, I32)), F32)
    number = b.bits(b.mul(small, b.const(2.0 ** (_F32_BIAS - f.bias), F32)))
    nan = b.const(_NAN, I32)
    if f.nan is not None and f.zeros:
        above = b.select(b.compare("eq", rest, b.const(f.infinity, I32)), b.const(_INFINITY, I32), nan)
        above = nan if f.infinity == f.nan else above
        number = b.select(b.compare("gt", rest, b.const(f.largest, I32)), above, number)
    number = b.bit_or(number, b.shift_left(sign, b.const(32 - width, I32)))
    if f.nan is not None and not f.zeros:
        number = b.select(b.compare("eq", bits, b.const(f.nan, I32)), nan, number)
    return b.from_bits(number, F32)


def _integer(b: Arithmetic, x: Value) -> Value:
    """An integer of fewer than eight bits, its sign extended."""
    if x.dtype.kind == "u":
        return b.cast(b.bit_and(b.bits(x), b.const((1 << x.dtype.bits) - 1, I8)), U8)
    unused = b.const(8 - x.dtype.bits, I8)
    return b.shift_right(b.shift_left(b.bits(x), unused), unused)


def _unsigned(b: Arithmetic, x: Value) -> Value:
    """The bits as a number from 0 on."""
    kept = b.const((1 << 8 * x.dtype.bytes) - 1, I32)
    return b.bit_and(b.cast(b.bits(x), I32), kept)


# -- from what is computed in -------------------------------------------------------------
def narrowed(b: Arithmetic, x: Value, dtype: DType, saturate: bool = True, round_mode: str = "up") -> Value:
    """`x` as a type that is only stored: floats rounded once, to nearest, ties to even.

    saturate: what is too large becomes the greatest number, else infinite, or NaN where there is no
    infinity; types without either always saturate, bf16 never. round_mode: of powers of two, see `_power`.
    Integers keep their lowest bits.
    """
    if dtype in SUB_BYTE:
        whole = b.cast(b.cast(x, I32), I8) if x.dtype.is_float else b.cast(x, I8)
        return b.from_bits(b.bit_and(whole, b.const((1 << dtype.bits) - 1, I8)), dtype)
    x = single(b, x)
    if dtype == BF16:
        return b.from_bits(b.cast(_bf16(b, x), I16), BF16)
    code = _power(b, x, saturate, round_mode) if dtype == F8E8M0 else _code(b, x, dtype, saturate)
    return b.from_bits(b.cast(code, I8), dtype)


def _bf16(b: Arithmetic, x: Value) -> Value:
    """The bits of an f32 rounded to bf16, in the lower half."""
    bits, half = b.bits(x), b.const(16, I32)
    odd = b.bit_and(b.shift_right(bits, half), b.const(1, I32))
    near = b.add(bits, b.add(odd, b.const(0x7FFF, I32)))
    # Rounding a NaN could carry out of its mantissa; its upper half with the quiet bit is one.
    quiet = b.bit_or(bits, b.const(1 << 22, I32))
    return b.shift_right(b.select(b.compare("ne", x, x), quiet, near), half)


def _code(b: Arithmetic, x: Value, dtype: DType, saturate: bool) -> Value:
    """The bits of an f32 rounded to one of FORMATS."""
    f, width = FORMATS[dtype], dtype.bits
    bits = b.bits(x)
    a = b.bit_and(bits, b.const(0x7FFFFFFF, I32))
    sign = b.bit_and(b.shift_right(bits, b.const(32 - width, I32)), b.const(1 << (width - 1), I32))
    shift = _F32_MANTISSA - f.mantissa
    odd = b.bit_and(b.shift_right(a, b.const(shift, I32)), b.const(1, I32))
    near = b.add(a, b.add(odd, b.const((1 << (shift - 1)) - 1, I32)))
    normal = b.sub(b.shift_right(near, b.const(shift, I32)), b.const((_F32_BIAS - f.bias) << f.mantissa, I32))
    # Added to 2^n whose last place is the format's least number, a denormal rounds to a multiple of it.
    large = b.const(2.0 ** (_F32_MANTISSA - f.mantissa + 1 - f.bias), F32)
    least = b.const(2.0 ** (1 - f.bias), F32)
    magnitude = b.from_bits(a, F32)
    denormal = b.sub(b.bits(b.add(magnitude, large)), b.bits(large))
    code = b.select(b.compare("lt", magnitude, least), denormal, normal)
    past = f.largest if saturate else f.infinity
    code = b.select(b.compare("gt", code, b.const(f.largest, I32)), b.const(past, I32), code)
    nan = b.const(0 if f.nan is None else f.nan, I32)
    code = b.select(b.compare("gt", a, b.const(_INFINITY, I32)), nan, code)
    if f.zeros:
        return b.bit_or(code, sign)
    unsigned = b.compare("eq", b.bit_and(code, b.const(0x7F, I32)), b.const(0, I32))  # zero and NaN
    return b.select(unsigned, code, b.bit_or(code, sign))


def _power(b: Arithmetic, x: Value, saturate: bool, round_mode: str) -> Value:
    """The exponent of the power of two that an f32, taken as positive, is rounded to: "up", "down" or to the
    "nearest", ties up. Without `saturate` what is 0 or below the range is NaN."""
    a = b.bit_and(b.bits(x), b.const(0x7FFFFFFF, I32))
    added = {"up": (1 << _F32_MANTISSA) - 1, "nearest": 1 << (_F32_MANTISSA - 1), "down": 0}[round_mode]
    one = b.const(1 << _F32_MANTISSA, I32)
    twice = b.bits(b.mul(b.from_bits(a, F32), b.const(2, F32)))  # the least power is denormal in f32
    level = b.select(b.compare("lt", a, one), b.sub(twice, one), a)
    code = b.shift_right(b.add(level, b.const(added, I32)), b.const(_F32_MANTISSA, I32))
    nan = b.const(0xFF, I32)
    code = b.max(b.min(code, b.const(0xFE if saturate else 0xFF, I32)), b.const(0, I32))
    if not saturate:
        code = b.select(b.compare("lt", a, b.const(1 << 22, I32)), nan, code)
    return b.select(b.compare("gt", a, b.const(_INFINITY, I32)), nan, code)


# -- rounding once ------------------------------------------------------------------------
def single(b: Arithmetic, x: Value) -> Value:
    """`x` as an f32 that rounds to a shorter float as `x` itself does."""
    if x.dtype.computed == F32 or x.dtype.bytes <= 2:
        return b.cast(x, F32)
    if x.dtype.kind in "iu" and x.dtype.bytes == 8:
        low = b.bit_and(x, b.const(0x7FF, x.dtype))
        any_low = b.cast(b.compare("ne", low, b.const(0, x.dtype)), x.dtype)
        sticky = b.bit_or(b.bit_xor(x, low), b.shift_left(any_low, b.const(11, x.dtype)))
        large = b.compare("ge", b.abs(b.cast(x, F64)), b.const(2.0**53, F64))
        x = b.select(large, sticky, x)
    return odd_f32(b, b.cast(x, F64))


def odd_f32(b: Arithmetic, x: Value) -> Value:
    """An f64 as f32 rounded to odd, from which rounding to a float of up to 22 bits is as if done once.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008.
    """
    near = b.cast(x, F32)
    back, bits = b.cast(near, F64), b.bits(near)
    even = b.compare("eq", b.bit_and(bits, b.const(1, I32)), b.const(0, I32))
    less, more = (b.compare(k, b.abs(back), b.abs(x)) for k in ("lt", "gt"))
    step = b.select(less, b.const(1, I32), b.select(more, b.const(-1, I32), b.const(0, I32)))
    return b.from_bits(b.select(even, b.add(bits, step), bits), F32)
