"""Texts by a language model: what ends one, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from .decoding import Decoding, Speculated
from .diffusion import Denoised, Denoising
from .tokens import Stream, Tokenizer


@dataclass(frozen=True)
class Generated:
    """A text that a model made. token_ids: with the one that ended it. Seconds: of prompt and of decoding.

    decoded: tokens that the prompt's pass did not give, the first one by one. end: why there are no more
    tokens. speculated, denoised: what came of drafts, and of masks.
    """

    token_ids: tuple[int, ...]
    text: str
    end: Literal["stop", "max-tokens", "capacity"]
    prompt_seconds: float
    decode_seconds: float
    decoded: int
    speculated: Speculated | None = None
    denoised: Denoised | None = None

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
    decoding: Decoding | Denoising,
    tokenizer: Tokenizer,
    context: Sequence[int],
    ending: Ending,
    show: Callable[[str], None],
) -> Generated:
    """The text of tokens as they come, up to an ending; `show` is given it piece by piece.

    context: the tokens before. The tokenizer's own ends end it, too. Raises InputError for a prompt that
    cannot be taken. The program then holds the prompt and all tokens but the last, or the complete blocks
    before the last one.
    """
    ends = {*tokenizer.ends, *ending.tokens}
    stream = Stream(tokenizer, context, ending.texts)
    pieces: list[str] = []

    def give(text: str) -> None:
        if text:
            pieces.append(text)
            show(text)

    tokens: list[int] = []
    end: Literal["stop", "max-tokens", "capacity"] = "max-tokens"
    coming = iter(decoding)
    while len(tokens) < ending.most:
        token = next(coming, None)
        if token is None:
            end = "capacity"
            break
        tokens.append(token)
        if token in ends:
            end = "stop"
            break
        give(stream.push(token))
        if stream.stopped:
            end = "stop"
            break
    coming.close()
    if not stream.stopped:
        give(stream.rest())
    times, made = (decoding.prompt_seconds, decoding.seconds), max(0, len(tokens) - decoding.with_prompt)
    came = decoding.speculated, decoding.denoised
    return Generated(tuple(tokens), "".join(pieces), end, *times, made, *came)
