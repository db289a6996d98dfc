"""Shapes: their parameters are the published ones, and small models of each kind compute what they should."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from waferc.compiler.cli.main import main
from waferc.compiler.errors import InvalidInput, UsageError
from waferc.compiler.shapes import decoder, whisper
from waferc.compiler.shapes.decoder import Step
from waferc.compiler.shapes.shape import Shape, parse, shape, shapes
from waferc.compiler.shapes.sizes import cached, held, published_error, sizes, wafers_needed
from waferc.placement.machine.presets import preset

ALL = [*shapes().values()]
DECODERS = [s for s in ALL if not s.encoder]
AGREE = ["qwen3-8b", "gpt-oss-20b", "glm-4.7"]  # of these `waferc verify` takes seconds
KINDS = ["qwen3-8b", "llama-4-scout", "gpt-oss-20b", "glm-4.7", "minimax-m2.5", "kimi-k2.5"]  # one of each


@pytest.mark.parametrize("s", ALL, ids=lambda s: s.name)
def test_parameters_are_the_published_ones(s: Shape) -> None:
    """Within 0.5 %, or half of the last digit that was published where that is more ("1T")."""
    assert abs(published_error(s)) <= max(0.005, s.digits / 2 / s.total)


@pytest.mark.parametrize("s", ALL, ids=lambda s: s.name)
def test_the_graph_has_the_parameters(s: Shape) -> None:
    """Counted once more in the file of a small model: all constants but tables of angles and masks."""
    small = s.small()
    if s.encoder:
        protos = [whisper.encoder(small), whisper.decoder(small, Step(caches=False))]
    else:
        protos = [decoder.decoder(small, Step(), layers=small.layers)]
    absent = sum(
        math.prod(t.dims)
        for p in protos
        for t in p.graph.initializer
        if t.data_location == onnx.TensorProto.EXTERNAL
    )
    if not s.encoder:
        own = small.attention
        turned = getattr(own, "turned", 0) or own.rotary
        absent -= 2 * decoder.POSITIONS * turned
    assert absent == sizes(small).parameters


@pytest.mark.parametrize("name", KINDS)
def test_the_next_token_goes_on_where_the_tokens_ended(name: str) -> None:
    """In onnxruntime: caches filled token by token give the logits of all tokens at once, windows, too."""
    import onnxruntime

    s, count = shape(name).small(), 9
    step = Step(1, 0, True, 32)
    one = onnxruntime.InferenceSession(decoder.decoder(s, step, False).SerializeToString())
    whole = onnxruntime.InferenceSession(decoder.decoder(s, Step(count, 0, False), False).SerializeToString())
    ids = np.random.default_rng(3).integers(0, s.vocabulary, count)
    caches = {
        i.name: np.zeros([n if isinstance(n, int) else 0 for n in i.shape], np.float32)
        for i in one.get_inputs()
        if i.name.startswith("past")
    }
    names = [o.name for o in one.get_outputs()]
    logits = np.zeros(0)
    for at, token in enumerate(ids):
        feed = {"input_ids": np.array([[token]]), "position_ids": np.array([[at]]), **caches}
        found = dict(zip(names, one.run(None, feed), strict=True))
        logits = found["logits"]
        caches = {past: found["present" + past.removeprefix("past")] for past in caches}
    (wanted,) = whole.run(["logits"], {"input_ids": ids[None]})
    assert np.abs(logits - wanted).max() <= 1e-4 * np.abs(wanted).max() + 1e-6


@pytest.mark.thorough
@pytest.mark.parametrize("name", AGREE)
def test_small_models_agree_with_onnxruntime(name: str, tmp_path: Path) -> None:
    """`waferc verify` on a model of the kind: a token behind cached ones, and tokens without caches."""
    for more in (["--cached", "8"], ["--tokens", "3", "--no-caches"]):
        path = tmp_path / "model.onnx"
        made = CliRunner().invoke(main, ["shapes", name, "--tiny", *more, "-o", str(path)])
        assert made.exit_code == 0, made.output
        done = CliRunner().invoke(
            main, ["verify", str(path), "--wafer", "16x16", "--range", "input_ids=0:39"]
        )
        assert done.exit_code == 0, done.output


def test_windows_and_latents_keep_what_they_need() -> None:
    s = shape("gpt-oss-120b")
    assert cached(s, 131_072) == 18 * 1024 * (131_072 + 128)
    assert cached(shape("kimi-k2.5"), 1) == 61 * 576
    assert s.kinds == {0: 18, 1: 18} and shape("glm-4.7").kinds == {0: 3, 3: 89}


def test_wafers_hold_what_they_are_given() -> None:
    wse3 = preset("wse3")
    eight, seventy = shape("llama-3.1-8b"), shape("llama-3.3-70b")
    assert wafers_needed(held(eight, 16, None, 8192), wse3, 0.62) == 1
    assert wafers_needed(held(seventy, 16, None, 8192), wse3, 0.62) == 6
    need = [wafers_needed(held(seventy, 16, None, 8192), wse3, fill) for fill in (0.3, 0.62, 0.9, 1.0)]
    assert need == sorted(need, reverse=True)


@pytest.mark.parametrize("name", ["Llama-2-7B", "LLaMA2-13B", "CodeLLaMA-34B", "llama_3.1 8B", "Kimi-K2.6"])
def test_names_are_found_as_people_write_them(name: str) -> None:
    assert shape(name) in ALL


BAD = {
    "": ("x = 1", "not a table"),
    "none": ("[a]\nlayers = 1\nwidth = 8\nvocabulary = 9\nhidden = 8", "needs one of grouped and latent"),
    "field": ("[a]\nlayer = 1\ngrouped = {heads = 2, kv_heads = 1}", "has no 'layer'"),
    "type": (
        "[a]\nlayers = 'x'\nwidth = 8\nvocabulary = 9\ngrouped = {heads = 2, kv_heads = 1}",
        "layers = 'x'",
    ),
    "heads": (
        "[a]\nlayers = 1\nwidth = 8\nvocabulary = 9\nhidden = 8\ngrouped = {heads = 3, kv_heads = 2}",
        "do not share",
    ),
    "size": (
        "[a]\nlayers = 99999999\nwidth = 8\nvocabulary = 9\nhidden = 8\ngrouped = {heads = 2, kv_heads = 2}",
        "16,777,216",
    ),
    "missing": ("[a]\nlayers = 1\ngrouped = {heads = 2, kv_heads = 2}", "needs width"),
    "experts": (
        "[a]\nlayers = 1\nwidth = 8\nvocabulary = 9\ngrouped = {heads = 2, kv_heads = 2}\n"
        "experts = {count = 2, chosen = 3, width = 4}",
        "cannot be chosen",
    ),
    "toml": ("[a", "not TOML"),
}


@pytest.mark.parametrize("text, told", BAD.values(), ids=BAD)
def test_bad_files_are_told(text: str, told: str) -> None:
    with pytest.raises(InvalidInput) as e:
        parse(text, "x.toml")
    assert told in str(e.value) and "\n" not in str(e.value)


def test_unknown_names_are_told() -> None:
    with pytest.raises(UsageError, match="waferc shapes"):
        shape("nobody-1b")


def test_the_list_and_a_graph_are_written(tmp_path: Path) -> None:
    out = tmp_path / "list.json"
    done = CliRunner().invoke(main, ["shapes", "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert [s["name"] for s in json.loads(out.read_text())["shapes"]] == [s.name for s in ALL]
    for width in (60, 80, 180):
        shown = CliRunner().invoke(main, ["shapes", "qwen3-8b"], env={"COLUMNS": str(width)})
        assert all(len(line) <= width for line in shown.output.splitlines())
    path = tmp_path / "8b.onnx"
    done = CliRunner().invoke(main, ["shapes", "llama-3.1-8b", "--layers", "1", "-o", str(path)])
    assert done.exit_code == 0, done.output
    assert path.stat().st_size < 100_000
    names = [i.name for i in onnx.load(path, load_external_data=False).graph.input]
    assert names == ["input_ids", "position_ids", "past.0.key", "past.0.value"]
    for wrong in (["-o", str(path)], ["qwen3-8b", "--tokens", "2", "-o", str(path)]):
        assert CliRunner().invoke(main, ["shapes", *wrong]).exit_code == 2
