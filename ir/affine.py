"""Affine accesses: which element of a tensor an iteration touches.

An op iterates over named axes; for each tensor it declares one `Affine`
expression per tensor dimension, as linalg's indexing maps do. Boxes, layouts,
halos, strides and moves all follow from these expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Interval = tuple[int, int]  # half-open [lo, hi)


@dataclass(frozen=True)
class Affine:
    """`sum(coefficient * axis) + const`, with no axis twice and no zero coefficient."""

    terms: tuple[tuple[str, int], ...] = ()
    const: int = 0

    def __str__(self) -> str:
        parts = [a if c == 1 else f"{c}*{a}" for a, c in self.terms]
        if self.const or not parts:
            parts.append(str(self.const))
        return " + ".join(parts).replace("+ -", "- ")

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(a for a, _ in self.terms)

    def coefficient(self, axis: str) -> int:
        """The factor of `axis`, 0 where it does not occur."""
        for a, c in self.terms:
            if a == axis:
                return c
        return 0

    def hull(self, box: Mapping[str, Interval]) -> Interval:
        """The smallest interval that holds the expression's values over a non-empty `box`."""
        lo = hi = self.const
        for a, c in self.terms:
            first, last = box[a][0], box[a][1] - 1
            lo += min(c * first, c * last)
            hi += max(c * first, c * last)
        return lo, hi + 1

    def substitute(self, axis: str, by: Affine) -> Affine:
        """This expression with `by` in place of `axis`."""
        c = self.coefficient(axis)
        if c == 0:
            return self
        rest = Affine(tuple(t for t in self.terms if t[0] != axis), self.const)
        return rest.plus(by.times(c))

    def plus(self, other: Affine) -> Affine:
        total: dict[str, int] = dict(self.terms)
        for a, c in other.terms:
            total[a] = total.get(a, 0) + c
        terms = tuple((a, c) for a, c in total.items() if c)
        return Affine(terms, self.const + other.const)

    def times(self, factor: int) -> Affine:
        terms = tuple((a, c * factor) for a, c in self.terms if factor)
        return Affine(terms, self.const * factor)


Access = tuple[Affine, ...]  # one expression per dimension of the tensor


def axis(name: str, coefficient: int = 1, const: int = 0) -> Affine:
    """The expression `coefficient * name + const`."""
    return Affine(((name, coefficient),), const)


def constant(value: int) -> Affine:
    """The expression that is always `value`."""
    return Affine((), value)


def access_axes(access: Access) -> tuple[str, ...]:
    """The axes that occur in `access`, each once, in order of first use."""
    return tuple(dict.fromkeys(a for e in access for a in e.axes))


def show(access: Access) -> str:
    """`access` as text: `[m, 32*h + d]`."""
    return "[" + ", ".join(map(str, access)) + "]"
