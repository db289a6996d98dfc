"""Texts of a model that are no UTF-8: protobuf hands them on as bytes, where everything else is a str."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import onnx
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ..errors import InvalidInput, shown

UNREAD = frozenset(("doc_string", "metadata_props"))  # fields that nobody looks at


def judge_texts(proto: onnx.ModelProto) -> None:
    """Raises InvalidInput for the first name or other text of a model that is no UTF-8."""
    for kind, field, value in _texts(proto):
        if isinstance(value, bytes):
            text = shown(value.decode("utf-8", "backslashreplace"))
            raise InvalidInput(f"the model has a text that is no UTF-8: {field} '{text}' of a {kind}")


def _texts(message: Any) -> Iterator[tuple[str, str, Any]]:
    """All texts in a message: the kind of what has it, the field, and the text."""
    descriptor: Descriptor = message.DESCRIPTOR
    for name, (is_text, is_list) in _fields(descriptor).items():
        if not is_text and not is_list and not message.HasField(name):
            continue
        value = getattr(message, name)
        for v in value if is_list else (value,):
            if is_text:
                yield descriptor.name.removesuffix("Proto"), name, v
            else:
                yield from _texts(v)


@cache
def _fields(descriptor: Descriptor) -> Mapping[str, tuple[bool, bool]]:
    """The fields that are texts, or may hold some: whether they are, and whether they are lists."""
    out: dict[str, tuple[bool, bool]] = {}
    for f in descriptor.fields:
        if f.name not in UNREAD and f.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            out[f.name] = f.type == FieldDescriptor.TYPE_STRING, f.is_repeated
    return out
