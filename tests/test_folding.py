"""What a few bytes of a model can ask for when compiling: bounded memory, bounded work."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
import waferc
from nodes import case, ints, whole
from onnx import TensorProto, helper, numpy_helper
from sampled import sampled
from waferc.compiler.importer import import_model
from waferc.ir.op import Array

MOST = 1200  # MiB of address space beyond what stands when the packages are loaded
CHILD = """
import resource, sys
from waferc import WafercError
from waferc.compiler.importer import import_model
import onnx
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = held + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    import_model(onnx.ModelProto.FromString(sys.stdin.buffer.read()))
except WafercError as e:
    print(e.exit_code, e)
else:
    print(0)
"""

I64 = np.int64
ONE = np.ones(1, np.float32)
LONG = np.array([1 << 15] * 2)


class Model:
    """A model in the making: its nodes, and the constants that they start from."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.held)}"
        self.held.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], f"{op_type} {name}", **attributes))
        return name

    def filled(self, *shape: int, value: Any = ONE[0]) -> str:
        fill = numpy_helper.from_array(np.array([value]))
        return self.node("ConstantOfShape", self.constant(np.array(shape, I64)), value=fill)

    def bytes(self, output: str, rank: int, kind: int = TensorProto.FLOAT) -> bytes:
        y = helper.make_tensor_value_info(output, kind, [f"d{i}" for i in range(rank)])
        graph = helper.make_graph(self.nodes, "g", [], [y], self.held)
        proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 20)])
        return proto.SerializeToString()


def chain(m: Model, start: str, times: int, op_type: str, twice: bool, **attributes: Any) -> str:
    for _ in range(times):
        start = m.node(op_type, *([start] * (1 + twice)), **attributes)
    return start


def products(m: Model, value: Any) -> str:
    out = v = m.filled(1024, 1024, value=value)
    for _ in range(60):
        out = m.node("MatMul", out, v)
    return out


def sums(m: Model) -> str:
    x, y = m.filled(1, 8192), m.filled(8192, 1)
    for _ in range(20):
        out = m.node("ReduceSum", m.node("Add", x, y), keepdims=1)
    return out


GREEDY: dict[str, Any] = {
    "filled": lambda m: m.node("Neg", m.filled(1 << 15, 1 << 15)),
    "filled again and again": lambda m: chain(m, m.filled(4096, 4096), 100, "Exp", False),
    "joined to itself": lambda m: chain(m, m.filled(16, 16), 26, "Concat", True, axis=0),
    "expanded": lambda m: m.node("Expand", m.constant(ONE), m.constant(LONG)),
    "tiled": lambda m: m.node("Tile", m.filled(64, 64), m.constant(np.array([500, 500]))),
    "padded": lambda m: m.node("Pad", m.filled(2, 2), m.constant(np.array([0, 0, 30000, 30000]))),
    "products": lambda m: products(m, np.float32(1)),
    "products of integers": lambda m: products(m, I64(1)),
    "broadcast": sums,
    "windows": lambda m: m.node("MaxPool", m.filled(1, 1, 2048, 2048), kernel_shape=[63, 63], pads=[31] * 4),
    "convolved": lambda m: m.node("Conv", m.filled(1, 4, 512, 512), m.filled(4, 4, 31, 31), pads=[15] * 4),
    "gathered": lambda m: m.node("Gather", m.filled(4096, 16), m.filled(4096, 64, value=I64(0))),
}
MADE: dict[str, tuple[Any, int, int]] = {
    "a range": (
        lambda m: m.node("Range", *map(m.constant, (I64(0), I64(10**9), I64(1)))),
        1,
        TensorProto.INT64,
    ),
    "a range of floats": (
        lambda m: m.node("Range", *(m.constant(np.float32(v)) for v in (0, 1e9, 0.5))),
        1,
        TensorProto.FLOAT,
    ),
    "draws": (lambda m: m.node("RandomNormal", shape=[1 << 16, 1 << 14]), 2, TensorProto.FLOAT),
    "a window": (lambda m: m.node("HannWindow", m.constant(I64(10**10))), 1, TensorProto.FLOAT),
    "resized": (
        lambda m: m.node("Resize", m.filled(1, 1, 1, 2), "", m.constant(np.float32([1, 1, 1, 1e9]))),
        4,
        TensorProto.FLOAT,
    ),
}


def imported(content: bytes) -> str:
    """What a process of bounded memory says of a model."""
    made = subprocess.run(
        [sys.executable, "-c", CHILD, str(MOST)], input=content, capture_output=True, timeout=100
    )
    assert made.returncode == 0, made.stderr.decode()[-2000:]
    return made.stdout.decode()


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
@pytest.mark.parametrize("name", GREEDY)
def test_what_would_take_too_much_is_left_to_the_run(name: str) -> None:
    m = Model()
    out = GREEDY[name](m)
    ranks = {"windows": 4, "convolved": 4, "gathered": 3}
    assert (
        imported(
            m.bytes(out, ranks.get(name, 2), TensorProto.INT64 if "integers" in name else TensorProto.FLOAT)
        )
        == "0\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
@pytest.mark.parametrize("name", sampled(MADE, 3))
def test_what_only_compiling_can_make_is_refused_by_node(name: str) -> None:
    m = Model()
    make, rank, kind = MADE[name]
    said = imported(m.bytes(make(m), rank, kind))
    assert said.startswith("5 node '") and "made when compiling" in said


def test_shapes_are_known_whatever_was_left_to_the_run() -> None:
    """A model that has used up what may be computed still has its shape arithmetic done."""
    m = Model()
    big = products(m, np.float32(0))
    rows = m.node("Gather", m.node("Shape", big), m.constant(ints(0)), axis=0)
    to = m.node("Concat", rows, m.constant(ints(-1)), axis=0)
    graph = import_model(onnx.ModelProto.FromString(m.bytes(m.node("Reshape", big, to), 2)))
    assert graph.tensors[graph.outputs[0]].shape == (1024, 1024)
    assert any(n.op.product for n in graph.nodes)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [0, 2, -3, 1 << 62, -(1 << 62)])
def test_triangles(upper: int, k: int) -> None:
    one = case("Trilu", whole(4, 6), np.array(k), constants=[1], upper=upper)
    (y,) = waferc.compile_model(one.proto().SerializeToString(), wafer="8x8").run(one.fed()).values()
    cut: Array = (np.triu if upper else np.tril)(one.fed()["x0"], min(max(k, -9), 9))
    assert np.array_equal(y, cut)


@pytest.mark.parametrize("k", [0, 2, -3, 1 << 62, -(1 << 62)])
def test_diagonals(k: int) -> None:
    one = case("EyeLike", whole(4, 6), k=k, dtype=int(TensorProto.FLOAT))
    (y,) = waferc.compile_model(one.proto().SerializeToString(), wafer="8x8").run(one.fed()).values()
    assert np.array_equal(y, np.eye(4, 6, min(max(k, -9), 9), np.float32))
