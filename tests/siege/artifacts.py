"""Programs whose entries were changed and whose digests are right again."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from waferc.compiler.pipeline import compile_model

from siege.items import Edit, Item

P = "p.wafer"
# Native code is what a user trusts who runs a program; what calls it, with which figures, is judged.
TRUSTED = ("kernels.bc",)
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    65536,
    2**31 - 1,
    2**31,
    2**32,
    -(2**31),
    2**62,
    2**63 - 1,
    -(2**63),
    2**64,
)
OTHERS = (None, True, "", "x", "f32", "\x1b[31m", "a\nb", [], {}, [[]], 0.5, -1.5, 1e308, float("nan"))


# -- bases ------------------------------------------------------------------------------


def _value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **constants: Any,
) -> bytes:
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    return made.SerializeToString()


def _classifier() -> bytes:
    w = np.linspace(-1, 1, 8 * 3).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("Add", ["h", "b"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"]),
    ]
    ends = [_value("x", TensorProto.FLOAT, 4, 8)], [_value("y", TensorProto.FLOAT, 4, 3)]
    return _model(nodes, *ends, w=w.reshape(8, 3), b=w[:3])


def _pixels() -> bytes:
    w = np.linspace(-1, 1, 18).astype(np.float32).reshape(2, 1, 3, 3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["y"]),
    ]
    ends = [_value("x", TensorProto.FLOAT, 1, 1, 6, 6)], [_value("y", TensorProto.FLOAT, 1, 18)]
    return _model(nodes, *ends, w=w, shape=np.array([1, 18]))


def _chosen() -> bytes:
    """Indices, integers and several outputs."""
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["rows"]),
        helper.make_node("TopK", ["rows", "k"], ["best", "where"]),
        helper.make_node("Cast", ["best"], ["y"], to=TensorProto.FLOAT16),
    ]
    outputs = [_value("y", TensorProto.FLOAT16, 3, 2), _value("where", TensorProto.INT64, 3, 2)]
    table = np.arange(20, dtype=np.float32).reshape(5, 4)
    return _model(nodes, [_value("i", TensorProto.INT64, 3)], outputs, table=table, k=np.array([2]))


def _staged() -> bytes:
    """A part on the host between two on the wafer."""
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["n"]),
        helper.make_node("Neg", ["a"], ["y"]),
    ]
    outputs = [_value("y", TensorProto.FLOAT, 6), _value("n", TensorProto.INT64, 1, "N")]
    return _model(nodes, [_value("x", TensorProto.FLOAT, 6)], outputs)


def _stateful() -> bytes:
    nodes = [helper.make_node("Add", ["past", "x"], ["present"])]
    inputs = [_value("x", TensorProto.FLOAT, 5), _value("past", TensorProto.FLOAT, 5)]
    return _model(nodes, inputs, [_value("present", TensorProto.FLOAT, 5)])


BASES: dict[str, tuple[Callable[[], bytes], dict[str, Any]]] = {
    "classifier": (_classifier, {}),
    "pixels": (_pixels, {}),
    "chosen": (_chosen, {}),
    "staged": (_staged, {}),
    "stateful": (_stateful, {"states": (("past", "present"),)}),
}


_MADE: dict[str, dict[str, bytes]] = {}


def entries(base: str) -> dict[str, bytes]:
    """The entries of a base's artifact, the manifest among them."""
    if base not in _MADE:
        _MADE[base] = _made(base)
    return _MADE[base]


def _made(base: str) -> dict[str, bytes]:
    model, asked = BASES[base]
    compiled = compile_model(model(), wafer="8x8", **asked)
    with TemporaryDirectory() as folder:
        path = Path(folder) / P
        compiled.save(path)
        with zipfile.ZipFile(path) as z:
            return {name: z.read(name) for name in z.namelist()}


# -- edits ------------------------------------------------------------------------------


def forge(path: Path, base: str, edits: Sequence[Edit]) -> None:
    """Writes the base's artifact with these edits; an edit of what is not there does nothing.

    "json": (path of keys, value); "word": (index of an element, value) of an array; "bytes": (offset,
    byte); "drop", "copy" of an entry; "raw" (offset, byte) of the file as a whole, "junk" before or after.
    """
    files = dict(entries(base))
    manifest = json.loads(files.pop("manifest.json"))
    whole = [e for e in edits if e[1] in ("raw", "junk")]
    for name, kind, what in edits:
        if name == "manifest.json" and kind == "json":
            put(manifest, *what)
        elif name in files:
            change(files, name, kind, what)
    digests = {n: hashlib.sha256(b).hexdigest() for n, b in files.items()}
    if isinstance(manifest, dict) and not any(
        n == "manifest.json" and w[0][:1] == ["sha256"] for n, k, w in edits if k == "json"
    ):
        manifest["sha256"] = digests
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        for name, content in {"manifest.json": json.dumps(manifest).encode(), **files}.items():
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    for _, kind, what in whole:
        content = bytearray(path.read_bytes())
        if kind == "junk":
            content = bytes(what[1]) + content if what[0] else content + bytes(what[1])
        else:
            content[what[0] % len(content)] = what[1]
        path.write_bytes(content)


def change(files: dict[str, bytes], name: str, kind: str, what: Any) -> None:
    """One edit of a file that is there, but "raw" and "junk"."""
    content = files[name]
    if kind == "drop":
        del files[name]
    elif kind == "copy":
        files[name] = files.get(what, b"")
    elif kind == "bytes" and content:
        changed = bytearray(content)
        changed[what[0] % len(changed)] = what[1]
        files[name] = bytes(changed)
    elif kind == "cut":
        files[name] = content[: what % (len(content) + 1)]
    elif kind == "word":
        files[name] = _with_word(content, *what)
    elif kind == "json":
        try:
            data = json.loads(content)
        except ValueError:  # after an edit of its bytes
            return
        put(data, *what)
        files[name] = json.dumps(data).encode()


def _with_word(content: bytes, index: int, value: int) -> bytes:
    """An array's file with another element; its header stays."""
    start = content.find(b"\n") + 1
    found = re.search(rb"'descr': '[<|][a-z](\d)", content[:start])
    width = int(found[1]) if found else 1
    count = (len(content) - start) // width
    if not count:
        return content
    at = start + index % count * width
    return content[:at] + (value % (1 << 8 * width)).to_bytes(width, "little") + content[at + width :]


def put(data: Any, path: Sequence[Any], value: Any) -> None:
    """Sets what lies at a path of keys; ["-"] as value removes it, ["*", n] repeats it n times."""
    for key in path[:-1]:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return
    if not path or not isinstance(data, dict | list):
        return
    try:
        if value == ["-"]:
            del data[path[-1]]
        elif isinstance(value, list) and value[:1] == ["*"]:
            data[path[-1]] = data[path[-1]] * value[1]
        else:
            data[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        return


# -- drawing ----------------------------------------------------------------------------

RUNS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("run", P, "--random", "0"),),
    (("run", P, "--random", "0"),),
    (("run", P, "--random", "0", "--guard"),),
    (("run", P, "--random", "0", "--trace", "t.json", "-o", "o.npz"),),
    (("inspect", P), ("inspect", P, "--core", "0,0")),
    (("report", P, "-o", "r.html"),),
    (("heatmap", P, "-o", "h.svg"),),
)


def drawn(random: Random) -> Item:
    base = random.choice(list(BASES))
    edits = tuple(edit(random, base) for _ in range(random.choice((1, 1, 1, 2, 3))))
    return Item("artifact", random.choice(RUNS), {}, {P: (base, edits)})


def mutated(random: Random, item: Item, _other: Item) -> Item:
    base, edits = item.forged[P]
    if base not in BASES:
        return drawn(random)
    changed = [e for e in edits if random.random() > 0.3] + [edit(random, base)]
    return Item(
        "artifact", random.choice((item.commands, random.choice(RUNS))), {}, {P: (base, tuple(changed))}
    )


def edit(random: Random, base: str) -> Edit:
    files = entries(base)
    kind = random.choice(("json",) * 12 + ("word",) * 4 + ("bytes", "cut", "drop", "copy", "raw", "junk"))
    if kind == "raw":
        return "", kind, [random.randrange(1 << 20), random.randrange(256)]
    if kind == "junk":
        return (
            "",
            kind,
            [random.randrange(2), [random.randrange(256) for _ in range(random.randrange(1, 40))]],
        )
    names = [n for n in files if n not in TRUSTED]
    suffix = {"json": ".json", "word": ".npy"}.get(kind, "")
    name = random.choice([n for n in names if n.endswith(suffix)] or names)
    if kind == "json":
        return name, kind, json_edit(random, json.loads(files[name]))
    if name == "manifest.json":
        return name, "json", json_edit(random, json.loads(files[name]))
    what: Any = random.choice(names)
    if kind in ("bytes", "word"):
        what = [
            random.randrange(1 << 16),
            random.randrange(256) if kind == "bytes" else random.choice(NUMBERS),
        ]
    elif kind == "cut":
        what = random.randrange(1 << 12)
    return name, kind, what


def json_edit(random: Random, data: Any) -> list[Any]:
    places = list(_places(data, []))
    path, old = random.choice(places) if places else ([], None)
    return [path, hostile(random, old)]


def hostile(random: Random, old: Any) -> Any:
    """Something in place of a value of JSON: mostly of its type."""
    roll = random.random()
    if roll < 0.1:
        return ["-"]
    if isinstance(old, list) and roll < 0.4:
        return ["*", random.choice((0, 2, 3, 1000))]
    if isinstance(old, int | float) and not isinstance(old, bool) and roll < 0.85:
        return random.choice(
            (random.choice(NUMBERS), int(min(abs(old), 2**60)) + random.choice((-1, 1)), -old, old * 2)
        )
    if isinstance(old, str) and roll < 0.6:
        return random.choice((old[::-1], old + "x", "", old[:-1], "\x1b[2J", "../x", old * 1000))
    return random.choice((*NUMBERS, *OTHERS))


def _places(data: Any, path: list[Any]) -> Iterator[tuple[list[Any], Any]]:
    """All places of a JSON document, those near its root as likely as the many far from it."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(pairs)[:40]:
        yield [*path, key], value
        if isinstance(value, dict | list):
            yield from _places(value, [*path, key])


def warm() -> None:
    """Makes the bases, before workers are forked; what compiles is gone again before they are."""
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(1) as pool:
        for base, made in zip(BASES, pool.map(_made, BASES), strict=True):
            _MADE[base] = made
