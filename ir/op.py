"""The contract of an operation.

An op declares iteration axes and one affine access per operand and for its
result. From these follow shapes, what may be cut, the box of every operand that
a tile needs, bytes per core and the work. Axes absent from the result are reduced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from .affine import Access, Affine, Interval, access_axes, axis, show
from .bound import Array, Bound
from .builder import Combine, KernelBuilder
from .dtypes import DType
from .packing import Words

# What a class that gives one of these answers anew: `Op`'s own answer where it gives none of its own.
MEANING = frozenset(("reference", "scalar", "numpy", "body"))
PROMISES = frozenset(
    (
        *("sign", "product", "rounds_factors", "dequantises", "linear_in", "zero_absorbs"),
        *("neutral_in", "takes_narrow", "softmax_over", "normalisation", "updating"),
        *("monotone", "most", "times", "affine", "steps_evenly", "looked_up", "packs_along"),
    )
)
CLOSED = 1 << 40  # dispatches of a way that is not open
Extents = Mapping[str, Any]  # axis -> int, or an array of candidates (NumPy broadcasting)


@dataclass(frozen=True)
class Work:
    """What a tile costs: vector ops dispatched and elements passed through them.

    `kind` names the wafer's rate: "fma" (arithmetic), "copy", "slice" (arithmetic over two-dimensional
    descriptors), or "unpack" (numbers of a few bits in words). starts: how many of the dispatches begin a
    loop of their own, the others follow in one.
    Fields are numbers or NumPy arrays, as the extents they were computed from.
    """

    kind: str
    dispatches: Any
    elements: Any
    starts: Any = 1


@dataclass(frozen=True)
class Normalisation:
    """Rows along `over`, less their mean if `centred`, over the root of their mean square plus `epsilon`."""

    over: tuple[str, ...]
    epsilon: float
    centred: bool


class InvalidOp(ValueError):
    """An op that contradicts itself; a bug of ours, not of the model."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation on whole tensors.

    axes: (name, size) in loop order. reads: one access per operand. write: the
    result's access. fill: what a read outside its tensor yields.
    """

    axes: tuple[tuple[str, int], ...]
    reads: tuple[Access, ...]
    write: Access
    in_types: tuple[DType, ...]
    out_type: DType
    fill: float = 0.0

    combine: ClassVar[Combine | None] = None  # how partial results join; None: never cut a reduced axis
    exact: ClassVar[bool] = False  # equal bits to `reference`, for tests

    # -- what passes may assume ------------------------------------------------
    # Nobody asks for an op's class. What is said here is the careful answer; a family or an op that knows
    # better says so. Of its shape, and inherited:
    elementwise: ClassVar[bool] = False  # one element of the result from one of each operand
    fills: ClassVar[bool] = True  # a read past an operand's ends, wherever it is, yields `fill`

    def names_axis(self, axis: str) -> bool:
        """Whether the op knows `axis` by name: it cannot be dropped, or become several."""
        return True

    # Of what it computes, see `PROMISES`: a subclass that computes something else starts from these again.
    sign: ClassVar[int] = 0  # 1: the result is the operand, moved; -1: the negated operand, moved
    product: ClassVar[bool] = False  # sum of the products of two operands over the axes the result lacks
    zero_absorbs: ClassVar[bool] = False  # a term is 0 where one of its operands is, the others finite
    rounds_factors: ClassVar[bool] = False  # operands may be rounded to bf16 beside a bf16 weight
    dequantises: ClassVar[bool] = False  # (stored - zero point) * scale; operands: stored, scale, zero point

    @property
    def is_copy(self) -> bool:
        """Whether elements are moved, and that is all."""
        return self.sign == 1

    # in each operand, the others as they are, it only rises or only falls, where they and it are positive
    monotone: ClassVar[bool] = False

    @property
    def most(self) -> float | None:
        """What the result's absolute value never passes. None: anything that the type holds."""
        return None

    def times(self, factor: float) -> Op | None:
        """The op whose result is `factor`, a power of two, times as large, for as much work; else None."""
        return None

    def linear_in(self, operand: int) -> bool:
        """Whether s times the operand makes s times the result, the others as they are."""
        return False

    def neutral_in(self, operand: int) -> float | None:
        """What in the operand counts for nothing along the reduced axes, or `whole` ones. None: nothing."""
        return None

    affine: ClassVar[bool] = False  # the result goes in equal steps where all operands do; of integers

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        """Whether the result goes in `steps` equal steps where the operands go so from `first` to `last`."""
        return self.affine

    def takes_narrow(self, operand: int) -> bool:
        """Whether the operand may have 16 bits, though others and the result have 32."""
        return False

    def packs_along(self, operand: int, dim: int) -> str:
        """The axis whose successive places are those of the operand's dimension `dim`, where an op that reads
        its elements in words of several of them computes the same: `ops.packed`. "": none."""
        return ""

    def in_words(
        self, operand: int, how: Words, names: Sequence[str], inputs: Sequence[str]
    ) -> tuple[Op, tuple[str, ...]]:
        """That op, and its inputs: those given with the operand's replaced by `names`."""
        raise NotImplementedError

    def multiplied_by(self, operand: int) -> tuple[int, float]:
        """Of a product: what the operand is multiplied with is at most another one's largest element, given
        by its number, times a factor."""
        return 1 - operand, 1.0

    @property
    def softmax_over(self) -> tuple[str, ...]:
        """The axes along which the result is e^x over its sum, x the one operand. (): it is not."""
        return ()

    @property
    def normalisation(self) -> Normalisation | None:
        """What becomes of operand 0, then times operand 1, plus operand 2 if there is one."""
        return None

    @property
    def looked_up(self) -> str:
        """The axis of operand 0 that operand 1, the only other one, gives places on. "": there is none."""
        return ""

    def updating(self) -> Op | None:
        """The op as one that changes an operand where it lies, see `updates`. None: it cannot be one."""
        return None

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if not MEANING.isdisjoint(cls.__dict__):
            for name in PROMISES - cls.__dict__.keys():
                setattr(cls, name, Op.__dict__[name])

    # -- derived ---------------------------------------------------------------
    @property
    def size(self) -> dict[str, int]:
        return dict(self.axes)

    @property
    def reduced(self) -> tuple[str, ...]:
        kept = access_axes(self.write)
        return tuple(a for a, _ in self.axes if a not in kept)

    @property
    def whole(self) -> tuple[str, ...]:
        """Axes that must not be cut at all."""
        return () if self.combine else self.reduced

    def need(self, operand: int, box: Mapping[str, Interval]) -> tuple[Interval, ...]:
        """The box of `operand` that the iterations in `box` read; may pass the tensor's ends."""
        return tuple(e.hull(box) for e in self.reads[operand])

    def hold(self, box: Mapping[str, Interval]) -> tuple[Interval, ...]:
        """The box of the result that the iterations in `box` write."""
        return tuple(e.hull(box) for e in self.write)

    def check(self) -> None:
        """Raises InvalidOp unless accesses name known axes and the write is one-to-one."""
        if self._wrong:
            raise InvalidOp(f"{self.name}: {self._wrong}")

    @cached_property
    def _wrong(self) -> str:
        """What `check` finds wrong, "" for nothing; once, as an op never changes and every pass asks."""
        names = set(self.size)
        if len(self.reads) != len(self.in_types):
            return f"{len(self.reads)} reads, {len(self.in_types)} types"
        for access in (*self.reads, self.write):
            if unknown := set(access_axes(access)) - names:
                return f"unknown axes {sorted(unknown)} in {show(access)}"
        seen: set[str] = set()
        for e in self.write:
            reach = 1
            for a, c in sorted(e.terms, key=lambda t: abs(t[1])):
                if a in seen or abs(c) < reach:
                    return f"write {show(self.write)} is not one-to-one"
                seen.add(a)
                reach = abs(c) * self.size[a]
        return ""

    def overwrites(self, operand: int) -> bool:
        """Whether the result may lie where this operand lies: an element of it is read, if at all,
        by the iteration alone that then writes the same element of the result, in as many bytes."""
        return False

    @property
    def folds(self) -> bool:
        """Whether the op is done when compiling where all its operands are constants."""
        return True

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """What operands that hold indices are held to: the body reports an element outside by its bound's
        number (`KernelBuilder.report`), and stays inside its buffers all the same."""
        return ()

    @property
    def updates(self) -> int | None:
        """The operand whose memory the result is: the op changes it where it lies. None: a result apart."""
        return None

    # -- what code generation may assume; each default is the careful answer -----
    # The body knows of an axis only whether it is reduced: axes may be renamed, reordered within the kept and
    # within the reduced ones, left out where they have one iteration, and collapsed into one where all
    # operands and the result run through them as one.
    collapsible: ClassVar[bool] = False
    # The body can go on, term by term, with a sum that the result holds: `ir.builder.RESUME`.
    resumes: ClassVar[bool] = False
    # The body asks ahead for operands that it reads once: `KernelBuilder.prefetch`.
    prefetches: ClassVar[bool] = False
    # The vectors of one row of the result that the body computes at a time, the widest first: see `panels`.
    row_vectors: ClassVar[tuple[int, ...]] = (8, 6)
    # The body turns squares of an operand in registers (`KernelBuilder.load_square`), so that reading across
    # the operand's neighbours costs little more than reading along them.
    turns_squares: ClassVar[bool] = False

    @property
    def order_free(self) -> bool:
        """Whether the bits of a result do not depend on the order in which its terms are combined."""
        return not self.out_type.is_float or self.combine in ("min", "max")

    @property
    def accumulate(self) -> DType:
        """The type that a result's terms are combined in, before they are rounded to `out_type`."""
        return self.out_type

    @property
    def panels(self) -> tuple[int, ...]:
        """The operands whose elements the body reads into register tiles, each for many results: they may
        stand in panels, side by side along the vectors' axis. Those of a product; () for none."""
        return ()

    # -- to be given by a family -----------------------------------------------
    @property
    def name(self) -> str:
        return type(self).__name__

    def key(self) -> tuple[object, ...]:
        """What the kernel's code depends on besides axes, strides and types."""
        return (type(self).__name__,)

    def reference(self, *operands: Array) -> Array:
        """The meaning in NumPy, on whole operands, in their own precision.

        Returns the box of the result that the op writes (all of it, but for parts of a Concat).
        """
        raise NotImplementedError

    def body(self, k: KernelBuilder) -> None:
        """The kernel of one tile."""
        raise NotImplementedError

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """Cost of a tile of these extents."""
        raise NotImplementedError

    def scratch(self, extents: Extents) -> Any:
        """Bytes of SRAM that the tile needs besides its operands and result."""
        return 0

    def alternatives(self, extents: Extents) -> tuple[tuple[tuple[Work, ...], Any], ...]:
        """Ways to carry the tile out on a core, each as its work and its scratch bytes.

        The planner takes the cheapest. For arrays of candidates a way that is not open
        to some of them has `CLOSED` dispatches there.
        """
        return ((self.work(extents), self.scratch(extents)),)

    def asks_unit(self, axis: str) -> bool:
        """Whether the kernel has a use for knowing a unit stride along `axis`, other than the lane axis."""
        return axis == self.paired

    @property
    def paired(self) -> str:
        """The reduced axis whose terms are multiplied and added two at a time, or ""."""
        return ""

    @property
    def across(self) -> str:
        """The axis along which vectors run and are then combined, or "" where they run along the
        result. It decides the order of sums, and thus the bits: it depends on the op alone."""
        return ""

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        """The axis along which a tile's vectors run best: `across`, or any axis of the result (here
        its last wide one), with the same bits."""
        wide = [a for e in self.write for a in e.axes if extents[a] > 1]
        if wide:
            return wide[-1]
        kept = access_axes(self.write)
        return kept[-1] if kept else self.axes[-1][0] if self.axes else ""


def signs(a: Array, b: Array) -> Array:
    """1 where a is the greater one, 0 where they are equal, -1 where b is; as int64."""
    return (a > b).astype(np.int64) - (a < b)


def product(values: Sequence[Any]) -> Any:
    """Product of numbers or arrays; 1 for none."""
    out: Any = 1
    for v in values:
        out = out * v
    return out


def gather(
    array: Array,
    access: Access,
    axes: Sequence[tuple[str, int]],
    fill: float,
    chosen: Mapping[str, Array] | None = None,
) -> Array:
    """`array` seen through `access`: one dimension per axis of `axes`, `fill` outside.

    chosen: positions to use for an axis instead of 0, 1, ..., one dimension per axis.
    """
    if chosen is None and (view := _plain_view(array, access, axes)) is not None:
        return view
    index: list[Array] = []
    inside: Array | None = None
    for e, n in zip(access, array.shape, strict=True):
        at: Array = np.full((1,) * len(axes), e.const, np.int64)
        for d, (name, size) in enumerate(axes):
            if c := e.coefficient(name):
                shape = [1] * len(axes)
                shape[d] = size
                steps = chosen.get(name) if chosen else None
                at = at + c * (np.arange(size).reshape(shape) if steps is None else steps)
        ok = (at >= 0) & (at < n)
        if not ok.all():
            inside = ok if inside is None else inside & ok
            at = np.where(ok, at, 0)
        index.append(at)
    shape = tuple(n for _, n in axes)
    if not index:
        return np.broadcast_to(array, shape)
    out = array[tuple(index)]
    if inside is not None:
        out = np.where(inside, out, np.asarray(fill, array.dtype))
    return np.broadcast_to(out, np.broadcast_shapes(out.shape, tuple(1 for _ in axes)))


def _plain_view(array: Array, access: Access, axes: Sequence[tuple[str, int]]) -> Array | None:
    """`gather` without a copy, where each dimension is one whole axis or has size 1."""
    number = {name: d for d, (name, _) in enumerate(axes)}
    order: list[int] = []
    keep: list[int] = []
    for e, n in zip(access, array.shape, strict=True):
        if not e.terms and e.const == 0 and n == 1:
            continue
        if len(e.terms) != 1 or e.const or e.terms[0][1] != 1:
            return None
        d = number[e.terms[0][0]]
        if d in order or axes[d][1] != n:
            return None
        order.append(d)
        keep.append(n)
    kept = array.reshape(keep).transpose(sorted(range(len(order)), key=lambda i: order[i]))
    return kept.reshape([size if d in order else 1 for d, (_, size) in enumerate(axes)])


def scatter(values: Array, write: Access, axes: Sequence[tuple[str, int]], out: Array) -> None:
    """Stores `values` (one dimension per axis of `axes`) into `out` through `write`."""
    index: list[Array] = []
    for e in write:
        at: Array = np.full((1,) * len(axes), e.const, np.int64)
        for d, (name, size) in enumerate(axes):
            if c := e.coefficient(name):
                shape = [1] * len(axes)
                shape[d] = size
                at = at + c * np.arange(size).reshape(shape)
        index.append(at)
    if index:
        out[tuple(index)] = np.broadcast_to(values, tuple(n for _, n in axes))
    else:
        out[()] = values.reshape(())


def assemble(values: Array, write: Access, axes: Sequence[tuple[str, int]]) -> Array:
    """The box of the result that `write` covers, from `values` with one dimension per axis."""
    box = {a: (0, n) for a, n in axes}
    if any(n == 0 for _, n in axes):
        return np.zeros([0] * len(write), values.dtype)
    hull = [e.hull(box) for e in write]
    out = np.empty([hi - lo for lo, hi in hull], values.dtype)
    shifted = tuple(e.plus(Affine((), -lo)) for e, (lo, _) in zip(write, hull, strict=True))
    scatter(values, shifted, axes, out)
    return out


def identity(axes: Sequence[str]) -> Access:
    """The access `[a, b, ...]`."""
    return tuple(axis(a) for a in axes)


def broadcast_access(shape: Sequence[int], axes: Sequence[tuple[str, int]]) -> Access:
    """How a tensor of `shape` is read under NumPy broadcasting to the axes' sizes."""
    tail = list(axes)[len(axes) - len(shape) :]
    return tuple(
        Affine() if n == 1 and size != 1 else axis(a) for n, (a, size) in zip(shape, tail, strict=True)
    )
