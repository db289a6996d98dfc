"""How the next token is chosen: the likeliest, or one drawn; and what becomes of a token that was drafted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ir.op import Array


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. temperature 0: the likeliest. top_k 0, top_p 1: among all."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def chooser(self) -> Chooser:
        return Chooser(self)


class Chooser:
    """Chooses tokens by logits [vocabulary]; of two alike the lower one comes first.

    stream: numbers apart from those of other streams of the same seed.
    """

    def __init__(self, sampling: Sampling, stream: int = 0) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng([sampling.seed, stream] if stream else sampling.seed)

    def __call__(self, logits: Array) -> int:
        if not self.sampling.temperature:
            return int(logits.argmax())
        order, kept = self._kept(logits)
        drawn = int(np.searchsorted(kept, self._random.random() * float(kept[-1]), side="right"))
        return int(order[min(drawn, len(kept) - 1)])

    def shares(self, logits: Array) -> Array:
        """float64 [vocabulary]: how likely each token is to be drawn."""
        order, kept = self._kept(logits)
        out = np.zeros(len(logits))
        out[order[: len(kept)]] = np.diff(kept, prepend=0.0) / kept[-1]
        return out

    def judge(self, logits: Array, drafted: int, shares: Array | None) -> int:
        """The next token where `drafted` was proposed for it: that one, or another in its place.

        shares: with which the draft was drawn; None for one that was not left to chance. Either way tokens
        are as likely as without drafts: a drafted token x is taken with probability min(1, p(x) / q(x)), and
        else one is drawn from what p has more than q (Leviathan et al., Fast Inference from Transformers via
        Speculative Decoding, 2023). Where q is certain of x, that is to draw from p and to see whether it
        is x.
        """
        if shares is None or not self.sampling.temperature:
            return self(logits)
        p = self.shares(logits)
        if self._random.random() * shares[drafted] < p[drafted]:
            return drafted
        rest = np.cumsum(np.maximum(p - shares, 0.0))
        if not rest[-1]:  # p and q are the same but for rounding
            return self(logits)
        return int(np.searchsorted(rest, self._random.random() * float(rest[-1]), side="right"))

    def _kept(self, logits: Array) -> tuple[Array, Array]:
        """The likeliest tokens, as many as make up top_p, and their shares summed up."""
        how = self.sampling
        order: Array = np.argsort(-logits, kind="stable")[: how.top_k or None]
        scaled = logits[order].astype(np.float64)
        with np.errstate(over="ignore"):  # a temperature near 0
            weights = np.exp((scaled - scaled[0]) / how.temperature)
        shares: Array = np.cumsum(weights) / weights.sum()
        return order, shares[: int(np.searchsorted(shares, how.top_p)) + 1]
