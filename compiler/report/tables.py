"""The integer tables of a page, each kept once, as differences: where a plan is regular they compress to
almost nothing."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

LEAST, MOST = -(1 << 31), (1 << 31) - 1
Json = dict[str, Any]


class Tables:
    """Arrays of one or two dimensions, by number in the order in which they came."""

    def __init__(self) -> None:
        self._shapes: list[list[int]] = []
        self._parts: list[tuple[bool, bytes]] = []
        self._known: dict[tuple[Any, ...], int] = {}
        self._of_array: dict[int, tuple[Any, int]] = {}  # by id, with the array, which keeps the id taken

    def add(self, values: Any, early: bool = False) -> int:
        """The number of a table of integers; equal ones have the same. early: the first picture needs it."""
        seen = self._of_array.get(id(values))
        if seen is not None and seen[0] is values:
            return seen[1]
        array = np.asarray(values, np.int64)
        flat = array.reshape(1, -1) if array.ndim < 2 else array
        width, raw = _packed(flat)
        key = (flat.shape, width, raw)
        if key not in self._known:
            self._known[key] = len(self._shapes)
            self._shapes.append([*flat.shape, width, int(early)])
            self._parts.append((early, raw))
        if np.ndim(values) == 1:  # the tables of moves, which come again and again
            self._of_array[id(values)] = (values, self._known[key])
        return self._known[key]

    def packed(self, data: Json) -> tuple[bytes, bytes]:
        """What the first picture needs, and the rest: deflated.

        The first is the length of a JSON text in 4 bytes, the text (`data`, and `tables`: [rows, columns,
        width, early] of each), zeros up to a multiple of 4, and the early tables; the second the other ones.
        A table is its differences along columns, then along rows, in little-endian integers of `width` bytes,
        and zeros up to a multiple of 4. Of width 8 it is two such tables of 4 bytes, modulo 2^32: the low
        words, then the high ones.
        """
        text = json.dumps({**data, "tables": self._shapes}, separators=(",", ":"), allow_nan=False).encode()
        head = len(text).to_bytes(4, "little") + text + bytes(-len(text) % 4)
        early, late = (
            b"".join(raw for first, raw in self._parts if first == which) for which in (True, False)
        )
        return zlib.compress(head + early, 9), zlib.compress(late, 9)


def _packed(flat: Any) -> tuple[int, bytes]:
    """(bytes of an element, the bytes)."""
    if flat.size and (int(flat.min()) < LEAST or int(flat.max()) > MOST):
        return 8, b"".join(_differences(w).tobytes() for w in (flat & 0xFFFFFFFF, flat >> 32))
    out = _differences(flat)
    low, high = int(out.min(initial=0)), int(out.max(initial=0))
    width = 1 if low >= -128 and high < 128 else 2 if low >= -32768 and high < 32768 else 4
    raw = out.astype(f"<i{width}").tobytes()
    return width, raw + bytes(-len(raw) % 4)


def _differences(words: Any) -> Any:
    """Modulo 2^32."""
    out = words.astype(np.uint32)
    out[:, 1:] -= out[:, :-1].copy()
    out[1:] -= out[:-1].copy()
    return out.view(np.int32).astype("<i4")
