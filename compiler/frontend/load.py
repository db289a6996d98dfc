"""Reading ONNX files: protobuf, data kept in other files, and values of tensors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from ...ir.absent import absent
from ...ir.dtypes import by_onnx
from ...ir.graph import Unsupported
from ...ir.op import Array
from ..errors import InputOutput, InvalidInput, quoted, shown
from .order import disordered, judge_order, put_in_order

# The key under which a tensor names its file, as protobuf writes it: most models need no parsing for that.
LOCATION = b"\x0a\x08location"
LONG_DOMAIN = "ai.onnx"
BLOCK = 1 << 24  # bytes of a file that are looked at together
LARGE = 4096  # bytes of a tensor that `without_weights` leaves out


def load_model(model: str | Path | bytes | onnx.ModelProto, weights: bool = True) -> onnx.ModelProto:
    """The model with all its data in memory. A file's external data lies next to it.

    weights: False leaves external data where it is, or is not.
    """
    if isinstance(model, onnx.ModelProto):
        return _put_right(model, own=False)
    if isinstance(model, bytes):
        return _put_right(_parse(model, "the model"), own=True)
    path = Path(model)
    try:
        content = path.read_bytes()
    except OSError as e:
        raise InputOutput(f"cannot read {quoted(str(path))}: {e.strerror}") from None
    proto = _put_right(_parse(content, quoted(str(path))), own=True)
    if weights:
        _load_external(proto, path.parent)
    return proto


def _put_right(proto: onnx.ModelProto, own: bool) -> onnx.ModelProto:
    """The model with nodes in order, and the standard's domain under its one name "".

    own: it may be changed; else it is copied where anything is to change. Raises InvalidInput for two opsets
    of one domain, or an input without a type.
    """
    _judge_opsets(proto)
    for v in proto.graph.input:
        if v.type.WhichOneof("value") is None:
            raise InvalidInput(f"input {quoted(v.name)} has no type")
    long = [*_of_long_domain(proto)]
    if not own and (long or disordered(proto)):
        copied = onnx.ModelProto()
        copied.CopyFrom(proto)
        proto, long = copied, [*_of_long_domain(copied)]
    for part in long:
        part.domain = ""
    for graph in disordered(proto):
        put_in_order(graph)
    return proto


def _judge_opsets(proto: onnx.ModelProto) -> None:
    found: dict[str, int] = {}
    for o in proto.opset_import:
        domain = o.domain or LONG_DOMAIN
        if found.setdefault(domain, o.version) != o.version:
            raise InvalidInput(
                f"the model has opsets {found[domain]} and {o.version} of domain {quoted(domain)}"
            )


def _of_long_domain(proto: onnx.ModelProto) -> Iterator[Any]:
    """What names the standard's domain "ai.onnx"."""
    parts: list[Any] = [*proto.opset_import, *proto.functions]
    left: list[Any] = [proto.graph, *proto.functions]
    for f in proto.functions:
        parts += f.opset_import
    while left:
        graph = left.pop()
        for node in graph.node:
            parts.append(node)
            left += [a.g for a in node.attribute if a.HasField("g")]
    return (part for part in parts if part.domain == LONG_DOMAIN)


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
        initializers = _parse(path.read_bytes(), quoted(str(model))).graph.initializer
        places = [e.value for t in initializers for e in t.external_data if e.key == "location"]
        for place in sorted(set(places)):
            out.update(place.encode())
            for block in _blocks(path.parent / place):
                out.update(block)
    return out.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    """The file, some of it at a time."""
    with open(path, "rb") as f:
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
    memory again, and more than 2 GiB cannot be serialised at all. Inputs and outputs have a shape there,
    which it asks for and we do not, and outputs a type.
    """
    out = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _set(out, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _set(out.graph, field.name, value)
    for v in (*out.graph.input, *out.graph.output):
        if v.type.HasField("tensor_type"):
            v.type.tensor_type.shape.SetInParent()
    for v in out.graph.output:
        if v.type.WhichOneof("value") is None or (
            v.type.HasField("tensor_type") and not v.type.tensor_type.elem_type
        ):
            v.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, ()))
    for node in out.graph.node:
        _undeprecated(node)
    for tensor in proto.graph.initializer:
        if tensor.ByteSize() <= LARGE and tensor.data_location != TensorProto.EXTERNAL:
            out.graph.initializer.append(tensor)
        else:
            out.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=[0])
    return out


def _undeprecated(node: onnx.NodeProto) -> None:
    """GroupNormalization of opsets 18 to 20 under another name: the checker takes none that a later opset
    replaces. The nodes of bodies, too."""
    for a in node.attribute:
        for inner in a.g.node if a.HasField("g") else ():
            _undeprecated(inner)
    if node.op_type == "GroupNormalization" and not node.domain:
        node.op_type = "InstanceNormalization"  # of the same inputs and outputs
        kept = [a for a in node.attribute if a.name == "epsilon"]
        del node.attribute[:]
        node.attribute.extend(kept)


def check_model(proto: onnx.ModelProto) -> None:
    """Raises InvalidInput for what onnx's checker refuses, in our words where nodes are in no order."""
    try:
        onnx.checker.check_model(without_weights(proto))  # pyright: ignore[reportUnknownMemberType]
    except (onnx.checker.ValidationError, ValueError) as e:
        judge_order(proto.graph)
        first = next((line for line in str(e).splitlines() if line.strip()), "invalid")
        named = re.search(r"Name: (.*?) OpType", str(e))
        where = f" (node {quoted(named[1])})" if named and named[1] and named[1] not in first else ""
        raise InvalidInput(f"onnx's checker refuses the model: {shown(first, 200)}{where}") from None


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
