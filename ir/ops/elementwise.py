"""Elementwise operators with broadcasting: the family and arithmetic.

A new operator is one class: see `Sqrt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from .. import math
from ..affine import axis
from ..builder import Arithmetic, Carried, KernelBuilder, Value
from ..count import instructions
from ..dtypes import DType, stored_as
from ..graph import InvalidModel
from ..op import Array, Extents, Op, Work, assemble, broadcast_access, gather, product, signs
from ..rules import GraphBuilder, Spec, register

_SHARED = {f.name for f in fields(Op)}


@dataclass(frozen=True, kw_only=True)
class Elementwise(Op):
    """The family's base: one result element from one element of each operand.

    Fields that a subclass adds are ONNX attributes of the same name.
    """

    elementwise = True
    collapsible = True
    arity: ClassVar[int] = 1
    onnx: ClassVar[str] = ""
    domain: ClassVar[str] = ""  # the operator's, "" for the standard's
    types: ClassVar[tuple[DType, ...]] = ()  # of operands, where no schema of onnx says so
    since: ClassVar[int] = 7
    stored: ClassVar[bool] = False  # is given elements as they are stored, not as they are computed with
    once: ClassVar[bool] = False  # rounds but once in whatever type: f16 is computed with as it is

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if cls.__dict__.get("onnx"):
            stated = (("T", cls.types),) if cls.types else ()
            register(cls.onnx, cls.build, cls.since, cls.domain, types=stated)

    def names_axis(self, axis: str) -> bool:
        return False

    # -- what a subclass gives ---------------------------------------------------
    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        """The result of one element, in `out_type`."""
        raise NotImplementedError

    def numpy(self, *x: Array) -> Array:
        """The same in NumPy."""
        raise NotImplementedError

    @classmethod
    def result_type(cls, *x: DType) -> DType:
        return x[0]

    # -- what the family derives --------------------------------------------------
    @cached_property
    def _computed(self) -> Self:
        """The op in the types that its own are computed in."""
        inner = tuple(map(self._inner, self.in_types)), self._inner(self.out_type)
        if self.stored or inner == (self.in_types, self.out_type):
            return self
        return replace(self, in_types=inner[0], out_type=inner[1])

    def _inner(self, dtype: DType) -> DType:
        return dtype.computed if self.once else dtype.wide

    def element(self, b: Arithmetic, *x: Value) -> Value:
        """The result of one element, rounded once where types are only stored."""
        inner = self._computed
        if inner is self:
            return self.scalar(b, *x)
        wide = [b.cast(v, t) for v, t in zip(x, inner.in_types, strict=True)]
        return b.cast(inner.scalar(b, *wide), self.out_type)

    def elements(self, *x: Array) -> Array:
        """The same in NumPy."""
        inner = self._computed
        if inner is self:
            return self.numpy(*x)
        out = inner.numpy(*(v.astype(t.numpy, copy=False) for v, t in zip(x, inner.in_types, strict=True)))
        return stored_as(out, self.out_type) if inner.out_type != self.out_type else out

    @classmethod
    def build(cls, g: GraphBuilder, spec: Spec) -> Sequence[str]:
        inputs = [t for t in spec.inputs if t]
        if len(inputs) != cls.arity:
            raise InvalidModel(f"{cls.onnx} takes {cls.arity} inputs, not {len(inputs)}")
        own = {f.name: spec.attribute(f.name, f.default) for f in fields(cls) if f.name not in _SHARED}
        if cls.types and (odd := [n for n, v in own.items() if type(v) is not type(getattr(cls, n))]):
            raise InvalidModel(f"{cls.onnx}: attribute {odd[0]} has another type than it must have")
        return [apply(g, cls, inputs, spec.outputs[0], **own)]

    def key(self) -> tuple[object, ...]:
        own = [getattr(self, f.name) for f in fields(self) if f.name not in _SHARED]
        return (type(self).__name__, *own)

    def reference(self, *operands: Array) -> Array:
        views = [
            gather(x, access, self.axes, self.fill) for x, access in zip(operands, self.reads, strict=True)
        ]
        with np.errstate(all="ignore"):
            out = np.broadcast_to(self.elements(*views), tuple(n for _, n in self.axes))
        return assemble(out, self.write, self.axes)

    def body(self, k: KernelBuilder) -> None:
        outer = [a for a, _ in self.axes if a != k.lane_axis]

        def nest(rest: list[str], index: dict[str, Value]) -> None:
            if rest:

                def step(i: Value, carried: Carried) -> Carried:
                    nest(rest[1:], {**index, rest[0]: i})
                    return carried

                k.loop(k.extent(rest[0]), step)
                return

            def lanes(i: Value, carried: Carried) -> Carried:
                at = {**index, k.lane_axis: i} if k.lane_axis else index
                x = [k.load_lanes(j, at, other=1) for j in range(len(self.reads))]
                k.store_lanes(self.element(k, *x), at)
                return carried

            k.lane_loop(lanes)

        nest(outer, {})

    def overwrites(self, operand: int) -> bool:
        alike = self.in_types[operand].bytes == self.out_type.bytes
        return alike and not self.reduced and self.reads[operand] == self.write

    def work(self, extents: Extents) -> tuple[Work, ...]:
        n = product([extents[a] for a, _ in self.axes])
        ops = instructions(self.element, self.in_types)
        return (Work("fma", ops, ops * n),) if ops else (Work("copy", 1, n),)


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The NumPy broadcast of `shapes`; InvalidModel where they do not agree."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(map(str, shapes))
        raise InvalidModel(f"shapes {listed} do not broadcast") from None


def apply(g: GraphBuilder, kind: type[Elementwise], inputs: Sequence[str], hint: str, **own: Any) -> str:
    """Adds one elementwise op over the broadcast shape of `inputs`; `own` are its fields."""
    shape = broadcast(*(g.shape(t) for t in inputs))
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    types = tuple(g.dtype(t) for t in inputs)
    op = kind(
        axes=axes,
        reads=tuple(broadcast_access(g.shape(t), axes) for t in inputs),
        write=tuple(axis(a) for a, _ in axes),
        in_types=types,
        out_type=own.pop("out_type", None) or kind.result_type(*types),
        **own,
    )
    return g.emit(op, inputs, shape, hint)


def scalar_constant(g: GraphBuilder, value: float, dtype: DType) -> str:
    """A constant without dimensions."""
    return g.constant(np.asarray(value, dtype.numpy))


# -- arithmetic -------------------------------------------------------------------------


class Add(Elementwise):
    onnx = "Add"
    exact = once = monotone = affine = True
    arity = 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.add(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return x[0] + x[1]


class Sub(Elementwise):
    onnx = "Sub"
    exact = once = monotone = affine = True
    arity = 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.sub(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return x[0] - x[1]


class Mul(Elementwise):
    onnx = "Mul"
    exact = once = monotone = True
    arity = 2
    zero_absorbs = True

    def linear_in(self, operand: int) -> bool:
        return True

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        return any(np.array_equal(a, b) for a, b in zip(first, last, strict=True))

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.mul(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return x[0] * x[1]


class Div(Elementwise):
    """Quotient; that of integers truncates toward zero, as ONNX and C have it."""

    onnx = "Div"
    exact = once = monotone = True
    arity = 2

    def linear_in(self, operand: int) -> bool:
        return operand == 0 and self.out_type.is_float

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        """Where nothing is rounded off."""
        (a, by), (b, other) = first, last
        if not np.array_equal(by, other) or not by.all():
            return False
        step = (b.astype(np.int64) - a.astype(np.int64)) // steps
        return bool(((step == 0) | ((a % by == 0) & (step % by == 0))).all())

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.div(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        if np.issubdtype(x[0].dtype, np.inexact):
            return x[0] / x[1]
        floor, rest = np.divmod(x[0], x[1])
        short = (rest != 0) & ((x[0] < 0) != (x[1] < 0))
        return floor + short.astype(floor.dtype)


@dataclass(frozen=True, kw_only=True)
class Mod(Elementwise):
    """Remainder: with the sign of the divisor, or of the dividend if `fmod`."""

    onnx = "Mod"
    exact = True
    arity = 2
    since = 10
    fmod: int = 0

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        rest = b.rem(x[0], x[1])
        if self.fmod or self.out_type.kind == "u":
            return rest
        zero = b.const(0, self.out_type)
        signs = b.bit_xor(b.compare("lt", rest, zero), b.compare("lt", x[1], zero))
        wrong = b.bit_and(b.compare("ne", rest, zero), signs)
        return b.select(wrong, b.add(rest, x[1]), rest)

    def numpy(self, *x: Array) -> Array:
        return np.fmod(x[0], x[1]) if self.fmod else np.mod(x[0], x[1])


class Pow(Elementwise):
    """x ** y, both of one type. Of integers, 1 / x with |x| > 1 is 0."""

    arity = 2
    monotone = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.pow(b, x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        if np.issubdtype(x[0].dtype, np.inexact):
            return np.power(x[0], x[1])
        odd = np.where(x[1] % 2 == 0, x[0] * x[0], x[0])  # x ** -y, where |x| is 1
        inverse = np.where(np.abs(x[0]) == 1, odd, np.zeros((), x[0].dtype))
        return np.where(x[1] < 0, inverse, np.power(x[0], np.maximum(x[1], 0)))


class Neg(Elementwise):
    onnx = "Neg"
    exact = once = affine = True
    sign = -1

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.neg(x[0])

    def numpy(self, *x: Array) -> Array:
        return -x[0]


class Abs(Elementwise):
    onnx = "Abs"
    exact = once = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return x[0] if self.out_type.kind == "u" else b.abs(x[0])

    def numpy(self, *x: Array) -> Array:
        return np.abs(x[0])


class Sign(Elementwise):
    onnx = "Sign"
    exact = once = True
    since = 9

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        zero, one = b.const(0, self.out_type), b.const(1, self.out_type)
        up = b.select(b.compare("gt", x[0], zero), one, x[0])
        if self.out_type.kind == "u":
            return up
        return b.select(b.compare("lt", x[0], zero), b.const(-1, self.out_type), up)

    def numpy(self, *x: Array) -> Array:
        return np.sign(x[0])


class Reciprocal(Elementwise):
    onnx = "Reciprocal"
    exact = once = monotone = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.div(b.const(1, self.out_type), x[0])

    def numpy(self, *x: Array) -> Array:
        return np.ones((), x[0].dtype) / x[0]


class Sqrt(Elementwise):
    onnx = "Sqrt"
    exact = once = monotone = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.sqrt(x[0])

    def numpy(self, *x: Array) -> Array:
        return np.sqrt(x[0])


class Floor(Elementwise):
    onnx = "Floor"
    exact = once = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.floor(x[0])

    def numpy(self, *x: Array) -> Array:
        return np.floor(x[0])


class Ceil(Elementwise):
    onnx = "Ceil"
    exact = once = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.ceil(x[0])

    def numpy(self, *x: Array) -> Array:
        return np.ceil(x[0])


class Round(Elementwise):
    """To the nearest integer, ties to even."""

    onnx = "Round"
    exact = once = True
    since = 11

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.round(x[0])

    def numpy(self, *x: Array) -> Array:
        return np.rint(x[0])


class Min(Elementwise):
    arity = 2
    exact = once = monotone = True

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        return bool((signs(*first) * signs(*last) >= 0).all())  # the same one all the way

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.min(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return np.minimum(x[0], x[1])


class Max(Elementwise):
    arity = 2
    exact = once = monotone = True

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        return bool((signs(*first) * signs(*last) >= 0).all())  # the same one all the way

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.max(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return np.maximum(x[0], x[1])


@dataclass(frozen=True, kw_only=True)
class Clip(Elementwise):
    """x limited to [low, high]; None leaves a side open. NaN stays."""

    exact = once = monotone = True
    low: float | int | None = None
    high: float | int | None = None

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        y = x[0]
        if self.low is not None:
            y = b.max(y, b.const(self.low, self.out_type))
        return y if self.high is None else b.min(y, b.const(self.high, self.out_type))

    def numpy(self, *x: Array) -> Array:
        y = x[0]
        if self.low is not None:
            y = np.maximum(y, np.asarray(self.low, y.dtype))
        return y if self.high is None else np.minimum(y, np.asarray(self.high, y.dtype))


def join_of(op: Op) -> Op:
    """What joins a further partial result of `op`, a sum or a product, to the result so far."""
    joins: dict[str, type[Elementwise]] = {"add": Add, "mul": Mul}
    return joins[op.combine or "add"](
        axes=tuple((a, n) for a, n in op.axes if a not in op.reduced),
        reads=(op.write, op.write),
        write=op.write,
        in_types=(op.out_type, op.out_type),
        out_type=op.out_type,
    )
