"""Language models by their folders: what is taken from them, logits, texts, and what goes wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import waferc
from exported import (
    BANDS,
    CONFIG,
    CONTEXT,
    FRAMES,
    PAD,
    ROOM,
    genai_pair,
    merged,
    pair,
    step_by_step,
    step_by_step_behind,
    tiny_decoder,
    write_folder,
)
from language import byte_tokenizer
from onnx import external_data_helper
from test_cache_length import compared
from test_cache_length import decoder as one_layer
from test_cli import good, perceptron, same_as_golden
from test_cli import waferc as command
from waferc import InputError, LanguageModel, Request, UsageError
from waferc.compiler.errors import ArtifactError
from waferc.compiler.exports.defaults import choices
from waferc.compiler.language.tokens import Tokenizer, UnusableText
from waferc.ir.op import Array

EXPORTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "exports"  # beside the project, if at all
TOKENIZER = Tokenizer(byte_tokenizer())
IDS = TOKENIZER.tokens("a few tokens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny") / "tiny", {"model.onnx": tiny_decoder()})


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return LanguageModel(folder, wafer="8x8", threads=1)


@pytest.fixture(scope="module")
def program(folder: Path, model: LanguageModel) -> Path:
    assert model.compiled is not None
    model.compiled.save(path := folder.parent / "tiny.wafer")
    return path


def alike(ours: Sequence[Array] | Array, theirs: Array) -> None:
    assert np.abs(np.array(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


def one_by_one(model: LanguageModel, ids: Sequence[int]) -> Array:
    model.reset()
    return np.array([model.logits([token]) for token in ids])


# -- a folder ------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_folder_gives_onnxruntime_s_logits(folder: Path, model: LanguageModel) -> None:
    golden = step_by_step(folder / "model.onnx", IDS)
    single = one_by_one(model, IDS)
    alike(single, golden)
    model.reset()
    alike(model.logits(IDS), golden[-1])  # the first 8 or more together
    two = LanguageModel(waferc.compile_model(folder, wafer="8x8"), threads=2)
    assert (one_by_one(two, IDS) == single).all()


def test_what_was_taken_from_the_folder_is_said(model: LanguageModel) -> None:
    assert model.compiled is not None
    said = f"--entry prefill:S=16 --entry decode:S=1 --capacity {CONTEXT} (the model's context)"
    assert model.compiled.chosen == f"a decoder with caches, taken with {said}"
    assert model.room == CONTEXT or model.reset() is None


def test_a_text_is_made_from_a_folder_and_from_its_program(
    folder: Path, model: LanguageModel, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = model.generate("the tea", max_tokens=6)
    golden = step_by_step(folder / "model.onnx", [*TOKENIZER.tokens("the tea"), *found.token_ids[:-1]])
    wanted = golden[-len(found.token_ids) :].argmax(1).tolist()
    assert list(found.token_ids) == wanted and found.text == TOKENIZER.text(wanted)
    assert model.generate(TOKENIZER.tokens("the tea"), max_tokens=6).token_ids == found.token_ids
    saved = LanguageModel(program)
    assert saved.compiled is None and saved.artifact is not None
    assert saved.generate("the tea", max_tokens=6).token_ids == found.token_ids
    asked = saved.prompt_ids("Hi", chat=True)
    assert asked == TOKENIZER.tokens("<|im_start|>user:Hi<|im_end|><|im_start|>", whole=False)
    monkeypatch.chdir(folder.parent)
    text = good("generate", "tiny.wafer", "the tea", "--max-tokens", "6")
    assert (
        good("generate", "tiny", "the tea", "--max-tokens", "6", "--wafer", "8x8")
        == text
        == found.text + "\n"
    )


def test_a_text_ends_where_the_configuration_says(model: LanguageModel, program: Path) -> None:
    first = one_by_one(model, TOKENIZER.tokens("x"))[-1].argmax()
    manner = json.loads(waferc.LanguageModel(program).artifact.files["manner.json"])  # pyright: ignore[reportOptionalMemberAccess]
    assert manner["fields"]["ends"] == [2, 5] and first not in (2, 5)


def test_a_program_in_memory_is_a_model_without_words(program: Path) -> None:
    loaded = LanguageModel(waferc.load(program))
    assert np.isfinite(loaded.logits([7])).all()
    with pytest.raises(ArtifactError, match="has no tokenizer"):
        loaded.generate("x")
    with pytest.raises(UsageError, match="wafer is for a model that is compiled"):
        LanguageModel(program, wafer="8x8")
    with pytest.raises(InputError, match="has no encoder"):
        loaded.logits([1], source=[2])


# -- what is chosen ------------------------------------------------------------------------------


def said(asked: Request, context: int | None = 32, model: bytes | None = None) -> list[str]:
    graph = onnx.load_from_string(model or tiny_decoder()).graph
    return [c.said.partition("taken with ")[2] for c in choices(graph, asked, context)]


def test_less_is_tried_where_it_does_not_fit() -> None:
    both = "--entry prefill:S={} --entry decode:S=1 --capacity {} ({})"
    assert said(Request(wafer="16x16"), 128)[:4] == [
        both.format(32, 128, "the model's context"),
        both.format(8, 128, "the model's context"),
        both.format(8, 64, "what fits of the model's context of 128"),
        both.format(8, 32, "what fits of the model's context of 128"),
    ]
    last = said(Request(wafer="16x16"), 128)[-1]
    assert last == "--entry decode:S=1 --capacity 16 (what fits of the model's context of 128)"
    assert len(said(Request(), 1 << 20)) <= 9
    (first, *_) = said(Request(wafer="4x4"), 1 << 20)
    assert int(re.findall(r"--capacity (\d+)", first)[0]) * 2 * 8 * 4 <= 16 * 50_000
    assert "as no configuration says" in said(Request(), None)[0]


def test_each_option_overrides() -> None:
    assert said(Request(dims={"S": 4}))[0] == "--capacity 32 (the model's context)"
    assert said(Request(capacity=24))[0] == "--entry prefill:S=12 --entry decode:S=1"
    entries = {"one": {"S": 1}}
    assert said(Request(entries=entries))[0] == "--capacity 32 (the model's context)"
    assert said(Request(entries=entries, capacity=9)) == [""]
    assert said(Request(dims={"P": 5, "S": 1})) == [""]  # caches of a fixed length are inputs
    assert said(Request(shapes={"past_key_values.0.key": (1, 1, 4, 8)})) == [""]


def test_a_model_file_takes_the_context_beside_it(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "m" / "onnx", {"model.onnx": tiny_decoder()}) / "model.onnx"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (path.parent / name).rename(tmp_path / "m" / name)
    made = waferc.compile_model(path, wafer="8x8", until="graph")
    assert f"--capacity {CONTEXT} (the model's context)" in made.chosen and made.files.entries == {}
    assert waferc.compile_model(tmp_path / "m", wafer="8x8", until="graph").files.entries.keys() == {
        "tokenizer.json",
        "chat_template.jinja",
        "manner.json",
    }


@pytest.mark.thorough
def test_a_capacity_that_nobody_says_may_be_too_much_for_a_table(tmp_path: Path) -> None:
    """Of 40 rows, of which the first two are not read."""
    from test_cache_length import from_table

    (tmp_path / "model.onnx").write_bytes(one_layer(from_table))
    found = waferc.compile_model(tmp_path / "model.onnx", wafer="8x8", until="plan", capacity=32)
    assert found.chosen.endswith("--entry prefill:S=16 --entry decode:S=1")
    with pytest.raises(waferc.UnsupportedOperator, match="try a --capacity below"):
        waferc.compile_model(tmp_path / "model.onnx", wafer="8x8", until="graph")


@pytest.mark.thorough
def test_verify_and_check_take_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    done = command("check", "tiny", "--wafer", "8x8")
    assert done.exit_code == 0 and "fits 8x8" in done.stdout
    assert done.stderr.startswith("a decoder with caches, taken with --entry prefill:S=16 ")
    assert "PASS" in good("verify", "tiny", "--wafer", "8x8")
    kept = command("compile", "tiny", "--wafer", "8x8", "-o", "tiny/model.onnx")
    assert kept.exit_code == 2 and "is" in kept.stderr


# -- merged decoders, encoders --------------------------------------------------------------------


def test_a_merged_decoder_is_the_one_with_caches() -> None:
    plain, both = (
        waferc.compile_model(m, wafer="8x8", capacity=16, until="graph")
        for m in (one_layer(compared), merged())
    )
    assert "--value use_cache_branch=[true]" in both.chosen
    for entry in ("prefill", "decode"):
        ours, theirs = both.graphs[entry], plain.graphs[entry]
        assert [n.op for n in ours.nodes] == [n.op for n in theirs.nodes]
        assert ours.states == theirs.states


@pytest.mark.thorough
@pytest.mark.parametrize("heard", [False, True], ids=["of tokens", "of sounds"])
def test_an_encoder_and_its_decoder_are_one_program(tmp_path: Path, heard: bool) -> None:
    config = {**CONFIG, "max_position_embeddings": 16, "decoder_start_token_id": 3, "pad_token_id": PAD}
    config |= {"num_mel_bins": BANDS, "max_source_positions": FRAMES // 2} if heard else {}
    folder = write_folder(tmp_path / "pair", pair(heard), config)
    model = LanguageModel(folder, wafer="8x8")
    assert model.has_encoder and model.compiled is not None and model.room == 16
    ids, random = [3, 1, 4, 1, 5, 9], np.random.default_rng(3)
    sources: list[tuple[Array, dict[str, Array]]] = []
    for n in (5, ROOM):
        if heard:
            sound = random.standard_normal((BANDS, FRAMES)).astype(np.float32)
            sources.append((sound, {"input_features": sound[None]}))
        else:
            tokens = random.integers(PAD + 1, 24, n)
            given = {"input_ids": tokens[None], "attention_mask": np.ones((1, n), np.int64)}
            sources.append((tokens, given))
    for source, given in sources:
        model.reset()
        found = [model.logits([t], source if at == 0 else None) for at, t in enumerate(ids)]
        alike(found, step_by_step_behind(folder, given, ids))
    with pytest.raises(InputError, match="before the first tokens"):
        model.logits([1], sources[0][0])
    model.reset()
    with pytest.raises(InputError, match="comes with the first tokens"):
        model.logits([1])
    wrong = np.zeros((2, 2), np.float32) if heard else list(range(17))
    with pytest.raises(InputError, match="the source has"):
        model.logits([1], wrong)
    guarded = LanguageModel(model.compiled, guard=True)
    assert (guarded.logits([3], sources[0][0]) == found_first(model, sources[0][0])).all()


@pytest.mark.thorough
def test_an_encoder_that_makes_keys_and_values_is_taken_with_its_decoder(tmp_path: Path) -> None:
    """It is another file's name for each, and onnxruntime's logits are those of three files."""
    parts = {name: {"filename": f"{name}.onnx"} for name in ("encoder", "decoder")}
    folder = write_folder(
        tmp_path / "genai", genai_pair(), {"decoder_start_token_id": 3, "pad_token_id": PAD}
    )
    told = folder / "genai_config.json"
    told.write_text(json.dumps({"model": {"context_length": 16, **parts}}), encoding="utf-8")
    model = LanguageModel(folder, wafer="8x8")
    assert model.has_encoder and model.room == 16
    ids, source = [3, 1, 4, 1, 5], np.array([7, 8, 9, 10])
    found = [model.logits([t], source if at == 0 else None) for at, t in enumerate(ids)]
    three = write_folder(tmp_path / "three", pair(False))
    given = {"input_ids": source[None], "attention_mask": np.ones((1, 4), np.int64)}
    alike(found, step_by_step_behind(three, given, ids))
    told.write_text(json.dumps({"model": {**parts, "encoder": {"filename": "none.onnx"}}}), encoding="utf-8")
    with pytest.raises(
        waferc.InvalidInput, match=r"names the model 'none\.onnx', which is not in the folder"
    ):
        LanguageModel(folder, wafer="8x8")


def found_first(model: LanguageModel, source: Array) -> Array:
    model.reset()
    return model.logits([3], source)


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_folder_that_is_none_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = tiny_decoder()
    for name in ("empty", "several", "json", "list", "pieces", "elsewhere", "data", "alone"):
        Path(name).mkdir()
    for name in ("a", "b"):
        Path(f"several/{name}.onnx").write_bytes(content)
    for name in ("json", "list", "pieces"):
        Path(f"{name}/model.onnx").write_bytes(content)
    Path("json/config.json").write_text('{"max_position_embeddings": ', encoding="utf-8")
    Path("list/genai_config.json").write_text("[1]", encoding="utf-8")
    Path("pieces/tokenizer.model").write_bytes(b"\n\x05")
    write_folder(Path("elsewhere"), {"model.onnx": content})
    told = {"model": {"decoder": {"filename": "../model.onnx"}}}
    Path("elsewhere/genai_config.json").write_text(json.dumps(told), encoding="utf-8")
    Path("alone/encoder_model.onnx").write_bytes(content)
    proto = onnx.load_from_string(content)
    external_data_helper.convert_model_to_external_data(proto, location="model.onnx.data", size_threshold=0)
    onnx.save(proto, "data/model.onnx")
    Path("data/model.onnx.data").unlink()
    lines: list[str] = []
    for code, name in (
        (3, "empty"),
        (2, "several"),
        (3, "json"),
        (3, "list"),
        (4, "pieces"),
        (3, "elsewhere"),
        (6, "data"),
        (4, "alone"),
        (6, "missing"),
    ):
        done = command("compile", name, "--wafer", "8x8", "-o", "out.wafer")
        assert done.stdout == "" and done.stderr.count("\n") == 1
        lines += [f"$ waferc compile {name} --wafer 8x8 -o out.wafer", done.stderr.rstrip("\n"), ""]
        assert done.exit_code == code, done.stderr
    same_as_golden("folder_errors.txt", "\n".join(lines))
    assert not Path("out.wafer").exists()


@pytest.mark.thorough
def test_a_folder_s_tokenizer_is_judged_where_it_is_kept(here: Path) -> None:
    """One that is damaged is named, by whoever reads it; that of a model without texts is left out."""
    write_folder(Path("bad"), {"model.onnx": one_layer(compared)})
    Path("bad/tokenizer.json").write_text('{"model": 3}', encoding="utf-8")
    for words in (("compile", "bad", "-o", "out.wafer"), ("generate", "bad", "a")):
        done = command(*words, "--wafer", "8x8", "--capacity", "16")
        assert done.exit_code in (3, 7) and "no tokenizer that 'tokenizers' can read" in done.stderr
    assert not Path("out.wafer").exists()
    with pytest.raises(UnusableText, match="no tokenizer"):
        _ = LanguageModel("bad", wafer="8x8", capacity=16).tokenizer
    write_folder(Path("classes"), {"model.onnx": perceptron(here).read_bytes()})
    done = command("compile", "classes", "--dim", "batch=1", "--wafer", "4x4", "-o", "out.wafer")
    assert done.exit_code == 0 and "the folder's tokenizer is left out" in done.stderr, done.stderr


# -- models as exporters wrote them ----------------------------------------------------------------

NAMES = [f"optimum-{kind}" for kind in ("llama", "phi3", "gpt2", "falcon", "qwen3", "gemma3")] + ["ort-llama"]


def exported(name: str) -> Path:
    folder = EXPORTS / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: exports are not tested here")
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("wafer", ["16x16", "wse3"])
@pytest.mark.parametrize("name", NAMES)
def test_an_export_needs_no_options(name: str, wafer: str) -> None:
    """As onnxruntime, after ten tokens and each of 14 more, and given one by one; no thread changes a bit."""
    folder = exported(name)
    golden = np.load(folder / "golden.npz")
    ids = golden["ids"].tolist()
    model = LanguageModel(folder, wafer=wafer, threads=1)
    alike([model.logits(ids[:10]), *(model.logits([t]) for t in ids[10:])], golden["logits"])
    single = one_by_one(model, ids)
    alike(single, step_by_step(folder / "model.onnx", ids))
    assert model.compiled is not None
    assert (one_by_one(LanguageModel(model.compiled, threads=2), ids) == single).all()


@pytest.mark.thorough
def test_an_export_with_activations_of_8_bits_takes_a_call_s_tokens_together() -> None:
    """The scale of activations is a call's: only calls of as many tokens as the peer's give its logits."""
    folder = exported("q8-phi3")
    golden = np.load(folder / "golden.npz")
    ids = golden["ids"].tolist()
    entries = {"ten": {"sequence_length": 10}, "one": {"sequence_length": 1}}
    model = LanguageModel(folder, wafer="16x16", entries=entries)
    ours = np.array([model.logits(ids[:10]), *(model.logits([t]) for t in ids[10:])])
    theirs = golden["logits"]
    # An activation between two of the 256 falls to either side by the last bit of a sum, whose order is
    # each plan's; one that does is 1.5 % of the logits from there on. Scales of one token are 8 %.
    assert np.sqrt(np.square(ours - theirs).mean() / np.square(theirs).mean()) <= 0.03
    assert (ours.argmax(1) == theirs.argmax(1)).all()


@pytest.mark.parametrize(
    "files", ["decoder_model.onnx decoder_with_past_model.onnx", "decoder_model_merged.onnx"]
)
@pytest.mark.thorough
def test_bart_needs_no_options(tmp_path: Path, files: str) -> None:
    folder = exported("optimum-bart")
    for name in ("config.json", "encoder_model.onnx", *files.split()):
        (tmp_path / name).symlink_to(folder / name)
    golden = np.load(folder / "golden.npz")
    model = LanguageModel(tmp_path, wafer="16x16", dims={"encoder_sequence_length": 24}, capacity=32)
    ids = golden["ids"].tolist()
    found = [model.logits([t], golden["source"] if at == 0 else None) for at, t in enumerate(ids)]
    alike(found, golden["logits"])
