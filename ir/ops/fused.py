"""Several elementwise ops as one: intermediate values stay in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..builder import Arithmetic, Value
from ..dtypes import DType
from ..op import Array, Op
from .elementwise import Elementwise


@dataclass(frozen=True)
class Constant:
    """A number in the code. `text` is its identity: -0.0 equals 0.0, their texts differ."""

    value: float | int | bool = field(compare=False, repr=False)
    text: str
    dtype: DType


@dataclass(frozen=True)
class Operand:
    """Operand `number` of the fused op."""

    number: int


@dataclass(frozen=True)
class Result:
    """The result of step `number`."""

    number: int


Source = Operand | Result | Constant


@dataclass(frozen=True)
class Step:
    """One op, stripped of axes and accesses, and where its operands come from."""

    op: Elementwise
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class Fused(Elementwise):
    """The last of `steps`, each computed from operands, constants and earlier steps."""

    stored = True
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        return "+".join(s.op.name for s in self.steps)

    def key(self) -> tuple[object, ...]:
        return (
            "Fused",
            *((s.op.key(), s.op.in_types, s.op.out_type, s.sources) for s in self.steps),
        )

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        values: list[Value] = []
        for step in self.steps:
            operands: list[Value] = []
            for s in step.sources:
                if isinstance(s, Constant):
                    operands.append(b.const(s.value, s.dtype))
                else:
                    operands.append(x[s.number] if isinstance(s, Operand) else values[s.number])
            values.append(step.op.element(b, *operands))
        return values[-1]

    def numpy(self, *x: Array) -> Array:
        values: list[Array] = []
        for step in self.steps:
            operands: list[Array] = []
            for s in step.sources:
                if isinstance(s, Constant):
                    operands.append(np.asarray(s.value, s.dtype.numpy))
                else:
                    operands.append(x[s.number] if isinstance(s, Operand) else values[s.number])
            values.append(step.op.elements(*operands))
        return values[-1]


def as_steps(op: Op) -> tuple[Step, ...]:
    """The op, an elementwise one, as steps over its own operands."""
    if isinstance(op, Fused):
        return op.steps
    assert isinstance(op, Elementwise)
    bare = replace(op, axes=(), reads=((),) * len(op.reads), write=(), fill=0.0)
    return (Step(bare, tuple(Operand(i) for i in range(len(op.reads)))),)


def renumbered(steps: Sequence[Step], operands: Sequence[Source], offset: int) -> tuple[Step, ...]:
    """Steps with other operands, standing after `offset` further steps."""

    def source(s: Source) -> Source:
        if isinstance(s, Operand):
            return operands[s.number]
        return Result(s.number + offset) if isinstance(s, Result) else s

    return tuple(Step(s.op, tuple(map(source, s.sources))) for s in steps)
