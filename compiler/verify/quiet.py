"""Whether a processor's core is ours alone while we measure.

Where two hardware threads share a core, the other's work takes half of the front end: a loop of `nop` then
runs at half its rate, while a chain of dependent instructions, which waits for latencies, tells the clock.
Neither a load average nor a clock shows such a neighbour, and a virtual machine's is nobody's process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise

from ...runtime.engine import Code, bitcode

NOPS = 256  # a turn's
LINKS = 64  # a turn's, of a multiplication and an exclusive or: 3 cycles and 1
TURNS = 200  # of a loop: 5 to 20 us
REPEATS = 3  # of both, for a probe
SHARED = 0.7  # of the best rate seen: below it something else uses the core


def _loop(name: str, body: str, last: str) -> str:
    return f"""
define i64 @{name}(i64 %turns, i64 %odd) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i1, %loop]
  %x0 = phi i64 [%odd, %entry], [{last}, %loop]
{body}  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %turns
  br i1 %more, label %loop, label %end
end:
  ret i64 {last}
}}
"""


def _source() -> str:
    links = "".join(
        f"  %m{i} = mul i64 %x{i}, %odd\n  %x{i + 1} = xor i64 %m{i}, %turns\n" for i in range(LINKS)
    )
    nops = '  call void asm sideeffect "' + "nop\\0A" * NOPS + '", ""()\n'
    return _loop("nops", nops, "%x0") + _loop("chain", links, f"%x{LINKS}")


@cache
def _native() -> tuple[Code, Callable[..., int], Callable[..., int]]:
    code = Code(bitcode(_source()))
    return code, code.function("nops", 2, returns=True), code.function("chain", 2, returns=True)


def nops_per_cycle() -> float:
    """Of the calling thread's core now. Each loop's best of REPEATS: an interruption lengthens but one."""
    _, nops, chain = _native()
    took = [(_seconds(nops), _seconds(chain)) for _ in range(REPEATS)]
    return NOPS * min(c for _, c in took) / (4 * LINKS * min(n for n, _ in took))


def _seconds(loop: Callable[..., int]) -> float:
    start = time.perf_counter()
    loop(TURNS, 3)
    return time.perf_counter() - start


class Watch:
    """Probes taken around measurements, and which of these were disturbed."""

    def __init__(self) -> None:
        self._rates: list[float] = []

    def probe(self) -> None:
        """To be called before the first measurement and after each."""
        self._rates.append(nops_per_cycle())

    @property
    def best(self) -> float:
        """Nops per cycle of a core that was ours alone, if it ever was."""
        return max(self._rates)

    def disturbed(self) -> list[bool]:
        """Of each measurement, whether the probe on either side of it says so."""
        low = [rate < SHARED * self.best for rate in self._rates]
        return [a or b for a, b in pairwise(low)]
