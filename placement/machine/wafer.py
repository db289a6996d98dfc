"""The machine: its grid, its memory, and the only cycle formulas in waferc.

Every constant is a field, so a TOML file describes a machine completely. Sources: DESIGN section 9
(published measurements); fields named in `assumed` have no published value, those in `fitted` were fitted
to measurements of what they are part of: see docs/accuracy.md for how far they carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ...ir.dtypes import F16, F32, WEIGHTS, DType
from ...ir.op import Op, Work

LINKS = ("east", "west", "south", "north")  # directions of a router's outgoing links
STEP = {"east": (1, 0), "west": (-1, 0), "south": (0, 1), "north": (0, -1)}
MAX_SIDE = 4096
MAX_COLOURS = 1024  # each has tables of its own in the planner and the judge
KINDS = (
    *("copy_f16", "copy_f32", "fma_f16", "fma_f32", "fma_mixed", "slice_f16", "slice_f32"),
    *("unpack_f16", "unpack_f32"),
)
MOST, LEAST = 1e12, 1e-9  # of any number, and of one that others are divided by
GROUPS = (4, 8, 16, 32, 64)


class WaferError(ValueError):
    """A wafer description that cannot be used; the message says what and where."""


@dataclass(frozen=True)
class Wafer:
    """A `width` x `height` grid of cores and its constants.

    Times are in cycles, sizes in bytes. `vector` maps "kind_type" to (setup, elements per
    cycle); `loop` is what each further operation of a loop takes besides its elements. A root of a
    reduction takes `add` a wavelet that it adds. `multicast`: of a message to many over one to one core.
    `temporary`: what a product may keep to multiply all of a tile at once. `host_call`: seconds that any
    transfer from or to the host takes at least. `clocks_hz` are those at which other published
    figures than at `clock_hz` hold. `error`: of a call's cycles, as a share of
    them, that is to be expected (0: nothing is known). `fitted` maps a constant to the rows that
    it was fitted on. A dead core has no working memory or datapath, but its router forwards; a router that
    does not is given as four dead links. `dead_links` are (x, y, direction) of outgoing links.
    """

    name: str
    width: int
    height: int
    sram_bytes: int
    clock_hz: float
    hop: float
    turn: float
    send: float
    done: float
    wavelet_bytes: int
    wavelet: float
    colours: int
    loop: float
    stage: float
    relay: float
    express: int
    code_bytes_base: int
    code_bytes_per_kernel: int
    host_bytes_per_cycle: float
    vector: Mapping[str, tuple[float, float]]
    add: float = 1.0
    multicast: float = 0.0
    temporary: int = 0
    host_call: float = 0.0
    clocks_hz: tuple[float, ...] = ()
    error: float = 0.0
    fabric_width: int = 0
    fabric_height: int = 0
    assumed: tuple[str, ...] = ()
    fitted: Mapping[str, str] = field(default_factory=dict[str, str])
    dead_cores: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    dead_links: tuple[tuple[int, int, str], ...] = field(default=(), repr=False)

    @property
    def cores(self) -> int:
        return self.width * self.height

    @property
    def cores_alive(self) -> int:
        """The cores that may hold a tile."""
        return self.cores - len(set(self.dead_cores))

    @property
    def memory(self) -> int:
        """Bytes of all cores that live."""
        return self.cores_alive * self.sram_bytes

    def dead(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """bool [height, width]: the cores that hold no tile."""
        out = np.zeros((self.height, self.width), np.bool_)
        for x, y in self.dead_cores:
            out[y, x] = True
        return out

    def check(self) -> None:
        """Raises WaferError unless the description is complete and sane."""
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise WaferError(
                f"wafer {self.name}: {self.width}x{self.height} cores; sides go from 1 to {MAX_SIDE}"
            )
        if not 1 <= self.colours <= MAX_COLOURS:
            raise WaferError(
                f"wafer {self.name}: {str(self.colours)[:24]} colours; there are from 1 to {MAX_COLOURS}"
            )
        for f in fields(self):
            v = getattr(self, f.name)
            if isinstance(v, int | float) and not 0 <= v <= MOST:
                raise WaferError(
                    f"wafer {self.name}: {f.name} = {str(v)[:24]}; must be finite and not negative, "
                    f"at most {MOST:g}"
                )
        for f in ("sram_bytes", "wavelet_bytes", "wavelet", "clock_hz", "host_bytes_per_cycle", "express"):
            if not getattr(self, f) >= LEAST:
                raise WaferError(f"wafer {self.name}: {f} = {getattr(self, f)}; must be above 0")
        for clock in self.clocks_hz:
            if not LEAST <= clock <= MOST:
                raise WaferError(f"wafer {self.name}: clocks_hz has {clock:g}; they must be above 0")
        for kind in KINDS:
            if kind not in self.vector:
                raise WaferError(f"wafer {self.name}: vector.{kind} = [setup, elements per cycle] is missing")
        for kind, (setup, rate) in self.vector.items():
            if not (0 <= setup <= MOST and LEAST <= rate <= MOST):
                raise WaferError(
                    f"wafer {self.name}: vector.{kind} = [setup, elements per cycle] "
                    f"is [{setup:g}, {rate:g}]; they are from 0 and above 0"
                )
        for what, names in (("assumed", self.assumed), ("fitted", self.fitted)):
            for name in names:
                group, _, kind = name.partition(".")
                own = self.vector.get(kind) if group == "vector" else getattr(self, name, None)
                if not isinstance(own, int | float | tuple):
                    raise WaferError(f"wafer {self.name}: {what} names {name[:40]!r}, no constant of it")
        for x, y in self.dead_cores:
            if not (0 <= x < self.width and 0 <= y < self.height):
                raise WaferError(
                    f"wafer {self.name}: dead core ({x}, {y}) is outside {self.width}x{self.height}"
                )
        for x, y, d in self.dead_links:
            if d not in LINKS or not (0 <= x < self.width and 0 <= y < self.height):
                raise WaferError(
                    f"wafer {self.name}: dead link ({x}, {y}, {d!r}); use one of {', '.join(LINKS)}"
                )

    # -- cycles --------------------------------------------------------------------
    def _rate(self, kind: str, dtype: DType) -> tuple[float, float]:
        """(setup, elements per cycle); wider types take the f32 rate once per 32 bits."""
        if dtype.bytes <= 2:
            return self.vector[f"{kind}_f16" if dtype == F16 or kind == "copy" else f"{kind}_f32"]
        setup, rate = self.vector[f"{kind}_f32"]
        return setup, rate * 4 / max(dtype.bytes, 4)

    def work(self, work: Work, dtype: DType, mixed: bool = False) -> Any:
        """Cycles of one row of work: starts * setup + (dispatches - 1) * loop + elements / rate.

        mixed: its arithmetic is that of `mixed_products`.
        """
        known = MIXED.get(work.kind) if mixed else None
        setup, rate = self.vector[known] if known else self._rate(work.kind, dtype)
        return work.starts * setup + (work.dispatches - 1) * self.loop + work.elements / rate

    def task(self, op: Op, extents: Mapping[str, Any]) -> tuple[Any, Any]:
        """(cycles, scratch bytes) of a tile of `extents`: the cheapest way that the op offers.

        One that keeps over `temporary` bytes more than the first of them is not open.
        Extents may be NumPy arrays of candidates; so are then the results.
        """
        wide = max([*op.in_types, op.out_type], key=lambda t: t.bytes)
        mixed = mixed_products(op)
        where: Any = np.where
        best: Any = np.inf
        scratch: Any = 0
        ways = op.alternatives(extents)
        most: Any = ways[0][1] + self.temporary
        for rows, temporary in ways:
            cycles: Any = sum((self.work(w, wide, mixed) for w in rows), start=0.0)
            cycles = where(temporary <= most, cycles, np.inf)
            scratch = where(cycles < best, temporary, scratch)
            best = np.minimum(cycles, best)
        return best, scratch

    def wavelets(self, nbytes: Any) -> Any:
        """How many wavelets carry `nbytes`."""
        return -(-nbytes // self.wavelet_bytes)

    def copy(self, elements: Any, dtype: DType) -> Any:
        """Cycles of a copy within one core."""
        return self.work(Work("copy", 1, elements), dtype)

    def route(self, hops: Any, turns: Any) -> Any:
        """Cycles from the first wavelet's send to its arrival at the task (without serialisation)."""
        return self.send + self.hop * hops + self.turn * turns + self.done

    def from_host(self, nbytes: Any) -> Any:
        """Cycles of a transfer of `nbytes` from the host, to it, or there and back."""
        return self.host_call * self.clock_hz + nbytes / self.host_bytes_per_cycle

    def serial(self, wavelets: Any) -> Any:
        """Cycles that `wavelets` take through one link."""
        return self.wavelet * wavelets

    def relayed(self, hops: Any) -> Any:
        """Extra cycles of a route on the shared lanes: a task relays at each stop.

        Lanes of `express` hops carry it as far as they go, lanes of one hop the rest.
        """
        far = np.floor(hops / self.express)
        stops = hops - far * (self.express - 1)
        return self.relay * np.maximum(stops - 1, 0)

    def join(self, parts: Any, wavelets: Any, pitch: Any = 1, lines: Any = 1, apart: Any = 1) -> Any:
        """Cycles of a fabric reduction of `parts` partial results, `pitch` cores apart, into one root.

        Two-level, pipelined by element, rooted in the centre (DESIGN section 9); the group size
        that takes least is used, a chain being one group. A root hears both halves of its line, so each
        result comes to it twice. A star serves one wavelet from at most 16.
        Of several parallel `lines`, `apart` cores from one another, the roots are reduced in the same way.
        """
        parts = np.maximum(np.asarray(parts, np.int64), 1)
        lines = np.maximum(np.asarray(lines, np.int64), 1)
        add = self.add
        setup = self.vector["fma_f32"][0] + self.loop
        tail = wavelets * max(self.wavelet, add) + wavelets * add + self.send + self.done
        stages = self._stages(parts, pitch) + self._stages(lines, apart) + np.where(lines > 1, self.turn, 0.0)
        star = self.route(self.hop * 0 + pitch * parts / 2, 0) + self.wavelet * parts + parts * add + setup
        few: Any = (parts <= 16) & (lines <= 1) & (np.asarray(wavelets) <= 1)
        best: Any = setup + stages + tail
        where: Any = np.where
        return where(few, np.minimum(best, star), best)

    def _stages(self, parts: Any, pitch: Any) -> Any:
        """Cycles of the first element through both levels of a reduction along one line."""
        best: Any = np.inf
        for group in (*GROUPS, parts):
            s1 = -(-(np.minimum(group, parts) - 1) // 2)
            s2 = -(-(-(-parts // group) - 1) // 2)
            cycles = s1 * (self.hop * pitch + self.stage) + s2 * (group * pitch * self.hop + self.stage)
            best = np.minimum(best, cycles)
        return best


MIXED = {"fma": "fma_mixed", "slice": "slice_f16", "unpack": "unpack_f16"}


def mixed_products(op: Op) -> bool:
    """Whether the op sums in f32 what it reads in 16 bits: the rate `fma_mixed` is for it."""
    return op.out_type == F32 and bool(op.reduced) and any(t in WEIGHTS for t in op.in_types)
