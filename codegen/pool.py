"""Tables under construction: one array of words in which records point at one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..placement.plan.layout import Ints
from .words import Base


@dataclass
class Record:
    """A record: its words; `offsets`: those that hold the place of a table in the pool; `others`:
    those that get an address of something else, as (base, number)."""

    words: list[int]
    offsets: dict[int, int] = field(default_factory=lambda: {})
    others: dict[int, tuple[Base, int]] = field(default_factory=lambda: {})


@dataclass
class Pool:
    """The words so far; equal arrays are stored once."""

    chunks: list[Ints] = field(default_factory=lambda: [])
    size: int = 0
    _known: dict[bytes, int] = field(default_factory=lambda: {})
    _relocations: list[tuple[int, int, int]] = field(default_factory=lambda: [])
    _addressed: list[Ints] = field(default_factory=lambda: [])

    def add(self, array: Any) -> int:
        """The word offset of a copy of `array`; of one zero if it is empty."""
        flat = np.ascontiguousarray(array, np.int64).ravel()
        key = flat.tobytes()
        if key not in self._known:
            self._known[key] = self._append(flat)
        return self._known[key]

    def table(self, records: Sequence[Record]) -> int:
        """The word offset of records laid one after the other."""
        words: list[int] = []
        relocations: list[tuple[int, int, int]] = []
        for r in records:
            at = self.size + len(words)
            for i, offset in r.offsets.items():
                r.words[i] = 8 * offset
                relocations.append((at + i, Base.WORDS, 0))
            relocations += [(at + i, base, number) for i, (base, number) in r.others.items()]
            words += r.words
        if not relocations:
            return self.add(words)
        self._relocations += relocations
        return self._append(np.array(words, np.int64))

    def addressed(self, rows: Ints, columns: int) -> int:
        """The word offset of int64 [n, words] whose first `columns` are bytes from the arena's start."""
        at = self._append(rows.ravel())
        words = at + np.arange(len(rows))[:, None] * rows.shape[1] + np.arange(columns)
        relocations = np.zeros((words.size, 3), np.int64)
        relocations[:, 0], relocations[:, 1] = words.ravel(), Base.ARENA
        self._addressed.append(relocations)
        return at

    def reporting(self, at: int, rows: Ints, number: int) -> None:
        """Makes the last word of each row at the word offset `at` the address of a report."""
        words = at + (1 + np.arange(len(rows))) * rows.shape[1] - 1
        base, value = np.full_like(words, Base.REPORT), np.full_like(words, number)
        self._addressed.append(np.stack([words, base, value], 1))

    def _append(self, flat: Ints) -> int:
        at = self.size
        self.chunks.append(flat if len(flat) else np.zeros(1, np.int64))
        self.size += max(1, len(flat))
        return at

    def words(self) -> Ints:
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.int64)

    def relocations(self) -> Ints:
        """int64 [n, 3]: word, Base, value."""
        single = np.array(self._relocations, np.int64).reshape(-1, 3)
        return np.concatenate([single, *self._addressed])
