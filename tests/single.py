"""Models of one node, what onnxruntime makes of them, and a graph run kernel by kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jit
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from waferc.ir.graph import Graph
from waferc.ir.op import Array


def model(
    op_type: str,
    inputs: Sequence[Array | None],
    constants: Sequence[int] = (),
    opset: int = 21,
    outputs: int = 1,
    domain: str = "",
    **attributes: Any,
) -> onnx.ModelProto:
    """One node of inputs x0, x1, ... (None: omitted; those in `constants` initialisers) to y0, ... .

    domain: the operator's, taken in version 1; onnx has no schema of it: results are declared as what x0 is.
    """
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    values = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for i, (n, x) in enumerate(zip(names, inputs, strict=True))
        if x is not None and i not in constants
    ]
    fixed = [
        numpy_helper.from_array(x, n)
        for i, (n, x) in enumerate(zip(names, inputs, strict=True))
        if x is not None and i in constants
    ]
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    node = helper.make_node(op_type, names, results, "it", domain=domain, **attributes)
    graph = helper.make_graph([node], "one", values, [onnx.ValueInfoProto(name=r) for r in results], fixed)
    proto = helper.make_model(graph, ir_version=8, opset_imports=imports)
    # the checker wants outputs with types; a shape may stay open
    inferred = onnx.shape_inference.infer_shapes(proto).graph.output
    for output, known in zip(graph.output, inferred, strict=True):
        found = values[0].type.tensor_type if domain else known.type.tensor_type
        kind = found.elem_type or onnx.TensorProto.FLOAT
        output.CopyFrom(helper.make_tensor_value_info(output.name, kind, ()))
        output.type.tensor_type.shape.dim.extend(found.shape.dim)
    return helper.make_model(graph, ir_version=8, opset_imports=imports)


def golden(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def by_kernels(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The graph's outputs, every node computed by its own kernel on one tile, guarded."""
    values: dict[str, Array] = {**graph.constants, **inputs}
    for node in graph.nodes:
        t = graph.tensors[node.output]
        out = values.setdefault(node.output, np.zeros(t.shape, t.dtype.numpy))
        operands = [np.ascontiguousarray(values[x]).reshape(values[x].shape) for x in node.inputs]
        jit.run(node.op, operands, out=out, guard=True)
    return {name: values[name] for name in graph.outputs}


def close(ours: Array, theirs: Array, scale: float = 1e-5) -> None:
    """Fails unless shapes and types agree and values differ by at most `scale` of the largest."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if not np.issubdtype(theirs.dtype, np.floating):
        np.testing.assert_array_equal(ours, theirs)
        return
    finite = np.abs(theirs[np.isfinite(theirs)].astype(np.float64))
    largest = float(finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=scale * largest + 1e-7)
