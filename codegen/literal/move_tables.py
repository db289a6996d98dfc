"""Moves -> the tables that pull functions walk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...placement.plan.layout import Grid, Ints
from ...placement.plan.move import HOST, DimensionMoves, Move
from ...placement.plan.plan import Buffer, Plan
from ..pool import Pool, Record
from ..words import Base
from .records import HOST_TAG, DimensionWords, HostBuffer, MoveWords, Pull

_Row = tuple[DimensionMoves, int, int]  # and the bytes between neighbours, in the source and in the target


@dataclass(frozen=True)
class _Side:
    """Bytes between neighbours along each dimension, and where the buffer starts."""

    pitches: Sequence[int]
    offset: int


@dataclass
class MoveTables:
    """Writes moves of one plan into a pool; notes the pull functions and host buffers that they need."""

    plan: Plan
    pool: Pool
    tags: Sequence[int]  # by buffer
    pulls: dict[Pull, int] = field(default_factory=lambda: {})
    host: dict[HostBuffer, int] = field(default_factory=lambda: {})

    def host_number(self, buffer: HostBuffer) -> int:
        return self.host.setdefault(buffer, len(self.host))

    def record(
        self, move: Move, producer: Grid | None, host: HostBuffer | None = None, operand: int = -1
    ) -> Record:
        """The record of a move from the cores of `producer`, or from or to a buffer of the host.

        operand: of the step that the move feeds, -1 where it fills the result.
        """
        source = self.plan.buffers[move.source] if move.source != HOST else None
        target = self.plan.buffers[move.target] if move.target != HOST else None
        kind = source or target
        assert kind is not None, "a move has a core at one end"
        lead = 1 if move.combine else 0
        columns = self.plan.regions[source.region].columns if source else 1
        dims = [_in_region(d, producer, columns) for d in move.dims]
        shape = self.plan.tensors[host[1]].shape if host else ()
        a, b = _side(source, shape, kind.dtype.bytes), _side(target, shape, kind.dtype.bytes)
        if lead:
            b = replace(b, pitches=[0, *b.pitches])
        order = [lead + d for d in (target.order if target else range(len(shape)))]
        dropped = [d for d in order if _single(dims[d])]
        words = [0] * MoveWords.SIZE
        words[MoveWords.SOURCE] = a.offset + sum(int(dims[d].source[0]) * a.pitches[d] for d in dropped)
        words[MoveWords.TARGET] = b.offset + sum(int(dims[d].target[0]) * b.pitches[d] for d in dropped)
        words[MoveWords.START] = sum(int(dims[d].core[0]) for d in dropped)
        if source and producer:
            words[MoveWords.START] += producer.y * columns + producer.x
        words[MoveWords.OPERAND] = operand
        words[MoveWords.SOURCE_TAG] = self.tags[source.number] if source else HOST_TAG
        words[MoveWords.TARGET_TAG] = self.tags[target.number] if target else HOST_TAG
        parts = [(dims[d], a.pitches[d], b.pitches[d]) for d in range(lead)]
        single, box = _merged([(dims[d], a.pitches[d], b.pitches[d]) for d in order if d not in dropped])
        rows = [*parts, *single, *box]
        pull = Pull(len(rows), len(box), kind.dtype.name, move.combine or "")
        number = self.pulls.setdefault(pull, len(self.pulls))
        if source:
            bases = (Base.REGION, source.region)
        else:
            assert host is not None
            bases = (Base.HOST, self.host_number(host))
        return Record(
            words,
            {int(MoveWords.DIMENSIONS): self.pool.table([self._dimension(*row) for row in rows])},
            {int(MoveWords.FUNCTION): (Base.PULL, number), int(MoveWords.BASES): bases},
        )

    def _dimension(self, d: DimensionMoves, source_pitch: int, target_pitch: int) -> Record:
        words = [0] * DimensionWords.SIZE
        words[DimensionWords.SOURCE_PITCH], words[DimensionWords.TARGET_PITCH] = source_pitch, target_pitch
        arrays: Mapping[int, Ints] = {
            DimensionWords.X: d.x,
            DimensionWords.Y: d.y,
            DimensionWords.T: d.t,
            DimensionWords.START: d.start,
            DimensionWords.CORE: d.core,
            DimensionWords.SOURCE: d.source * source_pitch,
            DimensionWords.TARGET: d.target * target_pitch,
            DimensionWords.LENGTH: d.length,
        }
        return Record(words, {int(w): self.pool.add(array) for w, array in arrays.items()})


def _side(buffer: Buffer | None, host_shape: Sequence[int], size: int) -> _Side:
    """A buffer in SRAM, or the host's: row-major, of `host_shape`, elements of `size` bytes."""
    if buffer is not None:
        return _Side([p * size for p in buffer.pitches], buffer.address)
    ends = range(1, len(host_shape) + 1)
    return _Side([size * int(np.prod(host_shape[i:], dtype=np.int64)) for i in ends], 0)


def _in_region(d: DimensionMoves, producer: Grid | None, region_columns: int) -> DimensionMoves:
    """Producer core numbers as offsets in the region's table; zeros for the host."""
    if producer is None:
        return replace(d, core=np.zeros_like(d.core))
    rows, columns = d.core // producer.columns, d.core % producer.columns
    return replace(d, core=rows * producer.dy * region_columns + columns * producer.dx)


def _single(d: DimensionMoves) -> bool:
    """Whether the dimension is one entry of one element for every piece: it takes no loop."""
    return _uniform(d) and int(d.length[0]) == 1


def _uniform(d: DimensionMoves) -> bool:
    """Whether the dimension is one entry, the same for every piece."""
    return len(d.start) == 2 and int(d.start[1]) == 1


def _merged(rows: Sequence[_Row]) -> tuple[list[_Row], list[_Row]]:
    """Dimensions (outermost first) as those whose entries are single elements, and those that take a loop.

    A dimension whose neighbours lie, on both sides, one whole row of the next one apart is taken
    together with it: one longer row instead of many. Of the next one is left which core has the row.
    """
    single: list[_Row] = []
    box: list[_Row] = []
    for inner, source, target in rows:
        lengths = np.unique(inner.length)
        n = int(lengths[0]) if len(lengths) else 0
        if len(lengths) == 1 and n == 1:
            single.append((inner, source, target))
        elif len(lengths) == 1 and box and (box[-1][1], box[-1][2]) == (n * source, n * target):
            outer = box.pop()[0]
            single.append((replace(inner, length=np.ones_like(inner.length)), source, target))
            wide = replace(outer, source=outer.source * n, target=outer.target * n, length=outer.length * n)
            box.append((wide, source, target))
        else:
            box.append((inner, source, target))
    return single, box
