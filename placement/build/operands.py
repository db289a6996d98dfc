"""How a step gets its operands: in place, from a constant that lies there, or received."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..plan.layout import Grid, Layout, along_side, at_once, row_order, whole
from ..plan.move import HOST, derive, identical
from ..plan.plan import Operand
from .assembly import Assembly, Laid, Tiling


def operand(a: Assembly, on: Tiling, j: int, tensor: str) -> Operand:
    """How an op in tiles gets its operand `j`."""
    access = on.op.reads[j]
    need = on.layout(access)
    shape = a.graph.tensors[tensor].shape
    steps = on.split.grid[2]
    # Some core needs elements outside the tensor.
    fill = any(bool(((p.lo < 0) | (p.hi > n))[p.hi > p.lo].any()) for p, n in zip(need, shape, strict=True))
    if tensor in a.graph.constants:
        held = on.layout(access, merge_time=True)
        offsets = identical(need, held, on.grid, on.grid, steps)
        assert offsets is not None, "a resident operand covers all its steps"
        return Operand(tensor, _constant(a, on, j, tensor, held), need, *offsets, fill=fill)
    writers = a.writing(tensor)
    if len(writers) == 1 and writers[0].region == on.region and not fill:
        w = writers[0]
        offsets = identical(need, w.hold, on.grid, w.grid, steps)
        if offsets is not None:
            return Operand(tensor, w.result, need, *offsets)
    buffer = a.buffer(tensor, "receive", on, on.op.in_types[j], need, along_side(access, on.lane))
    moves = tuple(derive(need, w.hold, shape, w.grid, w.result, buffer) for w in writers)
    start = tuple(np.zeros((len(shape), n), np.int64) for n in (on.grid.columns, on.grid.rows, steps))
    return Operand(tensor, buffer, need, *start, moves=moves, received=True, fill=fill)


def _constant(a: Assembly, on: Tiling, j: int, tensor: str, held: Layout) -> int:
    """The buffer of a constant: one for all readers that hold the same of it on the same cores.

    Not where pieces pass the tensor's ends: each reader fills those as its op says.
    """
    of = a.graph.tensors[tensor]
    innermost = along_side(on.op.reads[j], on.lane)
    laid = a.laid.setdefault((tensor, on.region), [])
    inside = all(p.lo.min() >= 0 and p.hi.max() <= n for p, n in zip(held, of.shape, strict=True))
    work = int(np.prod([n for _, n in on.op.axes], dtype=np.int64))
    for i, other in enumerate(laid if inside else ()):
        if other.grid == on.grid and _equal(held, other.held):
            if other.work < work:
                # It lies in memory as the reader with the most work wants it.
                old = a.buffers[other.buffer]
                a.buffers[other.buffer] = replace(old, order=row_order(len(held), innermost))
                laid[i] = replace(other, work=work)
            return other.buffer
    number = a.buffer(tensor, "constant", on, of.dtype, held, innermost)
    a.keep(number)
    move = derive(at_once(held), whole(of.shape), of.shape, Grid(1, 1), HOST, number)
    a.lays.append((tensor, replace(move, route="host")))
    if inside:
        laid.append(Laid(number, on.grid, held, work))
    return number


def _equal(a: Layout, b: Layout) -> bool:
    """Whether two layouts of one grid, time steps merged, have the same pieces on the same cores."""
    names = ("x", "y", "lo", "hi")
    return all(np.array_equal(getattr(p, n), getattr(q, n)) for p, q in zip(a, b, strict=True) for n in names)
