"""Loops of a kernel: values that they carry stand in phis, lanes past the tile's end are masked.

So the code is as fast without LLVM's optimisation passes as with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from llvmlite import ir

from ...ir.builder import Carried, Value
from ...ir.dtypes import I64
from .addresses import Addresses, OpenLoop
from .arithmetic import I1_TYPE, I32_TYPE, I64_TYPE, LLVMArithmetic, LLVMValue

Body = Callable[[Value, Carried], Carried]
Chunk = Callable[[Value, Value, Carried], Carried]


def constant_word(value: int) -> ir.Constant:
    return ir.Constant(I64_TYPE, value)


class Lanes:
    """The lanes at work: those of the open lane loop, or all. `count` of them are in a vector.

    group: vectors that are done at a time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.group = 1
        self.mask: ir.Value | None = None  # of the lanes that lie in the tile; None: all
        self.active: ir.Value = constant_word(count)  # how many they are

    def whole(self) -> None:
        """From here on all lanes are at work."""
        self.group, self.mask, self.active = 1, None, constant_word(self.count)

    def chosen(self) -> ir.Value:
        """The mask, all of whose lanes may be set."""
        if self.mask is not None:
            return self.mask
        return ir.Constant(ir.VectorType(I1_TYPE, self.count), [1] * self.count)

    @property
    def numbers(self) -> ir.Constant:
        """0, 1, ..., as i64."""
        return ir.Constant(ir.VectorType(I64_TYPE, self.count), list(range(self.count)))


@dataclass(frozen=True)
class Run:
    """i = start, start + step, ... while i + need <= limit. some: there is at least one."""

    start: ir.Value
    limit: ir.Value
    step: int | ir.Value
    need: int
    some: bool = False


class Loops:
    """Emits loops and branches with the builder of `arithmetic`; `at` knows the blocks."""

    def __init__(self, arithmetic: LLVMArithmetic, at: Addresses, lanes: Lanes) -> None:
        self._arithmetic, self._builder, self._at, self._lanes = arithmetic, arithmetic.builder, at, lanes

    def counted(self, count: Value | int, body: Body, carried: Carried, step: int, some: bool) -> Carried:
        """`body(i, carried)` for i = 0, step, ... as long as whole steps lie below `count`."""
        limit = constant_word(count) if isinstance(count, int) else cast(LLVMValue, count).ir
        return self.over(Run(constant_word(0), limit, step, step, some), body, carried)[1]

    def over(self, run: Run, body: Body, carried: Carried) -> tuple[ir.Value, Carried]:
        """`body(i, carried)` for each i of a run: the first i not reached, and the last carried."""
        e, arithmetic = self._builder, self._arithmetic
        initial = [cast(LLVMValue, c) for c in carried]
        last = e.sub(run.limit, constant_word(run.need))
        before, head, after = e.block, e.append_basic_block("loop"), e.append_basic_block("after")
        if run.some:
            e.branch(head)
        else:
            e.cbranch(e.icmp_signed("<=", run.start, last), head, after)
        self._at.enter(head)
        index = e.phi(I64_TYPE)
        index.add_incoming(run.start, before)
        if isinstance(run.step, int):
            self._at.loops[index] = OpenLoop(before, head, run.start, run.step)
        phis = [e.phi(c.ir.type) for c in initial]
        for phi, c in zip(phis, initial, strict=True):
            phi.add_incoming(c.ir, before)
        inside = [arithmetic.make(c.dtype, p, c.lanes) for p, c in zip(phis, initial, strict=True)]
        out = [
            cast(LLVMValue, arithmetic.splat(o) if c.lanes else o)
            for o, c in zip(body(arithmetic.make(I64, index, 0), inside), initial, strict=True)
        ]
        following = e.add(index, constant_word(run.step) if isinstance(run.step, int) else run.step)
        if isinstance(run.step, int):
            self._at.close(index)
        end = e.block
        index.add_incoming(following, end)
        for phi, o in zip(phis, out, strict=True):
            phi.add_incoming(o.ir, end)
        e.cbranch(e.icmp_signed("<=", following, last), head, after)
        self._at.enter(after)
        if run.some:
            return following, [arithmetic.make(o.dtype, o.ir, o.lanes) for o in out]

        def join(first: ir.Value, then: ir.Value) -> ir.Value:
            phi = e.phi(first.type)
            phi.add_incoming(first, before)
            phi.add_incoming(then, end)
            return phi

        reached = join(run.start, following)
        return reached, [
            arithmetic.make(c.dtype, join(c.ir, o.ir), c.lanes) for c, o in zip(initial, out, strict=True)
        ]

    def in_lanes(self, count: ir.Value, body: Body, carried: Carried, vectors: Sequence[int]) -> Carried:
        """A lane loop over `count` elements: groups of so many vectors first, the rest masked."""
        e, arithmetic, lanes = self._builder, self._arithmetic, self._lanes

        def masked(i: Value, inner: Carried) -> Carried:
            left = e.sub(count, cast(LLVMValue, i).ir)
            full = constant_word(lanes.count)
            lanes.active = e.select(e.icmp_signed("<", left, full), left, full)
            number = arithmetic.vector_of(e.trunc(lanes.active, I32_TYPE), e.block)
            lane = ir.Constant(ir.VectorType(I32_TYPE, lanes.count), list(range(lanes.count)))
            lanes.mask = e.icmp_unsigned("<", lane, number)
            return body(i, inner)

        start: ir.Value = constant_word(0)
        for lanes.group in vectors:
            elements = lanes.group * lanes.count
            start, carried = self.over(Run(start, count, elements, elements), body, carried)
        lanes.group = 1
        _, carried = self.over(Run(start, count, lanes.count, 1), masked, carried)
        lanes.whole()
        return carried

    def in_chunks(
        self,
        count: ir.Value,
        given: ir.Value,
        body: Callable[[Value, Value, Carried], Carried],
        carried: Carried,
    ) -> Carried:
        """`body(first, length, carried)` for chunks of `given` iterations each; 0: one chunk of all."""
        e, arithmetic = self._builder, self._arithmetic
        with e.goto_block(arithmetic.entry):
            step = e.select(e.icmp_signed("==", given, constant_word(0)), count, given)

        def inside(i: Value, inner: Carried) -> Carried:
            left = e.sub(count, cast(LLVMValue, i).ir)
            length = e.select(e.icmp_signed("<", left, step), left, step)
            return body(i, arithmetic.make(I64, length, 0), inner)

        return self.over(Run(constant_word(0), count, step, 1, True), inside, carried)[1]

    def where(self, condition: Value, then: Callable[[], None]) -> None:
        """`then()` under a condition."""
        e = self._builder
        inside, after = e.append_basic_block("then"), e.append_basic_block("after")
        e.cbranch(cast(LLVMValue, condition).ir, inside, after)
        self._at.enter(inside)
        then()
        e.branch(after)
        self._at.enter(after)

    def either(
        self, condition: Value, then: Callable[[], Carried], otherwise: Callable[[], Carried]
    ) -> Carried:
        """What one of the two gives."""
        e = self._builder
        inside, outside, after = (e.append_basic_block(n) for n in ("then", "otherwise", "after"))
        e.cbranch(cast(LLVMValue, condition).ir, inside, outside)
        ways: list[tuple[ir.Block, list[LLVMValue]]] = []
        for block, way in ((inside, then), (outside, otherwise)):
            self._at.enter(block)
            values = [cast(LLVMValue, v) for v in way()]
            ways.append((e.block, values))
            e.branch(after)
        self._at.enter(after)
        (one, first), (two, second) = ways
        out: list[Value] = []
        for a, b in zip(first, second, strict=True):
            phi = e.phi(a.ir.type)
            phi.add_incoming(a.ir, one)
            phi.add_incoming(b.ir, two)
            out.append(self._arithmetic.make(a.dtype, phi, a.lanes))
        return out
