"""SmolLM2 token by token, beside onnxruntime on the same ONNX model in f32.

    make smollm2 && .venv/bin/python benchmarks/smollm2.py [f32] [f16] [bf16] [int8] [int4] [--wafer wse3]

For each kind of weights: the bytes of the constants on the wafer and a token's cycles; the share of greedy
tokens and the mean Kullback-Leibler divergence of what follows, in eight texts of 32 tokens; then the time of
a decoded token in alternating pairs. Where llama-cpp-python is installed, int8 and int4 are timed beside
llama.cpp, too, on Q8_0 and Q4_0 made of the same file. Programs are compiled into build/bench, and results
are added to build/bench/smollm2.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from waferc.codegen.artifact.artifact import read
from waferc.compiler.language.model import TokenModel
from waferc.compiler.language.tokens import Tokenizer
from waferc.compiler.verify.bench import Setting, measure
from waferc.compiler.verify.peers import FIRST, LlamaCpp
from waferc.placement.cost.timing import cycles_of
from waferc.runtime.load import load

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "build" / "smollm2.onnx"
GGUF = ROOT / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
WORDS = ROOT / "build" / "smollm2"
RESULTS = ROOT / "build" / "bench"
PACKAGES = ("ir", "placement", "codegen", "runtime", "compiler")
TOKENS, CAPACITY, ROUNDS = 32, 1024, 12
PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a little robot who",
    "Water boils at",
    "def fibonacci(n):\n",
    "The three laws of motion say that",
    "In 1969, astronauts",
    "A good recipe for bread starts with",
    # Longer than a chunk of 64 tokens, so that it takes both entries.
    "The Moon is the only natural satellite of the Earth. It orbits the planet once about every twenty-seven "
    "days, and the same side always faces us. Its gravity causes the tides of the oceans: twice a day the "
    "water rises, and twice it falls. In 1969 humans landed there for the first time, and they brought back "
    "stones that are more than four billion years old. "
    "What the stones told us was that the Moon",
)
FULL = ("f32", "144x144")  # where only decoding has room: a prompt is taken token by token
WAFER = "128x128"  # for other weights
REQUIRED = {"f32": 1.05, "f16": 0.65, "bf16": 0.65}  # of onnxruntime's time in f32
LLAMA = {"int8": ("Q8_0", 0.65), "int4": ("Q4_0", 0.7)}  # of llama.cpp's, with weights of as many bits
WEIGHTS = (*REQUIRED, *LLAMA)

Array = NDArray[Any]


class Model(Protocol):
    """Something fed with tokens; logits [vocabulary] after the last of them."""

    def logits(self, ids: Sequence[int]) -> Array: ...
    def reset(self) -> None: ...


class Golden:
    """The ONNX model in onnxruntime, its caches growing."""

    def __init__(self, path: Path) -> None:
        self._session = onnxruntime.InferenceSession(path)
        self._outputs = [o.name for o in self._session.get_outputs()]
        inputs = {i.name: i.shape for i in self._session.get_inputs() if len(i.shape) == 4}
        self._empty = {n: np.zeros([1, s[1], 0, s[3]], np.float32) for n, s in inputs.items()}
        self.reset()

    def reset(self) -> None:
        self._caches, self._length = dict(self._empty), 0

    def logits(self, ids: Sequence[int]) -> Array:
        end = self._length + len(ids)
        feed = {"input_ids": np.array([ids]), "position_ids": np.arange(self._length, end)[None]}
        values = self._session.run(None, {**feed, **self._caches})
        found = dict(zip(self._outputs, map(np.asarray, values), strict=True))
        self._caches = {n: found[n.replace("past_key_values", "present")] for n in self._caches}
        self._length = end
        return found["logits"][0, -1]


@dataclass(frozen=True)
class Text:
    """What a model says after a prompt: its likeliest tokens, and logits for each, [tokens, vocabulary]."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: Array


def greedy(model: Model, prompt: Sequence[int], count: int) -> Text:
    """The likeliest tokens; a text's end does not end it."""
    model.reset()
    rows, tokens = [model.logits(prompt)], list[int]()
    for _ in range(count):
        tokens.append(int(rows[-1].argmax()))
        if len(tokens) < count:
            rows.append(model.logits(tokens[-1:]))
    return Text(tuple(prompt), tuple(tokens), np.stack(rows))


def forced(model: Model, text: Text) -> Array:
    """A model's logits along another's text, [tokens, vocabulary]."""
    model.reset()
    rows = [model.logits(text.prompt)]
    rows += [model.logits([token]) for token in text.tokens[:-1]]
    return np.stack(rows)


@dataclass(frozen=True)
class Accuracy:
    """Along the texts of the golden model. equal: share of positions with the same likeliest token.

    divergence: mean of sum(p log(p / q)) in nats, p of the golden model. farthest: of two logits.
    same_bits: with every number of threads.
    """

    equal: float
    divergence: float
    farthest: float
    same_bits: bool


def accuracy(programs: Sequence[Model], texts: Sequence[Text]) -> Accuracy:
    """Of a program, given once for each number of threads."""
    equal: list[bool] = []
    divergences: list[float] = []
    farthest, same = 0.0, True
    for text in texts:
        first, *others = (forced(p, text) for p in programs)
        same = same and all(np.array_equal(first, other) for other in others)
        p, q = _logarithms(text.logits), _logarithms(first)
        equal += (first.argmax(1) == np.array(text.tokens)).tolist()
        divergences += (np.exp(p) * (p - q)).sum(1).tolist()
        farthest = max(farthest, float(np.abs(first - text.logits).max()))
    return Accuracy(statistics.mean(equal), statistics.mean(divergences), farthest, same)


def _logarithms(logits: Array) -> Array:
    """Logarithms of the shares, [..., vocabulary]."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def compiled(weights: str, wafer: str) -> Path:
    """The program, made if it is not there yet or older than the model or waferc."""
    path = RESULTS / f"smollm2-{weights}-{wafer}.wafer"
    sources = (p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
    newest = max(p.stat().st_mtime for p in (MODEL, *sources))
    if not path.exists() or path.stat().st_mtime < newest:
        command = [sys.executable, "-m", "waferc.compiler.cli.main", "compile", str(MODEL), "-o", str(path)]
        flags = ["--wafer", wafer, "--weights", weights, "--capacity", str(CAPACITY)]
        entries = ["--entry", "decode:S=1"]
        if (weights, wafer) != FULL:
            entries = ["--entry", "prefill:S=64", *entries]
        subprocess.run([*command, *flags, *entries], check=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="*", default=list(WEIGHTS), choices=WEIGHTS)
    parser.add_argument("--wafer", help=f"by default {WAFER}, for {FULL[0]} {FULL[1]}")
    parser.add_argument("--only", choices=["accuracy", "speed"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    if not MODEL.exists():
        raise SystemExit(f"{MODEL} is not there; make smollm2 writes it")
    RESULTS.mkdir(parents=True, exist_ok=True)
    texts: list[Text] = []
    if asked.only != "speed":
        tokenizer = Tokenizer((WORDS / "tokenizer.json").read_bytes())
        golden = Golden(MODEL)
        texts = [greedy(golden, tokenizer.tokens(prompt), TOKENS) for prompt in PROMPTS]
        del golden  # and its weights
    for weights in asked.weights:
        wafer = asked.wafer or (FULL[1] if weights == FULL[0] else WAFER)
        path = compiled(weights, wafer)
        row: dict[str, Any] = {"weights": weights, "wafer": wafer, **_planned(path)}
        if texts:
            found = accuracy([TokenModel(load(path), threads) for threads in (1, 2)], texts)
            row |= asdict(found)
            print(
                f"{weights:5} {wafer}  equal tokens {found.equal:.2%}, mean KL {found.divergence:.2e}, "
                f"logits within {found.farthest:.2e}, 1 and 2 threads alike: {found.same_bits}"
            )
        if asked.only != "accuracy":
            for threads in (1, 2):
                row |= _speed(path, weights, threads, asked.rounds)
        _add(row)


def _planned(path: Path) -> Mapping[str, Any]:
    """The bytes of a program's constants, each counted once, and the cycles of a token."""
    plan = read(path).plans()["decode"]
    constants = sum(plan.graph.tensors[name].bytes for name in plan.graph.constants)
    cycles = cycles_of(plan)
    print(f"{path.stem}: constants of {constants:,} bytes, a token in {cycles:,.0f} cycles")
    return {"constants_bytes": constants, "cycles": cycles}


def _speed(path: Path, weights: str, threads: int, rounds: int) -> Mapping[str, Any]:
    ranges = {"input_ids": (0.0, 49_152.0), "position_ids": (CAPACITY - 1.0, float(CAPACITY))}
    kind, _ = LLAMA.get(weights, ("", 0.0))
    files = {LlamaCpp.name: str(_requantised(kind))} if kind and find_spec("llama_cpp") else {}
    setting = Setting(threads, ranges=ranges, files=files)
    found = measure(load(path, threads), str(MODEL), [FIRST, *files], rounds, setting)
    required = {FIRST: REQUIRED.get(weights), LlamaCpp.name: LLAMA.get(weights, ("", None))[1]}
    ours = statistics.median(found.ours)
    row: dict[str, Any] = {"ours_ms": ours, "rounds": rounds}
    print(f"{weights:5} {threads} threads: {ours:.2f} ms a token")
    for peer, took in found.peers.items():
        theirs, ratio, most = statistics.median(took), found.ratio(peer), required[peer]
        bound = "" if most is None else f" (required {most:.2f})"
        print(f"      {peer} {theirs:.2f} ms, ratio {ratio:.2f}{bound}")
        row[peer] = {"ms": theirs, "ratio": ratio}
    for peer, why in found.failed.items():
        print(f"      {peer} was left out: {why}")
    return {f"threads_{threads}": row}


def _requantised(kind: str) -> Path:
    """llama.cpp's file of a kind, made of the one that the ONNX model is made of."""
    path = ROOT / "build" / f"smollm2-{kind}.gguf"
    if not path.exists():
        llama: Any = importlib.import_module("llama_cpp")
        how = llama.llama_model_quantize_default_params()
        how.ftype, how.allow_requantize = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}"), True
        llama.llama_model_quantize(str(GGUF).encode(), str(path).encode(), how)
    return path


def _add(row: Mapping[str, Any]) -> None:
    """Keeps the row in the results, in place of an older one of the same program."""
    path = RESULTS / "smollm2.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    old = [r for r in rows if (r["weights"], r["wafer"]) == (row["weights"], row["wafer"])]
    merged = {**(old[0] if old else {}), **row}
    rows = [r for r in rows if r not in old] + [merged]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
