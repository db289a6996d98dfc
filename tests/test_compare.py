"""`waferc compare`: a model, and a shape that is estimated from its layers, beside islands."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from waferc import compile_model
from waferc.compiler.cli.main import main
from waferc.compiler.comparison.graphs import kind_of, pieces
from waferc.compiler.comparison.on_wafers import OnWafers, Planned, estimate
from waferc.compiler.islands.island import builtin
from waferc.compiler.shapes.decoder import Step, decoder
from waferc.compiler.shapes.shape import shape
from waferc.placement.machine.presets import preset

TINY = """
[tiny]
layers = 4
width = 64
hidden = 96
vocabulary = 128
grouped = { heads = 4, kv_heads = 2, head = 16 }
"""


def on(wafers: int = 1, regions: int = 4, cycles: float = 1000.0) -> OnWafers:
    layer = Planned("layer", 8, cycles, 2 * cycles, (0.5, 0.2, 0.3), 100, 1e6)
    return OnWafers(
        preset("wse3"), builtin().systems["wse3"], (layer,), wafers, wafers, regions, 2 * cycles, 4096.0, True
    )


# -- the estimate ----------------------------------------------------------------------------------------
def test_a_token_is_its_layers_hand_overs_and_crossings() -> None:
    one, six = on(), on(6)
    assert one.cycles == 8 * 1000 + 3 * 1800
    assert one.seconds() == pytest.approx(one.cycles / 1.1e9)
    edges = 2 * 2.0 * 1170 / 2 / 1.1e9
    assert six.seconds() - one.seconds() == pytest.approx(5 * (3e-6 + edges + 4096 / 150e9))
    assert sum(six.shares.values()) == pytest.approx(1) and six.bound == "crossings"


def test_a_slower_network_and_more_wafers_are_never_faster() -> None:
    assert on(2).seconds(1e-6) < on(2).seconds(3e-6) < on(2).seconds(10e-6) < on(3).seconds(10e-6)
    assert on(1).seconds(1e-6) == on(1).seconds(10e-6)


def test_many_are_bound_by_the_busiest_region() -> None:
    assert on().throughput == pytest.approx(min(4 / on().seconds(), 1.1e9 / 2000))
    assert on(regions=1).throughput == pytest.approx(1 / on(regions=1).seconds())
    slow = replace(on(), interval=1e6)
    assert slow.throughput < on().throughput
    assert on().at(0.55e9).seconds() == pytest.approx(2 * on().seconds())


def test_layers_of_a_kind_are_planned_together() -> None:
    found = [*pieces(shape("gpt-oss-20b"), 4096, 2)]
    assert [(p.times, p.inside, p.layer) for p in found] == [(1, 1, False), (12, 2, True), (12, 2, True)]
    assert kind_of(shape("gpt-oss-20b"), 0) == "layer that looks back 128"
    assert [p.times for p in pieces(shape("kimi-k2.5"), 4096, 2)] == [1, 1, 60]
    assert [p.inside for p in pieces(shape("kimi-k2.5"), 4096, 2)] == [1, 1, 2]


# -- the command -----------------------------------------------------------------------------------------
class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "!doctype"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.thorough
def test_a_shape_is_compared(tmp_path: Path) -> None:
    path, page, out = tmp_path / "tiny.toml", tmp_path / "page.html", tmp_path / "out.json"
    path.write_text(TINY)
    words = ["compare", "--shape", str(path), "--wafer", "16x16", "--context", "32"]
    done = CliRunner().invoke(main, [*words, "--html", str(page), "--json", str(out)])
    assert done.exit_code == 0, done.output
    data = json.loads(out.read_text())
    ways = {w["machine"]: w for w in data["ways"]}
    assert "16x16, 1.1 GHz" in ways and "A100 x 1, SGLang" in ways and "B200 x 8, SGLang" in ways
    assert all(w["one"] > 0 and w["error"] and w["bound"] and w["assumed"] for w in ways.values())
    fast, slow = (ways[f"16x16, {hz} GHz"]["one"] for hz in ("1.1", "0.75"))
    assert fast == pytest.approx(slow * 1.1 / 0.75)
    assert {p["name"]: p["times"] for p in data["layers"]} == {"the whole": 1}
    tags = Tags()
    tags.feed(page.read_text("utf-8"))
    assert tags.open == [] and {"svg", "table", "rect"} <= set(tags.seen)
    for width in (60, 80, 180):
        shown = CliRunner().invoke(main, words, env={"COLUMNS": str(width)})
        assert all(len(line) <= width for line in shown.output.splitlines())


STACKED = """
[stacked]
layers = 8
width = 384
hidden = 1024
vocabulary = 512
grouped = { heads = 6, kv_heads = 3, head = 64 }
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "text, name, context, stacks", [(TINY, "16x16", 32, False), (STACKED, "32x32", 64, True)]
)
def test_an_estimate_is_near_the_whole_plan(
    text: str, name: str, context: int, stacks: bool, tmp_path: Path
) -> None:
    """Of a model that one wafer holds, within 5 %: in stacks; what one region holds is planned whole.

    Llama-3.1-8B takes 542,108 cycles in one plan of all and 529,839 by the estimate, minutes of work.
    """
    path = tmp_path / "shape.toml"
    path.write_text(text)
    s, wafer = shape(str(path)), preset(name)
    made = compile_model(
        decoder(s, Step(context=context)).SerializeToString(),
        wafer=wafer, weights="f16", no_weights=True, until="plan", capacity=context,
    )  # fmt: skip
    assert ("layers in stacks" in made.phases["main"]["search"]) == stacks
    found = estimate(s, wafer, builtin().system(wafer), "f16", context)
    assert found.cycles == pytest.approx(made.figures.cycles, rel=0.05 if stacks else 1e-9)
    assert found.wafers == 1 and found.estimate == stacks


def test_a_name_of_a_model_stays_a_name() -> None:
    from waferc.compiler.comparison.page import page

    assert "<script>" not in page("<script>alert(1)</script>", [], [("a", "<b>")])


@pytest.mark.parametrize(
    "words",
    [[], ["x.onnx", "--shape", "qwen3-8b"], ["--shape", "nobody"], ["--shape", "qwen3-8b", "--engine", "x"]],
)
def test_what_cannot_be_compared_is_told(words: list[str]) -> None:
    done = CliRunner().invoke(main, ["compare", *words])
    assert done.exit_code in (2, 6) and done.output.count("\n") == 1, done.output
