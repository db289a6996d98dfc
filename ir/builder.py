"""The interface that operations are written against.

`Arithmetic` is what an elementwise meaning needs: the same body runs in LLVM IR
(`codegen.builder`), in NumPy (tests of the polynomials) and in a counter (the
cost model). `KernelBuilder` adds one tile's buffers and loops; it knows no cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from .dtypes import DType

Compare = Literal["eq", "ne", "lt", "le", "gt", "ge"]
Combine = Literal["add", "mul", "min", "max"]
StrideKind = Literal["zero", "unit", "pairs", "any"]  # pairs: 2, neighbours of `Op.paired` between


class Value(Protocol):
    """One element or one vector of lanes; the builder that made it knows which."""

    @property
    def dtype(self) -> DType: ...


class Arithmetic(Protocol):
    """Primitive operations on values. Operands of one call have one dtype.

    A call may mix vectors and single elements: the element is broadcast.
    Nothing is fast-math; only `fma` fuses. Floats that are only stored (`DType.computed`) are
    widened for each call and its result is rounded.
    """

    def const(self, value: float | int | bool, dtype: DType) -> Value: ...
    def add(self, a: Value, b: Value) -> Value: ...
    def sub(self, a: Value, b: Value) -> Value: ...
    def mul(self, a: Value, b: Value) -> Value: ...
    def div(self, a: Value, b: Value) -> Value:
        """Quotient. Integers truncate toward zero; x / 0 is 0 and INT_MIN / -1 is INT_MIN."""
        ...

    def rem(self, a: Value, b: Value) -> Value:
        """Remainder with the sign of `a` (C's %, fmod); integer x % 0 is 0."""
        ...

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once. Floats only."""
        ...

    def neg(self, a: Value) -> Value: ...
    def abs(self, a: Value) -> Value: ...
    def min(self, a: Value, b: Value) -> Value:
        """The smaller; NaN when either is NaN, as numpy.minimum."""
        ...

    def max(self, a: Value, b: Value) -> Value:
        """The larger; NaN when either is NaN, as numpy.maximum."""
        ...

    def sqrt(self, a: Value) -> Value: ...
    def floor(self, a: Value) -> Value: ...
    def ceil(self, a: Value) -> Value: ...
    def round(self, a: Value) -> Value:
        """To the nearest integer, ties to even, as a float."""
        ...

    def compare(self, kind: Compare, a: Value, b: Value) -> Value:
        """A bool. With NaN, only "ne" is true."""
        ...

    def select(self, condition: Value, a: Value, b: Value) -> Value: ...
    def bit_and(self, a: Value, b: Value) -> Value: ...
    def bit_or(self, a: Value, b: Value) -> Value: ...
    def bit_xor(self, a: Value, b: Value) -> Value: ...
    def bit_not(self, a: Value) -> Value:
        """Complement; of a bool, its negation."""
        ...

    def shift_left(self, a: Value, b: Value) -> Value:
        """a << b; 0 when b is not in [0, bits)."""
        ...

    def shift_right(self, a: Value, b: Value) -> Value:
        """a >> b, arithmetic for signed types; as if shifted bit by bit when b is too large."""
        ...

    def cast(self, a: Value, dtype: DType) -> Value:
        """Conversion as ONNX Cast: floats truncate to integers and saturate, NaN becomes 0."""
        ...

    def bits(self, a: Value) -> Value:
        """The bits of a value as the signed integer of its size."""
        ...

    def from_bits(self, a: Value, dtype: DType) -> Value:
        """The value whose bits are the integer `a`."""
        ...


Carried = Sequence[Value]


class KernelBuilder(Arithmetic, Protocol):
    """One tile: its extents, its buffers, and loops over them.

    Operands are numbered as the op's reads; the result is operand `RESULT`.
    An index maps iteration axes to positions in the tile (from 0); axes left out
    count as 0. `lane_axis` is the axis that vectors run along; `lanes`, how many elements
    a vector has; `part`, a reduced axis whose sums are made in `chunks`, or ""; `small` asks for
    little code rather than fast code.

    What a result element is must depend on the order in which its own terms are combined and
    on nothing else: a block of many tiles, and each of the tiles, give it the same bits.
    """

    lane_axis: str
    lanes: int
    part: str
    small: bool

    def extent(self, axis: str) -> Value:
        """How far this tile goes along `axis` (i64): at least 1."""
        ...

    def origin(self, axis: str) -> Value:
        """Where this tile starts along `axis` in the whole iteration space (i64)."""
        ...

    def in_mode(self, mode: int) -> Value:
        """Bool: whether the task is to be done in this mode: FRESH, RESUME or JOIN."""
        ...

    def stride_kind(self, operand: int, axis: str) -> StrideKind:
        """What is known of the operand's stride along `axis` when the kernel is made."""
        ...

    def loop(
        self,
        count: Value | int,
        body: Callable[[Value, Carried], Carried],
        carried: Carried = (),
        step: int = 1,
        some: bool = False,
    ) -> Carried:
        """Runs `body(i, carried)` for i = 0, step, ... while i + step <= count; the last carried.

        some: it is known to run at least once.
        """
        ...

    def lane_loop(
        self,
        body: Callable[[Value, Carried], Carried],
        carried: Carried = (),
        vectors: Sequence[int] = (1,),
    ) -> Carried:
        """Covers `lane_axis`: `body(i, carried)` sees vectors that start at i.

        Emitted for full groups of each of `vectors` (falling numbers of vectors) and then, if
        needed, for single vectors the last of which is masked; `group()` tells the body which.
        """
        ...

    def chunks(self, body: Callable[[Value, Value, Carried], Carried], carried: Carried) -> Carried:
        """Runs `body(start, length, carried)` for each chunk of the axis `part`; the last carried.

        Chunks have the task's length; the last may be shorter. A task without one has one chunk.
        """
        ...

    def group(self) -> int:
        """How many vectors the current lane_loop body covers per pass."""
        ...

    def lane_offset(self, vector: int) -> Value:
        """i64: the lanes before vector number `vector` of a group."""
        ...

    def load(self, operand: int, index: Mapping[str, Value]) -> Value:
        """One element."""
        ...

    def load_lanes(self, operand: int, index: Mapping[str, Value], other: float | int = 0) -> Value:
        """A vector along `lane_axis`; lanes past the tile hold `other`. A zero stride broadcasts."""
        ...

    def prefetch(self, operand: int, places: Sequence[Mapping[str, Value]]) -> None:
        """Asks for what comes some time after the vectors at `places`, neighbours, of an operand that is read
        once from its start to its end. This is no access: it may lie past the tensor."""
        ...

    def load_square(self, operand: int, index: Mapping[str, Value], axis: str) -> Sequence[Value]:
        """As many vectors as they have lanes: number j is `load_lanes` at `index` and j further along `axis`.

        Read along `axis` and turned in registers where the operand's elements are neighbours there.
        """
        ...

    def load_pair(
        self, operand: int, index: Mapping[str, Value], axis: str, lanes: bool, alone: float | None = None
    ) -> Value:
        """Two bf16 elements, at `index` and next along `axis`, for `dot2`: in each of the lanes, or for all.

        alone: what the second is instead; nothing is read for it.
        """
        ...

    def halves(self, pair: Value) -> tuple[Value, Value]:
        """Both elements of pairs of bf16, as f32."""
        ...

    def dot2(self, a: Value, b: Value, c: Value) -> Value:
        """c + a[0] * b[0] + a[1] * b[1] for pairs of bf16 and f32 `c`, rounded after each sum.

        A host's instruction for it may take f32 numbers below 2**-126 as 0 and give 0 for them.
        """
        ...

    def store(self, value: Value, index: Mapping[str, Value]) -> None: ...
    def store_lanes(self, value: Value, index: Mapping[str, Value]) -> None:
        """Stores the lanes that lie in the tile."""
        ...

    def lane_numbers(self, start: Value) -> Value:
        """An i64 vector start, start + 1, ... ."""
        ...

    def splat(self, value: Value) -> Value:
        """A vector with `value` in each lane."""
        ...

    def reduce_lanes(self, kind: Combine, value: Value) -> Value:
        """One element: the lanes combined in a fixed order."""
        ...

    def where(self, condition: Value, then: Callable[[], None]) -> None:
        """Runs `then` if the (single) bool holds."""
        ...

    def either(
        self, condition: Value, then: Callable[[], Carried], otherwise: Callable[[], Carried]
    ) -> Carried:
        """What `then` gives if the (single) bool holds, else what `otherwise` gives."""
        ...

    def add_index(self, a: Value, b: Value | int) -> Value:
        """i64 sum, for index arithmetic."""
        ...

    def report(self, bound: int, value: Value) -> None:
        """Notes an element (i64) of an operand that is outside the op's bound of that number."""
        ...


RESULT = -1

# Modes of a task. FRESH: the result holds nothing yet, and is not read. RESUME: it holds the
# sum so far, which goes on with this task's terms. JOIN: this task's terms are combined on
# their own, and what comes out with the result. A body that cannot resume joins.
RESUME, FRESH, JOIN = 0, 1, 2
