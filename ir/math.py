"""Elementary functions over `Arithmetic`: branch-free, so that every lane does the same.

All handle NaN, infinities, signed zeros and denormals as IEEE 754 says. f32 results are within
2 ULP (softplus within 3), most of them within 1; f16 is computed in f32; f64 as each function
states. Functions off the common path (`pow`, the inverse and hyperbolic ones) compute f32 in f64.
"""

from __future__ import annotations

from functools import partial

from . import polynomials as fitted
from .builder import Arithmetic, Value
from .circular import acos, asin, atan, cos, sin, tan
from .dtypes import F64, DType
from .floats import DOUBLE, LN2, SINGLE, Format, format_of, in_f32, in_f64, polynomial, with_sign

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "cos",
    "cosh",
    "erf",
    "exp",
    "expm1",
    "log",
    "log1p",
    "pow",
    "sigmoid",
    "sin",
    "sinh",
    "softplus",
    "tan",
    "tanh",
    "weight",
]


def _reduced(b: Arithmetic, x: Value, bias: int) -> tuple[Value, Value]:
    """r and the integer k + bias, where x = k log(2) + r; for |x| below the magic number."""
    f = format_of(x)
    magic = b.const(f.magic + bias, f.dtype)
    near = b.fma(x, b.const(1 / LN2, f.dtype), magic)
    k = b.sub(near, magic)
    r = b.fma(k, b.const(-f.ln2[0], f.dtype), x)
    r = b.fma(k, b.const(-f.ln2[1], f.dtype), r)
    return r, b.bits(near)


def _power_of_two(b: Arithmetic, exponent: Value, dtype: DType) -> Value:
    """2^(exponent - bias) from the low bits of an integer."""
    mantissa = DOUBLE.mantissa if dtype == F64 else SINGLE.mantissa
    return b.from_bits(b.shift_left(exponent, b.const(mantissa, exponent.dtype)), dtype)


@in_f32
def exp(b: Arithmetic, x: Value) -> Value:
    """e^x; f32 within 1 ULP, f64 within 1 ULP. Denormal results are exact to their last bit's ULP."""
    f = format_of(x)
    x = b.max(b.min(x, b.const(f.highest, f.dtype)), b.const(f.lowest, f.dtype))
    # 2^k in two factors, as k spans more than the exponents of normal numbers.
    r, k = _reduced(b, x, 2 * f.bias)
    half = b.shift_right(k, b.const(1, f.integer))
    q = b.fma(polynomial(b, r, f.exp), r, b.const(1, f.dtype))
    p = b.fma(q, r, b.const(1, f.dtype))
    p = b.mul(p, _power_of_two(b, half, f.dtype))
    return b.mul(p, _power_of_two(b, b.sub(k, half), f.dtype))


def weight(b: Arithmetic, x: Value, share: float = 1.0) -> Value:
    """e^x for x of at most 0, as in a softmax; f32 within 1 ULP, and 0 where that is no normal number.

    share: a power of two that the result is times, without further work.
    """
    return in_f32(partial(_weight, share=share))(b, x)


def _weight(b: Arithmetic, x: Value, share: float) -> Value:
    f = format_of(x)
    r, k = _reduced(b, b.max(x, b.const(-f.bias * LN2, f.dtype)), f.bias)
    q = b.fma(polynomial(b, r, [c * share for c in f.exp]), r, b.const(share, f.dtype))
    p = b.fma(q, r, b.const(share, f.dtype))
    return b.mul(p, _power_of_two(b, k, f.dtype))


@in_f32
def expm1(b: Arithmetic, x: Value) -> Value:
    """e^x - 1; f32 within 2 ULP, f64 within 2 ULP."""
    f = format_of(x)
    bounded = b.max(b.min(x, b.const(f.highest, f.dtype)), b.const(-40.0, f.dtype))
    r, k = _reduced(b, bounded, f.bias - 1)  # half of 2^k, which may overflow
    scale = _power_of_two(b, k, f.dtype)
    q = b.fma(polynomial(b, r, f.exp), b.mul(r, r), r)
    out = b.fma(q, scale, b.sub(scale, b.const(0.5, f.dtype)))
    out = b.add(out, out)
    # without a power of two q is the result, and its zero keeps its sign
    none = b.const(_magic_bits(f, f.bias - 1), f.integer)
    return b.select(b.compare("eq", k, none), with_sign(b, q, x), out)


def _magic_bits(f: Format, bias: int) -> int:
    """The bits of `f.magic + bias`."""
    return ((f.mantissa + f.bias) << f.mantissa) + (1 << (f.mantissa - 1)) + bias


@in_f32
def log(b: Arithmetic, x: Value) -> Value:
    """Natural logarithm; f32 within 1 ULP, f64 within 1 ULP."""
    f = format_of(x)
    tiny = b.compare("lt", x, b.const(f.smallest, f.dtype))
    scaled = b.select(tiny, b.mul(x, b.const(2.0**f.mantissa, f.dtype)), x)
    i = b.sub(b.bits(scaled), b.const(f.splitter, f.integer))
    e = b.cast(b.shift_right(i, b.const(f.mantissa, f.integer)), f.dtype)
    e = b.sub(e, b.select(tiny, b.const(f.mantissa, f.dtype), b.const(0, f.dtype)))
    low = b.bit_and(i, b.const((1 << f.mantissa) - 1, f.integer))
    m = b.from_bits(b.add(low, b.const(f.splitter, f.integer)), f.dtype)
    g = b.sub(m, b.const(1, f.dtype))  # exact
    high, rest = b.const(f.ln2[0], f.dtype), b.mul(e, b.const(f.ln2[1], f.dtype))
    if f is SINGLE:
        square = b.mul(g, g)
        tail = b.fma(polynomial(b, g, fitted.LOG_F32), g, b.const(-0.5, f.dtype))
        out = b.fma(e, high, b.add(g, b.fma(tail, square, rest)))
    else:  # log(1 + g) = g - h + s (h + R(s^2)), s = g / (2 + g), h = g^2 / 2 (Sun's fdlibm)
        s = b.div(g, b.add(g, b.const(2, f.dtype)))
        h = b.mul(b.mul(g, b.const(0.5, f.dtype)), g)
        z = b.mul(s, s)
        r = b.mul(z, polynomial(b, z, fitted.LOG_F64))
        out = b.fma(e, high, b.sub(g, b.sub(h, b.fma(s, b.add(h, r), rest))))
    nan, zero = b.const(float("nan"), f.dtype), b.const(0, f.dtype)
    out = b.select(b.compare("lt", x, b.const(float("inf"), f.dtype)), out, x)
    below = b.select(b.compare("eq", x, zero), b.const(float("-inf"), f.dtype), nan)
    return b.select(b.compare("le", x, zero), below, out)


@in_f32
def log1p(b: Arithmetic, x: Value) -> Value:
    """log(1 + x); f32 within 2 ULP, f64 within 2 ULP."""
    one, zero = b.const(1, x.dtype), b.const(0, x.dtype)
    u = b.add(x, one)
    # what the sum lost, to first order; exact while |x| < 1, and beyond it hardly matters
    lost = b.div(b.sub(x, b.sub(u, one)), u)
    near = log(b, u)
    ends = b.bit_or(b.compare("eq", u, zero), b.compare("eq", u, b.const(float("inf"), x.dtype)))
    out = b.select(ends, near, b.add(near, lost))
    return b.select(b.compare("eq", x, zero), x, out)


@in_f32
def tanh(b: Arithmetic, x: Value) -> Value:
    """Hyperbolic tangent; f32 within 2 ULP, f64 within 4 ULP."""
    f = format_of(x)
    one = b.const(1, f.dtype)
    if f is DOUBLE:
        a = b.min(b.abs(x), b.const(20.0, f.dtype))
        m = expm1(b, b.add(a, a))
        return with_sign(b, b.div(m, b.add(m, b.const(2, f.dtype))), x)
    a = b.min(b.abs(x), b.const(9.1, f.dtype))
    square = b.mul(a, a)
    small = b.fma(b.mul(polynomial(b, square, fitted.TANH_F32), square), a, a)
    # 1 - 2 / (exp(2a) + 1): the exponential's errors shrink, a short one is enough
    magic = b.const(f.magic + f.bias, f.dtype)
    near = b.fma(a, b.const(2 / LN2, f.dtype), magic)
    r = b.fma(b.sub(near, magic), b.const(-LN2 / 2, f.dtype), a)
    p = b.fma(polynomial(b, r, fitted.EXP_TWICE_F32), r, one)
    e = b.fma(p, _power_of_two(b, b.bits(near), f.dtype), one)
    large = b.sub(one, b.div(b.const(2, f.dtype), e))
    return with_sign(b, b.select(b.compare("lt", a, b.const(0.55, f.dtype)), small, large), x)


@in_f32
def sigmoid(b: Arithmetic, x: Value) -> Value:
    """1 / (1 + e^-x); f32 within 2 ULP, f64 within 3 ULP. Small results keep their precision."""
    one = b.const(1, x.dtype)
    e = exp(b, b.neg(b.abs(x)))
    # e / (1 + e) is the lesser of the function at x and -x; as e - e s it loses less than by rounding
    s = b.div(e, b.add(e, one))
    lesser = b.fma(b.neg(e), s, e)
    return b.select(b.compare("lt", x, b.const(0, x.dtype)), lesser, b.sub(one, s))


@in_f32
def softplus(b: Arithmetic, x: Value) -> Value:
    """log(1 + e^x); f32 within 3 ULP, f64 within 3 ULP."""
    return b.add(b.max(x, b.const(0, x.dtype)), log1p(b, exp(b, b.neg(b.abs(x)))))


@in_f32
def erf(b: Arithmetic, x: Value) -> Value:
    """The error function; f32 within 2 ULP, f64 within 3 ULP."""
    f = format_of(x)
    a, square, one = b.abs(x), b.mul(x, x), b.const(1, f.dtype)
    if f is SINGLE:
        small = b.fma(polynomial(b, square, fitted.ERF_F32), x, x)
        t = b.sub(b.min(a, b.const(3.93, f.dtype)), b.const(2.4375, f.dtype))
        large = b.add(polynomial(b, t, fitted.ERF_TAIL_F32), one)
    else:
        small = b.fma(polynomial(b, square, fitted.ERF_F64), x, x)
        c = b.min(a, b.const(6.0, f.dtype))
        t = b.div(b.sub(c, b.const(3, f.dtype)), b.add(c, b.const(3, f.dtype)))
        tail = b.mul(exp(b, b.neg(b.mul(c, c))), polynomial(b, t, fitted.ERFC_F64))
        large = b.sub(one, tail)
    return b.select(b.compare("lt", a, one), small, with_sign(b, large, x))


@in_f64
def sinh(b: Arithmetic, x: Value) -> Value:
    """Hyperbolic sine; f32 within 1 ULP, f64 within 4 ULP."""
    a, half = b.abs(x), b.const(0.5, F64)
    m = expm1(b, b.min(a, b.const(700.0, F64)))
    near = b.mul(b.add(m, b.div(m, b.add(m, b.const(1, F64)))), half)
    return with_sign(b, _unless_large(b, a, near), x)


@in_f64
def cosh(b: Arithmetic, x: Value) -> Value:
    """Hyperbolic cosine; f32 within 1 ULP, f64 within 3 ULP."""
    a, half = b.abs(x), b.const(0.5, F64)
    e = exp(b, b.min(a, b.const(700.0, F64)))
    return _unless_large(b, a, b.mul(b.add(e, b.div(b.const(1, F64), e)), half))


def _unless_large(b: Arithmetic, a: Value, near: Value) -> Value:
    """`near`, or e^a / 2 computed without overflow where a > 700."""
    root = exp(b, b.mul(a, b.const(0.5, F64)))
    far = b.mul(b.mul(root, b.const(0.5, F64)), root)
    return b.select(b.compare("gt", a, b.const(700.0, F64)), far, near)


@in_f64
def asinh(b: Arithmetic, x: Value) -> Value:
    """Inverse hyperbolic sine; f32 within 1 ULP, f64 within 4 ULP."""
    a, one = b.abs(x), b.const(1, F64)
    c = b.min(a, b.const(2.0**30, F64))  # the square must not overflow
    square = b.mul(c, c)
    near = log1p(b, b.add(c, b.div(square, b.add(one, b.sqrt(b.add(square, one))))))
    return with_sign(b, _or_log_of_twice(b, a, near), x)


@in_f64
def acosh(b: Arithmetic, x: Value) -> Value:
    """Inverse hyperbolic cosine, NaN below 1; f32 within 1 ULP, f64 within 4 ULP."""
    t = b.sub(b.min(x, b.const(2.0**30, F64)), b.const(1, F64))
    near = log1p(b, b.add(t, b.sqrt(b.fma(t, t, b.add(t, t)))))
    out = _or_log_of_twice(b, x, near)
    below = b.compare("lt", x, b.const(1, F64))
    return b.select(below, b.const(float("nan"), F64), out)


def _or_log_of_twice(b: Arithmetic, a: Value, near: Value) -> Value:
    """`near`, or log(2a) where a > 2^30 and both inverses agree with it to the last bit."""
    far = b.add(log(b, a), b.const(LN2, F64))
    return b.select(b.compare("gt", a, b.const(2.0**30, F64)), far, near)


@in_f64
def atanh(b: Arithmetic, x: Value) -> Value:
    """Inverse hyperbolic tangent, NaN outside [-1, 1]; f32 within 1 ULP, f64 within 4 ULP."""
    a, one = b.abs(x), b.const(1, F64)
    ratio = b.div(b.add(a, a), b.sub(one, a))
    return with_sign(b, b.mul(log1p(b, ratio), b.const(0.5, F64)), x)


def pow(b: Arithmetic, x: Value, y: Value) -> Value:
    """x^y as C's pow; f16 and f32 within 1 ULP, f64 within 2^-42 relative.

    Integers: exact where the type holds the result, 0 for 1/x with |x| > 1.
    """
    if not x.dtype.is_float:
        return _integer_power(b, x, y)
    base, exponent = b.cast(x, F64), b.cast(y, F64)
    zero, one = b.const(0, F64), b.const(1, F64)
    a = b.abs(base)
    out = exp(b, b.mul(exponent, log(b, a)))
    # 1^y and x^0 are 1 even for NaN
    trivial = b.bit_or(b.compare("eq", exponent, zero), b.compare("eq", a, one))
    out = b.select(trivial, one, out)
    whole = b.compare("eq", b.floor(exponent), exponent)
    half = b.mul(exponent, b.const(0.5, F64))
    odd = b.bit_and(whole, b.compare("ne", b.floor(half), half))
    out = b.select(odd, with_sign(b, out, base), out)
    finite = b.compare("lt", a, b.const(float("inf"), F64))
    negative = b.bit_and(b.compare("lt", base, zero), finite)
    undefined = b.bit_and(negative, b.bit_not(whole))
    return b.cast(b.select(undefined, b.const(float("nan"), F64), out), x.dtype)


def _integer_power(b: Arithmetic, x: Value, y: Value) -> Value:
    """Six squarings: with an exponent past 63 only 0, 1 and -1 stay in range, and it may be folded."""
    dtype = x.dtype
    one, zero = b.const(1, dtype), b.const(0, dtype)
    inverse = b.compare("lt", y, zero)
    large = b.compare("gt", y, b.const(63, dtype))
    rest = b.select(large, b.bit_or(b.bit_and(y, one), b.const(62, dtype)), y)
    rest = b.select(inverse, b.bit_and(y, one), rest)
    out, square = one, x
    for bit in range(6):
        wanted = b.compare("ne", b.bit_and(rest, b.const(1 << bit, dtype)), zero)
        out = b.select(wanted, b.mul(out, square), out)
        square = b.mul(square, square)
    unit = b.bit_or(b.compare("eq", x, one), b.compare("eq", x, b.const(-1, dtype)))
    return b.select(b.bit_and(inverse, b.bit_not(unit)), zero, out)
