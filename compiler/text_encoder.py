"""Vectors of texts, as a user has them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ..ir.op import Array
from ..runtime.program import InputError
from .errors import ArtifactError
from .language.embedding import encoder_entries
from .language.tokens import MANNER, TOKENIZER, Manner, Tokenizer
from .language_model import Held, held_file
from .show.text import plural


class TextEncoder:
    """Vectors of texts, from a program that holds an encoder alone.

    model, threads: as for `LanguageModel`. Raises what `load` does; ArtifactError for another program.
    """

    def __init__(self, model: str | Path | Held, threads: int | None = None) -> None:
        self._held = held = model if isinstance(model, Held) else held_file(model, threads)
        self._threads = threads
        try:
            self._entries = encoder_entries(held.program.entries)
        except ArtifactError as e:
            raise ArtifactError(f"{held.name}: {e}") from None
        self.dimensions = self._entries[0].dimensions

    @property
    def room(self) -> int:
        """Tokens of a text, at most."""
        return self._entries[-1].tokens

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """None where the program has none: it takes tokens. Raises UnusableText, and UsageError without the
        package that reads it."""
        content = self._held.words.get(TOKENIZER)
        return None if content is None else Tokenizer(content)

    def embed(self, ids: Sequence[int]) -> Array:
        """A text's vector [dimensions] in f32, of length 1: the mean of what comes of its tokens.

        Raises InputError for no tokens, or as many as no entry takes.
        """
        fit = (e for e in self._entries if len(ids) == e.tokens or (e.takes_less and len(ids) < e.tokens))
        entry = next(fit, None) if ids else None
        if entry is None:
            sizes = ", ".join(f"{e.tokens:,}" for e in self._entries)
            raise InputError(f"{plural(len(ids), 'token')} of a text; the encoder takes {sizes}")
        outputs = self._held.program.run(entry.feed(ids, self.padding), self._threads, entry.name)
        return entry.pooled(outputs[entry.hidden], len(ids))

    def entry_for(self, tokens: int) -> str:
        """The entry that takes so many; the largest, if none does."""
        return next((e.name for e in self._entries if tokens <= e.tokens), self._entries[-1].name)

    @cached_property
    def padding(self) -> int:
        """The token that fills a text up."""
        held = self._held.words.get(MANNER)
        return 0 if held is None else Manner.read(held).pad
