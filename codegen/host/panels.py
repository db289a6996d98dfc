"""Panels: operands of products with their elements along the vectors' axis side by side, some vectors wide.

A kernel then reads a panel from its start to its end, however far apart the elements are in the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from ...ir.op import Op
from .homes import Lay, Panel, View

ROWS_WIDTH = 2  # vectors in a panel for several rows of the result
ROW_WIDTHS = (8, 6)  # and for one

Axis = tuple[str, int]  # and its size


def panel_width(op: Op, operands: Sequence[View], lane: str, lanes: int) -> int:
    """Elements of a panel along the lane axis; for one row as the slower of two threads has least to do."""
    rows = prod(
        n
        for a, n in op.axes
        if a not in op.reduced and a != lane and any(not v.strides.get(a) for v in operands)
    )
    if rows > 1:
        return ROWS_WIDTH * lanes
    panels = {width: -(-op.size[lane] // (width * lanes)) for width in ROW_WIDTHS}
    return min(ROW_WIDTHS, key=lambda width: (panels[width] + 1) // 2 * width) * lanes


def apart(op: Op, v: View, lane: str) -> tuple[list[Axis], list[Axis]]:
    """The axes that an operand has besides the lane axis: kept ones, and those summed over."""
    used = [(a, n) for a, n in op.axes if v.strides.get(a) and a != lane]
    return [axis for axis in used if axis[0] not in op.reduced], [
        axis for axis in used if axis[0] in op.reduced
    ]


def stands(op: Op, v: View, lane: str, pairs: bool) -> tuple[object, ...]:
    """What two operands have in common that can be read from the same panels, if these are as wide.

    pairs: see `in_panels`.
    """
    outer, summed = apart(op, v, lane)
    axes = [*outer, *summed, (lane, op.size[lane])]
    return v.home, v.offset, pairs, len(outer), tuple((n, v.strides.get(a, 0)) for a, n in axes)


def in_panels(
    home: int, outer: Sequence[Axis], reduced: Sequence[Axis], lane: Axis, width: int, pairs: bool
) -> tuple[View, int]:
    """How home number `home` holds an operand in panels, and its elements.

    From outermost to innermost: `outer` axes, panels, `reduced` axes, `width` elements along `lane`.
    pairs: see `View`, of the last of `reduced`.
    """
    name, n = lane
    width = min(width, n)
    panels = -(-n // width)
    strides: dict[str, int] = {name: 2 if pairs else 1}
    step = width
    if pairs:
        *reduced, (inner, size) = reduced
        strides[inner] = step
        step *= size + size % 2
    for a, size in reversed(reduced):
        strides[a] = step
        step *= size
    panel = Panel(name, width, step) if panels > 1 else None
    step *= panels
    for a, size in reversed(outer):
        strides[a] = step
        step *= size
    # What strides of pairs seem to reach is past the last row.
    return View(home, 0, strides, panel, pairs), step + pairs * width


def lays(tensor: str, old: View, new: View, used: Sequence[Axis], lane: Axis, width: int) -> list[Lay]:
    """How a constant comes into its panels: the full ones, then the rest. old: of an array in C order."""
    name, n = lane
    full, rest = divmod(n, min(width, n))
    width = min(width, n)
    pitch, step, apart = new.panel.pitch if new.panel else 0, old.strides[name], new.strides[name]
    out: list[Lay] = []
    for shape, at, mine, host_at, host in _rows(old, new, used):
        if full:
            strides, host_strides = (pitch, *mine, apart), (width * step, *host, step)
            start = old.offset + host_at
            out.append(Lay(tensor, new.home, (full, *shape, width), at, strides, start, host_strides))
        if rest:
            strides, host_strides = (*mine, apart), (*host, step)
            start = old.offset + host_at + full * width * step
            out.append(Lay(tensor, new.home, (*shape, rest), full * pitch + at, strides, start, host_strides))
    return out


Strides = tuple[int, ...]


def _rows(
    old: View, new: View, used: Sequence[Axis]
) -> Iterator[tuple[tuple[int, ...], int, Strides, int, Strides]]:
    """The rows of a panel: shape, then place and strides in the new home, then in the old one."""
    shape = tuple(size for _, size in used)
    mine, host = (tuple(v.strides[a] for a, _ in used) for v in (new, old))
    if not new.pairs:
        yield shape, 0, mine, 0, host
        return
    *outer, count = shape
    even, apart, step = count - count % 2, mine[-1], host[-1]
    # The first of two stands second; of an odd number the last is such a first one.
    if even:
        strides, host_strides = (*mine[:-1], 2 * apart, -1), (*host[:-1], 2 * step, step)
        yield (*outer, even // 2, 2), 1, strides, 0, host_strides
    if count % 2:
        yield tuple(outer), even * apart + 1, mine[:-1], even * step, host[:-1]


def elements_of(op: Op, v: View) -> int:
    """Elements of an operand that the iterations tell apart."""
    return prod(n for a, n in op.axes if v.strides.get(a))
