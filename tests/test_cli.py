"""The command line as a user meets it: help, errors and exit codes as golden files, and what is left on disk.

WAFERC_REFRESH=1 writes the golden files anew.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import click.testing
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from waferc import compile_model
from waferc.compiler import pipeline, survey
from waferc.compiler.cli import console
from waferc.compiler.cli.heatmap import METRICS
from waferc.compiler.cli.main import ORDER, main
from waferc.compiler.show.metrics import KINDS
from waferc.compiler.verify.bench import Peer, PeerFailed, Setting, measure
from waferc.compiler.verify.golden import OnnxRuntime
from waferc.runtime.ports import Port, Ports

GOLDEN = Path(__file__).parent / "golden"
VERBS = [verb.name for verb in ORDER]
WAFERC = Path(sys.executable).with_name("waferc")


def same_as_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("WAFERC_REFRESH"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


# -- models -----------------------------------------------------------------------------


def save(path: Path, nodes: list, inputs: dict, outputs: dict, weights: dict | None = None) -> Path:
    """A model at opset 17; inputs and outputs: name -> shape, floats."""

    def values(shapes: dict) -> list:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    initializers = [numpy_helper.from_array(v, n) for n, v in (weights or {}).items()]
    graph = helper.make_graph(nodes, "tiny", values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def perceptron(folder: Path) -> Path:
    """x[batch, 8] -> y[batch, 4] in three nodes."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((8, 16)).astype(np.float32),
        "w2": rng.standard_normal((16, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "act"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    return save(folder / "tiny.onnx", nodes, {"x": ["batch", 8]}, {"y": ["batch", 4]}, weights)


def counter(folder: Path) -> Path:
    """sum' = sum + x, y = 2 * sum'."""
    nodes = [
        helper.make_node("Add", ["sum", "x"], ["sum_after"], "add"),
        helper.make_node("Add", ["sum_after", "sum_after"], ["y"], "twice"),
    ]
    return save(folder / "counter.onnx", nodes, {"x": [4], "sum": [4]}, {"y": [4], "sum_after": [4]})


def heavy(folder: Path) -> Path:
    """65,536 bytes of weights: too many for one core."""
    weights = {"w": np.ones((64, 256), np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "wide")]
    return save(folder / "heavy.onnx", nodes, {"x": [1, 64]}, {"y": [1, 256]}, weights)


@pytest.fixture
def here(here: Path) -> Path:
    """A folder to work in, with the models and a kernel cache of its own."""
    for make in (perceptron, counter, heavy):
        make(here)
    return here


def waferc(*words: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, words, terminal_width=80, prog_name="waferc")


def good(*words: str) -> str:
    """The stdout of a command that succeeds."""
    done = waferc(*words)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture
def program(here: Path) -> str:
    good("compile", "tiny.onnx", "--dim", "batch=2", "--wafer", "4x4", "-o", "tiny.wafer")
    return "tiny.wafer"


# -- help -------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_as_agreed_and_80_columns_wide(verb: str) -> None:
    text = good(*verb.split(), "--help")
    assert max(map(len, text.splitlines())) <= 80
    same_as_golden(f"help/{verb or 'waferc'}.txt", text)


def test_without_a_verb_there_is_help() -> None:
    assert good() == good("--help")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom waferc.compiler.cli.main import main\n"
        "try:\n    main([sys.argv[1], '--help'] if sys.argv[1:] else ['--help'])\n"
        "except SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'numpy', 'onnx', 'llvmlite', 'networkx', 'PIL', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for words in ([], ["run"]):
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


# -- errors -----------------------------------------------------------------------------


def write_bad_files(folder: Path) -> None:
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "garbage.onnx").write_bytes(b"\xff\x00no model")
    (folder / "text.toml").write_text("width = 'wide'\nbase = 'wse3'")
    (folder / "no.json").write_text("{")
    np.save(folder / "x3.npy", np.zeros((3, 8), np.float32))
    np.save(folder / "x64.npy", np.zeros((2, 8), np.float64))
    np.savez(folder / "other.npz", z=np.zeros(3, np.float32))
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 not really")
    odd = helper.make_node("Frobnicate", ["x"], ["h"], "evil\nname\x1b[31m", domain="my.domain")
    far = helper.make_node("NonMaxSuppressionX", ["h"], ["y"], "far")
    save(folder / "odd.onnx", [odd, far], {"x": [2]}, {"y": [2]})
    data = (folder / "tiny.wafer").read_bytes()
    at = data.rindex(b"\x93NUMPY") + 200
    (folder / "damaged.wafer").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    (folder / "short.wafer").write_bytes(data[: len(data) // 2])


TINY = ("tiny.onnx", "--dim", "batch=2", "--wafer", "4x4")
ERRORS: list[tuple[int, tuple[str, ...]]] = [
    (2, ("fly",)),
    (2, ("run",)),
    (2, ("run", "tiny.wafer", "--fast")),
    (2, ("compile", "tiny.onnx")),
    (2, ("compile", *TINY, "-O2", "-o", "o")),
    (2, ("compile", *TINY, "--dim", "batch=3", "-o", "o")),
    (2, ("compile", *TINY, "--dim", "batch", "-o", "o")),
    (2, ("compile", *TINY, "--dim", "rows=3", "-o", "o")),
    (2, ("compile", *TINY, "--shape", "z=1,2", "-o", "o")),
    (2, ("compile", *TINY, "--shape", "x=1,b", "-o", "o")),
    (2, ("compile", *TINY, "--weights", "int3", "-o", "o")),
    (2, ("compile", *TINY, "--state", "x=z", "-o", "o")),
    (2, ("compile", "tiny.onnx", "--dim", "batch=2", "--wafer", "wse9", "-o", "o")),
    (2, ("compile", "tiny.onnx", "--dim", "batch=2", "--wafer", "text.toml", "-o", "o")),
    (2, ("run", "tiny.wafer")),
    (2, ("run", "tiny.wafer", "--inputs", "other.npz")),
    (2, ("run", "tiny.wafer", "--input", "x=x3.npy")),
    (2, ("run", "tiny.wafer", "--input", "x=x64.npy")),
    (2, ("run", "tiny.wafer", "--random", "0", "--range", "x=2:1")),
    (2, ("run", "tiny.wafer", "--random", "0", "--range", "z=1:2")),
    (2, ("verify", *TINY, "--per-node", "--program", "tiny.wafer")),
    (2, ("verify", *TINY, "--per-node", "--capacity", "8")),
    (2, ("verify", *TINY, "--per-node", "-o", "o.txt")),
    (2, ("verify", *TINY, "-o", "o.onnx")),
    (2, ("verify", *TINY, "--rtol", "-1")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.gif")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--metric", "heat")),
    (2, ("heatmap", "tiny.wafer")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--metric", "busy")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--metric", "routes")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--step", "1", "--node", "first")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--at", "1e9")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--at", "3", "--film", "2")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--crop", "0,0,9x9")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--crop", "all")),
    (2, ("heatmap", "tiny.wafer", "-o", "o.png", "--scale", "5:1")),
    (2, ("diff", "tiny.wafer")),
    (2, ("diff", "tiny.wafer", "tiny.wafer", "--html", "o.txt")),
    (2, ("inspect", "tiny.wafer", "--core", "4,0")),
    (2, ("inspect", "tiny.wafer", "--core", "here")),
    (2, ("inspect", "tiny.wafer", "--link", "0,0,up")),
    (2, ("inspect", "tiny.wafer", "--link", "0,9,east")),
    (2, ("inspect", "tiny.wafer", "--at", "-1")),
    (2, ("inspect", "tiny.wafer", "--at", "nan")),
    (2, ("inspect", "tiny.wafer", "--graph", "o.png")),
    (3, ("check", "empty.onnx")),
    (3, ("check", "garbage.onnx")),
    (3, ("check", "tiny.wafer")),
    (3, ("check", "no.json")),
    (3, ("check", "broken.npz")),
    (3, ("compile", "tiny.onnx", "--wafer", "4x4", "-o", "o")),
    (2, ("compile", *TINY, "--no-weights", "-o", "o")),
    (2, ("compile", *TINY, "--activations", "bf16", "-o", "o")),
    (2, ("compile", *TINY, "--constraints", "no.json", "--entry", "a:b=1", "--entry", "c:b=2", "-o", "o")),
    (3, ("compile", *TINY, "--constraints", "no.json", "-o", "o")),
    (3, ("run", "tiny.wafer", "--inputs", "broken.npz")),
    (4, ("check", "odd.onnx")),
    (4, ("compile", "odd.onnx", "--wafer", "4x4", "-o", "o")),
    (5, ("check", "heavy.onnx", "--wafer", "1x1")),
    (5, ("compile", "heavy.onnx", "--wafer", "1x1", "-o", "o")),
    (6, ("check", "missing.onnx")),
    (6, ("run", "missing.wafer", "--random", "0")),
    (6, ("run", "tiny.wafer", "--input", "x=missing.npy")),
    (6, ("run", "tiny.wafer", "--random", "0", "-o", "no/such/folder.npz")),
    (6, ("compile", *TINY, "-o", "no/such/folder.wafer")),
    (6, ("heatmap", "tiny.wafer", "-o", "folder.png")),
    (6, ("wafers", "--json", "no/such/folder.json")),
    (7, ("run", "tiny.onnx", "--random", "0")),
    (7, ("run", "no.json", "--random", "0")),
    (7, ("run", "damaged.wafer", "--random", "0")),
    (7, ("inspect", "short.wafer")),
    (7, ("diff", "tiny.wafer", "short.wafer")),
    (7, ("run", "tiny.plan", "--random", "0")),
    (7, ("verify", "heavy.onnx", "--program", "tiny.wafer")),
]


def test_every_error_is_one_line_with_its_exit_code_and_leaves_nothing(program: str, here: Path) -> None:
    write_bad_files(here)
    (here / "folder.png").mkdir()
    good("compile", *TINY, "--compile-to", "plan", "-o", "tiny.plan")
    before = sorted(here.iterdir())
    lines: list[str] = []
    for code, words in ERRORS:
        done = waferc(*words)
        assert done.exit_code == code, (words, done.stderr)
        assert done.stderr.startswith("waferc: error: ") and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.rstrip("\n").isprintable()
        # digests depend on the version of protobuf, the newest opset on that of onnx
        message = re.sub(r"[0-9a-f]{12}\.\.\.", "DIGEST...", done.stderr)
        message = re.sub(r"up to opset \d+", "up to opset N", message)
        lines += [f"$ waferc {' '.join(words)}", message.rstrip("\n"), f"exit {code}", ""]
    same_as_golden("errors.txt", "\n".join(lines))
    assert sorted(here.iterdir()) == before


def test_a_bug_of_ours_is_70_with_a_traceback_only_for_v_v(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(survey, "survey", fail)
    quiet, loud = waferc("check", "tiny.onnx"), waferc("check", "tiny.onnx", "-v", "-v")
    assert (quiet.exit_code, loud.exit_code) == (70, 70)
    assert quiet.stderr == (
        "waferc: error: a bug of ours, please report it: RuntimeError: two lines; -v -v shows the traceback\n"
    )
    assert "Traceback" in loud.stderr and loud.stderr.endswith(quiet.stderr)


def test_interrupted_is_130(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(survey, "survey", interrupt)
    done = waferc("check", "tiny.onnx")
    assert (done.exit_code, done.stderr) == (130, "\nwaferc: error: interrupted\n")


@pytest.mark.parametrize(
    "words",
    [
        ("compile", *TINY, "-o", "out.wafer"),
        ("run", "tiny.wafer", "--random", "0", "-o", "out.npz"),
        ("run", "tiny.wafer", "--random", "0", "--trace", "out.json"),
        ("heatmap", "tiny.wafer", "-o", "out.svg"),
        ("report", "tiny.wafer", "-o", "out.html"),
        ("wafers", "--json", "out.json"),
    ],
)
def test_a_full_disk_is_6_and_what_was_there_stays(
    words: tuple[str, ...], program: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = here / words[-1]
    out.write_text("old")
    before = sorted(here.iterdir())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = waferc(*words)
    assert done.exit_code == 6 and "No space left on device" in done.stderr
    assert sorted(here.iterdir()) == before and out.read_text() == "old"


def test_a_device_is_written_to_and_stays_a_device(program: str) -> None:
    good("run", program, "--random", "0", "-o", "/dev/null")
    assert not Path("/dev/null").is_file() and Path("/dev/null").exists()


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    command = f"'{WAFERC}' ops; echo $? >&2"
    done = subprocess.run(["sh", "-c", f"({command}) | head -n 1"], capture_output=True, text=True)
    assert done.stdout.startswith("operator") and done.stderr in ("6\n", "0\n")


# -- compile ----------------------------------------------------------------------------


def test_the_same_compile_gives_the_same_bytes(program: str, here: Path) -> None:
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    first = Path(program).read_bytes()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": "Asia/Tokyo"}
        words = ["compile", "../tiny.onnx", *TINY[1:], "-o", "again.wafer"]
        subprocess.run([WAFERC, *words], check=True, cwd=elsewhere, env=environment, capture_output=True)
        assert (elsewhere / "again.wafer").read_bytes() == first


def test_a_program_is_a_zip_of_stored_entries_with_digests(program: str) -> None:
    with zipfile.ZipFile(program) as z:
        assert all(i.compress_type == zipfile.ZIP_STORED for i in z.infolist())
        manifest = json.loads(z.read("manifest.json"))
        assert set(manifest["sha256"]) == set(z.namelist()) - {"manifest.json"}


def test_phases_are_dumped_and_a_placement_can_be_fed_back(program: str, here: Path) -> None:
    good("compile", *TINY, "--dump-phases-to", "phases", "--compile-to", "plan", "-o", "tiny.plan")
    assert sorted(p.name for p in (here / "phases").iterdir()) == [
        "1-import.txt",
        "2-simplify.txt",
        "3-search.txt",
        "4-plan.txt",
        "model-explorer-cycles.json",
        "model-explorer.json",
        "placement.json",
        "simplify",
        "steps.onnx",
    ]
    good("compile", *TINY, "--constraints", "phases/placement.json", "-o", "fed.wafer")
    with zipfile.ZipFile(program) as a, zipfile.ZipFile("fed.wafer") as b:
        for entry in ("main/placement.json", "main/tables/words.npy", "kernels.bc"):
            assert a.read(entry) == b.read(entry)


@pytest.mark.parametrize("word", ["a\nb", "a\x1b[31m", "a\u2028b"])
def test_a_placement_of_hostile_words_is_refused_in_one_line(here: Path, word: str) -> None:
    good("compile", *TINY, "--dump-phases-to", "phases", "--compile-to", "plan", "-o", "tiny.plan")
    data = json.loads((here / "phases" / "placement.json").read_text())
    data["ops"][0]["split"] = [[word, "x", 4]]
    (here / "bad.json").write_text(json.dumps(data))
    done = waferc("compile", *TINY, "--constraints", "bad.json", "-o", "fed.wafer")
    assert done.exit_code == 3 and done.stderr.rstrip("\n").isprintable()
    assert "axes are" in done.stderr


def test_passes_that_find_something_are_dumped_in_turn(here: Path) -> None:
    model = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"
    flags = ("--dim", "batch=1", "--wafer", "16x16", "--compile-to", "graph", "-o", "graph.txt")
    good("compile", str(model), *flags, "--dump-phases-to", "phases")
    passes = sorted((here / "phases" / "simplify").iterdir())
    assert [int(p.name[:2]) for p in passes] == list(range(1, len(passes) + 1))
    assert [p.name[3:-4] for p in passes][-2:] == ["fuse-elementwise", "dead-nodes"]
    assert passes[-1].read_text() == (here / "graph.txt").read_text()


def test_phases_are_dumped_in_their_order_however_many_there_are(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = [(f"pass {i}", lambda graph: graph) for i in range(8)]
    monkeypatch.setattr(pipeline, "_passes", lambda asked: passes)
    good("compile", *TINY, "--dump-phases-to", "phases", "--compile-to", "plan", "-o", "tiny.plan")
    names = sorted(p.name for p in (here / "phases").glob("*.txt"))
    assert names == [
        "01-import.txt",
        *(f"{i + 2:02}-pass-{i}.txt" for i in range(8)),
        "10-search.txt",
        "11-plan.txt",
    ]


def test_a_graph_is_written_as_text_and_simplified_unless_told_not_to(here: Path) -> None:
    for name, more in (("plain", ["--no-simplify"]), ("simplified", [])):
        good("compile", *TINY, *more, "--compile-to", "graph", "-o", f"{name}.txt")
    plain, simplified = (here / "plain.txt").read_text(), (here / "simplified.txt").read_text()
    assert plain.startswith("graph 'tiny'") and plain.count("Contract") == simplified.count("Contract") == 2


def test_phases_are_timed_on_stderr(here: Path) -> None:
    done = waferc("compile", *TINY, "--time-phases", "-o", "t.wafer")
    assert re.findall(r"^(\w+) +[\d.]+ s$", done.stderr, re.M) == [
        "import",
        "simplify",
        "plan",
        "check",
        "codegen",
    ]


def test_what_does_not_fit_still_has_a_report(here: Path) -> None:
    done = waferc("compile", "heavy.onnx", "--wafer", "1x1", "-o", "o", "--report", "r.html")
    assert done.exit_code == 5
    assert "does not fit" in (here / "r.html").read_text() and not (here / "o").exists()


def test_what_is_all_on_the_host_still_has_a_report(here: Path) -> None:
    save(here / "host.onnx", [helper.make_node("Unique", ["x"], ["y"])], {"x": (3,)}, {"y": (None,)})
    done = waferc("compile", "host.onnx", "--wafer", "4x4", "-o", "h.wafer", "--report", "r.html")
    assert done.exit_code == 0, done.stderr
    assert "on the host" in (here / "r.html").read_text() and (here / "h.wafer").exists()


def test_check_names_the_largest_consumers(here: Path) -> None:
    out = good("check", "tiny.onnx", "--dim", "batch=2", "--wafer", "1x1", "--json", "check.json")
    assert re.search(r"^MatMul +2  wafer$", out, re.M)
    data = json.loads((here / "check.json").read_text())
    assert data["fits"] and data["cores_used"] == 1
    sizes = {(r["node"], r["role"]): r["bytes"] for r in data["largest"]}
    assert sizes["first", "constant"] == 8 * 16 * 4 and sizes["second", "constant"] == 16 * 4 * 4


def test_check_lists_everything_unsupported_at_once(here: Path, program: str) -> None:
    write_bad_files(here)
    done = waferc("check", "odd.onnx", "--json", "-")
    rows = {r["operator"]: r["where"] for r in json.loads(done.stdout)["operators"]}
    assert rows == {"my.domain.Frobnicate": "unsupported", "NonMaxSuppressionX": "unsupported"}


# -- run --------------------------------------------------------------------------------


def reference(model: str, feed: dict) -> dict:
    return OnnxRuntime(model).run(feed)


def test_run_reads_and_writes_arrays(program: str, here: Path) -> None:
    x = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
    np.save("x.npy", x)
    np.savez("x.npz", x=x)
    good("run", program, "--input", "x=x.npy", "-o", "a.npz", "--threads", "1")
    good("run", program, "--inputs", "x.npz", "-o", "b.npz", "--threads", "2")
    good("run", program, "--inputs", "x.npz", "-o", "guarded.npz", "--guard")
    assert (
        (here / "a.npz").read_bytes() == (here / "b.npz").read_bytes() == (here / "guarded.npz").read_bytes()
    )
    expected = reference("tiny.onnx", {"x": x})["y"]
    np.testing.assert_allclose(np.load("a.npz")["y"], expected, rtol=1e-5, atol=1e-6)


def test_steps_keep_the_state_and_stack_the_outputs(here: Path) -> None:
    good("compile", "counter.onnx", "--wafer", "2x2", "--state", "sum=sum_after", "-o", "c.wafer")
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez("steps.npz", x=x)
    good("run", "c.wafer", "--steps", "steps.npz", "-o", "out.npz")
    np.testing.assert_array_equal(np.load("out.npz")["y"], 2 * np.cumsum(x, axis=0))
    out = good("verify", "counter.onnx", "--program", "c.wafer", "--steps", "steps.npz")
    assert "3 calls" in out and "PASS" in out
    # A state that is given wins over the one that was kept.
    np.savez("pinned.npz", x=x, sum=np.zeros((3, 4), np.float32))
    good("run", "c.wafer", "--steps", "pinned.npz", "-o", "out.npz")
    np.testing.assert_array_equal(np.load("out.npz")["y"], 2 * x)


def test_run_says_where_time_goes(program: str) -> None:
    data = json.loads(good("run", program, "--random", "0", "--json", "-"))
    assert data["schema"] == 1 and data["calls"] == 1 and data["threads"] >= 1
    assert (data["bytes_in"], data["bytes_out"]) == (64, 32)
    assert data["host_cycles"] == pytest.approx(135e-6 * 1.1e9 + 96 / 11.6)
    assert data["cycles"] == json.loads(good("inspect", program, "--json", "-"))["figures"]["cycles"]


def test_a_trace_ends_when_the_call_does(program: str, here: Path) -> None:
    good("run", program, "--random", "0", "--trace", "trace.json")
    trace = json.loads((here / "trace.json").read_text())
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert {e["name"] for e in events} >= {"first", "second", "x"}
    assert max(e["args"]["end"] for e in events) == trace["otherData"]["cycles"] > 0
    last = max(e["ts"] + e["dur"] for e in events)
    whole = trace["otherData"]["cycles"] / trace["otherData"]["clock_hz"] * 1e6
    assert last == pytest.approx(whole, abs=1e-3)  # Perfetto counts whole nanoseconds


def test_a_trace_that_cannot_be_written_is_told_before_the_run(
    program: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "folder.json").mkdir()
    for flag, path, told in (
        ("--trace", "none/t.json", "does not exist"),
        ("--trace", "folder.json", "directory"),
        ("-o", "none/o.npz", "does not exist"),
    ):
        done = waferc("run", program, "--random", "0", "-v", flag, path)
        assert done.exit_code == 6 and path in done.stderr and told in done.stderr.lower()
        assert "run" not in done.stderr.split("waferc: error:")[0]  # the phase of -v


# -- verify -----------------------------------------------------------------------------


@pytest.mark.parametrize("golden", ["onnxruntime", "reference"])
def test_verify_passes(program: str, golden: str) -> None:
    out = good("verify", "tiny.onnx", "--program", program, "--golden", golden)
    assert (
        "abs(ours - golden) <= 0.0001 * max(abs(golden)) + 1e-06" in out and "PASS: 1 output, 8 values" in out
    )


def test_verify_fails_with_8_and_shows_bad_values(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxRuntime.run
    monkeypatch.setattr(OnnxRuntime, "run", lambda self, feed: {n: v + 1 for n, v in run(self, feed).items()})
    done = waferc("verify", "tiny.onnx", "--program", program, "--json", "v.json")
    assert done.exit_code == 8
    assert done.stderr == "waferc: error: output 'y': 8 of 8 values differ too much, by up to 1\n"
    assert "WRONG" in done.stdout and "[1, 3]" in done.stdout
    (found,) = json.loads(Path("v.json").read_text())["outputs"]
    assert not found["passed"] and len(found["bad"]) == 8


# -- what one looks at ------------------------------------------------------------------


def test_pictures_are_drawn(program: str, here: Path) -> None:
    assert tuple(KINDS) == METRICS
    words = {"busy": ("--film", "3"), "routes": ("--node", "second"), "holders": ("--tensor", "h")}
    for metric in METRICS:
        good("heatmap", program, "--metric", metric, *words.get(metric, ()), "-o", "map.svg")
        assert (here / "map.svg").read_text().startswith(("<?xml", "<svg"))
    good("heatmap", program, "-o", "map.png")
    assert (here / "map.png").read_bytes().startswith(b"\x89PNG")
    good("report", program, "-o", "report.html")
    assert "second" in (here / "report.html").read_text()


def test_a_heatmap_is_numbers_too(program: str, here: Path) -> None:
    words = ("--metric", "sram", "--metric", "cycles", "--at", "10", "--crop", "0,0,2x3", "--size", "700")
    data = json.loads(good("heatmap", program, *words, "--json", "-", "--csv", "map.csv"))
    assert data["box"] == [0, 0, 2, 3] and data["output"] is None
    assert [p["metric"] for p in data["panels"]] == ["sram", "cycles"]
    lines = (here / "map.csv").read_text().splitlines()
    assert lines[0] == 'x,y,"sram, cycle 10","cycles, cycle 10"' and len(lines) == 7
    assert float(lines[1].split(",")[2]) == data["panels"][0]["values"][0][0]


@pytest.mark.parametrize("columns", [60, 80, 180])
def test_tables_fold_and_never_pass_the_terminal(columns: int, program: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        for words in ((), ("--core", "0,0"), ("--node", "first"), ("--at", "100"), ("--link", "1,1,east")):
            lines = good("inspect", program, *words).splitlines()
            assert max(map(len, lines)) <= columns, words
            assert not any("/.." in line for line in lines)


def test_two_programs_are_compared(program: str, here: Path) -> None:
    good("compile", *TINY, "--weights", "f16", "-o", "f16.wafer")
    assert good("diff", program, program).splitlines()[-1] == "Nothing changed."
    text = good("diff", program, "f16.wafer", "--html", "diff.html")
    assert max(map(len, text.splitlines())) <= 80
    assert "weights  f32  f16" in text and re.search(r"^5\. ", text, re.M)
    data = json.loads(good("diff", program, "f16.wafer", "--json", "-"))
    cycles = {r["figure"]: r for r in data["totals"]}["cycles"]
    told = [
        json.loads(good("inspect", p, "--json", "-"))["figures"]["cycles"] for p in (program, "f16.wafer")
    ]
    assert [cycles["a"], cycles["b"]] == [round(c) for c in told]
    assert (here / "diff.html").read_text().startswith("<!doctype html>")


def test_a_plan_shows_what_its_program_does(program: str) -> None:
    good("compile", *TINY, "--compile-to", "plan", "-o", "tiny.plan")
    whole = good("inspect", program)
    assert good("inspect", "tiny.plan") == whole
    assert max(map(len, whole.splitlines())) <= 80
    assert re.search(r"^cores used +\d+ of 16 in 1 region", whole, re.M)


def test_one_core_adds_up(program: str) -> None:
    data = json.loads(good("inspect", program, "--core", "0,0", "--json", "-"))
    assert data["buffers"] and data["steps"]
    ends = [b["address"] + b["bytes"] for b in data["buffers"]]
    assert max(ends) == data["used"] and min(b["address"] for b in data["buffers"]) >= data["code"] > 0
    always = sorted((b["address"], b["bytes"]) for b in data["buffers"] if b["live"] == "always")
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(always))
    assert "core (0, 0)" in good("inspect", program, "--core", "0,0")


@pytest.mark.parametrize(
    "words",
    [
        ("check", *TINY),
        ("compile", *TINY, "-o", "o.wafer"),
        ("run", "tiny.wafer", "--random", "0"),
        ("verify", "tiny.onnx", "--program", "tiny.wafer"),
        ("heatmap", "tiny.wafer", "-o", "o.png"),
        ("report", "tiny.wafer", "-o", "o.html"),
        ("diff", "tiny.wafer", "tiny.wafer"),
        ("inspect", "tiny.wafer"),
        ("inspect", "tiny.wafer", "--core", "1,1"),
        ("inspect", "tiny.wafer", "--link", "1,1,east"),
        ("inspect", "tiny.wafer", "--at", "100"),
        ("bench", *TINY, "--pairs", "1", "--threads", "1"),
        ("wafers",),
        ("ops",),
    ],
    ids=lambda w: " ".join(w[:1]),
)
def test_every_verb_writes_json_and_fits_80_columns(words: tuple[str, ...], program: str) -> None:
    assert json.loads(good(*words, "--json", "-"))["schema"] == 1
    done = waferc(*words, "--json", "result.json")
    assert done.exit_code == 0 and json.loads(Path("result.json").read_text())["schema"] == 1
    assert max(map(len, done.stdout.splitlines()), default=0) <= 80
    assert waferc(*words, "-q").output == ""


def completed(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    monkeypatch.setenv("COMP_WORDS", " ".join(("waferc", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    done = subprocess.run(
        [WAFERC],
        env={**os.environ, "_WAFERC_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_the_shell_completes_values(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(monkeypatch, "compile", "tiny.onnx", "--wafer", "ws") == ["wse2", "wse3"]
    assert completed(monkeypatch, "inspect", "tiny.wafer", "--node", "f") == ["first"]
    assert "h" in completed(monkeypatch, "heatmap", "tiny.wafer", "--tensor", "h")
    assert completed(monkeypatch, "inspect", "tiny.wafer", "--entry", "m") == ["main"]
    assert completed(monkeypatch, "inspect", "missing.wafer", "--node", "f") == []
    assert completed(monkeypatch, "diff", "ti") == ["ti"]  # bash goes on with names of files


def test_bench_compares_in_pairs(here: Path) -> None:
    words = ("bench", *TINY, "--pairs", "3", "--threads", "1", "--threads", "2", "--no-peers", "--json", "-")
    data = json.loads(good(*words))
    assert [r["threads"] for r in data["runs"]] == [1, 2] and data["wafer_cycles"] > 0
    for run in data["runs"]:
        ours, theirs = run["rounds_ms"]["waferc"], run["rounds_ms"]["onnxruntime"]
        assert len(run["ratios"]) == data["pairs"] == 3
        assert run["ratios"] == [a / b for a, b in zip(ours, theirs, strict=True)]
        assert run["ratio"] == sorted(run["ratios"])[1]
        assert run["waferc_ms"] == sorted(ours)[1] and run["peers"] == {"onnxruntime": sorted(theirs)[1]}


def test_bench_refuses_a_peer_that_is_not_installed(here: Path) -> None:
    done = waferc("bench", *TINY, "--peer", "abacus")
    assert done.exit_code == 2 and "'abacus' is not installed" in done.stderr


def test_the_peer_is_stopped_while_it_is_not_asked(here: Path) -> None:
    ports = (Port("x", (2, 8), np.dtype(np.float32)),)
    peer = Peer("onnxruntime", "tiny.onnx", Ports(ports, (), ()), Setting(1))
    with peer.started() as started:
        assert started.measure(0, 3) > 0
        status = Path(f"/proc/{peer.pid}/stat").read_text().rpartition(")")[2].split()
        assert status[0] == "T"
    assert not Path(f"/proc/{peer.pid}").exists()
    for broken, message in (
        (Peer("onnxruntime", "no.onnx", Ports(ports, (), ()), Setting(1)), "onnxruntime cannot run"),
        (
            Peer("onnxruntime", "tiny.onnx", Ports(ports, (), ()), Setting(1, limit=0.001)),
            "took more than 0.001 s",
        ),
    ):
        with pytest.raises(PeerFailed, match=message), broken.started():
            pass


def test_a_peer_that_fails_is_left_out(here: Path) -> None:
    program = compile_model("tiny.onnx", wafer="4x4", dims={"batch": 2}).program
    found = measure(program, "tiny.onnx", ("onnxruntime", "abacus"), 2, Setting(1))
    assert list(found.peers) == ["onnxruntime"] and "abacus is not installed" in found.failed["abacus"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_appears_on_a_terminal_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PATIENCE", 0)
    for verbosity, terminal, drawn in (
        (0, Terminal(), True),
        (-1, Terminal(), False),
        (0, io.StringIO(), False),
    ):
        monkeypatch.setattr(sys, "stderr", terminal)
        shared = console.Console(verbosity)
        shared.progress("plan", 0.5)
        time.sleep(0.5)
        shared.clear()
        assert ("plan       [############------------]  50%" in terminal.getvalue()) == drawn
        assert terminal.getvalue().endswith("\r\x1b[K" if drawn else "")
    shared = console.Console(1)
    shared.progress("plan", 0.5)
    shared.progress("plan", 0.6)
    shared.progress("plan: on one region, 8x8", 0.7)
    assert re.fullmatch(r" +0\.0\d s  plan\n", sys.stderr.getvalue())


def test_progress_moves_inside_every_phase_and_says_what_is_tried(here: Path) -> None:
    told: list[tuple[str, float]] = []
    made = compile_model(
        "tiny.onnx", dims={"batch": 3}, wafer="8x8", report=lambda phase, share: told.append((phase, share))
    )
    made.save(here / "o.wafer", report=lambda phase, share: told.append((phase, share)))
    for name in ("import", "simplify", "plan", "check", "codegen"):
        own = [share for phase, share in told if phase.partition(": ")[0] == name]
        assert len({*own}) > 3 and min(own) >= 0 and max(own) <= 1, name
    plan = [share for phase, share in told if phase.startswith("plan: ")]
    assert plan == sorted(plan)
    what = {phase.partition(": ")[2] for phase, _ in told if phase.startswith("plan: ")}
    assert any(w.startswith("all on one region, 8x8") for w in what)


def test_colours_only_when_asked_for(program: str) -> None:
    words = ("verify", "tiny.onnx", "--program", program)
    assert "\x1b" not in waferc(*words).output
    assert "\x1b[32m" in waferc(*words, "--color").output
    assert "\x1b[31m" in waferc("inspect", program, "--core", "9,9", "--color").stderr


def test_ops_lists_the_standard_and_filters_by_name() -> None:
    listed = {r["operator"]: r for r in json.loads(good("ops", "--json", "-"))["operators"]}
    assert all(listed[name]["where"] == "wafer" for name in ("Conv", "MatMul", "Softmax", "LSTM"))
    assert listed["Reshape"]["limits"] == "shape known" and listed["Add"]["converted"] == [6]
    out = good("ops", "logsoft", "scaler")
    assert re.search(r"^LogSoftmax +wafer  1 11 13  floats$", out, re.M) and "ai.onnx.ml.Scaler" in out
    done = waferc("ops", "Softmaxx")
    assert done.exit_code == 2 and "no operator of ONNX has 'Softmaxx' in its name" in done.stderr


def test_wafers_marks_what_is_assumed() -> None:
    out = good("wafers")
    assert re.search(r"^wse3 +755x1170 +883,350 +44,976", out, re.M)
    assert re.search(r"^relay +16 \? +16 \?$", out, re.M) and re.search(r"^hop +1 +2$", out, re.M)
    assert re.search(r"^stage +18 \* +46 \*$", out, re.M)
    assert "stage on decode_layer" in out and "stage on decode_phase" in out


def test_one_node_step_or_tensor(program: str) -> None:
    whole = json.loads(good("inspect", program, "--json", "-"))["steps"]
    (first,) = {s["node"]: s for s in whole if s["op"] != "input" and s["node"] == "first"}.values()
    shown = json.loads(good("inspect", program, "--node", "first", "--json", "-"))
    assert {s["step"] for s in shown["steps"]} >= {first["step"]}
    for s in shown["steps"]:
        assert {k: v for k, v in s.items() if k in whole[0]} == whole[s["step"]]
        one = json.loads(good("inspect", program, "--step", str(s["step"]), "--json", "-"))
        assert one["end"] == s["end"] and one["result"]["bytes"] > 0 and one["cores"] >= 1
    last = json.loads(good("inspect", program, "--step", str(first["step"]), "--json", "-"))
    assert last["readers"] and all(r > first["step"] for r in last["readers"])
    x = json.loads(good("inspect", program, "--tensor", "x", "--json", "-"))
    assert x["buffers"] and [s["op"] for s in x["written"]] == ["input"] and x["read"]


@pytest.mark.parametrize(
    "words, told",
    [
        (("--node", "firts"), "--node 'firts': no step is of a node called that; did you mean 'first'?"),
        (("--tensor", "zzzzzz"), "--tensor 'zzzzzz': the plan has none called that (see"),
        (("--step", "99"), "--step 99: there are steps 0 to "),
        (("--step", "1", "--core", "0,0"), "--core and --step: one of them at a time"),
    ],
    ids=lambda w: "" if isinstance(w, str) else w[0],
)
def test_what_there_is_not_is_told(words: tuple[str, ...], told: str, program: str) -> None:
    done = waferc("inspect", program, *words)
    assert done.exit_code == 2 and told.removesuffix(" (see") in done.stderr and done.stdout == ""
