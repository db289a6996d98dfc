"""Cases of which `make test` runs some and `make thorough` the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[Any], every: int) -> list[Any]:
    """The cases; all but the first of each `every` are marked `thorough`. A tuple is several values."""
    return [c if i % every == 0 else _thorough(c) for i, c in enumerate(cases)]


def _thorough(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.thorough)
