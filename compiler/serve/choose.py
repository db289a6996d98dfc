"""Logits to a token: what a request changes about them, the draw, and the shares that it asks to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ...ir.op import Array
from ..language.sampling import Sampling

NEVER = -np.inf


class Matcher(Protocol):
    """What may follow the tokens taken so far, by a grammar."""

    @property
    def ended(self) -> bool:
        """Whether nothing may follow."""
        ...

    def allowed(self, vocabulary: int) -> Array | None:
        """Which tokens may be next, bool [vocabulary]; None: all."""
        ...

    def take(self, token: int) -> None: ...


@dataclass(frozen=True)
class Choice:
    """How a text's tokens are chosen. bias: added to logits, by token. frequency: taken off a token's logit
    for each time that the answer has it; presence: once. likeliest: how many logarithms of shares to give
    besides the chosen token's; None for none.
    """

    sampling: Sampling = field(default_factory=Sampling)
    bias: Mapping[int, float] = field(default_factory=dict[int, float])
    frequency: float = 0.0
    presence: float = 0.0
    likeliest: int | None = None


@dataclass(frozen=True)
class Chosen:
    """A token. share: the natural logarithm of its share before anything was changed, None if not asked for;
    likeliest: the same of the likeliest tokens, the first the greatest.
    """

    token: int
    share: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


class Chooser:
    """Chooses one text's tokens, in turn."""

    def __init__(self, choice: Choice, matcher: Matcher | None = None) -> None:
        self._choice, self._matcher = choice, matcher
        self._draw = choice.sampling.chooser()
        self._counts: Counter[int] = Counter()

    @property
    def ended(self) -> bool:
        """Whether the grammar lets nothing follow."""
        return self._matcher is not None and self._matcher.ended

    def choose(self, logits: Array) -> Chosen:
        """logits: [vocabulary], which stay as they are."""
        token = self._draw(self._changed(logits))
        self._counts[token] += 1
        if self._matcher is not None:
            self._matcher.take(token)
        if self._choice.likeliest is None:
            return Chosen(token)
        scaled = logits.astype(np.float64)
        shares: Array = scaled - np.logaddexp.reduce(scaled)
        most: Array = np.argsort(-shares, kind="stable")[: self._choice.likeliest]
        return Chosen(token, float(shares[token]), tuple((int(t), float(shares[t])) for t in most))

    def _changed(self, logits: Array) -> Array:
        """The same array where nothing is asked for, so that the bits are those of `generate`."""
        choice = self._choice
        allowed = None if self._matcher is None else self._matcher.allowed(len(logits))
        penal = bool(choice.frequency or choice.presence) and bool(self._counts)
        if allowed is None and not choice.bias and not penal:
            return logits
        changed: Array = logits.copy()
        for token, more in choice.bias.items():
            changed[token] += more
        if penal:
            for token, count in self._counts.items():
                changed[token] -= choice.frequency * count + choice.presence
        if allowed is not None:
            changed[~allowed] = NEVER
        return changed
