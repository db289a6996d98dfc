"""Elementwise operators with broadcasting. A new operator is one class: see `Relu`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import math
from ..affine import axis
from ..builder import Arithmetic, Carried, KernelBuilder, Value
from ..count import instructions
from ..dtypes import BOOL, DType
from ..graph import GraphBuilder, Spec, register
from ..op import Array, Extents, Op, Work, broadcast_access, gather, product


@dataclass(frozen=True, kw_only=True)
class Elementwise(Op):
    """The family's base: one result element from one element of each operand."""

    arity: ClassVar[int] = 1
    onnx: ClassVar[str] = ""
    since: ClassVar[int] = 6

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if cls.__dict__.get("onnx"):
            register(cls.onnx, cls.build, cls.since)

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
    @classmethod
    def build(cls, g: GraphBuilder, spec: Spec) -> Sequence[str]:
        inputs = [t for t in spec.inputs if t]
        return [apply(g, cls, inputs, spec.outputs[0])]

    def reference(self, *operands: Array) -> Array:
        views = [
            gather(x, access, self.axes, self.fill) for x, access in zip(operands, self.reads, strict=True)
        ]
        with np.errstate(all="ignore"):
            out = np.broadcast_to(self.numpy(*views), tuple(n for _, n in self.axes))
        # The axes stand in the order of the loop; the result wants the order of the write.
        order = [i for e in self.write for i, (a, _) in enumerate(self.axes) if a in e.axes]
        box = self.hold({a: (0, s) for a, s in self.axes})
        return out.transpose(order).reshape([hi - lo for lo, hi in box])

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
                k.store_lanes(self.scalar(k, *x), at)
                return carried

            k.lane_loop(lanes)

        nest(outer, {})

    def work(self, extents: Extents) -> tuple[Work, ...]:
        n = product([extents[a] for a, _ in self.axes])
        ops = instructions(self.scalar, self.in_types)
        return (Work("fma", ops, ops * n),) if ops else (Work("copy", 1, n),)


def apply(g: GraphBuilder, kind: type[Elementwise], inputs: Sequence[str], hint: str, **fields: Any) -> str:
    """Adds one elementwise op over the broadcast shape of `inputs`."""
    shape = np.broadcast_shapes(*(g.shape(t) for t in inputs))
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    types = tuple(g.dtype(t) for t in inputs)
    op = kind(
        axes=axes,
        reads=tuple(broadcast_access(g.shape(t), axes) for t in inputs),
        write=tuple(axis(a) for a, _ in axes),
        in_types=types,
        out_type=fields.pop("out_type", None) or kind.result_type(*types),
        **fields,
    )
    return g.emit(op, inputs, shape, hint)


class Relu(Elementwise):
    onnx = "Relu"
    exact = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.max(x[0], b.const(0, self.out_type))

    def numpy(self, *x: Array) -> Array:
        return np.maximum(x[0], np.zeros((), x[0].dtype))


class Add(Elementwise):
    onnx = "Add"
    exact = True
    arity = 2

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.add(x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return x[0] + x[1]


class Erf(Elementwise):
    onnx = "Erf"

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return math.erf(b, x[0])

    def numpy(self, *x: Array) -> Array:
        from math import erf

        return np.vectorize(erf, otypes=[x[0].dtype])(x[0])


class Equal(Elementwise):
    onnx = "Equal"
    exact = True
    arity = 2

    @classmethod
    def result_type(cls, *x: DType) -> DType:
        return BOOL

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.compare("eq", x[0], x[1])

    def numpy(self, *x: Array) -> Array:
        return np.equal(x[0], x[1])


class Cast(Elementwise):
    """Conversion between types; `out_type` says to which."""

    exact = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return b.cast(x[0], self.out_type)

    def numpy(self, *x: Array) -> Array:
        return x[0].astype(self.out_type.numpy)


