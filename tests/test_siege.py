"""The siege notices what it is there for: faults are planted, and each becomes a finding of its kind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from random import Random

import pytest
from siege import artifacts, folders, inputs, models, trial
from siege.findings import smaller, tried
from siege.items import CORPUS, Item, loads, stored
from siege.trial import Finding
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
