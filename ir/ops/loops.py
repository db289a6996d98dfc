"""Loop shapes and choices that the reducing families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import ascii_letters
from typing import Any

import numpy as np

from ..affine import Access, access_axes
from ..builder import FRESH, RESULT, Carried, Combine, KernelBuilder, Value
from ..dtypes import BOOL, I64, U8, DType
from ..op import Array, Op, assemble, gather, product

LANES = 16  # the vector that `cheapest_lane_axis` reckons with, whatever the host's
WIDE = 8  # elements of an axis that make lanes along it worth while
LONG = 16  # terms of one result that are worth lanes of their own where it has WIDE axes too
GATHER = 6.0  # a strided vector access against a vector instruction

Index = Mapping[str, Value]


# -- types ------------------------------------------------------------------------
def accumulator(dtype: DType) -> DType:
    """The type that sums, maxima and products of `dtype` are kept in: at least f32 for floats."""
    return U8 if dtype == BOOL else dtype.wide


def widen(array: Array, dtype: DType) -> Array:
    """`array` in the accumulator of `dtype`; a float wider than that stays as it is."""
    wide = accumulator(dtype)
    return array if dtype.is_float and array.dtype.itemsize >= wide.bytes else array.astype(wide.numpy)


def view(op: Op, operand: int, array: Array) -> Array:
    """Operand `operand` as the op's iterations see it: one dimension per axis, widened."""
    seen = gather(widen(array, op.in_types[operand]), op.reads[operand], op.axes, op.fill)
    return np.broadcast_to(seen, tuple(n for _, n in op.axes))


def summed(op: Op, factors: Sequence[tuple[Array, Sequence[str]]]) -> Array:
    """The sum of the products of arrays over the axes that the op's result lacks. factors: each with the
    axes of its dimensions, in the op's order."""
    letter = dict(zip((a for a, _ in op.axes), ascii_letters, strict=False))
    seen = {a for _, used in factors for a in used}
    kept = [(a, n) for a, n in op.axes if a not in op.reduced]
    terms = ",".join("".join(letter[a] for a in used) for _, used in factors)
    result = "".join(letter[a] for a, _ in kept if a in seen)
    with np.errstate(all="ignore"):
        out = np.asarray(np.einsum(f"{terms}->{result}", *(x for x, _ in factors), optimize=True))
    # Rearrangements absorbed into an op can leave axes that move no factor.
    repeats = product([op.size[a] for a in op.reduced if a not in seen])
    out = np.expand_dims(out, tuple(i for i, (a, _) in enumerate(kept) if a not in seen))
    return assemble(out if repeats == 1 else out * out.dtype.type(repeats), op.write, kept)


def neutral(kind: Combine, dtype: DType) -> float | int:
    """What leaves any value of `dtype` as it is under `kind`."""
    if kind in ("add", "mul"):
        return int(kind == "mul")
    if dtype.is_float:
        return float("inf") if kind == "min" else float("-inf")
    if dtype == BOOL:
        return int(kind == "min")
    return dtype.limits[kind == "min"]


def untouched(kind: Combine, dtype: DType) -> float | int:
    """As `neutral`, to the bit: -0.0 + x is x, where 0.0 + -0.0 is 0.0."""
    return -0.0 if kind == "add" and dtype.is_float else neutral(kind, dtype)


def combine(k: KernelBuilder, kind: Combine, a: Value, b: Value) -> Value:
    """a and b joined."""
    match kind:
        case "add":
            return k.add(a, b)
        case "mul":
            return k.mul(a, b)
        case "min":
            return k.min(a, b)
        case "max":
            return k.max(a, b)


# -- loops --------------------------------------------------------------------------
def fold(
    k: KernelBuilder,
    axes: Sequence[str],
    index: Index,
    carried: Carried,
    step: Callable[[Index, Carried], Carried],
    within: Mapping[str, tuple[Value, Value]] | None = None,
) -> Carried:
    """Runs `step` at every position of `axes`, the last innermost; the last carried.

    within: (start, length) for axes that are not to be run over whole.
    """
    if not axes:
        return step(index, carried)
    start, length = (within or {}).get(axes[0], (None, k.extent(axes[0])))

    def deeper(i: Value, inner: Carried) -> Carried:
        at = i if start is None else k.add_index(start, i)
        return fold(k, axes[1:], {**index, axes[0]: at}, inner, step, within)

    return k.loop(length, deeper, carried, some=True)


def fold_pairs(
    k: KernelBuilder,
    axes: Sequence[str],
    carried: Carried,
    step: Callable[[Index, Carried, bool], Carried],
    within: Mapping[str, tuple[Value, Value]] | None = None,
) -> Carried:
    """As `fold`, two positions of the last axis at a time: `step(index, carried, alone)`, where the last
    one of an odd number is alone."""
    *outer, inner = axes
    start, length = (within or {}).get(inner, (k.const(0, I64), k.extent(inner)))
    even = k.sub(length, k.rem(length, k.const(2, I64)))

    def row(index: Index, sums: Carried) -> Carried:
        def at(i: Value) -> Index:
            return {**index, inner: k.add_index(start, i)}

        sums = k.loop(even, lambda i, c: step(at(i), c, False), sums, step=2)
        odd = k.compare("lt", even, length)
        return k.either(odd, lambda: step(at(even), sums, True), lambda: sums)

    return fold(k, outer, {}, carried, row, within)


def each(k: KernelBuilder, axes: Sequence[str], index: Index, body: Callable[[Index], None]) -> None:
    """Runs `body` at every position of `axes`, the last innermost."""

    def step(at: Index, carried: Carried) -> Carried:
        body(at)
        return carried

    fold(k, axes, index, (), step)


def blocks(k: KernelBuilder, count: Value, sizes: Sequence[int], body: Callable[[Value, int], None]) -> None:
    """Covers 0 .. count with blocks: `body(start, size)`, the largest of `sizes` first.

    `sizes`: falling, the last 1. A second that is one less than the first is taken as often as
    leaves no rest, where that is possible: 49 = 7 * 7, 30 = 2 * 8 + 2 * 7.
    """
    done: Value = k.const(0, I64)
    left = count
    fewer: Value | None = None  # covered by blocks of the second size
    if len(sizes) > 2 and sizes[1] == sizes[0] - 1:
        less = k.const(sizes[1], I64)
        number = k.rem(k.mul(count, less), k.const(sizes[0], I64))  # -count modulo the first size
        enough = k.mul(number, less)
        fewer = k.select(k.compare("le", enough, count), enough, k.const(0, I64))
    for size in sizes:
        here = k.sub(left, fewer) if fewer is not None and size == sizes[0] else left
        covered = k.sub(here, k.rem(here, k.const(size, I64)))

        def block(i: Value, carried: Carried, start: Value = done, size: int = size) -> Carried:
            body(k.add_index(start, i), size)
            return carried

        k.loop(covered, block, step=size)
        done = k.add_index(done, covered)
        left = k.sub(left, covered)


def offsets(k: KernelBuilder, start: Value, count: int) -> list[Value]:
    """start, start + 1, ... ."""
    return [start, *(k.add_index(start, r) for r in range(1, count))]


def lane_starts(k: KernelBuilder, start: Value) -> list[Value]:
    """Where each vector of the present group starts along the lane axis."""
    return [start, *(k.add_index(start, k.lane_offset(j)) for j in range(1, k.group()))]


def at_lane(k: KernelBuilder, index: Index, start: Value) -> Index:
    """`index` with the lanes at `start`; an op without axes has one lane and no axis for it."""
    return {**index, k.lane_axis: start} if k.lane_axis else index


def deposit(
    k: KernelBuilder,
    kind: Combine,
    out_type: DType,
    results: Sequence[tuple[Value, Index]],
    lanes: bool,
) -> None:
    """Stores finished accumulators, joined in `out_type` with what is there unless the task is FRESH."""
    load, store = (k.load_lanes, k.store_lanes) if lanes else (k.load, k.store)
    values = [k.cast(value, out_type) for value, _ in results]

    def joined() -> Carried:
        return [combine(k, kind, load(RESULT, at), v) for v, (_, at) in zip(values, results, strict=True)]

    for v, (_, at) in zip(k.either(k.in_mode(FRESH), lambda: values, joined), results, strict=True):
        store(v, at)


# -- choices ----------------------------------------------------------------------
def cheapest_lane_axis(op: Op, extents: Mapping[str, int], besides: Sequence[str] = ()) -> str:
    """The axis of the result, none of `besides`, along which vectors cost least: full lanes and unit
    strides. Equal axes: the result's last."""
    reduced = product([extents[a] for a in op.reduced])
    best, least = "", float("inf")
    for a in reversed(access_axes(op.write)):
        if a in besides:
            continue
        n = max(1, extents[a])
        each_element = 1 + GATHER * sum(strided(read, a, extents) for read in op.reads)
        each_result = GATHER * strided(op.write, a, extents) / max(1, reduced)
        total = -(-n // LANES) * LANES / n * (each_element + each_result)
        if total < least:
            best, least = a, total
    return best


def channels_last(op: Op, over: Sequence[str]) -> bool:
    """Whether lanes are the channels: `over` are all dimensions of an image [n, c, y, x, ...]."""
    rest = {a for e in op.reads[0][2:] for a in e.axes}
    channels = [op.size[a] for e in op.reads[0][1:2] for a in e.axes if a not in over]
    return len(op.reads[0]) > 3 and rest == set(over) and max(channels, default=0) >= WIDE


def longest(sizes: Sequence[Any]) -> Any:
    """The greatest of `sizes`, elementwise for arrays of candidates; at least 1."""
    out: Any = 1
    for n in sizes:
        out = np.maximum(out, n)
    return out


def strided(access: Access, axis: str, extents: Mapping[str, int]) -> bool:
    """Whether neighbours along `axis` are apart in a tile that is stored row by row."""
    wide = [e for e in access if any(extents[a] > 1 for a in e.axes)]
    found = [e for e in wide if e.coefficient(axis)]
    return bool(found) and not (found == wide[-1:] and found[0].coefficient(axis) == 1)
