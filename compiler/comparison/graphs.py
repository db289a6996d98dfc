"""Shapes as graphs: a layer of each kind, and what is around the layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.graph import Graph
from ..frontend.inputs import Binding
from ..importer import import_entries
from ..islands.work import Part, work
from ..passes.simplify import simplify
from ..shapes import decoder, whisper
from ..shapes.decoder import Step
from ..shapes.shape import Shape

ENDS = "table and last product"


@dataclass(frozen=True)
class Piece:
    """A stretch of a shape that comes `times` over. model: its ONNX model without weights, in which it comes
    `inside` times; step: of its call. layer: whether it is one, with caches."""

    name: str
    times: int
    model: bytes
    step: Step
    inside: int = 1
    layer: bool = True

    def graph(self, context: int) -> Graph:
        """Simplified, with caches of `context` positions."""
        capacity = context if self.layer else None
        made = import_entries(self.model, {"": Binding()}, capacity=capacity, weights=False)
        return simplify(made.graphs[""])


def pieces(shape: Shape, context: int, most: int = 1) -> Iterator[Piece]:
    """A decoder's, for one token behind so many others. most: layers of a kind in the model of one."""
    step = Step(context=context)
    if shape.encoder:
        for count, times in ((0, 1), (1, shape.layers)):
            proto = whisper.decoding(shape, step, True, range(count)).proto()
            name = "layer" if count else ENDS
            yield Piece(name, times, proto.SerializeToString(), step, layer=bool(count))
        return
    yield Piece(ENDS, 1, decoder.ends(shape).SerializeToString(), step, layer=False)
    for layer, count in shape.kinds.items():
        name = kind_of(shape, layer)
        alike = [i for i in range(layer, shape.layers) if kind_of(shape, i) == name][: min(most, count)]
        model = decoder.block(shape, alike, step).SerializeToString()
        yield Piece(name, count, model, step, len(alike))


def all_layers(shape: Shape, context: int) -> bytes:
    """The model of a token behind so many others, without weights."""
    step = Step(context=context)
    proto = whisper.decoder(shape, step) if shape.encoder else decoder.decoder(shape, step)
    return proto.SerializeToString()


def verifying(shape: Shape, context: int, tokens: int) -> bytes:
    """The model of so many tokens at once behind others, whose keys and values are inputs."""
    return decoder.decoder(shape, Step(tokens, context)).SerializeToString()


def kind_of(shape: Shape, layer: int) -> str:
    words = ["layer"]
    if shape.experts is not None and shape.dense:
        words.append("with experts" if shape.has_experts(layer) else "without experts")
    if shape.window:
        window = shape.window_of(layer)
        words.append(f"that looks back {window:,}" if window else "that looks back at all")
    return " ".join(words)


def parts_of(shape: Shape, context: int) -> list[Part]:
    """What a token asks of a machine, with so many positions in the caches."""
    out: list[Part] = []
    for piece in pieces(shape, context):
        graph = piece.graph(context)
        out += work(graph, piece.name, piece.times)
    return out
