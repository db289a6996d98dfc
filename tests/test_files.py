"""Other people's files: what a command reads is never lost, and never takes more than it should.

No command writes onto what it reads, or writes two things into one file; what is no regular file is refused
at once; sizes are judged before anything is read.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import socket
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click.testing
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from waferc.compiler.cli.main import main
from waferc.compiler.errors import InvalidInput
from waferc.compiler.verify.call_inputs import Feeding, load_array
from waferc.ir import disk
from waferc.runtime.cache import cache_folder
from waferc.runtime.program import InputError, Port

RUNNER = click.testing.CliRunner()


def waferc(*words: object) -> click.testing.Result:
    return RUNNER.invoke(main, [str(w) for w in words], prog_name="waferc")


def refused(code: int, *words: object) -> str:
    """The one line of a command's error."""
    start = time.monotonic()
    done = waferc(*words)
    assert done.exit_code == code, (words, done.exit_code, done.stderr)
    assert time.monotonic() - start < 5, words
    assert done.stderr.startswith("waferc: error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """All that is in a folder."""
    files = sorted(p for p in folder.rglob("*") if not p.is_dir())
    return {
        str(p): os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else "special"
        for p in files
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model with external data, its program, and what goes in."""
    folder = tmp_path_factory.mktemp("made")
    weight = numpy_helper.from_array(np.ones((8, 4), np.float32), "w")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, m]) for n, m in (("x", 8), ("y", 4))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    np.save(folder / "x.npy", np.ones((2, 8), np.float32))
    np.savez(folder / "x.npz", x=np.ones((2, 8), np.float32))
    np.savez(folder / "steps.npz", x=np.ones((3, 2, 8), np.float32))
    (folder / "w.toml").write_text(
        'base = "wse3"\nwidth = 4\nheight = 4\nfabric_width = 4\nfabric_height = 4\n'
    )
    words = ["compile", folder / "m.onnx", "--wafer", folder / "w.toml", "-o", folder / "p.wafer"]
    done = waferc(*words, "--dump-phases-to", folder / "d")
    assert done.exit_code == 0, done.stderr
    (folder / "p.json").write_bytes((folder / "d" / "placement.json").read_bytes())
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def here(here: Path, made: dict[str, bytes]) -> Path:
    """A folder to work in that holds them."""
    for name, content in made.items():
        (here / name).write_bytes(content)
    return here


COMPILE = ("compile", "m.onnx", "--wafer", "w.toml")
RUN = ("run", "p.wafer", "--input", "x=x.npy")

# -- what is read is not written ----------------------------------------------------------------

LOSSES: list[tuple[str, ...]] = [
    (*COMPILE, "-o", "m.onnx"),
    (*COMPILE, "-o", "./m.onnx"),
    (*COMPILE, "-o", "sub/../m.onnx"),
    (*COMPILE, "-o", "w.toml"),
    (*COMPILE, "-o", "w.data"),
    (*COMPILE, "-o", "p.wafer", "--json", "w.data"),
    (*COMPILE, "-o", "o.wafer", "--json", "m.onnx"),
    (*COMPILE, "-o", "o.wafer", "--report", "m.onnx"),
    (*COMPILE, "-o", "o.wafer", "--constraints", "p.json", "--json", "p.json"),
    (*COMPILE, "-o", "o.wafer", "--constraints", "d/placement.json", "--dump-phases-to", "d"),
    (*COMPILE, "-o", "o.wafer", "--constraints", "p.json", "--dump-phases-to", "linked"),
    (*COMPILE, "-o", "o.wafer", "--tokenizer", "t.json", "--json", "t.json"),
    (*COMPILE, "-o", "o.wafer", "--tokenizer", "t.json", "--chat-template", "c.html", "--report", "c.html"),
    (*COMPILE, "-o", "o.wafer", "--value", "x=x.npy", "--json", "x.npy"),
    (*COMPILE, "-o", "o.wafer", "--dump-phases-to", "m.onnx"),
    ("check", "m.onnx", "--json", "m.onnx"),
    ("check", "m.onnx", "--json", "w.data"),
    (*RUN, "-o", "x.npy"),
    (*RUN, "-o", "p.wafer"),
    (*RUN, "--trace", "p.wafer"),
    (*RUN, "--json", "p.wafer"),
    ("run", "p.wafer", "--inputs", "x.npz", "-o", "x.npz"),
    ("run", "p.wafer", "--steps", "steps.npz", "-o", "steps.npz"),
    ("report", "p.wafer", "-o", "p.wafer"),
    ("heatmap", "p.wafer", "-o", "p.wafer"),
    ("heatmap", "picture.png", "-o", "picture.png"),
    ("inspect", "p.wafer", "--json", "p.wafer"),
    ("inspect", "graph.dot", "--graph", "graph.dot"),
    ("generate", "p.wafer", "hello", "--json", "p.wafer"),
    ("verify", "m.onnx", "--program", "p.wafer", "--json", "p.wafer"),
    ("verify", "m.onnx", "--per-node", "-o", "m.onnx"),
    ("verify", "first-wrong.onnx", "--per-node"),
    ("verify", "m.onnx", "--per-node", "-o", "x.onnx", "--inputs", "x.npz"),
    ("bench", "m.onnx", "--json", "m.onnx"),
    # two results into one file
    (*COMPILE, "-o", "new", "--json", "new"),
    (*COMPILE, "-o", "new", "--json", "./new"),
    (*COMPILE, "-o", "new", "--report", "sub/../new"),
    (*COMPILE, "-o", "d/1-x.txt", "--compile-to", "graph", "--dump-phases-to", "d"),
    (*COMPILE, "-o", "o.wafer", "--json", "d/placement.json", "--dump-phases-to", "d"),
    (*COMPILE, "-o", "o.wafer", "--json", "e/placement.json", "--dump-phases-to", "e"),
    (*RUN, "-o", "new", "--trace", "new"),
    ("verify", "m.onnx", "--per-node", "-o", "n.onnx", "--json", "n.npz"),
]


@pytest.mark.parametrize("words", LOSSES, ids=" ".join)
def test_no_input_is_lost(words: tuple[str, ...], here: Path, made: dict[str, bytes]) -> None:
    for folder in ("sub", "d", "e", "linked"):
        (here / folder).mkdir()
    for name, source in (
        ("d/placement.json", "p.json"),
        ("t.json", "p.json"),
        ("c.html", "x.npy"),
        ("first-wrong.onnx", "m.onnx"),
        ("picture.png", "p.wafer"),
        ("graph.dot", "p.wafer"),
    ):
        (here / name).write_bytes(made[source])
    (here / "linked" / "placement.json").symlink_to(here / "p.json")
    before = snapshot(here)
    refused(2, *words)
    assert snapshot(here) == before


@pytest.mark.parametrize(
    "kind", ["symlink", "chain", "hard link", "linked folder", "absolute", "stdin", "stdout"]
)
def test_no_way_to_an_input_leads_past_it(kind: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target: Path | str = here / "o.wafer"
    handle = None
    if kind == "symlink":
        (here / "o.wafer").symlink_to("m.onnx")
    elif kind == "chain":
        (here / "one").symlink_to("m.onnx")
        (here / "o.wafer").symlink_to("one")
    elif kind == "hard link":
        os.link("m.onnx", "o.wafer")
    elif kind == "linked folder":
        (here.parent / "other").symlink_to(here)
        target = here.parent / "other" / "m.onnx"
    elif kind == "absolute":
        target = here / "m.onnx"
    else:
        handle = os.open("m.onnx", os.O_RDONLY)
        target = f"/proc/self/fd/{handle}"
    before = snapshot(here)
    assert "is MODEL 'm.onnx', which is read; it would be lost" in refused(
        2, *COMPILE, "--json", target, "-o", "n"
    )
    assert snapshot(here) == before
    if handle is not None:
        os.close(handle)


@pytest.mark.parametrize("stream", [1, 2])
def test_text_does_not_go_into_what_is_read(stream: int, here: Path) -> None:
    # `waferc inspect p.wafer >> p.wafer`
    before = snapshot(here)
    kept, into = os.dup(stream), os.open("p.wafer", os.O_WRONLY | os.O_APPEND)
    os.dup2(into, stream)
    try:
        done = waferc("inspect", "p.wafer")
    finally:
        os.dup2(kept, stream)
        os.close(kept)
        os.close(into)
    assert done.exit_code == 2 and snapshot(here) == before


def test_files_may_be_written_again(here: Path) -> None:
    for _ in range(2):
        for words in (
            (*COMPILE, "-o", "o.wafer", "--json", "o.json", "--report", "o.html", "--dump-phases-to", "d"),
            (*RUN, "-o", "out.npz", "--trace", "t.json", "--json", "r.json"),
            (*RUN, "-o", "/dev/null", "--json", "/dev/null", "--trace", "/dev/null"),
            ("inspect", "p.wafer", "--graph", "g.dot", "--json", "i.json"),
            ("report", "p.wafer", "-o", "r.html"),
            ("heatmap", "p.wafer", "-o", "h.SVG"),
        ):
            assert waferc(*words).exit_code == 0, words
    assert not [p for p in here.rglob("*") if p.name.startswith(disk.MARK)]


PROMISES: list[tuple[tuple[str, ...], str]] = [
    *(
        (("report", "p.wafer", "-o", f"x.{s}"), "a report is an .html file")
        for s in ("pdf", "PDF", "md", "png")
    ),
    *(
        (("run", "p.wafer", "-o", f"x.{s}"), "an .npz or a .json file")
        for s in ("csv", "npy", "jsonl", "pt", "h5", "tar.gz", "7z")
    ),
    (("run", "p.wafer", "--trace", "x.pftrace"), "a Chrome trace is a .json file"),
    *(((*COMPILE, "-o", f"x.{s}"), "a program, a .wafer file") for s in ("onnx", "plan", "so", "zip", "txt")),
    ((*COMPILE, "--compile-to", "plan", "-o", "x.wafer"), "a .plan file"),
    ((*COMPILE, "--compile-to", "graph", "-o", "x.onnx"), "a .txt file"),
    ((*COMPILE, "-o", "x.wafer", "--report", "x.pdf"), "a report is an .html file"),
    (("wafers", "--json", "x.yaml"), "written as a .json file"),
    (("ops", "--json", "x.csv"), "written as a .json file"),
    (("heatmap", "p.wafer", "-o", "x.jpg"), "a heatmap is a .png or .svg file"),
    (("heatmap", "p.wafer", "-o", "x"), "a heatmap is a .png or .svg file"),
    (("inspect", "p.wafer", "--graph", "x.json"), "a graph is a .dot or .graphml file"),
    (("verify", "m.onnx", "--per-node", "-o", "x.txt"), "is an .onnx file"),
]


@pytest.mark.parametrize("words, told", PROMISES, ids=lambda w: " ".join(w) if isinstance(w, tuple) else "")
def test_a_suffix_that_promises_another_format(words: tuple[str, ...], told: str, here: Path) -> None:
    before = snapshot(here)
    assert told in refused(2, *words)
    assert snapshot(here) == before


def test_a_suffix_that_promises_nothing_will_do(here: Path) -> None:
    for name in ("out", "resnet-1.5", "model.v2", "x.tmp", "out.WAFER", ".wafer"):
        assert waferc(*COMPILE, "-o", name).exit_code == 0, name


# -- what is no regular file --------------------------------------------------------------------

PLACES: list[tuple[str, ...]] = [
    ("check", "{}"),
    ("compile", "{}", "-o", "o"),
    (*COMPILE, "--constraints", "{}", "-o", "o"),
    (*COMPILE, "--tokenizer", "{}", "-o", "o"),
    (*COMPILE, "--tokenizer", "t.json", "--chat-template", "{}", "-o", "o"),
    ("compile", "m.onnx", "--wafer", "{}", "-o", "o"),
    (*COMPILE, "--value", "x={}", "-o", "o"),
    ("run", "{}", "--random", "0"),
    ("run", "p.wafer", "--input", "x={}"),
    ("run", "p.wafer", "--inputs", "{}"),
    ("run", "p.wafer", "--steps", "{}"),
    ("verify", "{}", "--wafer", "w.toml"),
    ("verify", "{}", "--program", "p.wafer"),
    ("verify", "{}", "--wafer", "w.toml", "--per-node"),
    ("verify", "m.onnx", "--program", "{}"),
    ("verify", "m.onnx", "--wafer", "w.toml", "--inputs", "{}"),
    ("bench", "{}", "--wafer", "w.toml"),
    ("heatmap", "{}", "-o", "o.png"),
    ("report", "{}", "-o", "o.html"),
    ("inspect", "{}"),
    ("generate", "{}", "hello"),
]
TOKENIZER = b'{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}'


@pytest.fixture
def odd(here: Path) -> Iterator[dict[str, str]]:
    """Names of what is no regular file, all with the suffix of an array."""
    (here / "t.json").write_bytes(TOKENIZER)
    os.mkfifo("pipe.npy")
    (here / "folder.npy").mkdir()
    (here / "zero.npy").symlink_to("/dev/zero")
    (here / "null.npy").symlink_to("/dev/null")
    (here / "linked.npy").symlink_to("pipe.npy")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("socket.npy")
    yield {name: f"{name}.npy" for name in ("pipe", "folder", "zero", "null", "linked", "socket")}
    listening.close()


@pytest.mark.parametrize("words", PLACES, ids=" ".join)
def test_what_is_no_regular_file_is_refused_at_once(words: tuple[str, ...], odd: dict[str, str]) -> None:
    folders = words[0] in ("check", "compile", "verify", "bench", "generate") and words[1] == "{}"
    for kind, name in odd.items():
        whole = folders and kind == "folder"  # which may be that of a model
        line = refused(3 if whole else 6, *(w.format(name) for w in words))
        assert name in line and ("without a model" if whole else "not a file") in line
    line = refused(6, *(w.format("missing.npy" if "x={}" in w else "missing.toml") for w in words))
    assert "No such file or directory" in line


@pytest.mark.parametrize("name", ["pipe.npy", "folder.npy", "socket.npy"])
def test_data_of_a_model_that_is_no_regular_file(name: str, odd: dict[str, str], here: Path) -> None:
    (here / "w.data").unlink()
    os.rename(name, "w.data")
    for words in (
        COMPILE,
        ("verify", "m.onnx", "--program", "p.wafer"),
        ("bench", "m.onnx", "--wafer", "4x4"),
    ):
        refused(6, *words, *(["-o", "o"] if words is COMPILE else []))
    assert not (here / "o").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_an_entry_of_the_cache_that_is_no_regular_file(kind: str, here: Path) -> None:
    folder = cache_folder()
    assert folder is not None
    assert waferc(*COMPILE, "-o", "a.wafer").exit_code == 0 and waferc(*RUN).exit_code == 0
    entries = [p for p in folder.iterdir() if p.is_file()]
    assert {p.suffix for p in entries} == {".placement", ".search", ".bc", ".o"}
    for entry in entries:
        whole = entry.read_bytes()
        entry.unlink()
        if kind == "pipe":
            os.mkfifo(entry)
        elif kind == "folder":
            entry.mkdir()
        else:
            entry.symlink_to("/dev/zero")
        words = RUN if entry.suffix == ".o" else (*COMPILE, "-o", "b.wafer")
        assert "not a file" in refused(6, *words)
        os.rmdir(entry) if kind == "folder" else entry.unlink()
        entry.write_bytes(whole)


# -- sizes before contents ----------------------------------------------------------------------


def sparse(path: Path, size: int, head: bytes = b"") -> Path:
    """A file of `size` bytes that takes up none."""
    with path.open("wb") as f:
        f.write(head)
        f.truncate(size)
    return path


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Bytes of Python's and NumPy's at most since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("size", [1 << 31, 3 << 30, 1 << 42])
@pytest.mark.parametrize("verb", ["check", "compile", "verify", "bench"])
def test_a_model_of_2_gib_is_refused_by_its_size(
    verb: str, size: int, here: Path, peak: Callable[[], int]
) -> None:
    sparse(here / "large.onnx", size, (here / "m.onnx").read_bytes())
    line = refused(3, verb, "large.onnx", *(["-o", "o"] if verb == "compile" else []))
    assert f"{size:,} bytes" in line and "2,147,483,647" in line and "external data" in line
    assert peak() < 1 << 26


@pytest.mark.parametrize(
    "words",
    [
        ("compile", "m.onnx", "--wafer", "large.toml", "-o", "o"),
        (*COMPILE, "--constraints", "large.toml", "-o", "o"),
        (*COMPILE, "--tokenizer", "large.toml", "-o", "o"),
        (*COMPILE, "--tokenizer", "t.json", "--chat-template", "large.toml", "-o", "o"),
    ],
    ids=" ".join,
)
def test_other_large_files_are_refused_by_their_size(
    words: tuple[str, ...], here: Path, peak: Callable[[], int]
) -> None:
    (here / "t.json").write_bytes(TOKENIZER)
    sparse(here / "large.toml", 3 << 30)
    assert "3,221,225,472 bytes" in refused(6, *words)
    assert peak() < 1 << 26


HOSTILE = {
    "brackets.toml": b"base = " + b"[" * 9000,
    "binary.toml": b"\xff\xfe\x00",
    "tables.toml": b"[a" + b".a" * 20000 + b"]",
    "brackets.json": b"[" * 100000,
    "binary.json": b"\xff\xfe{",
    "number.json": b"1" + b"0" * 5000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_an_error_of_its_own(name: str, here: Path) -> None:
    (here / name).write_bytes(HOSTILE[name])
    if name.endswith(".toml"):
        refused(2, "compile", "m.onnx", "--wafer", name, "-o", "o")
    else:
        refused(3, *COMPILE, "--constraints", name, "-o", "o")
        refused(3, *COMPILE, "--tokenizer", name, "-o", "o")


# -- arrays -------------------------------------------------------------------------------------

PORT = Port("x", (2, 3), np.dtype(np.float32))
RIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def saved(array: np.ndarray, **options: bool) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def described(descr: str = "'<f4'", order: str = "False", shape: str = "(2, 3)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


GOOD = {
    "as saved": saved(RIGHT),
    "fortran order": saved(np.asfortranarray(RIGHT)),
    "big-endian": saved(RIGHT.astype(">f4")),
    "big-endian, fortran order": saved(np.asfortranarray(RIGHT.astype(">f4"))),
    "format 2": npy(described(), RIGHT.tobytes(), (2, 0)),
    "format 3": npy(described(), RIGHT.tobytes(), (3, 0)),
    "other order of keys": npy("{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}", RIGHT.tobytes()),
    "other quotes and spaces": npy('{"descr":"<f4","fortran_order":False,"shape":(2,3)}  ', RIGHT.tobytes()),
    "long integers of Python 2": npy(described(shape="(2L, 3L)"), RIGHT.tobytes()),
}
BAD = {
    "empty": (b"", "it is empty"),
    "text": (b"0 1 2\n", "magic string"),
    "pickle": (pickle.dumps([1]), "it is a pickle"),
    "objects": (saved(np.array([{}], object), allow_pickle=True), "Python objects"),
    "objects, forged": (npy(described("'|O'"), b"\x80\x04K\x01."), "Python objects"),
    "fields": (saved(np.zeros(2, [("a", "<f4"), ("b", "<i4")])), "elements with fields"),
    "10^400 elements": (npy(described(shape=f"(1{'0' * 400},)")), "a dimension of 401 digits"),
    "10^18 elements": (npy(described(shape=f"(1{'0' * 18},)")), "is truncated"),
    "64 dimensions of 10^18": (npy(described(shape="(" + f"{10**18}, " * 64 + ")")), "is truncated"),
    "9,000 brackets": (npy(described(shape="(" * 9000)), "not one of NumPy's"),
    "9,000 brackets of a type": (npy(described(descr="[" * 9000)), "elements with fields"),
    "9,000 axes": (npy(described(shape=f"({'1, ' * 9000})")), "9,000 axes"),
    "code": (npy("__import__('os').abort()"), "not one of NumPy's"),
    "no such type": (npy(described("'<f3'"), bytes(24)), "no type"),
    "long type": (npy(described("'<U99999999'"), bytes(24)), "is truncated"),
    "negative dimension": (npy(described(shape="(-2, 3)"), bytes(24)), "not one of NumPy's"),
    "missing key": (npy("{'descr': '<f4', 'shape': (2, 3)}", bytes(24)), "not one of NumPy's"),
    "format 9": (npy(described(), bytes(24), (9, 0)), "format 9.0"),
    "header of 4 GB": (b"\x93NUMPY\x02\x00" + b"\xff" * 4, "a header of 4,294,967,295 bytes"),
    "ends in the header": (saved(RIGHT)[:40], "ends in its header"),
    "truncated": (saved(RIGHT)[:-1], "is truncated: float32[2, 3] is 24 bytes, 23 are there"),
    "no bytes": (saved(RIGHT)[:-24], "is truncated"),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("packed", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_is_read_as_numpy_reads_it(name: str, packed: int | None, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if packed is None:
        path.write_bytes(GOOD[name])
        (feed,) = Feeding({"x": str(path)}).calls([PORT])
    else:
        with zipfile.ZipFile(path, "w", packed) as z, z.open("x.npy", "w", force_zip64=True) as entry:
            entry.write(GOOD[name])
        (feed,) = Feeding(archive=str(path)).calls([PORT])
    assert feed["x"].dtype == np.float32 and feed["x"].dtype.isnative
    assert (feed["x"] == RIGHT).all() and feed["x"].shape == RIGHT.shape


@pytest.mark.parametrize("name", BAD)
def test_an_array_that_is_none(name: str, tmp_path: Path, peak: Callable[[], int]) -> None:
    data, told = BAD[name]
    (tmp_path / "x.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as z:
        z.writestr("x.npy", data)
    for feeding in (Feeding({"x": str(tmp_path / "x.npy")}), Feeding(archive=str(tmp_path / "x.npz"))):
        with pytest.raises(InvalidInput) as e:
            feeding.calls([PORT])
        assert told in str(e.value) and "x" in str(e.value) and len(str(e.value)) < 300
    with pytest.raises(InvalidInput):
        load_array(str(tmp_path / "x.npy"))
    assert peak() < 1 << 24


def test_arrays_without_elements_or_axes_and_of_text(tmp_path: Path) -> None:
    for array in (
        np.zeros((0, 3), np.float32),
        np.array(1.5),
        np.array(["a", "bc"]),
        np.array([b"a"]),
        np.array(""),
    ):
        np.save(tmp_path / "x.npy", array)
        again = load_array(str(tmp_path / "x.npy"))
        assert again.dtype == array.dtype and again.shape == array.shape and (again == array).all()


def bomb(path: Path, shape: tuple[int, ...], dtype: str = "<f4") -> Path:
    """An .npz of zeros: a thousandth of their size."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z,
        z.open("x.npy", "w", force_zip64=True) as entry,
    ):
        entry.write(npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"))
        left, block = int(np.prod(shape)) * np.dtype(dtype).itemsize, bytes(1 << 22)
        while left:
            left -= entry.write(block[:left])
    return path


def test_what_a_small_archive_unpacks_to_is_judged_before(tmp_path: Path, peak: Callable[[], int]) -> None:
    large = str(bomb(tmp_path / "large.npz", (1 << 16, 1 << 11)))  # 512 MiB
    wide = str(bomb(tmp_path / "wide.npz", (2, 3), "<U8388608"))  # 192 MiB
    assert os.path.getsize(large) < 1 << 20
    with pytest.raises(InputError, match=r"has shape \[65536, 2048\], compiled for \[2, 3\]"):
        Feeding(archive=large).calls([PORT])
    with pytest.raises(InputError, match="the program takes float32"):
        Feeding(archive=wide).calls([PORT])
    with pytest.raises(InputError, match=r"has shape \[2048\]"):
        Feeding(steps=large).calls([Port("x", (3,), PORT.dtype)], others=())
    for steps in (Feeding(steps=large, seed=0), Feeding(archive=large, seed=0)):
        with pytest.raises(InvalidInput, match="536,870,912 bytes, packed in"):
            ports = [] if steps.archive else [Port("x", (1 << 11,), PORT.dtype)]
            steps.calls(ports, others=["x"] if steps.archive else ())
    assert peak() < 1 << 25


def member(name: str = "x.npy", method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        z.writestr(name, saved(RIGHT))
    return out.getvalue()


def encrypted() -> bytes:
    data = bytearray(member())
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def method(number: int) -> bytes:
    data = bytearray(member())
    for at in (8, data.rindex(b"PK\x01\x02") + 10):
        data[at : at + 2] = number.to_bytes(2, "little")
    return bytes(data)


def twice(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z, np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)
        for name in names:
            z.writestr(name, saved(RIGHT))
    return out.getvalue()


def flipped(at: int) -> bytes:
    data = bytearray(member(method=zipfile.ZIP_DEFLATED))
    data[at] ^= 0xFF
    return bytes(data)


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "encrypted": (encrypted, "'x' is encrypted"),
    "lzma": (lambda: member(method=zipfile.ZIP_LZMA), "method 14 (lzma)"),
    "bzip2": (lambda: member(method=zipfile.ZIP_BZIP2), "method 12 (bzip2)"),
    "deflate64": (lambda: method(9), "method 9 (deflate64)"),
    "unknown": (lambda: method(77), "method 77"),
    "twice": (lambda: twice("x.npy", "x.npy"), "'x' is there twice"),
    "twice by two names": (lambda: twice("x", "x.npy"), "'x' is there twice"),
    "damaged": (lambda: flipped(60), "'x' is damaged"),
    "truncated": (lambda: member()[:-30], "is no NumPy file"),
    "one array": (lambda: saved(RIGHT), "holds one array"),
    "text": (lambda: b"x = 1", "is no NumPy file"),
    "empty": (lambda: b"", "is no NumPy file"),
    "bytes": (lambda: member("x").replace(b"\x93NUMPY", b"\x93NUMPI"), "'x'"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_no_savez_wrote(name: str, tmp_path: Path) -> None:
    data, told = ARCHIVES[name]
    (tmp_path / "x.npz").write_bytes(data())
    with pytest.raises(InvalidInput) as e:
        Feeding(archive=str(tmp_path / "x.npz")).calls([PORT])
    assert told in str(e.value)


def test_an_archive_with_any_byte_changed_is_refused_or_right(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for how, step in itertools.product((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), (0x01, 0x80, 0xFF)):
        whole = member(method=how)
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ step]) + whole[at + 1 :])
            try:
                (feed,) = Feeding(archive=str(path)).calls([PORT])
            except Exception as e:
                assert getattr(e, "exit_code", 2) in (2, 3), (at, e)  # 2: a name that is no input's
                assert type(e).__name__ in ("InvalidInput", "UsageError", "InputError"), (at, e)
            else:
                assert feed["x"].tobytes() == RIGHT.tobytes()
