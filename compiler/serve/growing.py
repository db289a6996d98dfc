"""One text on its way: what was asked for, what comes of it, and how far it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...ir.op import Array
from ..language.generate import Ending
from ..language.tokens import Stream, Tokenizer
from .choose import Choice, Chooser, Chosen, Matcher
from .refusals import Refused


@dataclass(frozen=True)
class Piece:
    """More of a text: characters that are complete, and the tokens that were chosen meanwhile."""

    text: str
    tokens: tuple[Chosen, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The end of a text. reason: length where there was no room for more, or no more was asked for.

    prompt, made: tokens, with the one that ended it. prompt_calls, calls: of the program's entries, up to the
    first token and in all. Seconds: until a slot was free, from then to the first token, and from that to the
    last.
    """

    reason: Literal["stop", "length"]
    prompt: int
    made: int
    prompt_calls: Counter[str]
    calls: Counter[str]
    waited: float
    prompt_seconds: float
    decode_seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """Of decoding, on the host; None if the first token was the last."""
        return (self.made - 1) / self.decode_seconds if self.made > 1 and self.decode_seconds > 0 else None


@dataclass(frozen=True)
class Failed:
    """A text that cannot go on, and what its client is told."""

    why: Refused


Event = Piece | Finished | Failed


@dataclass(eq=False)
class Growing:
    """A text that is asked for. prompt: its tokens. deliver: is told what comes, from the program's thread.

    gone: nobody waits for it any more; it ends at its next token.
    """

    prompt: Sequence[int]
    ending: Ending
    choice: Choice
    tokenizer: Tokenizer
    deliver: Callable[[Event], None]
    matcher: Matcher | None = None
    gone: bool = False
    calls: Counter[str] = field(default_factory=Counter[str])
    taken: int = 0  # tokens of the prompt that the program has
    last: int | None = None  # the token that it has not
    made: int = 0

    def __post_init__(self) -> None:
        self._chooser = Chooser(self.choice, self.matcher)
        self._stream = Stream(self.tokenizer, self.prompt, self.ending.texts)
        self._prompt_calls = Counter[str]()
        self._asked = self._placed = self._first = time.perf_counter()

    def placed(self) -> None:
        """It has a slot."""
        self._placed = self._first = time.perf_counter()

    @property
    def left(self) -> int:
        """Tokens that the program is to take before it can make the next one."""
        return 1 if self.last is not None else len(self.prompt) - self.taken

    def next(self, most: int) -> Sequence[int]:
        """What the program is to take next, at most so many tokens of the prompt."""
        if self.last is not None:
            return (self.last,)
        return self.prompt[self.taken : self.taken + most]

    def took(self, logits: Array, given: int, entry: str, room: int | None) -> bool:
        """After a call that took `given` tokens: whether the text is at its end.

        room: positions of the slot that are free.
        """
        self.calls[entry] += 1
        if self.last is None:
            self.taken += given
            if self.taken < len(self.prompt):
                return False
            self._prompt_calls = Counter(self.calls)
        chosen = self._chooser.choose(logits)
        self.last, self.made = chosen.token, self.made + 1
        if self.made == 1:
            self._first = time.perf_counter()
        if chosen.token in self.ending.tokens:
            self._give(self._stream.rest())
            return self._end("stop")
        text = self._stream.push(chosen.token)
        if self._stream.stopped:
            self._give(text, chosen)
            return self._end("stop")
        over = self._chooser.ended
        if over or self.made == self.ending.most or room == 0:
            self._give(text + self._stream.rest(), chosen)
            return self._end("stop" if over else "length")
        self._give(text, chosen)
        return False

    def _give(self, text: str, chosen: Chosen | None = None) -> None:
        told = chosen is not None and self.choice.likeliest is not None
        if text or told:
            self.deliver(Piece(text, (chosen,) if told and chosen is not None else ()))

    def _end(self, reason: Literal["stop", "length"]) -> bool:
        now = time.perf_counter()
        self.deliver(
            Finished(
                reason,
                len(self.prompt),
                self.made,
                self._prompt_calls,
                self.calls,
                self._placed - self._asked,
                self._first - self._placed,
                now - self._first,
            )
        )
        return True
