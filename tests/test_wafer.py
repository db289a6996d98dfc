"""Wafer descriptions, and the cost formulas against those that DESIGN section 9 prints."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from waferc.compiler.cli.main import main
from waferc.ir.affine import axis
from waferc.ir.dtypes import F16, F32, F64, I8
from waferc.ir.op import Work
from waferc.ir.ops.contract import Contract
from waferc.placement.machine.presets import FOLDER, described, load, parse, preset, presets
from waferc.placement.machine.wafer import WaferError

WSE2, WSE3 = preset("wse2"), preset("wse3")
DATA = Path(__file__).resolve().parents[1] / "benchmarks" / "data"


@pytest.mark.parametrize("name", presets())
def test_presets_are_sane(name: str) -> None:
    wafer = preset(name)
    wafer.check()
    assert wafer.name == name and wafer.colours == 24
    assert wafer.fabric_width >= wafer.width and wafer.fabric_height >= wafer.height


def test_presets_have_the_published_sizes() -> None:
    assert (WSE2.width, WSE2.height, WSE2.fabric_width, WSE2.fabric_height) == (750, 994, 757, 996)
    assert (WSE3.width, WSE3.height, WSE3.fabric_width, WSE3.fabric_height) == (755, 1170, 762, 1172)
    assert WSE3.fabric_width * WSE3.fabric_height == 893_064
    assert (WSE2.sram_bytes, WSE3.sram_bytes) == (49_152, 44_976)


def test_a_small_grid_has_the_constants_of_wse3() -> None:
    small = preset("8x8")
    assert replace(WSE3, name="8x8", width=8, height=8, fabric_width=8, fabric_height=8) == small


def test_a_preset_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wse3.toml").write_text((FOLDER / "wse3.toml").read_text())
    (tmp_path / "mine.toml").write_text('base = "wse3"\nname = "mine"\nhop = 77')
    monkeypatch.setattr("waferc.placement.machine.presets.FOLDER", tmp_path)
    assert described() == ("mine", "wse3") and presets()[:3] == ("mine", "wse3", "8x8")
    assert preset("mine").hop == 77
    done = CliRunner().invoke(main, ["wafers"])
    assert done.exit_code == 0, done.stderr
    (heading,) = [line for line in done.stdout.splitlines() if line.startswith("constant")]
    (hops,) = [line for line in done.stdout.splitlines() if line.startswith("hop")]
    assert heading.split() == ["constant", "mine", "wse3"] and hops.split() == ["hop", "77", f"{WSE3.hop:g}"]
    assert any(line.startswith("mine ") for line in done.stdout.splitlines())
    with pytest.raises(WaferError, match="try mine, wse3, 8x8"):
        preset("wse2b")


@pytest.mark.parametrize("name", ["", "wse4", "8", "8x", "0x4", "4x5000", "99999x1", "../presets/wse3"])
def test_an_unknown_preset_is_refused(name: str) -> None:
    with pytest.raises(WaferError, match=r"no wafer called|sides go from 1 to"):
        preset(name)


# -- TOML ---------------------------------------------------------------------------------------


def test_a_description_may_start_from_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "16x16"\nname = "mine"\nhop = 5\ndead_cores = [[1, 2]]\ndead_links = [[0, 0, "east"]]\n'
        "[vector]\nfma_f32 = [1, 2]\n"
    )
    wafer = load(str(path))
    assert (wafer.name, wafer.width, wafer.hop, wafer.send) == ("mine", 16, 5, WSE3.send)
    assert wafer.dead_cores == ((1, 2),) and wafer.dead_links == ((0, 0, "east"),)
    assert wafer.vector["fma_f32"] == (1.0, 2.0) and wafer.vector["copy_f32"] == WSE3.vector["copy_f32"]
    assert wafer.dead().sum() == 1 and wafer.dead()[2, 1]


@pytest.mark.parametrize(
    "text, message",
    [
        ("width = ", r"mine: not TOML"),
        ('base = "wse3"\nwidht = 4', r"mine: unknown field 'widht'; known are .*width"),
        ('base = "wse9"', r"no wafer called 'wse9'"),
        ("width = 4", r"mine: .*missing"),
        ('base = "8x8"\nwidth = 0', r"0x8 cores; sides go from 1 to 4096"),
        ('base = "8x8"\nwidth = "many"', r"mine: width = 'many' is not a whole number"),
        ('base = "8x8"\nwidth = 8.5', r"mine: width = 8.5 is not a whole number"),
        ('base = "8x8"\nhop = true', r"mine: hop = True is not a number"),
        ("name = 3", r"mine: name = 3 is not a text"),
        ("vector = 3", r"mine: vector = 3 is not a table of \[setup, elements per cycle\]"),
        ("vector = [[1, 2]]", r"mine: vector = \[\[1, 2\]\] is not a table"),
        ("clocks_hz = 1", r"mine: clocks_hz = 1 is not a list of numbers"),
        ("assumed = [1]", r"mine: assumed = \[1\] is not a list of names"),
        ("fitted = ['hop']", r"mine: fitted = \['hop'\] is not a table of texts"),
        ('base = "8x8"\ncolours = 1000000000', r"1000000000 colours; there are from 1 to 1024"),
        ('base = "8x8"\nhop = -1', r"hop = -1; must be finite and not negative"),
        ('base = "8x8"\nhop = nan', r"hop = nan; must be finite"),
        ('base = "8x8"\nturn = inf', r"turn = inf; must be finite"),
        ('base = "8x8"\nsram_bytes = 0', r"sram_bytes = 0; must be above 0"),
        ('base = "8x8"\nwavelet = 0', r"wavelet = 0; must be above 0"),
        ('base = "8x8"\nclock_hz = "fast"', r"clock_hz = 'fast' is not a number"),
        ('base = "8x8"\nassumed = ["hops"]', r"assumed names 'hops', no constant of it"),
        ('base = "8x8"\nassumed = ["vector.x"]', r"assumed names 'vector.x', no constant of it"),
        ('base = "8x8"\nassumed = ["check"]', r"assumed names 'check', no constant of it"),
        ('base = "8x8"\ndead_cores = [[8, 0]]', r"dead core \(8, 0\) is outside 8x8"),
        ('base = "8x8"\ndead_cores = [[1]]', r"mine: dead_cores = .* is not a list of \[x, y\]"),
        ('base = "8x8"\ndead_links = [[0, 0, "up"]]', r"dead link \(0, 0, 'up'\); use one of east, west"),
        ('base = "8x8"\ndead_links = [[0, 9, "east"]]', r"dead link \(0, 9, 'east'\)"),
        ('base = "8x8"\n[vector]\nfma_f32 = [1, 0]', r"vector.fma_f32 = \[setup, elements per cycle\]"),
        ('base = "8x8"\n[vector]\nfma_f32 = [1]', r"mine: "),
        ('base = "8x8"\n[vector]\nfma_f32 = "x"', r"mine: "),
    ],
)
def test_a_bad_description_is_refused(text: str, message: str) -> None:
    with pytest.raises(WaferError, match=message) as refused:
        parse(text, "mine")
    assert "\n" not in str(refused.value)


# -- cycles -------------------------------------------------------------------------------------

counts = st.integers(1, 5000)


@given(counts, st.integers(0, 2000), st.integers(0, 2))
def test_point_to_point_on_wse3(wavelets: int, hops: int, turns: int) -> None:
    """7 + 2 hops + 1.125 wavelets + 20 turns, then 3 to the task."""
    cycles = WSE3.route(hops, turns) + WSE3.serial(wavelets)
    assert cycles == pytest.approx(7 + 2 * hops + 1.125 * wavelets + 20 * turns + 3)


@given(counts, counts)
def test_broadcast_on_wse2(wavelets: int, cores: int) -> None:
    """B + P + 2 T_R, T_R = 2 (Near-Optimal Wafer-Scale Reduce)."""
    assert WSE2.route(cores, 0) + WSE2.serial(wavelets) == wavelets + cores + 2 * 2


@pytest.mark.parametrize(
    "kind, dtype, setup, rate",
    [
        ("copy", F16, 15, 4.82),
        ("copy", F32, 15, 2.44),
        ("fma", F16, 16, 2.92),
        ("fma", F32, 17, 0.50),
        ("copy", F64, 15, 1.22),
        ("fma", F64, 17, 0.25),
    ],
)
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_a_vector_op_on_wse3(kind: str, dtype: object, setup: float, rate: float, n: int) -> None:
    """setup + n / rate, and the loop of about 7 that a kernel spends on each further operation of a loop."""
    assert isinstance(dtype, type(F32))
    assert WSE3.work(Work(kind, 1, n), dtype) == pytest.approx(setup + n / rate)
    assert WSE3.work(Work(kind, 3, n), dtype) == pytest.approx(setup + 2 * 7 + n / rate)
    assert WSE3.work(Work(kind, 3, n, 3), dtype) == pytest.approx(3 * setup + 2 * 7 + n / rate)


def _product(m: int, k: int, n: int, weights: object) -> float:
    assert isinstance(weights, type(F32))
    op = Contract(
        axes=(("m", m), ("n", n), ("k", k)),
        reads=((axis("m"), axis("k")), (axis("k"), axis("n"))),
        write=(axis("m"), axis("n")),
        in_types=(F32, weights),
        out_type=F32,
    )
    return float(WSE2.task(op, dict(op.axes))[0])


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_row_times_a_matrix_is_one_loop(k: int, n: int) -> None:
    """An operation for each slice of k along the results, or of each result along k."""
    assert _product(1, k, n, F16) == pytest.approx(16 + (k - 1) * 7 + k * n / 4)
    assert _product(n, k, 1, F16) == pytest.approx(16 + (k - 1) * 7 + k * n / 4)


@given(st.integers(6, 12), st.integers(1, 60), st.integers(6, 20))
def test_rows_times_a_matrix_go_by_slices(m: int, k: int, n: int) -> None:
    """75 + 0.6 for each result, an operation for each slice of k: prefill layers on wse2."""
    assert _product(m, k, n, F16) == pytest.approx(k * (75 + 0.6 * m * n), rel=0.01, abs=8)
    assert _product(m, k, n, F32) == pytest.approx(k * (75 + m * n / 0.43), rel=0.01, abs=8)


def test_few_rows_may_begin_anew_for_each() -> None:
    assert _product(2, 10, 10, F16) == pytest.approx(20 * 16 + 19 * 7 + 200 / 4)


def test_a_wafer_that_keeps_products_may_multiply_a_tile_at_once() -> None:
    """As before rows of products were known; what is kept is in the budget of SRAM."""
    op = Contract(
        axes=(("n", 10), ("k", 10)),
        reads=((axis("k"),), (axis("k"), axis("n"))),
        write=(axis("n"),),
        in_types=(F32, F16),
        out_type=F32,
    )
    before = load(str(DATA / "wse2-before.toml"))
    assert before.task(op, dict(op.axes)) == (2 * 23 + 200 / 4, 400)
    assert WSE2.task(op, dict(op.axes))[1] == 0


def test_a_constant_that_is_given_anew_is_no_longer_fitted() -> None:
    wafer = parse('base = "wse3"\nstage = 10.0', "mine")
    assert "stage" not in wafer.fitted and "stage" in wafer.assumed
    assert "multicast" in wafer.fitted
    wafer = parse('base = "wse3"\nstage = 10.0\n[fitted]\nstage = "my own rows"', "mine")
    assert dict(wafer.fitted) == {"stage": "my own rows"}


def test_bytes_move_as_fast_as_f16_and_compute_as_slow_as_f32() -> None:
    assert WSE3.copy(100, I8) == WSE3.copy(100, F16)
    assert WSE3.work(Work("fma", 1, 100), I8) == WSE3.work(Work("fma", 1, 100), F32)


@given(counts)
def test_wavelets_are_32_bits(nbytes: int) -> None:
    assert WSE3.wavelets(nbytes) == ceil(nbytes / 4)


def two_level(parts: int, group: int, wavelets: int) -> float:
    """DESIGN section 9: a two-level reduction in groups of `group`, rooted in the centre, on wse3."""
    hop, stage, setup, add = 2, WSE3.stage, 17 + 7, 1
    s1 = ceil((min(group, parts) - 1) / 2)
    s2 = ceil((ceil(parts / group) - 1) / 2)
    first = s1 * (hop + stage) + s2 * (group * hop + stage)
    return setup + first + wavelets * max(1.125, add) + wavelets * add + 7 + 3


@given(st.integers(2, 1200), st.integers(2, 400))
def test_a_join_is_the_best_two_level_reduction(parts: int, wavelets: int) -> None:
    best = min(two_level(parts, g, wavelets) for g in (4, 8, 16, 32, 64, parts))
    assert float(WSE3.join(parts, wavelets)) == pytest.approx(best)


@given(st.integers(1, 1200))
def test_a_star_serves_one_value_of_few_cores(parts: int) -> None:
    best = min(two_level(parts, g, 1) for g in (4, 8, 16, 32, 64, parts))
    cycles = float(WSE3.join(parts, 1))
    assert cycles <= best + 1e-9
    if parts > 16:
        assert cycles == pytest.approx(best)
    if 8 <= parts <= 16:
        assert cycles < best


@given(st.integers(2, 1200), st.integers(1, 400))
def test_joins_grow_slower_than_a_chain(parts: int, wavelets: int) -> None:
    """No join is worse than a chain through every core: B + (2 T_R + 2)(P - 1) with the stage as 2 T_R."""
    chain = 24 + (parts - 1) * (2 + WSE3.stage) + wavelets * 2.125 + 10
    assert float(WSE3.join(parts, wavelets)) <= chain
    assert float(WSE3.join(2 * parts, wavelets)) >= float(WSE3.join(parts, wavelets))


def test_joins_of_arrays_are_those_of_their_elements() -> None:
    parts, wavelets = np.array([1, 4, 60, 755]), np.array([1, 1, 30, 200])
    together = WSE3.join(parts, wavelets)
    apart = [float(WSE3.join(int(p), int(w))) for p, w in zip(parts, wavelets, strict=True)]
    assert together == pytest.approx(apart)


@given(st.integers(2, 100), st.integers(2, 100), st.integers(2, 60), st.integers(1, 8), st.integers(1, 8))
def test_lines_are_joined_one_by_one_and_then_their_roots(
    parts: int, lines: int, wavelets: int, pitch: int, apart: int
) -> None:
    """The first element passes the stages of both sides and one turn; the others follow it."""
    one = float(WSE3.join(parts, wavelets, pitch)) + float(WSE3.join(lines, wavelets, apart))
    tail = 24 + wavelets * 2.125 + 10
    assert float(WSE3.join(parts, wavelets, pitch, lines, apart)) == pytest.approx(one - tail + 20)


@given(st.integers(0, 2000))
def test_relays_stop_at_the_end_of_each_lane(hops: int) -> None:
    """Lanes of `express` hops first, single ones after; a task relays at each stop but the last."""
    stops = hops // 8 + hops % 8
    assert WSE3.relayed(hops) == 16 * max(stops - 1, 0)


def test_the_price_of_a_whole_row_is_in_the_published_range() -> None:
    """A value to the far end of wse3: two thousand cycles, not two hundred or twenty thousand."""
    assert 1.4e3 < WSE3.route(755, 0) < 1.6e3
    assert log2(WSE3.route(755 + 1170, 1)) < 12


@pytest.mark.parametrize("parts", [2, 7, 24])
@pytest.mark.parametrize("lines", [2, 5, 16, 100, 384])
@pytest.mark.parametrize("apart", [1, 3])
def test_a_join_of_lines_joins_their_roots_too(parts: int, lines: int, apart: int) -> None:
    """One turn more, and the first element's way through both levels of the roots' own reduction."""

    def stages(group: int) -> float:
        in_group, groups = ceil((group - 1) / 2), ceil((ceil(lines / group) - 1) / 2)
        near, far = apart * WSE3.hop + WSE3.stage, group * apart * WSE3.hop + WSE3.stage
        return in_group * near + groups * far

    more = WSE3.turn + min(stages(min(g, lines)) for g in (4, 8, 16, 32, 64, lines))
    of_all = float(WSE3.join(parts, 100, 2, lines, apart))
    assert of_all - float(WSE3.join(parts, 100, 2)) == pytest.approx(more)
    assert float(WSE3.join(parts, 100, 2, 1, apart)) == float(WSE3.join(parts, 100, 2))
