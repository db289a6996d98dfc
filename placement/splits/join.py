"""Where joined partial sums lie: the roots of a reduction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.affine import access_axes
from ...ir.op import Op
from ..plan.layout import Cut, Grid, Split
from .candidates import dense
from .choice import Choice, Source
from .policy import Policy


def join_split(
    op: Op, split: Split, part: str, grid: Grid, policy: Policy, roots: int = 0
) -> tuple[Split, Grid]:
    """Where the partial results of `part` are joined: spread over the cores that made them.

    Each of the part's digits, innermost on its side, is given to the result axis with the longest tile; as
    many of its cores become roots as divide that tile exactly, at most `roots` of a line. roots: 0 for as
    many as there are, but one, in the centre, where a long line joins a few elements: what hears them then
    hears one core, not one for each.
    """
    chosen = Split(tuple(c for c in split.cuts if c.axis != part and c.side != "t"))
    left: list[Cut] = []
    for cut in (c for c in split.cuts if c.axis == part and c.side != "t"):
        more = _roots(op, chosen, cut, _most(cut, roots, policy))
        chosen = Split((*chosen.cuts, *more))
        left.append(Cut(part, cut.side, cut.ways // more[0].ways if more else cut.ways))
    return chosen, _centre(chosen, left, grid)


def left(op: Op, c: Choice, policy: Policy, shape: tuple[int, ...] = ()) -> Source:
    """Where the result of `op`, of this shape, lies once it has run on its site as `c` says."""
    split, grid = c.split, c.grid
    if c.part:
        split, grid = join_split(op, split, c.part, grid, policy, c.roots)
    return Source(grid, split, op.write, op.axes, 0, 0.0, shape)


def _most(cut: Cut, roots: int, policy: Policy) -> Callable[[int], int]:
    """By how many elements are joined, the most roots of a line that is the digit `cut`."""
    few = policy.few_elements if cut.ways >= policy.long_line else 0
    return lambda elements: min(cut.ways, roots or (1 if elements <= few else elements))


def _roots(op: Op, split: Split, cut: Cut, most: Callable[[int], int]) -> tuple[Cut, ...]:
    """What becomes of a digit of the part: a cut of a result axis along the same side, or nothing."""
    extents = split.extents(op.axes)
    best: tuple[Cut, ...] = ()
    for a in access_axes(op.write):
        tile = extents[a]
        for w in range(min(most(tile), tile), best[0].ways if best else 1, -1):
            if tile % w == 0 and cut.ways % w == 0:
                trial = Split((*split.cuts, Cut(a, cut.side, w)))
                if bool(dense(op.write, trial.extents(op.axes), {b: trial.axis_ways(b) for b in op.size})):
                    best = (Cut(a, cut.side, w),)
                    break
    return best


def _centre(split: Split, dropped: Sequence[Cut], grid: Grid) -> Grid:
    """The grid of `split`, its cores in the middle of the `dropped` innermost digits."""
    columns, rows, _ = split.grid
    x, y, dx, dy = grid.x, grid.y, grid.dx, grid.dy
    for c in dropped:
        if c.side == "x":
            x, dx = x + dx * (c.ways // 2), dx * c.ways
        else:
            y, dy = y + dy * (c.ways // 2), dy * c.ways
    return Grid(columns, rows, x, y, dx, dy)
