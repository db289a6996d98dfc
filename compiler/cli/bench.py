"""`waferc bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..errors import UsageError, quoted, shown
from ..show.text import plural, table
from .command import Verb
from .console import Console
from .named_files import Reads
from .options import COMPILING, asking, gathered, ranges, unique

if TYPE_CHECKING:
    from ..request import Request
    from ..verify.bench import Measured


@dataclass(frozen=True)
class Measuring:
    """What is timed and how often, from the command line."""

    threads: tuple[int, ...]
    pairs: int
    peers: tuple[str, ...]
    no_peers: bool
    peer_limit: float
    seed_of_inputs: int
    ranges: tuple[tuple[str, tuple[float, float]], ...]


@click.command(cls=Verb)
@click.argument("model", type=Reads(model=True))
@asking(*COMPILING)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    multiple=True,
    metavar="N",
    help="Host threads of both; by default all processors; may be repeated.",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=7,
    show_default=True,
    help="Pairs of measurements.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME",
    help="Beside onnxruntime: openvino, openvino-f32, iree; by default all that are installed.",
)
@click.option("--no-peers", is_flag=True, help="Beside onnxruntime: none.")
@click.option(
    "--peer-limit",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=60,
    show_default=True,
    help="A peer that takes longer to get ready is left out.",
)
@click.option(
    "--random",
    "seed_of_inputs",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="SEED",
    help="Of the inputs.",
)
@ranges
@gathered(Measuring)
@click.pass_obj
def bench(
    console: Console,
    model: str,
    request: Request,
    how: Measuring,
) -> None:
    """Time a model side by side with onnxruntime.

    All run on this machine with the same number of threads and the same inputs, new
    ones in each call, in turns: while one runs, the others' processes are stopped.
    """
    import time
    from statistics import median

    from ..exports.folders import model_file
    from ..pipeline import compile_model
    from ..show.figures import totals
    from ..verify.bench import Setting, measure
    from ..verify.peers import FIRST, available

    installed = available()
    if unknown := [p for p in how.peers if p not in installed]:
        known = ", ".join(installed[1:]) or "none"
        raise UsageError(
            f"--peer {quoted(unknown[0])} is not installed; besides onnxruntime there are: {known}"
        )
    beside = () if how.no_peers else how.peers or installed[1:]
    model = model_file(model)
    compiled = compile_model(model, request, report=console.progress)
    start = time.perf_counter()
    program = compiled.program
    compiled.seconds["codegen"] = time.perf_counter() - start
    limits = unique("--range", how.ranges)
    runs: list[dict[str, object]] = []
    for used in how.threads or (program.threads,):
        found = measure(
            program,
            model,
            (FIRST, *beside),
            how.pairs,
            Setting(used, how.seed_of_inputs, limits, how.peer_limit),
            console.progress,
        )
        _say_measured(console, found)
        runs.append(
            {
                "threads": used,
                "calls": found.calls,
                "waferc_ms": median(found.ours),
                "peers": {n: median(t) for n, t in found.peers.items()},
                "failed": found.failed,
                "ratio": found.ratio(),
                "ratios": found.ratios(),
                "rounds_ms": {"waferc": found.ours, **found.peers},
                "disturbed": found.disturbed,
            }
        )
    staged = program.staged
    f = compiled.figures if staged is None else totals(compiled.figures_of, staged.ran)
    console.say(f"on {shown(compiled.wafer.name)} itself {f.cycles:,.0f} cycles")
    console.result(
        {
            "model": model,
            "wafer": compiled.wafer.name,
            "pairs": how.pairs,
            "runs": runs,
            "wafer_cycles": f.cycles,
            "tasks": f.tasks,
            "seconds": compiled.seconds,
        }
    )


def _say_measured(console: Console, found: Measured) -> None:
    """One table per number of threads."""
    from statistics import median

    rows = [["waferc", f"{median(found.ours):,.4f}", f"{min(found.ours):,.4f}", "", ""]]
    for name, times in found.peers.items():
        ratios = found.ratios(name)
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append([name, f"{median(times):,.4f}", f"{min(times):,.4f}", f"{found.ratio(name):.2f}", span])
    title = plural(found.threads, "thread")
    for line in table([title, "median ms", "best ms", "ratio", "of pairs"], rows):
        console.say(line)
    for name, why in found.failed.items():
        console.note(f"{name} left out: {why}")
    console.say(
        f"ratio: waferc's time over the peer's, median of {plural(len(found.ours), 'pair')}; "
        f"below 1\nwaferc is faster; {plural(found.calls, 'call')} per measurement"
    )
    if any(found.disturbed):
        rounds = plural(len(found.disturbed), "pair")
        console.say(f"{sum(found.disturbed)} of {rounds} disturbed: something else used the core")
    console.say()
