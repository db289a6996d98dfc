"""Contractions: sums of products of two operands. MatMul, Gemm, and convolutions (see `window`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..absent import lacking
from ..affine import Affine, access_axes, axis
from ..builder import KernelBuilder
from ..dtypes import BF16, F32, F64, DType
from ..graph import InvalidModel
from ..op import CLOSED, Array, Extents, Op, Work, broadcast_access, gather, product
from ..packing import Words
from ..rules import GraphBuilder, Spec, register
from .conversion import cast, emit_rounded
from .elementwise import Add, Mul, apply
from .loops import LONG, WIDE, accumulator, cheapest_lane_axis, summed, widen
from .packed import Made, product_in_words, word_axis
from .products import TEMPORARY, Products, operations

# Terms must not grow: their sum may be small where they are not. Nor may they become much smaller than
# what they add up to, which costs bits near the least normal number.
LEAST_SCALE = 1 / 16


@dataclass(frozen=True, kw_only=True)
class Contract(Op):
    """result = sum of a * b over the axes that the result lacks, in `accumulate`'s type."""

    combine = "add"
    product = True
    zero_absorbs = True
    rounds_factors = True
    collapsible = True
    resumes = True
    prefetches = True

    def names_axis(self, axis: str) -> bool:
        return False

    def linear_in(self, operand: int) -> bool:
        return True

    def neutral_in(self, operand: int) -> float | None:
        return 0.0

    def takes_narrow(self, operand: int) -> bool:
        return True

    def packs_along(self, operand: int, dim: int) -> str:
        a = word_axis(self, operand, dim)
        return a if a in self.reduced and self.out_type == F32 else ""

    def in_words(self, operand: int, how: Words, names: Sequence[str], inputs: Sequence[str]) -> Made:
        return product_in_words(self, operand, how, names, inputs)

    @property
    def panels(self) -> tuple[int, ...]:
        return 0, 1

    @property
    def accumulate(self) -> DType:
        """f32 for f16, otherwise the result's type."""
        return accumulator(self.out_type)

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.reduced)

    @property
    def paired(self) -> str:
        """The last reduced axis, for bf16 by bf16 or f32 in chains: their order is kept, see `products`."""
        halves = BF16 in self.in_types and {*self.in_types} <= {BF16, F32} and self.out_type == F32
        return self.reduced[-1] if halves and self.reduced else ""

    # -- meaning ------------------------------------------------------------------
    def reference(self, *operands: Array) -> Array:
        factors: list[tuple[Array, list[str]]] = []
        for x, read, dtype in zip(operands, self.reads, self.in_types, strict=True):
            used = [(a, n) for a, n in self.axes if a in access_axes(read)]
            wide = widen(x, dtype)
            floats = self.accumulate.is_float and dtype.is_float
            wide = wide if floats else wide.astype(self.accumulate.numpy)
            factors.append((gather(wide, read, used, self.fill), [a for a, _ in used]))
        return summed(self, factors)

    # -- cost ---------------------------------------------------------------------
    def work(self, extents: Extents) -> tuple[Work, ...]:
        """One vector op for each reduced iteration and each row of the result's longest axis."""
        return (self._operations(extents)[0],)

    def _operations(self, extents: Extents) -> tuple[Work, Work]:
        first, second = (access_axes(read) for read in self.reads)
        kept = {a: extents[a] for a in access_axes(self.write)}
        return operations(product([extents[a] for a, _ in self.axes]), kept, first, second)

    def alternatives(self, extents: Extents) -> tuple[tuple[tuple[Work, ...], object], ...]:
        """`work`, or slices of the reduced axes, or all products at once and then one sum over a strided
        accumulator."""
        n = product([extents[a] for a, _ in self.axes])
        held = n * self.accumulate.bytes
        dispatches = np.where(held <= TEMPORARY, 2, CLOSED)
        second = ((Work("fma", dispatches, 2 * n),), np.minimum(held, TEMPORARY))
        rows, slices = self._operations(extents)
        return (((rows,), 0), ((slices,), 0), second)

    @property
    def across(self) -> str:
        """Where no axis of the result is long enough for lanes of its own: a dot product."""
        first, second = (set(access_axes(read)) for read in self.reads)
        kept = access_axes(self.write)
        if any(self.size[a] >= WIDE for a in kept if (a in first) != (a in second)):
            return ""
        shared = [a for a in self.reduced if a in first & second]
        if not shared:
            return ""
        inner = [a for a in shared if all(a in read[-1].axes for read in self.reads)]
        best = max(inner or shared, key=lambda a: self.size[a])
        most = max((self.size[a] for a in kept), default=1)
        return best if self.size[best] >= (LONG if most >= WIDE else most) else ""

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return self.across or cheapest_lane_axis(self, extents)

    # -- kernel -------------------------------------------------------------------
    def body(self, k: KernelBuilder) -> None:
        axes = tuple(a for a, _ in self.axes)
        kept = tuple(access_axes(self.write))
        mixed = F32 in self.in_types
        Products(axes, kept, self.reduced, self.accumulate, self.out_type, self.paired, mixed=mixed).emit(k)


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


def _may_scale(g: GraphBuilder, name: str, factor: float) -> bool:
    """Whether a constant factor of a product may take `factor` from its result: see `LEAST_SCALE`.

    Of values that are not at hand it is assumed that they do not come near the least normal number."""
    value = g.value(name)
    if value is None or not g.dtype(name).is_float or not LEAST_SCALE <= abs(factor) <= 1:
        return False
    if lacking([value]) is not None:
        return True
    size = np.abs(value.astype(np.float64)) * abs(factor)
    return bool(np.all((size == 0) | (size >= g.dtype(name).least_normal)))


Factor = tuple[str, Sequence[str]]
"""A factor of a matrix product: the tensor, and "m", "n" or "k" for each of its last dimensions."""


def product_of(g: GraphBuilder, left: Factor, right: Factor, hint: str, out_type: DType | None = None) -> str:
    """left * right summed over "k", as MatMul has it.

    A 1-D operand is ["k"]; dimensions before the named ones are a batch and broadcast. out_type: by default
    that of `left`.
    """
    (a, a_read), (b, b_read) = left, right
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
        out_type=out_type or g.dtype(a),
    )
    return emit_rounded(g, op, (a, b), [n for _, n in kept], hint)


def matrix_product(g: GraphBuilder, a: str, b: str, hint: str, out_type: DType | None = None) -> str:
    """a * b as MatMul has it."""
    if not g.shape(a) or not g.shape(b):
        raise InvalidModel("MatMul of a scalar")
    a_read = ["m", "k"] if len(g.shape(a)) > 1 else ["k"]
    b_read = ["k", "n"] if len(g.shape(b)) > 1 else ["k"]
    return product_of(g, (a, a_read), (b, b_read), hint, out_type)


def _matmul(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    a, b = spec.inputs
    return [matrix_product(g, a, b, spec.outputs[0])]


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
    given, wide = g.dtype(a), g.dtype(a).wide
    if alpha != 1 and _may_scale(g, b, alpha):  # a table's values are not looked at for nothing
        b, alpha = scaled(g, b, alpha), 1.0
    out = product_of(g, (a, a_read), (b, b_read), hint, wide)
    if not given.is_float and not (alpha.is_integer() and beta.is_integer()):
        wide = F64  # truncated in the end, as all floats
    out = scaled(g, cast(g, out, wide), alpha)
    if spec.has(2) and beta != 0:
        out = apply(g, Add, [out, scaled(g, cast(g, spec.inputs[2], wide), beta)], hint)
    return [cast(g, out, given, hint)]


register("MatMul", _matmul)
register("Gemm", _gemm)
