"""Contractions: sums of products of two operands. MatMul, Gemm, and convolutions (see `window`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_letters

import numpy as np

from ..affine import Affine, access_axes, axis
from ..builder import Carried, KernelBuilder, Value
from ..dtypes import I64, DType
from ..graph import GraphBuilder, InvalidModel, Spec, register
from ..op import CLOSED, Array, Extents, Op, Work, assemble, broadcast_access, gather, product
from .elementwise import Add, Mul, apply
from .loops import (
    Index,
    accumulator,
    at_lane,
    blocks,
    cheapest_lane_axis,
    deposit,
    each,
    fold,
    lane_starts,
    longest,
    offsets,
    widen,
)

# Register tiles: rows by vectors. Sixteen accumulators keep two FMA units of four
# cycles' latency busy and leave room for operands in a file of 32 registers.
ROWS = {8: 2, 2: 4, 1: 4}
CHAINS = 8  # accumulators at least, by splitting sums where a tile has fewer results
COLUMNS = (4, 1)  # results side by side when vectors run along a reduced axis
TEMPORARY = 1024  # bytes of products that the second way of `alternatives` may keep


@dataclass(frozen=True, kw_only=True)
class Contract(Op):
    """result = sum of a * b over the axes that the result lacks, in `accumulate`'s type."""

    combine = "add"

    @property
    def accumulate(self) -> DType:
        """f32 for f16, otherwise the result's type."""
        return accumulator(self.out_type)

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.reduced)

    # -- meaning ------------------------------------------------------------------
    def reference(self, *operands: Array) -> Array:
        letter = dict(zip((a for a, _ in self.axes), ascii_letters, strict=False))
        seen = {a for read in self.reads for a in access_axes(read)}
        kept = [(a, n) for a, n in self.axes if a not in self.reduced]
        terms: list[str] = []
        factors: list[Array] = []
        for x, read, dtype in zip(operands, self.reads, self.in_types, strict=True):
            used = [(a, n) for a, n in self.axes if a in access_axes(read)]
            wide = widen(x, dtype)
            wide = wide if self.accumulate.is_float else wide.astype(self.accumulate.numpy)
            terms.append("".join(letter[a] for a, _ in used))
            factors.append(gather(wide, read, used, self.fill))
        result = "".join(letter[a] for a, _ in kept if a in seen)
        with np.errstate(all="ignore"):
            out = np.asarray(np.einsum(f"{','.join(terms)}->{result}", *factors, optimize=True))
        # Rearrangements absorbed into an op can leave axes that move neither operand.
        repeats = product([self.size[a] for a in self.reduced if a not in seen])
        out = np.expand_dims(out, tuple(i for i, (a, _) in enumerate(kept) if a not in seen))
        return assemble(out if repeats == 1 else out * out.dtype.type(repeats), self.write, kept)

    # -- cost ---------------------------------------------------------------------
    def work(self, extents: Extents) -> tuple[Work, ...]:
        """One vector op for each reduced iteration and each row of the result's longest axis."""
        kept = [extents[a] for a in access_axes(self.write)]
        n = product([extents[a] for a, _ in self.axes])
        return (Work("fma", n // longest(kept), n),)

    def alternatives(self, extents: Extents) -> tuple[tuple[tuple[Work, ...], object], ...]:
        """`work`, or all products at once and then one sum over a strided accumulator."""
        n = product([extents[a] for a, _ in self.axes])
        held = n * self.accumulate.bytes
        dispatches = np.where(held <= TEMPORARY, 2, CLOSED)
        second = ((Work("fma", dispatches, 2 * n),), np.minimum(held, TEMPORARY))
        return (*super().alternatives(extents), second)

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        shared = [a for a in self.reduced if all(a in access_axes(read) for read in self.reads)]
        return cheapest_lane_axis(self, extents, shared)

    # -- kernel -------------------------------------------------------------------
    def body(self, k: KernelBuilder) -> None:
        kept = [a for a in access_axes(self.write) if a != k.lane_axis]
        if k.lane_axis in self.reduced:
            self._dots(k, kept)
        else:
            self._panels(k, kept)

    def _panels(self, k: KernelBuilder, kept: Sequence[str]) -> None:
        """Vectors along a result axis, several rows of another one at a time."""
        row = self._row_axis(k, kept)
        if row is None:
            each(k, kept, {}, lambda at: self._panel(k, [at]))
            return

        def rows(at: Index) -> None:
            def block(i: Value, size: int) -> None:
                self._panel(k, [{**at, row: r} for r in offsets(k, i, size)])

            blocks(k, k.extent(row), tuple(ROWS), block)

        each(k, [a for a in kept if a != row], {}, rows)

    def _row_axis(self, k: KernelBuilder, kept: Sequence[str]) -> str | None:
        """The axis along which a vector, once loaded, serves several rows; else the last one."""

        def shares(a: str) -> bool:
            return any(
                k.stride_kind(i, a) == "zero" and k.stride_kind(i, k.lane_axis) != "zero" for i in (0, 1)
            )

        return next((a for a in reversed(kept) if shares(a)), kept[-1] if kept else None)

    def _panel(self, k: KernelBuilder, rows: Sequence[Index]) -> None:
        """The results at `rows`, all lanes."""

        def lanes(i: Value, carried: Carried) -> Carried:
            starts = lane_starts(k, i)
            places = [at_lane(k, row, start) for row in rows for start in starts]
            sums = self._sums(k, places)
            deposit(k, "add", self.out_type, list(zip(sums, places, strict=True)), lanes=True)
            return carried

        k.lane_loop(lanes, vectors=ROWS[len(rows)])

    def _sums(self, k: KernelBuilder, places: Sequence[Index]) -> Carried:
        """The accumulators at `places`. A few alone do not hide the latency of an FMA: each is then
        summed in several chains, interleaved along the last reduced axis."""
        chains = max(1, CHAINS // len(places))
        last = self.reduced[-1:]

        def step(inner: Index, sums: Carried) -> Carried:
            return self._multiply(k, [{**p, **inner} for p in places], sums)

        def strip(inner: Index, sums: Carried) -> Carried:
            def several(i: Value, carried: Carried) -> Carried:
                out = list(carried)
                for c, at in enumerate(offsets(k, i, chains)):
                    own = slice(c, None, chains)
                    out[own] = step({**inner, last[0]: at}, out[own])
                return out

            def single(i: Value, carried: Carried) -> Carried:
                out = list(carried)
                own = slice(0, None, chains)
                out[own] = step({**inner, last[0]: k.add_index(done, i)}, out[own])
                return out

            count = k.extent(last[0])
            left = k.bit_and(count, k.const(chains - 1, I64))
            done = k.sub(count, left)
            return k.loop(left, single, k.loop(count, several, sums, step=chains))

        zero = k.splat(k.const(0, self.accumulate))
        if chains == 1 or not last:
            return fold(k, self.reduced, {}, [zero] * len(places), step)
        sums = fold(k, self.reduced[:-1], {}, [zero] * (len(places) * chains), strip)
        return [_add_pairs(k, sums[p * chains : (p + 1) * chains]) for p in range(len(places))]

    def _dots(self, k: KernelBuilder, kept: Sequence[str]) -> None:
        """Vectors along a reduced axis, a block of results (of up to two axes) at a time."""

        def tile(rest: Sequence[str], places: Sequence[Index]) -> None:
            if not rest:
                self._dot(k, places)
                return

            def block(i: Value, size: int) -> None:
                values = offsets(k, i, size)
                tile(rest[1:], [{**p, rest[0]: v} for p in places for v in values])

            blocks(k, k.extent(rest[0]), COLUMNS, block)

        each(k, kept[:-2], {}, lambda at: tile(kept[-2:], [at]))

    def _dot(self, k: KernelBuilder, places: Sequence[Index]) -> None:
        """The results at `places`: single elements."""
        outer = [a for a in self.reduced if a != k.lane_axis]
        vectors = 4 if len(places) == 1 else 1
        zero = k.splat(k.const(0, self.accumulate))

        def row(index: Index, carried: Carried) -> Carried:
            def lanes(i: Value, sums: Carried) -> Carried:
                inner = {a: index[a] for a in outer}
                starts = lane_starts(k, i)
                here = [at_lane(k, {**p, **inner}, start) for p in places for start in starts]
                joined = self._multiply(k, here, sums[: len(here)])
                return [*joined, *sums[len(here) :]]

            return k.lane_loop(lanes, carried, vectors=vectors)

        sums = fold(k, outer, {}, [zero] * (len(places) * vectors), row)
        if len(places) == 1:
            sums = [_add_pairs(k, sums)]
        done = [(k.reduce_lanes("add", s), p) for s, p in zip(sums, places, strict=True)]
        deposit(k, "add", self.out_type, done, lanes=False)

    def _multiply(self, k: KernelBuilder, at: Sequence[Index], sums: Carried) -> Carried:
        """sums + a * b at each position; an element that several positions share is loaded once."""
        loaded: dict[tuple[int, ...], Value] = {}

        def load(operand: int, index: Index) -> Value:
            used = [a for a, _ in self.axes if k.stride_kind(operand, a) != "zero"]
            key = (operand, *(id(index[a]) for a in used))
            # Lanes past the end of a sum must be 0 in both factors: 0 * inf is not 0.
            single = k.lane_axis not in used and k.lane_axis not in self.reduced
            if key not in loaded:
                value = k.load(operand, index) if single else k.load_lanes(operand, index)
                loaded[key] = k.cast(value, self.accumulate)
            return loaded[key]

        out: list[Value] = []
        for index, s in zip(at, sums, strict=True):
            a, b = load(0, index), load(1, index)
            if self.accumulate.is_float:
                out.append(k.fma(a, b, s))
            else:
                out.append(k.add(s, k.mul(a, b)))
        return out


def _add_pairs(k: KernelBuilder, values: Sequence[Value]) -> Value:
    """The sum of a power of two of values."""
    while len(values) > 1:
        half = len(values) // 2
        values = [k.add(a, b) for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]


# -- building ---------------------------------------------------------------------
def transposed(g: GraphBuilder, name: str, order: Sequence[int]) -> str:
    """A constant with its dimensions in another order; "" for a tensor computed at run time."""
    value = g.value(name)
    return "" if value is None else g.constant(value.transpose(order), name)


def scaled(g: GraphBuilder, name: str, factor: float) -> str:
    """name * factor, at no cost for 1 or a constant."""
    if factor == 1:
        return name
    return apply(g, Mul, [name, g.constant(np.asarray(factor, g.dtype(name).numpy))], name)


def product_of(
    g: GraphBuilder, a: str, b: str, a_read: Sequence[str], b_read: Sequence[str], hint: str
) -> str:
    """a * b summed over "k": MatMul on operands whose last two dimensions are named "m", "n", "k".

    A 1-D operand is ["k"]; dimensions before the named ones are a batch and broadcast.
    """
    sizes: dict[str, int] = {}
    for t, names in ((a, a_read), (b, b_read)):
        for name, n in zip(names, g.shape(t)[len(g.shape(t)) - len(names) :], strict=True):
            if sizes.setdefault(name, n) != n:
                raise InvalidModel(f"operands {g.tensors[a]} and {g.tensors[b]} do not multiply")
    batches = [g.shape(t)[: len(g.shape(t)) - len(names)] for t, names in ((a, a_read), (b, b_read))]
    try:
        batch = np.broadcast_shapes(*batches)
    except ValueError as e:
        raise InvalidModel(f"batches of {g.tensors[a]} and {g.tensors[b]} do not broadcast") from e
    outer = [(f"b{i}", n) for i, n in enumerate(batch)]
    kept = [*outer, *((name, sizes[name]) for name in ("m", "n") if name in sizes)]

    def read(shape: Sequence[int], names: Sequence[str]) -> tuple[Affine, ...]:
        return (*broadcast_access(shape, outer), *(axis(name) for name in names))

    op = Contract(
        axes=(*kept, ("k", sizes["k"])),
        reads=(read(batches[0], a_read), read(batches[1], b_read)),
        write=tuple(axis(name) for name, _ in kept),
        in_types=(g.dtype(a), g.dtype(b)),
        out_type=g.dtype(a),
    )
    return g.emit(op, (a, b), [n for _, n in kept], hint)


def _matmul(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    a, b = spec.inputs
    if not g.shape(a) or not g.shape(b):
        raise InvalidModel("MatMul of a scalar")
    a_read = ["m", "k"] if len(g.shape(a)) > 1 else ["k"]
    b_read = ["k", "n"] if len(g.shape(b)) > 1 else ["k"]
    return [product_of(g, a, b, a_read, b_read, spec.outputs[0])]


def _gemm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    a, b, hint = spec.inputs[0], spec.inputs[1], spec.outputs[0]
    if len(g.shape(a)) != 2 or len(g.shape(b)) != 2:
        raise InvalidModel(f"Gemm of {g.tensors[a]} and {g.tensors[b]}, which are not matrices")
    alpha, beta = float(spec.attribute("alpha", 1.0)), float(spec.attribute("beta", 1.0))
    a_read = ["k", "m"] if spec.attribute("transA", 0) else ["m", "k"]
    b_read = ["n", "k"] if spec.attribute("transB", 0) else ["k", "n"]
    # Constant weights stand with n last, so that vectors along n read them densely.
    if b_read == ["n", "k"] and (turned := transposed(g, b, (1, 0))):
        b, b_read = turned, ["k", "n"]
    if g.value(b) is not None:
        b, alpha = scaled(g, b, alpha), 1.0
    out = scaled(g, product_of(g, a, b, a_read, b_read, hint), alpha)
    if spec.has(2) and beta != 0:
        out = apply(g, Add, [out, scaled(g, spec.inputs[2], beta)], hint)
    return [out]


register("MatMul", _matmul)
register("Gemm", _gemm)
