"""A program fed with tokens: chunks by the entries that take them, positions that are free, logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...ir.op import Array
from ...runtime.ports import Ports
from ...runtime.program import InputError, Kept
from ..errors import VerificationFailed
from ..show.text import plural
from .entries import Entry, judge_step, language_encoder, language_entries


class Decoder(Protocol):
    """What of a loaded program (`runtime.program.Program`) is needed here."""

    @property
    def entries(self) -> Mapping[str, Ports]: ...
    @property
    def length(self) -> int: ...
    @property
    def capacity(self) -> int | None: ...
    @property
    def changes(self) -> int: ...
    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]: ...
    def reset(self) -> None: ...
    def keep(self) -> Kept: ...
    def restore(self, kept: Kept) -> None: ...
    def rewind(self, length: int) -> None: ...


@dataclass(frozen=True)
class Snapshot:
    """A text as it was at a moment, apart from its tokens. source: positions of what the encoder took."""

    kept: Kept
    source: int | None


class TokenModel:
    """A program fed with tokens. Raises ArtifactError where it is no language model."""

    def __init__(self, program: Decoder, threads: int | None = None) -> None:
        self._program, self._threads = program, threads
        self._entries = language_entries(program.entries)
        self._encoder = language_encoder(program.entries)
        self._source: int | None = None  # positions of what the encoder took
        self.vocabulary = self._entries[-1].vocabulary
        self.ran = Counter[str]()  # passes so far, by entry

    @property
    def step(self) -> str:
        """The entry that takes one token. Raises ArtifactError where none does."""
        judge_step(self._entries)
        return self._entries[-1].name

    def entry_for(self, tokens: int) -> Entry:
        """The entry that takes the first of so many tokens: the largest that they fill. Raises ArtifactError
        where no entry takes one token."""
        judge_step(self._entries)
        return next(e for e in self._entries if e.tokens <= tokens)

    @property
    def padding(self) -> int:
        """The token that fills up what an encoder takes."""
        return 0

    @property
    def capacity(self) -> int | None:
        """Positions of the caches; None where there is no limit."""
        return self._program.capacity

    @property
    def room(self) -> int | None:
        """Positions that are free; None where there is no limit."""
        return None if self.capacity is None else self.capacity - self.length

    @property
    def remembers(self) -> bool:
        """Whether a call leaves states to the next one."""
        return any(ports.states for ports in self._program.entries.values())

    @property
    def changes(self) -> int:
        """How often the program's states were changed."""
        return self._program.changes

    def reset(self) -> None:
        """Forgets all tokens, and the source."""
        self._program.reset()
        self._source = None

    @property
    def length(self) -> int:
        """Tokens that the caches hold."""
        return self._program.length

    def rewind(self, length: int) -> None:
        """Forgets all tokens but the first `length`. Raises InputError where that cannot be done."""
        self._program.rewind(length)

    def keep(self) -> Snapshot:
        """The text as it is, to go on with after another one."""
        return Snapshot(self._program.keep(), self._source)

    def restore(self, snapshot: Snapshot) -> None:
        """Goes back to a text that was kept."""
        self._program.restore(snapshot.kept)
        self._source = snapshot.source

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
        self.judge(ids, self.room)
        if source is not None:
            self.encode(source)
        elif self.has_encoder and self._source is None:
            raise InputError("the model has an encoder: its source comes with the first tokens")
        found, at = np.zeros(0, np.float32), 0
        while at < len(ids):
            entry = self.entry_for(len(ids) - at)
            found = self._run(entry, ids[at : at + entry.tokens])[-1]
            at += entry.tokens
        self._judge_finite(found[None])
        return found

    @property
    def widths(self) -> tuple[int, ...]:
        """How many tokens a pass may take that gives logits after each of them, ascending."""
        return tuple(sorted({e.tokens for e in self._entries if e.rows == e.tokens}))

    def widest(self, room: int | None) -> int:
        """The largest of `widths` for which there is room."""
        return max((n for n in self.widths if room is None or n <= room), default=0)

    def rows(self, ids: Sequence[int]) -> Array:
        """Logits [tokens, vocabulary] after each of `ids`, in one pass of the smallest entry that gives them.

        One that takes more is filled up, and what fills it is forgotten: a model must see nothing of the
        tokens after a position. Raises InputError as `logits` does, and where no entry takes as many in the
        room that there is.
        """
        self.judge(ids, self.room)
        fitting = [e for e in self._entries if e.rows == e.tokens >= len(ids)]
        entry = fitting[-1] if fitting else self._entries[0]
        if not fitting or (self.room is not None and entry.tokens > self.room):
            free = "" if self.room is None else f" in {plural(self.room, 'free position')}"
            raise InputError(f"no entry gives logits of {plural(len(ids), 'token')}{free}")
        held = self.length
        found = self._run(entry, [*ids, *[ids[-1]] * (entry.tokens - len(ids))])[: len(ids)]
        if len(ids) < entry.tokens:
            self.rewind(held + len(ids))
        self._judge_finite(found)
        return found

    def _run(self, entry: Entry, ids: Sequence[int]) -> Array:
        """The logits that an entry gives, [rows, vocabulary]."""
        feed = entry.feed(ids, self._program.length, self._source or 0)
        outputs = self._program.run(feed, self._threads, entry.name)
        self.ran[entry.name] += 1
        return outputs[entry.logits].reshape(-1, self.vocabulary)

    def _judge_finite(self, found: Array) -> None:
        if not np.isfinite(found.max(-1)).all():  # one that is -inf is never chosen
            raise VerificationFailed(f"logits at position {self._program.length - 1} are not finite")

    def judge(self, ids: Sequence[int], room: int | None) -> None:
        """Raises InputError for tokens that the model does not know, none, or more than `room`."""
        if not ids:
            raise InputError("the prompt is empty")
        if room is not None and len(ids) > room:
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
