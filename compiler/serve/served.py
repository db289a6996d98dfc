"""A program that is served: its name, its tokens, its slots, and what it takes on the wafer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ...placement.machine.wafer import Wafer
from ...placement.plan.plan import Plan
from ...runtime.program import InputError
from ...runtime.reports import InvalidIndex
from ..errors import ArtifactError, UsageError
from ..language.tokens import UnusableText
from ..language_model import LanguageModel
from ..show.figures import Figures
from .choose import Choice, Matcher
from .film import film_of
from .grammar import Grammars
from .growing import Event, Finished, Growing
from .pieces import TokenBytes
from .refusals import Refused
from .scheduler import Scheduler


@dataclass(frozen=True)
class Predicted:
    """What a program takes on its wafer. figures: of a call of an entry; plan: of an entry."""

    wafer: Wafer
    figures: Callable[[str], Figures]
    plan: Callable[[str], Plan]


@dataclass(frozen=True)
class Wanted:
    """Answers that are asked for, whatever the endpoint. n: of each prompt. most: tokens of an answer; None:
    what the caches hold. matcher: makes one for each answer.
    """

    prompts: Sequence[Sequence[int]]
    n: int
    most: int | None
    stops: Sequence[str]
    choice: Choice
    matcher: Callable[[], Matcher] | None = None
    most_param: str = "max_tokens"
    prompt_param: str = "prompt"


@dataclass
class Served:
    """A language model. slots: texts at once; waiting: those that may wait. Raises as `LanguageModel` does
    where it has no tokenizer, UsageError for an encoder with its decoder.
    """

    name: str
    model: LanguageModel
    predicted: Predicted
    slots: int
    waiting: int
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        if self.model.has_encoder:
            raise UsageError(f"{self.name} makes texts of a source: decoders and encoders alone are served")
        self.tokenizer = self.model.tokenizer
        self.bytes = TokenBytes(self.tokenizer)
        self.scheduler = Scheduler(self.model, self.slots, self.waiting)
        self._lock = threading.Lock()
        self._grammars: Grammars | None = None

    @property
    def grammars(self) -> Grammars:
        with self._lock:
            if self._grammars is None:
                ends = [t for t in self.model.ending(1).tokens if t < self.model.vocabulary]
                self._grammars = Grammars(self.model.tokenizer_file, self.model.vocabulary, ends)
            return self._grammars

    def prompt_ids(self, text: str, param: str) -> list[int]:
        """Raises Refused for a text that cannot be taken."""
        with refusing(param):
            return self.model.prompt_ids(text)

    def conversation_ids(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], param: str
    ) -> list[int]:
        """Raises Refused for messages that the model's template cannot take."""
        with refusing(param):
            return self.model.conversation_ids(messages, tools)

    def start(self, wanted: Wanted, deliver: Callable[[int, Event], None]) -> list[Growing]:
        """Puts the texts of a request into the queue: those of the first prompt, of the second, and so on.

        deliver: is given the text's number with each event, from another thread. Raises Refused.
        """
        if wanted.n > self.slots:
            raise Refused(f"n: {wanted.n} answers at once; there are slots for {self.slots}", "n")
        self._judge_token(max(wanted.choice.bias, default=0), "logit_bias")
        mosts = [self._most(prompt, wanted) for prompt in wanted.prompts]
        texts: list[Growing] = []
        seed = wanted.choice.sampling.seed
        for prompt, most in zip(wanted.prompts, mosts, strict=True):
            with refusing("stop"):
                ending = self.model.ending(most, wanted.stops)
            for i in range(wanted.n):
                drawn = replace(wanted.choice.sampling, seed=seed + i)
                texts.append(
                    Growing(
                        prompt,
                        ending,
                        replace(wanted.choice, sampling=drawn),
                        self.tokenizer,
                        _numbered(deliver, len(texts)),
                        None if wanted.matcher is None else wanted.matcher(),
                    )
                )
        self.scheduler.submit(texts)
        return texts

    def _judge_token(self, token: int, param: str) -> None:
        if token >= (known := self.model.vocabulary):
            raise Refused(f"{param}: token {token} is not in the model's vocabulary of {known:,}", param)

    def _most(self, prompt: Sequence[int], wanted: Wanted) -> int:
        """Tokens of an answer. Raises Refused for a prompt or a length that the caches do not hold."""
        capacity, param = self.model.capacity, wanted.prompt_param
        if not prompt:
            raise Refused(f"{param}: the prompt has no tokens", param)
        self._judge_token(max(prompt), param)
        if capacity is None:
            return wanted.most or 1 << 20
        room = capacity - len(prompt) + 1  # the last token is not kept
        if room < 1 or (wanted.most or 1) > room:
            most = f" and {wanted.most:,} of an answer" if wanted.most else ""
            raise Refused(
                f"the prompt's {len(prompt):,} tokens{most} do not fit in {capacity:,} positions",
                param if room < 1 else wanted.most_param,
                code="context_length_exceeded",
            )
        return wanted.most or room

    def cycles(self, calls: Mapping[str, int]) -> float:
        """Predicted, of calls of entries."""
        return sum(self.predicted.figures(entry).cycles * count for entry, count in calls.items())

    @cached_property
    def film(self) -> dict[str, Any]:
        """What the page draws while the program makes a token. It takes seconds, once."""
        wafer, figures = self.predicted.wafer, self.predicted.figures(self.model.step)
        about = {"wafer": wafer.name, "clock_hz": wafer.clock_hz}
        return {
            **film_of(self.predicted.plan(self.model.step)).data,
            **about,
            "cycles": figures.cycles,
            "tokens_per_second": figures.calls_per_second,
        }

    def timings(self, ends: Sequence[Finished]) -> dict[str, Any]:
        """`x_waferc` of an answer: what its texts take on the wafer, and took here."""
        decoding = self.predicted.figures(self.model.step)
        wafer = self.predicted.wafer
        cycles = sum(self.cycles(end.calls) for end in ends)
        first = sum(self.cycles(end.prompt_calls) for end in ends)
        rates = [end.tokens_per_second for end in ends]
        slowest = min((rate for rate in rates if rate is not None), default=None)
        return {
            "wafer": {
                "name": wafer.name,
                "clock_hz": wafer.clock_hz,
                "cycles": cycles,
                "prompt_cycles": first,
                "seconds": cycles / wafer.clock_hz,
                "cycles_per_token": decoding.cycles,
                "tokens_per_second": decoding.calls_per_second,
            },
            "host": {
                "waited_seconds": max(end.waited for end in ends),
                "prompt_seconds": max(end.prompt_seconds for end in ends),
                "decode_seconds": max(end.decode_seconds for end in ends),
                "tokens_per_second": slowest,
            },
        }


def _numbered(deliver: Callable[[int, Event], None], number: int) -> Callable[[Event], None]:
    return lambda event: deliver(number, event)


class refusing:
    """Within it, what the model says of a request is a refusal of it. param: what is at fault."""

    def __init__(self, param: str) -> None:
        self._param = param

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, e: BaseException | None, _: object) -> None:
        if isinstance(e, ArtifactError | UnusableText | UsageError | InputError | InvalidIndex):
            raise Refused(f"{self._param}: {e}", self._param) from None


def random_seed() -> int:
    """Of draws that nobody asked to repeat."""
    return int.from_bytes(os.urandom(6), "little")
