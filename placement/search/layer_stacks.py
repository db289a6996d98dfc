"""Models too large for one good region: layers that are alike on regions of equal size, several on each.

A layer is quickest on some 100,000 cores; beyond, its ways grow faster than its tiles shrink. What
comes before the first layer and after the last (a table of embeddings, the last product) lies in a
strip of its own on its side of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...ir.graph import Graph
from ..build.regions import Size, logical_width
from ..machine.wafer import Wafer
from .layers import Layers

IDLE = 1.1  # of a power of two: rows that the layers rather leave to the strip after them
MOST_ACROSS, MOST_DOWN = 4, 8  # regions along x and along y
# Of the SRAM of the strips before and after the layers', what their constants may take: a table is looked
# up in, a last product gains by more cores.
EDGES = (0.75, 0.5)


def stacked(
    graph: Graph, layers: Layers, wafer: Wafer, side: float, resident: float
) -> Iterator[tuple[tuple[int, ...], tuple[Size, ...]]]:
    """(region of each node, regions) of stacks of layers, those nearest to `side` x `side` cores first.

    resident: share of a region's SRAM that constants may take.
    """
    place = [layers.of(i) for i in range(len(graph.nodes))]
    kept = [_bytes(graph, i) for i in range(len(graph.nodes))]
    of_layer = max(sum(b for b, p in zip(kept, place, strict=True) if p == i) for i in range(layers.count))
    # What takes more than a layer lies apart, with all before it or behind; the rest of a layer's ops stay
    # with the layer next to them.
    large = [i for i, b in enumerate(kept) if b > of_layer]
    last = max((i for i in large if place[i] < 0), default=-1)
    first = min((i for i in large if place[i] == layers.count), default=len(place))
    apart = [-1 if i <= last else layers.count if i >= first else 0 for i in range(len(place))]
    ends = [sum(b for b, p in zip(kept, apart, strict=True) if p == i) for i in (-1, layers.count)]
    width = logical_width(wafer, wafer.width)
    before, after = (math.ceil(n / (share * width * wafer.sram_bytes)) for n, share in zip(ends, EDGES))
    found: list[tuple[float, int, int, int]] = []
    for across in range(1, MOST_ACROSS + 1):
        for down in range(1, MOST_DOWN + 1):
            columns = logical_width(wafer, wafer.width // across)
            rows = _useful((wafer.height - before - after) // down)
            each = -(-layers.count // (across * down))
            if rows > 0 and each * of_layer <= resident * columns * rows * wafer.sram_bytes:
                x, y = _even(columns), _even(rows)
                off = abs(math.log(x * y / side**2)) + math.log(x / y) ** 2
                found.append((off, columns, rows, each))
    # Among equals the larger: fewer hand-overs.
    for _, columns, rows, each in sorted(found, key=lambda f: (f[0], -f[1] * f[2])):
        count = -(-layers.count // each)
        across = wafer.width // columns
        spare = wafer.height - before - after - rows * -(-count // across)
        sizes: list[Size] = [("before the layers", width, before)] if before else []
        top = len(sizes)
        sizes += [(f"layers {-(-i * layers.count // count)} on", columns, rows) for i in range(count)]
        if after:
            sizes.append(("after the layers", width, after + spare))
        inside = [top + min(max(p, 0), layers.count - 1) * count // layers.count for p in place]
        region = [
            0 if before and a < 0 else len(sizes) - 1 if after and a else i
            for a, i in zip(apart, inside, strict=True)
        ]
        yield tuple(region), tuple(sizes)


def _useful(rows: int) -> int:
    """Rows without those a little above a power of two, which no axis of such a length makes use of."""
    power = 1 << max(0, rows.bit_length() - 1)
    return power if rows <= IDLE * power else rows


def _even(cores: int) -> int:
    """How many of a side's cores the axes of most models can use: 2^n or 3 * 2^n."""
    power = 1 << max(0, cores.bit_length() - 1)
    return power * 3 // 2 if cores >= power * 3 // 2 else power


def _bytes(graph: Graph, node: int) -> int:
    return sum(graph.tensors[t].bytes for t in graph.nodes[node].inputs if t in graph.resident)
