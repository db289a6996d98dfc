"""Other runtimes that say what a model computes: onnxruntime and onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import onnx
from onnx import helper, shape_inference

from ...ir.op import Array
from ..errors import UnsupportedModel, UsageError, shown
from ..frontend.external import large_values
from ..frontend.load import load_model

LACKING = ("std::bad_alloc", "Failed to allocate memory", "cannot allocate memory")  # said by onnxruntime


@dataclass(frozen=True)
class Apart:
    """A model without its large initializers, which stay in their files: no message holds 2 GiB.

    large: their values by name, mapped.
    """

    model: onnx.ModelProto
    large: Mapping[str, Array]


def apart(model: str | Path | bytes) -> Apart:
    """The model of a file, or in memory. Raises as `load_model`."""
    proto = load_model(model, mapped=True)
    return Apart(proto, large_values(proto))


class Golden(Protocol):
    """A runtime that is taken to be right."""

    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]: ...


@runtime_checkable
class Keeping(Protocol):
    """A runtime that keeps its states itself, as llama.cpp keeps its caches."""

    def reset(self) -> None: ...


class OnnxRuntime:
    """onnxruntime on the host's CPU. threads: of one operator; None for its own choice."""

    name = "onnxruntime"

    def __init__(self, model: str | Path | bytes | Apart, threads: int | None = None) -> None:
        try:
            import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise UsageError(
                "onnxruntime is not installed: pip install 'waferc[verify]', or use --golden reference"
            ) from None
        runtime: Any = onnxruntime
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions, and need not be on stderr besides
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        if isinstance(model, Apart):
            source = model.model.SerializeToString()
            self._held = [runtime.OrtValue.ortvalue_from_numpy(value) for value in model.large.values()]
            if self._held:  # read where they are
                options.add_external_initializers(list(model.large), self._held)
        else:
            source = model if isinstance(model, bytes) else str(model)
        try:
            self._session: Any = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # its exceptions share no base below this one
            raise _refused(self.name, e) from None
        self.inputs: Sequence[str] = [i.name for i in self._session.get_inputs()]
        self.outputs: Sequence[str] = [o.name for o in self._session.get_outputs()]
        self._numbered = {i.name for i in self._session.get_inputs() if "map(int64" in i.type}

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        try:
            given = {n: _with_numbers(v) if n in self._numbered else v for n, v in feed.items()}
            values = self._session.run(None, given)
        except Exception as e:
            raise _refused(self.name, e) from None
        return {n: _plain(v) for n, v in zip(self.outputs, values, strict=True)}


class Reference:
    """onnx's own evaluator in NumPy: slow, and close to the text of the standard."""

    name = "onnx's reference evaluator"

    def __init__(self, model: str | Path | bytes | Apart) -> None:
        from onnx.reference import ReferenceEvaluator

        held = model if isinstance(model, Apart) else apart(model)
        proto, self._large = as_inputs(held.model, held.large), held.large
        try:
            self._evaluator: Any = ReferenceEvaluator(proto)
        except Exception as e:
            raise _refused(self.name, e) from None
        weights = {*self._large, *(t.name for t in proto.graph.initializer)}
        self.inputs: Sequence[str] = [i.name for i in proto.graph.input if i.name not in weights]
        self.outputs: Sequence[str] = [o.name for o in proto.graph.output]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._evaluator.run(None, {**self._large, **feed})
        except Exception as e:
            raise _refused(self.name, e) from None
        return {n: _plain(v) for n, v in zip(self.outputs, values, strict=True)}


def as_inputs(proto: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The model with inputs in place of these initializers."""
    names, listed = set(names), {v.name for v in proto.graph.input}
    if not names:
        return proto
    out = onnx.ModelProto()
    out.CopyFrom(proto)
    for t in [t for t in out.graph.initializer if t.name in names]:
        if t.name not in listed:
            kind = helper.make_tensor_type_proto(t.data_type, t.dims)
            out.graph.input.append(helper.make_value_info(t.name, kind))
        out.graph.initializer.remove(t)
    return out


def _with_numbers(value: Any) -> Any:
    """A map whose keys are numbers, or a sequence of them, as JSON writes their keys: in words."""
    if isinstance(value, list):
        return [_with_numbers(item) for item in cast(list[Any], value)]
    return {int(k): v for k, v in value.items()}


def _plain(value: Any) -> Any:
    """An output as our programs give it: sequences, maps and empty optionals as they are."""
    if value is None or isinstance(value, list | dict):
        return cast(Any, value)
    return np.asarray(value)


def _refused(name: str, e: Exception) -> Exception:
    """What a runtime's exception is here: UnsupportedModel, or MemoryError."""
    lines = [line for line in str(e).splitlines() if line.strip()] or [type(e).__name__]
    if isinstance(e, MemoryError) or any(words in str(e) for words in LACKING):
        return MemoryError(f"{name} needs more memory for the model: {shown(lines[0], 200)}")
    other = "reference" if name == OnnxRuntime.name else "onnxruntime"
    return UnsupportedModel(f"{name} cannot run the model: {shown(lines[0], 200)}; try --golden {other}")


def golden(name: str, model: str | Path | bytes | Apart, threads: int | None = None) -> Golden:
    """The runtime called `name` with `model` loaded. Raises UnsupportedModel if it cannot, UsageError."""
    return OnnxRuntime(model, threads) if name == "onnxruntime" else Reference(model)


def exposed(model: str | Path) -> Apart:
    """The model with every node's results as outputs.

    Results whose type shape inference does not tell stay hidden. Outputs come in node order.
    """
    held = apart(model)
    proto = shape_inference.infer_shapes(held.model)
    graph = proto.graph
    known = {v.name: v for v in graph.value_info if v.type.tensor_type.elem_type}
    known |= {o.name: o for o in graph.output}
    made = dict.fromkeys(name for node in graph.node for name in node.output if name in known)
    wanted: list[onnx.ValueInfoProto] = [known[name] for name in made]
    # An output that no node makes (an input, a constant) stays one.
    wanted += [o for o in graph.output if o.name not in made]
    outputs = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in wanted]
    del graph.output[:]
    graph.output.extend(outputs)
    return Apart(proto, held.large)
