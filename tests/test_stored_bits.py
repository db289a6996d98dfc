"""Numbers of a few bits as a model stores them: what stands for them is what they are."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import onnx
import pytest
import waferc
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from waferc.compiler.importer import import_model
from waferc.compiler.passes.packed_weights import keep_packed
from waferc.ir.dtypes import U2, U4, U8
from waferc.ir.entries import equal
from waferc.ir.packing import count, packed
from waferc.ir.stored_bits import StoredBits, bits_apart

TYPES = {2: U2, 4: U4, 8: U8}


@st.composite
def stored(draw: st.DrawFn) -> StoredBits:
    bits = draw(st.sampled_from([2, 4, 8]))
    rows = draw(st.lists(st.integers(1, 5), min_size=1, max_size=2))
    size = draw(st.integers(1, 12))
    numbers = draw(st.integers(1, size * 8 // bits) | st.just(size * 8 // bits))
    source = np.random.default_rng(size).integers(0, 256, (*rows, size), np.uint8)
    order = draw(st.permutations(range(len(rows) + 1)))
    return StoredBits(source, bits, numbers, order, TYPES[bits].numpy)


@given(stored())
def test_what_is_asked_is_asked_of_the_numbers(bits: StoredBits) -> None:
    apart = bits_apart(bits.source, bits.bits)[..., : bits.numbers].transpose(bits.order)
    whole = bits.apart()
    assert (whole.shape, whole.dtype, whole.ndim, whole.size) == (
        bits.shape,
        bits.dtype,
        bits.ndim,
        bits.size,
    )
    assert whole.nbytes == bits.nbytes and len(bits) == len(whole)
    for found in (
        whole,
        np.asarray(bits),
        bits[:],
        bits.astype(np.uint8),
        bits.T.T,
        bits.reshape(bits.shape),
    ):
        np.testing.assert_array_equal(np.asarray(found, np.uint8).reshape(apart.shape), apart)
    np.testing.assert_array_equal(np.asarray(bits, np.float32) * 2, apart.astype(np.float32) * 2)


@given(stored(), st.data())
def test_words_are_those_of_the_numbers(bits: StoredBits, data: st.DataObject) -> None:
    """Where all lie behind one another in bytes, and where they do not."""
    each = count(bits.bits)
    dims = [d for d, n in enumerate(bits.shape) if n % each == 0]
    for dim in dims:
        wanted = packed(bits.apart().astype(np.uint8), dim, bits.bits)
        found = bits.words(dim)
        assert found.dtype == wanted.dtype and found.flags.c_contiguous
        np.testing.assert_array_equal(found, wanted)
        assert bits.words(dim) is found


def test_many_rows_go_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waferc.ir.stored_bits.AT_ONCE", 7)
    source = np.random.default_rng(1).integers(0, 256, (5, 3, 16), np.uint8)
    for order in ((0, 2, 1), (2, 1, 0), (0, 1, 2)):
        bits = StoredBits(source, 4, 32, order, U4.numpy)
        dim = order.index(2)
        np.testing.assert_array_equal(bits.words(dim), packed(bits.apart().astype(np.uint8), dim, 4))


def test_two_are_equal_where_their_numbers_are() -> None:
    def made(change: int = 0, numbers: int = 8) -> Any:
        source = np.arange(12, dtype=np.uint8).reshape(3, 4) + np.uint8(change)
        return StoredBits(source, 4, numbers, (1, 0), U4.numpy)

    assert equal(made(), made()) and not equal(made(), made(1)) and not equal(made(), made(0, 7))
    assert equal(made(), made().apart())


def product(depth: int, columns: int, tables: int = 1) -> onnx.ModelProto:
    """MatMulNBits in a row, of square matrices where there are several."""
    random = np.random.default_rng(2)
    nodes, weights, x = [], [], "x"
    for i in range(tables):
        blocks = random.integers(0, 256, (columns, depth // 32, 16), np.uint8)
        scales = random.uniform(0.5, 1.5, columns * depth // 32).astype(np.float32) / depth
        weights += [numpy_helper.from_array(blocks, f"b{i}"), numpy_helper.from_array(scales, f"s{i}")]
        nodes.append(
            helper.make_node(
                "MatMulNBits", [x, f"b{i}", f"s{i}"], [f"y{i}"], domain="com.microsoft",
                K=depth, N=columns, bits=4, block_size=32,
            )
        )  # fmt: skip
        x = f"y{i}"
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, depth])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, columns])],
        weights,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_a_product_s_numbers_are_never_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its file into words: apart they would be as many bytes as there are weights."""

    def refused(_: StoredBits) -> Any:
        raise AssertionError("taken apart")

    monkeypatch.setattr(StoredBits, "apart", refused)
    waferc.compile_model(product(64, 64, 2).SerializeToString(), wafer="4x4")


def test_packing_takes_less_memory_than_the_numbers() -> None:
    proto = product(1024, 1024, 4)
    tracemalloc.start()
    try:
        graph = keep_packed(import_model(proto))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    read = {t for node in graph.nodes for t in node.inputs}
    words = sum(v.nbytes for name, v in graph.constants.items() if name in read)
    assert words < 1.3 * 4 * 1024 * 1024 / 2  # 4 bits and an f32 for 32 of them
    assert most < 3.2 * words  # the message, what it is read into, and the words
