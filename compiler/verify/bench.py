"""A program side by side with onnxruntime and other peers, in measurements taken in turns.

Each peer lives in a process of its own that is stopped while another runs: idle threads spin, and would
take the processors that the others need. `python -m waferc.compiler.verify.bench` is that process; it reads
one JSON request per line and answers with one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any, TextIO

import numpy as np

from ...ir.graph import Length
from ...ir.op import Array
from ...runtime.ports import Port, Ports
from ...runtime.program import Program
from ..errors import WafercError, shown
from ..stopwatch import Report, silent
from .call_inputs import Feed, random_feed
from .compare import Streaming
from .peers import FIRST, load_peer
from .quiet import Watch

WARM = 2  # calls before those that count, after others had the caches; one where a measurement is one call
LONG = 0.1  # seconds that one measurement should take
MOST_CALLS = 200

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Setting:
    """What all runtimes are measured with. ranges: of inputs, by name. limit: seconds for a peer's answer.

    files: of peers that read the model in a format of their own.
    """

    threads: int
    seed: int = 0
    ranges: Ranges = field(default_factory=dict[str, tuple[float, float]])
    limit: float | None = None
    files: Mapping[str, str] = field(default_factory=dict[str, str])


class PeerFailed(WafercError):
    """The peer ended, cannot run the model, or takes too long to get ready."""

    exit_code = 4


@dataclass(frozen=True)
class Measured:
    """Milliseconds per call, one median for each round. calls: of one measurement of ours.

    peers: by name, the one that gives the ratio first. failed: peer -> why it was left out. disturbed: of
    each round, whether something else used the core before or after it (see `quiet`).
    """

    ours: tuple[float, ...]
    peers: Mapping[str, tuple[float, ...]]
    failed: Mapping[str, str]
    calls: int
    threads: int
    disturbed: tuple[bool, ...]

    def ratios(self, peer: str = FIRST) -> list[float]:
        """Ours over the peer's, round by round; below 1 ours is faster."""
        return [a / b for a, b in zip(self.ours, self.peers[peer], strict=True)]

    def ratio(self, peer: str = FIRST) -> float:
        return statistics.median(self.ratios(peer))


def measure(
    program: Program,
    model: str,
    peers: Sequence[str],
    rounds: int,
    setting: Setting,
    progress: Report = silent,
) -> Measured:
    """Times `program` and the peers on `model` in turns.

    A peer that fails, or is not ready within the limit, is left out; PeerFailed if it is the first.
    """
    threads = setting.threads
    fresh = [p for p in program.ports.inputs if p.name not in program.state_inputs]
    at = program.ports.length

    def mine(number: int, calls: int) -> float:
        given = feeds(fresh, setting, number, calls)
        if at is not None:
            program.reset()
        return timed(lambda feed: program.run(feed, threads), given, calls)

    runs: dict[str, Callable[[int, int], float]] = {"": mine}
    failed: dict[str, str] = {}
    with ExitStack() as started:
        for name in peers:
            peer = Peer(name, model, program.ports, setting, program.values)
            try:
                runs[name] = started.enter_context(peer.started()).measure
                runs[name](0, 1)
            except PeerFailed as e:
                if name == peers[0]:
                    raise
                runs.pop(name, None)
                failed[name] = str(e)
        # The first calls have warmed all up, the second ones tell how many fill a measurement.
        mine(0, 1)
        once = {name: run(1, 1) for name, run in runs.items()}
        most = max(once[""], once[peers[0]])  # both the same, so that the caches are as warm
        calls = {name: _calls(max(ms, most) if name else most) for name, ms in once.items()}
        if at is not None:
            calls = {name: min(n, at.capacity // at.added) for name, n in calls.items()}
        calls[peers[0]] = calls[""]
        took: dict[str, list[float]] = {name: [] for name in runs}
        watch = Watch()
        watch.probe()
        for i in range(rounds):
            progress("bench", i / rounds)
            for name in runs if i % 2 == 0 else reversed(runs):
                took[name].append(runs[name](2 + i, calls[name]))
            watch.probe()
    ours, theirs = tuple(took.pop("")), {n: tuple(t) for n, t in took.items()}
    return Measured(ours, theirs, failed, calls[""], threads, tuple(watch.disturbed()))


def _calls(milliseconds: float) -> int:
    """How many calls make a measurement."""
    return max(1, min(MOST_CALLS, round(LONG * 1e3 / max(milliseconds, 1e-6))))


def feeds(ports: Sequence[Port], setting: Setting, number: int, calls: int) -> list[Feed]:
    """New inputs for every call of measurement `number`, the same in both processes."""
    return [
        random_feed(ports, [setting.seed, number, i], setting.ranges) for i in range(calls + min(WARM, calls))
    ]


def timed(run: Callable[[Feed], Any], given: Sequence[Feed], calls: int) -> float:
    """Median milliseconds of the last `calls` calls; those before them warm up."""
    took: list[float] = []
    for feed in given:
        start = time.perf_counter()
        run(feed)
        took.append((time.perf_counter() - start) * 1e3)
    return statistics.median(took[-calls:])


class Peer:
    """Another runtime in a process of its own, stopped except while it is asked.

    values: of inputs that are constants of our program.
    """

    def __init__(
        self,
        name: str,
        model: str,
        ports: Ports,
        setting: Setting,
        values: Mapping[str, Array] | None = None,
    ) -> None:
        self._name, self._limit = name, setting.limit
        self._first = {
            "peer": name,
            "model": setting.files.get(name, model),
            "threads": setting.threads,
            "ports": [[p.name, list(p.shape), p.dtype.name] for p in ports.inputs],
            "states": [list(s) for s in ports.states],
            "length": None if ports.length is None else astuple(ports.length),
            "ranges": {n: list(r) for n, r in setting.ranges.items()},
            "seed": setting.seed,
            "values": [[n, v.dtype.name, v.tolist()] for n, v in (values or {}).items()],
        }
        self._process: Any = None

    @contextmanager
    def started(self) -> Generator[Peer]:
        command = [sys.executable, "-m", "waferc.compiler.verify.bench"]
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

    def measure(self, number: int, calls: int) -> float:
        """Median milliseconds of `calls` calls with the inputs of measurement `number`."""
        return float(self._ask({"number": number, "calls": calls})["milliseconds"])

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Wakes the peer, asks, and stops it again."""
        try:
            self._process.send_signal(signal.SIGCONT)
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], self._limit)[0]:
                raise PeerFailed(f"{self._name} took more than {self._limit:g} s")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerFailed(f"{self._name}'s process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(str(answer["error"]))
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return answer


def serve(requests: TextIO, answers: TextIO) -> None:
    """The peer's side: the model first, then measurements."""

    def answer(data: Mapping[str, Any]) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    first: dict[str, Any] = json.loads(requests.readline())
    ports = [Port(n, tuple(s), np.dtype(t)) for n, s, t in first["ports"]]
    states = [(past, present) for past, present in first["states"]]
    ranges = {n: (float(low), float(high)) for n, (low, high) in first["ranges"].items()}
    setting = Setting(first["threads"], first["seed"], ranges)
    try:
        runtime = load_peer(first["peer"], first["model"], first["threads"], ports)
        length = None if first["length"] is None else Length(*first["length"])
        values = {n: np.array(v, t) for n, t, v in first["values"]}
        streaming = Streaming(runtime, ports, states, length, values)
        answer({})
        fresh = [p for p in ports if p.name not in {past for past, _ in states}]
        for line in requests:
            r = json.loads(line)
            given = feeds(fresh, setting, r["number"], r["calls"])
            if length is not None:
                streaming.reset()
            answer({"milliseconds": timed(streaming.run, given, r["calls"])})
    except WafercError as e:
        answer({"error": str(e)})
    except Exception as e:  # whatever a peer throws: it is then left out
        answer({"error": f"{first['peer']}: {shown(str(e), 200)}"})


if __name__ == "__main__":
    # A peer's own words must not get between the answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, channel)
