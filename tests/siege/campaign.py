"""The siege: `make siege ARGS="--minutes 10"`.

Each harness replays its corpus, then draws new items and changes ones that reached lines which no other had.
Findings lie in build/siege/findings, one folder each, with the command that shows it again in COMMAND.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from random import Random

from supervised import Died
from supervised import Worker as Process

from siege import artifacts, folders, inputs, models, seeds
from siege.findings import Findings
from siege.items import BUILD, CORPUS, Item, store, stored
from siege.reached import Line, share
from siege.trial import GROWN, Outcome, Worker, patience

HARNESSES = {"import": models, "artifact": artifacts, "input": inputs, "folder": folders}
MOST_KEPT = 300_000  # bytes of the committed corpus


@dataclass
class Harness:
    """One kind of items: those that reached something, and how it went so far."""

    name: str
    drawn: Callable[[Random], Item]
    mutated: Callable[[Random, Item, Item], Item]
    corpus: list[Item] = field(default_factory=list[Item])
    lines: dict[str, frozenset[Line]] = field(
        default_factory=dict[str, frozenset[Line]]
    )  # by item, which it found
    executions: int = 0
    seconds: float = 0.0
    codes: Counter[int] = field(default_factory=Counter[int])

    @property
    def cost(self) -> int:
        """How many items of other harnesses one takes as long as: folders are planned, mostly."""
        return 8 if self.name == "folder" else 1

    def next(self, random: Random) -> Item:
        if not self.corpus or random.random() < 0.35:
            return self.drawn(random)
        # The newest half more often: what they reached is not yet explored.
        first = random.randrange(len(self.corpus))
        old = self.corpus[max(first, random.randrange(len(self.corpus)))]
        return self.mutated(random, old, random.choice(self.corpus))


@dataclass(frozen=True)
class Effort:
    """How long a harness is at it. draws: items besides the corpus, None for as many as the time allows."""

    seconds: float
    draws: int | None
    crew: int


def items_of(harness: Harness, effort: Effort, random: Random) -> Iterator[Item]:
    """What the harness tries. What earlier sieges kept on this machine is among it where time is the end."""
    replay = [*stored(CORPUS, harness.name)]
    if effort.draws is None:
        replay += stored(BUILD / "corpus", harness.name)
    yield from {i.name: i for i in replay}.values()
    for _ in itertools.count() if effort.draws is None else range(-(-effort.draws // harness.cost)):
        yield harness.next(random)


def besiege(harness: Harness, effort: Effort, random: Random, findings: Findings, known: set[Line]) -> None:
    """Tries items until the effort is made; lines that were reached are added to `known`.

    What is learnt of an item, and so what is drawn after it, does not depend on which worker is done first:
    before an item is drawn, all are learnt but the last ones, one fewer than there are workers.
    """
    items = items_of(harness, effort, random)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="siege-") as folder:
        crew = [_Place(Path(folder) / str(i), known) for i in range(effort.crew)]
        tried: deque[_Place] = deque()  # in the order in which their items were drawn
        try:
            while True:
                late = time.monotonic() - start >= effort.seconds
                idle = next((p for p in crew if p not in tried), None)
                if idle is not None and not late and (new := next(items, None)) is not None:
                    idle.give(new)
                    tried.append(idle)
                    continue
                if not tried or late:
                    break
                for p in tried:
                    p.take()
                if tried[0].result is None:
                    wait([p.process.pipe for p in tried if p.result is None and p.process.pipe], timeout=0.5)
                    continue
                place = tried.popleft()
                harness.executions += 1
                _learn(harness, place, findings, known)
        finally:
            for p in crew:
                p.process.stop()
    harness.seconds += time.monotonic() - start


class _Place:
    """Where one item after the other is tried, in a process that is replaced now and then."""

    def __init__(self, folder: Path, known: set[Line]) -> None:
        self.folder, self._known, self._count = folder, known, 0
        self.process = _worker(folder, known)
        self.item: Item | None = None
        self.result: Outcome | Died | None = None

    def give(self, item: Item) -> None:
        if self._count >= GROWN or isinstance(self.result, Died):
            self.process.stop()
            self.process, self._count = _worker(self.folder, self._known), 0
        self.item, self.result = item, None
        self._count += 1
        self.process.give(item)

    def take(self) -> None:
        if self.result is None:
            self.result = self.process.taken(patience())


def _worker(folder: Path, known: set[Line]) -> Process[Item, Outcome]:
    return Process(Worker(folder, known))


def _learn(harness: Harness, place: _Place, findings: Findings, known: set[Line]) -> None:
    item, result = place.item, place.result
    assert item is not None and result is not None
    if isinstance(result, Died):
        findings.died(item, result, place.folder / "stacks")
        return
    harness.codes[result.codes[-1] if result.codes else 0] += 1
    new = result.new - known
    if result.finding is not None:
        findings.found(item, result.finding)
    if new:
        known |= new
        harness.corpus.append(item)
        harness.lines[item.name] = frozenset(new)
        if result.finding is None:
            store(BUILD / "corpus", item)


def keep(harnesses: Sequence[Harness]) -> None:
    """Writes the committed corpus anew: of what this siege kept, the most lines for the fewest bytes."""
    for h in harnesses:
        for old in (CORPUS / h.name).glob("*.json"):
            old.unlink()
        left = MOST_KEPT // len(HARNESSES)
        ended_well = [i for i in h.corpus if (BUILD / "corpus" / h.name / f"{i.name}.json").exists()]
        sizes = {i.name: len(i.dumps()) for i in ended_well}
        for item in sorted(ended_well, key=lambda i: -len(h.lines[i.name]) / sizes[i.name]):
            if sizes[item.name] <= left:
                left -= sizes[item.name]
                store(CORPUS, item)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="siege", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all (10)")
    parser.add_argument(
        "--draws",
        type=int,
        help="so many items of each harness besides the corpus; an eighth, of folders",
    )
    parser.add_argument("--only", choices=HARNESSES, help="one harness, for all the time")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="of what is drawn; by default another one each time")
    parser.add_argument(
        "--keep", action="store_true", help="write tests/siege/corpus anew from what was found"
    )
    options = parser.parse_args(words)
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    random = Random(seed)
    names = [options.only] if options.only else list(HARNESSES)
    harnesses = [Harness(n, HARNESSES[n].drawn, HARNESSES[n].mutated) for n in names]
    findings = Findings(BUILD / "findings", names)
    known = set[Line]()
    seconds = options.minutes * 60 / len(names) if options.draws is None else math.inf
    effort = Effort(seconds, options.draws, options.workers)
    length = f"{options.minutes:g} minutes" if options.draws is None else f"{options.draws:,} draws each"
    print(f"seed {seed}, {length}, {options.workers} workers", flush=True)
    os.environ["WAFERC_CACHE"] = str(BUILD / "cache")
    artifacts.warm()
    seeds.seeds()
    for h in harnesses:
        besiege(h, effort, random, findings, known)
        _say(h)
    print(f"lines reached, of those within functions: {share(known)}")
    if options.keep:
        keep(harnesses)
    for line in findings.lines():
        print(line)
    print(f"{sum(h.executions for h in harnesses):,} executions, {len(findings)} findings")
    return int(len(findings) > 0)


def _say(h: Harness) -> None:
    codes = ", ".join(f"{code}: {n:,}" for code, n in sorted(h.codes.items()))
    rate = f"{h.executions:,} executions, {h.executions / max(h.seconds, 1e-9):.1f} a second"
    print(f"{h.name}: {rate}, corpus {len(h.corpus):,}; exit codes {codes}", flush=True)
