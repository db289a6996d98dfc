"""Several texts over one program: bits of each alone, slots that are freed, positions that are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from test_generate_cli import Shape, decoder, random_weights
from waferc import InputError, LanguageModel, Program, UsageError, compile_model
from waferc.compiler.compiled import Compiled
from waferc.ir.op import Array

CAPACITY = 24
SHAPE = Shape(1, 16, 32, 2, 1, 8, vocabulary=32, positions=32)


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    model = decoder(SHAPE, random_weights(5)).SerializeToString()
    entries = {"prefill": {"S": 4}, "decode": {"S": 1}}
    return compile_model(model, wafer="8x8", capacity=CAPACITY, entries=entries)


@pytest.fixture(scope="module", params=["homes", "guard"])
def model(compiled: Compiled, request: pytest.FixtureRequest) -> LanguageModel:
    return LanguageModel(compiled, threads=1, guard=request.param == "guard")


def alone(model: LanguageModel, parts: Sequence[Sequence[int]]) -> list[Array]:
    model.reset()
    return [model.logits(part) for part in parts]


def drawn(seed: int, parts: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, SHAPE.vocabulary, random.integers(1, 6)).tolist() for _ in range(parts)]


def test_texts_that_share_a_program_have_the_bits_of_each_alone(model: LanguageModel) -> None:
    given = [drawn(seed, 3) for seed in range(3)]
    wanted = [alone(model, parts) for parts in given]
    texts = model.texts(3)
    opened = [texts.open() for _ in given]
    found: list[list[Array]] = [[] for _ in given]
    for step, who in [(0, [0]), (0, [1, 2]), (1, [2, 0]), (1, [1]), (2, [0, 1, 2])]:
        logits = texts.step([opened[i] for i in who], [given[i][step] for i in who])
        for i, row in zip(who, logits, strict=True):
            found[i].append(row)
    for ours, theirs, text, parts in zip(found, wanted, opened, given, strict=True):
        assert np.array_equal(np.array(ours), np.array(theirs))
        assert text.length == sum(map(len, parts)) and text.room == CAPACITY - text.length
    assert texts.moved > 0


def test_a_slot_is_freed_and_taken_again(model: LanguageModel) -> None:
    texts = model.texts(2)
    first, second = texts.open(), texts.open()
    texts.step([first, second], [[1, 2, 3], [9]])
    with pytest.raises(InputError, match="all of 2 slots are taken"):
        texts.open()
    first.close()
    assert first.closed and not second.closed and texts.free == 1
    third = texts.open()
    both = texts.step([second, third], [[4], [5, 6]])
    assert np.array_equal(both[0], alone(model, [[9], [4]])[1])
    assert np.array_equal(both[1], alone(model, [[5, 6]])[0])


def test_what_a_step_cannot_take_changes_nothing(model: LanguageModel) -> None:
    texts = model.texts(3)
    a, b, closed = texts.open(), texts.open(), texts.open()
    closed.close()
    texts.step([a, b], [[1], [2, 3]])
    for stepped, tokens, said in [
        ([a, a], [[1], [2]], "there twice"),
        ([a, closed], [[1], [2]], "closed"),
        ([a], [[1], [2]], "1 text, tokens for 2"),
        ([b, a], [[1], []], "empty"),
        ([b, a], [[1], [10**6]], "not in the model's vocabulary"),
        ([a, b], [[1], [4] * (CAPACITY - 1)], f"no room for {CAPACITY - 1} tokens: {CAPACITY - 2}"),
    ]:
        with pytest.raises(InputError, match=said):
            texts.step(stepped, tokens)
        assert (a.length, b.length) == (1, 2)


def test_a_model_used_besides_its_texts_is_told(model: LanguageModel) -> None:
    texts = model.texts(1)
    text = texts.open()
    texts.step([text], [[1]])
    model.logits([2])
    with pytest.raises(UsageError, match="used besides its texts"):
        texts.step([text], [[3]])
    with pytest.raises(UsageError, match="0 slots"):
        model.texts(0)


def test_a_text_goes_back_and_on_as_if_nothing_had_been(model: LanguageModel) -> None:
    texts = model.texts(2)
    a, b = texts.open(), texts.open()
    texts.step([a], [[1, 2, 3, 4, 5]])
    texts.step([a, b], [[6, 7], [8]])
    a.rewind(5)
    found = texts.step([a], [[9]])[0]
    assert a.length == 6
    with pytest.raises(InputError, match="cannot go back to 7 positions: the caches hold 6"):
        a.rewind(7)
    assert np.array_equal(found, alone(model, [[1, 2, 3, 4, 5], [9]])[1])


@pytest.fixture(scope="module")
def two(compiled: Compiled) -> tuple[LanguageModel, LanguageModel]:
    return LanguageModel(compiled, threads=1), LanguageModel(compiled, threads=1)


@settings(max_examples=15)
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=12))
def test_any_order_of_steps_gives_each_text_its_own(
    two: tuple[LanguageModel, LanguageModel], steps: list[tuple[int, int]]
) -> None:
    """Each step is a text's next tokens, or none: it goes back to half of its parts."""
    model, single = two
    texts = model.texts(3)
    opened, fed, last = [texts.open() for _ in range(3)], [[] for _ in range(3)], dict[int, Array]()
    for who, count in steps:
        tokens = [(7 * who + 13 * i) % SHAPE.vocabulary for i in range(count)]
        if not count:
            fed[who] = fed[who][: len(fed[who]) // 2]
            opened[who].rewind(sum(map(len, fed[who])))
            last.pop(who, None)
        elif sum(map(len, fed[who])) + count <= CAPACITY:
            fed[who].append(tokens)
            last[who] = texts.step([opened[who]], [tokens])[0]
    for who, logits in last.items():
        assert np.array_equal(alone(single, fed[who])[-1], logits)


# -- a program's states --------------------------------------------------------------------------


def summing() -> bytes:
    """What sums a cache as it lies, with nothing that masks it: positions that hold nothing must be 0."""
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Concat", ["past", "x"], ["present"], axis=1),
            helper.make_node("ReduceSum", ["present", "over"], ["y"], keepdims=0),
        ],
        "sum",
        [values("x", TensorProto.FLOAT, [1, "S", 2]), values("past", TensorProto.FLOAT, [1, "P", 2])],
        [values("y", TensorProto.FLOAT, [1, 2]), values("present", TensorProto.FLOAT, [1, "P + S", 2])],
        [numpy_helper.from_array(np.array([1]), "over")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.fixture(scope="module", params=[False, True], ids=["homes", "guard"])
def sums(request: pytest.FixtureRequest) -> Program:
    made = compile_model(
        summing(),
        wafer="8x8",
        capacity=8,
        states=[("past", "present")],
        entries={"one": {"S": 1}, "three": {"S": 3}},
    )
    return made.prepared(1, request.param)


def rows(*values: float) -> Array:
    return np.array([[[v, -v] for v in values]], np.float32)


def test_what_is_forgotten_counts_for_nothing(sums: Program) -> None:
    sums.reset()
    sums.run({"x": rows(1, 2, 4)}, entry="three")
    kept = sums.keep()
    sums.run({"x": rows(8, 16, 32)}, entry="three")
    sums.rewind(4)
    assert sums.run({"x": rows(64)}, entry="one")["y"].tolist() == [[79, -79]]
    sums.restore(kept)
    assert sums.length == 3 and sums.run({"x": rows(64)}, entry="one")["y"].tolist() == [[71, -71]]
    sums.rewind(0)
    assert sums.run({"x": rows(3)}, entry="one")["y"].tolist() == [[3, -3]]
    sums.restore(kept)
    sums.rewind(1)
    assert sums.run({"x": rows(64)}, entry="one")["y"].tolist() == [[65, -65]]


def test_what_a_failed_call_has_written_counts_for_nothing(
    sums: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums.reset()
    sums.run({"x": rows(1)}, entry="one")
    machine: Any = sums._machine  # pyright: ignore[reportPrivateUsage]
    run = machine.call

    def failing(entry: str, threads: int) -> None:
        run(entry, threads)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(machine, "call", failing)
        sums.run({"x": rows(10, 20, 40)}, entry="three")
    assert sums.run({"x": rows(2)}, entry="one")["y"].tolist() == [[3, -3]]


def test_a_state_that_is_no_cache_cannot_go_back() -> None:
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "h"], ["new"]), helper.make_node("Relu", ["new"], ["y"])],
        "running",
        [values("x", TensorProto.FLOAT, [2]), values("h", TensorProto.FLOAT, [2])],
        [values("y", TensorProto.FLOAT, [2]), values("new", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    program = compile_model(model, wafer="8x8", states=[("h", "new")]).prepared(1)
    x = np.array([1, 2], np.float32)
    program.run({"x": x})
    kept = program.keep()
    program.run({"x": x})
    with pytest.raises(InputError, match="state 'h' is no cache"):
        program.rewind(0)
    program.restore(kept)
    assert program.run({"x": x})["y"].tolist() == [2, 4]
