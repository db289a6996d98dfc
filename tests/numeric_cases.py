"""One-node ONNX models of the numeric families, and their graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from waferc.ir import dtypes
from waferc.ir.graph import Graph
from waferc.ir.op import Array
from waferc.ir.rules import REGISTRY, GraphBuilder, Spec


@dataclass(frozen=True)
class Case:
    """One ONNX node. shapes: of its inputs. fixed: inputs that are constants, by number."""

    op_type: str
    shapes: Sequence[Sequence[int]]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 18
    fixed: Mapping[int, Sequence[int]] = field(default_factory=dict)
    constants: Sequence[int] = ()
    dtype: str = "float32"
    nodes: int | None = None  # how many ops it must become

    def __str__(self) -> str:
        inputs = "_".join("x".join(map(str, s)) for s in self.shapes)
        own = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op_type}-{self.opset}-{inputs}-{own}-{self.dtype}".replace(" ", "")

    def operands(self) -> list[Array]:
        """Random inputs, variances positive."""
        random = np.random.default_rng(sum(map(ord, str(self))))
        out: list[Array] = []
        for i, shape in enumerate(self.shapes):
            if i in self.fixed:
                out.append(np.asarray(self.fixed[i], np.int64))
            elif np.dtype(self.dtype).kind == "f":
                out.append(random.standard_normal(tuple(shape)).astype(self.dtype))
            else:
                out.append(random.integers(-9, 9, tuple(shape)).astype(self.dtype))
        positive = {"BatchNormalization": 4, "ReduceLogSum": 0}.get(self.op_type)
        if positive is not None:
            out[positive] = np.abs(out[positive]) + out[positive].dtype.type(0.5)
        return out


def build(case: Case, operands: Sequence[Array]) -> tuple[Graph, Array | None]:
    """The case as a graph; the value where all of it folded."""
    g = GraphBuilder()
    names: list[str] = []
    for i, x in enumerate(operands):
        if i in case.fixed or i in case.constants:
            names.append(g.constant(x, f"c{i}"))
        else:
            names.append(g.tensor(f"x{i}", x.shape, dtypes.of_numpy(x.dtype)))
    inputs = tuple(n for n in names if n not in g.constants)
    spec = Spec(case.op_type, "node", tuple(names), ("y",), case.attributes, case.opset)
    outputs = REGISTRY["", case.op_type].rule(g, spec)
    graph = Graph("case", g.tensors, tuple(g.nodes), g.constants, inputs, tuple(outputs))
    graph.check()
    return graph, g.value(outputs[0])


def conv(x: Sequence[int], w: Sequence[int], **attributes: Any) -> Case:
    return Case("Conv", [x, w], attributes, nodes=1)


CASES = [
    Case("MatMul", [(5, 7), (7, 9)], nodes=1),
    Case("MatMul", [(33, 40), (40, 50)], constants=(1,)),
    Case("MatMul", [(1, 30), (30, 70)]),
    Case("MatMul", [(17, 64), (64, 1)]),
    Case("MatMul", [(2, 3, 9, 5), (3, 5, 4)]),
    Case("MatMul", [(2, 1, 9, 5), (1, 3, 5, 4)]),
    Case("MatMul", [(6,), (6, 4)]),
    Case("MatMul", [(3, 4, 6), (6,)]),
    Case("MatMul", [(100,), (100,)]),
    Case("MatMul", [(5, 7), (7, 20)], dtype="float64"),
    Case("MatMul", [(5, 7), (7, 20)], dtype="float16"),
    Case("MatMul", [(5, 7), (7, 20)], dtype="int32"),
    Case("MatMul", [(3, 7), (7, 2)], dtype="int64"),
    Case("Gemm", [(9, 12), (12, 21)], nodes=1),
    Case("Gemm", [(9, 12), (21, 12), (21,)], {"transB": 1}, nodes=2),
    Case(
        "Gemm",
        [(9, 12), (21, 12), (21,)],
        {"transB": 1, "alpha": 0.5, "beta": 2.0},
        constants=(1, 2),
        nodes=2,
    ),
    Case("Gemm", [(12, 9), (12, 21), (9, 1)], {"transA": 1, "alpha": 0.5, "beta": 2.0}, nodes=4),
    Case("Gemm", [(12, 9), (21, 12), (9, 21)], {"transA": 1, "transB": 1, "beta": 0.0}, nodes=1),
    conv((1, 1, 8, 8), (6, 1, 3, 3), pads=[1, 1, 1, 1]),
    conv((2, 5, 9, 11), (7, 5, 3, 2), strides=[2, 1], dilations=[1, 2], pads=[2, 0, 1, 3]),
    conv((1, 6, 7, 7), (4, 3, 3, 3), group=2, auto_pad="SAME_UPPER"),
    conv((1, 6, 8, 6), (4, 3, 2, 2), group=2, auto_pad="SAME_LOWER", strides=[3, 2]),
    conv((1, 6, 7, 40), (6, 1, 3, 3), group=6, auto_pad="VALID"),
    conv((1, 3, 7, 7), (6, 1, 5, 1), group=3, pads=[2, 0, 2, 0]),
    conv((1, 10, 5, 5), (12, 10, 1, 1)),
    conv((1, 4, 33), (5, 4, 3), strides=[2], pads=[1, 1]),
    conv((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), pads=[1, 1, 0, 0, 1, 1]),
    Case("Conv", [(1, 3, 6, 40), (8, 3, 3, 3), (8,)], {"pads": [1, 1, 1, 1]}, constants=(1, 2), nodes=2),
    Case("Conv", [(1, 6, 6, 6), (6, 3, 3, 3), (6,)], {"group": 2}, constants=(1,)),
    Case("Conv", [(1, 3, 6, 6), (4, 3, 3, 3)], dtype="float16", constants=(1,)),
    *(
        Case(f"Reduce{kind}", [(3, 5, 17), (n,)], {"keepdims": keep}, fixed={1: axes})
        for kind in ("Max", "Min", "Prod", "Mean", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Sum")
        for axes, n, keep in (([-1], 1, 1), ([0, 2], 2, 0))
    ),
    Case("ReduceSum", [(3, 5, 17)], nodes=1),
    Case("ReduceSum", [(3, 5, 17), (0,)], {"noop_with_empty_axes": 1}, fixed={1: []}),
    Case("ReduceSum", [(3, 5), (1,)], fixed={1: [1]}, dtype="int32"),
    Case("ReduceMean", [(3, 5), (1,)], fixed={1: [1]}, dtype="int32"),
    Case("ReduceMean", [(3, 70)], {"axes": [-1]}, opset=13, nodes=1),
    Case("ReduceMax", [(3, 5, 4)], {"axes": [1], "keepdims": 0}, opset=11),
    Case("ReduceMax", [(3, 5)], dtype="int64"),
    Case("ReduceMean", [(3, 900)], dtype="float16", opset=13),
    Case("ReduceSum", [(3, 9)], dtype="float64"),
    Case("GlobalMaxPool", [(2, 3, 5, 7)], nodes=1),
    Case("GlobalAveragePool", [(2, 3, 5, 7)], nodes=1),
    Case("MaxPool", [(1, 3, 8, 8)], {"kernel_shape": [2, 2], "strides": [2, 2]}, nodes=1),
    Case("MaxPool", [(2, 3, 9, 40)], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "dilations": [2, 1]}),
    Case("MaxPool", [(1, 2, 10)], {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
    Case("MaxPool", [(1, 2, 9, 9)], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("MaxPool", [(1, 2, 4, 5, 6)], {"kernel_shape": [2, 2, 2], "auto_pad": "SAME_LOWER"}),
    Case("MaxPool", [(1, 2, 9)], {"kernel_shape": [3], "pads": [1, 1]}, dtype="int8"),
    Case("AveragePool", [(1, 3, 8, 8)], {"kernel_shape": [2, 2], "strides": [2, 2]}, nodes=1),
    Case("AveragePool", [(1, 3, 8, 9)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, nodes=2),
    Case(
        "AveragePool",
        [(1, 3, 8, 9)],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        nodes=1,
    ),
    Case("AveragePool", [(1, 3, 10)], {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}, opset=19),
    Case("AveragePool", [(1, 1, 7, 7)], {"kernel_shape": [3, 3], "dilations": [2, 2]}, opset=19),
    Case("Softmax", [(3, 5, 17)], opset=13, nodes=1),
    Case("Softmax", [(3, 17, 5)], {"axis": 1}, opset=13),
    Case("Softmax", [(3, 5, 7)], {"axis": 1}, opset=11),
    Case("Softmax", [(2, 100)], dtype="float64"),
    Case("Softmax", [(2, 50)], dtype="float16"),
    Case("LogSoftmax", [(3, 40)]),
    Case("LogSoftmax", [(3, 5, 20)], {"axis": 0}),
    Case("LayerNormalization", [(2, 3, 40), (40,), (40,)], nodes=1),
    Case("LayerNormalization", [(2, 3, 17), (3, 17)], {"axis": 1, "epsilon": 0.1}),
    Case("LayerNormalization", [(2, 3, 17), (17,), (17,)], {"axis": -1}, dtype="float64"),
    Case("LayerNormalization", [(2, 30), (30,), (30,)], dtype="float16"),
    Case("InstanceNormalization", [(2, 3, 5, 7), (3,), (3,)], nodes=1),
    Case("BatchNormalization", [(2, 3, 5, 7), (3,), (3,), (3,), (3,)], constants=(1, 2, 3, 4), nodes=2),
    Case("BatchNormalization", [(2, 3), (3,), (3,), (3,), (3,)]),
    Case("ConvTranspose", [(1, 3, 5), (3, 4, 3)], {"pads": [1, 1]}),
    Case("ConvTranspose", [(2, 3, 5, 4), (3, 4, 3, 2), (4,)], {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    Case("ConvTranspose", [(1, 4, 5, 4), (4, 3, 4, 4)], {"strides": [2, 2], "group": 2}, constants=(1,)),
    Case("ConvTranspose", [(1, 2, 3, 3), (2, 1, 3, 3)], {"group": 2}),
    Case("ConvTranspose", [(1, 1, 6), (1, 1, 3)], {"strides": [2], "dilations": [3], "output_padding": [1]}),
    Case("ConvTranspose", [(1, 1, 6), (1, 2, 2)], {"strides": [3], "output_shape": [17]}),
    Case("ConvTranspose", [(1, 1, 6), (1, 2, 4)], {"strides": [2], "auto_pad": "SAME_UPPER"}),
    Case("Einsum", [(2, 5, 3, 8), (2, 7, 3, 8)], {"equation": "bshd, bthd -> bhst"}, nodes=1),
    Case("Einsum", [(1, 2, 3, 5), (4, 2, 1, 5)], {"equation": "...ij,...kj"}, nodes=1),
    Case("Einsum", [(4, 4)], {"equation": "ii->i"}, nodes=1),
    Case("Einsum", [(4, 5, 6)], {"equation": "ijk->ki"}, nodes=1),
    Case("Einsum", [(4,), (5,)], {"equation": "i,j->ij"}, nodes=1),
    Case("Einsum", [(4, 5), (5, 6), (6, 3)], {"equation": "ij,jk,kl->il"}, nodes=2),
]
