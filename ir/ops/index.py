"""Operators whose reads depend on data: which element is known only at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..affine import access_axes, axis
from ..builder import FRESH, Carried, KernelBuilder, Value
from ..dtypes import BOOL, I64, U8, f32_of
from ..graph import GraphBuilder, InvalidModel, Spec, Unsupported, register
from ..op import Array, Extents, Op, Work, assemble, gather, product
from .conversion import Where, cast
from .elementwise import apply
from .logic import Equal
from .loops import Index, each, longest, untouched
from .rearrange import Cut, integers, join, normal_axis, pick, reshape, slice_box

SPELLED_OUT = 8  # a Gather with at most so many constant indices is that many slices


@dataclass(frozen=True, kw_only=True)
class Gather(Op):
    """out[pre, i, post] = data[pre, indices[i], post].

    The gathered axis `v` is reduced: whoever holds the row answers with it, all others
    with zeros, and the sum of the partial results is the answer: for floats with -0.0, which
    leaves every bit of what it is added to. A negative index counts from the end; one outside
    yields these zeros. 16-bit data may give an f32 result.

    size: rows of `data`.
    """

    size_of_axis: int

    combine = "add"
    exact = True

    def key(self) -> tuple[object, ...]:
        return (self.name, self.size_of_axis, self._index_axes)

    @property
    def _index_axes(self) -> tuple[str, ...]:
        return tuple(a for a in access_axes(self.write) if a[0] == "i")

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        """A data axis: along one of the indices each lane would read another row."""
        kept = [a for a in access_axes(self.write) if a[0] != "i"]
        wide = [a for a in kept if extents[a] > 1]
        return wide[-1] if wide else kept[-1] if kept else ""

    def reference(self, *operands: Array) -> Array:
        data, indices = operands
        if self.in_types[0] != self.out_type:
            data = f32_of(data, self.in_types[0])
        row = gather(indices, self.reads[1], self.axes, 0).astype(np.int64)
        row = np.where(row < 0, row + self.size_of_axis, row)
        held = (row >= 0) & (row < self.size_of_axis)
        axes = tuple((a, 1 if a == "v" else n) for a, n in self.axes)
        chosen = {"v": np.where(held, row, 0)}
        values = gather(data, self.reads[0], axes, self.fill, chosen)
        values = np.where(held, values, np.zeros((), data.dtype))
        number = [a for a, _ in axes].index("v")
        kept = tuple(x for x in axes if x[0] != "v")
        values = np.broadcast_to(values, [n for _, n in axes]).squeeze(number)
        return assemble(values, self.write, kept)

    def body(self, k: KernelBuilder) -> None:
        order = [*self._index_axes, *(a for a in access_axes(self.write) if a[0] != "i")]
        zero = k.const(untouched("add", self.out_type), self.out_type)

        def nest(rest: list[str], index: dict[str, Value], row: Value | None, held: Value | None) -> None:
            if rest and (row is not None or rest[0][0] == "i"):

                def step(i: Value, carried: Carried) -> Carried:
                    nest(rest[1:], {**index, rest[0]: i}, row, held)
                    return carried

                k.loop(k.extent(rest[0]), step)
                return
            if row is None or held is None:
                at = k.cast(k.load(1, index), I64)
                at = k.select(
                    k.compare("lt", at, k.const(0, I64)), k.add(at, k.const(self.size_of_axis, I64)), at
                )
                at = k.sub(at, k.origin("v"))
                ours = k.bit_and(k.compare("ge", at, k.const(0, I64)), k.compare("lt", at, k.extent("v")))
                safe = k.select(ours, at, k.const(0, I64))
                nest(rest, index, safe, ours)
                return

            def lanes(i: Value, carried: Carried) -> Carried:
                here = {**index, k.lane_axis: i} if k.lane_axis else index
                value = k.cast(k.load_lanes(0, {**here, "v": row}), self.out_type)
                k.store_lanes(k.select(held, value, zero), here)
                return carried

            # A later step of the same core has nothing to add where another step held the row.
            k.where(k.bit_or(k.in_mode(FRESH), held), lambda: _run(k, lanes))

        nest([a for a in order if a != k.lane_axis], {}, None, None)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        rows = product([extents[a] for a in self._index_axes])
        row = product([extents[a] for a, _ in self.axes if a[0] == "d"])
        return (Work("copy", rows, rows * row),)


@dataclass(frozen=True, kw_only=True)
class TensorScatter(Op):
    """past with new rows from a run-time position on (the standard's linear mode).

    out[d, c, d] = new[d, c - position, d] where that is one of the new rows, else past[d, c, d]. Axis `c`
    runs over the capacity; the rows, axis `s`, are needed whole wherever some of `c` is. Operands: past,
    new, position. Rows that would lie outside are dropped.

    in_place: the result is the past's own memory, of which only the new rows are written.
    """

    in_place: bool = False

    exact = True

    def key(self) -> tuple[object, ...]:
        return (self.name, self.in_place, self._position_axes)

    @property
    def updates(self) -> int | None:
        return 0 if self.in_place else None

    @property
    def whole(self) -> tuple[str, ...]:
        """In place, the rows may come in turn: each step writes its own."""
        return () if self.in_place else self.reduced

    def overwrites(self, operand: int) -> bool:
        return self.in_place and operand == 0

    @property
    def _position_axes(self) -> tuple[str, ...]:
        return tuple(access_axes(self.reads[2]))

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        """A data axis: a row's elements, not one element of each row."""
        kept = [a for a in access_axes(self.write) if a != "c" and a not in self._position_axes]
        wide = [a for a in kept if extents[a] > 1]
        return wide[-1] if wide else kept[-1] if kept else ""

    def reference(self, *operands: Array) -> Array:
        past, new, position = operands
        out = np.array(past)
        dim = next(d for d, e in enumerate(self.write) if "c" in e.axes)
        rows = np.broadcast_to(np.asarray(position).reshape(-1), (past.shape[0],) if position.ndim else (1,))
        for b, first in enumerate(rows.tolist()):
            line = (slice(b, b + 1) if position.ndim else slice(None),)
            for s in range(self.size["s"]):
                if 0 <= first + s < past.shape[dim]:
                    at = (*line, *(slice(None),) * (dim - 1), first + s)
                    out[at] = new[(*line, *(slice(None),) * (dim - 1), s)]
        return out

    def body(self, k: KernelBuilder) -> None:
        rest = [a for a in access_axes(self.write) if a not in (k.lane_axis, "c", *self._position_axes)]

        def copy(operand: int, source: Index, target: Index) -> None:
            def lanes(i: Value, carried: Carried) -> Carried:
                here = {k.lane_axis: i} if k.lane_axis else {}
                k.store_lanes(k.load_lanes(operand, {**source, **here}), {**target, **here})
                return carried

            k.lane_loop(lanes)

        def rows(outer: Index) -> None:
            first = k.add(k.sub(k.cast(k.load(2, outer), I64), k.origin("c")), k.origin("s"))

            def row(s: Value, carried: Carried) -> Carried:
                at = k.add(first, s)
                ours = k.bit_and(k.compare("ge", at, k.const(0, I64)), k.compare("lt", at, k.extent("c")))

                def written() -> None:
                    each(k, rest, outer, lambda i: copy(1, {**i, "s": s}, {**i, "c": at}))

                k.where(ours, written)
                return carried

            k.loop(k.extent("s"), row)

        def all_rows(outer: Index) -> None:
            if not self.in_place:
                each(k, ["c", *rest], outer, lambda i: copy(0, i, i))
            rows(outer)

        each(k, self._position_axes, {}, all_rows)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """The new rows, each a vector op for every run of its elements; the whole past unless in place."""
        kept = [extents[a] for a in access_axes(self.write) if a != "c"]
        row = product(kept)
        rows = np.minimum(extents["s"], extents["c"]) + (0 if self.in_place else extents["c"])
        return (Work("copy", rows * (row // longest(kept)), rows * row),)


def emit_scatter(
    g: GraphBuilder, past: str, new: str, position: str, dim: int, hint: str, in_place: bool = False
) -> str:
    """past with the rows `new` along `dim` from `position`: a number, or one for each of dimension 0."""
    shape = g.shape(past)
    kept = tuple(("c" if d == dim else f"d{d}", n) for d, n in enumerate(shape))
    op = TensorScatter(
        axes=(*kept, ("s", g.shape(new)[dim])),
        reads=(
            tuple(axis(a) for a, _ in kept),
            tuple(axis("s" if a == "c" else a) for a, _ in kept),
            tuple(axis(a) for a, _ in kept[: len(g.shape(position))]),
        ),
        write=tuple(axis(a) for a, _ in kept),
        in_types=(g.dtype(past), g.dtype(new), g.dtype(position)),
        out_type=g.dtype(past),
        in_place=in_place,
    )
    return g.emit(op, [past, new, position], shape, hint)


def _tensor_scatter(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    past, new = spec.inputs[:2]
    shape, rows = g.shape(past), g.shape(new)
    dim = normal_axis(spec.attribute("axis", -2), len(shape))
    if dim == 0:
        raise InvalidModel("TensorScatter along axis 0, which is the batch")
    if [n for d, n in enumerate(shape) if d != dim] != [n for d, n in enumerate(rows) if d != dim]:
        raise InvalidModel(f"TensorScatter of {g.tensors[new]} into {g.tensors[past]}")
    if spec.attribute("mode", "linear") != "linear":
        raise Unsupported("mode 'circular'")
    position = spec.inputs[2] if spec.has(2) else g.constant(np.zeros((shape[0],), np.int64))
    return [emit_scatter(g, past, new, position, dim, spec.outputs[0])]


def _run(k: KernelBuilder, lanes: object) -> None:
    k.lane_loop(lanes)  # pyright: ignore[reportArgumentType]


def emit_gather(g: GraphBuilder, data: str, indices: str, dim: int, hint: str) -> str:
    """data taken along `dim` at run-time `indices`."""
    if g.dtype(data) == BOOL:  # partial results are summed, which booleans cannot be
        return cast(g, emit_gather(g, cast(g, data, U8), indices, dim, hint), BOOL, hint)
    shape, at = g.shape(data), g.shape(indices)
    index_axes = tuple((f"i{j}", n) for j, n in enumerate(at))
    before = tuple((f"d{j}", n) for j, n in enumerate(shape[:dim]))
    after = tuple((f"d{j}", n) for j, n in enumerate(shape[dim + 1 :], dim + 1))
    kept = before + index_axes + after
    if 0 in (out_shape := [n for _, n in kept]):
        return g.constant(np.zeros(out_shape, g.dtype(data).numpy), hint)
    op = Gather(
        axes=(*kept, ("v", shape[dim])),
        reads=(
            tuple(axis(a) for a, _ in (*before, ("v", 0), *after)),
            tuple(axis(a) for a, _ in index_axes),
        ),
        write=tuple(axis(a) for a, _ in kept),
        in_types=(g.dtype(data), g.dtype(indices)),
        out_type=g.dtype(data),
        size_of_axis=shape[dim],
    )
    return g.emit(op, [data, indices], out_shape, hint)


def _gather(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Constant indices of run-time data are slices where that is not more work."""
    data, indices = spec.inputs
    hint, shape = spec.outputs[0], g.shape(data)
    dim = normal_axis(spec.attribute("axis", 0), len(shape))
    known = g.value(indices)
    if known is None or g.value(data) is not None or known.size == 0:
        return [emit_gather(g, data, indices, dim, hint)]
    at = [i + shape[dim] if i < 0 else i for i in integers(known)]
    if not all(0 <= i < shape[dim] for i in at):
        return [emit_gather(g, data, indices, dim, hint)]
    if known.ndim == 0:
        return [pick(g, data, dim, at[0], hint)]
    step = at[1] - at[0] if len(at) > 1 else 1
    whole = [Cut(0, 1, n) for n in shape]

    def cut(start: int, step: int, count: int) -> list[Cut]:
        return [*whole[:dim], Cut(start, step, count), *whole[dim + 1 :]]

    if at == [at[0] + i * step for i in range(len(at))]:
        taken = slice_box(g, data, cut(at[0], step, len(at)), hint)
    elif len(at) <= SPELLED_OUT:
        taken = join(g, [(data, cut(i, 1, 1)) for i in at], dim, hint)
    else:
        return [emit_gather(g, data, indices, dim, hint)]
    return [reshape(g, taken, [*shape[:dim], *known.shape, *shape[dim + 1 :]], hint)]


def _one_hot(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """1 where the index equals the position; a negative index counts from the end."""
    indices, hint = spec.inputs[0], spec.outputs[0]
    depth = int(g.known(spec.inputs[1], "OneHot's depth").reshape(-1)[0])
    old = g.shape(indices)
    dim = normal_axis(spec.attribute("axis", -1), len(old) + 1)
    at = reshape(g, cast(g, indices, I64), [*old[:dim], 1, *old[dim:]], hint)
    line = np.arange(depth).reshape([-1] + [1] * (len(old) - dim))
    from_start = apply(g, Equal, [at, g.constant(line)], hint)
    from_end = apply(g, Equal, [at, g.constant(line - depth)], hint)
    values = spec.inputs[2]
    off, on = (pick(g, values, 0, i, hint) for i in (0, 1))
    hit = apply(g, Where, [from_end, on, off], hint)
    return [apply(g, Where, [from_start, on, hit], hint)]


register("Gather", _gather, 1)
register("OneHot", _one_hot, 9)
register("TensorScatter", _tensor_scatter, 24)
