"""How large a shape is: its parameters as its graph has them, bytes by bits, caches, and wafers for that."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ...placement.machine.wafer import Wafer
from . import decoder, whisper
from .decoder import Step
from .shape import Grouped, Shape

SCALE = 0.5  # bits a weight of a scale in 16 bits that 32 of them share
BITS: Mapping[int, float] = {16: 16.0, 8: 8 + SCALE, 4: 4 + SCALE}
FILLS = (0.62, 0.90)  # shares of all memory: what layers stacked on regions may take, and a dense packing
CACHE_BYTES = 4  # of an element: caches are f32


@dataclass(frozen=True)
class Sizes:
    """parameters: all; of them those in experts, and in the table of which a token reads one row. active:
    those that a token is multiplied with."""

    parameters: int
    experts: int
    table: int
    active: int

    def bytes(self, bits: float, experts: float | None = None) -> float:
        """Of the weights. bits: of one. experts: of one in them, where that is another number."""
        return (self.parameters - self.experts) * bits / 8 + self.experts * (experts or bits) / 8


@cache
def sizes(shape: Shape) -> Sizes:
    """Counted in the graph: a layer of each kind, and what is around the layers."""
    if shape.encoder:
        return _of_whisper(shape)
    around = decoder.entered(shape, Step(), True, ()).counted
    total: Counter[str] = Counter(around)
    for layer, count in shape.kinds.items():
        own = decoder.entered(shape, Step(), True, (layer,)).counted - around
        total += Counter({part: n * count for part, n in own.items()})
    e = shape.experts
    chosen = total["experts"] * e.chosen // e.count if e else 0
    parameters = sum(total.values())
    active = parameters - total["experts"] + chosen - (0 if shape.tied else total["table"])
    return Sizes(parameters, total["experts"], total["table"], active)


def _of_whisper(d: Shape) -> Sizes:
    step, whole = Step(caches=False), 0
    for made, layers in ((whisper.encoding, d.encoder), (whisper.decoding, d.layers)):
        none, one = (made(d, step, True, range(n)).counted.total() for n in (0, 1))
        whole += none + (one - none) * layers
    return Sizes(whole, 0, d.vocabulary * d.width, whole)


def published_error(shape: Shape) -> float:
    """Counted parameters, with those of parts that are not here, over the published ones, less 1."""
    return (sizes(shape).parameters / 1e9 + shape.beside) / shape.total - 1


def cached(shape: Shape, context: int) -> int:
    """Elements of all caches at so many positions, which window layers keep fewer of."""
    each = shape.attention.cached
    kept = sum(min(context, shape.window_of(i) or context) for i in range(shape.layers))
    out = each * kept
    if shape.encoder:
        assert isinstance(shape.attention, Grouped)
        out += shape.layers * each * shape.frames
    return out


def wafers_needed(held: float, wafer: Wafer, fill: float) -> int:
    """Wafers that hold so many bytes where a share `fill` of each is used."""
    return max(1, math.ceil(held / (fill * wafer.memory)))


def held(shape: Shape, bits: float, experts: float | None, context: int) -> float:
    """Bytes that stay on wafers: weights, and the caches of one request in f32."""
    return sizes(shape).bytes(bits, experts) + CACHE_BYTES * cached(shape, context)
