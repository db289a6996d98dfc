"""Drafts: tokens that may come next, found cheaply, for a model to verify several in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from ...ir.op import Array
from .model import TokenModel
from .sampling import Chooser, Sampling


@dataclass(frozen=True)
class Draft:
    """Tokens that may follow. shares: [vocabulary] for each, with which it was drawn; None: not by chance."""

    tokens: tuple[int, ...] = ()
    shares: tuple[Array | None, ...] = ()


class Drafter(Protocol):
    """Where drafts come from. ran: passes of another model for them, by entry."""

    @property
    def ran(self) -> Mapping[str, int]: ...
    def draft(self, text: Sequence[int], most: int) -> Draft:
        """At most `most` tokens that may follow `text`. A text is given again as it grows."""
        ...


class Lookup:
    """Drafts from a text's own n-grams: what followed the longest end of the text that was there before, over
    and over where that reaches the end itself.

    Ends of `shortest` to `longest` tokens are looked up; of several places the last one counts. Saxena,
    Prompt Lookup Decoding, 2023.
    """

    ran: Mapping[str, int] = MappingProxyType({})

    def __init__(self, shortest: int = 2, longest: int = 5) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._known = 0  # tokens of the text whose n-grams are listed, all that have a token behind them
        self._after: dict[tuple[int, ...], int] = {}  # of an n-gram the place behind it

    def draft(self, text: Sequence[int], most: int) -> Draft:
        for end in range(self._known + 1, len(text)):
            for n in self._sizes:
                if n <= end:
                    self._after[tuple(text[end - n : end])] = end
        self._known = max(self._known, len(text) - 1)
        for n in self._sizes:
            place = self._after.get(tuple(text[-n:])) if n <= len(text) else None
            if place is not None:
                period = text[place : place + most]  # what is drafted beyond the text's end repeats it
                found = tuple(period[i % len(period)] for i in range(most))
                return Draft(found, (None,) * most)
        return Draft()


class Smaller:
    """Drafts by a smaller model of the same tokens, which chooses as `sampling` says, one after the other.

    vocabulary: tokens of the model that verifies.
    """

    def __init__(self, model: TokenModel, sampling: Sampling, vocabulary: int) -> None:
        self._model, self._choose, self._vocabulary = model, Chooser(sampling, stream=1), vocabulary
        self._held = 0  # tokens of the text that the model holds, and what it has drafted behind them
        self._ahead = list[int]()
        self._before = Counter(model.ran)
        model.reset()

    @property
    def ran(self) -> Mapping[str, int]:
        return self._model.ran - self._before

    def draft(self, text: Sequence[int], most: int) -> Draft:
        """Nothing for a text that the model has no room for, or with tokens that it does not know."""
        model = self._model
        if model.capacity is not None:
            most = min(most, model.capacity - len(text) + 1)
        if most < 1 or any(not 0 <= token < model.vocabulary for token in text[self._held :]):
            return Draft()
        for token in self._ahead:
            # The last token is given again where it was drafted: its logits are asked for.
            if self._held == len(text) - 1 or token != text[self._held]:
                break
            self._held += 1
        if self._held < model.length:
            model.rewind(self._held)
        new, self._held, self._ahead = text[self._held :], len(text), []
        tokens, shares = list[int](), list[Array | None]()
        while True:
            logits = model.logits(new)[: self._vocabulary]
            shares.append(self._shares(logits))
            tokens.append(self._choose(logits))
            if len(tokens) == most:
                return Draft(tuple(tokens), tuple(shares))
            new = tokens[-1:]
            self._ahead += new

    def _shares(self, logits: Array) -> Array | None:
        """With which a token is drawn, of all tokens of the model that verifies."""
        if not self._choose.sampling.temperature:
            return None
        own = self._choose.shares(logits)
        return np.pad(own, (0, self._vocabulary - len(own)))
