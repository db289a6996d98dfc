"""`/v1/completions`: texts, or tokens, to what follows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import Answers, Text, identity, now
from .asking import LEAST, choice_of, stops_of
from .choose import Chosen
from .growing import Finished, Piece
from .refusals import Refused
from .served import Served, Wanted


def wanted_completions(served: Served, body: Mapping[str, Any]) -> tuple[Wanted, list[str]]:
    """What a judged body asks for, and what each prompt's answers begin with. Raises Refused."""
    given: list[Any] = prompts_in(body["prompt"])
    if body["echo"] and body["logprobs"] is not None:
        raise Refused("logprobs of a prompt are not given: not with echo", "logprobs")
    prompts = [served.prompt_ids(p, "prompt") if isinstance(p, str) else p for p in given]
    echoes = [p if isinstance(p, str) else served.tokenizer.text(p) for p in given]
    wanted = Wanted(
        prompts,
        body["n"],
        body["max_tokens"],
        stops_of(body),
        choice_of(body, body["logprobs"]),
    )
    return wanted, echoes if body["echo"] else ["" for _ in given]


def prompts_in(value: Any) -> list[Any]:
    """Texts and lists of tokens, of a field that may hold one or several of either."""
    if isinstance(value, str) or isinstance(value[0], int):
        return [value]
    return list(value)


@dataclass
class Completions:
    """The form of answers. echoes: what each prompt's begin with. usage: whether a stream ends with it."""

    answers: Answers
    echoes: Sequence[str]
    usage: bool
    named = False

    def __post_init__(self) -> None:
        same = {"id": identity("cmpl"), "object": "text_completion", "created": now()}
        self._same = {**same, "model": self.answers.served.name}
        self._offsets = [len(self._echo(i)) for i in range(len(self.answers.texts))]

    def _echo(self, index: int) -> str:
        return self.echoes[index // self.answers.wanted.n]

    def whole(self) -> dict[str, Any]:
        choices = [self._choice(i, self._echo(i) + t.text, t) for i, t in enumerate(self.answers.texts)]
        end = {"usage": self.answers.usage, "x_waferc": self.answers.timings}
        return {**self._same, "choices": choices, **end}

    def _choice(self, index: int, text: str, of: Text) -> dict[str, Any]:
        logs = self._logprobs(index, of.tokens)
        return {"index": index, "text": text, "logprobs": logs, "finish_reason": of.ended.reason}

    def _logprobs(self, index: int, tokens: Sequence[Chosen]) -> dict[str, Any] | None:
        """In the old form: by lists. An offset is where a token's own text would begin."""
        if self.answers.wanted.choice.likeliest is None:
            return None
        of = self.answers.served.bytes
        names = [of.text(chosen.token) for chosen in tokens]
        offsets: list[int] = []
        for name in names:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(name)
        return {
            "tokens": names,
            "token_logprobs": [max(c.share or 0.0, LEAST) for c in tokens],
            "top_logprobs": [
                {of.text(t): max(share, LEAST) for t, share in chosen.likeliest} for chosen in tokens
            ],
            "text_offset": offsets,
        }

    def opening(self) -> Iterator[dict[str, Any]]:
        for i in range(len(self.answers.texts)):
            if self._echo(i):
                yield self._chunk(i, self._echo(i))

    def piece(self, index: int, event: Piece | Finished) -> Iterator[dict[str, Any]]:
        if isinstance(event, Piece):
            yield self._chunk(index, event.text, event.tokens)
            return
        timed = {"x_waferc": self.answers.timings} if self.answers.over else {}
        yield {**self._chunk(index, "", reason=event.reason), **timed}

    def closing(self) -> Iterator[dict[str, Any]]:
        if self.usage:
            yield {**self._same, "choices": [], "usage": self.answers.usage}

    def _chunk(
        self, index: int, text: str, tokens: Sequence[Chosen] = (), reason: str | None = None
    ) -> dict[str, Any]:
        logs = self._logprobs(index, tokens) if tokens else None
        choice = {"index": index, "text": text, "logprobs": logs, "finish_reason": reason}
        return {**self._same, "choices": [choice]}
