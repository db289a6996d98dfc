"""Pairs of bf16 elements, two products at a time.

A pair is an i32. x86's `vdpbf16ps` adds the product of the upper halves, then that of the lower ones, each
sum rounded to nearest even, with neither subnormal inputs nor results (Intel's manual, volume 2). A
product of two bf16 numbers is exact in f32: with the first element in the upper half it is a chain of two
FMAs.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from llvmlite import ir

from ...ir.builder import Value
from ...ir.dtypes import BF16, F32, I32, stored_as
from .arithmetic import I8_TYPE, I32_TYPE, LLVMArithmetic, LLVMValue, suffix, type_of

_BITS = {16: 512, 8: 256, 4: 128}  # of the instruction's vectors, by f32 lanes


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite.ir lacks; only the instruction's operands have it."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def packed(b: LLVMArithmetic, first: Value, second: Value) -> Value:
    """Pairs of two bf16 values: one in each lane if either is a vector, else the same in all."""
    if not (cast(LLVMValue, first).lanes or cast(LLVMValue, second).lanes):
        word = b.bit_or(b.shift_left(_word(b, first), b.const(16, I32)), _word(b, second))
        return b.splat(word)
    a, z = (cast(LLVMValue, b.splat(v)).ir for v in (first, second))
    order = [i for lane in range(b.lanes) for i in (b.lanes + lane, lane)]
    both = b.builder.shuffle_vector(a, z, ir.Constant(ir.VectorType(I32_TYPE, len(order)), order))
    return b.make(I32, b.builder.bitcast(both, type_of(I32, b.lanes)), b.lanes)


def only_first(b: LLVMArithmetic, pairs: ir.Value, second: float) -> Value:
    """The pairs with another second element."""
    first = b.bit_and(b.make(I32, pairs, b.lanes), b.const(-1 << 16, I32))
    return b.bit_or(first, b.const(int(stored_as(np.asarray(second, np.float32), BF16)), I32))


def neighbours(b: LLVMArithmetic, word: ir.Value, native: bool) -> Value:
    """The pair of elements side by side in memory, for all lanes. word: an i32 loaded from there.

    native: whether it is for the instruction, which then shares its units with no other.
    """
    x = cast(LLVMValue, b.splat(b.make(I32, word, 0))).ir
    if native and b.lanes == 16:
        bytes_type = ir.VectorType(I8_TYPE, 64)
        given = [b.builder.bitcast(x, bytes_type), _halves_exchanged(b)]
        out = b.intrinsic("llvm.x86.avx512.pshuf.b.512", bytes_type, given)
        return b.make(I32, b.builder.bitcast(out, x.type), b.lanes)
    half = ir.Constant(x.type, [16] * b.lanes)
    return b.make(I32, b.intrinsic(f"llvm.fshl.{suffix(x.type)}", x.type, [x, x, half]), b.lanes)


def _halves_exchanged(b: LLVMArithmetic) -> ir.Value:
    """The order of bytes that exchanges halves of words, from a variable: of a constant LLVM would make a
    rotation, and rotations run where the products do."""
    name, type = "halves_exchanged", ir.VectorType(I8_TYPE, 64)
    order = b.module.globals.get(name)
    if order is None:
        order = ir.GlobalVariable(b.module, type, name)
        order.linkage = "internal"
        order.initializer = ir.Constant(type, [i ^ 2 for i in range(64)])
    with b.builder.goto_block(b.entry):
        return b.builder.load(order, typ=type, align=64)


def halves(b: LLVMArithmetic, pair: Value) -> tuple[Value, Value]:
    """Both elements, the first first, as f32."""
    return _upper(b, pair), _lower(b, pair)


def dot2(b: LLVMArithmetic, x: Value, y: Value, total: Value, native: bool) -> Value:
    """See `KernelBuilder.dot2`. native: by the instruction."""
    if not native:
        for u, v in zip(halves(b, x), halves(b, y), strict=True):
            total = b.fma(u, v, total)
        return total
    sums = cast(LLVMValue, total)
    pairs = ir.VectorType(BFloat(), 2 * sums.lanes)
    given = [b.builder.bitcast(cast(LLVMValue, v).ir, pairs) for v in (x, y)]
    name = f"llvm.x86.avx512bf16.dpbf16ps.{_BITS[sums.lanes]}"
    return b.make(F32, b.intrinsic(name, sums.ir.type, [sums.ir, *given]), sums.lanes)


def _word(b: LLVMArithmetic, half: Value) -> Value:
    """A single bf16 element's bits in the lower half of an i32."""
    return b.make(I32, b.builder.zext(cast(LLVMValue, half).ir, I32_TYPE), 0)


def _upper(b: LLVMArithmetic, pair: Value) -> Value:
    return b.from_bits(b.bit_and(pair, b.const(-1 << 16, I32)), F32)


def _lower(b: LLVMArithmetic, pair: Value) -> Value:
    return b.from_bits(b.shift_left(pair, b.const(16, I32)), F32)
