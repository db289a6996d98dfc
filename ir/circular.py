"""Sine, cosine, tangent and their inverses. See `ir.math`."""

from __future__ import annotations

from collections.abc import Sequence

from . import polynomials as fitted
from .builder import Arithmetic, Value
from .dtypes import F64, I64
from .floats import DOUBLE, PI, SINGLE, format_of, in_f32, in_f64, polynomial, with_sign


def _quarters(b: Arithmetic, x: Value) -> tuple[Value, Value]:
    """r and n of the f64 `x` = n pi/2 + r; n in the low bits of an i64.

    pi/2 in two parts and exact products: good to f64's last bits while |x| < 2^38. Past that r
    is meaningless but kept in range.
    """
    magic = b.const(DOUBLE.magic, F64)
    near = b.fma(x, b.const(2 / PI, F64), magic)
    n = b.sub(near, magic)
    r = b.fma(n, b.const(-1.5707963267948966, F64), x)
    r = b.fma(n, b.const(-6.123233995736766e-17, F64), r)
    bound = b.const(0.7855, F64)
    return b.max(b.min(r, bound), b.neg(bound)), b.bits(near)


def _sine(b: Arithmetic, r: Value, coefficients: Sequence[float]) -> Value:
    z = b.mul(r, r)
    return b.fma(b.mul(polynomial(b, z, coefficients), z), r, r)


def _cosine(b: Arithmetic, r: Value, coefficients: Sequence[float]) -> Value:
    z = b.mul(r, r)
    head = b.fma(z, b.const(-0.5, r.dtype), b.const(1, r.dtype))
    return b.fma(polynomial(b, z, coefficients), b.mul(z, z), head)


def _circular(b: Arithmetic, x: Value, ahead: int) -> Value:
    """The sine of x + ahead * pi/2."""
    r, n = _quarters(b, b.cast(x, F64))
    if ahead:
        n = b.add(n, b.const(ahead, I64))
    f = format_of(x)
    r = b.cast(r, f.dtype)
    sine, cosine = (fitted.SIN_F32, fitted.COS_F32) if f is SINGLE else (fitted.SIN_F64, fitted.COS_F64)
    even = b.compare("eq", b.bit_and(n, b.const(1, I64)), b.const(0, I64))
    out = b.select(even, with_sign(b, _sine(b, r, sine), r), _cosine(b, r, cosine))
    turn = b.cast(b.bit_and(n, b.const(2, I64)), f.integer)
    turn = b.shift_left(turn, b.const(8 * f.dtype.bytes - 2, f.integer))
    return b.from_bits(b.bit_xor(b.bits(out), turn), f.dtype)


@in_f32
def sin(b: Arithmetic, x: Value) -> Value:
    """Sine; f32 within 2 ULP, f64 within 2 ULP, for |x| < 2^38; beyond, some value in [-1, 1]."""
    return _circular(b, x, 0)


@in_f32
def cos(b: Arithmetic, x: Value) -> Value:
    """Cosine; f32 within 2 ULP, f64 within 2 ULP, for |x| < 2^38; beyond, some value in [-1, 1]."""
    return _circular(b, x, 1)


@in_f64
def tan(b: Arithmetic, x: Value) -> Value:
    """Tangent; f32 within 1 ULP, f64 within 4 ULP, for |x| < 2^38."""
    r, n = _quarters(b, x)
    s, c = with_sign(b, _sine(b, r, fitted.SIN_F64), r), _cosine(b, r, fitted.COS_F64)
    even = b.compare("eq", b.bit_and(n, b.const(1, I64)), b.const(0, I64))
    return b.div(b.select(even, s, b.neg(c)), b.select(even, c, s))


@in_f64
def atan(b: Arithmetic, x: Value) -> Value:
    """Inverse tangent; f32 within 1 ULP, f64 within 3 ULP."""
    a, one = b.abs(x), b.const(1, F64)
    far = b.compare("gt", a, b.const(2.414213562373095, F64))  # tan(3 pi / 8)
    middle = b.compare("gt", a, b.const(0.4142135623730951, F64))  # tan(pi / 8)
    # atan(a) = pi/4 + atan((a - 1) / (a + 1)) = pi/2 + atan(-1 / a)
    top = b.select(far, b.const(-1, F64), b.select(middle, b.sub(a, one), a))
    bottom = b.select(far, a, b.select(middle, b.add(a, one), one))
    turn = b.select(far, b.const(PI / 2, F64), b.select(middle, b.const(PI / 4, F64), b.const(0, F64)))
    return with_sign(b, b.add(turn, _sine(b, b.div(top, bottom), fitted.ATAN_F64)), x)


@in_f64
def asin(b: Arithmetic, x: Value) -> Value:
    """Inverse sine, NaN outside [-1, 1]; f32 within 1 ULP, f64 within 4 ULP."""
    one = b.const(1, F64)
    return atan(b, b.div(x, b.sqrt(b.mul(b.sub(one, x), b.add(one, x)))))


@in_f64
def acos(b: Arithmetic, x: Value) -> Value:
    """Inverse cosine, NaN outside [-1, 1]; f32 within 1 ULP, f64 within 4 ULP."""
    one = b.const(1, F64)
    half = atan(b, b.sqrt(b.div(b.sub(one, x), b.add(one, x))))
    return b.add(half, half)
