"""Reading ONNX files: protobuf, and values of tensors. Data kept in other files: see `external`."""

from __future__ import annotations

import errno
import hashlib
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from ...codegen.artifact.foreign import HEAD, kind_of
from ...ir.absent import absent
from ...ir.disk import open_regular, read_regular
from ...ir.dtypes import by_onnx
from ...ir.graph import Unsupported
from ...ir.op import Array
from ...ir.rules import REGISTRY
from ..errors import InputOutput, InvalidInput, quoted, shown
from .external import attach, external_tensors, files_of, mapping
from .large import without_weights
from .order import disordered, judge_order, put_in_order
from .standard import schema_of
from .texts import judge_texts

STANDARD = ("", "ai.onnx")
APART = "com.microsoft"  # a domain that onnx's checker does not know
# The key under which a tensor names its file, as protobuf writes it: most models need no parsing for that.
LOCATION = b"\x0a\x08location"
LONG_DOMAIN = "ai.onnx"
BLOCK = 1 << 24  # bytes of a file that are looked at together
MOST_BYTES = (1 << 31) - 1  # of a model's file: protobuf's bound


def load_model(
    model: str | Path | bytes | onnx.ModelProto, weights: bool = True, mapped: bool = False
) -> onnx.ModelProto:
    """The model with all its data in memory. A file's external data lies next to it.

    weights: False leaves external data where it is, or is not. mapped: large tensors stay in their files, for
    `array_of` alone: they may be larger than a message or than memory.
    """
    if isinstance(model, onnx.ModelProto):
        return _put_right(model, own=False)
    if isinstance(model, bytes):
        return _put_right(_parse(model, "the model"), own=True)
    path = Path(model)
    content = _content(path)
    proto = _put_right(_parse(content, quoted(str(path)), path.name), own=True)
    if weights:
        attach(proto, path, mapped)
    return proto


def _put_right(proto: onnx.ModelProto, own: bool) -> onnx.ModelProto:
    """The model with nodes in order, and the standard's domain under its one name "".

    own: it may be changed; else it is copied where anything is to change. Raises InvalidInput for two opsets
    of one domain, an input without a type, or a text that is no UTF-8.
    """
    judge_texts(proto)
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
        if not 0 <= o.version < 1 << 31:
            raise InvalidInput(f"the model has opset {o.version} of domain {quoted(domain)}, which is none")
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
    external = _names_files(path, out.update)
    if weights and external:
        proto = _parse(_content(path), quoted(str(model)))
        for place, file in files_of(proto, path).items():
            out.update(place.encode())
            for block in _blocks(file):
                out.update(block)
    return out.hexdigest()


def external_files(model: str | Path) -> set[Path]:
    """The files in which a model's tensors say that their data lie; none of a model that cannot be read."""
    path = Path(model)
    try:
        if path.stat().st_size > MOST_BYTES:
            return set()
        external = _names_files(path)
        proto = _parse(_content(path), quoted(str(path))) if external else onnx.ModelProto()
    except (OSError, InvalidInput, InputOutput):
        return set()
    places = (e for t in external_tensors(proto) for e in t.external_data if e.key == "location")
    return {path.parent / e.value for e in places}


def _content(path: Path) -> bytes:
    """What a model's file holds. Raises InputOutput; InvalidInput for more than protobuf can hold."""
    try:
        _need_memory(path)
        return read_regular(path, MOST_BYTES)
    except OSError as e:
        if e.errno == errno.EFBIG:
            raise InvalidInput(
                f"{quoted(str(path))} {e.strerror}, is no ONNX model: protobuf ends there; keep the weights "
                "in a file of their own, as external data"
            ) from None
        raise InputOutput(f"cannot read {quoted(str(path))}: {e.strerror}") from None


def _names_files(path: Path, each: Callable[[bytes], object] = len) -> bool:
    """Whether the bytes of a model's file may name others. each: is given all of them, block by block."""
    external, before = False, b""
    for block in _blocks(path):
        each(block)
        external = external or LOCATION in before + block[: len(LOCATION)] or LOCATION in block
        before = block[-len(LOCATION) :]
    return external


def _blocks(path: Path) -> Iterator[bytes]:
    """The file, some of it at a time."""
    with open_regular(path) as f:
        while block := f.read(BLOCK):
            yield block


def _need_memory(path: Path) -> None:
    """MemoryError where a file is too large to be read within the process's bound (RLIMIT_DATA), which native
    parsers do not tell from a damaged one. They hold the file and what is in it."""
    allowed = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if allowed == resource.RLIM_INFINITY:
        return
    size, used = path.stat().st_size, 0
    with suppress(OSError):  # elsewhere than on Linux
        used = int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
    if used + 2 * size > allowed:
        raise MemoryError(
            f"{quoted(str(path))} of {size:,} bytes takes twice that to read, and {used:,} are in use already"
        )


def _parse(content: bytes, what: str, name: str = "") -> onnx.ModelProto:
    if not content:
        raise InvalidInput(f"{what} is empty")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise _no_model(content, what, name, "is no ONNX model, or is truncated") from None
    if not proto.HasField("graph") or not proto.ir_version:
        raise _no_model(content, what, name, "is no ONNX model: it has no graph")
    return proto


def _no_model(content: bytes, what: str, name: str, why: str) -> InvalidInput:
    """The error of a file that is no model: what it is, and what to do, where that is known."""
    kind = kind_of(content[:HEAD], name)
    if kind is not None:
        return InvalidInput(f"{what} is no ONNX model but {kind.name}: {kind.advice}")
    if _is_tensor(content):
        return InvalidInput(f"{what} is no ONNX model but a tensor, as ONNX's tests hold inputs")
    return InvalidInput(f"{what} {why}")


def _is_tensor(content: bytes) -> bool:
    try:
        return 0 < TensorProto.FromString(content).data_type <= max(TensorProto.DataType.values())
    except DecodeError:
        return False


def check_model(proto: onnx.ModelProto) -> None:
    """Raises InvalidInput for what onnx's checker refuses, in our words where nodes are in no order."""
    try:
        onnx.checker.check_model(_set_apart(without_weights(proto)))  # pyright: ignore[reportUnknownMemberType]
    except (onnx.checker.ValidationError, ValueError) as e:
        judge_order(proto.graph)
        first = next((line for line in str(e).splitlines() if line.strip()), "invalid")
        named = re.search(r"Name: (.*?) OpType", str(e))
        where = f" (node {quoted(named[1])})" if named and named[1] and named[1] not in first else ""
        raise InvalidInput(f"onnx's checker refuses the model: {shown(first, 200)}{where}") from None


def _set_apart(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with another domain for operators that onnxruntime has in the standard's, and onnx has not:
    the checker leaves domains be that it does not know."""
    opset = next((o.version for o in proto.opset_import if o.domain in STANDARD), 1)
    graphs, found = [proto.graph], False
    while graphs:
        for node in graphs.pop().node:
            graphs += [g for a in node.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]
            rule = REGISTRY.get(("", node.op_type)) if node.domain in STANDARD else None
            if rule and rule.since <= opset and schema_of(node.op_type, "", opset) is None:
                node.domain, found = APART, True
    if found:
        proto.opset_import.add(domain=APART, version=1)
    return proto


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
        if (mapped := mapping(tensor)) is not None:
            return mapped
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
