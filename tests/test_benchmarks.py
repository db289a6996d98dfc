"""The generated workloads of `make bench`: they compile, give onnxruntime's numbers, and stay near 1."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from waferc import LanguageModel, compile_model
from waferc.compiler.verify.call_inputs import random_feed
from waferc.compiler.verify.compare import Rule, compare
from waferc.compiler.verify.golden import OnnxRuntime
from waferc.placement.machine.presets import preset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import decoders
import generate
import kernels
import packed
import run
from plot import plot

SMOL = generate.SMOLLM2_135M
MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": lambda: generate.mlp(4),
    "gemm": lambda: generate.gemm(96),
    "chain": lambda: generate.matvec_chain(128, 4),
    "block": lambda: generate.decoder_block(12),
    "decode": lambda: generate.decode(replace(SMOL, layers=2, vocabulary=64), cached=5),
    "biased": lambda: generate.decode(
        generate.Decoder("biased", 1, 64, 96, 4, 4, 64, head=16, biased=True), cached=3
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
def test_generated_models(name: str) -> None:
    model = MODELS[name]().SerializeToString()
    compiled = compile_model(model, wafer="64x64")
    feed = random_feed(compiled.program.ports.inputs, [0], {"input_ids": (0, 64)})
    ours, golden = compiled.run(feed), OnnxRuntime(model, 1).run(feed)
    assert list(ours) == list(golden)
    for output, value in golden.items():
        assert compare(output, ours[output], value, Rule()).passed, output
        assert 0.3 < value.std() < 3, output


@pytest.mark.thorough
def test_a_decoder_in_blocks_of_4_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix is in blocks in the file beside it, and the logits are onnxruntime's."""
    shape = packed.Shape(1, 64, 96, 4, 2, 16, vocabulary=64, positions=64)
    monkeypatch.setitem(packed.SHAPES, "tiny", shape)
    path = packed.written("tiny", tmp_path)
    at = path.stat().st_mtime_ns
    assert packed.written("tiny", tmp_path).stat().st_mtime_ns == at
    weights = 2 * 64 * 64 + (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 96)
    outside = [t for t in onnx.load(path, load_external_data=False).graph.initializer if t.data_location]
    assert sum(int(np.prod(t.dims)) for t in outside) == weights / 2 + weights / 32
    model = LanguageModel(path, wafer="8x8", capacity=16, entries={"decode": {"S": 1}})
    logits, _ = packed.followed(model, 6)
    wanted, _ = packed.by_onnxruntime(path, logits.argmax(1).tolist(), 6)
    assert compare("logits", logits, wanted, Rule()).passed
    assert 0.3 < logits.std() < 3


def test_later_tokens_are_not_seen() -> None:
    """The decoder block's causal mask: a token changes no result before its own."""
    runtime = OnnxRuntime(generate.decoder_block(6).SerializeToString(), 1)
    x = np.random.default_rng(0).standard_normal((1, 6, SMOL.width)).astype(np.float32)
    changed = x.copy()
    changed[0, 3] += 1
    a, b = (runtime.run({"x": v})["y"] for v in (x, changed))
    assert np.array_equal(a[0, :3], b[0, :3]) and (a[0, 3:] != b[0, 3:]).any(-1).all()


def test_a_decoded_token_is_that_of_the_whole_sequence() -> None:
    """One more token with caches gives what a block gives for the last token of all of them."""
    tokens, kinds = 6, ("key", "value")
    block = generate.Model("whole")
    x = block.input("x", [1, tokens, SMOL.width])
    y, k, v = generate.layer(block, SMOL, x, tokens, generate._rotary(block, SMOL, np.arange(tokens)), None)
    for name, value in (("y", y), ("key", k), ("value", v)):
        block.output(name, value, None)
    step = generate.Model("step")
    x = step.input("x", [1, 1, SMOL.width])
    shape = [1, SMOL.kv_heads, tokens - 1, SMOL.head]
    past = tuple(step.input(kind, shape) for kind in kinds)
    rotary = generate._rotary(step, SMOL, np.arange(tokens - 1, tokens))
    y, _, _ = generate.layer(step, SMOL, x, 1, rotary, past, tokens - 1)
    step.output("y", y, None)
    value = np.random.default_rng(0).standard_normal((1, tokens, SMOL.width)).astype(np.float32)
    whole = OnnxRuntime(block.proto().SerializeToString(), 1).run({"x": value})
    feed = {"x": value[:, -1:], **{kind: whole[kind][:, :, :-1] for kind in kinds}}
    last = OnnxRuntime(step.proto().SerializeToString(), 1).run(feed)["y"]
    assert np.allclose(last[:, 0], whole["y"][:, -1], atol=1e-4)


@pytest.mark.parametrize("name", ["squeezenet", "resnet50"])
def test_light_models_get_random_weights(name: str) -> None:
    proto = generate.light(name)
    assert not {n.op_type for n in proto.graph.node} & {"ConstantOfShape"}
    used = {t for n in proto.graph.node for t in n.input}
    assert {t.name for t in proto.graph.initializer} <= used
    runtime = OnnxRuntime(proto.SerializeToString(), 1)
    (given,) = runtime.inputs
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    (probabilities,) = runtime.run({given: image}).values()
    assert probabilities.std() > 1e-3  # not all the same


def test_a_model_is_generated_once(tmp_path: Path) -> None:
    path = generate.written("mlp-1", tmp_path)
    before = path.stat().st_mtime_ns
    assert generate.written("mlp-1", tmp_path) == path and path.stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["mlp-1.onnx"]


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    rows = [
        {"workload": w, "threads": t, "wafer": p, "ratio": 0.5 * t}
        for w in ("a", "b")
        for p in ("smallest", "wse3")
        for t in (1, 2)
    ]
    plot(rows, tmp_path / "p.svg")
    assert (tmp_path / "p.svg").read_text().count(">0.50<") == 4


@pytest.mark.thorough
def test_a_decoder_of_shapes_is_measured() -> None:
    d = generate.Decoder("small", 3, 64, 96, 4, 2, 128, head=16)
    wafer = preset("32x32")
    row = decoders.measured(decoders.Case(lambda: generate.decode(d, 0, shapes_only=True), wafer, 64))
    assert 0 < 3 * row["layer_cycles"] < 2 * row["cycles"] and row["cycles"] <= row["cycles_at_f32"]
    assert row["tokens_per_second"] == pytest.approx(wafer.clock_hz / row["cycles"], rel=1e-3)
    case = decoders.Case(lambda: generate.decode_layer(d), wafer, 64, layers=3, published=1000)
    layer = decoders.measured(case)
    assert layer["layer_cycles"] == layer["cycles"]
    assert layer["ratio"] == pytest.approx(layer["cycles"] / 1000, abs=0.006)
    assert layer["tokens_per_second"] == pytest.approx(wafer.clock_hz / layer["cycles"] / 3, rel=1e-3)
    assert "vector.fma_mixed" in str(row["assumed"])


def test_every_workload_of_make_bench_has_a_model() -> None:
    assert {w.model for w in run.WORKLOADS.values()} >= set(generate.MODELS)


def test_a_kernel_is_measured_against_the_hosts_limit() -> None:
    found = kernels.measure(next(kernels.cases())())
    assert found.seconds > 0 and found.limit > 0 and 0 <= found.alone <= kernels.ROUNDS
