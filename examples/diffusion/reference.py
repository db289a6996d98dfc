"""The example's models by onnxruntime, as programs that `TokenModel` takes; and n-grams of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from letters import LETTERS
from numpy.typing import NDArray
from waferc.runtime.ports import Port, Ports
from waferc.runtime.program import Kept, Program

Array = NDArray[Any]
LETTER_COUNT = len(LETTERS)


class Reference:
    """A model by onnxruntime, with caches of `capacity` positions. sizes: tokens that a call may take."""

    def __init__(self, path: Path, sizes: Sequence[int], capacity: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options)
        self._outputs = [o.name for o in self._session.get_outputs()]
        shapes = {i.name: i.shape for i in self._session.get_inputs() if i.name.startswith("past")}
        self._empty = {n: np.zeros([d if isinstance(d, int) else 0 for d in s]) for n, s in shapes.items()}
        self._caches: dict[str, Array] = {n: x.astype(np.float32) for n, x in self._empty.items()}
        self.capacity, self.length, self.changes = capacity, 0, 0
        integers, floats = np.dtype(np.int64), np.dtype(np.float32)
        self.entries: Mapping[str, Ports] = {
            f"of{n}": Ports(
                (
                    Port("input_ids", (1, n), integers),
                    Port("position_ids", (1, n), integers),
                    *(Port(name, (1, 6, capacity, 32), floats) for name in shapes),
                ),
                (
                    Port("logits", (1, n, LETTER_COUNT + 1), floats),
                    *(Port(_present(name), (1, 6, capacity, 32), floats) for name in shapes),
                ),
                tuple((name, _present(name)) for name in shapes),
            )
            for n in sizes
        }

    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]:
        results = self._session.run(self._outputs, {**inputs, **self._caches})
        found = {name: np.asarray(value) for name, value in zip(self._outputs, results, strict=True)}
        self._caches = {name: found[_present(name)] for name in self._caches}
        self.length += np.asarray(inputs["input_ids"]).size
        return {"logits": found["logits"]}

    def rewind(self, length: int) -> None:
        self._caches = {name: value[:, :, :length] for name, value in self._caches.items()}
        self.length = length

    def reset(self) -> None:
        self.rewind(0)

    def keep(self) -> Kept:
        raise NotImplementedError

    def restore(self, kept: Kept) -> None:
        raise NotImplementedError


class Beside:
    """A program, each call of which onnxruntime repeats. apart: how far logits were, of the largest one.

    drawn: bytes of all logits, to compare with another run's.
    """

    def __init__(self, program: Program, path: Path) -> None:
        self.program = program
        self.reference = Reference(path, (1,), program.capacity or 0)
        self.apart, self.logits = 0.0, list[bytes]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)

    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]:
        ours = self.program.run(inputs, threads, entry)
        theirs = self.reference.run({n: v.astype(np.int64) for n, v in inputs.items()})["logits"]
        self.apart = max(self.apart, float(np.abs(ours["logits"] - theirs).max() / np.abs(theirs).max()))
        self.logits.append(ours["logits"].tobytes())
        return ours

    def rewind(self, length: int) -> None:
        self.program.rewind(length)
        self.reference.rewind(length)

    def reset(self) -> None:
        self.program.reset()
        self.reference.reset()


def _present(past: str) -> str:
    return past.replace("past_key_values", "present")


class NGrams:
    """Interpolated n-grams of a text, by Witten and Bell: an n-gram counts beside what is shorter by one."""

    def __init__(self, text: Array, order: int) -> None:
        self.order = order
        self._counts: list[tuple[Array, Array]] = []
        self._kinds: list[tuple[Array, Array]] = []
        for n in range(1, order + 1):
            grams, counts = np.unique(_codes(text, n), return_counts=True)
            self._counts.append((grams, counts))
            self._kinds.append(np.unique(grams // LETTER_COUNT, return_counts=True))

    def bits(self, text: Array) -> Array:
        """What each character costs behind those before it in `text`."""
        shares = np.full(len(text), 1 / LETTER_COUNT)
        for n in range(1, self.order + 1):
            codes = _codes(text, n)
            count = _looked_up(self._counts[n - 1], codes)
            before = codes // LETTER_COUNT
            kinds = _looked_up(self._kinds[n - 1], before)
            if n == 1:
                total = np.full(len(codes), float(self._counts[0][1].sum()))
            else:
                total = _looked_up(self._counts[n - 2], before)
            known = total > 0
            own = shares[n - 1 :]
            mixed = (count + kinds * own) / np.maximum(total + kinds, 1)
            own[known] = mixed[known]
        return -np.log2(shares)


def _codes(text: Array, n: int) -> Array:
    """Each n characters in a row as one number."""
    out = np.zeros(max(0, len(text) - n + 1), np.int64)
    for i in range(n):
        out = out * LETTER_COUNT + text[i : len(text) - n + 1 + i]
    return out


def _looked_up(table: tuple[Array, Array], keys: Array) -> Array:
    names, counts = table
    at = np.minimum(np.searchsorted(names, keys), len(names) - 1)
    return np.where(names[at] == keys, counts[at], 0).astype(np.float64)
