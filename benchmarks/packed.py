"""Decoders of one and three billion weights in blocks of 4 bits: written, compiled, streamed.

    python benchmarks/packed.py [1b] [3b] [--wafer wse3] [--capacity 512] [--tokens 16]

The sizes are those of Llama 3.2 with a last product of its own; weights are random, in MatMulNBits and
GatherBlockQuantized, as external data. Files are written into build/bench. For each: bytes of the model, CPU
seconds and peak memory of compiling, cycles of a token; how long a token takes with one thread and with two,
the memory that takes, and how far its logits are from onnxruntime's along the same tokens.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import compiling
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from smollm2 import RESULTS, ROOT, Array, Golden
from waferc import LanguageModel

sys.path.insert(0, str(ROOT / "examples" / "smollm2"))

from decoder import Shape, decoder

SHAPES = {
    "1b": Shape(16, 2048, 8192, 32, 8, 64, 128_256, 500_000.0, positions=4096),
    "3b": Shape(28, 3072, 8192, 24, 8, 128, 128_256, 500_000.0, positions=4096),
}
BITS, BLOCK = 4, 32
PROMPT = (1, 2, 3, 4, 5)
CONTRIB = "com.microsoft"
SPREAD = 4.6  # of the sixteen numbers of 4 bits, all equally likely


class External:
    """Random weights, written behind one another into one file as they are asked for."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._random = np.random.default_rng(0)

    def blocks(self, name: str, rows: int, depth: int, flat: bool) -> tuple[TensorProto, TensorProto]:
        """[rows, depth] in blocks along the depth, and their scales; flat: as a product takes them."""
        packed = self._random.integers(0, 256, (rows, depth // BLOCK, BLOCK * BITS // 8), np.uint8)
        scales = self._random.uniform(0.5, 1.5, (rows, depth // BLOCK)).astype(np.float32)
        scales *= (depth**-0.5 if flat else 1) / SPREAD
        shapes = (packed.shape, (scales.size,)) if flat else ((rows, depth // 2), scales.shape)
        return (
            self._written(f"{name}.packed", packed.reshape(shapes[0]), TensorProto.UINT8),
            self._written(f"{name}.scales", scales.reshape(shapes[1]), TensorProto.FLOAT),
        )

    def gains(self, name: str, width: int) -> TensorProto:
        return numpy_helper.from_array((1 + 0.1 * self._random.standard_normal(width)).astype("f"), name)

    def _written(self, name: str, value: Array, kind: int) -> TensorProto:
        self._file.write(b"\0" * (-self._file.tell() % 4096))
        tensor = TensorProto(name=name, data_type=kind, dims=value.shape, data_location=TensorProto.EXTERNAL)
        facts = {"location": self._name, "offset": self._file.tell(), "length": value.nbytes}
        for key, fact in facts.items():
            tensor.external_data.add(key=key, value=str(fact))
        value.tofile(self._file)
        return tensor


def in_blocks(shape: Shape, weights: External) -> onnx.ModelProto:
    """The decoder with blocks of 4 bits in place of every matrix."""
    dims: dict[str, tuple[int, ...]] = {}
    attributes: dict[str, Any]

    def none_yet(name: str, of: tuple[int, ...]) -> TensorProto:
        dims[name] = of
        return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[0])

    model = decoder(shape, none_yet)
    graph = model.graph
    kept = [t for t in graph.initializer if t.name not in dims]
    kept += [weights.gains(name, *of) for name, of in dims.items() if len(of) == 1]
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in dims:
            table = weights.blocks("embedding", *dims[node.input[0]], flat=False)
            operator, operands = "GatherBlockQuantized", [table[0].name, node.input[1], table[1].name]
            attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": BLOCK, "bits": BITS}
        elif node.op_type in ("MatMul", "Gemm") and node.input[1] in dims:
            first, second = dims[node.input[1]]
            depth, width = (second, first) if node.op_type == "Gemm" else (first, second)
            table = weights.blocks(node.name, width, depth, flat=True)
            operator, operands = "MatMulNBits", [node.input[0], *(t.name for t in table)]
            # Level 1 keeps onnxruntime's activations in f32.
            attributes = {"K": depth, "N": width, "bits": BITS, "block_size": BLOCK, "accuracy_level": 1}
        else:
            continue
        kept += table
        node.CopyFrom(
            helper.make_node(operator, operands, node.output, node.name, domain=CONTRIB, **attributes)
        )
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return model


def written(name: str, folder: Path) -> Path:
    """The file of the model called `name`, and beside it its data, unless both are there and are not older
    than this file."""
    path, data = folder / f"llama-{name}-int4.onnx", folder / f"llama-{name}-int4.data"
    if path.exists() and data.exists() and path.stat().st_mtime >= Path(__file__).stat().st_mtime:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # while its data is another's
    with open(data, "wb") as f:
        model = in_blocks(SHAPES[name], External(f, data.name))
    path.write_bytes(model.SerializeToString())
    return path


def followed(model: Any, tokens: int) -> tuple[Array, list[float]]:
    """Logits of the prompt and of the likeliest tokens behind it, [tokens + 1, vocabulary], and each one's
    seconds."""
    rows, seconds = [model.logits(PROMPT)], list[float]()
    for _ in range(tokens):
        start = time.perf_counter()
        rows.append(model.logits([int(rows[-1].argmax())]))
        seconds.append(time.perf_counter() - start)
    return np.stack(rows), seconds


def streamed(program: Path, threads: int, tokens: int, output: Path) -> dict[str, Any]:
    """Runs in a process of its own, whose memory it is. Writes the logits into `output`."""
    start = time.perf_counter()
    model = LanguageModel(program, threads=threads)
    loaded = time.perf_counter() - start
    logits, seconds = followed(model, tokens)
    np.save(output, logits)
    return {
        "load_seconds": loaded,
        "token_seconds": statistics.median(seconds),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


def by_onnxruntime(model: Path, ids: Sequence[int], count: int) -> tuple[Array, float]:
    """Logits along the tokens `ids`, and the median of the seconds."""
    golden = Golden(model)
    rows, seconds = [golden.logits(PROMPT)], list[float]()
    for token in ids[:count]:
        start = time.perf_counter()
        rows.append(golden.logits([token]))
        seconds.append(time.perf_counter() - start)
    return np.stack(rows), statistics.median(seconds)


def measured(name: str, given: argparse.Namespace) -> dict[str, Any]:
    path = written(name, RESULTS)
    program, words = path.with_suffix(".wafer"), path.with_suffix(".json")
    out: dict[str, Any] = {"model_bytes": path.stat().st_size + path.with_suffix(".data").stat().st_size}
    command = [str(Path(sys.executable).with_name("waferc")), "compile", str(path), "-q", "-o", str(program)]
    command += ["--wafer", given.wafer, "--capacity", str(given.capacity), "--json", str(words)]
    with tempfile.TemporaryDirectory() as cache:
        took = compiling.timed(command, Path(cache))
    out |= {"compile_processor_seconds": took.processors, "compile_peak_bytes": took.peak}
    out["program_bytes"] = program.stat().st_size
    entries = json.loads(words.read_text("utf-8"))["entries"]
    out["cycles"] = {entry: of["cycles"] for entry, of in entries.items()}
    logits = path.with_suffix(".npy")
    found: list[Array] = []
    for threads in (1, 2):
        run = [sys.executable, __file__, "--stream", str(program), "--threads", str(threads)]
        run += ["--tokens", str(given.tokens), "--logits", str(logits)]
        said = subprocess.run(run, stdout=subprocess.PIPE, check=True).stdout
        out[f"threads_{threads}"] = json.loads(said)
        found.append(np.load(logits))
    out["same_bits"] = np.array_equal(found[0], found[1])
    wanted, seconds = by_onnxruntime(path, found[0].argmax(1).tolist(), given.tokens)
    out["onnxruntime_token_seconds"] = seconds
    out["farthest"] = float(np.abs(found[0] - wanted).max() / np.abs(wanted).max())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="1b|3b")
    parser.add_argument("--wafer", default="wse3")
    parser.add_argument("--capacity", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--write-only", action="store_true", help="write the models and measure nothing")
    for word in ("--stream", "--logits"):
        parser.add_argument(word, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stream:
        print(json.dumps(streamed(given.stream, given.threads, given.tokens, given.logits)))
        return
    if unknown := sorted(set(given.models) - SHAPES.keys()):
        parser.error(f"no shape {unknown[0]!r}, but {', '.join(SHAPES)}")
    for name in given.models or SHAPES:
        if given.write_only:
            print(written(name, RESULTS))
            continue
        print(json.dumps({name: measured(name, given)}, indent=1), flush=True)


if __name__ == "__main__":
    main()
