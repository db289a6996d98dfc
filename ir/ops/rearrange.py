"""Pure data movement: every element of the result is one element of an operand.

`Copy` says which through affine accesses, so that a later pass can compose it into
the ops around it and no byte moves. `Relabel` is for the rare Reshape that has no
affine form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..affine import Access, Affine, axis, constant
from ..builder import Arithmetic, Carried, KernelBuilder, Value
from ..dtypes import I64, DType
from ..graph import InvalidModel
from ..op import Array, Extents, Op, Work, assemble, gather, product
from ..rules import GraphBuilder
from .elementwise import Elementwise
from .loops import each

Axes = tuple[tuple[str, int], ...]


class Copy(Elementwise):
    """out[write] = in[read], `fill` where the read passes the operand's ends."""

    exact = True
    stored = True
    affine = True
    sign = 1
    turns_squares = True
    zero_absorbs = True

    def scalar(self, b: Arithmetic, *x: Value) -> Value:
        return x[0]

    def numpy(self, *x: Array) -> Array:
        return x[0]

    def asks_unit(self, axis: str) -> bool:
        return True

    def body(self, k: KernelBuilder) -> None:
        names = [a for a, _ in self.axes]
        near = [a for a in names if a != k.lane_axis and k.stride_kind(0, a) == "unit"]
        if k.small or not near or k.lane_axis not in names or k.stride_kind(0, k.lane_axis) != "any":
            super().body(k)
            return
        outer = [a for a in names if a not in (k.lane_axis, near[0])]
        each(k, outer, {}, lambda at: self._turned(k, at, near[0]))

    def _turned(self, k: KernelBuilder, at: Mapping[str, Value], near: str) -> None:
        """Squares along the lane axis and `near`, along which the operand's elements are neighbours."""

        def lanes(i: Value, carried: Carried) -> Carried:
            here = {**at, k.lane_axis: i}

            def square(j: Value, inner: Carried) -> Carried:
                for n, x in enumerate(k.load_square(0, {**here, near: j}, near)):
                    k.store_lanes(x, {**here, near: k.add_index(j, n)})
                return inner

            count, side = k.extent(near), k.const(k.lanes, I64)
            done = k.sub(count, k.rem(count, side))
            k.loop(done, square, step=k.lanes)

            def rest(j: Value, inner: Carried) -> Carried:
                index = {**here, near: k.add_index(done, j)}
                k.store_lanes(k.load_lanes(0, index), index)
                return inner

            k.loop(k.sub(count, done), rest)
            return carried

        k.lane_loop(lanes)


def plain_copy(axes: Axes, access: Access, dtype: DType) -> Copy:
    """An element for each iteration, written where it is read."""
    return Copy(axes=axes, reads=(access,), write=access, in_types=(dtype,), out_type=dtype)


def make_copy(
    g: GraphBuilder, tensor: str, axes: Axes, read: Access, write: Access, fill: float = 0.0
) -> Copy:
    dtype = g.dtype(tensor)
    return Copy(axes=axes, reads=(read,), write=write, in_types=(dtype,), out_type=dtype, fill=fill)


def emit_copy(
    g: GraphBuilder, tensor: str, axes: Axes, read: Access, write: Access, shape: Sequence[int], hint: str
) -> str:
    """Adds one Copy; an empty result is a constant and moves nothing."""
    if 0 in shape:
        return g.constant(np.zeros(tuple(shape), g.dtype(tensor).numpy), hint)
    return g.emit(make_copy(g, tensor, axes, read, write), [tensor], shape, hint)


def normal_axis(value: int, rank: int) -> int:
    """A possibly negative axis as 0 .. rank - 1; InvalidModel where there is no such axis."""
    if not -rank <= value < rank:
        raise InvalidModel(f"axis {value} of a tensor with {rank} dimensions")
    return value + rank if value < 0 else value


def transpose(g: GraphBuilder, tensor: str, order: Sequence[int], hint: str) -> str:
    shape = g.shape(tensor)
    if sorted(order) != list(range(len(shape))):
        raise InvalidModel(f"perm {list(order)} is no permutation of {len(shape)} axes")
    if list(order) == sorted(order):
        return tensor
    axes = tuple((f"d{i}", shape[d]) for i, d in enumerate(order))
    write = tuple(axis(a) for a, _ in axes)
    read = tuple(axis(f"d{order.index(d)}") for d in range(len(shape)))
    return emit_copy(g, tensor, axes, read, write, [n for _, n in axes], hint)


# -- reshape --------------------------------------------------------------------------


def refine(old: Sequence[int], new: Sequence[int]) -> tuple[tuple[int, ...], Access, Access] | None:
    """The coarsest row-major factors that both shapes are made of.

    Returns (factors, read, write) over axes f0, f1, ...: row-major [6, 4] and [2, 12]
    share the factors (2, 3, 4), read as [3*f0 + f1, f2] and written as [f0, 4*f1 + f2].
    None where there are none: [6, 10] and [4, 15]. Both have the same, non-zero size.
    """
    sides = (list(old), list(new))
    at = [len(old) - 1, len(new) - 1]
    rest = [sides[0][-1] if old else 1, sides[1][-1] if new else 1]
    coefficient = [1, 1]
    terms: tuple[list[list[tuple[int, int]]], ...] = ([[] for _ in old], [[] for _ in new])
    factors: list[int] = []  # innermost first
    while True:
        for s in (0, 1):
            while rest[s] == 1 and at[s] > 0:
                at[s] -= 1
                rest[s], coefficient[s] = sides[s][at[s]], 1
        if rest[0] == 1 or rest[1] == 1:
            break
        factor = min(rest)
        if max(rest) % factor:
            return None
        for s in (0, 1):
            terms[s][at[s]].append((len(factors), coefficient[s]))
            rest[s] //= factor
            coefficient[s] *= factor
        factors.append(factor)
    last = len(factors) - 1
    accesses = [
        tuple(Affine(tuple((f"f{last - i}", c) for i, c in reversed(of_dim))) for of_dim in side)
        for side in terms
    ]
    return tuple(reversed(factors)), accesses[0], accesses[1]


@dataclass(frozen=True, kw_only=True)
class Relabel(Op):
    """A Reshape without common factors: axes `o...` of the result, axes `i...` of the operand.

    Common leading dimensions (`b...`) may be cut; in the rest an element's place in the
    result says nothing simple about its place in the operand, so it stays on one core.
    """

    exact = True
    affine = True

    @property
    def whole(self) -> tuple[str, ...]:
        return tuple(a for a, _ in self.axes if a[0] != "b")

    def reference(self, *operands: Array) -> Array:
        kept = tuple((a, n) for a, n in self.axes if a[0] != "i")
        source = tuple((a, n) for a, n in self.axes if a[0] != "o")
        seen = np.broadcast_to(gather(operands[0], self.reads[0], source, self.fill), [n for _, n in source])
        return assemble(seen.reshape([n for _, n in kept]), self.write, kept)

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return ""

    def body(self, k: KernelBuilder) -> None:
        result = [a for a, _ in self.axes if a[0] != "i"]
        inner = [a for a, _ in self.axes if a[0] == "i"]

        def nest(rest: list[str], index: dict[str, Value], flat: Value) -> None:
            if rest:

                def step(i: Value, carried: Carried) -> Carried:
                    further = flat
                    if rest[0][0] == "o":
                        further = k.add(k.mul(flat, k.extent(rest[0])), i)
                    nest(rest[1:], {**index, rest[0]: i}, further)
                    return carried

                k.loop(k.extent(rest[0]), step)
                return
            source = {a: i for a, i in index.items() if a[0] == "b"}
            for a in reversed(inner):
                source[a] = k.rem(flat, k.extent(a))
                flat = k.div(flat, k.extent(a))
            k.store(k.load(0, source), index)

        nest(result, {}, k.const(0, I64))

    def work(self, extents: Extents) -> tuple[Work, ...]:
        # two divisions stand between neighbours, so each element is a dispatch of its own
        n = product([extents[a] for a, _ in self.axes if a[0] != "i"])
        return (Work("copy", n, n),)


def reshape(g: GraphBuilder, tensor: str, shape: Sequence[int], hint: str) -> str:
    """`tensor` in another shape of the same size, row-major."""
    old, new = g.shape(tensor), tuple(shape)
    if old == new:
        return tensor
    if product(old) != product(new):
        raise InvalidModel(f"{product(old)} elements of shape {list(old)} cannot take shape {list(new)}")
    if 0 in new:
        return g.constant(np.zeros(new, g.dtype(tensor).numpy), hint)
    value = g.value(tensor)
    if value is not None:
        return g.constant(value.reshape(new), hint)
    if found := refine(old, new):
        factors, read, write = found
        axes = tuple((f"f{i}", n) for i, n in enumerate(factors))
        return emit_copy(g, tensor, axes, read, write, new, hint)
    same = 0
    while old[same] == new[same]:
        same += 1
    leading = tuple((f"b{d}", n) for d, n in enumerate(new[:same]))
    out_axes = tuple((f"o{d}", n) for d, n in enumerate(new[same:]))
    in_axes = tuple((f"i{d}", n) for d, n in enumerate(old[same:]))
    op = Relabel(
        axes=leading + out_axes + in_axes,
        reads=(tuple(axis(a) for a, _ in leading + in_axes),),
        write=tuple(axis(a) for a, _ in leading + out_axes),
        in_types=(g.dtype(tensor),),
        out_type=g.dtype(tensor),
    )
    return g.emit(op, [tensor], new, hint)


# -- parts ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Per dimension: `count` elements from `start` on, `step` apart (negative: backwards)."""

    start: int
    step: int
    count: int

    def read(self, name: str) -> Affine:
        """The position in the operand of step `name`."""
        return axis(name, self.step, self.start) if self.step else constant(self.start)


def slice_box(g: GraphBuilder, tensor: str, cuts: Sequence[Cut], hint: str, moves: bool = False) -> str:
    """The elements that `cuts` (one per dimension) choose. moves: they are others at another length of the
    caches, so that there is a node, too, where they are all."""
    shape = g.shape(tensor)
    if not moves and all(c == Cut(0, 1, n) for c, n in zip(cuts, shape, strict=True)):
        return tensor
    axes = tuple((f"d{i}", c.count) for i, c in enumerate(cuts))
    read = tuple(c.read(f"d{i}") for i, c in enumerate(cuts))
    write = tuple(axis(a) for a, _ in axes)
    return emit_copy(g, tensor, axes, read, write, [c.count for c in cuts], hint)


def slice_axis(g: GraphBuilder, tensor: str, dim: int, start: int, count: int, hint: str) -> str:
    """`count` neighbours along one dimension."""
    cuts = [Cut(0, 1, n) for n in g.shape(tensor)]
    cuts[dim] = Cut(start, 1, count)
    return slice_box(g, tensor, cuts, hint)


def pick(g: GraphBuilder, tensor: str, dim: int, position: int, hint: str) -> str:
    """The slice at `position` of dimension `dim`, without that dimension."""
    shape = g.shape(tensor)
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape) if i != dim)
    read = tuple(constant(position) if i == dim else axis(f"d{i}") for i in range(len(shape)))
    write = tuple(axis(a) for a, _ in axes)
    return emit_copy(g, tensor, axes, read, write, [n for _, n in axes], hint)


def join(g: GraphBuilder, pieces: Sequence[tuple[str, Sequence[Cut]]], dim: int, hint: str) -> str:
    """What the cuts take of each tensor, one after the other along `dim` (Concat, reflections)."""
    dtype = g.dtype(pieces[0][0])
    shape = [c.count for c in pieces[0][1]]
    shape[dim] = sum(cuts[dim].count for _, cuts in pieces)
    if 0 in shape:
        return g.constant(np.zeros(shape, dtype.numpy), hint)
    pieces = [p for p in pieces if p[1][dim].count]
    if len(pieces) == 1:
        return slice_box(g, pieces[0][0], pieces[0][1], hint)
    parts: list[tuple[Op, list[str]]] = []
    offset = 0
    for tensor, cuts in pieces:
        axes = tuple((f"d{i}", c.count) for i, c in enumerate(cuts))
        read = tuple(c.read(f"d{i}") for i, c in enumerate(cuts))
        write = tuple(axis(f"d{i}", 1, offset if i == dim else 0) for i in range(len(cuts)))
        parts.append((make_copy(g, tensor, axes, read, write), [tensor]))
        offset += cuts[dim].count
    return g.emit_parts(parts, shape, dtype, hint)


def concat(g: GraphBuilder, tensors: Sequence[str], dim: int, hint: str) -> str:
    """The tensors one after the other along `dim`."""
    first = g.shape(tensors[0])
    for t in tensors[1:]:
        if [*g.shape(t)[:dim], *g.shape(t)[dim + 1 :]] != [*first[:dim], *first[dim + 1 :]]:
            raise InvalidModel(f"Concat of shapes {list(first)} and {list(g.shape(t))} along axis {dim}")
    return join(g, [(t, [Cut(0, 1, n) for n in g.shape(t)]) for t in tensors], dim, hint)


def expand(g: GraphBuilder, tensor: str, shape: Sequence[int], hint: str) -> str:
    """`tensor` repeated along dimensions of size 1 to exactly `shape`."""
    old = g.shape(tensor)
    if old == tuple(shape):
        return tensor
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    tail = axes[len(axes) - len(old) :]
    read = tuple(axis(a) if n != 1 or m == 1 else constant(0) for n, (a, m) in zip(old, tail, strict=True))
    write = tuple(axis(a) for a, _ in axes)
    return emit_copy(g, tensor, axes, read, write, shape, hint)


def pad(
    g: GraphBuilder, tensor: str, before: Sequence[int], after: Sequence[int], fill: float, hint: str
) -> str:
    """`fill` around `tensor`; negative widths crop."""
    shape = [n + lo + hi for n, lo, hi in zip(g.shape(tensor), before, after, strict=True)]
    if any(n < 0 for n in shape):
        raise InvalidModel(f"Pad crops {list(g.shape(tensor))} to {shape}")
    if not any(before) and not any(after):
        return tensor
    if 0 in shape:
        return g.constant(np.zeros(shape, g.dtype(tensor).numpy), hint)
    if 0 in g.shape(tensor):
        return expand(g, g.constant(np.asarray(fill, g.dtype(tensor).numpy)), shape, hint)
    return surrounded(g, tensor, before, shape, fill, hint)


def surrounded(
    g: GraphBuilder, tensor: str, before: Sequence[int], shape: Sequence[int], fill: float, hint: str
) -> str:
    """`tensor` at the place `before` of a shape, `fill` around it: a node, whether there is any or not."""
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    read = tuple(axis(f"d{i}", 1, -lo) for i, lo in enumerate(before))
    write = tuple(axis(a) for a, _ in axes)
    return g.emit(make_copy(g, tensor, axes, read, write, fill), [tensor], shape, hint)


def mirror(g: GraphBuilder, tensor: str, mode: str, dim: int, widths: tuple[int, int], hint: str) -> str:
    """Pads one dimension before and after by ONNX's modes reflect, edge or wrap; a width below 0 crops."""
    before, after = widths
    shape = g.shape(tensor)
    n = shape[dim]
    crop = Cut(max(0, -before), 1, n - max(0, -before) - max(0, -after))
    if crop.count < 0:
        raise InvalidModel(f"Pad crops {n} to {crop.count}")
    before, after = max(0, before), max(0, after)
    edge = before + after if crop.count else 0  # what has no edge cannot be padded with it
    limit = {"reflect": crop.count - 1, "wrap": crop.count}.get(mode, edge)
    if max(before, after) > limit:
        raise InvalidModel(f"Pad by {max(before, after)} in mode {mode} of a dimension of {crop.count}")
    first, last = crop.start, crop.start + crop.count - 1
    ends = {
        "reflect": (Cut(first + before, -1, before), Cut(last - 1, -1, after)),
        "edge": (Cut(first, 0, before), Cut(last, 0, after)),
        "wrap": (Cut(last + 1 - before, 1, before), Cut(first, 1, after)),
    }[mode]
    rows = [[Cut(0, 1, m) for m in shape] for _ in range(3)]
    for row, cut in zip(rows, (ends[0], crop, ends[1]), strict=True):
        row[dim] = cut
    return join(g, [(tensor, row) for row in rows], dim, hint)


def integers(value: Any) -> list[int]:
    """A NumPy array or list of whole numbers as a list."""
    return [int(v) for v in np.asarray(value).reshape(-1)]
