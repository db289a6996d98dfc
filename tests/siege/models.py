"""ONNX models: seeds of every operator, grown ones, and what is done to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper, numpy_helper
from suite import all_cases, model_of
from waferc.compiler.files import write_npz
from waferc.ir import ops
from waferc.ir.rules import REGISTRY

from siege.items import BUILD, Item

assert ops.__all__  # importing the package is what registers the rules

M, P = "m.onnx", "p.wafer"
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
    "", "WHAT", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "constant", "reflect", "edge", "wrap", "linear", "nearest",
    "cubic", "half_pixel", "align_corners", "asymmetric", "floor", "ceil", "forward", "reverse", "bidirectional", "none", "add",
    "mul", "max", "ij,jk->ik", "i->ii", "...i,...", "ai.onnx", "ai.onnx.ml", "com.microsoft", "x", "y", "\x1b[2J\x07", "a\nb",
    "\u202egnp", "../../etc/passwd", "%s%n{0}", "\u00e9" * 300, "/", "'\"",
)  # fmt: skip
KINDS = tuple(TensorProto.DataType.values())
COMMON = (1, 1, 1, 6, 7, 9, 10, 11, 2, 3, 16)
COMMANDS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("verify", M, "--wafer", "8x8"),),
    (("verify", M, "--wafer", "8x8"),),
    (("verify", M, "--wafer", "8x8"),),
    (("check", M, "--wafer", "8x8"), ("compile", M, "-o", P, "--wafer", "4x4"), ("run", P, "--random", "0")),
    (
        ("compile", M, "-o", P, "--wafer", "8x8", "--no-simplify"),
        ("run", P, "--random", "1", "--guard", "-o", "o.npz"),
        ("inspect", P),
        ("report", P, "-o", "r.html"),
    ),
    (
        ("compile", M, "-o", P, "--wafer", "8x8", "--weights", "bf16", "--report", "r.html"),
        ("run", P, "--random", "2"),
    ),
    (
        ("compile", M, "-o", "m.plan", "--wafer", "wse3", "--compile-to", "plan", "--no-weights"),
        ("heatmap", "m.plan", "-o", "h.svg"),
    ),
)


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

    for i in range(random.choice((1, 1, 2, 3))):
        domain, kind = random.choice(_rules())
        version = domains.setdefault(domain, onnx.defs.get_schema(kind, domain=domain).since_version)
        try:
            schema = onnx.defs.get_schema(kind, version, domain)
        except onnx.defs.SchemaError:
            schema = onnx.defs.get_schema(kind, domain=domain)
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
                node.attribute.append(_attribute(random, a))
        nodes.append(node)
        values.append((node.output[0], _kind_of(constants, inputs, given), ()))
    graph = helper.make_graph(nodes, "g", inputs, [], constants)
    used = {n for node in nodes for n in node.input}
    for node in nodes:
        graph.output.extend(onnx.ValueInfoProto(name=n) for n in node.output if n not in used)
    made = [helper.make_opsetid(d, v) for d, v in domains.items()]
    model = helper.make_model(graph, ir_version=random.choice((7, 8, 10)), opset_imports=made)
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
    return (
        TensorProto.DataType.Value(inner)
        if text.startswith("tensor(") and inner in TensorProto.DataType.keys()
        else None
    )


def _kind_of(
    constants: Sequence[onnx.TensorProto], inputs: Sequence[onnx.ValueInfoProto], given: Sequence[str]
) -> int:
    kinds = {t.name: t.data_type for t in constants} | {v.name: v.type.tensor_type.elem_type for v in inputs}
    return next((kinds[n] for n in given if n in kinds), TensorProto.FLOAT)


def _attribute(random: Random, wanted: Any) -> onnx.AttributeProto:
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


# -- mutations --------------------------------------------------------------------------


def _messages(message: Message, into: list[Message]) -> list[Message]:
    into.append(message)
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                _messages(inner, into)
    return into


def any_field(random: Random, model: onnx.ModelProto) -> None:
    """One field of one message, set to something else, emptied, repeated or moved."""
    message = random.choice(_messages(model, []))
    present = [f for f, _ in message.ListFields()]
    field = random.choice(present if present and random.random() < 0.85 else list(message.DESCRIPTOR.fields))
    value = getattr(message, field.name)
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    if not field.is_repeated:
        if is_message:
            message.ClearField(field.name) if random.random() < 0.5 else value.SetInParent()
        else:
            setattr(message, field.name, _scalar(random, field, value))
        return
    roll, count = random.random(), len(value)
    if count and roll < 0.25:
        del value[random.randrange(count)]
    elif count and roll < 0.4:
        chosen = value[random.randrange(count)]
        value.add().CopyFrom(chosen) if is_message else value.append(chosen)
    elif count > 1 and roll < 0.5:
        items = list(value)
        if is_message:
            items = [type(i).FromString(i.SerializeToString()) for i in items]
        random.shuffle(items)
        del value[:]
        value.extend(items)
    elif is_message:
        value.add()
    elif count and roll < 0.9:
        value[random.randrange(count)] = _scalar(random, field, value[0])
    else:
        value.append(_scalar(random, field, None))


def _scalar(random: Random, field: FieldDescriptor, old: Any) -> Any:
    if field.enum_type is not None:
        return random.choice(field.enum_type.values).number
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        text = random.choice(STRINGS)
        if field.type != FieldDescriptor.TYPE_BYTES:
            return text
        bare = bytes(old or b"")
        return random.choice(
            (text.encode(), bare[: len(bare) // 2], bare + b"\xff" * 8, bare[::-1], b"\xff" * len(bare))
        )
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return random.choice(REALS)
    chosen = random.choice(SMALL if random.random() < 0.5 else INTEGERS)
    if field.name in ("data_type", "elem_type"):
        return random.choice(KINDS) if random.random() < 0.9 else chosen % 100
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32):
        return chosen % 2**31
    return chosen % 2**64 if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64 else chosen


def attribute(random: Random, model: onnx.ModelProto) -> None:
    """Another value of an attribute, or one that the node did not give."""
    nodes = [n for n in model.graph.node if onnx.defs.has(n.op_type, n.domain)]
    if not nodes:
        return
    node = random.choice(nodes)
    wanted = list(onnx.defs.get_schema(node.op_type, domain=node.domain).attributes.values())
    if wanted:
        made = _attribute(random, random.choice(wanted))
        for a in [a for a in node.attribute if a.name == made.name]:
            node.attribute.remove(a)
        node.attribute.append(made)


def ends(random: Random, model: onnx.ModelProto) -> None:
    """Outputs that are inputs or constants or twice there, inputs that nothing reads, no nodes."""
    graph = model.graph
    roll = random.randrange(5)
    if roll == 0 and graph.input:
        graph.output.add().CopyFrom(random.choice(graph.input))
    elif roll == 1 and graph.output:
        graph.output.add().CopyFrom(random.choice(graph.output))
    elif roll == 2 and graph.initializer:
        t = random.choice(graph.initializer)
        graph.output.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    elif roll == 3:
        del graph.node[:]
    else:
        graph.input.append(
            helper.make_tensor_value_info("unread", random.choice(COMMON), [random.choice(SMALL)])
        )


def constant(random: Random, model: onnx.ModelProto) -> None:
    """An input becomes a constant, or a constant an input."""
    graph = model.graph
    if graph.input and random.random() < 0.7:
        v = random.choice(graph.input)
        shape = [d.dim_value for d in v.type.tensor_type.shape.dim]
        kind = v.type.tensor_type.elem_type
        if kind not in COMMON or int(np.prod(shape)) > 10000 or min(shape, default=0) < 0:
            return
        low, high = random.choice(((0, 2), (-3, 4), (0, 1), (-100, 100), (1, 3)))
        numbers = [random.randrange(low, high) for _ in range(int(np.prod(shape)))]
        array = np.array(numbers, np.int64).astype(helper.tensor_dtype_to_np_dtype(kind)).reshape(shape)
        graph.initializer.append(numpy_helper.from_array(array, v.name))
        graph.input.remove(v)
    elif graph.initializer:
        t = random.choice(graph.initializer)
        graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
        graph.initializer.remove(t)


def shape(random: Random, model: onnx.ModelProto) -> None:
    """Another declared shape of an end: sizes, a name, none at all."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not values:
        return
    v = random.choice(values)
    roll = random.random()
    if roll < 0.15:
        v.type.tensor_type.ClearField("shape")
    elif roll < 0.3:
        v.type.tensor_type.elem_type = random.choice(COMMON)
    elif v.type.tensor_type.shape.dim:
        d = random.choice(v.type.tensor_type.shape.dim)
        if random.random() < 0.5:
            d.dim_param = random.choice(("N", "M", *STRINGS))
        else:
            d.dim_value = random.choice(SMALL if random.random() < 0.7 else INTEGERS)


def kinds(random: Random, model: onnx.ModelProto) -> None:
    """All tensors of one type get another, declared and stored."""
    old = random.choice([v.type.tensor_type.elem_type for v in model.graph.input] or [1])
    new = random.choice(COMMON)
    for v in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if v.type.tensor_type.elem_type == old:
            v.type.tensor_type.elem_type = new
    for t in [t for t in model.graph.initializer if t.data_type == old and old in COMMON]:
        try:
            array = numpy_helper.to_array(t)
        except (ValueError, TypeError):
            continue
        with np.errstate(all="ignore"):
            t.CopyFrom(numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(new)), t.name))


def renamed(random: Random, model: onnx.ModelProto) -> None:
    """A tensor with a hostile name, everywhere."""
    names = [v.name for v in (*model.graph.input, *model.graph.output, *model.graph.initializer)]
    if not names:
        return
    old, new = random.choice(names), random.choice(STRINGS)
    for message in _messages(model, []):
        if isinstance(message, onnx.NodeProto):
            message.input[:] = [new if n == old else n for n in message.input]
            message.output[:] = [new if n == old else n for n in message.output]
        elif isinstance(message, onnx.ValueInfoProto | onnx.TensorProto) and message.name == old:
            message.name = new


def chained(random: Random, model: onnx.ModelProto) -> None:
    """One more operator on a result."""
    graph, results = model.graph, [o for n in model.graph.node for o in n.output if o]
    if not results:
        return
    kind = random.choice(
        ("Relu", "Neg", "Identity", "Shape", "Transpose", "ReduceSum", "Softmax", "Cast", "Sqrt", "Flatten")
    )
    more = {"to": random.choice(COMMON)} if kind == "Cast" else {}
    graph.node.append(helper.make_node(kind, [random.choice(results)], ["chained"], **more))
    graph.output.append(onnx.ValueInfoProto(name="chained"))
    graph.output[-1].type.tensor_type.elem_type = random.choice(COMMON)


def joined(random: Random, model: onnx.ModelProto) -> None:
    """Another model beside it, or its first input from this one's result."""
    other = seed(random)
    results = [o.name for o in model.graph.output]
    if not other.graph.input or not results:
        return
    linked = other.graph.input[0].name if random.random() < 0.7 else ""
    for message in _messages(other.graph, []):
        if isinstance(message, onnx.NodeProto):
            message.input[:] = [results[0] if n and n == linked else n and f"o_{n}" for n in message.input]
            message.output[:] = [n and f"o_{n}" for n in message.output]
        elif isinstance(message, onnx.ValueInfoProto | onnx.TensorProto):
            message.name = f"o_{message.name}"
    model.graph.node.extend(other.graph.node)
    model.graph.input.extend([v for v in other.graph.input if not linked or v.name != f"o_{linked}"])
    model.graph.output.extend(other.graph.output)
    model.graph.initializer.extend(other.graph.initializer)


def within(random: Random, model: onnx.ModelProto) -> None:
    """The nodes moved into a branch of an If, the body of a Loop, or a function."""
    graph = model.graph
    made = [o.name for o in graph.output]
    if not graph.node or not made:
        return
    body = helper.make_graph(list(graph.node), "body", [], list(graph.output))
    roll = random.randrange(3)
    if roll == 0:
        condition = helper.make_tensor_value_info("cond?", TensorProto.BOOL, [])
        node = helper.make_node("If", ["cond?"], made, then_branch=body, else_branch=body)
        graph.input.append(condition) if random.random() < 0.5 else graph.initializer.append(
            numpy_helper.from_array(np.array(random.random() < 0.5), "cond?")
        )
    elif roll == 1:
        body.input.append(helper.make_tensor_value_info("i?", TensorProto.INT64, []))
        body.input.append(helper.make_tensor_value_info("on?", TensorProto.BOOL, []))
        body.node.append(helper.make_node("Identity", ["on?"], ["on!"]))
        body.output.insert(0, helper.make_tensor_value_info("on!", TensorProto.BOOL, []))
        node = helper.make_node("Loop", ["trips?", ""], made, body=body)
        trips = np.array(random.choice((0, 1, 2, 3, 1000, 2**40, -1)))
        graph.initializer.append(numpy_helper.from_array(trips, "trips?"))
    else:
        given = list(dict.fromkeys(n for node in graph.node for n in node.input if n))
        inner = random.choice(("F", graph.node[0].op_type))
        model.functions.append(
            helper.make_function("own", inner, given, made, list(graph.node), list(model.opset_import))
        )
        model.opset_import.append(helper.make_opsetid("own", 1))
        node = helper.make_node(inner, given, made, domain="own")
        if random.random() < 0.15:  # it calls itself
            model.functions[-1].node.append(node)
    del graph.node[:]
    graph.node.append(node)


def elsewhere(random: Random, model: onnx.ModelProto) -> None:
    """A constant's data in another file."""
    if not model.graph.initializer:
        return
    t = random.choice(model.graph.initializer)
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    del t.external_data[:]
    place = random.choice(
        ("data.bin", "data.bin", M, "../secret.bin", "/etc/passwd", "/dev/zero", ".", *STRINGS)
    )
    t.external_data.add(key="location", value=place)
    for key in ("offset", "length"):
        if random.random() < 0.5:
            t.external_data.add(key=key, value=str(random.choice((*INTEGERS, "x", "1e9", "\u0663"))))


def opset(random: Random, model: onnx.ModelProto) -> None:
    for o in model.opset_import:
        if random.random() < 0.7:
            o.version = random.choice((random.randrange(1, NEWEST + 2), *INTEGERS))
        elif random.random() < 0.5:
            o.domain = random.choice(("ai.onnx", "", "ai.onnx.ml", "com.microsoft", "x"))


MUTATIONS: tuple[Callable[[Random, onnx.ModelProto], None], ...] = (
    any_field, any_field, any_field, attribute, attribute, attribute, ends, constant, shape, shape, kinds, renamed, chained,
    joined, within, elsewhere, opset,
)  # fmt: skip


# -- items ------------------------------------------------------------------------------


def drawn(random: Random) -> Item:
    model = grown(random) if random.random() < 0.35 else seed(random)
    if random.random() < 0.9:
        _change(random, model)
    return item(random, model)


def mutated(random: Random, old: Item, other: Item) -> Item:
    content = old.files.get(M, b"")
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        return drawn(random)
    if random.random() < 0.04:  # bytes
        changed = bytearray(content)
        for _ in range(random.choice((1, 2, 8))):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return Item("import", old.commands, {**old.files, M: bytes(changed)})
    if random.random() < 0.1:
        theirs = onnx.ModelProto()
        try:
            theirs.ParseFromString(other.files.get(M, b""))
        except DecodeError:
            pass
        model.graph.node.extend(theirs.graph.node)
        model.graph.initializer.extend(theirs.graph.initializer)
    _change(random, model)
    return item(random, model)


def _change(random: Random, model: onnx.ModelProto) -> None:
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        try:
            random.choice(MUTATIONS)(random, model)
        except (ValueError, TypeError, OverflowError):  # a text or a number that protobuf does not take
            continue


def item(random: Random, model: onnx.ModelProto) -> Item:
    files = {M: model.SerializeToString()}
    if any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
        files["data.bin"] = bytes(range(256))
    return Item("import", _bound(random, model), files)


def _bound(random: Random, model: onnx.ModelProto) -> tuple[tuple[str, ...], ...]:
    """Commands, with what binds the model's open dimensions; now and then other sizes than that."""
    names = dict.fromkeys(
        d.dim_param for v in model.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param
    )
    bound = [
        word
        for n in names
        if random.random() < 0.9
        for word in ("--dim", f"{n}={random.choice((0, 1, 2, 3))}")
    ]
    if model.graph.input and random.random() < 0.05:
        name = random.choice(model.graph.input).name
        bound += ["--shape", f"{name}={','.join(str(random.choice(SMALL)) for _ in range(3))}"]
    if random.random() < 0.03:
        bound += ["--value", f"{random.choice(model.graph.input).name if model.graph.input else 'x'}=[1,2]"]
    return tuple(
        (*c, *bound) if c[0] in ("verify", "check", "compile") else c for c in random.choice(COMMANDS)
    )
