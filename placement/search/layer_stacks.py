"""Models too large for one good region: layers that are alike on regions of equal size, several on each.

A layer is quickest on some 100,000 cores; beyond, its ways grow faster than its tiles shrink. What
comes before the first layer and after the last (a table of embeddings, the last product) lies in a
strip of its own on its side of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...ir.graph import Graph
from ..build.regions import logical_width
from ..machine.wafer import Wafer
from ..splits.policy import Policy
from .layers import Layers
from .placers import Size


def stacked(
    graph: Graph, layers: Layers, wafer: Wafer, side: float, policy: Policy
) -> Iterator[tuple[tuple[int, ...], tuple[Size, ...]]]:
    """(region of each node, regions) of stacks of layers, those nearest to `side` x `side` cores first."""
    load = _load(graph, layers)
    ends = ends_of(load.ends, wafer, policy)
    for s in stacks_of(layers.count, load.of_layer, ends, wafer, side, policy):
        yield _regions(s, load, ends, wafer, layers)


def stacks_of(
    count: int, of_layer: int, ends: Ends, wafer: Wafer, side: float, policy: Policy
) -> list[Stacks]:
    """Regions for so many layers of so many bytes between the ends, those nearest `side` x `side` first."""

    def order(s: Stacks) -> tuple[float, int]:
        x, y = _even(s.columns), _even(s.rows)
        off = abs(math.log(x * y / side**2)) + math.log(x / y) ** 2
        return off, -s.columns * s.rows  # among equals the larger: fewer hand-overs

    return sorted(_fitting(count, of_layer, ends.between, wafer, policy), key=order)


def ends_of(held: tuple[int, int], wafer: Wafer, policy: Policy) -> Ends:
    """The strips for so many bytes before and behind the layers."""
    width = logical_width(wafer, wafer.width)
    before, after = (
        math.ceil(n / (share * width * wafer.sram_bytes))
        for n, share in zip(held, policy.edge_shares, strict=True)
    )
    return Ends(width, before, after, wafer.height - before - after)


@dataclass(frozen=True)
class _Load:
    """What layers keep. apart: by node -1 or the number of layers where it lies before or behind all of them.

    place: by node the number of its layer. of_layer: bytes of the fullest one; ends: of what lies apart.
    """

    place: Sequence[int]
    apart: Sequence[int]
    of_layer: int
    ends: tuple[int, int]


@dataclass(frozen=True)
class Ends:
    """Rows of the strips before and after the layers, and between them; all `width` logical columns wide."""

    width: int
    before: int
    after: int
    between: int


@dataclass(frozen=True)
class Stacks:
    """Regions of one size, `each` layers on one of them."""

    columns: int
    rows: int
    each: int


def _load(graph: Graph, layers: Layers) -> _Load:
    """What takes more than a layer lies apart, with all before it or behind; the rest of a layer's ops stay
    with the layer next to them."""
    nodes = range(len(graph.nodes))
    place = [layers.of(i) for i in nodes]
    kept = [_bytes(graph, i) for i in nodes]
    by_layer = dict.fromkeys(range(layers.count), 0)
    for b, p in zip(kept, place, strict=True):
        if p in by_layer:
            by_layer[p] += b
    of_layer = max(by_layer.values())
    large = [i for i, b in enumerate(kept) if b > of_layer]
    last = max((i for i in large if place[i] < 0), default=-1)
    first = min((i for i in large if place[i] == layers.count), default=len(place))
    apart = [-1 if i <= last else layers.count if i >= first else 0 for i in nodes]
    before, after = (sum(b for b, p in zip(kept, apart, strict=True) if p == i) for i in (-1, layers.count))
    return _Load(place, apart, of_layer, (before, after))


def _fitting(count: int, of_layer: int, rows: int, wafer: Wafer, policy: Policy) -> list[Stacks]:
    """Sizes at which `count` layers of so many bytes fit on `rows` rows."""
    found: list[Stacks] = []
    for across in range(1, policy.most_across + 1):
        for down in range(1, policy.most_down + 1):
            columns = logical_width(wafer, wafer.width // across)
            high = _useful(rows // down, policy.idle)
            each = -(-count // (across * down))
            room = policy.resident_share * columns * high * wafer.sram_bytes
            if rows // down > 0 and each * of_layer <= room:
                found.append(Stacks(columns, high, each))
    return found


def _regions(
    s: Stacks, load: _Load, ends: Ends, wafer: Wafer, layers: Layers
) -> tuple[tuple[int, ...], tuple[Size, ...]]:
    """(region of each node, regions): the strip before, the stacks, behind them all rows that are left."""
    count = -(-layers.count // s.each)
    across = wafer.width // s.columns
    spare = ends.between - s.rows * -(-count // across)
    sizes: list[Size] = [("before the layers", ends.width, ends.before)] if ends.before else []
    top = len(sizes)
    sizes += [(f"layers {-(-i * layers.count // count)} on", s.columns, s.rows) for i in range(count)]
    if ends.after:
        sizes.append(("after the layers", ends.width, ends.after + spare))
    inside = [top + min(max(p, 0), layers.count - 1) * count // layers.count for p in load.place]
    region = [
        0 if ends.before and a < 0 else len(sizes) - 1 if ends.after and a else i
        for a, i in zip(load.apart, inside, strict=True)
    ]
    return tuple(region), tuple(sizes)


def _useful(rows: int, idle: float) -> int:
    """Rows without those a little above a power of two, which no axis of such a length makes use of."""
    power = 1 << max(0, rows.bit_length() - 1)
    return power if rows <= idle * power else rows


def _even(cores: int) -> int:
    """How many of a side's cores the axes of most models can use: 2^n or 3 * 2^n."""
    power = 1 << max(0, cores.bit_length() - 1)
    return power * 3 // 2 if cores >= power * 3 // 2 else power


def _bytes(graph: Graph, node: int) -> int:
    return sum(graph.tensors[t].bytes for t in graph.nodes[node].inputs if t in graph.resident)
