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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache as cache_results
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import GRAPHS, all_shared, planned
from waferc.codegen.artifact import artifact
from waferc.codegen.artifact.artifact import Artifact, InvalidArtifact, npy, read, write
from waferc.codegen.artifact.typed import classes, decode, encode
from waferc.codegen.host.records import GroupWords, SweepWords
from waferc.codegen.words import Base
from waferc.ir.affine import Affine
from waferc.ir.dtypes import ALL, SMALL, DType
from waferc.ir.graph import Length
from waferc.ir.op import Array, Op
from waferc.placement.judge.judge import judge
from waferc.placement.machine.wafer import Wafer
from waferc.placement.plan.plan import Plan
from waferc.runtime.cache import cache_folder
from waferc.runtime.image import Image
from waferc.runtime.image import decode as decode_image
from waferc.runtime.load import files, load, prepare

MADE = {"waferc": "test", "entries": ["main"]}  # the manifest of a program of one entry


def parts(p: Plan) -> dict[str, bytes | Array]:
    return artifact.describe(p, {"main": {"plan": str(p)}}) | artifact.weights(p) | files(p)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "mlp.wafer"
    write(path, MADE, parts(planned("mlp", "8x8")))
    return path


def x(seed: int = 0) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).standard_normal((10, 100)).astype(np.float32)}


def rewritten(good: Path, path: Path, changes: dict[str, bytes | None]) -> Path:
    """An artifact with other entries (None: left out), and a manifest that agrees with them."""
    a = read(good)
    kept = {n: d for n, d in {**a.files, **changes}.items() if d is not None}
    write(path, MADE, kept)
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
    judge(again)
    assert read(good).phases() == {"plan": str(p)}


WRITES = """
import sys
sys.path.insert(0, sys.argv[1])
from plans import planned
from test_artifact import parts
from waferc.codegen.artifact.artifact import write
write(sys.argv[2], {"waferc": "test", "entries": ["main"]}, parts(planned("attention", "16x16")))
"""


@pytest.mark.thorough
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

    def zipped(files: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(path, "w") as z:
            z.writestr("manifest.json", json.dumps(dict(a.manifest)))
            for n, d in files.items():
                z.writestr(n, d)
        return path

    every = dict(a.files)
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
    tables = ("main/tables/words.npy", "main/tables/relocations.npy")
    for name in ("image.json", "main/image.json", "weights.json", "weights/0.npy", *tables):
        with pytest.raises(InvalidArtifact, match="missing"):
            load(rewritten(good, path, {name: None}))
    with pytest.raises(InvalidArtifact, match="cannot run"):
        load(rewritten(good, path, {"kernels.bc": None}))


def test_two_entries_of_one_name(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(good.read_bytes())
    with zipfile.ZipFile(path, "a") as z, pytest.warns(UserWarning, match="Duplicate"):
        z.writestr("image.json", read(good).files["image.json"])
    with pytest.raises(InvalidArtifact, match=r"two files are called 'image\.json'"):
        read(path)


def test_compressed_entries(good: Path, tmp_path: Path) -> None:
    path, a = tmp_path / "a", read(good)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("manifest.json", json.dumps(dict(a.manifest)))
        for n, d in a.files.items():
            z.writestr(n, d)
    with pytest.raises(InvalidArtifact, match="compressed"):
        read(path)


@pytest.mark.parametrize(
    "manifest, message",
    [
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"format": 4}', "damaged"),
        (b'{"format": 4, "sha256": 7}', "damaged"),
        (b'{"format": 4, "sha256": {}, "entries": NaN}', "NaN is no number"),
        (b'{"format": 4, "sha256": {}, "a": 1e999}', "1e999 is too large"),
        (b'{"format": 4, "sha256": {}, "sha256": {}}', "'sha256' twice in one object"),
        (b'{"format": 4, "sha256": {}, "a": "\\ud800"}', "no UTF-8"),
        (b'{"format": 4, "sha256": {}, "a": "\xed\xa0\x80"}', "no UTF-8"),
        (b'\xef\xbb\xbf{"format": 4, "sha256": {}}', "damaged"),
        (b'{"format": 4, "sha256": {}, "a": ' + b"9" * 5000 + b"}", "damaged"),
        (b'{"format": 3, "entries": {}}', r"format 3; this waferc reads 4; compile the model again$"),
        (b'{"format": 999, "sha256": {}}', "format 999; this waferc reads"),
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
        load(rewritten(good, tmp_path / "a", {"main/tables/words.npy": data}))


Change = Callable[[Artifact], dict[str, bytes | None]]


COMMON = {"symbols", "arena", "constants", "margins"}  # what the entries share


def place(fact: str) -> str:
    """The file that says it."""
    return "image.json" if fact in COMMON else "main/image.json"


def facts(**changes: Any) -> Change:
    """What images say, with other values."""

    def change(a: Artifact) -> dict[str, bytes | None]:
        out: dict[str, bytes | None] = {}
        for path in {place(name) for name in changes}:
            own = {n: to for n, to in changes.items() if place(n) == path}
            out[path] = json.dumps({**a.json(path), **own}).encode()
        return out

    return change


def fact(name: str, *path: int, to: Any) -> Change:
    """What images say, with one value inside the list `name` replaced."""

    def change(a: Artifact) -> dict[str, bytes | None]:
        whole = a.json(place(name))
        at = whole[name]
        for i in path[:-1]:
            at = at[i]
        at[path[-1]] = to(at[path[-1]]) if callable(to) else to
        return {place(name): json.dumps(whole).encode()}

    return change


@dataclass(frozen=True)
class Pointers:
    """Where, in the words, things of the first group stand."""

    words: Any
    relocations: Any
    group: int

    @property
    def sweep(self) -> int:
        return int(self.words[self.group + GroupWords.TABLE]) // 8

    def table(self, word: SweepWords) -> int:
        """The place of a table of the group's first sweep."""
        return int(self.words[self.sweep + word]) // 8


def tables(edit: Callable[[Pointers], None]) -> Change:
    """Words and relocations changed in place."""

    def change(a: Artifact) -> dict[str, bytes | None]:
        names = ("main/tables/words.npy", "main/tables/relocations.npy")
        words, relocations = (a.array(n).copy() for n in names)
        edit(Pointers(words, relocations, a.json("main/image.json")["groups"][0]))
        return {n: npy(array) for n, array in zip(names, (words, relocations), strict=True)}

    return change


def group(word: GroupWords, value: int) -> Change:
    return tables(lambda p: p.words.__setitem__(p.group + word, value))


def sweep(word: SweepWords, value: int) -> Change:
    return tables(lambda p: p.words.__setitem__(p.sweep + word, value))


def inside(table: SweepWords, offset: int, value: int) -> Change:
    """A word of one of the first sweep's tables."""
    return tables(lambda p: p.words.__setitem__(p.table(table) + offset, value))


def relocation(column: int, value: Any, row: Any = 0) -> Change:
    return tables(lambda p: p.relocations.__setitem__((row, column), value))


def of_word(find: Callable[[Pointers], int], column: int, value: int) -> Change:
    """The relocation of one word."""

    def edit(p: Pointers) -> None:
        (row,) = np.flatnonzero(p.relocations[:, 0] == find(p))
        p.relocations[row, column] = value

    return tables(edit)


def array(name: str, edit: Callable[[Any], Any]) -> Change:
    return lambda a: {name: npy(edit(a.array(name)))}


FAR = 1 << 45
# Copies are [tensor, type, shape, offset, strides, offset on the host, strides on the host].
WRONG: dict[str, Change] = {
    "no groups": facts(groups=[]),
    "groups outside": facts(groups=[1 << 40, 1]),
    "a negative count of groups": facts(groups=[8, -1]),
    "groups at a negative place": facts(groups=[-8, 1]),
    "groups that are other words": fact("groups", 0, to=lambda at: at - 1),
    "an arena that is no number": facts(arena="many"),
    "an arena without end": facts(arena=float("inf")),
    "an arena too large": facts(arena=FAR),
    "an arena too small": facts(arena=64),
    "a negative arena": facts(arena=-64),
    "a port of objects": fact("inputs", 0, 2, to="O"),
    "a port of no known type": fact("inputs", 0, 2, to="float33"),
    "a port in another byte order": fact("inputs", 0, 2, to=">f4"),
    "a type that is a list": fact("inputs", 0, 2, to=["float32"]),
    "a negative port": fact("inputs", 0, 1, to=[10, -100]),
    "a port of another shape": fact("inputs", 0, 1, to=[10, 101]),
    "a port of another type": fact("inputs", 0, 2, to="int32"),
    "a port too large": fact("inputs", 0, 1, to=[1 << 50]),
    "a port of a hundred dimensions": fact("inputs", 0, 1, to=[1] * 100),
    "a port without a shape": fact("inputs", 0, 1, to=None),
    "two ports of one name": lambda a: facts(inputs=a.json("main/image.json")["inputs"] * 2)(a),
    "a copy of no port": facts(inputs=[]),
    "an output of another shape": fact("outputs", 0, 1, to=[30, 10]),
    "an input not laid": facts(laid=[]),
    "an output not read": facts(read=[]),
    "an output read under another name": fact("read", 0, 0, to="nobody"),
    "a state that is no input": facts(states=[["a", "b"]]),
    "a state of three": facts(states=[["a", "b", "c"]]),
    "a kernel that is not there": facts(symbols=["abort"]),
    "symbols that are no list": facts(symbols=7),
    "a copy past the arena": fact("laid", 0, 3, to=FAR),
    "a copy before the arena": fact("laid", 0, 3, to=-4),
    "a copy with a stride too long": fact("read", 0, 4, to=[1 << 20, 4]),
    "a copy with a stride that no array has": fact("laid", 0, 4, 0, to=1 << 70),
    "a copy that stays in one place": fact(
        "laid", 0, to=lambda c: [*c[:2], [1 << 30, 1], c[3], [0, 0], *c[5:]]
    ),
    "a copy of another rank": fact("laid", 0, 4, to=[4]),
    "a copy of a negative size": fact("constants", 0, 2, 0, to=-1),
    "a copy of objects": fact("constants", 0, 1, to="object"),
    "half a copy": fact("laid", 0, to=["x", "float32"]),
    "a constant that is not there": fact("constants", 0, 0, to="nobody"),
    "a constant of another type": fact("constants", 0, 1, to="int32"),
    "a constant read past its end": fact("constants", 0, 5, to=4096),
    "a constant read before its start": fact("constants", 0, 5, to=-4),
    "a constant with strides too long": fact("constants", 0, 6, 0, to=1 << 30),
    "nobody's array bound": facts(bound=["nobody"]),
    "a constant bound": facts(bound=["weight"]),
    "a bound input in another order": facts(
        bound=["x"], laid=[["x", "float32", [10, 100], 0, [4, 40], 0, [4, 40]]]
    ),
    "bound tensors that are no list": facts(bound=3),
    "margins outside": facts(margins=[[0, FAR, "float32", "0x0p+0"]]),
    "margins before the arena": facts(margins=[[-4, 1, "float32", "0x0p+0"]]),
    "a negative margin": facts(margins=[[8, -1, "float32", "0x0p+0"]]),
    "margins of no number": facts(margins=[[0, 1, "float32", "0xzz"]]),
    "margins of infinite integers": facts(margins=[[0, 1, "int8", "-inf"]]),
    "margins of integers out of range": facts(margins=[[0, 1, "int8", "0x1p+9"]]),
    "margins of text": facts(margins=[[0, 1, "str", "0x0p+0"]]),
    "a relocation outside": relocation(0, 1 << 40),
    "a relocation at a negative word": relocation(0, -1),
    "a relocation twice": tables(lambda p: p.relocations.__setitem__(1, p.relocations[0])),
    "an unknown base": relocation(1, 99),
    "a negative base": relocation(1, -1),
    "a base of the literal run": relocation(1, int(Base.REGION), slice(None)),
    "a number out of range": relocation(2, 1 << 30, slice(None)),
    "a negative number": relocation(2, -1, slice(None)),
    "relocations of four columns": array("main/tables/relocations.npy", lambda r: np.hstack([r, r[:, :1]])),
    "no relocations": array("main/tables/relocations.npy", lambda r: r[:0]),
    "words of another type": array("main/tables/words.npy", lambda w: w.astype(np.int32)),
    "words in two dimensions": array("main/tables/words.npy", lambda w: w[None]),
    "fewer words": array("main/tables/words.npy", lambda w: w[: len(w) // 2]),
    "offsets outside": array("main/tables/words.npy", lambda w: w * 1000),
    "a group of more items than calls": group(GroupWords.ITEMS, 1 << 40),
    "a group of less than no items": group(GroupWords.ITEMS, -1),
    "a group of more sweeps than there are": group(GroupWords.SWEEPS, 1 << 40),
    "a group of less than no sweeps": group(GroupWords.SWEEPS, -1),
    "sweeps outside": group(GroupWords.TABLE, 1 << 40),
    "sweeps at a crooked place": tables(
        lambda p: p.words.__setitem__(p.group + GroupWords.TABLE, p.words[p.group + GroupWords.TABLE] + 4)
    ),
    "sweeps that are other words": tables(
        lambda p: p.words.__setitem__(p.group + GroupWords.TABLE, p.words[p.group + GroupWords.TABLE] + 8)
    ),
    "a kernel that is an offset": of_word(lambda p: p.sweep + SweepWords.KERNEL, 1, Base.WORDS),
    "a kernel that is nowhere": of_word(lambda p: p.sweep + SweepWords.KERNEL, 0, 0),
    "a group that is called": of_word(lambda p: p.group + GroupWords.TABLE, 1, Base.KERNEL),
    "calls of no bytes": sweep(SweepWords.BYTES, 0),
    "calls of less than no bytes": sweep(SweepWords.BYTES, -64),
    "calls of half a word": tables(
        lambda p: p.words.__setitem__(p.sweep + SweepWords.BYTES, p.words[p.sweep + SweepWords.BYTES] + 4)
    ),
    "calls of more bytes": tables(
        lambda p: p.words.__setitem__(p.sweep + SweepWords.BYTES, p.words[p.sweep + SweepWords.BYTES] + 16)
    ),
    "calls outside": sweep(SweepWords.CALLS, 1 << 40),
    "strides outside": sweep(SweepWords.STRIDES, -8),
    "items that start before the first call": inside(SweepWords.ITEMS, 0, -1),
    "items that go backwards": inside(SweepWords.ITEMS, 0, 1 << 20),
    "an item of calls that are not there": inside(SweepWords.ITEMS, 1, 1 << 40),
    "an operand past the arena": inside(SweepWords.CALLS, 0, FAR),
    "an operand before the arena": inside(SweepWords.CALLS, 0, -8),
    "an operand that is no address": of_word(lambda p: p.table(SweepWords.CALLS), 1, Base.WORDS),
    "an operand that is not relocated": of_word(lambda p: p.table(SweepWords.CALLS), 0, 0),
    "a result past the arena": tables(
        lambda p: p.words.__setitem__(p.table(SweepWords.STRIDES) + np.arange(4), 1 << 40)
    ),
    "a stride before the arena": tables(
        lambda p: p.words.__setitem__(p.table(SweepWords.STRIDES) + np.arange(4), -(1 << 62))
    ),
    "a mode that there is not": tables(
        lambda p: p.words.__setitem__(p.table(SweepWords.CALLS) + last(p) - 1, 3)
    ),
    "a negative extent": tables(lambda p: p.words.__setitem__(p.table(SweepWords.CALLS) + last(p) - 4, -1)),
    "a negative chunk": tables(lambda p: p.words.__setitem__(p.table(SweepWords.CALLS) + last(p), -1)),
}


def last(p: Pointers) -> int:
    """The last word of the first call."""
    return int(p.words[p.sweep + SweepWords.BYTES]) // 8 - 1


@pytest.mark.parametrize("kind", WRONG)
def test_consistent_digests_but_wrong_tables(good: Path, tmp_path: Path, kind: str) -> None:
    changes = WRONG[kind](read(good))
    with pytest.raises(InvalidArtifact):
        load(rewritten(good, tmp_path / "a", changes))


def test_a_state_is_never_the_callers_array() -> None:
    """It would be gone when the next call reads it."""
    with all_shared():
        image = decode_image(Artifact(MADE, files(planned("state", "8x8"))))
    main = image.entries["main"]
    ((past, present),) = main.ports.states
    assert main.calls.bound == {"x", *(p.name for p in main.ports.outputs)}
    assert present in main.calls.bound
    changed = with_calls(image, bound=main.calls.bound | {past})
    with pytest.raises(InvalidArtifact, match="bound"):
        changed.check()


def test_every_program_passes_its_own_judge() -> None:
    for name in GRAPHS:
        for wafer in ("4x4", "16x16"):
            decode_image(Artifact(MADE, files(planned(name, wafer))))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_word_changed_is_refused_or_stays_inside(data: st.DataObject) -> None:
    """Whatever the words say, the judge says InvalidArtifact or nothing: it never fails itself."""
    image = images("convolution")
    calls = image.entries["main"].calls
    words, relocations = calls.words.copy(), calls.relocations.copy()
    odd = st.sampled_from([-(1 << 63), -1, 0, 1, 3, 8, 64, 1 << 20, 1 << 40, (1 << 63) - 1])
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            words[data.draw(st.integers(0, len(words) - 1))] = data.draw(odd)
        else:
            at = data.draw(st.integers(0, len(relocations) - 1)), data.draw(st.integers(0, 2))
            relocations[at] = data.draw(odd)
    changed = with_calls(image, words=words, relocations=relocations)
    with contextlib.suppress(InvalidArtifact):
        changed.check()


ODD: list[Any] = [None, -1, 0, 1.5, 1 << 70, "", "x", [], {}, [[]], True, float("nan"), float("inf")]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_fact_changed_is_refused_or_harmless(data: st.DataObject) -> None:
    """One leaf of an image.json replaced by something odd, or a list cut short."""
    made = files(planned("state", "8x8"))
    path = data.draw(st.sampled_from(["image.json", "main/image.json"]))
    facts = json.loads(made[path])
    at, key = facts, data.draw(st.sampled_from(sorted(facts)))
    while isinstance(at[key], list) and at[key] and data.draw(st.integers(0, 9)):
        at = at[key]
        key = data.draw(st.integers(0, len(at) - 1))
    at[key] = data.draw(st.sampled_from([*ODD, at[key][:-1] if isinstance(at[key], list) else 2]))
    with contextlib.suppress(InvalidArtifact):
        decode_image(Artifact(MADE, {**made, path: json.dumps(facts).encode()}))


def with_calls(image: Image, **changes: Any) -> Image:
    """An image whose entry "main" has other calls."""
    main = image.entries["main"]
    return replace(image, entries={"main": replace(main, calls=replace(main.calls, **changes))})


@cache_results
def images(name: str) -> Image:
    return decode_image(Artifact(MADE, files(planned(name, "8x8"))))


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
        "waferc.codegen.literal.tables",
    )
    assert "waferc.runtime.program" in loaded
    assert [m for m in loaded if m.startswith(unwanted)] == []


def test_read_keeps_bytes_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, {"k": 1}, {"b": b"\r\n\0", "a": b""})
    a = read(path)
    assert dict(a.files) == {"a": b"", "b": b"\r\n\0"}
    assert a.manifest["k"] == 1
    assert io.BytesIO(a.file("b")).read() == b"\r\n\0"


# -- every class that a file may name -----------------------------------------------------------------


def samples(hint: Any, depth: int = 0) -> list[Any]:
    """Values of an annotated type: of every kind that it allows, every class and every word."""
    plain: dict[Any, list[Any]] = {
        NoneType: [None],
        bool: [True, False],
        str: ["", 'a \u2028 "name"'],
        int: [-3, 0, (1 << 64) - 1],
        float: [0, 0.1, float("inf"), float("-inf"), -0.0, 5e-324],
        DType: [*ALL, *SMALL],
        Affine: [Affine(), Affine((("a", 2), ("b", -1)), -7)],
    }
    if hint in plain:
        return plain[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return list(inner)
    if origin in (Union, UnionType):
        return [v for kind in inner for v in samples(kind, depth)]
    if origin is tuple and inner[1:] == (...,):
        return [(), tuple(samples(inner[0], depth))]
    if origin is tuple:
        columns = [samples(kind, depth) for kind in inner]
        return [tuple(c[i % len(c)] for c in columns) for i in range(max(map(len, columns)))]
    if origin is Mapping:
        return [{}, dict(zip(samples(inner[0], depth), samples(inner[1], depth), strict=False))]
    if depth > 1:  # an op within an op within an op
        return []
    return [v for c in classes(hint).values() for v in instances(c, depth + 1)[: None if depth == 0 else 1]]


def instances(of: type[Any], depth: int = 0) -> list[Any]:
    """As many of a class as show each sample of each field."""
    hints = get_type_hints(of)
    columns = {f.name: samples(hints[f.name], depth) for f in fields(of)}
    if not all(columns.values()):
        return []
    return [
        of(**{n: c[i % len(c)] for n, c in columns.items()}) for i in range(max(map(len, columns.values())))
    ]


@pytest.mark.parametrize("base", [Op, Wafer, Length])
def test_whatever_a_file_is_made_of_can_be_read_back(base: type[Any]) -> None:
    """Every operator, and all that its fields may hold: what a new class needs, its annotations say."""
    for name, one in classes(base).items():
        made = instances(one)
        assert made, name
        for value in made:
            again = decode(json.loads(json.dumps(encode(value))), base)
            assert (type(again), repr(again)) == (one, repr(value))


def test_two_classes_of_one_name_are_seen_at_once() -> None:
    class Base:
        pass

    class Twin(Base):
        pass

    assert list(classes(Base)) == ["Base", "Twin"]
    other = type("Twin", (Base,), {})
    with pytest.raises(TypeError, match="two classes are called Twin"):
        classes(Base)
    assert other is not Twin
