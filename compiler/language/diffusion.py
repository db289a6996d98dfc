"""Masked diffusion: tokens that are found in any order, several in a pass, by a model that sees both sides.

Every place of a block begins as a mask. A pass gives logits at all of them; the tokens of which the model is
most certain are taken, the others stay masked (Nie et al., Large Language Diffusion Models, 2025; tokens
above a threshold: Wu et al., Fast-dLLM, 2025; masking again: Wang et al., Remasking Discrete Diffusion
Models, 2025).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.op import Array
from ...runtime.program import InputError
from ..errors import ArtifactError, UsageError
from ..show.text import plural
from .model import TokenModel
from .sampling import Sampling

MASKS = ("[MASK]", "<mask>", "<|mask|>", "<|mdm_mask|>", "<MASK>")
"""What tokenizers of several families call the token of a place that is to be found."""


@dataclass(frozen=True)
class Diffusion:
    """How masked tokens are found. Raises UsageError for numbers that cannot be.

    block: tokens that are found together, before those behind them. None: as many as the smallest entry of a
    model with caches takes; all, without caches.
    steps: passes in which a block is complete, each of which takes as many of its masked tokens. None: a pass
    takes a token, and those that the threshold lets it take.
    threshold: a token that the model gives at least this probability is taken, too; the likeliest always is.
    remask: before a pass, this share of a block's tokens that were found and that a pass has seen since, the
    least certain ones, becomes masked again, each of them once at most.
    mask: the token, or what the tokenizer calls it, that stands for one to be found; None: the tokenizer's.
    """

    block: int | None = None
    steps: int | None = None
    threshold: float | None = None
    remask: float = 0.0
    mask: int | str | None = None

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise UsageError(f"a block of {plural(self.block, 'token')}; it needs one at least")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"{plural(self.steps, 'step')} a block; it needs one at least")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UsageError(f"a threshold of {self.threshold:g} is no probability above 0 and up to 1")
        if not 0 <= self.remask < 1:
            raise UsageError(f"a share of {self.remask:g} of tokens to mask again; it is from 0 to below 1")


@dataclass(frozen=True)
class Denoised:
    """What came of masks. passes: of the model behind the prompt, by entry; those among them that leave a
    complete block in the caches are `kept`. taken: tokens that each other pass took. again: tokens that were
    masked again.
    """

    passes: Mapping[str, int]
    kept: int
    taken: tuple[int, ...]
    again: int


class Denoising:
    """The tokens behind `prompt`, `most` of them, as they are asked for: block by block.

    A prompt may hold masks: then tokens begin with the first of these. mask: the token of a place to find.

    A model with caches gives each of its blocks to the entry that takes as many tokens, as often as there are
    passes; a last pass over the complete block leaves its keys and values in the caches, and blocks begin at
    multiples of their size, the prompt's as well. One without caches is given all places in each pass. Places
    beyond the tokens that were asked for are masked and stay so.

    Raises InputError for a prompt that does not fit, ArtifactError for a model without such an entry or one
    in which no token sees those behind it, UsageError for a block that it does not take.
    """

    with_prompt = 0  # tokens that come of the prompt's own passes
    speculated = None

    def __init__(
        self,
        model: TokenModel,
        prompt: Sequence[int],
        most: int,
        how: Diffusion,
        mask: int,
        sampling: Sampling,
    ) -> None:
        if not 0 <= mask < model.vocabulary:
            raise UsageError(f"mask {mask} is not in the model's vocabulary of {model.vocabulary:,}")
        model.judge(prompt or [mask] * most, None)
        self._model, self._how, self._mask, self._choose = model, how, mask, sampling.chooser()
        self._cached = model.capacity is not None
        self._width = width = _width(model, len(prompt) + most, how.block)
        self._size = width if self._cached else min(how.block or width, width)
        places = width if model.capacity is None else model.capacity // width * width
        self._text = np.array([*prompt, *[mask] * most], np.int64)
        masked = np.flatnonzero(self._text == mask)
        if not masked.size or masked[0] >= places:
            raise InputError(
                f"a prompt of {plural(len(prompt), 'token')} leaves nothing to find: the model takes "
                f"{places:,} in blocks of {self._size:,}"
            )
        self._first, self._end = int(masked[0]), min(len(self._text), places)
        self.most = len(self._text) - self._first
        self._passes = Counter[str]()
        self._kept = self._again = 0
        self._taken = list[int]()
        self.prompt_seconds = self.seconds = 0.0

    @property
    def denoised(self) -> Denoised:
        """What came of masks so far."""
        return Denoised(dict(self._passes), self._kept, tuple(self._taken), self._again)

    def __iter__(self) -> Generator[int]:
        """Ends where there is no room for another block. Raises what `TokenModel.rows` does."""
        model, size, text = self._model, self._size, self._text
        begin = self._first // size * size if self._cached else self._first
        start = time.perf_counter()
        for at in range(0, begin if self._cached else 0, size):
            model.rows(text[at : at + size].tolist())
        self._judge_both_sides(begin)
        self.prompt_seconds = time.perf_counter() - start
        before = Counter(model.ran)
        try:
            for at in range(begin, self._end, size):
                start = time.perf_counter()
                if self._cached and at > begin:  # a complete block stays in the caches
                    model.rows(text[at - size : at].tolist())
                    self._kept += 1
                self._find(at, min(at + size, self._end))
                self._passes = model.ran - before
                self.seconds += time.perf_counter() - start
                yield from text[max(at, self._first) : min(at + size, self._end)].tolist()
        finally:
            self._passes = model.ran - before

    def _find(self, start: int, stop: int) -> None:
        """Replaces the masks among the places from `start` to `stop`."""
        how, text = self._how, self._text[start:stop]
        certain = np.zeros(len(text))  # how likely a token was when it was found
        since = np.full(len(text), -1)  # the pass that found it
        again = np.zeros(len(text), bool)
        for ran in range(2 * len(text)):
            masked = np.flatnonzero(text == self._mask)
            if not len(masked):
                return
            own = np.flatnonzero((since >= 0) & (since < ran - 1) & (text != self._mask))
            own = own[np.argsort(certain[own], kind="stable")][: int(how.remask * len(own))]
            own = own[~again[own]]
            text[own], again[own] = self._mask, True
            self._again += len(own)
            masked = np.flatnonzero(text == self._mask)
            tokens, shares = self._candidates(self._pass(start)[masked])
            left = len(masked) if how.steps is None else max(1, how.steps - ran)
            count = -(-len(masked) // left)
            if how.threshold is not None:
                count = max(count, int((shares >= how.threshold).sum()))
            taken = np.argsort(-shares, kind="stable")[:count]
            places = masked[taken]
            text[places], certain[places], since[places] = tokens[taken], shares[taken], ran
            self._taken.append(len(taken))

    def _pass(self, start: int) -> Array:
        """Logits [places, vocabulary] from place `start` on, the mask's own the least."""
        rows = self._rows(start, self._seen(start))
        rows = rows if self._cached else rows[start:]
        rows = rows.astype(np.float64)
        rows[:, self._mask] = -np.inf
        return rows

    def _seen(self, start: int) -> list[int]:
        """The tokens of a pass: places beyond the text are masked."""
        ids = self._text[start : start + self._width] if self._cached else self._text[: self._width]
        return [*ids.tolist(), *[self._mask] * (self._width - len(ids))]

    def _rows(self, start: int, ids: Sequence[int]) -> Array:
        rows = self._model.rows(ids)
        if self._cached:
            self._model.rewind(start)
        return rows

    def _candidates(self, rows: Array) -> tuple[Array, Array]:
        """A token for each row, and how likely it is by the model: without a temperature and the like."""
        tokens = np.array([self._choose(row) for row in rows], np.int64)
        weights = np.exp(rows - rows.max(-1, keepdims=True))
        shares = weights / weights.sum(-1, keepdims=True)
        return tokens, np.take_along_axis(shares, tokens[:, None], -1)[:, 0]

    def _judge_both_sides(self, start: int) -> None:
        """Sees whether a token's logits depend on those behind it: else no mask knows what follows it."""
        if self._width < 2:
            return
        ids = self._seen(start)
        other = [*ids[:-1], (ids[-1] + 1) % self._model.vocabulary]
        if self._rows(start, ids)[0].tobytes() == self._rows(start, other)[0].tobytes():
            raise ArtifactError(
                "the model's tokens see none behind them, so masks cannot be found together; generate "
                "without --diffusion"
            )


def _width(model: TokenModel, tokens: int, block: int | None) -> int:
    """Places of a pass. Raises ArtifactError, UsageError."""
    if not model.widths or (model.capacity is None and model.remembers):
        raise ArtifactError(
            "no entry gives logits of all its tokens"
            if not model.widths
            else "the model keeps states that are no caches, which cannot go back to a block's beginning"
        )
    if model.capacity is None:
        width = next((n for n in model.widths if n >= tokens), model.widths[-1])
        if block is not None and block > model.widths[-1]:
            raise UsageError(f"blocks of {block:,} tokens; the model takes {model.widths[-1]:,} at once")
        return width
    several = [n for n in model.widths if n > 1] or list(model.widths)
    if block is None:
        return several[0]
    if block not in model.widths:
        sizes = ", ".join(f"{n:,}" for n in model.widths)
        raise UsageError(
            f"blocks of {block:,} tokens: entries take {sizes}; compile the model with "
            f"--entry block:S={block}, too"
        )
    return block
