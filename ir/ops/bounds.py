"""Indices that data give, and what they are held to: with an element outside its bound a call fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ..affine import Access
from ..builder import KernelBuilder, Value
from ..dtypes import I64
from ..graph import InvalidModel
from ..op import Array, Bound, Extents, Op, Work, assemble, gather, identity, product
from ..rules import GraphBuilder
from .loops import Index, each, longest


def report_outside(k: KernelBuilder, bounds: Sequence[Bound], elements: Sequence[Value]) -> None:
    """Reports each element (i64) that is outside its bound."""
    for number, (bound, element) in enumerate(zip(bounds, elements, strict=True)):
        under = k.compare("lt", element, k.const(bound.low, I64))
        outside = k.bit_or(under, k.compare("ge", element, k.const(bound.high, I64)))
        k.where(outside, partial(k.report, number, element))


def index_bounds(first: int, of: Sequence[int], sizes: Sequence[int], wraps: bool) -> tuple[Bound, ...]:
    """What the coordinates in the operands from `first` on are held to. of: the axes, () for no bounds."""
    along = zip(of, sizes, strict=True) if of else ()
    return tuple(Bound(first + j, -n if wraps else 0, n, "index", a, n) for j, (a, n) in enumerate(along))


@dataclass(frozen=True, kw_only=True)
class Within(Op):
    """An operand of integers as it is, of which each is held to a range; other operators compute on.

    what, axis, size_along: of the bound, see `Bound`.
    """

    low: int
    high: int
    what: str
    axis: int
    size_along: int

    exact = True

    def key(self) -> tuple[object, ...]:
        return (self.name, self.low, self.high)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return (Bound(0, self.low, self.high, self.what, self.axis, self.size_along),)

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return ""  # one element after the other: what is reported is one

    def reference(self, *operands: Array) -> Array:
        # Reads may be composed with what was relabelled before.
        return assemble(gather(operands[0], self.reads[0], self.axes, self.fill), self.write, self.axes)

    def body(self, k: KernelBuilder) -> None:
        def one(at: Index) -> None:
            element = k.load(0, at)
            wide = k.cast(element, I64)
            report_outside(k, self.bounds, [wide])
            k.store(element, at)

        each(k, [a for a, _ in self.axes], {}, one)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """Two comparisons of each element."""
        n = product([extents[a] for a, _ in self.axes])
        return (Work("fma", 2 * (n // longest([extents[a] for a, _ in self.axes])), 2 * n),)


def within(g: GraphBuilder, x: str, bound: Bound, hint: str) -> str:
    """x, the elements of which are held to a bound."""
    axes = tuple((f"d{i}", n) for i, n in enumerate(g.shape(x)))
    read = identity([a for a, _ in axes])
    op = Within(
        axes=axes,
        reads=(read,),
        write=read,
        in_types=(g.dtype(x),),
        out_type=g.dtype(x),
        low=bound.low,
        high=bound.high,
        what=bound.what,
        axis=bound.axis,
        size_along=bound.size,
    )
    return g.emit(op, [x], g.shape(x), hint)


def judge_indices(
    g: GraphBuilder, indices: tuple[str, Access], axes: Sequence[tuple[str, int]], bound: Bound
) -> None:
    """InvalidModel for indices that are outside in any run: constants, or all where nothing is inside.

    indices: a tensor, and how it is read along `axes`. For what becomes no op; `emit` judges ops by itself.
    """
    g.judge_bound(indices[0], indices[1], axes, bound)
    if bound.low >= bound.high and 0 not in g.shape(indices[0]):
        raise InvalidModel(f"an index into axis {bound.axis}, which has {bound.size} elements")
