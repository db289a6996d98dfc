"""Panels: operands of products with their elements along the vectors' axis side by side, some vectors wide.

A kernel then reads a panel from its start to its end, however far apart the elements are in the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..ir.op import Op
from .homes import Lay, Panel, View

ROWS_WIDTH, ROW_WIDTH = 2, 8  # vectors in a panel: for several rows of the result, for one

Axis = tuple[str, int]  # and its size


def panel_width(op: Op, operands: Sequence[View], lane: str, lanes: int) -> int:
    """Elements of a panel along the lane axis."""
    rows = prod(
        n
        for a, n in op.axes
        if a not in op.reduced and a != lane and any(not v.strides.get(a) for v in operands)
    )
    return (ROWS_WIDTH if rows > 1 else ROW_WIDTH) * lanes


def in_panels(
    home: int, outer: Sequence[Axis], reduced: Sequence[Axis], lane: Axis, width: int
) -> tuple[View, int]:
    """How home number `home` holds an operand in panels, and its elements.

    From outermost to innermost: `outer` axes, panels, `reduced` axes, `width` elements along `lane`.
    """
    name, n = lane
    width = min(width, n)
    panels = -(-n // width)
    strides: dict[str, int] = {name: 1}
    step = width
    for a, size in reversed(reduced):
        strides[a] = step
        step *= size
    panel = Panel(name, width, step) if panels > 1 else None
    step *= panels
    for a, size in reversed(outer):
        strides[a] = step
        step *= size
    return View(home, 0, strides, panel), step


def lays(tensor: str, old: View, new: View, used: Sequence[Axis], lane: Axis, width: int) -> list[Lay]:
    """How a constant comes into its panels: the full ones, then the rest. old: of an array in C order."""
    name, n = lane
    full, rest = divmod(n, min(width, n))
    width = min(width, n)
    shape = tuple(size for _, size in used)
    mine = tuple(new.strides[a] for a, _ in used)
    host = tuple(old.strides[a] for a, _ in used)
    pitch, step = new.panel.pitch if new.panel else 0, old.strides[name]
    out: list[Lay] = []
    if full:
        strides, host_strides = (pitch, *mine, 1), (width * step, *host, step)
        out.append(Lay(tensor, new.home, (full, *shape, width), 0, strides, old.offset, host_strides))
    if rest:
        start = old.offset + full * width * step
        strides, host_strides = (*mine, 1), (*host, step)
        out.append(Lay(tensor, new.home, (*shape, rest), full * pitch, strides, start, host_strides))
    return out


def elements_of(op: Op, v: View) -> int:
    """Elements of an operand that the iterations tell apart."""
    return prod(n for a, n in op.axes if v.strides.get(a))
