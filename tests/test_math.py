"""The elementary functions, in native code, against NumPy in higher precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numerics import REFERENCE, STATED, TEXT, arguments, evaluate, patterns, stated, worst
from waferc.ir import math
from waferc.ir.count import instructions
from waferc.ir.dtypes import F16, F32, F64, I8, I32, I64, DType

NUMERICS = Path(__file__).resolve().parent.parent / "docs" / "numerics.md"


@pytest.mark.parametrize("name", sorted(STATED))
@pytest.mark.parametrize("dtype", [F16, F32, F64], ids=str)
def test_error_is_as_stated(name: str, dtype: DType) -> None:
    x = arguments(name, dtype, 1 << (17 if dtype == F32 and name != "erf" else 14))
    found = worst(name, dtype, x)
    assert found.ulp <= stated(name, dtype), found
    if name != "pow":
        got = evaluate(name, *x, dtype=dtype)
        zeros = (got == 0) & (x[0] == 0)
        with np.errstate(all="ignore"):
            signs = np.signbit(REFERENCE[name](x[0][zeros]))
        assert (np.signbit(got[zeros]) == signs).all()


def test_the_table_in_the_docs_is_of_these_functions() -> None:
    """Its rows, promises and text are today's, and part of its arguments err by no more than it says."""
    text = NUMERICS.read_text(encoding="utf-8")
    assert text.startswith(TEXT), "python tests/numerics.py writes it anew"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text[len(TEXT) :].split("\n")[3:-1]]
    assert [row[0] for row in rows] == sorted({*math.__all__, "sqrt"})
    for name, half, single, _, double, _, promised in rows:
        assert [float(p) for p in promised.split(",")] == list(STATED[name])
        for dtype, ulp in ((F16, half), (F32, single), (F64, double)):
            assert float(ulp) <= stated(name, dtype)
            if name != "pow":
                assert worst(name, dtype, [patterns(name, dtype, 1 << 12)]).ulp <= float(ulp) + 0.001


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_a_weight_that_is_no_normal_number_is_nothing(dtype: DType) -> None:
    tiny = np.finfo(dtype.numpy).tiny
    x = np.array([2, 1.02, 1.001, 0.999], dtype.numpy) * np.log(tiny)
    got = evaluate("weight", np.array([*x, -np.inf, np.nan], dtype.numpy), dtype=dtype)
    # Half way to the next power of two it is still rounded up.
    assert got[0] == got[1] == got[4] == 0 and got[2] <= tiny < got[3] and np.isnan(got[5])


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_past_the_reduction_results_stay_in_range(name: str) -> None:
    x = np.array([2.0**60, -1e300, 2.0**1000], np.float64)
    assert (np.abs(evaluate(name, x, dtype=F64)) <= 1).all()


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_pow_of_special_values_is_as_ieee(dtype: DType) -> None:
    inf, nan = float("inf"), float("nan")
    values = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 2.5, -2.5, 1e30, -1e30, inf, -inf, nan]
    x, y = (v.ravel().astype(dtype.numpy) for v in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    got = evaluate("pow", x, y, dtype=dtype)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    known = ~np.isnan(want)
    assert (np.signbit(got[known]) == np.signbit(want[known])).all()


@pytest.mark.parametrize("dtype", [I8, I32, I64], ids=str)
def test_pow_of_integers(dtype: DType) -> None:
    info = np.iinfo(dtype.numpy)
    pairs = [(x, y) for x in range(-11, 12) for y in range(-3, 127) if y >= 0 or x]
    pairs = [(x, y) for x, y in pairs if info.min <= x ** max(y, 0) <= info.max]
    want = [x**y if y >= 0 else (x if x in (1, -1) and y % 2 else int(abs(x) == 1)) for x, y in pairs]
    x, y = (np.array(v, dtype.numpy) for v in zip(*pairs, strict=True))
    assert evaluate("pow", x, y, dtype=dtype).tolist() == want


def test_costs_stay_low() -> None:
    """What the cost model charges; a change that makes one dearer shall be noticed."""
    limits = {math.exp: 18, math.weight: 13, math.tanh: 26, math.sigmoid: 27, math.erf: 29, math.log: 30}
    for function, limit in limits.items():
        assert instructions(function, [F32]) <= limit, function
