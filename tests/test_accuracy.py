"""The table of errors: what rows may say, what each class is priced as, and that docs/accuracy.md is up to
date."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import accuracy
import experiments
import published
from measurements import CLASSES, KINDS, PHASES, BadRow, Blocks, Row, blocks_of, parsed, read, unused
from plans import planned
from waferc.compiler.show.expected_error import MEASURED, ROUTES, expected_errors, measured

LAYER = "dim=64;ffn=96;heads=4;kv_heads=2;head_dim=16;weights=f16"
HEAD = "id,class,machine,grid,parameters,value,unit,source,kind,role"
# class -> grid and parameters of a small row
SMALL = {
    "vector": [("1x1", "op=fma_f32;n=64")],
    "vector_loop": [("1x1", "op=fma_f16;n=4096;form=for loop, tiles of 32")],
    "point_to_point": [("", "hops=3;wavelets=8;turns=1"), ("", "quantity=per_turn")],
    "relay": [("1x5", "stages=4;wavelets=64")],
    "multicast": [("1x17", "receivers=16;bytes=256;statistic=median")],
    "collective": [("8x1", f"kind={k};cores=8;wavelets=16;ramp=2") for k in KINDS],
    "gemv": [("8x8", "k=64;n=64;weights=f16")],
    "gemm": [("8x4", "m=8;k=64;n=64;weights=f32")],
    "decode_layer": [("8x8", f"{LAYER};context=64")],
    "prefill_layer": [("8x8", f"{LAYER};tokens=16")],
    "decode_phase": [("8x8", f"phase={p};{LAYER};context=64") for p in PHASES],
    "decode_block": [("8x8", f"block={b};{LAYER};context=64") for b in ("attention", "ffn")],
    "decode_token": [("2 blocks of 16x8", f"{LAYER};context=64;layers=2")],
    "decode_batch": [("2 blocks of 16x8", f"{LAYER};context=64;layers=2;batch=2")],
    "pipeline_interval": [("2 blocks of 16x8", f"{LAYER};context=64;layers_per_stage=1")],
    "host": [("", "direction=in;streams=16"), ("", "direction=round trip;bytes=8")],
}
CASES = [(group, grid, p) for group, all_ in SMALL.items() for grid, p in all_]


def row(group: str, grid: str, parameters: str, **other: str) -> Row:
    unit = ("GB/s" if "streams" in parameters else "us") if group == "host" else "cycles"
    values = ["a row", group, "wse3", grid, parameters, "100", unit, "here", "silicon", "calibration"]
    fields = dict(zip(HEAD.split(","), values, strict=True))
    return parsed(fields | other)


def test_the_page_has_what_the_model_says_today() -> None:
    """Level a is quick: its table is computed again. `make accuracy` writes the page anew."""
    rows, bad = read(accuracy.MEASURED)
    assert not bad and len(rows) == 121
    found = list(accuracy.results(rows, level_b=False))
    text = accuracy.PAGE.read_text("utf-8")
    assert accuracy.errors_table(found, lambda r: r.a) in text, "docs/accuracy.md is old: make accuracy"
    assert json.loads(MEASURED.read_text("utf-8")) == accuracy.errors_data(found)
    assert accuracy.joins_line(rows) in text and accuracy.sources_table(rows) in text


def test_a_step_is_told_the_errors_of_its_kinds() -> None:
    assert set(ROUTES.values()) <= set(measured())
    plan, seen = planned("attention", "16x16"), dict[str, set[str]]()
    for s in plan.steps:
        found = expected_errors(plan, s)
        routes = {m.route for m in s.received} & set(ROUTES)
        assert {e.of for e in found} == routes | ({"compute"} if s.kind == "task" else set())
        for e in found:
            assert (e.count, e.median) == (measured()[e.label]["count"], measured()[e.label]["median"])
            seen.setdefault(e.of, set()).add(e.label)
        if s.kind == "task" and s.op.product:
            assert found[0].label in ("gemm", "gemv")
    assert seen["compute"] & {"gemm", "gemv"} and seen["compute"] & {"vector", "vector_loop"}
    assert all(seen[route] == {ROUTES[route]} for route in seen if route != "compute")


@pytest.mark.parametrize(("group", "grid", "parameters"), CASES)
def test_every_class_is_priced(group: str, grid: str, parameters: str) -> None:
    small = row(group, grid, parameters)
    cycles = published.priced(small)
    assert math.isfinite(cycles) and cycles > 0 and unused(small) == []
    assert cycles == published.priced(replace(small, id="another", source="elsewhere", value=1.0))


HELD_TO = {  # median and largest error of the model on the published mapping
    "vector": (0.02, 0.05),
    "multicast, min": (0.02, 0.06),
    "collective, broadcast": (0.06, 0.20),
    "collective, reduction": (0.06, 0.20),
    "decode_layer": (0.05, 0.08),
    "prefill_layer": (0.06, 0.10),
    "decode_phase": (0.12, 0.20),
    "gemv": (0.20, 0.20),
    "gemm": (0.20, 0.20),
    "host": (0.20, 0.20),
}


@pytest.mark.parametrize("label", HELD_TO)
def test_the_model_is_held_to_what_was_measured(label: str) -> None:
    rows = [r for r in accuracy.read(accuracy.MEASURED)[0] if r.label == label]
    errors = accuracy.Errors.of([published.priced(r) for r in rows], [r.value for r in rows])
    assert errors.median <= HELD_TO[label][0] and errors.largest <= HELD_TO[label][1]


@pytest.mark.parametrize("cores", [2, 9, 100, 512])
@pytest.mark.parametrize("wavelets", [1, 3, 100, 5000])
def test_collectives_are_their_authors_formulas(cores: int, wavelets: int) -> None:
    """Two phases and the allreduces of the paper, which the table has no rows of."""

    def cycles(kind: str) -> float:
        parameters = f"kind={kind};cores={cores};wavelets={wavelets};ramp=2"
        return published.priced(row("collective", "", parameters, machine="wse2"))

    b, p, s = wavelets, cores, math.ceil(math.sqrt(cores))
    chain, two_phase = b + 6 * (p - 1), 2 * b + p - 1 + 5 * (s - 1 + math.ceil(p / s) - 1)
    assert cycles("chain") == chain and cycles("two_phase") == two_phase
    assert cycles("allreduce_chain") == chain + cycles("broadcast")
    ring = 2 * (p - 1) * b / p + 4 * p - 6 + 5 * 2 * (p - 1)
    assert cycles("allreduce_ring") == pytest.approx(ring, abs=2 * p)


def test_every_class_has_a_small_row() -> None:
    assert set(SMALL) == set(CLASSES) == set(published.PRICES) == set(published.ASSUMED)
    assert set(experiments.MODELS) | set(experiments.NONE) == set(CLASSES)


@pytest.mark.parametrize(("group", "grid", "parameters"), [c for c in CASES if c[0] in experiments.MODELS])
def test_every_experiment_is_a_model(group: str, grid: str, parameters: str) -> None:
    """It is valid, and has what the row says: weights and caches of its sizes."""
    small = row(group, grid, parameters)
    made = experiments.experiment(small)
    assert isinstance(made, experiments.Experiment)
    assert made.wafer.cores == small.square.count * small.square.width * small.square.height
    model = made.model()
    shapes = [t for t in model.graph.initializer if t.external_data]
    held = sum(math.prod(t.dims) for t in shapes)
    for t in shapes:  # the checker looks for their file
        model.graph.initializer.remove(t)
        model.graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    onnx.checker.check_model(model, full_check=True)
    sizes = small.numbers
    if "layers" in sizes:
        layer = 64 * (4 + 2 + 2 + 4) * 16 + 3 * 64 * 96 + 2 * 64 + 2 * 16
        assert held == layer * sizes["layers"]
        assert len([o for o in model.graph.output if "present" in o.name]) == 2 * sizes["layers"]
    elif group in ("gemv", "gemm"):
        assert held == sizes["k"] * sizes["n"]


QUICK = ("gemv",)


@pytest.mark.parametrize(
    ("group", "grid", "parameters"),
    [
        c if c[0] in QUICK else pytest.param(*c, marks=pytest.mark.thorough)
        for c in CASES
        if c[0] in experiments.MODELS
    ],
)
def test_every_experiment_compiles(group: str, grid: str, parameters: str) -> None:
    made = experiments.experiment(row(group, grid, parameters))
    assert isinstance(made, experiments.Experiment)
    assert experiments.cycles(made) > 0


def test_a_decoder_grows_with_what_it_holds() -> None:
    """More layers, context or batch never take less; a block is less than the layer that it is part of."""
    wide = "dim=1024;ffn=3072;heads=16;kv_heads=8;head_dim=128;weights=f16"
    layer = published.priced(row("decode_layer", "64x64", f"{wide};context=512"))
    longer = published.priced(row("decode_layer", "64x64", f"{wide};context=4096"))
    assert layer < longer
    halves = [
        published.priced(row("decode_block", "64x64", f"block={b};{wide};context=512"))
        for b in ("attention", "ffn")
    ]
    token = published.priced(row("decode_token", "64x64", f"{wide};context=512;layers=1"))
    assert sum(halves) == pytest.approx(token) and min(halves) > 0 and token > layer  # keys are normalised
    batch = published.priced(row("decode_batch", "64x64", f"{wide};context=512;layers=1;batch=4"))
    assert token < batch < 4 * token
    stage = published.priced(
        row("pipeline_interval", "2 blocks of 64x64", f"{wide};context=512;layers_per_stage=3")
    )
    assert 3 * token < stage < 3.2 * token


def test_regression_rows_are_their_formula() -> None:
    """HPDC 2024: max(contention, energy / links + distance) + (2 ramps + 1) depth; the table rounds it."""
    rows, _ = read(accuracy.MEASURED)
    for r in rows:
        if r.group != "collective":
            continue
        p, b, ramp = r.numbers["cores"], r.numbers["wavelets"], r.numbers["ramp"]
        levels = math.log2(p)
        contention, energy, depth = {
            "broadcast": (b, b * (p - 1), 1.0),
            "star": (b * (p - 1), b * p * (p - 1) / 2, 1.0),
            "chain": (b, b * (p - 1), p - 1),
            "tree": (b * levels, b * p / 2 * levels, levels),
        }[r.texts["kind"]]
        formula = max(contention, energy / (p - 1) + p - 1) + (2 * ramp + 1) * depth
        assert r.value == pytest.approx(formula, abs=0.51), r.id


def test_errors_are_what_they_say() -> None:
    e = accuracy.Errors.of([110, 90, 150, 100], [100, 100, 100, 100])
    assert (e.count, e.rank) == (4, None)
    assert (
        e.median == pytest.approx(0.1) and e.largest == pytest.approx(0.5) and e.signed == pytest.approx(0.05)
    )
    assert e.p90 == pytest.approx(np.quantile([0.1, 0.1, 0.5, 0], 0.9))
    assert accuracy.Errors.of([1, 2, 3], [10, 20, 30]).rank == pytest.approx(1)
    assert accuracy.Errors.of([3, 2, 1], [10, 20, 30]).rank == pytest.approx(-1)
    # Spearman's by hand: ranks 0, 1.5, 1.5, 3 and 0, 1, 2, 3.
    assert accuracy.Errors.of([1, 2, 2, 3], [1, 2, 3, 4]).rank == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    perfect = [accuracy.Result(row("gemv", "8x8", "k=64;n=64", value="7"), 7.0, None)]
    assert "| gemv | calibration | 1 | 0.0 % | 0.0 % | 0.0 % | 0.0 % |  |" in accuracy.errors_table(
        perfect, lambda r: r.a
    )


@pytest.mark.parametrize(
    ("grid", "blocks"),
    [
        ("420x420", Blocks(1, 420, 420)),
        ("not published; 512x512 is likely", Blocks(1, 512, 512)),
        ("7 blocks of 256x128", Blocks(7, 256, 128)),
        ("256x128, 7 blocks", Blocks(7, 256, 128)),
        ("7 x 256x128", Blocks(7, 256, 128)),
        ("7x256x128", Blocks(7, 256, 128)),
        ("1 x 5", Blocks(1, 1, 5)),
        ("", None),
        ("a whole wafer", None),
    ],
)
def test_grids_are_read(grid: str, blocks: Blocks | None) -> None:
    assert blocks_of(grid) == blocks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "teapot"}, "unknown class 'teapot'"),
        ({"machine": "wse9"}, "no wafer called 'wse9'"),
        ({"value": "fast"}, "'fast' is no number"),
        ({"value": "nan"}, "not finite"),
        ({"value": "-4"}, "must be above 0"),
        ({"unit": "furlongs"}, "unit 'furlongs'"),
        ({"grid": "somewhere"}, "names no WIDTHxHEIGHT"),
        ({"grid": "99999x2"}, "sides go from 1 to 4096"),
        ({"parameters": "k=64"}, "no parameter 'n'"),
        ({"parameters": "k=64;n=0"}, "it must be from 1"),
        ({"parameters": "k=64;n=1.5"}, "no whole number"),
        ({"parameters": "k=64;n=1e300"}, "it must be from 1"),
        ({"parameters": "k=64;n"}, "is not key=value"),
        ({"parameters": "k=64;n=64;k=64"}, "stands twice"),
        ({"parameters": "k=64;n=64;weights=f4"}, "known are f32, f16, bf16"),
        ({"parameters": "k=64;n=\x1b[31m"}, "'\\x1b[31m' is no number"),
    ],
)
def test_a_bad_row_is_one_clear_line(change: dict[str, str], message: str) -> None:
    fields = dict(
        zip(
            HEAD.split(","),
            ["r", "gemv", "wse2", "8x8", "k=64;n=64", "9", "cycles", "s", "silicon", "x"],
            strict=True,
        )
    )
    with pytest.raises(BadRow) as caught:
        parsed(fields | change)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_another_table_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good rows are priced, bad ones named with their line; the exit code says that there were some."""
    table = tmp_path / "rows.csv"
    good = "mine,gemv,wse2,8x8,k=64;n=64;mood=good,400,cycles,me,silicon,holdout"
    table.write_text(f"{HEAD}\n{good}\nbad,gemv,wse2,8x8,k=64,400,cycles,me,silicon,holdout\n")
    assert accuracy.main(["--rows", str(table), "--level", "a"]) == accuracy.BAD_ROWS
    seen = capsys.readouterr()
    assert "| gemv | other | 1 |" in seen.out and "| mine | 400 |" in seen.out
    assert f"{table}, line 3: 'bad': no parameter 'n'; a gemv has k, n" in seen.err
    assert "parameter 'mood' is not used" in seen.err
    table.write_text("a,b\n1,2\n")
    assert accuracy.main(["--rows", str(table)]) == accuracy.BAD_ROWS
    assert "no column 'id'" in capsys.readouterr().err
    assert accuracy.main(["--rows", str(tmp_path / "none.csv")]) == accuracy.BAD_ROWS
