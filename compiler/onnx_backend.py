"""waferc as a backend of the ONNX standard, as `onnx.backend.test` runs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep

from ..ir.op import Array
from .compiled import Compiled
from .errors import InputUnbound, UsageError, quoted
from .pipeline import compile_model
from .verify.small_wafers import on_smallest


class WaferRep(BackendRep):
    """A model, compiled once for each set of shapes that it is run with, and of the values that it must know
    when compiling: axes, shapes and the like.

    runs_on: "wafer", "host", or "mixed" where the host has a share: of the last run.
    """

    runs_on: str = "wafer"

    def __init__(self, model: onnx.ModelProto) -> None:
        stored = {t.name for t in model.graph.initializer}
        stored |= {t.values.name for t in model.graph.sparse_initializer}
        self._model = model
        self._inputs = [v for v in model.graph.input if v.name not in stored]
        self._outputs = [v.name for v in model.graph.output]
        self._bound = dict[str, None]()  # the inputs whose values were asked for
        self._compiled: dict[Any, Compiled] = {}
        if not any(map(_open, self._inputs)):
            with suppress(InputUnbound):  # then the first run compiles
                self._fitted({}, {})

    def run(self, inputs: Sequence[Any] | Mapping[str, Any], **kwargs: Any) -> tuple[Array, ...]:
        """The outputs in the model's order, for inputs by name or in the model's order.

        Inputs that are initializers too are constants, none of the inputs. A model with open dimensions is
        compiled here, so this raises what `prepare` does; and InputError for inputs that disagree with it.
        """
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(self._inputs):
                raise UsageError(f"{len(inputs)} inputs given, the model takes {len(self._inputs)}")
            inputs = {v.name: x for v, x in zip(self._inputs, inputs, strict=True)}
        if missing := [v.name for v in self._inputs if v.name not in inputs]:
            raise UsageError(f"input {quoted(missing[0])} is missing")
        shapes = {v.name: np.shape(inputs[v.name]) for v in self._inputs if _open(v)}
        # One thread: a small wafer's model is done before a second one is awake.
        compiled = self._fitted(shapes, inputs)
        self.runs_on = compiled.runs_on
        outputs = compiled.run(inputs, threads=1)
        return tuple(outputs[name] for name in self._outputs)

    def _fitted(self, shapes: Mapping[str, tuple[int, ...]], inputs: Mapping[str, Any]) -> Compiled:
        """The program for these shapes and inputs, on the smallest wafer that it fits on."""
        while True:
            values = {name: np.asarray(inputs[name]) for name in self._bound if name in inputs}
            try:
                return self._known_or_made(shapes, values)
            except InputUnbound as e:
                if not set(e.inputs) <= inputs.keys():
                    raise
                self._bound |= dict.fromkeys(e.inputs)

    def _known_or_made(self, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, Array]) -> Compiled:
        key = tuple(shapes.values()), tuple((n, v.shape, v.tobytes()) for n, v in values.items())
        if key not in self._compiled:
            content = self._model.SerializeToString()
            self._compiled[key] = on_smallest(
                lambda w: compile_model(content, wafer=w, shapes=shapes, values=values)
            )
        return self._compiled[key]


class WaferBackend(Backend):
    """Compiles for a small wafer and runs there.

    What waferc cannot do raises UnsupportedOperator, which names the operators, or another
    UnsupportedModel; a model too large for the largest of `small_wafers.WAFERS` raises DoesNotFit.
    """

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> WaferRep:
        """The model ready to run: compiled, unless it leaves shapes open or its inputs' values are asked for.

        Raises the errors of `compiler.errors`.
        """
        if not cls.supports_device(device):
            raise UsageError(f"device {quoted(device)}: there is CPU only, which runs the wafer's program")
        return WaferRep(model)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Sequence[Any],
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """The outputs of one node for the values of those inputs that it does not omit.

        outputs_info: not needed, types follow from the operator. kwargs: `opset_version`, by default the
        newest.
        """
        arrays = [np.asarray(x) for x in inputs]
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in zip(filter(None, node.input), arrays, strict=True)
        ]
        results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], "node", values, results)
        opset = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, opset)])
        return cls.prepare(onnx.shape_inference.infer_shapes(model), device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


def _open(value: onnx.ValueInfoProto) -> bool:
    """Whether a tensor's shape is not all given by the model."""
    tensor = value.type.tensor_type
    return value.type.HasField("tensor_type") and not (
        tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
    )
