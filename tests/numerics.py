"""The elementary functions against NumPy in higher precision; as a script, writes docs/numerics.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jit import run
from waferc.ir import math
from waferc.ir.builder import Arithmetic, Carried, KernelBuilder, Value
from waferc.ir.dtypes import F16, F32, F64, DType
from waferc.ir.op import Array, Op, identity


@dataclass(frozen=True, kw_only=True)
class Applied(Op):
    """One function of `ir.math`, or a builder's own, over a vector."""

    function: str

    def key(self) -> tuple[object, ...]:
        return (self.function,)

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        own = getattr(math, self.function, None)
        return own(b, *x) if own else getattr(b, self.function)(*x)

    def body(self, k: KernelBuilder) -> None:
        def lanes(i: Value, carried: Carried) -> Carried:
            x = [k.load_lanes(j, {"n": i}, other=1) for j in range(len(self.reads))]
            k.store_lanes(self.scalar(k, *x), {"n": i})
            return carried

        k.lane_loop(lanes)


def evaluate(function: str, *x: Array, dtype: DType) -> Array:
    access = identity(["n"])
    op = Applied(
        axes=(("n", len(x[0])),),
        reads=(access,) * len(x),
        write=access,
        in_types=(dtype,) * len(x),
        out_type=dtype,
        function=function,
    )
    return run(op, x)


def ulps(got: Array, want: Array) -> Array:
    """Distance in units of the last place of `want`, which has more precision than `got`."""
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        unit = np.spacing(np.minimum(np.abs(rounded), np.finfo(got.dtype).max))
        error = np.abs(got.astype(want.dtype) - want) / unit.astype(want.dtype)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    error = np.where(same, np.where(np.isfinite(rounded), error, 0), error)
    return np.where(np.isnan(error), np.inf, error)


def _erf(x: Array) -> Array:
    """exp(-x^2) times a series of positive terms (Abramowitz and Stegun, 7.1.6): nothing cancels."""
    near = np.clip(x, -7, 7)
    term = total = near
    for n in range(1, 200):
        term = term * (2 * near * near / (2 * n + 1))
        total = total + term
    pi = 4 * np.arctan(np.ones((), x.dtype))
    return np.where(np.abs(x) < 7, total * np.exp(-near * near) * 2 / np.sqrt(pi), np.sign(x))


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


REFERENCE: dict[str, Callable[..., Array]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.logaddexp(x, np.zeros((), x.dtype)),
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sqrt": np.sqrt,
    "pow": np.power,
    "weight": np.exp,
}
F16_STATED = 0.51  # ULP of what is computed in f32
# ULP in f32 and f64, as the docstrings state
STATED: dict[str, tuple[float, float]] = {
    "exp": (1, 1),
    "expm1": (2, 2),
    "log": (1, 1),
    "log1p": (2, 2),
    "tanh": (2, 4),
    "sigmoid": (2, 3),
    "softplus": (3, 3),
    "erf": (2, 3),
    "sin": (2, 2),
    "cos": (2, 2),
    "tan": (1, 4),
    "asin": (1, 4),
    "acos": (1, 4),
    "atan": (1, 3),
    "sinh": (1, 4),
    "cosh": (1, 3),
    "asinh": (1, 4),
    "acosh": (1, 4),
    "atanh": (1, 4),
    "sqrt": (0.5, 0.5),
    "pow": (1, 2.0**10),
    "weight": (1, 1),
}
EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.0,
    2.0,
    1e-40,
    -1e-40,
    1e-45,
    3e38,
    -3e38,
    88.8,
    -88,
    -104,
    720.0,
    -760.0,
]
EDGES += [float("inf"), float("-inf"), float("nan")]
PERIODIC = ("sin", "cos", "tan")  # reduced modulo pi
REDUCED = 2.0**38  # to this limit


def patterns(name: str, dtype: DType, count: int) -> Array:
    """`count`, a power of two, bit patterns at equal distances: of a larger count they are a part."""
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[dtype.bytes]
    every = (np.arange(count, dtype=bits) * bits(2 ** (8 * dtype.bytes) // count)).view(dtype.numpy)
    return _in_range(name, every)


def _in_range(name: str, x: Array) -> Array:
    if name == "weight":  # of a softmax: down to where the power is no normal number
        return x[~(x > 0) & ~(x < np.log(np.finfo(max(x.dtype, np.dtype(np.float32))).tiny))]
    if name not in PERIODIC:
        return x
    with np.errstate(invalid="ignore"):
        return x[~(np.abs(x.astype(np.float64)) >= REDUCED) | ~np.isfinite(x)]


def arguments(name: str, dtype: DType, count: int) -> list[Array]:
    """`patterns`, as many numbers about 0, where most functions live, and EDGES; of pow pairs whose result
    is mostly in range."""
    rng, n = np.random.default_rng(5), dtype.numpy
    if name == "pow":
        x = np.exp(np.clip(rng.normal(0, 4, count), -11, 11)).astype(n)
        y = rng.normal(0, 6, count).astype(n)
        x[::4] *= -1
        y[::2] = np.round(y[::2])
        return [x, y]
    near = (rng.uniform(-1, 1, count) * 10.0 ** rng.uniform(-3, 2, count)).astype(n)
    with np.errstate(over="ignore"):
        near = np.concatenate([near, np.array(EDGES, n)])
    return [np.concatenate([patterns(name, dtype, count), _in_range(name, near)])]


@dataclass(frozen=True)
class Worst:
    """The largest error, in ULP, and where it is."""

    ulp: float
    at: tuple[float, ...]


def worst(name: str, dtype: DType, x: Sequence[Array]) -> Worst:
    wide = np.longdouble if dtype == F64 else np.float64
    with np.errstate(all="ignore"):
        want = REFERENCE[name](*(v.astype(wide) for v in x))
    error = ulps(evaluate(name, *x, dtype=dtype), want)
    place = int(error.argmax())
    return Worst(float(error[place]), tuple(float(v[place]) for v in x))


def stated(name: str, dtype: DType) -> float:
    return F16_STATED if dtype == F16 else STATED[name][dtype == F64]


# -- the table ------------------------------------------------------------------------------
COUNTS = {F16: 1 << 16, F32: 1 << 24, F64: 1 << 21}


def table() -> str:
    """The document, measured anew."""
    lines = [
        TEXT,
        "| function | f16 | f32 | f32 at | f64 | f64 at | promised |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(STATED):
        found = {t: worst(name, t, arguments(name, t, n)) for t, n in COUNTS.items()}
        for dtype, w in found.items():
            assert w.ulp <= stated(name, dtype), (name, dtype, w)
        shown = [f"{found[F16].ulp:.3f}"]
        for dtype in (F32, F64):
            shown += [f"{found[dtype].ulp:.3f}", ", ".join(f"{v:.9g}" for v in found[dtype].at)]
        cells = [name, *shown, f"{STATED[name][0]:g}, {STATED[name][1]:g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


TEXT = """# Numerics

What the elementary functions of [ir/math.py](../ir/math.py) err by, in units of the last place (ULP) of the
exact result: a result that is rounded correctly errs by 0.5 at most. `python tests/numerics.py` writes this
table; `tests/test_math.py` keeps it honest with a part of its arguments.

Arguments are all 65,536 f16 numbers, 2^24 f32 and 2^21 f64 bit patterns at equal distances (so every binade
alike, denormals and infinities too), as many random ones between -100 and 100, and the usual edge cases; for
`pow` as many pairs. The exact results are NumPy's in f64 for f16 and f32, in x87's 80 bits for f64. `sin`,
`cos` and `tan` are measured below 2^38, where their reduction modulo pi ends to hold; `weight`, the
exponential of a softmax, up to 0 and down to where it is no normal number any more and returns 0.

f16 and bf16 are computed in f32 and rounded once. Two bounds are promised: for f32, and for f64.

That holds for whole operators, too: of f16 and bf16 what lies between an operator's operands and its
results (squares, sums, powers, partial sums on several cores, the nodes of its body in the standard, all
steps of a recurrent layer) is f32, and each result is rounded once. Operators of the host do the same,
those of ai.onnx.ml in f64. Norms, logarithms and means of integers are truncated, as every float that
becomes an integer.

What passes rewrite may change rounding, never range: a scale waits for a product only where a bound is
proven on what is not scaled yet (`compiler/passes/ranges.py`): RMSNorm's and LayerNorm's root with an
epsilon beside constant weights, a softmax's total. Where the squares' own sum passes f32, the norm is 0 or
NaN either way. Resize's places are exact fractions; a scale that f32 rounded is taken as the number that
was meant, count over size or a fraction of a small denominator.

## Weights of a few bits

Constants of 2, 4 and 8 bits that the graph dequantises (MatMulNBits, GatherBlockQuantized,
DequantizeLinear: in blocks, per axis, per tensor) and that only products and look-ups read stay as they
are: 32-bit words of successive numbers along what is summed, one scale and, where they differ, one zero
point a block. Each weight is what DequantizeLinear makes of it, `(number - zero point) * scale`, the
difference exact, the product rounded once (to f16 or bf16 where that is the operator's type); the sum over
it is one chain of fused multiply-adds in f32 in the order of k. So packing changes no weight, and no bit
but by the order of sums that the plan has. The kernels take a number's bits into the mantissa of an f32
without a conversion (`ir/packing.py`); where the scale is an f16 and the zero point's share is exact,
subtracting and scaling are one fused operation, with the same result.

Where scales are the same along the sum (per tensor, per column) and what the product reads besides is
bounded (dequantised, a norm, a softmax), so that no sum of products with stored numbers leaves f32's
range, numbers of 8 bits are not packed: the product is of them, its result is scaled. What cannot be
cut in words is dequantised when compiling: a sum whose length is no multiple of a word's numbers (8 of
4 bits, 4 of 8), scales that are infinite or NaN, zero points that are no integers, `g_idx`, a table
that anything else reads. Where a block ends in the middle of what an axis covers, all blocks are cut
finer and their scales repeated (576 in blocks of 128: 64).

`--weights int8` and `--weights int4` make such weights of f32 constants that a product reads: blocks of 32
along the sum, symmetric, with scales in f16; of two scales for each block (its farthest element is the
least or the greatest number) the one with the lesser square error. Tables that are only looked up may hold
angles or places: they are f16, as is what cannot be cut in words. One that is multiplied with, too, has 8
bits at least. What that costs a language model is measured in [language-models.md](language-models.md).

## Integers, and where floats become integers

The same on the wafer, in a guarded run and in what is folded when compiling; nothing of it stops a run.

| | is |
|---|---|
| `x / 0`, `x % 0` of integers | 0 |
| least number `/ -1`, `% -1` | the least number, 0 |
| other quotients | rounded toward zero |
| Mod, `fmod` 0; 1 | the sign of the divisor; of the dividend (`fmod`, for floats too) |
| sums, products, negation, Abs past the type's ends | wrap around |
| BitShift by the width or more | 0 |
| Cast of a float to an integer | rounded toward zero; the nearest end where it is outside; NaN is 0 |
| Cast of a float to bool | true but for 0; NaN is true |

Indices outside their axis are no numbers: see [runtime.md](runtime.md#errors).

## Elementary functions
"""


def main() -> None:
    path = Path(__file__).resolve().parent.parent / "docs" / "numerics.md"
    path.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
