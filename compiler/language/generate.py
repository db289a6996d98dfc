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

IDS, MASK, LOGITS = "input_ids", "attention_mask", "logits"
POSITIONS = ("position_ids", "cache_position")
SOURCE_MASK = "encoder_attention_mask"  # of a decoder: where its encoder's source has tokens


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

    def feed(self, ids: Sequence[int], start: int, source: int) -> dict[str, Array]:
        """The inputs for tokens at positions from `start` on, behind a source of so many positions."""
        end = start + self.tokens
        found: dict[str, Array] = {}
        for name, port in self.inputs.items():
            if name == IDS:
                value: Any = ids
            elif name in POSITIONS:
                value = np.arange(start, end)
            else:  # 1 where a position holds a token
                value = np.arange(port.shape[-1]) < (source if name == SOURCE_MASK else end)
            found[name] = np.asarray(value).astype(port.dtype).reshape(port.shape)
        return found


@dataclass(frozen=True)
class Encoder:
    """The entry that takes what a text is made of. source: its input of tokens, or of something else; mask:
    the one that says where there are tokens, None without such.
    """

    name: str
    source: Port
    mask: Port | None

    @property
    def room(self) -> int:
        """Positions of a source."""
        return self.source.shape[-1]

    def feed(self, source: Sequence[int] | Array, pad: int) -> tuple[dict[str, Array], int]:
        """The inputs for a source, and how many positions it has. pad: the token that fills it up.

        Raises InputError where it does not fit.
        """
        given, port = np.asarray(source), self.source
        if port.dtype.kind == "f":
            shape = port.shape[1:] if given.ndim < len(port.shape) else port.shape
            if given.shape != shape:
                raise InputError(f"the source has shape {list(given.shape)}, the model takes {list(shape)}")
            return {port.name: given.astype(port.dtype).reshape(port.shape)}, self.room
        if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
            raise InputError("the source is no list of tokens")
        count = len(given)
        if count > self.room or (self.mask is None and count < self.room):
            raise InputError(f"the source has {plural(count, 'token')}, the model takes {self.room:,}")
        ids = np.pad(given, (0, self.room - count), constant_values=pad)
        found = {port.name: ids.astype(port.dtype).reshape(port.shape)}
        if self.mask is not None:
            filled = np.arange(self.room) < count
            found[self.mask.name] = filled.astype(self.mask.dtype).reshape(self.mask.shape)
        return found, count


def language_encoder(entries: Mapping[str, Ports]) -> Encoder | None:
    """The entry of an encoder, if a language model has one: it fills states and has no outputs."""
    for name, ports in entries.items():
        if ports.outputs or not ports.states:
            continue
        inputs = {p.name: p for p in ports.inputs if p.name not in ports.kept}
        mask = inputs.pop(MASK, None)
        if len(inputs) == 1:
            return Encoder(name, next(iter(inputs.values())), mask)
    return None


def language_entries(entries: Mapping[str, Ports]) -> tuple[Entry, ...]:
    """A language model's entries, those of many tokens first, without its encoder's. Raises ArtifactError
    where it is none."""
    encoder = language_encoder(entries)
    own = {name: ports for name, ports in entries.items() if encoder is None or name != encoder.name}
    if not own:
        raise ArtifactError("not a language model: no entry has outputs")
    found = tuple(sorted((_entry(name, ports) for name, ports in own.items()), key=lambda e: -e.tokens))
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
        if port.name not in (IDS, *POSITIONS, MASK, SOURCE_MASK):
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


class TokenModel:
    """A program fed with tokens. Raises ArtifactError where it is no language model."""

    def __init__(self, program: Decoder, threads: int | None = None) -> None:
        self._program, self._threads = program, threads
        self._entries = language_entries(program.entries)
        self._encoder = language_encoder(program.entries)
        self._source: int | None = None  # positions of what the encoder took
        self.vocabulary = self._entries[-1].vocabulary

    @property
    def step(self) -> str:
        """The entry that takes one token."""
        return self._entries[-1].name

    @property
    def padding(self) -> int:
        """The token that fills up what an encoder takes."""
        return 0

    @property
    def room(self) -> int | None:
        """Positions that are free; None where there is no limit."""
        capacity = self._program.capacity
        return None if capacity is None else capacity - self._program.length

    def reset(self) -> None:
        """Forgets all tokens, and the source."""
        self._program.reset()
        self._source = None

    @property
    def has_encoder(self) -> bool:
        """Whether the model makes its texts of something else, which `encode` takes."""
        return self._encoder is not None

    def encode(self, source: Sequence[int] | Array) -> None:
        """Takes what a text is to be made of, before its first token: tokens, or an array of what else the
        encoder reads.

        Raises InputError, with nothing run, for a source that does not fit or comes too late.
        """
        if self._encoder is None:
            raise InputError("the model has no encoder, which a source is for")
        if self._program.length or self._source is not None:
            raise InputError("a source comes before the first tokens; reset the model for another one")
        feed, count = self._encoder.feed(source, self.padding)
        self._program.run(feed, self._threads, self._encoder.name)
        self._source = count

    def logits(self, ids: Sequence[int], source: Sequence[int] | Array | None = None) -> Array:
        """Logits [vocabulary] after the last of `ids`, which follow the tokens given before.

        source: see `encode`; with the first tokens of a model that has an encoder, and with no others.
        Raises InputError, with nothing run, for tokens that the model does not know, none, or more than fit.
        """
        self._judge(ids)
        if source is not None:
            self.encode(source)
        elif self.has_encoder and self._source is None:
            raise InputError("the model has an encoder: its source comes with the first tokens")
        found, at = np.zeros(0, np.float32), 0
        while at < len(ids):
            entry = next(e for e in self._entries if e.tokens <= len(ids) - at)
            feed = entry.feed(ids[at : at + entry.tokens], self._program.length, self._source or 0)
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
