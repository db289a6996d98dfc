"""Passes over rows: what normalisations have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..builder import Carried, Combine, KernelBuilder, Value
from ..dtypes import I64
from ..op import Extents, Op, Work, product
from .loops import (
    WIDE,
    Index,
    accumulator,
    at_lane,
    channels_last,
    cheapest_lane_axis,
    combine,
    each,
    fold,
    lane_starts,
    longest,
    neutral,
)

VECTORS = 2  # vectors per pass of a row: two chains hide the latency of a polynomial
ROWS = 4  # at a time: they hide the latency of each other's sums and quotients


@dataclass(frozen=True, kw_only=True)
class Normalize(Op):
    """The family's base: passes over a row. A row runs along the axes `over`, which are never cut."""

    over: tuple[str, ...]

    def names_axis(self, axis: str) -> bool:
        return axis in self.over

    @property
    def whole(self) -> tuple[str, ...]:
        return self.over

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.over)

    @property
    def across(self) -> str:
        """The row's last axis, where it is long enough or there are no rows side by side."""
        others = [n for a, n in self.axes if a not in self.over and n > 1]
        if channels_last(self, self.over) or not self.over:
            return ""
        return self.over[-1] if self.size[self.over[-1]] >= WIDE or not others else ""

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return self.across or cheapest_lane_axis(self, extents, self.over)

    def passes(self) -> int:
        """Vector instructions per element, over all passes."""
        raise NotImplementedError

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """Vector ops run along the longest axis; the statistics of a row are a few single operations."""
        n = product([extents[a] for a, _ in self.axes])
        ops = self.passes()
        return (Work("fma", ops * (n // longest([extents[a] for a, _ in self.axes])), ops * n),)

    # -- kernel -------------------------------------------------------------------
    def body(self, k: KernelBuilder) -> None:
        outer = [a for a, _ in self.axes if a not in self.over and a != k.lane_axis]
        if k.lane_axis in self.over:
            self._along_rows(k, outer)
            return

        def across(at: Index) -> None:
            def lanes(i: Value, carried: Carried) -> Carried:
                self.rows(k, [at_lane(k, at, i)])
                return carried

            k.lane_loop(lanes)

        each(k, outer, {}, across)

    def _along_rows(self, k: KernelBuilder, outer: Sequence[str]) -> None:
        """Rows in the lanes' direction, ROWS neighbours at a time and then one by one."""
        if not outer or k.small:
            each(k, outer, {}, lambda at: self.rows(k, [at]))
            return
        *rest, inner = outer

        def beside(at: Index) -> None:
            count = k.extent(inner)
            left = k.rem(count, k.const(ROWS, I64))
            full = k.sub(count, left)

            def some(first: Value, number: int) -> None:
                self.rows(k, [{**at, inner: k.add_index(first, r)} for r in range(number)])

            k.loop(full, lambda i, c: (some(i, ROWS), c)[1], (), step=ROWS)
            k.loop(left, lambda i, c: (some(k.add_index(full, i), 1), c)[1])

        each(k, rest, {}, beside)

    def rows(self, k: KernelBuilder, at: Sequence[Index]) -> None:
        """Some rows side by side, or one row in each lane where lanes run across rows.

        A row waits for its sums and its quotient; what the next one does meanwhile costs nothing.
        """
        raise NotImplementedError

    def sweep(self, k: KernelBuilder, at: Sequence[Index], visit: Callable[[int, Index], None]) -> None:
        """Visits every element of the rows, each with its row's number."""
        nothing: Carried = ()
        self._along(k, at, [nothing] * len(at), lambda row, index, carried: (visit(row, index), carried)[1])

    def totals(
        self, k: KernelBuilder, at: Sequence[Index], kind: Combine, term: Callable[[int, Index], Value]
    ) -> list[Value]:
        """Each row's terms combined: one element, or one in each lane where lanes run across rows."""
        wide = accumulator(self.in_types[0])
        start = k.splat(k.const(neutral(kind, wide), wide))

        def step(row: int, index: Index, carried: Carried) -> Carried:
            return [combine(k, kind, carried[0], term(row, index)), *carried[1:]]

        if k.lane_axis not in self.over:
            return [sums[0] for sums in self._along(k, at, [[start]] * len(at), step)]
        out: list[Value] = []
        for sums in self._along(k, at, [[start] * VECTORS] * len(at), step):
            joined = sums[0]
            for s in sums[1:]:
                joined = combine(k, kind, joined, s)
            out.append(k.reduce_lanes(kind, joined))
        return out

    def _along(
        self,
        k: KernelBuilder,
        at: Sequence[Index],
        carried: Sequence[Carried],
        step: Callable[[int, Index, Carried], Carried],
    ) -> list[Carried]:
        """Folds `step` over the rows' vectors; vector j of a group sees its own carried value first."""
        rest = [a for a in self.over if a != k.lane_axis]
        width = len(carried[0])

        def of_row(values: Carried, row: int) -> Carried:
            return values[row * width : (row + 1) * width]

        def each_row(
            index: Index, values: Carried, visit: Callable[[int, Index, Carried], Carried]
        ) -> Carried:
            inner = {a: index[a] for a in self.over if a in index}
            return [v for r, own in enumerate(at) for v in visit(r, {**own, **inner}, of_row(values, r))]

        def vectors(index: Index, outer: Carried) -> Carried:
            if k.lane_axis not in self.over:
                return each_row(index, outer, step)

            def lanes(i: Value, inner: Carried) -> Carried:
                def of_group(row: int, place: Index, values: Carried) -> Carried:
                    out = list(values)
                    for j, start in enumerate(lane_starts(k, i)):
                        out[j : j + 1] = step(row, at_lane(k, place, start), out[j : j + 1])
                    return out

                return each_row(index, inner, of_group)

            return k.lane_loop(lanes, outer, (VECTORS,))

        flat = fold(k, rest, {}, [v for values in carried for v in values], vectors)
        return [of_row(flat, r) for r in range(len(at))]

    def load(self, k: KernelBuilder, operand: int, at: Index, other: float = 0.0) -> Value:
        """A vector of `operand` in the accumulator's type."""
        return k.cast(k.load_lanes(operand, at, other=other), accumulator(self.in_types[operand]))

    def in_row(self, k: KernelBuilder, at: Index, value: Value) -> Value:
        """`value` with 0 in the lanes past the row's end, where lanes run along the row."""
        if k.lane_axis not in self.over or k.group() > 1:  # a group of vectors is full
            return value
        inside = k.compare("lt", k.lane_numbers(at[k.lane_axis]), k.extent(k.lane_axis))
        return k.select(inside, value, k.const(0, value.dtype))
