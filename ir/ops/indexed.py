"""Products by one of many matrices: which one, an index says that only a run has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import numpy as np

from ..affine import Access, access_axes
from ..builder import KernelBuilder
from ..dtypes import F32
from ..op import CLOSED, Array, Bound, Extents, InvalidOp, Op, Work, assemble, gather, product
from ..packing import Kind, Words
from .bounds import index_bounds
from .contract import Contract
from .index import coordinates
from .loops import Index, cheapest_lane_axis, each, longest, widen
from .packed import HALF_WORD, UNPACKING, Made, PackedProducts, judge_packed, numbers_in, split, word_axis
from .products import TEMPORARY, Products, operations

Axes = Sequence[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class Indexed(Contract):
    """result = sum of a * b over the axes that the result lacks, where an index says which matrix of b.

    Operands: a, b, and last the index. Axis `chosen` is b's alone and has no iterations of its own: the index
    is a place along it, and so an address in a tile's b. It is never cut, and no element of b moves for it.

    wraps: a negative index counts from the end. of: which axis of the model's tensor `chosen` is, where an
    index outside is an error.
    """

    chosen: str
    of: int
    wraps: bool = True

    # it is no `product`: its operands are not two, and its kernel runs along the axes of the model
    combine = "add"
    collapsible = False
    fills = False

    def names_axis(self, axis: str) -> bool:
        return axis == self.chosen

    def linear_in(self, operand: int) -> bool:
        return operand < 2

    def takes_narrow(self, operand: int) -> bool:
        return operand == 1

    def packs_along(self, operand: int, dim: int) -> str:
        a = word_axis(self, operand, dim) if operand == 1 and self.out_type == F32 else ""
        return a if a in self.summed and a not in self.chosen_by else ""

    def in_words(self, operand: int, how: Words, names: Sequence[str], inputs: Sequence[str]) -> Made:
        s = split(self, operand, how)
        made = PackedIndexed(
            axes=s.axes,
            reads=(s.reads[0], *s.weights, s.reads[-1]),
            write=s.write,
            in_types=(self.in_types[0], *how.types, self.in_types[-1]),
            out_type=self.out_type,
            fill=self.fill,
            chosen=self.chosen,
            of=self.of,
            wraps=self.wraps,
            kind=how.kind,
        )
        return made, (inputs[0], *names, inputs[-1])

    @property
    def index(self) -> int:
        """The number of the operand that says which."""
        return len(self.reads) - 1

    @property
    def whole(self) -> tuple[str, ...]:
        return (self.chosen,)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return index_bounds(self.index, (self.of,), (self.size[self.chosen],), self.wraps)

    @property
    def panels(self) -> tuple[int, ...]:
        return ()

    @property
    def paired(self) -> str:
        return ""

    @property
    def across(self) -> str:
        return ""

    def key(self) -> tuple[object, ...]:
        return (self.name, self.reduced, self.chosen, self.size[self.chosen], self.wraps, self.chosen_by)

    @property
    def chosen_by(self) -> tuple[str, ...]:
        """The axes on which the index depends."""
        return access_axes(self.reads[-1])

    @property
    def summed(self) -> tuple[str, ...]:
        """The axes that are summed over, those on which the index depends first."""
        found = [a for a in self.reduced if a != self.chosen]
        return tuple(sorted(found, key=lambda a: a not in self.chosen_by))

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        """An axis along which one matrix is read."""
        return cheapest_lane_axis(self, extents, self.chosen_by)

    # -- meaning ------------------------------------------------------------------
    def reference(self, *operands: Array) -> Array:
        size, names = self.size, [a for a, _ in self.axes if a != self.chosen]
        letter = dict(zip(names, ascii_letters, strict=False))

        def seen(*reads: Access) -> list[tuple[str, int]]:
            found = {a for read in reads for a in access_axes(read)}
            return [(a, size[a]) for a in names if a in found]

        left = seen(self.reads[0])
        a = np.broadcast_to(
            gather(widen(operands[0], self.in_types[0]), self.reads[0], left, 0), [n for _, n in left]
        )
        right = seen(*self.reads[1:])
        at = gather(operands[-1], self.reads[-1], [*right, (self.chosen, 1)], 0).astype(np.int64)
        b, right = self.taken(
            operands, right, np.where(at < 0, at + size[self.chosen], at) if self.wraps else at
        )
        b = np.broadcast_to(b, [n for _, n in right])
        kept = [(a, n) for a, n in self.axes if a not in self.reduced]
        both = {a for a, _ in (*left, *right)}
        terms = ("".join(letter[a] for a, _ in axes) for axes in (left, right))
        result = "".join(letter[a] for a, _ in kept if a in both)
        with np.errstate(all="ignore"):
            out = np.asarray(np.einsum(f"{','.join(terms)}->{result}", a, b, optimize=True))
        repeats = product([size[a] for a in self.summed if a not in both])
        out = np.expand_dims(out, tuple(i for i, (a, _) in enumerate(kept) if a not in both))
        return assemble(out if repeats == 1 else out * out.dtype.type(repeats), self.write, kept)

    def taken(self, operands: Sequence[Array], axes: Axes, at: Array) -> tuple[Array, Axes]:
        """What b holds at the places `at`, which have one dimension for each of `axes` and one more; and the
        axes of its dimensions."""
        b = widen(operands[1], self.in_types[1])
        return gather(b, self.reads[1], [*axes, (self.chosen, 1)], 0, {self.chosen: at})[..., 0], axes

    # -- cost ---------------------------------------------------------------------
    def _counts(self, extents: Extents) -> tuple[Any, Any, Any]:
        """Indices that are read, products, and these as vector operations and as slices."""
        choices = product([extents[a] for a in self.chosen_by])
        n = product([extents[a] for a, _ in self.axes if a != self.chosen])
        first, second = (access_axes(read) for read in self.reads[:2])
        kept = {a: extents[a] for a in access_axes(self.write) if a not in self.chosen_by}
        return choices, n, operations(n, kept, first, second)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """A vector op for each reduced iteration and row of results; each index becomes an address before."""
        choices, _, (rows, _) = self._counts(extents)
        return (Work("copy", choices, choices), rows)

    def alternatives(self, extents: Extents) -> tuple[tuple[tuple[Work, ...], object], ...]:
        """`work`, or slices of the reduced axes, or for each index all products at once and then one sum
        over a strided accumulator."""
        choices, n, (_, slices) = self._counts(extents)
        held = n // np.maximum(choices, 1) * self.accumulate.bytes
        dispatches = np.where(held <= TEMPORARY, 2 * choices, CLOSED)
        address = Work("copy", choices, choices)
        second = (address, Work("fma", dispatches, 2 * n))
        return (
            (self.work(extents), 0),
            ((address, slices), 0),
            (second, np.minimum(held, TEMPORARY)),
        )

    # -- kernel -------------------------------------------------------------------
    def body(self, k: KernelBuilder) -> None:
        kept = access_axes(self.write)
        outer = [a for a in kept if a in self.chosen_by]
        inner = [a for a in self.summed if a in self.chosen_by]
        place = [(self.chosen, self.size[self.chosen])]

        def address(at: Index) -> Index:
            source, _ = coordinates(k, at, self.index, place, self.wraps, self.bounds)
            return {**at, **source}

        made = self.products(tuple(a for a in kept if a not in outer), len(inner), address)
        each(k, outer, {}, lambda at: made.emit(k, at if inner else address(at)))

    def products(self, kept: tuple[str, ...], turns: int, address: Callable[[Index], Index]) -> Products:
        """The kernel of one choice, see `Products`."""
        axes = tuple(a for a, _ in self.axes)
        return Products(axes, kept, self.summed, self.accumulate, self.out_type, turns=turns, address=address)


@dataclass(frozen=True, kw_only=True)
class PackedIndexed(Indexed):
    """As `Indexed`, of matrices in words, see `packed`: of a, the words of b, their scales, maybe zero
    points, and the index. The last reduced axis is the digit."""

    kind: Kind

    def linear_in(self, operand: int) -> bool:
        return operand == 0

    def names_axis(self, axis: str) -> bool:
        return axis in self.whole

    @property
    def whole(self) -> tuple[str, ...]:
        return self.chosen, *self.reduced[-1:]

    def asks_unit(self, axis: str) -> bool:
        return axis in self.reduced[-1:]

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.kind)

    def check(self) -> None:
        super().check()
        judge_packed(self, 1, self.kind)
        if self.out_type != F32:
            raise InvalidOp(f"{self.name}: sums in {self.out_type}, not {F32}")

    # -- meaning ------------------------------------------------------------------
    def taken(self, operands: Sequence[Array], axes: Axes, at: Array) -> tuple[Array, Axes]:
        """The digit's axis comes last: no choice depends on it."""
        digit = self.reduced[-1]
        seen = ([*axes, (self.chosen, 1)], {self.chosen: at})
        b = numbers_in(self, 1, operands[1], operands[2:-1], self.kind, seen)
        return b[..., 0, :], [*axes, (digit, self.size[digit])]

    # -- cost ---------------------------------------------------------------------
    def _weights(self, extents: Extents) -> tuple[Any, Any]:
        """Of one choice's matrix in a tile: how many, and along the longest of the result's axes."""
        used = {*access_axes(self.reads[1]), self.reduced[-1]} - {self.chosen, *self.chosen_by}
        most = longest([extents[a] for a in used if a not in self.reduced])
        return product([extents[a] for a in used]), most

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """As `Indexed`; and a row of weights is unpacked for each reduced iteration of a choice."""
        choices = product([extents[a] for a in self.chosen_by])
        weights, row = self._weights(extents)
        unpacked = Work("unpack", UNPACKING * choices * (weights // row), choices * weights)
        return (*super().work(extents), unpacked)

    def scratch(self, extents: Extents) -> Any:
        """The row."""
        return self._weights(extents)[1] * F32.bytes

    def alternatives(self, extents: Extents) -> tuple[tuple[tuple[Work, ...], object], ...]:
        """As of a `PackedProduct`, for one choice after the other."""
        (rows, _), (slices, _), (at_once, more) = super().alternatives(extents)
        *dense, row = rows
        choices = product([extents[a] for a in self.chosen_by])
        weights, _ = self._weights(extents)
        held = weights * F32.bytes
        places = np.where(held <= TEMPORARY, UNPACKING * choices * (HALF_WORD // self.kind.bits), CLOSED)
        whole, held = Work("unpack", places, choices * weights), np.minimum(held, TEMPORARY)
        return (
            *(((*way, row), self.scratch(extents)) for way in (dense, slices)),
            *(((*way, whole), held) for way in (dense, slices)),
            ((*at_once, whole), held + np.asarray(more)),
        )

    # -- kernel -------------------------------------------------------------------
    def products(self, kept: tuple[str, ...], turns: int, address: Callable[[Index], Index]) -> Products:
        axes = tuple(a for a, _ in self.axes)
        zeros = self.index > 3
        return PackedProducts(
            axes, kept, self.summed, F32, F32, turns=turns, address=address, kind=self.kind, zeros=zeros
        )


def indexed(product: Op, operand: int, lookup: Op, through: Access, by: Access) -> Indexed:
    """A product as one by the matrices of which a look-up chose its operand.

    through, by: how the look-up's tensor and its index are read, in the product's axes and the one that is
    looked up (`Op.looked_up`).
    """
    other, bound = 1 - operand, lookup.bounds[0]
    at = access_axes(by)
    kept = access_axes(product.write)
    summed = sorted(product.reduced, key=lambda a: a not in at)
    size = {**product.size, lookup.looked_up: bound.size}
    return Indexed(
        axes=tuple((a, size[a]) for a in (*kept, *summed, lookup.looked_up)),
        reads=(product.reads[other], through, by),
        write=product.write,
        in_types=(product.in_types[other], *lookup.in_types),
        out_type=product.out_type,
        chosen=lookup.looked_up,
        of=bound.axis,
        wraps=bound.low < 0,
    )
