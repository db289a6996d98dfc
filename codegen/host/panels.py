"""Panels: factors of products with their elements along the vectors' axis side by side, some vectors wide.

A kernel then reads a panel from its start to its end, however far apart the elements are in the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ...ir.affine import Affine
from ...ir.dtypes import BF16
from ...ir.graph import Graph
from ...ir.op import Op
from ...ir.ops.rearrange import plain_copy
from .entry_homes import EntryHomes
from .homes import Lay, Panels, Standing, View, elements_of
from .sum_order import Order

ROWS_WIDTH = 2  # vectors in a panel for several rows of the result
REUSE = 4  # reads of an operand that pay for standing it in panels

Axis = tuple[str, int]  # and its size
Strides = tuple[int, ...]


def panel_width(op: Op, operands: Sequence[View], lane: str, lanes: int) -> int:
    """Elements of a panel along the lane axis; for one row as the slower of two threads has least to do."""
    rows = prod(
        n
        for a, n in op.axes
        if a not in op.reduced and a != lane and any(not v.strides.get(a) for v in operands)
    )
    if rows > 1:
        return ROWS_WIDTH * lanes
    panels = {width: -(-op.size[lane] // (width * lanes)) for width in op.row_vectors}
    return min(op.row_vectors, key=lambda width: (panels[width] + 1) // 2 * width) * lanes


@dataclass(frozen=True)
class Factor:
    """An operand of a product whose vectors run along `lane`, as it lies before it stands in panels.

    pairs: whether it shall stand in pairs (see `View`) along the last axis that is summed over.
    """

    op: Op
    tensor: str
    view: View
    lane: str
    pairs: bool = False

    @property
    def kept(self) -> list[Axis]:
        """The axes that it has besides the lane axis: those of the result."""
        return [axis for axis in self._apart if axis[0] not in self.op.reduced]

    @property
    def summed(self) -> list[Axis]:
        """And those summed over."""
        return [axis for axis in self._apart if axis[0] in self.op.reduced]

    @property
    def _apart(self) -> list[Axis]:
        return [(a, n) for a, n in self.op.axes if self.view.strides.get(a) and a != self.lane]

    @property
    def axes(self) -> list[Axis]:
        """All of its axes, in the order in which panels have them."""
        return [*self.kept, *self.summed, (self.lane, self.op.size[self.lane])]

    def key(self) -> tuple[object, ...]:
        """What two factors have in common that can be read from the same panels, if these are as wide."""
        v = self.view
        strides = tuple((n, v.strides.get(a, 0)) for a, n in self.axes)
        return v.home, v.offset, self.pairs, len(self.kept), strides

    def standing(self, home: int, width: int) -> tuple[View, int]:
        """How home number `home` holds it in panels of `width` elements, and the home's elements.

        From outermost to innermost: axes of the result, panels, axes summed over, `width` elements along the
        lane axis.
        """
        n, summed = self.op.size[self.lane], self.summed
        width = min(width, n)
        panels = -(-n // width)
        strides: dict[str, int] = {self.lane: 2 if self.pairs else 1}
        step = width
        if self.pairs:
            *summed, (inner, size) = summed
            strides[inner] = step
            step *= size + size % 2
        for a, size in reversed(summed):
            strides[a] = step
            step *= size
        stand = Panels(self.lane, width, step) if panels > 1 else None
        step *= panels
        for a, size in reversed(self.kept):
            strides[a] = step
            step *= size
        # What strides of pairs seem to reach is past the last row.
        return View(home, 0, strides, stand, self.pairs), step + self.pairs * width

    def lays(self, new: View, width: int) -> list[Lay]:
        """How a constant comes from an array in C order into panels: the full ones, then the rest."""
        n, old = self.op.size[self.lane], self.view
        full, rest = divmod(n, min(width, n))
        width = min(width, n)
        pitch = new.panels.pitch if new.panels else 0
        step, apart = old.strides[self.lane], new.strides[self.lane]
        out: list[Lay] = []
        for shape, at, mine, host_at, host in self._rows(new):
            start = old.offset + host_at
            if full:
                strides, host_strides = (pitch, *mine, apart), (width * step, *host, step)
                shaped = (full, *shape, width)
                out.append(Lay(self.tensor, new.home, shaped, at, strides, start, host_strides))
            if rest:
                strides, host_strides = (*mine, apart), (*host, step)
                at, start = full * pitch + at, start + full * width * step
                out.append(Lay(self.tensor, new.home, (*shape, rest), at, strides, start, host_strides))
        return out

    def _rows(self, new: View) -> Iterator[tuple[tuple[int, ...], int, Strides, int, Strides]]:
        """The rows of a panel: shape, then place and strides in the new home, then in the old one."""
        *used, _ = self.axes
        shape = tuple(size for _, size in used)
        mine, host = (tuple(v.strides[a] for a, _ in used) for v in (new, self.view))
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


@dataclass(frozen=True)
class Stood:
    """A factor in panels. copy: the op on its axes that brings it there in each call; None where it stands
    already, or is laid there once."""

    view: View
    copy: Op | None = None


@dataclass(frozen=True)
class PanelHomes:
    """The panels of one entry: those of constants, which all entries have in common, and of what a call
    computes."""

    graph: Graph
    homes: EntryHomes
    computed: dict[Any, Standing] = field(default_factory=lambda: {})

    def packs(self, f: Factor) -> bool:
        """Whether a factor is stood in panels: weights always, others where it pays."""
        stride = f.view.strides.get(f.lane)
        elements = prod(self.graph.tensors[f.tensor].shape)
        if not stride or elements_of(f.op, f.view) > 2 * elements:
            return False
        if f.tensor in self.graph.constants:
            return self.homes.of(f.tensor).fill is None
        return stride != 1 and prod(n for a, n in f.op.axes if not f.view.strides.get(a)) >= REUSE

    def factor(self, op: Op, tensor: str, view: View, lane: str, evenly: bool) -> Factor:
        """A factor of a product whose vectors run along `lane`; constants stand in pairs where these start
        `evenly`."""
        halves = tensor in self.graph.constants and self.graph.tensors[tensor].dtype == BF16
        pairs = evenly and halves and bool(view.strides.get(op.paired))
        return Factor(op, tensor, view, lane, pairs)

    def width(self, factors: Sequence[Factor], lanes: int) -> int:
        """Of the panels of a product: those in which a constant of it stands already, else its own.

        Several rows are computed a few vectors at a time, which must not lie in two panels.
        """
        first = factors[0]
        own = panel_width(first.op, [f.view for f in factors], first.lane, lanes)
        for f in factors:
            if f.tensor in self.graph.constants and self.packs(f):
                standing = self.homes.stock.panels.get(f.key())
                if standing is not None and (own > ROWS_WIDTH * lanes or standing.width % own == 0):
                    return standing.width
        return own

    def stand(self, f: Factor, width: int) -> Stood:
        """A factor in panels of `width` elements, where that is worth while."""
        if not self.packs(f):
            return Stood(f.view)
        stock, constant = self.homes.stock, f.tensor in self.graph.constants
        known = stock.panels if constant else self.computed
        key = f.key() if constant else (f.tensor, width, *f.key())
        if key in known and known[key].width == width:
            return Stood(f.standing(known[key].home, width)[0])
        view, elements = f.standing(len(stock.homes), width)
        home = self.homes.row(f.tensor, elements, stock.homes[f.view.home].dtype)
        known[key] = Standing(home.number, width)
        if constant:
            stock.constants += f.lays(view, width)
            return Stood(view)
        access = (Affine(tuple((a, 1) for a, _ in f.axes)),)
        return Stood(view, plain_copy(tuple(f.axes), access, home.dtype))


def starts_evenly(op: Op, sums: Order, names: Mapping[str, str]) -> bool:
    """Whether all passes and chunks of a sum start at even places along the op's paired axis.

    names: of the order's axes in the op.
    """
    if not op.paired:
        return False
    starts = [lo for s in sums.stages for a, (lo, _) in s.bounds.items() if names.get(a) == op.paired]
    chunks = [sums.chunk] if sums.part == op.paired else []
    return not any(n % 2 for n in (*starts, *chunks))
