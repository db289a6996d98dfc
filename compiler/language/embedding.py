"""Vectors of texts from a program that holds an encoder alone, such as a sentence transformer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.op import Array
from ...runtime.ports import Port, Ports
from ..errors import ArtifactError

IDS, MASK, KINDS = "input_ids", "attention_mask", "token_type_ids"
HIDDEN = ("last_hidden_state", "token_embeddings")
LOGITS = "logits"  # of a model that makes texts


@dataclass(frozen=True)
class EncoderEntry:
    """A way into an encoder, for at most `tokens` of a text. hidden: the output [1, tokens, dimensions]."""

    name: str
    tokens: int
    inputs: Mapping[str, Port]
    hidden: str
    dimensions: int

    @property
    def takes_less(self) -> bool:
        """Whether a text may have fewer tokens."""
        return MASK in self.inputs

    def feed(self, ids: Sequence[int], pad: int) -> dict[str, Array]:
        """The inputs for a text's tokens. pad: the token that fills up."""
        filled = np.arange(self.tokens) < len(ids)
        values = {
            IDS: np.pad(np.asarray(ids, np.int64), (0, self.tokens - len(ids)), constant_values=pad),
            MASK: filled,
            KINDS: np.zeros(self.tokens),
        }
        return {n: np.asarray(values[n]).astype(p.dtype).reshape(p.shape) for n, p in self.inputs.items()}

    def pooled(self, hidden: Array, count: int) -> Array:
        """The mean [dimensions] of what comes of a text's `count` tokens, at length 1, in f32."""
        mean: Array = hidden.reshape(self.tokens, self.dimensions)[:count].astype(np.float64).mean(0)
        return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def encoder_entries(entries: Mapping[str, Ports]) -> tuple[EncoderEntry, ...]:
    """An encoder's entries, those of few tokens first. Raises ArtifactError where it is none."""
    if not entries:
        raise ArtifactError("not an encoder of texts: nothing runs on the wafer")
    return tuple(sorted((_entry(name, ports) for name, ports in entries.items()), key=lambda e: e.tokens))


def _entry(name: str, ports: Ports) -> EncoderEntry:
    inputs = {p.name: p for p in ports.inputs}
    if ports.states or IDS not in inputs or inputs.keys() - {IDS, MASK, KINDS}:
        raise ArtifactError("not an encoder of texts: it takes more than the tokens and a mask")
    shape = inputs[IDS].shape
    tokens = shape[-1]
    if (
        inputs[IDS].dtype.kind not in "iu"
        or int(np.prod(shape)) != tokens
        or any(p.shape != shape for p in inputs.values())
    ):
        raise ArtifactError(f"not an encoder of one text: its tokens have shape {list(shape)}")
    found = [
        p
        for p in ports.outputs
        if p.dtype.kind == "f" and len(p.shape) == 3 and p.shape[:2] == (1, tokens) and p.name != LOGITS
    ]
    named = [p for p in found if p.name in HIDDEN] or found
    if len(named) != 1:
        raise ArtifactError(f"not an encoder of texts: {len(found)} outputs have a vector for each token")
    return EncoderEntry(name, tokens, inputs, named[0].name, named[0].shape[-1])
