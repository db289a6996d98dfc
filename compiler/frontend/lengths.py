"""A model's graph for caches of a capacity: what the model computes from their length is of the run.

Exported models take positions and masks from the shape of their caches. Here the graph is built for caches
that are full after the call, and an integer constant made of shapes keeps its *slope*: with `length`
positions in the caches it is its value + slope * (length - past). Slopes of shapes come from two plain
builds. Ops that are affine hand slopes on, comparisons that come out alike at every length are decided, and
any other op is left to the run, where it reads `base + slope * length`. Floats and bools have no slopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.absent import lacking
from ...ir.affine import Access, access_axes
from ...ir.dtypes import I64, DType
from ...ir.graph import Unsupported
from ...ir.op import Array, Bound, Op, gather
from ...ir.ops.conversion import cast
from ...ir.ops.elementwise import Add, Mul, apply
from ...ir.rules import GraphBuilder, result_of, result_of_parts

CHANGES = "changes with the number of positions in the caches"


@dataclass(frozen=True)
class Measured:
    """What was asked of a shape: its value with `past` positions in the caches, and its slope."""

    value: Array
    slope: Array
    past: int


def slopes(short: Sequence[Array], longer: Sequence[Array], past: int) -> list[Measured] | None:
    """Of what two builds asked of shapes, for pasts of `past` positions and of one more; None where they
    asked differently."""
    if [a.shape for a in short] != [b.shape for b in longer]:
        return None
    return [Measured(a, b - a, past) for a, b in zip(short, longer, strict=True)]


@dataclass
class LengthBuilder(GraphBuilder):
    """A graph under construction whose caches hold `past` positions before the call and `capacity` after it.

    known_slopes: of what is asked of shapes, in order. most: positions that a run's caches hold before a call
    at most. taken: names that the model's outputs have.
    """

    past: int = 1
    capacity: int = 2
    most: int = 1
    known_slopes: Sequence[Measured] = ()
    taken: frozenset[str] = frozenset()
    _slopes: dict[str, Array] = field(default_factory=dict[str, Array])
    _run_time: dict[str, str] = field(default_factory=dict[str, str])  # by constant what nodes read for it
    _of_length: set[str] = field(default_factory=set[str])  # made of the length and constants alone

    # -- slopes ---------------------------------------------------------------------------
    def measure(self, value: Array) -> Array:
        if len(self.measures) >= len(self.known_slopes):
            raise Unsupported(f"its result {CHANGES} in more than its value")
        known = self.known_slopes[len(self.measures)]
        self.measures.append(value)
        if not np.array_equal(value, known.value + known.slope * (self.past - known.past)):
            raise Unsupported("a dimension grows otherwise than position by position with the caches")
        return known.slope

    def _sloped(self, name: str, slope: Array) -> str:
        if slope.any():
            self._slopes[name] = np.broadcast_to(slope, self.shape(name))
        return name

    def slope(self, name: str) -> Array:
        found = self._slopes.get(name)
        return super().slope(name) if found is None else found

    def follows_length(self, name: str) -> bool:
        return name in self._slopes

    def sloping(self, value: Array, slope: Array, hint: str) -> str:
        return self._sloped(self.constant(value, hint), slope)

    def at_first(self, value: int, slope: int) -> int:
        return value - slope * self.past

    def _held(self, name: str, length: int) -> Array:
        """A constant with `length` positions in the caches."""
        value, slope = self.constants[name], self._slopes.get(name)
        if slope is None:
            return value
        return (value + slope * (length - self.past)).astype(value.dtype)

    def _followed(self, first: Array, last: Array, hint: str) -> str:
        """A constant that goes from one value to the other in equal steps; "" for none of integers that
        does."""
        if np.array_equal(first, last):
            return self.constant(first, hint)
        if first.dtype.kind not in "iu":
            return ""
        slope = (last.astype(np.int64) - first.astype(np.int64)) // self.most
        return self._sloped(self.constant((first + slope * self.past).astype(first.dtype), hint), slope)

    @property
    def _reach(self) -> tuple[int, int]:
        """Lengths between which tensors have room for what a call adds."""
        return 0, min(self.past, self.most)

    # -- parameters ------------------------------------------------------------------------
    def value(self, name: str) -> Array | None:
        return None if name in self._slopes else super().value(name)

    def known(self, name: str, what: str) -> Array:
        self._judge_parameter(name, what)
        return super().known(name, what)

    def fixed(self, name: str, what: str) -> Array:
        self._judge_parameter(name, what)
        return super().fixed(name, what)

    def _judge_parameter(self, name: str, what: str) -> None:
        """A parameter that counts the positions after a call is the capacity; Unsupported for another one
        that is not fixed."""
        slope = self._slopes.get(name)
        counts = slope is None or ((slope == 0) | (self.constants[name] == slope * self.capacity)).all()
        if name in self._of_length or not counts:
            raise Unsupported(f"{what} {CHANGES}")

    def counted(self, count: int, slope: int, what: str) -> int:
        if slope and count != slope * self.capacity:
            raise Unsupported(f"{what} {CHANGES}")
        return count

    # -- following -------------------------------------------------------------------------
    def fold(self, op: Op, inputs: Sequence[str], shape: Sequence[int], hint: str) -> str:
        if 0 in op.size.values() or self._slopes.keys().isdisjoint(inputs):
            return super().fold(op, inputs, shape, hint)
        if (
            not all(t in self.constants for t in inputs)
            or lacking([self.constants[t] for t in inputs]) is not None
        ):
            return ""
        first, last = ([self._held(t, n) for t in inputs] for n in (0, self.most))
        if not op.steps_evenly(first, last, self.most) or not self.take(op, inputs, shape):
            return ""
        return self._followed(result_of(op, first, shape), result_of(op, last, shape), hint)

    def fold_parts(
        self, parts: Sequence[tuple[Op, Sequence[str]]], shape: Sequence[int], dtype: DType, hint: str
    ) -> str:
        names = {t for _, inputs in parts for t in inputs}
        if self._slopes.keys().isdisjoint(names):
            return super().fold_parts(parts, shape, dtype, hint)
        if not all(t in self.constants for t in names) or not all(op.affine for op, _ in parts):
            return ""
        if lacking([self.constants[t] for t in names]) is not None or not self.take_parts(
            names, shape, dtype
        ):
            return ""
        first, last = (
            result_of_parts(parts, shape, dtype, {t: self._held(t, n) for t in names}) for n in (0, self.most)
        )
        return self._followed(first, last, hint)

    # -- running ---------------------------------------------------------------------------
    def emit(self, op: Op, inputs: Sequence[str], shape: Sequence[int], hint: str = "t") -> str:
        self._judge_places(op, inputs)
        made = super().emit(op, inputs, shape, hint)
        self._note(made, inputs)
        return made

    def emit_parts(
        self, parts: Sequence[tuple[Op, Sequence[str]]], shape: Sequence[int], dtype: DType, hint: str = "t"
    ) -> str:
        made = super().emit_parts(parts, shape, dtype, hint)
        self._note(made, [t for _, inputs in parts for t in inputs])
        return made

    def _judge_places(self, op: Op, inputs: Sequence[str]) -> None:
        """Unsupported where places that change are in something that grows, but are not positions: its rows
        lie one behind the other as at the capacity, and its end is there."""
        for bound in op.bounds:
            at, read = inputs[bound.operand], op.reads[bound.operand]
            if bound.operand == 0 or at not in self._slopes:
                continue
            axes = [x for x in op.axes if x[0] in access_axes(read)]
            ends = [gather(self._held(at, length), read, axes, 0) for length in self._reach]
            steps = ends[1] - ends[0]
            fixed = inputs[0] in self.constants and bound.size != self.capacity
            inside = all(e.min() >= 0 and e.max() < self.capacity for e in ends)
            if steps.min() < steps.max() or not (fixed or inside):
                raise Unsupported(f"which elements it takes of something that grows {CHANGES}")

    def _note(self, made: str, inputs: Iterable[str]) -> None:
        known = (t in self.constants or t in self._of_length for t in inputs)
        if made not in self.constants and all(known):
            self._of_length.add(made)

    def at_run_time(self, name: str) -> str:
        if name not in self._slopes:
            return name
        if name not in self._run_time:
            base, slope = self._held(name, 0), self._slopes[name]
            same = slope.min() == slope.max()
            factor = np.asarray(slope.reshape(-1)[0] if same else slope, base.dtype)
            length = cast(self, self._length(), self.dtype(name), "length")
            grown = apply(self, Mul, [length, self.constant(factor)], name) if (factor != 1).any() else length
            self._run_time[name] = apply(self, Add, [self.constant(base), grown], name)
        return self._run_time[name]

    def _length(self) -> str:
        """The input that holds the number of positions in the caches before a call."""
        if not self.length_input:
            name = "length"
            while name in self.taken or name in self.tensors:
                name += "."
            self.length_input = self.tensor(name, (), I64)
            self._of_length.add(self.length_input)
        return self.length_input

    def judge_bound(self, name: str, read: Access, axes: Sequence[tuple[str, int]], bound: Bound) -> None:
        if name not in self._slopes:
            return super().judge_bound(name, read, axes, bound)
        along = access_axes(read)
        for length in self._reach:
            seen = gather(self._held(name, length), read, [x for x in axes if x[0] in along], 0)
            if (found := bound.outside(seen)) is not None:
                raise Unsupported(
                    f"{bound.problem(found)} once the caches hold {length} positions; "
                    f"try a --capacity below {self.capacity}"
                )
        return None
