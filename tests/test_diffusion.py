"""Masked tokens: what a pass takes, what stays, blocks and caches, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import good, waferc
from test_generate import F32, I64
from test_speculation import Growing
from waferc import Diffusion, InputError, LanguageModel, UsageError
from waferc.compiler.errors import ArtifactError
from waferc.compiler.language.diffusion import Denoising
from waferc.compiler.language.model import TokenModel
from waferc.compiler.language.sampling import Sampling
from waferc.ir.op import Array
from waferc.runtime.ports import Port, Ports

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "diffusion"))

from decoder import Shape, decoder, random_weights
from models import tokenizer

VOCABULARY, MASK = 9, 8
WHOLE = 24  # places of a model without caches


class Both(Growing):
    """A program whose logits at a place depend on all tokens that it sees. sizes: of its entries.

    capacity: of its caches; None: it has none. causal: a token sees none behind it.
    """

    def __init__(
        self, sizes: Sequence[int], capacity: int | None = None, causal: bool = False, states: bool = False
    ) -> None:
        random = np.random.default_rng(3)
        self.own, self.others = random.standard_normal((2, VOCABULARY, VOCABULARY))
        self.places = random.standard_normal((256, VOCABULARY))
        self.sizes, self.capacity, self.causal = sizes, capacity, causal
        self.states = states or capacity is not None
        super().__init__()
        self.calls = list[tuple[int, list[int]]]()

    @property
    def entries(self) -> Mapping[str, Ports]:
        cache = (1, 2, self.capacity or 1, 4)
        return {
            f"of{n}": Ports(
                (Port("input_ids", (1, n), I64), *([Port("past.key", cache, F32)] if self.states else [])),
                (
                    Port("logits", (1, n, VOCABULARY), F32),
                    *([Port("present.key", cache, F32)] if self.states else []),
                ),
                (("past.key", "present.key"),) if self.states else (),
            )
            for n in self.sizes
        }

    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]:
        ids = inputs["input_ids"][0].tolist()
        self.calls.append((self.length, ids))
        seen = np.array([*self.held, *ids])
        begin = len(self.held)
        if self.capacity is not None:
            self.held += ids
            self.length += len(ids)
            assert self.length <= self.capacity
        spread = self.others[seen] * np.arange(1, len(seen) + 1)[:, None] / len(seen)
        sums = np.cumsum(spread, 0) if self.causal else np.tile(spread.sum(0), (len(seen), 1))
        found = self.own[seen] + np.sin(sums) + self.places[: len(seen)]
        return {"logits": found[begin:].astype(np.float32)[None]}


PROMPTS = st.lists(st.integers(0, MASK - 1), max_size=11)
HOW = st.builds(
    Diffusion,
    block=st.sampled_from([None, 4, 8]),
    steps=st.none() | st.integers(1, 9),
    threshold=st.none() | st.sampled_from([0.1, 0.3, 0.9]),
    remask=st.sampled_from([0.0, 0.3, 0.9]),
)
CACHED = st.booleans()
DRAWN = st.sampled_from([Sampling(), Sampling(1.0, seed=4), Sampling(2.0, top_k=3, seed=1)])


def program(cached: bool) -> Both:
    return Both((4, 8), 24) if cached else Both((8, WHOLE))


def denoising(program: Both, prompt: list[int], most: int, how: Diffusion, by: Sampling) -> Denoising:
    return Denoising(TokenModel(program), prompt, most, how, MASK, by)


@settings(deadline=None)
@given(PROMPTS, st.integers(1, 12), HOW, CACHED, DRAWN)
def test_all_masks_are_found_and_nothing_else_changes(
    prompt: list[int], most: int, how: Diffusion, cached: bool, by: Sampling
) -> None:
    one = denoising(program(cached), prompt, most, how, by)
    tokens = list(one)
    assert len(tokens) == most == one.most and MASK not in tokens
    found = one.denoised
    assert sum(found.taken) == most + found.again and all(n > 0 for n in found.taken)
    assert sum(found.passes.values()) == len(found.taken) + found.kept
    if how.steps is not None and how.block == 4:
        assert len(found.taken) <= how.steps * (1 + (most + 2) // 4)
    again = denoising(program(cached), prompt, most, how, by)
    assert list(again) == tokens and again.denoised == found


@settings(deadline=None)
@given(PROMPTS, st.integers(1, 12), HOW, CACHED, DRAWN)
def test_a_token_changes_only_where_it_was_masked_again(
    prompt: list[int], most: int, how: Diffusion, cached: bool, by: Sampling
) -> None:
    of = program(cached)
    one = denoising(of, prompt, most, how, by)
    final = [*prompt, *one]
    passes = of.calls[-sum(one.denoised.passes.values()) :]
    text, again = [*prompt, *[MASK] * most], 0
    for start, ids in passes:
        for place, token in list(enumerate(ids, start))[: len(text) - start]:
            before, text[place] = text[place], token
            assert token == before or MASK in (token, before), "a token became another one"
            assert place >= len(prompt) or token == prompt[place]
            again += token == MASK != before
    assert again == one.denoised.again
    assert all(token in (MASK, last) for token, last in zip(text, final, strict=True))


@settings(deadline=None)
@given(PROMPTS, st.integers(1, 12), st.integers(1, 9), CACHED)
def test_a_block_is_complete_in_as_many_steps_of_alike_shares(
    prompt: list[int], most: int, steps: int, cached: bool
) -> None:
    one = denoising(program(cached), prompt, most, Diffusion(4, steps), Sampling())
    list(one)
    first = len(prompt) // 4 * 4 if cached else len(prompt)
    places = np.arange(len(prompt), len(prompt) + most)
    expected = list[int]()
    for count in np.bincount((places - first) // 4):
        each, more = divmod(int(count), min(steps, int(count)))
        expected += [each + 1] * more + [each] * (min(steps, int(count)) - more)
    assert one.denoised.taken == tuple(expected)


def test_a_threshold_takes_all_that_reach_it_and_one_at_least() -> None:
    for threshold, least in ((1.0, 1), (1e-6, 8)):
        one = denoising(program(True), [], 8, Diffusion(8, threshold=threshold), Sampling())
        list(one)
        assert one.denoised.taken == (least,) * (8 // least)


def test_the_most_certain_tokens_are_taken() -> None:
    of = Both((WHOLE,))
    one = denoising(of, [1, 2], 6, Diffusion(steps=2), Sampling())
    list(one)
    (_, first), (_, second) = of.calls[-2:]
    rows = of.run({"input_ids": np.array([first])})["logits"][0, 2:8].astype(np.float64)
    rows[:, MASK] = -np.inf
    shares = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
    best = np.argsort(-shares.max(-1))[:3]
    assert {i for i in range(6) if second[2 + i] != MASK} == set(best.tolist())
    assert all(second[2 + i] == rows[i].argmax() for i in best)


def test_complete_blocks_stay_in_the_caches_and_masks_do_not() -> None:
    of = Both((4,), 24)
    one = denoising(of, [1, 2, 3, 4, 5, 6], 9, Diffusion(steps=2), Sampling())
    tokens = list(one)
    assert of.held == [1, 2, 3, 4, 5, 6, *tokens[:6]] and one.denoised.kept == 2
    assert [at for at, _ in of.calls] == [0, 4, 4, 4, 4, 4, 8, 8, 8, 12, 12]


def test_masks_in_a_prompt_are_found() -> None:
    one = denoising(Both((WHOLE,)), [1, MASK, 3, MASK], 0, Diffusion(), Sampling())
    tokens = list(one)
    assert (tokens[1], len(tokens), one.denoised.taken) == (3, 3, (1, 1))
    assert MASK not in tokens


def test_it_ends_where_no_block_has_room() -> None:
    assert len(list(denoising(Both((4,), 14), [1], 40, Diffusion(), Sampling()))) == 11
    assert len(list(denoising(Both((WHOLE,)), [1], 40, Diffusion(), Sampling()))) == WHOLE - 1


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"block": 0}, "a block of 0 tokens; it needs one at least"),
        ({"steps": -2}, "-2 steps a block; it needs one at least"),
        ({"threshold": 0.0}, "a threshold of 0 is no probability above 0 and up to 1"),
        ({"threshold": float("nan")}, "a threshold of nan is no probability"),
        ({"remask": 1.0}, "a share of 1 of tokens to mask again"),
    ],
)
def test_numbers_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Diffusion(**fields)


@pytest.mark.parametrize(
    "of, prompt, how, mask, kind, message",
    [
        (Both((4,), 24), [1], Diffusion(block=8), MASK, UsageError, "entries take 4; .*--entry block:S=8"),
        (Both((8,)), [1], Diffusion(block=9), MASK, UsageError, "blocks of 9 tokens; the model takes 8"),
        (Both((8,)), [1], Diffusion(), 99, UsageError, "mask 99 is not in the model's vocabulary of 9"),
        (Both((8,)), [1] * 8, Diffusion(), MASK, InputError, "a prompt of 8 tokens leaves nothing"),
        (Both((4,), 10), [1] * 9, Diffusion(), MASK, InputError, "takes 8 in blocks of 4"),
        (Both((8,)), [77], Diffusion(), MASK, InputError, "token 77 is not in the model's vocabulary"),
        (Both((8,), causal=True), [1], Diffusion(), MASK, ArtifactError, "see none behind them"),
        (Both((4,), 24, causal=True), [1], Diffusion(), MASK, ArtifactError, "see none behind them"),
        (Both((8,), states=True), [1], Diffusion(), MASK, ArtifactError, "states that are no caches"),
    ],
)
def test_what_is_refused(
    of: Both, prompt: list[int], how: Diffusion, mask: int, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        list(Denoising(TokenModel(of), prompt, 4, how, mask, Sampling()))


# -- a compiled model ----------------------------------------------------------------------------

SMALL = Shape(
    layers=1, width=16, hidden=32, heads=2, kv_heads=2, head=8, vocabulary=28, positions=64, causal=False
)
COMPILE = ("--wafer", "8x8", "--entry", "eight:S=8", "--entry", "four:S=4", "--capacity", "40")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program that takes 4 tokens or 8, and one of a model that is causal."""
    folder = tmp_path_factory.mktemp("diffusion")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
    words = ("--tokenizer", str(folder / "tokenizer.json"))
    for name, causal in (("both", False), ("causal", True)):
        shape = Shape(**{**vars(SMALL), "causal": causal})
        path = folder / f"{name}.onnx"
        path.write_bytes(decoder(shape, random_weights(5)).SerializeToString())
        good("compile", str(path), *COMPILE, *words, "-o", str(folder / f"{name}.wafer"))
    return folder


def generated(here: Path, *words: str) -> dict[str, Any]:
    made = good("generate", str(here / "both.wafer"), "in the beg", "--diffusion", *words, "--json", "-")
    return json.loads(made)


def test_threads_and_guard_give_the_same_text(here: Path) -> None:
    how = ("--max-tokens", "13", "--temperature", "1", "--seed", "3", "--steps", "3", "--remask", "0.3")
    one = generated(here, *how, "--threads", "1")
    for other in (("--threads", "2"), ("--guard",)):
        same = generated(here, *how, *other)
        assert (same["token_ids"], same["diffusion"]) == (one["token_ids"], one["diffusion"])
    assert len(one["token_ids"]) == 13 and one["text"] and "[MASK]" not in one["text"]
    assert one["diffusion"]["tokens_per_pass"] == 13 / sum(one["diffusion"]["passes"].values())


def test_a_pass_gives_the_reference_s_logits(here: Path) -> None:
    """Each pass, beside the model in onnxruntime with the same past."""
    import onnxruntime

    session = onnxruntime.InferenceSession(here / "both.onnx")
    model = LanguageModel(here / "both.wafer", threads=1)
    ids = np.random.default_rng(2).integers(0, 28, 20)
    past = {i.name: np.zeros((1, 2, 0, 8), np.float32) for i in session.get_inputs() if "past" in i.name}
    for start, stop in ((0, 4), (4, 12), (12, 16), (16, 20)):
        feed = {"input_ids": ids[None, start:stop], "position_ids": np.arange(start, stop)[None]}
        names = [o.name for o in session.get_outputs()]
        found = dict(zip(names, session.run(names, feed | past), strict=True))
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
        theirs = np.asarray(found["logits"])[0]
        ours = model.rows(ids[start:stop].tolist())
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_blocks_are_shown_as_they_are_complete(here: Path) -> None:
    model, shown = LanguageModel(here / "both.wafer", threads=1), list[tuple[int, str]]()

    def show(text: str) -> None:
        shown.append((sum(model.ran.values()), text))

    found = model.generate("in the beg", max_tokens=10, diffusion=Diffusion(4, 2), show=show)
    assert "".join(text for _, text in shown) == found.text and found.denoised is not None
    assert len({ran for ran, _ in shown}) == 3  # blocks of 2, 4 and 4 tokens


def test_a_mask_in_the_prompt_is_found(here: Path) -> None:
    data = json.loads(
        good("generate", str(here / "both.wafer"), "in th[MASK] beg", "--diffusion", "--max-tokens", "1",
             "--block", "8", "--json", "-")
    )  # fmt: skip
    assert len(data["token_ids"]) == 6 and data["text"][1:5] == " beg"


@pytest.mark.parametrize(
    "words, message",
    [
        (("both.wafer", "a", "--steps", "2"), "--steps is for --diffusion"),
        (("both.wafer", "a", "--mask-token", "2"), "--mask-token is for --diffusion"),
        (("both.wafer", "a", "--diffusion", "--threshold", "1.5"), "a threshold of 1.5 is no probability"),
        (("both.wafer", "a", "--diffusion", "--mask-token", "x"), "no special token 'x'"),
        (("both.wafer", "a", "--diffusion", "--block", "5"), "blocks of 5 tokens: entries take 4, 8"),
        (("both.wafer", "a", "--diffusion", "--speculate", "lookup"), "--speculate is for a text"),
        (("causal.wafer", "a", "--diffusion"), "tokens see none behind them"),
        (("both.wafer", "a"), "no entry takes one token, the smallest takes 4"),
    ],
)
def test_what_the_command_line_refuses(here: Path, words: tuple[str, ...], message: str) -> None:
    done = waferc("generate", str(here / words[0]), *words[1:])
    assert done.exit_code != 0 and message in done.stderr and done.stderr.count("\n") == 1


# -- the example's model -------------------------------------------------------------------------

TRAINED = Path(__file__).resolve().parent.parent / "examples" / "diffusion" / "kjv-diffusion.onnx"
VERSE = "in the beginning god created the heaven and the earth and the ea"


@pytest.mark.thorough
def test_the_trained_model_fills_in_a_verse(tmp_path: Path) -> None:
    """By one thread and two, the same; and most of what is masked is as it was."""
    folder = TRAINED.parent
    entry = ("--wafer", "32x32", "--entry", "whole:S=64", "--capacity", "65")
    words = ("--tokenizer", str(folder / "tokenizer.json"))
    path = str(tmp_path / "kjv.wafer")
    good("compile", str(TRAINED), *entry, *words, "-o", path)
    masked = "".join("[MASK]" if i % 5 == 2 else c for i, c in enumerate(VERSE[:-1]))
    how = ("generate", path, masked, "--diffusion", "--steps", "4", "--max-tokens", "1", "--json", "-")
    one, two = (json.loads(good(*how, "--threads", str(n))) for n in (1, 2))
    assert one["token_ids"] == two["token_ids"] and one["diffusion"] == two["diffusion"]
    text = VERSE[:2] + one["text"]
    assert len(text) == 64 and one["diffusion"]["taken"] == [4, 4, 3, 3]
    right = [text[i] == VERSE[i] for i in range(2, 63, 5)]
    assert sum(right) >= 0.6 * len(right), text
