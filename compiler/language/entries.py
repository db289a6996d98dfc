"""The ways into a language model: which entry takes how many tokens, by what inputs, and its encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.op import Array
from ...runtime.ports import Port, Ports
from ...runtime.program import InputError
from ..errors import ArtifactError, quoted
from ..show.text import plural

IDS, MASK, LOGITS = "input_ids", "attention_mask", "logits"
POSITIONS = ("position_ids", "cache_position")
SOURCE_MASK = "encoder_attention_mask"  # of a decoder: where its encoder's source has tokens


@dataclass(frozen=True)
class Entry:
    """A way into a model: `tokens` at once, each of the inputs by its role.

    logits: the output's name. rows: how many of the tokens, the last ones, it gives logits after.
    """

    name: str
    tokens: int
    inputs: Mapping[str, Port]
    logits: str
    rows: int
    vocabulary: int

    def feed(self, ids: Sequence[int], start: int, source: int) -> dict[str, Array]:
        """The inputs for tokens at positions from `start` on, behind a source of so many positions."""
        end = start + self.tokens
        found: dict[str, Array] = {}
        for name, port in self.inputs.items():
            if name == IDS:
                value: Any = ids
            elif name in POSITIONS:
                value = np.arange(start, end)
            else:  # 1 where a position holds a token
                value = np.arange(port.shape[-1]) < (source if name == SOURCE_MASK else end)
            found[name] = np.asarray(value).astype(port.dtype).reshape(port.shape)
        return found


@dataclass(frozen=True)
class Encoder:
    """The entry that takes what a text is made of. source: its input of tokens, or of something else; mask:
    the one that says where there are tokens, None without such.
    """

    name: str
    source: Port
    mask: Port | None

    @property
    def room(self) -> int:
        """Positions of a source."""
        return self.source.shape[-1]

    def feed(self, source: Sequence[int] | Array, pad: int) -> tuple[dict[str, Array], int]:
        """The inputs for a source, and how many positions it has. pad: the token that fills it up.

        Raises InputError where it does not fit.
        """
        given, port = np.asarray(source), self.source
        if port.dtype.kind == "f":
            shape = port.shape[1:] if given.ndim < len(port.shape) else port.shape
            if given.shape != shape:
                raise InputError(f"the source has shape {list(given.shape)}, the model takes {list(shape)}")
            return {port.name: given.astype(port.dtype).reshape(port.shape)}, self.room
        if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
            raise InputError("the source is no list of tokens")
        count = len(given)
        if count > self.room or (self.mask is None and count < self.room):
            raise InputError(f"the source has {plural(count, 'token')}, the model takes {self.room:,}")
        ids = np.pad(given, (0, self.room - count), constant_values=pad)
        found = {port.name: ids.astype(port.dtype).reshape(port.shape)}
        if self.mask is not None:
            filled = np.arange(self.room) < count
            found[self.mask.name] = filled.astype(self.mask.dtype).reshape(self.mask.shape)
        return found, count


def language_encoder(entries: Mapping[str, Ports]) -> Encoder | None:
    """The entry of an encoder, if a language model has one: it fills states and has no outputs."""
    for name, ports in entries.items():
        if ports.outputs or not ports.states:
            continue
        inputs = {p.name: p for p in ports.inputs if p.name not in ports.kept}
        mask = inputs.pop(MASK, None)
        if len(inputs) == 1:
            return Encoder(name, next(iter(inputs.values())), mask)
    return None


def language_entries(entries: Mapping[str, Ports]) -> tuple[Entry, ...]:
    """A language model's entries, those of many tokens first, without its encoder's. Raises ArtifactError
    where it is none: no entry takes one token, nor do all give `logits` of all their tokens."""
    encoder = language_encoder(entries)
    own = {name: ports for name, ports in entries.items() if encoder is None or name != encoder.name}
    if not own:
        raise ArtifactError("not a language model: no entry has outputs")
    found = tuple(sorted((_entry(name, ports) for name, ports in own.items()), key=lambda e: -e.tokens))
    if any(e.logits != LOGITS or e.rows != e.tokens for e in found):
        judge_step(found)
    return found


def judge_step(entries: Sequence[Entry]) -> None:
    """Raises ArtifactError where no entry takes one token."""
    if entries[-1].tokens != 1:
        raise ArtifactError(
            f"no entry takes one token, the smallest takes {entries[-1].tokens}; "
            "compile the model with --entry decode:S=1, too"
        )


def _entry(name: str, ports: Ports) -> Entry:
    states = {past for past, _ in ports.states}
    inputs = {p.name: p for p in ports.inputs if p.name not in states}
    if IDS not in inputs or inputs[IDS].dtype.kind not in "iu":
        raise ArtifactError(f"not a language model: no integer input {quoted(IDS)}")
    for port in inputs.values():
        if port.name not in (IDS, *POSITIONS, MASK, SOURCE_MASK):
            raise ArtifactError(
                f"input {quoted(port.name)} is none that a language model is given; "
                "caches are kept by --state and --capacity"
            )
    shape = inputs[IDS].shape
    tokens = int(np.prod(shape))
    if tokens != shape[-1]:
        raise ArtifactError(f"input {quoted(IDS)} has shape {list(shape)}; one text at a time can be made")
    presents = {present for _, present in ports.states}
    floats = [p for p in ports.outputs if p.name not in presents and p.dtype.kind == "f" and len(p.shape) > 1]
    logits = [p for p in floats if p.name == LOGITS] or [p for p in floats if p.shape[-2] == tokens]
    if not logits:
        raise ArtifactError("not a language model: no output has logits for each token")
    shape = logits[0].shape
    return Entry(name, tokens, inputs, logits[0].name, int(np.prod(shape[:-1])), shape[-1])
