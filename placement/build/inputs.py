"""Where the inputs of a graph lie, its states and caches among them, and how caches are filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...ir.affine import axis
from ...ir.dtypes import DType
from ...ir.ops.rearrange import Copy
from ..plan.layout import Cut, Grid, Region, Side, Split, along_side
from ..plan.plan import Role, Step
from ..splits.candidates import useful_ways
from ..splits.choice import tile_elements
from .assembly import Assembly, Tiling
from .steps import task

INPUT_BYTES = 512  # an input is spread until a core owns no more than this, where the region allows
ROWS_BYTES = 1024  # of new rows of a cache that a core receives at a time
SPOTS, MOST_SPOTS = 12, 128  # places tried along each side; for grids with free columns in between


def lay_input(a: Assembly, name: str, region: int, role: Role) -> None:
    """The owners of a graph input: spread over the region, each byte once."""
    if name in a.residents.states:
        step, buffer, _ = a.residents.states[name]
        a.add(replace(step, number=-1, result=buffer, position=0))
        return
    tensor = a.graph.tensors[name]
    if name in a.lies:
        region, split, grid = a.lies[name]
    else:
        split, rest = _spread(tensor_axes(tensor.shape), tensor.bytes, a.regions[region], a.policy.most_ways)
        columns, rows, _ = split.grid
        grid = spot(a, region, Grid(columns, rows), rest)
    _lay(a, name, role, Tiling(whole_copy(tensor.shape, tensor.dtype), region, grid, split), None)


def tensor_axes(shape: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """The names by which an input's dimensions are cut, and their sizes."""
    return tuple((f"d{i}", n) for i, n in enumerate(shape))


def _spread(
    axes: tuple[tuple[str, int], ...], nbytes: int, region: Region, most_ways: int
) -> tuple[Split, int]:
    """A split of `nbytes` until a core has few enough, the longest axes first; what is left for each core."""
    cuts: list[Cut] = []
    sides: tuple[tuple[Side, int], ...] = (("x", region.columns), ("y", region.rows))
    for a, n in sorted(axes, key=lambda t: -t[1]):
        for side, limit in sides:
            if nbytes <= INPUT_BYTES or any(c.side == side or c.axis == a for c in cuts):
                continue
            useful = useful_ways(n, limit, most_ways)
            enough = [w for w in useful if nbytes / w <= INPUT_BYTES]
            if ways := enough[:1] or useful[-1:]:
                cuts.append(Cut(a, side, ways[0]))
                nbytes = -(-nbytes // ways[0])
    return Split(tuple(cuts)), nbytes


def _lay(a: Assembly, name: str, role: Role, on: Tiling, innermost: int | None) -> None:
    """The buffer of an input, and the step of the host that lays it."""
    result = a.buffer(name, role, on, on.op.out_type, on.layout(on.op.write), innermost)
    a.keep(result)
    a.add(
        Step(
            name=name,
            kind="input",
            op=on.op,
            tensor=name,
            write=on.op.write,
            region=on.region,
            grid=on.grid,
            split=on.split,
            result=result,
        )
    )


def whole_copy(shape: Sequence[int], dtype: DType, names: Sequence[str] = ()) -> Copy:
    """What the host does to lay a tensor. names: of its axes, where they are not those of `tensor_axes`."""
    axes = tuple(zip(names, shape, strict=True)) if names else tensor_axes(shape)
    access = tuple(axis(a) for a, _ in axes)
    return Copy(axes=axes, reads=(access,), write=access, in_types=(dtype,), out_type=dtype)


# -- caches ------------------------------------------------------------------------------------------


def lay_cache(a: Assembly, number: int, reader: Tiling, operand: int) -> None:
    """The cache that node `number` fills, where its first reader wants it as its operand `operand`.

    Where the reader is split so that it would be kept twice, the cache lies apart and is moved to it.
    """
    node = a.graph.nodes[number]
    past = a.graph.in_place[node.output]
    access = reader.op.reads[operand]
    names = [e.axes[0] for e in node.op.write]
    cuts: list[Cut] = []
    for c in reader.split.cuts:
        d = next((d for d, e in enumerate(access) if e.coefficient(c.axis) > 0), None)
        if d is not None and c.side != "t":
            cuts.append(Cut(names[d], c.side, c.ways))
    own = Split(tuple(cuts))
    if own.grid[:2] == (reader.grid.columns, reader.grid.rows):
        tensor = a.graph.tensors[past]
        op = whole_copy(tensor.shape, tensor.dtype, names)
        on = Tiling(op, reader.region, reader.grid, own)
        _lay(a, past, "state", on, along_side(access, reader.lane))
    else:
        lay_input(a, past, reader.region, "state")
    fill_cache(a, number)


def fill_cache(a: Assembly, number: int) -> None:
    """The step of node `number`, which fills a cache further, on the cores where that lies."""
    node = a.graph.nodes[number]
    s = a.writing(a.graph.in_place[node.output])[0]
    names = dict(zip((n for n, _ in s.op.axes), (e.axes[0] for e in node.op.write), strict=True))
    cuts = tuple(replace(c, axis=names[c.axis]) for c in s.split.cuts)
    rows, split = node.op.size["s"], Split(cuts)
    row = tile_elements(node.op.reads[1], split.extents(node.op.axes)) * node.op.in_types[1].bytes // rows
    if (steps := min(rows, -(-row * rows // ROWS_BYTES))) > 1:  # new rows are received some at a time
        split = Split((*cuts, Cut("s", "t", steps)))
    task(a, number, Tiling.of(node.op, s.region, s.grid, split))


# -- where there is room -------------------------------------------------------------------------------


def spot(a: Assembly, region: int, grid: Grid, resident: float) -> Grid:
    """`grid` where it is, or moved to where its fullest core holds least if constants pile up there.

    resident: bytes that each of its cores would keep.
    """
    if region not in a.resident or resident == 0:
        return grid
    r, used = a.regions[region], a.resident[region]
    x0, y0, x1, y1 = grid.box
    wide, high = x1 - x0, y1 - y0

    def fullest(x: int, y: int) -> int:
        return int(used[y : y + high : grid.dy, x : x + wide : grid.dx].max())

    if fullest(grid.x, grid.y) + resident <= a.pile * a.wafer.sram_bytes:
        return grid
    _, y, x = min(
        (fullest(x, y), y, x)
        for y in _offsets(r.rows, high, grid.dy)
        for x in _offsets(r.columns, wide, grid.dx)
    )
    return replace(grid, x=x, y=y)


def _offsets(size: int, taken: int, pitch: int) -> list[int]:
    """Where a grid may start along a side: apart from one another, or between the columns of a spread one."""
    free = size - taken
    step = max(1, taken, -(-free // SPOTS)) if pitch == 1 else -(-max(1, free) // MOST_SPOTS)
    return list(range(0, free + 1, step))
