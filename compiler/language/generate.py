"""Texts by a language model: how tokens are chosen, and what ends one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...ir.op import Array
from .model import TokenModel
from .tokens import Stream, Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. temperature 0: the likeliest. top_k 0, top_p 1: among all."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def chooser(self) -> Callable[[Array], int]:
        """Logits [vocabulary] -> token; of two alike the lower one comes first."""
        random = np.random.default_rng(self.seed)

        def choose(logits: Array) -> int:
            if not self.temperature:
                return int(logits.argmax())
            order: Array = np.argsort(-logits, kind="stable")[: self.top_k or None]
            scaled = logits[order].astype(np.float64)
            with np.errstate(over="ignore"):  # a temperature near 0
                weights = np.exp((scaled - scaled[0]) / self.temperature)
            shares: Array = np.cumsum(weights) / weights.sum()
            # The fewest of the likeliest that make up top_p.
            kept: Array = shares[: int(np.searchsorted(shares, self.top_p)) + 1]
            drawn = int(np.searchsorted(kept, random.random() * float(kept[-1]), side="right"))
            return int(order[min(drawn, len(kept) - 1)])

        return choose


@dataclass(frozen=True)
class Generated:
    """A text that a model made. token_ids: with the one that ended it. Seconds: of prompt and of decoding.

    decoded: the calls that took one token. end: why there are no more tokens.
    """

    token_ids: tuple[int, ...]
    text: str
    end: Literal["stop", "max-tokens", "capacity"]
    prompt_seconds: float
    decode_seconds: float
    decoded: int

    @property
    def tokens_per_second(self) -> float | None:
        """Of decoding; None if the first token was the last."""
        return self.decoded / self.decode_seconds if self.decoded else None


@dataclass(frozen=True)
class Ending:
    """What ends a text besides the tokenizer's own ends. most: tokens."""

    most: int
    tokens: Collection[int] = ()
    texts: Collection[str] = ()


def generate(
    model: TokenModel,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    sampling: Sampling,
    ending: Ending,
    show: Callable[[str], None],
) -> Generated:
    """Continues `prompt` up to an ending; `show` is given the text piece by piece.

    The tokenizer's own ends end it, too. Raises InputError for a prompt that cannot be taken. The
    program then holds the prompt and all tokens but the last.
    """
    choose, ends = sampling.chooser(), {*tokenizer.ends, *ending.tokens}
    stream = Stream(tokenizer, prompt, ending.texts)
    pieces: list[str] = []

    def give(text: str) -> None:
        if text:
            pieces.append(text)
            show(text)

    start = time.perf_counter()
    logits = model.logits(prompt)
    prompted = time.perf_counter() - start
    tokens: list[int] = []
    decoding = 0.0
    end: Literal["stop", "max-tokens", "capacity"] = "max-tokens"
    while len(tokens) < ending.most:
        if tokens:
            if model.room == 0:
                end = "capacity"
                break
            start = time.perf_counter()
            logits = model.logits(tokens[-1:])
            decoding += time.perf_counter() - start
        tokens.append(choose(logits))
        if tokens[-1] in ends:
            end = "stop"
            break
        give(stream.push(tokens[-1]))
        if stream.stopped:
            end = "stop"
            break
    if not stream.stopped:
        give(stream.rest())
    return Generated(tuple(tokens), "".join(pieces), end, prompted, decoding, max(0, len(tokens) - 1))
