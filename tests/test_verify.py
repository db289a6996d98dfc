"""The comparison of outputs, inputs made from seeds and files, and files written whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from waferc.compiler.errors import InvalidInput, UsageError
from waferc.compiler.files import write_npz
from waferc.compiler.verify.call_inputs import Feeding
from waferc.compiler.verify.compare import Rule, compare, merged
from waferc.ir.disk import replacing
from waferc.runtime.program import Port

F32 = np.dtype(np.float32)
RULE = Rule()


def floats(*values: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    "ours, golden, passed",
    [
        ((1.0, 2.0), (1.0, 2.0), True),
        ((1.0001, 2.0), (1.0, 2.0), True),  # 1e-4 of the largest golden value, here 2
        ((1.00019, 2.0), (1.0, 2.0), True),
        ((1.00021, 2.0), (1.0, 2.0), False),
        ((9e-7, 0.0), (0.0, 0.0), True),  # atol
        ((2e-6, 0.0), (0.0, 0.0), False),
        ((np.nan, 1.0), (np.nan, 1.0), True),
        ((np.nan, 1.0), (0.0, 1.0), False),
        ((0.0, 1.0), (np.nan, 1.0), False),
        ((np.inf, 1.0), (np.inf, 1.0), True),
        ((-np.inf, 1.0), (np.inf, 1.0), False),
        ((3e38, 1.0), (np.inf, 1.0), False),
        ((np.inf, 1.0), (3e38, 1.0), False),
    ],
)
def test_floats(ours: tuple[float, ...], golden: tuple[float, ...], passed: bool) -> None:
    found = compare("y", floats(*ours), floats(*golden), RULE)
    assert found.passed == passed
    assert bool(found.bad) == (not passed) and found.wrong == len(found.bad)


def test_integers_must_be_equal() -> None:
    a = np.array([1, 2, 1 << 62], np.int64)
    assert compare("y", a, a.copy(), RULE).passed
    found = compare("y", a, a + np.array([0, 0, 1]), RULE)
    assert not found.passed and found.max_abs == 1 and found.ulp is None
    assert (found.bad[0].index, found.bad[0].ours, found.bad[0].golden) == ((2,), 1 << 62, (1 << 62) + 1)


def test_type_and_shape_must_agree() -> None:
    one = floats(1.0)
    assert compare("y", one, one.astype(np.float64), RULE).problem == "float32[1] instead of float64[1]"
    assert compare("y", one.reshape(1, 1), one, RULE).problem == "float32[1, 1] instead of float32[1]"
    assert not compare("y", one.reshape(1, 1), one, RULE).passed


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ulp_counts_representable_values(dtype: type) -> None:
    one = np.array([1.0, -1.0, 0.0], dtype)
    next_one = np.nextafter(one, np.array([2, -2, 1], dtype))
    assert compare("y", next_one, one, RULE).ulp == 1
    tiny = np.array([np.finfo(dtype).smallest_subnormal], dtype)
    assert compare("y", tiny, -tiny, RULE).ulp == 2  # zero lies between
    assert compare("y", np.array([-0.0], dtype), np.array([0.0], dtype), RULE).ulp == 0


def test_statistics_of_an_output() -> None:
    found = compare("y", floats(3.0, 4.5), floats(3.0, 4.0), RULE)
    assert (found.max_abs, found.max_rel) == (0.5, 0.125)
    assert found.cosine == pytest.approx(27 / np.sqrt((9 + 20.25) * 25))
    assert compare("y", floats(0.0), floats(0.0), RULE).cosine == 1
    assert compare("y", np.zeros((0, 3), F32), np.zeros((0, 3), F32), RULE).passed


def test_at_most_ten_bad_values_are_kept_of_all_calls() -> None:
    ours, golden = np.ones(8, F32), np.zeros(8, F32)
    both = merged(compare("y", ours, golden, RULE, 0), compare("y", ours, golden, RULE, 1))
    assert both.wrong == 16 and both.values == 16
    assert [b.call for b in both.bad] == [0] * 8 + [1] * 2


PORTS = (
    Port("x", (64, 64), F32),
    Port("n", (1000,), np.dtype(np.int64)),
    Port("b", (1000,), np.dtype(np.bool_)),
    Port("h", (2,), F32),
)


def test_random_inputs_are_normal_floats_and_bits_and_leave_states_out() -> None:
    (feed,) = Feeding(seed=3).calls(PORTS, {"h"})
    assert list(feed) == ["x", "n", "b"]
    assert abs(feed["x"].mean()) < 0.1 and abs(feed["x"].std() - 1) < 0.1
    assert set(feed["n"].tolist()) == {0, 1} and set(feed["b"].tolist()) == {False, True}
    assert all(feed[p.name].dtype == p.dtype and feed[p.name].shape == p.shape for p in PORTS[:3])
    (again,) = Feeding(seed=3).calls(PORTS, {"h"})
    (other,) = Feeding(seed=4).calls(PORTS, {"h"})
    assert all((feed[n] == again[n]).all() for n in feed) and (feed["x"] != other["x"]).any()


def test_ranges_are_half_open() -> None:
    (feed,) = Feeding(seed=0, ranges={"n": (-2, 3), "x": (5, 6)}).calls(PORTS, {"h"})
    assert set(feed["n"].tolist()) == {-2, -1, 0, 1, 2}
    assert feed["x"].min() >= 5 and feed["x"].max() <= 6
    with pytest.raises(UsageError, match="uint8 holds 0 to 255"):
        Feeding(seed=0, ranges={"u": (0, 257)}).calls((Port("u", (4,), np.dtype(np.uint8)),))


def test_files_win_over_the_seed_and_steps_are_calls(tmp_path: Path) -> None:
    np.save(tmp_path / "h.npy", floats(1.0, 2.0))
    np.savez(tmp_path / "steps.npz", n=np.arange(3000).reshape(3, 1000))
    feeding = Feeding({"h": str(tmp_path / "h.npy")}, seed=0, steps=str(tmp_path / "steps.npz"))
    calls = feeding.calls(PORTS, {"h"})
    assert [c["n"][0] for c in calls] == [0, 1000, 2000]
    assert all((c["h"] == [1, 2]).all() for c in calls)
    assert (calls[0]["x"] != calls[1]["x"]).any()  # what the seed makes is new in each call
    np.savez(tmp_path / "uneven.npz", n=np.zeros((2, 1000)), b=np.zeros((3, 1000)))
    with pytest.raises(UsageError, match="'n' has 2 calls, 'b' has 3"):
        Feeding(seed=0, steps=str(tmp_path / "uneven.npz")).calls(PORTS)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match="no NumPy file"):
        Feeding({"x": str(tmp_path / "p.npy")}, seed=0).calls(PORTS)


def test_npz_holds_what_savez_would_and_no_time(tmp_path: Path) -> None:
    arrays = {"a/b": np.arange(6).reshape(2, 3), "s": np.array(1.5), "f": np.asfortranarray(np.eye(3))}
    write_npz(tmp_path / "a.npz", arrays)
    os.utime(tmp_path / "a.npz", (1, 1))
    write_npz(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(io.BytesIO((tmp_path / "a.npz").read_bytes())) as loaded:
        assert loaded.files == list(arrays)
        assert all((loaded[n] == v).all() and loaded[n].shape == v.shape for n, v in arrays.items())


def test_replacing_is_whole_or_nothing_and_follows_links(tmp_path: Path) -> None:
    target, link = tmp_path / "real.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with pytest.raises(RuntimeError), replacing(link) as part:
        part.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and sorted(tmp_path.iterdir()) == [link, target]
    with replacing(link) as part:
        part.write_text("new")
    assert link.is_symlink() and target.read_text() == "new" and sorted(tmp_path.iterdir()) == [link, target]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask
