"""Products by one of many matrices: which one, an index says that only a run has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

import numpy as np

from ..affine import Access, access_axes
from ..builder import KernelBuilder
from ..op import CLOSED, Array, Bound, Extents, Op, Work, assemble, gather, product
from .bounds import index_bounds
from .contract import Contract
from .index import coordinates
from .loops import Index, cheapest_lane_axis, each, widen
from .products import TEMPORARY, Products, operations


@dataclass(frozen=True, kw_only=True)
class Indexed(Contract):
    """result = sum of a * b over the axes that the result lacks, where an index says which matrix of b.

    Operands: a, b, index. Axis `chosen` is b's alone and has no iterations of its own: the index is a place
    along it, and so an address in a tile's b. It is never cut, and no element of b moves for an index.

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

    @property
    def whole(self) -> tuple[str, ...]:
        return (self.chosen,)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return index_bounds(2, (self.of,), (self.size[self.chosen],), self.wraps)

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
        return access_axes(self.reads[2])

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
        each_axis = [*right, (self.chosen, 1)]
        at = gather(operands[2], self.reads[2], each_axis, 0).astype(np.int64)
        at = np.where(at < 0, at + size[self.chosen], at) if self.wraps else at
        b = gather(widen(operands[1], self.in_types[1]), self.reads[1], each_axis, 0, {self.chosen: at})
        b = np.broadcast_to(b[..., 0], [n for _, n in right])
        kept = [(a, n) for a, n in self.axes if a not in self.reduced]
        both = {a for a, _ in (*left, *right)}
        terms = ("".join(letter[a] for a, _ in axes) for axes in (left, right))
        result = "".join(letter[a] for a, _ in kept if a in both)
        with np.errstate(all="ignore"):
            out = np.asarray(np.einsum(f"{','.join(terms)}->{result}", a, b, optimize=True))
        repeats = product([size[a] for a in self.summed if a not in both])
        out = np.expand_dims(out, tuple(i for i, (a, _) in enumerate(kept) if a not in both))
        return assemble(out if repeats == 1 else out * out.dtype.type(repeats), self.write, kept)

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
            source, _ = coordinates(k, at, 2, place, self.wraps, self.bounds)
            return {**at, **source}

        made = Products(
            tuple(a for a, _ in self.axes),
            tuple(a for a in kept if a not in outer),
            self.summed,
            self.accumulate,
            self.out_type,
            turns=len(inner),
            address=address,
        )
        each(k, outer, {}, lambda at: made.emit(k, at if inner else address(at)))


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
