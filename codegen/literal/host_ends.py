"""From and to the host: the records that lay a tensor into SRAM, and that read an output."""

from __future__ import annotations

from collections.abc import Sequence

from ...placement.plan.layout import Grid, whole
from ...placement.plan.move import HOST, Move, derive
from ...placement.plan.plan import Buffer, Step
from ..pool import Record
from ..words import Base, StepWords
from .claims import claim, filled
from .draft import Draft
from .records import HostBuffer
from .tags import from_host


def constant(draft: Draft, tensor: str, move: Move, fill: float | None) -> Record:
    """A record that lays a constant into its buffer. fill: what lies past its ends; None if nothing does."""
    buffer = draft.plan.buffers[move.target]
    out = _laid(draft, buffer, move, ("constant", tensor), -1)
    if fill is not None:
        draft.put(out, StepWords.FILLS, StepWords.FILL_TABLE, [filled(buffer, fill)])
    return out


def input_of(draft: Draft, step: Step) -> Record:
    """A record that lays an input into the SRAM of its owners."""
    move = from_host(step, draft.plan.graph.tensors[step.tensor].shape)
    return _laid(draft, draft.plan.buffers[step.result], move, ("input", step.tensor), step.number)


def _laid(draft: Draft, buffer: Buffer, move: Move, host: HostBuffer, number: int) -> Record:
    out = draft.record(buffer.grid, buffer.region, number, 1)
    draft.put(out, StepWords.MOVES, StepWords.MOVE_TABLE, [draft.moves.record(move, None, host)])
    row = claim(buffer, draft.tags[buffer.number], once=True)
    draft.put(out, StepWords.CLAIMS, StepWords.CLAIM_TABLE, [row])
    return out


def output(draft: Draft, tensor: str, owners: Sequence[Step]) -> Record:
    """A record that reads an output into the host's buffer."""
    shape, host = draft.plan.graph.tensors[tensor].shape, _output(tensor)
    out = draft.record(Grid(1, 1), -1, -1, 1)
    out.others[StepWords.BASES] = (Base.HOST, draft.moves.host_number(host))
    moves = [derive(whole(shape), s.hold, shape, s.grid, s.result, HOST) for s in owners]
    rows = [draft.moves.record(m, s.grid, host) for m, s in zip(moves, owners, strict=True)]
    draft.put(out, StepWords.MOVES, StepWords.MOVE_TABLE, rows)
    return out


def _output(tensor: str) -> HostBuffer:
    return "output", tensor
