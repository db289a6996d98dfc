"""Who owns which SRAM: the records that claim and fill buffers, and the ranges that must be a step's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...placement.plan.layout import Grid
from ...placement.plan.plan import Buffer
from ..pool import Record
from ..words import StepWords
from .draft import Draft
from .records import FREE, ClaimWords, FillWords, OwnedWords


def claim(buffer: Buffer, tag: int, once: bool = False, kept: bool = False) -> Record:
    """A buffer's range for `tag`. once: when a record comes to a core, not before each of its time steps.

    kept: what lies there is the buffer's own; else it is poisoned.
    """
    words = [0] * ClaimWords.SIZE
    words[ClaimWords.OFFSET], words[ClaimWords.BYTES] = buffer.address, buffer.bytes
    words[ClaimWords.TAG] = tag
    words[ClaimWords.ONCE], words[ClaimWords.KEPT] = int(once), int(kept)
    return Record(words)


def owned(buffer: Buffer, tag: int, operand: int) -> Record:
    """The range that must be `buffer`'s for a step's operand, or its result."""
    words = [0] * OwnedWords.SIZE
    words[OwnedWords.OFFSET], words[OwnedWords.BYTES] = buffer.address, buffer.bytes
    words[OwnedWords.TAG], words[OwnedWords.OPERAND] = tag, operand
    return Record(words)


def renamed(draft: Draft, buffer: Buffer) -> Record:
    """A record that leaves what a step has put over its operand to the result's buffer."""
    out = draft.record(buffer.grid, buffer.region, -1, 1)
    row = claim(buffer, draft.tags[buffer.number], once=True, kept=True)
    draft.put(out, StepWords.CLAIMS, StepWords.CLAIM_TABLE, [row])
    return out


def freed(draft: Draft, buffers: Sequence[Buffer]) -> list[Record]:
    """Records that poison dead buffers and leave them to nobody, one for each grid."""
    by_grid: dict[tuple[int, Grid], list[Buffer]] = {}
    for b in buffers:
        by_grid.setdefault((b.region, b.grid), []).append(b)
    out: list[Record] = []
    for (region, grid), dead in by_grid.items():
        record = draft.record(grid, region, -1, 1)
        rows = [claim(b, FREE, once=True) for b in dead]
        draft.put(record, StepWords.CLAIMS, StepWords.CLAIM_TABLE, rows)
        out.append(record)
    return out


def filled(buffer: Buffer, value: float) -> Record:
    """The record that sets all of a buffer to a value: its padding, once elements are moved into it."""
    bits = np.zeros(8, np.uint8)
    raw = np.asarray(value).astype(buffer.dtype.numpy).tobytes()
    bits[: len(raw)] = np.frombuffer(raw, np.uint8)
    words = [0] * FillWords.SIZE
    words[FillWords.OFFSET], words[FillWords.ELEMENTS] = buffer.address, buffer.elements
    words[FillWords.VALUE], words[FillWords.BYTES] = int(bits.view(np.int64)[0]), buffer.dtype.bytes
    return Record(words)
