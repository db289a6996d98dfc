"""Data in other files: larger than a message, larger than memory, and where it must not be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import waferc
from onnx import TensorProto, helper
from waferc.compiler.errors import InputOutput, InvalidInput, WafercError
from waferc.compiler.frontend.load import digest, load_model
from waferc.compiler.importer import import_model

ROWS = 1 << 19  # 2 GiB of f32 in 1024 columns


def model(path: Path, tensors: dict[str, tuple[list[int], dict[str, str]]], opset: int = 17) -> Path:
    """A look-up in each of some tables of f32, whose data is where their facts say."""
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", [name, "i"], [f"{name}.y"]) for name in tensors],
            "tables",
            [helper.make_tensor_value_info("i", TensorProto.INT64, [2])],
            [
                helper.make_tensor_value_info(f"{n}.y", TensorProto.FLOAT, [2, *dims[1:]])
                for n, (dims, _) in tensors.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=9,
    )
    for name, (dims, facts) in tensors.items():
        t = proto.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=dims)
        t.data_location = TensorProto.EXTERNAL
        for key, value in facts.items():
            t.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    return path


def sparse(path: Path, size: int, at: dict[int, float]) -> Path:
    """A file of zeros with a few f32, which takes no room."""
    with open(path, "wb") as f:
        f.truncate(size)
        for offset, value in at.items():
            f.seek(offset)
            f.write(np.float32(value).tobytes())
    return path


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """Two tables in one file of 4 GiB; the second one has its last element set."""
    each = ROWS * 1024 * 4
    sparse(tmp_path / "huge.bin", 2 * each, {0: 3.5, 2 * each - 4: -7.25})
    facts = {"location": "huge.bin", "length": str(each)}
    tables = {"a": ([ROWS, 1024], facts), "b": ([ROWS, 1024], {**facts, "offset": str(each)})}
    return model(tmp_path / "huge.onnx", tables)


PEAK = """
import sys
from resource import RLIMIT_DATA, setrlimit
from waferc.compiler.cli.main import main
setrlimit(RLIMIT_DATA, (1 << 30, 1 << 30))  # what is mapped from a file does not count
main(sys.argv[1:])
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words", [["check"], ["compile", "--no-weights", "--compile-to", "plan"]], ids=" ".join
)
def test_tensors_of_two_gib_within_one(tmp_path: Path, words: list[str]) -> None:
    size = ROWS * 1024 * 4
    sparse(tmp_path / "huge.bin", size, {})
    huge = model(tmp_path / "huge.onnx", {"a": ([ROWS, 1024], {"location": "huge.bin", "length": str(size)})})
    if words[0] == "compile":
        words = [*words, "-o", str(huge.with_suffix(".plan"))]
    command = [sys.executable, "-c", PEAK, words[0], str(huge), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def perceptron(folder: Path, layers: int) -> tuple[Path, int]:
    """Layers of 1,024 to 65,536 and back, of random weights in one file: the model, and the file's bytes."""
    shapes = [[1024, 1 << 16], [1 << 16, 1024]] * layers
    random = np.random.default_rng(5)
    with open(folder / "deep.bin", "wb") as f:
        for _ in shapes:
            for _ in range(16):
                f.write((random.standard_normal(1 << 22, np.float32) / 64).tobytes())
    nodes: list[onnx.NodeProto] = []
    for i in range(len(shapes)):
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1024])
        for name in ("x0", f"x{len(shapes)}")
    ]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:])
    for i, dims in enumerate(shapes):
        t = graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=dims)
        t.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "deep.bin", "offset": f"{i << 28}", "length": f"{1 << 28}"}.items():
            t.external_data.add(key=key, value=value)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "deep.onnx").write_bytes(proto.SerializeToString())
    return folder / "deep.onnx", len(shapes) << 28


def room(folder: Path) -> tuple[int, int]:
    """Bytes of memory that are free, and of the disk."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10, shutil.disk_usage(folder).free


@pytest.mark.models
def test_a_model_of_more_than_two_gib_is_compiled_in_less_than_twice_its_size(tmp_path: Path) -> None:
    """Peak memory is the process's, with what it has mapped; the program gives NumPy's numbers."""
    memory, disk = room(tmp_path)
    if memory < 10 << 30 or disk < 8 << 30:
        pytest.skip(f"needs 10 GiB of memory and 8 GiB on the disk, there are {memory:,} and {disk:,} bytes")
    path, size = perceptron(tmp_path, 5)
    assert size > 1 << 31
    words = ["compile", str(path), "-o", str(tmp_path / "deep.wafer"), "--wafer", "wse3"]
    with subprocess.Popen([sys.executable, "-m", "waferc", *words], stderr=subprocess.PIPE) as started:
        _, status, used = os.wait4(started.pid, 0)
        assert started.stderr is not None
        assert os.waitstatus_to_exitcode(status) == 0, started.stderr.read()
        started.returncode = 0
    assert used.ru_maxrss << 10 < 2 * size, f"{used.ru_maxrss << 10:,} bytes for {size:,}"
    x = np.random.default_rng(6).standard_normal((1, 1024)).astype(np.float32)
    weights = np.memmap(tmp_path / "deep.bin", np.float32, "r").reshape(-1, 1 << 26)
    wanted = x
    for i, w in enumerate(weights):
        wanted = wanted @ w.reshape(1024, -1) if i % 2 == 0 else wanted @ w.reshape(-1, 1024)
    found = waferc.load(tmp_path / "deep.wafer").run({"x0": x})["x10"]
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.thorough
def test_their_values_are_those_of_the_file(huge: Path) -> None:
    graph = import_model(huge)
    first, second = graph.constants["a"], graph.constants["b"]
    assert first[0, 0] == 3.5 and second[-1, -1] == -7.25
    assert first.shape == second.shape == (ROWS, 1024) and not first.flags.writeable


def test_an_older_opset_is_converted_without_the_data(tmp_path: Path) -> None:
    sparse(tmp_path / "d.bin", 1 << 22, {4: 2.0})
    path = model(tmp_path / "m.onnx", {"a": ([1024, 1024], {"location": "d.bin"})}, opset=9)
    graph = import_model(path)
    assert graph.constants["a"][0, 1] == 2.0 and graph.inputs == ("i",)


def test_small_tensors_are_in_the_message(tmp_path: Path) -> None:
    sparse(tmp_path / "d.bin", 64, {20: 2.0})
    path = model(tmp_path / "m.onnx", {"a": ([2, 3], {"location": "d.bin", "offset": "16", "length": "24"})})
    for mapped in (False, True):
        (t,) = load_model(path, mapped=mapped).graph.initializer
        assert onnx.numpy_helper.to_array(t).tolist() == [[0, 2, 0], [0, 0, 0]]


def outside(tmp_path: Path) -> None:
    sparse(tmp_path / "secret", 64, {})


def link_out(tmp_path: Path) -> None:
    outside(tmp_path)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")


def folder_link(tmp_path: Path) -> None:
    outside(tmp_path)
    (tmp_path / "in" / "away").symlink_to(tmp_path)


def fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in" / "fifo")


def short(tmp_path: Path) -> None:
    sparse(tmp_path / "in" / "short", 20, {})


def enough(tmp_path: Path) -> None:
    sparse(tmp_path / "in" / "d", 64, {})


WRONG: dict[str, tuple[Callable[[Path], None], dict[str, str], type[WafercError], str]] = {
    "missing": (outside, {"location": "none"}, InputOutput, "No such file"),
    "up": (outside, {"location": "../secret"}, InputOutput, "outside the model's folder"),
    "up and down": (enough, {"location": "x/../d"}, InputOutput, "outside the model's folder"),
    "absolute": (outside, {"location": "/etc/passwd"}, InputOutput, "outside the model's folder"),
    "a link": (link_out, {"location": "link"}, InputOutput, "a link leads out"),
    "a linked folder": (folder_link, {"location": "away/secret"}, InputOutput, "a link leads out"),
    "a fifo": (fifo, {"location": "fifo"}, InputOutput, "no regular file"),
    "a folder": (outside, {"location": "."}, InputOutput, "no regular file"),
    "no name": (outside, {}, InvalidInput, "no file is named"),
    "a zero byte": (outside, {"location": "a\0b"}, InvalidInput, "no file is named"),
    "too short": (short, {"location": "short"}, InputOutput, "bytes 0 to 24 of a file of 20"),
    "offset past the end": (enough, {"location": "d", "offset": "1000000"}, InputOutput, "of a file of 64"),
    "negative offset": (enough, {"location": "d", "offset": "-4"}, InvalidInput, "offset '-4' is no number"),
    "offset of words": (enough, {"location": "d", "offset": "4x"}, InvalidInput, "offset '4x' is no number"),
    "huge offset": (enough, {"location": "d", "offset": "9" * 400}, InvalidInput, "is no number of bytes"),
    "another length": (enough, {"location": "d", "length": "23"}, InvalidInput, r"23 bytes for \[2, 3\]"),
    "huge length": (enough, {"location": "d", "length": "1" + "0" * 17}, InvalidInput, "which take 24"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_places_that_are_refused(tmp_path: Path, kind: str) -> None:
    prepare, facts, error, says = WRONG[kind]
    (tmp_path / "in").mkdir()
    prepare(tmp_path)
    path = model(tmp_path / "in" / "m.onnx", {"table": ([2, 3], facts)})
    for step in (import_model, load_model, *([digest] if facts else [])):
        with pytest.raises(error, match=says) as refused:
            step(path)
        assert "'table'" in str(refused.value) and "\n" not in str(refused.value)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    sparse(tmp_path / "blob", 24, {0: 1.0})
    (tmp_path / "d").symlink_to("blob")
    path = model(tmp_path / "m.onnx", {"a": ([2, 3], {"location": "d"})})
    assert import_model(path).constants["a"][0, 0] == 1


def test_a_tensor_of_a_body_lies_in_a_file_too(tmp_path: Path) -> None:
    sparse(tmp_path / "d", 24, {4: 5.0})
    path = model(tmp_path / "m.onnx", {"a": ([2, 3], {"location": "d"})})
    proto = onnx.load(path, load_external_data=False)
    constant = helper.make_node("Constant", [], ["a"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(
        proto.graph.initializer[0]
    )
    del proto.graph.initializer[:]
    proto.graph.node.insert(0, constant)
    path.write_bytes(proto.SerializeToString())
    (value,) = import_model(path).constants.values()
    assert value.tolist() == [[0, 5, 0], [0, 0, 0]]
    assert digest(path) != digest(path, weights=False)
