"""What would make room for a model that does not fit: each with its numbers, computed and not guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..ir.graph import Graph
from ..placement.machine.presets import preset, presets
from ..placement.machine.wafer import Wafer
from ..placement.search.least import least
from .errors import WafercError, shown
from .planning import plans_for
from .request import Request
from .shapes.sizes import FILLS, wafers_needed
from .stopwatch import Stopwatch

MOST_BYTES = 1 << 28  # of constants, in a model that is imported once more for each size of a dimension
MOST_NODES = 64  # of a graph that is planned once more for a remedy
MOST_CORES = 1 << 14  # of a wafer that it is planned for
MOST_TRIED = 4  # sizes of a dimension, or wafers, that are planned for

Make = Callable[[Request], Mapping[str, Graph]]
"""The graphs that a request would plan."""


@dataclass(frozen=True)
class Remedies:
    """What could be asked for instead. need: bytes that the model takes at least, on all cores."""

    asked: Request
    graphs: Mapping[str, Graph]
    make: Make

    def __str__(self) -> str:
        found = list(self._by_totals() if self.need > self.asked.machine().memory else self._by_plans())
        if not found:
            return "a larger --wafer"
        return ", ".join(found[:-1]) + (" or " if len(found) > 1 else "") + found[-1]

    @property
    def need(self) -> int:
        return need(self.graphs)

    @property
    def wafers(self) -> Mapping[float, int]:
        """By the share of each wafer's memory that is used, how many hold what the model takes at least."""
        return {fill: wafers_needed(self.need, self.asked.machine(), fill) for fill in FILLS}

    # -- where the sum of all is too much -------------------------------------------------------
    def _by_totals(self) -> Iterator[str]:
        room = self.asked.machine().memory
        for kind in ("f16", "bf16") if self.asked.weights == "f32" else ():
            narrow = self._graphs(weights=kind, activations="f32")
            if narrow is not None:
                if (less := need(narrow)) < self.need:
                    enough = "" if less <= room else ", too many still"
                    yield f"--weights {kind} (needs {less:,} bytes at least{enough})"
                break
        larger = [w for w in _larger(self.asked.machine()) if w.memory >= self.need]
        if larger:
            yield f"--wafer {larger[0].name} (has {larger[0].memory:,})"
        elif any(True for _ in _larger(self.asked.machine())):
            most = max(map(preset, presets()), key=lambda w: w.memory)
            yield f"a wafer larger than {most.name} (has {most.memory:,})"
        if not larger:
            (low, count), (high, fewer) = self.wafers.items()
            yield (
                f"{count:,} wafers of {self.asked.machine().name} filled to {100 * low:.0f} % or {fewer:,} "
                f"to {100 * high:.0f} %, which 'waferc compare --shape' estimates"
            )
        for flag, size, ask in self._sizes():
            if (n := self._most(size, room, ask)) is not None:
                yield f"{flag}={n} (needs {need(self._graphs_of(ask(n)) or {}):,} at least)"

    def _most(self, size: int, room: int, ask: Callable[[int], Request]) -> int | None:
        """The largest size of a dimension below `size` with which the totals leave room."""
        low, high = 0, size
        while high - low > 1:
            middle = (low + high) // 2
            graphs = self._graphs_of(ask(middle))
            if graphs is not None and need(graphs) <= room:
                low = middle
            else:
                high = middle
        return low or None

    # -- where one core has too much -------------------------------------------------------------
    def _by_plans(self) -> Iterator[str]:
        largest = max(len(g.nodes) for g in self.graphs.values())
        if largest > MOST_NODES or self.asked.constraints is not None:
            return
        if self.asked.machine().cores <= MOST_CORES and self.asked.weights == "f32":
            narrow = self._graphs(weights="f16", activations="f32")
            if narrow is not None and need(narrow) < self.need:
                used = self._fullest(narrow, self.asked)
                if used is not None:
                    yield f"--weights f16 (fits: {used:,} bytes on the fullest core)"
        for wafer in [w for w in _larger(self.asked.machine()) if w.cores <= MOST_CORES][:MOST_TRIED]:
            if (used := self._fullest(self.graphs, replace(self.asked, wafer=wafer))) is not None:
                yield f"--wafer {wafer.name} (fits: {used:,} bytes on the fullest core)"
                break
        for flag, size, ask in self._sizes():
            for n in [size >> k for k in range(1, MOST_TRIED + 1) if size >> k]:
                graphs = self._graphs_of(ask(n))
                used = None if graphs is None else self._fullest(graphs, ask(n))
                if used is not None:
                    yield f"{flag}={n} (fits: {used:,} bytes on the fullest core)"
                    break

    def _fullest(self, graphs: Mapping[str, Graph], asked: Request) -> int | None:
        """Bytes on the fullest core of a plan; None where there is none."""
        try:
            plans = plans_for(graphs, asked, Stopwatch())
        except WafercError:
            return None
        return max(int(p.sram().max(initial=0)) for p in plans.values())

    # -- other requests ----------------------------------------------------------------------------
    def _sizes(self) -> Iterator[tuple[str, int, Callable[[int], Request]]]:
        """Dimensions that may be smaller: the flag, the size, and what asks for another one."""
        constants = sum(g.tensors[t].bytes for g in self.graphs.values() for t in g.constants)
        if constants > MOST_BYTES or self.asked.machine().cores > MOST_CORES:
            return
        asked = self.asked
        for name, size in asked.dims.items():
            if size > 1:
                yield (
                    f"--dim {shown(name)}",
                    size,
                    lambda n, name=name: replace(asked, dims={**asked.dims, name: n}),
                )
        if asked.capacity is not None:
            yield "--capacity", asked.capacity, lambda n: replace(asked, capacity=n)

    def _graphs(self, **changes: Any) -> Mapping[str, Graph] | None:
        return self._graphs_of(replace(self.asked, **changes))

    def _graphs_of(self, asked: Request) -> Mapping[str, Graph] | None:
        """None where the model cannot be had so: with weights too large for f16, say."""
        try:
            return self.make(asked)
        except WafercError:
            return None


def need(graphs: Mapping[str, Graph]) -> int:
    """Bytes that a program takes at least, on all cores: those of the entry that takes most."""
    return max((least(g).bytes for g in graphs.values()), default=0)


def _larger(wafer: Wafer) -> list[Wafer]:
    """The presets with more SRAM, least first."""
    return sorted((w for w in map(preset, presets()) if w.memory > wafer.memory), key=lambda w: w.memory)
