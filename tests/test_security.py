"""What SECURITY.md promises: nothing is executed, written or read but what is given; memory has a bound."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sampled import sampled

WAFERC = Path(sys.executable).with_name("waferc")
# Runs a command; the last line of stdout says what it opened, changed, started or connected to.
WATCHED = """
import json, os, sys
from pathlib import Path
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork")
events = []
def heard(event, arguments):
    if arguments and isinstance(arguments[0], int):  # a descriptor that is open already
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        events.append(["write", os.path.abspath(os.fsdecode(arguments[0]))])
    elif event == "open" and isinstance(arguments[0], str):
        events.append(["read", os.path.abspath(arguments[0])])
    elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod"):
        events.append(["write", os.path.abspath(os.fsdecode(arguments[0]))])
    elif event.split(".")[0] in ("subprocess", "socket", "pty") or event in STARTS:
        events.append(["start", event])
import waferc.compiler.cli.main as cli
sys.addaudithook(heard)
try:
    cli.main(sys.argv[1:])
except SystemExit as e:
    print(json.dumps([e.code, events]))
"""


def product(path: Path, size: int = 8) -> Path:
    w = numpy_helper.from_array(np.full((size, size), 0.5, np.float32), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, size]) for n in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [w])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]), path)
    return path


def outside(path: Path, location: str) -> Path:
    """A model whose weights are said to lie in another file."""
    model = onnx.load(product(path))
    t = model.graph.initializer[0]
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    t.external_data.add(key="location", value=location)
    onnx.save(model, path)
    return path


def waferc(*words: str | Path, seconds: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run([WAFERC, *words], capture_output=True, text=True, timeout=seconds)


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("waferc: error: ") and done.stderr.count("\n") == 1
    return done.stderr


# -- paths ------------------------------------------------------------------------------


def watched(here: Path, *words: str) -> tuple[int, list[list[str]]]:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words], capture_output=True, text=True, timeout=100, cwd=here
    )
    code, events = json.loads(done.stdout.splitlines()[-1])
    return code or 0, events


COMMANDS = {
    "check": "check m.onnx --wafer 8x8",
    "compile": "compile m.onnx -o p.wafer --wafer 8x8",
    "refused": "compile damaged.onnx -o q.wafer --wafer 8x8",
    "run": "run p.wafer --random 0 -o o.npz",
    "inspect": "inspect p.wafer",
    "report": "report p.wafer -o r.html",
}


@pytest.mark.thorough
def test_commands_write_what_they_are_given_and_start_nothing(here: Path) -> None:
    content = product(here / "m.onnx").read_bytes()
    (here / "damaged.onnx").write_bytes(content[:-20])
    cache = os.environ["WAFERC_CACHE"]
    for name, command in COMMANDS.items():
        code, events = watched(here, *command.split())
        assert code == (3 if name == "refused" else 0), name
        assert not [e for e in events if e[0] == "start"], name
        written = {e[1] for e in events if e[0] == "write"} - {os.devnull}
        assert all(p.startswith((f"{here}/", cache)) for p in written), (name, written)
        ours = (
            str(here),
            cache,
            sys.prefix,
            sys.base_prefix,
            str(Path(__file__).resolve().parents[1]),
            "/proc/",
            "/sys/",
        )
        read = {e[1] for e in events if e[0] == "read"}
        assert all(p.startswith(ours) for p in read if not p.startswith("/etc/ssl")), (name, read)
    assert sorted(p.name for p in here.iterdir()) == ["damaged.onnx", "m.onnx", "o.npz", "p.wafer", "r.html"]


@pytest.mark.parametrize(
    "verb", [["check"], pytest.param(["compile", "-o", "p.wafer"], marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize(
    "location",
    sampled(
        ["../secret.bin", "link.bin", "{above}/secret.bin", "sub/../../secret.bin", "linked/secret.bin"], 3
    ),
)
def test_external_data_lies_beside_the_model(here: Path, location: str, verb: Sequence[str]) -> None:
    (here.parent / "secret.bin").write_bytes(bytes(256))
    (here / "sub").mkdir()
    (here / "link.bin").symlink_to("../secret.bin")
    (here / "linked").symlink_to("..")
    model = outside(here / "m.onnx", location.format(above=here.parent))
    text = one_line(waferc(verb[0], model, *verb[1:], "--wafer", "8x8"), 6)
    assert "'w'" in text
    assert not (here / "p.wafer").exists()


# -- memory -----------------------------------------------------------------------------


@pytest.mark.thorough
def test_memory_stays_within_its_bound(here: Path) -> None:
    """A model of 64 MiB: refused with the figures while the bound is too small, whatever runs out of it."""
    model = product(here / "m.onnx", 4096)
    codes = list[int]()
    for bound in (256, 300, 360, 2000):
        done = waferc("compile", model, "-o", "p.plan", "--compile-to", "plan", "--max-memory", f"{bound}M")
        codes.append(done.returncode)
        if done.returncode:
            text = one_line(done, 5)
            assert f"--max-memory allows {bound << 20:,} bytes" in text
            assert not (here / "p.plan").exists()
    assert codes[0] == 5 and codes[-1] == 0 and codes == sorted(codes, reverse=True)


@pytest.mark.thorough
def test_guard_sets_memory_aside_within_the_bound(here: Path) -> None:
    product(here / "m.onnx", 512)
    assert not waferc("compile", here / "m.onnx", "-o", here / "p.wafer").returncode
    assert not waferc("run", here / "p.wafer", "--random", "0", "--max-memory", "1G").returncode
    plain = waferc("run", here / "p.wafer", "--random", "0", "--guard", "--max-memory", "256M")
    assert "--max-memory allows 268,435,456 bytes" in one_line(plain, 5)


@pytest.mark.parametrize("size", ["", "2", "255M", "-1", "1.5G", "2 G", "\u0662G", "G", "10" * 12])
def test_sizes_that_are_none(here: Path, size: str) -> None:
    one_line(waferc("check", product(here / "m.onnx"), "--max-memory", size), 2)


def bounded(work: str) -> subprocess.Popen[str]:
    code = "import os, sys, time\nfrom waferc.compiler.cli.bounded import bounded\n"
    code += f"sys.exit(bounded(1 << 30, lambda: {work}, print))"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_native_code_that_has_no_other_way_than_to_abort() -> None:
    done = bounded("os.abort()")
    text, _ = done.communicate(timeout=60)
    assert done.returncode == 5 and "SIGABRT" in text and "--max-memory allows 1,073,741,824 bytes" in text


def test_a_fault_is_not_called_a_lack_of_memory() -> None:
    done = bounded("os.kill(os.getpid(), 11)")
    text, _ = done.communicate(timeout=60)
    assert done.returncode == 70 and "SIGSEGV" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_bounded_process(number: signal.Signals) -> None:
    running = bounded("(print('on', flush=True), time.sleep(60))")
    assert running.stdout is not None and running.stdout.readline() == "on\n"
    start = time.monotonic()
    running.send_signal(number)
    assert running.wait(20) == 128 + number
    assert time.monotonic() - start < 20
