"""ONNX's own backend tests: which there are, their models and data, and the groups we count them in."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

ON_DISK = ("simple", "pytorch-converted", "pytorch-operator")
PLAIN_TYPES = {TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}
CONTROL = {"If", "Loop", "Scan"}
# One draw of NumPy's generator, which the standard does not ask for.
DRAWN = re.compile(r"test_bernoulli")


def all_cases() -> list[TestCase]:
    """All node tests and the models on disk, by name; takes 5 seconds. The data are always the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = list(load_model_tests(kind="node"))
    for kind in ON_DISK:
        cases += load_model_tests(kind=kind)
    return sorted(cases, key=lambda c: c.name)


def in_shard(name: str, share: float) -> bool:
    """Whether a test is in the part that makes up `share` of the suite, the same part everywhere."""
    return zlib.crc32(name.encode()) % 1000 < round(share * 1000)


def model_of(case: TestCase) -> onnx.ModelProto:
    if case.model_dir is not None:
        return onnx.load(Path(case.model_dir) / "model.onnx")
    assert case.model is not None
    return case.model


def data_of(case: TestCase, model: onnx.ModelProto) -> list[tuple[list[Any], list[Any]]]:
    """(inputs, expected outputs) of each call: arrays, and lists of them for sequences."""
    if case.model_dir is not None:
        folders = sorted(Path(case.model_dir).glob("test_data_set_*"))
        graph = model.graph
        return [(_stored(f, "input", graph.input), _stored(f, "output", graph.output)) for f in folders]
    return [([*map(_value, given)], [*map(_value, expected)]) for given, expected in case.data_sets or ()]


def _value(item: Any) -> Any:
    """The array of a TensorProto: despite their annotation, cases hold either."""
    return numpy_helper.to_array(item) if isinstance(item, TensorProto) else item


def _stored(folder: Path, stem: str, values: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    return list(_read(folder, stem, values))


def _read(folder: Path, stem: str, values: Sequence[onnx.ValueInfoProto]) -> Iterator[Any]:
    """What the folder holds for the first of the model's values: initializers after them have no files."""
    for i, value in enumerate(values):
        path = folder / f"{stem}_{i}.pb"
        if not path.exists():
            return
        content = path.read_bytes()
        if value.type.HasField("sequence_type"):
            yield numpy_helper.to_list(onnx.SequenceProto.FromString(content))
        elif value.type.HasField("optional_type"):
            yield numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
        else:
            yield numpy_helper.to_array(TensorProto.FromString(content))


def groups_of(case: TestCase, model: onnx.ModelProto) -> list[str]:
    """What the test is counted in, besides all.

    Its kind; "expanded": a function's body in place of the operator; "plain": neither that nor control
    flow, with operators of ai.onnx and the four usual types alone.
    """
    out = [case.kind]
    if case.kind != "node":
        return out
    graph = model.graph
    if "_expanded" in case.name:
        return [*out, "expanded"]
    # a sequence or optional has element type 0 here
    types = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    usual = all(n.domain in ("", "ai.onnx") and n.op_type not in CONTROL for n in graph.node)
    return [*out, "plain"] if usual and types <= PLAIN_TYPES else out
