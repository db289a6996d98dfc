"""What kernels report of a call: indices that point outside their axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..codegen.words import REPORT, Judged
from ..ir.op import Array

NOTHING = np.iinfo(np.int64).max, np.iinfo(np.int64).min  # a report's words before anything is met


class InvalidIndex(ValueError):
    """An index that a run met, in an input or computed, points outside its axis. The message names the ONNX
    node, the index and the axis. There are no outputs; states hold what the run left."""


class Reports:
    """An entry's reports, int64 [bounds, REPORT], which its kernels widen as they meet what is outside."""

    def __init__(self, judged: Sequence[Judged]) -> None:
        self._judged = tuple(judged)
        self._words = np.tile(np.array(NOTHING, np.int64), (len(self._judged), 1))
        self._fresh = self._words.tobytes()

    def addresses(self) -> Array:
        """Of each report, int64."""
        return self._words.ctypes.data + 8 * REPORT * np.arange(len(self._judged), dtype=np.int64)

    def check(self) -> None:
        """Raises InvalidIndex for the first node that met an index outside; forgets what was met."""
        if self._words.tobytes() == self._fresh:
            return
        met = self._words.copy()
        self._words[:] = NOTHING
        for judged, words in zip(self._judged, met, strict=True):
            value = judged.bound.outside(words) if words[0] <= words[1] else None
            if value is not None:
                raise InvalidIndex(f"node {judged.node!r}: {judged.bound.problem(value)}")
