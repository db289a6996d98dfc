"""The import harness: hostile models, and what a user does with a model."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from siege.changes import MUTATIONS, M
from siege.contributed import contributed
from siege.items import Item
from siege.seeds import SMALL, grown, seed

P = "p.wafer"
COMMANDS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("verify", M, "--wafer", "8x8"),),
    (("verify", M, "--wafer", "8x8"),),
    (("verify", M, "--wafer", "8x8"),),
    (("check", M, "--wafer", "8x8"), ("compile", M, "-o", P, "--wafer", "4x4"), ("run", P, "--random", "0")),
    (
        ("compile", M, "-o", P, "--wafer", "8x8", "--no-simplify"),
        ("run", P, "--random", "1", "--guard", "-o", "o.npz"),
        ("inspect", P),
        ("report", P, "-o", "r.html"),
    ),
    (
        ("compile", M, "-o", P, "--wafer", "8x8", "--weights", "bf16", "--report", "r.html"),
        ("run", P, "--random", "2"),
    ),
    (
        ("compile", M, "-o", "m.plan", "--wafer", "wse3", "--compile-to", "plan", "--no-weights"),
        ("heatmap", "m.plan", "-o", "h.svg"),
    ),
)


MOST_TRIPS = 1 << 16  # of a loop, in a model that is run


def drawn(random: Random) -> Item:
    roll = random.random()
    model = grown(random) if roll < 0.3 else contributed(random) if roll < 0.45 else seed(random)
    if random.random() < 0.9:
        _change(random, model)
    return item(random, model)


def mutated(random: Random, old: Item, other: Item) -> Item:
    content = old.files.get(M, b"")
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        return drawn(random)
    if random.random() < 0.04:  # bytes
        changed = bytearray(content)
        for _ in range(random.choice((1, 2, 8))):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return Item("import", old.commands, {**old.files, M: bytes(changed)})
    if random.random() < 0.1:
        theirs = onnx.ModelProto()
        with suppress(DecodeError):
            theirs.ParseFromString(other.files.get(M, b""))
        model.graph.node.extend(theirs.graph.node)
        model.graph.initializer.extend(theirs.graph.initializer)
    _change(random, model)
    return item(random, model)


def _change(random: Random, model: onnx.ModelProto) -> None:
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        try:
            random.choice(MUTATIONS)(random, model)
        except (ValueError, TypeError, OverflowError):  # a text or a number that protobuf does not take
            continue


def item(random: Random, model: onnx.ModelProto) -> Item:
    files = {M: model.SerializeToString()}
    if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
        files["data.bin"] = bytes(range(256))
    return Item("import", _bound(random, model), files)


def _bound(random: Random, model: onnx.ModelProto) -> tuple[tuple[str, ...], ...]:
    """Commands, with what binds the model's open dimensions; now and then other sizes than that."""
    names = dict.fromkeys(
        d.dim_param for v in model.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param
    )
    bound = [
        word
        for n in names
        if random.random() < 0.9
        for word in ("--dim", f"{n}={random.choice((0, 1, 2, 3))}")
    ]
    if model.graph.input and random.random() < 0.05:
        name = random.choice(model.graph.input).name
        bound += ["--shape", f"{name}={','.join(str(random.choice(SMALL)) for _ in range(3))}"]
    if random.random() < 0.03:
        bound += ["--value", f"{random.choice(model.graph.input).name if model.graph.input else 'x'}=[1,2]"]
    chosen = COMMANDS[-1] if _endless(model) else random.choice(COMMANDS)
    return tuple((*c, *bound) if c[0] in ("verify", "check", "compile") else c for c in chosen)


def _endless(model: onnx.ModelProto) -> bool:
    """Whether a loop may take as long as it says, which is no hang of ours."""
    if not any(n.op_type == "Loop" for n in model.graph.node):
        return False
    for held in model.graph.initializer:
        with suppress(Exception):  # what is no array counts nothing
            if held.data_type == TensorProto.INT64 and numpy_helper.to_array(held).max() > MOST_TRIPS:
                return True
    return False
