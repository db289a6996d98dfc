"""What is asked of the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

Until = Literal["graph", "plan", "program"]


Report = Callable[[str, float], None]


Timed = Callable[[str, Callable[[], Any]], Any]  # (phase, its work) -> what the work gives
