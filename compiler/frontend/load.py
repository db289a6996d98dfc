"""Reading ONNX files: protobuf, data kept in other files, and values of tensors."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from ...ir.absent import absent
from ...ir.disk import need_regular, open_regular, read_regular
from ...ir.dtypes import by_onnx
from ...ir.graph import Unsupported
from ...ir.op import Array
from ..errors import InputOutput, InvalidInput, quoted, shown
from .order import judge_order

# The key under which a tensor names its file, as protobuf writes it: most models need no parsing for that.
LOCATION = b"\x0a\x08location"
BLOCK = 1 << 24  # bytes of a file that are looked at together
MOST_BYTES = (1 << 31) - 1  # of a model's file: protobuf's bound
LARGE = 4096  # bytes of a tensor that `without_weights` leaves out


def load_model(model: str | Path | bytes | onnx.ModelProto, weights: bool = True) -> onnx.ModelProto:
    """The model with all its data in memory. A file's external data lies next to it.

    weights: False leaves external data where it is, or is not.
    """
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, bytes):
        return _parse(model, "the model")
    path = Path(model)
    content = _content(path)
    proto = _parse(content, quoted(str(path)))
    if weights:
        _load_external(proto, path.parent)
    return proto


def digest(model: str | Path | bytes, weights: bool = True) -> str:
    """SHA-256 of the model: of the file, and of those that hold its external data. Raises OSError.

    weights: False leaves out external data.
    """
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest()
    path, out = Path(model), hashlib.sha256()
    external, before = False, b""
    for block in _blocks(path):
        out.update(block)
        external = external or LOCATION in before + block[: len(LOCATION)] or LOCATION in block
        before = block[-len(LOCATION) :]
    if weights and external:
        initializers = _parse(_content(path), quoted(str(model))).graph.initializer
        places = [e.value for t in initializers for e in t.external_data if e.key == "location"]
        for place in sorted(set(places)):
            out.update(place.encode())
            for block in _blocks(path.parent / place):
                out.update(block)
    return out.hexdigest()


def external_files(model: str | Path) -> set[Path]:
    """The files in which a model's tensors say that their data lie; none of a model that cannot be read."""
    path = Path(model)
    try:
        if path.stat().st_size > MOST_BYTES:
            return set()
        external, before = False, b""
        for block in _blocks(path):
            external = external or LOCATION in before + block[: len(LOCATION)] or LOCATION in block
            before = block[-len(LOCATION) :]
        proto = _parse(_content(path), quoted(str(path))) if external else onnx.ModelProto()
    except (OSError, InvalidInput, InputOutput):
        return set()
    nodes = [n for f in proto.functions for n in f.node]
    tensors = [*_tensors(proto.graph), *(t for n in nodes for t in _tensors_of_node(n))]
    return {path.parent / e.value for t in tensors for e in t.external_data if e.key == "location"}


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Those of a graph, of its nodes' attributes and of the graphs in them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors(graph)


def _content(path: Path) -> bytes:
    """What a model's file holds. Raises InputOutput; InvalidInput for more than protobuf can hold."""
    try:
        return read_regular(path, MOST_BYTES)
    except OSError as e:
        if e.errno == errno.EFBIG:
            raise InvalidInput(
                f"{quoted(str(path))} {e.strerror}, is no ONNX model: protobuf ends there; keep the weights "
                "in a file of their own, as external data"
            ) from None
        raise InputOutput(f"cannot read {quoted(str(path))}: {e.strerror}") from None


def _blocks(path: Path) -> Iterator[bytes]:
    """The file, some of it at a time."""
    with open_regular(path) as f:
        while block := f.read(BLOCK):
            yield block


def _parse(content: bytes, what: str) -> onnx.ModelProto:
    if not content:
        raise InvalidInput(f"{what} is empty")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise InvalidInput(f"{what} is no ONNX model, or is truncated") from None
    if not proto.HasField("graph") or not proto.ir_version:
        raise InvalidInput(f"{what} is no ONNX model: it has no graph")
    return proto


def _load_external(proto: onnx.ModelProto, folder: Path) -> None:
    for tensor in proto.graph.initializer:
        if not external_data_helper.uses_external_data(tensor):
            continue
        try:
            for e in tensor.external_data:
                if e.key == "location" and (place := folder / e.value).exists():
                    need_regular(place.stat(), place)
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as e:
            where = next((e.value for e in tensor.external_data if e.key == "location"), "")
            lines = str(e).splitlines() or ["unreadable"]
            raise InputOutput(
                f"data of {quoted(tensor.name)} in {quoted(where)} next to the model: {shown(lines[0], 160)}"
            ) from None
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with empty tensors in place of its large ones, for onnx's checker.

    The checker is given a serialised copy: of a model with its weights that takes seconds and as much
    memory again, and more than 2 GiB cannot be serialised at all.
    """
    out = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _set(out, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _set(out.graph, field.name, value)
    for tensor in proto.graph.initializer:
        if tensor.ByteSize() <= LARGE and tensor.data_location != TensorProto.EXTERNAL:
            out.graph.initializer.append(tensor)
        else:
            out.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=[0])
    return out


def check_model(proto: onnx.ModelProto) -> None:
    """Raises InvalidInput for what onnx's checker refuses, in our words where nodes are in no order."""
    try:
        onnx.checker.check_model(without_weights(proto))  # pyright: ignore[reportUnknownMemberType]
    except (onnx.checker.ValidationError, ValueError) as e:
        judge_order(proto.graph)
        first = next((line for line in str(e).splitlines() if line.strip()), "invalid")
        raise InvalidInput(f"onnx's checker refuses the model: {shown(first, 200)}") from None


def _set(message: Any, name: str, value: Any) -> None:
    """Copies a field from another message of the same kind."""
    mine = getattr(message, name)
    if hasattr(mine, "MergeFrom"):
        mine.MergeFrom(value)
    else:
        setattr(message, name, value)


def array_of(tensor: TensorProto) -> Array:
    """A tensor's value, absent where external data was left alone.

    Unsupported for an element type that a core cannot store.
    """
    kind = tensor.data_type
    if by_onnx(kind) is None:
        raise Unsupported(f"element type {type_name(kind)}")
    if tensor.data_location == TensorProto.EXTERNAL:
        if any(n < 0 for n in tensor.dims):
            raise InvalidInput(f"tensor {quoted(tensor.name)}: shape {list(tensor.dims)}")
        return absent(tensor.name, tensor.dims, helper.tensor_dtype_to_np_dtype(kind))
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as e:
        raise InvalidInput(f"tensor {quoted(tensor.name)}: {shown(str(e), 120)}") from None


def type_name(number: int) -> str:
    """ONNX's name of an element type."""
    try:
        return TensorProto.DataType.Name(number)
    except ValueError:
        return f"number {number}"


def dense(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse tensor, filled up with zeros."""
    shape = tuple(sparse.dims)
    values = array_of(sparse.values)
    at = array_of(sparse.indices)
    out = np.zeros(shape, values.dtype)
    if at.ndim == 1:
        out.reshape(-1)[at] = values
    else:
        out[tuple(at.T)] = values
    return out


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """An attribute as a Python number, string, list or NumPy array; subgraphs as they are."""
    value: Any = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, TensorProto):
        return array_of(value)
    if isinstance(value, onnx.SparseTensorProto):
        return dense(value)
    if isinstance(value, (int, float, str, onnx.GraphProto)):
        return value
    items: list[Any] = list(value)
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in items]
