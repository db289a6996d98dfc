"""Text from a language model: chunks, sampling, streaming, templates, and what goes wrong."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from language import CHAT, byte_tokenizer, byte_tokens
from waferc.compiler.errors import ArtifactError, UsageError, VerificationFailed
from waferc.compiler.language import tokens as text_module
from waferc.compiler.language.decoding import Decoding
from waferc.compiler.language.entries import language_entries
from waferc.compiler.language.generate import Ending, generate
from waferc.compiler.language.model import TokenModel
from waferc.compiler.language.sampling import Sampling
from waferc.compiler.language.tokens import ChatTemplate, Stream, Tokenizer, UnusableText
from waferc.ir.op import Array
from waferc.runtime.ports import Port, Ports
from waferc.runtime.program import InputError

I64, I32, F32 = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.float32)
TOKENIZER = Tokenizer(byte_tokenizer())
VOCABULARY = TOKENIZER.size
BYTES = byte_tokens()


def ports(tokens: int, capacity: int = 64, vocabulary: int = VOCABULARY) -> Ports:
    cache = (1, 2, capacity, 4)
    return Ports(
        (
            Port("input_ids", (1, tokens), I64),
            Port("attention_mask", (1, capacity), I64),
            Port("position_ids", (1, tokens), I32),
            Port("past.key", cache, F32),
        ),
        (Port("logits", (1, tokens, vocabulary), F32), Port("present.key", cache, F32)),
        (("past.key", "present.key"),),
    )


@dataclass
class Script:
    """A program that says `answer` after any prompt, then <|im_end|>: it finds its place by position."""

    answer: Sequence[int]
    prompt: int  # tokens before the answer
    sizes: Sequence[int] = (1,)
    capacity: int | None = 64
    length: int = 0
    calls: list[tuple[str, list[int]]] = field(default_factory=list)
    fail_at: int = -1  # positions at which a call is interrupted, once

    @property
    def entries(self) -> Mapping[str, Ports]:
        return {f"of{n}": ports(n, self.capacity or 64) for n in self.sizes}

    def reset(self) -> None:
        self.length = 0

    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]:
        ids, at = inputs["input_ids"], inputs["position_ids"]
        end = self.length + ids.shape[1]
        assert entry == f"of{ids.shape[1]}"
        assert ids.dtype == I64 and at.dtype == I32
        assert at.tolist() == [list(range(self.length, end))]
        assert inputs["attention_mask"].sum() == min(end, self.capacity or 64)
        if self.length <= self.fail_at < end:
            self.fail_at = -1
            raise KeyboardInterrupt
        self.length = end
        self.calls.append((entry, ids[0].tolist()))
        logits = np.zeros((1, ids.shape[1], VOCABULARY), np.float32)
        after = end - self.prompt
        logits[0, -1, self.answer[after] if 0 <= after < len(self.answer) else 2] = 9
        return {"logits": logits}


def said(
    answer: str, prompt: str = "dcba!", most: int = 64, stops: Sequence[str] = (), **options: Any
) -> tuple[Any, list[str], Script]:
    ids = TOKENIZER.tokens(prompt)
    script = Script(TOKENIZER.tokens(answer), len(ids), **options)
    pieces: list[str] = []
    decoding = Decoding(TokenModel(script), ids, Sampling())
    found = generate(decoding, TOKENIZER, ids, Ending(most, texts=stops), pieces.append)
    return found, pieces, script


# -- prompts and tokens ------------------------------------------------------------------------


def test_a_prompt_goes_in_by_the_largest_entries_that_fit() -> None:
    prompt = "abcdefghijklmno"
    found, _, script = said("yes", prompt, sizes=(4, 1, 8))
    assert [name for name, _ in script.calls] == ["of8", "of4", "of1", "of1", "of1", "of1", "of1", "of1"]
    fed = list(itertools.chain(*(ids for _, ids in script.calls)))
    assert fed == TOKENIZER.tokens(prompt) + TOKENIZER.tokens("yes")
    assert found.text == "yes" and found.end == "stop"
    assert found.token_ids == (*TOKENIZER.tokens("yes"), 2)
    assert found.decoded == 3 and found.tokens_per_second > 0


def test_the_text_comes_piece_by_piece() -> None:
    found, pieces, _ = said("one two")
    assert pieces == ["o", "n", "e", " t", "w", "o"] and found.text == "one two"


def test_max_tokens_and_capacity_end_it() -> None:
    found, _, script = said("a long answer", most=4)
    assert (found.text, found.end, len(script.calls)) == ("a lo", "max-tokens", 8)
    found, _, script = said("a long answer", capacity=8)
    assert (found.text, found.end, script.length) == ("a lo", "capacity", 8)
    found, _, _ = said("a", most=1)
    assert found.decoded == 0 and found.tokens_per_second is None


def test_a_program_without_a_limit() -> None:
    assert said("fine", capacity=None)[0].text == "fine"


def test_what_a_model_cannot_take_is_refused_before_anything_runs() -> None:
    script = Script([5], 8, capacity=8)
    model = TokenModel(script)
    with pytest.raises(InputError, match=r"^no room for 9 tokens: 8 of 8 positions are free"):
        model.logits(list(range(9)))
    with pytest.raises(InputError, match=rf"^token {VOCABULARY} is not in the model's vocabulary of 262"):
        model.logits([1, VOCABULARY, 2])
    with pytest.raises(InputError, match=r"^token -1 "):
        model.logits([-1])
    with pytest.raises(InputError, match="empty"):
        model.logits([])
    assert script.calls == []
    assert model.logits(list(range(8))).argmax() == 5
    with pytest.raises(InputError, match=r"^no room for 1 token: 0 of 8"):
        model.logits([1])


def test_after_an_interrupt_the_program_starts_anew() -> None:
    ids = TOKENIZER.tokens("dcba!")
    script = Script(TOKENIZER.tokens("again"), len(ids), fail_at=7)
    model, pieces = TokenModel(script), list[str]()
    with pytest.raises(KeyboardInterrupt):
        generate(Decoding(model, ids, Sampling()), TOKENIZER, ids, Ending(64), pieces.append)
    assert pieces == ["a", "g", "a"]
    model.reset()
    assert (
        generate(Decoding(model, ids, Sampling()), TOKENIZER, ids, Ending(64), pieces.append).text == "again"
    )


def test_logits_that_are_not_finite_are_not_sampled() -> None:
    class Broken(Script):
        def run(self, *given: Any, **extra: Any) -> dict[str, Array]:
            return {"logits": super().run(*given, **extra)["logits"] * np.float32("nan")}

    with pytest.raises(VerificationFailed, match="logits at position 2 are not finite"):
        TokenModel(Broken([5], 3)).logits([1, 2, 3])


def test_what_is_no_language_model() -> None:
    good = ports(1)
    ids = good.inputs[0]
    wrong = {
        "no integer input 'input_ids'": Ports((Port("x", (1, 8), F32),), good.outputs, ()),
        "input 'pixels' is none": Ports((ids, Port("pixels", (3, 8), F32)), good.outputs, ()),
        "input 'past.key' is none": Ports(good.inputs, good.outputs, ()),
        "one text at a time": Ports((Port("input_ids", (2, 1), I64),), good.outputs, ()),
        "no output has logits": Ports((ids,), (Port("label", (1,), F32),), ()),
    }
    for message, one in wrong.items():
        with pytest.raises(ArtifactError, match=message):
            language_entries({"main": one})
    last = Port("logits", (1, 1, VOCABULARY), F32)
    with pytest.raises(ArtifactError, match="no entry takes one token, the smallest takes 4"):
        language_entries({"prefill": replace(ports(4), outputs=(last, *ports(4).outputs[1:]))})
    (whole,) = language_entries({"block": ports(4)})  # masks can be found in it, no token behind another
    assert (whole.tokens, whole.rows) == (4, 4)


def test_logits_are_found_without_their_name() -> None:
    outputs = (Port("hidden", (1, 9, 32), F32), Port("scores", (1, 1, 99), F32))
    (entry,) = language_entries({"main": Ports((Port("input_ids", (1, 1), I64),), outputs, ())})
    assert (entry.logits, entry.vocabulary) == ("scores", 99)


# -- sampling ----------------------------------------------------------------------------------

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], np.float32))


def drawn(count: int, **sampling: Any) -> Array:
    """How often each token is drawn, as a share."""
    choose = Sampling(**sampling).chooser()
    return np.bincount([choose(LOGITS) for _ in range(count)], minlength=len(LOGITS)) / count


def test_greedy_takes_the_likeliest_and_of_two_alike_the_first() -> None:
    choose = Sampling().chooser()
    assert choose(LOGITS) == 1
    assert choose(np.array([0, 3, 3], np.float32)) == 1


@pytest.mark.parametrize(
    "sampling, expected",
    [
        ({}, [0.1, 0.4, 0.05, 0.3, 0.15]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"top_k": 1}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.6}, [0, 4 / 7, 0, 3 / 7, 0]),
        ({"top_p": 0.3}, [0, 1, 0, 0, 0]),
        ({"top_p": 1e-9}, [0, 1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.9}, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
        ({"temperature": 1e-300}, [0, 1, 0, 0, 0]),
        ({"temperature": 0.5}, list(np.array([0.01, 0.16, 0.0025, 0.09, 0.0225]) / 0.285)),
    ],
)
def test_tokens_are_drawn_by_their_shares(sampling: dict[str, float], expected: list[float]) -> None:
    shares = drawn(20_000, **{"temperature": 1.0, **sampling})
    np.testing.assert_allclose(shares, expected, atol=0.015)
    assert not shares[np.array(expected) == 0].any()


def test_a_seed_gives_the_same_tokens() -> None:
    def some(seed: int) -> list[int]:
        choose = Sampling(1.0, seed=seed).chooser()
        return [choose(LOGITS) for _ in range(50)]

    assert some(3) == some(3) != some(4)


# -- text --------------------------------------------------------------------------------------


def streamed(tokens: Sequence[int], stops: Sequence[str] = ()) -> list[str]:
    stream = Stream(TOKENIZER, TOKENIZER.tokens("before"), stops)
    out: list[str] = []
    for token in tokens:
        out.append(stream.push(token))
        if stream.stopped:
            return out
    return [*out, stream.rest()]


@given(st.text(max_size=40))
def test_only_whole_characters_are_shown(text: str) -> None:
    pieces = streamed(TOKENIZER.tokens(text))
    assert "".join(pieces) == text
    assert text_module.REPLACEMENT in text or not any(text_module.REPLACEMENT in p for p in pieces)


@given(st.binary(max_size=24))
def test_bytes_that_are_no_text_are_shown_as_the_tokenizer_does(raw: bytes) -> None:
    tokens = [BYTES[b] for b in raw]
    assert "".join(streamed(tokens)) == raw.decode("utf-8", "replace") == TOKENIZER.text(tokens)


def test_special_tokens_are_not_text() -> None:
    assert "".join(streamed([*TOKENIZER.tokens("a"), 1, *TOKENIZER.tokens("b")])) == "ab"


@pytest.mark.parametrize(
    "text, stops, expected",
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("one\ntwo", ["\n\n"], "one\ntwo"),
        ("aab", ["ab"], "a"),
        ("aaa", ["ab"], "aaa"),
        ("to the end", ["the", "e"], "to "),
        ("日本", ["本"], "日"),
    ],
)
def test_a_stop_text_ends_it_and_is_not_shown(text: str, stops: list[str], expected: str) -> None:
    assert "".join(streamed(TOKENIZER.tokens(text), stops)) == expected


def test_a_stop_text_ends_a_generation() -> None:
    found, pieces, script = said("one, two", stops=[", "])
    assert found.text == "one" == "".join(pieces) and found.end == "stop"
    assert script.length == len("dcba!") + len("one, ") - 1


def test_what_the_tokenizer_knows() -> None:
    assert TOKENIZER.ends == (2, 0)
    assert TOKENIZER.special("<|im_start|>") == 1 and TOKENIZER.special("t") is None
    assert TOKENIZER.marks == {"eos_token": "<|im_end|>"}
    with pytest.raises(UsageError, match="not UTF-8"):
        TOKENIZER.tokens("\udcff")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"model": {"type": "BPE"}}'])
def test_a_tokenizer_that_cannot_be_read(content: bytes) -> None:
    with pytest.raises(UnusableText, match="no tokenizer that 'tokenizers' can read"):
        Tokenizer(content)


# -- templates ---------------------------------------------------------------------------------


def test_a_template_makes_the_prompt() -> None:
    assert ChatTemplate(CHAT.encode()).prompt("Hi {{ 1 }}", {}) == (
        "<|im_start|>user:Hi {{ 1 }}<|im_end|><|im_start|>"
    )
    marks = b"{{ bos_token }}|{{ messages[0]['content'] }}|{{ missing }}"
    assert ChatTemplate(marks).prompt("x", {"bos_token": "<s>"}) == "<s>|x|"
    spaced = b"{% if add_generation_prompt %}\n  yes\n{% endif %}\n"
    assert ChatTemplate(spaced).prompt("x", {}) == "  yes\n"


HOSTILE = {
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "changing": "{{ messages.append(1) }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "repeated": "{{ 'x' * 10000000000 }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "padded": "{{ '%10000000000d' % 1 }}",
    "ranges": "{{ range(1000000000)|list }}",
    "endless": "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "zero": "{{ 1 // 0 }}",
    "syntax": "{% for %}",
    "bytes": "\udcff",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_is_somebody_elses_text(name: str) -> None:
    with pytest.raises(UnusableText):
        ChatTemplate(HOSTILE[name].encode("utf-8", "surrogateescape"))


def test_a_template_may_refuse() -> None:
    refusing = b"{% if messages[0].content != 'Hello' %}{{ raise_exception('only hello') }}{% endif %}ok"
    template = ChatTemplate(refusing)
    assert template.prompt("Hello", {}) == "ok"
    with pytest.raises(UnusableText, match="the chat template fails: only hello"):
        template.prompt("Bye", {})


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.setitem(sys.modules, "jinja2.sandbox", None)
    for make in (Tokenizer, ChatTemplate):
        with pytest.raises(UsageError, match=r"is not installed: pip install 'waferc\[generate\]'"):
            make(b"{}")
