"""Tokens one after the other: chosen after each pass, or drafted first and several verified in one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.op import Array
from ..errors import ArtifactError, UsageError
from ..show.text import plural
from .drafts import Draft, Drafter
from .model import TokenModel
from .sampling import Sampling


@dataclass(frozen=True)
class Speculated:
    """What came of drafts.

    drafted, accepted: tokens. passes: of the model after its prompt, by entry; drafting: of a smaller one,
    with its prompt. closest: the least that the likeliest token was ahead of the second, as a share of the
    largest logit, of all choices from the first pass of several tokens on; None without one.

    Such a pass adds up in another order than one of a token, so its logits, and what it leaves in caches,
    differ by roundings. Where no choice was closer than twice logits differ, no likeliest token is another
    one for it.
    """

    drafted: int
    accepted: int
    passes: Mapping[str, int]
    drafting: Mapping[str, int]
    closest: float | None


class Decoding:
    """The tokens that follow `prompt`, as they are asked for; the model is given all but the last.

    drafter: where drafts come from; None: a pass takes one token. most: tokens drafted for a pass, None: as
    many as the smallest fitting entry takes. Greedy tokens are those without drafts but for roundings (see
    `Speculated`), drawn ones as likely as without, and with drafts that are not drawn the same for a seed.

    Raises ArtifactError for a model that has no entry to verify drafts.
    """

    with_prompt = 1  # tokens that come of the prompt's own passes
    denoised = None

    def __init__(
        self,
        model: TokenModel,
        prompt: Sequence[int],
        sampling: Sampling,
        drafter: Drafter | None = None,
        most: int | None = None,
    ) -> None:
        self._model, self._prompt, self._choose = model, prompt, sampling.chooser()
        self._drafter, self._most = drafter, 0 if drafter is None else _most(model, most)
        self._passes = Counter[str]()
        self._drafted = self._accepted = 0
        self._closest: float | None = None
        self.prompt_seconds = self.seconds = 0.0  # of the prompt, and of passes and drafts after it

    def __iter__(self) -> Generator[int]:
        """Ends where the caches are full. Raises what `TokenModel.logits` does."""
        model, text, draft = self._model, list(self._prompt), Draft()
        start = time.perf_counter()
        rows: Array = model.logits(self._prompt)[None]
        self.prompt_seconds = time.perf_counter() - start
        before, held = Counter(model.ran), model.length - len(text)  # by which it holds other positions
        try:
            while True:
                for i, row in enumerate(rows):
                    drafted = draft.tokens[i] if i < len(draft.tokens) else None
                    if drafted is None:
                        text.append(self._choose(row))
                    else:
                        text.append(self._choose.judge(row, drafted, draft.shares[i]))
                    if self._drafted:
                        self._note(row)
                    self._accepted += text[-1] == drafted
                    yield text[-1]
                    if text[-1] != drafted:
                        break
                self._forget(held + len(text) - 1)
                if model.room == 0:
                    return
                start = time.perf_counter()
                if len(text) == len(self._prompt) + 1 and self._most:
                    self._judge_rows(text[-1])
                    before = Counter(model.ran)
                    start = time.perf_counter()
                draft = self._draft(text)
                rows = model.rows([text[-1], *draft.tokens])
                self._drafted += len(draft.tokens)
                self.seconds += time.perf_counter() - start
        finally:
            self._passes = model.ran - before
            self._forget(held + len(text) - 1)

    @property
    def speculated(self) -> Speculated | None:
        """What came of drafts so far; None without any."""
        if self._drafter is None:
            return None
        drafting = self._drafter.ran
        return Speculated(self._drafted, self._accepted, self._passes, drafting, self._closest)

    def _draft(self, text: Sequence[int]) -> Draft:
        room = self._model.room
        fits = self._model.widest(room) - 1
        if self._drafter is None or (most := min(self._most, fits)) < 1:
            return Draft()
        return self._drafter.draft(text, most)

    def _forget(self, length: int) -> None:
        """What the model was given beyond the tokens that were chosen."""
        if length < self._model.length:
            self._model.rewind(length)

    def _note(self, row: Array) -> None:
        second, first = np.partition(row, -2)[-2:].tolist()
        ahead = (first - second) / max(float(np.abs(row).max()), np.finfo(np.float32).tiny)
        self._closest = ahead if self._closest is None else min(self._closest, ahead)

    def _judge_rows(self, last: int) -> None:
        """Sees whether a token's logits depend on those after it: then no draft can be verified.

        They would by a scale of activations that a call has one of.
        """
        model = self._model
        if (count := min(self._most + 1, model.widest(model.room))) < 2:
            return
        held, rows = model.length, list[Array]()
        for other in (0, model.vocabulary - 1):
            rows.append(model.rows([last, *[other] * (count - 1)])[0])
            model.rewind(held)
        if rows[0].tobytes() != rows[1].tobytes():
            raise ArtifactError(
                "drafts cannot be verified: a token's logits change with those after it in the same pass, as "
                "where activations have one scale a call; generate without --speculate"
            )


def _most(model: TokenModel, asked: int | None) -> int:
    """Tokens drafted for a pass. Raises ArtifactError, UsageError."""
    several = [n for n in model.widths if n > 1]
    if not several:
        raise ArtifactError(
            "no entry gives logits of several tokens, by which drafts are verified; "
            "compile the model with --entry verify:S=4, too"
        )
    if asked is None:
        return several[0] - 1
    if not 1 <= asked < several[-1]:
        raise UsageError(
            f"drafts of {plural(asked, 'token')} a pass: the program verifies 1 to {several[-1] - 1}; "
            f"for more compile it with --entry verify:S={max(asked, 1) + 1}, too"
        )
    return asked
