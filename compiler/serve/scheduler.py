"""Who runs when: one thread owns a program, and puts the texts that are asked for into its slots."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from ..language.model import TokenModel
from ..language.texts import Text, Texts
from .growing import Failed, Growing
from .refusals import Refused

log = logging.getLogger("waferc.serve")


class Scheduler:
    """Texts in the slots of a program, first come first served; between two tokens of those that are being
    made, one part of one prompt goes in.

    slots: texts at once. waiting: how many texts may wait for a slot before more are refused. Any thread may
    call its methods.
    """

    def __init__(self, model: TokenModel, slots: int, waiting: int) -> None:
        self.slots, self._model, self._room = slots, model, waiting
        self._texts = Texts(model, slots)
        self._changed = threading.Condition()
        self._waiting: deque[Growing] = deque()
        self._busy: dict[Text, Growing] = {}
        self._closed = False
        self._prompted: Text | None = None  # the one whose prompt went on last
        self._thread = threading.Thread(target=self._run, name="waferc-texts", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> int:
        """Texts in slots."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Texts that wait for a slot."""
        return len(self._waiting)

    def submit(self, texts: Sequence[Growing]) -> None:
        """Takes a request's texts, all or none. Raises Refused: 429 where too many wait, 503 at the end."""
        with self._changed:
            if self._closed:
                raise Refused("the server is stopping", status=503, code="stopping")
            before = len(self._waiting)
            if before >= self._room and before + len(texts) > self.slots - len(self._busy):
                raise Refused(
                    f"all slots ({self.slots}) are busy and texts ({before}) wait for one; try again",
                    status=429,
                    code="rate_limit_exceeded",
                    headers={"Retry-After": "1"},
                )
            self._waiting.extend(texts)
            self._changed.notify()

    def cancel(self, texts: Sequence[Growing]) -> None:
        """Nobody waits for these any more: those without a slot are dropped now, others after their token."""
        with self._changed:
            for text in texts:
                text.gone = True
            if any(text.gone for text in self._waiting):
                self._waiting = deque(text for text in self._waiting if not text.gone)
            self._changed.notify()

    def close(self, seconds: float = 10.0) -> None:
        """Drops all that is under way, and waits until the thread is at its end."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            for text in list(self._busy.values()):
                text.gone = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            for text in [t for t, growing in self._busy.items() if growing.gone]:
                self._release(text)
            with self._changed:
                while not self._busy and not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                coming = [self._waiting.popleft() for _ in range(min(self._texts.free, len(self._waiting)))]
            for growing in coming:
                growing.placed()
                self._busy[self._texts.open()] = growing
            self._step()

    def _release(self, text: Text) -> None:
        text.close()
        del self._busy[text]

    def _step(self) -> None:
        """A token of each text that is being made, then a part of one prompt."""
        making = [t for t, growing in self._busy.items() if growing.last is not None]
        prompts = [t for t, growing in self._busy.items() if growing.last is None]
        if making:
            self._take(making)
        if prompts:
            # The one after that which had its turn last.
            at = prompts.index(self._prompted) + 1 if self._prompted in prompts else 0
            self._prompted = prompts[at % len(prompts)]
            self._take([self._prompted])

    def _take(self, texts: Sequence[Text]) -> None:
        of = [self._busy[text] for text in texts]
        entries = [self._model.entry_for(growing.left) for growing in of]
        given = [growing.next(entry.tokens) for growing, entry in zip(of, entries, strict=True)]
        try:
            logits = self._texts.step(texts, given)
        except Exception as e:  # whatever it was, the others go on
            self._fail(texts, e)
            return
        for i, text in enumerate(texts):
            try:
                over = of[i].took(logits[i], len(given[i]), entries[i].name, text.room)
            except Exception as e:
                self._fail([text], e)
                continue
            if over:
                self._release(text)

    def _fail(self, texts: Sequence[Text], why: Exception) -> None:
        if isinstance(why, Refused):  # by its grammar, which its client wrote
            told = why
        else:
            log.error("a text failed", exc_info=why)
            told = Refused(f"the text cannot go on: {type(why).__name__}: {why}", status=500, code="failed")
        for text in texts:
            self._busy[text].deliver(Failed(told))
            self._release(text)
