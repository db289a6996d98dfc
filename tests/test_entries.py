"""Programs with several entries: what they share is there once, and they go on from one another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from plans import Model, all_shared
from waferc.codegen.artifact import artifact
from waferc.codegen.artifact.artifact import InvalidArtifact, read, write
from waferc.codegen.host.arena import Shared, share
from waferc.codegen.host.homes import LINE
from waferc.codegen.literal.tags import tags_of
from waferc.compiler.cli.main import main
from waferc.ir import dtypes
from waferc.ir.absent import absent
from waferc.ir.affine import Affine, axis
from waferc.ir.entries import agreed
from waferc.ir.evaluate import evaluate
from waferc.ir.graph import Graph
from waferc.ir.op import Array
from waferc.ir.ops.contract import Contract
from waferc.placement.build.companions import Companions
from waferc.placement.judge.entries import judge_entries
from waferc.placement.judge.judge import IllegalPlan, judge
from waferc.placement.machine.presets import preset
from waferc.placement.plan.plan import Plan
from waferc.placement.planner import plan
from waferc.placement.search.second_entry import plan_beside
from waferc.placement.splits.policy import POLICY
from waferc.runtime.guard import GuardViolation
from waferc.runtime.load import files, load, prepare
from waferc.runtime.program import InputError, Program

Plans = dict[str, Plan]
COLUMNS = 300  # several panels


def sums(rows: int, kind: str) -> Graph:
    """A running sum over calls: present = past + (or -) the rows' sum; y = x @ w + past @ v."""
    m = Model()
    x, past = m.tensor("x", (rows, 24), dtypes.F32), m.tensor("past", (1, 24), dtypes.F32)
    w, v = m.normal(0, 24, COLUMNS), m.normal(1, 24, COLUMNS)
    y = m.op("Add", m.op("MatMul", x, w), m.op("MatMul", past, v))
    total = m.op("ReduceSum", x, m.constant(np.array([0], np.int64)), keepdims=1)
    present = m.op(kind, past, total)
    return m.graph("sums", [x, past], [y, present], [(past, present)])


@cache
def graphs() -> dict[str, Graph]:
    """One row at a time added, or five at a time subtracted."""
    return agreed({"one": sums(1, "Add"), "five": sums(5, "Sub")})


@cache
def planned_together(wafer: str = "16x16") -> Plans:
    one, five = graphs().values()
    first = plan(one, preset(wafer), companions=Companions((five,)))
    plans = {"one": first, "five": plan_beside(five, first)}
    for p in plans.values():
        judge(p)
    return plans


CALLS = ("one", "five", "five", "one", "one", "five")


def given(name: str, number: int) -> dict[str, Array]:
    shape = graphs()[name].tensors["x"].shape
    return {"x": np.random.default_rng(number).standard_normal(shape).astype(np.float32)}


def played(program: Program, threads: int = 1) -> list[bytes]:
    """The bits of all outputs of some calls."""
    program.reset()
    return [a.tobytes() for i, n in enumerate(CALLS) for a in program.run(given(n, i), threads, n).values()]


# -- running -----------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", [False, True])
def test_entries_go_on_from_one_another(guard: bool) -> None:
    program = prepare(planned_together(), guard=guard)
    past = np.zeros((1, 24), np.float32)
    for i, name in enumerate(CALLS):
        graph = graphs()[name]
        y, present = graph.outputs
        right = evaluate(graph, {**given(name, i), "past": past})
        out = program.run(given(name, i), entry=name)
        np.testing.assert_allclose(out[y], right[y], rtol=0, atol=1e-4)
        np.testing.assert_allclose(out[present], right[present], rtol=0, atol=1e-5)
        past = out[present]


def test_guarded_calls_and_all_threads_give_the_same_bits() -> None:
    plans = planned_together()
    right = played(prepare(plans))
    assert played(prepare(plans, guard=True)) == right
    with all_shared():
        shared = prepare(plans)
    for threads in (1, 2, 1):
        assert played(shared, threads) == right


def test_each_entry_has_its_own_ports_and_the_first_is_called_where_none_is_named() -> None:
    program = prepare(planned_together())
    assert list(program.entries) == ["one", "five"]
    assert {n: p.by_name["x"].shape for n, p in program.entries.items()} == {"one": (1, 24), "five": (5, 24)}
    assert program.ports is program.entries["one"]
    assert program.state_inputs == {"past"}
    x = given("one", 0)
    first = {n: a.tobytes() for n, a in program.run(x).items()}
    program.reset()
    assert {n: a.tobytes() for n, a in program.run(x, entry="one").items()} == first
    with pytest.raises(InputError, match="no entry 'two'; entries are 'one', 'five'"):
        program.run(x, entry="two")
    with pytest.raises(InputError, match=r"shape \[1, 24\], compiled for \[5, 24\]"):
        program.run(x, entry="five")


def test_a_state_given_to_one_entry_is_what_the_other_goes_on_from() -> None:
    program = prepare(planned_together())
    past = np.ones((1, 24), np.float32)
    x = given("five", 0)["x"]
    (_, present) = program.run({"x": x, "past": past}, entry="five").values()
    (_, after) = program.run({"x": np.zeros((1, 24), np.float32)}, entry="one").values()
    np.testing.assert_array_equal(after, present)


# -- memory ------------------------------------------------------------------------------------


def test_what_entries_share_lies_in_the_hosts_memory_once() -> None:
    plans = planned_together()
    both = share(plans, 16)
    alone = {n: share({n: p}, 16) for n, p in plans.items()}

    def kept(homes: Any) -> dict[str, int]:
        return {h.tensor: h.bytes for h in homes.values() if h.stays}

    def turns(s: Shared) -> int:
        """Bytes for what is not kept."""
        return s.bytes - sum(-(-n // LINE) * LINE for n in kept(s.homes).values())

    assert kept(both.homes) == kept(alone["one"].homes)
    assert len([h for h in both.homes.values() if h.kind == "constant"]) == 2
    # What is not kept takes turns, so that two entries need no more than the larger of them.
    assert turns(both) <= max(map(turns, alone.values()))


def test_products_of_several_rows_take_parts_of_the_panels_of_one() -> None:
    both = share(planned_together(), 16)
    widths: dict[str, set[tuple[int, int, int]]] = {"one": set(), "five": set()}
    for name, part in both.entries.items():
        for s in part.sweeps:
            for v in s.views:
                if v.panels is not None and both.homes[v.home].tensor == "weight":
                    lane = [a for a, _ in s.op.axes].index(v.panels.axis)
                    widths[name].add((v.home, v.panels.width, int(s.boxes.extent[:, lane].max())))
                    first, extent = s.boxes.first[:, lane], s.boxes.extent[:, lane]
                    assert (first // v.panels.width == (first + extent - 1) // v.panels.width).all()
    ((home, *one),) = widths["one"]
    ((same, *five),) = widths["five"]
    assert home == same
    assert (one, five) == ([96, 96], [96, 32])


def test_homes_of_entries_share_addresses_only_where_they_never_meet() -> None:
    with all_shared():
        both = share(planned_together(), 16)
    users: dict[int, set[str]] = {}
    for name, part in both.entries.items():
        for i, s in enumerate(part.sweeps):
            for v in s.views:
                home = both.homes[v.home]
                users.setdefault(v.home, set()).add(name)
                assert home.live[0] <= part.first + i <= home.live[1]
        for lay in (*part.inputs, *part.outputs):
            users.setdefault(lay.home, set()).add(name)
    homes = list(both.homes.values())

    for i, a in enumerate(homes):
        for b in homes[:i]:
            apart = a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
            if a.stays or b.stays or (users[a.number] & users[b.number] and (a.bound or b.bound)):
                assert apart
    assert all(len(users[h.number]) == 1 for h in homes if not h.stays)


def test_tags_agree_on_what_is_shared_and_on_nothing_else() -> None:
    one, five = planned_together().values()
    a, b = tags_of([one, five])
    assert not a.laid_before
    common = set(a.tags) & set(b.tags)
    roles = {
        p.buffers[i].role for p, t in ((one, a), (five, b)) for i, tag in enumerate(t.tags) if tag in common
    }
    assert roles == {"constant", "state"}
    laid = {five.buffers[i].name for i in b.laid_before if five.buffers[i].role == "constant"}
    assert laid == {"weight", "weight.1"}


def test_guard_finds_plans_that_do_not_agree() -> None:
    """Planned each for itself, they lay different things on the same cores."""
    plans = {n: plan(g, preset("4x4")) for n, g in graphs().items()}
    moved = plans["five"]
    other = {b.number: replace(b, address=b.address + 16) for b in moved.buffers}
    plans["five"] = replace(moved, buffers=tuple(other[b.number] for b in moved.buffers))
    with pytest.raises(GuardViolation, match="SRAM that its buffer does not hold"):
        played(prepare(plans, guard=True))


# -- names of constants ------------------------------------------------------------------------


def named(name: str, *values: Any) -> Graph:
    """x + every value, by names that count."""
    m = Model()
    x = m.tensor("x", (4,), dtypes.F32)
    y = x
    for v in values:
        y = m.op("Add", y, m.constant(v, "c"))
    return m.graph(name, [x], [y])


def test_equal_constants_get_one_name_and_others_their_own() -> None:
    a, b, c = (np.full(4, v, np.float32) for v in (1, 2, 3))
    made = agreed({"p": named("p", a, b), "q": named("q", c, b, a), "r": named("r", b)})
    p, q, r = made.values()
    values = {n: v[0] for g in made.values() for n, v in g.constants.items()}
    assert sorted(values.values()) == [1, 2, 3]
    for g in (p, q, r):
        g.check()
        assert {n: v[0] for n, v in g.constants.items()}.items() <= values.items()
    x = np.zeros(4, np.float32)
    assert [float(next(iter(evaluate(g, {"x": x}).values()))[0]) for g in (p, q, r)] == [3, 6, 2]


def test_constants_without_values_are_the_same_where_they_must_be() -> None:
    def graph(*names: str) -> Graph:
        g = named("a", *(np.zeros(4, np.float32) for _ in names))
        kinds = dict(zip(g.constants, names, strict=True))
        return replace(g, constants={n: absent(kinds[n], (4,), np.dtype(np.float32)) for n in g.constants})

    a, b = agreed({"a": graph("w", "v"), "b": graph("v", "u")}).values()
    assert len(a.constants | b.constants) == 3


def test_one_name_for_two_constants_is_refused() -> None:
    plans = {str(v): plan(named("n", np.full(4, v, np.float32)), preset("4x4")) for v in (1, 2)}
    with pytest.raises(ValueError, match="constant 'c' of entry '2' is another one"):
        artifact.weights(plans)
    with pytest.raises(ValueError, match="another one"):
        prepare(plans)


# -- the artifact ------------------------------------------------------------------------------


def parts(plans: Plans) -> dict[str, bytes | Array]:
    texts = {n: {"plan": str(p)} for n, p in plans.items()}
    return artifact.describe(plans, texts) | artifact.weights(plans) | files(plans)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("entries") / "sums.wafer"
    from dataclasses import asdict

    from waferc.compiler.show.figures import figures
    from waferc.placement.cost.links import link_bytes

    plans = planned_together()
    totals = {n: asdict(figures(p, link_bytes(p))) for n, p in plans.items()}
    write(path, {"waferc": "test", "entries": list(plans), "figures": totals}, parts(plans))
    return path


@pytest.mark.parametrize("guard", [False, True])
def test_a_loaded_program_has_all_entries(saved: Path, guard: bool) -> None:
    assert played(load(saved, guard=guard)) == played(prepare(planned_together()))


def test_the_plans_come_back(saved: Path) -> None:
    a = read(saved)
    assert a.entries == ("one", "five")
    for name, p in planned_together().items():
        assert str(a.plans()[name]) == str(a.plan(name)) == str(p)
        assert a.phases(name) == {"plan": str(p)}
    with pytest.raises(InvalidArtifact, match="no entry 'two'; entries are one, five"):
        a.plan("two")


def test_what_entries_share_is_in_the_file_once(saved: Path) -> None:
    names = sorted(read(saved).files)
    weights = [n for n in names if n.startswith("weights/")]
    assert len(weights) == len(graphs()["one"].constants)
    folders = {n: sorted(f.removeprefix(f"{n}/") for f in names if f.startswith(f"{n}/")) for n in CALLS}
    assert (
        folders["one"]
        == folders["five"]
        == [
            "graph.json",
            "image.json",
            "phases/plan.txt",
            "placement.json",
            "tables/fills.npy",
            "tables/relocations.npy",
            "tables/words.npy",
        ]
    )


ODD_NAMES: list[Any] = [
    None, 7, {}, [], [7], [""], [None], ["../one"], ["one/"], ["one", "one"], ["1"], ["a b"], ["é"],
    ["one", "five\n"], ["a" * 65], ["-x"], [".."], ["one\0"], "one",
]  # fmt: skip


@pytest.mark.parametrize("names", ODD_NAMES, ids=repr)
def test_hostile_names_of_entries(saved: Path, tmp_path: Path, names: Any) -> None:
    write(tmp_path / "a", {"entries": names}, dict(read(saved).files))
    with pytest.raises(InvalidArtifact, match="manifest"):
        load(tmp_path / "a")


def test_an_entry_that_is_not_in_the_file(saved: Path, tmp_path: Path) -> None:
    write(tmp_path / "a", {"entries": ["one", "weights"]}, dict(read(saved).files))
    with pytest.raises(InvalidArtifact, match=r"file 'weights/image\.json' is missing"):
        load(tmp_path / "a")


Edit = Callable[[dict[str, Any]], None]


def past_elsewhere(facts: dict[str, Any]) -> None:
    next(c for c in facts["laid"] if c[0] == "past")[3] += 128


def groups_outside(facts: dict[str, Any]) -> None:
    facts["groups"] = [1 << 40, 1]


def another_length(facts: dict[str, Any]) -> None:
    facts["length"] = ["n", 7, 1, []]
    facts["laid"].append(["n", "int64", [], 0, [], 0, []])


@pytest.mark.parametrize(
    "edits, message",
    [
        ({"five": past_elsewhere}, "state 'past' is not the same in all entries"),
        ({"five": groups_outside}, r"five/tables/words\.npy: a group leaves"),
    ],
)
def test_every_entry_is_judged_and_all_of_them_together(
    saved: Path, tmp_path: Path, edits: dict[str, Edit], message: str
) -> None:
    a = read(saved)
    changed: dict[str, bytes | Array] = dict(a.files)
    for name, edit in edits.items():
        facts = a.json(f"{name}/image.json")
        edit(facts)
        changed[f"{name}/image.json"] = json.dumps(facts).encode()
    write(tmp_path / "a", dict(a.manifest), changed)
    with pytest.raises(InvalidArtifact, match=message):
        load(tmp_path / "a")


def test_caches_of_different_capacities_are_refused(saved: Path, tmp_path: Path) -> None:
    a = read(saved)
    changed: dict[str, bytes | Array] = dict(a.files)
    for capacity, name in enumerate(a.entries, 7):
        facts = a.json(f"{name}/image.json")
        another_length(facts)
        facts["length"][1] = capacity
        changed[f"{name}/image.json"] = json.dumps(facts).encode()
    write(tmp_path / "a", dict(a.manifest), changed)
    with pytest.raises(InvalidArtifact, match=r"caches of \[7, 8\] positions"):
        load(tmp_path / "a")


# -- the command line --------------------------------------------------------------------------


def waferc(*words: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, words, terminal_width=80, prog_name="waferc")


def test_verbs_take_an_entry(saved: Path, tmp_path: Path) -> None:
    for name, shape in (("one", (1, 24)), ("five", (5, 24))):
        out, data = tmp_path / f"{name}.npz", tmp_path / f"{name}.json"
        done = waferc("run", str(saved), "--entry", name, "--random", "0", "-o", str(out))
        assert done.exit_code == 0, done.stderr
        with np.load(out) as made:
            assert made[graphs()[name].outputs[0]].shape == (shape[0], COLUMNS)
        done = waferc("inspect", str(saved), "--entry", name, "--json", str(data))
        assert done.exit_code == 0, done.stderr
        assert f"entry {name} of one, five" in done.stdout
        assert json.loads(data.read_text())["steps"][0]["op"] == "input"
        for verb, suffix in (("heatmap", "svg"), ("report", "html")):
            done = waferc(verb, str(saved), "--entry", name, "-o", str(tmp_path / f"{name}.{suffix}"))
            assert done.exit_code == 0, done.stderr
    done = waferc("inspect", str(saved))
    assert "entry one of one, five" in done.stdout
    done = waferc("run", str(saved), "--entry", "two", "--random", "0")
    assert done.exit_code == 2
    assert "--entry two" in done.stderr and "'one', 'five'" in done.stderr


# -- what one entry reads with other axes ------------------------------------------------------------
def heads(rows: int, apart: bool) -> Graph:
    """x @ w in heads of 16. apart: the product has an axis for heads and one inside each."""
    m = Model()
    x, w = m.tensor("x", (rows, 64), dtypes.F32), m.normal(0, 64, 64)
    if not apart:
        y = m.op("MatMul", x, w)
        return m.graph(
            "heads", [x], [m.op("Transpose", m.op("Reshape", y, m.constant(np.array([0, 4, 16]))))]
        )
    op = Contract(
        axes=(("m", rows), ("n_0", 4), ("n_1", 16), ("k", 64)),
        reads=((axis("m"), axis("k")), (axis("k"), Affine((("n_0", 16), ("n_1", 1))))),
        write=(axis("n_1"), axis("n_0"), axis("m")),
        in_types=(dtypes.F32, dtypes.F32),
        out_type=dtypes.F32,
    )
    return m.graph("heads", [x], [m.emit(op, [x, w], (16, 4, rows))])


@pytest.mark.parametrize("wafer", ["4x4", "8x8", "16x16"])
def test_a_weight_that_another_entry_reads_with_other_axes_lies_once(wafer: str) -> None:
    one, ten = agreed({"one": heads(1, apart=False), "ten": heads(10, apart=True)}).values()
    first = plan(one, preset(wafer), companions=Companions((ten,)))
    plans = {
        "one": first,
        "ten": plan_beside(ten, first, policy=replace(POLICY, copied_share=0, loose_bytes=0)),
    }
    judge_entries(plans)
    kept = [[b for b in p.buffers if b.role == "constant"] for p in plans.values()]
    assert len({(b.name, b.address, b.shape, b.grid) for both in kept for b in both}) == 1
    program = prepare(plans)
    for name, graph in (("one", one), ("ten", ten)):
        x = given_rows(graph.tensors["x"].shape)
        (y,) = program.run({"x": x}, entry=name).values()
        (right,) = evaluate(graph, {"x": x}).values()
        np.testing.assert_allclose(y, right, rtol=0, atol=1e-4)


def given_rows(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def scaled(rows: int) -> Graph:
    """Queries in 4 heads and keys in 2, each times one weight."""
    m = Model()
    g = m.normal(2, 16)
    q, k = m.tensor("q", (rows, 4, 16), dtypes.F32), m.tensor("k", (rows, 2, 16), dtypes.F32)
    return m.graph("scaled", [q, k], [m.op("Mul", q, g), m.op("Mul", k, g)])


@pytest.mark.parametrize("wafer", ["8x8", "16x16"])
def test_a_weight_of_several_readers_is_read_by_each_as_it_can(wafer: str) -> None:
    one, ten = agreed({"one": scaled(1), "ten": scaled(10)}).values()
    first = plan(one, preset(wafer), companions=Companions((ten,)))
    plans = {"one": first, "ten": plan_beside(ten, first)}
    judge_entries(plans)
    program = prepare(plans)
    given = {t: given_rows(ten.tensors[t].shape) for t in ("q", "k")}
    for (name, y), right in zip(
        program.run(given, entry="ten").items(), evaluate(ten, given).values(), strict=True
    ):
        np.testing.assert_array_equal(y, right, name)


def own_constants(rows: int) -> Graph:
    """y = x @ w + a constant of as many rows."""
    m = Model()
    x = m.tensor("x", (rows, 24), dtypes.F32)
    return m.graph(
        "rows", [x], [m.op("Add", m.op("MatMul", x, m.normal(0, 24, 40)), m.normal(rows, rows, 40))]
    )


def test_what_a_third_entry_keeps_lies_clear_of_what_the_second_one_keeps() -> None:
    one, five, nine = agreed({f"{n}": own_constants(n) for n in (1, 5, 9)}).values()
    first = plan(one, preset("4x4"), companions=Companions((five, nine)))
    second = plan_beside(five, first)
    plans = {"1": first, "5": second, "9": plan_beside(nine, first, [second])}
    for p in plans.values():
        judge(p)
    judge_entries(plans)
    with pytest.raises(IllegalPlan, match="both have address"):
        judge_entries({**plans, "9": plan_beside(nine, first)})
    for guard in (False, True):
        program = prepare(plans, guard=guard)
        for name in ("9", "1", "5", "9"):
            x = np.random.default_rng(len(name)).standard_normal((int(name), 24)).astype(np.float32)
            (right,) = evaluate(plans[name].graph, {"x": x}).values()
            (ours,) = program.run({"x": x}, entry=name).values()
            np.testing.assert_allclose(ours, right, atol=1e-5)
