"""The totals of one predicted call, as `compile` finds them and the manifest keeps them.

Free of the planner: a program's figures are shown without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..placement.wafer import Wafer


@dataclass(frozen=True)
class Figures:
    """What one looks at first. Bytes, cycles; fullest: (x, y) of a core or of a link's router.

    cycles_at_f32: if products of 16-bit weights took as long as those of f32.
    """

    cores_used: int
    regions: int
    wavefronts: int
    tasks: int
    cycles: float
    cycles_at_f32: float
    microseconds: float
    fullest_core: tuple[int, int]
    fullest_core_bytes: int
    fullest_link: tuple[int, int, str] | None
    fullest_link_bytes: int
    bytes_in: int
    bytes_out: int
    host_cycles: float
    assumed: tuple[str, ...]

    @staticmethod
    def read(data: Any) -> Figures:
        """Figures from their JSON. Raises TypeError, ValueError where it is something else."""
        x, y = data["fullest_core"]
        link = data["fullest_link"]
        values: dict[str, Any] = dict(data)
        values["fullest_core"] = int(x), int(y)
        values["fullest_link"] = None if link is None else (int(link[0]), int(link[1]), str(link[2]))
        values["assumed"] = tuple(map(str, data["assumed"]))
        for name in ("cycles", "cycles_at_f32", "microseconds", "host_cycles"):
            values[name] = float(data[name])
        return Figures(**values)


def totals(of: Callable[[str], Figures], ran: Mapping[str, int]) -> Figures:
    """The figures of a call that ran some entries, each so often: its cycles and bytes are their sums."""
    each = {name: of(name) for name in ran}
    if not each:
        return Figures(0, 0, 0, 0, 0.0, 0.0, 0.0, (0, 0), 0, None, 0, 0, 0, 0.0, ())

    def summed(value: Callable[[Figures], Any]) -> Any:
        return sum(value(f) * ran[name] for name, f in each.items())

    fullest = max(each.values(), key=lambda f: f.fullest_core_bytes)
    link = max(each.values(), key=lambda f: f.fullest_link_bytes)
    return Figures(
        max(f.cores_used for f in each.values()),
        max(f.regions for f in each.values()),
        summed(lambda f: f.wavefronts),
        summed(lambda f: f.tasks),
        summed(lambda f: f.cycles),
        summed(lambda f: f.cycles_at_f32),
        summed(lambda f: f.microseconds),
        fullest.fullest_core,
        fullest.fullest_core_bytes,
        link.fullest_link,
        link.fullest_link_bytes,
        summed(lambda f: f.bytes_in),
        summed(lambda f: f.bytes_out),
        summed(lambda f: f.host_cycles),
        tuple(dict.fromkeys(a for f in each.values() for a in f.assumed)),
    )


def host_line(f: Figures, wafer: Wafer) -> str:
    """The transfer from and to the host, which is not part of the cycles."""
    return (
        f"{f.bytes_in:,} bytes in, {f.bytes_out:,} out: {f.host_cycles:,.0f} more cycles "
        f"at {wafer.host_bytes_per_cycle:g} bytes per cycle"
    )


def clock(wafer: Wafer) -> str:
    return f"{wafer.clock_hz / 1e9:g} GHz"
