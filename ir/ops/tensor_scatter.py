"""TensorScatter: rows of a cache from a run-time position on, in place where the cache is a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..affine import access_axes, axis
from ..builder import Carried, KernelBuilder, Value
from ..dtypes import I64
from ..graph import InvalidModel
from ..op import Array, Bound, Extents, Op, Work, assemble, gather, identity, product
from ..rules import GraphBuilder, Spec, register
from .bounds import report_outside
from .conversion import cast
from .elementwise import Add, Mod, apply
from .loops import Index, each, longest
from .rearrange import normal_axis, reshape
from .scatter import emit_updates


@dataclass(frozen=True, kw_only=True)
class TensorScatter(Op):
    """past with new rows from a run-time position on (the standard's linear mode).

    out[d, c, d] = new[d, c - position, d] where that is one of the new rows, else past[d, c, d]. Axis `c`
    runs over the capacity; the rows, axis `s`, are needed whole wherever some of `c` is. Operands: past,
    new, position. Rows that would lie outside are dropped.

    in_place: the result is the past's own memory, of which only the new rows are written. along: the axis of
    the model's tensor that the rows are put along, where such a position is an error; else -1.
    """

    in_place: bool = False
    along: int = -1

    exact = True

    def updating(self) -> Op | None:
        return replace(self, in_place=True)

    def key(self) -> tuple[object, ...]:
        held = self.bounds and (self.bounds[0].low, self.bounds[0].high)
        return (self.name, self.in_place, held, self._position_axes)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        if self.along < 0:
            return ()
        size = self.size["c"]
        return (Bound(2, 0, size - self.size["s"] + 1, "write index", self.along, size),)

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
        kept = [x for x in self.axes if x[0] != "s"]
        d, count = [a for a, _ in kept].index("c"), self.size["s"]
        rows = gather(new, self.reads[1], [*kept[:d], ("s", count), *kept[d + 1 :]], 0)
        shape = tuple(n for _, n in kept)
        line = np.arange(shape[d]).reshape([-1 if i == d else 1 for i in range(len(shape))])
        at = np.broadcast_to(line - gather(position, self.reads[2], kept, 0), shape)
        rows = np.broadcast_to(rows, (*shape[:d], count, *shape[d + 1 :]))
        taken = np.take_along_axis(rows, np.clip(at, 0, count - 1), d)
        out = np.where((at >= 0) & (at < count), taken, gather(past, self.reads[0], kept, 0))
        return assemble(out, self.write, kept)

    def body(self, k: KernelBuilder) -> None:
        rest = [a for a in access_axes(self.write) if a not in (k.lane_axis, "c", *self._position_axes)]

        def copy(operand: int, source: Index, target: Index) -> None:
            def lanes(i: Value, carried: Carried) -> Carried:
                here = {k.lane_axis: i} if k.lane_axis else {}
                k.store_lanes(k.load_lanes(operand, {**source, **here}), {**target, **here})
                return carried

            k.lane_loop(lanes)

        def rows(outer: Index) -> None:
            position = k.cast(k.load(2, outer), I64)
            report_outside(k, self.bounds, [position] if self.bounds else [])
            first = k.add(k.sub(position, k.origin("c")), k.origin("s"))

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
    g: GraphBuilder, past: str, rows: tuple[str, str], dim: int, hint: str, in_place: bool = False
) -> str:
    """past with new rows along `dim`.

    rows: them, and the position from which on they stand: a number, or one for each of dimension 0. in_place:
    the runtime keeps count of it; else it is the model's, and may be wrong.
    """
    new, position = rows
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
        along=-1 if in_place else dim,
    )
    return g.emit(op, [past, new, position], shape, hint)


def _tensor_scatter(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Rows from a position on; in mode circular, what would pass the end goes on from the start."""
    past, new = spec.inputs[:2]
    hint, shape, rows = spec.outputs[0], g.shape(past), g.shape(new)
    dim = normal_axis(spec.attribute("axis", -2), len(shape))
    if dim == 0:
        raise InvalidModel("TensorScatter along axis 0, which is the batch")
    if [n for d, n in enumerate(shape) if d != dim] != [n for d, n in enumerate(rows) if d != dim]:
        raise InvalidModel(f"TensorScatter of {g.tensors[new]} into {g.tensors[past]}")
    if rows[dim] > shape[dim]:
        raise InvalidModel(f"TensorScatter of {rows[dim]} rows along axis {dim}, which has {shape[dim]}")
    position = spec.inputs[2] if spec.has(2) else g.constant(np.zeros((shape[0],), np.int64))
    if spec.attribute("mode", "linear") == "linear":
        return [emit_scatter(g, past, (new, position), dim, hint)]
    first = reshape(g, cast(g, position, I64), [shape[0], 1], hint)
    line = apply(g, Add, [first, g.constant(g.folding.line(rows[dim]))], hint)
    at = apply(g, Mod, [line, g.constant(np.array(shape[dim]))], hint)
    kept = [(f"d{d}", n) for d, n in enumerate(shape)]
    names = [a for a, _ in kept]
    moved = identity([*names[:dim], "u", *names[dim + 1 :]])
    place = [(at, identity(["d0", "u"]))]
    return [
        emit_updates(
            g, (past, identity(names)), (new, moved), place, kept, [names[dim]], [("u", rows[dim])], hint
        )
    ]


register("TensorScatter", _tensor_scatter, 24)
