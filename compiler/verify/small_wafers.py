"""The small wafers that single operators are run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...placement.machine.presets import preset
from ..errors import DoesNotFit

WAFERS = ("8x8", "16x16", "32x32", "64x64", "128x128")

T = TypeVar("T")


def on_smallest(attempt: Callable[[str], T], bytes_held: int = 0) -> T:
    """What `attempt` gives for the first of `WAFERS` with which it does not raise DoesNotFit.

    bytes_held: those that cannot hold so many are not tried, for a failure takes seconds.
    """
    *smaller, largest = WAFERS
    for wafer in smaller:
        if bytes_held <= preset(wafer).cores * preset(wafer).sram_bytes:
            try:
                return attempt(wafer)
            except DoesNotFit:
                pass  # on this one
    return attempt(largest)
