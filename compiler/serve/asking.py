"""What endpoints that make texts have in common: fields of a request -> `Choice`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..language.sampling import Sampling
from .choose import Choice
from .served import random_seed

SEEDS = 1 << 64
LEAST = -9999.0  # a logarithm of no share, as OpenAI writes it: JSON has no infinity


def choice_of(body: Mapping[str, Any], likeliest: int | None = None) -> Choice:
    """How the answers to a judged body are chosen. likeliest: see `Choice`."""
    seed = body.get("seed")
    return Choice(
        Sampling(
            body["temperature"],
            body.get("top_k", 0),
            body["top_p"],
            random_seed() if seed is None else seed % SEEDS,
        ),
        body.get("logit_bias") or {},
        body.get("frequency_penalty", 0.0),
        body.get("presence_penalty", 0.0),
        likeliest,
    )


def stops_of(body: Mapping[str, Any]) -> list[str]:
    stop: Any = body["stop"] or []
    return [stop] if isinstance(stop, str) else stop
