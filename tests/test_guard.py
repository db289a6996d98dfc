"""Guard finds what is planted, names it by op and core, and finds nothing in good programs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from plans import GRAPHS, Model, planned, riding
from waferc.ir import dtypes
from waferc.ir.builder import Carried, KernelBuilder, Value
from waferc.ir.graph import Graph
from waferc.ir.op import Array
from waferc.ir.ops.rearrange import Copy
from waferc.placement.build import addresses
from waferc.placement.machine.presets import preset
from waferc.placement.plan.plan import Buffer, Operand, Plan, Step
from waferc.placement.planner import plan
from waferc.runtime import sram
from waferc.runtime.guard import GuardViolation
from waferc.runtime.load import prepare


def inputs_of(graph: Graph, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    shapes = {t: graph.tensors[t] for t in graph.inputs}
    return {n: random.standard_normal(t.shape).astype(t.dtype.numpy) for n, t in shapes.items()}


def found(broken: Plan) -> str:
    """What guard says of a plan that must break a rule."""
    with pytest.raises(GuardViolation) as e:
        prepare(broken, guard=True).run(inputs_of(broken.graph))
    return str(e.value)


def cores_of(broken: Plan, step: Step) -> set[tuple[int, int]]:
    numbers = broken.regions[step.region].on(step.grid).ravel()
    return {(int(n) % broken.wafer.width, int(n) // broken.wafer.width) for n in numbers}


def names(message: str, broken: Plan, step: Step) -> bool:
    """Whether a message names the step, and a core that the step runs on."""
    core = re.search(r"core \((\d+), (\d+)\)", message)
    assert core, message
    at = int(core[1]), int(core[2])
    return f"{step.name!r} ({step.op.name})" in message and at in cores_of(broken, step)


def with_step(p: Plan, number: int, **changes: Any) -> Plan:
    steps = list(p.steps)
    steps[number] = replace(steps[number], **changes)
    return replace(p, steps=tuple(steps))


def with_buffer(p: Plan, number: int, **changes: Any) -> Plan:
    buffers = list(p.buffers)
    buffers[number] = replace(buffers[number], **changes)
    return replace(p, buffers=tuple(buffers))


def step_where(p: Plan, fits: Callable[[Step], bool]) -> Step:
    return next(s for s in p.steps if fits(s))


# -- good programs ---------------------------------------------------------------------------


@pytest.mark.parametrize("wafer", ["8x8", "16x16"])
@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_is_found_in_a_good_program_and_the_bits_are_the_same(name: str, wafer: str) -> None:
    p = planned(name, wafer)
    inputs = inputs_of(p.graph)
    plain, guarded = prepare(p), prepare(p, guard=True)
    for _ in range(2):
        ours, theirs = guarded.run(inputs, 2), plain.run(inputs, 1)
        assert {n: a.tobytes() for n, a in ours.items()} == {n: a.tobytes() for n, a in theirs.items()}


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_is_found_where_buffers_lie_densely(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is short: a buffer starts where the one before it ends."""
    monkeypatch.setattr(addresses, "ALIGNMENT", addresses.DENSE)
    p = plan(GRAPHS[name](), preset("16x16"))
    assert any(b.address % 16 for b in p.buffers)
    prepare(p, guard=True).run(inputs_of(p.graph))


@pytest.mark.parametrize("kind", ["Conv", "MaxPool"])
def test_a_constant_is_padded_where_it_lies(kind: str) -> None:
    """A window over a constant: no move brings what lies past its ends."""
    m = Model()
    w, picture = m.tensor("w", (2, 1, 3, 3), dtypes.F32), m.normal(0, 1, 1, 6, 6)
    if kind == "Conv":
        y = m.op(kind, picture, w, pads=[1] * 4)
    else:
        y = m.op("Add", m.op(kind, picture, kernel_shape=[4, 4], pads=[2, 2, 1, 1]), m.op("ReduceSum", w))
    p = plan(m.graph("padded", [w], [y]), preset("8x8"))
    inputs = inputs_of(p.graph)
    plain, guarded = (prepare(p, guard=g).run(inputs)[y] for g in (False, True))
    assert np.isfinite(plain).all() and plain.tobytes() == guarded.tobytes()


def half_precision() -> Graph:
    """A chain in f16 whose values are all bits that one byte of poison makes."""
    m = Model()
    x = m.tensor("x", (6, 40), dtypes.F16)
    h = m.op("Neg", m.op("Neg", x))
    return m.graph("half", [x], [m.op("Transpose", h, perm=[1, 0])])


def test_one_honest_value_that_looks_like_poison_is_let_through() -> None:
    p = plan(half_precision(), preset("8x8"))
    x = np.ones((6, 40), np.float16)
    x[::2, ::4] = np.frombuffer(b"\xa5\xa5", np.float16)[0]
    (out,) = prepare(p, guard=True).run({"x": x}).values()
    np.testing.assert_array_equal(out, x.T)


# -- planted kernels -------------------------------------------------------------------------


class Planted(Copy):
    """A copy with a kernel that goes wrong at its tile's last element."""

    ahead_read = 0
    ahead_write = 0

    def body(self, k: KernelBuilder) -> None:
        def nest(rest: list[str], index: dict[str, Value]) -> None:
            if rest:

                def step(i: Value, carried: Carried) -> Carried:
                    nest(rest[1:], {**index, rest[0]: i})
                    return carried

                k.loop(k.extent(rest[0]), step)
                return
            last = [a for a, _ in self.axes][-1]
            read = {**index, last: k.add_index(index[last], self.ahead_read)}
            write = {**index, last: k.add_index(index[last], self.ahead_write)}
            k.store(k.load(0, read), write)

        nest([a for a, _ in self.axes], {})


class ReadsPast(Planted):
    ahead_read = 1


class WritesToNeighbour(Planted):
    ahead_write = 48 * 1024 // 4


def test_a_copy_that_keeps_to_its_tile_is_not_accused() -> None:
    p, s = planted(Planted)
    (out,) = prepare(p, guard=True).run(inputs_of(p.graph)).values()
    np.testing.assert_array_equal(out, np.maximum(inputs_of(p.graph)["x"], 0))
    assert s.op.name == "Planted"


def planted(kind: type[Planted]) -> tuple[Plan, Step]:
    """relu(x) copied by a planted op, which takes the place of a Neg."""
    m = Model()
    x = m.tensor("x", (24, 40), dtypes.F32)
    p = plan(m.graph("planted", [x], [m.op("Neg", m.op("Relu", x))]), preset("8x8"))
    s = step_where(p, lambda s: s.op.name == "Neg")
    op = kind(**{f.name: getattr(s.op, f.name) for f in fields(s.op)})
    p = with_step(p, s.number, op=op)
    return p, p.steps[s.number]


def test_a_kernel_that_reads_one_element_past_its_buffer() -> None:
    p, s = planted(ReadsPast)
    message = found(p)
    assert names(message, p, s), message
    assert "operand 0" in message
    assert "read outside its buffer" in message


def test_a_kernel_that_writes_to_a_neighbour() -> None:
    p, s = planted(WritesToNeighbour)
    message = found(p)
    assert names(message, p, s), message
    assert "the result of" in message
    assert "wrote outside its buffer" in message


# -- planted plans ---------------------------------------------------------------------------


def used_later(p: Plan) -> tuple[Buffer, Step]:
    """A result that is read two steps or more after it was made, and its last reader."""
    for s in reversed(p.steps):
        for number in [o.buffer for o in s.operands] + [m.source for o in s.operands for m in o.moves]:
            b = p.buffers[number]
            if b.role == "result" and b.live[1] == s.position > b.live[0] + 1:
                return b, s
    raise AssertionError("no result is read late")


def test_a_lifetime_cut_short_is_a_stale_read() -> None:
    p = planned("attention", "8x8")
    b, reader = used_later(p)
    p = with_buffer(p, b.number, live=(b.live[0], reader.position - 1))
    message = found(p)
    assert names(message, p, reader), message
    assert "does not hold" in message


def test_an_address_that_is_used_again_too_early() -> None:
    """The dead buffer's bytes are another's by then: no poison shows it."""
    p = planned("attention", "8x8")
    b, reader = used_later(p)
    thief = step_where(p, lambda s: s.position > b.live[0] and s.kind == "task")
    assert thief.position < reader.position
    p = with_buffer(p, thief.result, address=b.address)
    message = found(p)
    # Whoever reads the overwritten buffer first is named; no later than its last reader.
    named = [s for s in p.steps if f"{s.name!r}" in message]
    assert any(names(message, p, s) and s.position <= reader.position for s in named), message


def test_an_operand_that_its_reader_overwrites_too_early() -> None:
    """A result laid over an operand that another step still reads: its bytes are good, but another's."""
    p = riding()
    s, b = next(
        (s, p.buffers[o.buffer])
        for s in p.steps
        for j, o in enumerate(s.operands)
        if s.op.overwrites(j) and not o.received and p.buffers[o.buffer].live[1] > s.position
    )
    later = step_where(p, lambda r: r.position > s.position and b.number in {o.buffer for o in r.operands})
    p = with_buffer(p, s.result, over=b.number, address=b.address, order=b.order)
    message = found(p)
    assert names(message, p, later), message
    assert "does not hold" in message


def received(p: Plan, fits: Callable[[Operand], bool]) -> tuple[Step, int]:
    for s in p.steps:
        for j, o in enumerate(s.operands):
            if s.kind == "task" and o.received and fits(o):
                return s, j
    raise AssertionError("no such operand")


def with_operand(p: Plan, s: Step, j: int, **changes: Any) -> Plan:
    operands = list(s.operands)
    operands[j] = replace(operands[j], **changes)
    return with_step(p, s.number, operands=tuple(operands))


@pytest.mark.parametrize("name", ["mlp", "attention", "parts"])
def test_a_dropped_copy(name: str) -> None:
    p = planned(name, "8x8")
    s, j = received(p, lambda o: len(o.moves) > 0 and not o.fill)
    p = with_operand(p, s, j, moves=s.operands[j].moves[1:])
    message = found(p)
    assert names(message, p, s), message
    assert f"operand {j}" in message
    assert "nobody wrote" in message


def test_a_dropped_fill() -> None:
    p = planned("convolution", "8x8")
    s, j = received(p, lambda o: o.fill)
    p = with_operand(p, s, j, fill=False)
    message = found(p)
    assert names(message, p, s), message
    assert "nobody wrote" in message


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_move_that_leaves_its_buffer(end: str) -> None:
    p = planned("mlp", "8x8")
    s, j = received(p, lambda o: len(o.moves) > 0 and not o.fill)
    move = s.operands[j].moves[0]
    dims = list(move.dims)
    dims[-1] = replace(dims[-1], **{end: getattr(dims[-1], end) + 4096})
    moves = (replace(move, dims=tuple(dims)), *s.operands[j].moves[1:])
    p = with_operand(p, s, j, moves=moves)
    message = found(p)
    assert names(message, p, s), message
    assert ("does not hold" if end == "source" else "wrote outside") in message


def test_a_wrongly_elided_receive() -> None:
    """Each core takes its own share of the producer's result for what it needs."""
    p = planned("mlp", "8x8")
    by_result = {s.result: s for s in p.steps if s.kind != "update"}
    s, j = received(
        p,
        lambda o: (
            len(o.moves) == 1
            and not o.fill
            and p.buffers[o.buffer].region == by_result[o.moves[0].source].region
        ),
    )
    p = with_operand(p, s, j, received=False, moves=(), buffer=s.operands[j].moves[0].source)
    message = found(p)
    assert names(message, p, s), message
    assert f"operand {j}" in message
    assert "in place" in message


def test_the_same_violation_is_named_by_any_number_of_threads() -> None:
    p, _ = planted(ReadsPast)
    program = prepare(p, guard=True)
    messages: set[str] = set()
    for threads in (1, 2, 1, 2):
        with pytest.raises(GuardViolation) as e:
            program.run(inputs_of(p.graph), threads)
        messages.add(str(e.value))
    assert len(messages) == 1


def test_a_violation_leaves_the_program_usable() -> None:
    """Poison is laid anew: what one call left does not accuse the next."""
    p, _ = planted(ReadsPast)
    program = prepare(p, guard=True)
    for _ in range(2):
        with pytest.raises(GuardViolation, match="outside"):
            program.run(inputs_of(p.graph))


# -- memory ----------------------------------------------------------------------------------


def test_too_little_memory_is_refused_before_anything_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sram, "available", lambda: 1000)
    with pytest.raises(sram.NotEnoughMemory, match=r"64 cores needs [\d,]+ bytes of memory, 1,000 are free"):
        prepare(planned("mlp", "8x8"), guard=True)
    assert issubclass(sram.NotEnoughMemory, MemoryError)
