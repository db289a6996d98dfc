"""Forged artifacts: whatever a file says is judged before it is used, and refused in one line."""

from __future__ import annotations

import io
import json
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged import MANIFEST, Files, files_of, forgeries, sealed
from onnx import TensorProto, helper, numpy_helper
from supervised import Died, each
from test_stages import branching, chosen, looping
from waferc.codegen.artifact.artifact import InvalidArtifact, read
from waferc.compiler.cli.command import BUG, verdict
from waferc.compiler.cli.saved import Saved
from waferc.compiler.errors import ArtifactError
from waferc.compiler.pipeline import compile_model
from waferc.runtime.guard import GuardViolation
from waferc.runtime.load import load

F = TensorProto.FLOAT


def sampled() -> bytes:
    """Operators whose fields hold classes and words of their own: GridSample, TopK, Clip, fused steps."""
    nodes = [
        helper.make_node("GridSample", ["x", "g"], ["s"], padding_mode="border"),
        helper.make_node("Clip", ["s", "low"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["d"]),
        helper.make_node("Mul", ["c", "d"], ["e"]),
        helper.make_node("TopK", ["e", "k"], ["y", "i"]),
    ]
    ins = [
        helper.make_tensor_value_info("x", F, [1, 1, 4, 4]),
        helper.make_tensor_value_info("g", F, [1, 3, 3, 2]),
    ]
    outs = [
        helper.make_tensor_value_info("y", F, [1, 1, 3, 2]),
        helper.make_tensor_value_info("i", TensorProto.INT64, [1, 1, 3, 2]),
    ]
    constants = [numpy_helper.from_array(np.float32(-1), "low"), numpy_helper.from_array(np.array([2]), "k")]
    graph = helper.make_graph(nodes, "sampled", ins, outs, constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()


def product(rows: int | str) -> bytes:
    """A product with weights, a bias and a state."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Add", ["c", "past"], ["present"]),
        helper.make_node("Softmax", ["present"], ["y"]),
    ]
    kinds = {"x": [rows, 20], "past": [4, 10]}
    ins = [helper.make_tensor_value_info(n, F, shape) for n, shape in kinds.items()]
    outs = [helper.make_tensor_value_info(n, F, [4, 10]) for n in ("y", "present")]
    random = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), n)
        for n, shape in {"w": (20, 10), "b": (10,)}.items()
    ]
    graph = helper.make_graph(nodes, "product", ins, outs, constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Programs of every kind: with states, several entries, and stages on the host."""
    folder = tmp_path_factory.mktemp("forged")
    made = {
        "product": compile_model(product(4), wafer="4x4", states=[("past", "present")]),
        "entries": compile_model(product("n"), wafer="4x4", entries={"one": {"n": 1}, "four": {"n": 4}}),
        "sampled": compile_model(sampled(), wafer="4x4"),
        **{
            f.__name__: compile_model(f().SerializeToString(), wafer="4x4")
            for f in (chosen, branching, looping)
        },
    }
    for name, one in made.items():
        one.save(folder / f"{name}.wafer")
    return {name: folder / f"{name}.wafer" for name in made}


# -- every use of an artifact --------------------------------------------------------------------------


def showing(path: Path) -> None:
    """All that the verbs look at, but for pictures."""
    saved = Saved(str(path))
    _ = saved.hosts, saved.wafer, saved.artifact.values()
    for entry in saved.entries:
        own = Saved(str(path), entry)
        _ = own.figures, own.artifact.phases(entry), own.plan.sram(), own.timing, str(own.plan)


def running(path: Path) -> None:
    program = Saved(str(path)).program()
    inputs = {p.name: np.ones(p.shape, p.dtype) for p in program.ports.inputs}
    program.run({**inputs, **{n: np.array(["a", "b"] * 2) for n in program.others}})


def guarded(path: Path) -> None:
    program = Saved(str(path)).program(guard=True)
    inputs = {p.name: np.ones(p.shape, p.dtype) for p in program.ports.inputs}
    program.run({**inputs, **{n: np.array(["a", "b"] * 2) for n in program.others}})


USES: tuple[Callable[[Path], None], ...] = (showing, running, guarded)


def ending(use: Callable[[Path], None], path: Path) -> str:
    """Nothing for a file that is used, or refused as it should be; else what happened."""
    start = time.monotonic()
    try:
        use(path)
    except Exception as e:
        code, line = verdict(e)
        if code == BUG or "\n" in line:
            return line
    seconds = time.monotonic() - start
    return f"{seconds:.0f} s" if seconds > 30 else ""  # of a busy machine; 10 are allowed


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_what_is_not_forged_is_used(artifacts: dict[str, Path], use: Callable[[Path], None]) -> None:
    for path in artifacts.values():
        again = path.with_suffix(".again")
        again.write_bytes(sealed(files_of(path)))
        use(again)


@pytest.mark.parametrize(
    "use, count", [(showing, 120), (running, 80), (guarded, 8)], ids=lambda x: getattr(x, "__name__", x)
)
def test_no_forgery_is_a_bug_of_ours(
    artifacts: dict[str, Path], use: Callable[[Path], None], count: int
) -> None:
    """Whatever a file does to a process of its own is seen. `make siege` tries many more."""
    streams = [forgeries(path, random.Random(i)) for i, path in enumerate(artifacts.values())]
    made = [next(streams[i % len(streams)]) for i in range(count)]
    place = next(iter(artifacts.values())).parent

    def work(number: int) -> str:
        path = place / f"{use.__name__}.forged"
        path.write_bytes(made[number].content)
        return ending(use, path)

    found = {
        made[number].what: result
        for number, result in each(work, range(count), workers=1, timeout=60)
        if isinstance(result, Died) or result
    }
    assert not found


# -- members by name ----------------------------------------------------------------------------------

Spoil = Callable[[Any], Any]


def at(*path: Any, to: Any) -> Spoil:
    """A document with another value at a place; `to` may be a function of the old one."""

    def spoil(whole: Any) -> Any:
        holder = whole
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = to(holder[path[-1]]) if callable(to) else to
        return whole

    return spoil


def without(*path: Any) -> Spoil:
    def spoil(whole: Any) -> Any:
        holder = whole
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        return whole

    return spoil


OP = ("nodes", 0, "op")
GRAPH: list[tuple[Spoil, str]] = [
    (lambda g: [], r"\[\] is not an object"),
    (without("tensors"), r"tensors: is missing"),
    (at("name", to=7), r"name: 7 is not a text"),
    (at("inputs", 0, to={}), r"inputs\[0\]: \{\} is not a text"),
    (at("inputs", 0, to="nobody"), r"inputs\[0\]: 'nobody' is no tensor"),
    (at("inputs", to=lambda names: [*names, names[0]]), r"inputs: a tensor is listed twice"),
    (at("outputs", 0, to="nobody"), r"outputs\[0\]: 'nobody' is no tensor"),
    (at("constants", to=[]), r"reads '.*' before it is written"),
    (at("constants", 0, to="y"), r"constants: 'y' is not among the weights"),
    (at("tensors", 0, 1, 0, to=-4), r"tensors\[0\]: .* has shape \[-4"),
    (at("tensors", 0, 1, 0, to=1 << 50), r"tensors\[0\]: .* has shape \[1125899906842624"),
    (at("tensors", 0, 1, to=[1 << 30, 1 << 30]), r"tensors\[0\]"),
    (at("tensors", 0, 2, to="f33"), r"tensors\[0\]\[2\]: 'f33' is no element type"),
    (at("tensors", 0, 2, to=[]), r"tensors\[0\]\[2\]: \[\] is not a text"),
    (at("tensors", 1, to=["x", [4, 20], "f32"]), r"tensors\[\d\]: a second tensor"),
    (at("states", to=[["x"]]), r"states\[0\]: .* is not a list of 2"),
    (at("states", to=[["y", "x"]]), r"states\[0\]: 'y' is no input"),
    (at("length", to=[["x"]]), r"length: .* is not Length \| None|length"),
    (at("nodes", to=3), r"nodes: is no list"),
    (at("nodes", 0, to=None), r"nodes\[0\]: None is not an object"),
    (at("nodes", 0, "inputs", to=["x"]), r"nodes\[0\]\.inputs: 1 tensors for \d reads"),
    (at("nodes", 0, "output", to="x"), r"nodes\[0\]\.output: 'x' is an input"),
    (at("nodes", 0, "source", to=[1]), r"nodes\[0\]\.source\[0\]: 1 is not a text"),
    (at(*OP, "class", to="Evil"), r"nodes\[0\]\.op: 'Evil' is not a Op that waferc has"),
    (at(*OP, "class", to="Op"), r"nodes\[0\]\.op: is no Op that waferc makes"),
    (at(*OP, to={"type": "f32"}), r"nodes\[0\]\.op: .* is not a Op"),
    (at(*OP, "fields", "evil", to=1), r"op\.fields\.evil: a \w+ has no such field"),
    (without(*OP, "fields", "axes"), r"nodes\[0\]\.op: missing .* 'axes'"),
    (at(*OP, "fields", "axes", 0, 1, to="many"), r"op\.fields\.axes\[0\]\[1\]: 'many' is not a whole number"),
    (at(*OP, "fields", "axes", 0, 1, to=True), r"True is not a whole number"),
    (at(*OP, "fields", "axes", 0, 1, to=4.0), r"4.0 is not a whole number"),
    (at(*OP, "fields", "axes", 0, 1, to=-1), r"op\.fields\.axes: axes of \[-1"),
    (at(*OP, "fields", "axes", 0, 1, to=10**30), r"a number of 100 bits"),
    (at(*OP, "fields", "axes", 0, 1, to=1 << 45), r"op\.fields\.axes: axes of"),
    (at(*OP, "fields", "out_type", to={"type": "f33"}), r"op\.fields\.out_type: .* is not an element type"),
    (at(*OP, "fields", "write", to={"affine": 1}), r"op\.fields\.write: .* is not a list"),
    (at(*OP, "fields", "fill", to={"float": "0x1p+9999"}), r"op\.fields\.fill: .* is not a float"),
    (at(*OP, "fields", "fill", to=None), r"op\.fields\.fill: None is not a number"),
]  # fmt: skip
MANIFESTS: list[tuple[Spoil, str]] = [
    (at("entries", to="main"), "entries without a proper name"),
    (at("entries", to=["main", "main"]), "two entries of one name"),
    (at("entries", to=["../up"]), "entries without a proper name"),
    (without("figures"), "figures of 'main': figures: is missing"),
    (at("figures", to={}), "figures of 'main': main: is missing"),
    (at("figures", "main", "cycles", to=-1), "figures of 'main': cycles: -1"),
    (at("figures", "main", "cycles", to={"float": "inf"}), "figures of 'main': cycles: inf"),
    (at("figures", "main", "cycles", to="fast"), "figures of 'main': cycles: 'fast' is not a number"),
    (at("figures", "main", "fullest_core", 1, to="0"), r"fullest_core\[1\]: '0' is not a whole number"),
    (at("figures", "main", "fullest_link", to=[1, 2]), "fullest_link"),
    (at("figures", "main", "assumed", to="none"), "assumed: 'none' is not a list"),
    (without("figures", "main", "tasks"), "tasks: is missing"),
    (at("host", to=[["a", "b", "c"]]), r"host: \[0\]\[2\]: 'c' is not a whole number"),
]  # fmt: skip
WAFERS: list[tuple[Spoil, str]] = [
    (lambda w: 3, "3 is not a Wafer"),
    (at("class", to="Op"), "'Op' is not a Wafer"),
    (at("fields", "width", to=0), "0x4 cores"),
    (at("fields", "height", to=1 << 40), "cores; sides go from 1"),
    (at("fields", "sram_bytes", to=1 << 60), "sram_bytes = 1152921504606846976; must be finite"),
    (at("fields", "clock_hz", to={"float": "nan"}), "clock_hz = nan; must be finite"),
    (at("fields", "clock_hz", to={"float": "a" * 1000}), "fields.clock_hz: .* is not a float"),
    (at("fields", "express", to=0), "express = 0; must be above 0"),
    (at("fields", "name", to=["x"]), "fields.name: .* is not a text"),
    (at("fields", "vector", to={"map": []}), "vector.copy_f16"),
    (at("fields", "vector", "map", 0, 1, 0, to={"float": "inf"}), "vector"),
    (at("fields", "dead_cores", to=[[9, 9]]), "dead core"),
    (at("fields", "dead_links", to=[[0, 0, "up"]]), "dead link"),
]  # fmt: skip
PLACES: list[tuple[Spoil, str]] = [
    (at("schema", to=2), "schema 2"),
    (at("regions", to={}), "regions is no list"),
    (at("regions", 0, "columns", to=1 << 60), "columns is no whole number"),
    (at("regions", 0, "x", to=100), "passes the wafer"),
    (at("ops", to=[]), "the placement says nothing"),
    (at("ops", 0, "region", to=7), "is on region 7"),
    (at("ops", 0, "grid", to=[1]), "grid is columns"),
    (at("ops", 0, "urgent", to=["x"]), "urgent"),
]  # fmt: skip
MEMBERS = [
    *(("main/graph.json", spoil, says) for spoil, says in GRAPH),
    *((MANIFEST, spoil, says) for spoil, says in MANIFESTS),
    *(("wafer.json", spoil, says) for spoil, says in WAFERS),
    *(("main/placement.json", spoil, says) for spoil, says in PLACES),
]


@pytest.mark.parametrize("number", range(len(MEMBERS)), ids=[f"{n}: {s[:50]}" for n, _, s in MEMBERS])
def test_a_wrong_field_is_named(artifacts: dict[str, Path], tmp_path: Path, number: int) -> None:
    name, spoil, says = MEMBERS[number]
    files = files_of(artifacts["product"])
    files[name] = json.dumps(spoil(json.loads(files[name]))).encode()
    path = tmp_path / "p.wafer"
    path.write_bytes(sealed(files))
    with pytest.raises(ArtifactError, match=says) as refused:
        showing(path)
    assert name in str(refused.value) and "\n" not in str(refused.value)
    assert verdict(refused.value)[0] == 7


RUNS: list[tuple[str, str, Spoil, str]] = [
    ("product", "image.json", at("arena", to=1 << 32), "an arena of 4294967296 bytes, of which"),
    ("chosen", "script.json", at("ports", 0, 1, 0, to=-6), r"ports\[0\]: port .* has shape \[-6"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(RUNS)), ids=[f"{n}: {s[:50]}" for _, n, _, s in RUNS])
def test_a_wrong_figure_is_named_before_a_run(
    artifacts: dict[str, Path], tmp_path: Path, number: int
) -> None:
    base, name, spoil, says = RUNS[number]
    files = files_of(artifacts[base])
    files[name] = json.dumps(spoil(json.loads(files[name]))).encode()
    path = tmp_path / "p.wafer"
    path.write_bytes(sealed(files))
    with pytest.raises(ArtifactError, match=says):
        running(path)


def test_an_axis_that_an_op_keeps_whole_is_not_cut(artifacts: dict[str, Path], tmp_path: Path) -> None:
    files, path = files_of(artifacts["sampled"]), tmp_path / "p.wafer"
    graph = Saved(str(artifacts["sampled"])).plan.graph
    placement = json.loads(files["main/placement.json"])
    number, axis = next((i, n.op.whole[0]) for i, n in enumerate(graph.nodes) if n.op.whole)
    placed = next(o for o in placement["ops"] if o["node"] == number)
    placed["split"], placed["grid"] = [[axis, "x", 2]], [2, 1, 0, 0, 1, 1]
    path.write_bytes(sealed({**files, "main/placement.json": json.dumps(placement).encode()}))
    with pytest.raises(ArtifactError, match=f"cut {axis}/2; .* keeps that axis whole"):
        showing(path)


def test_a_program_that_breaks_a_rule_is_a_wrong_file(artifacts: dict[str, Path]) -> None:
    saved = Saved(str(artifacts["product"]))
    with pytest.raises(ArtifactError, match="a bug of ours"), saved.running():
        raise GuardViolation("the result of 'a' (Add) wrote outside its buffer")
    with pytest.raises(RuntimeError, match="else"), saved.running():
        raise RuntimeError("something else")


def test_a_kernel_is_called_as_its_name_says(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """A table for one kernel that calls another: what that touches follows from its name."""
    files = files_of(artifacts["sampled"])
    image = json.loads(files["image.json"])
    symbols: list[str] = image["symbols"]
    path, refused = tmp_path / "p.wafer", 0
    for i, other in enumerate(symbols):
        for j in range(len(symbols)):
            image["symbols"] = [*symbols[:j], other, *symbols[j + 1 :]]
            path.write_bytes(sealed({**files, "image.json": json.dumps(image).encode()}))
            try:
                load(path)
            except InvalidArtifact:
                refused += 1
                assert i != j
    assert refused > len(symbols)
    for odd in ("abort", "kernel_\u00e9", "kernel_" + "0" * 32 + "_4zz4z", ""):
        image["symbols"] = [odd, *symbols[1:]]
        path.write_bytes(sealed({**files, "image.json": json.dumps(image).encode()}))
        with pytest.raises(InvalidArtifact, match="is no kernel's name"):
            load(path)


# -- the container ------------------------------------------------------------------------------------


def overlapping(data: bytes, files: Files) -> bytes:
    """Many entries on the bytes of one: the directory is small, what it promises is not."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as z:
        z.writestr("manifest.json", "{}")
        z.writestr("big", bytes(1 << 20))
        big = z.getinfo("big")
        for i in range(100):
            twin = zipfile.ZipInfo(f"big{i}")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(twin, field, getattr(big, field))
            z.filelist.append(twin)
            z.NameToInfo[twin.filename] = twin
    return body.getvalue()


def commented(data: bytes, files: Files) -> bytes:
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as z:
        z.comment = b"more"
    return out.getvalue()


def with_gap(data: bytes, files: Files) -> bytes:
    """Bytes between the first file and the second that no entry has."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for i, name in enumerate(files):
            if i == 1 and z.fp is not None:
                z.fp.write(b"gap")
                z.start_dir = z.fp.tell()
            z.writestr(name, files[name])
    return out.getvalue()


def with_a_field(data: bytes, files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.extra = b"\xfe\xca\x04\x00more"
            z.writestr(info, content)
    return out.getvalue()


CONTAINERS: dict[str, Callable[[bytes, Files], bytes]] = {
    "junk in front": lambda data, files: b"junk" + data,
    "a script in front": lambda data, files: b"#!/bin/sh\nexit\n" + data,
    "junk behind": lambda data, files: data + b"junk",
    "zeros behind": lambda data, files: data + bytes(100),
    "another one behind": lambda data, files: data + data,
    "a comment": commented,
    "overlapping files": overlapping,
    "a gap": with_gap,
    "fields of others": with_a_field,
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_files_cover_the_container_exactly(artifacts: dict[str, Path], tmp_path: Path, kind: str) -> None:
    good = artifacts["product"]
    path = tmp_path / "p.wafer"
    path.write_bytes(CONTAINERS[kind](good.read_bytes(), files_of(good)))
    with pytest.raises(InvalidArtifact):
        read(path)


def test_more_than_the_machine_holds_is_not_read(artifacts: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "p.wafer"
    path.write_bytes(artifacts["product"].read_bytes())
    with open(path, "ab") as f:
        f.truncate(1 << 42)
    with pytest.raises(MemoryError, match="4,398,046,511,104 bytes; this machine's memory has"):
        read(path)
