"""Models of onnxruntime's own operators: cases of `contrib`, whose schemas onnx does not have."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import contrib
import onnx
from onnx import numpy_helper

# The largest tolerance of a case in `contrib` is 300 times that of its type: a byte of another step.
RTOL, ATOL = 0.02, 1e-3


@cache
def _keys() -> list[tuple[str, str]]:
    for path in sorted(Path(contrib.__file__).parent.glob("contrib_*cases.py")):
        importlib.import_module(path.stem)
    return sorted(contrib.DRAWS)


@cache
def names() -> frozenset[str]:
    return frozenset(name for domain, name in _keys() if domain or not onnx.defs.has(name))


def is_contributed(node: onnx.NodeProto) -> bool:
    """Whether onnx has no evaluator of the node's operator, and this module has cases of it."""
    return node.op_type in names() and (bool(node.domain) or not onnx.defs.has(node.op_type))


def contributed(random: Random) -> onnx.ModelProto:
    """A case of one operator. Integers, and some of the rest, are constants, as most are in models."""
    key = random.choice(_keys())
    draw, kinds = contrib.DRAWS[key]
    dice = contrib.Dice(random.randrange(1 << 30), sorted(kinds or contrib.kernel_kinds().get(key, ())))
    model, fed = contrib.model_of(key, draw(dice))
    for v in list(model.graph.input):
        if random.random() < (0.9 if fed[v.name].dtype.kind in "iub" else 0.2):
            model.graph.initializer.append(numpy_helper.from_array(fed[v.name], v.name))
            model.graph.input.remove(v)
    return model


class Wanted:
    """An attribute as onnxruntime's schema describes it, in the form of onnx's."""

    def __init__(self, attribute: Any) -> None:
        self.name, self.type, self.required = attribute.name, attribute.type, attribute.required
        self.default_value = onnx.AttributeProto.FromString(attribute._default_value)


def attributes_of(node: onnx.NodeProto) -> list[Wanted]:
    """What a node of such an operator may say."""
    schema = contrib.schemas().get((node.domain, node.op_type))
    return [Wanted(a) for a in schema.attributes.values()] if schema is not None else []
