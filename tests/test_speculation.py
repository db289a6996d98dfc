"""Drafted tokens: texts and chances are those without, in fewer passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from test_generate import ports
from waferc.compiler.errors import ArtifactError, UsageError
from waferc.compiler.language.decoding import Decoding
from waferc.compiler.language.drafts import Drafter, Lookup, Smaller
from waferc.compiler.language.model import TokenModel
from waferc.compiler.language.sampling import Chooser, Sampling
from waferc.ir.op import Array
from waferc.runtime.ports import Ports
from waferc.runtime.program import Kept

VOCABULARY = 6


class Growing:
    """What stands for a program of one text: the tokens that its caches hold."""

    def __init__(self) -> None:
        self.length = self.changes = 0
        self.held = list[int]()

    def reset(self) -> None:
        self.rewind(0)

    def rewind(self, length: int) -> None:
        assert length <= self.length
        self.length = length
        del self.held[length:]

    def keep(self) -> Kept:
        raise NotImplementedError

    def restore(self, kept: Kept) -> None:
        raise NotImplementedError


class Chain(Growing):
    """A program whose next token depends on the last one alone.

    leak: of a pass's last token on all its logits.
    """

    def __init__(
        self,
        seed: int,
        sizes: Sequence[int] = (4, 1),
        capacity: int = 20_000,
        leak: float = 0,
        vocabulary: int = VOCABULARY,
    ) -> None:
        random = np.random.default_rng(seed)
        self.table = random.standard_normal((vocabulary, vocabulary)).astype(np.float32)
        self.sizes, self.capacity, self.leak = sizes, capacity, leak
        super().__init__()

    @property
    def entries(self) -> Mapping[str, Ports]:
        return {f"of{n}": ports(n, 8, len(self.table)) for n in self.sizes}

    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]:
        ids = inputs["input_ids"][0]
        assert inputs["position_ids"][0, 0] == self.length
        self.held += ids.tolist()
        self.length += len(ids)
        assert self.length <= self.capacity
        return {"logits": (self.table[ids] + self.leak * ids[-1])[None]}


def drafter(name: str, sampling: Sampling) -> Drafter | None:
    """By name: none, the text's own n-grams, another chain, the same chain, or one that is always wrong."""
    if name in ("none", "lookup"):
        return Lookup() if name == "lookup" else None
    if name == "few":  # tokens, of which it knows but some
        return Smaller(TokenModel(Chain(5, (1,), vocabulary=4)), sampling, VOCABULARY)
    chain = Chain(3 if name == "same" else 4, (1,))
    if name == "wrong":
        chain.table = -Chain(3).table
    return Smaller(TokenModel(chain), sampling, VOCABULARY)


def decoded(name: str, sampling: Sampling, count: int, **options: Any) -> tuple[list[int], Decoding, Chain]:
    chain = Chain(3, **options)
    decoding = Decoding(TokenModel(chain), [1, 2], sampling, drafter(name, sampling))
    coming = iter(decoding)
    tokens = [token for _, token in zip(range(count), coming, strict=False)]
    coming.close()
    return tokens, decoding, chain


DRAFTERS = ("lookup", "other", "same", "wrong", "few")


# -- greedy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("name", DRAFTERS)
def test_greedy_text_is_the_same_and_so_is_what_the_model_holds(name: str, count: int) -> None:
    wanted, _, plain = decoded("none", Sampling(), count)
    found, decoding, chain = decoded(name, Sampling(), count)
    assert found == wanted
    assert chain.held == plain.held == [1, 2, *wanted[:-1]]
    what = decoding.speculated
    assert what is not None and what.accepted <= what.drafted
    if count == 40 and name not in ("other", "few"):
        passes = sum(what.passes.values())
        assert passes == 39 if name == "wrong" else passes <= (39 + 3) // 4 + (6 if name == "lookup" else 0)
        assert what.closest is not None and 0 < what.closest < 1


@pytest.mark.parametrize("name", DRAFTERS)
@pytest.mark.parametrize("capacity", [4, 5, 6, 7, 8, 9, 21])
def test_the_caches_are_filled_to_the_end(name: str, capacity: int) -> None:
    wanted, _, _ = decoded("none", Sampling(), 100, capacity=capacity)
    found, _, chain = decoded(name, Sampling(), 100, capacity=capacity)
    assert found == wanted and len(found) == capacity - 1 and chain.length == capacity


def test_drafts_of_a_model_of_less_room_end_before() -> None:
    small = Chain(3, (1,), capacity=10)
    decoding = Decoding(
        TokenModel(Chain(3)), [1, 2], Sampling(), Smaller(TokenModel(small), Sampling(), VOCABULARY)
    )
    tokens = [token for _, token in zip(range(30), decoding, strict=False)]
    assert tokens == decoded("none", Sampling(), 30)[0] and small.length <= 10


def test_lookup_finds_the_longest_end_and_its_last_place() -> None:
    assert Lookup().draft([1, 2, 3, 4, 1, 2], 3).tokens == (3, 4, 1)
    assert Lookup().draft([1, 2, 3, 9, 1, 2, 4, 1, 2], 2).tokens == (4, 1)
    assert Lookup().draft([5, 1, 2, 3, 8, 1, 2, 4, 5, 1, 2], 1).tokens == (3,)  # three alike, further away
    assert Lookup().draft([7, 1, 2, 1, 2], 5).tokens == (1, 2, 1, 2, 1)  # beyond the end of the text
    assert Lookup().draft([1, 2, 3], 3).tokens == Lookup().draft([7], 3).tokens == ()
    text, grown = [1, 2, 3, 1, 2, 3, 4, 2, 3], Lookup()
    drafts = [grown.draft(text[: n + 1], 2).tokens for n in range(len(text))]
    assert drafts == [Lookup().draft(text[: n + 1], 2).tokens for n in range(len(text))]
    assert drafts[-1] == (4, 2)


# -- drawn -------------------------------------------------------------------------------------


def astray(counts: Array, shares: Array) -> float:
    """Pearson's chi-square over its degrees of freedom."""
    wanted = shares * counts.sum(-1, keepdims=True)
    used = wanted > 0
    assert not counts[~used].any()
    return float(((counts - wanted)[used] ** 2 / wanted[used]).sum() / (used.sum() - len(counts)))


@pytest.mark.parametrize(
    ("name", "top_k"),
    [
        ("lookup", 0),
        *(
            pytest.param(*case, marks=pytest.mark.thorough)
            for case in [
                ("lookup", 3),
                ("other", 0),
                ("none", 0),
                ("few", 0),
                ("other", 3),
                ("same", 0),
                ("wrong", 0),
                ("wrong", 3),
            ]
        ),
    ],
)
def test_drawn_texts_follow_the_same_distribution(name: str, top_k: int) -> None:
    """10,000 tokens: of each the next ones are as likely as the model says."""
    sampling = Sampling(0.8, top_k=top_k, seed=5)
    tokens, decoding, chain = decoded(name, sampling, 10_000)
    counts = np.zeros((VOCABULARY, VOCABULARY))
    np.add.at(counts, ([2, *tokens[:-1]], tokens), 1)
    choose = Chooser(sampling)
    shares = np.array([choose.shares(row) for row in chain.table])
    assert astray(counts, shares) < 2.4  # 12 or 30 degrees of freedom: 1 in 200 or less by chance
    if name == "other" and not top_k:  # what a rule that takes every draft would give is seen
        taken = np.array([choose.shares(row) for row in Chain(4).table])
        assert astray(np.round(1e4 / VOCABULARY * taken), shares) > 100
    if name == "same":
        what = decoding.speculated
        assert what is not None and what.accepted > 0.99 * what.drafted


def test_a_seed_gives_the_same_text_where_drafts_are_not_drawn() -> None:
    sampling = Sampling(1.0, top_p=0.9, seed=7)
    assert decoded("lookup", sampling, 500)[0] == decoded("none", sampling, 500)[0]


def test_a_draft_of_no_chance_is_never_taken() -> None:
    choose = Chooser(Sampling(1.0, top_k=2, seed=1))
    logits, sure = np.array([3, 2, 1, 0], np.float32), np.array([0, 0, 0, 1.0])
    assert {choose.judge(logits, 3, sure) for _ in range(200)} == {0, 1}
    assert {choose.judge(logits, 3, None) for _ in range(200)} == {0, 1}
    same = choose.shares(logits)
    assert all(choose.judge(logits, 1, same) == 1 for _ in range(200))


# -- what cannot be ----------------------------------------------------------------------------


def test_a_program_needs_an_entry_with_logits_of_several_tokens() -> None:
    one = TokenModel(Chain(3, (1,)))
    with pytest.raises(ArtifactError, match="compile the model with --entry verify:S=4, too"):
        Decoding(one, [1], Sampling(), Lookup())
    model = TokenModel(Chain(3, (8, 4, 1)))
    assert model.widths == (1, 4, 8)
    for most in (8, 0):
        with pytest.raises(UsageError, match="the program verifies 1 to 7"):
            Decoding(model, [1], Sampling(), Lookup(), most)


def test_logits_that_later_tokens_change_verify_nothing() -> None:
    with pytest.raises(ArtifactError, match="a token's logits change with those after it"):
        decoded("lookup", Sampling(), 2, leak=0.125)
    assert len(decoded("none", Sampling(), 2, leak=0.125)[0]) == 2
