"""Operators with inputs of wrong types and attributes without meaning, one by one: none is taken where the
standard refuses it, and none ends in an error that is not ours.

The walk of types over all operators starts from ONNX's own tests and is thorough's; the quick one, of types
and attributes, starts from the examples of `promised`.
"""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper, shape_inference
from promised import own_examples
from suite import all_cases, model_of
from waferc.compiler.errors import WafercError
from waferc.compiler.pipeline import compile_model

BASES = 2  # models of an operator
MOST_BYTES = 20_000  # of such a model
SECONDS = 60  # of a busy machine for one member; more is a hang
KINDS = (
    "FLOAT",
    "FLOAT16",
    "INT32",
    "INT64",
    "BOOL",
    "STRING",
    "BFLOAT16",
    "COMPLEX64",
    "FLOAT8E4M3FN",
    "INT4",
)
# Taken wherever the operator moves elements, or where f32 goes (`signatures._widened`).
WIDENED = ("BFLOAT16", "FLOAT8E4M3FN", "INT4")
# The standard allows the types, its own body for the operator does not agree with itself about them.
BODIES_DIFFER = ("MeanVarianceNormalization", "RMSNormalization")
WHOLE = (0, -1, 2, 7, 99, 2**31, 2**40, 2**63 - 1, -(2**63))
REAL = (0.0, -1.0, float("nan"), float("inf"), 1e30)
TEXT = ("", "WHAT", "none", "constant")
ARRAYS = (np.zeros(0, np.float32), np.int64([1, 2]), np.array(["a"], object), np.float64([[1]]))
LISTS = {AttributeProto.INTS: WHOLE, AttributeProto.FLOATS: REAL, AttributeProto.STRINGS: TEXT[:2]}
SINGLE = {AttributeProto.INT: WHOLE, AttributeProto.FLOAT: REAL, AttributeProto.STRING: TEXT}


@dataclass(frozen=True)
class Member:
    """A model of one node. says: what was changed. kind: of an input, its new type; "" for an attribute."""

    says: str
    proto: onnx.ModelProto
    kind: str = ""

    @property
    def op_type(self) -> str:
        return self.proto.graph.node[0].op_type


def bases() -> list[onnx.ModelProto]:
    """For each operator the two smallest of ONNX's tests that have other attributes and inputs."""
    of: dict[tuple[str, str], list[onnx.ModelProto]] = defaultdict(list)
    for case in all_cases():
        proto = model_of(case)
        if len(proto.graph.node) == 1 and not proto.functions and proto.ByteSize() <= MOST_BYTES:
            of[proto.graph.node[0].domain, proto.graph.node[0].op_type].append(proto)
    return [proto for protos in of.values() for proto in _unlike(protos)]


def _unlike(protos: Sequence[onnx.ModelProto]) -> list[onnx.ModelProto]:
    def features(proto: onnx.ModelProto) -> set[Any]:
        it = proto.graph.node[0]
        return {a.name for a in it.attribute} | {i for i, name in enumerate(it.input) if name}

    seen: set[Any] = set()
    chosen: list[onnx.ModelProto] = []
    for _ in range(BASES):
        best = max(protos, key=lambda p: (len(features(p) - seen), -p.ByteSize()))
        if chosen and not features(best) - seen:
            break
        chosen.append(best)
        seen |= features(best)
    return chosen


def _changed(base: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that says nothing of its outputs."""
    out = onnx.ModelProto()
    out.CopyFrom(base)
    for o in out.graph.output:
        name = o.name
        o.Clear()
        o.name = name
    return out


def wrong_types(base: onnx.ModelProto) -> Iterator[Member]:
    for i, v in enumerate(base.graph.input):
        if not v.type.HasField("tensor_type"):
            continue
        for kind in KINDS:
            number = TensorProto.DataType.Value(kind)
            if number != v.type.tensor_type.elem_type:
                proto = _changed(base)
                proto.graph.input[i].type.tensor_type.elem_type = number
                yield Member(f"{v.name} is {kind}", proto, kind)


def wrong_attributes(base: onnx.ModelProto) -> Iterator[Member]:
    it = base.graph.node[0]
    opset = next((o.version for o in base.opset_import if o.domain == it.domain), 1)
    try:
        schema = onnx.defs.get_schema(it.op_type, opset, it.domain)
    except onnx.defs.SchemaError:
        return
    given = {a.name: a for a in it.attribute}
    for name, formal in schema.attributes.items():
        number = int(formal.type.value)
        others = [a for n, a in given.items() if n != name]
        for made in [*_values(name, number, given.get(name)), *_of_other_types(name, number)]:
            proto = _changed(base)
            del proto.graph.node[0].attribute[:]
            proto.graph.node[0].attribute.extend([*others, made])
            yield Member(helper.printable_attribute(made)[:80], proto)


def _values(name: str, number: int, given: AttributeProto | None) -> Iterator[AttributeProto]:
    if number in SINGLE:
        for v in SINGLE[number]:
            yield helper.make_attribute(name, v, attr_type=number)
    elif number == AttributeProto.TENSOR:
        for array in ARRAYS:
            yield helper.make_attribute(name, numpy_helper.from_array(array))
    elif number in LISTS:
        before = list(helper.get_attribute_value(given)) if given is not None else [LISTS[number][0]]
        lists = [[], [*before, *before[-1:]], before[:-1], before[:1] * len(before)]
        lists += [[v] * len(before) for v in LISTS[number]] + [[*before[:-1], v] for v in LISTS[number]]
        for values in lists:
            yield helper.make_attribute(name, values, attr_type=number)


def _of_other_types(name: str, number: int) -> Iterator[AttributeProto]:
    for value in (1, "x", [1], 1.5):
        made = helper.make_attribute(name, value)
        if made.type != number:
            yield made


def ending(proto: onnx.ModelProto) -> WafercError | None:
    """How an import ends: None for one that is taken. Raises what is not our error."""
    try:
        compile_model(proto.SerializeToString(), wafer="8x8", until="graph")
    except WafercError as e:
        return e
    return None


def refused_by_onnx(proto: onnx.ModelProto) -> str:
    try:
        shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except Exception as e:
        return str(e)
    return ""


def finding(member: Member, told: Callable[[str], None]) -> str:
    """What is wrong with how a member ends, if anything. told: is called with who is asked next."""
    told("waferc")
    try:
        end = ending(member.proto)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    if end is not None:
        return f"several lines: {end}" if "\n" in str(end) else ""
    if member.kind in WIDENED or member.op_type in BODIES_DIFFER:
        return ""
    told("onnx")
    said = refused_by_onnx(member.proto)
    return f"taken, onnx says {said}" if said else ""


def _walk(members: Sequence[Member], first: int, out: Connection) -> None:
    """In a process of its own: messages (which member, whom it is asked, "") and (which, "", the finding)."""
    for i in range(first, len(members)):
        found = finding(members[i], lambda whom, i=i: out.send((i, whom, "")))
        if found:
            out.send((i, "", found))
    out.close()


def wrong_ends(members: Sequence[Member]) -> list[str]:
    """Members that end otherwise than they should, in words.

    Some make onnx's inference abort or never return: its own matter where it is asked alone, ours where it
    happens in an import.
    """
    assert len(members) > 50
    out: list[str] = []
    first = 0
    fork = multiprocessing.get_context("fork")
    while first < len(members):
        ours, theirs = fork.Pipe(duplex=False)
        child = fork.Process(target=_walk, args=(members, first, theirs), daemon=True)
        child.start()
        theirs.close()
        at, whom = first, "waferc"
        hangs = False
        try:
            while True:
                if hangs := not ours.poll(SECONDS):
                    break
                at, whom, found = ours.recv()
                if found:
                    out.append(f"{members[at].op_type}: {members[at].says}: {found}")
        except EOFError:
            pass
        child.kill() if hangs else None
        child.join()
        if child.exitcode == 0:
            break
        if whom == "waferc":
            how = f"no end within {SECONDS} s" if hangs else f"the process ended ({child.exitcode})"
            out.append(f"{members[at].op_type}: {members[at].says}: {how}")
        first = at + 1
    return out


def all_of(
    start: Sequence[onnx.ModelProto], members: Callable[[onnx.ModelProto], Iterator[Member]]
) -> list[Member]:
    return [m for base in start for m in members(base)]


@pytest.mark.parametrize("members", [wrong_types, wrong_attributes])
def test_examples(members: Callable[[onnx.ModelProto], Iterator[Member]]) -> None:
    assert not "\n".join(wrong_ends(all_of([c.proto() for c in own_examples()][::6], members)))


@pytest.mark.thorough
@pytest.mark.parametrize("members, every", [(wrong_types, 1), (wrong_attributes, 7)])
def test_every_operator(members: Callable[[onnx.ModelProto], Iterator[Member]], every: int) -> None:
    assert not "\n".join(wrong_ends(all_of(bases(), members)[::every]))
