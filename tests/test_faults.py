"""What is left when something fails: each call of the system in turn; signals; streams; no home."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from sampled import sampled
from waferc.compiler.cli.main import main
from waferc.ir import disk
from waferc.runtime.cache import cache_folder, read_entry, write_entry

MODULE = [sys.executable, "-m", "waferc"]
RUNNER = click.testing.CliRunner()


def waferc(*words: str) -> click.testing.Result:
    return RUNNER.invoke(main, words, prog_name="waferc")


@pytest.fixture
def here(here: Path) -> Path:
    """A folder with a model and its program, and a cache that knows both."""
    weight = numpy_helper.from_array(np.ones((8, 4), np.float32), "w")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, m]) for n, m in (("x", 8), ("y", 4))]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (here / "m.onnx").write_bytes(model.SerializeToString())
    for words in ((*COMPILE, "-o", "p.wafer"), ("run", "p.wafer", "--random", "0")):
        assert waferc(*words).exit_code == 0
    return here


COMPILE = ("compile", "m.onnx", "--wafer", "4x4")
WRITERS: dict[str, tuple[str, ...]] = {
    "out.wafer": (*COMPILE, "-o"),
    "out.txt": (*COMPILE, "--compile-to", "graph", "-o"),
    "out.npz": ("run", "p.wafer", "--random", "0", "-o"),
    "trace.json": ("run", "p.wafer", "--random", "0", "--trace"),
    "out.html": ("report", "p.wafer", "-o"),
    "out.svg": ("heatmap", "p.wafer", "-o"),
    "out.dot": ("inspect", "p.wafer", "--graph"),
    "out.json": ("wafers", "--json"),
}
CALLS: list[tuple[Any, str]] = [
    (os, "open"),
    (os, "fsync"),
    (os, "replace"),
    (os, "unlink"),
    (os, "scandir"),
    (fcntl, "flock"),
    (io, "open"),
]


def temporaries(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(disk.MARK)]


@contextmanager
def failing(module: Any, name: str, number: int, fail: Callable[[], None]) -> Iterator[list[int]]:
    """Lets call `number` of a function fail if it is about files of ours; gives how many calls there were."""
    real, count = getattr(module, name), [0]

    def call(*arguments: Any, **options: Any) -> Any:
        reading = name == "open" and module is io and not set("wxa+") & set("".join(map(str, arguments[1:2])))
        if not reading:
            count[0] += 1
            if count[0] == number:
                fail()
        return real(*arguments, **options)

    setattr(module, name, call)
    try:
        yield count
    finally:
        setattr(module, name, real)


def sweep(
    module: Any, name: str, words: tuple[str, ...], code: int
) -> Iterator[tuple[click.testing.Result, bool]]:
    """The command with each of the calls failing in turn, until one passes without; whether one failed."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    for number in range(1, 200):
        with failing(module, name, number, fail) as count:
            done = waferc(*words)
        yield done, count[0] >= number
        if count[0] < number:
            return
    raise AssertionError("no end")


FAULTS = [
    *((output, errno.ENOSPC) for output in WRITERS),
    ("out.wafer", errno.EXDEV),
    ("out.npz", errno.EIO),
    ("out.html", errno.EXDEV),
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "output, code", FAULTS, ids=lambda v: errno.errorcode[v] if isinstance(v, int) else v
)
def test_after_a_fault_the_old_file_is_there_or_the_new_one(output: str, code: int, here: Path) -> None:
    words = (*WRITERS[output], output)
    assert waferc(*words).exit_code == 0
    new = (here / output).read_bytes()
    for module, name in CALLS:
        (here / output).write_bytes(b"old")
        for done, failed in sweep(module, name, words, code):
            assert done.exit_code in ((0, 6) if failed else (0,)), (name, done.stderr, done.exception)
            if done.exit_code:
                assert done.stderr.startswith("waferc: error: ") and done.stderr.count("\n") == 1
                assert os.strerror(code) in done.stderr
            left = (here / output).read_bytes()
            assert left in (b"old", new) or (output == "out.json" and left) or left[:6] == new[:6]
            if done.exit_code == 0:
                assert left != b"old"
                (here / output).write_bytes(b"old")
            if name not in ("unlink", "scandir"):
                assert temporaries(here) == [], name
        assert waferc(*words).exit_code == 0 and temporaries(here) == []


@pytest.mark.parametrize("output", WRITERS)
def test_a_disk_that_fills_up_while_it_is_written_to(output: str, here: Path) -> None:
    (here / output).write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 1, 100, 1000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            done = waferc(*WRITERS[output], output)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if done.exit_code == 0:  # it is as small as that
            assert 1 < (here / output).stat().st_size <= size
            (here / output).write_bytes(b"old")
        else:
            assert done.exit_code == 6 and f"'{output}': File too large" in done.stderr
        assert (here / output).read_bytes() == b"old" and temporaries(here) == []


@pytest.mark.parametrize("output", ["out.wafer", "out.npz", "out.html"])
def test_after_a_kill_the_next_run_cleans_up(output: str, here: Path) -> None:
    words = (*WRITERS[output], output)
    for module, name in ((os, "open"), (os, "fsync"), (os, "replace"), (io, "open")):
        for number in range(1, 20):
            (here / output).write_bytes(b"old")
            child = os.fork()
            if not child:
                with failing(module, name, number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                    waferc(*words)
                os._exit(0)
            killed = os.waitpid(child, 0)[1] == signal.SIGKILL
            assert len(temporaries(here)) <= 1
            whole = (here / output).read_bytes()
            assert (whole == b"old") if killed else (len(whole) > 3)
            disk_is_clean(here)
            if not killed:
                break
        else:
            raise AssertionError("no end")


def disk_is_clean(folder: Path) -> None:
    """Any next writer in the folder leaves none of the temporaries."""
    with disk.replacing(folder / "other") as part:
        part.write_bytes(b"")
    assert temporaries(folder) == []


def test_a_temporary_of_a_living_writer_stays(tmp_path: Path) -> None:
    with disk.replacing(tmp_path / "a") as part:
        with disk.replacing(tmp_path / "b") as other:
            other.write_bytes(b"b")
        assert temporaries(tmp_path) == [part.name]
        part.write_bytes(b"a")
    (tmp_path / f"{disk.MARK}notes").write_bytes(b"not ours")
    (tmp_path / f"{disk.MARK}{'0' * 16}.npz").mkdir()
    with disk.replacing(tmp_path / "c") as part:
        part.write_bytes(b"c")
    assert len(temporaries(tmp_path)) == 2 and (tmp_path / "a").read_bytes() == b"a"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EXDEV, errno.EROFS], ids=errno.errorcode.get)
def test_a_fault_of_the_cache_is_none_of_a_command(code: int, here: Path) -> None:
    folder = cache_folder()
    assert folder is not None
    for module, name in CALLS[:3]:
        for number in range(1, 30):

            def fail() -> None:
                raise OSError(code, os.strerror(code))

            (folder / "entry").unlink(missing_ok=True)
            with failing(module, name, number, fail) as count:
                write_entry("entry", b"held")
            assert read_entry("entry") in (None, b"held") and temporaries(folder) == []
            if count[0] < number:
                assert read_entry("entry") == b"held"
                break


# -- signals, streams and surroundings ----------------------------------------------------------


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", sampled(["native code", "Python"], 2))
def test_a_signal_ends_a_command_in_order(number: signal.Signals, code: int, where: str, here: Path) -> None:
    # A command that writes and is not done: in Python's own code, or where Python hears nothing.
    wait = "time.sleep(60)" if where == "Python" else "ctypes.CDLL(None).sleep(60); time.sleep(60)"
    text = f"""
import ctypes, pathlib, sys, time
from waferc.compiler.cli.main import main
def write(self, *_, **__):
    print("ready", flush=True)
    {wait}
pathlib.Path.write_text = write
main(["wafers", "-q", "--json", "out.json"])
"""
    (here / "out.json").write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        assert len(temporaries(here)) == 1
        start = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == code and time.monotonic() - start < 10
    assert errors.startswith(b"waferc: error: ") and errors.count(b"\n") == 1
    assert temporaries(here) == [] and (here / "out.json").read_text() == "old"


@pytest.mark.parametrize(
    "shell, code",
    sampled(
        [
            ("wafers >/dev/full", 6),
            ("wafers >&-", 6),
            ("wafers --json - >/dev/full", 6),
            ("--help >/dev/full", 6),
            ("--help >&-", 6),
            ("wafers -q >&-", 0),
            ("wafers 2>/dev/full", 0),
            ("wafers 2>&-", 0),
            ("wafers -q >&- 2>&- <&-", 0),
            ("check missing.onnx 2>/dev/full", 6),
            ("check missing.onnx >&- 2>&- <&-", 6),
            ("wafers --fast 2>&-", 2),
            ("run p.wafer --random 0 -o out.npz -q >&- 2>&- <&-", 0),
            ("run p.wafer --random 0 -o out.npz -v 2>/dev/full", 0),
            ("generate p.wafer - <&-", 2),
        ],
        2,
    ),
)
def test_streams_that_are_closed_or_full(shell: str, code: int, here: Path) -> None:
    command = f"'{sys.executable}' -m waferc {shell}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr and "Error" not in done.stderr
    assert done.stderr.count("\n") <= 1 or "-v" in shell
    if "out.npz" in shell:
        assert np.load(here / "out.npz")["y"].shape == (2, 4)


OTHERS = (
    "check m.onnx --wafer 4x4",
    "report p.wafer -o r.html",
    "heatmap p.wafer -o h.png",
    "diff p.wafer p.wafer",
    "inspect p.wafer",
    "bench m.onnx --wafer 4x4 --no-peers --pairs 1 --threads 1",
    "ops",
    "compile m.onnx --wafer 4x4 -o q.wafer",
)


@pytest.mark.thorough
@pytest.mark.parametrize("verb", OTHERS)
def test_streams_of_other_verbs(verb: str, here: Path) -> None:
    """Full, closed, all closed, and with a reader that has seen enough."""
    for streams in (">/dev/full", ">&-", "2>&-", ">&- 2>&- <&-", "| head -c 1"):
        command = f"'{sys.executable}' -m waferc {verb} {streams}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode in ((0,) if "head" in streams or streams == "2>&-" else (0, 6)), done.stderr
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
        assert done.stderr.count("\n") <= 1, (streams, done.stderr)
        assert temporaries(here) == []


@pytest.mark.thorough
@pytest.mark.parametrize("cache", ["none", "unwritable", "a file", "a device"])
def test_without_a_home_or_a_cache(cache: str, here: Path) -> None:
    places = {"unwritable": "/proc/waferc", "a file": str(here / "m.onnx"), "a device": "/dev/null"}
    text = """
import pwd, sys
def nobody(_): raise KeyError("uid not found")
pwd.getpwuid = nobody
from waferc.compiler.cli.main import main
main(sys.argv[1:])
"""
    gone = ("HOME", "WAFERC_CACHE", "XDG_CACHE_HOME", "TMPDIR")
    env = {k: v for k, v in os.environ.items() if k not in gone}
    if cache in places:
        env["WAFERC_CACHE"] = places[cache]
    for words in ([*COMPILE, "-o", "q.wafer"], ["run", "q.wafer", "--random", "0"]):
        done = subprocess.run([sys.executable, "-c", text, *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0 and "error" not in done.stderr, done.stderr
