"""Islands of GPUs: what a graph asks of them, laws of what that takes, how far it is from published rates."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waferc.compiler.comparison.compare import ISLAND_ERROR
from waferc.compiler.comparison.graphs import parts_of
from waferc.compiler.errors import InvalidInput, UsageError
from waferc.compiler.islands.island import Island, builtin, engine, island, parse
from waferc.compiler.islands.price import Asked, busiest, expected_most, price, touched
from waferc.compiler.islands.work import Matrix, Part
from waferc.compiler.shapes.shape import shape
from waferc.compiler.shapes.sizes import cached, sizes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import islands

SHARED = Path("/work/shared/data/islands.csv")


@cache
def found() -> list[islands.Result]:
    rows, bad = islands.read(islands.MEASURED)
    out = list(islands.results(rows, bad))
    assert not bad
    return out


# -- what was published -----------------------------------------------------------------------------------
def test_the_seven_points_are_met() -> None:
    own = [r for r in found() if r.row.engine == "gpt-fast" and r.row.weights == "bf16"]
    seven = [r for r in own if r.row.role == "calibration"]
    assert len(seven) == 7 and max(abs(r.error) for r in seven) < 0.05


@pytest.mark.parametrize("name, most", [("gpt-fast", 0.15), ("SGLang", 0.25)])
def test_rows_that_nothing_was_fitted_to(name: str, most: float) -> None:
    own = [abs(r.error) for r in found() if r.row.engine == name and r.row.role == "unseen"]
    assert len(own) >= 6 and statistics.median(own) < most


def test_a_comparison_says_the_error_that_the_page_has() -> None:
    """compare runs islands with SGLang where nothing else is asked for."""
    own = [abs(r.error) for r in found() if r.row.engine == "SGLang" and r.row.role == "unseen"]
    assert f"{100 * statistics.median(own):.0f} % across engines" == ISLAND_ERROR


def test_one_constant_explains_two_servers() -> None:
    """Without what a sum across servers takes more, 2x8 GPUs would be faster than 8, not slower."""
    (row,) = [r for r in found() if r.row.gpus == "2x8xA100"]
    assert abs(row.error) < 0.1
    parts = islands.parts(shape(row.row.name), row.row.context)
    near = replace(row.priced.engine, across=1e-9, network=1e18)
    assert price(parts, row.priced.island, near).rate > price(parts, island("A100 x 8"), near).rate
    assert row.rate < price(parts, island("A100 x 8"), row.priced.engine).rate


def test_the_page_has_what_the_model_says_today() -> None:
    text = islands.PAGE.read_text("utf-8")
    assert text == islands.page(found()), "docs/islands.md is old: make islands"
    assert "assumed" in islands.consistency()


@pytest.mark.skipif(not SHARED.exists(), reason="the shared table is not beside the project")
def test_the_shared_table_is_in_ours() -> None:
    rows, bad = islands.read(SHARED)
    assert not bad
    known = {(r.row.engine, r.row.model, r.row.weights, r.row.gpus, r.row.rate) for r in found()}
    assert {(r.engine, r.model, r.weights, r.gpus, r.rate) for r in rows} <= known


def test_bad_rows_are_told_and_the_others_priced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        ",".join(islands.NEEDED)
        + "\ngpt-fast,Llama-2-7B,bf16,1xA100,100,mine\ngpt-fast,nobody-1b,bf16,1xA100,100,mine"
        + "\ngpt-fast,Llama-2-7B,bf16,1xZ9,100,mine\nvapour,Llama-2-7B,bf16,1xA100,100,mine"
        + "\ngpt-fast,Llama-2-7B,int3,1xA100,100,mine\ngpt-fast,Llama-2-7B,bf16,1xA100,nan,mine\n"
    )
    assert islands.main(["--rows", str(path)]) == islands.BAD_ROWS
    out = capsys.readouterr()
    assert out.err.count("\n") == 5 and out.out.count("| Llama-2-7B |") == 1
    path.write_text("a,b\n")
    assert islands.main(["--rows", str(path)]) == islands.BAD_ROWS


# -- what a graph asks ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-235b-a22b", "kimi-k2.5", "gpt-oss-20b"])
def test_work_is_that_of_the_shape(name: str) -> None:
    """Weights read for a token are the active parameters, cached elements those of the caches."""
    s, context = shape(name), 4096
    parts = parts_of(s, context)
    weights = sum(p.times * sum(m.elements * touched(m, 1) for m in p.weights) for p in parts)
    assert weights == pytest.approx(sizes(s).active, rel=2e-3)
    assert sum(p.times * sum(n for n, _ in p.cached) for p in parts) == cached(s, context)
    products = sum(p.times * (p.operations - p.on_caches) for p in parts)
    assert products == pytest.approx(2 * sizes(s).active, rel=2e-3)


def test_launches_are_those_of_the_kind() -> None:
    """Grouped attention and a dense layer: four products and what is between them, two on caches."""
    layers = {n: parts_of(shape(n), 256)[-1] for n in ("llama-2-7b", "mixtral-8x7b", "deepseek-v3")}
    assert {n: p.launches for n, p in layers.items()} == {
        "llama-2-7b": 10,
        "mixtral-8x7b": 12,
        "deepseek-v3": 21,
    }
    assert {p.sums for p in layers.values()} == {2}


# -- laws ---------------------------------------------------------------------------------------------------
PARTS = st.builds(
    Part,
    name=st.just("layer"),
    times=st.integers(1, 40),
    weights=st.lists(
        st.builds(Matrix, st.integers(1 << 10, 1 << 30), st.just(2), st.sampled_from([2, 8, 64])),
        min_size=1,
        max_size=4,
    ).map(tuple),
    cached=st.lists(st.tuples(st.integers(0, 1 << 24), st.sampled_from([1, 8])), max_size=2).map(tuple),
    operations=st.floats(1e3, 1e12),
    on_caches=st.just(0.0),
    launches=st.integers(1, 30),
    sums=st.integers(0, 2),
    width=st.integers(1, 1 << 14),
)
ISLANDS = st.sampled_from(builtin().presets())
ENGINES = st.sampled_from([*builtin().engines.values()])


@given(part=PARTS, on=ISLANDS, by=ENGINES, users=st.integers(1, 300))
def test_more_users_take_longer_and_yield_more(part: Part, on: Island, by: object, users: int) -> None:
    one, many = (price([part], on, by, Asked(users=n)) for n in (users, users + 1))  # type: ignore[arg-type]
    assert many.seconds >= one.seconds and many.throughput >= one.throughput * (1 - 1e-9)
    assert sum(one.shares.values()) == pytest.approx(1)
    assert one.bound in ("bytes", "operations", "launches", "sums")


@given(part=PARTS, by=ENGINES, bits=st.sampled_from([4.5, 8.0, 16.0]))
def test_a_faster_memory_is_never_slower(part: Part, by: object, bits: float) -> None:
    on = island("H100 x 8")
    fast = replace(on, gpu=replace(on.gpu, bandwidth=2 * on.gpu.bandwidth))
    one, two = (price([part], i, by, Asked(bits, bits)) for i in (on, fast))  # type: ignore[arg-type]
    assert two.seconds <= one.seconds <= 2 * two.seconds * (1 + 1e-9)


@given(part=PARTS, by=ENGINES)
def test_a_pipeline_keeps_the_latency_and_multiplies_the_rate(part: Part, by: object) -> None:
    across = price([part], island("2x8xA100"), by, Asked(parallel="pipeline"))  # type: ignore[arg-type]
    alone = price([part], island("A100 x 8"), by)  # type: ignore[arg-type]
    assert across.seconds >= alone.seconds
    assert across.throughput == pytest.approx(2 / across.seconds)


@given(balls=st.integers(1, 6), bins=st.integers(1, 4))
def test_the_fullest_bin_is_counted(balls: int, bins: int) -> None:
    every = itertools.product(range(bins), repeat=balls)
    most = [max(np.bincount(throw, minlength=bins)) for throw in every]
    assert expected_most(balls, bins) == pytest.approx(statistics.mean(map(float, most)))


@given(chosen=st.integers(1, 8), of=st.sampled_from([8, 64, 384]), count=st.integers(1, 40))
def test_whole_experts_are_never_better_shared_than_cut_ones(chosen: int, of: int, count: int) -> None:
    m = Matrix(1 << 20, chosen, of)
    assert touched(m, count) == pytest.approx(1 - (1 - chosen / of) ** count)
    assert 0 < busiest(m, count, 8) <= 1 and (count > 1 or busiest(m, 1, 8) >= touched(m, 1) / 8)
    assert math.isclose(busiest(m, count, 1), min(chosen * count, of) / of) or chosen * count > 256


# -- names and files ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text, name",
    [("A100 x 8", "A100 x 8"), ("2x8xA100", "A100 x 2x8"), ("1xA100-80", "A100 x 1"), ("h100", "H100 x 1"),
     ("8xB200", "B200 x 8"), ("A100 x 2x8", "A100 x 2x8"), ("16xA100-80GB", "A100 x 2x8")],
)  # fmt: skip
def test_islands_are_found_as_people_write_them(text: str, name: str) -> None:
    assert island(text).name == name


@pytest.mark.parametrize("text", ["", "Z9", "8xA100x8", "0xA100", "99999xA100", "A100 x", "x" * 500])
def test_no_islands(text: str) -> None:
    with pytest.raises(UsageError):
        island(text)


def test_every_constant_says_where_it_is_from() -> None:
    machines = builtin()
    for of in (*machines.gpus.values(), *machines.engines.values(), *machines.systems.values()):
        assert all(o.of and o.how in ("published", "fitted", "assumed") for o in of.origins.values())
        assert len(of.origins) >= 7
    assert {i.name for i in machines.presets()} >= {
        "A100 x 1", "A100 x 8", "A100 x 2x8", "H100 x 8", "H200 x 8", "B200 x 8",
    }  # fmt: skip
    assert engine("SGLang (WaferLLM table 4)").name == "SGLang"


CONSTANT = "{ value = 1e12, how = 'assumed', of = 'me' }"


def test_a_file_adds_a_gpu() -> None:
    made = parse(f"[gpu.Mine]\nbase = 'H100'\nbandwidth = {CONSTANT}\nservers = [4]", "x.toml").gpus["Mine"]
    assert made.bandwidth == 1e12 and made.memory == builtin().gpus["H100"].memory and made.servers == (4,)
    assert made.origins["bandwidth"].of == "me"


@pytest.mark.parametrize(
    "text, told",
    [
        ("[gpu.A]\nbandwidth = 3", "is not {"),
        (f"[gpu.A]\nspeed = {CONSTANT}", "no 'speed'"),
        (f"[gpu.A]\nbandwidth = {CONSTANT}", "needs memory"),
        ("[gpu.A]\nbase = 'Z9'", "no base"),
        ("[gpu]\na = 3", "table of tables"),
        ("[wafer.a]", "unknown table"),
        ("[gpu.A]\nbase = 'H100'\nbandwidth = { value = -1, how = 'assumed', of = '' }", "above 0"),
        ("[gpu.A]\nbase = 'H100'\nbandwidth = { value = 1, how = 'guessed', of = '' }", "'guessed'"),
        ("[gpu.A]\nbase = 'H100'\nservers = [0]", "numbers of GPUs"),
        ("[", "not TOML"),
    ],
)
def test_bad_files_are_told(text: str, told: str) -> None:
    with pytest.raises(InvalidInput) as e:
        parse(text, "x.toml")
    assert told in str(e.value) and "\n" not in str(e.value)


def test_what_cannot_be_shared_is_told() -> None:
    parts = parts_of(shape("llama-2-7b"), 256)
    with pytest.raises(UsageError, match="no experts"):
        price(parts, island("A100 x 8"), engine("SGLang"), Asked(parallel="expert"))
    with pytest.raises(UsageError, match="0 users"):
        price(parts, island("A100 x 8"), engine("SGLang"), Asked(users=0))
