"""`/v1/embeddings`: texts, or tokens, to vectors."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..text_encoder import TextEncoder
from .completions import prompts_in
from .refusals import Refused
from .served import Predicted, refusing


@dataclass
class ServedEncoder:
    """An encoder. waiting: requests that may wait for it. Raises as its tokenizer does."""

    name: str
    model: TextEncoder
    predicted: Predicted
    waiting: int
    created: int = field(default_factory=lambda: int(time.time()))
    under_way: int = 0

    def __post_init__(self) -> None:
        self.tokenizer = self.model.tokenizer
        # A thread of its own: those of the loop are for what takes a moment.
        self._thread = ThreadPoolExecutor(1, "waferc-vectors")

    def tokens(self, body: Mapping[str, Any]) -> list[list[int]]:
        """Of each input. Raises Refused for one that is too long."""
        found: list[list[int]] = []
        for i, given in enumerate(prompts_in(body["input"])):
            at = "input" if given is body["input"] else f"input[{i}]"
            if isinstance(given, str):
                if self.tokenizer is None:
                    raise Refused(f"{at}: the program has no tokenizer; give tokens", at)
                with refusing(at):
                    found.append(self.tokenizer.tokens(given))
            else:
                found.append(given)
            if not 0 < len(found[-1]) <= self.model.room:
                raise Refused(
                    f"{at}: {len(found[-1]):,} tokens; the model takes 1 to {self.model.room:,}",
                    at,
                    code="context_length_exceeded",
                )
        return found

    async def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One text after the other; between two of them it may be cancelled. Raises Refused."""
        if self.under_way > self.waiting:
            raise Refused(
                f"{self.under_way} requests wait for the encoder; try again",
                status=429,
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        self.under_way += 1
        run = asyncio.get_running_loop().run_in_executor
        try:
            texts = await run(self._thread, self.tokens, body)
            start = time.perf_counter()
            data: list[dict[str, Any]] = []
            for i, ids in enumerate(texts):
                with refusing("input" if len(texts) == 1 else f"input[{i}]"):
                    vector = await run(self._thread, self.model.embed, ids)
                if body["encoding_format"] == "base64":
                    written: Any = base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode()
                else:
                    written = vector.tolist()
                data.append({"object": "embedding", "index": i, "embedding": written})
            seconds = time.perf_counter() - start
        finally:
            self.under_way -= 1
        count = sum(map(len, texts))
        wafer = self.predicted.wafer
        cycles = sum(self.predicted.figures(self.model.entry_for(len(ids))).cycles for ids in texts)
        about = {"name": wafer.name, "clock_hz": wafer.clock_hz, "cycles": cycles}
        return {
            "object": "list",
            "data": data,
            "model": self.name,
            "usage": {"prompt_tokens": count, "total_tokens": count},
            "x_waferc": {
                "wafer": {**about, "seconds": cycles / wafer.clock_hz},
                "host": {"seconds": seconds},
            },
        }
