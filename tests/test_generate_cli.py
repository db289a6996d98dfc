"""`waferc generate` and its compile, on a small decoder: text, JSON, errors, and what is imported."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from language import CHAT, byte_tokenizer
from sampled import sampled
from test_cli import WAFERC, good, perceptron, same_as_golden, waferc
from test_smollm2 import Decoder
from waferc import LanguageModel, compile_model
from waferc.compiler.cli import console
from waferc.compiler.language.decoding import Decoding as Decode
from waferc.compiler.language.generate import Ending, generate
from waferc.compiler.language.model import TokenModel
from waferc.compiler.language.sampling import Sampling
from waferc.compiler.language.tokens import Tokenizer
from waferc.compiler.language_model import Drafts
from waferc.ir.op import Array
from waferc.ir.ops.contract import Contract
from waferc.runtime.homes import Homes
from waferc.runtime.load import load

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))

import smollm2
from decoder import Shape, decoder, random_weights

SHAPE = Shape(2, 32, 64, 4, 2, 8, vocabulary=262, positions=64)
TOKENIZER = Tokenizer(byte_tokenizer())
CAPACITY = 32
ENTRIES = ("--capacity", str(CAPACITY), "--entry", "prefill:S=4", "--entry", "decode:S=1")
COMPILE = ("compile", "tiny.onnx", "--wafer", "16x16", *ENTRIES)
WORDS = ("--tokenizer", "tokenizer.json", "--chat-template", "chat.jinja")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with random weights, compiled with its tokenizer and template, and without."""
    folder = tmp_path_factory.mktemp("generate")
    (folder / "tiny.onnx").write_bytes(decoder(SHAPE, random_weights(5)).SerializeToString())
    (folder / "tokenizer.json").write_bytes(byte_tokenizer())
    (folder / "chat.jinja").write_text(CHAT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WAFERC_CACHE", str(tmp_path_factory.mktemp("cache")))
        good(*COMPILE, *WORDS, "-o", "tiny.wafer")
        good(*COMPILE, "-o", "mute.wafer")
        good(*COMPILE, *WORDS[:2], "-o", "words.wafer")
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def as_onnxruntime(prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens after `prompt`, up to the end of a text."""
    golden = Decoder(onnx.load("tiny.onnx"), SHAPE)
    out = [int(golden.logits(prompt)[-1].argmax())]
    while len(out) < count and out[-1] not in TOKENIZER.ends:
        out.append(int(golden.logits(out[-1:])[-1].argmax()))
    return out


def generated(*words: str) -> dict[str, object]:
    text = good("generate", "tiny.wafer", *words)
    data = json.loads(good("generate", "tiny.wafer", *words, "--json", "-"))
    assert text == data["text"] + "\n"
    return data


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("prompt", sampled(["日本", "x", "the tea", "in the beginning"], 4))
def test_the_text_is_that_of_onnxruntime(here: Path, prompt: str, threads: str) -> None:
    data = generated(prompt, "--max-tokens", "12", "--threads", threads)
    assert data["schema"] == 1 and data["prompt_ids"] == TOKENIZER.tokens(prompt)
    assert data["token_ids"] == as_onnxruntime(TOKENIZER.tokens(prompt), 12)
    assert data["text"] == TOKENIZER.text(data["token_ids"])
    assert data["wafer_tokens_per_second"] > data["host_tokens_per_second"] > 0


@pytest.mark.thorough
def test_guard_gives_the_same_and_finds_nothing(here: Path) -> None:
    words = ("the tea", "--max-tokens", "4")
    assert generated(*words, "--guard")["token_ids"] == generated(*words)["token_ids"]


def test_chunks_and_single_tokens_give_the_same_logits(here: Path) -> None:
    ids = np.random.default_rng(2).integers(3, 262, 11).tolist()
    whole = Decoder(onnx.load("tiny.onnx"), SHAPE).logits(ids)[-1]
    for cuts in ((), (1,), (3, 7), (8, 9, 10)):
        model = TokenModel(load("tiny.wafer"))
        for a, b in zip((0, *cuts), (*cuts, 11), strict=True):
            logits = model.logits(ids[a:b])
        np.testing.assert_allclose(logits, whole, atol=1e-3)


def test_a_chat_prompt_goes_through_the_template(here: Path) -> None:
    asked = TOKENIZER.tokens("<|im_start|>user:Hi<|im_end|><|im_start|>", whole=False)
    data = generated("Hi", "--chat", "--max-tokens", "3")
    assert data["prompt_ids"] == asked and asked[0] == 1
    assert data["token_ids"] == as_onnxruntime(asked, 3)


def test_drawn_tokens_are_those_of_the_seed(here: Path) -> None:
    drawn = ("tea", "--max-tokens", "8", "--temperature", "2")
    first = generated(*drawn, "--seed", "1")["token_ids"]
    assert generated(*drawn, "--seed", "1")["token_ids"] == first
    assert any(generated(*drawn, "--seed", str(n))["token_ids"] != first for n in (2, 3, 4))
    greedy = generated("tea", "--max-tokens", "8")["token_ids"]
    assert generated("tea", "--max-tokens", "8", "--top-k", "1")["token_ids"] == greedy
    assert any(generated("tea", "--max-tokens", "8", "--top-k", "99")["token_ids"] != greedy for _ in "1")


def test_it_stops(here: Path) -> None:
    tokens = as_onnxruntime(TOKENIZER.tokens("the tea"), 8)
    third = TOKENIZER.text(tokens[2:3])
    assert third and third.isprintable()
    data = generated("the tea", "--max-tokens", "8", "--stop", third)
    before = TOKENIZER.text(tokens)[: TOKENIZER.text(tokens).index(third)]
    assert (data["text"], data["end"]) == (before, "stop")


def test_full_caches_end_it_with_a_note(here: Path) -> None:
    done = waferc("generate", "tiny.wafer", "x" * (CAPACITY - 2), "--stop", "<|im_start|>")
    assert done.exit_code == 0
    assert done.stderr.endswith("the caches are full; compile with a larger --capacity\n")
    assert done.stderr.startswith("3 tokens, ")


def test_a_prompt_from_stdin(here: Path) -> None:
    command = [WAFERC, "generate", "tiny.wafer", "-", "--max-tokens", "5", "--json", "-"]
    done = subprocess.run(command, input=b"the tea\n", capture_output=True, check=True)
    assert json.loads(done.stdout)["prompt_ids"] == TOKENIZER.tokens("the tea")


def test_the_benchmark_measures_accuracy(here: Path) -> None:
    golden = smollm2.Golden(here / "tiny.onnx")
    texts = [smollm2.greedy(golden, TOKENIZER.tokens(prompt), 6) for prompt in ("the tea", "x")]
    assert list(texts[0].tokens)[:3] == as_onnxruntime(list(texts[0].prompt), 3)
    programs = [TokenModel(load("tiny.wafer"), threads) for threads in (1, 2)]
    same = smollm2.accuracy(programs, texts)
    assert same.equal == 1 and same.same_bits and same.farthest < 1e-4 and abs(same.divergence) < 1e-9
    (here / "other.onnx").write_bytes(decoder(SHAPE, random_weights(6)).SerializeToString())
    other = smollm2.accuracy([smollm2.Golden(here / "other.onnx"), programs[0]], texts)
    assert other.equal < 1 and not other.same_bits and other.farthest > 0.1 and other.divergence > 0.01


PROMPTS = ("the tea", "x", "abcabcabc", "one two one", "", "1234 1234 12", "the the the", "<>")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_drafts_give_the_text_without_them_in_fewer_passes(here: Path, threads: str) -> None:
    model = LanguageModel("tiny.wafer", threads=int(threads))
    for prompt in PROMPTS[: 3 if threads == "2" else None]:
        ids = TOKENIZER.tokens(prompt) or [5]
        alone = model.generate(ids, max_tokens=24)
        for by in ("lookup", LanguageModel("tiny.wafer", threads=1)):
            found = model.generate(ids, max_tokens=24, drafts=Drafts(by))
            assert (found.token_ids, found.text, found.end) == (alone.token_ids, alone.text, alone.end)
            what = found.speculated
            assert what is not None and what.accepted <= what.drafted
            if by != "lookup" and len(alone.token_ids) > 8:  # a model agrees with itself
                assert found.decoded / sum(what.passes.values()) >= 1.8
                assert what.accepted == what.drafted or alone.end != "max-tokens" or what.closest < 1e-4


def test_the_command_line_says_what_drafts_were_worth(here: Path) -> None:
    plain = json.loads(good("generate", "tiny.wafer", "abcabcabc", "--max-tokens", "12", "--json", "-"))
    assert plain["speculation"] is None
    for by in ("lookup", "tiny.wafer"):
        words = ("generate", "tiny.wafer", "abcabcabc", "--max-tokens", "12", "--speculate", by)
        data = json.loads(good(*words, "--json", "-"))
        assert data["token_ids"] == plain["token_ids"]
        found = data["speculation"]
        assert found["tokens_per_pass"] == (len(plain["token_ids"]) - 1) / sum(found["passes"].values())
        assert (found["drafting_passes"] == {}) == (by == "lookup")
        seen = waferc(*words).stderr
        wafer = f"{found['wafer_tokens_per_second']:,.0f} per second on 16x16"
        assert f"{found['accepted']} of {found['drafted']} drafted tokens accepted: " in seen
        assert f"{wafer}, {plain['wafer_tokens_per_second']:,.0f} without" in seen


def test_drafts_that_cannot_be_are_one_line(here: Path) -> None:
    def ends(code: int, said: str, *words: str) -> None:
        done = waferc("generate", *words)
        assert done.exit_code == code and done.stderr.count("\n") == 1, done.stderr
        assert said in done.stderr

    lookup = ("tiny.wafer", "x", "--speculate", "lookup")
    ends(2, "--draft is for --speculate", "tiny.wafer", "x", "--draft", "2")
    ends(
        2, "the program verifies 1 to 3; for more compile it with --entry verify:S=5", *lookup, "--draft", "4"
    )
    ends(2, "give lookup or a program (.wafer)", *lookup[:3], "tokenizer.json")
    ends(7, "has no tokenizer", *lookup[:3], "mute.wafer")
    ends(6, "gone.wafer", *lookup[:3], "gone.wafer")


ALONE = """
import sys
from waferc.compiler.cli.main import main
try:
    main(["generate", "tiny.wafer", "the tea", "--chat", "--max-tokens", "4"])
except SystemExit as e:
    assert e.code == 0
found = {"onnx", "onnxruntime", "gguf", "networkx"} & set(sys.modules)
assert not found, found
"""


def test_the_program_alone_makes_the_text(here: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == good("generate", "tiny.wafer", "the tea", "--chat", "--max-tokens", "4")


# -- what goes wrong ---------------------------------------------------------------------------

GENERATE = ("generate", "tiny.wafer")
ERRORS: list[tuple[int, tuple[str, ...]]] = [
    (2, (*GENERATE,)),
    (2, (*GENERATE, "")),
    (2, (*GENERATE, "a" * 33)),
    (2, (*GENERATE, "x", "--max-tokens", "0")),
    (2, (*GENERATE, "x", "--temperature", "-1")),
    (2, (*GENERATE, "x", "--top-p", "0")),
    (2, (*GENERATE, "x", "--stop", "")),
    (2, ("generate", "more.wafer", "a<|extra|>")),
    (2, (*COMPILE, "--chat-template", "chat.jinja", "-o", "o")),
    (2, (*COMPILE, *WORDS, "--compile-to", "plan", "-o", "o")),
    (3, (*COMPILE, "--tokenizer", "chat.jinja", "-o", "o")),
    (3, (*COMPILE, *WORDS[:2], "--chat-template", "hostile.jinja", "-o", "o")),
    (3, ("compile", "other/tiny.onnx", "--dim", "batch=2", "--wafer", "4x4", *WORDS, "-o", "o")),
    (6, (*COMPILE, "--tokenizer", "missing.json", "-o", "o")),
    (6, ("generate", "missing.wafer", "x")),
    (7, ("generate", "mute.wafer", "x")),
    (7, ("generate", "words.wafer", "x", "--chat")),
    (3, ("generate", "tiny.onnx", "x")),
]


@pytest.mark.thorough
def test_every_error_is_one_line_with_its_exit_code_and_leaves_nothing(here: Path) -> None:
    (here / "hostile.jinja").write_text("{{ ''.__class__.__mro__ }}", encoding="utf-8")
    (here / "other").mkdir()
    perceptron(here / "other")
    tokens = json.loads(byte_tokenizer())
    tokens["added_tokens"].append({**tokens["added_tokens"][0], "id": 262, "content": "<|extra|>"})
    (here / "more.json").write_text(json.dumps(tokens), encoding="utf-8")
    done = waferc(*COMPILE, "--tokenizer", "more.json", "-o", "more.wafer")
    assert done.exit_code == 0
    assert "the tokenizer has 263 tokens, of which the model knows the first 262\n" in done.stderr
    before = sorted(here.iterdir())
    lines: list[str] = []
    for code, words in ERRORS:
        done = waferc(*words)
        assert done.exit_code == code, (words, done.stderr)
        assert done.stdout == ""
        assert done.stderr.startswith("waferc: error: ") and done.stderr.count("\n") == 1, done.stderr
        lines += [f"$ waferc {' '.join(words)}", done.stderr.rstrip("\n"), f"exit {code}", ""]
    same_as_golden("generate_errors.txt", "\n".join(lines))
    assert sorted(here.iterdir()) == before


def test_after_an_interrupt_the_program_starts_anew(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TokenModel(load("tiny.wafer"))
    prompt = TOKENIZER.tokens("the tea")
    call, calls = Homes.call, itertools.count()

    def interrupted(self: Homes, entry: str, threads: int) -> dict[str, Array]:
        out = call(self, entry, threads)
        if next(calls) == len(prompt) - 2:
            raise KeyboardInterrupt  # the caches were written, nobody counted
        return out

    def said() -> tuple[int, ...]:
        decoding, shown = Decode(model, prompt, Sampling()), list[str]()
        return generate(decoding, TOKENIZER, prompt, Ending(6), shown.append).token_ids

    monkeypatch.setattr(Homes, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        said()
    model.reset()
    assert list(said()) == as_onnxruntime(prompt, 6)


class Terminal(io.StringIO):
    encoding = "latin-1"

    def isatty(self) -> bool:
        return True


def test_a_terminal_obeys_nothing_that_a_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    console.Console().write("é\x1b[31m\a\u202e\n\t日")
    assert out.getvalue() == "é\\x1b[31m\\x07\\u202e\n\t?"


def test_interrupted_is_130(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TokenModel

    def interrupted(self: TokenModel, ids: list[int]) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "rows", interrupted)
    done = waferc("generate", "tiny.wafer", "the tea")
    assert done.exit_code == 130 and done.stderr.endswith("waferc: error: interrupted\n")


def test_a_reader_that_has_seen_enough_ends_it_quietly(here: Path) -> None:
    command = f"'{WAFERC}' generate tiny.wafer 'the tea' --max-tokens 20; echo $? >&2"
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["sh", "-c", f"({command}) | true"], capture_output=True, env=environment)
    assert done.stderr == b"6\n"


@pytest.mark.thorough
def test_entries_of_any_length_cut_caches_alike() -> None:
    """A product of many rows does not wait for its scale; written as it is reshaped, it binds the cuts."""
    model = decoder(SHAPE, random_weights(5)).SerializeToString()
    entries = {"prefill": {"S": 20}, "decode": {"S": 1}}  # 80 rows of probabilities
    compiled = compile_model(model, wafer="16x16", capacity=CAPACITY, entries=entries, until="plan")
    for graph in compiled.graphs.values():
        caches = graph.in_place
        read = [n for n in graph.nodes if not caches.keys().isdisjoint(n.inputs) and type(n.op) is Contract]
        assert len(read) == 4
        assert all(len(e.axes) <= 1 for n in read for e in n.op.write)


def test_a_broken_tokenizer_is_told_before_a_folder_is_compiled(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(decoder(SHAPE, random_weights(5)).SerializeToString())
    (tmp_path / "tokenizer.json").write_text('{"model": 3}', encoding="utf-8")
    done = waferc("generate", str(tmp_path), "hello", "--wafer", "16x16")
    assert done.exit_code == 3 and done.stdout == ""
    assert done.stderr.startswith("waferc: error: the folder's tokenizer.json: no tokenizer that")
    assert done.stderr.count("\n") == 1
