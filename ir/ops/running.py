"""Running sums and products: an element with all before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..builder import Carried, Combine, KernelBuilder, Value
from ..dtypes import I64
from ..op import Array, Extents, Op, Work, assemble, identity, product
from ..rules import GraphBuilder, Rule, Spec, register
from .conversion import rounded_once
from .elementwise import Add, Elementwise, Mul, apply
from .loops import Index, accumulator, at_lane, cheapest_lane_axis, combine, each, longest, neutral, view
from .rearrange import Cut, normal_axis, reshape, slice_axis, slice_box, surrounded

LONG_ROW = 1024  # elements; a longer row is cut into such parts, which several cores may have


@dataclass(frozen=True, kw_only=True)
class Running(Op):
    """Each element combined with all before it along the axis `over`, one after the other.

    exclusive: without the element itself. reverse: with those after it.
    """

    over: str
    exclusive: bool = False
    reverse: bool = False

    kind: ClassVar[Combine]
    ufunc: ClassVar[np.ufunc]
    exact = True

    @property
    def whole(self) -> tuple[str, ...]:
        return (self.over,)

    def neutral_in(self, operand: int) -> float | None:
        """Of its own, an element past the last one that counts has anything."""
        return float(neutral(self.kind, accumulator(self.out_type)))

    def key(self) -> tuple[object, ...]:
        return (self.name, self.over, self.exclusive, self.reverse)

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return cheapest_lane_axis(self, extents, (self.over,))

    def reference(self, *operands: Array) -> Array:
        seen = view(self, 0, operands[0])
        d = [a for a, _ in self.axes].index(self.over)
        seen = np.flip(seen, d) if self.reverse else seen
        with np.errstate(all="ignore"):
            total = self.ufunc.accumulate(seen, axis=d, dtype=seen.dtype)
        if self.exclusive:
            none = np.full_like(total.take([0], d), neutral(self.kind, accumulator(self.out_type)))
            total = np.concatenate([none, total.take(range(seen.shape[d] - 1), d)], d)
        return assemble(np.flip(total, d) if self.reverse else total, self.write, self.axes)

    def body(self, k: KernelBuilder) -> None:
        wide = accumulator(self.out_type)
        outer = [a for a, _ in self.axes if a not in (self.over, k.lane_axis)]
        last = k.sub(k.extent(self.over), k.const(1, I64))

        def row(at: Index) -> None:
            def step(i: Value, carried: Carried) -> Carried:
                here = {**at, self.over: k.sub(last, i) if self.reverse else i}
                total = combine(k, self.kind, carried[0], k.cast(k.load_lanes(0, here), wide))
                k.store_lanes(k.cast(carried[0] if self.exclusive else total, self.out_type), here)
                return [total]

            k.loop(k.extent(self.over), step, [k.splat(k.const(neutral(self.kind, wide), wide))])

        def rows(at: Index) -> None:
            def lanes(i: Value, carried: Carried) -> Carried:
                row(at_lane(k, at, i))
                return carried

            k.lane_loop(lanes)

        each(k, outer, {}, rows)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """Vector ops across the rows, one for each step."""
        n = product([extents[a] for a, _ in self.axes])
        return (Work("fma", n // longest([extents[a] for a, _ in self.axes if a != self.over]), n),)


class RunningSum(Running):
    kind = "add"
    ufunc = np.add


class RunningProduct(Running):
    kind = "mul"
    ufunc = np.multiply


JOINS: dict[type[Running], type[Elementwise]] = {RunningSum: Add, RunningProduct: Mul}


@dataclass(frozen=True)
class Course:
    """How a row is gone through: sums or products, without the element itself, from the end."""

    kind: type[Running]
    exclusive: bool = False
    reverse: bool = False


def running(g: GraphBuilder, course: Course, x: str, dim: int, hint: str) -> str:
    """Running sums or products along `dim`: of a long row within its parts, then with what is before each."""
    kind, reverse = course.kind, course.reverse
    shape = g.shape(x)
    parts = -(-shape[dim] // LONG_ROW)
    if parts <= 1:
        return _emit_running(g, course, x, dim, hint)
    # The same nodes whether there is a rest or not: a row that grows with caches has one at most lengths.
    filled = [parts * LONG_ROW if i == dim else n for i, n in enumerate(shape)]
    fill = float(neutral(kind.kind, g.dtype(x)))
    whole = surrounded(g, x, [0] * len(shape), filled, fill, hint)
    split = reshape(g, whole, [*shape[:dim], parts, LONG_ROW, *shape[dim + 1 :]], hint)
    inner = _emit_running(g, replace(course, exclusive=False), split, dim + 1, hint)
    total = slice_axis(g, inner, dim + 1, 0 if reverse else LONG_ROW - 1, 1, hint)
    before = running(g, replace(course, exclusive=True), total, dim, hint)
    if course.exclusive:
        inner = _emit_running(g, course, split, dim + 1, hint)
    joined = reshape(g, apply(g, JOINS[kind], [before, inner], hint), g.shape(whole), hint)
    return slice_box(g, joined, [Cut(0, 1, n) for n in shape], hint, moves=True)


def _emit_running(g: GraphBuilder, course: Course, x: str, dim: int, hint: str) -> str:
    axes = tuple((f"d{i}", n) for i, n in enumerate(g.shape(x)))
    whole = identity([a for a, _ in axes])
    op = course.kind(
        axes=axes,
        reads=(whole,),
        write=whole,
        in_types=(g.dtype(x),),
        out_type=g.dtype(x),
        over=f"d{dim}",
        exclusive=course.exclusive,
        reverse=course.reverse,
    )
    return g.emit(op, [x], g.shape(x), hint)


def _cumulative(kind: type[Running]) -> Rule:
    def build(g: GraphBuilder, spec: Spec) -> Sequence[str]:
        x = spec.inputs[0]
        named = g.known(spec.inputs[1], f"{spec.op_type}'s axis").reshape(-1)[0]
        dim = normal_axis(int(named), len(g.shape(x)))
        exclusive, reverse = (bool(spec.attribute(name, 0)) for name in ("exclusive", "reverse"))
        course = Course(kind, exclusive, reverse)
        grows = g.measure(np.array(g.shape(x), np.int64))[dim] != 0
        # From its end on, a row that grows begins with what holds nothing: in one piece that is seen.
        made = _emit_running if reverse and grows else running
        return [made(g, course, x, dim, spec.outputs[0])]

    return build


register("CumSum", rounded_once(_cumulative(RunningSum)), 11, limits="axis known")
register("CumProd", rounded_once(_cumulative(RunningProduct)), 26, limits="axis known")
