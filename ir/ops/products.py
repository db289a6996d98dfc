"""The kernel of a contraction: sums of products, in register tiles.

Either vectors run along a result axis, and each element is one chain of `acc = fma(a, b, acc)` over
the reduced axes in their order: many elements at a time hide the latency, and how many does not matter
to the bits. Or they run along a reduced axis (a dot product), and each result has `CHAINS` vector
accumulators of its own that take the axis' vectors in turn.

Products of bf16 by bf16 are exact in f32, so a chain that takes them in pairs is the same chain, with
half the instructions where the host has one for a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..builder import JOIN, RESULT, RESUME, Carried, KernelBuilder, Value
from ..dtypes import F32, DType
from ..op import CLOSED, Work
from .loops import (
    Index,
    at_lane,
    blocks,
    deposit,
    each,
    fold,
    fold_pairs,
    lane_starts,
    longest,
    offsets,
    untouched,
)

TEMPORARY = 4096  # bytes that a way to carry out a product on a core may keep besides operands and result
CHAINS = 4  # vector accumulators of a dot product, part of what the result is
REGISTERS = {16: 32, 8: 16, 4: 32}  # vector registers of hosts with so many f32 lanes: AVX-512, AVX2, NEON


def operations(
    n: Any, kept: Mapping[str, Any], first: Collection[str], second: Collection[str]
) -> tuple[Work, Work]:
    """The vector operations of a tile of `n` products on a core: along the result's longest axis for each
    reduced iteration and row, or over all that an iteration adds to, by two-dimensional descriptors.

    kept: extents of the result's axes; first, second: axes that an operand has. One row of results is one
    loop. Where both operands have axes that the other lacks, rows begin anew; only there are the second open.
    """
    rows: list[Any] = [1, 1]
    for a, extent in kept.items():
        if (a in first) != (a in second):
            rows[a in second] = rows[a in second] * extent
    both = (rows[0] > 1) & (rows[1] > 1)
    each_row, slices = n // longest([*kept.values()]), n // np.maximum(rows[0] * rows[1], 1)
    where: Any = np.where
    return (
        Work("fma", each_row, n, where(both, each_row, 1)),
        Work("slice", where(both, slices, CLOSED), n, slices),
    )


@dataclass(frozen=True)
class Shapes:
    """Register tiles: rows that are done at a time, falling, and of how many vectors, falling; how many
    vectors of a single row; dot products side by side."""

    rows: Sequence[int]
    vectors: Sequence[int]
    one_row: Sequence[int]
    dots: Sequence[int]


# By the vectors of accumulators that the registers hold. Sixteen keep two FMA units of four cycles'
# latency busy, and so do twelve. Two vectors to a row: a panel of weights is as wide. Eight and seven
# rows leave no rest in most images (7, 14, 28, 56) and from 42 rows on in none.
_PLAIN = {
    32: Shapes((8, 7, 4, 2, 1), (2,), (8, 6, 4, 2), (4, 1)),
    16: Shapes((6, 5, 4, 2, 1), (2,), (8, 6, 4, 2), (2, 1)),
    8: Shapes((2, 1), (2,), (4, 2), (1,)),
}
# In chunks, there is a total for each accumulator: fewer rows, so that both stay in registers.
_CHUNKS = {
    32: Shapes((7, 6, 4, 2, 1), (2,), (8, 6, 4, 2), ()),
    31: Shapes((6, 4, 2, 1), (2,), (8, 6, 4, 2), ()),
    16: Shapes((3, 2, 1), (2,), (6, 4, 2), ()),
    8: Shapes((1,), (2,), (2,), ()),
}
_SMALL = Shapes((1,), (), (), (1,))


def shapes(lanes: int, accumulate: DType, chunks: bool) -> Shapes:
    """The tiles of a host with `lanes` f32 lanes, whose vectors of wider types take several registers."""
    room = REGISTERS.get(lanes, 16) // max(1, accumulate.bytes // 4)
    if chunks and lanes == 4 and room == 32:
        room = 31  # NEON has no operand in memory that is the same for all lanes
    return (_CHUNKS if chunks else _PLAIN)[room]


@dataclass(frozen=True)
class Products:
    """What the kernel's code depends on. kept: the result's axes in its order; paired: see `Op.paired`.

    mixed: of paired products, whether a factor is f32: its elements are not in pairs, the other's may be.
    turns: at how many of the first reduced axes `address` adds to an index what only a run knows of it.
    """

    axes: tuple[str, ...]
    kept: tuple[str, ...]
    reduced: tuple[str, ...]
    accumulate: DType
    out_type: DType
    paired: str = ""
    turns: int = 0
    address: Callable[[Index], Index] | None = None
    mixed: bool = False

    def emit(self, k: KernelBuilder, at: Index | None = None) -> None:
        """at: where on axes besides."""
        kept = self._apart(k)
        if k.lane_axis not in self.reduced:
            self._panels(k, kept, at or {})
        elif k.part:
            raise ValueError(f"a sum across lanes of {k.lane_axis!r} in chunks of {k.part!r}")
        else:
            self._dots(k, kept)

    def _apart(self, k: KernelBuilder) -> list[str]:
        """The result's axes that tell its vectors apart."""
        return [a for a in self.kept if a != k.lane_axis and k.stride_kind(RESULT, a) != "zero"]

    def _shapes(self, k: KernelBuilder) -> Shapes:
        return _SMALL if k.small else shapes(k.lanes, self.accumulate, bool(k.part))

    # -- lanes along a result axis --------------------------------------------------
    def _panels(self, k: KernelBuilder, kept: Sequence[str], base: Index) -> None:
        """Vectors along a result axis, several rows of another one at a time."""
        row = self._row_axis(k, kept)
        shape = self._shapes(k)
        if row is None:
            each(k, kept, base, lambda at: self._panel(k, [at], shape.one_row))
            return

        def rows(at: Index) -> None:
            def block(i: Value, size: int) -> None:
                self._panel(k, [{**at, row: r} for r in offsets(k, i, size)], shape.vectors)

            blocks(k, k.extent(row), shape.rows, block)

        each(k, [a for a in kept if a != row], base, rows)

    def _row_axis(self, k: KernelBuilder, kept: Sequence[str]) -> str | None:
        """The axis along which a vector, once loaded, serves several rows; else the last one."""

        def shares(a: str) -> bool:
            return any(
                k.stride_kind(i, a) == "zero" and k.stride_kind(i, k.lane_axis) != "zero" for i in (0, 1)
            )

        return next((a for a in reversed(kept) if shares(a)), kept[-1] if kept else None)

    def _panel(self, k: KernelBuilder, rows: Sequence[Index], vectors: Sequence[int]) -> None:
        """The results at `rows`, all lanes."""

        def lanes(i: Value, carried: Carried) -> Carried:
            starts = lane_starts(k, i)
            places = [at_lane(k, row, start) for row in rows for start in starts]
            results = self._in_chunks(k, places) if k.part else self._in_order(k, places)
            for value, at in zip(results, places, strict=True):
                k.store_lanes(value, at)
            return carried

        k.lane_loop(lanes, vectors=vectors)

    def _in_order(self, k: KernelBuilder, places: Sequence[Index]) -> Carried:
        """The results at `places`."""

        def stored() -> Carried:
            return [k.load_lanes(RESULT, at) for at in places]

        zero = k.splat(k.const(0, self.accumulate))
        sums = k.either(
            k.in_mode(RESUME),
            lambda: [k.cast(old, self.accumulate) for old in stored()],
            lambda: [zero] * len(places),
        )
        sums = [k.cast(s, self.out_type) for s in self._chain(k, places, sums)]

        def joined() -> Carried:
            return [k.add(old, s) for old, s in zip(stored(), sums, strict=True)]

        return k.either(k.in_mode(JOIN), joined, lambda: sums)

    def _in_chunks(self, k: KernelBuilder, places: Sequence[Index]) -> Carried:
        """The results at `places`, each chunk of the axis `part` summed from 0 and then joined."""
        zero = k.splat(k.const(0, self.accumulate))
        start = k.splat(k.const(untouched("add", self.out_type), self.out_type))
        totals = k.either(
            k.bit_or(k.in_mode(RESUME), k.in_mode(JOIN)),
            lambda: [k.load_lanes(RESULT, at) for at in places],
            lambda: [start] * len(places),
        )

        def chunk(first: Value, length: Value, carried: Carried) -> Carried:
            sums = self._chain(k, places, [zero] * len(places), {k.part: (first, length)})
            return [k.add(t, k.cast(s, self.out_type)) for t, s in zip(carried, sums, strict=True)]

        return k.chunks(chunk, totals)

    def _chain(
        self,
        k: KernelBuilder,
        places: Sequence[Index],
        sums: Carried,
        within: Mapping[str, tuple[Value, Value]] | None = None,
    ) -> Carried:
        """sums + a * b over the reduced axes in their order."""

        def turn(outer: Index, carried: Carried) -> Carried:
            assert self.address is not None
            found = self.address({**places[0], **outer})
            own = {a: i for a, i in found.items() if a not in places[0]}
            return self._terms(k, places, own, carried, within)

        if self.turns:
            return fold(k, self.reduced[: self.turns], {}, sums, turn, within)
        return self._terms(k, places, {}, sums, within)

    def _terms(
        self,
        k: KernelBuilder,
        places: Sequence[Index],
        own: Index,
        sums: Carried,
        within: Mapping[str, tuple[Value, Value]] | None,
    ) -> Carried:
        """The same over those behind the first `turns`. own: where on these."""

        def step(inner: Index, carried: Carried) -> Carried:
            at = [{**p, **inner} for p in places]
            self._prefetch(k, at)
            return self._multiply(k, at, carried)

        def pair(inner: Index, carried: Carried, alone: bool) -> Carried:
            at = [{**p, **inner} for p in places]
            self._prefetch(k, at)
            if self.mixed:
                return self._multiply_mixed(k, at, carried, alone)
            return self._multiply_pairs(k, at, carried, alone)

        if self.paired and (not self.mixed or self._stood(k) is not None):
            return fold_pairs(k, self.reduced, sums, pair, within)
        return fold(k, self.reduced[self.turns :], own, sums, step, within)

    def _prefetch(self, k: KernelBuilder, at: Sequence[Index]) -> None:
        """Asks for what follows in an operand that is read once: the weights of a single row's product."""
        if not k.lane_axis or self._apart(k):
            return
        for operand in (0, 1):
            if k.stride_kind(operand, k.lane_axis) != "zero":
                k.prefetch(operand, at)

    # -- lanes along a reduced axis ---------------------------------------------------
    def _dots(self, k: KernelBuilder, kept: Sequence[str]) -> None:
        """Several results along the result's last axis at a time."""
        if not kept:
            self._dot(k, [{}])
            return

        def columns(at: Index) -> None:
            def block(i: Value, size: int) -> None:
                self._dot(k, [{**at, kept[-1]: c} for c in offsets(k, i, size)])

            blocks(k, k.extent(kept[-1]), self._shapes(k).dots, block)

        each(k, kept[:-1], {}, columns)

    def _dot(self, k: KernelBuilder, places: Sequence[Index]) -> None:
        """The results at `places`: single elements."""
        outer = [a for a in self.reduced if a != k.lane_axis]
        zero = k.splat(k.const(0, self.accumulate))

        def row(index: Index, carried: Carried) -> Carried:
            def lanes(i: Value, sums: Carried) -> Carried:
                starts = lane_starts(k, i)
                out = list(sums)
                for chain, start in enumerate(starts):
                    own = slice(chain, None, CHAINS)
                    here = [at_lane(k, {**p, **index}, start) for p in places]
                    out[own] = self._multiply(k, here, out[own])
                return out

            return k.lane_loop(lanes, carried, (CHAINS,))

        sums = fold(k, outer, {}, [zero] * (len(places) * CHAINS), row)
        done = [
            (k.reduce_lanes("add", _add_pairs(k, sums[p * CHAINS : (p + 1) * CHAINS])), at)
            for p, at in enumerate(places)
        ]
        deposit(k, "add", self.out_type, done, lanes=False)

    def _multiply(self, k: KernelBuilder, at: Sequence[Index], sums: Carried) -> list[Value]:
        """sums + a * b at each position."""

        def load(operand: int, index: Index, lanes: bool) -> Value:
            value = k.load_lanes(operand, index) if lanes else k.load(operand, index)
            return k.cast(value, self.accumulate)

        factors = self._factors(k, at, load)
        if self.accumulate.is_float:
            return [k.fma(a, b, s) for (a, b), s in zip(factors, sums, strict=True)]
        return [k.add(s, k.mul(a, b)) for (a, b), s in zip(factors, sums, strict=True)]

    def _multiply_pairs(
        self, k: KernelBuilder, at: Sequence[Index], sums: Carried, alone: bool
    ) -> list[Value]:
        """sums + a * b at each position, then at the next one along the axis `paired` unless `alone`."""

        def load(operand: int, index: Index, lanes: bool) -> Value:
            # -0.0 * 0.0 leaves any sum as it is, to the bit.
            missing = (-0.0, 0.0)[operand] if alone else None
            return k.load_pair(operand, index, self.paired, lanes, missing)

        factors = self._factors(k, at, load)
        return [k.dot2(a, b, s) for (a, b), s in zip(factors, sums, strict=True)]

    def _stood(self, k: KernelBuilder) -> int | None:
        """The factor that stands in pairs."""
        return next((j for j in (0, 1) if k.stride_kind(j, k.lane_axis) == "pairs"), None)

    def _multiply_mixed(
        self, k: KernelBuilder, at: Sequence[Index], sums: Carried, alone: bool
    ) -> Sequence[Value]:
        """As `_multiply_pairs`, of pairs of bf16 that are widened once for all positions, and f32."""
        stood, halves = self._stood(k), dict[int, tuple[Value, Value]]()
        assert stood is not None

        def first(operand: int, index: Index, lanes: bool) -> Value:
            if operand == stood:
                return k.load_pair(operand, index, self.paired, lanes)
            return k.load_lanes(operand, index) if lanes else k.load(operand, index)

        def half(pair: Value, number: int) -> Value:
            if id(pair) not in halves:
                halves[id(pair)] = k.halves(pair)
            return halves[id(pair)][number]

        factors = self._factors(k, at, first)
        # All positions have the same place along the axis: what it leads to is loaded once.
        further = k.add_index(at[0][self.paired], 1)

        def second(operand: int, index: Index, lanes: bool) -> Value:
            if operand == stood:
                return k.const(0, F32)  # it came with the first
            return k.load_lanes(operand, index) if lanes else k.load(operand, index)

        out = [k.fma(half(f[stood], 0), f[1 - stood], s) for f, s in zip(factors, sums, strict=True)]
        if alone:
            return out
        others = self._factors(k, [{**index, self.paired: further} for index in at], second)
        return [
            k.fma(half(f[stood], 1), g[1 - stood], s) for f, g, s in zip(factors, others, out, strict=True)
        ]

    def _factors(
        self, k: KernelBuilder, at: Sequence[Index], load: Callable[[int, Index, bool], Value]
    ) -> list[tuple[Value, Value]]:
        """Both factors at each position; an element that several positions share is loaded once."""
        loaded: dict[tuple[int, ...], Value] = {}

        def factor(operand: int, index: Index) -> Value:
            used = [a for a in self.axes if k.stride_kind(operand, a) != "zero"]
            key = (operand, *(id(index[a]) for a in used))
            if key not in loaded:
                # Lanes past the end of a sum must be 0 in both factors: 0 * inf is not 0.
                lanes = k.lane_axis in used or k.lane_axis in self.reduced
                loaded[key] = load(operand, index, lanes)
            return loaded[key]

        return [(factor(0, index), factor(1, index)) for index in at]


def _add_pairs(k: KernelBuilder, values: Sequence[Value]) -> Value:
    """The sum of a power of two of values."""
    while len(values) > 1:
        half = len(values) // 2
        values = [k.add(a, b) for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]
