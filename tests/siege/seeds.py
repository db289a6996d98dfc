"""Where models come from: ONNX's own tests, and chains of operators grown by their schemas."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from suite import all_cases, model_of
from waferc.compiler.files import write_npz
from waferc.ir import ops
from waferc.ir.rules import REGISTRY

from siege.items import BUILD

assert ops.__all__  # importing the package is what registers the rules

MOST_BYTES = 8000  # of a seed
NEWEST = onnx.defs.onnx_opset_version()
INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    16,
    100,
    -2,
    1000,
    65536,
    2**31 - 1,
    2**31,
    2**40,
    2**63 - 1,
    -(2**63),
)
SMALL = (0, 1, 1, 2, 2, 3, 4, 5)
REALS = (0.0, 1.0, -1.0, 0.5, 2.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
STRINGS = (
    "",
    "WHAT",
    "SAME_UPPER",
    "SAME_LOWER",
    "VALID",
    "NOTSET",
    "constant",
    "reflect",
    "edge",
    "wrap",
    "linear",
    "nearest",
    "cubic",
    "half_pixel",
    "align_corners",
    "asymmetric",
    "floor",
    "ceil",
    "forward",
    "reverse",
    "bidirectional",
    "none",
    "add",
    "mul",
    "max",
    "ij,jk->ik",
    "i->ii",
    "...i,...",
    "ai.onnx",
    "ai.onnx.ml",
    "com.microsoft",
    "x",
    "y",
    "\x1b[2J\x07",
    "a\nb",
    "\u202egnp",
    "../../etc/passwd",
    "%s%n{0}",
    "\u00e9" * 300,
    "/",
    "'\"",
)
KINDS = tuple(TensorProto.DataType.values())
NAMES = frozenset(TensorProto.DataType.keys())
COMMON = (1, 1, 1, 6, 7, 9, 10, 11, 2, 3, 16)


# -- seeds ------------------------------------------------------------------------------


@cache
def seeds() -> list[onnx.ModelProto]:
    """Valid models of nearly every operator: those of ONNX's own tests, which takes 10 s to make."""
    path = BUILD / f"onnx-{onnx.__version__}.npz"
    if not path.exists():
        models = [model_of(case) for case in all_cases()]
        small = [m.SerializeToString() for m in models if m.ByteSize() <= MOST_BYTES]
        BUILD.mkdir(parents=True, exist_ok=True)
        write_npz(path, {f"{i}": np.frombuffer(content, np.uint8) for i, content in enumerate(small)})
    with np.load(path) as arrays:
        return [onnx.ModelProto.FromString(arrays[name].tobytes()) for name in arrays.files]


def seed(random: Random) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(random.choice(seeds()))
    return model


@cache
def _rules() -> list[tuple[str, str]]:
    return sorted(key for key in REGISTRY if onnx.defs.has(key[1], key[0]))


def grown(random: Random) -> onnx.ModelProto:
    """A chain of registered operators by their schemas: inputs of types that they take, any shape."""
    values: list[tuple[str, int, tuple[int, ...]]] = []
    inputs: list[onnx.ValueInfoProto] = []
    constants: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    domains = {"": random.choice((NEWEST, NEWEST, 21, 18, 13, 11, 9))}

    def fresh(kinds: Sequence[int]) -> str:
        kind = random.choice([k for k in COMMON if k in kinds] or list(kinds) or [1])
        shape = tuple(random.choice(SMALL) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4))))
        known = [v for v in values if v[1] in kinds]
        if known and random.random() < 0.5:
            return random.choice(known)[0]
        name = f"x{len(values)}"
        values.append((name, kind, shape))
        if random.random() < 0.5 or kind == TensorProto.STRING:
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
        else:
            dtype = helper.tensor_dtype_to_np_dtype(kind)
            numbers = [random.choice((0, 1, 1, 2, -1, 3)) for _ in range(int(np.prod(shape)))]
            array = np.array(numbers, np.int64).astype(dtype).reshape(shape)
            constants.append(numpy_helper.from_array(array, name))
        return name

    inferable = True  # onnx's inference never returns from some equations, and dies of unregistered operators
    for i in range(random.choice((1, 1, 2, 3))):
        domain, kind = random.choice(_rules())
        version = domains.setdefault(domain, onnx.defs.get_schema(kind, domain=domain).since_version)
        try:
            schema = onnx.defs.get_schema(kind, version, domain)
        except onnx.defs.SchemaError:
            schema, inferable = onnx.defs.get_schema(kind, domain=domain), False
        inferable &= kind != "Einsum"
        allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
        given = list[str]()
        for formal in schema.inputs:
            option = formal.option.name
            if option == "Optional" and random.random() < 0.5:
                given.append("")
                continue
            kinds = [k for text in allowed.get(formal.type_str, [formal.type_str]) if (k := _kind(text))]
            given += [fresh(kinds) for _ in range(random.choice((1, 2, 3)) if option == "Variadic" else 1)]
        node = helper.make_node(
            kind, given, [f"v{i}{j}" for j in range(max(1, schema.min_output))], f"n{i}", domain=domain
        )
        for a in schema.attributes.values():
            if a.required or random.random() < 0.3:
                node.attribute.append(a_value(random, a))
        nodes.append(node)
        values.append((node.output[0], _kind_of(constants, inputs, given), ()))
    graph = helper.make_graph(nodes, "g", inputs, [], constants)
    used = {n for node in nodes for n in node.input}
    for node in nodes:
        graph.output.extend(onnx.ValueInfoProto(name=n) for n in node.output if n not in used)
    made = [helper.make_opsetid(d, v) for d, v in domains.items()]
    model = helper.make_model(graph, ir_version=random.choice((7, 8, 10)), opset_imports=made)
    if not inferable:
        return model
    try:  # types of outputs, where they can be told
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:
        return model
    for o, told in zip(model.graph.output, inferred.graph.output, strict=True):
        o.CopyFrom(told)
        if not o.type.HasField("tensor_type"):
            o.type.tensor_type.elem_type = random.choice(COMMON)
    return model


def _kind(text: str) -> int | None:
    """The element type in "tensor(int64)"; None of a sequence."""
    inner = text.removeprefix("tensor(").removesuffix(")").upper()
    return TensorProto.DataType.Value(inner) if text.startswith("tensor(") and inner in NAMES else None


def _kind_of(
    constants: Sequence[onnx.TensorProto], inputs: Sequence[onnx.ValueInfoProto], given: Sequence[str]
) -> int:
    kinds = {t.name: t.data_type for t in constants} | {v.name: v.type.tensor_type.elem_type for v in inputs}
    return next((kinds[n] for n in given if n in kinds), TensorProto.FLOAT)


def a_value(random: Random, wanted: Any) -> onnx.AttributeProto:
    """An attribute of the type that a schema says; often its default, often not."""
    kind, made = int(wanted.type.value), onnx.AttributeProto(name=wanted.name, type=int(wanted.type.value))
    if wanted.default_value.type and random.random() < 0.4:
        return wanted.default_value
    if kind == onnx.AttributeProto.INT:
        made.i = random.choice(SMALL if random.random() < 0.7 else INTEGERS)
    elif kind == onnx.AttributeProto.FLOAT:
        made.f = random.choice(REALS)
    elif kind == onnx.AttributeProto.STRING:
        made.s = random.choice(STRINGS).encode()
    elif kind == onnx.AttributeProto.INTS:
        made.ints.extend(random.choice(SMALL) for _ in range(random.choice((1, 2, 2, 3, 4))))
    elif kind == onnx.AttributeProto.FLOATS:
        made.floats.extend(random.choice(REALS) for _ in range(random.choice((1, 2, 4))))
    elif kind == onnx.AttributeProto.STRINGS:
        made.strings.extend(random.choice(STRINGS).encode() for _ in range(random.choice((1, 2))))
    elif kind == onnx.AttributeProto.TENSOR:
        made.t.CopyFrom(numpy_helper.from_array(np.arange(random.choice(SMALL), dtype=np.float32)))
    elif kind == onnx.AttributeProto.GRAPH:
        made.g.CopyFrom(random.choice(seeds()).graph)
    return made
