"""Numbers of a few bits in 32-bit words, and how they come out of them as floats.

Successive numbers along one dimension of a tensor share a word. A number's bits in the mantissa of an f32
whose exponent makes the lowest of them count 1 are the number more than a power of two; the power goes with
the zero point. So nothing is converted, and nothing rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .bound import Array
from .builder import Arithmetic, Value
from .dtypes import F16, F32, I32, U32, DType

WORD = U32
MANTISSA, BIAS = 23, 127  # of an f32: its bits, and what is added to its exponent
PRECISION, OF_SCALES = 24, 11  # significant bits of an f32, and of an f16

# By bits of a number, for each number of a word: the lowest bit of its place, and how far the word is shifted
# to the right for it (to the left where that is negative). Neighbours share a shift.
PLACES: dict[int, tuple[tuple[int, int], ...]] = {
    2: (
        *((12, 0), (14, 0), (16, 0), (18, 0), (20, 8), (22, 8), (24, 8), (26, 8)),
        *((4, -8), (6, -8), (8, -8), (10, -8), (28, 16), (30, 16), (0, -16), (2, -16)),
    ),
    4: ((12, 0), (16, 0), (20, 8), (24, 8), (4, -8), (8, -8), (28, 16), (0, -16)),
    8: ((8, 0), (0, -8), (16, 8), (24, 16)),
}


def count(bits: int) -> int:
    """Numbers in a word."""
    return len(PLACES[bits])


def packed(numbers: Array, dim: int, bits: int) -> Array:
    """uint32: the words of uint8 `numbers` below 2^bits, along dimension `dim` of a multiple of `count`."""
    each = count(bits)
    shape = tuple(n // each if d == dim else n for d, n in enumerate(numbers.shape))
    out = np.zeros(shape, np.uint32)
    for j, (place, _) in enumerate(PLACES[bits]):
        own = (slice(None),) * dim + (slice(j, None, each),)
        out |= numbers[own].astype(np.uint32) << np.uint32(place)
    return out


def unpacked(words: Array, bits: int) -> Array:
    """uint8 [..., count]: the numbers of each word."""
    mask = np.uint32((1 << bits) - 1)
    parts = [(words >> np.uint32(place)) & mask for place, _ in PLACES[bits]]
    return np.stack(parts, -1).astype(np.uint8)


@dataclass(frozen=True)
class Kind:
    """How a number stands for a weight: (number - zero point) * scale, rounded to `weight`.

    bits: of a number. zero: the zero point, where there is no operand that holds them. scale: the scales'
    type. The difference is exact, the product rounded to f32 and from there to `weight`.
    """

    bits: int
    zero: int
    scale: DType
    weight: DType

    def values(self, numbers: Array, scales: Array, zeros: Array | None) -> Array:
        """f32, of uint8 numbers and of what broadcasts to them."""
        less = np.int32(self.zero) if zeros is None else zeros.astype(np.int32)
        wide = (numbers.astype(np.int32) - less).astype(np.float32) * scales.astype(np.float32)
        return wide.astype(self.weight.numpy).astype(np.float32)

    def at_once(self, zeros: bool) -> bool:
        """Whether number * scale - (power + zero point) * scale, in one operation, is exact: the second
        product has to be, for whatever scale. zeros: whether zero points are an operand."""
        if self.scale != F16:  # the range of others is as an f32's: the second product may leave it
            return False
        powers = {MANTISSA - place + shift for place, shift in PLACES[self.bits]}
        if zeros:
            return all(power + 1 + OF_SCALES <= PRECISION for power in powers)
        return all(_significant((1 << power) + self.zero) + OF_SCALES <= PRECISION for power in powers)


@dataclass(frozen=True)
class Words:
    """How a tensor of weights is kept: words, scales and maybe zero points, each of the tensor's rank.

    dim: the dimension that words have numbers of. block: how many successive ones of them share a scale, 0
    for all. scaled: of each dimension whether scales differ along it; where they do not, they have one
    element. zero_type: of the operand of zero points, None for none.
    """

    kind: Kind
    dim: int
    block: int
    scaled: tuple[bool, ...]
    zero_type: DType | None = None

    @property
    def types(self) -> tuple[DType, ...]:
        """Of the operands that stand for the weights."""
        return (WORD, self.kind.scale, *([] if self.zero_type is None else [self.zero_type]))


def _significant(number: int) -> int:
    """Bits from the first to the last that is set."""
    return number.bit_length() - ((number & -number).bit_length() - 1)


@dataclass(frozen=True)
class Column:
    """What the numbers under one scale have in common, in a kernel. less: by the power of two that a number
    comes with, what is taken off: power + zero point, or where that is exact minus it times the scale."""

    b: Arithmetic
    kind: Kind
    scale: Value
    less: Mapping[int, Value]
    once: bool

    @classmethod
    def of(cls, b: Arithmetic, kind: Kind, scale: Value, zero: Value | None) -> Column:
        """scale, zero: as they are stored; None for `Kind.zero`. What words have in common is made here."""
        wide, once = b.cast(scale, F32), kind.at_once(zero is not None)
        at = None if zero is None else b.cast(b.cast(zero, I32), F32)
        less: dict[int, Value] = {}
        for power in sorted({MANTISSA - place + shift for place, shift in PLACES[kind.bits]}):
            sign = -1 if once else 1
            if at is None:
                off = b.const(sign * ((1 << power) + kind.zero), F32)
            else:
                off = b.add(b.neg(at) if once else at, b.const(sign * (1 << power), F32))
            less[power] = b.mul(off, wide) if once else off
        return cls(b, kind, wide, less, once)

    def weights(self, words: Value) -> Iterator[Value]:
        """The weights (f32) of a word, or of each in a vector of words, in their order."""
        b, bits, to = self.b, self.kind.bits, self.kind.weight
        shifted: dict[int, Value] = {}
        for place, shift in PLACES[bits]:
            if shift not in shifted:
                shifted[shift] = _shifted(b, words, shift)
            bit = place - shift
            power = MANTISSA - bit
            own = b.bit_and(shifted[shift], b.const(((1 << bits) - 1) << bit, WORD))
            more = b.from_bits(b.bit_or(own, b.const((BIAS + power) << MANTISSA, WORD)), F32)
            if self.once:
                value = b.fma(more, self.scale, self.less[power])
            else:
                value = b.mul(b.sub(more, self.less[power]), self.scale)
            yield value if to == F32 else b.cast(b.cast(value, to), F32)


def _shifted(b: Arithmetic, words: Value, shift: int) -> Value:
    if shift == 0:
        return words
    return (b.shift_right if shift > 0 else b.shift_left)(words, b.const(abs(shift), WORD))
