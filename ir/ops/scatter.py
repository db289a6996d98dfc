"""Operators whose writes depend on data: the updates go where run-time coordinates say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..absent import lacking
from ..affine import Access, access_axes, constant
from ..builder import RESULT, Carried, KernelBuilder, Value
from ..dtypes import BOOL, I64
from ..graph import InvalidModel
from ..op import Array, Bound, Extents, Op, Work, assemble, gather, identity, product
from ..rules import GraphBuilder, Spec, register
from .bounds import index_bounds, judge_indices, within
from .conversion import cast
from .elementwise import Add, apply
from .index import coordinates
from .loops import Index, at_lane, combine, each, longest
from .rearrange import normal_axis, pad, reshape

Reduction = Literal["none", "add", "mul", "max", "min"]
UFUNCS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
OUTSIDE = -(1 << 62)  # a coordinate that points outside any tensor


@dataclass(frozen=True, kw_only=True)
class Scatter(Op):
    """data with updates at run-time coordinates, one after the other in row-major order.

    Operands: data, updates, and a coordinate for each of `places`, the axes that only the result and the
    data have. Axes that only the updates and the coordinates have are reduced: whoever holds a box of the
    result sees all of its updates. One that points outside is dropped; a negative coordinate counts from
    the end.

    sizes: of the result along `places`. reduction: what an update does to what is there. of: which of the
    model's axes the places are, where a coordinate outside is an error; else ().
    """

    places: tuple[str, ...]
    sizes: tuple[int, ...]
    reduction: Reduction = "none"
    of: tuple[int, ...] = ()

    exact = True

    def key(self) -> tuple[object, ...]:
        return (
            self.name,
            self.places,
            self.sizes,
            self.reduction,
            self._chosen_by,
            self.reduced,
            bool(self.of),
        )

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return index_bounds(2, self.of, self.sizes, True)

    @property
    def _chosen_by(self) -> tuple[str, ...]:
        """The axes of the result on which a coordinate depends."""
        seen = {a for read in self.reads[2:] for a in access_axes(read)}
        return tuple(a for a in access_axes(self.write) if a in seen)

    @property
    def _along(self) -> tuple[str, ...]:
        """The axes along which an update is a run of elements."""
        apart = {*self._chosen_by, *self.places}
        return tuple(a for a in access_axes(self.write) if a not in apart)

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        wide = [a for a in self._along if extents[a] > 1]
        return wide[-1] if wide else self._along[-1] if self._along else ""

    def reference(self, *operands: Array) -> Array:
        kept = tuple((a, n) for a, n in self.axes if a not in self.reduced)
        spread = tuple((a, n) for a, n in self.axes if a not in self.places)
        whole = tuple(n for _, n in spread)
        out = np.array(
            np.broadcast_to(gather(operands[0], self.reads[0], kept, self.fill), [n for _, n in kept])
        )
        values = np.broadcast_to(gather(operands[1], self.reads[1], spread, self.fill), whole)
        held = np.ones(whole, np.bool_)
        at: dict[str, Array] = {}
        for name, size, access, operand in zip(
            self.places, self.sizes, self.reads[2:], operands[2:], strict=True
        ):
            place = np.broadcast_to(gather(operand, access, spread, 0).astype(np.int64), whole)
            at[name] = np.where(place < 0, place + size, place)
            held &= (at[name] >= 0) & (at[name] < size)
        for d, (name, n) in enumerate(spread):
            at[name] = np.broadcast_to(np.arange(n).reshape([-1] + [1] * (len(spread) - 1 - d)), whole)
        index = tuple(at[name][held] for name, _ in kept)
        with np.errstate(all="ignore"):
            if self.reduction == "none":
                out[index] = values[held]
            else:
                UFUNCS[self.reduction].at(out, index, values[held])
        return assemble(out, self.write, kept)

    def body(self, k: KernelBuilder) -> None:
        rest = [a for a in self._along if a != k.lane_axis]
        places = list(zip(self.places, self.sizes, strict=True))

        def copy(at: Index) -> None:
            def lanes(i: Value, carried: Carried) -> Carried:
                here = at_lane(k, at, i)
                k.store_lanes(k.load_lanes(0, here), here)
                return carried

            k.lane_loop(lanes)

        def update(at: Index, target: Index) -> None:
            def lanes(i: Value, carried: Carried) -> Carried:
                here = at_lane(k, {**at, **target}, i)
                k.store_lanes(self._joined(k, k.load_lanes(1, at_lane(k, at, i)), here), here)
                return carried

            k.lane_loop(lanes)

        def one(at: Index) -> None:
            target, held = coordinates(k, at, 2, places, True, self.bounds)
            k.where(held, lambda: each(k, rest, at, lambda i: update(i, target)))

        def box(at: Index) -> None:
            each(k, [*self.places, *rest], at, copy)
            each(k, self.reduced, at, one)

        each(k, self._chosen_by, {}, box)

    def _joined(self, k: KernelBuilder, value: Value, at: Index) -> Value:
        """What stands at `at` after the update."""
        if self.reduction == "none":
            return value
        old = k.load_lanes(RESULT, at)
        if self.out_type == BOOL:
            return (k.bit_or if self.reduction in ("add", "max") else k.bit_and)(old, value)
        return combine(k, self.reduction, old, value)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """A vector op for every run of what is copied, and one for every run of every update."""
        n = product([extents[a] for a in access_axes(self.write)])
        run = product([extents[a] for a in self._along])
        updates = product([extents[a] for a in (*self._chosen_by, *self.reduced)])
        kind = "copy" if self.reduction == "none" else "fma"
        return (
            Work("copy", n // longest([extents[a] for a in self._along]), n),
            Work(kind, updates, updates * run),
        )


def emit_updates(
    g: GraphBuilder,
    data: tuple[str, Access],
    updates: tuple[str, Access],
    at: Sequence[tuple[str, Access]],
    kept: Sequence[tuple[str, int]],
    places: Sequence[str],
    spread: Sequence[tuple[str, int]],
    hint: str,
    reduction: Reduction = "none",
    of: Sequence[int] = (),
) -> str:
    """A result with the axes `kept`. data, updates, at: tensors and their accesses. places: the axes of the
    result that the coordinates `at` give. spread: the axes that only updates have. of: see `Scatter`.

    Sums and products are rounded once, see `DType.wide`."""
    given = g.dtype(updates[0])
    if reduction in ("add", "mul"):
        data, updates = ((cast(g, t, given.wide, hint), access) for t, access in (data, updates))
    op = Scatter(
        axes=(*kept, *spread),
        reads=(data[1], updates[1], *(access for _, access in at)),
        write=identity([a for a, _ in kept]),
        in_types=(g.dtype(data[0]), g.dtype(updates[0]), *(g.dtype(t) for t, _ in at)),
        out_type=g.dtype(updates[0]),
        places=tuple(places),
        sizes=tuple(n for name in places for a, n in kept if a == name),
        reduction=reduction,
        of=tuple(of),
    )
    out = g.emit(op, [data[0], updates[0], *(t for t, _ in at)], [n for _, n in kept], hint)
    return cast(g, out, given, hint)


def _reduction(spec: Spec) -> Reduction:
    kind = spec.attribute("reduction", "none")
    if kind not in ("none", *UFUNCS):
        raise InvalidModel(f"{spec.op_type} with reduction {kind!r}")
    return kind


def _scatter_elements(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    data, indices, updates = spec.inputs
    hint, shape, at = spec.outputs[0], g.shape(data), g.shape(indices)
    dim = normal_axis(spec.attribute("axis", 0), len(shape))
    beyond = [m - n if d != dim else 0 for d, (n, m) in enumerate(zip(at, shape, strict=False))]
    if len(at) != len(shape) or g.shape(updates) != at or min(beyond, default=0) < 0:
        raise InvalidModel(
            f"{spec.op_type} of {g.tensors[updates]} at {g.tensors[indices]} into {g.tensors[data]}"
        )
    bound = Bound(0, -shape[dim], shape[dim], "index", dim, shape[dim])
    moved = [(f"d{d}", n) for d, n in enumerate(at)]
    judge_indices(g, (indices, identity([a for a, _ in moved])), moved, bound)
    if 0 in at:
        return [data]
    if any(beyond):  # where there are no updates, there are some that point outside
        indices = within(g, indices, bound, hint)
        indices = pad(g, cast(g, indices, I64), [0] * len(at), beyond, float(OUTSIDE), hint)
        updates = pad(g, updates, [0] * len(at), beyond, 0.0, hint)
    kept = [(f"d{d}", n) for d, n in enumerate(shape)]
    names = [a for a, _ in kept]
    moved = identity([*names[:dim], "u", *names[dim + 1 :]])
    whole = identity(names)
    spread = [("u", at[dim])]
    return [
        emit_updates(
            g,
            (data, whole),
            (updates, moved),
            [(indices, moved)],
            kept,
            [names[dim]],
            spread,
            hint,
            _reduction(spec),
            () if any(beyond) else [dim],
        )
    ]


def _scatter_nd(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    data, indices, updates = spec.inputs
    shape, (*outer, depth) = g.shape(data), g.shape(indices)
    if depth > len(shape) or g.shape(updates) != (*outer, *shape[depth:]):
        raise InvalidModel(
            f"ScatterND of {g.tensors[updates]} at {g.tensors[indices]} into {g.tensors[data]}"
        )
    spread = [(f"u{j}", n) for j, n in enumerate(outer)]
    scan = identity([a for a, _ in spread])
    at = [(indices, (*scan, constant(j))) for j in range(depth)]
    for read, bound in zip(at, index_bounds(0, range(depth), shape[:depth], True), strict=True):
        judge_indices(g, read, spread, bound)
    if 0 in outer:
        return [data]
    if _reduction(spec) == "none" and _everywhere(g.value(indices), shape[:depth]):
        return [updates]
    kept = [(f"d{d}", n) for d, n in enumerate(shape)]
    names = [a for a, _ in kept]
    new = (updates, (*scan, *identity(names[depth:])))
    return [
        emit_updates(
            g,
            (data, identity(names)),
            new,
            at,
            kept,
            names[:depth],
            spread,
            spec.outputs[0],
            _reduction(spec),
            range(depth),
        )
    ]


def _everywhere(indices: Array | None, shape: Sequence[int]) -> bool:
    """Whether indices are known and each is its own place: assignments to a whole tensor are exported so."""
    if indices is None or lacking([indices]) is not None or indices.shape != (*shape, len(shape)):
        return False
    return all(
        (indices[..., d] == np.arange(n).reshape(-1, *[1] * (len(shape) - d - 1))).all()
        for d, n in enumerate(shape)
    )


def _max_unpool(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Each element where its index says, within its own channel; zeros elsewhere.

    An index counts in the whole tensor that the pooling had: what is before its channel is taken off.
    """
    x, indices, hint = spec.inputs[0], spec.inputs[1], spec.outputs[0]
    n, channels, *sizes = g.shape(x)
    kernel = spec.attribute("kernel_shape")
    rank = len(sizes)
    strides = spec.attribute("strides") or [1] * rank
    pads = spec.attribute("pads") or [0] * 2 * rank
    if not len(kernel) == len(strides) == len(pads) // 2 == rank:
        raise InvalidModel(f"MaxUnpool: strides, pads or kernel do not fit {rank} dimensions")
    inner = [(size - 1) * strides[i] - pads[i] - pads[rank + i] + kernel[i] for i, size in enumerate(sizes)]
    plane = product(inner)
    before = -plane * g.folding.line(n * channels).reshape(n, channels, 1)
    flat = [n, channels, product(sizes)]
    every = n * channels * plane
    indices = within(g, indices, Bound(0, 0, every, "index into the flat result", 0, every), hint)
    at = apply(g, Add, [reshape(g, indices, flat, hint), g.constant(before)], hint)
    at = within(g, at, Bound(0, 0, plane, "index, counted from its channel's first element,", 2, plane), hint)
    kept, updates = [("n", n), ("c", channels), ("s", plane)], identity(["n", "c", "u"])
    zero = g.constant(np.zeros((), g.dtype(x).numpy))
    values = reshape(g, x, flat, hint)
    out = emit_updates(
        g, (zero, ()), (values, updates), [(at, updates)], kept, ["s"], [("u", flat[-1])], hint
    )
    out = reshape(g, out, [n, channels, *inner], hint)
    if not spec.has(2):
        return [out]
    wanted = g.known(spec.inputs[2], "MaxUnpool's output_shape").tolist()
    return [
        pad(g, out, [0] * (rank + 2), [w - o for w, o in zip(wanted, g.shape(out), strict=True)], 0.0, hint)
    ]


register("Scatter", _scatter_elements, 9)
register("ScatterElements", _scatter_elements, 11)
register("ScatterND", _scatter_nd, 11)
register("MaxUnpool", _max_unpool, 9, limits="output_shape known")
