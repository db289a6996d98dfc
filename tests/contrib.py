"""Onnxruntime's own operators against onnxruntime: cases drawn from its schemas; part of `make conformance`.

Each case is one node with random attributes, shapes, types and optional inputs, always the same ones. Its
graph's meaning, after the passes, is compared with what onnxruntime's kernel gives; of every eighth case also
what the kernels compute that would run on the cores.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as internal
from single import by_kernels
from waferc import UnsupportedOperator
from waferc.compiler.importer import import_model
from waferc.compiler.passes.simplify import simplify
from waferc.ir.evaluate import evaluate
from waferc.ir.op import Array

ROOT = Path(__file__).resolve().parent.parent
KERNELS_EVERY = 8
# Relative to the largest value of a result. onnxruntime computes in f32, some of it by approximations.
TOLERANCE = {"float64": 1e-9, "float32": 3e-5, "float16": 4e-3}
# Share of a quantised result that may lie one step beside: half-way between two, the last bit decides.
STEPS = 0.02


@dataclass(frozen=True)
class Drawn:
    """One node. inputs: by the schema's names, None where one is left out; a list for a variadic one."""

    inputs: Mapping[str, Array | Sequence[Array] | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Sequence[str] = ()
    outputs: int = 1
    tolerance: float = 1.0  # times TOLERANCE
    types: Sequence[Any] = ()  # of results, where they are not that of the first input
    used: int | None = None  # of a cache's positions, dimension 2; what stands in the rest is nobody's


class Dice:
    """What cases are drawn with. kind: of floats in this case."""

    def __init__(self, seed: int, kinds: Sequence[str]) -> None:
        self.random = np.random.default_rng(seed)
        self.kind = kinds[int(self.random.integers(len(kinds)))] if kinds else "float32"

    def pick(self, *values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def size(self, low: int = 1, high: int = 6) -> int:
        return int(self.random.integers(low, high + 1))

    def maybe(self, value: Any, share: float = 0.5) -> Any:
        return value if self.random.random() < share else None

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return (self.random.standard_normal(shape) * scale).astype(self.kind)

    def single(self, *shape: int, scale: float = 1.0) -> Array:
        return (self.random.standard_normal(shape) * scale).astype(np.float32)

    def whole(self, *shape: int, low: int, high: int, kind: str = "int32") -> Array:
        """Integers from `low` to below `high`."""
        return self.random.integers(low, high, shape).astype(kind)

    def shape(self, least: int = 1, most: int = 4) -> tuple[int, ...]:
        return tuple(self.size() for _ in range(self.size(least, most)))

    def some(self, attributes: Mapping[str, Any], share: float = 0.6) -> dict[str, Any]:
        """Some of the attributes; those left out take their defaults."""
        return {k: v for k, v in attributes.items() if self.random.random() < share}


# Their kernels look at optional inputs without asking whether the node has so many: onnxruntime aborts.
ASSUMED = (
    "QLinearAdd",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearAveragePool",
    "QLinearConcat",
)
Draw = Callable[[Dice], Drawn]
DRAWS: dict[tuple[str, str], tuple[Draw, Sequence[str]]] = {}


def draws(
    op_type: str, domain: str = "com.microsoft", kinds: Sequence[str] | None = None
) -> Callable[[Draw], Draw]:
    """Registers how cases of an operator are drawn. kinds: of floats; by default those of its kernels."""

    def decorate(draw: Draw) -> Draw:
        DRAWS[domain, op_type] = draw, kinds if kinds is not None else ()
        return draw

    return decorate


@cache
def schemas() -> dict[tuple[str, str], Any]:
    """The newest schema of each operator."""
    found: dict[tuple[str, str], Any] = {}
    for schema in internal.get_all_operator_schema():
        key = schema.domain, schema.name
        if key not in found or found[key].since_version < schema.since_version:
            found[key] = schema
    return found


@cache
def kernel_kinds() -> dict[tuple[str, str], set[str]]:
    """The float types that onnxruntime's kernels of an operator take as T."""
    found: dict[tuple[str, str], set[str]] = {}
    names = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
    for kernel in internal.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider":
            for parameter, allowed in kernel.type_constraints.items():
                if parameter in ("T", "T1", "T3"):
                    own = {names[t] for t in allowed if t in names and t in _allowed(kernel, parameter)}
                    found.setdefault((kernel.domain, kernel.op_name), set()).update(own)
    return found


def _allowed(kernel: Any, parameter: str) -> list[str]:
    """What the schema allows, which may be less than what a kernel takes."""
    schema = schemas().get((kernel.domain, kernel.op_name))
    constraints = schema.type_constraints if schema else []
    return [t for c in constraints if c.type_param_str == parameter for t in c.allowed_type_strs]


@dataclass(frozen=True)
class Row:
    """One case. status: pass, refused, wrong, crashed, or "no oracle" where onnxruntime refuses it."""

    name: str
    operator: str
    status: str
    detail: str = ""
    error: float | None = None


def model_of(key: tuple[str, str], drawn: Drawn) -> tuple[onnx.ModelProto, dict[str, Array]]:
    domain, op_type = key
    schema = schemas()[key]
    names: list[str] = []
    values: dict[str, Array] = {}
    fixed: list[str] = []
    for formal in schema.inputs:
        given = drawn.inputs.get(formal.name)
        for i, value in enumerate(given if isinstance(given, list) else [given]):
            name = "" if value is None else f"{formal.name}{i if isinstance(given, list) else ''}"
            names.append(name)
            if value is not None:
                values[name] = value
                if formal.name in drawn.constants:
                    fixed.append(name)
    if op_type not in ASSUMED:
        while names and not names[-1]:
            names.pop()
    unknown = set(drawn.inputs) - {f.name for f in schema.inputs}
    if unknown or set(drawn.attributes) - set(schema.attributes):
        raise ValueError(f"{op_type} has no {unknown or set(drawn.attributes) - set(schema.attributes)}")
    fed = {n: v for n, v in values.items() if n not in fixed}
    first = next(iter(values.values())).dtype
    kinds = [np.dtype(t) for t in drawn.types] or [first]
    kinds += [kinds[-1]] * drawn.outputs
    kind = helper.np_dtype_to_tensor_dtype
    ends = [helper.make_tensor_value_info(n, kind(v.dtype), v.shape) for n, v in fed.items()]
    results = [helper.make_tensor_value_info(f"y{i}", kind(kinds[i]), None) for i in range(drawn.outputs)]
    node = helper.make_node(
        op_type, names, [f"y{i}" for i in range(drawn.outputs)], "it", domain=domain, **drawn.attributes
    )
    held = [numpy_helper.from_array(values[n], n) for n in fixed]
    graph = helper.make_graph([node], "one", ends, results, held)
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, ir_version=8, opset_imports=imports), fed


def peer(proto: onnx.ModelProto, fed: Mapping[str, Array]) -> list[Array]:
    """What onnxruntime's own kernel gives: no optimizer comes between."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(fed))


def differs(ours: Array, theirs: Array, tolerance: float) -> tuple[str, float]:
    """How two results differ, "" where they do not, and by how much of the largest value at most."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return f"{ours.dtype}{list(ours.shape)} instead of {theirs.dtype}{list(theirs.shape)}", 0.0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)) or not np.array_equal(np.isinf(a), np.isinf(b)):
        return "other places that are not finite", 0.0
    held = np.isfinite(a) & np.isfinite(b)
    apart = np.abs(a - b)[held]
    if ours.dtype.kind in "iub":
        beside = int((apart > 0).sum())
        allowed = (
            ours.dtype.itemsize == 1 and apart.max(initial=0) <= 1 and beside <= max(1, STEPS * apart.size)
        )
        return ("" if not beside or allowed else f"{beside} of {apart.size} differ, by {apart.max():g}"), 0.0
    largest = float(np.abs(b[held]).max(initial=0))
    error = float(apart.max(initial=0)) / max(largest, 1e-6)
    limit = TOLERANCE[ours.dtype.name] * tolerance
    return (f"differs by {error:.3g} of the largest" if error > limit else ""), error


def judge(key: tuple[str, str], number: int, prepared: Any = None) -> Row:
    """Compares one case. prepared: a backend that also compiles the node and runs it as a program."""
    op_type = key[1]
    name = f"{op_type}-{number}"
    draw, kinds = DRAWS[key]
    dice = Dice(zlib.crc32(f"{key}{number}".encode()), sorted(kinds or kernel_kinds().get(key, ())))
    drawn = draw(dice)
    proto, fed = model_of(key, drawn)
    try:
        theirs = peer(proto, fed)
    except Exception as e:
        return Row(name, op_type, "no oracle", " ".join(str(e).split())[:300])
    for end, value in zip(proto.graph.output, theirs, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        end.CopyFrom(helper.make_tensor_value_info(end.name, kind, value.shape))
    try:
        graph = simplify(import_model(proto))
        ways = [evaluate(graph, fed)]
        if number % KERNELS_EVERY == 0:
            ways.append(by_kernels(graph, fed))
        if prepared is not None:
            outputs = prepared.prepare(proto).run([fed[v.name] for v in proto.graph.input])
            ways.append(dict(zip(graph.outputs, outputs, strict=True)))
    except UnsupportedOperator as e:
        return Row(name, op_type, "refused", str(e))
    except Exception as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        return Row(
            name, op_type, "crashed", f"{type(e).__name__}: {e} ({Path(at.filename).name}:{at.lineno})"
        )
    worst = 0.0
    for ours in ways:
        for got, wanted in zip(ours.values(), theirs, strict=True):
            if drawn.used is not None and got.shape == wanted.shape and got.ndim == 4:
                got, wanted = got[:, :, : drawn.used], wanted[:, :, : drawn.used]
            what, error = differs(got, wanted, drawn.tolerance)
            worst = max(worst, error)
            if what:
                shapes = {n: v.shape for n, v in fed.items()}
                return Row(name, op_type, "wrong", f"{what}; {shapes} {dict(drawn.attributes)}", error)
    return Row(name, op_type, "pass", "", worst)


def run(count: int, only: str = "") -> Iterator[Row]:
    """`count` cases of each operator."""
    for path in sorted(Path(__file__).parent.glob("contrib_*cases.py")):
        importlib.import_module(path.stem)
    for key in sorted(DRAWS):
        if re.search(only, key[1]):
            for number in range(count):
                yield judge(key, number)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40, help="cases of each operator")
    parser.add_argument("--only", default="", metavar="REGEX", help="operators whose name it is found in")
    options = parser.parse_args(words)
    start = time.perf_counter()
    rows = list(run(options.count, options.only))
    path = ROOT / "build" / "contrib.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")
    shown: Counter[str] = Counter()
    for row in (r for r in rows if r.status in ("wrong", "crashed")):
        shown[row.operator] += 1
        if shown[row.operator] <= 3:
            print(f"{row.status}: {row.name}: {row.detail}")
    for status in ("refused", "no oracle"):
        whys = Counter(
            (r.operator, re.sub(r"\d+|'[^']*'", "..", r.detail)) for r in rows if r.status == status
        )
        for (kind, why), n in sorted(whys.items()):
            print(f"{status}: {n:4} {kind}: {why[:200]}")
    counts = Counter(r.status for r in rows)
    compared = {r.operator for r in rows if r.status == "pass"}
    print(
        f"contrib: {len(rows)} cases, {dict(counts)}; {len(compared)} operators pass, "
        f"{time.perf_counter() - start:.0f} s"
    )
    return int(bool(counts["wrong"] or counts["crashed"]))


if __name__ == "__main__":
    # `contrib_cases` registers with this module under its own name
    sys.modules["contrib"] = sys.modules["__main__"]
    sys.exit(main())
