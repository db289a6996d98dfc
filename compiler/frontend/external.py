"""Tensors whose data a model keeps in files next to it (onnx.proto: `external_data`).

Where they lie is judged before anything is read: a model may name any file, offset and length.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...ir.dtypes import by_onnx
from ...ir.op import Array
from ..errors import InputOutput, InvalidInput, quoted

SMALL = 1 << 20  # bytes of a tensor that is read at once: what looks into values needs them in the message
# The key of a file that `attach` has judged. No model can name it, and so have `mapping` read any file.
JUDGED = f"judged {secrets.token_hex(16)}"


def attach(proto: onnx.ModelProto, model: Path, mapped: bool) -> None:
    """Takes all data that a model keeps in files next to it into the message.

    model: its file. mapped: large tensors stay in their files, see `mapping`. Raises InputOutput for a file
    that is missing or elsewhere, InvalidInput for a place that the tensor does not fit; both name tensor and
    file.
    """
    for tensor in external_tensors(proto):
        place = _place(tensor, model)
        kind = by_onnx(tensor.data_type)
        plain = kind is not None and kind.bits == 8 * kind.bytes and place.offset % kind.bytes == 0
        if mapped and plain and place.length > SMALL:
            del tensor.external_data[:]
            tensor.external_data.add(key=JUDGED, value=str(place.file))
            tensor.external_data.add(key="offset", value=str(place.offset))
            continue
        try:
            with open(place.file, "rb") as f:
                f.seek(place.offset)
                data = f.read(place.length)
        except OSError as e:
            raise InputOutput(f"{place}: {e.strerror}") from None
        if len(data) < place.length:
            raise InputOutput(f"{place}: it ends after {place.offset + len(data):,} bytes")
        tensor.raw_data = data
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def mapping(tensor: TensorProto) -> Array | None:
    """A tensor's values where they lie in its file, read-only: what is not looked at is not read.

    None for one that `attach` did not leave there.
    """
    facts = {e.key: e.value for e in tensor.external_data}
    if JUDGED not in facts:
        return None
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    try:
        whole = np.memmap(facts[JUDGED], kind, "r", int(facts["offset"]), tuple(tensor.dims))
    except (OSError, ValueError) as e:  # it was there, and as long, when it was judged
        raise InputOutput(f"data of {quoted(tensor.name)} in {quoted(facts[JUDGED])}: {e}") from None
    return np.asarray(whole)


def large_values(proto: onnx.ModelProto) -> dict[str, Array]:
    """The initializers that `attach` left in their files, by name, as `mapping`. What it left of bodies and
    attributes there is in the message from now on."""
    own, found = {id(t) for t in proto.graph.initializer}, dict[str, Array]()
    for t in external_tensors(proto):
        if (value := mapping(t)) is None:
            continue
        if id(t) in own:
            found[t.name] = value
        else:
            t.raw_data = value.tobytes()
            t.data_location = TensorProto.DEFAULT
            del t.external_data[:]
    return found


def files_of(proto: onnx.ModelProto, model: Path) -> dict[str, Path]:
    """The files that hold a model's external data, by location, in order. Raises as `attach`."""
    places = {p.location: p.file for t in external_tensors(proto) for p in (_place(t, model),)}
    return dict(sorted(places.items()))


def external_tensors(proto: onnx.ModelProto) -> list[TensorProto]:
    """The tensors that are kept in other files: initializers, those of bodies, and attributes."""
    found = [*_tensors(proto.graph)]
    for function in proto.functions:
        found += [t for node in function.node for t in _of_node(node)]
    return [t for t in found if t.data_location == TensorProto.EXTERNAL]


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for s in graph.sparse_initializer:
        yield from (s.values, s.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for a in node.attribute:
        if a.HasField("t"):
            yield a.t
        if a.HasField("sparse_tensor"):
            yield from (a.sparse_tensor.values, a.sparse_tensor.indices)
        yield from a.tensors
        for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
            yield from _tensors(g)


# -- where a tensor's data lies -------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A tensor's bytes in a file."""

    tensor: str
    location: str
    file: Path
    offset: int
    length: int

    def __str__(self) -> str:
        return f"data of {quoted(self.tensor)} in {quoted(self.location)} next to the model"


def _place(tensor: TensorProto, model: Path) -> _Place:
    """Judged: a regular file next to the model, with as many bytes there as the tensor has."""
    facts: dict[str, str] = {e.key: e.value for e in tensor.external_data}
    location = facts.get("location", "")
    what = f"data of {quoted(tensor.name)} in {quoted(location)} next to the model"
    file, size = _file(location, model, what)
    offset, wanted = _number(facts, "offset", what), _bytes(tensor, what)
    length = _number(facts, "length", what) if "length" in facts else wanted
    if length != wanted:
        raise InvalidInput(f"{what}: {length:,} bytes for {list(tensor.dims)}, which take {wanted:,}")
    if offset + length > size:
        raise InputOutput(f"{what}: bytes {offset:,} to {offset + length:,} of a file of {size:,}")
    return _Place(tensor.name, location, file, offset, length)


def _file(location: str, model: Path, what: str) -> tuple[Path, int]:
    """A file next to the model and its bytes. Links may lead to where the model's own leads: stores of models
    keep all files so."""
    if not location or "\0" in location:
        raise InvalidInput(f"{what}: no file is named")
    if os.path.isabs(location) or ".." in Path(location).parts:
        raise InputOutput(f"{what}: it names a place outside the model's folder")
    file = Path(os.path.realpath(model.parent / location))
    homes = os.path.realpath(model.parent), os.path.dirname(os.path.realpath(model))
    if not any(file.is_relative_to(home) for home in homes):
        raise InputOutput(f"{what}: a link leads out of the model's folder")
    try:
        found = file.stat()
    except OSError as e:
        raise InputOutput(f"{what}: {e.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputOutput(f"{what}: it is no regular file")
    return file, found.st_size


def _number(facts: dict[str, str], key: str, what: str) -> int:
    text = facts.get(key, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidInput(f"{what}: {key} {quoted(text, 40)} is no number of bytes")
    return int(text)


def _bytes(tensor: TensorProto, what: str) -> int:
    """Of a tensor's values, as onnx packs them."""
    kind: Any = by_onnx(tensor.data_type)
    if kind is not None:
        bits = kind.bits if kind.name in _PACKED else 8 * kind.bytes
    else:
        try:
            bits = 8 * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        except (KeyError, TypeError, ValueError):
            bits = 0
    if not bits or tensor.data_type == TensorProto.STRING or any(n < 0 for n in tensor.dims):
        raise InvalidInput(f"{what}: element type {tensor.data_type}, shape {list(tensor.dims)}")
    return -(-prod(tensor.dims) * bits // 8)


_PACKED = ("i4", "u4", "f4e2m1", "i2", "u2")  # several elements share a byte
