"""A program side by side with onnxruntime, in pairs of measurements taken in turns.

The peer lives in a process of its own that is stopped while ours runs: its idle threads spin, and would
take the processors that ours needs. `python -m waferc.compiler.bench` is that process; it reads one
JSON request per line and answers with one.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from ..runtime.program import Port, Program
from .errors import WafercError
from .feeds import Feed, random_feed
from .verify import Streaming

WARM = 2  # calls before those that count, after the other had the caches; fewer where a call takes long
LONG = 0.1  # seconds that one measurement should take
MOST_CALLS = 200

Ranges = Mapping[str, tuple[float, float]]


class PeerFailed(WafercError):
    """The peer ended, or cannot run the model."""

    exit_code = 4


@dataclass(frozen=True)
class Pairs:
    """Milliseconds per call: for each pair of measurements the medians of both. calls: of one measurement."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]
    calls: int
    threads: int

    @property
    def ratios(self) -> list[float]:
        """Ours over the peer's, pair by pair; below 1 ours is faster."""
        return [a / b for a, b in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def measure(
    program: Program,
    model: str,
    pairs: int,
    threads: int,
    seed: int = 0,
    ranges: Ranges | None = None,
    progress: Callable[[str, float], None] = lambda phase, share: None,
) -> Pairs:
    """Times `program` and onnxruntime on `model` in turns. Raises PeerFailed."""
    ports, states = program.image.inputs, program.image.states
    fresh = [p for p in ports if p.name not in program.state_inputs]
    ours: list[float] = []
    theirs: list[float] = []
    with Peer(model, threads, ports, states, ranges or {}).started() as peer:

        def mine(number: int, calls: int) -> float:
            given = feeds(fresh, seed, number, calls, ranges or {})
            return timed(lambda feed: program.run(feed, threads), given, calls)

        def other(number: int, calls: int) -> float:
            return peer.measure(seed, number, calls)

        # The first calls warm both up, the second ones tell how many fill a measurement.
        for run in (mine, other):
            run(0, 1)
        calls = max(1, min(MOST_CALLS, round(LONG * 1e3 / max(mine(1, 1), other(1, 1), 1e-6))))
        for i in range(pairs):
            progress("bench", i / pairs)
            order = [(mine, ours), (other, theirs)]
            for run, into in order if i % 2 == 0 else reversed(order):
                into.append(run(2 + i, calls))
    return Pairs(tuple(ours), tuple(theirs), calls, threads)


def feeds(ports: Sequence[Port], seed: int, number: int, calls: int, ranges: Ranges) -> list[Feed]:
    """New inputs for every call of measurement `number`, the same in both processes."""
    return [random_feed(ports, [seed, number, i], ranges) for i in range(calls + min(WARM, calls - 1))]


def timed(run: Callable[[Feed], Any], given: Sequence[Feed], calls: int) -> float:
    """Median milliseconds of the last `calls` calls; those before them warm up."""
    took: list[float] = []
    for feed in given:
        start = time.perf_counter()
        run(feed)
        took.append((time.perf_counter() - start) * 1e3)
    return statistics.median(took[-calls:])


class Peer:
    """onnxruntime in a process of its own, stopped except while it is asked."""

    def __init__(
        self,
        model: str,
        threads: int,
        ports: Sequence[Port],
        states: Sequence[tuple[str, str]],
        ranges: Ranges,
    ) -> None:
        self._first = {
            "model": model,
            "threads": threads,
            "ports": [[p.name, list(p.shape), p.dtype.name] for p in ports],
            "states": [list(s) for s in states],
            "ranges": {n: list(r) for n, r in ranges.items()},
        }
        self._process: Any = None

    @contextmanager
    def started(self) -> Generator[Peer]:
        command = [sys.executable, "-m", "waferc.compiler.bench"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        try:
            self._ask(self._first)
            yield self
        finally:
            self._process.kill()  # ends a stopped process, too
            self._process.communicate()

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def measure(self, seed: int, number: int, calls: int) -> float:
        return float(self._ask({"seed": seed, "number": number, "calls": calls})["milliseconds"])

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Wakes the peer, asks, and stops it again."""
        try:
            self._process.send_signal(signal.SIGCONT)
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerFailed(f"onnxruntime's process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(str(answer["error"]))
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return answer


def serve(requests: TextIO, answers: TextIO) -> None:
    """The peer's side: the model first, then measurements."""
    from .golden import OnnxRuntime

    def answer(data: Mapping[str, Any]) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    first: dict[str, Any] = json.loads(requests.readline())
    ports = [Port(n, tuple(s), np.dtype(t)) for n, s, t in first["ports"]]
    states = [(past, present) for past, present in first["states"]]
    ranges = {n: (float(low), float(high)) for n, (low, high) in first["ranges"].items()}
    try:
        streaming = Streaming(OnnxRuntime(first["model"], first["threads"]), ports, states)
        answer({})
        fresh = [p for p in ports if p.name not in {past for past, _ in states}]
        for line in requests:
            r = json.loads(line)
            given = feeds(fresh, r["seed"], r["number"], r["calls"], ranges)
            answer({"milliseconds": timed(streaming.run, given, r["calls"])})
    except WafercError as e:
        answer({"error": str(e)})


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
