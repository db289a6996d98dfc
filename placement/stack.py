"""Models too large for one good region: layers that are alike on regions of equal size, several on each.

A layer is quickest on some 100,000 cores; beyond, its ways grow faster than its tiles shrink. What
comes before the first layer and after the last (a table of embeddings, the last product) lies in a
strip of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..ir.graph import Graph
from .place import Size, logical_width
from .repeats import Layers
from .wafer import Wafer

MOST_ACROSS, MOST_DOWN = 4, 8  # regions along x and along y
EDGE = 0.5  # of the SRAM of the strip beside the layers': what its constants may take


def stacked(
    graph: Graph, layers: Layers, wafer: Wafer, side: float, resident: float
) -> Iterator[tuple[tuple[int, ...], tuple[Size, ...]]]:
    """(region of each node, regions) of stacks of layers, those nearest to `side` x `side` cores first.

    resident: share of a region's SRAM that constants may take.
    """
    place = [layers.of(i) for i in range(len(graph.nodes))]
    kept = [_bytes(graph, i) for i in range(len(graph.nodes))]
    of_layer = max(sum(b for b, p in zip(kept, place, strict=True) if p == i) for i in range(layers.count))
    # What takes more than a layer lies apart; the rest of a layer's ops stay with the layer next to them.
    apart = [p if b > of_layer and p in (-1, layers.count) else 0 for b, p in zip(kept, place, strict=True)]
    ends = [sum(b for b, p in zip(kept, apart, strict=True) if p == i) for i in (-1, layers.count)]
    width = logical_width(wafer, wafer.width)
    edge = math.ceil(sum(ends) / (EDGE * width * wafer.sram_bytes))
    found: list[tuple[float, int, int, int]] = []
    for across in range(1, MOST_ACROSS + 1):
        for down in range(1, MOST_DOWN + 1):
            columns, rows = logical_width(wafer, wafer.width // across), (wafer.height - edge) // down
            each = -(-layers.count // (across * down))
            if rows > 0 and each * of_layer <= resident * columns * rows * wafer.sram_bytes:
                off = abs(math.log(columns * rows / side**2)) + math.log(columns / rows) ** 2
                found.append((off, columns, rows, each))
    for _, columns, rows, each in sorted(found):
        count = -(-layers.count // each)
        sizes: list[Size] = [
            (f"layers {-(-i * layers.count // count)} on", columns, rows) for i in range(count)
        ]
        before, after = 0, count - 1
        if ends[1]:
            after = len(sizes)
            sizes.append(("after the layers", *_share(width, edge, ends[1], ends)))
        if ends[0]:
            before = len(sizes)
            sizes.append(("before the layers", *_share(width, edge, ends[0], ends)))
        inside = [min(max(p, 0), layers.count - 1) * count // layers.count for p in place]
        region = [before if a < 0 else after if a else i for a, i in zip(apart, inside, strict=True)]
        yield tuple(region), tuple(sizes)


def _share(width: int, rows: int, nbytes: int, all_bytes: Sequence[int]) -> tuple[int, int]:
    """Columns and rows of the strip beside the layers', in proportion to what is kept there."""
    return max(1, width * nbytes // sum(all_bytes)), rows


def _bytes(graph: Graph, node: int) -> int:
    return sum(graph.tensors[t].bytes for t in graph.nodes[node].inputs if t in graph.resident)
