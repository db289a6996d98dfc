"""Shapes as graphs: a layer of each kind, and what is around the layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from ...ir.graph import Graph
from ..frontend.inputs import Binding
from ..importer import import_entries
from ..islands.work import Part, work
from ..passes.simplify import simplify
from ..shapes import decoder, whisper
from ..shapes.decoder import Step
from ..shapes.shape import Shape


@dataclass(frozen=True)
class Piece:
    """A stretch of a shape that comes `times` over. model: its ONNX model without weights; step: of its call.

    experts: whether it has any.
    """

    name: str
    times: int
    model: bytes
    step: Step
    experts: bool = False

    def graph(self, context: int) -> Graph:
        """Simplified, with caches of `context` positions."""
        capacity = context if self.step.open and self.step.caches and b"past." in self.model else None
        made = import_entries(self.model, {"": Binding()}, capacity=capacity, weights=False)
        return simplify(made.graphs[""])


def pieces(shape: Shape, context: int) -> Iterator[Piece]:
    """A decoder's, for one token behind so many others."""
    step = Step(context=context)
    if shape.encoder:
        none, one = (_written(whisper.decoding(shape, step, True, range(n)).proto()) for n in (0, 1))
        yield Piece("table and last product", 1, none, step)
        yield Piece("layer", shape.layers, one, step)
        return
    yield Piece("table and last product", 1, _written(decoder.ends(shape)), step)
    for layer, count in shape.kinds.items():
        yield Piece(
            kind_of(shape, layer),
            count,
            _written(decoder.block(shape, layer, step)),
            step,
            shape.has_experts(layer),
        )


def kind_of(shape: Shape, layer: int) -> str:
    words = ["layer"]
    if shape.experts and shape.dense:
        words.append("with experts" if shape.has_experts(layer) else "without experts")
    if shape.window:
        window = shape.window_of(layer)
        words.append(f"that looks back {window:,}" if window else "that looks back at all")
    return " ".join(words)


def _written(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString()


def parts_of(shape: Shape, context: int) -> list[Part]:
    """What a token asks of a machine, with so many positions in the caches."""
    out: list[Part] = []
    for piece in pieces(shape, context):
        graph = piece.graph(context)
        out += work(graph, piece.name, piece.times) if piece.times > 1 else work(graph, piece.name)
    return out
