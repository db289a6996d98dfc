"""How long `waferc compile` takes, with and without its plan in the cache, and how much memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# workload -> seconds that a cold compile for wse3 may take; one with its plan cached half of that
REQUIRED = {"digits-16": 1.5, "minilm-128": 5.0, "resnet50": 6.0, "decode": 20.0}


@dataclass(frozen=True)
class Compiling:
    """Seconds of wall time, and the most bytes of memory that either compile had."""

    cold: float
    warm: float
    peak: int


def measure(model: Path, flags: Sequence[str]) -> Compiling:
    """Compiles twice with a cache of its own. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        output, cache = Path(folder) / "p.wafer", Path(folder) / "cache"
        command = [str(Path(sys.executable).with_name("waferc")), "compile", str(model), *flags]
        command += ["-q", "-o", str(output)]
        cold, warm = timed(command, cache), timed(command, cache)
    return Compiling(cold.seconds, warm.seconds, max(cold.peak, warm.peak))


@dataclass(frozen=True)
class Took:
    """What a process took: seconds of wall time, seconds of processors, and the most bytes of memory."""

    seconds: float
    processors: float
    peak: int


def timed(command: Sequence[str], cache: Path) -> Took:
    """Runs a command. Raises CalledProcessError.

    It is started by a small process of its own: a child's peak counts from its parent's memory.
    """
    starter = [sys.executable, __file__, *command]
    env = {**os.environ, "WAFERC_CACHE": str(cache)}
    done = subprocess.run(starter, env=env, stdout=subprocess.PIPE, text=True, check=True)
    seconds, processors, peak = done.stdout.split()
    return Took(float(seconds), float(processors), int(peak))


def main() -> int:
    """Runs the command given as arguments; prints its seconds, those of processors, and its peak bytes."""
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
