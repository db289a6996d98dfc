"""Counting the vector instructions of an elementwise body, for the cost model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .builder import Compare, Value
from .dtypes import BF16, BOOL, SIGNED, DType
from .minifloats import KINDS, narrowed, widened


@dataclass(frozen=True)
class _Counted:
    dtype: DType


class Counter:
    """An `Arithmetic` that computes nothing and counts each instruction once.

    A cast between equal types and a reinterpretation of bits are free. A core converts bf16, and types that
    it computes in; other conversions are what `minifloats` makes of them.
    """

    def __init__(self) -> None:
        self.count = 0

    def _one(self, a: Value) -> Value:
        self.count += 1
        return _Counted(a.dtype)

    def const(self, value: float | int | bool, dtype: DType) -> Value:
        return _Counted(dtype)

    def _binary(self, a: Value, b: Value) -> Value:
        return self._one(a)

    add = sub = mul = div = rem = min = max = _binary
    bit_and = bit_or = bit_xor = shift_left = shift_right = _binary
    neg = abs = sqrt = floor = ceil = round = bit_not = _one

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        return self._one(a)

    def compare(self, kind: Compare, a: Value, b: Value) -> Value:
        self.count += 1
        return _Counted(BOOL)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self._one(a)

    def cast(self, a: Value, dtype: DType) -> Value:
        if a.dtype in KINDS and BF16 not in (a.dtype, dtype):
            return self.cast(widened(self, a), dtype) if a.dtype != dtype else a
        if dtype in KINDS and BF16 not in (a.dtype, dtype):
            return narrowed(self, a, dtype)
        if dtype != a.dtype:
            self.count += 1
        return _Counted(dtype)

    def bits(self, a: Value) -> Value:
        return _Counted(SIGNED[a.dtype.bytes])

    def from_bits(self, a: Value, dtype: DType) -> Value:
        return _Counted(dtype)


def instructions(scalar: Callable[..., Value], types: Sequence[DType]) -> int:
    """How many vector instructions `scalar(builder, *operands of these types)` issues."""
    counter: Any = Counter()
    scalar(counter, *(_Counted(t) for t in types))
    return int(counter.count)
