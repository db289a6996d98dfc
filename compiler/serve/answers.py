"""A request's texts as they come, on the server's loop; and what all answers have in common."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .choose import Chosen
from .growing import Event, Failed, Finished, Growing, Piece
from .served import Served, Wanted


@dataclass
class Text:
    """What came of one text so far."""

    pieces: list[str] = field(default_factory=list[str])
    tokens: list[Chosen] = field(default_factory=list[Chosen])
    end: Finished | None = None

    def add(self, event: Piece | Finished) -> None:
        if isinstance(event, Piece):
            self.pieces.append(event.text)
            self.tokens.extend(event.tokens)
        else:
            self.end = event

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def ended(self) -> Finished:
        assert self.end is not None
        return self.end


class Answers:
    """The texts of one request under way. Made on the loop; raises Refused where they cannot be taken."""

    def __init__(self, served: Served, wanted: Wanted) -> None:
        self.served, self.wanted = served, wanted
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self.texts = [Text() for _ in range(len(wanted.prompts) * wanted.n)]
        self._growing: Sequence[Growing] = served.start(wanted, self._deliver)

    def _deliver(self, number: int, event: Event) -> None:
        """From the program's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, (number, event))

    async def events(self) -> AsyncGenerator[tuple[int, Piece | Finished]]:
        """What comes, with its text's number, until all are finished. Raises Refused where one cannot be."""
        left = len(self.texts)
        while left:
            number, event = await self._events.get()
            if isinstance(event, Failed):
                self.cancel()
                raise event.why
            self.texts[number].add(event)
            left -= isinstance(event, Finished)
            yield number, event

    async def all(self) -> list[Text]:
        """The texts, once they are finished."""
        async for _ in self.events():
            pass
        return self.texts

    def cancel(self) -> None:
        """Nobody waits for them any more."""
        self.served.scheduler.cancel(self._growing)

    @property
    def over(self) -> bool:
        """Whether all texts are finished."""
        return all(text.end is not None for text in self.texts)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of prompts, each counted once, and of answers."""
        ends = [text.ended for text in self.texts]
        prompt, made = sum(end.prompt for end in ends[:: self.wanted.n]), sum(end.made for end in ends)
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}

    @property
    def timings(self) -> dict[str, Any]:
        return self.served.timings([text.ended for text in self.texts])


def identity(kind: str) -> str:
    """A name for an answer."""
    return f"{kind}-{secrets.token_hex(12)}"


def now() -> int:
    return int(time.time())
