"""The siege notices what it is there for: faults are planted, and each becomes a finding of its kind."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest
from onnx import TensorProto, helper
from siege import artifacts, campaign, folders, inputs, models, trial
from siege.contributed import attributes_of, contributed, is_contributed
from siege.findings import smaller, tried
from siege.items import CORPUS, Item, loads, stored
from siege.trial import Finding, Outcome
from siege.undefined import is_undefined
from waferc.compiler import pipeline
from waferc.compiler.errors import InvalidInput

HARNESSES = {"import": models, "artifact": artifacts, "input": inputs, "folder": folders}
ITEM = Item("import", (("compile", "m.onnx", "-o", "p.wafer", "--wafer", "4x4"),), {"m.onnx": b""})


def bug() -> None:
    raise RuntimeError("planted")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    while True:
        pass


def gorge() -> None:
    bytearray(1 << 34)


def stray() -> None:
    with open("/nowhere/else", "w"):
        pass


def start() -> None:
    os.system("true")


def lines() -> None:
    raise InvalidInput("one\ntwo")


def litter() -> None:
    with open(".part", "w"):
        pass
    raise InvalidInput("no")


def refuse() -> None:
    raise InvalidInput("no")


PLANTED = {
    bug: "exit 70",
    crash: "killed by SIGSEGV",
    hang: "hang",
    gorge: "memory",
    stray: "outside",
    start: "outside",
    lines: "message",
    litter: "left behind",
    refuse: None,
}


@pytest.mark.parametrize("fault", PLANTED, ids=lambda f: f.__name__)
def test_what_is_planted_is_found(fault: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "accepted_of", lambda *_, **__: fault())
    monkeypatch.setattr(trial, "SECONDS", 2.0)
    found = tried(ITEM)
    assert (found.kind if found is not None else None) == PLANTED[fault]


def test_a_finding_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three edits the one that matters, and of two commands one."""
    edits = (
        ("manifest.json", "json", [["seed"], 1]),
        ("wafer.json", "json", [["width"], "x"]),
        ("manifest.json", "json", [["host"], []]),
    )
    item = Item("artifact", (("inspect", "p.wafer"),) * 2, {}, {"p.wafer": ("classifier", edits)})
    monkeypatch.setattr("siege.findings.PATIENCE", 60.0)

    def shown(one: Item) -> Finding | None:
        wrong = any(e[2][1] == "x" for e in one.forged["p.wafer"][1])
        return Finding("k", "s", "", "") if wrong else None

    monkeypatch.setattr("siege.findings.tried", shown)
    less, _ = smaller(item, Finding("k", "s", "", ""))
    assert less.forged["p.wafer"] == ("classifier", edits[1:2]) and len(less.commands) == 1


def power(kind: int, between: Sequence[str] = ()) -> bytes:
    """A power of what some operators make of an input."""
    names = [*(f"v{i}" for i in range(len(between))), "p"]
    nodes = [helper.make_node(k, [a], [b]) for k, a, b in zip(between, ["x", *names], names, strict=False)]
    nodes.append(helper.make_node("Pow", [names[len(between) - 1] if between else "x", "e"], ["y"]))
    ends = [helper.make_tensor_value_info(n, kind if n == "x" else TensorProto.FLOAT, [2]) for n in "xe"]
    graph = helper.make_graph(nodes, "g", ends, [helper.make_tensor_value_info("y", kind, [2])])
    return helper.make_model(graph).SerializeToString()


def test_powers_of_integers_alone_are_not_compared() -> None:
    assert is_undefined(power(TensorProto.INT32)) and is_undefined(power(TensorProto.INT64, ["Relu", "Neg"]))
    assert not is_undefined(power(TensorProto.FLOAT)) and not is_undefined(power(TensorProto.DOUBLE, ["Neg"]))
    assert is_undefined(power(TensorProto.FLOAT, ["Unknown"])) and is_undefined(b"no model")


def test_operators_of_onnxruntime_are_drawn_and_their_attributes_changed() -> None:
    random = Random(5)
    drawn = [contributed(random) for _ in range(40)]
    kinds = {n.op_type for model in drawn for n in model.graph.node}
    assert len(kinds) > 20 and any(is_contributed(n) for m in drawn for n in m.graph.node)
    assert any(a.name and a.default_value is not None for m in drawn for a in attributes_of(m.graph.node[0]))


@pytest.mark.parametrize("slow", [0, 1])
def test_what_is_drawn_does_not_depend_on_who_is_done_first(
    slow: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, of which one takes long: each item is drawn from what was learnt of the same ones."""
    seen = list[list[str]]()

    class Told:
        def __init__(self, folder: Path, *_: object) -> None:
            self.late = 0.05 if folder.name == str(slow) else 0.0

        def __call__(self, item: Item) -> Outcome:
            time.sleep(self.late)
            return Outcome((0,), frozenset({(item.name, 1)}))

    monkeypatch.setattr(campaign, "Worker", Told)
    monkeypatch.setattr(campaign, "CORPUS", tmp_path)
    monkeypatch.setattr(campaign, "store", lambda *_: None)
    for late in (slow, 1 - slow):
        slow = late
        harness = campaign.Harness("artifact", artifacts.drawn, artifacts.mutated)
        effort = campaign.Effort(math.inf, 12, 2)
        campaign.besiege(harness, effort, Random(3), campaign.Findings(tmp_path, []), set())
        seen.append([i.name for i in harness.corpus])
    assert len(seen[0]) > 5 and seen[0] == seen[1]


@pytest.mark.parametrize("name", HARNESSES)
def test_items_are_drawn_changed_and_read_back(name: str) -> None:
    random = Random(3)
    item = HARNESSES[name].drawn(random)
    for _ in range(60):
        item = HARNESSES[name].mutated(random, item, item)
        assert loads(item.dumps()).dumps() == item.dumps()


@pytest.mark.parametrize("name", HARNESSES)
def test_the_corpus_is_small_and_of_use(name: str) -> None:
    items = stored(CORPUS, name)
    assert items and sum(len(i.dumps()) for i in items) <= 100_000
    assert all(i.harness == name for i in items)
