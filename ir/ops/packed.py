"""Products with weights of a few bits: words of several numbers are unpacked in the inner loop.

An axis whose successive places share words becomes up to three: blocks of numbers with a scale, groups of
them in a word, and the number's digit in it, which is never cut. So all accesses stay affine. A result is
one chain of `acc = fma(w, x, acc)` in the order of the reduced axes, the digit last, with w as
`packing.Kind` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from ..affine import Access, Affine, access_axes, axis
from ..builder import Carried, KernelBuilder, StrideKind, Value
from ..dtypes import F32, I64
from ..op import CLOSED, Array, Extents, InvalidOp, Op, Work, gather, product
from ..packing import PLACES, WORD, Column, Kind, Words, count, unpacked
from .loops import Index, cheapest_lane_axis, fold, longest, summed, widen
from .products import REGISTERS, TEMPORARY, Products, Shapes, operations

HALF_WORD = 16  # bits of a number that a core's integer operations take
UNPACKING = 3  # vector operations: a place's bits are isolated, made floats, and scaled


Made = tuple[Op, tuple[str, ...]]  # an op and its inputs


# -- axes -------------------------------------------------------------------------------
def word_axis(op: Op, operand: int, dim: int) -> str:
    """The axis along whose successive places an operand's dimension is read; "" where there is none, or it
    moves the operand in another dimension, too."""
    read = op.reads[operand]
    near = [a for a, c in read[dim].terms if c == 1]
    if len(near) != 1 or any(e.coefficient(near[0]) for d, e in enumerate(read) if d != dim):
        return ""
    return near[0]


def block_of(op: Op, operand: int, dim: int, block: int) -> int:
    """The largest divisor of `block` in which an op can read what it packs along `dim`; 0: no words at all.

    block 0: any.
    """
    a = op.packs_along(operand, dim)
    if not a:
        return 0
    e = op.reads[operand][dim]
    return gcd(block, op.size[a], e.const, *(c for other, c in e.terms if other != a))


@dataclass(frozen=True)
class Split:
    """An op's axes and accesses with one axis cut for words.

    reads: of the operands, the packed one's as if it were not. weights: of what stands for that one. digit:
    the axis of a number in its word.
    """

    axes: tuple[tuple[str, int], ...]
    reads: tuple[Access, ...]
    write: Access
    weights: tuple[Access, ...]
    digit: str


def split(op: Op, operand: int, how: Words) -> Split:
    """The axes of `op` where its operand is in words; `how.block` is one that `block_of` allows."""
    a, each = op.packs_along(operand, how.dim), count(how.kind.bits)
    digit, group = _unused(op, "digit"), _unused(op, "group")
    block = how.block or each
    by = axis(a, block).plus(axis(digit))
    cut = [(a, op.size[a] // block)]
    if block > each:
        by = by.plus(axis(group, each))
        cut.append((group, block // each))
    axes = [part for b in op.axes for part in (cut if b[0] == a else [b])]

    def through(access: Access) -> Access:
        return tuple(e.substitute(a, by) for e in access)

    old = op.reads[operand]
    along = old[how.dim]
    words = _over(along.substitute(a, by).plus(axis(digit, -1)), each)
    blocks = _over(along.substitute(a, axis(a, block)), block) if how.block else Affine()
    scales = tuple(
        (blocks if d == how.dim else e) if wide else Affine()
        for d, (e, wide) in enumerate(zip(old, how.scaled, strict=True))
    )
    packed = tuple(words if d == how.dim else e for d, e in enumerate(old))
    zeros = [] if how.zero_type is None else [scales]
    return Split(
        (*axes, (digit, each)),
        tuple(map(through, op.reads)),
        through(op.write),
        (packed, scales, *zeros),
        digit,
    )


def _over(e: Affine, divisor: int) -> Affine:
    return Affine(tuple((a, c // divisor) for a, c in e.terms), e.const // divisor)


def _unused(op: Op, name: str) -> str:
    while name in op.size:
        name += "_"
    return name


def product_in_words(op: Op, operand: int, how: Words, names: Sequence[str], inputs: Sequence[str]) -> Made:
    """A product of two operands that reads one of them in words. names: of what stands for it."""
    s, x = split(op, operand, how), 1 - operand
    made = PackedProduct(
        axes=s.axes,
        reads=(s.reads[x], *s.weights),
        write=s.write,
        in_types=(op.in_types[x], *how.types),
        out_type=op.out_type,
        fill=op.fill,
        kind=how.kind,
    )
    return made, (inputs[x], *names)


Seen = tuple[Sequence[tuple[str, int]], Mapping[str, Array] | None]
"""Axes, and the positions chosen for some of them: see `gather`."""


def numbers_in(op: Op, first: int, words: Array, rest: Sequence[Array], kind: Kind, seen: Seen) -> Array:
    """The weights (f32) that an op reads from its operands from number `first` on.

    One dimension for each axis of `seen`, then the digit's.
    """
    axes, chosen = seen
    views = [
        gather(x, read, axes, 0, chosen) for x, read in zip((words, *rest), op.reads[first:], strict=False)
    ]
    scales, *zeros = (x[..., None] for x in views[1:])
    return kind.values(unpacked(views[0], kind.bits), scales, zeros[0] if zeros else None)


def judge_packed(op: Op, first: int, kind: Kind) -> None:
    """Raises InvalidOp unless the operands from number `first` on are words of such a kind."""
    digit = op.whole[-1] if op.whole else ""
    floats = kind.weight.is_float and kind.scale.is_float
    if kind.bits not in PLACES or not 0 <= kind.zero < 1 << kind.bits or not floats:
        raise InvalidOp(f"{op.name}: numbers of {kind.bits} bits less {kind.zero}, as {kind.weight}")
    if len(op.reads) < first + 2 or op.in_types[first] != WORD or op.in_types[first + 1] != kind.scale:
        raise InvalidOp(f"{op.name}: operands are {', '.join(map(str, op.in_types))}")
    if op.out_type != F32 and op.product:
        raise InvalidOp(f"{op.name}: sums in {op.out_type}, not {F32}")
    if op.size.get(digit) != count(kind.bits) or any(
        digit in access_axes(read) for read in op.reads[first : first + 3]
    ):
        raise InvalidOp(f"{op.name}: {digit or 'no axis'} does not run over the numbers of a word")


# -- products ---------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class PackedProduct(Op):
    """result = sum of x * w over the axes that the result lacks, in f32. Operands: x, the words of w, their
    scales and, where the zero points differ, these. The last reduced axis is the digit."""

    kind: Kind

    combine = "add"
    product = True
    collapsible = True
    resumes = True
    prefetches = True
    row_vectors = (4, 3)

    def names_axis(self, axis: str) -> bool:
        return axis in self.whole

    def linear_in(self, operand: int) -> bool:
        return operand == 0

    def neutral_in(self, operand: int) -> float | None:
        return 0.0 if operand == 0 else None

    @property
    def whole(self) -> tuple[str, ...]:
        return self.reduced[-1:]

    @property
    def panels(self) -> tuple[int, ...]:
        return tuple(range(len(self.reads)))

    def asks_unit(self, axis: str) -> bool:
        return axis in self.whole

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.kind, self.reduced)

    def check(self) -> None:
        super().check()
        judge_packed(self, 1, self.kind)

    def multiplied_by(self, operand: int) -> tuple[int, float]:
        return 2, float(1 << self.kind.bits)

    # -- meaning ------------------------------------------------------------------
    def reference(self, *operands: Array) -> Array:
        x, words, *rest = operands
        used = {a for read in self.reads[1:] for a in access_axes(read)}
        axes = [(a, n) for a, n in self.axes if a in used]
        weights = numbers_in(self, 1, words, rest, self.kind, (axes, None))
        own = [(a, n) for a, n in self.axes if a in access_axes(self.reads[0])]
        left = gather(widen(x, self.in_types[0]), self.reads[0], own, self.fill)
        return summed(self, [(left, [a for a, _ in own]), (weights, [*(a for a, _ in axes), *self.whole])])

    # -- cost ---------------------------------------------------------------------
    def _weights(self, extents: Extents) -> tuple[int, int]:
        """Of a tile: how many, and along the longest of the result's axes that they have."""
        used = set(access_axes(self.reads[1])) | set(self.whole)
        most = longest([extents[a] for a in used if a not in self.reduced])
        return product([extents[a] for a in used]), most

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """A vector op for each reduced iteration and each row of the result's longest axis; and a row of
        weights is unpacked for each reduced iteration."""
        return (self._operations(extents)[0], self._unpacked(extents))

    def _operations(self, extents: Extents) -> tuple[Work, Work]:
        first, second = access_axes(self.reads[0]), {*access_axes(self.reads[1]), *self.whole}
        kept = {a: extents[a] for a in access_axes(self.write)}
        return operations(product([extents[a] for a, _ in self.axes]), kept, first, second)

    def _unpacked(self, extents: Extents) -> Work:
        """A row at a time."""
        weights, row = self._weights(extents)
        return Work("unpack", UNPACKING * (weights // row), weights)

    def scratch(self, extents: Extents) -> int:
        """The row."""
        return self._weights(extents)[1] * F32.bytes

    def alternatives(self, extents: Extents) -> tuple[tuple[tuple[Work, ...], object], ...]:
        """`work`, or its products in slices; or all weights of the tile unpacked at once, a place in a core's
        integers after the other; or so, and then as the last way of a `Contract`."""
        n, (weights, _) = product([extents[a] for a, _ in self.axes]), self._weights(extents)
        size = F32.bytes
        places = HALF_WORD // self.kind.bits
        fits = weights * size <= TEMPORARY
        rows, slices = self._operations(extents)
        row = self._unpacked(extents), self.scratch(extents)
        at_once = Work("unpack", np.where(fits, UNPACKING * places, CLOSED), weights)
        both = Work("fma", np.where(n * size <= TEMPORARY, 2, CLOSED), 2 * n)
        held = np.minimum(weights * size, TEMPORARY)
        more = held + np.minimum(n * size, TEMPORARY)
        return (
            *(((way, row[0]), row[1]) for way in (rows, slices)),
            *(((way, at_once), held) for way in (rows, slices)),
            ((both, at_once), more),
        )

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return cheapest_lane_axis(self, extents)

    # -- kernel -------------------------------------------------------------------
    def body(self, k: KernelBuilder) -> None:
        axes = tuple(a for a, _ in self.axes)
        kept = tuple(access_axes(self.write))
        zeros = len(self.reads) > 3
        PackedProducts(axes, kept, self.reduced, F32, F32, kind=self.kind, zeros=zeros).emit(k)


# Words, scales and what is taken off need registers, too: fewer rows and vectors than in `Products`.
_PLAIN = {
    32: Shapes((8, 7, 4, 2, 1), (2,), (4, 3, 2), ()),
    16: Shapes((4, 3, 2, 1), (2,), (4, 3, 2), ()),
}
_CHUNKS = {
    32: Shapes((6, 4, 2, 1), (2,), (4, 3, 2), ()),
    16: Shapes((2, 1), (2,), (4, 3, 2), ()),
}


@dataclass(frozen=True, kw_only=True)
class PackedProducts(Products):
    """The kernel: see `Products`. zeros: whether zero points are an operand."""

    kind: Kind
    zeros: bool

    def _shapes(self, k: KernelBuilder) -> Shapes:
        if k.small:
            return super()._shapes(k)
        return (_CHUNKS if k.part else _PLAIN)[REGISTERS.get(k.lanes, 16)]

    def _terms(
        self,
        k: KernelBuilder,
        places: Sequence[Index],
        own: Index,
        sums: Carried,
        within: Mapping[str, tuple[Value, Value]] | None,
    ) -> Carried:
        *outer, digit = self.reduced[self.turns :]
        scaling = range(2, 4 if self.zeros else 3)
        depth = max(
            (i + 1 for i, a in enumerate(outer) if any(k.stride_kind(j, a) != "zero" for j in scaling)),
            default=0,
        )
        once = k.lane_axis and not self._apart(k)  # what is read once is asked for ahead

        def block(at: Index, carried: Carried) -> Carried:
            here = [{**p, **at} for p in places]
            if once:
                _ask(k, 2, here)
            columns = self._columns(k, here)

            def group(inner: Index, c: Carried) -> Carried:
                spots = [{**p, **inner} for p in places]
                if once:
                    _ask(k, 1, spots)
                return self._word(k, spots, columns, digit, c)

            return fold(k, outer[depth:], at, carried, group, within)

        return fold(k, outer[:depth], own, sums, block, within)

    def _columns(self, k: KernelBuilder, here: Sequence[Index]) -> list[Column]:
        """What is above and below the weights at each position."""
        made: dict[tuple[int, ...], Column] = {}
        out: list[Column] = []
        for index in here:
            key = self._moves(k, (2, 3) if self.zeros else (2,), index)
            if key not in made:
                zero = _loaded(k, 3, index) if self.zeros else None
                made[key] = Column.of(k, self.kind, _loaded(k, 2, index), zero)
            out.append(made[key])
        return out

    def _word(
        self, k: KernelBuilder, spots: Sequence[Index], columns: Sequence[Column], digit: str, sums: Carried
    ) -> Carried:
        """sums + x * w for each number of a word, at each position."""
        words: dict[tuple[int, ...], Value] = {}
        kinds = [self._moves(k, (1,), index) for index in spots]
        pairs = [(*kind, id(c)) for kind, c in zip(kinds, columns, strict=True)]
        for kind, index in zip(kinds, spots, strict=True):
            if kind not in words:
                words[kind] = _loaded(k, 1, index)
        weights = {
            pair: column.weights(words[kind])
            for pair, kind, column in dict(
                zip(pairs, zip(pairs, kinds, columns, strict=True), strict=True)
            ).values()
        }
        out = list(sums)
        for j in range(count(self.kind.bits)):
            number = k.const(j, I64)
            w: dict[tuple[int, ...], Value] = {}
            x: dict[tuple[int, ...], Value] = {}
            for i, (pair, index) in enumerate(zip(pairs, spots, strict=True)):
                if pair not in w:  # no earlier than it is needed: there are few registers
                    w[pair] = next(weights[pair])
                key = self._moves(k, (0,), index)
                if key not in x:
                    x[key] = k.cast(_loaded(k, 0, {**index, digit: number}), F32)
                out[i] = k.fma(x[key], w[pair], out[i])
        return out

    def _moves(self, k: KernelBuilder, operands: Sequence[int], index: Index) -> tuple[int, ...]:
        """The same for positions at which operands are the same."""
        used = [a for a in self.axes if a in index and any(k.stride_kind(j, a) != "zero" for j in operands)]
        return tuple(id(index[a]) for a in used)


def _loaded(k: KernelBuilder, operand: int, index: Index) -> Value:
    lanes = bool(k.lane_axis) and _along(k, operand) != "zero"
    return k.load_lanes(operand, index) if lanes else k.load(operand, index)


def _ask(k: KernelBuilder, operand: int, at: Sequence[Index]) -> None:
    if _along(k, operand) != "zero":
        k.prefetch(operand, at)


def _along(k: KernelBuilder, operand: int) -> StrideKind:
    return k.stride_kind(operand, k.lane_axis)
