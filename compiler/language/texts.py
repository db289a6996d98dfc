"""Several texts over one program, which take turns on it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from ...ir.op import Array
from ...runtime.program import InputError
from ..errors import UsageError
from ..show.text import plural
from .model import Snapshot, TokenModel


class Text:
    """One of several texts, from `Texts.open` to `close`. length: tokens that it has been given."""

    def __init__(self, texts: Texts, start: Snapshot) -> None:
        self._texts, self.held, self.length = texts, start, 0

    @property
    def room(self) -> int | None:
        """Positions that are free; None where there is no limit."""
        return None if (most := self._texts.capacity) is None else most - self.length

    @property
    def closed(self) -> bool:
        return self not in self._texts.opened

    def rewind(self, length: int) -> None:
        """Forgets all tokens but the first `length`. Raises InputError where that cannot be done."""
        self._texts.rewind(self, length)

    def close(self) -> None:
        """Frees the slot; a closed text stays closed."""
        self._texts.close(self)


class Texts:
    """As many texts at once as there are slots, each with caches and a length of its own.

        texts = model.texts(4)
        a, b = texts.open(), texts.open()
        logits = texts.step([a, b], [[1, 2, 3], [4]])  # [2, vocabulary], after the last of each one's tokens
        a.close()

    slots: the most texts that are open. A step takes any of the open ones, each with one token or more (a
    prompt may be given in parts, between steps of others); a text's logits are to the bit those of the
    text alone, given the same tokens in the same parts. The program belongs to its texts while any is open.
    Threads take turns.

    Texts of a program that has caches for one text run one after the other; the caches of all but the one
    that ran last wait at the host. moved: bytes that went between it and the wafer for that, so far.
    """

    def __init__(self, model: TokenModel, slots: int) -> None:
        if slots < 1:
            raise UsageError(f"{slots} slots; texts need one at least")
        self.slots, self.moved = slots, 0
        self.opened: list[Text] = []
        self._model, self._lock = model, threading.RLock()
        self._present: Text | None = None  # the one whose caches the program holds
        self._empty: Snapshot | None = None
        self._seen = -1  # the program's changes when a text left it

    @property
    def capacity(self) -> int | None:
        """Positions of each text; None where there is no limit."""
        return self._model.capacity

    @property
    def free(self) -> int:
        """Slots that no text has."""
        return self.slots - len(self.opened)

    def open(self, source: Sequence[int] | Array | None = None) -> Text:
        """An empty text. source: what an encoder is given, see `TokenModel.encode`.

        Raises InputError where no slot is free, and what `encode` does.
        """
        with self._lock:
            if not self.free:
                raise InputError(f"all of {plural(self.slots, 'slot')} are taken; close a text first")
            self._leave()
            try:
                if self._empty is None:
                    self._model.reset()
                    self._empty = self._model.keep()
                else:
                    self._model.restore(self._empty)
                if source is not None:
                    self._model.encode(source)
                self._present = text = Text(self, self._model.keep())
                self.opened.append(text)
                return text
            finally:
                self._seen = self._model.changes

    def step(self, texts: Sequence[Text], tokens: Sequence[Sequence[int]]) -> Array:
        """Logits [texts, vocabulary] after the last of the tokens that each of `texts` is given.

        Raises InputError, with nothing run, for a text that is closed or there twice and for tokens that one
        cannot take. After what else goes wrong each text's `length` says whether it has its tokens.
        """
        with self._lock:
            if len(texts) != len(tokens):
                raise InputError(f"{plural(len(texts), 'text')}, tokens for {len(tokens)}")
            if len(set(texts)) < len(texts):
                raise InputError("a text is there twice in one step")
            for text, ids in zip(texts, tokens, strict=True):
                self._need(text)
                self._model.judge(ids, text.room)
            out = np.empty((len(texts), self._model.vocabulary), np.float32)
            # The one that is there goes first: its caches need not come.
            order = sorted(range(len(texts)), key=lambda i: texts[i] is not self._present)
            for i in order:
                self._bring(texts[i])
                try:
                    out[i] = self._model.logits(tokens[i])
                finally:
                    self._note(texts[i])
            return out

    def rewind(self, text: Text, length: int) -> None:
        with self._lock:
            self._need(text)
            self._bring(text)
            try:
                self._model.rewind(length)
            finally:
                self._note(text)

    def close(self, text: Text) -> None:
        with self._lock:
            if text in self.opened:
                self.opened.remove(text)
            if text is self._present:
                self._present = None

    def _need(self, text: Text) -> None:
        if text not in self.opened:
            raise InputError("the text is closed, or of another model's texts")

    def _bring(self, text: Text) -> None:
        """Puts a text's caches into the program, and those of the one that is there aside."""
        if text is not self._present:
            self._leave()
            self._model.restore(text.held)
            self.moved += text.held.kept.bytes
            self._present, self._seen = text, self._model.changes
        self._judge_unchanged()

    def _note(self, text: Text) -> None:
        """What became of the text that the program holds."""
        text.length, self._seen = self._model.length, self._model.changes

    def _leave(self) -> None:
        if self._present is not None:
            self._judge_unchanged()
            self._present.held = self._model.keep()
            self.moved += self._present.held.kept.bytes
            self._present = None

    def _judge_unchanged(self) -> None:
        if self._seen != self._model.changes:
            raise UsageError("the model was used besides its texts, whose caches it held; open them anew")
