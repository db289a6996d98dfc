"""What people are told: files that are something else, all that is open at once, and what would make room."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_cli import good, waferc
from waferc import DoesNotFit, Request, compile_model
from waferc.compiler.errors import OpenDimensions, UnsupportedOperator
from waferc.placement.search.explain import explain
from waferc.placement.search.least import least
from workloads import WORKLOADS, decode

F = TensorProto.FLOAT

# -- files that are something else --------------------------------------------------------


def zipped(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as z:
            for name in names:
                z.writestr(name, b"x")

    return write


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def tensors(path: Path) -> None:
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))


OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle, old": (content(pickle.dumps({"a": [1]}, protocol=0)), "a Python pickle"),
    "pickle": (content(pickle.dumps({"a": [1]}, protocol=4)), "a Python pickle"),
    "zip": (zipped("model.onnx"), "a zip archive with 'model.onnx' in it"),
    "gzip": (content(gzip.compress(b"a")), "a gzip file"),
    "ort": (content(b"\x1c\0\0\0ORTM" + bytes(90)), "an onnxruntime model (.ort)"),
    "text": (content("ein Text für waferc\n".encode()), "a text file"),
    "utf-16": (content("text".encode("utf-16")), "a text file"),
    "json": (content(b'{"a": 1}'), "a JSON file"),
    "html": (content(b"\n<!DOCTYPE html><html>404</html>"), "a web page"),
    "lfs": (content(b"version https://git-lfs.github.com/spec/v1\noid x"), "a Git LFS pointer"),
    "safetensors": (tensors, "a safetensors file"),
    "gguf": (content(b"GGUF\3\0\0\0" + bytes(40)), "a GGUF file"),
    "pt": (zipped("archive/data.pkl", "archive/version"), "a PyTorch file (.pt)"),
    "pt, old": (content(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"..."), "a PyTorch checkpoint"),
    "tflite": (content(b"\x1c\0\0\0TFL3" + bytes(50)), "a TensorFlow Lite model"),
    "h5": (content(b"\x89HDF\r\n\x1a\n" + bytes(50)), "an HDF5 file (Keras)"),
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "a Keras model (.keras)"),
    "npz": (lambda path: np.savez(path.open("wb"), x=np.ones(2)), "NumPy arrays (.npz)"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones(2)), "a NumPy array (.npy)"),
    "openvino": (content(b'<?xml version="1.0"?>\n<net name="a">'), "an OpenVINO model (.xml)"),
    "onnx's text": (content(b'<\n  ir_version: 8,\n  opset_import: []>'), "the text of an ONNX model"),
    "protobuf's text": (content(b"ir_version: 8\ngraph {\n}"), "the text of an ONNX model (protobuf)"),
    "zeros": (content(bytes(999)), "a file of zeros"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_a_file_that_is_something_else_is_named(what: str, here: Path) -> None:
    write, name = OTHERS[what]
    write(here / "m.bin")
    for words, code, says in (
        (("check", "m.bin"), 3, f"'m.bin' is no ONNX model but {name}"),
        (("compile", "m.bin", "-o", "o.wafer"), 3, f"'m.bin' is no ONNX model but {name}"),
        (("run", "m.bin", "--random", "0"), 7, f"'m.bin': not a waferc artifact: it is {name}"),
        (("inspect", "m.bin"), 7, f"'m.bin': not a waferc artifact: it is {name}"),
    ):
        done = waferc(*words)
        assert done.exit_code == code and done.stderr.startswith(f"waferc: error: {says}"), done.stderr
        assert done.stderr.count("\n") == 1 and len(done.stderr) < 240 and ": " in done.stderr[20:]
    assert not (here / "o.wafer").exists()


def test_a_model_and_a_program_in_each_others_place(here: Path) -> None:
    product(here / "tiny.onnx", 2, 4, 4, True)
    good("compile", "tiny.onnx", "--wafer", "4x4", "-o", "tiny.wafer")
    for verb in ("check", "verify"):
        done = waferc(verb, "tiny.wafer")
        assert (
            done.exit_code == 3 and "no ONNX model but a waferc program or plan: give the ONNX" in done.stderr
        )
    for words in (("run", "tiny.onnx", "--random", "0"), ("report", "tiny.onnx", "-o", "o.html")):
        done = waferc(*words)
        assert done.exit_code == 7
        assert "it is an ONNX model; compile it first, with 'waferc compile" in done.stderr
    (here / "x.pb").write_bytes(numpy_helper.from_array(np.ones(2, np.float32), "x").SerializeToString())
    assert "no ONNX model but a tensor" in waferc("check", "x.pb").stderr
    (here / "cut.onnx").write_bytes((here / "tiny.onnx").read_bytes()[:60])
    assert "'cut.onnx' is no ONNX model, or is truncated" in waferc("check", "cut.onnx").stderr


# -- what is open ---------------------------------------------------------------------------


def saved(
    path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **weights: Any
) -> str:
    ends = [[helper.make_tensor_value_info(n, F, s) for n, s in of.items()] for of in (inputs, outputs)]
    held = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "g", *ends, held)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=imports), path)
    return str(path)


OPEN = {"x": ["batch", "seq"], "past": ["batch", 4, "total", 8], "mask": [None, "seq"]}


def test_all_open_dimensions_are_told_at_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", [n], [f"{n}_out"]) for n in OPEN]
    path = saved(tmp_path / "m.onnx", nodes, OPEN, {f"{n}_out": s for n, s in OPEN.items()})
    with pytest.raises(OpenDimensions) as e:
        compile_model(path, wafer="4x4", dims={})
    assert str(e.value) == (
        "input 'x': dimension 'batch' is not bound; input 'x': dimension 'seq' is not bound; "
        "input 'past': dimension 'total' is not bound; input 'mask': dimension 0 has no size; "
        "add --dim batch=N --dim seq=N --dim total=N --shape mask=..."
    )
    with pytest.raises(
        OpenDimensions, match=r"^input 'past': dimension 'total' is not bound; add --dim total=N$"
    ):
        compile_model(path, wafer="4x4", dims={"batch": 1, "seq": 2}, shapes={"mask": (1, 2)})


def test_open_dimensions_come_with_unsupported_operators(here: Path) -> None:
    nodes = [
        helper.make_node("Frob", ["x"], ["h"], "odd", domain="my.domain"),
        helper.make_node("Add", ["h", "h"], ["y"], "sum"),
    ]
    path = saved(here / "m.onnx", nodes, {"x": ["batch", "seq"]}, {"y": ["batch", "seq"]})
    for words in (
        ("check", path),
        ("compile", path, "-o", "o.wafer"),
        ("compile", path, "--state", "x=y", "-o", "o"),
    ):
        done = waferc(*words)
        assert done.exit_code == 4
        assert re.search(
            r"my.domain.Frob, first at node 'odd': domain 'my.domain' is not known; "
            r"input 'x': dimension 'batch' .*'seq' is not bound; add --dim batch=N --dim seq=N$",
            done.stderr.strip(),
        )
    with pytest.raises(UnsupportedOperator) as e:
        compile_model(path)
    assert [r.op_type for r in e.value.refusals] == ["Frob"]


def test_many_open_dimensions_leave_a_line(tmp_path: Path) -> None:
    inputs = {f"x{i}": [f"d{i}" * 30] for i in range(500)}
    nodes = [helper.make_node("Sum", list(inputs), ["y"])]
    path = saved(tmp_path / "m.onnx", nodes, inputs, {"y": ["n"]})
    with pytest.raises(OpenDimensions, match=r"and 492 more; add --dim") as e:
        compile_model(path)
    assert len(str(e.value)) < 3000 and "\n" not in str(e.value)


# -- what does not fit ----------------------------------------------------------------------


def product(path: Path, rows: Any, inner: int, columns: int, weights: bool) -> str:
    node = helper.make_node("MatMul", ["a", "w"], ["y"], "product")
    inputs: dict[str, Any] = {"a": [rows, inner]}
    held: dict[str, Any] = {}
    if weights:
        held["w"] = np.random.default_rng(0).standard_normal((inner, columns)).astype(np.float32)
    else:
        inputs["w"] = [inner, columns]
    return saved(path, [node], inputs, {"y": [rows, columns]}, **held)


@pytest.mark.parametrize("weights", [False, True])
def test_a_large_product_is_refused_before_any_search(weights: bool, tmp_path: Path) -> None:
    path = product(tmp_path / "m.onnx", 4096, 4096, 4096, weights)
    start = time.process_time()
    with pytest.raises(DoesNotFit) as e:
        compile_model(path, wafer="16x16", until="plan")
    text = str(e.value)
    assert time.process_time() - start < 2
    assert "inputs need 134,217,728 bytes; wafer 16x16 has 11,513,856 (256 cores x 44,976)" in text
    assert "largest: product, a (67,108,864); product, w (67,108,864); try " in text
    assert text.endswith("--wafer 64x64 (has 184,221,696)")


def numbers(text: str, pattern: str) -> list[int]:
    found = re.search(pattern, text)
    assert found is not None, text
    return [int(n.replace(",", "")) for n in found.groups()]


def test_remedies_are_computed(tmp_path: Path) -> None:
    path = product(
        tmp_path / "m.onnx", "M", 256, 256, True
    )  # 262,144 bytes, 1,024 more for each row, as much out
    asked = Request(wafer="3x3", dims={"M": 512}, until="plan")
    with pytest.raises(DoesNotFit) as e:
        compile_model(path, asked)
    text, room = str(e.value), 9 * 44_976
    assert f"need {262_144 + 512 * 1024:,} bytes; wafer 3x3 has {room:,}" in text
    (half,) = numbers(text, r"--weights f16 \(needs ([\d,]+) bytes at least, too many still\)")
    assert half == 131_072 + 512 * 1024
    name, has = re.findall(r"--wafer (\S+) \(has ([\d,]+)\)", text)[0]
    assert name == "8x8" and int(has.replace(",", "")) == 64 * 44_976
    rows, takes = numbers(text, r"--dim M=(\d+) \(needs ([\d,]+) at least\)")
    assert takes == 262_144 + rows * 1024 <= room < takes + 1024
    with pytest.raises(DoesNotFit, match=r"--weights f16 \(needs 147,456 bytes at least\)"):
        compile_model(path, asked, wafer="2x2", dims={"M": 16})


def test_remedies_for_one_core_are_planned(tmp_path: Path) -> None:
    """The sum has room, but no plan is found: what is said to fit does."""
    path = product(tmp_path / "m.onnx", "M", 384, 440, True)
    asked = Request(wafer="4x4", dims={"M": 8}, until="plan")
    with pytest.raises(DoesNotFit) as e:
        compile_model(path, asked)
    text = str(e.value)
    assert re.search(r"core \(\d+, \d+\) needs [\d,]+ bytes, budget 44,976; largest: .*product", text)
    for flag, value, used in re.findall(r"--(weights|wafer|dim) (\S+) \(fits: ([\d,]+) bytes on", text):
        changed = {"dims": {"M": int(value[2:])}} if flag == "dim" else {flag: value}
        plan = compile_model(path, asked, **changed).plan
        assert int(plan.sram().max()) == int(used.replace(",", ""))
    assert "(fits: " in text


def test_no_plan_takes_less_than_the_least(tmp_path: Path) -> None:
    for rows, columns in ((1, 64), (33, 128), (256, 16)):
        path = product(tmp_path / "m.onnx", rows, 96, columns, rows != 33)
        plan = compile_model(path, wafer="4x4", until="plan").plan
        assert 0 < least(plan.graph).bytes <= int(plan.sram().sum())


@pytest.mark.parametrize("name", ["mlp", "table", "stacks", "entries", "line", "tight mlp"])
def test_no_plan_of_a_workload_takes_less_than_the_least(name: str) -> None:
    for plan in WORKLOADS[name]().plans():
        assert 0 < least(plan.graph).bytes <= int(plan.sram().sum())


def test_a_cache_counts_once() -> None:
    """What a call makes of it lies where it lay."""
    graph = decode()
    caches = sum(graph.tensors[present].bytes for present in graph.in_place)
    constants = sum(graph.tensors[t].bytes for t in graph.constants)
    assert caches > 0 and least(graph).bytes < constants + 2 * caches


def test_room_for_later_entries_is_told(tmp_path: Path) -> None:
    """A core that is within its SRAM, but leaves too little for the entries that come later."""
    plan = compile_model(product(tmp_path / "m.onnx", 4, 64, 64, True), wafer="2x2", until="plan").plan
    kept = max(b.address + b.bytes for b in plan.buffers if b.stays)
    text = explain(plan, kept - 1)
    assert (
        f"keeps {kept:,} bytes between calls, budget {kept - 1:,}: of 44,976 bytes {44_977 - kept:,}" in text
    )
    assert "largest: product" in text and "needs" not in text


def test_a_constant_past_all_sizes_names_its_node(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["w"], ["y"], "reader")
    y = helper.make_tensor_value_info("y", F, ["n"])
    tensor = TensorProto(name="w", data_type=F, dims=[1 << 22, 1 << 22], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    graph = helper.make_graph([node], "g", [], [y], [tensor])
    proto = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(
        DoesNotFit, match=r"^constant 'w' of node 'reader' \(Identity\): f32\[4194304, 4194304\] takes"
    ):
        compile_model(str(tmp_path / "m.onnx"), until="plan", no_weights=True)


# -- check asks as compile does -----------------------------------------------------------


def test_check_takes_the_options_of_a_compile(here: Path) -> None:
    product(here / "m.onnx", "M", 384, 512, True)
    for words in ((), ("--no-simplify",)):
        assert waferc("check", "m.onnx", "--wafer", "4x4", "--dim", "M=4", *words).exit_code == 5
    text = good("check", "m.onnx", "--wafer", "4x4", "--dim", "M=4", "--weights", "f16")
    assert "fits 4x4" in text
    good("check", "m.onnx", "--wafer", "8x8", "--dim", "M=4", "--no-simplify", "--optimize", "throughput")
    text = good(
        "check", "m.onnx", "--wafer", "8x8", "--entry", "one:M=1", "--entry", "four:M=4", "--json", "o.json"
    )
    assert "entry one\nfits 8x8" in text and "entry four\nfits 8x8" in text
    assert set(json.loads((here / "o.json").read_text())["entries"]) == {"one", "four"}
    done = waferc("check", "m.onnx", "--wafer", "8x8", "--dim", "M=4", "--activations", "bf16")
    assert done.exit_code == 2 and "--activations bf16 needs --weights bf16" in done.stderr
