"""Artifacts: the same bytes every time, and every kind of damage refused. The cache of native code."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import planned
from waferc.codegen import artifact
from waferc.codegen.artifact import Artifact, InvalidArtifact, npy, read, write
from waferc.codegen.records import Record
from waferc.ir.op import Array
from waferc.placement.plan import Plan
from waferc.runtime.engine import cache_folder
from waferc.runtime.load import entries, load, prepare


def parts(p: Plan) -> dict[str, bytes]:
    return artifact.describe(p, {"plan": str(p)}) | artifact.weights(p) | entries(p)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "mlp.wafer"
    write(path, {"waferc": "test"}, parts(planned("mlp", "8x8")))
    return path


def x(seed: int = 0) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((10, 100)).astype(np.float32)}


def rewritten(good: Path, path: Path, changes: dict[str, bytes | None]) -> Path:
    """An artifact with other entries (None: left out), and a manifest that agrees with them."""
    a = read(good)
    kept = {n: d for n, d in {**a.entries, **changes}.items() if d is not None}
    write(path, {"waferc": "test"}, kept)
    return path


# -- what is written ---------------------------------------------------------------------------


def test_a_loaded_program_computes_the_same_bits(good: Path) -> None:
    p = planned("mlp", "8x8")
    ours, right = load(good).run(x()), prepare(p).run(x())
    guarded = load(good, guard=True).run(x())
    assert [(n, a.tobytes()) for n, a in ours.items()] == [(n, a.tobytes()) for n, a in right.items()]
    assert [(n, a.tobytes()) for n, a in guarded.items()] == [(n, a.tobytes()) for n, a in right.items()]


def test_the_plan_comes_back(good: Path) -> None:
    p, again = planned("mlp", "8x8"), read(good).plan()
    assert str(again) == str(p)
    again.check()
    assert read(good).phases() == {"plan": str(p)}


WRITES = """
import sys
sys.path.insert(0, sys.argv[1])
from plans import planned
from test_artifact import parts
from waferc.codegen.artifact import write
write(sys.argv[2], {"waferc": "test"}, parts(planned("attention", "16x16")))
"""


def test_the_same_bytes_from_every_process(tmp_path: Path) -> None:
    made: set[bytes] = set()
    for seed, folder in (("1", "one"), ("77", "another place")):
        here = tmp_path / folder
        here.mkdir()
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "WAFERC_CACHE": str(here),
            "TZ": f"UTC+{seed[0]}",
        }
        words = [sys.executable, "-c", WRITES, str(Path(__file__).parent), "a.wafer"]
        subprocess.run(words, check=True, cwd=here, env=environment)
        made.add((here / "a.wafer").read_bytes())
    assert len(made) == 1


def test_unzip_lists_it_and_nothing_is_compressed(good: Path) -> None:
    with zipfile.ZipFile(good) as z:
        infos = z.infolist()
        assert infos[0].filename == "manifest.json"
        assert all(i.compress_type == zipfile.ZIP_STORED and i.date_time == artifact.EPOCH for i in infos)
        assert z.testzip() is None


def test_a_constant_in_column_order_comes_back(tmp_path: Path) -> None:
    a = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    path = tmp_path / "a"
    write(path, {}, {"a.npy": npy(a), "b.npy": npy(np.float64(3))})
    np.testing.assert_array_equal(read(path).array("a.npy"), a)
    assert read(path).array("b.npy").shape == ()


# -- written whole or not at all -----------------------------------------------------------------


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wafer"
    write(path, {}, {"a": b"1"})
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as e:
        write(path, {}, {"a": b"2"})
    assert e.value.filename == str(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.wafer"]


def test_no_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.wafer"
    with pytest.raises(FileNotFoundError) as e:
        write(path, {}, {})
    assert e.value.filename == str(path)


# -- damage --------------------------------------------------------------------------------------


def test_truncated_at_any_place(good: Path, tmp_path: Path) -> None:
    data, path = good.read_bytes(), tmp_path / "a"
    for n in [*range(0, 64, 7), *range(64, len(data), max(1, len(data) // 40)), len(data) - 1]:
        path.write_bytes(data[:n])
        with pytest.raises(InvalidArtifact):
            read(path)


def test_a_byte_flipped_in_each_entry(good: Path, tmp_path: Path) -> None:
    data, path = good.read_bytes(), tmp_path / "a"
    with zipfile.ZipFile(good) as z:
        infos = z.infolist()
    for i in infos:
        start = i.header_offset + 30 + len(i.filename.encode())
        for at in {start, start + i.file_size // 2, start + i.file_size - 1}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            with pytest.raises(InvalidArtifact):
                read(path)


def test_a_byte_flipped_anywhere_is_refused_or_harmless(good: Path, tmp_path: Path) -> None:
    """Between the entries a zip file has fields that say nothing: then what is read must be the same."""
    data, path, right = good.read_bytes(), tmp_path / "a", read(good)
    for at in np.random.default_rng(0).integers(0, len(data), 150).tolist():
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x81]) + data[at + 1 :])
        with contextlib.suppress(InvalidArtifact):
            assert read(path) == right


@pytest.mark.parametrize("digests_agree", [False, True])
def test_an_entry_swapped_missing_or_added(good: Path, tmp_path: Path, digests_agree: bool) -> None:
    a = read(good)
    path = tmp_path / "a"

    def zipped(entries: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(path, "w") as z:
            z.writestr("manifest.json", json.dumps(dict(a.manifest)))
            for n, d in entries.items():
                z.writestr(n, d)
        return path

    every = dict(a.entries)
    if not digests_agree:
        for changed in (
            {n: d for n, d in every.items() if n != "kernels.bc"},
            {**every, "more": b""},
            {**every, "kernels.bc": every["image.json"]},
        ):
            with pytest.raises(InvalidArtifact, match=r"kernels|more"):
                read(zipped(changed))
        assert read(zipped(every)) == a
        return
    for name in ("image.json", "tables/words.npy", "weights.json", "weights/0.npy", "tables/region0.npy"):
        with pytest.raises(InvalidArtifact, match="missing"):
            load(rewritten(good, path, {name: None}))
    with pytest.raises(InvalidArtifact, match="cannot run"):
        load(rewritten(good, path, {"kernels.bc": None}))


def test_two_entries_of_one_name(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(good.read_bytes())
    with zipfile.ZipFile(path, "a") as z, pytest.warns(UserWarning, match="Duplicate"):
        z.writestr("image.json", read(good).entries["image.json"])
    with pytest.raises(InvalidArtifact, match=r"two entries are called 'image\.json'"):
        read(path)


def test_compressed_entries(good: Path, tmp_path: Path) -> None:
    path, a = tmp_path / "a", read(good)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("manifest.json", json.dumps(dict(a.manifest)))
        for n, d in a.entries.items():
            z.writestr(n, d)
    with pytest.raises(InvalidArtifact, match="compressed"):
        read(path)


@pytest.mark.parametrize(
    "manifest, message",
    [
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"format": 1}', "damaged"),
        (b'{"format": 1, "entries": 7}', "damaged"),
        (b'{"format": 999, "entries": {}}', "format 999; this waferc reads"),
        (b"\xff\xfe", "damaged"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, manifest: bytes, message: str) -> None:
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("manifest.json", manifest)
    with pytest.raises(InvalidArtifact, match=message):
        read(path)


def test_files_that_are_no_artifact(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for data in (b"", b"PK\x05\x06" + bytes(18), b"text" * 1000):
        path.write_bytes(data)
        with pytest.raises(InvalidArtifact):
            read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def header(text: str) -> bytes:
    raw = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x02\x00" + bytes(100),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + bytes(8),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }") + bytes(8),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (-1, -1), }") + bytes(8),
        header(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({1 << 62}, 4), }}"),
        header("{'descr': '<i8', 'fortran_order': True, 'shape': (2, 2), }") + bytes(32),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }") + bytes(24),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }") + bytes(8),
        header("{'descr': '<U9', 'fortran_order': False, 'shape': (1,), }") + bytes(36),
        header("__import__('os').abort()"),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': " + "(" * 2000),
    ],
)
def test_hostile_arrays(good: Path, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidArtifact, match=r"words\.npy"):
        load(rewritten(good, tmp_path / "a", {"tables/words.npy": data}))


def image(**changes: Any) -> Callable[[Artifact], dict[str, bytes | None]]:
    def change(a: Artifact) -> dict[str, bytes | None]:
        return {"image.json": json.dumps({**a.json("image.json"), **changes}).encode()}

    return change


def sections(all_at: list[int]) -> Callable[[Artifact], dict[str, bytes | None]]:
    return image(sections=dict.fromkeys(("laying", "poisoning", "inputs", "steps", "reading"), all_at))


def table(name: str, edit: Callable[[Any, Artifact], Any]) -> Callable[[Artifact], dict[str, bytes | None]]:
    def change(a: Artifact) -> dict[str, bytes | None]:
        array = a.array(f"tables/{name}.npy").copy()
        out = edit(array, a)
        return {f"tables/{name}.npy": npy(array if out is None else out)}

    return change


def at(row: Any, column: int, value: int) -> Callable[[Any, Artifact], None]:
    def edit(array: Any, a: Artifact) -> None:
        array[row, column] = value

    return edit


def first_step(word: Record, value: int) -> Callable[[Any, Artifact], None]:
    def edit(array: Any, a: Artifact) -> None:
        array[a.json("image.json")["sections"]["steps"][0] + word] = value

    return edit


def times(factor: int) -> Callable[[Any, Artifact], Any]:
    return lambda array, a: array * factor


WRONG: dict[str, Callable[[Artifact], dict[str, bytes | None]]] = {
    "no sections": image(sections={}),
    "a section outside": sections([1 << 40, 1]),
    "a negative section": sections([-8, 1]),
    "a port of objects": image(inputs=[["x", [10, 100], "O"]]),
    "a negative port": image(inputs=[["x", [10, -100], "float32"]]),
    "a port too large": image(inputs=[["x", [1 << 50], "float32"]]),
    "an input not laid": image(laid=[]),
    "a host buffer of no port": image(host=[["input", "nobody"]]),
    "a kind of host buffer": image(host=[["file", "x"]]),
    "a state that is no input": image(states=[["a", "b"]]),
    "a kernel that is not there": image(symbols=["abort"]),
    "fewer regions": image(regions=0),
    "not numbers": image(regions="many"),
    "a relocation outside": table("relocations", at(0, 0, 1 << 40)),
    "a relocation twice": table("relocations", at(1, 0, 0)),
    "an unknown base": table("relocations", at(0, 1, 99)),
    "a number out of range": table("relocations", at(slice(None), 2, 1 << 30)),
    "a negative number": table("relocations", at(slice(None), 2, -1)),
    "words of another type": table("words", lambda array, a: array.astype(np.int32)),
    "fewer words": table("words", lambda array, a: array[:200]),
    "offsets outside": table("words", times(1000)),
    "a grid larger than its region": table("words", first_step(Record.COLUMNS, 10_000)),
    "a negative grid": table("words", first_step(Record.ROWS, -1)),
    "moves outside": table("words", first_step(Record.MOVES, 1 << 30)),
    "a core twice": table("cores", times(0)),
    "cores out of range": table("cores", times(1 << 40)),
    "SRAM over the budget": table("used", times(1000)),
    "negative SRAM": table("used", times(-1)),
    "a region on other cores": table("region0", lambda array, a: array + 10_000),
}


@pytest.mark.parametrize("kind", WRONG)
def test_consistent_digests_but_wrong_tables(good: Path, tmp_path: Path, kind: str) -> None:
    changes = WRONG[kind](read(good))
    with pytest.raises(InvalidArtifact):
        load(rewritten(good, tmp_path / "a", changes))


def test_bitcode_that_is_none(good: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match=r"kernels\.bc"):
        load(rewritten(good, tmp_path / "a", {"kernels.bc": b"not bitcode"}))


# -- the cache of native code ----------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WAFERC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_code_is_kept_and_found_again(good: Path, cache: Path) -> None:
    once = load(good).run(x())
    (kept,) = cache.iterdir()
    stamp = kept.stat().st_mtime_ns
    assert load(good).run(x())["n4_Softmax_out"].tobytes() == once["n4_Softmax_out"].tobytes()
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "other"])
def test_a_damaged_object_is_built_again(good: Path, cache: Path, damage: str) -> None:
    right = load(good).run(x())
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    half = len(whole) // 2
    damaged = {
        "flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
        "truncated": whole[:half],
        "empty": b"",
        "other": b"x" * len(whole),
    }
    kept.write_bytes(damaged[damage])
    again = load(good).run(x())
    assert [a.tobytes() for a in again.values()] == [a.tobytes() for a in right.values()]
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("WAFERC_CACHE", str(blocked / "cache"))
    assert cache_folder() == blocked / "cache"
    assert len(load(good).run(x())) == 1


LOADS = "import sys; from waferc.runtime.load import load; load(sys.argv[1]); print('ok')"


def test_several_processes_fill_one_cache(good: Path, cache: Path) -> None:
    words = [sys.executable, "-c", LOADS, str(good)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [p.communicate()[0] for p in running] == ["ok\n"] * 4
    assert [p.suffix for p in cache.iterdir()] == [".o"]


MODULES = """
import sys
from waferc.runtime.load import load
load(sys.argv[1])
print(*sorted(m for m in sys.modules if m.partition(".")[0] in ("onnx", "networkx", "waferc")))
"""


def test_loading_a_program_imports_no_planner(good: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MODULES, str(good)], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    unwanted = (
        "onnx",
        "networkx",
        "waferc.ir.ops",
        "waferc.placement",
        "waferc.compiler",
        "waferc.codegen.tables",
    )
    assert "waferc.runtime.program" in loaded
    assert [m for m in loaded if m.startswith(unwanted)] == []


def test_read_keeps_bytes_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, {"k": 1}, {"b": b"\r\n\0", "a": b""})
    a = read(path)
    assert dict(a.entries) == {"a": b"", "b": b"\r\n\0"}
    assert a.manifest["k"] == 1
    assert io.BytesIO(a.entry("b")).read() == b"\r\n\0"
