"""Squares of elements turned in registers: as many vectors as they have lanes."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from .arithmetic import I32_TYPE

QUARTER = 4  # elements that shuffles take together: 128 bits of f32, within which they are cheapest


def turned(e: ir.IRBuilder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """Vector j of the result has element j of each of `rows`. As many rows as lanes: 4, 8 or 16."""
    n = len(rows)

    def pick(a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
        """By quarters: elements of `a` from 0 on, of `b` from QUARTER on."""
        each = [
            quarter * QUARTER + (i if i < QUARTER else n + i - QUARTER)
            for quarter in range(n // QUARTER)
            for i in order
        ]
        return e.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32_TYPE, n), each))

    # Quarters of four rows become quarters of four columns.
    columns: list[list[ir.Value]] = []
    for r in range(0, n, QUARTER):
        a, b, c, d = rows[r : r + QUARTER]
        low, high = ((pick(x, y, (0, 4, 1, 5)), pick(x, y, (2, 6, 3, 7))) for x, y in ((a, b), (c, d)))
        columns.append([pick(low[i], high[i], o) for i in (0, 1) for o in ((0, 1, 4, 5), (2, 3, 6, 7))])
    out: list[ir.Value] = [rows[0]] * n
    for c in range(QUARTER):
        for quarter, whole in enumerate(_turned_quarters(e, [group[c] for group in columns])):
            out[quarter * QUARTER + c] = whole
    return out


def _turned_quarters(e: ir.IRBuilder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """As `turned`, of whole quarters: as many rows as quarters, 1, 2 or 4."""
    count = len(rows)

    def pick(a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
        each = [q * QUARTER + i for q in order for i in range(QUARTER)]
        return e.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32_TYPE, len(each)), each))

    if count == 1:
        return list(rows)
    if count == 2:
        return [pick(rows[0], rows[1], order) for order in ((0, 2), (1, 3))]
    a, b, c, d = rows
    pairs = [(pick(a, b, o), pick(c, d, o)) for o in ((0, 1, 4, 5), (2, 3, 6, 7))]
    return [pick(x, y, o) for x, y in pairs for o in ((0, 2, 4, 6), (1, 3, 5, 7))]
