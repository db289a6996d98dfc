"""JSON as artifacts hold it: what other readers let pass or read in several ways is refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ...ir.graph import TooLarge

MOST = 1 << 26  # bytes of a text: what is read of one takes up to twenty times as much memory


def dumps(value: Any) -> bytes:
    """Raises TooLarge for what `parsed` would refuse by its size."""
    text = json.dumps(value, indent=1, allow_nan=False).encode()
    if len(text) > MOST:
        raise TooLarge(f"{len(text):,} bytes to describe a model; a program has room for {MOST:,}")
    return text


def parsed(data: bytes) -> Any:
    """The value of a text. Raises ValueError, one line: for what is no JSON in UTF-8, numbers that are not
    finite or have thousands of digits, a name twice in one object, half a character, or too deep a nesting.
    """
    if len(data) > MOST:
        raise ValueError(f"{len(data):,} bytes; at most {MOST:,} are read")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_once)
        if "\\ud" in text or "\\uD" in text:  # halves of characters stand alone only where they are escaped
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("lists within lists without end") from None
    except (UnicodeDecodeError, UnicodeEncodeError) as e:
        raise ValueError(f"text that is no UTF-8: {e.reason}") from None
    return value


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is too large")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(n for i, n in enumerate(names) if n in names[:i])
        raise ValueError(f"{twice[:40]!r} twice in one object")
    return out
