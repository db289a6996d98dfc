"""The tables of one plan in the making: its pool of words, its tags, and records to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...placement.plan.layout import Grid
from ...placement.plan.plan import Plan
from ..pool import Pool, Record
from ..words import Base, Section, StepWords
from .move_tables import MoveTables


@dataclass(frozen=True)
class Draft:
    """tags: by number of the plan's buffers."""

    plan: Plan
    pool: Pool
    tags: Sequence[int]
    moves: MoveTables

    def record(self, grid: Grid, region: int, number: int, steps: int) -> Record:
        """A record that does nothing on the cores of a grid; region -1: on the host."""
        words = [0] * StepWords.SIZE
        columns = self.plan.regions[region].columns if region >= 0 else 1
        words[StepWords.COLUMNS], words[StepWords.ROWS] = grid.columns, grid.rows
        words[StepWords.START] = grid.y * columns + grid.x
        words[StepWords.COLUMN_PITCH], words[StepWords.ROW_PITCH] = grid.dx, grid.dy * columns
        words[StepWords.STEPS], words[StepWords.NUMBER] = steps, number
        out = Record(words, {int(StepWords.FIRST): self.pool.add(np.ones(steps, np.int64))})
        if region >= 0:
            out.others[StepWords.BASES] = (Base.REGION, region)
        out.others[StepWords.WATCH] = (Base.WATCH, 0)
        return out

    def put(self, record: Record, count: StepWords, table: StepWords, rows: Sequence[Record]) -> None:
        """Gives a record a table of others, and their number."""
        record.words[count], record.offsets[table] = len(rows), self.pool.table(rows)

    def section(self, records: Sequence[Record]) -> Section:
        return self.pool.table(records), len(records)
