"""A decoder layer on the published mapping, priced by the cost model phase by phase.

A state of `dim` elements lies along the rows and alike in all columns; a product by weights [k, n] has a tile
of k/rows x n/columns and sums along the columns, the next one the other way round. A sum comes back to all of
its line. Heads lie side by side along the columns, positions along the rows. Sizes are padded to multiples of
the side. Partial sums are f32, one a wavelet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from waferc.ir.affine import axis
from waferc.ir.dtypes import BF16, F16, F32, DType
from waferc.ir.op import Op
from waferc.ir.ops.activation import Exp
from waferc.ir.ops.contract import Contract
from waferc.ir.ops.elementwise import Add, Div, Elementwise, Mul, Neg, Sqrt, Sub
from waferc.ir.ops.reduce import ReduceMax, ReduceSum
from waferc.placement.machine.wafer import Wafer

TYPES = {"f32": F32, "f16": F16, "bf16": BF16}
SILU = (Neg, Exp, Add, Div)  # x / (1 + exp(-x))
ROTARY = (Mul, Neg, Mul, Add)  # x cos + swapped sin


def product(wafer: Wafer, m: int, k: int, n: int, weights: str) -> float:
    """A tile's [m, k] by [k, n], the latter stored as `weights`, in cycles."""
    op = Contract(
        axes=(("m", m), ("n", n), ("k", k)),
        reads=((axis("m"), axis("k")), (axis("k"), axis("n"))),
        write=(axis("m"), axis("n")),
        in_types=(F32, TYPES[weights]),
        out_type=F32,
    )
    return task(wafer, op)


def elementwise(wafer: Wafer, elements: int, kinds: Sequence[type[Elementwise]]) -> float:
    """Elementwise operations one after the other on so many f32, in cycles."""
    total = 0.0
    for kind in kinds:
        reads, types = ((axis("i"),),) * kind.arity, (F32,) * kind.arity
        op = kind(axes=(("i", elements),), reads=reads, write=(axis("i"),), in_types=types, out_type=F32)
        total += task(wafer, op)
    return total


def folded(wafer: Wafer, kind: type[ReduceSum] | type[ReduceMax], results: int, terms: int) -> float:
    """`terms` f32 of each of `results` reduced on one core, in cycles."""
    op = kind(
        axes=(("m", results), ("k", terms)),
        reads=((axis("m"), axis("k")),),
        write=(axis("m"),),
        in_types=(F32,),
        out_type=F32,
    )
    return task(wafer, op)


def task(wafer: Wafer, op: Op) -> float:
    return float(wafer.task(op, dict(op.axes))[0])


def allreduced(wafer: Wafer, cores: int, elements: int) -> float:
    """The sum of `elements` f32 over a line, in its middle and back to all of it, in cycles."""
    if cores == 1:
        return 0.0
    wavelets = wafer.wavelets(elements * F32.bytes)
    back = wafer.route(cores / 2, 0) + wafer.multicast + wafer.serial(wavelets)
    return float(wafer.join(cores, wavelets) + back)


@dataclass(frozen=True)
class Layer:
    """A layer on `columns` x `rows` cores. batch: rows of the state, each with a cache of its own of
    `context`.

    normed_keys: Q and K are normalised by the head.
    """

    wafer: Wafer
    columns: int
    rows: int
    dim: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    batch: int
    weights: str
    normed_keys: bool

    # -- shares of a core ------------------------------------------------------------------------------
    def down(self, size: int) -> int:
        """What one row has of a size."""
        return math.ceil(size / self.rows)

    def along(self, size: int) -> int:
        """What one column has of a size."""
        return math.ceil(size / self.columns)

    @property
    def _cache(self) -> DType:
        return TYPES[self.weights]

    def _product(self, k: int, n: int) -> float:
        return product(self.wafer, self.batch, k, n, self.weights)

    def _small(self, elements: int, *kinds: type[Elementwise]) -> float:
        return elementwise(self.wafer, self.batch * elements, kinds)

    def _sum_down(self, elements: int) -> float:
        return allreduced(self.wafer, self.rows, self.batch * elements)

    def _sum_along(self, elements: int, columns: int = 0) -> float:
        return allreduced(self.wafer, columns or self.columns, self.batch * elements)

    # -- a token -----------------------------------------------------------------------------------------
    def decode(self) -> dict[str, float]:
        """Cycles of each phase of a layer on `batch` new tokens, in order."""
        dim = self.down(self.dim)
        q, kv = self.along(self.heads * self.head_dim), self.along(self.kv_heads * self.head_dim)
        norm = self._norm(dim)
        projections = self._product(dim, q) + 2 * self._product(dim, kv)
        out = {"attention_norm": norm, "qkv": projections + self._sum_down(q + 2 * kv)}
        out["qk_norm_rope"] = self._small(q, *ROTARY) + self._small(kv, *ROTARY)
        if self.normed_keys:
            near = self._columns_of_a_head()
            statistic = self._small(q + kv, Mul) + self._sum_along(2, near) if near > 1 else 0.0
            out["qk_norm_rope"] += statistic + self._small(1, Sqrt, Div) + self._small(q + kv, Mul)
        out |= self._attention(q)
        out["output"] = self._product(q, dim) + self._sum_along(dim)
        out["residual"] = self._small(dim, Add)
        if self.ffn:
            out |= self._feed_forward(dim)
        return out

    def _norm(self, dim: int) -> float:
        """RMSNorm of a state along the rows: the root of its mean square, over all rows."""
        squares = folded(self.wafer, ReduceSum, self.batch, dim) + self._small(dim, Mul)
        return squares + self._sum_down(1) + self._small(1, Sqrt) + self._small(dim, Div, Mul)

    def _columns_of_a_head(self) -> int:
        """How many columns share a key head: 1 where each has whole ones."""
        return max(1, self.columns // self.kv_heads)

    def _attention(self, q: int) -> dict[str, float]:
        """Scores to weighted values; each query head of a key head's columns meets that head's positions."""
        w, positions = self.wafer, self.down(self.context)
        near = self._columns_of_a_head()
        depth = math.ceil(self.head_dim / near) if near > 1 else self.head_dim
        held = max(1, math.ceil(self.kv_heads / self.columns))  # key heads of a column
        queries = math.ceil(self.heads / self.kv_heads)
        # A row's keys serve all query heads that share them.
        scores = held * self.batch * product(w, queries, depth, positions, self.weights)
        values = held * self.batch * product(w, queries, positions, depth, self.weights)
        count = held * queries
        summed = self._sum_along(count * positions, near)
        largest = folded(w, ReduceMax, self.batch * count, positions) + self._sum_down(count)
        total = folded(w, ReduceSum, self.batch * count, positions) + self._sum_down(count)
        return {
            "scores": scores + summed + self._small(count * positions, Mul),
            "softmax": largest + self._small(count * positions, Sub, Exp) + total,
            "weighted_values": values + self._sum_down(q) + self._small(q, Div),
        }

    def _feed_forward(self, dim: int) -> dict[str, float]:
        wide = self.along(self.ffn)
        gate_up = 2 * self._product(dim, wide) + self._sum_down(2 * wide)
        return {
            "ffn_norm": self._norm(dim),
            "gate_up": gate_up,
            "activation": self._small(wide, *SILU, Mul),
            "down": self._product(wide, dim) + self._sum_along(dim),
            "ffn_residual": self._small(dim, Add),
        }

    def block(self, name: str) -> float:
        """Cycles of the attention or the feed-forward half, its normalisation and residual included."""
        phases = self.decode()
        names = list(phases)
        half = names.index("residual") + 1
        return sum(phases[n] for n in (names[:half] if name == "attention" else names[half:]))

    def handed_over(self) -> float:
        """Cycles that the state takes to the block below."""
        wavelets = self.wafer.wavelets(self.batch * self.down(self.dim) * F32.bytes)
        return float(self.wafer.route(self.rows, 0) + self.wafer.serial(wavelets))

    # -- a prompt ----------------------------------------------------------------------------------------
    def prefill(self, tokens: int) -> float:
        """Cycles of a layer on `tokens` tokens, which lie along the rows."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        m, t = self.down(tokens), self.along(tokens)
        shifted = self._shifted(m, self.dim, q) + 2 * self._shifted(m, self.dim, kv)
        shifted += self._shifted(m, q, self.dim) + 2 * self._shifted(m, self.dim, self.ffn)
        shifted += self._shifted(m, self.ffn, self.dim)
        scores = self._summed(m, self.along(q), self.down(tokens))
        values = self._shifted(m, tokens, q)
        state, wide = m * self.along(self.dim), m * self.along(self.ffn)
        softmax = elementwise(self.wafer, m * t, (Mul, Sub, Exp, Div))
        softmax += folded(self.wafer, ReduceMax, m, t) + folded(self.wafer, ReduceSum, m, t)
        norm = elementwise(self.wafer, state, (Mul, Div, Mul)) + folded(
            self.wafer, ReduceSum, m, self.along(self.dim)
        )
        small = 2 * (norm + allreduced(self.wafer, self.columns, m)) + 2 * allreduced(
            self.wafer, self.columns, m
        )
        small += elementwise(self.wafer, state, (Add, Add)) + elementwise(self.wafer, wide, (*SILU, Mul))
        small += elementwise(self.wafer, m * self.along(q), ROTARY) + elementwise(
            self.wafer, m * self.along(kv), ROTARY
        )
        return shifted + scores + values + softmax + small

    def _shifted(self, m: int, k: int, n: int) -> float:
        """[tokens, k] by [k, n], both operands shifting by two cores a step."""
        steps = max(self.columns, self.rows)
        return steps * self._step(m, math.ceil(k / steps), self.along(n))

    def _step(self, m: int, k: int, n: int) -> float:
        """One step of a shifting product: its tile, beside the next one's arrival."""
        w, size = self.wafer, self._cache.bytes
        arrives = float(w.route(2, 0) + w.serial(w.wavelets(max(m * k, k * n) * size)))
        return max(product(w, m, k, n, self.weights), arrives)

    def _summed(self, m: int, k: int, n: int) -> float:
        """[tokens, k] by the other's transpose, which alone shifts: each step's products are summed along a
        line while the next ones are multiplied."""
        w, steps = self.wafer, self.rows
        arrives = float(w.route(2, 0) + w.serial(w.wavelets(n * k * self._cache.bytes)))
        first = float(w.join(self.columns, m * n))
        streamed = first - float(w.join(self.columns, 0))
        return steps * max(product(w, m, k, n, self.weights), arrives, streamed) + first
