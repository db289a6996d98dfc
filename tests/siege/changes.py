"""What is done to a model: any field of any message, and changes that keep the rest of it valid."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from siege.contributed import attributes_of
from siege.seeds import COMMON, INTEGERS, KINDS, NEWEST, REALS, SMALL, STRINGS, a_value, seed

M = "m.onnx"  # the model's file


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
    if not model.graph.node:
        return
    node = random.choice(model.graph.node)
    if onnx.defs.has(node.op_type, node.domain):
        wanted = list(onnx.defs.get_schema(node.op_type, domain=node.domain).attributes.values())
    else:
        wanted = attributes_of(node)
    if wanted:
        made = a_value(random, random.choice(wanted))
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


def rank(random: Random, model: onnx.ModelProto) -> None:
    """Another shape of an input altogether; what is declared of other values goes."""
    inputs = [v for v in model.graph.input if v.type.HasField("tensor_type")]
    if inputs:
        shape = [random.choice(SMALL) for _ in range(random.choice((0, 1, 1, 2, 3, 4, 5)))]
        v = random.choice(inputs)
        v.CopyFrom(helper.make_tensor_value_info(v.name, v.type.tensor_type.elem_type, shape))
        del model.graph.value_info[:]
        for o in model.graph.output:
            o.type.tensor_type.ClearField("shape")


def kinds(random: Random, model: onnx.ModelProto) -> None:
    """All tensors of one type get another, declared and stored."""
    old = random.choice([v.type.tensor_type.elem_type for v in model.graph.input] or [1])
    new = random.choice(COMMON)
    for v in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if v.type.tensor_type.elem_type == old:
            v.type.tensor_type.elem_type = new
    for t in [
        t for t in model.graph.initializer if t.data_type == old and old in COMMON and not t.data_location
    ]:
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
    any_field,
    any_field,
    any_field,
    attribute,
    attribute,
    attribute,
    ends,
    constant,
    shape,
    shape,
    rank,
    rank,
    kinds,
    renamed,
    chained,
    joined,
    within,
    elsewhere,
    opset,
)
