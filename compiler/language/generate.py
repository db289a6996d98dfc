"""Tokens from a program that holds a language model: prompts in chunks, then one token after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ...ir.op import Array
from ...runtime.ports import Port, Ports
from ...runtime.program import InputError
from ..errors import ArtifactError, VerificationFailed, quoted
from ..show.text import plural
from .tokens import Stream, Tokenizer

IDS, POSITIONS, MASK, LOGITS = "input_ids", "position_ids", "attention_mask", "logits"


class Decoder(Protocol):
    """What of a loaded program (`runtime.program.Program`) is needed here."""

    @property
    def entries(self) -> Mapping[str, Ports]: ...
    @property
    def length(self) -> int: ...
    @property
    def capacity(self) -> int | None: ...
    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]: ...
    def reset(self) -> None: ...


@dataclass(frozen=True)
class Entry:
    """A way into a model: `tokens` at once, each of the inputs by its role. logits: the output's name."""

    name: str
    tokens: int
    inputs: Mapping[str, Port]
    logits: str
    vocabulary: int

    def feed(self, ids: Sequence[int], start: int) -> dict[str, Array]:
        """The inputs for tokens at positions from `start` on."""
        end = start + self.tokens
        found: dict[str, Array] = {}
        for name, port in self.inputs.items():
            if name == IDS:
                value: Any = ids
            elif name == POSITIONS:
                value = np.arange(start, end)
            else:  # 1 where a position holds a token
                value = np.arange(port.shape[-1]) < end
            found[name] = np.asarray(value).astype(port.dtype).reshape(port.shape)
        return found


def language_entries(entries: Mapping[str, Ports]) -> tuple[Entry, ...]:
    """A language model's entries, those of many tokens first. Raises ArtifactError where it is none."""
    found = tuple(sorted((_entry(name, ports) for name, ports in entries.items()), key=lambda e: -e.tokens))
    if found[-1].tokens != 1:
        raise ArtifactError(
            f"no entry takes one token, the smallest takes {found[-1].tokens}; "
            "compile the model with --entry decode:S=1, too"
        )
    return found


def _entry(name: str, ports: Ports) -> Entry:
    states = {past for past, _ in ports.states}
    inputs = {p.name: p for p in ports.inputs if p.name not in states}
    if IDS not in inputs or inputs[IDS].dtype.kind not in "iu":
        raise ArtifactError(f"not a language model: no integer input {quoted(IDS)}")
    for port in inputs.values():
        if port.name not in (IDS, POSITIONS, MASK):
            raise ArtifactError(
                f"input {quoted(port.name)} is none that a language model is given; "
                "caches are kept by --state and --capacity"
            )
    shape = inputs[IDS].shape
    tokens = int(np.prod(shape))
    if tokens != shape[-1]:
        raise ArtifactError(f"input {quoted(IDS)} has shape {list(shape)}; one text at a time can be made")
    presents = {present for _, present in ports.states}
    floats = [p for p in ports.outputs if p.name not in presents and p.dtype.kind == "f" and len(p.shape) > 1]
    logits = [p for p in floats if p.name == LOGITS] or [p for p in floats if p.shape[-2] == tokens]
    if not logits:
        raise ArtifactError("not a language model: no output has logits for each token")
    return Entry(name, tokens, inputs, logits[0].name, logits[0].shape[-1])


class LanguageModel:
    """A program fed with tokens. Raises ArtifactError where it is no language model."""

    def __init__(self, program: Decoder, threads: int | None = None) -> None:
        self._program, self._threads = program, threads
        self._entries = language_entries(program.entries)
        self.vocabulary = self._entries[-1].vocabulary

    @property
    def step(self) -> str:
        """The entry that takes one token."""
        return self._entries[-1].name

    @property
    def room(self) -> int | None:
        """Positions that are free; None where there is no limit."""
        capacity = self._program.capacity
        return None if capacity is None else capacity - self._program.length

    def reset(self) -> None:
        """Forgets all tokens."""
        self._program.reset()

    def logits(self, ids: Sequence[int]) -> Array:
        """Logits [vocabulary] after the last of `ids`, which follow the tokens given before.

        Raises InputError, with nothing run, for tokens that the model does not know, none, or more than fit.
        """
        self._judge(ids)
        found, at = np.zeros(0, np.float32), 0
        while at < len(ids):
            entry = next(e for e in self._entries if e.tokens <= len(ids) - at)
            feed = entry.feed(ids[at : at + entry.tokens], self._program.length)
            outputs = self._program.run(feed, self._threads, entry.name)
            found = outputs[entry.logits].reshape(-1, self.vocabulary)[-1]
            at += entry.tokens
        if not np.isfinite(found.max()):  # one that is -inf is never chosen
            raise VerificationFailed(f"logits at position {self._program.length - 1} are not finite")
        return found

    def _judge(self, ids: Sequence[int]) -> None:
        if not ids:
            raise InputError("the prompt is empty")
        if (room := self.room) is not None and len(ids) > room:
            raise InputError(
                f"no room for {plural(len(ids), 'token')}: {room:,} of {self._program.capacity:,} positions "
                "are free; compile with a larger --capacity"
            )
        for token in ids:
            if not 0 <= token < self.vocabulary:
                raise InputError(
                    f"token {token} is not in the model's vocabulary of {self.vocabulary:,}; "
                    "is the tokenizer another model's?"
                )


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
    model: LanguageModel,
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
