"""The table of operators: derived from the rules and the schemas, and never stale."""

from __future__ import annotations

import re

import jit
import llvmlite.binding as llvm
import numpy as np
import onnx
import pytest
from onnx import helper
from operators import PATH, table
from promised import Promised, models_of, promises
from waferc.codegen.kernels.kernel import Kernel, kernel_for, make_module, stride_kinds
from waferc.compiler.catalogue import Operator, operators
from waferc.compiler.errors import InputUnbound, InvalidInput, UnsupportedModel, UsageError
from waferc.compiler.importer import import_model
from waferc.ir.dtypes import I64
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph
from waferc.ir.rules import REGISTRY
from waferc.runtime.engine import processor

EVERY = {(o.domain, o.name): o for o in operators()}


def of(name: str) -> Operator:
    return EVERY["", name]


def test_the_document_is_what_the_code_says() -> None:
    text = PATH.read_text(encoding="utf-8")
    if f"onnx {onnx.__version__} " not in text:
        pytest.skip("written with another onnx")
    assert text == table(), "make operators writes it anew"


def test_every_rule_is_in_it_and_every_row_is_in_the_standard_or_says_its_types() -> None:
    assert REGISTRY.keys() <= EVERY.keys()
    foreign = {key for key in EVERY if not onnx.defs.has(key[1], domain=key[0])}
    domains = {schema.domain for schema in onnx.defs.get_all_schemas()}
    own = {"SimplifiedLayerNormalization"}  # onnxruntime's, in the standard's domain
    assert {name for domain, name in foreign if domain in domains} == own
    assert all(REGISTRY[key].types and EVERY[key].place == "wafer" for key in foreign)
    assert all(bool(o.versions) == (o.place != "unsupported") for o in EVERY.values())


def test_operators_of_other_domains_are_listed_as_their_rules_state() -> None:
    found = EVERY["com.microsoft", "QuickGelu"]
    assert (found.full_name, found.opsets, found.typed) == ("com.microsoft.QuickGelu", "1", "floats")
    assert re.search(r"\| com\.microsoft \| \d+ wafer \| [^|]*\bQuickGelu\b[^|]* \|  \|", table())


def test_versions_are_those_in_force_from_opset_6_on() -> None:
    assert of("Add").opsets == "6* 7 13 14"  # 1 ended before opset 6; the rule is of 7
    assert of("MatMul").opsets == "1 9 13"  # 1 holds in opset 7, too
    assert of("Scatter").opsets == "9"  # taken back in 11
    assert of("StringConcat").opsets == "20"


def test_types_are_the_standards_by_parameter() -> None:
    assert of("Relu").typed == "floats, i8, i16, i32, i64"
    assert of("TopK").typed == "T: floats, integers; I: i64"
    assert of("And").typed == "bool"  # T and T1 alike
    assert of("Shape").types[-1] == ("T1", (I64,))
    assert of("Cast").typed.endswith("f6e2m3, f6e3m2, f4e2m1, short integers")


def test_a_body_of_sequences_does_not_run_on_the_wafer() -> None:
    assert of("SequenceMap").place == "host" and of("Attention").place == "wafer"


# -- types that are promised ------------------------------------------------------------------------
def emitted(graph: Graph) -> None:
    """Makes the code of each node's kernel, which LLVM must find right."""
    kernels: list[Kernel] = []
    for node in graph.nodes:
        tensors = [graph.tensors[t] for t in (*node.inputs, node.output)]
        steps = jit.axis_strides(node.op, [np.empty(t.shape, t.dtype.numpy) for t in tensors])
        along = node.op.lane_axis(node.op.size)
        kernels.append(kernel_for(node.op, along, stride_kinds(node.op, steps, along), processor()))
    if kernels:
        llvm.parse_assembly(make_module(kernels), context=llvm.create_context()).verify()


NO_EXAMPLE = "no example takes it"


def carried_out(one: Promised) -> str:
    """Runs a model with the promised type, whose results have the types that onnx infers: "" or why not."""
    why = NO_EXAMPLE
    for proto, fed in models_of(one):
        try:
            graph = import_model(proto)
        except (InvalidInput, InputUnbound):  # with numbers of another type, or unknown, it is another model
            continue
        except (UnsupportedModel, UsageError) as e:  # of limits that the page names
            why = str(e)
            continue
        results = evaluate(graph, fed)
        emitted(graph)
        for value, made in zip(proto.graph.output, results.values(), strict=True):
            wanted = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            if made.dtype != wanted:
                return f"{value.name} is {made.dtype}, not {wanted}"
        return ""
    return why


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted({p.operator.full_name for p in promises()}))
def test_every_promised_type_is_carried_out(name: str) -> None:
    """By the reference, and as code; the kernels themselves are run in other tests, of each family."""
    found = {str(p): carried_out(p) for p in promises() if p.operator.full_name == name}
    assert {p: why for p, why in found.items() if why} == {}
